"""Folders of Nemotron-H, which continues Mamba-2-Hybrid, against transformers' full forward, with each activation."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from alike import edited, naive
from safetensors.torch import load_file, save_file
from test_checkpoints_transformers import VOCABULARY, agree, written

from hybridlab.models import Mamba2Hybrid, Mamba2HybridConfig, load_checkpoint

transformers = pytest.importorskip("transformers")

MAMBA2, ATTENTION, MLP = "linear_attention", "full_attention", "mlp"
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "layers_block_type": [MAMBA2, MLP, ATTENTION, MAMBA2, MLP],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "mamba_num_heads": 6,
    "mamba_head_dim": 8,
    "ssm_state_size": 5,
    "n_groups": 2,
    "chunk_size": 8,
}
VARIANTS = {
    "usual": {},
    "gelu, as in Mamba-2-Hybrid": {"mlp_hidden_act": "gelu", "time_step_min": 1e-9},
    "gelu by tanh": {"mlp_hidden_act": "gelu_pytorch_tanh"},
    "attention first, two MLPs in a row": {
        "layers_block_type": [ATTENTION, MLP, MLP, MAMBA2],
        "head_dim": 10,
        "num_key_value_heads": 4,
    },
    "no step too short, other sizes of Mamba-2": {
        "time_step_min": 0.5,
        "mamba_num_heads": 3,
        "n_groups": 1,
        "conv_kernel": 2,
        "layer_norm_epsilon": 0.05,
    },
}


def folder_of(folder: Path, **options: Any) -> tuple[Any, Path]:
    model = transformers.NemotronHForCausalLM(transformers.NemotronHConfig(**{**SIZES, **options}))
    return model, written(model, folder)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits(tmp_path: Path, variant: str) -> None:
    reference, folder = folder_of(tmp_path, **VARIANTS[variant])
    model = load_checkpoint(folder)
    assert isinstance(model, Mamba2Hybrid)
    agree(naive(model), reference)


def test_sizes_read_from_a_folder(tmp_path: Path) -> None:
    _, folder = folder_of(tmp_path, **VARIANTS["no step too short, other sizes of Mamba-2"])
    assert load_checkpoint(folder).config == Mamba2HybridConfig(
        vocabulary=VOCABULARY,
        width=24,
        layers=5,
        pattern="M-*M-",
        heads=4,
        groups=2,
        head_width=6,
        ffn_width=40,
        activation="squared relu",
        ssm_heads=3,
        ssm_head_width=8,
        state_size=5,
        filter_width=2,
        step_limits=(0.5, math.inf),
        norm_eps=0.05,
    )


def test_fields_of_the_hub(tmp_path: Path) -> None:
    """The hub's files say a word of symbols, and call the heads' width otherwise."""
    reference, folder = folder_of(tmp_path)
    new = load_checkpoint(folder).config
    edited(folder, layers_block_type=None, hybrid_override_pattern="M-*M-", num_hidden_layers=5)
    edited(folder, head_dim=None, attention_head_dim=6, rms_norm_eps=1e-5, time_step_limit=[0.0, math.inf])
    edited(folder, **dict.fromkeys(("conv_kernel", "mlp_hidden_act", "time_step_min", "use_conv_bias", "use_bias")))
    model = load_checkpoint(folder)
    assert model.config == new
    agree(naive(model), reference)


@torch.no_grad()
def test_shards_hold_the_same(tmp_path: Path) -> None:
    reference, _ = folder_of(tmp_path / "whole")
    reference.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    whole, shards = load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "shards")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, shards.state_dict()[name]), name


def test_missing_tensors(tmp_path: Path) -> None:
    _, folder = folder_of(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    for name in ("0.mixer.norm", "0.mixer.out_proj", "1.mixer.down_proj", "2.mixer.o_proj", "2.norm"):
        missing = f"backbone.layers.{name}.weight"
        save_file({key: tensor for key, tensor in tensors.items() if key != missing}, folder / "model.safetensors")
        with pytest.raises(ValueError, match=f"missing tensor {missing} for transformers nemotron_h"):
            load_checkpoint(folder)


NONSENSE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"layers_block_type": None}, "config.json lacks 'hybrid_override_pattern'"),
    ({"layers_block_type": [MAMBA2, "moe"]}, r"layers \['linear_attention', 'moe'\]; known are linear_attention, mamba"),
    ({"layers_block_type": None, "hybrid_override_pattern": "M-E"}, "layers 'M-E'; known are"),
    ({"layers_block_type": 3}, "layers 3; known are"),
    ({"layers_block_type": [MAMBA2, MLP, ATTENTION, MLP, MLP]}, r"missing tensor backbone\.layers\.3\.mixer\.up_proj"),
    ({"num_hidden_layers": 4}, "layers is 4; expected a multiple of 5 symbols"),
    ({"mlp_hidden_act": "silu"}, "mlp_hidden_act 'silu'; known are gelu, gelu_pytorch_tanh, relu2"),
    ({"tie_word_embeddings": True}, r"the head is tied, but lm_head\.weight differs from backbone\.embeddings\.weight"),
    ({"mlp_bias": True}, "mlp_bias True; only False is known"),
    ({"use_bias": True}, "use_bias True; only False is known"),
    ({"attention_bias": True}, "attention_bias True; only False is known"),
    ({"use_conv_bias": False}, "use_conv_bias False; only True is known"),
    ({"num_nextn_predict_layers": 1}, "num_nextn_predict_layers 1; only 0 is known"),
    ({"mamba_num_heads": None}, "config.json lacks 'mamba_num_heads'"),
    ({"layer_norm_epsilon": None}, "config.json lacks 'layer_norm_epsilon'"),
    ({"time_step_min": "short"}, r"step_limits is \('short', inf\); expected"),
    ({"n_groups": 4}, "ssm_groups is 4; expected a divisor of ssm_heads = 6"),
    ({"head_dim": 7}, r"q_proj\.weight has shape \(24, 24\), the sizes of this model ask for \(28, 24\)"),
)


def test_a_config_that_contradicts_the_file(tmp_path: Path) -> None:
    _, folder = folder_of(tmp_path)
    good = (folder / "config.json").read_text()
    for fields, message in NONSENSE:
        (folder / "config.json").write_text(good)
        with pytest.raises(ValueError, match=message):
            load_checkpoint(edited(folder, **fields))
