"""The delta rules in Triton: a state that fades by one number, and is written what it lacks; chunks on matrix units.

    e_t = v_t - e^{log_decay_t} S_{t-1}^T k_t       S_t = e^{log_decay_t} S_{t-1} + beta_t k_t e_t^T       o_t = S_t^T q_t

If the errors e of a chunk were known, they would be values, and the rest linear attention with a decay. They obey

    (I + A) E = V - (k * decay from the chunk's start) S_start,        A[t, i] = k_t k_i beta_i * decay between, for i < t

and A is strictly lower triangular: `pairs_kernel` inverts I + A and makes the scores P of all chunks at once. `carry_kernel`
walks the chunks, a tile of values a program, finds E and writes down the state at each chunk's start. Walking back, the same
kernel finds the gradient of E, which is that of V, with both matrices transposed. What is left, outputs and gradients, takes
one chunk a program. Nothing but the inputs is kept for the backward: it walks again.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridlab.kernels.halving_triton import exact, inverse
from hybridlab.kernels.scalar_decay_triton import LEAST, decays_from_start, decays_to_end, pair_decays
from hybridlab.kernels.tiles_triton import load_tile, load_vector, precision, store_tile, store_vector, whereabouts

# Tokens a chunk, by bytes a value; keys and values a tile; values a program of the walk, which holds all keys of its tile of
# the state: about the largest that fit the registers of all targets (`hybridlab.measure.aot`).
CHUNK = {2: 32, 4: 16}
TILE = 32
CARRIED = 16

Tensors = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]


def forward(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, V) in v's dtype and the state after the last token (B, H, K, V).

    Args:
        q: what a token reads with, (B, T, H, K).
        k: what it is asked for and writes with, (B, T, H, K).
        v: what it is to be answered, (B, T, H, V).
        log_decay: (B, T, H); None: nothing fades.
        beta: how much of its error a token writes, (B, T, H).
        state: before the first token, (B, H, K, V).
    """
    given, state = _packed(q, k, v, log_decay, beta), state.contiguous()
    if v.shape[1] == 1:
        return _step(given, state)
    pairs = _pairs(given)
    starts, errors, final = _carry(given, pairs, given[2], state, reverse=False)
    return _outputs(given, pairs, errors, starts), final


