"""H3: two state-space memories with gates between them in almost every layer, attention in a few."""

from dataclasses import dataclass

from hybridlab.layers import AttentionOptions, Depth, GroupedAttention, H3Mixer, Layer, Rotary
from hybridlab.models.language_model import Preset
from hybridlab.models.safari_skeleton import GPT2_VOCABULARY, SafariConfig, SafariSkeleton

SOURCE = (
    "H3, arXiv 2212.14052; the authors' code and the command for model-2attn-rotary.pt in its examples (HazyResearch/H3): "
    "attention at 10 and 21, rotary on 64 of the 128 channels of a head, memories of 64 numbers, one channel a head"
)
BIASED = AttentionOptions(bias=True)


@dataclass(frozen=True)
class H3Config(SafariConfig):
    """Sizes of an H3.

    Attributes:
        state_size: N, taps of the shift memory; the waves are N / 2 complex numbers.
        head_width: K, channels of keys and values whose outer product is remembered; 1 is channel by channel.
        attention_layers: which layers attend instead, counted from 0.
        heads: of attention; each is width / heads wide.
        rotary: positions in attention; None is none.
    """

    state_size: int = 64
    head_width: int = 1
    attention_layers: tuple[int, ...] = ()
    heads: int = 0
    rotary: Rotary | None = None

    def derive(self) -> None:
        """Attention heads of 64 channels, if nothing is said."""
        super().derive()
        self.fill("heads", max(1, self.width // 64))

    def check(self) -> None:
        """Waves in pairs, heads that fill the width, pairs of channels to turn, layers that exist."""
        self.require(self.state_size % 2 == 0, "state_size", "an even number (complex numbers are pairs)")
        self.require(self.width % self.head_width == 0, "head_width", f"a divisor of width = {self.width}")
        self.require(self.width % self.heads == 0, "heads", f"a divisor of width = {self.width}")
        width = self.width // self.heads
        whole = self.rotary is None or (0 < self.rotary.turned(width) <= width and self.rotary.turned(width) % 2 == 0)
        self.require(whole, "rotary", f"pairs of a head's {width} channels to be turned")
        known = set(self.attention_layers) <= set(range(self.layers))
        self.require(known, "attention_layers", f"numbers from 0 to {self.layers - 1}")

    @property
    def letters(self) -> str:
        """What mixes the tokens of each layer: A attention, H the two memories of H3."""
        return "".join("A" if layer in self.attention_layers else "H" for layer in range(self.layers))


PRESETS = {
    "h3-2.7b": Preset(
        H3Config(GPT2_VOCABULARY, 2560, 32, attention_layers=(10, 21), heads=20, rotary=Rotary(fraction=0.5)),
        SOURCE,
    ),
}


class H3(SafariSkeleton):
    """H3. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: H3Config, backend: str = "auto") -> None:
        def mixer(depth: Depth) -> Layer:
            if config.letters[depth.layer] == "H":
                return H3Mixer(config.width, config.state_size, config.head_width)
            head_width = config.width // config.heads
            return GroupedAttention(config.width, config.heads, config.heads, head_width, None, config.rotary, depth, BIASED)

        super().__init__(config, mixer, backend)
