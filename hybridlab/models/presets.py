"""All published models by name."""

from typing import NamedTuple

import torch

from hybridlab.models.based import Based
from hybridlab.models.config import Config
from hybridlab.models.decoder import Decoder
from hybridlab.models.falcon_mamba import FalconMamba
from hybridlab.models.gemma2 import Gemma2
from hybridlab.models.goldfinch import GoldFinch
from hybridlab.models.griffin import Griffin
from hybridlab.models.h3 import H3
from hybridlab.models.hawk import Hawk
from hybridlab.models.hyena import Hyena
from hybridlab.models.hymba import Hymba
from hybridlab.models.jamba import Jamba
from hybridlab.models.language_model import LanguageModel
from hybridlab.models.mamba import Mamba
from hybridlab.models.mamba2 import Mamba2
from hybridlab.models.mamba2_hybrid import Mamba2Hybrid
from hybridlab.models.recurrent_gemma import RecurrentGemma
from hybridlab.models.rwkv4 import RWKV4
from hybridlab.models.rwkv5 import RWKV5
from hybridlab.models.rwkv6 import RWKV6
from hybridlab.models.rwkv7 import RWKV7
from hybridlab.models.stripedhyena import StripedHyena
from hybridlab.models.zamba import Zamba
from hybridlab.models.zamba2 import Zamba2

ARCHITECTURES: tuple[type[LanguageModel], ...] = (
    RWKV4,
    RWKV5,
    RWKV6,
    RWKV7,
    Decoder,
    Gemma2,
    Mamba,
    FalconMamba,
    Mamba2,
    Hawk,
    Griffin,
    RecurrentGemma,
    H3,
    Hyena,
    StripedHyena,
    Based,
    GoldFinch,
    Hymba,
    Jamba,
    Mamba2Hybrid,
    Zamba,
    Zamba2,
)


class PublishedModel(NamedTuple):
    """A preset and the class that builds it."""

    architecture: type[LanguageModel]
    config: Config
    source: str


PRESETS = {
    name: PublishedModel(architecture, preset.config, preset.source)
    for architecture in ARCHITECTURES
    for name, preset in architecture.presets.items()
}


def from_preset(
    name: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> LanguageModel:
    """A published model at its published size, with random weights; see `LanguageModel.from_preset`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in PRESETS:
        raise ValueError(f"from_preset: unknown preset {name!r}; choose {', '.join(PRESETS)}")
    return PRESETS[name].architecture.from_preset(name, device=device, dtype=dtype, backend=backend)
