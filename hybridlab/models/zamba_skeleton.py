"""What Zamba and Zamba2 have in common: a mixer in every layer, and blocks with attention that some layers call in turn."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from hybridlab.layers import (
    CallAdapters,
    Depth,
    Layer,
    MixerBlock,
    SharedBlock,
    SharedBlockOptions,
    SharedBlocks,
    SharedCall,
    set_backend,
)
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel


@dataclass(frozen=True)
class ZambaSkeletonConfig(Config):
    """Sizes that both Zambas have.

    Attributes:
        calls: the layers, counted from 0 and in ascending order, that call a shared block.
        blocks: shared blocks; the calls take them in turn.
        heads: H of the shared attention; 0 is as many as 2 D has widths of 128.
        groups: G, heads of its keys and values; 0 is heads.
        head_width: K = V; 0 is 2 D / heads, as the attention reads the stream beside the embeddings.
        ffn_width: F, of the shared MLP; 0 is 4 D.
        inner: E, inner width of the mixers; 0 is 2 D.
        state_size: N, numbers that each inner channel remembers.
        filter_width: W, taps of the short convolution.
        bias: whether the mixers' maps from and to the stream have biases.
        norm_eps: added to mean squares in the RMS norms.
        tied: whether the head is the embedding.
    """

    calls: tuple[int, ...] = ()
    blocks: int = 1
    heads: int = 0
    groups: int = 0
    head_width: int = 0
    ffn_width: int = 0
    inner: int = 0
    state_size: int = 16
    filter_width: int = 4
    bias: bool = False
    norm_eps: float = 1e-5
    tied: bool = True

    def derive(self) -> None:
        """Heads that fill twice the width, a key head each; an MLP of four widths, a mixer of two."""
        self.fill("heads", max(1, 2 * self.width // (self.head_width or 128)))
        self.fill("head_width", 2 * self.width // self.heads)
        self.fill("groups", self.heads)
        self.fill("ffn_width", 4 * self.width)
        self.fill("inner", 2 * self.width)

    def check(self) -> None:
        """Calls of layers that there are, one a block at least; keys shared evenly."""
        whole = isinstance(self.calls, tuple) and all(type(layer) is int for layer in self.calls)
        in_order = whole and list(self.calls) == sorted(set(self.calls) & set(range(self.layers)))
        self.require(in_order, "calls", f"layers in ascending order, each of 0 .. {self.layers - 1}")
        self.require(self.blocks <= len(self.calls), "blocks", f"at most one for each of {len(self.calls)} calls")
        self.require(self.heads % self.groups == 0, "groups", f"a divisor of heads = {self.heads}")

    @property
    def letters(self) -> str:
        """H for a hybrid layer, which calls a shared block; M for a mixer alone."""
        return "".join("H" if layer in self.calls else "M" for layer in range(self.layers))

    @property
    def block_options(self) -> SharedBlockOptions:
        """What each shared block is like."""
        sizes = (self.heads, self.groups, self.head_width, self.ffn_width)
        return SharedBlockOptions(*sizes, norm_eps=self.norm_eps)


class ZambaSkeleton(LanguageModel):
    """Embedding, mixers x += mixer(norm x), of which some read what a shared block found, norm, head.

    Args:
        config: sizes.
        mixer: makes the mixer of the layer at a depth.
        adapters: makes what one call changes in its block; None is nothing.
        backend: what the layers pass to their ops.
    """

    config: ZambaSkeletonConfig

    def __init__(
        self,
        config: ZambaSkeletonConfig,
        mixer: Callable[[Depth], Layer],
        adapters: Callable[[], CallAdapters] | None = None,
        backend: str = "auto",
    ) -> None:
        def layer(number: int) -> Layer:
            own = mixer(Depth(number, config.layers))
            if number not in config.calls:
                return MixerBlock(own, _norm(config))
            block = blocks[config.calls.index(number) % config.blocks]
            return SharedCall(config.width, block, own, _norm(config), adapters() if adapters else None)

        blocks = [SharedBlock(config.width, config.block_options) for _ in range(config.blocks)]
        super().__init__(config, [layer(number) for number in range(config.layers)], _norm(config), tied=config.tied)
        self.shared_blocks = SharedBlocks(blocks)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        set_backend(self, backend)


def _norm(config: ZambaSkeletonConfig) -> nn.RMSNorm:
    return nn.RMSNorm(config.width, eps=config.norm_eps)
