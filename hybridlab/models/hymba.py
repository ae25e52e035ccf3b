"""Hymba: attention and Mamba side by side in every layer, behind meta tokens that every text begins with."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from hybridlab.layers import (
    Depth,
    HymbaHeads,
    HymbaMixer,
    MambaSizes,
    ResidualBlock,
    Rotary,
    SwiGLU,
    set_backend,
)
from hybridlab.models.decoder import AttentionConfig
from hybridlab.models.language_model import LanguageModel, Preset
from hybridlab.shapes import Position, Stream
from hybridlab.state import ModelState

KINDS = "A (sees everything), W (looks through the window) or S (shares the keys of the W before it)"


@dataclass(frozen=True)
class HymbaConfig(AttentionConfig):
    """Sizes of a Hymba. Its `head_width` is that of keys and queries; values are E / H wide.

    Attributes:
        window: keys a query sees, itself included, where it does not see everything. Meta tokens are seen besides.
        norm_eps: added to mean squares in the RMS norms.
        pattern: one letter a layer, what its attention sees: A everything, W the window, S the window too, with the keys and
            values of the last W before it. Empty is A at both ends and in the middle, and between them pairs WS; where their
            number is odd, WSS comes first.
        meta_tokens: M, learned rows before every text.
        inner: E, inner width of the scan, and of all heads of attention together; 0 is 2 D.
        state_size: N, numbers that each inner channel remembers.
        filter_width: taps of the short convolution.
        rank: inner width of the map that finds a token's steps; 0 is D / 16, rounded up.
        bias: whether the mixer's maps from and to the stream have biases.
        conv_bias: whether the short convolution has one.
    """

    window: int | None = 1025
    norm_eps: float = 1e-6
    pattern: str = ""
    meta_tokens: int = 128
    inner: int = 0
    state_size: int = 16
    filter_width: int = 4
    rank: int = 0
    bias: bool = False
    conv_bias: bool = True

    def derive(self) -> None:
        """As for all attention; a scan of twice the stream's width, the paper's pattern."""
        super().derive()
        self.fill("inner", 2 * self.width)
        self.fill("rank", -(-self.width // 16))
        self.fill("pattern", paired(self.layers))

    def check(self) -> None:
        """A letter a layer, keys that were made before they are shared, values that fill the inner width."""
        super().check()
        known = isinstance(self.pattern, str) and set(self.pattern) <= set("AWS")
        self.require(known and len(self.pattern) == self.layers, "pattern", f"{self.layers} letters {KINDS}")
        orphans = self.pattern.startswith("S") or "AS" in self.pattern
        self.require(not orphans, "pattern", "a W, or an S that has one, before every S")
        self.require(self.inner % self.heads == 0, "inner", f"a multiple of heads = {self.heads}")

    @property
    def letters(self) -> str:
        """What attention sees in each layer."""
        return self.pattern

    @property
    def scan_sizes(self) -> MambaSizes:
        """The sizes of each layer's scan."""
        return MambaSizes(self.inner, self.rank, self.state_size, self.filter_width)

    def heads_of(self, layer: int) -> HymbaHeads:
        """The attention of a layer."""
        letter = self.pattern[layer]
        return HymbaHeads(
            self.heads,
            self.groups,
            self.head_width,
            self.inner // self.heads,
            None if letter == "A" else self.window,
            self.meta_tokens,
            letter == "S",
        )


def paired(layers: int) -> str:
    """The paper's pattern: three layers see everything, in the others two (once three) share their keys."""
    ends = sorted({0, (layers - 1) // 2, layers - 1})
    runs = (after - before - 1 for before, after in pairwise(ends))
    return "A" + "".join(_shared(run) + "A" for run in runs)


def _shared(layers: int) -> str:
    """So many layers through the window, in pairs."""
    first = "WSS" if layers % 2 and layers > 1 else "W" * (layers % 2)
    return first + "WS" * ((layers - len(first)) // 2)


def stretched(theta: float, longer: float, head_width: int) -> Rotary:
    """Rotary positions for a text that is so many times longer than the first training's.

    theta' = theta (2 s - 1)^(K / (K - 2)), whatever the length of the text at hand.

    Raises:
        ValueError: for heads so narrow that nothing is left to stretch.
    """
    if head_width <= 2:
        raise ValueError(f"stretched: head_width must be above 2, got {head_width}")
    return Rotary(theta * (2 * longer - 1) ** (head_width / (head_width - 2)))


PRESETS = {
    "hymba-1.5b": Preset(
        HymbaConfig(
            32_001, 1600, 32, heads=25, groups=5, head_width=64, ffn_width=5504, rotary=stretched(10_000.0, 8192 / 2048, 64)
        ),
        "Hymba, arXiv 2411.13676, and the released configuration of Hymba-1.5B-Base",
    ),
}


class Hymba(LanguageModel):
    """Hymba: x += mixer(norm x), x += mlp(norm x), and the embedding again as the head.

    The meta tokens are rows 0 to M - 1 of every text: they go through convolutions and scans, have positions, stay visible
    behind every window, and are kept in every cache. They are read in the first call, before its tokens: before any
    token a cache holds nothing, after T tokens M + T rows, or under a window of W at most M + W - 1.

    A window of W shows the last W keys, to whole texts and single steps alike. The authors' code shows W to whole texts, as
    it was trained, and one less to single steps.

    Args:
        config: sizes.
        backend: what the layers pass to their ops.

    Source: arXiv 2411.13676, section 2. Chapter 11.
    """

    presets = PRESETS

    def __init__(self, config: HymbaConfig, backend: str = "auto") -> None:
        blocks = [_block(config, Depth(layer, config.layers)) for layer in range(config.layers)]
        super().__init__(config, blocks, _norm(config, config.width), tied=True)
        self.meta = nn.Embedding(config.meta_tokens, config.width)  # starts with variance 1, as the authors' does
        nn.init.normal_(self.embedding.weight, std=0.02)
        set_backend(self, backend)

    def opened(self, x: Stream, state: ModelState) -> tuple[torch.Tensor, Position]:
        """The meta tokens come before the first token; positions count them."""
        if state.layers[0].mixer.attention.k_past.shape[1] == 0:
            return torch.cat((self.meta.weight.to(x.dtype).expand(len(x), -1, -1), x), 1), state.position
        return x, state.position + self.meta.num_embeddings

    def rows_after(self, length: int) -> int:
        """The meta tokens are read with the first token."""
        return length + self.meta.num_embeddings if length else 0


def _norm(config: HymbaConfig, width: int) -> nn.RMSNorm:
    return nn.RMSNorm(width, eps=config.norm_eps)


def _block(config: HymbaConfig, depth: Depth) -> ResidualBlock:
    mixer = HymbaMixer(
        config.width,
        config.heads_of(depth.layer),
        config.scan_sizes,
        partial(_norm, config),
        config.rotary,
        depth,
        bias=config.bias,
        conv_bias=config.conv_bias,
    )
    norms = (_norm(config, config.width) for _ in range(2))
    return ResidualBlock(mixer, SwiGLU(config.width, config.ffn_width, depth), *norms)
