"""RG-LRU in Triton: gates, square root and a scan inside a tile of tokens, the state between tiles.

    h_t = a_t h_{t-1} + m_t u_t,     a_t = e^{l_t}, l_t = 8 r_t log_a,     m_t = sqrt(1 - a_t^2),     u_t = i_t x_t

and a_t = 0, m_t = 1 where a document starts. The backward computes a and m again; the gradient of h is a scan backwards (see
`linear_recurrence_triton`), and

    d u_t = g_t m_t        d l_t = g_t a_t (h_{t-1} - u_t a_t / m_t)

with 1 / m_t bounded as in `hybridlab.ops.rg_lru`. What lies beyond the last token has r = 0: a step that does nothing.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridlab.kernels.scan_triton import blocks, load_before, load_rows, row, scanned, store_rows
from hybridlab.kernels.tiles_triton import load_vector, store_vector

# The backward holds three times as many tiles.
BACKWARD_LARGEST = (32, 32)
SHARPNESS = tl.constexpr(8.0)
# From here on down the derivative of the square root is its largest, 1000.
LEAST_ROOM = tl.constexpr(5e-4)
# From here to 0, 1 - e^z is taken from its series.
NEAR_ZERO = tl.constexpr(-0.35)


def forward(x: Tensor, r: Tensor, i: Tensor, log_a: Tensor, reset: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, D) in x's dtype and the state after the last token (B, D)."""
    x, r, i, log_a, reset, state = (y.contiguous() for y in (x, r, i, log_a, reset, state))
    B, T, D = x.shape
    BT, BD = blocks(T, D)
    out, final = torch.empty_like(x), torch.empty_like(state)
    forward_kernel[(B, triton.cdiv(D, BD))](x, r, i, log_a, reset, state, out, final, T, D, BT, BD, num_warps=4)
    return out, final


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, recurrence_gate, input_gate, log_a and state; takes all six inputs, output, final state, and the
    gradients of both.
    """
    x, r, i, log_a, reset, state, out, _, grad_out, grad_final = (y.contiguous() for y in tensors)
    B, T, D = x.shape
    BT, BD = blocks(T, D, BACKWARD_LARGEST)
    grad_x, grad_r, grad_i, grad_state = (torch.empty_like(y) for y in (x, r, i, state))
    parts = torch.empty_like(state)  # one summand a sequence: sums stay reproducible
    backward_kernel[(B, triton.cdiv(D, BD))](
        x, r, i, log_a, reset, state, out, grad_out, grad_final, grad_x, grad_r, grad_i, parts, grad_state,
        T, D, BT, BD, num_warps=4,
    )  # fmt: skip
    return grad_x, grad_r, grad_i, parts.sum(0).to(log_a.dtype), grad_state


@triton.jit
def one_minus_exp(z):
    """1 - e^z for z <= 0 without cancellation."""
    series = 1 + z / 2 * (1 + z / 3 * (1 + z / 4 * (1 + z / 5 * (1 + z / 6 * (1 + z / 7)))))
    return tl.where(z > NEAR_ZERO, -z * series, 1 - tl.exp(z))


@triton.jit
def load_decays(r, reset, rate, rows, T, D, d):
    """The recurrence gate at `rows`, a, and the square root of 1 - a^2."""
    gate = load_rows(r, rows, T, D, d, 0.0)
    starts = tl.load(reset + rows, mask=rows < T, other=0).to(tl.int1)[:, None]
    log_a = gate * rate[None, :]
    a = tl.where(starts, 0.0, tl.exp(log_a))
    return gate, a, tl.where(starts, 1.0, tl.sqrt(one_minus_exp(2 * log_a)))


@triton.jit
def forward_kernel(x, r, i, log_a, reset, state, out, final, T, D, BT: tl.constexpr, BD: tl.constexpr):
    """Outputs and final state. Walks the tiles of time. Programs: (batch, tile of channels)."""
    n, d0 = tl.program_id(0).to(tl.int64), tl.program_id(1) * BD
    d = d0 + tl.arange(0, BD)
    x, r, i, out, reset = x + n * T * D, r + n * T * D, i + n * T * D, out + n * T * D, reset + n * T
    rate = load_vector(log_a + d0, D - d0, BD) * SHARPNESS
    h = load_vector(state + n * D + d0, D - d0, BD)
    for tile in range(tl.cdiv(T, BT)):
        rows = tl.cast(tile, tl.int64) * BT + tl.arange(0, BT)
        _, a, room = load_decays(r, reset, rate, rows, T, D, d)
        written = load_rows(i, rows, T, D, d, 0.0) * load_rows(x, rows, T, D, d, 0.0)
        states = scanned(a, room * written, h, False)
        store_rows(out, states, rows, T, D, d)
        h = row(states, BT - 1, BT)
    store_vector(final + n * D + d0, h, D - d0, BD)


@triton.jit
def backward_kernel(
    x, r, i, log_a, reset, state, out, grad_out, grad_final, grad_x, grad_r, grad_i, grad_log_a, grad_state,
    T, D, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradients of x, both gates and the state, and one summand a batch of that of log_a.

    Walks the tiles back, carrying what later tokens ask of the state. Programs: (batch, tile of channels).
    """
    n, d0 = tl.program_id(0).to(tl.int64), tl.program_id(1) * BD
    d = d0 + tl.arange(0, BD)
    at = n * T * D
    reset += n * T
    rate = load_vector(log_a + d0, D - d0, BD) * SHARPNESS
    first = load_vector(state + n * D + d0, D - d0, BD)
    asked = load_vector(grad_final + n * D + d0, D - d0, BD)
    through = asked
    d_rate = tl.zeros((BD,), tl.float32)
    for step in range(tl.cdiv(T, BT)):
        tile = tl.cast(tl.cdiv(T, BT) - 1 - step, tl.int64)
        rows = tile * BT + tl.arange(0, BT)
        _, a_next, _ = load_decays(r + at, reset, rate, rows + 1, T, D, d)
        g = scanned(a_next, load_rows(grad_out + at, rows, T, D, d, 0.0), asked, True)
        gate, a, room = load_decays(r + at, reset, rate, rows, T, D, d)
        x_rows, i_rows = load_rows(x + at, rows, T, D, d, 0.0), load_rows(i + at, rows, T, D, d, 0.0)
        store_rows(grad_x + at, g * room * i_rows, rows, T, D, d)
        store_rows(grad_i + at, g * room * x_rows, rows, T, D, d)
        lost = i_rows * x_rows * a / tl.maximum(room, LEAST_ROOM)
        d_log_a = g * a * (load_before(out + at, first, rows, T, D, d) - lost)
        store_rows(grad_r + at, d_log_a * rate[None, :], rows, T, D, d)
        d_rate += tl.sum(d_log_a * gate, 0)
        asked, through = row(g, 0, BT), row(a * g, 0, BT)
    store_vector(grad_state + n * D + d0, through, D - d0, BD)
    store_vector(grad_log_a + n * D + d0, d_rate * SHARPNESS, D - d0, BD)
