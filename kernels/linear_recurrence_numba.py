"""The linear recurrence on the CPU: one multiplication and one addition a number, so memory sets the pace.

Every number is read once and written once. The row of outputs before is the state; it is still in the nearest cache.
"""

import torch
from numba import njit, prange
from torch import Tensor

from hybridlab.kernels.channels_numba import SMALL, place, split
from hybridlab.kernels.numerics_numba import FAST, arrays

JIT = {"cache": True, "fastmath": FAST, "error_model": "numpy"}


@njit(**JIT)
def _forward_row(before, a, b, after):
    for d in range(a.size):
        after[d] = a[d] * before[d] + b[d]


@njit(**JIT)
def _backward_row(before, a, g_out, g_a, g_b, carried):
    """`carried` is what later tokens ask of this one's state, then what this one asks of the state before it."""
    for d in range(a.size):
        g = g_out[d] + carried[d]
        g_b[d] = g
        g_a[d] = g * before[d]
        carried[d] = a[d] * g


@njit(**JIT)
def _forward_task(task, width, inputs, out, final):
    a, b, state = inputs
    n, d = place(task, a.shape[2], width)
    _forward_row(state[n, d], a[n, 0, d], b[n, 0, d], out[n, 0, d])
    for t in range(1, a.shape[1]):
        _forward_row(out[n, t - 1, d], a[n, t, d], b[n, t, d], out[n, t, d])
    final[n, d] = out[n, -1, d]


@njit(**JIT)
def _backward_task(task, width, inputs, out, g_out, gradients):
    a, state = inputs
    g_a, g_b, carried = gradients
    n, d = place(task, a.shape[2], width)
    for t in range(a.shape[1] - 1, 0, -1):
        _backward_row(out[n, t - 1, d], a[n, t, d], g_out[n, t, d], g_a[n, t, d], g_b[n, t, d], carried[n, d])
    _backward_row(state[n, d], a[n, 0, d], g_out[n, 0, d], g_a[n, 0, d], g_b[n, 0, d], carried[n, d])


@njit(**JIT)
def _forward_alone(tasks, width, inputs, out, final):
    for task in range(tasks):
        _forward_task(task, width, inputs, out, final)


@njit(parallel=True, **JIT)
def _forward_threads(tasks, width, inputs, out, final):
    for task in prange(tasks):
        _forward_task(task, width, inputs, out, final)


@njit(**JIT)
def _backward_alone(tasks, width, inputs, out, g_out, gradients):
    for task in range(tasks):
        _backward_task(task, width, inputs, out, g_out, gradients)


@njit(parallel=True, **JIT)
def _backward_threads(tasks, width, inputs, out, g_out, gradients):
    for task in prange(tasks):
        _backward_task(task, width, inputs, out, g_out, gradients)


def forward(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, D) and final state (B, D); see `hybridlab.ops.linear_recurrence`."""
    output, final = (torch.empty(x.shape, dtype=x.dtype) for x in (b, state))
    run = _forward_alone if a.numel() < SMALL else _forward_threads
    run(*split(a.shape[0], a.shape[2]), arrays((a, b, state)), output.numpy(), final.numpy())
    return output, final


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a, b and state."""
    a, b, state, output, _, g_output, g_final = tensors
    g_a, g_b = (torch.empty(x.shape, dtype=x.dtype) for x in (a, b))
    g_state = g_final.clone(memory_format=torch.contiguous_format)
    run = _backward_alone if a.numel() < SMALL else _backward_threads
    (g_out, out), inputs = arrays((g_output, output)), arrays((a, state))
    run(*split(a.shape[0], a.shape[2]), inputs, out, g_out, arrays((g_a, g_b, g_state)))
    return g_a, g_b, g_state
