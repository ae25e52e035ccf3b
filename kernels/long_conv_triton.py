"""The long convolution in Triton, sum by sum: a channel's text is read as a matrix, and so is its filter.

Output, gradient of the inputs and gradient of the filter are one thing, a correlation along time (see `long_conv_numba`):

    out_r += sum_q a_q c_{r + q}

With r = i L + u and c cut into rows of L numbers, that is a matrix product over the places w of a row, for each shift k by
whole rows:

    out_{iL + u} += sum_w c_{(i + k) L + w} a_{kL + w - u}

whose second factor is constant along its diagonals: L x L numbers of it are made from 2 L of the filter. So the matrix units
have work even for one sequence. Time comes last in memory here, and what is not there is zero.

One token, a decode step, is a sum down the rows of the state instead, as they lie.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridlab.kernels.scan_triton import load_rows
from hybridlab.kernels.tiles_triton import precision, store_vector

# Rows of a decode step's state at a time, and channels.
STEP_ROWS, STEP_CHANNELS = 32, 64


def forward(x: Tensor, taps: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, D) in float32 and the past inputs."""
    length, past = x.shape[1], state.shape[1]
    reach = min(taps.shape[1], past + length)
    gone = max(0, past + length - taps.shape[1])
    final = torch.cat((state[:, gone:], x[:, max(0, gone - past) :]), 1)
    if length == 1:
        return step(x, taps[:, :reach], state), final
    seen = torch.cat((state, x), 1).mT.contiguous()
    turned = taps[:, :reach].flip(1).unsqueeze(0)
    return correlated(turned, seen, reach - 1 - past, length, precision(x)).mT.contiguous(), final


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, taps, state; takes those three, output, final state, and the gradients of both."""
    x, taps, state, _, _, grad_out, grad_final = tensors
    length, past, width = x.shape[1], state.shape[1], taps.shape[1]
    reach = min(width, past + length)
    seen, asked = torch.cat((state, x), 1).mT.contiguous(), grad_out.mT.contiguous()
    grad_seen = correlated(taps[:, :reach].unsqueeze(0), asked, past, past + length, precision(x)).mT.contiguous()
    grad_seen[:, max(0, past + length - width) :] += grad_final
    grad_taps = torch.zeros_like(taps, memory_format=torch.contiguous_format)
    grad_taps[:, :reach] = correlated(asked, seen, reach - 1 - past, reach, precision(x)).sum(0).flip(1)
    grad_state, grad_x = (part.to(x.dtype, copy=True) for part in grad_seen.split([past, length], 1))
    return grad_x.contiguous(), grad_taps, grad_state.contiguous()


def correlated(a: Tensor, c: Tensor, before: int, wanted: int, how: str) -> Tensor:
    """out_r = sum_q a_q c_{r + q - before} for r < wanted: (B, D, wanted) of a (B or 1, D, terms) and c (B, D, rows).

    A negative `before` leaves out the first rows of c; `how` is the precision of products.
    """
    a = a.contiguous()
    batch, width, rows = c.shape
    out = c.new_empty((batch, width, wanted), dtype=torch.float32)
    L = 16 if wanted <= 512 else 32
    grid = (triton.cdiv(wanted, L * L), batch * width)
    correlate_kernel[grid](a, c, out, a.shape[2], rows, before, wanted, len(a) * width, L, how, num_warps=4)
    return out


def step(x: Tensor, taps: Tensor, state: Tensor) -> Tensor:
    """The output of one token (B, 1, D)."""
    batch, past, width = state.shape
    x, state, rows = x.contiguous(), state.contiguous(), taps.mT.contiguous()
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    step_kernel[(batch, triton.cdiv(width, STEP_CHANNELS))](
        x, rows, state, out, past, width, len(rows), STEP_ROWS, STEP_CHANNELS, num_warps=4
    )
    return out


@triton.jit
def load_line(x, i, size):
    """Numbers i of a line as float32; zero before it and after it."""
    return tl.load(x + i, mask=(i >= 0) & (i < size), other=0.0).to(tl.float32)


@triton.jit
def correlate_kernel(a, c, out, terms, rows, before, wanted, lines, L: tl.constexpr, PRECISION: tl.constexpr):
    """L * L of the sums. Programs: (tile of sums, batch and channel); a has so many `lines`, of one batch or of all."""
    line = tl.program_id(1).to(tl.int64)
    a += line % lines * terms
    c += line * rows
    i, j = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    start = tl.program_id(0) * L * L
    # Other shifts meet no row of c at all: they end before its first or start after its last.
    first = tl.maximum((before - start) // L - L + 1, 0)
    last = tl.minimum(tl.cdiv(terms + L - 1, L), tl.cdiv(tl.maximum(before + rows - start, 0), L))
    total = tl.zeros((L, L), tl.float32)
    for k in range(first, last):
        seen = load_line(c, start + (k + i) * L + j - before, rows)
        total += tl.dot(seen, load_line(a, k * L + i - j, terms), input_precision=PRECISION)
    where = start + i * L + j
    tl.store(out + line * wanted + where, total, mask=where < wanted)


@triton.jit
def step_kernel(x, taps, state, out, past, width, reach, ROWS: tl.constexpr, BD: tl.constexpr):
    """The sum of one token. Programs: (batch, tile of channels)."""
    n, d0 = tl.program_id(0).to(tl.int64), tl.program_id(1) * BD
    d = d0 + tl.arange(0, BD)
    state += n * past * width
    total = tl.zeros((ROWS, BD), tl.float32)
    # The present input is the row after the state's last.
    total += load_rows(taps, tl.arange(0, ROWS), 1, width, d, 0.0) * load_rows(
        x + n * width, tl.arange(0, ROWS), 1, width, d, 0.0
    )
    for tile in range(tl.cdiv(reach, ROWS)):
        ago = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        total += load_rows(taps, ago + 1, reach, width, d, 0.0) * load_rows(state, past - 1 - ago, past, width, d, 0.0)
    store_vector(out + n * width + d0, tl.sum(total, 0), width - d0, BD)
