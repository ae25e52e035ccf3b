"""Any hybrid, from a word: one letter a layer says what mixes its tokens. Everything else is the same in all layers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from hybridlab.layers import (
    DeltaMixer,
    Depth,
    GroupedAttention,
    HyenaMixer,
    HyenaSizes,
    Layer,
    Mamba2Mixer,
    Mamba2Sizes,
    MambaMixer,
    MambaSizes,
    ResidualBlock,
    RetentionMixer,
    RGLRUBlock,
    Rotary,
    RWKV4TimeMixing,
    RWKV5TimeMixing,
    RWKV6TimeMixing,
    RWKV7TimeMixing,
    SwiGLU,
    TaylorMixer,
    set_backend,
)
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel

# Based's: a key of K numbers has 1 + K + K^2 features.
SHORT_KEYS = 16


@dataclass(frozen=True)
class HybridConfig(Config):
    """Sizes of a hybrid.

    Attributes:
        pattern: one letter of `LETTERS` a layer, such as "RRRA" or "MMMAMMMM".
        layers: L; 0 is the pattern's length. A longer model repeats the pattern.
        head_width: K = V of every mixer with heads; Based's K is 16 at most.
        heads: H; 0 is width / head_width.
        groups: G, heads of keys and values in attention; 0 is heads.
        window: W of window attention, the query itself included.
        taps: of Hyena's filters: what was longer ago is not seen.
        ffn_width: F, of the gated MLP; 0 is 8/3 D, rounded up to a multiple of 32.
        norm_eps: added to mean squares in the RMS norms.
    """

    layers: int = 0
    pattern: str = "RRRA"
    head_width: int = 64
    heads: int = 0
    groups: int = 0
    window: int = 128
    taps: int = 2048
    ffn_width: int = 0
    norm_eps: float = 1e-5

    def derive(self) -> None:
        """As many layers as known letters; heads that fill the width; a SwiGLU of 8/3 the width."""
        self.require_letters("pattern", {letter: kind.name for letter, kind in LETTERS.items()})
        self.fill("layers", len(self.pattern))
        self.derive_heads(self.head_width)
        self.fill("groups", self.heads)
        self.fill("ffn_width", -(-8 * self.width // 96) * 32)

    def check(self) -> None:
        """Whole repetitions, keys shared evenly."""
        self.require(self.layers % len(self.pattern) == 0, "layers", f"a multiple of {len(self.pattern)} letters")
        self.require(self.heads % self.groups == 0, "groups", f"a divisor of heads = {self.heads}")


class Letter(NamedTuple):
    """What a letter of a pattern means."""

    name: str
    mixer: Callable[[HybridConfig, Depth], Layer]


def _rwkv4(config: HybridConfig, depth: Depth) -> Layer:
    return RWKV4TimeMixing(config.width, config.heads * config.head_width, depth)


def _rwkv5(config: HybridConfig, depth: Depth) -> Layer:
    return RWKV5TimeMixing(config.width, config.heads, config.head_width, depth)


def _rwkv6(config: HybridConfig, depth: Depth) -> Layer:
    return RWKV6TimeMixing(config.width, config.heads, config.head_width, depth=depth)


def _rwkv7(config: HybridConfig, depth: Depth) -> Layer:
    first = depth.layer == config.pattern.index("V")
    return RWKV7TimeMixing(config.width, config.heads, config.head_width, depth=depth, first=first)


def _delta(config: HybridConfig, depth: Depth) -> Layer:
    return DeltaMixer(config.width, config.heads, config.head_width)


def _taylor(config: HybridConfig, depth: Depth) -> Layer:
    key_width = min(config.head_width, SHORT_KEYS)
    return TaylorMixer(config.width, config.heads, key_width, config.head_width, depth)


def _mamba(config: HybridConfig, depth: Depth) -> Layer:
    return MambaMixer(config.width, MambaSizes(2 * config.width, -(-config.width // 16)), depth)


def _mamba2(config: HybridConfig, depth: Depth) -> Layer:
    return Mamba2Mixer(config.width, Mamba2Sizes(2 * config.heads, config.head_width, 2 * config.head_width), depth)


def _rg_lru(config: HybridConfig, depth: Depth) -> Layer:
    return RGLRUBlock(config.width, config.heads * config.head_width, config.heads, depth=depth)


def _retention(config: HybridConfig, depth: Depth) -> Layer:
    return RetentionMixer(config.width, config.heads, config.head_width, config.head_width)


def _hyena(config: HybridConfig, depth: Depth) -> Layer:
    return HyenaMixer(config.width, HyenaSizes(taps=config.taps), depth)


def _attention(config: HybridConfig, depth: Depth) -> Layer:
    return _attention_within(config, depth, None)


def _window_attention(config: HybridConfig, depth: Depth) -> Layer:
    return _attention_within(config, depth, config.window)


def _attention_within(config: HybridConfig, depth: Depth, window: int | None) -> Layer:
    return GroupedAttention(
        config.width, config.heads, config.groups, config.head_width, window, rotary=Rotary(), depth=depth
    )


LETTERS = {
    "A": Letter("attention", _attention),
    "W": Letter("window attention", _window_attention),
    "P": Letter("RWKV-4 time mixing, the first generation, trained on the Pile", _rwkv4),
    "E": Letter("RWKV-5 time mixing, Eagle", _rwkv5),
    "R": Letter("RWKV-6 time mixing, Finch", _rwkv6),
    "M": Letter("Mamba, a selective scan", _mamba),
    "S": Letter("Mamba-2, state-space duality", _mamba2),
    "T": Letter("retention, of RetNet", _retention),
    "G": Letter("Griffin's recurrent block, RG-LRU", _rg_lru),
    "H": Letter("Hyena, a long convolution with gates", _hyena),
    "B": Letter("Based's linear attention, with Taylor features", _taylor),
    "V": Letter("RWKV-7 time mixing, Goose", _rwkv7),
    "D": Letter("DeltaNet's delta rule", _delta),
}


class HybridLM(LanguageModel):
    """A stack of different mixers, each followed by the same gated MLP, all behind RMS norms.

    Any order goes: `HybridLM(HybridConfig(256, 512, pattern="MMMAMMMM"))` is a byte model of eight layers of which the
    fourth attends, the others are Mamba. It begins with Mamba as MambaFormer does (arXiv 2402.04248); there the Mamba
    layers also take the place of the MLPs and of positions, here every layer has an MLP and attention turns its keys.

    Args:
        config: sizes, and the pattern.
        backend: what the layers pass to their ops.
    """

    def __init__(self, config: HybridConfig, backend: str = "auto") -> None:
        letters = config.pattern * (config.layers // len(config.pattern))
        blocks = [_block(config, letter, Depth(i, config.layers)) for i, letter in enumerate(letters)]
        super().__init__(config, blocks, nn.RMSNorm(config.width, eps=config.norm_eps))
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        set_backend(self, backend)


def _block(config: HybridConfig, letter: str, depth: Depth) -> ResidualBlock:
    norms = (nn.RMSNorm(config.width, eps=config.norm_eps) for _ in range(2))
    return ResidualBlock(LETTERS[letter].mixer(config, depth), SwiGLU(config.width, config.ffn_width, depth), *norms)
