"""What chunked Triton kernels share: which chunk is whose, tiles to and from memory (float32 inside, any dtype outside)."""

import torch
import triton
import triton.language as tl
from torch import Tensor


def precision(like: Tensor) -> str:
    """How matrix units multiply float32: exactly on AMD; as three TF32 products for float32 inputs, one for bfloat16."""
    if torch.version.hip:
        return "ieee"
    return "tf32x3" if like.dtype == torch.float32 else "tf32"


@triton.jit
def whereabouts(T, H: tl.constexpr, L: tl.constexpr):
    """Chunk, batch, head, and batch and head as one number, of this program; 64 bits, for offsets beyond 2^31."""
    chunks = tl.cdiv(T, L)
    program = tl.program_id(0).to(tl.int64)
    head = program // chunks
    return program % chunks, head // H, head % H, head


@triton.jit
def load_tile(x, stride, rows, cols, ROWS: tl.constexpr, COLS: tl.constexpr):
    """ROWS x COLS numbers as float32, rows `stride` apart; zero from row `rows` and column `cols` on."""
    i, j = tl.arange(0, ROWS)[:, None], tl.arange(0, COLS)[None, :]
    return tl.load(x + i * stride + j, mask=(i < rows) & (j < cols), other=0.0).to(tl.float32)


@triton.jit
def store_tile(x, tile, stride, rows, cols, ROWS: tl.constexpr, COLS: tl.constexpr):
    """The counterpart of `load_tile`: rounds to x's dtype, leaves what lies outside alone."""
    i, j = tl.arange(0, ROWS)[:, None], tl.arange(0, COLS)[None, :]
    tl.store(x + i * stride + j, tile.to(x.dtype.element_ty), mask=(i < rows) & (j < cols))


@triton.jit
def load_vector(x, size, SIZE: tl.constexpr):
    """SIZE neighbouring numbers as float32, zero from `size` on."""
    i = tl.arange(0, SIZE)
    return tl.load(x + i, mask=i < size, other=0.0).to(tl.float32)


@triton.jit
def store_vector(x, vector, size, SIZE: tl.constexpr):
    """The counterpart of `load_vector`."""
    i = tl.arange(0, SIZE)
    tl.store(x + i, vector.to(x.dtype.element_ty), mask=i < size)
