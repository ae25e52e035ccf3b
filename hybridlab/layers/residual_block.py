"""The block that every model here is a stack of: mix over tokens, then over channels, each added to the stream."""

from typing import Any, NamedTuple

from torch import nn

from hybridlab.layers.layer import Layer, Shared, Storage
from hybridlab.shapes import Stream


class BlockState(NamedTuple):
    """The states of a block's two halves. Bytes: their sum."""

    mixer: Any
    channel: Any


class ResidualBlock(Layer):
    """x += mixer(norm(x)); x += channel_mixer(norm(x)), each with a norm of its own, or with a second one for what it adds.

    Args:
        mixer: mixes over tokens.
        channel_mixer: mixes over channels.
        mixer_norm: applied to what the mixer reads.
        channel_norm: applied to what the channel mixer reads.
        added_norms: applied to what the mixer adds to x, and to what the channel mixer adds; None is neither.
    """

    def __init__(
        self,
        mixer: Layer,
        channel_mixer: Layer,
        mixer_norm: nn.Module,
        channel_norm: nn.Module,
        *,
        added_norms: tuple[nn.Module, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.mixer_norm, self.mixer = mixer_norm, mixer
        self.channel_norm, self.channel_mixer = channel_norm, channel_mixer
        self.mixer_added_norm, self.channel_added_norm = added_norms or (nn.Identity(), nn.Identity())

    def forward(self, x: Stream, state: BlockState | None = None, shared: Shared | None = None) -> tuple[Stream, BlockState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = BlockState(None, None) if state is None else state
        y, mixer_state = self.mixer(self.mixer_norm(x), state.mixer, shared)
        x = x + self.mixer_added_norm(y)
        y, channel_state = self.channel_mixer(self.channel_norm(x), state.channel, shared)
        return x + self.channel_added_norm(y), BlockState(mixer_state, channel_state)

    def state_after(self, batch: int, length: int, storage: Storage) -> BlockState:
        """The states of both halves after `length` tokens."""
        halves = (self.mixer, self.channel_mixer)
        return BlockState(*(half.state_after(batch, length, storage) for half in halves))
