"""Softmax attention in Triton: tiles of queries x keys on matrix units, forward and backward; one token by a kernel apart.

A program takes a block of queries and walks the tiles of keys that some query of it sees: those with sinks, then those from
the window's far edge to the last query. It keeps, a query, the largest score so far, the sum of weights beside it and the
sum of values. The largest starts finite, so a query that sees nothing of a tile gets weights of 0 from it, not
e^{-inf + inf}.

Backwards the weights are computed again from the log of their sum, once along the keys for the gradient of q, once along the
queries for those of k and v: nothing is added by two programs, so sums stay reproducible. bfloat16 is multiplied as it is,
with sums in float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridlab.kernels.tiles_triton import load_vector, precision, store_tile, store_vector, whereabouts

# Keys that one program takes of a single query's, and how many of them at a time.
SPLIT, STEP = 512, 32
# Bytes of a tile of keys, or of values, at most.
TILE_BYTES = 8192
# Stands for the largest of no scores.
LOWEST = tl.constexpr(-1e38)


def forward(q: Tensor, k: Tensor, v: Tensor, sight: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, V), and the log of the sum of e^score of each query (B, H, T); the last query stands at the last key.

    Args:
        q: (B, T, H, K).
        k: (B, S, G, K), T of them new.
        v: (B, S, G, V).
        sight: window, sinks, scale and soft cap (0 is none), float64 on the CPU.
    """
    q, k, v = (x.contiguous() for x in (q, k, v))
    if q.shape[1] == 1:
        return _step(q, k, v, sight)
    B, T, H, _ = q.shape
    out, log_sum = v.new_empty(B, T, H, v.shape[3]), q.new_empty((B, H, T), dtype=torch.float32)
    L = tile(q, v)
    forward_kernel[(triton.cdiv(T, L) * B * H,)](
        q, k, v, out, log_sum, T, k.shape[1], *_sizes(sight, q, k, v, L, L), num_warps=4, num_stages=2
    )
    return out, log_sum


