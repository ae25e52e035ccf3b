"""RWKV-6's operator in Triton: chunks of tokens on matrix units, forward and backward; one token by a kernel of its own.

    o_t = r_t (S_{t-1} + (u * k_t) v_t^T)             S_t = diag(e^{log_decay_t}) S_{t-1} + k_t v_t^T

Every pair i < t inside a chunk needs the decay of the tokens between them. As one product (r e^{..}) (k e^{-..})^T it
overflows; as one exponential a pair it is no matrix product. Halving gives both: exactly one aligned block of 2, 4, 8, ...
tokens has i in its left half and t in its right half, and with its midpoint p between them

    decay(i -> t) = decay(i -> p) * decay(p -> t)

where both factors are exponentials of sums of log decays, hence at most 1. So the scores are log2(L) masked products, one a
level. The sums themselves are products with a 0/1 matrix: no differences of long sums, so no digits are lost, and the
gradient of log_decay, through the same matrix transposed, is exact even where the decay is e^{-20}.

`carry_kernel` walks the chunks, one tile of the state a program, and writes down the state at each chunk's start (or,
walking back, its gradient at each chunk's end). The other kernels take one chunk a program, all chunks at once. Nothing but
the inputs is kept for the backward: it walks again.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridlab.kernels.halving_triton import between, faded, levels, marked_sums, midpoint, parted
from hybridlab.kernels.tiles_triton import load_tile, load_vector, precision, store_tile, store_vector, whereabouts

# Tokens a chunk, keys and values a tile: about the largest that fit the registers of all targets (`hybridlab.measure.aot`).
LARGEST = (32, 16, 32)
STATE_TILE = 32


def forward(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, V) in v's dtype and the state after the last token (B, H, K, V)."""
    r, k, v, bonus, state = (x.contiguous() for x in (r, k, v, bonus, state))
    log_decay = _expanded(log_decay, k)
    if k.shape[1] == 1:
        return _step(r, k, v, log_decay, bonus, state)
    starts, final = _carry(k, v, log_decay, state, reverse=False)
    B, T, H, K, V = (*k.shape, v.shape[-1])
    L, BK, BV = blocks(T, K, V)
    out = torch.empty_like(v)
    outputs_kernel[(triton.cdiv(T, L) * B * H, triton.cdiv(V, BV))](
        r, k, v, log_decay, bonus, starts, out, T, *log_decay.stride()[:2], H, K, V, L, BK, BV,
        precision(r), num_warps=L // 16,
    )  # fmt: skip
    return out, final


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of r, k, v, log_decay, bonus, state; takes those six, output, final state, and the gradients of both."""
    tensors = tuple(x if i == 3 else x.contiguous() for i, x in enumerate(tensors))
    r, k, v, log_decay, bonus, state, _, _, grad_out, grad_final = tensors
    decay = _expanded(log_decay, k)
    starts, _ = _carry(k, v, decay, state, reverse=False)
    ends, grad_state = _carry(r, grad_out, decay, grad_final, reverse=True)
    B, T, H, K, V = (*k.shape, v.shape[-1])
    L, BK, BV = blocks(T, K, V)
    chunks, strides = triton.cdiv(T, L), decay.stride()[:2]
    grad_r, grad_k, grad_v = torch.empty_like(r), torch.empty_like(k), torch.empty_like(v)
    grad_decay = k.new_empty(k.shape, dtype=torch.float32)
    grad_bonus = k.new_empty((B, chunks, H, K), dtype=torch.float32)  # one summand a chunk: sums stay reproducible
    sizes = (T, *strides, H, K, V, L, BK, BV, precision(r))
    value_grads_kernel[(chunks * B * H, triton.cdiv(V, BV))](
        r, k, grad_out, decay, bonus, ends, grad_v, *sizes, num_warps=L // 16
    )
    key_grads_kernel[(chunks * B * H, triton.cdiv(K, BK))](
        r, k, v, decay, bonus, starts, ends, grad_out, grad_r, grad_k, grad_decay, grad_bonus, *sizes, num_warps=L // 16
    )
    grad_bonus = grad_bonus.sum((0, 1)).to(bonus.dtype)
    return grad_r, grad_k, grad_v, _folded(grad_decay, log_decay), grad_bonus, grad_state


def blocks(T: int, K: int, V: int) -> tuple[int, int, int]:
    """Tokens a chunk, and the widths of a tile of keys and of values: powers of two, 16 at least (matrix units)."""
    L, BK, BV = (min(most, max(16, triton.next_power_of_2(size))) for size, most in zip((T, K, V), LARGEST, strict=True))
    return L, BK, BV


def _expanded(log_decay: Tensor, k: Tensor) -> Tensor:
    """A decay that is constant in batch or time gets stride 0 there: nothing is copied."""
    packed = log_decay.stride()[2:] == (k.shape[3], 1)
    return (log_decay if packed else log_decay.contiguous()).expand(*k.shape[:2], -1, -1)


def _folded(grad: Tensor, like: Tensor) -> Tensor:
    """Sums a gradient over the axes along which the argument was constant."""
    constant = [axis for axis in (0, 1) if like.shape[axis] < grad.shape[axis]]
    return (grad.sum(constant, keepdim=True) if constant else grad).to(like.dtype)


def _step(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    B, _, H, K, V = (*k.shape, v.shape[-1])
    BK, BV = triton.next_power_of_2(K), min(32, triton.next_power_of_2(V))
    out, final = torch.empty_like(v), torch.empty_like(state)
    step_kernel[(B * H, triton.cdiv(V, BV))](
        r, k, v, log_decay, bonus, state, out, final, log_decay.stride(0), H, K, V, BK, BV, num_warps=4
    )
    return out, final


def _carry(keys: Tensor, values: Tensor, log_decay: Tensor, state: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor]:
    B, T, H, K, V = (*keys.shape, values.shape[-1])
    L, _, _ = blocks(T, K, V)
    BK, BV = (min(STATE_TILE, max(16, triton.next_power_of_2(width))) for width in (K, V))
    marks = state.new_empty((B, H, triton.cdiv(T, L), K, V))
    final = torch.empty_like(state)
    carry_kernel[(B * H, triton.cdiv(K, BK), triton.cdiv(V, BV))](
        keys, values, log_decay, state, marks, final, T, *log_decay.stride()[:2], H, K, V, L, BK, BV,
        precision(keys), reverse, num_warps=4,
    )  # fmt: skip
    return marks, final


@triton.jit
def load_decay(log_decay, stride, rows, cols, ROWS: tl.constexpr, COLS: tl.constexpr):
    """A tile of log decays; -inf becomes a large number, because 0 * inf is no zero in a product with a 0/1 matrix."""
    return tl.maximum(load_tile(log_decay, stride, rows, cols, ROWS, COLS), -1e30)


@triton.jit
def pair_scores(r, k, log_decay, u, L: tl.constexpr, PRECISION: tl.constexpr):
    """(L, L): how much of value i token t reads; the diagonal holds the bonus."""
    t, i = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    scores = tl.where(t == i, tl.sum(r * u[None, :] * k, 1)[:, None], 0.0)
    # Whatever is the same on every level is made anew on each: kept (licm), it would fill the registers.
    for level in tl.range(levels(L), disable_licm=True):
        fade = faded(between(midpoint(level, L), L), log_decay, PRECISION)
        both = tl.dot(r * fade, tl.trans(k * fade), input_precision=PRECISION)
        scores += tl.where(parted(level, L), both, 0.0)
    return scores


@triton.jit
def carry_kernel(
    keys, values, log_decay, state, marks, final, T, decay_b, decay_t,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Walks the chunks with a tile of the state; writes it down before each chunk, and at the end.

        S <- diag(decay of the chunk) S + (keys * decay from each token to the chunk's far end)^T values

    The gradient of the state obeys the same recurrence from the last chunk to the first, with (r, gradient of the output) in
    the place of (k, v) and the chunk's start as its far end. Programs: (batch and head, tile of rows, tile of columns).
    """
    head = tl.program_id(0).to(tl.int64)
    k0, v0 = tl.program_id(1) * BK, tl.program_id(2) * BV
    b, h = head // H, head % H
    chunks = tl.cdiv(T, L)
    corner = k0 * V + v0
    marks += head * chunks * K * V + corner
    S = load_tile(state + head * K * V + corner, V, K - k0, V - v0, BK, BV)
    for step in range(chunks):
        c = tl.cast(chunks - 1 - step if REVERSE else step, tl.int64)
        row, rows = b * T + c * L, T - c * L
        store_tile(marks + c * K * V, S, V, K - k0, V - v0, BK, BV)
        fades = load_decay(log_decay + b * decay_b + c * L * decay_t + h * K + k0, decay_t, rows, K - k0, L, BK)
        writes = load_tile(keys + (row * H + h) * K + k0, H * K, rows, K - k0, L, BK)
        what = load_tile(values + (row * H + h) * V + v0, H * V, rows, V - v0, L, BV)
        writes *= faded(between(0 if REVERSE else L, L), fades, PRECISION)
        S = tl.exp(tl.sum(fades, 0))[:, None] * S + tl.dot(tl.trans(writes), what, input_precision=PRECISION)
    store_tile(final + head * K * V + corner, S, V, K - k0, V - v0, BK, BV)


