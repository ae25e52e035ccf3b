"""One head's sums, cut into chunks: what each chunk computes, what is carried between chunks, and what that costs."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
NUMBER_BYTES = 4  # float32
ROUNDING = 1e-12


class Sums(NamedTuple):
    """What SSD, retention and linear attention add up, for one head over T tokens.

    y_i = sum_{j <= i} M_ij x_j,   M_ij = (C_i . B_j) e^{l_{j+1} + ... + l_i} dt_j

    Attributes:
        x: values, (T, P).
        dt: weight of each token when it is written, (T,).
        log_decay: l, natural logarithm of what each step leaves, at most 0, (T,).
        B: what writes a token into the state, (T, N).
        C: what reads the state, (T, N).

    Chapter 05.
    """

    x: Numbers
    dt: Numbers
    log_decay: Numbers
    B: Numbers
    C: Numbers

    def dots(self) -> Numbers:
        """C_i . B_j, (T, T)."""
        dots = self.C @ self.B.T
        lengths = np.outer(np.linalg.norm(self.C, axis=1), np.linalg.norm(self.B, axis=1))
        dots[np.abs(dots) <= ROUNDING * lengths] = 0.0  # at right angles, but for rounding
        return dots

    def matrix(self) -> Numbers:
        """M, (T, T): row i an output, column j a token."""
        return self.dots() * mask(self.log_decay) * self.dt

    def recurrent(self) -> Numbers:
        """The outputs, token by token: S_t = e^{l_t} S_{t-1} + B_t (dt_t x_t)^T, y_t = C_t S_t, (T, P)."""
        state, outputs = np.zeros((self.B.shape[1], self.x.shape[1])), []
        for x, dt, log_decay, B, C in zip(*self, strict=True):
            state = math.exp(log_decay) * state + np.outer(B, dt * x)
            outputs.append(C @ state)
        return np.array(outputs)


class Chunked(NamedTuple):
    """What a computation in chunks finds.

    Attributes:
        inside: what outputs take from their own chunk, by masked attention, (T, P).
        through: what they take from all chunks before it, through the state that was carried, (T, P).
        states: what is carried from each chunk into the next, (chunks - 1, N, P).
    """

    inside: Numbers
    through: Numbers
    states: Numbers


def mask(log_decay: Numbers) -> Numbers:
    """The decay between any two tokens, (T, T): e^{l_{j+1} + ... + l_i}, and 0 where j > i."""
    since = np.cumsum(log_decay)
    earlier = np.tri(len(since), dtype=bool)
    return np.exp(np.where(earlier, since[:, None] - since, -np.inf))


def chunked(sums: Sums, chunk: int) -> Chunked:
    """The same sums, `chunk` tokens at a time."""
    u = sums.dt[:, None] * sums.x
    tokens = len(u)
    inside, through, states = [], [], [np.zeros((sums.B.shape[1], u.shape[1]))]
    for start in range(0, tokens, chunk):
        part = slice(start, start + chunk)
        log_decay, B, C = sums.log_decay[part], sums.B[part], sums.C[part]
        since = np.cumsum(log_decay)
        inside.append(((C @ B.T) * mask(log_decay)) @ u[part])
        through.append((np.exp(since)[:, None] * C) @ states[-1] if start else np.zeros(u[part].shape))
        if start + chunk < tokens:
            left = np.exp(since[-1] - since)[:, None]
            written = (left * B).T @ u[part]
            states.append(np.exp(since[-1]) * states[-1] + written if start else written)
    return Chunked(np.concatenate(inside), np.concatenate(through), np.array(states[1:]).reshape(-1, *states[0].shape))


class Work(NamedTuple):
    """What one head costs in chunks. dt x is taken beforehand: T P multiplications, whatever the chunks.

    Attributes:
        diagonal: multiplications of the blocks on the diagonal: q x q scores, a mask, and their sum of values; the half that
            is masked is computed too, as matrix units do.
        below: of the outputs that read a carried state.
        state: of the states themselves.
        passes: states that are handed on, one after the other.
        block_numbers: entries of all blocks on the diagonal.
        state_numbers: entries of all carried states.
    """

    diagonal: int
    below: int
    state: int
    passes: int
    block_numbers: int
    state_numbers: int

    @property
    def multiplications(self) -> int:
        """All of them."""
        return self.diagonal + self.below + self.state

    @property
    def nbytes(self) -> int:
        """What lies in memory between the parts when all chunks are computed at once, in float32: blocks and states."""
        return NUMBER_BYTES * (self.block_numbers + self.state_numbers)


def work(tokens: int, states: int, width: int, chunk: int) -> Work:
    """What the outputs of one head cost, from an empty state: n = ceil(T / Q) chunks of Q, the last of R tokens.

    diagonal = ((n - 1) Q^2 + R^2) (N + 1 + P)
    below    = (T - Q) N (1 + P)
    state    = (T - R) N (1 + P) + (n - 2) N P

    Args:
        tokens: T.
        states: N, state numbers for each value channel.
        width: P, value channels.
        chunk: Q, at most T.

    Raises:
        ValueError: a size below 1, a chunk longer than the tokens.

    Chapter 05.
    """
    for name, value in (("tokens", tokens), ("states", states), ("width", width), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"work: {name} must be at least 1, got {value}")
    if chunk > tokens:
        raise ValueError(f"work: chunk must be at most tokens = {tokens}, got {chunk}")
    passes = math.ceil(tokens / chunk) - 1
    last = tokens - passes * chunk
    blocks = passes * chunk**2 + last**2
    return Work(
        diagonal=blocks * (states + 1 + width),
        below=(tokens - chunk) * states * (1 + width),
        state=(tokens - last) * states * (1 + width) + max(0, passes - 1) * states * width,
        passes=passes,
        block_numbers=blocks,
        state_numbers=passes * states * width,
    )
