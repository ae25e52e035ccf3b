"""Hyena's mixer: long convolutions with learned filters, and gates between them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridlab.layers import initial
from hybridlab.layers.hyena_filter import HyenaFilter, HyenaSizes
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.short_filter import ShortFilter
from hybridlab.ops.long_conv import BACKENDS, long_conv, past_rows
from hybridlab.shapes import ConvState, Stream

DEFAULT_SIZES = HyenaSizes()


class HyenaState(NamedTuple):
    """The last inputs of the short convolution, and all past inputs of each long one: it grows with every token.

    Bytes: B * D * bytes of the dtype * ((N + 1) * (filter width - 1) + (N - 1) * S), S = min(tokens, W).
    """

    conv: ConvState
    past: tuple[Tensor, ...]


class HyenaMixer(Layer):
    """y = out(x_0 v_{N-1}), v_{n+1} = (h_n + b_n) * (x_{N-1-n} v_n), where [x_0 | ... | x_{N-1} | v_0] = conv(in(x)).

    The star of a filter h is a long convolution; b_n is added to its first tap. Order 2 has one: y = out(x_0 (h * (x_1 v))).

    Args:
        width: D.
        sizes: N, W and those of the filters' network.
        depth: where the layer stands, for its initial values.

    Raises:
        ValueError: an order below 2, or an even number of features.

    Source: Hyena, arXiv 2302.10866, section 3 and the authors' code. Chapter 06.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(long_conv)

    def __init__(self, width: int, sizes: HyenaSizes = DEFAULT_SIZES, depth: Depth = ONLY_LAYER) -> None:
        super().__init__()
        if sizes.order < 2:
            raise ValueError(f"HyenaMixer: order must be at least 2, got {sizes.order}")
        if sizes.features < 3 or sizes.features % 2 == 0:
            raise ValueError(f"HyenaMixer: features must be odd and at least 3, got {sizes.features}")
        self.width, self.sizes = width, sizes
        projections, filters = sizes.order + 1, sizes.order - 1
        self.input = initial.normal(width, projections * width, bias=True)
        self.conv = ShortFilter(projections * width, sizes.filter_width)
        self.filter = HyenaFilter(filters * width, sizes)
        self.skip = nn.Parameter(torch.randn(filters, width))
        self.output = initial.normal(width, width, initial.residual_std(depth), bias=True)

    def forward(self, x: Stream, state: HyenaState | None = None, shared: Shared | None = None) -> tuple[Stream, HyenaState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = self.start(x) if state is None else state
        filters = self.filter(state.past[0].shape[1] + x.shape[1]).chunk(len(state.past))
        projected, conv = self.conv(self.input(x), state.conv, self.backend)
        last_gate, *gates, v = projected.chunk(self.sizes.order + 1, -1)
        pasts = []
        for gate, taps, skip, past in zip(reversed(gates), filters, self.skip, state.past, strict=True):
            v, past = self.op(gate * v, taps, skip, past, backend=self.backend)
            pasts.append(past)
        return self.output(last_gate * v), HyenaState(conv, tuple(pasts))

    def state_after(self, batch: int, length: int, storage: Storage) -> HyenaState:
        """A row more with every token, until there are as many as taps."""
        order, rows = self.sizes.order, past_rows(length, self.sizes.taps)
        conv = storage.cached(batch, self.sizes.filter_width - 1, (order + 1) * self.width)
        return HyenaState(conv, tuple(storage.cached(batch, rows, self.width) for _ in range(order - 1)))
