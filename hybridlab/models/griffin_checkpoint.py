"""The layout of the Griffin family's authors: weights of the PyTorch code, and the numbers that they do not say."""

from collections.abc import Mapping
from typing import Any

from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.hawk import Hawk, HawkConfig

# The head is the embedding and has no name of its own.
COMMON: Mapping[str, str | tuple[str, ...]] = {
    "embedder.input_embedding": "embedding.weight",
    "blocks.{}.temporal_pre_norm.scale": "layers.{}.mixer_norm.weight",
    "blocks.{}.channel_pre_norm.scale": "layers.{}.channel_norm.weight",
    "blocks.{}.mlp_block.ffw_up.w": ("layers.{}.channel_mixer.gate.weight", "layers.{}.channel_mixer.up.weight"),
    "blocks.{}.mlp_block.ffw_up.b": ("layers.{}.channel_mixer.gate.bias", "layers.{}.channel_mixer.up.bias"),
    "blocks.{}.mlp_block.ffw_down.weight": "layers.{}.channel_mixer.down.weight",
    "blocks.{}.mlp_block.ffw_down.bias": "layers.{}.channel_mixer.down.bias",
    "final_norm.scale": "norm.weight",
}
RECURRENT: Mapping[str, str] = {
    "blocks.{}.recurrent_block.linear_x.weight": "layers.{}.mixer.input.weight",
    "blocks.{}.recurrent_block.linear_x.bias": "layers.{}.mixer.input.bias",
    "blocks.{}.recurrent_block.linear_y.weight": "layers.{}.mixer.gate.weight",
    "blocks.{}.recurrent_block.linear_y.bias": "layers.{}.mixer.gate.bias",
    "blocks.{}.recurrent_block.conv_1d.w": "layers.{}.mixer.conv.weight",
    "blocks.{}.recurrent_block.conv_1d.b": "layers.{}.mixer.conv.bias",
    "blocks.{}.recurrent_block.rg_lru.a_gate.w": "layers.{}.mixer.recurrence_gate.weight",
    "blocks.{}.recurrent_block.rg_lru.a_gate.b": "layers.{}.mixer.recurrence_gate.bias",
    "blocks.{}.recurrent_block.rg_lru.input_gate.w": "layers.{}.mixer.input_gate.weight",
    "blocks.{}.recurrent_block.rg_lru.input_gate.b": "layers.{}.mixer.input_gate.bias",
    "blocks.{}.recurrent_block.rg_lru.a_param": "layers.{}.mixer.rate",
    "blocks.{}.recurrent_block.linear_out.weight": "layers.{}.mixer.output.weight",
    "blocks.{}.recurrent_block.linear_out.bias": "layers.{}.mixer.output.bias",
}
HAWK_NAMES = {**COMMON, **RECURRENT}
# Held with inputs first, and the convolution with taps first; the gates' blocks are used as they are.
TRANSPOSED = (".ffw_up.w", ".conv_1d.w")


def _hawk_config(checkpoint: Checkpoint) -> HawkConfig:
    """From the weights; whether the embedding is scaled and logits are limited, config.json has to say."""
    vocabulary, width = checkpoint.shape("embedder.input_embedding", "vocabulary", "D")
    _, _, ffn_width = checkpoint.shape("blocks.0.mlp_block.ffw_up.w", "2", "D", "F")
    blocks, side, _ = checkpoint.shape("blocks.0.recurrent_block.rg_lru.a_gate.w", "blocks", "side", "side")
    filter_width, _ = checkpoint.shape("blocks.0.recurrent_block.conv_1d.w", "W", "E")
    layers = checkpoint.count_layers(HAWK_NAMES)
    said: dict[str, Any] = {
        "block_types": ["RECURRENT"] * layers,
        "vocab_size": vocabulary,
        "width": width,
        "mlp_expanded_width": ffn_width,
        "num_heads": blocks,
        "lru_width": blocks * side,
    }
    checkpoint.expect(said)
    return HawkConfig(
        vocabulary,
        width,
        layers,
        inner=blocks * side,
        blocks=blocks,
        filter_width=filter_width,
        ffn_width=ffn_width,
        scaled=checkpoint.flag("embeddings_scale_by_sqrt_dim"),
        logit_cap=checkpoint.required("logits_soft_cap") or None,  # their 0 is no limit
    )


RELEASED = (Layout("Hawk by its authors", Hawk, HawkConfig, HAWK_NAMES, _hawk_config, transposed=TRANSPOSED),)
