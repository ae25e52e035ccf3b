"""Gemma-2 folders against transformers' full forward, further than the window; both styles of config.json."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_checkpoints_transformers import VOCABULARY, agree, transformers, without, written

from hybridlab.models import Gemma2, Gemma2Config, load_checkpoint

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "query_pre_attn_scalar": 7,
    "sliding_window": 5,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 4.0,
}
VARIANTS = {
    "gemma2": {},
    "no caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    "one group, window 1": {"num_key_value_heads": 1, "sliding_window": 1},
    "window beyond the text, other theta": {
        "sliding_window": 99,
        "rope_parameters": {"rope_type": "default", "rope_theta": 300.0},
    },
    "llama's stretch": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 5000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    },
}


def gemma2(folder: Path, **options: Any) -> tuple[Any, Path]:
    model = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**{**SIZES, **options}))
    return model, written(model, folder)


def changed(folder: Path, **fields: Any) -> None:
    before = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**before, **fields}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits(tmp_path: Path, variant: str) -> None:
    reference, folder = gemma2(tmp_path, **VARIANTS[variant])
    model = load_checkpoint(folder)
    assert isinstance(model, Gemma2)
    assert not model.training
    assert model.head.weight is model.embedding.weight
    agree(model, reference)


@torch.no_grad()
def test_logits_in_float64(tmp_path: Path) -> None:
    """The reference computes its norms and softmax in float32 in any case."""
    reference, folder = gemma2(tmp_path)
    ids = torch.randint(0, VOCABULARY, (3, 37))
    expected = reference.double()(ids, use_cache=False).logits
    got = load_checkpoint(folder, dtype=torch.float64)(ids).logits
    assert ((got - expected).abs().max() / expected.abs().max()).item() < 5e-6


def test_fields_of_the_hub(tmp_path: Path) -> None:
    """As released: `rope_theta` at the top, no layer_types, the activation said twice."""
    _, folder = gemma2(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 777.0})
    new = load_checkpoint(folder).config
    for field in ("rope_parameters", "layer_types", "tie_word_embeddings", "use_bidirectional_attention"):
        without(folder, field)
    changed(folder, rope_theta=777.0, hidden_act="gelu_pytorch_tanh")
    assert load_checkpoint(folder).config == new
    assert isinstance(new, Gemma2Config)
    assert (new.rotary.theta, new.window, new.score_cap, new.query_scalar) == (777.0, 5, 3.0, 7)


@pytest.mark.parametrize(
    "field",
    [
        "sliding_window",
        "query_pre_attn_scalar",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "num_hidden_layers",
        "rms_norm_eps",
    ],
)
def test_missing_fields(tmp_path: Path, field: str) -> None:
    _, folder = gemma2(tmp_path)
    without(folder, field)
    with pytest.raises(ValueError, match=rf"config\.json lacks '{field}'"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_activation": "gelu"}, "hidden_activation 'gelu'; only 'gelu_pytorch_tanh'"),
        ({"attention_bias": True}, "attention_bias True; only False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings False; only True"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention True; only False"),
        ({"layer_types": ["full_attention"] * 3}, r"layer_types \['full_attention'.*only \['sliding_attention', 'full"),
        ({"attn_logit_softcapping": -1.0}, r"score_cap is -1\.0; expected a positive number"),
        ({"sliding_window": 2.5}, r"sliding_window 2\.5, expected a positive int"),
    ],
    ids=["activation", "bias", "untied", "both ways", "other turns", "cap", "window"],
)
def test_a_variant_that_gemma2_is_not(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    _, folder = gemma2(tmp_path)
    changed(folder, **fields)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder)


def test_missing_norms(tmp_path: Path) -> None:
    """Llama's two norms are not enough, and Gemma-2's third has not the name that it has there."""
    _, folder = gemma2(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    for name in ("post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"):
        missing = f"model.layers.2.{name}.weight"
        save_file({key: tensor for key, tensor in tensors.items() if key != missing}, folder / "model.safetensors")
        with pytest.raises(ValueError, match=f"missing tensor {missing} for transformers gemma2"):
            load_checkpoint(folder)


def test_a_head_beside_the_embedding_must_be_the_embedding(tmp_path: Path) -> None:
    _, folder = gemma2(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    save_file({**tensors, "lm_head.weight": embedding.clone()}, folder / "model.safetensors")
    load_checkpoint(folder)
    save_file({**tensors, "lm_head.weight": embedding + 1}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"the head is tied, but lm_head\.weight differs from model\.embed_tokens"):
        load_checkpoint(folder)
