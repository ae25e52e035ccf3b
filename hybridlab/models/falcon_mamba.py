"""Falcon-Mamba: a Mamba that norms what each token selects, which keeps the training of a large one stable."""

from dataclasses import dataclass
from functools import partial

from torch import nn

from hybridlab.layers import Depth, MambaMixer
from hybridlab.models.language_model import Preset
from hybridlab.models.mamba import MambaConfig
from hybridlab.models.mamba_skeleton import MambaSkeleton


@dataclass(frozen=True)
class FalconMambaConfig(MambaConfig):
    """Sizes of a Falcon-Mamba.

    Attributes:
        selection_eps: added to mean squares in the norms, without weights, of what gives the steps, B and C.
    """

    selection_eps: float = 1e-6


PRESETS = {
    "falcon-mamba-7b": Preset(
        FalconMambaConfig(65_024, 4096, 64, tied=False),
        "Falcon Mamba, arXiv 2410.05355, its architecture; the released configuration for the vocabulary",
    ),
}


class FalconMamba(MambaSkeleton):
    """Falcon-Mamba. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: FalconMambaConfig, backend: str = "auto") -> None:
        norm = partial(nn.RMSNorm, eps=config.selection_eps, elementwise_affine=False)

        def mixer(depth: Depth) -> MambaMixer:
            return MambaMixer(
                config.width,
                config.mixer_sizes,
                depth,
                bias=config.bias,
                conv_bias=config.conv_bias,
                selection_norm=norm,
            )

        super().__init__(config, mixer, backend)
