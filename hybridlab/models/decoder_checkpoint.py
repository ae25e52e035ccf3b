"""The layouts of Llama and Mistral folders."""

from collections.abc import Mapping
from typing import Any

from hybridlab.layers import Rotary, Stretch
from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.decoder import Decoder, DecoderConfig

NAMES: Mapping[str, str] = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.layers.{}.input_layernorm.weight": "layers.{}.mixer_norm.weight",
    "model.layers.{}.self_attn.q_proj.weight": "layers.{}.mixer.query.weight",
    "model.layers.{}.self_attn.k_proj.weight": "layers.{}.mixer.key.weight",
    "model.layers.{}.self_attn.v_proj.weight": "layers.{}.mixer.value.weight",
    "model.layers.{}.self_attn.o_proj.weight": "layers.{}.mixer.output.weight",
    "model.layers.{}.post_attention_layernorm.weight": "layers.{}.channel_norm.weight",
    "model.layers.{}.mlp.gate_proj.weight": "layers.{}.channel_mixer.gate.weight",
    "model.layers.{}.mlp.up_proj.weight": "layers.{}.channel_mixer.up.weight",
    "model.layers.{}.mlp.down_proj.weight": "layers.{}.channel_mixer.down.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
}
# Variants that this decoder does not have: field -> the value it stands for.
FIXED: Mapping[str, Any] = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}


def _config(checkpoint: Checkpoint) -> DecoderConfig:
    checkpoint.expect(FIXED)
    width, heads = checkpoint.size("hidden_size"), checkpoint.size("num_attention_heads")
    return DecoderConfig(
        checkpoint.required("vocab_size"),
        width,
        checkpoint.required("num_hidden_layers"),
        heads=heads,
        groups=checkpoint.optional("num_key_value_heads", heads),
        head_width=checkpoint.optional("head_dim", width // heads),
        ffn_width=checkpoint.required("intermediate_size"),
        window=checkpoint.optional("sliding_window", None),
        rotary=_rotary(checkpoint),
        norm_eps=checkpoint.required("rms_norm_eps"),
        tied=checkpoint.optional("tie_word_embeddings", False),
    )


def _rotary(checkpoint: Checkpoint) -> Rotary:
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


FOLDERS = {
    kind: Layout(f"transformers {kind}", Decoder, DecoderConfig, NAMES, _config, ignored=("rotary_emb.inv_freq",))
    for kind in ("llama", "mistral")
}
