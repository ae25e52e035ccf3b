"""Hawk: every layer an RG-LRU block and a gated MLP, one fading number a channel."""

from dataclasses import dataclass

from hybridlab.layers import Depth, RGLRUBlock
from hybridlab.models.griffin_skeleton import GriffinSkeleton, GriffinSkeletonConfig
from hybridlab.models.language_model import Preset

SOURCE = (
    "Griffin, arXiv 2402.19427, table 2 and section 4.1 (16 blocks in all experiments; the authors' code has 32 for 7B); "
    "vocabulary and embedding of the authors' code"
)


@dataclass(frozen=True)
class HawkConfig(GriffinSkeletonConfig):
    """Sizes of a Hawk."""


PRESETS = {
    "hawk-1b": Preset(HawkConfig(256_000, 2048, 24, inner=2560), SOURCE),
    "hawk-3b": Preset(HawkConfig(256_000, 3072, 24, inner=4096), SOURCE),
    "hawk-7b": Preset(HawkConfig(256_000, 4096, 32, inner=5632), SOURCE),
}


class Hawk(GriffinSkeleton):
    """Hawk. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: HawkConfig, backend: str = "auto") -> None:
        def mixer(depth: Depth) -> RGLRUBlock:
            return RGLRUBlock(config.width, config.inner, config.blocks, config.filter_width, depth)

        super().__init__(config, mixer, backend)
