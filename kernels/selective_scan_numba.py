"""The selective scan on the CPU: channels side by side in vector registers, blocks of channels on threads.

Each token needs an exponential for every number of the state, and those are most of the work. The inner loops run over
neighbouring channels of one state number, so that the compiler turns them, the exponential included, into vector code; the
states of a block, turned to (N, channels), stay in the nearest cache through all tokens.

The backward keeps the states at segment starts only. From the last segment to the first it runs a segment again, noting
each token's decays and what they left of the states, and walks it back, which then needs no exponential.

A token is one call with matrices, not a call a state number with rows: to count the references of a dozen rows would cost
more than the row itself.
"""

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hybridlab.kernels.channels_numba import place, split
from hybridlab.kernels.matrices_numba import REORDER
from hybridlab.kernels.numerics_numba import FAST, arrays, exp

# Channels a task at most: longer rows gain little, and what the backward notes of a segment fits the second cache.
ROW = 256
# Channels a task at least: shorter rows cost more to start than to do.
SHORT_ROW = 32
# Tokens that the backward notes at a time.
SEGMENT = 16
# Fewer exponentials than this are done before a second thread has woken up.
SMALL = 32768

JIT = {"cache": True, "fastmath": FAST, "error_model": "numpy"}


@njit(**JIT)
def _turn(matrix, result):
    """result = matrix.T, written in the order in which it lies in memory."""
    for i in range(result.shape[0]):
        for j in range(result.shape[1]):
            result[i, j] = matrix[j, i]


@njit(**JIT)
def _turned(matrix):
    result = np.empty((matrix.shape[1], matrix.shape[0]), matrix.dtype)
    _turn(matrix, result)
    return result


@njit(**JIT)
def _forward_token(h, rates, skip, token, out):
    """One token: the states in place, and what is read of them."""
    x, step, B, C = token
    for e in range(x.size):
        out[e] = skip[e] * x[e]
    for n in range(B.size):
        B_n, C_n = B[n], C[n]
        for e in range(x.size):
            h[n, e] = exp(step[e] * rates[n, e]) * h[n, e] + step[e] * x[e] * B_n
            out[e] += h[n, e] * C_n


@njit(**JIT)
def _forward_task(task, width, inputs, out, final):
    x, dt, A, B, C, D, state = inputs
    b, e = place(task, x.shape[2], width)
    h, rates, skip = _turned(state[b, e]), _turned(A[e]), D[e]
    for t in range(x.shape[1]):
        _forward_token(h, rates, skip, (x[b, t, e], dt[b, t, e], B[b, t], C[b, t]), out[b, t, e])
    _turn(h, final[b, e])


@njit(**JIT)
def _replay_token(h, rates, x, step, B, decay, kept):
    """One token: the states in place, their decays, and what those left of them."""
    for n in range(B.size):
        B_n = B[n]
        for e in range(x.size):
            decay[n, e] = exp(step[e] * rates[n, e])
            kept[n, e] = decay[n, e] * h[n, e]
            h[n, e] = kept[n, e] + step[e] * x[e] * B_n


@njit(fastmath=REORDER, cache=True, error_model="numpy")
def _backward_token(token, noted, rates, skip, gradients, carried):
    """One token: its gradients; those of the states, rates and skip in place."""
    x, step, B, C, g_out = token
    decay, kept = noted
    g_x, g_step, g_B, g_C = gradients
    g_h, g_rates, g_skip = carried
    for e in range(x.size):
        g_x[e] = g_step[e] = 0
    for n in range(B.size):
        B_n, C_n = B[n], C[n]
        sum_B = sum_C = x.dtype.type(0)
        for e in range(x.size):
            written = step[e] * x[e]
            g = g_h[n, e] + g_out[e] * C_n
            g_kept = g * kept[n, e]
            sum_C += g_out[e] * (kept[n, e] + written * B_n)
            sum_B += g * written
            g_x[e] += g * B_n
            g_step[e] += g_kept * rates[n, e]
            g_rates[n, e] += g_kept * step[e]
            g_h[n, e] = g * decay[n, e]
        g_B[n], g_C[n] = sum_B, sum_C
    # Until here g_x is the gradient of step * x.
    for e in range(x.size):
        g_step[e] += g_x[e] * x[e]
        g_x[e] = g_x[e] * step[e] + g_out[e] * skip[e]
        g_skip[e] += g_out[e] * x[e]


