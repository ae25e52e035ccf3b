"""The modal convolution on the CPU: channels side by side in vector registers, blocks of channels on threads.

Complex numbers are taken apart: the modes and states of a block lie as (real or imaginary, mode, channel), so that the inner
loops run over neighbouring channels of one mode, and stay in the nearest cache through all tokens.

The backward keeps the states at segment starts only. From the last segment to the first it runs a segment again, noting each
token's states, and walks it back. What later tokens ask of a state is a complex number too,

    g_t = conj(p) g_{t+1} + conj(R) (gradient of y_t)

whose real part is what the input is asked for.
"""

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hybridlab.kernels.channels_numba import place, split
from hybridlab.kernels.numerics_numba import FAST, arrays

# Channels a task at most: with 16 modes, what a token touches fits the nearest cache.
ROW = 64
# Tokens whose states the backward notes at a time.
SEGMENT = 16
# Fewer modes of tokens than this are done before a second thread has woken up.
SMALL = 65536

JIT = {"cache": True, "fastmath": FAST, "error_model": "numpy"}


@njit(**JIT)
def _apart(modes):
    """(channel, mode, part) as (part, mode, channel)."""
    parts = np.empty((2, modes.shape[1], modes.shape[0]), modes.dtype)
    for d in range(modes.shape[0]):
        for n in range(modes.shape[1]):
            parts[0, n, d], parts[1, n, d] = modes[d, n, 0], modes[d, n, 1]
    return parts


@njit(**JIT)
def _together(parts, modes):
    """The counterpart of `_apart`."""
    for d in range(modes.shape[0]):
        for n in range(modes.shape[1]):
            modes[d, n, 0], modes[d, n, 1] = parts[0, n, d], parts[1, n, d]


@njit(**JIT)
def _step(before, poles, x, after):
    """One token's states; `after` may be `before`."""
    for n in range(poles.shape[1]):
        for d in range(x.size):
            real, imaginary = before[0, n, d], before[1, n, d]
            after[0, n, d] = poles[0, n, d] * real - poles[1, n, d] * imaginary + x[d]
            after[1, n, d] = poles[0, n, d] * imaginary + poles[1, n, d] * real


@njit(**JIT)
def _forward_token(state, poles, residues, x, out):
    for d in range(x.size):
        out[d] = 0
    for n in range(poles.shape[1]):
        for d in range(x.size):
            real, imaginary = state[0, n, d], state[1, n, d]
            state[0, n, d] = poles[0, n, d] * real - poles[1, n, d] * imaginary + x[d]
            state[1, n, d] = poles[0, n, d] * imaginary + poles[1, n, d] * real
            out[d] += residues[0, n, d] * state[0, n, d] - residues[1, n, d] * state[1, n, d]


@njit(**JIT)
def _backward_token(before, after, poles, residues, g_out, g_x, gradients):
    """One token: the input's gradient; those of states, poles and residues in place."""
    asked, g_poles, g_residues = gradients
    for d in range(g_out.size):
        g_x[d] = 0
    for n in range(poles.shape[1]):
        for d in range(g_out.size):
            real = asked[0, n, d] + residues[0, n, d] * g_out[d]
            imaginary = asked[1, n, d] - residues[1, n, d] * g_out[d]
            g_x[d] += real
            g_residues[0, n, d] += g_out[d] * after[0, n, d]
            g_residues[1, n, d] -= g_out[d] * after[1, n, d]
            g_poles[0, n, d] += before[0, n, d] * real + before[1, n, d] * imaginary
            g_poles[1, n, d] += before[0, n, d] * imaginary - before[1, n, d] * real
            asked[0, n, d] = poles[0, n, d] * real + poles[1, n, d] * imaginary
            asked[1, n, d] = poles[0, n, d] * imaginary - poles[1, n, d] * real


@njit(**JIT)
def _forward_task(task, width, inputs, out, final):
    x, poles, residues, state = inputs
    b, d = place(task, x.shape[2], width)
    now, p, R = _apart(state[b, d]), _apart(poles[d]), _apart(residues[d])
    for t in range(x.shape[1]):
        _forward_token(now, p, R, x[b, t, d], out[b, t, d])
    _together(now, final[b, d])


@njit(**JIT)
def _backward_task(task, width, inputs, g_out, gradients):
    """Forwards it notes the states at segment starts; backwards it replays a segment, then walks it back."""
    x, poles, residues, state = inputs
    g_x, g_poles, g_residues, g_state = gradients
    b, d = place(task, x.shape[2], width)
    length, p, R = x.shape[1], _apart(poles[d]), _apart(residues[d])
    own = _apart(g_state[b, d]), np.zeros_like(p), np.zeros_like(p)
    starts = np.empty(((length + SEGMENT - 1) // SEGMENT, *p.shape), p.dtype)
    noted = np.empty((SEGMENT + 1, *p.shape), p.dtype)
    starts[0] = now = _apart(state[b, d])
    for t in range((len(starts) - 1) * SEGMENT):
        _step(now, p, x[b, t, d], now)
        if (t + 1) % SEGMENT == 0:
            starts[(t + 1) // SEGMENT] = now
    for s in range(len(starts) - 1, -1, -1):
        first, last = s * SEGMENT, min((s + 1) * SEGMENT, length)
        noted[0] = starts[s]
        for t in range(first, last):
            _step(noted[t - first], p, x[b, t, d], noted[t - first + 1])
        for t in range(last - 1, first - 1, -1):
            _backward_token(noted[t - first], noted[t - first + 1], p, R, g_out[b, t, d], g_x[b, t, d], own)
    _together(own[0], g_state[b, d])
    _together(own[1], g_poles[b, d])
    _together(own[2], g_residues[b, d])


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


def _parts(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    """Complex tensors as real and imaginary parts in a last axis; of contiguous ones the same memory."""
    return arrays([torch.view_as_real(z.resolve_conj()) for z in tensors])


def forward(x: Tensor, poles: Tensor, residues: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, D) and final state (B, D, N); see `hybridlab.ops.modal_conv`."""
    output, final = torch.empty(x.shape, dtype=x.dtype), torch.empty(state.shape, dtype=state.dtype)
    run = _forward_alone if x.numel() * poles.shape[1] < SMALL else _forward_threads
    tasks = split(x.shape[0], x.shape[2], ROW)
    run(*tasks, arrays([x]) + _parts(poles, residues, state), output.numpy(), *_parts(final))
    return output, final


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, poles, residues and state."""
    x, poles, residues, state, _, _, g_output, g_final = tensors
    g_x, (g_out,) = torch.empty(x.shape, dtype=x.dtype), arrays([g_output])
    g_state = g_final.resolve_conj().clone(memory_format=torch.contiguous_format)
    # A row for each sequence, so that threads do not meet.
    g_poles, g_residues = (torch.empty(state.shape, dtype=state.dtype) for _ in range(2))
    run = _backward_alone if x.numel() * poles.shape[1] < SMALL else _backward_threads
    inputs = arrays([x]) + _parts(poles, residues, state)
    run(*split(x.shape[0], x.shape[2], ROW), inputs, g_out, arrays([g_x]) + _parts(g_poles, g_residues, g_state))
    return g_x, g_poles.sum(0), g_residues.sum(0), g_state
