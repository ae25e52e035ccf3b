"""Mamba-2-Hybrid: a word says what each layer is, Mamba-2, attention or an MLP; a layer is one of them, not two."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from hybridlab.layers import (
    Depth,
    GroupedAttention,
    Layer,
    Mamba2Mixer,
    Mamba2Sizes,
    MixerBlock,
    PlainMLP,
    StreamNorm,
    set_backend,
)
from hybridlab.layers.mamba2_mixer import ANY_STEP, are_limits
from hybridlab.layers.plain_mlp import ACTIVATIONS
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel, Preset


@dataclass(frozen=True)
class Mamba2HybridConfig(Config):
    """Sizes of a Mamba-2-Hybrid.

    Attributes:
        pattern: one symbol a layer: M Mamba-2, * attention, - an MLP (the authors' symbols; not the letters of `HybridLM`,
            whose layers all have an MLP too).
        layers: L; 0 is the pattern's length. A longer model repeats the pattern.
        heads: H of attention; 0 is as many as fill the width.
        groups: G of attention, heads of keys and values; 0 is heads.
        head_width: K = V of attention.
        ffn_width: F, of the MLP; 0 is 4 D.
        activation: of the MLP: "gelu", "gelu by tanh" or "squared relu".
        ssm_heads: H of Mamba-2; 0 is as many as make an inner width of 2 D.
        ssm_head_width: P of Mamba-2.
        ssm_groups: G of Mamba-2: heads in a row that share B and C form so many groups; the gated norm has as many.
        state_size: N, length of the vectors B and C.
        filter_width: W, taps of Mamba-2's short convolution.
        step_limits: shortest and longest step that a token may take in Mamba-2.
        norm_eps: added to mean squares in all RMS norms.
        tied: whether the head is the embedding.
    """

    layers: int = 0
    pattern: str = "M-M*M-"
    heads: int = 0
    groups: int = 0
    head_width: int = 128
    ffn_width: int = 0
    activation: str = "gelu"
    ssm_heads: int = 0
    ssm_head_width: int = 64
    ssm_groups: int = 1
    state_size: int = 128
    filter_width: int = 4
    step_limits: tuple[float, float] = ANY_STEP
    norm_eps: float = 1e-5
    tied: bool = False

    @property
    def letters(self) -> str:
        """One symbol a layer."""
        return self.pattern * (self.layers // len(self.pattern))

    def derive(self) -> None:
        """As many layers as known symbols; attention as wide as the stream, Mamba-2 twice, the MLP four times."""
        self.require_letters("pattern", {symbol: kind.name for symbol, kind in SYMBOLS.items()})
        self.fill("layers", len(self.pattern))
        self.derive_heads(self.head_width)
        self.fill("groups", self.heads)
        self.fill("ffn_width", 4 * self.width)
        if not self.ssm_heads:
            fits = 2 * self.width % self.ssm_head_width == 0
            self.require(fits, "ssm_head_width", f"a divisor of 2 * width = {2 * self.width}, or ssm_heads given")
            self.fill("ssm_heads", 2 * self.width // self.ssm_head_width)

    def check(self) -> None:
        """Whole repetitions, a known activation; keys, B and C shared evenly; steps between 0 and infinity."""
        self.require(self.layers % len(self.pattern) == 0, "layers", f"a multiple of {len(self.pattern)} symbols")
        self.require(self.heads % self.groups == 0, "groups", f"a divisor of heads = {self.heads}")
        self.require(self.activation in ACTIVATIONS, "activation", f"one of {', '.join(ACTIVATIONS)}")
        self.require(self.ssm_heads % self.ssm_groups == 0, "ssm_groups", f"a divisor of ssm_heads = {self.ssm_heads}")
        self.require(are_limits(self.step_limits), "step_limits", "(shortest, longest), 0 <= shortest <= longest")

    @property
    def mixer_sizes(self) -> Mamba2Sizes:
        """The sizes of each Mamba-2 layer's mixer."""
        return Mamba2Sizes(self.ssm_heads, self.ssm_head_width, self.state_size, self.ssm_groups, self.filter_width)


class Symbol(NamedTuple):
    """What a symbol of a pattern means."""

    name: str
    mixer: Callable[[Mamba2HybridConfig, Depth], Layer]


def _mamba2(config: Mamba2HybridConfig, depth: Depth) -> Layer:
    sizes, limits = config.mixer_sizes, config.step_limits
    return Mamba2Mixer(config.width, sizes, depth, step_limits=limits, norm_eps=config.norm_eps)


def _attention(config: Mamba2HybridConfig, depth: Depth) -> Layer:
    return GroupedAttention(config.width, config.heads, config.groups, config.head_width, depth=depth)


def _mlp(config: Mamba2HybridConfig, depth: Depth) -> Layer:
    return PlainMLP(config.width, config.ffn_width, config.activation, depth)


SYMBOLS = {"M": Symbol("Mamba-2", _mamba2), "*": Symbol("attention", _attention), "-": Symbol("an MLP", _mlp)}

PRESETS = {
    "mamba2-hybrid-8b": Preset(
        Mamba2HybridConfig(
            256_000,
            4096,
            pattern="M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-",
            groups=8,
            ssm_groups=8,
        ),
        "An empirical study of Mamba-based language models, arXiv 2406.07887; pattern, width, heads and MLP from the "
        "authors' launch scripts, the Mamba-2 layers and eps the defaults of their code; the vocabulary is not confirmed",
    ),
}


class Mamba2Hybrid(LanguageModel):
    """x += mixer(norm(x)), the mixer Mamba-2, attention without positions, or an MLP of two matrices; norms are RMS norms.

    The authors' launch scripts say which layer is what, the width, 32 heads of attention with 8 groups of keys, no
    positions, no biases, RMS norms and an untied head. They leave the rest to the defaults of their code (read in a later
    version than the release's): an MLP of 4 D without gate, gelu, which without biases is computed exactly; N = 128, P =
    64, 8 groups of B and C, four taps with a bias, a gated norm in groups, steps without limits; eps 1e-5. Not confirmed by
    either is the vocabulary of 256,000. Nemotron-H, the successor, has the squared relu and a shortest step;
    `load_checkpoint` reads its folders, where they are without experts.

    Args:
        config: sizes.
        backend: what the layers pass to their ops.

    Source: arXiv 2406.07887, section 3, and its code. Chapter 10.
    """

    presets = PRESETS

    def __init__(self, config: Mamba2HybridConfig, backend: str = "auto") -> None:
        def block(symbol: str, depth: Depth) -> MixerBlock:
            return MixerBlock(SYMBOLS[symbol].mixer(config, depth), StreamNorm(config.width, eps=config.norm_eps))

        blocks = [block(symbol, Depth(layer, config.layers)) for layer, symbol in enumerate(config.letters)]
        super().__init__(config, blocks, StreamNorm(config.width, eps=config.norm_eps), tied=config.tied)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        set_backend(self, backend)
