"""The linear recurrence in Triton: a scan inside a tile of tokens, the state between tiles.

    h_t = a_t h_{t-1} + b_t

The gradient of h is the same recurrence backwards, with each a one token later:

    g_t = (gradient of output t) + a_{t+1} g_{t+1}        d b_t = g_t        d a_t = g_t h_{t-1}
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridlab.kernels.scan_triton import blocks, load_before, load_rows, row, scanned, store_rows
from hybridlab.kernels.tiles_triton import load_vector, store_vector


def forward(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, D) in b's dtype and the state after the last token (B, D)."""
    a, b, state = (x.contiguous() for x in (a, b, state))
    B, T, D = b.shape
    BT, BD = blocks(T, D)
    out, final = torch.empty_like(b), torch.empty_like(state)
    forward_kernel[(B, triton.cdiv(D, BD))](a, b, state, out, final, T, D, BT, BD, num_warps=4)
    return out, final


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a, b, state; takes those three, output, final state, and the gradients of both."""
    a, b, state, out, _, grad_out, grad_final = (x.contiguous() for x in tensors)
    B, T, D = b.shape
    BT, BD = blocks(T, D)
    grad_a, grad_b, grad_state = torch.empty_like(a), torch.empty_like(b), torch.empty_like(state)
    backward_kernel[(B, triton.cdiv(D, BD))](
        a, state, out, grad_out, grad_final, grad_a, grad_b, grad_state, T, D, BT, BD, num_warps=4
    )
    return grad_a, grad_b, grad_state


@triton.jit
def forward_kernel(a, b, state, out, final, T, D, BT: tl.constexpr, BD: tl.constexpr):
    """Outputs and final state. Walks the tiles of time. Programs: (batch, tile of channels)."""
    n, d0 = tl.program_id(0).to(tl.int64), tl.program_id(1) * BD
    d = d0 + tl.arange(0, BD)
    a, b, out = a + n * T * D, b + n * T * D, out + n * T * D
    h = load_vector(state + n * D + d0, D - d0, BD)
    for tile in range(tl.cdiv(T, BT)):
        rows = tl.cast(tile, tl.int64) * BT + tl.arange(0, BT)
        states = scanned(load_rows(a, rows, T, D, d, 1.0), load_rows(b, rows, T, D, d, 0.0), h, False)
        store_rows(out, states, rows, T, D, d)
        h = row(states, BT - 1, BT)
    store_vector(final + n * D + d0, h, D - d0, BD)


@triton.jit
def backward_kernel(
    a, state, out, grad_out, grad_final, grad_a, grad_b, grad_state, T, D, BT: tl.constexpr, BD: tl.constexpr
):
    """Gradients of a, b and the state. Walks the tiles back, carrying g. Programs: (batch, tile of channels)."""
    n, d0 = tl.program_id(0).to(tl.int64), tl.program_id(1) * BD
    d = d0 + tl.arange(0, BD)
    a, out, grad_out = a + n * T * D, out + n * T * D, grad_out + n * T * D
    first = load_vector(state + n * D + d0, D - d0, BD)
    g = load_vector(grad_final + n * D + d0, D - d0, BD)
    for step in range(tl.cdiv(T, BT)):
        tile = tl.cast(tl.cdiv(T, BT) - 1 - step, tl.int64)
        rows = tile * BT + tl.arange(0, BT)
        asked = scanned(load_rows(a, rows + 1, T, D, d, 1.0), load_rows(grad_out, rows, T, D, d, 0.0), g, True)
        store_rows(grad_b + n * T * D, asked, rows, T, D, d)
        store_rows(grad_a + n * T * D, asked * load_before(out, first, rows, T, D, d), rows, T, D, d)
        g = row(asked, 0, BT)
    store_vector(grad_state + n * D + d0, g * load_vector(a + d0, D - d0, BD), D - d0, BD)
