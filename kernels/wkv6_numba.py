"""wkv6 on a CPU: the recurrence forwards, chunks of matrix products backwards; one head is one task for a thread.

Forwards the state of a head (16 KiB for K = V = 64) lives in the first cache, and the literal recurrence is as fast as the
arithmetic allows. Backwards the recurrence would have to keep a state for every token, so it goes by chunks: the states at
chunk starts are computed again, and what tokens of one chunk do to each other is summed over pairs.

Decays between two tokens are products of step decays, each at most 1: nothing is divided, nothing overflows, and no sum
cancels, so a gradient that should be 1e-9 is 1e-9.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hybridlab.kernels.matrices_numba import (
    REORDER,
    add_product,
    aligned,
    clear,
    dot,
    fade_columns,
    fade_rows,
    transposed,
)
from hybridlab.kernels.numerics_numba import FAST, arrays, exp

# Tokens a chunk of the backward; a short last chunk is filled up with tokens that do nothing.
CHUNK = 16
# Multiply-adds below which waking a second thread costs more than it saves.
SERIAL_WORK = 1 << 17


class Chunk(NamedTuple):
    """Tokens of one head and their gradients: CHUNK rows of K or V numbers, but for `total` (K numbers)."""

    r: np.ndarray
    k: np.ndarray
    v: np.ndarray
    grad_output: np.ndarray
    decay: np.ndarray  # of each token's step
    before: np.ndarray  # from the chunk's start to where the token reads
    after: np.ndarray  # from where the token is written to the chunk's end
    total: np.ndarray  # of the whole chunk
    read: np.ndarray  # r * before
    write: np.ndarray  # k * after
    between: np.ndarray  # row s: from after token s to before the token in hand
    grad_r: np.ndarray
    grad_k: np.ndarray
    grad_v: np.ndarray
    grad_log_decay: np.ndarray


def forward(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output and final state; see `hybridlab.ops.wkv6`."""
    output = torch.empty(v.shape, dtype=v.dtype)
    final = state.detach().clone(memory_format=torch.contiguous_format)
    inputs = arrays((r, k, v, log_decay, bonus))
    run = _forward_serial if v.numel() * k.shape[3] < SERIAL_WORK else _forward_parallel
    run(inputs, final.numpy(), output.numpy())
    return output, final


@njit(cache=True)
def _forward_serial(inputs, state, output):
    for head in range(state.shape[0] * state.shape[1]):
        _forward_head(inputs, state, output, head)


@njit(cache=True, parallel=True)
def _forward_parallel(inputs, state, output):
    for head in prange(state.shape[0] * state.shape[1]):
        _forward_head(inputs, state, output, np.int64(head))


@njit(fastmath=REORDER)
def _forward_head(inputs, state, output, head):
    r, k, v, log_decay, bonus = inputs
    b, h = head // r.shape[2], head % r.shape[2]
    S = state[b, h]
    decay = np.empty(r.shape[3], r.dtype)
    for t in range(r.shape[1]):
        if t < log_decay.shape[1]:  # a decay that is constant in time is computed once
            _exp_row(log_decay[b % log_decay.shape[0], t, h], decay)
        own = r.dtype.type(0)
        for i in range(r.shape[3]):
            own += r[b, t, h, i] * bonus[h, i] * k[b, t, h, i]
        for j in range(v.shape[3]):
            output[b, t, h, j] = own * v[b, t, h, j]
        for i in range(r.shape[3]):
            r_i, k_i, decay_i = r[b, t, h, i], k[b, t, h, i], decay[i]
            for j in range(v.shape[3]):
                s = S[i, j]
                output[b, t, h, j] += r_i * s
                S[i, j] = decay_i * s + k_i * v[b, t, h, j]


