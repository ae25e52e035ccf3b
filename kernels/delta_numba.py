"""Heads whose matrix of memories is corrected as it goes, on a CPU; both delta rules and `wkv7` are this recurrence:

    found_t = S_{t-1}^T look_t
    S_t = diag(decay_t) S_{t-1} + replace_t replaced_t^T + write_t value_t^T
    o_t = S_t^T read_t

In wkv7 what was found is `replaced`; a delta rule looks and replaces along its key, writes nothing besides, and `replaced`
is beta_t (value_t - decay_t found_t).

The state of a head (16 KiB for K = V = 64) lives in the first cache. Chunks of matrix products would not save anything: they
take as many multiplications as the recurrence, and the triangular systems on top. What counts is to walk the state once a
token: while it is updated, this token reads it and the next one looks at it. Backwards, the state is computed again from one
that is kept every CHUNK tokens, and each token's walk takes its gradients along.

Decays are never divided by and never taken of several tokens at once: nothing overflows.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hybridlab.kernels.delta_steps_numba import (
    DECAY,
    FOUND,
    KEYS,
    LOOK,
    OUT,
    READ,
    REPLACE,
    REPLACED,
    VALUES,
    WRITE,
    WRITTEN,
    back,
    step,
)
from hybridlab.kernels.matrices_numba import REORDER, aligned, clear
from hybridlab.kernels.numerics_numba import FAST, arrays, exp
from hybridlab.kernels.tiles_numba import TILE_BYTES, VECTOR_BYTES

# Tokens from one kept state to the next; the states between them (16 KiB each) are to stay in the second cache.
CHUNK = 16
# Multiply-adds below which waking a second thread costs more than it saves.
SERIAL_WORK = 1 << 17

JIT: dict[str, Any] = {"cache": True, "error_model": "numpy"}
# What is done once a token to named arrays is not called: a call would pass on all of them, seven numbers each.
INLINE: dict[str, Any] = {"inline": "always", "error_model": "numpy"}


class Inputs(NamedTuple):
    """What a call is about. A delta rule has a beta and no `write`; wkv7 has no beta: the array is empty."""

    read: np.ndarray  # (B, T, H, K)
    look: np.ndarray
    replace: np.ndarray
    write: np.ndarray
    value: np.ndarray  # (B, T, H, V)
    log_decay: np.ndarray  # (B, T, H, K), or (B, T, H, 1) for all rows of the state
    beta: np.ndarray  # (B, T, H)
    state: np.ndarray  # (B, H, K, V)


def forward(inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Output and final state of the eight inputs."""
    value, state = inputs[4], inputs[7]
    output, final = torch.empty(value.shape, dtype=value.dtype), torch.empty(state.shape, dtype=state.dtype)
    run = _forward_serial if value.numel() * state.shape[2] < SERIAL_WORK else _forward_parallel
    run(Inputs(*arrays(inputs)), output.numpy(), final.numpy())
    return output, final


@njit(**JIT)
def _forward_serial(inputs, output, final):
    for head in range(final.shape[0] * final.shape[1]):
        _forward_head(inputs, output, final, head)


@njit(parallel=True, **JIT)
def _forward_parallel(inputs, output, final):
    for head in prange(final.shape[0] * final.shape[1]):
        _forward_head(inputs, output, final, np.int64(head))


@njit(**JIT)
def _forward_head(inputs, output, final, head):
    b, h = head // final.shape[1], head % final.shape[1]
    S, values = _start(inputs, b, h)
    decay = np.empty(S.shape[0], S.dtype)
    for t in range(output.shape[1]):
        _step(inputs, S, decay, values, b, t, h)
        _copy(values[OUT, : output.shape[3]], output[b, t, h])
    for i in range(final.shape[2]):
        _copy(S[i, : final.shape[3]], final[b, h, i])


@njit(**JIT)
def _copy(source, target):
    """`target` may go on behind it."""
    for i in range(source.size):
        target[i] = source[i]