def backward(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, beta: Tensor, state: Tensor,
    grad_out: Tensor, grad_final: Tensor,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of q, k, v, log_decay, beta and the state; None for a log_decay that is None."""
    given, grad_out = _packed(q, k, v, log_decay, beta), grad_out.contiguous()
    pairs = _pairs(given)
    starts, errors, _ = _carry(given, pairs, given[2], state.contiguous(), reverse=False)
    ends, grad_errors, grad_state = _carry(given, pairs, grad_out, grad_final.contiguous(), reverse=True)
    grad_q, grad_k, grad_decay, grad_beta = _key_grads(given, (errors, grad_errors, grad_out), starts, ends)
    return grad_q, grad_k, grad_errors.to(v.dtype), grad_decay, grad_beta, grad_state


def blocks(k: Tensor, v: Tensor) -> tuple[int, int, int]:
    """Tokens a chunk, and the widths of a tile of keys and of values: powers of two, 16 at least (matrix units)."""
    sizes = (k.shape[1], k.shape[3], v.shape[3])
    largest = (CHUNK[k.element_size()], TILE, TILE)
    L, BK, BV = (min(most, max(16, triton.next_power_of_2(size))) for size, most in zip(sizes, largest, strict=True))
    return L, BK, BV


def _packed(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, beta: Tensor) -> Tensors:
    log_decay = None if log_decay is None else log_decay.contiguous()
    return q.contiguous(), k.contiguous(), v.contiguous(), log_decay, beta.contiguous()


def _step(given: Tensors, state: Tensor) -> tuple[Tensor, Tensor]:
    (B, H, K, V), v = state.shape, given[2]
    BK, BV = triton.next_power_of_2(K), min(32, triton.next_power_of_2(V))
    out, final = torch.empty_like(v), torch.empty_like(state)
    step_kernel[(B * H, triton.cdiv(V, BV))](*given, state, out, final, K, V, BK, BV, num_warps=4)
    return out, final


def _pairs(given: Tensors) -> Tensor:
    """Of each chunk the inverse of I + A, and the scores P: (B, H, chunks, 2, L, L)."""
    q, k, v, log_decay, beta = given
    (B, T, H, K), (L, BK, _) = k.shape, blocks(k, v)
    chunks = triton.cdiv(T, L)
    pairs = k.new_empty((B, H, chunks, 2, L, L), dtype=torch.float32)
    pairs_kernel[(chunks * B * H,)](q, k, log_decay, beta, pairs, T, H, K, L, BK, precision(k), num_warps=L // 8)
    return pairs


def _carry(given: Tensors, pairs: Tensor, values: Tensor, state: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The state before each chunk, the errors (in reverse their gradient) and the last state, all in float32."""
    q, k, _, log_decay, beta = given
    (B, H, K, V), T = state.shape, k.shape[1]
    chunks, L = pairs.shape[2], pairs.shape[-1]
    BK, BV = max(16, triton.next_power_of_2(K)), min(CARRIED, max(16, triton.next_power_of_2(V)))
    marks, final = state.new_empty((B, H, chunks, K, V)), torch.empty_like(state)
    errors = torch.empty_like(values, dtype=torch.float32)
    carry_kernel[(B * H, triton.cdiv(V, BV))](
        q, k, values, log_decay, beta, pairs, state, marks, errors, final, T, H, K, V, L, BK, BV,
        precision(k), reverse, num_warps=4,
    )  # fmt: skip
    return marks, errors, final


def _outputs(given: Tensors, pairs: Tensor, errors: Tensor, starts: Tensor) -> Tensor:
    q, k, v, log_decay, _ = given
    (B, T, H, V), K, (L, BK, BV) = v.shape, k.shape[3], blocks(k, v)
    out = torch.empty_like(v)
    outputs_kernel[(pairs.shape[2] * B * H, triton.cdiv(V, BV))](
        q, errors, log_decay, pairs, starts, out, T, H, K, V, L, BK, BV, precision(k), num_warps=L // 8
    )
    return out


def _key_grads(
    given: Tensors, values: tuple[Tensor, Tensor, Tensor], starts: Tensor, ends: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients of q, k, log_decay and beta; `values` are the errors, their gradient, and that of the output."""
    q, k, v, log_decay, beta = given
    (B, T, H, V), K, (L, BK, BV) = v.shape, k.shape[3], blocks(k, v)
    tiles = triton.cdiv(K, BK)
    grad_q, grad_k = torch.empty_like(q), torch.empty_like(k)
    # One summand a tile of keys: sums stay reproducible.
    beta_parts, decay_parts = (starts.new_empty((tiles, B, T, H)) for _ in range(2))
    key_grads_kernel[(starts.shape[2] * B * H, tiles)](
        q, k, *values, log_decay, beta, starts, ends, grad_q, grad_k, decay_parts, beta_parts, T, B, H, K, V, L, BK, BV,
        precision(k), num_warps=L // 8,
    )  # fmt: skip
    grad_decay = None if log_decay is None else decay_parts.sum(0).to(log_decay.dtype)
    return grad_q, grad_k, grad_decay, beta_parts.sum(0).to(beta.dtype)


@triton.jit
def load_fades(log_decay, row, rows, h, H: tl.constexpr, L: tl.constexpr):
    """Log decays of a head's tokens from `row` on, (L,); 0 from token `rows` on, and where nothing fades."""
    return tl.zeros((L,), tl.float32) if log_decay is None else tl.maximum(load_each(log_decay, row, rows, h, H, L), LEAST)


@triton.jit
def load_each(x, row, rows, h, H: tl.constexpr, L: tl.constexpr):
    """One number a token of a head, (L,), zero from token `rows` on."""
    t = tl.arange(0, L)
    return tl.load(x + (row + t) * H + h, mask=t < rows, other=0.0).to(tl.float32)


@triton.jit
def pairs_kernel(
    q, k, log_decay, beta, pairs, T,
    H: tl.constexpr, K: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The inverse of I + A, and the scores P, of one chunk. Programs: (chunk of a batch and head).

    A[t, i] = k_t k_i beta_i * decay between, for i < t            P[t, i] = q_t k_i beta_i * decay between, for i <= t
    """
    c, b, h, head = whereabouts(T, H, L)
    row, rows = b * T + c * L, tl.minimum(T - c * L, L).to(tl.int32)
    asking, reading = tl.zeros((L, L), tl.float32), tl.zeros((L, L), tl.float32)
    for k0 in tl.range(0, K, BK, num_stages=1):
        reads = load_tile(q + (row * H + h) * K + k0, H * K, rows, K - k0, L, BK)
        keys = load_tile(k + (row * H + h) * K + k0, H * K, rows, K - k0, L, BK)
        asking += tl.dot(keys, tl.trans(keys), input_precision=PRECISION)
        reading += tl.dot(reads, tl.trans(keys), input_precision=PRECISION)
    weights = pair_decays(load_fades(log_decay, row, rows, h, H, L), L) * load_each(beta, row, rows, h, H, L)[None, :]
    pairs += (head * tl.cdiv(T, L) + c) * 2 * L * L
    store_tile(pairs + L * L, reading * weights, L, L, L, L, L)
    store_tile(pairs, inverse(-asking * weights, L, PRECISION), L, L, L, L, L)


@triton.jit
def carry_kernel(
    q, k, values, log_decay, beta, pairs, state, marks, errors, final, T,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Walks the chunks with a tile of the state; writes down the errors, the state before each chunk, and the last.

        E = (I + A)^{-1} (V - (k * near) S)            S <- whole * S + (beta k * far)^T E

    where near, far and whole are the decays from the chunk's start, to its end, and between these. The gradients go from the
    last chunk to the first:

        dE = (I + A)^{-T} (P^T dO + (beta k * far) dS)            dS <- whole * dS + (q * near)^T dO - (k * near)^T dE

    Programs: (batch and head, tile of values).
    """
    head = tl.program_id(0).to(tl.int64)
    v0 = tl.program_id(1) * BV
    b, h = head // H, head % H
    chunks = tl.cdiv(T, L)
    marks += head * chunks * K * V + v0
    S = load_tile(state + head * K * V + v0, V, K, V - v0, BK, BV)
    for step in tl.range(chunks, num_stages=1):
        c = tl.cast(chunks - 1 - step if REVERSE else step, tl.int64)
        row, rows = b * T + c * L, tl.minimum(T - c * L, L).to(tl.int32)
        at_keys, at_values = (row * H + h) * K, (row * H + h) * V + v0
        at_pairs = pairs + (head * chunks + c) * 2 * L * L
        store_tile(marks + c * K * V, S, V, K, V - v0, BK, BV)
        fades = load_fades(log_decay, row, rows, h, H, L)
        near = decays_from_start(fades)[:, None]
        far = (load_each(beta, row, rows, h, H, L) * decays_to_end(fades))[:, None]
        what = load_tile(values + at_values, H * V, rows, V - v0, L, BV)
        keys = load_tile(k + at_keys, H * K, rows, K, L, BK)
        solve = load_tile(at_pairs, L, L, L, L, L)
        if REVERSE:
            scores = load_tile(at_pairs + L * L, L, L, L, L, L)
            wanted = tl.dot(tl.trans(scores), what, input_precision=PRECISION)
            wanted += far * tl.dot(keys, S, input_precision=PRECISION)
            solve = tl.trans(solve)
        else:
            wanted = what - near * tl.dot(keys, S, input_precision=PRECISION)
        error = tl.dot(solve, wanted, input_precision=exact(PRECISION))
        store_tile(errors + at_values, error, H * V, rows, V - v0, L, BV)
        S *= tl.exp(tl.sum(fades, 0))
        if REVERSE:
            reads = load_tile(q + at_keys, H * K, rows, K, L, BK)
            S += tl.dot(tl.trans(reads), near * what, input_precision=PRECISION)
            S -= tl.dot(tl.trans(keys), near * error, input_precision=PRECISION)
        else:
            S += tl.dot(tl.trans(keys), far * error, input_precision=PRECISION)
    store_tile(final + head * K * V + v0, S, V, K, V - v0, BK, BV)


@triton.jit
def outputs_kernel(
    q, errors, log_decay, pairs, starts, out, T,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The outputs of one chunk: O = (q * decay from the chunk's start) S_start + P E.

    Programs: (chunk of a batch and head, tile of values).
    """
    c, b, h, head = whereabouts(T, H, L)
    v0 = tl.program_id(1) * BV
    row, rows = b * T + c * L, tl.minimum(T - c * L, L).to(tl.int32)
    at_values, chunk = (row * H + h) * V + v0, head * tl.cdiv(T, L) + c
    result = tl.zeros((L, BV), tl.float32)
    for k0 in tl.range(0, K, BK, num_stages=1):
        reads = load_tile(q + (row * H + h) * K + k0, H * K, rows, K - k0, L, BK)
        S = load_tile(starts + (chunk * K + k0) * V + v0, V, K - k0, V - v0, BK, BV)
        result += tl.dot(reads, S, input_precision=PRECISION)
    result *= decays_from_start(load_fades(log_decay, row, rows, h, H, L))[:, None]
    scores = load_tile(pairs + (chunk * 2 + 1) * L * L, L, L, L, L, L)
    error = load_tile(errors + at_values, H * V, rows, V - v0, L, BV)
    result += tl.dot(scores, error, input_precision=PRECISION)
    store_tile(out + at_values, result, H * V, rows, V - v0, L, BV)


@triton.jit
def key_grads_kernel(
    q, k, errors, grad_errors, grad_out, log_decay, beta, starts, ends, grad_q, grad_k, decay_parts, beta_parts, T, B,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of one chunk's q and k, and what a tile of keys adds to those of log_decay and beta.

    With G = dO E^T * decays, what token t's output asks of token i, and F = -dE E^T * decays, what its error asks,

        dq = G (beta k) + dO S_start^T * near            dk = F (beta k) - dE S_start^T * near + beta dw
        dw = G^T q + F^T k + E dS_end^T * far            dbeta = sum of k * dw

    Token s's log decay fades what pairs i < s <= t hand on, what the chunk's start hands to every t >= s, what every i < s
    hands to the chunk's end, and what the start hands to the end. Its gradient is the sum of those products, nothing
    subtracted. Programs: (chunk of a batch and head, tile of keys).
    """
    c, b, h, head = whereabouts(T, H, L)
    row, rows = b * T + c * L, tl.minimum(T - c * L, L).to(tl.int32)
    k0 = tl.program_id(1) * BK
    at_keys, at_values = (row * H + h) * K + k0, (row * H + h) * V
    at_state = ((head * tl.cdiv(T, L) + c) * K + k0) * V
    G, F = tl.zeros((L, L), tl.float32), tl.zeros((L, L), tl.float32)
    d_reads, d_asks = tl.zeros((L, BK), tl.float32), tl.zeros((L, BK), tl.float32)
    d_writes, through = tl.zeros((L, BK), tl.float32), 0.0
    for v0 in tl.range(0, V, BV, num_stages=1, disable_licm=True):  # prefetched tiles would not fit the registers
        error = load_tile(errors + at_values + v0, H * V, rows, V - v0, L, BV)
        d_error = load_tile(grad_errors + at_values + v0, H * V, rows, V - v0, L, BV)
        d_out = load_tile(grad_out + at_values + v0, H * V, rows, V - v0, L, BV)
        S = load_tile(starts + at_state + v0, V, K - k0, V - v0, BK, BV)
        dS = load_tile(ends + at_state + v0, V, K - k0, V - v0, BK, BV)
        G += tl.dot(d_out, tl.trans(error), input_precision=PRECISION)
        F -= tl.dot(d_error, tl.trans(error), input_precision=PRECISION)
        d_reads += tl.dot(d_out, tl.trans(S), input_precision=PRECISION)
        d_asks -= tl.dot(d_error, tl.trans(S), input_precision=PRECISION)
        d_writes += tl.dot(error, tl.trans(dS), input_precision=PRECISION)
        through += tl.sum(S * dS)
    fades, rate = load_fades(log_decay, row, rows, h, H, L), load_each(beta, row, rows, h, H, L)
    near, far = decays_from_start(fades)[:, None], decays_to_end(fades)[:, None]
    t, i = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    G *= pair_decays(fades, L)
    F *= tl.where(t > i, pair_decays(fades, L), 0.0)
    reads = load_tile(q + at_keys, H * K, rows, K - k0, L, BK)
    keys = load_tile(k + at_keys, H * K, rows, K - k0, L, BK)
    d_reads, d_asks, d_writes = d_reads * near, d_asks * near, d_writes * far
    part = tl.program_id(1).to(tl.int64) * B * T + row
    s = tl.arange(0, L)
    if log_decay is not None:
        later = tl.sum(reads * d_reads + keys * d_asks, 1)
        earlier = rate * tl.sum(keys * d_writes, 1)
        handed = G * tl.dot(reads, tl.trans(keys), input_precision=PRECISION)
        handed += F * tl.dot(keys, tl.trans(keys), input_precision=PRECISION)
        # (s, i): what the pairs of writer i and readers from s on hand over; read where i < s.
        onward = tl.cumsum(handed * rate[None, :], 0, reverse=True)
        d_fades = tl.sum(tl.where(i < t, onward + earlier[None, :], later[None, :]), 1)
        d_fades += tl.exp(tl.sum(fades, 0)) * through
        tl.store(decay_parts + (part + s) * H + h, d_fades, mask=s < rows)
    written = rate[:, None] * keys
    d_reads += tl.dot(G, written, input_precision=PRECISION)
    store_tile(grad_q + at_keys, d_reads, H * K, rows, K - k0, L, BK)
    d_writes += tl.dot(tl.trans(G), reads, input_precision=PRECISION)
    d_writes += tl.dot(tl.trans(F), keys, input_precision=PRECISION)
    tl.store(beta_parts + (part + s) * H + h, tl.sum(keys * d_writes, 1), mask=s < rows)
    d_asks += tl.dot(F, written, input_precision=PRECISION)
    store_tile(grad_k + at_keys, d_asks + rate[:, None] * d_writes, H * K, rows, K - k0, L, BK)


@triton.jit
def step_kernel(
    q, k, v, log_decay, beta, state, out, final,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """One token: reads the state, writes the next; bound by the state's bytes, so no matrix units.

    Programs: (batch and head, tile of values).
    """
    head = tl.program_id(0).to(tl.int64)
    v0 = tl.program_id(1) * BV
    S = load_tile(state + head * K * V + v0, V, K, V - v0, BK, BV)
    if log_decay is not None:
        S *= tl.exp(tl.load(log_decay + head).to(tl.float32))
    key = load_vector(k + head * K, K, BK)[:, None]
    error = load_vector(v + head * V + v0, V - v0, BV) - tl.sum(key * S, 0)
    S += tl.load(beta + head).to(tl.float32) * key * error[None, :]
    store_vector(out + head * V + v0, tl.sum(load_vector(q + head * K, K, BK)[:, None] * S, 0), V - v0, BV)
    store_tile(final + head * K * V + v0, S, V, K, V - v0, BK, BV)
