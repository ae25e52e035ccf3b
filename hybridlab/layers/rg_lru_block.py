"""The recurrent block of Hawk and Griffin: RG-LRU behind a short convolution, times a second branch."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import gelu, softplus

from hybridlab.layers import initial
from hybridlab.layers.block_diagonal import BlockDiagonal
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.short_filter import ShortFilter
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.ops.rg_lru import BACKENDS, rg_lru
from hybridlab.shapes import ChannelState, ConvState, Stream


class RGLRUState(NamedTuple):
    """The last W - 1 inputs of the convolution, and one number a channel.

    Bytes: B * E * ((W - 1) * bytes of the dtype + bytes of the state dtype).
    """

    conv: ConvState
    recurrent: ChannelState


class RGLRUBlock(Layer):
    """y = out(h * gelu(gate(x))), where h = rg_lru(u) and u = conv(in(x)).

    Both gates of the RG-LRU are sigmoids of a block-diagonal map of u. Its log a is -softplus(rate), in float32 at least.
    The first token of a text starts it anew, which is why the position is asked for: there h_0 = i_0 u_0, without the
    factor sqrt(1 - a^2) that the equation alone would put in front.

    Args:
        width: D, of the stream.
        inner: E, channels that are convolved and fade.
        blocks: of the gates' maps, a divisor of inner.
        filter_width: W, taps of the short convolution.
        depth: where the layer stands, for its initial values.

    Raises:
        ValueError: if the blocks do not divide the inner width; a filter without a tap.

    Source: Griffin, arXiv 2402.19427, sections 2.3 and 2.4; the reset and the biases from its code. Chapter 02.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(rg_lru)

    def __init__(self, width: int, inner: int, blocks: int, filter_width: int = 4, depth: Depth = ONLY_LAYER) -> None:
        super().__init__()
        self.inner, self.filter_width = inner, filter_width
        self.input = initial.unit_linear(width, inner)
        self.gate = initial.unit_linear(width, inner)
        self.conv = ShortFilter(inner, filter_width)
        nn.init.normal_(self.conv.weight, std=0.1 * filter_width**-0.5)
        self.conv.bias = nn.Parameter(torch.zeros(inner))
        self.recurrence_gate = BlockDiagonal(inner, blocks)
        self.input_gate = BlockDiagonal(inner, blocks)
        self.rate = nn.Parameter(initial.ring_rate(inner))
        self.output = initial.unit_linear(inner, width, variance=2 / depth.layers)

    def forward(self, x: Stream, state: RGLRUState | None = None, shared: Shared | None = None) -> tuple[Stream, RGLRUState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        position = self.position(x, shared, fresh=state is None)
        state = self.start(x) if state is None else state
        u, conv = self.conv(self.input(x), state.conv, self.backend)
        r, i = self.recurrence_gate(u).sigmoid(), self.input_gate(u).sigmoid()
        log_a = -softplus(self.rate.to(least_state_dtype(x.dtype)))
        reset = (position + torch.arange(x.shape[1], device=x.device) == 0).expand(x.shape[:2])
        h, recurrent = self.op(u, r, i, log_a, state.recurrent, reset, backend=self.backend)
        return self.output(h * gelu(self.gate(x), approximate="tanh")), RGLRUState(conv, recurrent)

    def state_after(self, batch: int, length: int, storage: Storage) -> RGLRUState:
        """The same size after any number of tokens."""
        conv = storage.cached(batch, self.filter_width - 1, self.inner)
        return RGLRUState(conv, storage.recurrent(batch, self.inner))
