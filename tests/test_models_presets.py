"""Presets have the published sizes: counted on the meta device, against the papers' formulas and tables."""

import math

import pytest
import torch

from hybridlab.models import PRESETS, RWKV4, RWKV6, GriffinConfig, HawkConfig, Mamba2Config, MambaConfig, from_preset
from hybridlab.models.based import BasedConfig
from hybridlab.models.config import Config
from hybridlab.models.decoder import AttentionConfig, DecoderConfig
from hybridlab.models.goldfinch import GoldFinchConfig
from hybridlab.models.griffin_skeleton import GriffinSkeletonConfig
from hybridlab.models.h3 import H3Config
from hybridlab.models.hyena import HyenaConfig
from hybridlab.models.hymba import HymbaConfig
from hybridlab.models.jamba import JambaConfig
from hybridlab.models.language_model import LanguageModel
from hybridlab.models.mamba2_hybrid import Mamba2HybridConfig
from hybridlab.models.rwkv7 import RWKV7Config
from hybridlab.models.safari_skeleton import SafariConfig
from hybridlab.models.stripedhyena import StripedHyenaConfig
from hybridlab.models.zamba import ZambaConfig
from hybridlab.models.zamba2 import Zamba2Config
from hybridlab.models.zamba_skeleton import ZambaSkeletonConfig
from hybridlab.state import state_nbytes

