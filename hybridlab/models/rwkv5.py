"""RWKV-5.2 (Eagle): matrix-valued states with a decay of their own for every key channel, fixed once trained."""

from dataclasses import dataclass

from hybridlab.layers import Depth, Layer, RWKV5TimeMixing, RWKVChannelMixing
from hybridlab.models.config import Config
from hybridlab.models.language_model import Preset
from hybridlab.models.rwkv_skeleton import RWKVModel

SOURCE = "Eagle and Finch, arXiv 2404.05892, its table of model sizes"


@dataclass(frozen=True)
class RWKV5Config(Config):
    """Sizes of an RWKV-5.2 model.

    Attributes:
        head_width: K = V, width of a head's keys and values.
        heads: H; 0 is width / head_width.
        ffn_width: F, of the channel mixing; 0 is 3.5 D, rounded down to a multiple of 32.
        norm_eps: added to variances in the layer norms.
    """

    head_width: int = 64
    heads: int = 0
    ffn_width: int = 0
    norm_eps: float = 1e-5

    def derive(self) -> None:
        """Heads that fill the width; an FFN 3.5 times as wide."""
        self.derive_heads(self.head_width)
        self.fill("ffn_width", int(3.5 * self.width) // 32 * 32)


PRESETS = {
    "eagle-0.4b": Preset(RWKV5Config(65536, 1024, 24), SOURCE),
    "eagle-1.5b": Preset(RWKV5Config(65536, 2048, 24), SOURCE),
    "eagle-3b": Preset(RWKV5Config(65536, 2560, 32), SOURCE),
    "eagle-7b": Preset(RWKV5Config(65536, 4096, 32), SOURCE),
}


class RWKV5(RWKVModel):
    """RWKV-5.2 (Eagle). Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: RWKV5Config, backend: str = "auto") -> None:
        def mixers(depth: Depth) -> tuple[Layer, Layer]:
            time_mixing = RWKV5TimeMixing(config.width, config.heads, config.head_width, depth)
            return time_mixing, RWKVChannelMixing(config.width, config.ffn_width, depth)

        super().__init__(config, mixers, config.norm_eps, backend=backend)
