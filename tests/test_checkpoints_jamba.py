"""Jamba's folders against transformers' full forward; both styles of config.json; what contradicts a folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from alike import edited, naive
from safetensors.torch import load_file, save_file
from test_checkpoints_transformers import VOCABULARY, agree, written

from hybridlab.layers import Routing
from hybridlab.models import Jamba, JambaConfig, load_checkpoint
from hybridlab.models.jamba import Every

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 4,
    "attn_layer_period": 4,
    "attn_layer_offset": 2,
    "mamba_d_state": 5,
}
VARIANTS = {
    "usual": {},
    "odd offsets, three of five": {
        "attn_layer_period": 3,
        "attn_layer_offset": 0,
        "expert_layer_period": 3,
        "expert_layer_offset": 2,
        "num_experts": 5,
        "num_experts_per_tok": 3,
    },
    "no experts, tied": {"num_experts": 1, "tie_word_embeddings": True},
    "experts everywhere, no attention": {
        "expert_layer_period": 1,
        "expert_layer_offset": 0,
        "attn_layer_period": 9,
        "attn_layer_offset": 8,
    },
    "other sizes of Mamba": {
        "mamba_expand": 3,
        "mamba_dt_rank": 7,
        "mamba_d_conv": 3,
        "mamba_proj_bias": True,
        "mamba_conv_bias": False,
        "rms_norm_eps": 0.05,
    },
}


def folder_of(folder: Path, **options: Any) -> tuple[Any, Path]:
    model = transformers.JambaForCausalLM(transformers.JambaConfig(**{**SIZES, **options}))
    return model, written(model, folder)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits(tmp_path: Path, variant: str) -> None:
    reference, folder = folder_of(tmp_path, **VARIANTS[variant])
    model = load_checkpoint(folder)
    assert isinstance(model, Jamba)
    agree(naive(model), reference)


@torch.no_grad()
def test_logits_in_float64(tmp_path: Path) -> None:
    """The reference computes norms, the scan and the router in float32 in any case; another choice of experts would be far
    off."""
    reference, folder = folder_of(tmp_path)
    reference.set_experts_implementation("eager")
    ids = torch.randint(0, VOCABULARY, (3, 37))
    expected = reference.double()(ids, use_cache=False).logits
    got = naive(load_checkpoint(folder, dtype=torch.float64))(ids).logits
    assert ((got - expected).abs().max() / expected.abs().max()).item() < 2e-5


def test_sizes_read_from_a_folder(tmp_path: Path) -> None:
    _, folder = folder_of(tmp_path, **VARIANTS["other sizes of Mamba"], expert_layer_period=3, expert_layer_offset=0)
    assert load_checkpoint(folder).config == JambaConfig(
        vocabulary=VOCABULARY,
        width=32,
        layers=4,
        heads=4,
        groups=2,
        ffn_width=40,
        attention=Every(4, 2),
        mixtures=Every(3, 0),
        routing=Routing(4, 2, renormalised=False),
        inner=96,
        state_size=5,
        filter_width=3,
        rank=7,
        bias=True,
        conv_bias=False,
        norm_eps=0.05,
    )


def test_fields_of_the_hub(tmp_path: Path) -> None:
    """The hub's files spell out what has become a matter of course, and leave out what is usual; lists of layers, in either
    style, say what the period says."""
    reference, folder = folder_of(tmp_path, num_experts=16, attn_layer_period=8, attn_layer_offset=4, num_hidden_layers=5)
    new = load_checkpoint(folder).config
    usual = ("attn_layer_period", "attn_layer_offset", "expert_layer_period", "expert_layer_offset", "num_experts")
    edited(folder, mamba_inner_layernorms=True, use_mamba_kernels=True, calc_logits_for_entire_prompt=False)
    edited(folder, **dict.fromkeys((*usual, "num_experts_per_tok", "mamba_d_conv", "mamba_expand", "mamba_proj_bias")))
    edited(folder, mamba_dt_rank="auto", sliding_window=None, tie_word_embeddings=None, hidden_act=None)
    model = load_checkpoint(folder)
    assert model.config == new
    agree(naive(model), reference)
    for name, mamba, attention in (
        ("layer_types", "linear_attention", "full_attention"),
        ("layers_block_type", "mamba", "attention"),
    ):
        assert load_checkpoint(edited(folder, **{name: [mamba] * 4 + [attention]})).config == new
        with pytest.raises(ValueError, match=rf"{name} .* period and offset of attention say MMMMA"):
            load_checkpoint(edited(folder, **{name: [attention] * 5}))
        edited(folder, **{name: None})


def test_shards_hold_the_same(tmp_path: Path) -> None:
    reference, _ = folder_of(tmp_path / "whole")
    reference.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    whole, shards = load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "shards")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, shards.state_dict()[name]), name


def test_a_given_config_wins(tmp_path: Path) -> None:
    """Without config.json the names alone tell a Jamba, whose sizes they do not tell."""
    _, folder = folder_of(tmp_path)
    given = load_checkpoint(folder).config
    (folder / "config.json").unlink()
    model = load_checkpoint(folder, given)
    assert isinstance(model, Jamba)
    # Exchanged, the norms of B and C would change no logit: their product counts. The state would be another.
    tensors = load_file(folder / "model.safetensors")
    for theirs, ours in (("b", "B"), ("c", "C"), ("dt", "step")):
        norm = getattr(model.layers[0].mixer, f"{ours}_norm")
        assert torch.equal(norm.weight, tensors[f"model.layers.0.mamba.{theirs}_layernorm.weight"])
    with pytest.raises(ValueError, match=r"config\.json lacks 'hidden_size'"):
        load_checkpoint(folder)


def test_missing_tensors(tmp_path: Path) -> None:
    _, folder = folder_of(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    for name in (
        "0.mamba.dt_layernorm",
        "1.mamba.out_proj",
        "2.self_attn.o_proj",
        "1.feed_forward.experts.3.up_proj",
        "2.feed_forward.up_proj",
        "3.feed_forward.router",
    ):
        missing = f"model.layers.{name}.weight"
        save_file({key: tensor for key, tensor in tensors.items() if key != missing}, folder / "model.safetensors")
        with pytest.raises(ValueError, match=f"missing tensor {missing} for transformers jamba"):
            load_checkpoint(folder)


NONSENSE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"vocab_size": None}, "config.json lacks 'vocab_size'"),
    ({"num_hidden_layers": None}, "config.json lacks 'num_hidden_layers'"),
    ({"num_attention_heads": None}, "config.json lacks 'num_attention_heads'"),
    ({"intermediate_size": None}, "config.json lacks 'intermediate_size'"),
    ({"rms_norm_eps": None}, "config.json lacks 'rms_norm_eps'"),
    ({"hidden_act": "gelu"}, "hidden_act 'gelu'; only 'silu' is known"),
    ({"mamba_inner_layernorms": False}, "mamba_inner_layernorms False; only True is known"),
    ({"sliding_window": 9}, "sliding_window 9; only None is known"),
    ({"attn_layer_offset": 4}, "attn_layer_period 4 and attn_layer_offset 4, expected 0 <= offset < period"),
    ({"expert_layer_period": "2"}, "expert_layer_period '2' and expert_layer_offset 1, expected"),
    ({"num_experts": 0}, "num_experts 0, expected a positive int"),
    ({"num_experts_per_tok": 5}, "no more than there are"),
    ({"num_experts": 5}, r"missing tensor model\.layers\.1\.feed_forward\.experts\.4\.gate_proj\.weight"),
    ({"num_experts": 3}, r"extra tensor model\.layers\.1\.feed_forward\.experts\.3\.down_proj\.weight"),
    ({"attn_layer_offset": 1}, r"missing tensor model\.layers\.2\.mamba\.in_proj\.weight"),
    ({"expert_layer_offset": 0}, r"missing tensor .*layers\.0\.feed_forward\.router\.weight"),
    ({"mamba_proj_bias": True}, r"missing tensor .*in_proj\.bias"),
    ({"mamba_dt_rank": 3}, r"x_proj\.weight has shape \(12, 64\), the sizes of this model ask for \(13, 64\)"),
    ({"layer_types": "mamba"}, "layer_types 'mamba', but its period"),
)


def test_a_config_that_contradicts_the_file(tmp_path: Path) -> None:
    _, folder = folder_of(tmp_path)
    good = (folder / "config.json").read_text()
    for fields, message in NONSENSE:
        (folder / "config.json").write_text(good)
        with pytest.raises(ValueError, match=message):
            load_checkpoint(edited(folder, **fields))