def backward(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v; takes those, sight, output, logs of sums, and the gradient of output."""
    q, k, v, sight, out, log_sum, grad_out = tensors
    q, k, v, grad_out = (x.contiguous() for x in (q, k, v, grad_out))
    B, T, H, _ = q.shape
    S, G = k.shape[1:3]
    # What a program keeps gets fewer rows than what it walks along.
    walked, kept = tile(q, v), max(16, tile(q, v) // 2)
    # What the softmax takes from every score of a query, because its weights sum to 1.
    shared = (out.float() * grad_out.float()).sum(-1).transpose(1, 2).contiguous()
    grad_q = torch.empty_like(q)
    # One summand a head where heads share keys, summed in order below.
    grad_k, grad_v = (x.new_empty((B, S, H, x.shape[3]), dtype=x.dtype if G == H else torch.float32) for x in (k, v))
    given = (q, k, v, grad_out, log_sum, shared)
    query_grads_kernel[(triton.cdiv(T, kept) * B * H,)](
        *given, grad_q, T, S, *_sizes(sight, q, k, v, kept, walked), num_warps=4, num_stages=1
    )
    key_grads_kernel[(triton.cdiv(S, kept) * B * H,)](
        *given, grad_k, grad_v, T, S, *_sizes(sight, q, k, v, walked, kept), num_warps=4, num_stages=1
    )
    if G < H:
        grad_k, grad_v = (x.unflatten(2, (G, -1)).sum(3).to(k.dtype) for x in (grad_k, grad_v))
    return grad_q, grad_k, grad_v


def tile(q: Tensor, v: Tensor) -> int:
    """Rows of a tile of queries or keys, 16 at least (matrix units): as many as fit the registers of all targets."""
    widest = triton.next_power_of_2(max(q.shape[3], v.shape[3]))
    return min(64, max(16, TILE_BYTES // (widest * q.element_size())))


def _sizes(sight: Tensor, q: Tensor, k: Tensor, v: Tensor, rows: int, columns: int) -> tuple:
    """What a query sees, and all that is fixed when a kernel is compiled."""
    window, sinks, scale, softcap = sight.tolist()
    widths = (max(16, triton.next_power_of_2(x.shape[3])) for x in (q, v))
    return (
        int(window), int(sinks), scale, softcap,
        q.shape[2], *k.shape[2:], v.shape[3], rows, columns, *widths, softcap > 0, precision(q),
    )  # fmt: skip


def _step(q: Tensor, k: Tensor, v: Tensor, sight: Tensor) -> tuple[Tensor, Tensor]:
    """One query: programs share its keys, and what each found is weighted by its sum of weights."""
    B, _, H, K = q.shape
    S, G, V = k.shape[1], k.shape[2], v.shape[3]
    window, sinks, scale, softcap = sight.tolist()
    start = max(0, S - int(window))
    first = min(int(sinks), start)
    parts = triton.cdiv(first + S - start, SPLIT)
    outs = q.new_empty((parts, B, H, V), dtype=torch.float32)
    log_sums = q.new_empty((parts, B, H, 1), dtype=torch.float32)
    step_kernel[(B * H, parts)](
        q, k, v, outs, log_sums, B, S, first, start, scale, softcap, H, G, K, V,
        SPLIT, STEP, triton.next_power_of_2(K), triton.next_power_of_2(V), softcap > 0, num_warps=4,
    )  # fmt: skip
    out = (log_sums.softmax(0) * outs).sum(0)
    return out.unsqueeze(1).to(v.dtype), log_sums.logsumexp(0)


@triton.jit
def load_as_is(x, stride, rows, cols, ROWS: tl.constexpr, COLS: tl.constexpr):
    """`load_tile` without the change of dtype."""
    i, j = tl.arange(0, ROWS)[:, None], tl.arange(0, COLS)[None, :]
    return tl.load(x + i * stride + j, mask=(i < rows) & (j < cols), other=0.0)


@triton.jit
def capped(scores, softcap):
    """softcap * tanh(scores / softcap); tanh by e^{-2|x|}, which cannot overflow."""
    fall = tl.exp(-2.0 * tl.abs(scores) / softcap)
    size = softcap * (1.0 - fall) / (1.0 + fall)
    return tl.where(scores >= 0, size, -size)


@triton.jit
def visited(row, rows, window, sinks, N: tl.constexpr):
    """Tiles that `rows` queries from the one at key `row` on visit: how many with sinks, which is next, how many in all."""
    start = tl.maximum(0, row - window + 1) // N
    first = tl.minimum((sinks + N - 1) // N, start)
    return first, start, first + (row + rows - 1) // N + 1 - start


@triton.jit
def visible(row, column, window, sinks, M: tl.constexpr, N: tl.constexpr):
    """(M, N): which keys from `column` on the queries from the one at key `row` on see."""
    i, j = row + tl.arange(0, M)[:, None], column + tl.arange(0, N)[None, :]
    return (j <= i) & ((j > i - window) | (j < sinks))


@triton.jit
def forward_kernel(
    q, k, v, out, log_sum, T, S, window, sinks, scale, softcap,
    H: tl.constexpr, G: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The outputs of one block of queries. Programs: (block of a batch and head)."""
    c, b, h, head = whereabouts(T, H, M)
    g, at = h // (H // G), b * T + c * M
    rows = tl.minimum(T - c * M, M).to(tl.int32)
    row = (S - T + c * M).to(tl.int32)
    queries = load_as_is(q + (at * H + h) * K, H * K, rows, K, M, BK)
    top = tl.full((M,), LOWEST, tl.float32)
    total = tl.zeros((M,), tl.float32)
    result = tl.zeros((M, BV), tl.float32)
    first, start, tiles = visited(row, rows, window, sinks, N)
    for i in tl.range(0, tiles):
        s = N * tl.where(i < first, i, i - first + start)
        keys = load_as_is(k + ((b * S + s) * G + g) * K, G * K, S - s, K, N, BK)
        values = load_as_is(v + ((b * S + s) * G + g) * V, G * V, S - s, V, N, BV)
        scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
        if CAPPED:
            scores = capped(scores, softcap)
        scores = tl.where(visible(row, s, window, sinks, M, N), scores, float("-inf"))
        largest = tl.maximum(top, tl.max(scores, 1))
        fade, weights = tl.exp(top - largest), tl.exp(scores - largest[:, None])
        top, total = largest, total * fade + tl.sum(weights, 1)
        result = result * fade[:, None] + tl.dot(weights.to(values.dtype), values, input_precision=PRECISION)
    # The largest score's own weight is 1; only rows behind the last query have less.
    total = tl.maximum(total, 1.0)
    store_tile(out + (at * H + h) * V, result / total[:, None], H * V, rows, V, M, BV)
    store_vector(log_sum + head * T + c * M, top + tl.log(total), rows, M)


@triton.jit
def pair_grads(
    queries, keys, wanted, values, sums, shared, row, column, window, sinks, scale, softcap,
    M: tl.constexpr, N: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(M, N): the weights of a tile, and the gradients of its products q . k."""
    scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
    asked = (tl.dot(wanted, tl.trans(values), input_precision=PRECISION) - shared[:, None]) * scale
    if CAPPED:
        scores = capped(scores, softcap)
        asked *= 1.0 - (scores / softcap) * (scores / softcap)
    scores = tl.where(visible(row, column, window, sinks, M, N), scores, float("-inf"))
    weights = tl.exp(scores - sums[:, None])
    # The weight of a key that is seen alone is 1, whatever its score: what rounding leaves must not pass for a gradient.
    alone = (row + tl.arange(0, M) == 0) | ((window == 1) & (sinks == 0))
    return weights, tl.where(alone[:, None], 0.0, weights * asked)


@triton.jit
def query_grads_kernel(
    q, k, v, grad_out, log_sum, shared, grad_q, T, S, window, sinks, scale, softcap,
    H: tl.constexpr, G: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of one block of queries, tile by tile of the keys they see. Programs: (block of a batch and head)."""
    c, b, h, head = whereabouts(T, H, M)
    g, at = h // (H // G), b * T + c * M
    rows = tl.minimum(T - c * M, M).to(tl.int32)
    row = (S - T + c * M).to(tl.int32)
    queries = load_as_is(q + (at * H + h) * K, H * K, rows, K, M, BK)
    wanted = load_as_is(grad_out + (at * H + h) * V, H * V, rows, V, M, BV)
    sums = load_vector(log_sum + head * T + c * M, rows, M)
    taken = load_vector(shared + head * T + c * M, rows, M)
    result = tl.zeros((M, BK), tl.float32)
    first, start, tiles = visited(row, rows, window, sinks, N)
    for i in tl.range(0, tiles):
        s = N * tl.where(i < first, i, i - first + start)
        keys = load_as_is(k + ((b * S + s) * G + g) * K, G * K, S - s, K, N, BK)
        values = load_as_is(v + ((b * S + s) * G + g) * V, G * V, S - s, V, N, BV)
        _, asked = pair_grads(
            queries, keys, wanted, values, sums, taken, row, s, window, sinks, scale, softcap, M, N, CAPPED, PRECISION
        )
        result += tl.dot(asked.to(keys.dtype), keys, input_precision=PRECISION)
    store_tile(grad_q + (at * H + h) * K, result, H * K, rows, K, M, BK)


@triton.jit
def key_grads_kernel(
    q, k, v, grad_out, log_sum, shared, grad_k, grad_v, T, S, window, sinks, scale, softcap,
    H: tl.constexpr, G: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of one tile of keys and values from one head, block by block of the queries that see them.

    Programs: (tile of a batch and head).
    """
    c, b, h, head = whereabouts(S, H, N)
    s = (c * N).to(tl.int32)
    g, at, past = h // (H // G), b * S + s, S - T
    keys = load_as_is(k + (at * G + g) * K, G * K, S - s, K, N, BK)
    values = load_as_is(v + (at * G + g) * V, G * V, S - s, V, N, BV)
    d_keys = tl.zeros((N, BK), tl.float32)
    d_values = tl.zeros((N, BV), tl.float32)
    # Nobody before the first key sees one, nor, but for sinks, anybody a window behind the last.
    first = tl.maximum(0, s - past) // M * M
    last = tl.where(s < sinks, T, tl.minimum(T, s + N - 1 + window - past))
    for t in tl.range(first, last, M):
        to, rows = (b * T + t) * H + h, T - t
        queries = load_as_is(q + to * K, H * K, rows, K, M, BK)
        wanted = load_as_is(grad_out + to * V, H * V, rows, V, M, BV)
        sums = load_vector(log_sum + head * T + t, rows, M)
        taken = load_vector(shared + head * T + t, rows, M)
        weights, asked = pair_grads(
            queries, keys, wanted, values, sums, taken, past + t, s, window, sinks, scale, softcap, M, N, CAPPED, PRECISION
        )
        d_values += tl.dot(tl.trans(weights.to(wanted.dtype)), wanted, input_precision=PRECISION)
        d_keys += tl.dot(tl.trans(asked.to(queries.dtype)), queries, input_precision=PRECISION)
    store_tile(grad_k + (at * H + h) * K, d_keys, H * K, S - s, K, N, BK)
    store_tile(grad_v + (at * H + h) * V, d_values, H * V, S - s, V, N, BV)


@triton.jit
def step_kernel(
    q, k, v, outs, log_sums, B, S, first, start, scale, softcap,
    H: tl.constexpr, G: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    PART: tl.constexpr, N: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    """One query over a part of the keys it sees: `first` sinks, then those from `start` on; bound by their bytes.

    Programs: (batch and head, part).
    """
    head, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    b, g = head // H, head % H // (H // G)
    seen = first + S - start
    query = load_vector(q + head * K, K, BK) * scale
    top = tl.full((N,), LOWEST, tl.float32)
    total = tl.zeros((N,), tl.float32)
    result = tl.zeros((N, BV), tl.float32)
    for n in tl.range(part * PART, tl.minimum(part * PART + PART, seen), N):
        i = n + tl.arange(0, N)
        s = ((b * S + tl.where(i < first, i, i - first + start)) * G + g)[:, None]
        width, room = tl.arange(0, BK)[None, :], (i < seen)[:, None]
        keys = tl.load(k + s * K + width, mask=room & (width < K), other=0.0).to(tl.float32)
        scores = tl.sum(query[None, :] * keys, 1)
        if CAPPED:
            scores = capped(scores, softcap)
        scores = tl.where(i < seen, scores, float("-inf"))
        largest = tl.maximum(top, scores)
        fade, weights = tl.exp(top - largest), tl.exp(scores - largest)
        width = tl.arange(0, BV)[None, :]
        values = tl.load(v + s * V + width, mask=room & (width < V), other=0.0).to(tl.float32)
        top, total = largest, total * fade + weights
        result = result * fade[:, None] + weights[:, None] * values
    # Each place of a tile kept a largest score of its own; the sums meet beside the largest of all.
    largest = tl.max(top, 0)
    fade = tl.exp(top - largest)
    total = tl.sum(total * fade, 0)
    result = tl.sum(result * fade[:, None], 0) / total
    to = part * B * H + head
    store_vector(outs + to * V, result, V, BV)
    tl.store(log_sums + to, largest + tl.log(total))
