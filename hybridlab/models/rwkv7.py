"""RWKV-7 (Goose): states in which tokens replace one another, and whose every clock and rate depends on the token."""

from dataclasses import dataclass

from hybridlab.layers import Depth, Layer, RWKV7ChannelMixing, RWKV7Ranks, RWKV7TimeMixing
from hybridlab.models.config import Config
from hybridlab.models.language_model import Preset
from hybridlab.models.rwkv_skeleton import RWKVModel

SOURCE = "RWKV-7 Goose, arXiv 2503.14456, its table of model sizes and low-rank dimensions"


@dataclass(frozen=True)
class RWKV7Config(Config):
    """Sizes of an RWKV-7 model. A rank left at 0 is what the authors suggest for the width.

    Attributes:
        head_width: K = V, width of a head's keys and values.
        heads: H; 0 is width / head_width.
        ffn_width: F, of the channel mixing; 0 is 4 D.
        decay_rank: inner width of the network behind the decay.
        rate_rank: of the one behind the rate at which the state learns.
        value_rank: of the one that mixes in the first layer's values.
        gate_rank: of the one behind the gate.
        norm_eps: added to variances in the layer norms.
    """

    head_width: int = 64
    heads: int = 0
    ffn_width: int = 0
    decay_rank: int = 0
    rate_rank: int = 0
    value_rank: int = 0
    gate_rank: int = 0
    norm_eps: float = 1e-5

    def derive(self) -> None:
        """Heads that fill the width; an FFN four times as wide; the suggested ranks."""
        self.derive_heads(self.head_width)
        self.fill("ffn_width", 4 * self.width)
        for name, rank in RWKV7Ranks.suggested(self.width)._asdict().items():
            self.fill(f"{name}_rank", rank)

    @property
    def ranks(self) -> RWKV7Ranks:
        """The four of them."""
        return RWKV7Ranks(self.decay_rank, self.rate_rank, self.value_rank, self.gate_rank)


def _released(width: int, layers: int, *ranks: int) -> Preset:
    decay, rate, value, gate = ranks
    return Preset(
        RWKV7Config(65536, width, layers, decay_rank=decay, rate_rank=rate, value_rank=value, gate_rank=gate), SOURCE
    )


PRESETS = {
    "rwkv7-0.1b": _released(768, 12, 64, 64, 32, 128),
    "rwkv7-0.4b": _released(1024, 24, 64, 64, 32, 128),
    "rwkv7-1.5b": _released(2048, 24, 96, 96, 64, 256),
    "rwkv7-2.9b": _released(2560, 32, 96, 96, 64, 320),
}


class RWKV7(RWKVModel):
    """RWKV-7 (Goose). Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: RWKV7Config, backend: str = "auto") -> None:
        def mixers(depth: Depth) -> tuple[Layer, Layer]:
            sizes = (config.width, config.heads, config.head_width, config.ranks)
            time_mixing = RWKV7TimeMixing(*sizes, depth, first=depth.layer == 0)
            return time_mixing, RWKV7ChannelMixing(config.width, config.ffn_width, depth)

        super().__init__(config, mixers, config.norm_eps, backend=backend)
