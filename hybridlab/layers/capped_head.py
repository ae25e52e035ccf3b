"""A head whose logits are softly limited."""

from torch import Tensor, nn


class CappedHead(nn.Linear):
    """cap * tanh(W x / cap): small logits pass as they are, none leaves -cap ... cap.

    Args:
        width: D.
        vocabulary: number of token ids.
        cap: the limit.

    Source: the code of Griffin, arXiv 2402.19427, and RecurrentGemma, 2404.07839. Chapter 11.
    """

    def __init__(self, width: int, vocabulary: int, cap: float) -> None:
        super().__init__(width, vocabulary, bias=False)
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., vocabulary)."""
        return self.cap * (super().forward(x) / self.cap).tanh()
