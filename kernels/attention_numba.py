"""Softmax attention on a CPU: tiles of queries x keys, so that nearly all work is products of matrices.

No row of weights is ever whole, and tiles that no query of a block sees are not visited: under a window the work is T * W.

Forwards a block of queries walks its tiles and keeps, a query, the largest score so far, the sum of weights and the sum of
values, both beside that largest score. Backwards the weights are computed again from the logarithm of the sum of weights.

Keys and values are copied once so that a head's rows lie together, and keys (backwards, values too) turned as well: matrix
products run along rows.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hybridlab.kernels.matrices_numba import REORDER, add_product, aligned, clear
from hybridlab.kernels.numerics_numba import FAST, arrays, exp

# Queries a block and keys a tile: scores stay in the first cache, or in the second beside a tile of keys and of values.
ROWS, COLUMNS = 64, 64
# Fewer queries than this go one by one, without copies of the keys.
FEW_TOKENS = 4
# Multiply-adds below which waking a second thread costs more than it saves.
SERIAL_WORK = 1 << 17
# Numbers of a vector that are compared side by side.
LANES = 16
# Stands for the largest of no scores; finite, because -inf less -inf is NaN.
LOWEST = -1e38

JIT: dict[str, Any] = {"cache": True, "error_model": "numpy"}


class Sight(NamedTuple):
    """What a query sees, and how. Without a window the window is longer than any text; a soft cap of 0 is none."""

    window: int
    sinks: int
    scale: Any  # of the inputs' dtype, and so is the soft cap
    softcap: Any


class Tiles(NamedTuple):
    """The tiles of keys that a block of queries visits: `first` ones with sinks, then those from `start` to `stop`."""

    first: int
    start: int
    stop: int


def forward(q: Tensor, k: Tensor, v: Tensor, sight: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, V), and the log of the sum of e^score of each query (B, H, T); the last query stands at the last key.

    Args:
        q: (B, T, H, K).
        k: (B, S, G, K), T of them new.
        v: (B, S, G, V).
        sight: window, sinks, scale and soft cap, float64; see `Sight`.
    """
    batch, length, heads, _ = q.shape
    output, log_sum = q.new_empty(batch, length, heads, v.shape[3]), q.new_empty(batch, heads, length)
    results, seen = (output.numpy(), log_sum.numpy()), _sight(sight, q)
    if length < FEW_TOKENS:
        work = k.numel() * heads // k.shape[2]
        run = _steps_serial if work < SERIAL_WORK else _steps_parallel
        run(arrays((q.detach(), k.detach(), v.detach())), seen, results)
    else:
        _forward_blocks(arrays((_by_head(q), _by_head(k).mT, _by_head(v))), seen, results)
    return output, log_sum


