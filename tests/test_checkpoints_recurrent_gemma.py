"""Folders of RecurrentGemma that transformers writes, in both styles, against transformers' own full forwards."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from alike import in_pieces, worst

from hybridlab.models import PRESETS, RecurrentGemma, RecurrentGemmaConfig, load_checkpoint, set_backend
from hybridlab.models.checkpoint_layout import Checkpoint
from hybridlab.models.recurrent_gemma_checkpoint import FOLDERS

transformers = pytest.importorskip("transformers")

VOCABULARY, LENGTH = 53, 37
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "intermediate_size": 80,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "attention_window_size": 5,
    "logits_soft_cap": 4.0,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "released": {},
    "wide recurrence": {"lru_width": 36},
    "attention first": {"block_types": ["attention", "recurrent"]},
    "attention only": {"block_types": ["attention"]},
    "longer than the model": {"block_types": ["recurrent", "attention", "recurrent", "attention", "attention", "recurrent"]},
    "as many key heads": {"num_key_value_heads": None},
    "two groups, biases": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "attention_bias": True},
    "window of one": {"attention_window_size": 1},
    "whole heads turned": {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0, "partial_rotary_factor": 1.0}},
    "odd sizes": {"conv1d_width": 6, "intermediate_size": 81, "rms_norm_eps": 1e-2, "num_hidden_layers": 5},
}
# What google/recurrentgemma-2b says on the hub.
RELEASED_2B = {
    "_block_types": ["recurrent", "recurrent", "attention"],
    "attention_bias": False,
    "attention_window_size": 2048,
    "conv1d_width": 4,
    "embeddings_scale_by_sqrt_dim": True,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2560,
    "intermediate_size": 15360,
    "logits_soft_cap": 30.0,
    "lru_width": 2560,
    "model_type": "recurrent_gemma",
    "num_attention_heads": 10,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "vocab_size": 256000,
}


def written(folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """A model of random weights, none of them at a start that would hide a term, and its folder."""
    torch.manual_seed(1)
    model = (
        transformers.RecurrentGemmaForCausalLM(transformers.RecurrentGemmaConfig(**{**SIZES, **options})).to(dtype).eval()
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.5 if parameter.ndim == 1 or "bias" in name else parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    return model


def changed(folder: Path, **fields: Any) -> Path:
    """The folder with other fields in its config.json; None takes a field out."""
    path = folder / "config.json"
    everything = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in everything.items() if value is not None}))
    return folder


def text(length: int = LENGTH) -> torch.Tensor:
    return torch.randint(VOCABULARY, (2, length), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers_logits(tmp_path: Path, variant: str) -> None:
    """Full forwards, and ours cut anywhere; in float64 the rest is what transformers computes in float32 in any case."""
    ids = text()
    for dtype, tolerance in ((torch.float32, 2e-4), (torch.float64, 2e-6)):
        reference = written(tmp_path, dtype, **VARIANTS[variant])
        expected = reference(ids, use_cache=False).logits
        model = load_checkpoint(tmp_path, dtype=dtype)
        assert isinstance(model, RecurrentGemma)
        set_backend(model, "naive")
        assert expected.abs().max() > 1  # the limit bends
        assert worst(model(ids).logits, expected) < tolerance
        assert worst(in_pieces(model, ids, [1, 9, LENGTH - 13, 3]), expected) < tolerance


@torch.no_grad()
def test_a_conversation_that_begins_with_one_token(tmp_path: Path) -> None:
    """transformers keeps the filters' inputs on its modules, and begins the next conversation with the last one's."""
    reference, ids = written(tmp_path), text(6)
    expected = reference(ids, use_cache=False).logits
    model = load_checkpoint(tmp_path)
    set_backend(model, "naive")
    model(text(LENGTH))
    assert worst(in_pieces(model, ids, [1] * 6), expected) < 2e-4


def test_the_style_of_the_hub(tmp_path: Path) -> None:
    """`_block_types` for `block_types`, and rotation beside the rest in place of a table of its own, which wins over it."""
    table = {"rope_type": "default", "rope_theta": 77.0, "partial_rotary_factor": 1.0}
    written(tmp_path, block_types=["attention", "recurrent"], rope_parameters=table)
    new = load_checkpoint(tmp_path).config
    assert isinstance(new, RecurrentGemmaConfig)
    assert (new.pattern, new.rotary.theta, new.rotary.fraction) == ("WG", 77.0, 1.0)
    assert load_checkpoint(changed(tmp_path, rope_theta=5.0)).config == new
    old = {"_block_types": ["attention", "recurrent"], "rope_theta": 77.0, "partial_rotary_factor": 1.0}
    left_out = {"block_types": None, "rope_parameters": None, "tie_word_embeddings": None}
    assert load_checkpoint(changed(tmp_path, **old, **left_out)).config == new


def test_what_may_be_left_out(tmp_path: Path) -> None:
    """Where transformers has defaults: the usual pattern, half of each head, keys for every head, no biases."""
    written(tmp_path, num_key_value_heads=3)
    full = load_checkpoint(tmp_path).config
    names = ("block_types", "rope_parameters", "num_key_value_heads", "attention_bias", "lru_width", "head_dim")
    assert load_checkpoint(changed(tmp_path, **dict.fromkeys(names))).config == full


def test_the_released_configuration_is_the_preset() -> None:
    """But for the window, in which transformers counts the query and the authors do not."""
    config = FOLDERS["recurrent_gemma"].configure(Checkpoint("", {}, RELEASED_2B))
    assert config == replace(PRESETS["recurrentgemma-2b"].config, window=2048)


@pytest.mark.parametrize(
    "field",
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "intermediate_size",
        "num_attention_heads",
        "attention_window_size",
        "conv1d_width",
        "logits_soft_cap",
        "rms_norm_eps",
    ],
)
def test_missing_fields(field: str) -> None:
    fields = {name: value for name, value in RELEASED_2B.items() if name != field}
    with pytest.raises(ValueError, match=rf"config\.json lacks '{field}' \(and no config was given\)"):
        FOLDERS["recurrent_gemma"].configure(Checkpoint("", {}, fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_activation": "gelu"}, "hidden_activation 'gelu'; only 'gelu_pytorch_tanh'"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings False; only True"),
        ({"embeddings_scale_by_sqrt_dim": False}, "embeddings_scale_by_sqrt_dim False; only True"),
        (
            {"_block_types": ["recurrent", "mamba"]},
            r"block_types \['recurrent', 'mamba'\]; known are recurrent and attention",
        ),
        ({"_block_types": "recurrent"}, "block_types 'recurrent'; known are"),
        ({"block_types": [["recurrent"]]}, r"block_types \[\['recurrent'\]\]; known are"),
        ({"partial_rotary_factor": 1.5}, r"partial_rotary_factor 1\.5, expected a number above 0, at most 1"),
        ({"partial_rotary_factor": 0.03}, r"head_width is 256; expected one of which pairs .* \(7 channels are\)"),
        ({"rope_theta": "1e4"}, "rope_theta '1e4', expected a number above 0"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'; only 'default'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling {'type': 'linear'}; only"),
        ({"logits_soft_cap": 0.0}, r"logit_cap is 0\.0; expected a positive number"),
        ({"num_key_value_heads": 3}, "groups is 3; expected a divisor of heads = 10"),
        ({"lru_width": 2555}, "blocks is 10; expected a divisor of inner = 2555"),
        ({"attention_bias": 1}, "attention_bias 1, expected true or false"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_fields_that_make_no_sense(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FOLDERS["recurrent_gemma"].configure(Checkpoint("", {}, {**RELEASED_2B, **fields}))


def test_tensors_of_the_other_kind_of_layer(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ValueError, match=r"missing tensor model\.layers\.0\.temporal_block\.q_proj\.weight"):
        load_checkpoint(changed(tmp_path, block_types=["attention"]))
    written(tmp_path, attention_bias=True)
    with pytest.raises(ValueError, match=r"extra tensor model\.layers\.\d\.temporal_block\.\w_proj\.bias"):
        load_checkpoint(changed(tmp_path, attention_bias=False))
