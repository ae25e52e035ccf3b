"""RWKV-4's operator in Triton: a weighted average of all pairs inside a tile of tokens, a state between tiles.

    out_t = (A_{t-1} + e^{u + k_t} v_t) / (D_{t-1} + e^{u + k_t})
    A_t   = e^{log_decay} A_{t-1} + e^{k_t} v_t             D_t = e^{log_decay} D_{t-1} + e^{k_t}

Token by token a program would wait for memory at every step. It takes a tile of tokens instead, and each output is one
average with the weights

    e^{k_i + (t - 1 - i) log_decay} for i < t,    e^{u + k_t} for t,    e^{max + t log_decay} for the state at the start

all shifted by the largest exponent of the row, so that none overflows. The backward needs those very weights again, divided
by the denominator: the sums over the earlier tokens become sums over the later ones, and what later tiles ask of this one
arrives as three numbers a channel too, the gradients of A and D as (g_num, g_den) e^{g_top}.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Tokens and channels a tile: the pairs, 16 x 16 x 32, are what fits the registers (`hybridlab.measure.aot`).
LARGEST = (16, 32)
EMPTY = tl.constexpr(-1e38)


def forward(k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, C) in v's dtype and the state after the last token (B, C, 3)."""
    out, final, _ = _forward(*(x.contiguous() for x in (k, v, log_decay, bonus, state)))
    return out, final


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of k, v, log_decay, bonus, state; takes those five, output, final state, and the gradients of both."""
    k, v, log_decay, bonus, state, _, _, grad_out, grad_final = (x.contiguous() for x in tensors)
    B, T, C = k.shape
    BT, BC = blocks(T, C)
    _, final, starts = _forward(k, v, log_decay, bonus, state)
    grad_k, grad_v, grad_state = torch.empty_like(k), torch.empty_like(v), torch.empty_like(state)
    decay_parts, bonus_parts = state.new_empty((B, C)), state.new_empty((B, C))  # added up in order: reproducible
    backward_kernel[(B, triton.cdiv(C, BC))](
        k, v, log_decay, bonus, state, final, starts, grad_out, grad_final,
        grad_k, grad_v, decay_parts, bonus_parts, grad_state, T, C, BT, BC, num_warps=8,
    )  # fmt: skip
    return grad_k, grad_v, decay_parts.sum(0).to(log_decay.dtype), bonus_parts.sum(0).to(bonus.dtype), grad_state


def blocks(T: int, C: int) -> tuple[int, int]:
    """Tokens and channels a tile: powers of two."""
    return min(LARGEST[0], triton.next_power_of_2(T)), min(LARGEST[1], triton.next_power_of_2(C))


def _forward(k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    B, T, C = k.shape
    BT, BC = blocks(T, C)
    out, final = torch.empty_like(v), torch.empty_like(state)
    starts = state.new_empty((B, triton.cdiv(T, BT), C, 3))
    grid = (B, triton.cdiv(C, BC))
    forward_kernel[grid](k, v, log_decay, bonus, state, out, final, starts, T, C, BT, BC, num_warps=4)
    return out, final, starts


@triton.jit
def load_rows(x, rows, T, C, c):
    """Tokens `rows` of channels c as float32, (tokens, channels); zero outside."""
    inside = (rows < T)[:, None] & (c < C)[None, :]
    return tl.load(x + rows[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_rows(x, tile, rows, T, C, c):
    """The counterpart of `load_rows`: rounds to x's dtype."""
    inside = (rows < T)[:, None] & (c < C)[None, :]
    tl.store(x + rows[:, None] * C + c[None, :], tile.to(x.dtype.element_ty), mask=inside)


@triton.jit
def load_channels(x, C, c):
    """One number a channel as float32."""
    return tl.load(x + c, mask=c < C, other=0.0).to(tl.float32)


