"""Normalises what a state-space mixer read from its state, after a gate has weighed it."""

import torch
from torch import nn
from torch.nn.functional import rms_norm, silu

from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.shapes import Inner


class GatedRMSNorm(nn.Module):
    """RMSNorm(y * silu(z)) * weight: the gate comes first, and channels are normalised in groups, each for itself.

    With one group the mean square is taken over all channels. The mixers of Mamba-2 take as many groups as share B and C:
    a norm over all channels gives other numbers as soon as there are two. Computed in float32 at least.

    Args:
        width: E, channels.
        groups: neighbouring channels that are normalised together form so many groups; a divisor of width.
        eps: added to the mean squares.

    Raises:
        ValueError: if the groups do not divide the width.

    Source: Mamba-2, arXiv 2405.21060, section 7, and its code. Chapter 05.
    """

    def __init__(self, width: int, groups: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        if groups < 1 or width % groups:
            raise ValueError(f"GatedRMSNorm: groups must be a positive divisor of width = {width}, got {groups}")
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, y: Inner, z: Inner) -> Inner:
        """What was read and its gate, both (B, T, E), to (B, T, E) in z's dtype."""
        wide = least_state_dtype(z.dtype)
        gated = (y.to(wide) * silu(z.to(wide))).unflatten(-1, (self.groups, -1))
        return rms_norm(gated, gated.shape[-1:], eps=self.eps).flatten(-2).to(z.dtype) * self.weight
