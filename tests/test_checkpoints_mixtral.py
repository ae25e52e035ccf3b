"""Mixtral folders, and Llama's with biases, against transformers' full forward; both styles of config.json."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_checkpoints_transformers import DECODER, VOCABULARY, agree, decoder_folder, without

from hybridlab.layers import Routing
from hybridlab.models import Decoder, DecoderConfig, load_checkpoint

MIXTRAL = {"num_local_experts": 5, "num_experts_per_tok": 2}
VARIANTS = {
    "mixtral": {},
    "window 5": {"sliding_window": 5},
    "three of five": {"num_experts_per_tok": 3},
    "one of twelve, own head width, tied": {
        "num_experts_per_tok": 1,
        "num_local_experts": 12,
        "head_dim": 12,
        "tie_word_embeddings": True,
    },
}


def mixtral(folder: Path, **options: Any) -> tuple[Any, Path]:
    return decoder_folder(folder, "Mixtral", **{**MIXTRAL, **options})


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits(tmp_path: Path, variant: str) -> None:
    reference, folder = mixtral(tmp_path, **VARIANTS[variant])
    model = load_checkpoint(folder)
    assert isinstance(model, Decoder)
    assert isinstance(model.config, DecoderConfig)
    config = reference.config
    assert model.config.routing == Routing(config.num_local_experts, config.num_experts_per_tok)
    agree(model, reference)


@torch.no_grad()
def test_logits_in_float64(tmp_path: Path) -> None:
    """The reference computes norms and weights in float32 in any case; another choice of experts would be far off."""
    reference, folder = mixtral(tmp_path)
    reference.set_experts_implementation("eager")  # the default has no float64
    ids = torch.randint(0, VOCABULARY, (3, 37))
    expected = reference.double()(ids, use_cache=False).logits
    got = load_checkpoint(folder, dtype=torch.float64)(ids).logits
    assert ((got - expected).abs().max() / expected.abs().max()).item() < 5e-6


def test_fields_of_the_hub(tmp_path: Path) -> None:
    """As Mixtral was released: `rope_theta` at the top, no head_dim."""
    _, folder = mixtral(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 777.0})
    new = load_checkpoint(folder).config
    without(folder, "rope_parameters")
    without(folder, "head_dim")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "rope_theta": 777.0, "head_dim": None}))
    assert load_checkpoint(folder).config == new
    assert isinstance(new, DecoderConfig)
    assert new.rotary.theta == 777.0


def test_weights_without_a_config(tmp_path: Path) -> None:
    """A file of experts is known by its names, however many experts it has."""
    _, folder = mixtral(tmp_path)
    config = load_checkpoint(folder).config
    (folder / "config.json").unlink()
    assert isinstance(load_checkpoint(folder, config), Decoder)


@pytest.mark.parametrize("style", ["attention_bias", "no bias"])
def test_llama_with_biases(tmp_path: Path, style: str) -> None:
    reference, folder = decoder_folder(tmp_path, "Llama", attention_bias=style == "attention_bias")
    model = load_checkpoint(folder)
    assert isinstance(model.config, DecoderConfig)
    assert model.config.attention_bias == (style == "attention_bias")
    agree(model, reference)


@pytest.mark.parametrize("name", ["gate", "experts.4.w1", "experts.0.w2", "experts.2.w3"])
def test_missing_tensors_of_experts(tmp_path: Path, name: str) -> None:
    _, folder = mixtral(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    missing = f"model.layers.1.block_sparse_moe.{name}.weight"
    save_file({key: tensor for key, tensor in tensors.items() if key != missing}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"missing tensor {missing} for transformers mixtral"):
        load_checkpoint(folder)


def changed(folder: Path, **fields: Any) -> None:
    before = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**before, **fields}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_local_experts": 4}, r"extra tensor model\.layers\.0\.block_sparse_moe\.experts\.4\.w1\.weight"),
        ({"num_local_experts": 6}, r"missing tensor model\.layers\.0\.block_sparse_moe\.experts\.5\.w1\.weight"),
        ({"num_local_experts": None}, "config.json lacks 'num_local_experts'"),
        ({"num_experts_per_tok": 6}, r"routing is Routing\(experts=5, active=6, .* no more than there are"),
        ({"num_experts_per_tok": "2"}, "num_experts_per_tok '2', expected a positive int"),
        ({"attention_bias": True}, "attention_bias True; only False is known"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'; only 'silu'"),
    ],
    ids=["fewer experts", "more experts", "no number", "too many active", "not a number", "bias", "activation"],
)
def test_a_config_that_contradicts_the_file(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    _, folder = mixtral(tmp_path)
    changed(folder, **fields)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize("family", ["Llama", "Mistral"])
def test_biases_that_the_file_lacks(tmp_path: Path, family: str) -> None:
    _, folder = decoder_folder(tmp_path, family, **DECODER)
    changed(folder, attention_bias=True)
    with pytest.raises(ValueError, match=r"missing tensor model\.layers\.0\.self_attn\.q_proj\.bias"):
        load_checkpoint(folder)
