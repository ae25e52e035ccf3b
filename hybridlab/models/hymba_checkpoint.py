"""The layout of Hymba's released folders, which keep all maps from the stream in one matrix."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hybridlab.layers import Rotary
from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.hymba import Hymba, HymbaConfig, stretched
from hybridlab.models.mamba_checkpoint import step_rank

# Parts of the packed matrix, in the order of its rows, and their names here; layers that borrow keys lack the second two.
PARTS: Mapping[str, str] = {
    "queries": "attention.query",
    "keys": "attention.key",
    "values": "attention.value",
    "scan": "mamba.input",
}
PACKED = "in_proj."
MIXER_NAMES: Mapping[str, str] = {
    **{f"{PACKED}{kind} ({part})": f"{ours}.{kind}" for part, ours in PARTS.items() for kind in ("weight", "bias")},
    "conv1d.weight": "mamba.conv.weight",
    "conv1d.bias": "mamba.conv.bias",
    "x_proj.0.weight": "mamba.selection.weight",
    "dt_proj.0.weight": "mamba.step.weight",
    "dt_proj.0.bias": "mamba.step.bias",
    "A_log.0": "mamba.A_log",
    "D.0": "mamba.D",
    "dt_layernorm.weight": "mamba.step_norm.weight",
    "B_layernorm.weight": "mamba.B_norm.weight",
    "C_layernorm.weight": "mamba.C_norm.weight",
    "pre_avg_layernorm1.weight": "attention_norm.weight",
    "pre_avg_layernorm2.weight": "scan_norm.weight",
    "out_proj.weight": "mamba.output.weight",
    "out_proj.bias": "mamba.output.bias",
}
BLOCK_NAMES: Mapping[str, str] = {
    "input_layernorm.weight": "mixer_norm.weight",
    **{f"mamba.{theirs}": f"mixer.{ours}" for theirs, ours in MIXER_NAMES.items()},
    "pre_moe_layernorm.weight": "channel_norm.weight",
    **{f"moe.experts.0.{kind}_proj.weight": f"channel_mixer.{kind}.weight" for kind in ("gate", "up", "down")},
}
NAMES: Mapping[str, str] = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.memory_tokens": "meta.weight",
    **{f"model.layers.{{}}.{theirs}": f"layers.{{}}.{ours}" for theirs, ours in BLOCK_NAMES.items()},
    "model.final_layernorm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
}
# Variants that the released model does not have: field -> the value it stands for.
FIXED: Mapping[str, Any] = {
    "hidden_act": "silu",
    "mlp_hidden_act": "silu",
    "num_experts": 1,
    "num_mamba": 1,
    "mamba_inner_layernorms": True,
    "memory_tokens_interspersed_every": 0,
    "kv_reuse_every_i_layer": -1,
    "kv_weight_reuse": False,
    "kq_norm": "none",
    "kq_head_dim": -1,
    "attn_hidden_size": -1,
    "rope": True,
    "tie_word_embeddings": True,
}


class HymbaLayout(Layout):
    """A layout with rows [q | k | v | x | z] in one matrix, or [q | x | z] where keys are borrowed."""

    def wanted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors by the names of their parts."""
        found: dict[str, Tensor] = {}
        for name, tensor in super().wanted(tensors).items():
            holder, packed, kind = name.rpartition(PACKED)
            output = tensors.get(f"{holder}out_proj.weight")
            if not packed or output is None or output.ndim != 2 or tensor.ndim == 0:
                found[name] = tensor
                continue
            rows = zip(PARTS, tensor.tensor_split(_starts(len(tensor), *output.shape)), strict=True)
            found |= {f"{holder}{PACKED}{kind} ({part})": part_rows for part, part_rows in rows if len(part_rows)}
        return found


def _starts(rows: int, width: int, inner: int) -> tuple[int, int, int]:
    """Where keys, values and scan begin: queries are D wide, the scan reads 2 E, and keys are to values as D to E."""
    shared = max(0, rows - width - 2 * inner)
    return width, width + shared * width // (width + inner), width + shared


def _config(checkpoint: Checkpoint) -> HymbaConfig:
    checkpoint.expect(FIXED)
    width, heads = checkpoint.size("hidden_size"), checkpoint.size("num_attention_heads")
    inner, head_width = checkpoint.size("mamba_expand", 2) * width, width // heads
    config = HymbaConfig(
        checkpoint.size("vocab_size"),
        width,
        checkpoint.size("num_hidden_layers"),
        heads=heads,
        groups=checkpoint.size("num_key_value_heads", heads),
        head_width=head_width,
        ffn_width=checkpoint.size("intermediate_size"),
        # Theirs counts the keys beside the query's own.
        window=checkpoint.size("sliding_window") + 1,
        rotary=_rotary(checkpoint, head_width),
        norm_eps=checkpoint.required("rms_norm_eps"),
        pattern=_pattern(checkpoint),
        meta_tokens=checkpoint.size("num_memory_tokens"),
        inner=inner,
        state_size=checkpoint.size("mamba_d_state"),
        filter_width=checkpoint.size("mamba_d_conv"),
        rank=step_rank(checkpoint, "mamba_dt_rank"),
        bias=checkpoint.flag("mamba_proj_bias", False),
        conv_bias=checkpoint.flag("mamba_conv_bias", True),
    )
    checkpoint.expect({"v_head_dim": inner // heads})
    return config


def _rotary(checkpoint: Checkpoint, head_width: int) -> Rotary:
    theta, kind = checkpoint.optional("rope_theta", Rotary().theta), checkpoint.optional("rope_type", "default")
    if kind == "default":
        return Rotary(theta)
    if kind != "ntk":
        known = "known are 'default' and 'ntk'"
        raise ValueError(f"load_checkpoint: config.json has rope_type {kind!r}; {known}: {checkpoint.where}")
    longer = checkpoint.size("max_position_embeddings") / checkpoint.size("orig_max_position_embeddings")
    return stretched(theta, longer, head_width)


def _pattern(checkpoint: Checkpoint) -> str:
    """A, W and S from two lists: layers that see everything, and groups that share the keys of their first."""
    layers = checkpoint.size("num_hidden_layers")
    letters = ["W"] * layers
    for layer in _numbers(checkpoint, "global_attn_idx", checkpoint.required("global_attn_idx"), layers):
        letters[layer] = "A"
    for group in checkpoint.optional("kv_reuse_group", []):
        numbers = _numbers(checkpoint, "kv_reuse_group", group, layers)
        straight = numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else False
        if not straight or any(letters[layer] != "W" for layer in numbers):
            raise ValueError(
                f"load_checkpoint: config.json has {group!r} in kv_reuse_group, expected neighbours, in no other group "
                f"and not in global_attn_idx: {checkpoint.where}"
            )
        letters[numbers[0] + 1 : numbers[0] + len(numbers)] = "S" * (len(numbers) - 1)
    return "".join(letters)


def _numbers(checkpoint: Checkpoint, name: str, numbers: Any, layers: int) -> list[int]:
    """Numbers of layers that exist."""
    listed = isinstance(numbers, list) and all(type(number) is int and 0 <= number < layers for number in numbers)
    if not listed:
        raise ValueError(
            f"load_checkpoint: config.json has {numbers!r} in {name}, expected numbers of layers: {checkpoint.where}"
        )
    return list(numbers)


FOLDERS = {
    "hymba": HymbaLayout("Hymba by its authors", Hymba, HymbaConfig, NAMES, _config, ignored=("rotary_emb.inv_freq",)),
}
