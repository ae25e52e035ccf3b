"""Heads whose matrix of memories fades by one number a token, on a CPU; `ssd` and `retention` are both this recurrence:

    S_t = e^{dt_t A} S_{t-1} + k_t (dt_t v_t)^T
    o_t = q_t S_t + D v_t

A long sequence goes by chunks, so that nearly all work is products of matrices: tokens of one chunk take from each other
through a matrix of scores, and from earlier ones through the state. A thread's task is some heads that share q and k. They
lie side by side, their states are (K, heads * V): what they share is computed once, and fewer products are larger. A few
tokens, as in decoding, go one by one and read the state where it lies.

The decay between two tokens is the product of the steps' decays, each at most 1: nothing is divided, nothing overflows, and
no sum cancels, so a gradient that should be 1e-9 is 1e-9.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor

from hybridlab.kernels.matrices_numba import REORDER, add_product, aligned, clear, transposed
from hybridlab.kernels.numerics_numba import FAST, arrays, exp

# Tokens a chunk: the scores of a head cost as much as a sixth of what goes through its state, and rows are not too short.
CHUNK = 64
# Rows of scores that are multiplied at a time; what lies right of their triangle is left out.
BLOCK = 16
# Numbers a row at most, unless a single head has more: longer ones gain little.
WIDE = 256
# Rows cost as if they were this much longer: what heads of a task share.
SHORT = 32
# Fewer tokens than this go one by one.
FEW_TOKENS = 8
# Multiply-adds below which waking a second thread costs more than it saves.
SERIAL_WORK = 1 << 17

JIT: dict[str, Any] = {"cache": True, "error_model": "numpy"}


class Inputs(NamedTuple):
    """What a call is about; B and T of dt may be 1. The state is (B, H, K, V), or (B, H, V, K) where `turned`."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    dt: np.ndarray
    A: np.ndarray
    D: np.ndarray
    state: np.ndarray


class Heads(NamedTuple):
    """Heads of one task: `number` of them from `first` on, all of one group."""

    batch: int
    group: int
    block: int  # which of the group's tasks this is
    first: int
    number: int


class Chunk(NamedTuple):
    """The tokens of a chunk as they are written, for the heads of a task."""

    turned_k: np.ndarray  # (K, CHUNK), 0 behind the last token
    written: np.ndarray  # dt * v, (heads, CHUNK, V)
    faded: np.ndarray  # dt * v * after, (CHUNK, heads * V)
    decay: np.ndarray  # of each token's step, (heads, CHUNK)
    before: np.ndarray  # from the chunk's start up to the token, its own step included
    after: np.ndarray  # from after the token to the chunk's end


def forward(
    q: Tensor, k: Tensor, v: Tensor, dt: Tensor, A: Tensor, D: Tensor, state: Tensor, turned: bool
) -> tuple[Tensor, Tensor]:
    """Output and final state.

    Args:
        q: (B, T, G, K); head h of v reads with q of group h // (H / G).
        k: (B, T, G, K).
        v: (B, T, H, V).
        dt: (B or 1, T or 1, H).
        A: (H,).
        D: (H,).
        state: (B, H, K, V), or (B, H, V, K) where `turned`.
        turned: how the state lies in memory.
    """
    output, final = torch.empty(v.shape, dtype=v.dtype), torch.empty(state.shape, dtype=state.dtype)
    inputs = Inputs(*arrays((q, k, v, dt, A, D, state)))
    results = output.numpy(), final.numpy()
    if v.shape[1] >= FEW_TOKENS:
        _forward_chunks(inputs, *results, heads_a_task(v, q.shape[2]), turned)
    elif v.numel() * q.shape[3] < SERIAL_WORK:
        _steps_serial(inputs, *results, turned)
    else:
        _steps_parallel(inputs, *results, turned)
    return output, final


