"""The scan inside a tile of tokens that Triton's channel-wise recurrences share, and their rows to and from memory.

    h_t = a_t h_{t-1} + b_t

A program that took one token after another would wait for memory at every one. It takes a tile of tokens x channels instead,
joins each token's (a, b) with those of all tokens before it in the tile, a tree of associative steps, and then adds what the
state at the tile's start has become. What lies beyond the last token is (1, 0): a step that does nothing.
"""

import triton
import triton.language as tl

# Tokens and channels a tile: all of it in registers, and enough of it on its way from memory (`hybridlab.measure.aot`).
LARGEST = (32, 64)


def blocks(T: int, D: int, largest: tuple[int, int] = LARGEST) -> tuple[int, int]:
    """Tokens and channels a tile: powers of two."""
    return min(largest[0], triton.next_power_of_2(T)), min(largest[1], triton.next_power_of_2(D))


@triton.jit
def load_rows(x, rows, T, D, d, fill):
    """Tokens `rows` of channels d as float32, (tokens, channels); `fill` before the first token and after the last."""
    inside = ((rows >= 0) & (rows < T))[:, None] & (d < D)[None, :]
    return tl.load(x + rows[:, None] * D + d[None, :], mask=inside, other=fill).to(tl.float32)


@triton.jit
def store_rows(x, tile, rows, T, D, d):
    """The counterpart of `load_rows`: rounds to x's dtype."""
    inside = ((rows >= 0) & (rows < T))[:, None] & (d < D)[None, :]
    tl.store(x + rows[:, None] * D + d[None, :], tile.to(x.dtype.element_ty), mask=inside)


@triton.jit
def load_before(x, first, rows, T, D, d):
    """The row before each of `rows`; before token 0 that is `first`, a row of its own."""
    return tl.where((rows == 0)[:, None], first[None, :], load_rows(x, rows - 1, T, D, d, 0.0))


@triton.jit
def joined(a_old, b_old, a_new, b_new):
    """Two steps as one."""
    return a_new * a_old, a_new * b_old + b_new


@triton.jit
def scanned(a, b, carried, REVERSE: tl.constexpr):
    """h at every token of a tile after `carried` (channels); backwards in time if REVERSE."""
    kept, added = tl.associative_scan((a, b), 0, joined, reverse=REVERSE)
    return kept * carried[None, :] + added


@triton.jit
def row(tile, i, BT: tl.constexpr):
    """Row i of a tile."""
    return tl.sum(tl.where((tl.arange(0, BT) == i)[:, None], tile, 0.0), 0)