@njit(**JIT)
def _replay(inputs, place, first, h, rates, segment):
    """Notes the tokens of the segment that starts at `first`; h goes from its start to its end."""
    x, dt, B = inputs
    b, e = place
    decay, kept = segment
    for t in range(first, min(first + SEGMENT, x.shape[1])):
        _replay_token(h, rates, x[b, t, e], dt[b, t, e], B[b, t], decay[t - first], kept[t - first])


@njit(**JIT)
def _walk_back(inputs, place, first, rates, segment, gradients, carried):
    """The gradients of the tokens that were noted, last one first."""
    x, dt, B, C, D, g_out = inputs
    b, e = place
    decay, kept = segment
    g_x, g_dt, g_B, g_C = gradients
    for t in range(min(first + SEGMENT, x.shape[1]) - 1, first - 1, -1):
        token = x[b, t, e], dt[b, t, e], B[b, t], C[b, t], g_out[b, t, e]
        own = g_x[b, t, e], g_dt[b, t, e], g_B[b, t], g_C[b, t]
        _backward_token(token, (decay[t - first], kept[t - first]), rates, D[e], own, carried)


@njit(**JIT)
def _backward_task(task, width, inputs, g_out, gradients):
    """Forwards it notes the states at segment starts; backwards it replays a segment, then walks it back."""
    x, dt, A, B, C, D, state = inputs
    g_x, g_dt, g_A, g_B, g_C, g_D, g_state = gradients
    b, e = here = place(task, x.shape[2], width)
    h, g_h, rates = _turned(state[b, e]), _turned(g_state[b, e]), _turned(A[e])
    g_rates = np.zeros_like(rates)
    starts = np.empty(((x.shape[1] + SEGMENT - 1) // SEGMENT, *h.shape), h.dtype)
    segment = np.empty((SEGMENT, *h.shape), h.dtype), np.empty((SEGMENT, *h.shape), h.dtype)
    starts[0] = h
    for s in range(1, len(starts)):
        _replay((x, dt, B), here, (s - 1) * SEGMENT, h, rates, segment)
        starts[s] = h
    own, carried = (g_x, g_dt, g_B[e.start // width], g_C[e.start // width]), (g_h, g_rates, g_D[b, e])
    for s in range(len(starts) - 1, -1, -1):
        _replay((x, dt, B), here, s * SEGMENT, starts[s], rates, segment)
        _walk_back((x, dt, B, C, D, g_out), here, s * SEGMENT, rates, segment, own, carried)
    _turn(g_rates, g_A[b, e])
    _turn(g_h, g_state[b, e])


@njit(**JIT)
def _forward_alone(tasks, width, inputs, out, final):
    for task in range(tasks):
        _forward_task(task, width, inputs, out, final)


@njit(parallel=True, **JIT)
def _forward_threads(tasks, width, inputs, out, final):
    for task in prange(tasks):
        _forward_task(task, width, inputs, out, final)


@njit(**JIT)
def _backward_alone(tasks, width, inputs, g_out, gradients):
    for task in range(tasks):
        _backward_task(task, width, inputs, g_out, gradients)


@njit(parallel=True, **JIT)
def _backward_threads(tasks, width, inputs, g_out, gradients):
    for task in prange(tasks):
        _backward_task(task, width, inputs, g_out, gradients)


def forward(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, E) and final state (B, E, N) of x, dt, A, B, C, D, state as `hybridlab.ops.selective_scan` has them."""
    x, *_, state = inputs
    output, final = (torch.empty(z.shape, dtype=z.dtype) for z in (x, state))
    run = _forward_alone if x.shape[1] * state.numel() < SMALL else _forward_threads
    run(*split(x.shape[0], x.shape[2], ROW, SHORT_ROW), arrays(inputs), output.numpy(), final.numpy())
    return output, final


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, dt, A, B, C, D and state."""
    x, dt, A, B, C, D, state, _, _, g_out, g_final = tensors
    tasks, width = split(x.shape[0], x.shape[2], ROW, SHORT_ROW)
    # What tasks add up is a summand of each: threads do not meet, and sums stay reproducible.
    g_A, g_D = state.new_empty(state.shape), state.new_zeros(state.shape[:2])
    g_B, g_C = (state.new_empty(tasks // x.shape[0], *B.shape) for _ in range(2))
    g_state = g_final.clone(memory_format=torch.contiguous_format)
    gradients = (x.new_empty(x.shape), x.new_empty(x.shape), g_A, g_B, g_C, g_D, g_state)
    run = _backward_alone if x.shape[1] * state.numel() < SMALL else _backward_threads
    run(tasks, width, arrays((x, dt, A, B, C, D, state)), *arrays((g_out,)), arrays(gradients))
    return *gradients[:2], *(z.sum(0) for z in gradients[2:6]), g_state
