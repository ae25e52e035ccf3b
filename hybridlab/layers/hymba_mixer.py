"""Hymba's mixer: attention heads and Mamba heads read the same token, and the mean of what they say goes on."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from hybridlab.layers.hymba_attention import HymbaAttention, HymbaHeads
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage
from hybridlab.layers.mamba_mixer import MambaMixer, MambaSizes, MambaState
from hybridlab.layers.rotary import Rotary
from hybridlab.ops.attention import AttentionState
from hybridlab.shapes import Stream
from hybridlab.state import Empty


class HymbaState(NamedTuple):
    """The states of both kinds of heads.

    Bytes: those of an `AttentionState` (0 where keys are borrowed), and those of a `MambaState`.
    """

    attention: AttentionState | Empty
    mamba: MambaState


class HymbaMixer(Layer):
    """y = out((norm_a(attention x) + norm_m(scan x)) / 2): Mamba's mixer, with attention beside its scan.

    Both end E numbers wide, and Mamba's map back to the stream reads the mean. The weights of the two norms are the paper's
    vectors beta_1 and beta_2.

    Args:
        width: D.
        heads: of attention, H V = E.
        sizes: E, N, rank and W of the scan.
        norm: makes the norm of a width; r, B and C of the scan go through one each, and so does the output of either kind.
        rotary: positions in attention.
        depth: where the layer stands, for its initial values.
        bias: whether the maps from and to the stream have biases.
        conv_bias: whether the convolution has one.

    Raises:
        ValueError: for heads of attention that do not end as wide as the scan.

    Source: Hymba, arXiv 2411.13676, section 2.1, equation 2. Chapter 11.
    """

    def __init__(
        self,
        width: int,
        heads: HymbaHeads,
        sizes: MambaSizes,
        norm: Callable[[int], nn.Module],
        rotary: Rotary,
        depth: Depth = ONLY_LAYER,
        *,
        bias: bool = False,
        conv_bias: bool = True,
    ) -> None:
        super().__init__()
        if heads.heads * heads.value_width != sizes.inner:
            found = f"{heads.heads} of {heads.value_width}"
            raise ValueError(f"HymbaMixer: heads must end as wide as the scan, {sizes.inner}; got {found}")
        self.attention = HymbaAttention(width, heads, rotary, bias)
        self.mamba = MambaMixer(width, sizes, depth, bias=bias, conv_bias=conv_bias, selection_norm=norm)
        self.attention_norm, self.scan_norm = norm(sizes.inner), norm(sizes.inner)

    def forward(self, x: Stream, state: HymbaState | None = None, shared: Shared | None = None) -> tuple[Stream, HymbaState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = self.start(x) if state is None else state
        attended, cache = self.attention(x, state.attention, shared)
        scanned, mamba = self.mamba.scanned(x, state.mamba)
        mean = (self.attention_norm(attended) + self.scan_norm(scanned)) / 2
        return self.mamba.output(mean), HymbaState(cache, mamba)

    def state_after(self, batch: int, length: int, storage: Storage) -> HymbaState:
        """The cache after `length` rows, and a scan's state."""
        cache = self.attention.state_after(batch, length, storage)
        return HymbaState(cache, self.mamba.state_after(batch, length, storage))
