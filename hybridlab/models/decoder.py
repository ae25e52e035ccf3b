"""The plain decoder (Llama, Mistral, Mixtral): grouped attention with rotary positions, RMS norms, one gated MLP or many."""

from dataclasses import dataclass

from torch import nn

from hybridlab.layers import (
    AttentionOptions,
    Depth,
    GroupedAttention,
    Layer,
    MixtureOfExperts,
    ResidualBlock,
    Rotary,
    Routing,
    Stretch,
    SwiGLU,
    set_backend,
)
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel, Preset

PLAIN = Rotary()


@dataclass(frozen=True)
class AttentionConfig(Config):
    """Sizes of a stack in which every layer is grouped attention and a gated MLP.

    Attributes:
        heads: H, heads of queries.
        groups: G, heads of keys and values; 0 is heads.
        head_width: K = V; 0 is width / heads.
        ffn_width: F, of the gated MLP; 0 is 8/3 D, rounded up to a multiple of 32.
        window: keys a query sees, itself included; None is all.
        rotary: positions; plain rotation with theta 1e4 if nothing is said.
        norm_eps: added to mean squares in the RMS norms.
    """

    heads: int = 0
    groups: int = 0
    head_width: int = 0
    ffn_width: int = 0
    window: int | None = None
    rotary: Rotary = PLAIN
    norm_eps: float = 1e-5

    def derive(self) -> None:
        """One group a head; heads that fill the width, each 64 wide if nothing is said; an MLP of 8/3 the width."""
        self.fill("heads", max(1, self.width // (self.head_width or 64)))
        self.fill("groups", self.heads)
        self.fill("head_width", self.width // self.heads)
        self.fill("ffn_width", -(-8 * self.width // 96) * 32)

    def check(self) -> None:
        """Heads share keys evenly, and rotation turns pairs of channels."""
        self.require(self.heads % self.groups == 0, "groups", f"a divisor of heads = {self.heads}")
        self.require(self.head_width % 2 == 0, "head_width", "an even number (rotation turns pairs)")


@dataclass(frozen=True)
class DecoderConfig(AttentionConfig):
    """Sizes of a plain decoder.

    Attributes:
        tied: whether the head is the embedding.
        attention_bias: whether the maps of attention have biases.
        routing: of a mixture of experts, each F wide, in the place of the MLP; None is one MLP.
    """

    tied: bool = False
    attention_bias: bool = False
    routing: Routing | None = None

    def check(self) -> None:
        """As for all attention, and each token goes through some of the experts."""
        super().check()
        possible = self.routing is None or 1 <= self.routing.active <= self.routing.experts
        self.require(possible, "routing", "None, or at least 1 active expert and no more than there are")


LLAMA_3_1 = Rotary(500_000.0, Stretch(factor=8.0, low=1.0, high=4.0, trained=8192))
LLAMA_3_2 = Rotary(500_000.0, Stretch(factor=32.0, low=1.0, high=4.0, trained=8192))
MISTRAL = Rotary(1_000_000.0)
LLAMA_3_1_SOURCE = "The Llama 3 herd of models, arXiv 2407.21783, table 3; the released configuration for the stretch"

PRESETS = {
    "llama-2-7b": Preset(
        DecoderConfig(32_000, 4096, 32, heads=32, ffn_width=11_008),
        "Llama 2, arXiv 2307.09288, table 1; the released configuration for layers, heads, MLP and eps",
    ),
    "llama-3.1-8b": Preset(
        DecoderConfig(128_256, 4096, 32, heads=32, groups=8, ffn_width=14_336, rotary=LLAMA_3_1), LLAMA_3_1_SOURCE
    ),
    "llama-3.1-70b": Preset(
        DecoderConfig(128_256, 8192, 80, heads=64, groups=8, ffn_width=28_672, rotary=LLAMA_3_1), LLAMA_3_1_SOURCE
    ),
    "llama-3.2-3b": Preset(
        DecoderConfig(128_256, 3072, 28, heads=24, groups=8, ffn_width=8192, rotary=LLAMA_3_2, tied=True),
        "the released configuration",
    ),
    "mistral-7b": Preset(
        DecoderConfig(32_000, 4096, 32, heads=32, groups=8, ffn_width=14_336, rotary=MISTRAL),
        "Mistral 7B, arXiv 2310.06825, table 1; no window and theta 1e6 as released from v0.2 on",
    ),
    "mixtral-8x7b": Preset(
        DecoderConfig(32_000, 4096, 32, heads=32, groups=8, ffn_width=14_336, rotary=MISTRAL, routing=Routing(8, 2)),
        "Mixtral of experts, arXiv 2401.04088, table 1; no window and theta 1e6 as released",
    ),
    "mixtral-8x22b": Preset(
        DecoderConfig(32_000, 6144, 56, heads=48, groups=8, ffn_width=16_384, rotary=MISTRAL, routing=Routing(8, 2)),
        "the released configuration of v0.1 (v0.3 has 768 tokens more)",
    ),
}


class Decoder(LanguageModel):
    """The plain decoder. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: DecoderConfig, backend: str = "auto") -> None:
        blocks = [_block(config, Depth(layer, config.layers)) for layer in range(config.layers)]
        super().__init__(config, blocks, _norm(config), tied=config.tied)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        set_backend(self, backend)


def _norm(config: DecoderConfig) -> nn.RMSNorm:
    return nn.RMSNorm(config.width, eps=config.norm_eps)


def _block(config: DecoderConfig, depth: Depth) -> ResidualBlock:
    attention = GroupedAttention(
        config.width,
        config.heads,
        config.groups,
        config.head_width,
        config.window,
        config.rotary,
        depth,
        AttentionOptions(bias=config.attention_bias),
    )
    return ResidualBlock(attention, _channel_mixer(config, depth), _norm(config), _norm(config))


def _channel_mixer(config: DecoderConfig, depth: Depth) -> Layer:
    if config.routing is None:
        return SwiGLU(config.width, config.ffn_width, depth)
    return MixtureOfExperts(config.width, config.ffn_width, config.routing, depth)