# Parameters to the digits that the papers report. (As remembered; the formulas below are exact and independent of them.)
# Griffin's table leaves the embedding out, and calls one row of sizes 1.3B for every architecture: as a Griffin it is 1.2B.
# Hyena's table calls its rows by the transformers of about that size: its 355M has 360M.
PRINTED = {
    "rwkv4-169m": 1.693e8,
    "rwkv4-430m": 4.304e8,
    "rwkv4-1.5b": 1.515e9,
    "rwkv4-3b": 2.985e9,
    "rwkv4-7b": 7.393e9,
    "rwkv4-14b": 1.415e10,
    "eagle-0.4b": 4.62e8,
    "eagle-1.5b": 1.58e9,
    "eagle-3b": 3.06e9,
    "eagle-7b": 7.52e9,
    "finch-1.6b": 1.60e9,
    "finch-3.1b": 3.10e9,
    "rwkv7-0.1b": 191_034_624,
    "rwkv7-0.4b": 450_767_872,
    "rwkv7-1.5b": 1_527_404_544,
    "rwkv7-2.9b": 2_947_735_040,
    "llama-2-7b": 6.74e9,
    "llama-3.1-8b": 8.03e9,
    "llama-3.1-70b": 7.06e10,
    "llama-3.2-3b": 3.21e9,
    "mistral-7b": 7.24e9,
    "mixtral-8x7b": 4.67e10,
    "mixtral-8x22b": 1.41e11,
    "gemma2-2b": 2.61e9,
    "gemma2-9b": 9.24e9,
    "gemma2-27b": 2.72e10,
    "mamba-130m": 129_135_360,
    "mamba-370m": 371_516_416,
    "mamba-790m": 793_204_224,
    "mamba-1.4b": 1_372_178_432,
    "mamba-2.8b": 2_768_345_600,
    "falcon-mamba-7b": 7_272_665_088,
    "mamba2-130m": 1.3e8,
    "mamba2-370m": 3.7e8,
    "mamba2-780m": 7.8e8,
    "mamba2-1.3b": 1.3e9,
    "mamba2-2.7b": 2.7e9,
    "codestral-mamba-7b": 7_285_403_648,
    "hawk-1b": 1.3e9,
    "hawk-3b": 3e9,
    "hawk-7b": 7e9,
    "griffin-1b": 1.2e9,
    "griffin-3b": 3e9,
    "griffin-7b": 7e9,
    "griffin-14b": 1.4e10,
    "recurrentgemma-2b": 2.7e9,
    "recurrentgemma-9b": 9e9,
    "hyena-125m": 1.25e8,
    "hyena-355m": 3.6e8,
    "h3-2.7b": 2.7e9,
    "stripedhyena-7b": 7.65e9,
    "based-360m": 3.63e8,
    "based-1.3b": 1.35e9,
    "goldfinch-1.45b": 1.45e9,
    "jamba-v0.1": 51_570_323_328,
    "jamba-1.5-mini": 51_570_323_328,
    "jamba-1.5-large": 3.9856e11,
    "mamba2-hybrid-8b": 8_654_517_248,
    "zamba-7b": 7_232_490_496,
    "zamba2-1.2b": 1.22e9,
    "zamba2-2.7b": 2.66e9,
    "zamba2-7b": 7.4e9,
    "hymba-1.5b": 1_522_797_824,
}
# The papers' formulas for D, L, vocabulary; where they have none, summed up matrix by matrix.
FORMULAS = {
    "RWKV4": lambda c: 2 * c.vocabulary * c.width + 13 * c.width**2 * c.layers + c.width * (11 * c.layers + 4),
    "RWKV5": lambda c: 13 * c.width**2 * c.layers + 14 * c.width * c.layers + 4 * c.width + 2 * c.width * c.vocabulary,
    "RWKV6": lambda c: 13 * c.width**2 * c.layers + 464 * c.width * c.layers + 4 * c.width + 2 * c.width * c.vocabulary,
    "RWKV7": lambda c: rwkv7_parameters(c),
    "Decoder": lambda c: decoder_parameters(c) + (1 if c.tied else 2) * c.vocabulary * c.width,
    "Gemma2": lambda c: gated_layers(c, 1, 4) + c.width + c.vocabulary * c.width,
    "Mamba": lambda c: mamba_parameters(c) + c.vocabulary * c.width,
    "FalconMamba": lambda c: mamba_parameters(c) + 2 * c.vocabulary * c.width,
    "Mamba2": lambda c: mamba2_parameters(c) + (1 if c.tied else 2) * c.vocabulary * c.width,
    "Hawk": lambda c: hawk_parameters(c) + c.vocabulary * c.width,
    "Griffin": lambda c: griffin_parameters(c) + c.vocabulary * c.width,
    "RecurrentGemma": lambda c: griffin_parameters(c) + c.vocabulary * c.width,
    "Hyena": lambda c: hyena_parameters(c) + c.vocabulary * c.width,
    "H3": lambda c: h3_parameters(c) + c.vocabulary * c.width,
    "StripedHyena": lambda c: stripedhyena_parameters(c) + 2 * c.vocabulary * c.width,
    "Based": lambda c: based_parameters(c) + c.vocabulary * c.width,
    "GoldFinch": lambda c: goldfinch_parameters(c) + 2 * c.vocabulary * c.width,
    "Jamba": lambda c: jamba_parameters(c) + 2 * c.vocabulary * c.width,
    "Mamba2Hybrid": lambda c: mamba2_hybrid_parameters(c) + 2 * c.vocabulary * c.width,
    "Zamba": lambda c: zamba_parameters(c) + c.vocabulary * c.width,
    "Zamba2": lambda c: zamba2_parameters(c) + c.vocabulary * c.width,
    "Hymba": lambda c: hymba_parameters(c) + c.vocabulary * c.width,
}
# Numbers of state in all layers after t tokens: in the dtype, in the state dtype.
STATES = {
    "RWKV4": lambda c, t: every_layer(c, 2 * c.width, 3 * c.width),
    "RWKV5": lambda c, t: every_layer(c, 2 * c.width, 64 * c.width),
    "RWKV6": lambda c, t: every_layer(c, 2 * c.width, 64 * c.width),
    "RWKV7": lambda c, t: every_layer(c, 2 * c.width, 64 * c.width),
    "Decoder": lambda c, t: every_layer(c, 2 * t * c.groups * c.head_width, 0),
    "Gemma2": lambda c, t: (c.layers // 2 * 2 * (t + min(t, c.window - 1)) * c.groups * c.head_width, 0),
    "Mamba": lambda c, t: every_layer(c, 2 * c.width * 3, 2 * c.width * 16),
    "FalconMamba": lambda c, t: every_layer(c, 2 * c.width * 3, 2 * c.width * 16),
    "Mamba2": lambda c, t: every_layer(c, 3 * (2 * c.width + 2 * 128 * c.groups), 2 * c.width * 128),
    "Hawk": lambda c, t: every_layer(c, 3 * c.inner, c.inner),
    "Griffin": lambda c, t: griffin_state(c, t),
    "RecurrentGemma": lambda c, t: griffin_state(c, t),
    "Hyena": lambda c, t: every_layer(c, 2 * 3 * c.width + min(t, 2048) * c.width, 0),
    "H3": lambda c, t: (30 * 63 * c.width + 2 * 2 * t * c.width, 30 * 64 * c.width),
    "StripedHyena": lambda c, t: (16 * 2 * 3 * c.width + 16 * 2 * t * 8 * 128, 16 * 4 * c.width),
    "Based": lambda c, t: based_state(c, t),
    "GoldFinch": lambda c, t: (2 * 24 * c.width + t * (c.width // 16 + 1), 16 * 64 * c.width),
    "Jamba": lambda c, t: (c.layers // 8 * (2 * t * 8 * 128 + 7 * 3 * 2 * c.width), c.layers // 8 * 7 * 2 * c.width * 16),
    "Mamba2Hybrid": lambda c, t: (4 * 2 * t * 8 * 128 + 24 * 3 * (2 * c.width + 2 * 8 * 128), 24 * 2 * c.width * 128),
    "Zamba": lambda c, t: (zamba_caches(c, t) + c.layers * 3 * 2 * c.width, c.layers * 2 * c.width * 16),
    "Zamba2": lambda c, t: zamba2_state(c, t),
    "Hymba": lambda c, t: hymba_state(c, t),
}


def rwkv7_parameters(c: RWKV7Config) -> int:
    """The paper's formula: the first layer lacks what mixes in the first layer's values."""
    ranks = c.decay_rank + c.rate_rank + c.value_rank + c.gate_rank
    layers = c.layers * c.width * (12 * c.width + 2 * ranks + 19) - (2 * c.width * c.value_rank + c.width)
    return 2 * c.vocabulary * c.width + 4 * c.width + layers


def goldfinch_parameters(c: GoldFinchConfig) -> int:
    """Everything but the embedding and the head: four maps and networks of five mixtures, a decay and own values; two maps
    and networks of three mixtures, keys and values; an MLP of 3.5 D with a gate; norms with biases; codes and back."""
    finch = 4 * c.width**2 + (6 + 2 * 5 * 32 + 1 + 2 * 2 * 64 + 1 + 2) * c.width
    gold = 2 * c.width**2 + (5 + 2 * 3 * 32 + 2 * 2 * c.width // 16 + 8) * c.width
    codes = c.width**2 // 16 + (c.width + c.width // 16) * c.width
    return 16 * finch + 8 * gold + 24 * (8 * c.width**2 + 6 * c.width) + 4 * c.width + codes


def based_parameters(c: BasedConfig) -> int:
    """Everything but the embedding: keys of 16 in 16 heads where attention is linear, four maps where it has a window, else
    maps to four and from two widths with biases and three taps; an MLP of 2 D, two norms."""
    linear, window = c.letters.count("B"), c.letters.count("W")
    attention = linear * (2 * c.width * 16 * 16 + 2 * c.width**2) + window * 4 * c.width**2
    filters = (c.layers - linear - window) * (6 * c.width**2 + (4 + 1 + 3 * 2) * c.width)
    return attention + filters + c.layers * (3 * 2 * c.width**2 + 2 * c.width) + c.width


def based_state(c: BasedConfig, t: int) -> tuple[int, int]:
    """Two inputs of each filter; 128 keys and values; 273 features of a key of 16, each a row of values and a sum."""
    linear, window = c.letters.count("B"), c.letters.count("W")
    filters = 2 * 2 * c.width * (c.layers - linear - window)
    return filters + window * 2 * min(t, 128) * c.width, linear * 273 * (c.width + 16)


def hymba_parameters(c: HymbaConfig) -> int:
    """Everything but the embedding: queries, and in 17 layers 5 keys of 64 and values of 128; a scan of E = 2 D with norms
    of its own; the norms of what both give, MLP, two norms; 128 meta tokens."""
    inner, attention = 2 * c.width, 32 * c.width**2 + 17 * c.width * 5 * (64 + 128)
    scan = 3 * inner * c.width + 5 * inner + inner * (100 + 2 * 16) + 101 * inner + 16 * inner + inner + 100 + 2 * 16
    return attention + 32 * (scan + 2 * inner + 3 * c.width * c.ffn_width + 2 * c.width) + (1 + 128) * c.width


def hymba_state(c: HymbaConfig, t: int) -> tuple[int, int]:
    """Three layers keep all rows, 14 those of the meta tokens and 1024 more; every layer keeps three inputs and a state."""
    rows = t + 128 if t else 0
    kept = 3 * rows + 14 * min(rows, 128 + 1024)
    return kept * 5 * (64 + 128) + 32 * 3 * 2 * c.width, 32 * 2 * c.width * 16


def zamba_block(c: ZambaSkeletonConfig) -> int:
    """Maps of 2 D to queries, keys and values as wide, and from there to D; an MLP of 4 D, two norms."""
    return 3 * (2 * c.width) ** 2 + 2 * c.width**2 + 3 * c.width * 4 * c.width + 3 * c.width


def zamba_parameters(c: ZambaConfig) -> int:
    """Everything but the embedding: a Mamba, whose heads share out what one head would have; one block, a map a call."""
    return mamba_parameters(c) + zamba_block(c) + len(c.calls) * c.width**2


def zamba2_parameters(c: Zamba2Config) -> int:
    """Everything but the embedding: Mamba-2 mixers, heads of 64; blocks; a map and adapters of 128 a call."""
    inner, vectors, heads = 2 * c.width, 2 * c.state_size * c.mixer_groups, 2 * c.width // 64
    mixer = c.width * (2 * inner + vectors + heads) + 5 * (inner + vectors) + 3 * heads + inner + inner * c.width
    adapters = 128 * (c.width + 8 * c.width) + (128 * 3 * 4 * c.width if c.attention_adapters else 0)
    return c.layers * (mixer + c.width) + c.width + c.blocks * zamba_block(c) + len(c.calls) * (c.width**2 + adapters)


def zamba_caches(c: ZambaSkeletonConfig, t: int) -> int:
    """Keys and values of 2 D, for every call and not for every block."""
    return len(c.calls) * 2 * t * 2 * c.width


def zamba2_state(c: Zamba2Config, t: int) -> tuple[int, int]:
    """The caches, three inputs of each filter, one matrix a head."""
    filtered = 2 * c.width + 2 * c.state_size * c.mixer_groups
    return zamba_caches(c, t) + c.layers * 3 * filtered, c.layers * 2 * c.width * c.state_size


def mamba_parameters(c: MambaConfig | ZambaConfig) -> int:
    """Everything but the embedding and the head, E = 2 D: maps, filter with bias, selection, steps, rates, D, norms."""
    inner, rank = 2 * c.width, math.ceil(c.width / 16)
    mixer = 3 * inner * c.width + 5 * inner + inner * (rank + 2 * 16) + (rank + 1) * inner + 16 * inner + inner
    return c.layers * (mixer + c.width) + c.width


def jamba_parameters(c: JambaConfig) -> int:
    """Everything but the embedding and the head: one layer in eight of grouped attention, seven of Mamba with norms of what
    it selects; MLPs, every second one 16 times with a router; two norms a layer."""
    inner, rank = 2 * c.width, c.width // 16
    attention = 2 * c.width**2 + 2 * c.width * 8 * 128
    mamba = 3 * inner * c.width + 5 * inner + inner * (rank + 32) + (rank + 1) * inner + 17 * inner + (rank + 32)
    mlps = (1 + 16) * 3 * c.width * c.ffn_width + 16 * c.width
    return c.layers // 8 * (attention + 7 * mamba) + c.layers // 2 * mlps + (2 * c.layers + 1) * c.width


def mamba2_hybrid_parameters(c: Mamba2HybridConfig) -> int:
    """Everything but the embedding and the head: 24 Mamba-2 mixers with 8 groups, 4 layers of grouped attention, 28 MLPs of
    two matrices; a norm each."""
    inner, vectors, heads = 2 * c.width, 2 * 128 * 8, 2 * c.width // 64
    mamba2 = c.width * (2 * inner + vectors + heads) + 5 * (inner + vectors) + 3 * heads + inner + inner * c.width
    attention = 2 * c.width**2 + 2 * c.width * 8 * 128
    return 24 * mamba2 + 4 * attention + 28 * 2 * c.width * 4 * c.width + (24 + 4 + 28 + 1) * c.width


def mamba2_parameters(c: Mamba2Config) -> int:
    """Everything but the embedding and the head, E = 2 D, N = 128, P = 64: maps, filter with bias, three numbers a head,
    norms."""
    inner, vectors, heads = 2 * c.width, 2 * 128 * c.groups, 2 * c.width // 64
    mixer = c.width * (2 * inner + vectors + heads) + 5 * (inner + vectors) + 3 * heads + inner + inner * c.width
    return c.layers * (mixer + c.width) + c.width


def gated_layers(c: AttentionConfig, mlps: int, norms: int) -> int:
    """Layers of grouped attention, so many gated MLPs and norms."""
    attention = 2 * c.width * c.head_width * (c.heads + c.groups)
    return c.layers * (attention + mlps * 3 * c.width * c.ffn_width + norms * c.width)


def decoder_parameters(c: DecoderConfig) -> int:
    """Everything but the embedding and the head; a router of one row an expert beside the experts."""
    if c.routing is None:
        return gated_layers(c, 1, 2) + c.width
    return gated_layers(c, c.routing.experts, 2) + c.layers * c.routing.experts * c.width + c.width


def hawk_parameters(c: HawkConfig) -> int:
    """Everything but the embedding: recurrent blocks, an MLP of 3 D, norms."""
    return c.layers * (recurrent_parameters(c) + mlp_parameters(c)) + c.width


def griffin_parameters(c: GriffinConfig) -> int:
    """Everything but the embedding: the mixers of either kind, an MLP of 3 D, norms; heads fill the width, keys have one."""
    attention = 2 * c.width * (c.width + c.head_width) + c.width
    recurrent, attending = c.letters.count("G"), c.letters.count("W")
    return recurrent * recurrent_parameters(c) + attending * attention + c.layers * mlp_parameters(c) + c.width


def recurrent_parameters(c: GriffinSkeletonConfig) -> int:
    """Three maps, filter, two gates of blocks, rates; biases."""
    gates = 2 * (c.inner**2 // c.blocks + c.inner)
    return (3 * c.width * c.inner + 2 * c.inner + c.width) + 5 * c.inner + gates + c.inner


def mlp_parameters(c: GriffinSkeletonConfig) -> int:
    """Three maps between D and 3 D with biases, and the norms of a block."""
    return 9 * c.width**2 + 7 * c.width + 2 * c.width


def safari_frame(c: SafariConfig) -> int:
    """An MLP and two layer norms in each layer, and the last norm, all with biases."""
    return c.layers * (2 * c.width * c.ffn_width + c.ffn_width + c.width + 4 * c.width) + 2 * c.width


def hyena_parameters(c: HyenaConfig) -> int:
    """Everything but the embedding: maps to three D and back, three taps of each; 2048 times of 33 features, the network
    of 64 behind the filter, a frequency each; the skip."""
    maps = 4 * (c.width**2 + c.width) + 3 * c.width * (3 + 1)
    network = 2048 * 33 + (33 * 64 + 64) + 2 * (64 * 64 + 64) + 64 * c.width + 64
    return c.layers * (maps + network + c.width) + safari_frame(c)


def h3_parameters(c: H3Config) -> int:
    """Everything but the embedding: four maps in any layer; two vectors of 64 and a skip for the shift; a step, a skip, and
    32 waves for the rest, each a rate, a frequency, and two complex numbers."""
    memories = (2 * 64 + 1) + (2 + 32 * (2 + 2 * 2))
    return c.layers * 4 * (c.width**2 + c.width) + 30 * c.width * memories + safari_frame(c)


def stripedhyena_parameters(c: StripedHyenaConfig) -> int:
    """Everything but the embedding and the head: 16 layers of grouped attention, 16 of maps to 3 D and back with biases,
    three taps and a bias, D, two poles and residues; gated MLPs, norms."""
    attention = 2 * c.width * (c.width + 8 * 128)
    convolution = 4 * (c.width**2 + c.width) + 3 * c.width * (3 + 1) + c.width * (1 + 2 * 2 * 2)
    return 16 * (attention + convolution) + 32 * (3 * c.width * c.ffn_width + 2 * c.width) + c.width


def griffin_state(c: GriffinConfig, t: int) -> tuple[int, int]:
    """Recurrent layers keep three inputs and a state, the others as many keys and values as a query sees beside its own."""
    recurrent, attending = c.letters.count("G"), c.letters.count("W")
    return 3 * recurrent * c.inner + 2 * attending * min(t, c.window - 1) * c.head_width, recurrent * c.inner


def every_layer(c: Config, narrow: int, wide: int) -> tuple[int, int]:
    """So much in each layer."""
    return c.layers * narrow, c.layers * wide


@pytest.fixture(scope="module")
def models() -> dict[str, LanguageModel]:
    return {name: from_preset(name, device="meta", dtype=torch.bfloat16) for name in PRESETS}


def test_every_preset_is_checked() -> None:
    assert set(PRINTED) == set(PRESETS)


@pytest.mark.parametrize("name", PRINTED)
def test_parameter_count(models: dict[str, LanguageModel], name: str) -> None:
    model = models[name]
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == FORMULAS[PRESETS[name].architecture.__name__](PRESETS[name].config)
    digits = len(f"{PRINTED[name]:.15g}".replace(".", "").strip("0"))
    left_out = model.embedding.weight.numel() if name.startswith(("hawk", "griffin")) else 0
    assert float(f"{count - left_out:.{digits - 1}e}") == PRINTED[name]


@pytest.mark.parametrize("name", PRINTED)
def test_nothing_is_allocated(models: dict[str, LanguageModel], name: str) -> None:
    assert all(parameter.is_meta and parameter.dtype == torch.bfloat16 for parameter in models[name].parameters())
    assert models[name].init_state(1, 4096).position.is_meta


@pytest.mark.parametrize("length", [0, 1, 262_144])
@pytest.mark.parametrize("name", PRINTED)
def test_state_bytes(models: dict[str, LanguageModel], name: str, length: int) -> None:
    config = PRESETS[name].config
    state = models[name].init_state(1, length, device="meta")
    narrow, wide = STATES[PRESETS[name].architecture.__name__](config, length)
    assert state_nbytes(state) == 2 * narrow + 4 * wide


def test_a_meta_model_runs() -> None:
    model = from_preset("finch-1.6b", device="meta", backend="numba")
    logits, state = model(torch.zeros(2, 3, dtype=torch.int64, device="meta"))
    assert logits.shape == (2, 3, 65_536)
    assert state_nbytes(state) == state_nbytes(model.init_state(2, 3))


def test_class_and_table_agree() -> None:
    assert RWKV6.from_preset("finch-1.6b", device="meta").config == PRESETS["finch-1.6b"].config


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'finch-9b'; choose .*finch-1\.6b"):
        from_preset("finch-9b")
    with pytest.raises(ValueError, match=r"RWKV4: unknown preset 'finch-1\.6b'"):
        RWKV4.from_preset("finch-1.6b")
