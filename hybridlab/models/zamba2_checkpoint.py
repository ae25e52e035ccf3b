"""The layout of Zamba2 folders: what is a call's own stands in the layer where its shared block was first called."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from hybridlab.models.checkpoint_layout import Checkpoint
from hybridlab.models.decoder_checkpoint import rotary_positions
from hybridlab.models.mamba2_checkpoint import OWN_NAMES
from hybridlab.models.mamba_checkpoint import MIXER_NAMES
from hybridlab.models.zamba2 import Zamba2, Zamba2Config
from hybridlab.models.zamba_checkpoint import (
    BLOCK_NAMES,
    OUTER_NAMES,
    SharedBlockLayout,
    common_sizes,
    layer_names,
    listed_calls,
)
from hybridlab.models.zamba_skeleton import ZambaSkeletonConfig

BLOCK2_NAMES: Mapping[str, str | tuple[str, ...]] = {
    **BLOCK_NAMES,
    "feed_forward.gate_up_proj.weight": ("mlp.gate.weight", "mlp.up.weight"),
    "feed_forward.gate_up_proj.bias": ("mlp.gate.bias", "mlp.up.bias"),
    "feed_forward.down_proj.bias": "mlp.down.bias",
}
# Lists in a block of the file, one entry a call of any block -> what each call has of its own in the model.
ADAPTER_NAMES: Mapping[str, str] = {
    "feed_forward.gate_up_proj_adapter_list": "mlp",
    "self_attn.linear_q_adapter_list": "attention.query",
    "self_attn.linear_k_adapter_list": "attention.key",
    "self_attn.linear_v_adapter_list": "attention.value",
}
# The two maps of an adapter, which the file has output first.
ADAPTER_MAPS: Mapping[str, str] = {".0.weight": "down", ".1.weight": "up"}
# Variants that this model does not have: field -> the value it stands for.
FIXED: Mapping[str, Any] = {"hidden_act": "gelu", "use_long_context": False}
SHORTEST_STEP = 0.001  # transformers' own, where config.json does not say time_step_min


class Zamba2Layout(SharedBlockLayout):
    """Zamba2's: block number j % n of n blocks holds what its call j has of its own, and gate and up in one matrix."""

    def shared(self, config: ZambaSkeletonConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Names in the file -> in the model, of what the blocks hold."""
        yield from super().shared(config)
        for call, layer in enumerate(config.calls):
            place = f"model.layers.{config.calls[call % config.blocks]}.{self.block}"
            for theirs, ours in ADAPTER_NAMES.items():
                for end, part in ADAPTER_MAPS.items():
                    yield f"{place}.{theirs}.{call}{end}", (f"layers.{layer}.adapters.{ours}.{part}",)

    def parts(self, name: str, tensor: Tensor, count: int) -> tuple[Tensor, ...]:
        """The tensors of the model that one of the file's holds."""
        if count == 2 and tensor.ndim and len(tensor) % 2 == 0:
            return tensor.chunk(2)
        return super().parts(name, tensor, count)


def _config(checkpoint: Checkpoint) -> Zamba2Config:
    """From transformers' config.json. It has no use for `use_conv_bias`: there is always a bias."""
    checkpoint.expect(FIXED)
    rotary = rotary_positions(checkpoint) if checkpoint.flag("use_mem_rope", False) else None
    return Zamba2Config(
        **common_sizes(checkpoint),
        calls=listed_calls(checkpoint),
        state_size=checkpoint.size("mamba_d_state", 64),
        bias=checkpoint.flag("add_bias_linear", False),
        blocks=checkpoint.size("num_mem_blocks", 1),
        mixer_heads=checkpoint.size("n_mamba_heads"),
        mixer_groups=checkpoint.size("mamba_ngroups", 1),
        adapter_rank=checkpoint.size("adapter_rank", 128),
        attention_adapters=checkpoint.flag("use_shared_attention_adapter", False),
        rotary=rotary,
        step_limits=(checkpoint.optional("time_step_min", SHORTEST_STEP), math.inf),
    )


KIND_NAMES = layer_names({**MIXER_NAMES, **OWN_NAMES})
FOLDERS = {
    "zamba2": Zamba2Layout(
        "transformers zamba2",
        Zamba2,
        Zamba2Config,
        {**OUTER_NAMES, **KIND_NAMES["M"], **KIND_NAMES["H"]},
        _config,
        transposed=tuple(ADAPTER_MAPS),
        kinds=KIND_NAMES,
        block="shared_transformer",
        block_names=BLOCK2_NAMES,
    )
}
