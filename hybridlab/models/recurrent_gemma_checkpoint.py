"""The layout of transformers' folders of RecurrentGemma."""

import math
from collections.abc import Mapping
from typing import Any

from hybridlab.layers import Rotary
from hybridlab.layers.griffin_attention import HALF
from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.recurrent_gemma import RecurrentGemma, RecurrentGemmaConfig

# Tensors of a layer: names in the folder -> names here. A layer has those of its kind.
LAYER_NAMES: Mapping[str, str] = {
    "temporal_pre_norm.weight": "mixer_norm.weight",
    "temporal_block.linear_x.weight": "mixer.input.weight",
    "temporal_block.linear_x.bias": "mixer.input.bias",
    "temporal_block.linear_y.weight": "mixer.gate.weight",
    "temporal_block.linear_y.bias": "mixer.gate.bias",
    "temporal_block.conv_1d.weight": "mixer.conv.weight",
    "temporal_block.conv_1d.bias": "mixer.conv.bias",
    "temporal_block.rg_lru.recurrent_gate_weight": "mixer.recurrence_gate.weight",
    "temporal_block.rg_lru.recurrent_gate_bias": "mixer.recurrence_gate.bias",
    "temporal_block.rg_lru.input_gate_weight": "mixer.input_gate.weight",
    "temporal_block.rg_lru.input_gate_bias": "mixer.input_gate.bias",
    "temporal_block.rg_lru.recurrent_param": "mixer.rate",
    "temporal_block.linear_out.weight": "mixer.output.weight",
    "temporal_block.linear_out.bias": "mixer.output.bias",
    "temporal_block.q_proj.weight": "mixer.query.weight",
    "temporal_block.q_proj.bias": "mixer.query.bias",
    "temporal_block.k_proj.weight": "mixer.key.weight",
    "temporal_block.k_proj.bias": "mixer.key.bias",
    "temporal_block.v_proj.weight": "mixer.value.weight",
    "temporal_block.v_proj.bias": "mixer.value.bias",
    "temporal_block.o_proj.weight": "mixer.output.weight",
    "temporal_block.o_proj.bias": "mixer.output.bias",
    "channel_pre_norm.weight": "channel_norm.weight",
    "mlp_block.gate_proj.weight": "channel_mixer.gate.weight",
    "mlp_block.gate_proj.bias": "channel_mixer.gate.bias",
    "mlp_block.up_proj.weight": "channel_mixer.up.weight",
    "mlp_block.up_proj.bias": "channel_mixer.up.bias",
    "mlp_block.down_proj.weight": "channel_mixer.down.weight",
    "mlp_block.down_proj.bias": "channel_mixer.down.bias",
}
NAMES: Mapping[str, str] = {
    "model.embed_tokens.weight": "embedding.weight",
    **{"model.layers.{}." + theirs: "layers.{}." + ours for theirs, ours in LAYER_NAMES.items()},
    "model.final_norm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
}
# Names that only layers of one kind have; both kinds have norms and an MLP.
SHARED = ("temporal_pre_norm.", "channel_pre_norm.", "mlp_block.")
ATTENTION = tuple(f"temporal_block.{part}_proj." for part in "qkvo")
KINDS = {
    "G": [f"model.layers.{{}}.{name}" for name in LAYER_NAMES if not name.startswith((*SHARED, *ATTENTION))],
    "W": [f"model.layers.{{}}.{name}" for name in LAYER_NAMES if name.startswith(ATTENTION)],
}
BLOCK_TYPES = {"recurrent": "G", "attention": "W"}
USUAL = ("recurrent", "recurrent", "attention")
# Variants that this model does not have: field -> the value it stands for.
FIXED: Mapping[str, Any] = {
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "embeddings_scale_by_sqrt_dim": True,
}


def _config(checkpoint: Checkpoint) -> RecurrentGemmaConfig:
    """From config.json, whose intermediate size counts both halves of the MLP, and whose window counts the query."""
    checkpoint.expect(FIXED)
    width, heads = checkpoint.size("hidden_size"), checkpoint.size("num_attention_heads")
    return RecurrentGemmaConfig(
        checkpoint.size("vocab_size"),
        width,
        checkpoint.size("num_hidden_layers"),
        inner=checkpoint.size("lru_width", width),
        blocks=heads,
        filter_width=checkpoint.size("conv1d_width"),
        ffn_width=checkpoint.size("intermediate_size") // 2,
        logit_cap=checkpoint.required("logits_soft_cap"),
        norm_eps=checkpoint.required("rms_norm_eps"),
        pattern=_pattern(checkpoint),
        heads=heads,
        groups=checkpoint.size("num_key_value_heads", heads),
        head_width=checkpoint.size("head_dim", width // heads),
        window=checkpoint.size("attention_window_size"),
        rotary=_rotary(checkpoint),
        input_bias=checkpoint.flag("attention_bias", False),
    )


def _pattern(checkpoint: Checkpoint) -> str:
    """Repeated until the layers are full. The hub's files call it `_block_types`."""
    kinds = checkpoint.fields.get("block_types") or checkpoint.fields.get("_block_types") or list(USUAL)
    if not isinstance(kinds, list) or not kinds or not all(kind in tuple(BLOCK_TYPES) for kind in kinds):
        known = " and ".join(BLOCK_TYPES)
        raise ValueError(f"load_checkpoint: config.json has block_types {kinds!r}; known are {known}: {checkpoint.where}")
    return "".join(BLOCK_TYPES[kind] for kind in kinds)


def _rotary(checkpoint: Checkpoint) -> Rotary:
    """From either style: `rope_parameters`, or `rope_theta` beside `partial_rotary_factor`."""
    table = checkpoint.within("rope_parameters")
    table.expect({"rope_type": "default"})
    checkpoint.expect({"rope_scaling": {}})
    either = Checkpoint(checkpoint.where, {}, {**checkpoint.fields, **table.fields})
    theta = _number(either, "rope_theta", HALF.theta, math.inf)
    return Rotary(theta, fraction=_number(either, "partial_rotary_factor", HALF.fraction, 1))


def _number(checkpoint: Checkpoint, name: str, default: float, most: float) -> float:
    value = checkpoint.optional(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= most:
        expected = f"expected a number above 0, at most {most}"
        raise ValueError(f"load_checkpoint: config.json has {name} {value!r}, {expected}: {checkpoint.where}")
    return value


FOLDERS = {
    "recurrent_gemma": Layout(
        "transformers recurrent_gemma",
        RecurrentGemma,
        RecurrentGemmaConfig,
        NAMES,
        _config,
        ignored=("rotary_emb.inv_freq",),
        kinds=KINDS,
    )
}
