"""The short convolution on the CPU: rows of channels, one multiplication and addition for each tap.

A row of x is read from memory once: by the time the next tokens need it again it is in a near cache. The state is the rows
before the first.
"""

import torch
from numba import njit, prange
from torch import Tensor

from hybridlab.kernels.channels_numba import SMALL, place, split
from hybridlab.kernels.numerics_numba import FAST, arrays

JIT = {"cache": True, "fastmath": FAST, "error_model": "numpy"}


@njit(**JIT)
def _set_row(row, start, factor, other):
    for d in range(row.size):
        row[d] = start[d] + factor[d] * other[d]


@njit(**JIT)
def _add_row(row, factor, other):
    for d in range(row.size):
        row[d] += factor[d] * other[d]


@njit(**JIT)
def _tap_gradient(g_out, weight, seen, g_seen, g_weight):
    """One tap of one token: to the input that it saw, and to its weight."""
    for d in range(g_out.size):
        g_seen[d] += weight[d] * g_out[d]
        g_weight[d] += seen[d] * g_out[d]


@njit(**JIT)
def _own_tap_gradient(g_out, weight, seen, g_seen, g_weight, g_bias):
    """The last tap, the first to touch the present input's gradient; and the bias."""
    for d in range(g_out.size):
        g_seen[d] = weight[d] * g_out[d]
        g_weight[d] += seen[d] * g_out[d]
        g_bias[d] += g_out[d]


@njit(**JIT)
def _row(state, x, n, s, d):
    """Row s of the state and x behind each other."""
    kept = state.shape[1]
    return state[n, s, d] if s < kept else x[n, s - kept, d]


@njit(**JIT)
def _forward_task(task, width, inputs, out):
    x, weight, bias, state = inputs
    n, d = place(task, x.shape[2], width)
    for t in range(x.shape[1]):
        row = out[n, t, d]
        _set_row(row, bias[d], weight[0, d], _row(state, x, n, t, d))
        for j in range(1, weight.shape[0]):
            _add_row(row, weight[j, d], _row(state, x, n, t + j, d))


@njit(**JIT)
def _backward_task(task, width, inputs, g_out, gradients):
    x, weight, _, state = inputs
    g_x, g_weight, g_bias, g_state = gradients
    n, d = place(task, x.shape[2], width)
    for t in range(g_out.shape[1]):
        g, last = g_out[n, t, d], weight.shape[0] - 1
        _own_tap_gradient(g, weight[last, d], x[n, t, d], g_x[n, t, d], g_weight[n, last, d], g_bias[n, d])
        for j in range(last):
            seen, g_seen = _row(state, x, n, t + j, d), _row(g_state, g_x, n, t + j, d)
            _tap_gradient(g, weight[j, d], seen, g_seen, g_weight[n, j, d])


@njit(**JIT)
def _forward_alone(tasks, width, inputs, out):
    for task in range(tasks):
        _forward_task(task, width, inputs, out)


@njit(parallel=True, **JIT)
def _forward_threads(tasks, width, inputs, out):
    for task in prange(tasks):
        _forward_task(task, width, inputs, out)


@njit(**JIT)
def _backward_alone(tasks, width, inputs, g_out, gradients):
    for task in range(tasks):
        _backward_task(task, width, inputs, g_out, gradients)


@njit(parallel=True, **JIT)
def _backward_threads(tasks, width, inputs, g_out, gradients):
    for task in prange(tasks):
        _backward_task(task, width, inputs, g_out, gradients)


def forward(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, D) and the last inputs (B, W - 1, D); see `hybridlab.ops.short_conv`."""
    output = torch.empty(x.shape, dtype=x.dtype)
    run = _forward_alone if x.numel() < SMALL else _forward_threads
    run(*split(x.shape[0], x.shape[2]), arrays((x, weight.mT, bias, state)), output.numpy())
    fresh = min(x.shape[1], state.shape[1])
    return output, torch.cat((state[:, fresh:], x[:, x.shape[1] - fresh :]), 1)


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, weight, bias and state."""
    x, weight, bias, state, _, _, g_output, g_final = tensors
    batch, kept, width = state.shape
    g_x = torch.empty(x.shape, dtype=x.dtype)
    # A row for each sequence, so that threads do not meet.
    g_weight = torch.zeros(batch, kept + 1, width, dtype=weight.dtype)
    g_bias, g_state = (torch.zeros(shape, dtype=x.dtype) for shape in ((batch, width), state.shape))
    run = _backward_alone if x.numel() < SMALL else _backward_threads
    (g_out,), inputs = arrays((g_output,)), arrays((x, weight.mT, bias, state))
    run(*split(batch, width), inputs, g_out, arrays((g_x, g_weight, g_bias, g_state)))
    fresh = min(x.shape[1], kept)
    g_state[:, fresh:] += g_final[:, : kept - fresh]
    g_x[:, x.shape[1] - fresh :] += g_final[:, kept - fresh :]
    return g_x, g_weight.sum(0).mT.contiguous(), g_bias.sum(0), g_state
