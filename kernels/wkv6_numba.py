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

from hybridlab.kernels.numerics_numba import FAST, arrays, exp

CHUNK = 16
# Multiply-adds below which waking a second thread costs more than it saves.
SERIAL_WORK = 1 << 17
# Sums may be reordered, so that they run in vector lanes; infinities and NaN stay what they are.
REORDER = {"contract", "reassoc"}


class Chunk(NamedTuple):
    """What a chunk of C tokens of one head holds."""

    r: np.ndarray  # (C, K)
    k: np.ndarray  # (C, K)
    v: np.ndarray  # (C, V)
    grad_output: np.ndarray  # (C, V)
    decay: np.ndarray  # (C, K): of each step
    before: np.ndarray  # (C, K): from the chunk's start to where the token reads
    after: np.ndarray  # (C, K): from where the token is written to the chunk's end
    total: np.ndarray  # (K,): of the whole chunk


class Grads(NamedTuple):
    """The gradients of one chunk."""

    r: np.ndarray
    k: np.ndarray
    v: np.ndarray
    log_decay: np.ndarray


def forward(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output and final state; see `hybridlab.ops.wkv6`."""
    output = torch.empty(v.shape, dtype=v.dtype)
    final = torch.empty(state.shape, dtype=state.dtype)
    inputs = arrays((r, k, v, log_decay, bonus, state))
    run = _forward_serial if v.numel() * k.shape[3] < SERIAL_WORK else _forward_parallel
    run(inputs, output.numpy(), final.numpy())
    return output, final


@njit(cache=True)
def _forward_serial(inputs, output, final):
    for head in range(final.shape[0] * final.shape[1]):
        _forward_head(inputs, output, final, head)


@njit(cache=True, parallel=True)
def _forward_parallel(inputs, output, final):
    for head in prange(final.shape[0] * final.shape[1]):
        _forward_head(inputs, output, final, head)


@njit(fastmath=REORDER)
def _forward_head(inputs, output, final, head):
    r, k, v, log_decay, bonus, state = inputs
    b, h = head // r.shape[2], head % r.shape[2]
    S = final[b, h]
    S[:] = state[b, h]
    decay = np.empty(r.shape[3], r.dtype)
    for t in range(r.shape[1]):
        if t < log_decay.shape[1]:  # a decay that is constant in time is computed once
            _exp_row(log_decay[b % log_decay.shape[0], t, h], decay)
        _own_token(r[b, t, h], k[b, t, h], v[b, t, h], bonus[h], output[b, t, h])
        _step(r[b, t, h], k[b, t, h], v[b, t, h], decay, S, output[b, t, h])


@njit(fastmath=FAST)
def _exp_row(log_decay, decay):
    # In a function of its own: `exp` does not survive reordering.
    for i in range(decay.size):
        decay[i] = exp(log_decay[i])


@njit(fastmath=REORDER)
def _own_token(r, k, v, bonus, output):
    weight = r.dtype.type(0)
    for i in range(r.size):
        weight += r[i] * bonus[i] * k[i]
    for j in range(v.size):
        output[j] = weight * v[j]


@njit(fastmath=REORDER)
def _step(r, k, v, decay, S, output):
    for i in range(r.size):
        r_i, k_i, decay_i = r[i], k[i], decay[i]
        for j in range(v.size):
            s = S[i, j]
            output[j] += r_i * s
            S[i, j] = decay_i * s + k_i * v[j]


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of r, k, v, log_decay, bonus and the first state.

    Args:
        tensors: r, k, v, log_decay, bonus, state, output, final state, gradient of output, gradient of final state.
    """
    *inputs, _, _, grad_output, grad_final = arrays(tensors)
    r, k, v, log_decay, bonus, state = inputs
    # One row a batch entry: threads never add into the same place. Summed below where an input is shared.
    each_decay = np.zeros((r.shape[0], *log_decay.shape[1:]), r.dtype)
    each_bonus = np.zeros((r.shape[0], *bonus.shape), r.dtype)
    grads = (np.empty_like(r), np.empty_like(k), np.empty_like(v), each_decay, each_bonus, np.empty_like(state))
    _backward_parallel(tuple(inputs), grad_output, grad_final, grads)
    grad_r, grad_k, grad_v, _, _, grad_state = (torch.from_numpy(x) for x in grads)
    grad_decay = each_decay if log_decay.shape[0] == r.shape[0] else each_decay.sum(0, keepdims=True)
    return grad_r, grad_k, grad_v, torch.from_numpy(grad_decay), torch.from_numpy(each_bonus.sum(0)), grad_state


@njit(cache=True, parallel=True)
def _backward_parallel(inputs, grad_output, grad_final, grads):
    for head in prange(grad_final.shape[0] * grad_final.shape[1]):
        _backward_head(inputs, grad_output, grad_final, grads, head)


@njit
def _backward_head(inputs, grad_output, grad_final, grads, head):
    heads = grad_final.shape[1]
    b, h = head // heads, head % heads
    starts = _states_at_starts(inputs, grad_output, b, h)
    # The gradient of the state after the chunk, both ways round: each matrix product reads its rows.
    G = grad_final[b, h].copy()
    G_T = np.ascontiguousarray(G.T)
    bonus, grad_bonus = inputs[4][h], grads[4][b, h]
    for n in range(starts.shape[0] - 1, -1, -1):
        chunk = _chunk(inputs, grad_output, b, h, n)
        local = Grads(np.zeros_like(chunk.r), np.zeros_like(chunk.k), np.zeros_like(chunk.v), np.zeros_like(chunk.r))
        _through_state(chunk, starts[n], G, G_T, local)
        _inside_chunk(chunk, local)
        _own_tokens(chunk, bonus, local, grad_bonus)
        _store(local, grads, b, h, n)
    grads[5][b, h] = G


@njit
def _chunk(inputs, grad_output, b, h, n):
    r, k, v, log_decay, _, _ = inputs
    start, stop = n * CHUNK, min(r.shape[1], (n + 1) * CHUNK)
    decay = np.empty((stop - start, r.shape[3]), r.dtype)
    for t in range(start, stop):
        _exp_row(log_decay[b % log_decay.shape[0], min(t, log_decay.shape[1] - 1), h], decay[t - start])
    before, after, total = _products(decay)
    return Chunk(
        _rows(r, b, h, start, stop),
        _rows(k, b, h, start, stop),
        _rows(v, b, h, start, stop),
        _rows(grad_output, b, h, start, stop),
        decay,
        before,
        after,
        total,
    )


@njit
def _rows(x, b, h, start, stop):
    rows = np.empty((stop - start, x.shape[3]), x.dtype)
    for t in range(start, stop):
        for i in range(x.shape[3]):
            rows[t - start, i] = x[b, t, h, i]
    return rows


@njit
def _products(decay):
    before, after, total = np.ones_like(decay), np.ones_like(decay), decay[0].copy()
    for t in range(1, decay.shape[0]):
        for i in range(decay.shape[1]):
            before[t, i] = before[t - 1, i] * decay[t - 1, i]
            total[i] *= decay[t, i]
    for t in range(decay.shape[0] - 2, -1, -1):
        for i in range(decay.shape[1]):
            after[t, i] = after[t + 1, i] * decay[t + 1, i]
    return before, after, total


@njit
def _states_at_starts(inputs, grad_output, b, h):
    T = inputs[0].shape[1]
    state = np.ascontiguousarray(inputs[5][b, h].T)
    starts = np.empty((-(-T // CHUNK), *state.shape), state.dtype)
    for n in range(starts.shape[0]):
        starts[n] = state
        chunk = _chunk(inputs, grad_output, b, h, n)
        _fade_columns(state, chunk.total)
        _add_product(state, chunk.v.T, chunk.k * chunk.after)
    return starts


@njit(fastmath=REORDER)
def _through_state(chunk, S_T, G, G_T, grads):
    """What reads the state of the chunk's start, and what is written for after its end."""
    read, write = chunk.r * chunk.before, chunk.k * chunk.after
    grad_read, grad_write = np.zeros_like(read), np.zeros_like(write)
    _add_product(grad_read, chunk.grad_output, S_T)
    _add_product(grad_write, chunk.v, G_T)
    _add_product(grads.v, write, G)
    crossing = np.zeros_like(chunk.total)  # what the old state adds to the gradient of the new one, per decay
    for j in range(S_T.shape[0]):
        for i in range(crossing.size):
            crossing[i] += S_T[j, i] * G_T[j, i] * chunk.total[i]
    _log_decay_of_reads(read, grad_read, crossing, grads.log_decay)
    _log_decay_of_writes(write, grad_write, grads.log_decay)
    for t in range(read.shape[0]):
        for i in range(read.shape[1]):
            grads.r[t, i] = chunk.before[t, i] * grad_read[t, i]
            grads.k[t, i] = chunk.after[t, i] * grad_write[t, i]
    for i in range(G.shape[0]):
        for j in range(G.shape[1]):
            G[i, j] *= chunk.total[i]
    _add_product(G, read.T, chunk.grad_output)
    _fade_columns(G_T, chunk.total)
    _add_product(G_T, chunk.grad_output.T, read)


@njit
def _log_decay_of_reads(read, grad_read, crossing, grad_log_decay):
    """A step's decay fades the old state for every later reader of the chunk and for the next chunk."""
    later = crossing
    for t in range(read.shape[0] - 1, -1, -1):
        for i in range(read.shape[1]):
            grad_log_decay[t, i] += later[i]
            later[i] += read[t, i] * grad_read[t, i]


@njit
def _log_decay_of_writes(write, grad_write, grad_log_decay):
    """A step's decay fades what earlier tokens of the chunk wrote for the next chunk."""
    earlier = np.zeros_like(write[0])
    for t in range(write.shape[0]):
        for i in range(write.shape[1]):
            grad_log_decay[t, i] += earlier[i]
            earlier[i] += write[t, i] * grad_write[t, i]


@njit
def _inside_chunk(chunk, grads):
    """Every pair of one chunk: token t reads what token s < t wrote, faded by the steps between them."""
    between = np.ones_like(chunk.k)  # row s: decay from after s to before t
    for t in range(1, chunk.r.shape[0]):
        earlier = np.zeros_like(chunk.total)
        for s in range(t):
            grad_score = _dot(chunk.grad_output[t], chunk.v[s])
            score = _pair(chunk, grads, between[s], earlier, t, s, grad_score)
            for j in range(chunk.v.shape[1]):
                grads.v[s, j] += score * chunk.grad_output[t, j]


@njit(fastmath=REORDER)
def _pair(chunk, grads, between, earlier, t, s, grad_score):
    score = grad_score * 0
    last = t - 1
    for i in range(between.size):
        fade = between[i]
        read, written = chunk.r[t, i] * fade, chunk.k[s, i] * fade
        term = chunk.r[t, i] * written
        score += term
        grads.r[t, i] += grad_score * written
        grads.k[s, i] += grad_score * read
        # The steps after s and before t fade this pair: step s + 1 sees the pairs of all writers up to s.
        earlier[i] += grad_score * term
        if s < last:
            grads.log_decay[s + 1, i] += earlier[i]
        between[i] = fade * chunk.decay[t, i]
    return score


@njit(fastmath=REORDER)
def _own_tokens(chunk, bonus, grads, grad_bonus):
    """The bonus: a token reads itself."""
    for t in range(chunk.r.shape[0]):
        grad_weight = _dot(chunk.grad_output[t], chunk.v[t])
        weight = grad_weight * 0
        for i in range(bonus.size):
            r, k = chunk.r[t, i], chunk.k[t, i]
            weight += r * bonus[i] * k
            grads.r[t, i] += grad_weight * bonus[i] * k
            grads.k[t, i] += grad_weight * bonus[i] * r
            grad_bonus[i] += grad_weight * r * k
        for j in range(chunk.v.shape[1]):
            grads.v[t, j] += weight * chunk.grad_output[t, j]


@njit
def _store(local, grads, b, h, n):
    grad_r, grad_k, grad_v, grad_log_decay, _, _ = grads
    for i in range(local.r.shape[0]):
        t = n * CHUNK + i
        grad_r[b, t, h] = local.r[i]
        grad_k[b, t, h] = local.k[i]
        grad_v[b, t, h] = local.v[i]
        grad_log_decay[b, min(t, grad_log_decay.shape[1] - 1), h] += local.log_decay[i]


@njit(fastmath=REORDER)
def _dot(x, y):
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@njit
def _fade_columns(matrix, total):
    for j in range(matrix.shape[0]):
        for i in range(matrix.shape[1]):
            matrix[j, i] *= total[i]


@njit(fastmath=REORDER)
def _add_product(out, a, b):
    """out += a @ b; four rows by four terms at a time, so that a number once loaded is used four times."""
    rows, terms = out.shape[0], b.shape[0]
    for m in range(0, rows - 3, 4):
        for n in range(0, terms - 3, 4):
            _add_four_by_four(out[m : m + 4], a[m : m + 4, n : n + 4], b[n : n + 4])
        _add_simply(out[m : m + 4], a[m : m + 4, terms - terms % 4 :], b[terms - terms % 4 :])
    _add_simply(out[rows - rows % 4 :], a[rows - rows % 4 :], b)


@njit(fastmath=REORDER)
def _add_simply(out, a, b):
    for m in range(out.shape[0]):
        for n in range(b.shape[0]):
            factor = a[m, n]
            for j in range(out.shape[1]):
                out[m, j] += factor * b[n, j]


@njit(fastmath=REORDER)
def _add_four_by_four(out, a, b):
    a00, a01, a02, a03 = a[0, 0], a[0, 1], a[0, 2], a[0, 3]
    a10, a11, a12, a13 = a[1, 0], a[1, 1], a[1, 2], a[1, 3]
    a20, a21, a22, a23 = a[2, 0], a[2, 1], a[2, 2], a[2, 3]
    a30, a31, a32, a33 = a[3, 0], a[3, 1], a[3, 2], a[3, 3]
    for j in range(out.shape[1]):
        b0, b1, b2, b3 = b[0, j], b[1, j], b[2, j], b[3, j]
        out[0, j] += a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
        out[1, j] += a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
        out[2, j] += a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
        out[3, j] += a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3
