"""Small matrices for Numba's kernels: heads' states and chunks of tokens, too small for a BLAS and always in the cache.

A matrix product runs along rows, in vector registers; memory that it runs along is aligned.
"""

import numpy as np
from numba import njit

from hybridlab.kernels.tiles_numba import TILE_BYTES, TILE_ROWS, add_tile

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
    """out += a @ b; rows of out and b have their numbers side by side."""
    width = TILE_BYTES // out.itemsize
    rows, columns = out.shape[0] // TILE_ROWS * TILE_ROWS, out.shape[1] // width * width
    for j in range(0, columns, width):
        for m in range(0, rows, TILE_ROWS):
            add_tile(out, a, b, m, j)
    for m in range(out.shape[0]):
        first = columns if m < rows else 0
        if first < out.shape[1]:
            _add_rest(out, a, b, m, first)


@njit(fastmath=REORDER)
def _add_rest(out, a, b, m, first):
    """Row m, from column `first` on."""
    for n in range(b.shape[0]):
        factor = a[m, n]
        for j in range(first, out.shape[1]):
            out[m, j] += factor * b[n, j]
