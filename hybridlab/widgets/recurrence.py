"""What a linear recurrence does with one token: it is written, kept for some steps, and read."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Numbers = NDArray[np.float64]


class Recurrence(NamedTuple):
    """The factors of a diagonal linear recurrence over T tokens, with K memories for one value channel.

    h_t = keep_t * h_{t-1} + write_t v_t,   output_t = read_t . h_t

    With `now` the state is read before the token is written, as RWKV does: output_t = read_t . h_{t-1} + now_t v_t.
    With `skip` an output takes skip_t v_t besides, as Mamba does through its D.

    Attributes:
        write: what token t is multiplied with when it enters the memories, (T, K).
        keep: what step t leaves of what was there, (T, K).
        read: what output t takes of each memory, (T, K).
        now: the weight of the present token at its own output, (T,), where it does not pass through the state.
        skip: what the present token adds to its own output beside the state, (T,).

    Chapters 02 to 05.
    """

    write: Numbers
    keep: Numbers
    read: Numbers
    now: Numbers | None = None
    skip: Numbers | None = None

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.write)

    @property
    def delay(self) -> int:
        """Steps between a token's writing and the first output that reads it."""
        return 0 if self.now is None else 1

    def left(self, i: int, j: int) -> Numbers:
        """What output i finds of token j in the K memories: write_j times every keep between, (K,)."""
        return self.write[j] * self.keep[j + 1 : i + 1 - self.delay].prod(axis=0)

    def weight(self, i: int, j: int) -> float:
        """How much of the value of token j reaches output i."""
        if j > i:
            return 0.0
        beside = 0.0 if self.skip is None or j < i else float(self.skip[i])
        if j == i and self.now is not None:
            return float(self.now[i]) + beside
        return float(self.read[i] @ self.left(i, j)) + beside

    def matrix(self) -> Numbers:
        """All weights, (T, T): row i an output, column j a token."""
        return np.array([[self.weight(i, j) for j in range(self.tokens)] for i in range(self.tokens)])


def recurrence(
    write: ArrayLike, keep: ArrayLike, read: ArrayLike, now: ArrayLike | None = None, skip: ArrayLike | None = None
) -> Recurrence:
    """A `Recurrence` from anything that broadcasts to (T, K); what is (T,) is one memory.

    A token-dependent decay that all memories share, as in SSD, is (T,); a decay of each memory, as in RWKV-6 or a channel
    of a selective scan, is (T, K).

    Raises:
        ValueError: shapes that do not fit together.
    """
    given = [np.asarray(part, dtype=np.float64) for part in (write, keep, read)]
    shapes = ", ".join(f"{name} {part.shape}" for name, part in zip(("write", "keep", "read"), given, strict=True))
    expected = f"recurrence: expected write, keep and read as (T, K) or (T,), got {shapes}"
    try:
        parts = np.broadcast_arrays(*(part[:, None] if part.ndim == 1 else part for part in given))
    except ValueError:
        raise ValueError(expected) from None
    if parts[0].ndim != 2:
        raise ValueError(expected)
    own = [None if part is None else np.asarray(part, dtype=np.float64) for part in (now, skip)]
    for name, part in zip(("now", "skip"), own, strict=True):
        if part is not None and part.shape != parts[0].shape[:1]:
            raise ValueError(f"recurrence: {name} must be (T,) = ({len(parts[0])},), got {part.shape}")
    return Recurrence(parts[0], parts[1], parts[2], *own)


def weights_of(mix: Callable[[Tensor], Tensor], tokens: int) -> Numbers:
    """All weights of a mechanism whose outputs are sums of values, o_i = sum over j of w_ij v_j: also of one that is no
    diagonal recurrence, such as a delta rule, normalised attention or a long convolution.

    Every token gets a value of its own, a 1 among zeros, and each output then says how much of it arrived:

        weights_of(lambda v: delta_rule(q, k, v, beta)[0], 6)
        weights_of(lambda v: long_conv(v[:, :, 0], filter.expand(6, -1))[0], 6)

    Args:
        mix: from values (1, T, 1, T), float64, to outputs of as many numbers.
        tokens: T.

    Returns:
        (T, T): row i an output, column j a token.

    Raises:
        ValueError: outputs of another size, or that are no such sums.

    Chapters 01 and 06 to 08.
    """
    values = torch.eye(tokens, dtype=torch.float64)[None, :, None]
    with torch.no_grad():
        given, larger = (mix(factor * values).double() for factor in (1.0, 3.0))
    if given.numel() != tokens**2:
        raise ValueError(f"weights_of: mix must give {tokens} numbers for each of {tokens} tokens, got {tuple(given.shape)}")
    if not torch.allclose(larger, 3 * given, rtol=1e-6, atol=1e-9):
        raise ValueError("weights_of: mix must be linear in the values; with values three times as large it gave others")
    return given.reshape(tokens, tokens).numpy()
