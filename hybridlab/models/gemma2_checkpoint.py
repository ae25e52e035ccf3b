"""The layout of Gemma-2 folders."""

from collections.abc import Mapping
from typing import Any

from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.decoder_checkpoint import ATTENTION_NAMES, MLP_NAMES, OUTER_NAMES, attention_sizes
from hybridlab.models.gemma2 import Gemma2, Gemma2Config

# The second norm of a layer has the name that Llama gives to what the MLP reads.
NAMES: Mapping[str, str] = {
    **OUTER_NAMES,
    **ATTENTION_NAMES,
    **MLP_NAMES,
    "model.layers.{}.post_attention_layernorm.weight": "layers.{}.mixer_added_norm.weight",
    "model.layers.{}.pre_feedforward_layernorm.weight": "layers.{}.channel_norm.weight",
    "model.layers.{}.post_feedforward_layernorm.weight": "layers.{}.channel_added_norm.weight",
}
# Variants that no released Gemma-2 has: field -> the value it stands for.
FIXED: Mapping[str, Any] = {
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "tie_word_embeddings": True,
    "use_bidirectional_attention": False,
}


def _config(checkpoint: Checkpoint) -> Gemma2Config:
    checkpoint.expect(FIXED)
    sizes = attention_sizes(checkpoint)
    turns = ("sliding_attention", "full_attention")
    checkpoint.expect({"layer_types": [turns[layer % 2] for layer in range(sizes["layers"])]})
    return Gemma2Config(
        **{**sizes, "window": checkpoint.size("sliding_window")},
        query_scalar=checkpoint.required("query_pre_attn_scalar"),
        score_cap=_cap(checkpoint, "attn_logit_softcapping"),
        logit_cap=_cap(checkpoint, "final_logit_softcapping"),
    )


def _cap(checkpoint: Checkpoint, name: str) -> float | None:
    """A limit, or None where the file says null; where it says nothing, its reader would have to guess."""
    return None if name in checkpoint.fields and checkpoint.fields[name] is None else checkpoint.required(name)


FOLDERS = {
    "gemma2": Layout("transformers gemma2", Gemma2, Gemma2Config, NAMES, _config, ignored=("rotary_emb.inv_freq",)),
}
