"""The exponential of the Numba kernels: digits, ends of the range, and that loops around it become vector code."""

import math
import re

import numpy as np
import pytest
from numba import njit

from hybridlab.kernels.numerics_numba import FAST, exp


@njit(fastmath=FAST, error_model="numpy")
def exponentials(x, y):
    for i in range(x.size):
        y[i] = exp(x[i])


def of(*numbers: float, dtype: type = np.float32) -> np.ndarray:
    x = np.array(numbers, dtype)
    y = np.empty_like(x)
    exponentials(x, y)
    return y


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 1.2e-7), (np.float64, 4e-16)], ids=["float32", "float64"])
def test_relative_error(dtype: type, limit: float) -> None:
    x = np.linspace(-87.2, 88, 100_003).astype(dtype)
    truth = np.exp(x.astype(np.longdouble))
    assert np.abs(of(*x, dtype=dtype) / truth - 1).max() < limit


def test_one_at_zero_and_nothing_far_below() -> None:
    assert of(0.0, -0.0, -87.5, -1e38, -math.inf).tolist() == [1, 1, 0, 0, 0]


def test_nan_stays_nan() -> None:
    assert np.isnan(of(math.nan, math.nan)).all()


def test_python_sees_the_same_function() -> None:
    assert exp(-1.5) == math.exp(-1.5)


def test_the_loop_is_vector_code() -> None:
    of(0.0)
    (code,) = (text for types, text in exponentials.inspect_asm().items() if "float32" in str(types))
    packed = re.search(r"mulps|fmadd\d+ps|\.4s", code)  # x86's packed single precision, Arm's
    assert packed, "no packed multiplication in the compiled loop"
