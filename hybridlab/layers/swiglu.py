"""The gated MLP of today's decoders."""

from torch.nn.functional import silu

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage
from hybridlab.shapes import Stream
from hybridlab.state import Empty


class SwiGLU(Layer):
    """y = W_down (silu(W_gate x) * W_up x). It carries nothing.

    Args:
        width: D.
        hidden: F, width of the product.
        depth: where the layer stands, for its initial values.

    Source: arXiv 2002.05202, FFN_SwiGLU.
    """

    def __init__(self, width: int, hidden: int, depth: Depth = ONLY_LAYER) -> None:
        super().__init__()
        self.gate = initial.normal(width, hidden)
        self.up = initial.normal(width, hidden)
        self.down = initial.normal(hidden, width, initial.residual_std(depth))

    def forward(self, x: Stream, state: Empty | None = None, shared: Shared | None = None) -> tuple[Stream, Empty]:
        """(B, T, D) to (B, T, D)."""
        return self.down(silu(self.gate(x)) * self.up(x)), Empty()

    def state_after(self, batch: int, length: int, storage: Storage) -> Empty:
        """Nothing."""
        return Empty()
