"""The layout of the Griffin family's authors: weights of the PyTorch code, and the numbers that they do not say."""

from collections.abc import Mapping
from typing import Any

from hybridlab.models.checkpoint_layout import Checkpoint, Layout, layer_number
from hybridlab.models.griffin import Griffin, GriffinConfig
from hybridlab.models.hawk import Hawk, HawkConfig
from hybridlab.models.recurrent_gemma import RecurrentGemma, RecurrentGemmaConfig

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
ATTENTION: Mapping[str, str] = {
    "blocks.{}.attention_block.proj_q.weight": "layers.{}.mixer.query.weight",
    "blocks.{}.attention_block.proj_k.weight": "layers.{}.mixer.key.weight",
    "blocks.{}.attention_block.proj_v.weight": "layers.{}.mixer.value.weight",
    "blocks.{}.attention_block.proj_final.weight": "layers.{}.mixer.output.weight",
    "blocks.{}.attention_block.proj_final.bias": "layers.{}.mixer.output.bias",
}
HAWK_NAMES = {**COMMON, **RECURRENT}
GRIFFIN_NAMES = {**COMMON, **RECURRENT, **ATTENTION}
KINDS = {"G": RECURRENT, "W": ATTENTION}
BLOCK_TYPES = {"G": "RECURRENT", "W": "ATTENTION"}
# Held with inputs first, and the convolution with taps first; the gates' blocks are used as they are.
TRANSPOSED = (".ffw_up.w", ".conv_1d.w")


def _around_the_mixers(checkpoint: Checkpoint, letters: str) -> dict[str, Any]:
    """From the weights; whether the embedding is scaled and logits are limited, config.json has to say."""
    vocabulary, width = checkpoint.shape("embedder.input_embedding", "vocabulary", "D")
    _, _, ffn_width = checkpoint.shape("blocks.0.mlp_block.ffw_up.w", "2", "D", "F")
    said: dict[str, Any] = {
        "block_types": [BLOCK_TYPES[letter] for letter in letters],
        "vocab_size": vocabulary,
        "width": width,
        "mlp_expanded_width": ffn_width,
    }
    checkpoint.expect(said)
    return {
        "vocabulary": vocabulary,
        "width": width,
        "layers": len(letters),
        "ffn_width": ffn_width,
        "scaled": checkpoint.flag("embeddings_scale_by_sqrt_dim"),
        "logit_cap": checkpoint.required("logits_soft_cap") or None,  # their 0 is no limit
    }


def _recurrent(checkpoint: Checkpoint, layer: int) -> dict[str, Any]:
    """Sizes of a recurrent block. The authors count blocks of the gates as heads."""
    blocks, side, _ = checkpoint.shape(f"blocks.{layer}.recurrent_block.rg_lru.a_gate.w", "blocks", "side", "side")
    filter_width, _ = checkpoint.shape(f"blocks.{layer}.recurrent_block.conv_1d.w", "W", "E")
    checkpoint.expect({"num_heads": blocks, "lru_width": blocks * side})
    return {"inner": blocks * side, "blocks": blocks, "filter_width": filter_width}


def _attention(checkpoint: Checkpoint, layer: int) -> dict[str, Any]:
    """Sizes of an attention block, which has one head of keys. In the authors' code a query sees a window beside itself."""
    head_width, _ = checkpoint.shape(f"blocks.{layer}.attention_block.proj_k.weight", "K", "D")
    queries, _ = checkpoint.shape(f"blocks.{layer}.attention_block.proj_q.weight", "H * K", "D")
    heads = queries // max(1, head_width)  # sizes of an empty tensor fit nothing else
    checkpoint.expect({"num_heads": heads})
    return {"heads": heads, "head_width": head_width, "window": checkpoint.size("attention_window_size") + 1}


def _letters(checkpoint: Checkpoint) -> str:
    """One a layer, by the names of its tensors."""
    attending = {layer_number(name) for name in checkpoint.tensors if ".attention_block." in name}
    return "".join("W" if layer in attending else "G" for layer in range(checkpoint.count_layers(GRIFFIN_NAMES)))


def _hawk_config(checkpoint: Checkpoint) -> HawkConfig:
    letters = "G" * checkpoint.count_layers(HAWK_NAMES)
    return HawkConfig(**_recurrent(checkpoint, 0), **_around_the_mixers(checkpoint, letters))


def _griffin_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    letters = _letters(checkpoint)
    recurrent = _recurrent(checkpoint, letters.index("G")) if "G" in letters else {"blocks": 1}
    attention = _attention(checkpoint, letters.index("W")) if "W" in letters else {}
    return {"pattern": shortest(letters), **recurrent, **attention, **_around_the_mixers(checkpoint, letters)}


def shortest(letters: str) -> str:
    """The shortest pattern that gives these letters when it is repeated and cut: GGW of GGWGGWG."""
    patterns = (letters[:length] for length in range(1, len(letters) + 1))
    return next(pattern for pattern in patterns if (pattern * len(letters)).startswith(letters))


def _limited(fields: Mapping[str, Any]) -> bool:
    """What tells a RecurrentGemma from a Griffin, whose tensors have the same names."""
    return bool(fields.get("logits_soft_cap"))


RELEASED = (
    Layout("Hawk by its authors", Hawk, HawkConfig, HAWK_NAMES, _hawk_config, transposed=TRANSPOSED),
    Layout(
        "Griffin by its authors",
        Griffin,
        GriffinConfig,
        GRIFFIN_NAMES,
        lambda checkpoint: GriffinConfig(**_griffin_fields(checkpoint)),
        transposed=TRANSPOSED,
        kinds=KINDS,
        claims=lambda fields: not _limited(fields),
    ),
    Layout(
        "RecurrentGemma by its authors",
        RecurrentGemma,
        RecurrentGemmaConfig,
        GRIFFIN_NAMES,
        lambda checkpoint: RecurrentGemmaConfig(**_griffin_fields(checkpoint)),
        transposed=TRANSPOSED,
        kinds=KINDS,
        claims=_limited,
    ),
)
