"""Delta rules and RWKV-7 in Triton: a recurrence whose state, before it fades, is read and corrected by what was read.

    u_t = S_{t-1}^T a_t            S_t = diag(e^{log_decay_t}) S_{t-1} + b_t u_t^T + k_t v_t^T            o_t = S_t^T r_t

RWKV-7 is this equation; the delta rules are, with beta k for both b and k, and a = -e^{log_decay} k.

If the readings u of a chunk were known, they would be values like v, and the rest linear attention with decay. They obey

    U = A_ab U + A_ak V + (a * decay from the chunk's start) S_start,        A_xy[t, i] = x_t (y_i * decay between i and t)

and A_ab is strictly lower triangular, so U = (I - A_ab)^{-1} (...). The inverse is made by halving: from the inverses of two
neighbouring blocks of 1, 2, 4, ... tokens follows that of both together, in two products. (The series of powers of A_ab ends
too, but its terms outgrow its sum by the digits of a float32.)

`pairs_kernel` makes the inverse and the other A of every chunk, all chunks at once. `carry_kernel` walks the chunks, a tile
of values a program, solves for U and writes down the state at each chunk's start. Walking back, the same kernel solves for
the gradient of U with the transposed matrices: the gradient of the state is read with b where the state was read with a, and
written with a and r where the state was written with b and k. What is left, outputs and gradients, takes one chunk a
program. Nothing but the inputs is kept for the backward: it walks again.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridlab.kernels.halving_triton import between, exact, faded, inverse, levels, marked_sums, midpoint, parted
from hybridlab.kernels.tiles_triton import load_tile, load_vector, precision, store_tile, store_vector, whereabouts

# Tokens a chunk, keys and values a tile: about the largest that fit the registers of all targets (`hybridlab.measure.aot`).
LARGEST = (16, 16, 32)
# Values a program of the walk, which holds all keys of its tile of the state.
CARRIED = 16
# The matrices of a chunk that are kept: the inverse of I - A_ab, and three A.
KEPT = 4


class Inputs(NamedTuple):
    """The op's tensors but for the state, contiguous."""

    r: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor
    a: Tensor
    b: Tensor

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """B, T, H, K, V."""
        B, T, H, K = self.k.shape
        return B, T, H, K, self.v.shape[3]


def forward(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, V) in v's dtype and the state after the last token (B, H, K, V)."""
    given, state = _packed(r, k, v, log_decay, a, b), state.contiguous()
    if v.shape[1] == 1:
        return _step(given, state)
    pairs = _pairs(given)
    starts, found, final = _carry(given, pairs, given.v, state, reverse=False)
    return _mixed(given, pairs, found, given.v, starts, reverse=False), final


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of r, k, v, log_decay, a, b, state; takes those seven, output, final state, and the gradients of both."""
    given, (state, _, _, grad_out, grad_final) = _packed(*tensors[:6]), (x.contiguous() for x in tensors[6:])
    pairs = _pairs(given)
    starts, found, _ = _carry(given, pairs, given.v, state, reverse=False)
    ends, grad_found, grad_state = _carry(given, pairs, grad_out, grad_final, reverse=True)
    grad_v = _mixed(given, pairs, grad_found, grad_out, ends, reverse=True)
    grad_r, grad_k, *grads = _key_grads(given, (found, given.v), (grad_found, grad_out), starts, ends)
    return grad_r, grad_k, grad_v, *grads, grad_state


def blocks(T: int, K: int, V: int) -> tuple[int, int, int]:
    """Tokens a chunk, and the widths of a tile of keys and of values: powers of two, 16 at least (matrix units)."""
    L, BK, BV = (min(most, max(16, triton.next_power_of_2(size))) for size, most in zip((T, K, V), LARGEST, strict=True))
    return L, BK, BV


def _packed(*tensors: Tensor) -> Inputs:
    return Inputs(*(x.contiguous() for x in tensors))


def _step(given: Inputs, state: Tensor) -> tuple[Tensor, Tensor]:
    B, _, H, K, V = given.sizes
    BK, BV = triton.next_power_of_2(K), min(32, triton.next_power_of_2(V))
    out, final = torch.empty_like(given.v), torch.empty_like(state)
    step_kernel[(B * H, triton.cdiv(V, BV))](*given, state, out, final, H, K, V, BK, BV, num_warps=4)
    return out, final


def _pairs(given: Inputs) -> Tensor:
    """Of each chunk the inverse of I - A_ab, then A_ak, A_rb and A_rk: (B, H, chunks, 4, L, L)."""
    B, T, H, K, V = given.sizes
    L, BK, _ = blocks(T, K, V)
    chunks = triton.cdiv(T, L)
    pairs = given.k.new_empty((B, H, chunks, KEPT, L, L), dtype=torch.float32)
    r, k, _, log_decay, a, b = given
    pairs_kernel[(chunks * B * H,)](
        r, k, log_decay, a, b, pairs, T, H, K, L, BK, precision(r), num_warps=2
    )  # fmt: skip
    return pairs


def _carry(given: Inputs, pairs: Tensor, values: Tensor, state: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The state before each chunk, what the tokens read of it (B, T, H, V), and the last state."""
    B, T, H, K, V = given.sizes
    L, BK = pairs.shape[-1], max(16, triton.next_power_of_2(K))
    BV = min(CARRIED, max(16, triton.next_power_of_2(V)))
    marks = state.new_empty((B, H, pairs.shape[2], K, V))
    found, final = torch.empty_like(values, dtype=torch.float32), torch.empty_like(state)
    r, k, _, log_decay, a, b = given
    roles = (b, a, r) if reverse else (a, b, k)
    carry_kernel[(B * H, triton.cdiv(V, BV))](
        *roles, values, log_decay, pairs, state, marks, found, final, T, H, K, V, L, BK, BV,
        precision(r), reverse, num_warps=4,
    )  # fmt: skip
    return marks, found, final


