"""Decays between the tokens of a chunk, for Triton kernels, as products of factors that are at most 1.

Exactly one aligned block of 2, 4, 8, ... tokens has i in its left half and t in its right half. With its midpoint p between
them, decay(i -> t) = decay(i -> p) * decay(p -> t): one factor belongs to i and one to t, so a level of blocks is a matrix
product, and neither factor can overflow.
"""

import triton
import triton.language as tl


@triton.constexpr_function
def levels(L):
    """Levels of halving from L tokens to one: log2(L)."""
    return L.bit_length() - 1


@triton.jit
def between(point, L: tl.constexpr):
    """(L, L) matrix of 0 and 1: row t marks the tokens whose decay lies between token t and `point`, itself excluded.

    A point is a gap: p is just before token p. Right of it, t reads what has faded by tokens p..t-1; left of it, what t
    wrote fades by tokens t+1..p-1. The points 0 and L are the chunk's start and end.
    """
    t, s = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    return (((s >= point) & (s < t)) | ((s > t) & (s < point))).to(tl.float32)


@triton.jit
def midpoint(level, L: tl.constexpr):
    """For each token the midpoint of its block of 2^(level + 1) tokens."""
    return ((tl.arange(0, L)[:, None] >> (level + 1)) << (level + 1)) + (1 << level)


@triton.jit
def parted(level, L: tl.constexpr):
    """Which pairs t > i have their block's midpoint between them at this level: the highest bit they differ in."""
    t, i = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    return (((t ^ i) >> level) == 1) & (t > i)


@triton.constexpr_function
def single(PRECISION):
    """One pass through the matrix units: TF32 on NVIDIA, float32 itself on AMD."""
    return "tf32" if PRECISION == "tf32x3" else PRECISION


@triton.jit
def marked_sums(marks, x, PRECISION: tl.constexpr):
    """Product of a 0/1 matrix with x to float32's digits: x goes in as its leading bits, which TF32 holds, and the rest."""
    leading = (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    rest = tl.dot(marks, x - leading, input_precision=single(PRECISION))
    return tl.dot(marks, leading, rest, input_precision=single(PRECISION))


@triton.jit
def faded(marks, log_decay, PRECISION: tl.constexpr):
    """e^{sum of the marked log decays}, at most 1."""
    return tl.exp(marked_sums(marks, log_decay, PRECISION))


@triton.constexpr_function
def exact(PRECISION):
    """As many digits as float32 has, whatever the inputs have: errors of an inverse grow."""
    return "tf32x3" if PRECISION == "tf32" else PRECISION


@triton.jit
def inverse(lower, L: tl.constexpr, PRECISION: tl.constexpr):
    """(I - lower)^{-1}, where of `lower` only what is strictly below the diagonal counts.

    With the inverses X, Y of two neighbouring diagonal blocks, and C the block of `lower` below X and left of Y, the inverse
    of both together has Y C X there.
    """
    t, i = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    result = (t == i).to(tl.float32)
    for level in tl.range(levels(L), disable_licm=True):
        below = tl.where(parted(level, L), lower, 0.0)
        right = tl.dot(below, result, input_precision=exact(PRECISION))
        result += tl.dot(result, right, input_precision=exact(PRECISION))
    return result
