"""The layout of StripedHyena's authors, whose hub folders are the same behind "backbone."."""

from collections.abc import Mapping
from typing import Any

from hybridlab.layers import Rotary
from hybridlab.models.checkpoint_layout import Checkpoint
from hybridlab.models.packed_attention import PackedLayout, packed_names
from hybridlab.models.stripedhyena import StripedHyena, StripedHyenaConfig

CONVOLVING: Mapping[str, str] = {
    "blocks.{}.projections.weight": "layers.{}.mixer.input.weight",
    "blocks.{}.projections.bias": "layers.{}.mixer.input.bias",
    "blocks.{}.filter.short_filter_weight": "layers.{}.mixer.conv.weight",
    "blocks.{}.filter.short_filter_bias": "layers.{}.mixer.conv.bias",
    "blocks.{}.filter.poles": "layers.{}.mixer.poles",
    "blocks.{}.filter.residues": "layers.{}.mixer.residues",
    "blocks.{}.filter.D": "layers.{}.mixer.D",
    "blocks.{}.out_filter_dense.weight": "layers.{}.mixer.output.weight",
    "blocks.{}.out_filter_dense.bias": "layers.{}.mixer.output.bias",
}
ATTENDING = packed_names("blocks.{}.inner_mha_cls.", "layers.{}.mixer.")
NAMES: Mapping[str, str] = {
    "embedding_layer.weight": "embedding.weight",
    "blocks.{}.pre_norm.scale": "layers.{}.mixer_norm.weight",
    **CONVOLVING,
    **ATTENDING,
    "blocks.{}.post_norm.scale": "layers.{}.channel_norm.weight",
    "blocks.{}.mlp.l1.weight": "layers.{}.channel_mixer.gate.weight",
    "blocks.{}.mlp.l2.weight": "layers.{}.channel_mixer.up.weight",
    "blocks.{}.mlp.l3.weight": "layers.{}.channel_mixer.down.weight",
    "norm.scale": "norm.weight",
    "unembed.weight": "head.weight",
}
# Variants that this model does not have: field -> the value it stands for.
FIXED: Mapping[str, Any] = {
    "hyena_filter_groups": 1,
    "final_norm": True,
    "column_split": False,
    "smeared_gqa": False,
    "use_interpolated_rotary_pos_emb": False,
}


def _config(checkpoint: Checkpoint) -> StripedHyenaConfig:
    """From the fields of the authors' configurations, with the defaults of their code."""
    width, layers, heads = (checkpoint.size(name) for name in ("hidden_size", "num_layers", "num_attention_heads"))
    checkpoint.expect({**FIXED, "num_filters": width})
    return StripedHyenaConfig(
        _vocabulary(checkpoint),
        width,
        layers,
        heads=heads,
        groups=_groups(checkpoint, heads),
        attention_layers=_attention_layers(checkpoint, layers),
        ffn_width=checkpoint.size("inner_mlp_size", -(-(8 * width // 3) // 64) * 64),
        state_size=checkpoint.size("state_size"),
        filter_width=checkpoint.size("short_filter_length"),
        filter_bias=checkpoint.flag("short_filter_bias"),
        by_head=checkpoint.flag("column_split_hyena", True),
        rotary=Rotary(checkpoint.optional("rotary_emb_base", Rotary().theta)),
        attention_bias=_attention_bias(checkpoint),
        norm_eps=checkpoint.required("eps"),
        tied=checkpoint.flag("tie_embeddings"),
    )


def _vocabulary(checkpoint: Checkpoint) -> int:
    step = checkpoint.size("make_vocab_size_divisible_by", 1)
    return -(-checkpoint.size("vocab_size") // step) * step


def _groups(checkpoint: Checkpoint, heads: int) -> int:
    """Their groups count the heads that share a key."""
    shared = checkpoint.size("proj_groups", 1)
    if heads % shared:
        found = f"proj_groups {shared}, which does not divide num_attention_heads {heads}"
        raise ValueError(f"load_checkpoint: config.json has {found}: {checkpoint.where}")
    return heads // shared


def _attention_layers(checkpoint: Checkpoint, layers: int) -> tuple[int, ...]:
    """Every layer attends or convolves; the release lists a layer beyond its last, which does no harm."""
    listed = {name: checkpoint.required(name) for name in ("attn_layer_idxs", "hyena_layer_idxs")}
    for name, numbers in listed.items():
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            raise ValueError(f"load_checkpoint: config.json has {name} {numbers!r}, expected layers: {checkpoint.where}")
    attending, convolving = (set(numbers) & set(range(layers)) for numbers in listed.values())
    wrong = (attending & convolving) or (set(range(layers)) - attending - convolving)
    if wrong:
        found = f"attn_layer_idxs and hyena_layer_idxs that do not share out layer {min(wrong)} between them"
        raise ValueError(f"load_checkpoint: config.json has {found}: {checkpoint.where}")
    return tuple(sorted(attending))


def _attention_bias(checkpoint: Checkpoint) -> bool:
    bias = checkpoint.flag("qkv_proj_bias", True)
    checkpoint.expect({"mha_out_proj_bias": bias})
    return bias


def _layout(name: str, prefix: str) -> PackedLayout:
    return PackedLayout(
        name,
        StripedHyena,
        StripedHyenaConfig,
        {f"{prefix}{theirs}": ours for theirs, ours in NAMES.items()},
        _config,
        ignored=("rotary_emb.inv_freq",),
        kinds={"H": {f"{prefix}{theirs}" for theirs in CONVOLVING}, "A": {f"{prefix}{theirs}" for theirs in ATTENDING}},
    )


RELEASED = (_layout("StripedHyena by its authors", ""),)
FOLDERS = {"stripedhyena": _layout("a folder of StripedHyena", "backbone.")}
