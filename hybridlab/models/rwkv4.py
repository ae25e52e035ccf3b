"""RWKV-4: every channel a fading average."""

from dataclasses import dataclass

from hybridlab.layers import Depth, Layer, RWKV4TimeMixing, RWKVChannelMixing
from hybridlab.models.config import Config
from hybridlab.models.language_model import Preset
from hybridlab.models.rwkv_skeleton import RWKVModel

SOURCE = "RWKV, arXiv 2305.13048, its table of model sizes"


@dataclass(frozen=True)
class RWKV4Config(Config):
    """Sizes of an RWKV-4 model.

    Attributes:
        attention_width: C, channels of the time mixing; 0 is width.
        ffn_width: F, of the channel mixing; 0 is 4 D.
        norm_eps: added to variances in the layer norms.
        tied: whether the head is the embedding.
    """

    attention_width: int = 0
    ffn_width: int = 0
    norm_eps: float = 1e-5
    tied: bool = False

    def derive(self) -> None:
        """As many channels as the stream has; an FFN four times as wide."""
        self.fill("attention_width", self.width)
        self.fill("ffn_width", 4 * self.width)


PRESETS = {
    "rwkv4-169m": Preset(RWKV4Config(50277, 768, 12), SOURCE),
    "rwkv4-430m": Preset(RWKV4Config(50277, 1024, 24), SOURCE),
    "rwkv4-1.5b": Preset(RWKV4Config(50277, 2048, 24), SOURCE),
    "rwkv4-3b": Preset(RWKV4Config(50277, 2560, 32), SOURCE),
    "rwkv4-7b": Preset(RWKV4Config(50277, 4096, 32), SOURCE),
    "rwkv4-14b": Preset(RWKV4Config(50277, 5120, 40), SOURCE),
}


class RWKV4(RWKVModel):
    """RWKV-4. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: RWKV4Config, backend: str = "auto") -> None:
        def mixers(depth: Depth) -> tuple[Layer, Layer]:
            time_mixing = RWKV4TimeMixing(config.width, config.attention_width, depth)
            return time_mixing, RWKVChannelMixing(config.width, config.ffn_width, depth)

        super().__init__(config, mixers, config.norm_eps, config.tied, backend)
