"""Small matrices for Numba's kernels: heads' states and chunks of tokens, too small for a BLAS and always in the cache.

A matrix product runs along rows, so that the innermost loop is vector code; memory that it runs along is aligned.
"""

import numpy as np
from numba import njit

# Bytes; vector registers load fastest from addresses divisible by this.
ALIGNMENT = 64
# Sums may be reordered, so that they run in vector lanes; infinities and NaN stay what they are.
REORDER = {"contract", "reassoc"}


@njit
def aligned(rows, like):
    """An uninitialised matrix of `rows` rows as long as the last axis of `like`."""
    size = rows * like.shape[-1]
    memory = np.empty(size + ALIGNMENT // like.itemsize, like.dtype)
    start = -memory.ctypes.data % ALIGNMENT // like.itemsize
    return memory[start : start + size].reshape(rows, like.shape[-1])


@njit
def clear(matrix):
    """All entries become 0."""
    for t in range(matrix.shape[0]):
        for i in range(matrix.shape[1]):
            matrix[t, i] = 0


@njit
def transposed(matrix):
    """A transposed copy."""
    result = np.empty((matrix.shape[1], matrix.shape[0]), matrix.dtype)
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            result[j, i] = matrix[i, j]
    return result


@njit
def fade_rows(matrix, decay):
    """Row i times decay[i]."""
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            matrix[i, j] *= decay[i]


@njit
def fade_columns(matrix, decay):
    """Column i times decay[i]."""
    for j in range(matrix.shape[0]):
        for i in range(matrix.shape[1]):
            matrix[j, i] *= decay[i]


@njit(fastmath=REORDER)
def dot(x, t, y, s):
    """Row t of x times row s of y, summed."""
    total = x.dtype.type(0)
    for i in range(x.shape[1]):
        total += x[t, i] * y[s, i]
    return total


@njit
def add_product(out, a, b):
    """out += a @ b; four rows by four terms at a time, so that a number once loaded is used four times."""
    rows, terms = out.shape[0] // 4 * 4, b.shape[0] // 4 * 4
    for m in range(0, rows, 4):
        for n in range(0, terms, 4):
            _add_four_by_four(out, a, b, m, n)
        for n in range(terms, b.shape[0]):
            for row in range(m, m + 4):
                _add_one_by_one(out, a, b, row, n)
    for m in range(rows, out.shape[0]):
        for n in range(b.shape[0]):
            _add_one_by_one(out, a, b, m, n)


@njit(fastmath=REORDER)
def _add_one_by_one(out, a, b, m, n):
    factor = a[m, n]
    for j in range(out.shape[1]):
        out[m, j] += factor * b[n, j]


@njit(fastmath=REORDER)
def _add_four_by_four(out, a, b, m, n):
    a00, a01, a02, a03 = a[m, n], a[m, n + 1], a[m, n + 2], a[m, n + 3]
    a10, a11, a12, a13 = a[m + 1, n], a[m + 1, n + 1], a[m + 1, n + 2], a[m + 1, n + 3]
    a20, a21, a22, a23 = a[m + 2, n], a[m + 2, n + 1], a[m + 2, n + 2], a[m + 2, n + 3]
    a30, a31, a32, a33 = a[m + 3, n], a[m + 3, n + 1], a[m + 3, n + 2], a[m + 3, n + 3]
    for j in range(out.shape[1]):
        b0, b1, b2, b3 = b[n, j], b[n + 1, j], b[n + 2, j], b[n + 3, j]
        out[m, j] += a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
        out[m + 1, j] += a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
        out[m + 2, j] += a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
        out[m + 3, j] += a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3
