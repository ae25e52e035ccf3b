"""RMSNorm whose weight is kept as its distance from 1, as in all models of the Gemma family."""

import torch
from torch import nn
from torch.nn.functional import rms_norm

from hybridlab.shapes import Stream


class OffsetRMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * (1 + weight): weight decay then pulls the scale to 1, not to 0.

    Args:
        width: D.
        eps: added to the mean square.

    Source: the code of Griffin, arXiv 2402.19427. Chapter 11.
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Stream) -> Stream:
        """(B, T, D) to (B, T, D)."""
        return rms_norm(x, self.weight.shape, 1 + self.weight, self.eps)
