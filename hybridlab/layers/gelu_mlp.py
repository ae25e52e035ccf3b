"""The MLP of GPT-2, which H3 and Hyena kept."""

from torch.nn.functional import gelu

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage
from hybridlab.shapes import Stream
from hybridlab.state import Empty


class GeluMLP(Layer):
    """y = W_down gelu(W_up x), both maps with a bias, gelu by its tanh formula. It carries nothing.

    Args:
        width: D.
        hidden: F, width of the activations.
        depth: where the layer stands, for its initial values.

    Source: GPT-2 and, for the activation, arXiv 1606.08415. Chapter 06.
    """

    def __init__(self, width: int, hidden: int, depth: Depth = ONLY_LAYER) -> None:
        super().__init__()
        self.up = initial.normal(width, hidden, bias=True)
        self.down = initial.normal(hidden, width, initial.residual_std(depth), bias=True)

    def forward(self, x: Stream, state: Empty | None = None, shared: Shared | None = None) -> tuple[Stream, Empty]:
        """(B, T, D) to (B, T, D)."""
        return self.down(gelu(self.up(x), approximate="tanh")), Empty()

    def state_after(self, batch: int, length: int, storage: Storage) -> Empty:
        """Nothing."""
        return Empty()
