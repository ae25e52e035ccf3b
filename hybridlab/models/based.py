"""Based: gated short filters in most layers, and a few of linear attention for the far past and of a window for the near.

The two mixers agree with outputs of the authors' code. The frame around them was put together by reading that code (and
those of GPT-2 and flash-attn that it uses); no output of a whole model was at hand to compare it with.
"""

from dataclasses import dataclass

from torch import nn

from hybridlab.layers import (
    BaseConv,
    Depth,
    GroupedAttention,
    Layer,
    ResidualBlock,
    Rotary,
    SwiGLU,
    TaylorMixer,
    set_backend,
)
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel, Preset
from hybridlab.models.safari_skeleton import GPT2_VOCABULARY

SOURCE = (
    "Based, arXiv 2402.18668; the authors' configurations based-360m and based-1b (HazyResearch/based, train/configs/"
    "experiment/reference). Their window_size of 256 is halved by their code and leaves 128 keys beside the query's own; "
    "an earlier version of based-360m has 128, which leaves 64"
)


@dataclass(frozen=True)
class BasedConfig(Config):
    """Sizes of a Based; layers that are not listed filter.

    Attributes:
        taylor_layers: which layers have linear attention, counted from 0.
        window_layers: which layers attend over a window.
        heads: H, of both; each has values of width / H.
        key_width: K, of linear attention.
        window: W, keys that a query sees under the window, its own included.
        filter_width: taps of the filters.
        ffn_width: F, of the gated MLP; 0 is 2 D, rounded up to a multiple of 256.
        norm_eps: added to mean squares in the RMS norms.
    """

    taylor_layers: tuple[int, ...] = ()
    window_layers: tuple[int, ...] = ()
    heads: int = 16
    key_width: int = 16
    window: int = 129
    filter_width: int = 3
    ffn_width: int = 0
    norm_eps: float = 1e-5

    def derive(self) -> None:
        """An MLP twice as wide as the stream."""
        self.fill("ffn_width", -(-2 * self.width // 256) * 256)

    def check(self) -> None:
        """Heads that fill the width, pairs of channels to turn, layers that exist, each of one kind."""
        self.require(self.width % self.heads == 0, "heads", f"a divisor of width = {self.width}")
        turned = self.width // self.heads % 2 == 0 or not self.window_layers
        self.require(turned, "heads", f"heads of an even width in width = {self.width} (rotation turns pairs)")
        known = set(range(self.layers))
        for name in ("taylor_layers", "window_layers"):
            self.require(set(getattr(self, name)) <= known, name, f"numbers from 0 to {self.layers - 1}")
        apart = not set(self.taylor_layers) & set(self.window_layers)
        self.require(apart, "window_layers", f"none of taylor_layers = {self.taylor_layers}")

    @property
    def letters(self) -> str:
        """What mixes the tokens of each layer: B linear attention, W a window, C a filter."""
        return "".join(self._letter(layer) for layer in range(self.layers))

    def _letter(self, layer: int) -> str:
        if layer in self.taylor_layers:
            return "B"
        return "W" if layer in self.window_layers else "C"


PRESETS = {
    "based-360m": Preset(
        BasedConfig(GPT2_VOCABULARY, 1024, 27, taylor_layers=(1, 6, 11, 16, 21), window_layers=(2, 7, 12, 17, 22)), SOURCE
    ),
    "based-1.3b": Preset(
        BasedConfig(
            GPT2_VOCABULARY,
            1792,
            36,
            taylor_layers=(1, 6, 11, 16, 21, 27, 33),
            window_layers=(2, 7, 12, 17, 22, 28, 34),
        ),
        SOURCE,
    ),
}


class Based(LanguageModel):
    """Based: x += mixer(norm x), x += mlp(norm x), norm, and the embedding again as the head.

    The authors keep the sum x in float32 in a model of narrower numbers; here it has the dtype of the weights.

    Args:
        config: sizes.
        backend: what the layers pass to their ops.

    Source: arXiv 2402.18668, section 4, and the authors' code. Chapter 07.
    """

    presets = PRESETS

    def __init__(self, config: BasedConfig, backend: str = "auto") -> None:
        blocks = [_block(config, Depth(layer, config.layers)) for layer in range(config.layers)]
        super().__init__(config, blocks, _norm(config), tied=True)
        nn.init.normal_(self.embedding.weight, std=0.02)
        set_backend(self, backend)


def _norm(config: BasedConfig) -> nn.RMSNorm:
    return nn.RMSNorm(config.width, eps=config.norm_eps)


def _block(config: BasedConfig, depth: Depth) -> ResidualBlock:
    mlp = SwiGLU(config.width, config.ffn_width, depth)
    return ResidualBlock(_mixer(config, depth), mlp, _norm(config), _norm(config))


def _mixer(config: BasedConfig, depth: Depth) -> Layer:
    letter, head_width = config.letters[depth.layer], config.width // config.heads
    if letter == "B":
        return TaylorMixer(config.width, config.heads, config.key_width, head_width, depth)
    if letter == "W":
        return GroupedAttention(config.width, config.heads, config.heads, head_width, config.window, Rotary(), depth)
    return BaseConv(config.width, 2 * config.width, config.filter_width, depth)
