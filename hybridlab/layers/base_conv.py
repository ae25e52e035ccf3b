"""Based's local mixer: a filter of a few taps between two linear maps, and a gate."""

from typing import NamedTuple

from torch.nn.functional import silu

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.short_filter import ShortFilter
from hybridlab.ops.short_conv import BACKENDS
from hybridlab.shapes import ConvState, Stream


class BaseConvState(NamedTuple):
    """The last inputs of the filter.

    Bytes: B * (filter width - 1) * E * bytes of the dtype.
    """

    conv: ConvState


class BaseConv(Layer):
    """y = out(silu(conv(u)) * gate), [u | gate] = in(x), each E wide.

    The filter has no bias: the authors' fused code has one, their plain code, which this is, has not.

    Args:
        width: D.
        inner: E; 2 D in every published model.
        filter_width: W, taps.
        depth: where the layer stands, for its initial values.

    Source: Based, arXiv 2402.18668, section 4 (gated convolutions), and the authors' code. Chapter 07.
    """

    backends = backends_of(BACKENDS)

    def __init__(self, width: int, inner: int, filter_width: int = 3, depth: Depth = ONLY_LAYER) -> None:
        super().__init__()
        self.inner, self.filter_width = inner, filter_width
        self.input = initial.normal(width, 2 * inner, bias=True)
        self.conv = ShortFilter(inner, filter_width, bias=False)
        self.output = initial.normal(inner, width, initial.residual_std(depth), bias=True)

    def forward(
        self, x: Stream, state: BaseConvState | None = None, shared: Shared | None = None
    ) -> tuple[Stream, BaseConvState]:
        """(B, T, D) to (B, T, D), and the last inputs of the filter."""
        state = self.start(x) if state is None else state
        u, gate = self.input(x).chunk(2, -1)
        filtered, conv = self.conv(u, state.conv, self.backend)
        return self.output(silu(filtered) * gate), BaseConvState(conv)

    def state_after(self, batch: int, length: int, storage: Storage) -> BaseConvState:
        """The same size after any number of tokens."""
        return BaseConvState(storage.cached(batch, self.filter_width - 1, self.inner))
