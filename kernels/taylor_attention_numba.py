"""Taylor attention on a CPU: chunks of matrix products; one head is one task for a thread.

    KV_t = KV_{t-1} + phi(k_t) v_t^T;  K_t = K_{t-1} + phi(k_t);  o_t = phi(q_t) KV_t / (phi(q_t) . K_t + eps)

Tokens of one chunk take from each other through a matrix of weights 1 + s + s^2/2, and from earlier ones through the state.
Features exist for one chunk at a time, a row a feature: every product of two rows runs along the tokens.

x_i x_j and x_j x_i are one number, so the work needs only half of the features: with y = x / K^(1/4),

    phi'(x) = [1 | y | y_i y_i / sqrt(2) and y_i y_j for i < j]               F' = 1 + K + K (K + 1) / 2

has the same dot products. Rows ij and ji of a state become (KV_ij + KV_ji) / sqrt(2) on the way in, half of it each on the
way out; their difference no feature ever reads or writes, so it passes as it came. All that is one rotation: gradients of
states go the same ways.

A few tokens, as in decoding, go one by one and meet the whole state where it lies.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hybridlab.kernels.matrices_numba import REORDER, add_product, aligned, clear
from hybridlab.kernels.numerics_numba import arrays

# Tokens a chunk: larger ones gain nothing in the state, and what they take from each other grows.
CHUNK = 64
# Rows of weights that are multiplied at a time; what lies right of their triangle is left out.
BLOCK = 16
# Fewer tokens than this go one by one.
FEW_TOKENS = 8
# Multiply-adds below which waking a second thread costs more than it saves.
SERIAL_WORK = 1 << 17

JIT: dict[str, Any] = {"cache": True, "error_model": "numpy"}


class Inputs(NamedTuple):
    """What a call is about; eps is an array without axes."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    eps: np.ndarray
    kv_state: np.ndarray
    k_state: np.ndarray


class Results(NamedTuple):
    """Where a forward's results go."""

    output: np.ndarray
    kv: np.ndarray
    k: np.ndarray
    sums: np.ndarray  # of each token's weights and eps, (B, T, H)


class Chunk(NamedTuple):
    """A chunk of one head: columns are tokens, 0 behind the last one. q and k are divided by K^(1/4)."""

    q: np.ndarray  # (K, CHUNK)
    k: np.ndarray
    read: np.ndarray  # phi'(q), (F', CHUNK)
    written: np.ndarray  # phi'(k)
    weights: np.ndarray  # row t is the token that reads, column s the one that was written


