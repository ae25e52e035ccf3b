"""The recurrence of SSD and retention in Triton: one decay a token and head, chunks of tokens on matrix units.

    S_t = e^{dt_t A} S_{t-1} + dt_t k_t v_t^T             o_t = q_t S_t + D v_t

SSD reads with q = C, writes with k = B, and its values are x; retention has steps dt of 1, log decay A and no D. Head h
reads and writes with q and k of group h // (H / G).

Since one number fades the whole state, the pairs i <= t of a chunk are a product q k^T, multiplied by e^{sum of the log
decays of i+1..t}. That sum is a difference of two running sums, and where a head forgets nearly everything at once (-900),
they are long and a difference has lost its digits. So a log decay is split: whole 1024ths, whose sums are exact in float32,
and a rest so small that its sums lose nothing that counts. No exponent is above 0, and nothing is divided.

`carry_kernel` walks the chunks, one tile of the state a program, and writes down the state at each chunk's start (or,
walking back, its gradient at each chunk's end). The other kernels take one chunk a program, all chunks at once. Nothing but
the inputs is kept for the backward: it walks again.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridlab.kernels.halving_triton import marked_sums
from hybridlab.kernels.tiles_triton import load_tile, load_vector, precision, store_tile, store_vector, whereabouts

# Tokens a chunk, by bytes a value; keys and values a tile: about the largest that fit the registers of all targets
# (`hybridlab.measure.aot`). A product of float32 takes more of them: it is three products of TF32.
CHUNK = {2: 64, 4: 32}
TILE = 32
# Heads of a group whose gradients of q and k one program adds up.
SHARE = 8
# There e^x is 0 in float32 already; and 64 of these are 2^23 1024ths, which float32 still counts.
LEAST = tl.constexpr(-128.0)


def forward(
    q: Tensor, k: Tensor, v: Tensor, dt: Tensor | None, A: Tensor, D: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, V) in v's dtype and the state after the last token (B, H, K, V).

    Args:
        q: what a token reads with, (B, T, G, K).
        k: what it writes with, (B, T, G, K).
        v: what it writes, (B, T, H, V).
        dt: steps, (B, T, H); None: all are 1.
        A: log decay of a step of 1, (H,).
        D: weight of a token's own value, (H,); None: 0.
        state: before the first token, (B, H, K, V); its last two axes may lie either way in memory, the result's lie alike.
    """
    q, k, v, dt, A, D = _packed(q, k, v, dt, A, D)
    if v.shape[1] == 1:
        return _step(q, k, v, dt, A, D, state)
    starts, final = _carry(k, v, dt, A, state, reverse=False)
    return _mixed(q, k, v, dt, A, D, starts, reverse=False), final