def heads_a_task(v: Tensor, groups: int) -> int:
    """As many as make the threads finish first: rows are to be long, and no thread is to wait for another."""
    batch, _, heads, width = v.shape
    shared = heads // groups

    def cost(count: int) -> int:
        tasks = batch * groups * -(-shared // count)
        return -(-tasks // get_num_threads()) * (count * width + SHORT)

    return min(range(1, min(shared, max(1, WIDE // width)) + 1), key=cost)


@njit(**JIT)
def _heads(task, inputs, count):
    groups, shared = inputs.q.shape[2], inputs.v.shape[2] // inputs.q.shape[2]
    blocks = (shared + count - 1) // count
    block, group = task % blocks, task // blocks % groups
    start = block * count
    return Heads(task // blocks // groups, group, block, group * shared + start, min(count, shared - start))


@njit(**JIT)
def _tasks(inputs, count):
    groups, shared = inputs.q.shape[2], inputs.v.shape[2] // inputs.q.shape[2]
    return inputs.q.shape[0] * groups * ((shared + count - 1) // count)


@njit(**JIT)
def _steps_serial(inputs, output, final, turned):
    for head in range(final.shape[0] * final.shape[1]):
        _steps(inputs, output, final, turned, head)


@njit(parallel=True, **JIT)
def _steps_parallel(inputs, output, final, turned):
    for head in prange(final.shape[0] * final.shape[1]):
        _steps(inputs, output, final, turned, np.int64(head))


@njit(**JIT)
def _steps(inputs, output, final, turned, head):
    q, k, v, dt, A, D, state = inputs
    b, h = head // v.shape[2], head % v.shape[2]
    g = h // (v.shape[2] // q.shape[2])
    old = state[b, h]
    for t in range(v.shape[1]):
        step = dt[b % dt.shape[0], min(t, dt.shape[1] - 1), h]
        token = q[b, t, g], k[b, t, g], v[b, t, h]
        factors = _decay(step * A[h]), step, D[h]
        if turned:
            _step_turned(token, factors, old, final[b, h], output[b, t, h])
        else:
            _step(token, factors, old, final[b, h], output[b, t, h])
        old = final[b, h]


@njit(fastmath=FAST)
def _decay(log_decay):
    # In a function of its own: `exp` does not survive reordering.
    return exp(log_decay)


@njit(fastmath=REORDER)
def _step(token, factors, old, new, out):
    q, k, v = token
    decay, step, skip = factors
    for j in range(v.size):
        out[j] = skip * v[j]
    for i in range(k.size):
        q_i, written = q[i], step * k[i]
        for j in range(v.size):
            s = decay * old[i, j] + written * v[j]
            new[i, j] = s
            out[j] += q_i * s


@njit(fastmath=REORDER)
def _step_turned(token, factors, old, new, out):
    q, k, v = token
    decay, step, skip = factors
    for j in range(v.size):
        written, read = step * v[j], skip * v[j]
        for i in range(k.size):
            s = decay * old[j, i] + written * k[i]
            new[j, i] = s
            read += q[i] * s
        out[j] = read


@njit(parallel=True, **JIT)
def _forward_chunks(inputs, output, final, count, turned):
    for task in prange(_tasks(inputs, count)):
        _forward_task(inputs, output, final, _heads(np.int64(task), inputs, count), turned)


@njit(**JIT)
def _forward_task(inputs, output, final, heads, turned):
    q, v = inputs.q, inputs.v
    S, chunk = _load_state(inputs.state, heads, turned), _new_chunk(inputs, heads)
    scores, weights = _square(q), _square(q)
    outside = aligned(CHUNK, S)
    inside = np.empty_like(chunk.written)
    for start in range(0, v.shape[1], CHUNK):
        rows = min(CHUNK, v.shape[1] - start)
        q_n = q[heads.batch, start : start + rows, heads.group]
        _load_chunk(inputs, heads, chunk, start, rows)
        clear(scores)
        add_product(scores[:rows], q_n, chunk.turned_k)
        clear(outside)
        add_product(outside[:rows], q_n, S)
        _advance(S, chunk, rows)
        for c in range(heads.number):
            _fading(chunk.decay[c], weights, rows)
            _multiply(weights, scores, weights, rows)
            clear(inside[c])
            for row in range(0, rows, BLOCK):
                end = min(row + BLOCK, rows)
                add_product(inside[c][row:end], weights[row:end], chunk.written[c][:end])
        _store_output(inputs, heads, chunk, (outside, inside), output, start, rows)
    _store_state(S, final, heads, turned)


@njit(**JIT)
def _square(like):
    return aligned(CHUNK, np.empty((0, CHUNK), like.dtype))


@njit(**JIT)
def _new_chunk(inputs, heads):
    dtype, width = inputs.v.dtype, inputs.v.shape[3]
    return Chunk(
        aligned(inputs.k.shape[3], np.empty((0, CHUNK), dtype)),
        aligned(heads.number * CHUNK, np.empty((0, width), dtype)).reshape(heads.number, CHUNK, width),
        aligned(CHUNK, np.empty((0, heads.number * width), dtype)),
        np.empty((heads.number, CHUNK), dtype),
        np.empty((heads.number, CHUNK), dtype),
        np.empty((heads.number, CHUNK), dtype),
    )


@njit(**JIT)
def _load_state(state, heads, turned):
    """The states of a task's heads side by side, (K, heads * V)."""
    width = state.shape[2] if turned else state.shape[3]
    length = state.shape[3] if turned else state.shape[2]
    S = aligned(length, np.empty((0, heads.number * width), state.dtype))
    for c in range(heads.number):
        own = state[heads.batch, heads.first + c]
        for i in range(length):
            for j in range(width):
                S[i, c * width + j] = own[j, i] if turned else own[i, j]
    return S


@njit(**JIT)
def _store_state(S, state, heads, turned):
    width = S.shape[1] // heads.number
    for c in range(heads.number):
        own = state[heads.batch, heads.first + c]
        for a in range(own.shape[0]):
            for b in range(own.shape[1]):
                own[a, b] = S[b, c * width + a] if turned else S[a, c * width + b]


@njit(**JIT)
def _load_chunk(inputs, heads, chunk, start, rows):
    for c in range(heads.number):
        _load_decays(inputs, heads, chunk, c, start, rows)
    _turn_rows(inputs.k, heads, chunk.turned_k, start, rows)
    v, dt = inputs.v, inputs.dt
    width = v.shape[3]
    for t in range(rows):
        for c in range(heads.number):
            step = dt[heads.batch % dt.shape[0], min(start + t, dt.shape[1] - 1), heads.first + c]
            after = chunk.after[c, t]
            for j in range(width):
                written = step * v[heads.batch, start + t, heads.first + c, j]
                chunk.written[c, t, j] = written
                chunk.faded[t, c * width + j] = written * after


@njit(fastmath=FAST)
def _load_decays(inputs, heads, chunk, c, start, rows):
    h, dt, one = heads.first + c, inputs.dt, inputs.v.dtype.type(1)
    decay, before, after = chunk.decay[c], chunk.before[c], chunk.after[c]
    for t in range(rows):
        decay[t] = exp(dt[heads.batch % dt.shape[0], min(start + t, dt.shape[1] - 1), h] * inputs.A[h])
    product = one
    for t in range(rows):
        product *= decay[t]
        before[t] = product
    product = one
    for t in range(rows - 1, -1, -1):
        after[t] = product
        product *= decay[t]


@njit(**JIT)
def _turn_rows(x, heads, turned, start, rows):
    """turned = tokens' vectors of the task's group as columns; 0 behind the last token."""
    for i in range(turned.shape[0]):
        for t in range(rows):
            turned[i, t] = x[heads.batch, start + t, heads.group, i]
        for t in range(rows, CHUNK):
            turned[i, t] = 0


@njit(**JIT)
def _advance(S, chunk, rows):
    """The states from the chunk's start to its end."""
    _fade_heads(S, chunk.before, rows)
    add_product(S, chunk.turned_k, chunk.faded[:rows])


@njit(**JIT)
def _fade_heads(S, before, rows):
    width = S.shape[1] // before.shape[0]
    for i in range(S.shape[0]):
        for c in range(before.shape[0]):
            whole = before[c, rows - 1]
            for j in range(c * width, c * width + width):
                S[i, j] *= whole


@njit(**JIT)
def _fading(decay, result, rows):
    """Row t, column s: the decay from after token s up to token t; 0 where s is later."""
    for t in range(rows):
        for s in range(t):
            result[t, s] = result[t - 1, s] * decay[t]
        result[t, t] = 1
        for s in range(t + 1, CHUNK):
            result[t, s] = 0


@njit(**JIT)
def _multiply(a, b, result, rows):
    for t in range(rows):
        for s in range(result.shape[1]):
            result[t, s] = a[t, s] * b[t, s]


@njit(**JIT)
def _store_output(inputs, heads, chunk, parts, output, start, rows):
    outside, inside = parts
    v = inputs.v
    width = v.shape[3]
    for t in range(rows):
        for c in range(heads.number):
            h, before, skip = heads.first + c, chunk.before[c, t], inputs.D[heads.first + c]
            for j in range(width):
                own = skip * v[heads.batch, start + t, h, j]
                output[heads.batch, start + t, h, j] = before * outside[t, c * width + j] + inside[c, t, j] + own


class Gradients(NamedTuple):
    """Where a call's gradients go. Tasks that share a place have a summand of their own there: the first axis of q's and k's
    is that of a group's tasks, the first one of A's and D's the batch."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    dt: np.ndarray
    A: np.ndarray
    D: np.ndarray
    state: np.ndarray


class Backward(NamedTuple):
    """What the backward holds of a chunk beside the chunk itself, for the heads of a task."""

    grad: np.ndarray  # of the output, (heads, CHUNK, V)
    grad_read: np.ndarray  # the same times `before`: of what is read from the chunk's first state, (CHUNK, heads * V)
    turned_grad_read: np.ndarray  # (heads * V, CHUNK)
    turned_written: np.ndarray  # (heads, V, CHUNK)
    turned_faded: np.ndarray  # (heads * V, CHUNK)
    outside: np.ndarray  # what is read from the first state, before it fades, (CHUNK, heads * V)
    grad_outside: np.ndarray  # what is written gets from the last state's gradient, before it fades, (CHUNK, heads * V)
    grad_written: np.ndarray  # (heads, CHUNK, V)
    grad_decay: np.ndarray  # of the logarithm of each token's decay, (heads, CHUNK)
    turned_grad_q: np.ndarray  # (K, CHUNK)
    turned_grad_k: np.ndarray  # (K, CHUNK)


class Pairs(NamedTuple):
    """Matrices (CHUNK, CHUNK): row t is the token that reads, column s the one that was written."""

    scores: np.ndarray  # q_t k_s
    fading: np.ndarray  # the decay between them; 0 where s is later
    weights: np.ndarray  # scores * fading
    grad_weights: np.ndarray
    grad_scores: np.ndarray  # summed over heads


def backward(inputs: tuple[Tensor, ...], grad_output: Tensor, grad_final: Tensor, turned: bool) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, dt, A, D and the first state; that of dt is (B, T, H), whatever dt is.

    Args:
        inputs: q, k, v, dt, A, D, state as in `forward`.
        grad_output: gradient of the output.
        grad_final: gradient of the final state.
        turned: how states lie in memory.
    """
    q, k, v, _, A, D, state = inputs
    count = heads_a_task(v, q.shape[2])
    summands, batch = -(-v.shape[2] // q.shape[2] // count), v.shape[0]
    grads = (
        q.new_empty(summands, *q.shape),
        k.new_empty(summands, *k.shape),
        v.new_empty(v.shape),
        v.new_empty(v.shape[:3]),
        A.new_zeros(batch, *A.shape),
        D.new_zeros(batch, *D.shape),
        state.new_empty(state.shape),
    )
    _backward_chunks(Inputs(*arrays(inputs)), arrays((grad_output, grad_final)), Gradients(*arrays(grads)), count, turned)
    grad_q, grad_k, grad_v, grad_dt, grad_A, grad_D, grad_state = grads
    return grad_q.sum(0), grad_k.sum(0), grad_v, grad_dt, grad_A.sum(0), grad_D.sum(0), grad_state


@njit(parallel=True, **JIT)
def _backward_chunks(inputs, given, grads, count, turned):
    for task in prange(_tasks(inputs, count)):
        _backward_task(inputs, given, grads, _heads(np.int64(task), inputs, count), turned)


@njit(**JIT)
def _backward_task(inputs, given, grads, heads, turned):
    grad_output, grad_final = given
    q, k, v = inputs.q, inputs.k, inputs.v
    b, g = heads.batch, heads.group
    chunk, own, pairs = _new_chunk(inputs, heads), _new_backward(inputs, heads), _new_pairs(inputs)
    starts = _states_at_starts(inputs, heads, chunk, turned)
    # The gradient of the states after the chunk.
    G = _load_state(grad_final, heads, turned)
    for n in range(starts.shape[0] - 1, -1, -1):
        start = n * CHUNK
        rows = min(CHUNK, v.shape[1] - start)
        q_n, k_n = q[b, start : start + rows, g], k[b, start : start + rows, g]
        _load_chunk(inputs, heads, chunk, start, rows)
        _load_gradients(grad_output, heads, chunk, own, start, rows)
        clear(own.outside)
        add_product(own.outside[:rows], q_n, starts[n])
        clear(own.grad_outside)
        add_product(own.grad_outside[:rows], k_n, G)
        clear(own.turned_grad_q)
        add_product(own.turned_grad_q, starts[n], own.turned_grad_read)
        clear(own.turned_grad_k)
        add_product(own.turned_grad_k, G, own.turned_faded)
        _through_state(chunk, own, starts[n], G, rows)
        clear(pairs.scores)
        add_product(pairs.scores[:rows], q_n, chunk.turned_k)
        clear(pairs.grad_scores)
        for c in range(heads.number):
            _inside_chunk(chunk, own, pairs, c, rows)
        add_product(own.turned_grad_k, q_n.T, pairs.grad_scores[:rows])
        add_product(own.turned_grad_q, k_n.T, transposed(pairs.grad_scores)[:rows])
        _fade_heads(G, chunk.before, rows)
        add_product(G, q_n.T, own.grad_read[:rows])
        _store_gradients(inputs, heads, own, grads, start, rows)
    _store_state(G, grads.state, heads, turned)


@njit(**JIT)
def _new_backward(inputs, heads):
    dtype, width = inputs.v.dtype, inputs.v.shape[3]
    row, wide = np.empty((0, CHUNK), dtype), np.empty((0, heads.number * width), dtype)
    return Backward(
        np.empty((heads.number, CHUNK, width), dtype),
        aligned(CHUNK, wide),
        aligned(heads.number * width, row),
        aligned(heads.number * width, row).reshape(heads.number, width, CHUNK),
        aligned(heads.number * width, row),
        aligned(CHUNK, wide),
        aligned(CHUNK, wide),
        np.empty((heads.number, CHUNK, width), dtype),
        np.empty((heads.number, CHUNK), dtype),
        aligned(inputs.k.shape[3], row),
        aligned(inputs.k.shape[3], row),
    )


@njit(**JIT)
def _new_pairs(inputs):
    return Pairs(_square(inputs.q), _square(inputs.q), _square(inputs.q), _square(inputs.q), _square(inputs.q))


@njit(**JIT)
def _states_at_starts(inputs, heads, chunk, turned):
    """The states before each chunk, (chunks, K, heads * V)."""
    S = _load_state(inputs.state, heads, turned)
    starts = np.empty(((inputs.v.shape[1] + CHUNK - 1) // CHUNK, *S.shape), S.dtype)
    starts[0] = S
    for n in range(1, starts.shape[0]):
        _load_chunk(inputs, heads, chunk, (n - 1) * CHUNK, CHUNK)
        _advance(S, chunk, CHUNK)
        starts[n] = S
    return starts


@njit(**JIT)
def _load_gradients(grad_output, heads, chunk, own, start, rows):
    """The output's gradient, and what is written, turned; columns behind the last token are 0."""
    width = grad_output.shape[3]
    for c in range(heads.number):
        for t in range(rows):
            before = chunk.before[c, t]
            for j in range(width):
                grad = grad_output[heads.batch, start + t, heads.first + c, j]
                own.grad[c, t, j] = grad
                own.grad_read[t, c * width + j] = before * grad
        for j in range(width):
            for t in range(rows):
                own.turned_grad_read[c * width + j, t] = own.grad_read[t, c * width + j]
                own.turned_written[c, j, t] = chunk.written[c, t, j]
                own.turned_faded[c * width + j, t] = chunk.faded[t, c * width + j]
            for t in range(rows, CHUNK):
                own.turned_grad_read[c * width + j, t] = 0
                own.turned_written[c, j, t] = 0
                own.turned_faded[c * width + j, t] = 0


@njit(fastmath=REORDER, error_model="numpy")
def _through_state(chunk, own, S, G, rows):
    """Gradients of what is written for after the chunk, and of the decays on the way into, out of and across it."""
    width = own.grad.shape[2]
    for c in range(own.grad.shape[0]):
        later = S.dtype.type(0)  # what crosses the whole chunk, and what tokens read of the first state
        for i in range(S.shape[0]):
            for j in range(c * width, c * width + width):
                later += S[i, j] * G[i, j]
        later *= chunk.before[c, rows - 1]
        for t in range(rows - 1, -1, -1):
            for j in range(c * width, c * width + width):
                later += own.grad_read[t, j] * own.outside[t, j]
            own.grad_decay[c, t] = later
        earlier = S.dtype.type(0)  # what earlier tokens write for after the chunk
        for t in range(rows):
            own.grad_decay[c, t] += earlier
            after = chunk.after[c, t]
            for j in range(width):
                grad = own.grad_outside[t, c * width + j]
                earlier += chunk.faded[t, c * width + j] * grad
                own.grad_written[c, t, j] = after * grad


@njit(**JIT)
def _inside_chunk(chunk, own, pairs, c, rows):
    """Every pair of tokens of one head in one chunk."""
    _fading(chunk.decay[c], pairs.fading, rows)
    _multiply(pairs.scores, pairs.fading, pairs.weights, rows)
    clear(pairs.grad_weights)
    add_product(pairs.grad_weights[:rows], own.grad[c], own.turned_written[c])
    for row in range(0, rows, BLOCK):
        end = min(row + BLOCK, rows)
        add_product(own.grad_written[c][row:end], pairs.weights[row:rows, row:end].T, own.grad[c][row:rows])
    _between(pairs, own.grad_decay[c], rows)


@njit(fastmath=REORDER, error_model="numpy")
def _between(pairs, grad_decay, rows):
    """The scores' gradients, and those of the decays: step t is between all who are written before and read from it on."""
    passing = np.zeros_like(grad_decay)
    for t in range(rows - 1, -1, -1):
        for s in range(t + 1):
            pairs.grad_scores[t, s] += pairs.grad_weights[t, s] * pairs.fading[t, s]
            passing[s] += pairs.grad_weights[t, s] * pairs.weights[t, s]
        total = passing[0] * 0
        for s in range(t):
            total += passing[s]
        grad_decay[t] += total


@njit(fastmath=REORDER, error_model="numpy")
def _store_gradients(inputs, heads, own, grads, start, rows):
    v, dt, A, D = inputs.v, inputs.dt, inputs.A, inputs.D
    b, g, width = heads.batch, heads.group, v.shape[3]
    for t in range(rows):
        for i in range(own.turned_grad_q.shape[0]):
            grads.q[heads.block, b, start + t, g, i] = own.turned_grad_q[i, t]
            grads.k[heads.block, b, start + t, g, i] = own.turned_grad_k[i, t]
        for c in range(heads.number):
            h = heads.first + c
            step = dt[b % dt.shape[0], min(start + t, dt.shape[1] - 1), h]
            to_step = grad_skip = v.dtype.type(0)
            for j in range(width):
                grad, grad_written, x = own.grad[c, t, j], own.grad_written[c, t, j], v[b, start + t, h, j]
                to_step += grad_written * x
                grad_skip += grad * x
                grads.v[b, start + t, h, j] = step * grad_written + D[h] * grad
            grads.dt[b, start + t, h] = to_step + A[h] * own.grad_decay[c, t]
            grads.A[b, h] += step * own.grad_decay[c, t]
            grads.D[b, h] += grad_skip
