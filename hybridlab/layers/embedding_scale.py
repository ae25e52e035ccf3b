"""What some models do with a token's embedding before the first block."""

from torch import nn

from hybridlab.shapes import Stream


class EmbeddingScale(nn.Module):
    """y = factor x: a tied embedding is small, as a head should be, and this makes it large where it is read.

    Args:
        factor: usually the square root of the width.

    Source: the Transformer, arXiv 1706.03762, section 3.4; kept by the code of RetNet and of the Gemma family. Chapter 05.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Stream) -> Stream:
        """(B, T, D) to (B, T, D)."""
        return x * self.factor