def backward(
    q: Tensor, k: Tensor, v: Tensor, dt: Tensor | None, A: Tensor, D: Tensor | None, state: Tensor,
    grad_out: Tensor, grad_final: Tensor,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of q, k, v, dt, A, D and the state; None for a dt or D that is None."""
    q, k, v, dt, A, D, grad_out = _packed(q, k, v, dt, A, D, grad_out)
    starts, _ = _carry(k, v, dt, A, state, reverse=False)
    ends, grad_state = _carry(q, grad_out, dt, A, grad_final, reverse=True)
    grad_v = _mixed(k, q, grad_out, dt, A, D, ends, reverse=True)
    grad_q, grad_k = _key_grads(q, k, v, dt, A, starts, ends, grad_out)
    return grad_q, grad_k, grad_v, *_step_grads(q, k, v, dt, A, D, starts, ends, grad_out), grad_state


def blocks(q: Tensor, v: Tensor) -> tuple[int, int, int]:
    """Tokens a chunk, and the widths of a tile of keys and of values: powers of two, 16 at least (matrix units)."""
    sizes = (q.shape[1], q.shape[3], v.shape[3])
    largest = (CHUNK[v.element_size()], TILE, TILE)
    L, BK, BV = (min(most, max(16, triton.next_power_of_2(size))) for size, most in zip(sizes, largest, strict=True))
    return L, BK, BV


def _packed(*tensors: Tensor | None) -> tuple:
    return tuple(None if x is None else x.contiguous() for x in tensors)


def _step(
    q: Tensor, k: Tensor, v: Tensor, dt: Tensor | None, A: Tensor, D: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    (B, _, H, V), (G, K) = v.shape, q.shape[2:]
    BK, BV = min(64, triton.next_power_of_2(K)), min(32, triton.next_power_of_2(V))
    out, final = torch.empty_like(v), torch.empty_like(state)
    step_kernel[(B * H, triton.cdiv(V, BV))](
        q, k, v, dt, A, D, state, out, final, *state.stride()[2:], H, G, K, V, BK, BV, num_warps=4
    )
    return out, final


def _carry(
    keys: Tensor, values: Tensor, dt: Tensor | None, A: Tensor, state: Tensor, *, reverse: bool
) -> tuple[Tensor, Tensor]:
    (B, T, H, V), (G, K) = values.shape, keys.shape[2:]
    L, BK, BV = blocks(keys, values)
    marks = state.new_empty((B, H, triton.cdiv(T, L), K, V))
    final = torch.empty_like(state)
    carry_kernel[(B * H, triton.cdiv(K, BK), triton.cdiv(V, BV))](
        keys, values, dt, A, state, marks, final, *state.stride()[2:], T, H, G, K, V, L, BK, BV,
        precision(values), reverse, num_warps=4,
    )  # fmt: skip
    return marks, final


def _mixed(
    reads: Tensor, writes: Tensor, values: Tensor, dt: Tensor | None, A: Tensor, D: Tensor | None, marks: Tensor,
    *, reverse: bool,
) -> Tensor:  # fmt: skip
    (B, T, H, V), (G, K) = values.shape, reads.shape[2:]
    L, BK, BV = blocks(reads, values)
    out = torch.empty_like(values)
    outputs_kernel[(triton.cdiv(T, L) * B * H, triton.cdiv(V, BV))](
        reads, writes, values, dt, A, D, marks, out, T, H, G, K, V, L, BK, BV, precision(values), reverse, num_warps=4
    )
    return out


def _key_grads(
    q: Tensor, k: Tensor, v: Tensor, dt: Tensor | None, A: Tensor, starts: Tensor, ends: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of q and k. Summands of one gradient are kept apart and added in order: sums stay reproducible."""
    (B, T, H, V), (G, K) = v.shape, q.shape[2:]
    L, BK, BV = blocks(q, v)
    shares = triton.cdiv(H // G, SHARE)
    grad_q, grad_k = (x.new_empty((shares, *x.shape), dtype=torch.float32) for x in (q, k))
    key_grads_kernel[(triton.cdiv(T, L) * B * G * shares, triton.cdiv(K, BK))](
        q, k, v, dt, A, starts, ends, grad_out, grad_q, grad_k, T, B, H, G, K, V, L, BK, BV, SHARE,
        precision(v), num_warps=L // 8,
    )  # fmt: skip
    return grad_q.sum(0).to(q.dtype), grad_k.sum(0).to(k.dtype)


def _step_grads(
    q: Tensor, k: Tensor, v: Tensor, dt: Tensor | None, A: Tensor, D: Tensor | None, starts: Tensor, ends: Tensor,
    grad_out: Tensor,
) -> tuple[Tensor | None, Tensor, Tensor | None]:  # fmt: skip
    """Gradients of dt, A and D."""
    (B, T, H, V), (G, K) = v.shape, q.shape[2:]
    L, BK, BV = blocks(q, v)
    chunks = triton.cdiv(T, L)
    grad_dt = None if dt is None else torch.empty_like(dt)
    A_parts, D_parts = (starts.new_empty((B, chunks, H)) for _ in range(2))
    step_grads_kernel[(chunks * B * H,)](
        q, k, v, dt, A, starts, ends, grad_out, grad_dt, A_parts, D_parts, T, H, G, K, V, L, BK, BV,
        precision(v), num_warps=L // 8,
    )  # fmt: skip
    return grad_dt, A_parts.sum((0, 1)).to(A.dtype), None if D is None else D_parts.sum((0, 1)).to(D.dtype)


@triton.jit
def load_steps(dt, A, row, rows, h, H: tl.constexpr, L: tl.constexpr):
    """Steps and log decays of a head's tokens from `row` on, (L,); both 0 from token `rows` on."""
    i = tl.arange(0, L)
    rate = tl.maximum(tl.load(A + h).to(tl.float32), -1e30)  # 0 * -inf is no zero
    if dt is None:
        steps = (i < rows).to(tl.float32)
    else:
        steps = tl.load(dt + (row + i) * H + h, mask=i < rows, other=0.0).to(tl.float32)
    return steps, tl.maximum(steps * rate, LEAST)


@triton.jit
def clocks(fades):
    """Running sums of log decays in two parts, of which differences are right: whole 1024ths, and what is left."""
    coarse = (fades * 1024).to(tl.int32).to(tl.float32) / 1024
    return tl.cumsum(coarse, 0), tl.cumsum(fades - coarse, 0)


@triton.jit
def pair_decays(fades, L: tl.constexpr):
    """(t, i): decay between token i's writing and token t's reading, 0 where i is later."""
    coarse, fine = clocks(fades)
    t, i = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    between = (coarse[:, None] - coarse[None, :]) + (fine[:, None] - fine[None, :])
    return tl.exp(tl.where(t >= i, between, float("-inf")))


@triton.jit
def decays_to_end(fades):
    """Decay from after each token to the chunk's end."""
    coarse, fine = clocks(fades)
    return tl.exp((tl.min(coarse, 0) - coarse) + (tl.min(fine, 0) - fine))


@triton.jit
def decays_from_start(fades):
    """Decay from the chunk's start through each token, its own included."""
    return tl.exp(tl.cumsum(fades, 0))


@triton.jit
def carry_kernel(
    keys, values, dt, A, state, marks, final, stride_k, stride_v, T,
    H: tl.constexpr, G: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Walks the chunks with a tile of the state; writes it down before each chunk, and at the end.

        S <- decay of the chunk * S + keys^T (dt * decay from each token to the chunk's end * values)

    The gradient of the state obeys the same recurrence from the last chunk to the first, with (q, gradient of the output) in
    the place of (k, v), and each token's decay from the chunk's start. Programs: (batch and head, tile of rows, of columns).
    """
    head = tl.program_id(0).to(tl.int64)
    k0, v0 = tl.program_id(1) * BK, tl.program_id(2) * BV
    b, h = head // H, head % H
    g, chunks = h // (H // G), tl.cdiv(T, L)
    marks += head * chunks * K * V + k0 * V + v0
    i, j = k0 + tl.arange(0, BK)[:, None], v0 + tl.arange(0, BV)[None, :]
    cells, inside = head * K * V + i * stride_k + j * stride_v, (i < K) & (j < V)
    S = tl.load(state + cells, mask=inside, other=0.0)
    for step in range(chunks):
        c = tl.cast(chunks - 1 - step if REVERSE else step, tl.int64)
        row, rows = b * T + c * L, tl.minimum(T - c * L, L).to(tl.int32)
        store_tile(marks + c * K * V, S, V, K - k0, V - v0, BK, BV)
        steps, fades = load_steps(dt, A, row, rows, h, H, L)
        weights = decays_from_start(fades) if REVERSE else steps * decays_to_end(fades)
        writes = load_tile(keys + (row * G + g) * K + k0, G * K, rows, K - k0, L, BK)
        what = load_tile(values + (row * H + h) * V + v0, H * V, rows, V - v0, L, BV) * weights[:, None]
        S = tl.exp(tl.sum(fades, 0)) * S + tl.dot(tl.trans(writes), what, input_precision=PRECISION)
    tl.store(final + cells, S, mask=inside)


@triton.jit
def outputs_kernel(
    reads, writes, values, dt, A, D, marks, out, T,
    H: tl.constexpr, G: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The outputs of one chunk: its own tokens through the scores, everything before it through the state at its start.

        O = (q k^T * decays * dt of the writer) V + decay from the chunk's start * (q S_start) + D V

    In reverse, with (k, q, gradient of the output, gradients of the state at chunk ends) in the place of (q, k, v, states at
    chunk starts), the gradient of the values. Programs: (chunk of a batch and head, tile of values).
    """
    c, b, h, head = whereabouts(T, H, L)
    v0, g = tl.program_id(1) * BV, h // (H // G)
    row, rows = b * T + c * L, tl.minimum(T - c * L, L).to(tl.int32)
    marks += (head * tl.cdiv(T, L) + c) * K * V + v0
    scores = tl.zeros((L, L), tl.float32)
    result = tl.zeros((L, BV), tl.float32)
    for k0 in range(0, K, BK):
        reading = load_tile(reads + (row * G + g) * K + k0, G * K, rows, K - k0, L, BK)
        writing = load_tile(writes + (row * G + g) * K + k0, G * K, rows, K - k0, L, BK)
        S = load_tile(marks + k0 * V, V, K - k0, V - v0, BK, BV)
        scores += tl.dot(reading, tl.trans(writing), input_precision=PRECISION)
        result += tl.dot(reading, S, input_precision=PRECISION)
    steps, fades = load_steps(dt, A, row, rows, h, H, L)
    pairs = pair_decays(fades, L)
    if REVERSE:
        scores *= tl.trans(pairs) * steps[:, None]
        result *= (steps * decays_to_end(fades))[:, None]
    else:
        scores *= pairs * steps[None, :]
        result *= decays_from_start(fades)[:, None]
    what = load_tile(values + (row * H + h) * V + v0, H * V, rows, V - v0, L, BV)
    result += tl.dot(scores, what, input_precision=PRECISION)
    if D is not None:
        result += tl.load(D + h).to(tl.float32) * what
    store_tile(out + (row * H + h) * V + v0, result, H * V, rows, V - v0, L, BV)


@triton.jit
def key_grads_kernel(
    q, k, v, dt, A, starts, ends, grad_out, grad_q, grad_k, T, B,
    H: tl.constexpr, G: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, SHARE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of one chunk's q and k, added over some heads of a group.

    With G_ti = dO_t v_i (what token t's output asks of token i) * decay * dt_i,

        dq = G k + (dO * decay from the start) S_start^T       dk = G^T q + (dt V * decay to the end) dS_end^T

    Programs: (chunk of a batch and a share of a group's heads, tile of keys).
    """
    shares: tl.constexpr = (H // G + SHARE - 1) // SHARE
    c, b, part, _ = whereabouts(T, G * shares, L)
    g, share = part // shares, part % shares
    k0, chunks = tl.program_id(1) * BK, tl.cdiv(T, L)
    row, rows = b * T + c * L, tl.minimum(T - c * L, L).to(tl.int32)
    at_keys = (row * G + g) * K + k0
    d_reads = tl.zeros((L, BK), tl.float32)
    d_writes = tl.zeros((L, BK), tl.float32)
    first = g * (H // G) + share * SHARE
    for h in tl.range(first, tl.minimum(first + SHARE, (g + 1) * (H // G)), num_stages=1, disable_licm=True):
        at_state = (((b * H + h) * chunks + c) * K + k0) * V
        steps, fades = load_steps(dt, A, row, rows, h, H, L)
        near, far = decays_from_start(fades)[:, None], (steps * decays_to_end(fades))[:, None]
        asked = tl.zeros((L, L), tl.float32)
        for v0 in tl.range(0, V, BV, num_stages=1):  # one stage: prefetched tiles would not fit the registers
            what = load_tile(v + (row * H + h) * V + v0, H * V, rows, V - v0, L, BV)
            grad = load_tile(grad_out + (row * H + h) * V + v0, H * V, rows, V - v0, L, BV)
            S = load_tile(starts + at_state + v0, V, K - k0, V - v0, BK, BV)
            dS = load_tile(ends + at_state + v0, V, K - k0, V - v0, BK, BV)
            asked += tl.dot(grad, tl.trans(what), input_precision=PRECISION)
            d_reads += tl.dot(grad * near, tl.trans(S), input_precision=PRECISION)
            d_writes += tl.dot(what * far, tl.trans(dS), input_precision=PRECISION)
        asked *= pair_decays(fades, L) * steps[None, :]
        reads = load_tile(q + at_keys, G * K, rows, K - k0, L, BK)
        writes = load_tile(k + at_keys, G * K, rows, K - k0, L, BK)
        d_reads += tl.dot(asked, writes, input_precision=PRECISION)
        d_writes += tl.dot(tl.trans(asked), reads, input_precision=PRECISION)
    to = share * B * T * G * K + at_keys
    store_tile(grad_q + to, d_reads, G * K, rows, K - k0, L, BK)
    store_tile(grad_k + to, d_writes, G * K, rows, K - k0, L, BK)


@triton.jit
def step_grads_kernel(
    q, k, v, dt, A, starts, ends, grad_out, grad_dt, A_parts, D_parts, T,
    H: tl.constexpr, G: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of one chunk's dt, and what the chunk adds to those of A and D.

    Token s's log decay fades what pairs i < s <= t hand on, what the chunk's start hands to every t >= s, what every i < s
    hands to the chunk's end, and what the start hands to the end. Its gradient is the sum of those products, nothing
    subtracted: entries keep their digits, however small beside others. Programs: (chunk of a batch and head).
    """
    c, b, h, head = whereabouts(T, H, L)
    g, chunk = h // (H // G), head * tl.cdiv(T, L) + c
    row, rows = b * T + c * L, tl.minimum(T - c * L, L).to(tl.int32)
    at_keys, at_values = (row * G + g) * K, (row * H + h) * V
    asked = tl.zeros((L, L), tl.float32)
    later, earlier, through = tl.zeros((L,), tl.float32), tl.zeros((L,), tl.float32), 0.0
    for v0 in tl.range(0, V, BV, num_stages=1, disable_licm=True):
        what = load_tile(v + at_values + v0, H * V, rows, V - v0, L, BV)
        grad = load_tile(grad_out + at_values + v0, H * V, rows, V - v0, L, BV)
        asked += tl.dot(grad, tl.trans(what), input_precision=PRECISION)
        reading, writing = tl.zeros((L, BV), tl.float32), tl.zeros((L, BV), tl.float32)
        for k0 in tl.range(0, K, BK, num_stages=1, disable_licm=True):
            reads = load_tile(q + at_keys + k0, G * K, rows, K - k0, L, BK)
            writes = load_tile(k + at_keys + k0, G * K, rows, K - k0, L, BK)
            S = load_tile(starts + (chunk * K + k0) * V + v0, V, K - k0, V - v0, BK, BV)
            dS = load_tile(ends + (chunk * K + k0) * V + v0, V, K - k0, V - v0, BK, BV)
            reading += tl.dot(reads, S, input_precision=PRECISION)
            writing += tl.dot(writes, dS, input_precision=PRECISION)
            through += tl.sum(S * dS)
        later += tl.sum(grad * reading, 1)
        earlier += tl.sum(what * writing, 1)
    t, i = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    tl.store(D_parts + (b * tl.cdiv(T, L) + c) * H + h, tl.sum(tl.where(t == i, asked, 0.0)))
    products = tl.zeros((L, L), tl.float32)
    for k0 in tl.range(0, K, BK, num_stages=1, disable_licm=True):
        reads = load_tile(q + at_keys + k0, G * K, rows, K - k0, L, BK)
        writes = load_tile(k + at_keys + k0, G * K, rows, K - k0, L, BK)
        products += tl.dot(reads, tl.trans(writes), input_precision=PRECISION)
    steps, fades = load_steps(dt, A, row, rows, h, H, L)
    later *= decays_from_start(fades)
    earlier *= decays_to_end(fades)
    asked *= products * pair_decays(fades, L)
    d_steps = earlier + tl.sum(asked, 0)
    # (s, i): what the pairs of writer i and readers from s on hand over; read where i < s.
    onward = marked_sums((i >= t).to(tl.float32), asked, PRECISION)
    d_fades = tl.sum(tl.where(i < t, (onward + earlier[None, :]) * steps[None, :], later[None, :]), 1)
    d_fades += tl.exp(tl.sum(fades, 0)) * through
    tl.store(A_parts + (b * tl.cdiv(T, L) + c) * H + h, tl.sum(steps * d_fades))
    if dt is not None:
        d_steps += tl.load(A + h).to(tl.float32) * d_fades
        s = tl.arange(0, L)
        tl.store(grad_dt + (row + s) * H + h, d_steps.to(grad_dt.dtype.element_ty), mask=s < rows)


@triton.jit
def step_kernel(
    q, k, v, dt, A, D, state, out, final, stride_k, stride_v,
    H: tl.constexpr, G: tl.constexpr, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """One token: reads the state, writes the next; bound by the state's bytes, so no matrix units.

    Programs: (batch and head, tile of values).
    """
    head = tl.program_id(0).to(tl.int64)
    v0 = tl.program_id(1) * BV
    b, h = head // H, head % H
    group = b * G + h // (H // G)
    step = 1.0 if dt is None else tl.load(dt + head).to(tl.float32)
    fade = tl.exp(step * tl.load(A + h).to(tl.float32))
    what = load_vector(v + head * V + v0, V - v0, BV)
    result = tl.zeros((BV,), tl.float32)
    j = v0 + tl.arange(0, BV)[None, :]
    for k0 in range(0, K, BK):
        i = k0 + tl.arange(0, BK)[:, None]
        cells, inside = head * K * V + i * stride_k + j * stride_v, (i < K) & (j < V)
        writes = step * load_vector(k + group * K + k0, K - k0, BK)
        S = fade * tl.load(state + cells, mask=inside, other=0.0) + writes[:, None] * what[None, :]
        tl.store(final + cells, S, mask=inside)
        result += tl.sum(load_vector(q + group * K + k0, K - k0, BK)[:, None] * S, 0)
    if D is not None:
        result += tl.load(D + h).to(tl.float32) * what
    store_vector(out + head * V + v0, result, V - v0, BV)