@triton.jit
def outputs_kernel(
    r, k, v, log_decay, bonus, starts, out, T, decay_b, decay_t,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The outputs of one chunk: its own tokens through the scores, everything before it through the state at its start.

        O = scores V + (R * decay from the chunk's start) S_start

    Programs: (chunk of a batch and head, tile of values).
    """
    c, b, h, head = whereabouts(T, H, L)
    v0 = tl.program_id(1) * BV
    row, rows = b * T + c * L, T - c * L
    scores = tl.zeros((L, L), tl.float32)
    result = tl.zeros((L, BV), tl.float32)
    for k0 in tl.range(0, K, BK, disable_licm=True):
        fades = load_decay(log_decay + b * decay_b + c * L * decay_t + h * K + k0, decay_t, rows, K - k0, L, BK)
        reads = load_tile(r + (row * H + h) * K + k0, H * K, rows, K - k0, L, BK)
        writes = load_tile(k + (row * H + h) * K + k0, H * K, rows, K - k0, L, BK)
        u = load_vector(bonus + h * K + k0, K - k0, BK)
        S = load_tile(starts + (head * tl.cdiv(T, L) + c) * K * V + k0 * V + v0, V, K - k0, V - v0, BK, BV)
        scores += pair_scores(reads, writes, fades, u, L, PRECISION)
        result += tl.dot(reads * faded(between(0, L), fades, PRECISION), S, input_precision=PRECISION)
    what = load_tile(v + (row * H + h) * V + v0, H * V, rows, V - v0, L, BV)
    result += tl.dot(scores, what, input_precision=PRECISION)
    store_tile(out + (row * H + h) * V + v0, result, H * V, rows, V - v0, L, BV)


@triton.jit
def value_grads_kernel(
    r, k, grad_out, log_decay, bonus, ends, grad_v, T, decay_b, decay_t,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of one chunk's values: `outputs_kernel` with reading and writing exchanged.

        dV = scores^T dO + (K * decay to the chunk's end) dS_end

    Programs: (chunk of a batch and head, tile of values).
    """
    c, b, h, head = whereabouts(T, H, L)
    v0 = tl.program_id(1) * BV
    row, rows = b * T + c * L, T - c * L
    scores = tl.zeros((L, L), tl.float32)
    result = tl.zeros((L, BV), tl.float32)
    for k0 in tl.range(0, K, BK, disable_licm=True):
        fades = load_decay(log_decay + b * decay_b + c * L * decay_t + h * K + k0, decay_t, rows, K - k0, L, BK)
        reads = load_tile(r + (row * H + h) * K + k0, H * K, rows, K - k0, L, BK)
        writes = load_tile(k + (row * H + h) * K + k0, H * K, rows, K - k0, L, BK)
        u = load_vector(bonus + h * K + k0, K - k0, BK)
        dS = load_tile(ends + (head * tl.cdiv(T, L) + c) * K * V + k0 * V + v0, V, K - k0, V - v0, BK, BV)
        scores += pair_scores(reads, writes, fades, u, L, PRECISION)
        result += tl.dot(writes * faded(between(L, L), fades, PRECISION), dS, input_precision=PRECISION)
    grad = load_tile(grad_out + (row * H + h) * V + v0, H * V, rows, V - v0, L, BV)
    result += tl.dot(tl.trans(scores), grad, input_precision=PRECISION)
    store_tile(grad_v + (row * H + h) * V + v0, result, H * V, rows, V - v0, L, BV)


@triton.jit
def key_grads_kernel(
    r, k, v, log_decay, bonus, starts, ends, grad_out, grad_r, grad_k, grad_decay, grad_bonus, T, decay_b, decay_t,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of one chunk's r, k, log_decay and bonus.

    With G = dO V^T (what token t's output asks of token i), each level of `pair_scores` gives back

        dR = (G (K * fade)) * fade        dK = (G^T (R * fade)) * fade        d(sum of log decays) = R * dR + K * dK

    and so do the chunk's start (through S_start) and its end (through dS_end); the sums then hand their gradient to
    log_decay through the transpose of their 0/1 matrix. Programs: (chunk of a batch and head, tile of keys).
    """
    c, b, h, head = whereabouts(T, H, L)
    row, rows = b * T + c * L, T - c * L
    k0 = tl.program_id(1) * BK
    at_keys, at_values = (row * H + h) * K + k0, (row * H + h) * V
    at_state = ((head * tl.cdiv(T, L) + c) * K + k0) * V
    asked = tl.zeros((L, L), tl.float32)
    d_read = tl.zeros((L, BK), tl.float32)
    d_write = tl.zeros((L, BK), tl.float32)
    d_whole = tl.zeros((BK,), tl.float32)
    for v0 in tl.range(0, V, BV, num_stages=1):  # one stage: prefetched tiles would not fit the registers
        what = load_tile(v + at_values + v0, H * V, rows, V - v0, L, BV)
        grad = load_tile(grad_out + at_values + v0, H * V, rows, V - v0, L, BV)
        S = load_tile(starts + at_state + v0, V, K - k0, V - v0, BK, BV)
        dS = load_tile(ends + at_state + v0, V, K - k0, V - v0, BK, BV)
        asked += tl.dot(grad, tl.trans(what), input_precision=PRECISION)
        d_read += tl.dot(grad, tl.trans(S), input_precision=PRECISION)
        d_write += tl.dot(what, tl.trans(dS), input_precision=PRECISION)
        d_whole += tl.sum(S * dS, 1)
    fades = load_decay(log_decay + b * decay_b + c * L * decay_t + h * K + k0, decay_t, rows, K - k0, L, BK)
    reads = load_tile(r + at_keys, H * K, rows, K - k0, L, BK)
    writes = load_tile(k + at_keys, H * K, rows, K - k0, L, BK)
    u = load_vector(bonus + h * K + k0, K - k0, BK)
    d_read *= faded(between(0, L), fades, PRECISION)
    d_write *= faded(between(L, L), fades, PRECISION)
    d_fades = marked_sums(tl.trans(between(0, L)), reads * d_read, PRECISION)
    d_fades += marked_sums(tl.trans(between(L, L)), writes * d_write, PRECISION)
    d_fades += (tl.exp(tl.sum(fades, 0)) * d_whole)[None, :]
    for level in tl.range(levels(L), disable_licm=True):
        marks = between(midpoint(level, L), L)
        fade = faded(marks, fades, PRECISION)
        wanted = tl.where(parted(level, L), asked, 0.0)
        d_r = tl.dot(wanted, writes * fade, input_precision=PRECISION) * fade
        d_k = tl.dot(tl.trans(wanted), reads * fade, input_precision=PRECISION) * fade
        d_fades += marked_sums(tl.trans(marks), reads * d_r + writes * d_k, PRECISION)
        d_read += d_r
        d_write += d_k
    store_tile(grad_decay + at_keys, d_fades, H * K, rows, K - k0, L, BK)
    t, i = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    itself = tl.sum(tl.where(t == i, asked, 0.0), 1)[:, None]
    store_tile(grad_r + at_keys, d_read + itself * u[None, :] * writes, H * K, rows, K - k0, L, BK)
    store_tile(grad_k + at_keys, d_write + itself * u[None, :] * reads, H * K, rows, K - k0, L, BK)
    d_bonus = tl.sum(itself * reads * writes, 0)
    store_vector(grad_bonus + ((b * tl.cdiv(T, L) + c) * H + h) * K + k0, d_bonus, K - k0, BK)


@triton.jit
def step_kernel(
    r, k, v, log_decay, bonus, state, out, final, decay_b,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """One token: reads the state, writes the next; bound by the state's bytes, so no matrix units.

        o = r (S + (u * k) v^T);  S <- diag(e^{log_decay}) S + k v^T

    Programs: (batch and head, tile of values).
    """
    head = tl.program_id(0).to(tl.int64)
    v0 = tl.program_id(1) * BV
    b, h = head // H, head % H
    S = load_tile(state + head * K * V + v0, V, K, V - v0, BK, BV)
    reads = load_vector(r + head * K, K, BK)[:, None]
    writes = load_vector(k + head * K, K, BK)[:, None]
    fade = tl.exp(load_vector(log_decay + b * decay_b + h * K, K, BK))[:, None]
    u = load_vector(bonus + h * K, K, BK)[:, None]
    written = writes * load_vector(v + head * V + v0, V - v0, BV)[None, :]
    store_vector(out + head * V + v0, tl.sum(reads * (S + u * written), 0), V - v0, BV)
    store_tile(final + head * K * V + v0, fade * S + written, V, K, V - v0, BK, BV)
