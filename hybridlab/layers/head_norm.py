"""Normalises what every head reads from its state, each head for itself."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridlab.shapes import Stream, Values


class HeadNorm(nn.Module):
    """Group norm with one group a head (RWKV's ln_x): y = (x - mean) / sqrt(variance + eps) * weight + bias.

    RWKV trains with the input divided by 8 and eps 1e-5, which is eps 64e-5 on the input as it is.

    Args:
        heads: H.
        head_width: V.
        weight: initial value of every weight.
        eps: added to the variance.
    """

    def __init__(self, heads: int, head_width: int, weight: float = 1.0, eps: float = 64e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.full((heads * head_width,), weight))
        self.bias = nn.Parameter(torch.zeros(heads * head_width))

    def forward(self, x: Values) -> Stream:
        """(B, T, H, V) to (B, T, H * V)."""
        normalised: Tensor = functional.layer_norm(x, x.shape[-1:], eps=self.eps)
        return normalised.flatten(2) * self.weight + self.bias
