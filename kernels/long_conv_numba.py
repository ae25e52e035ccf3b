"""The long convolution on the CPU, sum by sum: every product of a filter with a text, at the speed of a matrix product.

Output, gradient of the inputs and gradient of the filter are one thing, a correlation along time:

    out_r += sum_q a_q c_{r + q}

The output takes as a the filter, last tap first, and as c the inputs; the gradient of the inputs takes the filter and the
output's gradient; the filter's gradient, last tap first, takes the output's gradient and the inputs. Each is done for one
vector of channels at a time, whose rows are copied behind each other, zeros around them: so they stay in the near caches,
and no sum needs to ask whether a row exists. Sums whose rows are all zero are left out: half of them without a state.

A few tokens after a long past are read row by row instead, as they lie: the copies would cost more than the sums.
"""

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hybridlab.kernels.channels_numba import place, split
from hybridlab.kernels.long_conv_tiles_numba import SUMS, add_sliding, lanes
from hybridlab.kernels.matrices_numba import aligned
from hybridlab.kernels.numerics_numba import FAST, arrays
from hybridlab.kernels.tiles_numba import VECTOR_BYTES

# Fewer products than this are done before a second thread has woken up.
SMALL = 1 << 21
# So many tokens are read row by row.
FEW = 4

JIT = {"cache": True, "fastmath": FAST, "error_model": "numpy"}


@njit(**JIT)
def _panel(rows, like):
    """Rows of one vector of channels, all zero, and some more so that the last sums may read on."""
    panel = aligned(rows + SUMS, np.empty((1, lanes(like)), like.dtype))
    numbers = panel.reshape(-1)
    for i in range(numbers.size):
        numbers[i] = 0
    return panel


@njit(**JIT)
def _put(panel, first, step, rows, start):
    """The channels from `start` on of all rows, from row `first` of the panel on, forwards or backwards."""
    if rows.shape[1] - start >= lanes(rows):
        for t in range(rows.shape[0]):
            for d in range(lanes(rows)):
                panel[first + step * t, d] = rows[t, start + d]
    else:
        for t in range(rows.shape[0]):
            for d in range(rows.shape[1] - start):
                panel[first + step * t, d] = rows[t, start + d]


@njit(**JIT)
def _take(panel, first, step, rows, start):
    """The counterpart of `_put`."""
    if rows.shape[1] - start >= lanes(rows):
        for t in range(rows.shape[0]):
            for d in range(lanes(rows)):
                rows[t, start + d] = panel[first + step * t, d]
    else:
        for t in range(rows.shape[0]):
            for d in range(rows.shape[1] - start):
                rows[t, start + d] = panel[first + step * t, d]


@njit(**JIT)
def _correlate(out, wanted, a, terms, c, first, last):
    """out_r += sum_q a_q c_{r + q} for `wanted` rows r, all q < terms; rows of c outside `first` to `last` are zero."""
    for r in range(0, wanted, SUMS):
        begin, end = max(0, first - r - (SUMS - 1)), min(terms, last - r)
        if begin < end:
            add_sliding(out, a, c, r, begin, end)


@njit(**JIT)
def _inputs(x, state, n, start, reach):
    """The past that the first token's taps reach and all inputs; zeros for missing rows of the former, and how many."""
    seen = _panel(reach - 1 + x.shape[1], x)
    past = min(reach - 1, state.shape[1])
    _put(seen, reach - 1 - past, 1, state[n, state.shape[1] - past :], start)
    _put(seen, reach - 1, 1, x[n], start)
    return seen, reach - 1 - past


@njit(**JIT)
def _forward_task(task, blocks, inputs, out):
    x, taps, state = inputs
    n, start = task // blocks, task % blocks * lanes(x)
    length, reach = x.shape[1], taps.shape[0]
    seen, first = _inputs(x, state, n, start, reach)
    turned, sums = _panel(reach, x), _panel(length, x)
    _put(turned, reach - 1, -1, taps, start)
    _correlate(sums, length, turned, reach, seen, first, reach - 1 + length)
    _take(sums, 0, 1, out[n], start)


