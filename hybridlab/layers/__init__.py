"""Token mixers, channel mixers, norms and positions: one file each, all called `(x, state, shared) -> (y, state)`."""

from hybridlab.layers.base_conv import BaseConv, BaseConvState
from hybridlab.layers.block_diagonal import BlockDiagonal
from hybridlab.layers.capped_head import CappedHead
from hybridlab.layers.compressed_keys import CompressedKeys, KeyCache
from hybridlab.layers.delta_mixer import DeltaMixer, DeltaState
from hybridlab.layers.embedding_scale import EmbeddingScale
from hybridlab.layers.finch_c2_time_mixing import FinchC2TimeMixing
from hybridlab.layers.gated_norm import GatedRMSNorm
from hybridlab.layers.geglu import GeGLU
from hybridlab.layers.gelu_mlp import GeluMLP
from hybridlab.layers.gold_attention import GoldAttention, GoldState
from hybridlab.layers.griffin_attention import GriffinAttention
from hybridlab.layers.grouped_attention import AttentionOptions, GroupedAttention
from hybridlab.layers.h3_mixer import H3Mixer, H3State
from hybridlab.layers.head_norm import HeadNorm
from hybridlab.layers.headed_mamba_mixer import HeadedMambaMixer, HeadedMambaSizes
from hybridlab.layers.hyena_filter import HyenaFilter, HyenaSizes
from hybridlab.layers.hyena_mixer import HyenaMixer, HyenaState
from hybridlab.layers.hymba_attention import HymbaAttention, HymbaHeads
from hybridlab.layers.hymba_mixer import HymbaMixer, HymbaState
from hybridlab.layers.initial import Depth
from hybridlab.layers.layer import Layer, Shared, set_backend
from hybridlab.layers.low_rank import LowRank
from hybridlab.layers.mamba2_mixer import Mamba2Mixer, Mamba2Sizes, Mamba2State
from hybridlab.layers.mamba_mixer import MambaMixer, MambaSizes, MambaState
from hybridlab.layers.mixer_block import MixerBlock, StreamNorm
from hybridlab.layers.mixing_weights import MixingWeights
from hybridlab.layers.moe import MixtureOfExperts, Routing
from hybridlab.layers.offset_norm import OffsetRMSNorm
from hybridlab.layers.plain_mlp import PlainMLP
from hybridlab.layers.residual_block import BlockState, ResidualBlock
from hybridlab.layers.retention_mixer import RetentionMixer, RetentionState
from hybridlab.layers.rg_lru_block import RGLRUBlock, RGLRUState
from hybridlab.layers.root_norm import RootRMSNorm
from hybridlab.layers.rotary import Rotary, Stretch
from hybridlab.layers.rwkv4_time_mixing import RWKV4State, RWKV4TimeMixing
from hybridlab.layers.rwkv5_time_mixing import RWKV5TimeMixing, TimeMixingState
from hybridlab.layers.rwkv6_time_mixing import RWKV6TimeMixing
from hybridlab.layers.rwkv7_channel_mixing import RWKV7ChannelMixing
from hybridlab.layers.rwkv7_time_mixing import RWKV7Ranks, RWKV7TimeMixing
from hybridlab.layers.rwkv_channel_mixing import ChannelMixingState, RWKV6ChannelMixing, RWKVChannelMixing
from hybridlab.layers.shared_block import CallAdapters, SharedBlock, SharedBlockOptions
from hybridlab.layers.shared_call import SharedBlocks, SharedCall, SharedCallState
from hybridlab.layers.short_filter import ShortFilter
from hybridlab.layers.stripedhyena_mixer import StripedHyenaMixer, StripedHyenaSizes, StripedHyenaState
from hybridlab.layers.swiglu import SwiGLU
from hybridlab.layers.taylor_mixer import TaylorMixer

__all__ = [
    "AttentionOptions",
    "BaseConv",
    "BaseConvState",
    "BlockDiagonal",
    "BlockState",
    "CallAdapters",
    "CappedHead",
    "ChannelMixingState",
    "CompressedKeys",
    "DeltaMixer",
    "DeltaState",
    "Depth",
    "EmbeddingScale",
    "FinchC2TimeMixing",
    "GatedRMSNorm",
    "GeGLU",
    "GeluMLP",
    "GoldAttention",
    "GoldState",
    "GriffinAttention",
    "GroupedAttention",
    "H3Mixer",
    "H3State",
    "HeadNorm",
    "HeadedMambaMixer",
    "HeadedMambaSizes",
    "HyenaFilter",
    "HyenaMixer",
    "HyenaSizes",
    "HyenaState",
    "HymbaAttention",
    "HymbaHeads",
    "HymbaMixer",
    "HymbaState",
    "KeyCache",
    "Layer",
    "LowRank",
    "Mamba2Mixer",
    "Mamba2Sizes",
    "Mamba2State",
    "MambaMixer",
    "MambaSizes",
    "MambaState",
    "MixerBlock",
    "MixingWeights",
    "MixtureOfExperts",
    "OffsetRMSNorm",
    "PlainMLP",
    "RGLRUBlock",
    "RGLRUState",
    "RWKV4State",
    "RWKV4TimeMixing",
    "RWKV5TimeMixing",
    "RWKV6ChannelMixing",
    "RWKV6TimeMixing",
    "RWKV7ChannelMixing",
    "RWKV7Ranks",
    "RWKV7TimeMixing",
    "RWKVChannelMixing",
    "ResidualBlock",
    "RetentionMixer",
    "RetentionState",
    "RootRMSNorm",
    "Rotary",
    "Routing",
    "Shared",
    "SharedBlock",
    "SharedBlockOptions",
    "SharedBlocks",
    "SharedCall",
    "SharedCallState",
    "ShortFilter",
    "StreamNorm",
    "Stretch",
    "StripedHyenaMixer",
    "StripedHyenaSizes",
    "StripedHyenaState",
    "SwiGLU",
    "TaylorMixer",
    "TimeMixingState",
    "set_backend",
]
