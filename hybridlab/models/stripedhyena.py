"""StripedHyena: attention and Hyena's gated convolutions in turn, with filters of waves: only attention's state grows."""

from dataclasses import dataclass

from torch import nn

from hybridlab.layers import (
    AttentionOptions,
    Depth,
    GroupedAttention,
    Layer,
    ResidualBlock,
    RootRMSNorm,
    Rotary,
    StripedHyenaMixer,
    StripedHyenaSizes,
    SwiGLU,
    set_backend,
)
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel, Preset

PLAIN = Rotary()


@dataclass(frozen=True)
class StripedHyenaConfig(Config):
    """Sizes of a StripedHyena.

    Attributes:
        heads: H, heads of queries; the mixer's projections lie by as many.
        groups: G, heads of keys and values in attention; 0 is heads.
        attention_layers: which layers attend, counted from 0; None is every second one, beginning with layer 1.
        ffn_width: F, of the gated MLP; 0 is 8/3 D, rounded up to a multiple of 64.
        state_size: N, waves a filter.
        filter_width: W, taps of the short convolution.
        filter_bias: whether the short convolution has biases.
        by_head: whether the projections of the mixers lie head by head, or in three parts of the whole width.
        rotary: positions in attention.
        attention_bias: whether attention's maps have biases.
        norm_eps: added to the roots in the RMS norms.
        tied: whether the head is the embedding.
    """

    heads: int = 0
    groups: int = 0
    attention_layers: tuple[int, ...] | None = None
    ffn_width: int = 0
    state_size: int = 2
    filter_width: int = 3
    filter_bias: bool = True
    by_head: bool = True
    rotary: Rotary = PLAIN
    attention_bias: bool = False
    norm_eps: float = 1e-5
    tied: bool = False

    def derive(self) -> None:
        """Heads of 128 channels, one group a head, attention in every second layer, a SwiGLU of 8/3 the width."""
        self.fill("heads", max(1, self.width // 128))
        self.fill("groups", self.heads)
        self.fill("ffn_width", -(-(8 * self.width // 3) // 64) * 64)
        if self.attention_layers is None:
            self.fill("attention_layers", tuple(range(1, self.layers, 2)))

    def check(self) -> None:
        """Heads that fill the width and share keys evenly, layers that exist."""
        self.require(self.width % self.heads == 0, "heads", f"a divisor of width = {self.width}")
        self.require(
            self.width // self.heads % 2 == 0, "heads", "heads of an even number of channels (rotation turns pairs)"
        )
        self.require(self.heads % self.groups == 0, "groups", f"a divisor of heads = {self.heads}")
        known = set(self.attention_layers or ()) <= set(range(self.layers))
        self.require(known, "attention_layers", f"numbers from 0 to {self.layers - 1}")

    @property
    def letters(self) -> str:
        """What mixes the tokens of each layer: A attention, H Hyena's convolution."""
        return "".join("A" if layer in (self.attention_layers or ()) else "H" for layer in range(self.layers))

    @property
    def mixer_sizes(self) -> StripedHyenaSizes:
        """The sizes of each convolving layer's mixer."""
        heads = self.heads if self.by_head else None
        return StripedHyenaSizes(self.state_size, self.filter_width, self.filter_bias, heads)


PRESETS = {
    "stripedhyena-7b": Preset(
        StripedHyenaConfig(32_000, 4096, 32, heads=32, groups=8, ffn_width=14_336, rotary=Rotary(500_000.0)),
        "StripedHyena-Hessian-7B: the authors' configuration (togethercomputer/stripedhyena, configs/7b-sh-32k-v0.1.yml)",
    ),
}


class StripedHyena(LanguageModel):
    """StripedHyena. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: StripedHyenaConfig, backend: str = "auto") -> None:
        blocks = [_block(config, Depth(layer, config.layers)) for layer in range(config.layers)]
        super().__init__(config, blocks, _norm(config), tied=config.tied)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        set_backend(self, backend)


def _norm(config: StripedHyenaConfig) -> RootRMSNorm:
    return RootRMSNorm(config.width, config.norm_eps)


def _block(config: StripedHyenaConfig, depth: Depth) -> ResidualBlock:
    channel_mixer = SwiGLU(config.width, config.ffn_width, depth)
    return ResidualBlock(_mixer(config, depth), channel_mixer, _norm(config), _norm(config))


def _mixer(config: StripedHyenaConfig, depth: Depth) -> Layer:
    if config.letters[depth.layer] == "H":
        return StripedHyenaMixer(config.width, config.mixer_sizes)
    head_width, options = config.width // config.heads, AttentionOptions(bias=config.attention_bias)
    return GroupedAttention(config.width, config.heads, config.groups, head_width, None, config.rotary, depth, options)
