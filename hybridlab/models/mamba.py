"""Mamba: every layer is one mixer whose memory chooses, token by token, what to keep and what to write."""

from dataclasses import dataclass

from hybridlab.layers import Depth, MambaMixer, MambaSizes
from hybridlab.models.language_model import Preset
from hybridlab.models.mamba_skeleton import MambaSkeleton, MambaSkeletonConfig

SOURCE = "Mamba, arXiv 2312.00752, the model sizes in its appendix; the released configurations for the vocabulary"


@dataclass(frozen=True)
class MambaConfig(MambaSkeletonConfig):
    """Sizes of a Mamba.

    Attributes:
        rank: inner width of the map that finds a token's steps; 0 is D / 16, rounded up.
    """

    rank: int = 0

    def derive(self) -> None:
        """A mixer twice as wide as the stream; a rank of a sixteenth of it."""
        super().derive()
        self.fill("rank", -(-self.width // 16))

    @property
    def mixer_sizes(self) -> MambaSizes:
        """The sizes of each layer's mixer."""
        return MambaSizes(self.inner, self.rank, self.state_size, self.filter_width)


PRESETS = {
    "mamba-130m": Preset(MambaConfig(50_280, 768, 24), SOURCE),
    "mamba-370m": Preset(MambaConfig(50_280, 1024, 48), SOURCE),
    "mamba-790m": Preset(MambaConfig(50_280, 1536, 48), SOURCE),
    "mamba-1.4b": Preset(MambaConfig(50_280, 2048, 48), SOURCE),
    "mamba-2.8b": Preset(MambaConfig(50_280, 2560, 64), SOURCE),
}


class Mamba(MambaSkeleton):
    """Mamba. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: MambaConfig, backend: str = "auto") -> None:
        def mixer(depth: Depth) -> MambaMixer:
            return MambaMixer(config.width, config.mixer_sizes, depth, bias=config.bias, conv_bias=config.conv_bias)

        super().__init__(config, mixer, backend)
