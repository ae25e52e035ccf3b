"""The published architectures: configurations, presets, assembly, and one loader for all their checkpoints."""

from hybridlab.layers.layer import set_backend
from hybridlab.models.based import Based, BasedConfig
from hybridlab.models.checkpoint import load_checkpoint
from hybridlab.models.decoder import Decoder, DecoderConfig
from hybridlab.models.falcon_mamba import FalconMamba, FalconMambaConfig
from hybridlab.models.gemma2 import Gemma2, Gemma2Config
from hybridlab.models.goldfinch import GoldFinch, GoldFinchConfig
from hybridlab.models.griffin import Griffin, GriffinConfig
from hybridlab.models.griffin_model import GriffinModel
from hybridlab.models.h3 import H3, H3Config
from hybridlab.models.hawk import Hawk, HawkConfig
from hybridlab.models.hybrid import LETTERS, HybridConfig, HybridLM
from hybridlab.models.hyena import Hyena, HyenaConfig
from hybridlab.models.hymba import Hymba, HymbaConfig
from hybridlab.models.jamba import Jamba, JambaConfig
from hybridlab.models.language_model import LanguageModel, ModelOutput
from hybridlab.models.mamba import Mamba, MambaConfig
from hybridlab.models.mamba2 import Mamba2, Mamba2Config
from hybridlab.models.mamba2_hybrid import Mamba2Hybrid, Mamba2HybridConfig
from hybridlab.models.presets import PRESETS, from_preset
from hybridlab.models.recurrent_gemma import RecurrentGemma, RecurrentGemmaConfig
from hybridlab.models.retnet import RetNet, RetNetConfig
from hybridlab.models.rwkv4 import RWKV4, RWKV4Config
from hybridlab.models.rwkv5 import RWKV5, RWKV5Config
from hybridlab.models.rwkv6 import RWKV6, RWKV6Config
from hybridlab.models.rwkv7 import RWKV7, RWKV7Config
from hybridlab.models.stripedhyena import StripedHyena, StripedHyenaConfig
from hybridlab.models.zamba import Zamba, ZambaConfig
from hybridlab.models.zamba2 import Zamba2, Zamba2Config

__all__ = [
    "H3",
    "LETTERS",
    "PRESETS",
    "RWKV4",
    "RWKV5",
    "RWKV6",
    "RWKV7",
    "Based",
    "BasedConfig",
    "Decoder",
    "DecoderConfig",
    "FalconMamba",
    "FalconMambaConfig",
    "Gemma2",
    "Gemma2Config",
    "GoldFinch",
    "GoldFinchConfig",
    "Griffin",
    "GriffinConfig",
    "GriffinModel",
    "H3Config",
    "Hawk",
    "HawkConfig",
    "HybridConfig",
    "HybridLM",
    "Hyena",
    "HyenaConfig",
    "Hymba",
    "HymbaConfig",
    "Jamba",
    "JambaConfig",
    "LanguageModel",
    "Mamba",
    "Mamba2",
    "Mamba2Config",
    "Mamba2Hybrid",
    "Mamba2HybridConfig",
    "MambaConfig",
    "ModelOutput",
    "RWKV4Config",
    "RWKV5Config",
    "RWKV6Config",
    "RWKV7Config",
    "RecurrentGemma",
    "RecurrentGemmaConfig",
    "RetNet",
    "RetNetConfig",
    "StripedHyena",
    "StripedHyenaConfig",
    "Zamba",
    "Zamba2",
    "Zamba2Config",
    "ZambaConfig",
    "from_preset",
    "load_checkpoint",
    "set_backend",
]
