"""The layout of Zamba folders, and what Zamba2's has in common with it: a shared block stands where it is first called."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.config import Config
from hybridlab.models.mamba_checkpoint import MIXER_NAMES
from hybridlab.models.zamba import Zamba, ZambaConfig
from hybridlab.models.zamba_skeleton import ZambaSkeletonConfig

OUTER_NAMES: Mapping[str, str] = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.final_layernorm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
}
# Of a shared block, in any layer that calls it: names in the file -> names in the model, `{}` the layer and the block.
BLOCK_NAMES: Mapping[str, str] = {
    "input_layernorm.weight": "norm.weight",
    "self_attn.q_proj.weight": "attention.query.weight",
    "self_attn.k_proj.weight": "attention.key.weight",
    "self_attn.v_proj.weight": "attention.value.weight",
    "self_attn.o_proj.weight": "attention.output.weight",
    "pre_ff_layernorm.weight": "mlp_norm.weight",
    "feed_forward.down_proj.weight": "mlp.down.weight",
}
ZAMBA_BLOCK_NAMES: Mapping[str, str] = {
    **BLOCK_NAMES,
    "feed_forward.gate_proj.weight": "mlp.gate.weight",
    "feed_forward.up_proj.weight": "mlp.up.weight",
}
ZAMBA_MIXER_NAMES: Mapping[str, str] = {
    **MIXER_NAMES,
    "x_proj_weight": "selection",
    "dt_proj_weight": "step_weight",
    "dt_proj_bias": "step_bias",
}
# Variants that this model does not have: field -> the value it stands for.
FIXED: Mapping[str, Any] = {"hidden_act": "gelu", "hidden_mamba_act": "silu"}
# What layers are called: by transformers 5, and in the hub's files.
KINDS = {"linear_attention": False, "mamba": False, "hybrid": True}


@dataclass(frozen=True)
class SharedBlockLayout(Layout):
    """A layout of layers of two kinds, M and H, whose shared blocks stand in the first layers that call them.

    Attributes:
        block: what the file calls a shared block.
        block_names: names of its tensors in the file -> in the model.
    """

    block: str = ""
    block_names: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    def named(self, config: Config, experts: int = 0) -> dict[str, tuple[str, ...]]:
        """Names in a file of these sizes -> names in the model."""
        assert isinstance(config, ZambaSkeletonConfig)
        return super().named(config, experts) | dict(self.shared(config))

    def shared(self, config: ZambaSkeletonConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The same for what the blocks hold."""
        for number, layer in enumerate(config.calls[: config.blocks]):
            for theirs, ours in self.block_names.items():
                names = (ours,) if isinstance(ours, str) else ours
                place = f"model.layers.{layer}.{self.block}.{theirs}"
                yield place, tuple(f"shared_blocks.{number}.{name}" for name in names)

    def without_copies(self, tensors: Mapping[str, Tensor], config: Config) -> Mapping[str, Tensor]:
        """Each block once: transformers 5 saves it for every call, if the head is not the embedding.

        Raises:
            ValueError: if a call's copy differs. Such blocks are not shared, and this would be another architecture.
        """
        assert isinstance(config, ZambaSkeletonConfig)
        copies: dict[str, str] = {}  # name -> the same in the layer that calls the block first
        for call, layer in enumerate(config.calls):
            here, first = (f"model.layers.{x}.{self.block}." for x in (layer, config.calls[call % config.blocks]))
            copies |= {name: name.replace(here, first) for name in tensors if here != first and name.startswith(here)}
        for name, first in copies.items():
            if first in tensors and not torch.equal(tensors[name], tensors[first]):
                raise ValueError(f"load_checkpoint: {name} differs from {first}; layers share one block")
        return {name: tensor for name, tensor in tensors.items() if copies.get(name, "") not in tensors}