@njit(**JIT)
def _rows(count, length, size, like):
    """A matrix of zeros whose rows have at least `length` numbers, in whole pieces of `size` bytes."""
    piece = size // like.itemsize
    matrix = aligned(count, np.empty((0, (length + piece - 1) // piece * piece), like.dtype))
    clear(matrix)
    return matrix


@njit(**JIT)
def _start(inputs, b, h):
    """The state before the first token, and rows for a token's values; what the first one finds is there."""
    state = inputs.state[b, h]
    S = _rows(state.shape[0], state.shape[1], TILE_BYTES, state)
    values = _rows(VALUES, state.shape[1], TILE_BYTES, state)
    for i in range(state.shape[0]):
        _copy(state[i], S[i])
    _find(inputs.look[b, 0, h], S, values[FOUND])
    return S, values


@njit(fastmath=REORDER, error_model="numpy")
def _find(look, S, found):
    for i in range(look.size):
        for j in range(found.size):
            found[j] += look[i] * S[i, j]


@njit(**INLINE)
def _step(inputs, S, decay, values, b, t, h):
    _load_decay(inputs.log_decay[b, t, h], decay)
    read, replace = inputs.read[b, t, h], inputs.replace[b, t, h]
    look = inputs.look[b, min(t + 1, inputs.look.shape[1] - 1), h]  # nothing looks after the last token
    if inputs.beta.size:
        _correct(inputs.value[b, t, h], inputs.beta[b, t, h], decay[0], values[FOUND], values[REPLACED])
        step(S, values, (decay, look, read, replace))
    else:
        _copy(values[FOUND], values[REPLACED])
        _copy(inputs.value[b, t, h], values[WRITTEN])
        step(S, values, (decay, look, read, replace, inputs.write[b, t, h]))


@njit(**JIT)
def _correct(value, beta, decay, found, replaced):
    for j in range(value.size):
        replaced[j] = beta * (value[j] - decay * found[j])


@njit(fastmath=FAST)
def _load_decay(log_decay, row):
    # In a function of its own: `exp` does not survive reordering.
    for i in range(log_decay.size):
        row[i] = exp(log_decay[i])
    for i in range(log_decay.size, row.size):
        row[i] = row[0]


def backward(inputs: tuple[Tensor, ...], grad_output: Tensor, grad_final: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the eight inputs."""
    grads = tuple(x.new_empty(x.shape) for x in inputs)
    _backward(Inputs(*arrays(inputs)), arrays((grad_output, grad_final)), Inputs(*arrays(grads)))
    return grads


@njit(parallel=True, **JIT)
def _backward(inputs, given, grads):
    heads = inputs.state.shape[1]
    for head in prange(inputs.state.shape[0] * heads):
        _backward_head(inputs, given, grads, np.int64(head) // heads, np.int64(head) % heads)


class Walk(NamedTuple):
    """What a walk back through one head holds; states are (V, K), lanes run along K."""

    found: np.ndarray  # by each token, (T, V)
    kept: np.ndarray  # every CHUNK-th state, (T // CHUNK + 1, V, K)
    states: np.ndarray  # of the chunk in hand, (CHUNK, V, K)
    G: np.ndarray  # the gradient of the state in hand
    keys: np.ndarray  # decay and look of the token after that state, the others of the one before; gradients below
    replaced: np.ndarray  # by each token, (T, V)
    grad_found: np.ndarray  # of the token after the state
    partial: np.ndarray
    sums: np.ndarray


@njit(**JIT)
def _backward_head(inputs, given, grads, b, h):
    grad_output, grad_final = given
    walk = _new_walk(inputs, grad_final, b, h)
    nothing = np.zeros_like(walk.grad_found)
    last = grad_output.shape[1]
    walk.keys[DECAY] = 1
    for s in range(last, -1, -1):  # the state after s tokens
        if s == last or (s + 1) % CHUNK == 0:
            _states_again(inputs, walk, b, h, s)
        if s > 0:
            _load_token(inputs, walk, b, s - 1, h)
            _back(inputs, walk, s % CHUNK, walk.replaced[s - 1], grad_output[b, s - 1, h], inputs.value[b, s - 1, h])
        else:
            walk.keys[READ:] = 0
            _back(inputs, walk, 0, nothing, nothing, nothing)
        if s < last:
            _store_fading(walk, grads, b, s, h)
        if s > 0:
            _load_decay(inputs.log_decay[b, s - 1, h], walk.keys[DECAY, : grad_final.shape[2]])
            _copy(inputs.look[b, s - 1, h], walk.keys[LOOK])
            _store_writing(inputs, walk, grads, b, s - 1, h)
    for i in range(grad_final.shape[2]):
        for j in range(grad_final.shape[3]):
            grads.state[b, h, i, j] = walk.G[j, i]


@njit(**JIT)
def _new_walk(inputs, grad_final, b, h):
    length, width, state = inputs.value.shape[1], inputs.value.shape[3], grad_final[b, h]
    lanes = VECTOR_BYTES // state.itemsize
    G = _rows(width, state.shape[0], VECTOR_BYTES, state)
    for i in range(state.shape[0]):
        for j in range(width):
            G[j, i] = state[i, j]
    kept = length // CHUNK + 1
    walk = Walk(
        np.empty((length, width), G.dtype),
        _rows(kept * width, state.shape[0], VECTOR_BYTES, state).reshape(kept, width, G.shape[1]),
        _rows(CHUNK * width, state.shape[0], VECTOR_BYTES, state).reshape(CHUNK, width, G.shape[1]),
        G,
        _rows(2 * KEYS, state.shape[0], VECTOR_BYTES, state),
        np.empty((length, width), G.dtype),
        np.zeros(width, G.dtype),
        _rows(width, 2 * lanes, VECTOR_BYTES, state),
        np.empty((2, width), G.dtype),
    )
    _keep_states(inputs, walk, b, h)
    return walk


@njit(**JIT)
def _keep_states(inputs, walk, b, h):
    """Forwards once more: what every token finds and replaces, and some of the states."""
    S, values = _start(inputs, b, h)
    decay = np.empty(S.shape[0], S.dtype)
    length, width = walk.found.shape
    for t in range(length + 1):
        if t % CHUNK == 0:
            _turn(S, walk.kept[t // CHUNK])
        if t < length:
            _copy(values[FOUND, :width], walk.found[t])
            _step(inputs, S, decay, values, b, t, h)
            _copy(values[REPLACED, :width], walk.replaced[t])


@njit(**JIT)
def _turn(S, target):
    for j in range(target.shape[0]):
        for i in range(S.shape[0]):
            target[j, i] = S[i, j]


@njit(**JIT)
def _states_again(inputs, walk, b, h, last):
    """The states from the kept one up to that after `last` tokens."""
    first = last // CHUNK * CHUNK
    states = walk.states
    states[0] = walk.kept[first // CHUNK]
    decay = np.empty(inputs.state.shape[2], states.dtype)
    for n in range(last - first):
        t = first + n
        _load_decay(inputs.log_decay[b, t, h], decay)
        replace, replaced = inputs.replace[b, t, h], walk.replaced[t]
        if inputs.beta.size:
            _advance(states[n], states[n + 1], decay, replace, replaced)
        else:
            _advance_twice(states[n], states[n + 1], decay, replace, replaced, inputs.write[b, t, h], inputs.value[b, t, h])


@njit(fastmath=REORDER, error_model="numpy")
def _advance(old, new, decay, key, replaced):
    for j in range(replaced.size):
        for i in range(key.size):
            new[j, i] = decay[i] * old[j, i] + key[i] * replaced[j]


@njit(fastmath=REORDER, error_model="numpy")
def _advance_twice(old, new, decay, key, replaced, also, value):
    for j in range(replaced.size):
        for i in range(key.size):
            new[j, i] = decay[i] * old[j, i] + key[i] * replaced[j] + also[i] * value[j]


@njit(**INLINE)
def _load_token(inputs, walk, b, t, h):
    _copy(inputs.read[b, t, h], walk.keys[READ])
    _copy(inputs.replace[b, t, h], walk.keys[REPLACE])
    if not inputs.beta.size:
        _copy(inputs.write[b, t, h], walk.keys[WRITE])


@njit(**INLINE)
def _back(inputs, walk, n, replaced, grad_out, value):
    state, G, keys, partial, sums = walk.states[n], walk.G, walk.keys, walk.partial, walk.sums
    if inputs.beta.size:
        back(state, G, keys, partial, sums, (walk.grad_found, grad_out, replaced))
    else:
        back(state, G, keys, partial, sums, (walk.grad_found, grad_out, replaced, value))


@njit(**INLINE)
def _store_fading(walk, grads, b, t, h):
    """Gradients of a token's decay and look, which the state before it gives."""
    keys, log_decay = walk.keys, grads.log_decay[b, t, h]
    for i in range(grads.look.shape[3]):
        grads.look[b, t, h, i] = keys[KEYS + LOOK, i]
    if log_decay.size == 1:
        log_decay[0] += keys[DECAY, 0] * _sum(keys[KEYS + DECAY])
    else:
        for i in range(log_decay.size):
            log_decay[i] = keys[DECAY, i] * keys[KEYS + DECAY, i]


@njit(fastmath=REORDER)
def _sum(row):
    total = row.dtype.type(0)
    for i in range(row.size):
        total += row[i]
    return total


@njit(**INLINE)
def _store_writing(inputs, walk, grads, b, t, h):
    """Gradients of what a token reads and writes, which the state after it gives, and of what it has found."""
    keys, width = walk.keys, inputs.read.shape[3]
    _copy(keys[KEYS + READ, :width], grads.read[b, t, h])
    _copy(keys[KEYS + REPLACE, :width], grads.replace[b, t, h])
    if inputs.beta.size:
        decay = keys[DECAY, 0]
        rows = inputs.value[b, t, h], walk.found[t], grads.value[b, t, h]
        error, fading = _correct_back(walk.sums[0], inputs.beta[b, t, h], decay, rows, walk.grad_found)
        grads.beta[b, t, h] = error
        grads.log_decay[b, t, h, 0] = fading  # the state before the token adds to it
    else:
        _copy(keys[KEYS + WRITE, :width], grads.write[b, t, h])
        _copy(walk.sums[0], walk.grad_found)
        _copy(walk.sums[1], grads.value[b, t, h])


@njit(fastmath=REORDER)
def _correct_back(grad, beta, decay, rows, grad_found):
    value, found, grad_value = rows
    error, fading = grad.dtype.type(0), grad.dtype.type(0)
    for j in range(grad.size):
        grad_value[j] = beta * grad[j]
        grad_found[j] = -decay * beta * grad[j]
        error += grad[j] * (value[j] - decay * found[j])
        fading += grad_found[j] * found[j]
    return error, fading
