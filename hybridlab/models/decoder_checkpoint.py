"""The layouts of Llama, Mistral and Mixtral folders, and what other decoders' layouts have in common with them."""

from collections.abc import Callable, Mapping
from typing import Any

from hybridlab.layers import Rotary, Routing, Stretch
from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.decoder import Decoder, DecoderConfig

OUTER_NAMES: Mapping[str, str] = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
}
ATTENTION_NAMES: Mapping[str, str] = {
    "model.layers.{}.input_layernorm.weight": "layers.{}.mixer_norm.weight",
    "model.layers.{}.self_attn.q_proj.weight": "layers.{}.mixer.query.weight",
    "model.layers.{}.self_attn.k_proj.weight": "layers.{}.mixer.key.weight",
    "model.layers.{}.self_attn.v_proj.weight": "layers.{}.mixer.value.weight",
    "model.layers.{}.self_attn.o_proj.weight": "layers.{}.mixer.output.weight",
}
MLP_NAMES: Mapping[str, str] = {
    "model.layers.{}.mlp.gate_proj.weight": "layers.{}.channel_mixer.gate.weight",
    "model.layers.{}.mlp.up_proj.weight": "layers.{}.channel_mixer.up.weight",
    "model.layers.{}.mlp.down_proj.weight": "layers.{}.channel_mixer.down.weight",
}
EXPERT_NAMES: Mapping[str, str] = {
    "model.layers.{}.block_sparse_moe.gate.weight": "layers.{}.channel_mixer.router.weight",
    "model.layers.{}.block_sparse_moe.experts.{expert}.w1.weight": "layers.{}.channel_mixer.experts.{expert}.gate.weight",
    "model.layers.{}.block_sparse_moe.experts.{expert}.w3.weight": "layers.{}.channel_mixer.experts.{expert}.up.weight",
    "model.layers.{}.block_sparse_moe.experts.{expert}.w2.weight": "layers.{}.channel_mixer.experts.{expert}.down.weight",
}
COMMON: Mapping[str, str] = {
    **OUTER_NAMES,
    **ATTENTION_NAMES,
    "model.layers.{}.post_attention_layernorm.weight": "layers.{}.channel_norm.weight",
}
BIASES: Mapping[str, str] = {
    "model.layers.{}.self_attn.q_proj.bias": "layers.{}.mixer.query.bias",
    "model.layers.{}.self_attn.k_proj.bias": "layers.{}.mixer.key.bias",
    "model.layers.{}.self_attn.v_proj.bias": "layers.{}.mixer.value.bias",
    "model.layers.{}.self_attn.o_proj.bias": "layers.{}.mixer.output.bias",
}
# Variants that this decoder does not have: field -> the value it stands for.
FIXED: Mapping[str, Any] = {"hidden_act": "silu", "mlp_bias": False}


def attention_sizes(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of an AttentionConfig, by their names, as transformers writes them for every decoder."""
    width, heads = checkpoint.size("hidden_size"), checkpoint.size("num_attention_heads")
    return {
        "vocabulary": checkpoint.required("vocab_size"),
        "width": width,
        "layers": checkpoint.size("num_hidden_layers"),
        "heads": heads,
        "groups": checkpoint.optional("num_key_value_heads", heads),
        "head_width": checkpoint.optional("head_dim", width // heads),
        "ffn_width": checkpoint.required("intermediate_size"),
        "window": checkpoint.optional("sliding_window", None),
        "rotary": rotary_positions(checkpoint),
        "norm_eps": checkpoint.required("rms_norm_eps"),
    }


def _config(checkpoint: Checkpoint) -> DecoderConfig:
    checkpoint.expect(FIXED)
    return DecoderConfig(
        **attention_sizes(checkpoint),
        tied=checkpoint.flag("tie_word_embeddings", False),
        attention_bias=checkpoint.flag("attention_bias", False),
    )


def _mixtral_config(checkpoint: Checkpoint) -> DecoderConfig:
    checkpoint.expect({**FIXED, "attention_bias": False})
    return DecoderConfig(
        **attention_sizes(checkpoint),
        tied=checkpoint.flag("tie_word_embeddings", False),
        routing=Routing(checkpoint.size("num_local_experts"), checkpoint.size("num_experts_per_tok")),
    )


def rotary_positions(checkpoint: Checkpoint) -> Rotary:
    """From either style: `rope_parameters`, or `rope_theta` beside `rope_scaling`."""
    fields = checkpoint.table("rope_parameters") or checkpoint.table("rope_scaling")
    theta = fields.get("rope_theta") or checkpoint.optional("rope_theta", Rotary().theta)
    kind = fields.get("rope_type") or fields.get("type") or "default"
    if kind == "default":
        return Rotary(theta)
    if kind != "llama3":
        raise ValueError(f"load_checkpoint: config.json has rope_type {kind!r}; known are 'default' and 'llama3'")
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    for name in names:
        if name not in fields:
            raise ValueError(f"load_checkpoint: config.json lacks {name!r} among the rotary fields: {checkpoint.where}")
    return Rotary(theta, Stretch(*(fields[name] for name in names)))


def _layout(kind: str, names: Mapping[str, str], configure: Callable[[Checkpoint], DecoderConfig]) -> Layout:
    ignored = ("rotary_emb.inv_freq",)
    return Layout(f"transformers {kind}", Decoder, DecoderConfig, {**COMMON, **names}, configure, ignored=ignored)


FOLDERS = {
    "llama": _layout("llama", {**MLP_NAMES, **BIASES}, _config),
    "mistral": _layout("mistral", {**MLP_NAMES, **BIASES}, _config),
    "mixtral": _layout("mixtral", EXPERT_NAMES, _mixtral_config),
}
