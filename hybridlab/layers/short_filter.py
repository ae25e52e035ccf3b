"""The weights of a short convolution, for the mixers that have one in front of their recurrence."""

import torch
from torch import Tensor, nn

from hybridlab.ops.short_conv import short_conv
from hybridlab.shapes import Stream


class ShortFilter(nn.Module):
    """A causal filter of a few taps for each channel, without an activation.

    Starts uniform within +-1/sqrt(W), as PyTorch's convolutions do.

    Args:
        channels: filtered independently of each other.
        filter_width: W, taps; the last one multiplies the present token.
        bias: whether a constant is added.

    Raises:
        ValueError: if there is no tap.

    Source: the convolution of Mamba's mixer, arXiv 2312.00752, figure 3. Chapter 04.
    """

    def __init__(self, channels: int, filter_width: int, bias: bool = True) -> None:
        super().__init__()
        if filter_width < 1:
            raise ValueError(f"ShortFilter: filter_width must be at least 1, got {filter_width}")
        bound = filter_width**-0.5
        self.weight = nn.Parameter(torch.empty(channels, filter_width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Stream, state: Tensor, backend: str) -> tuple[Stream, Tensor]:
        """(B, T, channels) to the same shape, and the last W - 1 inputs.

        Args:
            x: inputs.
            state: the W - 1 inputs before x, (B, W - 1, channels).
            backend: what the mixer was told to run on.
        """
        return short_conv(x, self.weight, self.bias, state, backend=backend)
