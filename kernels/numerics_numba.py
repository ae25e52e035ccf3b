"""What Numba's kernels share: exponentials that LLVM can vectorise, and arrays behind tensors.

Numba's own exp is a call into libm, one number at a time, and it keeps the loop around it from becoming vector code. The
polynomial here has no branch: x = n ln 2 + r with |r| <= ln 2 / 2, e^r by a polynomial, 2^n by writing n into the exponent
bits.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload
from torch import Tensor

# fma is allowed, reordering is not: `(x + MAGIC) - MAGIC` below must stay as written.
FAST = {"contract"}

LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts; n times the first is exact for |n| < 2^9.
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
# Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the sum.
MAGIC = np.float32(12582912.0)
ZERO, ONE = np.float32(0), np.float32(1)
MANTISSA_BITS = 23
ONE_BITS = 0x3F800000
# Below this 2^n is no longer a normal number: the result is 0.
SMALLEST = np.float32(-87.3)
# (e^r - 1 - r) / r^2 interpolated at the Chebyshev nodes of |r| <= ln 2 / 2: relative error of e^r 1.0e-8 before rounding.
C0, C1, C2, C3, C4 = (np.float32(c) for c in (0.5, 0.16666576266, 0.04166655615, 0.00836317893, 0.00139261840))


def _two_to_the(_typing: Any, shifted: Any) -> Any:
    """2^n for a float32 that holds the integer n in its low bits (see MAGIC)."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        whole = ir.IntType(32)
        exponent = builder.shl(builder.bitcast(args[0], whole), whole(MANTISSA_BITS))
        return builder.bitcast(builder.add(exponent, whole(ONE_BITS)), ir.FloatType())

    return types.float32(shifted), codegen


two_to_the: Any = intrinsic(_two_to_the)


def exp(x: float) -> float:
    """e^x for x <= 88; 0 below -87.3 in float32 (1e-7 relative error there, libm's in float64); NaN stays NaN.

    To be called from jitted code; this body is what Python sees.
    """
    return math.exp(x)


@overload(exp, jit_options={"fastmath": FAST}, inline="always")
def _exp(x):
    if x is types.float64:
        return lambda x: math.exp(x)
    if x is types.float32:
        return _exp_float32
    return None


def _exp_float32(x):
    above_one, scale = _scaled(x)
    return ZERO if x < SMALLEST else (above_one + ONE) * scale


def expm1(x: float) -> float:
    """e^x - 1 for x <= 88, to the last digits near 0 too (2e-7 relative error in float32, libm's in float64); NaN stays NaN.

    To be called from jitted code; this body is what Python sees.
    """
    return math.expm1(x)


@overload(expm1, jit_options={"fastmath": FAST}, inline="always")
def _expm1(x):
    if x is types.float64:
        return lambda x: math.expm1(x)
    if x is types.float32:
        return _expm1_float32
    return None


def _expm1_float32(x):
    above_one, scale = _scaled(x)
    return -ONE if x < SMALLEST else above_one * scale + (scale - ONE)


@njit(fastmath=FAST)
def _scaled(x):
    """e^x as (e^r - 1, 2^n)."""
    shifted = x * LOG2_E + MAGIC
    n = shifted - MAGIC
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    tail = C0 + r * (C1 + r * (C2 + r * (C3 + r * C4)))
    return tail * r * r + r, two_to_the(shifted)


def arrays(tensors: Sequence[Tensor]) -> tuple[np.ndarray, ...]:
    """The tensors as C-ordered NumPy arrays; no copy of those that are so already."""
    return tuple(x.contiguous().numpy(force=True) for x in tensors)
