"""Attention's weights when exp is cut off after some terms: how far off they are, their signs, and what its state costs."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
NUMBER_BYTES = 4  # float32
ROUNDING = 1e-12
NO_SUM = 1e-9  # a sum smaller than this part of what was added up is zero but for rounding
HIGHEST_ORDER = 4
# Below these logits a polynomial of odd order is negative; those of even order are positive everywhere.
ROOTS = {1: -1.0, 3: -1.5960716379833215}


def polynomial(order: int, logits: Numbers) -> Numbers:
    """1 + s + s^2/2! + ... + s^p/p!, the first p + 1 terms of e^s."""
    total = np.ones_like(logits)
    for power in range(order, 0, -1):
        total = 1 + logits / power * total
    return total


def logits_of(q: Numbers, k: Numbers) -> Numbers:
    """q_i . k_j / sqrt(K), (T, T)."""
    dots = q @ k.T
    dots[np.abs(dots) <= ROUNDING * np.outer(np.linalg.norm(q, axis=1), np.linalg.norm(k, axis=1))] = 0.0
    return dots / np.sqrt(q.shape[1])


class Weights(NamedTuple):
    """The same logits as weights of softmax and of the polynomial: row i an output, column j a token, 0 where j > i.

    Attributes:
        logits: s, (T, T).
        kernel: the polynomial's values P(s), before they are divided by their sum, (T, T).
        sums: of each row of them, (T,).
        softmax: e^s / sum e^s, (T, T).
        taylor: P(s) / sum P(s), (T, T); a row whose sum is zero has none: zeros.
        lost: outputs without weights.
    """

    logits: Numbers
    kernel: Numbers
    sums: Numbers
    softmax: Numbers
    taylor: Numbers
    lost: tuple[int, ...]

    @property
    def off(self) -> Numbers:
        """taylor - softmax, with 0 for what is but rounding and where there are no weights, (T, T)."""
        apart = self.taylor - self.softmax
        apart[list(self.lost)] = 0.0
        return np.where(np.abs(apart) <= ROUNDING, 0.0, apart)

    def worst(self) -> tuple[int, int]:
        """Output and token of the weight that is furthest off; of several the first."""
        i, j = np.argwhere(_reaches(np.abs(self.off)))[0]
        return int(i), int(j)

    def lowest(self) -> int:
        """The output whose sum is the lowest; of several the first."""
        return int(np.argwhere(_reaches(-self.sums))[0, 0])

    def negative(self) -> int:
        """For how many pairs of output and token the polynomial is negative."""
        return int((self.kernel < -ROUNDING).sum())


def weights_of(logits: Numbers, order: int) -> Weights:
    """Causal weights of both kernels.

    w_ij = P(s_ij) / sum_{l <= i} P(s_il),   P(s) = sum_{n <= order} s^n / n!

    Chapter 07.
    """
    seen = np.tri(len(logits), dtype=bool)
    kernel = np.where(seen, polynomial(order, logits), 0.0)
    sums = kernel.sum(axis=1)
    lost = np.abs(sums) <= NO_SUM * np.abs(kernel).sum(axis=1)
    taylor = np.where(lost[:, None], 0.0, kernel / np.where(lost, 1.0, sums)[:, None])
    shifted = np.where(seen, logits, -np.inf)
    exponentials = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    return Weights(np.where(seen, logits, 0.0), kernel, sums, softmax, taylor, tuple(np.flatnonzero(lost).tolist()))


class Sizes(NamedTuple):
    """What is carried instead of the past: features times values and the features alone, or every key and value.

    Attributes:
        features: F = 1 + K + K^2 + ... + K^p.
        state: F (V + 1) numbers, however long the text.
        per_token: K + V, what the cache keeps of each token.
        longer: the first length at which the cache holds more numbers than the state.
    """

    features: int
    state: int
    per_token: int
    longer: int


def sizes(order: int, width: int, values: int) -> Sizes:
    """Numbers that one head carries, with keys of `width` numbers and values of `values`.

    Chapter 07.
    """
    features = sum(width**power for power in range(order + 1))
    state, per_token = features * (values + 1), width + values
    return Sizes(features, state, per_token, state // per_token + 1)


def _reaches(numbers: Numbers) -> NDArray[np.bool_]:
    """Which are the largest, but for rounding: errors of two tokens can be each other's negative."""
    most = numbers.max()
    return numbers >= most - 1e-9 * abs(most)
