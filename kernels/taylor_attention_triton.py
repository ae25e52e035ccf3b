"""Taylor attention in Triton: features against the state between chunks, weights 1 + s + s^2/2 between tiles inside one.

    KV_t = KV_{t-1} + phi(k_t) v_t^T;  K_t = K_{t-1} + phi(k_t);  o_t = phi(q_t) KV_t / (phi(q_t) . K_t + eps)

Features come in K + 2 blocks, of which only one at a time exists: with y = x / K^(1/4), block 0 is the number 1, block 1 is
y, and block 2 + i is y times y_i / sqrt(2). So a product with all features is K + 2 products with blocks as wide as a key.

The state is large, so it is written down rarely: a chunk has several tiles of tokens, and a tile takes from all tiles of its
chunk up to itself as masked attention does.

Give every value one number more: 1 beside v, and beside the gradient of the numerator that of the denominator. Then queries
and keys play the same part, one from the past and one from the future: `mixed_kernel` makes outputs from states, and the
gradients of v from gradients of states; `key_grads_kernel` makes the gradients of q and of k. `carry_kernel` walks the
chunks, either way, one block of the state a program. Nothing decays, so all of them add and none divides.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridlab.kernels.tiles_triton import load_tile, load_vector, precision, store_tile, store_vector

# Tokens a tile, by bytes a key, and values a tile: about the largest that fit the registers of all targets
# (`hybridlab.measure.aot`). Tokens a chunk: its pairs cost less than its state, whose marks fill the memory.
TILE = {2: 64, 4: 32}
VALUES = 64
CHUNK = 256


def forward(
    q: Tensor, k: Tensor, v: Tensor, eps: Tensor, kv_state: Tensor, k_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output in v's dtype, final state (two tensors), every token's sum of weights; see `hybridlab.ops.taylor_attention`."""
    q, k, v, kv_state, k_state = (x.contiguous() for x in (q, k, v, kv_state, k_state))
    if v.shape[1] == 1:
        return _step(q, k, v, eps, kv_state, k_state)
    marks, (kv, total) = _carry(k, v, None, kv_state, k_state, reverse=False)
    output, sums = torch.empty_like(v), k_state.new_empty(v.shape[:3])
    _mixed(q, k, v, marks, output, sums, eps, reverse=False)
    return output, kv, total, sums


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of q, k, v and the two tensors of the first state.

    Args:
        tensors: q, k, v, eps, kv_state, k_state; output, final state, sums of weights; gradients of output and final state.
    """
    q, k, v, _, kv_state, k_state, output, _, _, sums, grad_output, grad_kv, grad_k = (x.contiguous() for x in tensors)
    # An output is a fraction: what its numerator gets, and what its denominator gets.
    grad = grad_output / sums.unsqueeze(-1)
    grad_sums = -(grad * output).sum(-1)
    starts, _ = _carry(k, v, None, kv_state, k_state, reverse=False)
    ends, grad_states = _carry(q, grad, grad_sums, grad_kv, grad_k, reverse=True)
    grad_v = torch.empty_like(v)
    _mixed(k, q, grad, ends, grad_v, None, None, reverse=True)
    grad_q = _key_grads((q, grad, grad_sums), (k, v, None), starts, reverse=False)
    return grad_q, _key_grads((k, v, None), (q, grad, grad_sums), ends, reverse=True), grad_v, *grad_states


def blocks(keys: Tensor, values: Tensor) -> tuple[int, int, int, int]:
    """Tokens a tile, tiles a chunk, widths of a block of features and of a tile of values; matrix units take 16 at least."""
    L = min(TILE[keys.element_size()], max(16, triton.next_power_of_2(keys.shape[1])))
    BK, BV = (max(16, triton.next_power_of_2(x.shape[3])) for x in (keys, values))
    return L, CHUNK // L, BK, min(BV, VALUES)


def _step(
    q: Tensor, k: Tensor, v: Tensor, eps: Tensor, kv_state: Tensor, k_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, _, H, V = v.shape
    K, BV = q.shape[3], min(32, triton.next_power_of_2(V))
    output, sums = torch.empty_like(v), k_state.new_empty(v.shape[:3])
    kv, total = torch.empty_like(kv_state), torch.empty_like(k_state)
    step_kernel[(B * H, triton.cdiv(V, BV))](
        q, k, v, eps, kv_state, k_state, output, kv, total, sums, K, V, triton.next_power_of_2(K), BV,
        K**-0.25, num_warps=4,
    )  # fmt: skip
    return output, kv, total, sums


def _carry(
    keys: Tensor, values: Tensor, extras: Tensor | None, kv: Tensor, total: Tensor, *, reverse: bool
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    (B, T, H, V), K = values.shape, keys.shape[3]
    L, span, BK, BV = blocks(keys, values)
    chunks = triton.cdiv(T, CHUNK)
    marks = kv.new_empty((B, H, chunks, *kv.shape[2:])), kv.new_empty((B, H, chunks, kv.shape[2]))
    final = torch.empty_like(kv), torch.empty_like(total)
    carry_kernel[(B * H, K + 2, triton.cdiv(V, BV))](
        keys, values, extras, kv, total, *marks, *final, T, H, K, V, L, span, BK, BV, K**-0.25,
        precision(keys), reverse, num_warps=4,
    )  # fmt: skip
    return marks, final


def _mixed(
    own: Tensor, others: Tensor, values: Tensor, marks: tuple[Tensor, Tensor], out: Tensor, sums: Tensor | None,
    eps: Tensor | None, *, reverse: bool,
) -> None:  # fmt: skip
    (B, T, H, V), K = values.shape, own.shape[3]
    L, span, BK, BV = blocks(own, values)
    mixed_kernel[(triton.cdiv(T, L) * B * H, triton.cdiv(V, BV))](
        own, others, values, *marks, eps, out, sums, T, H, K, V, L, span, BK, BV, K**-0.25,
        precision(own), reverse, num_warps=4,
    )  # fmt: skip


def _key_grads(
    own: tuple[Tensor, Tensor, Tensor | None], others: tuple[Tensor, Tensor, Tensor | None], marks: tuple[Tensor, Tensor],
    *, reverse: bool,
) -> Tensor:  # fmt: skip
    x, values, _ = own
    (B, T, H, V), K = values.shape, x.shape[3]
    L, span, BK, BV = blocks(x, values)
    grad = torch.empty_like(x)
    key_grads_kernel[(triton.cdiv(T, L) * B * H,)](
        *own, *others, *marks, grad, T, H, K, V, L, span, BK, min(BV, 32), K**-0.25, precision(x), reverse,
        num_warps=L // 8,
    )  # fmt: skip
    return grad


@triton.jit
def tile_place(T, H: tl.constexpr, L: tl.constexpr, SPAN: tl.constexpr):
    """Of this program: its tile, the tile where its chunk starts, that chunk of all chunks, batch, head. 64 bits."""
    tiles = tl.cdiv(T, L)
    program = tl.program_id(0).to(tl.int64)
    head, tile = program // tiles, program % tiles
    return tile, tile // SPAN * SPAN, head * tl.cdiv(T, L * SPAN) + tile // SPAN, head // H, head % H


@triton.jit
def block_rows(block, K: tl.constexpr):
    """Where a block of features starts in the state, and how many features it has."""
    return tl.where(block == 0, 0, 1 + (block - 1) * K), tl.where(block == 0, 1, K)


@triton.jit
def block_factor(x, block, stride, rows, L: tl.constexpr, SCALE: tl.constexpr):
    """What every feature of a block has in common: 1, or the y_i / sqrt(2) of block 2 + i, (L,)."""
    t = tl.arange(0, L)
    column = tl.load(x + t * stride + tl.maximum(block - 2, 0), mask=t < rows, other=0.0).to(tl.float32)
    return tl.where(block < 2, 1.0, column * (SCALE * 0.7071067811865476))


@triton.jit
def block_features(y, factor, block):
    """A block's features of the tokens y, (L, BK)."""
    first = (tl.arange(0, y.shape[1]) == 0).to(tl.float32)[None, :]
    return tl.where(block == 0, first, y * factor[:, None])


