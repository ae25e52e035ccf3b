"""The exponentials of the Numba kernels: digits, ends of the range, and that loops around them become vector code."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit

from hybridlab.kernels.numerics_numba import FAST, exp, expm1


@njit(fastmath=FAST, error_model="numpy")
def exponentials(x, y):
    for i in range(x.size):
        y[i] = exp(x[i])


@njit(fastmath=FAST, error_model="numpy")
def minus_one(x, y):
    for i in range(x.size):
        y[i] = expm1(x[i])


def of(*numbers: float, dtype: type = np.float32, of_all: Callable = exponentials) -> np.ndarray:
    x = np.array(numbers, dtype)
    y = np.empty_like(x)
    of_all(x, y)
    return y


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 1.2e-7), (np.float64, 4e-16)], ids=["float32", "float64"])
def test_relative_error(dtype: type, limit: float) -> None:
    x = np.linspace(-87.2, 88, 100_003).astype(dtype)
    truth = np.exp(x.astype(np.longdouble))
    assert np.abs(of(*x, dtype=dtype) / truth - 1).max() < limit


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 2e-7), (np.float64, 4e-16)], ids=["float32", "float64"])
def test_relative_error_of_expm1_where_the_one_cancels(dtype: type, limit: float) -> None:
    """Also around 0 and around the halves of ln 2, where the exponent that is split off changes."""
    near_zero = np.geomspace(1e-30, 1, 20_001)
    x = np.concatenate((np.linspace(-87.2, 88, 100_003), near_zero, -near_zero)).astype(dtype)
    truth = np.expm1(x.astype(np.longdouble))
    assert np.abs(of(*x, dtype=dtype, of_all=minus_one) / truth - 1).max() < limit
    assert of(0.0, -87.5, -1e38, -math.inf, of_all=minus_one).tolist() == [0, -1, -1, -1]
    assert np.isnan(of(math.nan, of_all=minus_one)).all()
    assert expm1(-1.5) == math.expm1(-1.5)


def test_one_at_zero_and_nothing_far_below() -> None:
    assert of(0.0, -0.0, -87.5, -1e38, -math.inf).tolist() == [1, 1, 0, 0, 0]


def test_nan_stays_nan() -> None:
    assert np.isnan(of(math.nan, math.nan)).all()


def test_python_sees_the_same_function() -> None:
    assert exp(-1.5) == math.exp(-1.5)


@pytest.mark.parametrize("loop", [exponentials, minus_one], ids=["exp", "expm1"])
def test_the_loop_is_vector_code(loop: Any) -> None:
    of(0.0, of_all=loop)
    (code,) = (text for types, text in loop.inspect_asm().items() if "float32" in str(types))
    packed = re.search(r"mulps|fmadd\d+ps|\.4s", code)  # x86's packed single precision, Arm's
    assert packed, "no packed multiplication in the compiled loop"
