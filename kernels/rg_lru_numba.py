"""RG-LRU on the CPU: gates, square root and recurrence in one pass, every number read once and written once.

1 - a^2 is (1 - a)(1 + a) with 1 - a = -expm1(log a), so a and the root come from one exponential and lose no digits. The row
of outputs before is the state. The backward computes both again rather than read them.
"""

import math

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hybridlab.kernels.channels_numba import SMALL, place, split
from hybridlab.kernels.numerics_numba import FAST, arrays, exp, expm1

SHARPNESS = 8.0
# The narrower type, so that float32 stays float32.
ZERO, ONE = np.float32(0), np.float32(1)
# Twice the largest derivative of the square root.
STEEPEST = np.float32(2000)

JIT = {"cache": True, "fastmath": FAST, "error_model": "numpy"}


@njit(**JIT)
def _decay(log_a):
    """a and the square root of 1 - a^2."""
    a = exp(log_a)
    # Subtracted from 0: a minus sign would make -0 of 0, and 1 / -0 is -inf.
    return a, math.sqrt(ZERO - expm1(log_a) * (ONE + a))


@njit(**JIT)
def _forward_row(before, x, r, i, rate, after):
    for d in range(x.size):
        a, room = _decay(r[d] * rate[d])
        after[d] = a * before[d] + room * (i[d] * x[d])


@njit(**JIT)
def _first_row(x, i, after):
    """The first token of a document."""
    for d in range(x.size):
        after[d] = i[d] * x[d]


@njit(**JIT)
def _backward_row(before, token, rate, gradients, carried, g_rate):
    """`carried` is what later tokens ask of this one's state, then what this one asks of the state before it."""
    x, r, i, g_out = token
    g_x, g_r, g_i = gradients
    for d in range(x.size):
        a, room = _decay(r[d] * rate[d])
        g = g_out[d] + carried[d]
        written = i[d] * x[d]
        g_x[d] = g * room * i[d]
        g_i[d] = g * room * x[d]
        g_log_a = g * a * (before[d] - written * a * min(ONE / room, STEEPEST))
        g_r[d] = g_log_a * rate[d]
        g_rate[d] += g_log_a * r[d]
        carried[d] = a * g


@njit(**JIT)
def _backward_first_row(token, gradients, carried):
    x, _, i, g_out = token
    g_x, g_r, g_i = gradients
    for d in range(x.size):
        g = g_out[d] + carried[d]
        g_x[d] = g * i[d]
        g_i[d] = g * x[d]
        g_r[d] = ZERO
        carried[d] = ZERO


@njit(**JIT)
def _forward_task(task, width, inputs, reset, out, final):
    x, r, i, rate, state = inputs
    n, d = place(task, x.shape[2], width)
    before = state[n, d]
    for t in range(x.shape[1]):
        after = out[n, t, d]
        if reset[n, t]:
            _first_row(x[n, t, d], i[n, t, d], after)
        else:
            _forward_row(before, x[n, t, d], r[n, t, d], i[n, t, d], rate[d], after)
        before = after
    final[n, d] = before


@njit(**JIT)
def _backward_task(task, width, inputs, reset, results, gradients):
    x, r, i, rate, state = inputs
    out, g_out = results
    g_x, g_r, g_i, g_rate, carried = gradients
    n, d = place(task, x.shape[2], width)
    for t in range(x.shape[1] - 1, -1, -1):
        token = x[n, t, d], r[n, t, d], i[n, t, d], g_out[n, t, d]
        g_token = g_x[n, t, d], g_r[n, t, d], g_i[n, t, d]
        if reset[n, t]:
            _backward_first_row(token, g_token, carried[n, d])
        else:
            before = out[n, t - 1, d] if t else state[n, d]
            _backward_row(before, token, rate[d], g_token, carried[n, d], g_rate[n, d])


@njit(**JIT)
def _forward_alone(tasks, width, inputs, reset, out, final):
    for task in range(tasks):
        _forward_task(task, width, inputs, reset, out, final)


@njit(parallel=True, **JIT)
def _forward_threads(tasks, width, inputs, reset, out, final):
    for task in prange(tasks):
        _forward_task(task, width, inputs, reset, out, final)


@njit(**JIT)
def _backward_alone(tasks, width, inputs, reset, results, gradients):
    for task in range(tasks):
        _backward_task(task, width, inputs, reset, results, gradients)


@njit(parallel=True, **JIT)
def _backward_threads(tasks, width, inputs, reset, results, gradients):
    for task in prange(tasks):
        _backward_task(task, width, inputs, reset, results, gradients)


def forward(x: Tensor, r: Tensor, i: Tensor, log_a: Tensor, reset: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, D) and final state (B, D); see `hybridlab.ops.rg_lru`."""
    output, final = (torch.empty(y.shape, dtype=y.dtype) for y in (x, state))
    run = _forward_alone if x.numel() < SMALL else _forward_threads
    inputs, (resets,) = arrays((x, r, i, SHARPNESS * log_a, state)), arrays((reset,))
    run(*split(x.shape[0], x.shape[2]), inputs, resets, output.numpy(), final.numpy())
    return output, final


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, recurrence_gate, input_gate, log_a and state."""
    x, r, i, log_a, reset, state, output, _, g_output, g_final = tensors
    g_x, g_r, g_i = (torch.empty(y.shape, dtype=y.dtype) for y in (x, r, i))
    # A row for each sequence, so that threads do not meet.
    g_rate = torch.zeros(state.shape, dtype=state.dtype)
    g_state = g_final.clone(memory_format=torch.contiguous_format)
    run = _backward_alone if x.numel() < SMALL else _backward_threads
    inputs, (resets,) = arrays((x, r, i, SHARPNESS * log_a, state)), arrays((reset,))
    gradients = arrays((g_x, g_r, g_i, g_rate, g_state))
    run(*split(x.shape[0], x.shape[2]), inputs, resets, arrays((output, g_output)), gradients)
    return g_x, g_r, g_i, SHARPNESS * g_rate.sum(0), g_state