@triton.jit
def load_extras(extras, at, H: tl.constexpr, rows, L: tl.constexpr):
    """The number beside each value, from offset `at` on: 1 where none are given; 0 behind the last token."""
    t = tl.arange(0, L)
    if extras is None:
        numbers = (t < rows).to(tl.float32)
    else:
        numbers = tl.load(extras + at + t * H, mask=t < rows, other=0.0).to(tl.float32)
    return numbers


@triton.jit
def visible(own, other, L: tl.constexpr, REVERSE: tl.constexpr):
    """Which tokens of a tile each token of another may take from: those up to it, in reverse those from it on."""
    a, o = own * L + tl.arange(0, L)[:, None], other * L + tl.arange(0, L)[None, :]
    return a <= o if REVERSE else a >= o


@triton.jit
def carry_kernel(
    keys, values, extras, kv, total, kv_marks, marks, kv_final, final, T,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, SPAN: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Walks the chunks with one block of the state; writes it down before each chunk, and at the end.

        S <- S + phi(keys)^T values        z <- z + phi(keys)^T extras

    In reverse, with (q, gradient of the numerator, that of the denominator) in the place of (k, v, 1), S and z are gradients
    of the state. Programs: (batch and head, block of features, tile of values).
    """
    head = tl.program_id(0).to(tl.int64)
    block, v0 = tl.program_id(1), tl.program_id(2) * BV
    b, h = head // H, head % H
    F: tl.constexpr = 1 + K + K * K
    row0, count = block_rows(block, K)
    at_state, chunks = head * F + row0, tl.cdiv(T, L * SPAN)
    S = load_tile(kv + at_state * V + v0, V, count, V - v0, BK, BV)
    z = load_vector(total + at_state, count, BK)
    tiles = tl.cdiv(T, L)
    for step in range(tiles):
        n = tl.cast(tiles - 1 - step if REVERSE else step, tl.int64)
        if (n == tiles - 1 or n % SPAN == SPAN - 1) if REVERSE else n % SPAN == 0:
            mark = (head * chunks + n // SPAN) * F + row0
            store_tile(kv_marks + mark * V + v0, S, V, count, V - v0, BK, BV)
            if v0 == 0:
                store_vector(marks + mark, z, count, BK)
        at, rows = (b * T + n * L) * H + h, tl.minimum(T - n * L, L).to(tl.int32)
        y = load_tile(keys + at * K, H * K, rows, K, L, BK) * SCALE
        features = block_features(y, block_factor(keys + at * K, block, H * K, rows, L, SCALE), block)
        what = load_tile(values + at * V + v0, H * V, rows, V - v0, L, BV)
        S += tl.dot(tl.trans(features), what, input_precision=PRECISION)
        z += tl.sum(features * load_extras(extras, at, H, rows, L)[:, None], 0)
    store_tile(kv_final + at_state * V + v0, S, V, count, V - v0, BK, BV)
    if v0 == 0:
        store_vector(final + at_state, z, count, BK)


@triton.jit
def mixed_kernel(
    own, others, values, kv_marks, marks, eps, out, sums, T,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, SPAN: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """What the tokens of one tile take from their chunk's tiles through weights, and through the state from outside it.

        out = (phi(q) S_start + w(q k^T) v) / (phi(q) z_start + w(q k^T) 1 + eps)

    In reverse, with (k, q, gradient of the numerator, that of the state at chunk ends) in the place of (q, k, v, state at
    chunk starts), and without the denominator, the gradient of v. Programs: (tile of a batch and head, tile of values).
    """
    tile, first, mark, b, h = tile_place(T, H, L, SPAN)
    v0 = tl.program_id(1) * BV
    F: tl.constexpr = 1 + K + K * K
    at, rows = (b * T + tile * L) * H + h, tl.minimum(T - tile * L, L).to(tl.int32)
    y = load_tile(own + at * K, H * K, rows, K, L, BK) * SCALE
    result, weight = tl.zeros((L, BV), tl.float32), tl.zeros((L,), tl.float32)
    for block in tl.range(0, K + 2, num_stages=1):
        row0, count = block_rows(block, K)
        features = block_features(y, block_factor(own + at * K, block, H * K, rows, L, SCALE), block)
        S = load_tile(kv_marks + (mark * F + row0) * V + v0, V, count, V - v0, BK, BV)
        result += tl.dot(features, S, input_precision=PRECISION)
        if not REVERSE:
            weight += tl.sum(features * load_vector(marks + mark * F + row0, count, BK)[None, :], 1)
    last = tl.minimum(first + SPAN, tl.cdiv(T, L))
    for other in tl.range(tile if REVERSE else first, last if REVERSE else tile + 1, num_stages=1):
        there, many = (b * T + other * L) * H + h, tl.minimum(T - other * L, L).to(tl.int32)
        y_other = load_tile(others + there * K, H * K, many, K, L, BK) * SCALE
        scores = tl.dot(y, tl.trans(y_other), input_precision=PRECISION)
        weights = tl.where(visible(tile, other, L, REVERSE), 1 + scores * (1 + 0.5 * scores), 0.0)
        what = load_tile(values + there * V + v0, H * V, many, V - v0, L, BV)
        result += tl.dot(weights, what, input_precision=PRECISION)
        if not REVERSE:
            weight += tl.sum(weights, 1)
    if not REVERSE:
        weight += tl.load(eps)
        result /= weight[:, None]
        if v0 == 0:
            tl.store(sums + at + tl.arange(0, L) * H, weight, mask=tl.arange(0, L) < rows)
    store_tile(out + at * V + v0, result, H * V, rows, V - v0, L, BV)


@triton.jit
def key_grads_kernel(
    own, own_values, own_extras, others, values, extras, kv_marks, marks, grad, T,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, SPAN: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The gradient of one tile's q: through its features, which meet the state, and through the scores inside the chunk.

        d phi(q) = dN S_start^T + dD z_start^T           d s = (dN v^T + dD 1^T) (1 + s)

    In reverse, with k, v and 1 in the place of q and its gradients of numerator dN and denominator dD, the gradient of k.
    Programs: tile of a batch and head.
    """
    tile, first, mark, b, h = tile_place(T, H, L, SPAN)
    F: tl.constexpr = 1 + K + K * K
    at, rows = (b * T + tile * L) * H + h, tl.minimum(T - tile * L, L).to(tl.int32)
    y = load_tile(own + at * K, H * K, rows, K, L, BK) * SCALE
    extra = load_extras(own_extras, at, H, rows, L)
    column = tl.arange(0, BK)[None, :]
    result = tl.zeros((L, BK), tl.float32)
    for block in tl.range(1, K + 2, num_stages=1):
        row0, count = block_rows(block, K)
        d_features = extra[:, None] * load_vector(marks + mark * F + row0, count, BK)[None, :]
        for v0 in tl.range(0, V, BV, num_stages=1):
            what = load_tile(own_values + at * V + v0, H * V, rows, V - v0, L, BV)
            S = load_tile(kv_marks + (mark * F + row0) * V + v0, V, count, V - v0, BK, BV)
            d_features += tl.dot(what, tl.trans(S), input_precision=PRECISION)
        result += d_features * block_factor(own + at * K, block, H * K, rows, L, SCALE)[:, None]
        d_factor = tl.sum(d_features * y, 1)[:, None] * 0.7071067811865476
        result += tl.where(column == block - 2, d_factor, 0.0)
    last = tl.minimum(first + SPAN, tl.cdiv(T, L))
    for other in tl.range(tile if REVERSE else first, last if REVERSE else tile + 1, num_stages=1):
        there, many = (b * T + other * L) * H + h, tl.minimum(T - other * L, L).to(tl.int32)
        y_other = load_tile(others + there * K, H * K, many, K, L, BK) * SCALE
        extra_other = load_extras(extras, there, H, many, L)
        d_scores = extra[:, None] * extra_other[None, :]
        for v0 in tl.range(0, V, BV, num_stages=1):
            what = load_tile(own_values + at * V + v0, H * V, rows, V - v0, L, BV)
            met = load_tile(values + there * V + v0, H * V, many, V - v0, L, BV)
            d_scores += tl.dot(what, tl.trans(met), input_precision=PRECISION)
        scores = tl.dot(y, tl.trans(y_other), input_precision=PRECISION)
        d_scores = tl.where(visible(tile, other, L, REVERSE), d_scores * (1 + scores), 0.0)
        result += tl.dot(d_scores, y_other, input_precision=PRECISION)
    store_tile(grad + at * K, result * SCALE, H * K, rows, K, L, BK)


@triton.jit
def step_kernel(
    q, k, v, eps, kv_state, k_state, out, kv, total, sums,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    """One token: writes itself into the state and reads it; bound by the state's bytes, so no matrix units.

    Programs: (batch and head, tile of values).
    """
    head = tl.program_id(0).to(tl.int64)
    v0 = tl.program_id(1) * BV
    F: tl.constexpr = 1 + K + K * K
    y_q, y_k = load_tile(q + head * K, K, 1, K, 1, BK) * SCALE, load_tile(k + head * K, K, 1, K, 1, BK) * SCALE
    what = load_vector(v + head * V + v0, V - v0, BV)
    result, weight = tl.zeros((BV,), tl.float32), tl.zeros((1,), tl.float32)
    for block in tl.range(0, K + 2, num_stages=1):
        row0, count = block_rows(block, K)
        cells = head * F + row0
        read = tl.sum(block_features(y_q, block_factor(q + head * K, block, K, 1, 1, SCALE), block), 0)
        written = tl.sum(block_features(y_k, block_factor(k + head * K, block, K, 1, 1, SCALE), block), 0)
        S = load_tile(kv_state + cells * V + v0, V, count, V - v0, BK, BV) + written[:, None] * what[None, :]
        z = load_vector(k_state + cells, count, BK) + written
        result += tl.sum(read[:, None] * S, 0)
        weight += tl.sum(read * z, 0)
        store_tile(kv + cells * V + v0, S, V, count, V - v0, BK, BV)
        if v0 == 0:
            store_vector(total + cells, z, count, BK)
    weight += tl.load(eps)
    if v0 == 0:
        tl.store(sums + head + tl.arange(0, 1), weight)
    store_vector(out + head * V + v0, result / weight, V - v0, BV)
