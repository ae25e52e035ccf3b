"""The MLP of two matrices, without gate and without biases."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor
from torch.nn.functional import gelu, relu

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage
from hybridlab.shapes import Stream
from hybridlab.state import Empty


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2, elementwise."""
    return relu(x).square()


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu by tanh": partial(gelu, approximate="tanh"),
    "squared relu": squared_relu,
}


class PlainMLP(Layer):
    """y = W_down f(W_up x). It carries nothing.

    Args:
        width: D.
        hidden: F, width of the activations.
        activation: f, one of `ACTIVATIONS`.
        depth: where the layer stands, for its initial values.

    Raises:
        ValueError: for an unknown activation.

    Source: arXiv 1706.03762, section 3.3; for gelu arXiv 1606.08415, for the squared relu arXiv 2109.08668. Chapter 11.
    """

    def __init__(self, width: int, hidden: int, activation: str = "gelu", depth: Depth = ONLY_LAYER) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"PlainMLP: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation = activation
        self.up = initial.normal(width, hidden)
        self.down = initial.normal(hidden, width, initial.residual_std(depth))

    def forward(self, x: Stream, state: Empty | None = None, shared: Shared | None = None) -> tuple[Stream, Empty]:
        """(B, T, D) to (B, T, D)."""
        return self.down(ACTIVATIONS[self.activation](self.up(x))), Empty()

    def state_after(self, batch: int, length: int, storage: Storage) -> Empty:
        """Nothing."""
        return Empty()
