"""A layer that calls a block it does not own, and lets its mixer read what the block found."""

from typing import Any, NamedTuple

from torch import nn

from hybridlab.layers import initial
from hybridlab.layers.layer import Layer, Shared, Storage
from hybridlab.layers.shared_block import CallAdapters, SharedBlock
from hybridlab.ops.attention import AttentionState
from hybridlab.shapes import Stream


class SharedCallState(NamedTuple):
    """This call's cache of the shared block, and the state of the layer's own mixer. Bytes: their sum."""

    attention: AttentionState
    mixer: Any


class SharedCall(Layer):
    """x += mixer(norm(x + linear(block(x)))): what the block found steers the mixer, and is not itself added to the stream.

    The block's parameters are the model's, not this layer's: they are stored, counted and moved once, however many layers
    call it.

    Args:
        width: D.
        block: the shared block; whoever builds this layer registers it, once.
        mixer: mixes over tokens, and does all that there is over channels.
        norm: applied to what the mixer reads.
        adapters: what this call changes in the block; None is nothing.

    Source: Zamba, arXiv 2405.16712, equation 6; Zamba2, arXiv 2411.15242, for the adapters. Chapter 11.
    """

    def __init__(
        self, width: int, block: SharedBlock, mixer: Layer, norm: nn.Module, adapters: CallAdapters | None = None
    ) -> None:
        super().__init__()
        self.norm, self.mixer, self.adapters = norm, mixer, adapters
        self.linear = initial.normal(width, width)
        self._blocks = (block,)  # in a tuple PyTorch does not see it, and so does not register it here

    @property
    def block(self) -> SharedBlock:
        """The block that this layer calls."""
        return self._blocks[0]

    def forward(
        self, x: Stream, state: SharedCallState | None = None, shared: Shared | None = None
    ) -> tuple[Stream, SharedCallState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = SharedCallState(None, None) if state is None else state  # type: ignore[arg-type]
        found, attention = self.block(x, state.attention, shared, self.adapters)
        y, mixer = self.mixer(self.norm(x + self.linear(found)), state.mixer, shared)
        return x + y, SharedCallState(attention, mixer)

    def state_after(self, batch: int, length: int, storage: Storage) -> SharedCallState:
        """A cache of its own and the mixer's state, after `length` tokens."""
        halves = (self.block, self.mixer)
        return SharedCallState(*(half.state_after(batch, length, storage) for half in halves))


class SharedBlocks(nn.ModuleList):
    """The blocks that layers of a model share: where each is registered, once."""