def _mixed(given: Inputs, pairs: Tensor, found: Tensor, values: Tensor, marks: Tensor, *, reverse: bool) -> Tensor:
    B, T, H, K, V = given.sizes
    L, BK, BV = blocks(T, K, V)
    out = torch.empty_like(values)
    outputs_kernel[(pairs.shape[2] * B * H, triton.cdiv(V, BV))](
        given.k if reverse else given.r, found, values, given.log_decay, pairs, marks, out, T,
        H, K, V, L, BK, BV, precision(given.r), reverse, num_warps=2,
    )  # fmt: skip
    return out


def _key_grads(
    given: Inputs, values: tuple[Tensor, Tensor], grads: tuple[Tensor, Tensor], starts: Tensor, ends: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of r, k, log_decay, a, b; `values` are those written with b and k, `grads` those of what a and r read."""
    B, T, H, K, V = given.sizes
    L, BK, BV = blocks(T, K, V)
    chunks = triton.cdiv(T, L)
    asked = starts.new_empty((B, H, chunks, KEPT, L, L))
    asked_kernel[(chunks * B * H,)](*values, *grads, asked, T, H, V, L, BV, precision(given.r), num_warps=2)
    r, k, _, log_decay, a, b = given
    made = [torch.empty_like(x) for x in (r, k, log_decay, a, b)]
    key_grads_kernel[(chunks * B * H, triton.cdiv(K, BK))](
        r, k, log_decay, a, b, *values, *grads, asked, starts, ends, *made, T, H, K, V, L, BK, BV,
        precision(r), num_warps=2,
    )  # fmt: skip
    return tuple(made)


@triton.jit
def load_decay(log_decay, shift, stride, rows, cols, L: tl.constexpr, COLS: tl.constexpr):
    """A chunk's log decays, moved by `shift` tokens; -inf becomes a large number, because 0 * inf is no zero."""
    t, j = tl.arange(0, L)[:, None] + shift, tl.arange(0, COLS)[None, :]
    inside = (t >= 0) & (t < tl.minimum(rows, L)) & (j < cols)
    return tl.maximum(tl.load(log_decay + t * stride + j, mask=inside, other=0.0).to(tl.float32), -1e30)


@triton.jit
def decays_from_start(log_decay, own: tl.constexpr, stride, rows, cols, L: tl.constexpr, COLS: tl.constexpr):
    """Decay from the chunk's start to each token, before its own decay or after it."""
    return tl.exp(tl.cumsum(load_decay(log_decay, 0 if own else -1, stride, rows, cols, L, COLS), 0))


@triton.jit
def decays_to_end(log_decay, stride, rows, cols, L: tl.constexpr, COLS: tl.constexpr):
    """Decay from after each token to the chunk's end."""
    return tl.exp(tl.cumsum(load_decay(log_decay, 1, stride, rows, cols, L, COLS), 0, reverse=True))


@triton.jit
def pairs_kernel(
    r, k, log_decay, a, b, pairs, T,
    H: tl.constexpr, K: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """How much of what token i writes token t reads, of one chunk: the inverse of I - A_ab, then A_ak, A_rb and A_rk.

    r reads after the decay of its own token, a before, so r meets the others as r e^{log_decay}. Programs: (chunk of a batch
    and head).
    """
    c, batch, h, head = whereabouts(T, H, L)
    row, rows = batch * T + c * L, T - c * L
    at = (row * H + h) * K
    t, i = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    ab, ak = tl.zeros((L, L), tl.float32), tl.zeros((L, L), tl.float32)
    rb, rk = tl.zeros((L, L), tl.float32), tl.zeros((L, L), tl.float32)
    for k0 in tl.range(0, K, BK, num_stages=1, disable_licm=True):
        fades = load_decay(log_decay + at + k0, 0, H * K, rows, K - k0, L, BK)
        late = load_tile(r + at + k0, H * K, rows, K - k0, L, BK)
        early = load_tile(a + at + k0, H * K, rows, K - k0, L, BK)
        correct = load_tile(b + at + k0, H * K, rows, K - k0, L, BK)
        write = load_tile(k + at + k0, H * K, rows, K - k0, L, BK)
        rb += tl.where(t == i, tl.sum(late * correct, 1)[:, None], 0.0)
        rk += tl.where(t == i, tl.sum(late * write, 1)[:, None], 0.0)
        late *= tl.exp(fades)
        # Whatever is the same on every level is made anew on each: kept (licm), it would fill the registers.
        for level in tl.range(levels(L), disable_licm=True):
            fade = faded(between(midpoint(level, L), L), fades, PRECISION)
            apart, first, second = parted(level, L), early * fade, late * fade
            faint = tl.trans(correct * fade)
            ab += tl.where(apart, tl.dot(first, faint, input_precision=PRECISION), 0.0)
            rb += tl.where(apart, tl.dot(second, faint, input_precision=PRECISION), 0.0)
            faint = tl.trans(write * fade)
            ak += tl.where(apart, tl.dot(first, faint, input_precision=PRECISION), 0.0)
            rk += tl.where(apart, tl.dot(second, faint, input_precision=PRECISION), 0.0)
    pairs += (head * tl.cdiv(T, L) + c) * 4 * L * L
    store_tile(pairs + L * L, ak, L, L, L, L, L)
    store_tile(pairs + 2 * L * L, rb, L, L, L, L, L)
    store_tile(pairs + 3 * L * L, rk, L, L, L, L, L)
    store_tile(pairs, inverse(ab, L, PRECISION), L, L, L, L, L)


@triton.jit
def carry_kernel(
    reads, corrections, writes, values, log_decay, pairs, state, marks, found, final, T,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Walks the chunks with a tile of the state; writes down what their tokens read, the state before each, and the last.

        U = (I - A_ab)^{-1} (A_ak V + (a * decay from the chunk's start) S)
        S <- diag(decay of the chunk) S + (b * decay to the chunk's end)^T U + (k * decay to the chunk's end)^T V

    The gradient of the state obeys this from the last chunk to the first, with (b, a, r e^{log_decay}, gradient of the
    output) in the place of (a, b, k, v), A_rb^T in that of A_ak, the inverse transposed, and chunks' starts and ends
    exchanged. Programs: (batch and head, tile of values).
    """
    head = tl.program_id(0).to(tl.int64)
    v0 = tl.program_id(1) * BV
    batch, h = head // H, head % H
    chunks = tl.cdiv(T, L)
    marks += head * chunks * K * V + v0
    S = load_tile(state + head * K * V + v0, V, K, V - v0, BK, BV)
    for step in tl.range(chunks, num_stages=1, disable_licm=True):
        c = tl.cast(chunks - 1 - step if REVERSE else step, tl.int64)
        row, rows = batch * T + c * L, T - c * L
        at, at_values = (row * H + h) * K, (row * H + h) * V + v0
        at_pairs = pairs + (head * chunks + c) * 4 * L * L
        store_tile(marks + c * K * V, S, V, K, V - v0, BK, BV)
        what = load_tile(values + at_values, H * V, rows, V - v0, L, BV)
        mix = load_tile(at_pairs + (2 * L * L if REVERSE else L * L), L, L, L, L, L)
        solve = load_tile(at_pairs, L, L, L, L, L)
        wanted = tl.dot(tl.trans(mix) if REVERSE else mix, what, input_precision=PRECISION)
        reading = load_tile(reads + at, H * K, rows, K, L, BK)
        if REVERSE:
            reading *= decays_to_end(log_decay + at, H * K, rows, K, L, BK)
        else:
            reading *= decays_from_start(log_decay + at, False, H * K, rows, K, L, BK)
        wanted += tl.dot(reading, S, input_precision=PRECISION)
        solution = tl.dot(tl.trans(solve) if REVERSE else solve, wanted, input_precision=exact(PRECISION))
        store_tile(found + at_values, solution, H * V, rows, V - v0, L, BV)
        correcting = load_tile(corrections + at, H * K, rows, K, L, BK)
        writing = load_tile(writes + at, H * K, rows, K, L, BK)
        if REVERSE:
            correcting *= decays_from_start(log_decay + at, False, H * K, rows, K, L, BK)
            writing *= decays_from_start(log_decay + at, True, H * K, rows, K, L, BK)
        else:
            far = decays_to_end(log_decay + at, H * K, rows, K, L, BK)
            correcting, writing = correcting * far, writing * far
        S *= tl.exp(tl.sum(load_decay(log_decay + at, 0, H * K, rows, K, L, BK), 0))[:, None]
        S += tl.dot(tl.trans(correcting), solution, input_precision=PRECISION)
        S += tl.dot(tl.trans(writing), what, input_precision=PRECISION)
    store_tile(final + head * K * V + v0, S, V, K, V - v0, BK, BV)


@triton.jit
def outputs_kernel(
    reads, found, values, log_decay, pairs, marks, out, T,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The outputs of one chunk: its own tokens through the pairs, everything before it through the state at its start.

        O = A_rb U + A_rk V + (r e^{log_decay} * decay from the chunk's start) S_start

    In reverse, with k, the gradients of U and of the output, and the state's gradient at the chunk's end, the gradient of V:

        dV = A_ak^T dU + A_rk^T dO + (k * decay to the chunk's end) dS_end

    Programs: (chunk of a batch and head, tile of values).
    """
    c, batch, h, head = whereabouts(T, H, L)
    v0 = tl.program_id(1) * BV
    row, rows = batch * T + c * L, T - c * L
    at, at_values, chunk = (row * H + h) * K, (row * H + h) * V + v0, head * tl.cdiv(T, L) + c
    result = tl.zeros((L, BV), tl.float32)
    for k0 in tl.range(0, K, BK, num_stages=1, disable_licm=True):
        reading = load_tile(reads + at + k0, H * K, rows, K - k0, L, BK)
        S = load_tile(marks + (chunk * K + k0) * V + v0, V, K - k0, V - v0, BK, BV)
        if REVERSE:
            reading *= decays_to_end(log_decay + at + k0, H * K, rows, K - k0, L, BK)
        else:
            reading *= decays_from_start(log_decay + at + k0, True, H * K, rows, K - k0, L, BK)
        result += tl.dot(reading, S, input_precision=PRECISION)
    pairs += chunk * 4 * L * L
    corrected = load_tile(pairs + (L * L if REVERSE else 2 * L * L), L, L, L, L, L)
    written = load_tile(pairs + 3 * L * L, L, L, L, L, L)
    was_found = load_tile(found + at_values, H * V, rows, V - v0, L, BV)
    what = load_tile(values + at_values, H * V, rows, V - v0, L, BV)
    result += tl.dot(tl.trans(corrected) if REVERSE else corrected, was_found, input_precision=PRECISION)
    result += tl.dot(tl.trans(written) if REVERSE else written, what, input_precision=PRECISION)
    store_tile(out + at_values, result, H * V, rows, V - v0, L, BV)


@triton.jit
def asked_kernel(
    u, v, grad_u, grad_out, asked, T,
    H: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of one chunk's pairs: dU U^T, dU V^T, dO U^T, dO V^T for A_ab, A_ak, A_rb, A_rk.

    Programs: (chunk of a batch and head).
    """
    c, batch, h, head = whereabouts(T, H, L)
    row, rows = batch * T + c * L, T - c * L
    ab, ak = tl.zeros((L, L), tl.float32), tl.zeros((L, L), tl.float32)
    rb, rk = tl.zeros((L, L), tl.float32), tl.zeros((L, L), tl.float32)
    for v0 in tl.range(0, V, BV, num_stages=1):
        at = (row * H + h) * V + v0
        was_found = tl.trans(load_tile(u + at, H * V, rows, V - v0, L, BV))
        what = tl.trans(load_tile(v + at, H * V, rows, V - v0, L, BV))
        early = load_tile(grad_u + at, H * V, rows, V - v0, L, BV)
        late = load_tile(grad_out + at, H * V, rows, V - v0, L, BV)
        ab += tl.dot(early, was_found, input_precision=PRECISION)
        ak += tl.dot(early, what, input_precision=PRECISION)
        rb += tl.dot(late, was_found, input_precision=PRECISION)
        rk += tl.dot(late, what, input_precision=PRECISION)
    asked += (head * tl.cdiv(T, L) + c) * 4 * L * L
    store_tile(asked, ab, L, L, L, L, L)
    store_tile(asked + L * L, ak, L, L, L, L, L)
    store_tile(asked + 2 * L * L, rb, L, L, L, L, L)
    store_tile(asked + 3 * L * L, rk, L, L, L, L, L)


@triton.jit
def load_asked(asked, which, wanted, L: tl.constexpr):
    """One of the gradients of a chunk's pairs, where they are wanted."""
    return tl.where(wanted, load_tile(asked + which * L * L, L, L, L, L, L), 0.0)


@triton.jit
def key_grads_kernel(
    r, k, log_decay, a, b, u, v, grad_u, grad_out, asked, starts, ends, grad_r, grad_k, grad_decay, grad_a, grad_b, T,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of one chunk's r, k, log_decay, a and b.

    With G the gradients of the pairs, each level of the halving in `pairs_kernel` gives back

        dA = (G_ab (B * fade) + G_ak (K * fade)) * fade           dB = (G_ab^T (A * fade) + G_rb^T (R * fade)) * fade

    and alike dR and dK (R stands for r e^{log_decay}), and the sum of log decays in `fade` gets A * dA + R * dR + B * dB +
    K * dK; so do the chunk's start (through S_start) and its end (through dS_end). The sums then hand their gradient to
    log_decay through the transpose of their 0/1 matrix. Programs: (chunk of a batch and head, tile of keys).
    """
    c, batch, h, head = whereabouts(T, H, L)
    row, rows = batch * T + c * L, T - c * L
    k0 = tl.program_id(1) * BK
    at, at_values, chunk = (row * H + h) * K + k0, (row * H + h) * V, head * tl.cdiv(T, L) + c
    at_state = (chunk * K + k0) * V
    d_late, d_early = tl.zeros((L, BK), tl.float32), tl.zeros((L, BK), tl.float32)
    d_correct, d_write = tl.zeros((L, BK), tl.float32), tl.zeros((L, BK), tl.float32)
    d_whole = tl.zeros((BK,), tl.float32)
    for v0 in tl.range(0, V, BV, num_stages=1):  # one stage: prefetched tiles would not fit the registers
        S = load_tile(starts + at_state + v0, V, K - k0, V - v0, BK, BV)
        dS = load_tile(ends + at_state + v0, V, K - k0, V - v0, BK, BV)
        d_whole += tl.sum(S * dS, 1)
        S, dS = tl.trans(S), tl.trans(dS)
        here = at_values + v0
        d_early += tl.dot(load_tile(grad_u + here, H * V, rows, V - v0, L, BV), S, input_precision=PRECISION)
        d_late += tl.dot(load_tile(grad_out + here, H * V, rows, V - v0, L, BV), S, input_precision=PRECISION)
        d_correct += tl.dot(load_tile(u + here, H * V, rows, V - v0, L, BV), dS, input_precision=PRECISION)
        d_write += tl.dot(load_tile(v + here, H * V, rows, V - v0, L, BV), dS, input_precision=PRECISION)
    fades = load_decay(log_decay + at, 0, H * K, rows, K - k0, L, BK)
    late = load_tile(r + at, H * K, rows, K - k0, L, BK) * tl.exp(fades)
    early = load_tile(a + at, H * K, rows, K - k0, L, BK)
    correct = load_tile(b + at, H * K, rows, K - k0, L, BK)
    write = load_tile(k + at, H * K, rows, K - k0, L, BK)
    d_early *= decays_from_start(log_decay + at, False, H * K, rows, K - k0, L, BK)
    d_late *= decays_from_start(log_decay + at, False, H * K, rows, K - k0, L, BK)
    d_fades = marked_sums(tl.trans(between(0, L)), early * d_early + late * d_late, PRECISION)
    fade = decays_to_end(log_decay + at, H * K, rows, K - k0, L, BK)
    d_correct, d_write = d_correct * fade, d_write * fade
    d_fades += marked_sums(tl.trans(between(L, L)), correct * d_correct + write * d_write, PRECISION)
    d_fades += (tl.exp(tl.sum(fades, 0)) * d_whole)[None, :]
    asked += chunk * 4 * L * L
    for level in tl.range(levels(L), disable_licm=True):
        marks, apart = between(midpoint(level, L), L), parted(level, L)
        fade = faded(marks, fades, PRECISION)
        ab, ak = load_asked(asked, 0, apart, L), load_asked(asked, 1, apart, L)
        rb, rk = load_asked(asked, 2, apart, L), load_asked(asked, 3, apart, L)
        d = tl.dot(ab, correct * fade, input_precision=PRECISION)
        d = tl.dot(ak, write * fade, d, input_precision=PRECISION) * fade
        d_early += d
        d_sums = early * d
        d = tl.dot(rb, correct * fade, input_precision=PRECISION)
        d = tl.dot(rk, write * fade, d, input_precision=PRECISION) * fade
        d_late += d
        d_sums += late * d
        d = tl.dot(tl.trans(ab), early * fade, input_precision=PRECISION)
        d = tl.dot(tl.trans(rb), late * fade, d, input_precision=PRECISION) * fade
        d_correct += d
        d_sums += correct * d
        d = tl.dot(tl.trans(ak), early * fade, input_precision=PRECISION)
        d = tl.dot(tl.trans(rk), late * fade, d, input_precision=PRECISION) * fade
        d_write += d
        d_sums += write * d
        d_fades += marked_sums(tl.trans(marks), d_sums, PRECISION)
    store_tile(grad_decay + at, d_fades + late * d_late, H * K, rows, K - k0, L, BK)
    store_tile(grad_a + at, d_early, H * K, rows, K - k0, L, BK)
    t, i = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    corrected = tl.sum(load_asked(asked, 2, t == i, L), 1)[:, None]
    written = tl.sum(load_asked(asked, 3, t == i, L), 1)[:, None]
    late = load_tile(r + at, H * K, rows, K - k0, L, BK)
    d_late = d_late * tl.exp(fades) + corrected * correct + written * write
    store_tile(grad_r + at, d_late, H * K, rows, K - k0, L, BK)
    store_tile(grad_b + at, d_correct + corrected * late, H * K, rows, K - k0, L, BK)
    store_tile(grad_k + at, d_write + written * late, H * K, rows, K - k0, L, BK)


@triton.jit
def step_kernel(
    r, k, v, log_decay, a, b, state, out, final,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """One token: reads the state, writes the next; bound by the state's bytes, so no matrix units.

    Programs: (batch and head, tile of values).
    """
    head = tl.program_id(0).to(tl.int64)
    v0 = tl.program_id(1) * BV
    fade = tl.exp(load_vector(log_decay + head * K, K, BK))
    S = load_tile(state + head * K * V + v0, V, K, V - v0, BK, BV)
    was_found = tl.sum(load_vector(a + head * K, K, BK)[:, None] * S, 0)
    S = fade[:, None] * S + load_vector(b + head * K, K, BK)[:, None] * was_found[None, :]
    S += load_vector(k + head * K, K, BK)[:, None] * load_vector(v + head * V + v0, V - v0, BV)[None, :]
    store_vector(out + head * V + v0, tl.sum(load_vector(r + head * K, K, BK)[:, None] * S, 0), V - v0, BV)
    store_tile(final + head * K * V + v0, S, V, K, V - v0, BK, BV)
