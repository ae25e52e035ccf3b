"""The gated MLP of Griffin and the Gemma family."""

from torch.nn.functional import gelu

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage
from hybridlab.shapes import Stream
from hybridlab.state import Empty


class GeGLU(Layer):
    """y = W_down (gelu(W_gate x) * W_up x), each map with a bias or none, gelu by its tanh formula. It carries nothing.

    Args:
        width: D.
        hidden: F, width of the product.
        depth: where the layer stands, for its initial values.
        bias: whether the maps have biases: in Griffin's family they do, in Gemma's not.

    Source: arXiv 2002.05202, FFN_GEGLU; the biases from Griffin's code. Chapter 11.
    """

    def __init__(self, width: int, hidden: int, depth: Depth = ONLY_LAYER, bias: bool = True) -> None:
        super().__init__()
        self.gate = initial.unit_linear(width, hidden, bias=bias)
        self.up = initial.unit_linear(width, hidden, bias=bias)
        self.down = initial.unit_linear(hidden, width, variance=2 / depth.layers, bias=bias)

    def forward(self, x: Stream, state: Empty | None = None, shared: Shared | None = None) -> tuple[Stream, Empty]:
        """(B, T, D) to (B, T, D)."""
        return self.down(gelu(self.gate(x), approximate="tanh") * self.up(x)), Empty()

    def state_after(self, batch: int, length: int, storage: Storage) -> Empty:
        """Nothing."""
        return Empty()