@njit(fastmath=FAST)
def _exp_row(log_decay, decay):
    # In a function of its own: `exp` does not survive reordering.
    for i in range(decay.size):
        decay[i] = exp(log_decay[i])


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of r, k, v, log_decay, bonus and the first state.

    Args:
        tensors: r, k, v, log_decay, bonus, state, output, final state, gradient of output, gradient of final state.
    """
    r, k, v, log_decay, bonus, state, _, _, grad_output, grad_final = tensors
    B = r.shape[0]
    grad_r, grad_k, grad_v = (torch.empty(x.shape, dtype=x.dtype) for x in (r, k, v))
    # One entry a batch row, so that threads never add into the same place; summed where the rows share one.
    grad_decay = log_decay.new_zeros(B, *log_decay.shape[1:])
    grad_bonus = bonus.new_zeros(B, *bonus.shape)
    grad_state = grad_final.detach().clone(memory_format=torch.contiguous_format)
    grads = (grad_r, grad_k, grad_v, grad_decay, grad_bonus, grad_state)
    _backward(arrays((r, k, v, log_decay, bonus, state, grad_output)), arrays(grads))
    if log_decay.shape[0] < B:
        grad_decay = grad_decay.sum(0, keepdim=True)
    return grad_r, grad_k, grad_v, grad_decay, grad_bonus.sum(0), grad_state


@njit(cache=True, parallel=True)
def _backward(inputs, grads):
    heads = inputs[0].shape[2]
    for head in prange(inputs[0].shape[0] * heads):
        _backward_head(inputs, grads, np.int64(head) // heads, np.int64(head) % heads)


@njit
def _backward_head(inputs, grads, b, h):
    r, v, bonus = inputs[0], inputs[2], inputs[4]
    chunk = _new_chunk(r, v)
    starts = _states_at_starts(inputs, chunk, b, h)
    # The gradient of the state after the chunk, both ways round: matrix products run along rows.
    G = grads[5][b, h]
    G_T = transposed(G)
    grad_read, grad_write = aligned(CHUNK, r), aligned(CHUNK, r)
    for n in range(starts.shape[0] - 1, -1, -1):
        _load_chunk(inputs, chunk, b, h, n * CHUNK)
        _own_tokens(chunk, bonus[h], grads[4][b, h])
        clear(grad_read)
        clear(grad_write)
        add_product(grad_read, chunk.grad_output, starts[n])
        add_product(grad_write, chunk.v, G_T)
        add_product(chunk.grad_v, chunk.write, G)
        _through_state(chunk, grad_read, grad_write, _crossing(starts[n], G_T, chunk.total))
        _inside_chunk(chunk)
        fade_rows(G, chunk.total)
        add_product(G, chunk.read.T, chunk.grad_output)
        fade_columns(G_T, chunk.total)
        add_product(G_T, chunk.grad_output.T, chunk.read)
        _store_chunk(chunk, grads, b, h, n * CHUNK)


@njit
def _new_chunk(r, v):
    return Chunk(
        aligned(CHUNK, r),
        aligned(CHUNK, r),
        aligned(CHUNK, v),
        aligned(CHUNK, v),
        aligned(CHUNK, r),
        aligned(CHUNK, r),
        aligned(CHUNK, r),
        np.empty(r.shape[3], r.dtype),
        aligned(CHUNK, r),
        aligned(CHUNK, r),
        aligned(CHUNK, r),
        aligned(CHUNK, r),
        aligned(CHUNK, r),
        aligned(CHUNK, v),
        aligned(CHUNK, r),
    )


@njit
def _states_at_starts(inputs, chunk, b, h):
    """The state before each chunk, (chunks, V, K)."""
    state = transposed(inputs[5][b, h])
    starts = np.empty((-(-inputs[0].shape[1] // CHUNK), *state.shape), state.dtype)
    for n in range(starts.shape[0]):
        starts[n] = state
        _load_chunk(inputs, chunk, b, h, n * CHUNK)
        fade_columns(state, chunk.total)
        add_product(state, chunk.v.T, chunk.write)
    return starts


@njit
def _load_chunk(inputs, chunk, b, h, start):
    r, k, v, log_decay, _, _, grad_output = inputs
    _load_rows(r, chunk.r, b, h, start)
    _load_rows(k, chunk.k, b, h, start)
    _load_rows(v, chunk.v, b, h, start)
    _load_rows(grad_output, chunk.grad_output, b, h, start)
    for t in range(CHUNK):
        if start + t < r.shape[1]:
            _exp_row(log_decay[b % log_decay.shape[0], min(start + t, log_decay.shape[1] - 1), h], chunk.decay[t])
        else:
            chunk.decay[t] = 1
    _fade_tokens(chunk)
    clear(chunk.grad_r)
    clear(chunk.grad_k)
    clear(chunk.grad_v)
    clear(chunk.grad_log_decay)


@njit
def _load_rows(x, rows, b, h, start):
    for t in range(CHUNK):
        if start + t < x.shape[1]:
            for i in range(x.shape[3]):
                rows[t, i] = x[b, start + t, h, i]
        else:
            rows[t] = 0


@njit
def _fade_tokens(chunk):
    total = chunk.total
    total[:] = 1
    for t in range(CHUNK):
        for i in range(total.size):
            chunk.before[t, i] = total[i]
            chunk.read[t, i] = chunk.r[t, i] * total[i]
            total[i] *= chunk.decay[t, i]
    total[:] = 1
    for t in range(CHUNK - 1, -1, -1):
        for i in range(total.size):
            chunk.after[t, i] = total[i]
            chunk.write[t, i] = chunk.k[t, i] * total[i]
            total[i] *= chunk.decay[t, i]


@njit(fastmath=REORDER)
def _crossing(S_T, G_T, total):
    """What the chunk's decays get from the old state's part in the new one: every step the same."""
    result = np.zeros_like(total)
    for j in range(S_T.shape[0]):
        for i in range(total.size):
            result[i] += S_T[j, i] * G_T[j, i] * total[i]
    return result


@njit
def _through_state(chunk, grad_read, grad_write, crossing):
    """Gradients of what reads the state of the chunk's start and of what is written for after its end."""
    later = crossing  # a step fades the old state for the next chunk and for the later readers of this one
    for t in range(CHUNK - 1, -1, -1):
        for i in range(later.size):
            chunk.grad_r[t, i] += chunk.before[t, i] * grad_read[t, i]
            chunk.grad_log_decay[t, i] += later[i]
            later[i] += chunk.read[t, i] * grad_read[t, i]
    earlier = np.zeros_like(later)  # and what this chunk's earlier tokens write for the next one
    for t in range(CHUNK):
        for i in range(later.size):
            chunk.grad_k[t, i] += chunk.after[t, i] * grad_write[t, i]
            chunk.grad_log_decay[t, i] += earlier[i]
            earlier[i] += chunk.write[t, i] * grad_write[t, i]


