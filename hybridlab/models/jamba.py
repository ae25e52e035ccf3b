"""Jamba: one layer in eight attends, the others are Mamba; every second MLP is a mixture of experts."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import nn

from hybridlab.layers import (
    Depth,
    GroupedAttention,
    Layer,
    MambaMixer,
    MambaSizes,
    MixtureOfExperts,
    ResidualBlock,
    Routing,
    SwiGLU,
    set_backend,
)
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel, Preset


class Every(NamedTuple):
    """One layer in `period`: those whose number, divided by it, leaves `offset`."""

    period: int
    offset: int

    def holds(self, layer: int) -> bool:
        """Whether the layer of this number, counted from 0, is one of them."""
        return layer % self.period == self.offset

    @property
    def possible(self) -> bool:
        """Whether any number leaves this offset."""
        return all(type(number) is int for number in self) and 0 <= self.offset < self.period


ONE_IN_EIGHT, EVERY_SECOND = Every(8, 4), Every(2, 1)
SIXTEEN = Routing(16, 2, renormalised=False)


@dataclass(frozen=True)
class JambaConfig(Config):
    """Sizes of a Jamba.

    Attributes:
        heads: H, heads of queries; 0 is as many of 128 channels as fill the width, but one at least.
        groups: G, heads of keys and values; 0 is heads.
        ffn_width: F, of the gated MLP and of each expert; 0 is 7/2 D.
        attention: which layers attend; the others are Mamba.
        mixtures: which layers have experts in the place of the MLP.
        routing: of the experts; None is an MLP in every layer.
        inner: E, inner width of Mamba's mixer; 0 is 2 D.
        state_size: N, numbers that each inner channel remembers.
        filter_width: W, taps of the short convolution.
        rank: inner width of the map that finds a token's steps; 0 is D / 16, rounded up.
        bias: whether the mixer's maps from and to the stream have biases.
        conv_bias: whether the short convolution has one.
        norm_eps: added to mean squares in all RMS norms, those of r, B and C too.
        tied: whether the head is the embedding.
    """

    heads: int = 0
    groups: int = 0
    ffn_width: int = 0
    attention: Every = ONE_IN_EIGHT
    mixtures: Every = EVERY_SECOND
    routing: Routing | None = SIXTEEN
    inner: int = 0
    state_size: int = 16
    filter_width: int = 4
    rank: int = 0
    bias: bool = False
    conv_bias: bool = True
    norm_eps: float = 1e-6
    tied: bool = False

    def derive(self) -> None:
        """Heads that fill the width, one group a head; a mixer twice as wide as the stream."""
        self.fill("heads", max(1, self.width // 128))
        self.fill("groups", self.heads)
        self.fill("ffn_width", 7 * self.width // 2)
        self.fill("inner", 2 * self.width)
        self.fill("rank", -(-self.width // 16))

    def check(self) -> None:
        """Heads that fill the width and share keys evenly; layers that can be told apart; experts that can be chosen."""
        self.require(self.width % self.heads == 0, "heads", f"a divisor of width = {self.width}")
        self.require(self.heads % self.groups == 0, "groups", f"a divisor of heads = {self.heads}")
        for name in ("attention", "mixtures"):
            every = getattr(self, name)
            self.require(isinstance(every, Every) and every.possible, name, "Every(period, offset), 0 <= offset < period")
        possible = self.routing is None or 1 <= self.routing.active <= self.routing.experts
        self.require(possible, "routing", "None, or at least 1 active expert and no more than there are")

    @property
    def letters(self) -> str:
        """What mixes the tokens of each layer: A attention, M Mamba (the letters of `HybridLM`)."""
        return "".join("A" if self.attention.holds(layer) else "M" for layer in range(self.layers))

    @property
    def mixer_sizes(self) -> MambaSizes:
        """The sizes of each Mamba layer's mixer."""
        return MambaSizes(self.inner, self.rank, self.state_size, self.filter_width)


SMALL = JambaConfig(65_536, 4096, 32, heads=32, groups=8, ffn_width=14_336)
LARGE = JambaConfig(65_536, 8192, 72, heads=64, groups=8, ffn_width=24_576)
PAPER_1_5 = "Jamba-1.5, arXiv 2408.12570, section 2, and the released configuration"
PRESETS = {
    "jamba-v0.1": Preset(SMALL, "Jamba, arXiv 2403.19887, section 3.1, and the released configuration"),
    "jamba-1.5-mini": Preset(SMALL, PAPER_1_5),
    "jamba-1.5-large": Preset(LARGE, PAPER_1_5),
}


class Jamba(LanguageModel):
    """x += mixer(norm(x)); x += mlp(norm(x)), all norms RMS norms.

    Attention knows no positions: the Mamba layers below it tell it what came when. Mamba norms what each token selects, its
    steps, B and C, with weights. A router takes the softmax over all experts, then the largest two, and does not divide by
    their sum.

    Args:
        config: sizes.
        backend: what the layers pass to their ops.

    Source: Jamba, arXiv 2403.19887, section 2 and figure 1. Chapter 11.
    """

    presets = PRESETS

    def __init__(self, config: JambaConfig, backend: str = "auto") -> None:
        blocks = [_block(config, Depth(layer, config.layers)) for layer in range(config.layers)]
        super().__init__(config, blocks, _norm(config, config.width), tied=config.tied)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        set_backend(self, backend)


def _norm(config: JambaConfig, width: int) -> nn.RMSNorm:
    return nn.RMSNorm(width, eps=config.norm_eps)


def _block(config: JambaConfig, depth: Depth) -> ResidualBlock:
    norms = (_norm(config, config.width) for _ in range(2))
    return ResidualBlock(_mixer(config, depth), _channel_mixer(config, depth), *norms)


def _mixer(config: JambaConfig, depth: Depth) -> Layer:
    if config.attention.holds(depth.layer):
        return GroupedAttention(config.width, config.heads, config.groups, config.width // config.heads, depth=depth)
    return MambaMixer(
        config.width,
        config.mixer_sizes,
        depth,
        bias=config.bias,
        conv_bias=config.conv_bias,
        selection_norm=partial(_norm, config),
    )


def _channel_mixer(config: JambaConfig, depth: Depth) -> Layer:
    if config.routing is None or not config.mixtures.holds(depth.layer):
        return SwiGLU(config.width, config.ffn_width, depth)
    return MixtureOfExperts(config.width, config.ffn_width, config.routing, depth)