@triton.jit
def load_state(state, C, c):
    """num, den and max of channels c; beyond channel C an empty state."""
    num = tl.load(state + 3 * c, mask=c < C, other=0.0)
    den = tl.load(state + 3 * c + 1, mask=c < C, other=0.0)
    return num, den, tl.load(state + 3 * c + 2, mask=c < C, other=EMPTY)


@triton.jit
def store_state(state, num, den, top, C, c):
    """The counterpart of `load_state`."""
    tl.store(state + 3 * c, num, mask=c < C)
    tl.store(state + 3 * c + 1, den, mask=c < C)
    tl.store(state + 3 * c + 2, top, mask=c < C)


@triton.jit
def ages(BT: tl.constexpr):
    """(t, i, 1): steps by which token i has faded when t reads it; -1 is t itself, less is the future."""
    t = tl.arange(0, BT)
    return (t[:, None] - t[None, :] - 1)[:, :, None]


@triton.jit
def row_weights(k, decay, u, den, top, BT: tl.constexpr):
    """The weights of one tile's averages, each row (an output) shifted by its largest exponent.

    Returns:
        weights of the tokens (t, i, channel); weight of the state at the tile's start (t, channel), to be multiplied by its
        num or den; the denominators and the shifts of the rows (t, channel).
    """
    age = ages(BT)
    pair = k[None, :, :] + tl.where(age == -1, u[None, None, :], age * decay[None, None, :])
    pair = tl.where(age >= -1, pair, float("-inf"))
    carried = top[None, :] + tl.arange(0, BT)[:, None] * decay[None, :]
    shift = tl.maximum(tl.max(pair, 1), carried)
    weights, old = tl.exp(pair - shift[:, None, :]), tl.exp(carried - shift)
    return weights, old, old * den[None, :] + tl.sum(weights, 1), shift


@triton.jit
def forward_kernel(k, v, log_decay, bonus, state, out, final, starts, T, C, BT: tl.constexpr, BC: tl.constexpr):
    """Outputs, final state, and the state at each tile's start, which the backward reads.

    Walks the tiles of time. Programs: (batch, tile of channels).
    """
    b = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    k, v, out = k + b * T * C, v + b * T * C, out + b * T * C
    starts += b * tl.cdiv(T, BT) * C * 3
    decay, u = load_channels(log_decay, C, c), load_channels(bonus, C, c)
    num, den, top = load_state(state + b * C * 3, C, c)
    for step in range(tl.cdiv(T, BT)):
        tile = tl.cast(step, tl.int64)
        rows = tile * BT + tl.arange(0, BT)
        store_state(starts + tile * C * 3, num, den, top, C, c)
        k_rows, v_rows = load_rows(k, rows, T, C, c), load_rows(v, rows, T, C, c)
        weights, old, total, _ = row_weights(k_rows, decay, u, den, top, BT)
        average = (tl.sum(weights * v_rows[None, :, :], 1) + old * num[None, :]) / total
        store_rows(out, average, rows, T, C, c)
        last = tl.minimum(T - tile * BT, BT)
        left = k_rows + (last - 1 - tl.arange(0, BT))[:, None] * decay[None, :]
        left = tl.where((rows < T)[:, None], left, float("-inf"))
        carried = top + last * decay
        top = tl.maximum(tl.max(left, 0), carried)
        left, old = tl.exp(left - top[None, :]), tl.exp(carried - top)
        num, den = old * num + tl.sum(left * v_rows, 0), old * den + tl.sum(left, 0)
    store_state(final + b * C * 3, num, den, top, C, c)


