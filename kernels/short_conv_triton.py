"""The short convolution in Triton: one tile of tokens and channels a program, all tiles at once.

    y_t = bias + sum_j weight_j x_{t - (W - 1) + j}

where x at a negative time is a row of the state. A tile is loaded once for each tap, shifted by one token; all but the first
of those loads find their rows in a cache.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridlab.kernels.scan_triton import blocks, load_rows, store_rows
from hybridlab.kernels.tiles_triton import load_vector, store_vector


def forward(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, D) and the last inputs (B, W - 1, D)."""
    x, weight, bias, state = (y.contiguous() for y in (x, weight.mT, bias, state))
    B, T, D = x.shape
    BT, BD = blocks(T, D)
    out = torch.empty_like(x)
    outputs_kernel[(triton.cdiv(T, BT), B, triton.cdiv(D, BD))](
        x, weight, bias, state, out, T, D, weight.shape[0], BT, BD, num_warps=4
    )
    fresh = min(T, state.shape[1])
    return out, torch.cat((state[:, fresh:], x[:, T - fresh :]), 1)


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, weight, bias, state; takes those four, output, final state, and the gradients of both."""
    x, weight, bias, state, _, _, grad_out, grad_final = (y.contiguous() for y in tensors)
    B, T, D = x.shape
    W, kept = weight.shape[1], weight.shape[1] - 1
    taps = weight.mT.contiguous()
    BT, BD = blocks(T, D)
    grad_x, grad_state = torch.empty_like(x), torch.empty_like(state)
    inputs_kernel[(triton.cdiv(T + kept, BT), B, triton.cdiv(D, BD))](
        taps, grad_out, grad_x, grad_state, T, D, W, BT, BD, num_warps=4
    )
    # One summand a tile: sums stay reproducible. The last row is the bias.
    parts = x.new_empty((B, triton.cdiv(T, BT), W + 1, D), dtype=torch.float32)
    weights_kernel[(triton.cdiv(T, BT), B, triton.cdiv(D, BD))](x, state, grad_out, parts, T, D, W, BT, BD, num_warps=4)
    sums = parts.sum((0, 1))
    fresh = min(T, kept)
    grad_state[:, fresh:] += grad_final[:, : kept - fresh]
    grad_x[:, T - fresh :] += grad_final[:, kept - fresh :]
    grad_weight = sums[:W].mT.to(weight.dtype, memory_format=torch.contiguous_format, copy=True)
    return grad_x, grad_weight, sums[W].to(bias.dtype), grad_state


@triton.jit
def load_seen(x, state, rows, T, D, d, KEPT: tl.constexpr):
    """Rows of x; at negative times rows of the state."""
    return load_rows(x, rows, T, D, d, 0.0) + load_rows(state, rows + KEPT, KEPT, D, d, 0.0)


@triton.jit
def outputs_kernel(x, weight, bias, state, out, T, D, W: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr):
    """Outputs. Programs: (tile of tokens, batch, tile of channels)."""
    n, d0 = tl.program_id(1).to(tl.int64), tl.program_id(2) * BD
    d = d0 + tl.arange(0, BD)
    rows = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    total = tl.zeros((BT, BD), tl.float32) + load_vector(bias + d0, D - d0, BD)[None, :]
    for j in tl.static_range(W):
        seen = load_seen(x + n * T * D, state + n * (W - 1) * D, rows + (j - (W - 1)), T, D, d, W - 1)
        total += load_vector(weight + j * D + d0, D - d0, BD)[None, :] * seen
    store_rows(out + n * T * D, total, rows, T, D, d)


@triton.jit
def inputs_kernel(weight, grad_out, grad_x, grad_state, T, D, W: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr):
    """Gradients of the state and x, as if they were one sequence: the taps the other way round.

    Programs: (tile of rows, batch, tile of channels).
    """
    n, d0 = tl.program_id(1).to(tl.int64), tl.program_id(2) * BD
    d = d0 + tl.arange(0, BD)
    rows = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    total = tl.zeros((BT, BD), tl.float32)
    for j in tl.static_range(W):
        asked = load_rows(grad_out + n * T * D, rows - j, T, D, d, 0.0)
        total += load_vector(weight + j * D + d0, D - d0, BD)[None, :] * asked
    store_rows(grad_state + n * (W - 1) * D, total, rows, W - 1, D, d)
    store_rows(grad_x + n * T * D, total, rows - (W - 1), T, D, d)


@triton.jit
def weights_kernel(x, state, grad_out, parts, T, D, W: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr):
    """One tile's summands of the gradients of weight and bias. Programs: (tile of tokens, batch, tile of channels)."""
    n, d0 = tl.program_id(1).to(tl.int64), tl.program_id(2) * BD
    d = d0 + tl.arange(0, BD)
    tile = tl.program_id(0).to(tl.int64)
    rows = tile * BT + tl.arange(0, BT)
    grad = load_rows(grad_out + n * T * D, rows, T, D, d, 0.0)
    parts += (n * tl.cdiv(T, BT) + tile) * (W + 1) * D + d0
    for j in tl.static_range(W):
        seen = load_seen(x + n * T * D, state + n * (W - 1) * D, rows + (j - (W - 1)), T, D, d, W - 1)
        store_vector(parts + j * D, tl.sum(grad * seen, 0), D - d0, BD)
    store_vector(parts + W * D, tl.sum(grad, 0), D - d0, BD)