@njit(**JIT)
def _backward_task(block, inputs, g_out, gradients):
    x, taps, state = inputs
    g_x, g_taps, g_state = gradients
    start, length, reach = block * lanes(x), x.shape[1], taps.shape[0]
    past = min(reach - 1, state.shape[1])
    forwards, g_turned = _panel(reach, x), _panel(reach, x)
    _put(forwards, 0, 1, taps, start)
    for n in range(x.shape[0]):
        seen, first = _inputs(x, state, n, start, reach)
        # The same gradients twice: as factors, and with zeros around them.
        asked, between, g_seen = _panel(length, x), _panel(past + length + reach - 1, x), _panel(past + length, x)
        _put(asked, 0, 1, g_out[n], start)
        _put(between, past, 1, g_out[n], start)
        _correlate(g_turned, reach, asked, length, seen, first, reach - 1 + length)
        _correlate(g_seen, past + length, forwards, reach, between, past, past + length)
        _take(g_seen, 0, 1, g_state[n, state.shape[1] - past :], start)
        _take(g_seen, past, 1, g_x[n], start)
    _take(g_turned, reach - 1, -1, g_taps, start)


@njit(**JIT)
def _add_row(out, factor, row):
    for d in range(out.size):
        out[d] += factor[d] * row[d]


@njit(**JIT)
def _few_task(task, width, inputs, out):
    x, taps, state = inputs
    n, d = place(task, x.shape[2], width)
    kept = state.shape[1]
    out[n, :, d] = 0
    for t in range(x.shape[1]):
        for j in range(min(taps.shape[0], t + 1)):
            _add_row(out[n, t, d], taps[j, d], x[n, t - j, d])
        for j in range(t + 1, min(taps.shape[0], t + 1 + kept)):
            _add_row(out[n, t, d], taps[j, d], state[n, kept + t - j, d])


@njit(**JIT)
def _few_alone(tasks, width, inputs, out):
    for task in range(tasks):
        _few_task(task, width, inputs, out)


@njit(parallel=True, **JIT)
def _few_threads(tasks, width, inputs, out):
    for task in prange(tasks):
        _few_task(task, width, inputs, out)


@njit(**JIT)
def _forward_alone(tasks, blocks, inputs, out):
    for task in range(tasks):
        _forward_task(task, blocks, inputs, out)


@njit(parallel=True, **JIT)
def _forward_threads(tasks, blocks, inputs, out):
    for task in prange(tasks):
        _forward_task(task, blocks, inputs, out)


@njit(**JIT)
def _backward_alone(blocks, inputs, g_out, gradients):
    for block in range(blocks):
        _backward_task(block, inputs, g_out, gradients)


@njit(parallel=True, **JIT)
def _backward_threads(blocks, inputs, g_out, gradients):
    for block in prange(blocks):
        _backward_task(block, inputs, g_out, gradients)


def _reached(x: Tensor, taps: Tensor, state: Tensor) -> Tensor:
    """The taps that meet an input, time first."""
    return taps[:, : state.shape[1] + x.shape[1]].mT.contiguous()


def _products(x: Tensor, rows: Tensor) -> int:
    return x.numel() * rows.shape[0]


def _blocks(x: Tensor) -> int:
    """Vectors of channels."""
    return -(-x.shape[2] * x.element_size() // VECTOR_BYTES)


def forward(x: Tensor, taps: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, D) and the past inputs; see `hybridlab.ops.long_conv`."""
    rows, output = _reached(x, taps, state), torch.empty(x.shape, dtype=x.dtype)
    inputs, alone = arrays((x, rows, state)), _products(x, rows) < SMALL
    if x.shape[1] <= FEW:
        (_few_alone if alone else _few_threads)(*split(x.shape[0], x.shape[2]), inputs, output.numpy())
    else:
        blocks = _blocks(x)
        (_forward_alone if alone else _forward_threads)(x.shape[0] * blocks, blocks, inputs, output.numpy())
    gone = max(0, state.shape[1] + x.shape[1] - taps.shape[1])
    return output, torch.cat((state[:, gone:], x[:, max(0, gone - state.shape[1]) :]), 1)


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, taps and state."""
    x, taps, state, _, _, g_output, g_final = tensors
    rows, g_x = _reached(x, taps, state), torch.empty(x.shape, dtype=x.dtype)
    g_rows, g_state = torch.empty(rows.shape, dtype=x.dtype), torch.zeros(state.shape, dtype=x.dtype)
    run = _backward_alone if _products(x, rows) < SMALL else _backward_threads
    (g_out,), inputs = arrays((g_output,)), arrays((x, rows, state))
    run(_blocks(x), inputs, g_out, arrays((g_x, g_rows, g_state)))
    gone = max(0, state.shape[1] + x.shape[1] - taps.shape[1])
    old = max(0, state.shape[1] - gone)
    g_state[:, gone:] += g_final[:, :old]
    g_x[:, max(0, gone - state.shape[1]) :] += g_final[:, old:]
    g_taps = torch.zeros(taps.shape, dtype=taps.dtype)
    g_taps[:, : len(rows)] = g_rows.mT
    return g_x, g_taps, g_state