@triton.jit
def backward_kernel(
    k, v, log_decay, bonus, state, final, starts, grad_out, grad_final, grad_k, grad_v, grad_decay, grad_bonus, grad_state,
    T, C, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gradients of k, v and the state, and one summand a batch of those of log_decay and bonus.

    With w_ti the weight of token i in output t, divided by nothing yet, and Z_t the denominator:

        dk_i = sum_{t >= i} w_ti / Z_t grad_t (v_i - out_t)         dv_i = sum_{t >= i} w_ti / Z_t grad_t

    plus what later tiles ask through the state: e^{k_i + fade} (gA v_i + gD) and e^{k_i + fade} gA. A weight's gradient goes
    to k_i once, to the bonus if t = i, else to log_decay as often as the token has faded. Walks the tiles back, carrying
    (g_num, g_den, g_top). e^{k_i} is a summand of every later Z, so k_i + fade + g_top is at most 0; in rows past T, which
    are no tokens, `minimum` makes it so. Programs: (batch, tile of channels).
    """
    b = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    k, v, grad_out = k + b * T * C, v + b * T * C, grad_out + b * T * C
    starts += b * tl.cdiv(T, BT) * C * 3
    decay, u = load_channels(log_decay, C, c), load_channels(bonus, C, c)
    g_num, g_den, _ = load_state(grad_final + b * C * 3, C, c)
    _, _, top = load_state(final + b * C * 3, C, c)
    g_top = tl.where(c < C, -top, EMPTY)
    d_decay, d_bonus = tl.zeros((BC,), tl.float32), tl.zeros((BC,), tl.float32)
    age, t = ages(BT), tl.arange(0, BT)[:, None]
    for step in range(tl.cdiv(T, BT)):
        tile = tl.cast(tl.cdiv(T, BT) - 1 - step, tl.int64)
        rows = tile * BT + tl.arange(0, BT)
        num, den, top = load_state(starts + tile * C * 3, C, c)
        k_rows, v_rows = load_rows(k, rows, T, C, c), load_rows(v, rows, T, C, c)
        weights, old, total, shift = row_weights(k_rows, decay, u, den, top, BT)
        average = (tl.sum(weights * v_rows[None, :, :], 1) + old * num[None, :]) / total
        asked = load_rows(grad_out, rows, T, C, c) / total
        d_pair = weights * asked[:, None, :] * (v_rows[None, :, :] - average[:, None, :])
        d_old = old * asked * (num[None, :] - average * den[None, :])
        last = tl.minimum(T - tile * BT, BT)
        fades = (last - 1 - t).to(tl.float32)
        left = tl.exp(tl.minimum(k_rows + fades * decay[None, :] + g_top[None, :], 0.0))
        d_left = left * (g_num[None, :] * v_rows + g_den[None, :])
        store_rows(grad_k + b * T * C, tl.sum(d_pair, 0) + d_left, rows, T, C, c)
        store_rows(grad_v + b * T * C, tl.sum(weights * asked[:, None, :], 0) + left * g_num[None, :], rows, T, C, c)
        d_bonus += tl.sum(tl.sum(tl.where(age == -1, d_pair, 0.0), 0), 0)
        d_decay += tl.sum(tl.sum(tl.where(age > 0, d_pair * age, 0.0), 0), 0) + tl.sum(d_old * t, 0)
        d_decay += tl.sum(tl.where((rows < T)[:, None], d_left * fades, 0.0), 0)
        through = tl.exp(top + last * decay + g_top) * last
        d_decay += through * (g_num * num + g_den * den)
        read = tl.where((rows < T)[:, None], t * decay[None, :] - shift, EMPTY)
        most = tl.maximum(tl.max(read, 0), last * decay + g_top)
        read, kept = tl.exp(read - most[None, :]), tl.exp(last * decay + g_top - most)
        g_num = kept * g_num + tl.sum(read * asked, 0)
        g_den = kept * g_den - tl.sum(read * asked * average, 0)
        g_top = most
    num, den, top = load_state(state + b * C * 3, C, c)
    scale = tl.exp(top + g_top)
    # The given max is only a shift, but its partial derivative is what it is.
    d_top = scale * (g_num * num + g_den * den)
    store_state(grad_state + b * C * 3, scale * g_num, scale * g_den, d_top, C, c)
    tl.store(grad_decay + b * C + c, d_decay, mask=c < C)
    tl.store(grad_bonus + b * C + c, d_bonus, mask=c < C)
