"""Rotary positions: queries and keys are turned by an angle that grows with their position.

Channel i of the first half of a head is paired with channel i of the second half and turned by position * f_i,
f_i = theta^(-2 i / K). A score then depends on the distance between query and key only. Where only a fraction of the head
is turned, its first channels are taken for a head of their own, and the others read without positions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hybridlab.ops.precision import state_dtype
from hybridlab.shapes import Position, Queries


class Stretch(NamedTuple):
    """How llama-3.1 reaches further than it was trained: slow frequencies are divided by `factor`, fast ones are kept.

    Attributes:
        factor: what the slowest frequencies are divided by.
        low: below so many turns in `trained` tokens a frequency is slow.
        high: above so many turns it is fast; between the two the division fades in.
        trained: tokens of context before stretching.
    """

    factor: float
    low: float
    high: float
    trained: int


class Rotary(NamedTuple):
    """Rotary positions of one kind.

    Attributes:
        theta: the base of the frequencies.
        stretch: of slow frequencies; None is none.
        fraction: of a head's channels, the first ones, that are turned.
    """

    theta: float = 10_000.0
    stretch: Stretch | None = None
    fraction: float = 1.0

    def turned(self, width: int) -> int:
        """How many channels of a head of this width are turned."""
        return int(width * self.fraction)


def frequencies(rotary: Rotary, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Angle a token, (K / 2,), for K channels that are turned."""
    steps = torch.arange(0, width, 2, dtype=dtype, device=device) / width
    plain = rotary.theta**-steps
    return plain if rotary.stretch is None else _stretched(plain, rotary.stretch)


def _stretched(plain: Tensor, stretch: Stretch) -> Tensor:
    turns = stretch.trained * plain / (2 * math.pi)
    kept = ((turns - stretch.low) / (stretch.high - stretch.low)).clamp(0, 1)
    return plain * (kept + (1 - kept) / stretch.factor)


def rotated(x: Queries, position: Position, rotary: Rotary) -> Queries:
    """Turns each head by its token's position, in float32 at least.

    Args:
        x: queries or keys, (B, T, H, K).
        position: of the first of the T tokens, 0-d int64.
        rotary: which angles.
    """
    wide = state_dtype(x.dtype)
    turned = rotary.turned(x.shape[3])
    steps = (position + torch.arange(x.shape[1], device=x.device)).to(wide)
    angles = torch.outer(steps, frequencies(rotary, turned, wide, x.device)).unsqueeze(1)
    first, second = x[..., :turned].to(wide).chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    rotation = torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x.dtype)
    return rotation if turned == x.shape[3] else torch.cat((rotation, x[..., turned:]), -1)
