"""RWKV-6 (Finch): matrix-valued states whose decay and mixing depend on the token."""

from dataclasses import dataclass

from hybridlab.layers import Depth, Layer, RWKV6ChannelMixing, RWKV6TimeMixing
from hybridlab.models.config import Config
from hybridlab.models.language_model import Preset
from hybridlab.models.rwkv_skeleton import RWKVModel

SOURCE = "Eagle and Finch, arXiv 2404.05892, its table of model sizes"


@dataclass(frozen=True)
class RWKV6Config(Config):
    """Sizes of an RWKV-6 model.

    Attributes:
        head_width: K = V, width of a head's keys and values.
        heads: H; 0 is width / head_width.
        ffn_width: F, of the channel mixing; 0 is 3.5 D, rounded down to a multiple of 32.
        mix_rank: inner width of the network that mixes tokens.
        decay_rank: inner width of the network behind the decay.
        norm_eps: added to variances in the layer norms.
    """

    head_width: int = 64
    heads: int = 0
    ffn_width: int = 0
    mix_rank: int = 32
    decay_rank: int = 64
    norm_eps: float = 1e-5

    def derive(self) -> None:
        """Heads that fill the width; an FFN 3.5 times as wide."""
        self.derive_heads(self.head_width)
        self.fill("ffn_width", int(3.5 * self.width) // 32 * 32)


PRESETS = {
    "finch-1.6b": Preset(RWKV6Config(65536, 2048, 24), SOURCE),
    "finch-3.1b": Preset(RWKV6Config(65536, 2560, 32), SOURCE),
}


class RWKV6(RWKVModel):
    """RWKV-6 (Finch). Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: RWKV6Config, backend: str = "auto") -> None:
        def mixers(depth: Depth) -> tuple[Layer, Layer]:
            time_mixing = RWKV6TimeMixing(
                config.width, config.heads, config.head_width, config.mix_rank, config.decay_rank, depth
            )
            return time_mixing, RWKV6ChannelMixing(config.width, config.ffn_width, depth)

        super().__init__(config, mixers, config.norm_eps, backend=backend)
