"""RWKV-7's channel mixing: a squared ReLU without a gate, in which every token also sees the one before it."""

import torch
from torch import nn

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage
from hybridlab.layers.rwkv_channel_mixing import ChannelMixingState
from hybridlab.layers.token_shift import last_token, previous, weigh_past
from hybridlab.shapes import Stream


class RWKV7ChannelMixing(Layer):
    """The channel mixing of RWKV-7: y = V relu(K x_k)^2, x_k = x + mu (past - x).

    Args:
        width: D.
        hidden: F, width of the squared ReLU.
        depth: where the layer stands, for its initial values.

    Source: RWKV-7 Goose, arXiv 2503.14456, section 4, and the authors' code. Chapter 08.
    """

    def __init__(self, width: int, hidden: int, depth: Depth = ONLY_LAYER) -> None:
        super().__init__()
        self.width = width
        self.mix_k = nn.Parameter(1 - initial.mix_ramp(width, depth.falling**4))
        self.key = initial.uniform(width, hidden, 0.5)
        self.value = initial.zeros(hidden, width)

    def forward(
        self, x: Stream, state: ChannelMixingState | None = None, shared: Shared | None = None
    ) -> tuple[Stream, ChannelMixingState]:
        """(B, T, D) to (B, T, D), and the last token."""
        state = self.start(x) if state is None else state
        hidden = torch.relu(self.key(weigh_past(x, previous(x, state.shift), self.mix_k))) ** 2
        return self.value(hidden), ChannelMixingState(last_token(x))

    def state_after(self, batch: int, length: int, storage: Storage) -> ChannelMixingState:
        """The same size after any number of tokens."""
        return ChannelMixingState(storage.cached(batch, self.width))