class ZambaLayout(SharedBlockLayout):
    """Zamba's, whose map from the stream gives x and z of a channel one after the other."""

    def parts(self, name: str, tensor: Tensor, count: int) -> tuple[Tensor, ...]:
        """The tensors of the model that one of the file's holds."""
        if ".in_proj." in name and tensor.ndim:
            return (torch.cat((tensor[0::2], tensor[1::2])),)
        return super().parts(name, tensor, count)


def layer_names(mixer: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """By the letter of a layer: names of its own tensors in the file -> in the model."""

    def placed(place: str) -> dict[str, str]:
        norm = {f"{place}.input_layernorm.weight": "layers.{}.norm.weight"}
        return norm | {f"{place}.mamba.{theirs}": "layers.{}.mixer." + ours for theirs, ours in mixer.items()}

    linear = {"model.layers.{}.linear.weight": "layers.{}.linear.weight"}
    return {"M": placed("model.layers.{}"), "H": placed("model.layers.{}.mamba_decoder") | linear}


def common_sizes(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of a ZambaSkeletonConfig but `calls`, by their names, as transformers writes them for both Zambas."""
    width, heads = checkpoint.size("hidden_size"), checkpoint.size("num_attention_heads")
    return {
        "vocabulary": checkpoint.size("vocab_size"),
        "width": width,
        "layers": checkpoint.size("num_hidden_layers"),
        "heads": heads,
        "groups": checkpoint.size("num_key_value_heads", heads),
        "head_width": 2 * width // heads,
        "ffn_width": checkpoint.size("intermediate_size", 4 * width),
        "inner": checkpoint.size("mamba_expand", 2) * width,
        "filter_width": checkpoint.size("mamba_d_conv", 4),
        "norm_eps": checkpoint.required("rms_norm_eps"),
        "tied": checkpoint.flag("tie_word_embeddings", True),
    }


def listed_calls(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The layers that call a shared block, from a list of all layers' kinds."""
    kinds, layers = checkpoint.required("layers_block_type"), checkpoint.size("num_hidden_layers")
    if not isinstance(kinds, list) or len(kinds) != layers or not all(kind in tuple(KINDS) for kind in kinds):
        found = f"config.json has layers_block_type {kinds!r}, expected {layers} of {', '.join(KINDS)}"
        raise ValueError(f"load_checkpoint: {found}: {checkpoint.where}")
    return tuple(layer for layer, kind in enumerate(kinds) if KINDS[kind])


def _calls(checkpoint: Checkpoint) -> tuple[int, ...]:
    """As listed; where nothing is listed, the third layer and then one layer in so many."""
    if "layers_block_type" in checkpoint.fields:
        return listed_calls(checkpoint)
    layers, period = checkpoint.size("num_hidden_layers"), checkpoint.size("attn_layer_period", 6)
    offset = checkpoint.optional("attn_layer_offset", 4)
    return (2, *(layer for layer in range(3, layers) if (layer - 3) % period == offset))


def _config(checkpoint: Checkpoint) -> ZambaConfig:
    sizes = common_sizes(checkpoint)
    checkpoint.expect({**FIXED, "attention_hidden_size": 2 * sizes["width"]})
    return ZambaConfig(
        **sizes | {"head_width": checkpoint.size("attention_head_dim", sizes["head_width"])},
        calls=_calls(checkpoint),
        state_size=checkpoint.size("mamba_d_state", 16),
        bias=checkpoint.flag("mamba_proj_bias", False),
        mixer_heads=checkpoint.size("n_mamba_heads"),
        rank=0 if checkpoint.optional("mamba_dt_rank", "auto") == "auto" else checkpoint.size("mamba_dt_rank"),
        conv_bias=checkpoint.flag("mamba_conv_bias", True),
    )


KIND_NAMES = layer_names(ZAMBA_MIXER_NAMES)
FOLDERS = {
    "zamba": ZambaLayout(
        "transformers zamba",
        Zamba,
        ZambaConfig,
        {**OUTER_NAMES, **KIND_NAMES["M"], **KIND_NAMES["H"]},
        _config,
        kinds=KIND_NAMES,
        block="shared_transf",
        block_names=ZAMBA_BLOCK_NAMES,
    )
}
