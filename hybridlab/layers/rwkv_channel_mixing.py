"""RWKV's channel mixing: a gated MLP with squared ReLU in which every token also sees the one before it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage
from hybridlab.layers.token_shift import last_token, previous, weigh_past, weigh_present
from hybridlab.shapes import ShiftState, Stream


class ChannelMixingState(NamedTuple):
    """The last token. Bytes: B * D * bytes of the dtype."""

    shift: ShiftState


class RWKVChannelMixing(Layer):
    """The channel mixing of RWKV-4 and RWKV-5: y = sigmoid(R x_r) * V relu(K x_k)^2, x_j = mu_j x + (1 - mu_j) past.

    Args:
        width: D.
        hidden: F, width of the squared ReLU.
        depth: where the layer stands, for its initial values.

    Source: RWKV, arXiv 2305.13048, channel mixing. Chapter 03.
    """

    blend: Callable[[Tensor, Tensor, Tensor], Tensor] = staticmethod(weigh_present)

    def __init__(self, width: int, hidden: int, depth: Depth = ONLY_LAYER) -> None:
        super().__init__()
        self.width = width
        self.mix_k = nn.Parameter(self.initial_mix(width, depth))
        self.mix_r = nn.Parameter(self.initial_mix(width, depth))
        self.key = initial.orthogonal(width, hidden)
        self.receptance = initial.zeros(width, width)
        self.value = initial.zeros(hidden, width)

    @staticmethod
    def initial_mix(width: int, depth: Depth) -> Tensor:
        """A ramp over the channels, flatter in deeper layers."""
        return initial.mix_ramp(width, depth.falling)

    def forward(
        self, x: Stream, state: ChannelMixingState | None = None, shared: Shared | None = None
    ) -> tuple[Stream, ChannelMixingState]:
        """(B, T, D) to (B, T, D), and the last token."""
        state = self.start(x) if state is None else state
        past = previous(x, state.shift)
        hidden = torch.relu(self.key(self.blend(x, past, self.mix_k))) ** 2
        gate = torch.sigmoid(self.receptance(self.blend(x, past, self.mix_r)))
        return gate * self.value(hidden), ChannelMixingState(last_token(x))

    def state_after(self, batch: int, length: int, storage: Storage) -> ChannelMixingState:
        """The same size after any number of tokens."""
        return ChannelMixingState(storage.cached(batch, self.width))


class RWKV6ChannelMixing(RWKVChannelMixing):
    """The channel mixing of RWKV-6: the same with x_j = x + mu_j (past - x), so that mu weighs the past.

    Source: Eagle and Finch, arXiv 2404.05892, channel mixing of Finch. Chapter 03.
    """

    blend = staticmethod(weigh_past)

    @staticmethod
    def initial_mix(width: int, depth: Depth) -> Tensor:
        """The same ramp, read from the other end: mu now weighs the past."""
        return 1 - initial.mix_ramp(width, depth.falling)
