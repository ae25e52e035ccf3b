"""A map through a narrow waist: a few numbers a token decide how much each channel changes."""

import torch
from torch import Tensor, nn

from hybridlab.shapes import Channels, Stream


class LowRank(nn.Module):
    """y = start + activation(x down) up, where down is (D, rank) and up (rank, channels).

    `down` starts at zero, so that y is the same for every token at first.

    Args:
        width: D.
        rank: width of the waist.
        channels: width of y.
        activation: applied in the waist; None is none.
        start: what y starts as, (channels,), a parameter; None is nothing.

    Source: RWKV-7, arXiv 2503.14456, the low-rank networks (loramlp) of its time mixing. Chapter 08.
    """

    def __init__(
        self, width: int, rank: int, channels: int, activation: nn.Module | None = None, start: Tensor | None = None
    ) -> None:
        super().__init__()
        self.activation = nn.Identity() if activation is None else activation
        self.down = nn.Parameter(torch.zeros(width, rank))
        self.up = nn.Parameter(nn.init.orthogonal_(torch.empty(rank, channels), 0.1 * max(1.0, (rank / channels) ** 0.5)))
        self.start = None if start is None else nn.Parameter(start)

    def forward(self, x: Stream) -> Channels:
        """(B, T, D) to (B, T, channels)."""
        change = self.activation(x @ self.down) @ self.up
        return change if self.start is None else self.start + change
