"""StripedHyena's RMS norm: its eps is added to the root, not under it."""

import torch
from torch import nn

from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.shapes import Stream


class RootRMSNorm(nn.Module):
    """y = weight * x / (sqrt(mean(x^2)) + eps). For rows near zero that is far from eps under the root.

    Args:
        width: D.
        eps: added to the root of the mean square.

    Source: the authors' code of StripedHyena, togethercomputer/stripedhyena. Chapter 06.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Stream) -> Stream:
        """(B, T, D) to (B, T, D); the mean square is taken in float32 at least."""
        return self.weight * root_normed(x, self.eps)


def root_normed(x: Stream, eps: float) -> Stream:
    """x / (sqrt(mean(x^2)) + eps) over the last axis, without weights."""
    wide = x.to(least_state_dtype(x.dtype))
    root = torch.linalg.vector_norm(wide, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
    return (wide / (root + eps)).to(x.dtype)
