"""A linear map whose matrix is square blocks on the diagonal: each block of channels is mixed for itself."""

import torch
from torch import nn

from hybridlab.shapes import Stream


class BlockDiagonal(nn.Module):
    """y = x W + b with W = diag(W_1, ..., W_n): 1 / n of the numbers of a full matrix.

    The blocks are stored input first, (n, D / n, D / n), as the authors of Griffin do. Starts normal with variance
    n / D, without a bias.

    Args:
        width: D, of input and output.
        blocks: n, a divisor of width.

    Raises:
        ValueError: if the blocks do not divide the width.

    Source: Griffin, arXiv 2402.19427, section 4.1. Chapter 02.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        if blocks < 1 or width % blocks:
            raise ValueError(f"BlockDiagonal: blocks must be a positive divisor of width = {width}, got {blocks}")
        side = width // blocks
        self.weight = nn.Parameter(torch.empty(blocks, side, side).normal_(std=side**-0.5))
        self.bias = nn.Parameter(torch.zeros(blocks, side))

    def forward(self, x: Stream) -> Stream:
        """(B, T, D) to (B, T, D)."""
        parts = x.unflatten(-1, self.bias.shape)
        return (torch.einsum("b t n i, n i o -> b t n o", parts, self.weight) + self.bias).flatten(-2)
