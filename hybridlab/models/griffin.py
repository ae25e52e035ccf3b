"""Griffin: two RG-LRU blocks, then one of local attention, and so on; each is followed by a gated MLP."""

from collections.abc import Callable
from dataclasses import dataclass

from hybridlab.layers import Depth, GriffinAttention, Layer, RGLRUBlock, Rotary
from hybridlab.layers.griffin_attention import HALF
from hybridlab.models.griffin_skeleton import GriffinSkeleton, GriffinSkeletonConfig
from hybridlab.models.language_model import Preset

SOURCE = (
    "Griffin, arXiv 2402.19427, table 2, section 3 (two recurrent blocks, then one of local attention, window 1024) and "
    "4.1 (16 blocks in all experiments; the authors' code has 32 for 7B); vocabulary, embedding and what a window is "
    "from the authors' code: a query sees 1024 keys beside its own"
)


@dataclass(frozen=True)
class GriffinConfig(GriffinSkeletonConfig):
    """Sizes of a Griffin.

    Attributes:
        pattern: what mixes tokens, one letter a layer: G, the RG-LRU block, or W, attention over a window (the letters of
            `HybridLM`). It is repeated, and cut where the layers end.
        heads: H, heads of queries; 0 is as many as fill the width.
        groups: G, heads of keys and values.
        head_width: K = V; 0 is width / heads, or 128.
        window: keys a query sees, itself included.
        rotary: positions; the first half of each head is turned if nothing is said.
        input_bias: whether queries, keys and values have biases.
    """

    pattern: str = "GGW"
    heads: int = 0
    groups: int = 1
    head_width: int = 0
    window: int = 1025
    rotary: Rotary = HALF
    input_bias: bool = False

    @property
    def letters(self) -> str:
        """One letter a layer."""
        return (self.pattern * self.layers)[: self.layers]

    def derive(self) -> None:
        """Heads that fill the width, each 128 wide if nothing is said."""
        super().derive()
        self.derive_heads(self.head_width or 128)
        self.fill("head_width", self.width // self.heads)

    def check(self) -> None:
        """Known letters, keys shared evenly, pairs of channels to turn."""
        super().check()
        known = isinstance(self.pattern, str) and bool(self.pattern) and set(self.pattern) <= set(MIXERS)
        self.require(known, "pattern", "letters G (the RG-LRU block) and W (attention over a window)")
        self.require(self.heads % self.groups == 0, "groups", f"a divisor of heads = {self.heads}")
        turned = self.rotary.turned(self.head_width)
        self.require(turned > 0 and turned % 2 == 0, "head_width", f"one of which pairs are turned ({turned} channels are)")


def _recurrent(config: GriffinConfig, depth: Depth) -> Layer:
    return RGLRUBlock(config.width, config.inner, config.blocks, config.filter_width, depth)


def _attention(config: GriffinConfig, depth: Depth) -> Layer:
    sizes = (config.width, config.heads, config.groups, config.head_width, config.window)
    return GriffinAttention(*sizes, config.rotary, config.input_bias, depth)


MIXERS: dict[str, Callable[[GriffinConfig, Depth], Layer]] = {"G": _recurrent, "W": _attention}

PRESETS = {
    "griffin-1b": Preset(GriffinConfig(256_000, 2048, 24, inner=2560), SOURCE),
    "griffin-3b": Preset(GriffinConfig(256_000, 3072, 24, inner=4096), SOURCE),
    "griffin-7b": Preset(GriffinConfig(256_000, 4096, 32, inner=5632), SOURCE),
    "griffin-14b": Preset(GriffinConfig(256_000, 5120, 40, inner=8192), SOURCE),
}


class Griffin(GriffinSkeleton):
    """Griffin. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: GriffinConfig, backend: str = "auto") -> None:
        def mixer(depth: Depth) -> Layer:
            return MIXERS[config.letters[depth.layer]](config, depth)

        super().__init__(config, mixer, backend)