def backward(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v.

    Args:
        tensors: q, k, v, sight, output, log of the sums, gradient of output.
    """
    q, k, v, sight, output, log_sum, grad_output = tensors
    groups, heads = k.shape[2], q.shape[2]
    # What the softmax takes from every score of a query, because its weights sum to 1.
    shared = (output * grad_output).sum(-1).transpose(1, 2)
    keys, values = _by_head(k), _by_head(v)
    inputs = arrays((_by_head(q), keys, keys.mT, values.mT, _by_head(grad_output), log_sum, shared))
    # Of each head, so that threads never add into the same place; heads that share keys are summed at the end.
    grads = [torch.zeros(x.shape[0], heads, x.shape[1], x.shape[3], dtype=x.dtype) for x in (q, k, v)]
    _backward(inputs, _sight(sight, q), arrays(grads))
    grad_q, grad_k, grad_v = (x.transpose(1, 2) for x in grads)
    if groups < heads:
        grad_k, grad_v = (x.unflatten(2, (groups, -1)).sum(3) for x in (grad_k, grad_v))
    return grad_q.contiguous(), grad_k.contiguous(), grad_v.contiguous()


def _sight(sight: Tensor, like: Tensor) -> Sight:
    window, sinks, scale, softcap = sight.tolist()
    number: Any = np.float64 if like.dtype == torch.float64 else np.float32
    return Sight(int(window), int(sinks), number(scale), number(softcap))


def _by_head(x: Tensor) -> Tensor:
    """(B, T, H, K) to (B, H, T, K). To turn the rows as well in one step takes PyTorch four times as long as in two."""
    return x.detach().transpose(1, 2).contiguous()


@njit(**JIT)
def _tiles(first_row, last_row, sight):
    """Which tiles the queries that stand at these keys visit."""
    stop = last_row // COLUMNS + 1
    start = max(0, first_row - sight.window + 1) // COLUMNS
    first = min((sight.sinks + COLUMNS - 1) // COLUMNS, start)
    return Tiles(first, start, stop)


@njit(**JIT)
def _tile(tiles, i):
    """Where the keys of the i-th tile start."""
    return COLUMNS * (i if i < tiles.first else i - tiles.first + tiles.start)


@njit(cache=True, parallel=True)
def _forward_blocks(inputs, sight, results):
    q = inputs[0]
    heads, blocks = q.shape[1], (q.shape[2] + ROWS - 1) // ROWS
    for task in prange(q.shape[0] * heads * blocks):
        # A thread gets a run of tasks, and the last blocks of a head see most: they alternate with the first ones.
        head, place = np.int64(task) // blocks, np.int64(task) % blocks
        block = blocks - 1 - place // 2 if place % 2 else place // 2
        _forward_block(inputs, sight, results, head // heads, head % heads, block * ROWS)


@njit(**JIT)
def _forward_block(inputs, sight, results, b, h, start):
    q, k, v = inputs
    g, past = h // (q.shape[1] // k.shape[1]), k.shape[3] - q.shape[2]
    stop = min(start + ROWS, q.shape[2])
    tiles = _tiles(past + start, past + stop - 1, sight)
    number = q.dtype.type
    top, total = np.full(ROWS, number(LOWEST)), np.zeros(ROWS, q.dtype)
    queries, sums = aligned(stop - start, q), aligned(stop - start, v)
    memory = np.empty(ROWS * COLUMNS, q.dtype)
    for t in range(stop - start):
        for i in range(q.shape[3]):
            queries[t, i] = q[b, h, start + t, i] * sight.scale
    clear(sums)
    for i in range(tiles.first + tiles.stop - tiles.start):
        s = _tile(tiles, i)
        end = min(s + COLUMNS, k.shape[3])
        seen = _matrix(memory, stop - start, end - s)
        add_product(seen, queries, k[b, g, :, s:end])
        if sight.softcap > 0:
            _cap(seen, sight.softcap)
        _mask(seen, past + start, s, sight)
        _weigh(seen, top, total, sums)
        add_product(sums, seen, v[b, g, s:end])
    output, log_sum = results
    for t in range(stop - start):
        for j in range(v.shape[3]):
            output[b, start + t, h, j] = sums[t, j] / total[t]
        log_sum[b, h, start + t] = top[t] + math.log(total[t])


@njit(fastmath=FAST)
def _cap(scores, softcap):
    """softcap * tanh(score / softcap); tanh by e^{-2|x|}, which cannot overflow."""
    two = softcap / softcap + softcap / softcap
    for t in range(scores.shape[0]):
        for n in range(scores.shape[1]):
            x = scores[t, n]
            fall = exp(-abs(x) * two / softcap)
            size = softcap * (1 - fall) / (1 + fall)
            scores[t, n] = size if x >= 0 else -size


@njit(**JIT)
def _mask(scores, row, column, sight):
    """Scores that a query must not see become -inf; most tiles have none."""
    rows, columns = scores.shape
    if column + columns - 1 <= row and column > row + rows - 1 - sight.window:
        return
    for t in range(rows):
        first, last = row + t - sight.window, row + t
        for n in range(min(columns, first + 1 - column)):
            if column + n >= sight.sinks:
                scores[t, n] = -np.inf
        for n in range(max(0, last + 1 - column), columns):
            scores[t, n] = -np.inf


@njit(fastmath=FAST)
def _weigh(scores, top, total, sums):
    """Scores become weights beside the largest score so far; what was summed beside an earlier one is scaled to that."""
    lanes = np.empty(LANES, scores.dtype)
    for t in range(scores.shape[0]):
        largest = _largest(scores[t], lanes, top[t])
        fade = exp(top[t] - largest)
        top[t] = largest
        _weights(scores[t], largest)
        total[t] = total[t] * fade + _sum(scores, t)
        if fade < 1:
            for j in range(sums.shape[1]):
                sums[t, j] *= fade


@njit
def _largest(row, lanes, least):
    whole = row.size // LANES * LANES
    for i in range(LANES):
        lanes[i] = least
    for n in range(0, whole, LANES):
        for i in range(LANES):
            x = row[n + i]
            lanes[i] = x if x > lanes[i] else lanes[i]
    for n in range(whole, row.size):
        lanes[0] = max(lanes[0], row[n])
    for i in range(LANES):
        least = max(least, lanes[i])
    return least


@njit(fastmath=FAST)
def _weights(row, largest):
    for n in range(row.size):
        row[n] = exp(row[n] - largest)


@njit(fastmath=REORDER)
def _sum(scores, t):
    total = scores.dtype.type(0)
    for n in range(scores.shape[1]):
        total += scores[t, n]
    return total


@njit(cache=True, parallel=True)
def _backward(inputs, sight, grads):
    heads = grads[0].shape[1]
    for head in prange(grads[0].shape[0] * heads):
        _backward_head(inputs, sight, grads, np.int64(head) // heads, np.int64(head) % heads)


@njit(**JIT)
def _backward_head(inputs, sight, grads, b, h):
    q, k, turned_k, turned_v, grad_output, log_sum, shared = inputs
    g, past = h // (q.shape[1] // k.shape[1]), k.shape[2] - q.shape[2]
    grad_q, grad_k, grad_v = grads[0][b, h], grads[1][b, h], grads[2][b, h]
    weights_memory, asked_memory = np.empty(ROWS * COLUMNS, q.dtype), np.empty(ROWS * COLUMNS, q.dtype)
    for start in range(0, q.shape[2], ROWS):
        stop = min(start + ROWS, q.shape[2])
        queries, wanted = q[b, h, start:stop], grad_output[b, h, start:stop]
        tiles = _tiles(past + start, past + stop - 1, sight)
        for i in range(tiles.first + tiles.stop - tiles.start):
            s = _tile(tiles, i)
            end = min(s + COLUMNS, k.shape[2])
            weights, asked = _matrix(weights_memory, stop - start, end - s), _matrix(asked_memory, stop - start, end - s)
            add_product(weights, queries, turned_k[b, g, :, s:end])
            add_product(asked, wanted, turned_v[b, g, :, s:end])
            _slopes(weights, asked, shared[b, h, start:stop], past + start, sight)
            _mask(weights, past + start, s, sight)
            _weights_again(weights, asked, log_sum[b, h, start:stop])
            add_product(grad_v[s:end], weights.T, wanted)
            add_product(grad_k[s:end], asked.T, queries)
            add_product(grad_q[start:stop], asked, k[b, g, s:end])


@njit(fastmath=FAST)
def _slopes(scores, asked, shared, row, sight):
    """Products q . k become scores; what outputs ask of weights becomes that of q . k, but for the factor of the weight."""
    rows, columns = scores.shape
    for t in range(rows):
        # The weight of a key that is seen alone is 1, whatever its score: what rounding leaves must not pass for a gradient.
        alone = row + t == 0 or (sight.window == 1 and sight.sinks == 0)
        slope = sight.scale * (0 if alone else 1)
        for n in range(columns):
            scores[t, n] *= sight.scale
            asked[t, n] = (asked[t, n] - shared[t]) * slope
    if sight.softcap > 0:
        _cap(scores, sight.softcap)
        for t in range(rows):
            for n in range(columns):
                part = scores[t, n] / sight.softcap
                asked[t, n] *= 1 - part * part


@njit(fastmath=FAST)
def _weights_again(scores, asked, log_sum):
    for t in range(scores.shape[0]):
        _weights(scores[t], log_sum[t])
        for n in range(scores.shape[1]):
            asked[t, n] *= scores[t, n]


@njit(**JIT)
def _matrix(memory, rows, columns):
    """A matrix of zeros; its rows lie side by side, so that loops along them become vector code."""
    matrix = memory[: rows * columns].reshape(rows, columns)
    clear(matrix)
    return matrix


@njit(cache=True)
def _steps_serial(inputs, sight, results):
    q = inputs[0]
    for task in range(q.shape[0] * q.shape[1] * q.shape[2]):
        _step(inputs, sight, results, task)


@njit(cache=True, parallel=True)
def _steps_parallel(inputs, sight, results):
    q = inputs[0]
    for task in prange(q.shape[0] * q.shape[1] * q.shape[2]):
        _step(inputs, sight, results, np.int64(task))


@njit(**JIT)
def _step(inputs, sight, results, task):
    """One query, over the rows of k and v as they lie."""
    q, k, v = inputs
    output, log_sum = results
    length, heads = q.shape[1:3]
    b, t, h = task // heads // length, task // heads % length, task % heads
    g, last = h // (heads // k.shape[2]), k.shape[1] - length + t
    start = max(0, last - sight.window + 1)
    first = min(sight.sinks, start)
    scores = np.empty((1, first + last + 1 - start), q.dtype)
    for n in range(scores.shape[1]):
        scores[0, n] = _product(q[b, t, h], k[b, n if n < first else n - first + start, g]) * sight.scale
    if sight.softcap > 0:
        _cap(scores, sight.softcap)
    largest = scores.max()
    _weights(scores[0], largest)
    total = _sum(scores, 0)
    out = output[b, t, h]
    out[:] = 0
    for n in range(scores.shape[1]):
        _add_row(out, scores[0, n] / total, v[b, n if n < first else n - first + start, g])
    log_sum[b, h, t] = largest + math.log(total)


@njit(fastmath=REORDER)
def _product(x, y):
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@njit(fastmath=REORDER)
def _add_row(out, factor, row):
    for j in range(out.size):
        out[j] += factor * row[j]