def forward(
    q: Tensor, k: Tensor, v: Tensor, eps: Tensor, kv_state: Tensor, k_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, final state (two tensors) and every token's sum of weights; see `hybridlab.ops.taylor_attention`."""
    output, kv, total, sums = (torch.empty(x.shape, dtype=x.dtype) for x in (v, kv_state, k_state, v[..., 0]))
    inputs, places = Inputs(*arrays((q, k, v, eps, kv_state, k_state))), Results(*arrays((output, kv, total, sums)))
    if v.shape[1] >= FEW_TOKENS:
        _forward_chunks(inputs, places)
    elif v[..., 0].numel() * kv_state[0, 0].numel() < SERIAL_WORK:
        _steps_serial(inputs, places)
    else:
        _steps_parallel(inputs, places)
    return output, kv, total, sums


@njit(**JIT)
def _steps_serial(inputs, results):
    for head in range(results.k.shape[0] * results.k.shape[1]):
        _steps(inputs, results, head)


@njit(parallel=True, **JIT)
def _steps_parallel(inputs, results):
    for head in prange(results.k.shape[0] * results.k.shape[1]):
        _steps(inputs, results, np.int64(head))


@njit(**JIT)
def _steps(inputs, results, head):
    q, k, v = inputs.q, inputs.k, inputs.v
    b, h = head // v.shape[2], head % v.shape[2]
    read, written = np.empty(inputs.k_state.shape[2], v.dtype), np.empty(inputs.k_state.shape[2], v.dtype)
    old = inputs.kv_state[b, h], inputs.k_state[b, h]
    new = results.kv[b, h], results.k[b, h]
    for t in range(v.shape[1]):
        _features(q[b, t, h], read)
        _features(k[b, t, h], written)
        total = _step(read, written, v[b, t, h], old, new, results.output[b, t, h]) + inputs.eps.item()
        for j in range(v.shape[3]):
            results.output[b, t, h, j] /= total
        results.sums[b, t, h] = total
        old = new


@njit(**JIT)
def _features(x, features):
    """phi(x), all of it."""
    scale, half = _scale(x), x.dtype.type(np.sqrt(0.5))
    features[0] = 1
    for i in range(x.size):
        first = x[i] * scale
        features[1 + i] = first
        for j in range(x.size):
            features[1 + (1 + i) * x.size + j] = first * half * (x[j] * scale)


@njit(**JIT)
def _scale(x):
    return x.dtype.type(x.shape[-1] ** -0.25)


@njit(fastmath=REORDER, error_model="numpy")
def _step(read, written, v, old, new, out):
    """Writes one token and adds up what it reads; returns the sum of weights."""
    (old_kv, old_k), (new_kv, new_k) = old, new
    total = v.dtype.type(0)
    for f in range(read.size):
        new_k[f] = old_k[f] + written[f]
        total += read[f] * new_k[f]
    for j in range(v.size):
        out[j] = 0
    for f in range(read.size):
        read_f, written_f = read[f], written[f]
        for j in range(v.size):
            s = old_kv[f, j] + written_f * v[j]
            new_kv[f, j] = s
            out[j] += read_f * s
    return total


@njit(parallel=True, **JIT)
def _forward_chunks(inputs, results):
    heads = inputs.v.shape[2]
    for head in prange(inputs.v.shape[0] * heads):
        _forward_head(inputs, results, np.int64(head) // heads, np.int64(head) % heads)


@njit(**JIT)
def _forward_head(inputs, results, b, h):
    v = inputs.v
    chunk = _new_chunk(inputs)
    S, z = _load_state(inputs.kv_state[b, h], inputs.k_state[b, h], inputs.k.shape[3])
    out, sums = aligned(CHUNK, S), np.empty(CHUNK, v.dtype)
    for start in range(0, v.shape[1], CHUNK):
        rows = min(CHUNK, v.shape[1] - start)
        v_n = v[b, start : start + rows, h]
        _load_chunk(inputs, chunk, b, h, start, rows)
        clear(out)
        add_product(out[:rows], chunk.read.T, S)
        _read_sums(chunk.read, z, sums)
        _weigh(chunk, rows)
        for row in range(0, rows, BLOCK):
            end = min(row + BLOCK, rows)
            add_product(out[row:end], chunk.weights[row:end], v_n[:end])
        _store_output(results, chunk, (out, sums), inputs.eps.item(), (b, h, start, rows))
        _advance(S, z, chunk.written, v_n)
    given, result = (inputs.kv_state[b, h], inputs.k_state[b, h]), (results.kv[b, h], results.k[b, h])
    _store_state(S, z, inputs.k.shape[3], given, result)


@njit(**JIT)
def _new_chunk(inputs):
    row, width = np.empty((0, CHUNK), inputs.v.dtype), inputs.k.shape[3]
    return Chunk(
        aligned(width, row),
        aligned(width, row),
        aligned(_distinct(width), row),
        aligned(_distinct(width), row),
        aligned(CHUNK, row),
    )


@njit(**JIT)
def _distinct(width):
    """F': features of `width` numbers that differ."""
    return 1 + width + width * (width + 1) // 2


@njit(**JIT)
def _load_state(kv, k, width):
    """The state in distinct features: a matrix (F', V) and a vector (F')."""
    S, z = aligned(_distinct(width), kv), np.empty(_distinct(width), kv.dtype)
    half = kv.dtype.type(np.sqrt(0.5))
    for f in range(1 + width):
        S[f] = kv[f]
        z[f] = k[f]
    f = 1 + width
    for i in range(width):
        for j in range(i, width):
            here, mirror = 1 + (1 + i) * width + j, 1 + (1 + j) * width + i
            if i == j:
                S[f] = kv[here]
                z[f] = k[here]
            else:
                z[f] = (k[here] + k[mirror]) * half
                for n in range(kv.shape[1]):
                    S[f, n] = (kv[here, n] + kv[mirror, n]) * half
            f += 1
    return S, z


@njit(**JIT)
def _store_state(S, z, width, given, result):
    """The counterpart: both rows of a pair get their half, and keep the difference that they came with."""
    (old_kv, old_k), (kv, k) = given, result
    root, half = kv.dtype.type(np.sqrt(0.5)), kv.dtype.type(0.5)
    for f in range(1 + width):
        kv[f] = S[f]
        k[f] = z[f]
    f = 1 + width
    for i in range(width):
        for j in range(i, width):
            here, mirror = 1 + (1 + i) * width + j, 1 + (1 + j) * width + i
            if i == j:
                kv[here] = S[f]
                k[here] = z[f]
            else:
                apart = (old_k[here] - old_k[mirror]) * half
                k[here], k[mirror] = z[f] * root + apart, z[f] * root - apart
                for n in range(kv.shape[1]):
                    apart = (old_kv[here, n] - old_kv[mirror, n]) * half
                    kv[here, n], kv[mirror, n] = S[f, n] * root + apart, S[f, n] * root - apart
            f += 1


@njit(**JIT)
def _load_chunk(inputs, chunk, b, h, start, rows):
    _turn_rows(inputs.q, chunk.q, b, h, start, rows)
    _turn_rows(inputs.k, chunk.k, b, h, start, rows)
    _distinct_features(chunk.q, chunk.read, rows)
    _distinct_features(chunk.k, chunk.written, rows)


@njit(**JIT)
def _turn_rows(x, turned, b, h, start, rows):
    scale = _scale(x)
    for i in range(turned.shape[0]):
        for t in range(rows):
            turned[i, t] = x[b, start + t, h, i] * scale
        for t in range(rows, CHUNK):
            turned[i, t] = 0


@njit(**JIT)
def _distinct_features(x, features, rows):
    """phi' of every column of x; a column behind the last token is 0."""
    half = x.dtype.type(np.sqrt(0.5))
    for t in range(CHUNK):
        features[0, t] = 1 if t < rows else 0
    f = 1 + x.shape[0]
    for i in range(x.shape[0]):
        for t in range(CHUNK):
            features[1 + i, t] = x[i, t]
            features[f, t] = x[i, t] * x[i, t] * half
        f += 1
        for j in range(i + 1, x.shape[0]):
            for t in range(CHUNK):
                features[f, t] = x[i, t] * x[j, t]
            f += 1


@njit(**JIT)
def _read_sums(features, z, sums):
    """sums[t] = features of token t times z."""
    for t in range(CHUNK):
        sums[t] = 0
    for f in range(z.size):
        factor = z[f]
        for t in range(CHUNK):
            sums[t] += factor * features[f, t]


@njit(**JIT)
def _weigh(chunk, rows):
    """weights = 1 + s + s^2/2, and 0 where the token that was written is later."""
    weights, one, half = chunk.weights, chunk.q.dtype.type(1), chunk.q.dtype.type(0.5)
    clear(weights)
    add_product(weights[:rows], chunk.q.T, chunk.k)
    for t in range(rows):
        for s in range(t + 1):
            weights[t, s] = one + weights[t, s] * (one + half * weights[t, s])
        for s in range(t + 1, CHUNK):
            weights[t, s] = 0


@njit(**JIT)
def _advance(S, z, written, v):
    """The state after the tokens of v."""
    add_product(S, written, v)
    _add_rows(z, written)


@njit(fastmath=REORDER, error_model="numpy")
def _add_rows(z, features):
    for f in range(z.size):
        total = z.dtype.type(0)
        for t in range(features.shape[1]):
            total += features[f, t]
        z[f] += total


@njit(fastmath=REORDER, error_model="numpy")
def _store_output(results, chunk, parts, eps, where):
    out, sums = parts
    b, h, start, rows = where
    for t in range(rows):
        total = sums[t] + eps
        for s in range(t + 1):
            total += chunk.weights[t, s]
        results.sums[b, start + t, h] = total
        for j in range(out.shape[1]):
            results.output[b, start + t, h, j] = out[t, j] / total


class Gradients(NamedTuple):
    """Where a call's gradients go."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    kv_state: np.ndarray
    k_state: np.ndarray


class Given(NamedTuple):
    """What a backward gets beside the inputs."""

    output: np.ndarray
    sums: np.ndarray
    grad_output: np.ndarray
    grad_kv: np.ndarray
    grad_k: np.ndarray


class Backward(NamedTuple):
    """What the backward holds of a chunk beside the chunk itself; 0 behind the last token.

    An output is a fraction: what its numerator gets is `grad`, what its denominator gets is `grad_sums`.
    """

    grad: np.ndarray  # (CHUNK, V)
    turned_grad: np.ndarray  # (V, CHUNK)
    turned_v: np.ndarray  # (V, CHUNK)
    grad_sums: np.ndarray  # (CHUNK,)
    slopes: np.ndarray  # 1 + s, the derivative of the weights
    grad_scores: np.ndarray  # row t, column s
    turned_grad_scores: np.ndarray  # row s, column t
    grad_features: np.ndarray  # (F', CHUNK)
    grad_q: np.ndarray  # (K, CHUNK)
    grad_k: np.ndarray
    grad_v: np.ndarray  # (CHUNK, V)


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of q, k, v and the two tensors of the first state.

    Args:
        tensors: q, k, v, eps, kv_state, k_state; output, final state, sums of weights; gradients of output and final state.
    """
    inputs, (output, _, _, sums), grads = tensors[:6], tensors[6:10], tensors[10:]
    found = tuple(torch.empty(x.shape, dtype=x.dtype) for x in (*inputs[:3], *inputs[4:]))
    _backward(Inputs(*arrays(inputs)), Given(*arrays((output, sums, *grads))), Gradients(*arrays(found)))
    return found


@njit(parallel=True, **JIT)
def _backward(inputs, given, grads):
    heads = inputs.v.shape[2]
    for head in prange(inputs.v.shape[0] * heads):
        _backward_head(inputs, given, grads, np.int64(head) // heads, np.int64(head) % heads)


@njit(**JIT)
def _backward_head(inputs, given, grads, b, h):
    width, length = inputs.k.shape[3], inputs.v.shape[1]
    chunk, own = _new_chunk(inputs), _new_backward(inputs)
    starts, start_sums = _states_at_starts(inputs, chunk, b, h)
    # The gradient of the state after the chunk.
    G, g = _load_state(given.grad_kv[b, h], given.grad_k[b, h], width)
    for n in range(starts.shape[0] - 1, -1, -1):
        start = n * CHUNK
        rows = min(CHUNK, length - start)
        _load_chunk(inputs, chunk, b, h, start, rows)
        _load_gradients(inputs, given, own, (b, h, start, rows))
        _inside_chunk(chunk, own, rows)
        add_product(own.grad_v[:rows], chunk.written.T, G)
        _through_features(chunk.q, own.grad_q, own.grad_features, (starts[n], start_sums[n]), own.turned_grad, own.grad_sums)
        _through_features(chunk.k, own.grad_k, own.grad_features, (G, g), own.turned_v, np.ones_like(own.grad_sums))
        add_product(G, chunk.read, own.grad)
        _add_weighted_rows(g, chunk.read, own.grad_sums)
        _store_gradients(own, grads, (b, h, start, rows))
    result = (grads.kv_state[b, h], grads.k_state[b, h])
    _store_state(G, g, width, (given.grad_kv[b, h], given.grad_k[b, h]), result)


@njit(**JIT)
def _new_backward(inputs):
    v, width, columns = inputs.v, inputs.k.shape[3], inputs.v.shape[3]
    row = np.empty((0, CHUNK), v.dtype)
    return Backward(
        aligned(CHUNK, v),
        aligned(columns, row),
        aligned(columns, row),
        np.empty(CHUNK, v.dtype),
        aligned(CHUNK, row),
        aligned(CHUNK, row),
        aligned(CHUNK, row),
        aligned(_distinct(width), row),
        aligned(width, row),
        aligned(width, row),
        aligned(CHUNK, v),
    )


@njit(**JIT)
def _states_at_starts(inputs, chunk, b, h):
    """The states before each chunk, (chunks, F', V) and (chunks, F')."""
    v = inputs.v
    S, z = _load_state(inputs.kv_state[b, h], inputs.k_state[b, h], inputs.k.shape[3])
    chunks = (v.shape[1] + CHUNK - 1) // CHUNK
    starts, sums = np.empty((chunks, *S.shape), S.dtype), np.empty((chunks, z.size), z.dtype)
    for n in range(chunks):
        starts[n] = S
        sums[n] = z
        if n + 1 < chunks:
            _turn_rows(inputs.k, chunk.k, b, h, n * CHUNK, CHUNK)
            _distinct_features(chunk.k, chunk.written, CHUNK)
            _advance(S, z, chunk.written, v[b, n * CHUNK : (n + 1) * CHUNK, h])
    return starts, sums


@njit(fastmath=REORDER, error_model="numpy")
def _load_gradients(inputs, given, own, where):
    b, h, start, rows = where
    own.grad[rows:] = 0
    own.grad_sums[rows:] = 0
    own.turned_grad[:, rows:] = 0
    own.turned_v[:, rows:] = 0
    for t in range(rows):
        share, total = 1 / given.sums[b, start + t, h], own.grad.dtype.type(0)
        for j in range(own.grad.shape[1]):
            grad = given.grad_output[b, start + t, h, j] * share
            own.grad[t, j] = grad
            total += grad * given.output[b, start + t, h, j]
        own.grad_sums[t] = -total
    for j in range(own.grad.shape[1]):
        for t in range(rows):
            own.turned_grad[j, t] = own.grad[t, j]
            own.turned_v[j, t] = inputs.v[b, start + t, h, j]


@njit(**JIT)
def _inside_chunk(chunk, own, rows):
    """Every pair of tokens of a chunk; starts the gradients of q, k and v."""
    clear(own.slopes)
    add_product(own.slopes[:rows], chunk.q.T, chunk.k)
    clear(own.grad_scores)
    add_product(own.grad_scores[:rows], own.grad, own.turned_v)
    _slope(chunk.weights, own, rows)
    clear(own.grad_v)
    for row in range(0, rows, BLOCK):
        end = min(row + BLOCK, rows)
        add_product(own.grad_v[row:end], chunk.weights[row:rows, row:end].T, own.grad[row:rows])
    clear(own.grad_q)
    add_product(own.grad_q, chunk.k, own.turned_grad_scores)
    clear(own.grad_k)
    add_product(own.grad_k, chunk.q, own.grad_scores)


@njit(**JIT)
def _slope(weights, own, rows):
    """From scores, and what the numerators' gradients ask of each pair, to weights and the scores' gradients."""
    one, half = weights.dtype.type(1), weights.dtype.type(0.5)
    clear(weights)
    clear(own.turned_grad_scores)
    for t in range(rows):
        for s in range(t + 1):
            score = own.slopes[t, s]
            weights[t, s] = one + score * (one + half * score)
            own.grad_scores[t, s] = (own.grad_scores[t, s] + own.grad_sums[t]) * (one + score)
        for s in range(t + 1, CHUNK):
            own.grad_scores[t, s] = 0
    for s in range(rows):
        for t in range(s, rows):
            own.turned_grad_scores[s, t] = own.grad_scores[t, s]


@njit(**JIT)
def _through_features(x, grad_x, grad_features, state, values, extras):
    """Adds to grad_x what x gets through its features, from a state that they meet: `values` a column a token, `extras` one
    number more, which meets the sums."""
    S, z = state
    for f in range(z.size):
        for t in range(CHUNK):
            grad_features[f, t] = z[f] * extras[t]
    add_product(grad_features, S, values)
    root = x.dtype.type(np.sqrt(2))
    f = 1 + x.shape[0]
    for i in range(x.shape[0]):
        for t in range(CHUNK):
            grad_x[i, t] += grad_features[1 + i, t] + root * x[i, t] * grad_features[f, t]
        f += 1
        for j in range(i + 1, x.shape[0]):
            for t in range(CHUNK):
                grad_x[i, t] += grad_features[f, t] * x[j, t]
                grad_x[j, t] += grad_features[f, t] * x[i, t]
            f += 1


@njit(fastmath=REORDER, error_model="numpy")
def _add_weighted_rows(z, features, weights):
    for f in range(z.size):
        total = z.dtype.type(0)
        for t in range(features.shape[1]):
            total += weights[t] * features[f, t]
        z[f] += total


@njit(**JIT)
def _store_gradients(own, grads, where):
    b, h, start, rows = where
    scale = _scale(grads.q)
    for t in range(rows):
        for i in range(own.grad_q.shape[0]):
            grads.q[b, start + t, h, i] = scale * own.grad_q[i, t]
            grads.k[b, start + t, h, i] = scale * own.grad_k[i, t]
        for j in range(own.grad_v.shape[1]):
            grads.v[b, start + t, h, j] = own.grad_v[t, j]