@njit
def _inside_chunk(chunk):
    """Every pair of one chunk: token t reads what token s < t wrote, faded by the steps between them."""
    earlier = np.empty_like(chunk.total)
    for t in range(CHUNK):
        chunk.between[t] = 1
        earlier[:] = 0
        for s in range(t):
            grad_score = dot(chunk.grad_output, t, chunk.v, s)
            score = _pair(chunk, earlier, t, s, grad_score)
            for j in range(chunk.v.shape[1]):
                chunk.grad_v[s, j] += score * chunk.grad_output[t, j]


@njit(fastmath=REORDER)
def _pair(chunk, earlier, t, s, grad_score):
    score = grad_score * 0
    # The steps s + 1 ... t - 1 fade the pair: step s + 1 gets the terms of all writers up to s. (Step t gets none.)
    gets = s + 1 < t
    for i in range(earlier.size):
        fade = chunk.between[s, i]
        written = chunk.k[s, i] * fade
        term = chunk.r[t, i] * written
        score += term
        earlier[i] += grad_score * term
        chunk.grad_r[t, i] += grad_score * written
        chunk.grad_k[s, i] += grad_score * (chunk.r[t, i] * fade)
        chunk.between[s, i] = fade * chunk.decay[t, i]
    if gets:
        for i in range(earlier.size):
            chunk.grad_log_decay[s + 1, i] += earlier[i]
    return score


@njit(fastmath=REORDER)
def _own_tokens(chunk, bonus, grad_bonus):
    """The bonus: a token reads itself."""
    for t in range(CHUNK):
        grad_weight = dot(chunk.grad_output, t, chunk.v, t)
        weight = grad_weight * 0
        for i in range(bonus.size):
            r, k = chunk.r[t, i], chunk.k[t, i]
            weight += r * bonus[i] * k
            chunk.grad_r[t, i] += grad_weight * bonus[i] * k
            chunk.grad_k[t, i] += grad_weight * bonus[i] * r
            grad_bonus[i] += grad_weight * r * k
        for j in range(chunk.v.shape[1]):
            chunk.grad_v[t, j] += weight * chunk.grad_output[t, j]


@njit
def _store_chunk(chunk, grads, b, h, start):
    grad_r, grad_k, grad_v, grad_log_decay, _, _ = grads
    for t in range(min(CHUNK, grad_r.shape[1] - start)):
        step = min(start + t, grad_log_decay.shape[1] - 1)
        for i in range(grad_r.shape[3]):
            grad_r[b, start + t, h, i] = chunk.grad_r[t, i]
            grad_k[b, start + t, h, i] = chunk.grad_k[t, i]
            grad_log_decay[b, step, h, i] += chunk.grad_log_decay[t, i]
        for j in range(grad_v.shape[3]):
            grad_v[b, start + t, h, j] = chunk.grad_v[t, j]
