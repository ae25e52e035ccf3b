"""The layout of transformers' folders of Nemotron-H, which continues Mamba-2-Hybrid: those without experts and biases."""

import math
from collections.abc import Mapping
from typing import Any

from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.decoder_checkpoint import ATTENTION_NAMES
from hybridlab.models.mamba2_checkpoint import OWN_NAMES
from hybridlab.models.mamba2_hybrid import Mamba2Hybrid, Mamba2HybridConfig
from hybridlab.models.mamba_checkpoint import MIXER_NAMES, named

MAMBA2: Mapping[str, str] = {**MIXER_NAMES, **OWN_NAMES}
ATTENTION: Mapping[str, str] = {
    theirs.rpartition("self_attn.")[2]: ours.rpartition("mixer.")[2]
    for theirs, ours in ATTENTION_NAMES.items()
    if ".self_attn." in theirs
}
MLP: Mapping[str, str] = {"up_proj.weight": "up.weight", "down_proj.weight": "down.weight"}
# The kinds of layers in both styles of config.json: lists, and a word of the symbols themselves.
SYMBOLS: Mapping[str, str] = {
    "linear_attention": "M",
    "mamba": "M",
    "full_attention": "*",
    "attention": "*",
    "mlp": "-",
    **{symbol: symbol for symbol in "M*-"},
}
ACTIVATIONS: Mapping[str, str] = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu by tanh", "relu2": "squared relu"}
# Variants that this model does not have: field -> the value it stands for.
FIXED: Mapping[str, Any] = {
    "mamba_hidden_act": "silu",
    "use_conv_bias": True,
    "use_bias": False,
    "mamba_proj_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "sliding_window": None,
    "num_nextn_predict_layers": 0,
}


def _config(checkpoint: Checkpoint) -> Mamba2HybridConfig:
    checkpoint.expect(FIXED)
    heads = checkpoint.size("num_attention_heads")
    pattern = _pattern(checkpoint)
    return Mamba2HybridConfig(
        checkpoint.size("vocab_size"),
        checkpoint.size("hidden_size"),
        checkpoint.size("num_hidden_layers", len(pattern)),
        pattern=pattern,
        heads=heads,
        groups=checkpoint.size("num_key_value_heads", heads),
        head_width=checkpoint.size("head_dim", checkpoint.optional("attention_head_dim", 128)),
        ffn_width=checkpoint.size("intermediate_size"),
        activation=_activation(checkpoint),
        ssm_heads=checkpoint.size("mamba_num_heads"),
        ssm_head_width=checkpoint.size("mamba_head_dim"),
        ssm_groups=checkpoint.size("n_groups"),
        state_size=checkpoint.size("ssm_state_size"),
        filter_width=checkpoint.size("conv_kernel", 4),
        step_limits=(checkpoint.optional("time_step_min", 0.001), math.inf),
        norm_eps=checkpoint.required("layer_norm_epsilon"),
        tied=checkpoint.flag("tie_word_embeddings", False),
    )


def _pattern(checkpoint: Checkpoint) -> str:
    """The kinds of all layers, as a list or as a word."""
    kinds = checkpoint.fields.get("layers_block_type") or checkpoint.required("hybrid_override_pattern")
    if not isinstance(kinds, list | str) or not all(isinstance(kind, str) and kind in SYMBOLS for kind in kinds):
        known = ", ".join(SYMBOLS)
        raise ValueError(f"load_checkpoint: config.json has layers {kinds!r}; known are {known}: {checkpoint.where}")
    return "".join(SYMBOLS[kind] for kind in kinds)


def _activation(checkpoint: Checkpoint) -> str:
    name = checkpoint.optional("mlp_hidden_act", "relu2")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"load_checkpoint: config.json has mlp_hidden_act {name!r}; known are {known}: {checkpoint.where}")
    return ACTIVATIONS[name]


def _names(mixer: Mapping[str, str]) -> set[str]:
    return {f"backbone.layers.{{}}.mixer.{name}" for name in mixer}


FOLDERS = {
    "nemotron_h": Layout(
        "transformers nemotron_h",
        Mamba2Hybrid,
        Mamba2HybridConfig,
        named("embeddings", {**MAMBA2, **ATTENTION, **MLP}),
        _config,
        kinds={"M": _names(MAMBA2), "*": _names(ATTENTION), "-": _names(MLP)},
    ),
}
