"""Mamba-2 folders: transformers' own, and the same weights in the words of the authors and of Codestral Mamba's release."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from alike import edited, naive
from safetensors.torch import load_file, save_file
from test_checkpoints_transformers import VOCABULARY, agree, written

from hybridlab.models import Mamba2, Mamba2Config, load_checkpoint

transformers = pytest.importorskip("transformers")

# Its chunks of 8 are cut and padded at 37 tokens; what it computes in one chunk would hide how states are carried.
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_heads": 6,
    "head_dim": 8,
    "state_size": 5,
    "n_groups": 2,
    "chunk_size": 8,
}
VARIANTS = {
    "two groups": {},
    "one group": {"n_groups": 1},
    "a group a head": {"n_groups": 6},
    "expanded three times": {"expand": 3, "num_heads": 9, "n_groups": 3},
    "as wide as the stream": {"expand": 1, "num_heads": 3, "n_groups": 1},
    "narrow heads": {"num_heads": 24, "head_dim": 2, "n_groups": 4},
    "biases": {"use_bias": True},
    "no bias in the filter": {"use_conv_bias": False},
    "tied": {"tie_word_embeddings": True},
    "steps within limits": {"time_step_limit": (0.3, 0.6)},
    "no step too short": {"time_step_limit": (0.5, float("inf"))},
    "other eps": {"layer_norm_epsilon": 0.05},
    "two taps": {"conv_kernel": 2},
    "narrow stream": {"residual_in_fp32": False},
}
# The sizes above in the words of the authors' config.json, and other ones in those of Mistral's params.json.
AUTHORS = {
    "d_model": 24,
    "d_intermediate": 0,
    "n_layer": 3,
    "vocab_size": VOCABULARY - 4,
    "ssm_cfg": {"layer": "Mamba2", "headdim": 8, "d_state": 5, "ngroups": 2, "chunk_size": 256},
    "attn_layer_idx": [],
    "attn_cfg": {},
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": VOCABULARY,
    "tie_embeddings": True,
}
CODESTRAL = {
    "dim": 64,
    "n_layers": 2,
    "vocab_size": VOCABULARY,
    "n_groups": 2,
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 1,
    "tie_embeddings": False,
    "model_type": "mamba",
}


def folder_of(folder: Path, **options: Any) -> tuple[Any, Path]:
    model = transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**{**SIZES, **options}))
    return model, written(model, folder)


def as_authors(folder: Path, **fields: Any) -> Path:
    """A folder of transformers in the authors' words: one name, a head that is written though tied, pytorch_model.bin."""
    tensors = load_file(folder / "model.safetensors")
    tensors["backbone.embedding.weight"] = tensors.pop("backbone.embeddings.weight")
    tensors.setdefault("lm_head.weight", tensors["backbone.embedding.weight"])
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(AUTHORS))
    return edited(folder, **fields)


def as_codestral(folder: Path, weights: str, config: str) -> Path:
    tensors = load_file(folder / "model.safetensors")
    tensors["backbone.embedding.weight"] = tensors.pop("backbone.embeddings.weight")
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
    save_file({f"model.{name}": tensor for name, tensor in tensors.items()}, folder / weights)
    (folder / config).write_text(json.dumps(CODESTRAL))
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_folder(tmp_path: Path, variant: str) -> None:
    reference, folder = folder_of(tmp_path, **VARIANTS[variant])
    model = load_checkpoint(folder)
    assert isinstance(model, Mamba2)
    agree(naive(model), reference)


def test_sizes_read_from_a_folder(tmp_path: Path) -> None:
    options = {"expand": 3, "num_heads": 9, "n_groups": 3, "conv_kernel": 3, "use_bias": True, "use_conv_bias": False}
    options |= {"time_step_limit": (0.5, 2.0), "layer_norm_epsilon": 0.25, "residual_in_fp32": False}
    _, folder = folder_of(tmp_path, **options)
    assert load_checkpoint(folder).config == Mamba2Config(
        vocabulary=VOCABULARY,
        width=24,
        layers=3,
        inner=72,
        state_size=5,
        filter_width=3,
        bias=True,
        conv_bias=False,
        norm_eps=0.25,
        tied=False,
        wide_stream=False,
        heads=9,
        head_width=8,
        groups=3,
        step_limits=(0.5, 2.0),
    )


def test_fields_of_the_hub(tmp_path: Path) -> None:
    """The hub's files write Infinity and fields that transformers ignores; transformers 5 writes a table for infinity."""
    reference, folder = folder_of(tmp_path, time_step_limit=(0.2, float("inf")))
    assert "__float__" in (folder / "config.json").read_text()
    new = load_checkpoint(folder).config
    edited(folder, time_step_limit=[0.2, float("inf")], norm_before_gate=True, rms_norm=True, time_step_rank=256)
    assert "Infinity]" in (folder / "config.json").read_text()
    model = load_checkpoint(folder)
    assert model.config == new
    agree(naive(model), reference)


def test_absent_fields_mean_what_transformers_means(tmp_path: Path) -> None:
    reference, folder = folder_of(tmp_path)
    optional = ("expand", "conv_kernel", "use_bias", "use_conv_bias", "time_step_limit", "residual_in_fp32", "hidden_act")
    edited(folder, tie_word_embeddings=None, **dict.fromkeys(optional))
    agree(naive(load_checkpoint(folder)), reference)


@pytest.mark.parametrize("tied", [True, False])
def test_authors_folder(tmp_path: Path, tied: bool) -> None:
    reference, folder = folder_of(tmp_path, tie_word_embeddings=tied)
    model = load_checkpoint(as_authors(folder, tie_embeddings=tied))
    assert (model.head.weight is model.embedding.weight) == tied
    assert model.config.vocabulary == VOCABULARY
    agree(naive(model), reference)


def test_absent_fields_mean_what_the_authors_mean(tmp_path: Path) -> None:
    """A tied head, a stream in float32, a vocabulary that is a multiple of 8; a mixer as in the paper."""
    sizes = {"hidden_size": 32, "num_heads": 1, "head_dim": 64, "state_size": 128, "n_groups": 1, "vocab_size": 64}
    _, folder = folder_of(tmp_path, **sizes, tie_word_embeddings=True)
    absent = ("ssm_cfg", "tie_embeddings", "residual_in_fp32", "pad_vocab_size_multiple", "d_intermediate", "attn_layer_idx")
    model = load_checkpoint(as_authors(folder, d_model=32, **dict.fromkeys(absent)))
    assert model.config == Mamba2Config(64, 32, 3)
    assert model.config.wide_stream
    assert model.tied


def test_every_argument_of_the_authors_mixer(tmp_path: Path) -> None:
    options = {"expand": 3, "num_heads": 9, "n_groups": 3, "conv_kernel": 3, "use_bias": True, "use_conv_bias": False}
    reference, folder = folder_of(tmp_path, **options, time_step_limit=(0.3, 0.6))
    mixer = {"expand": 3, "ngroups": 3, "d_conv": 3, "bias": True, "conv_bias": False, "dt_limit": [0.3, 0.6]}
    folder = as_authors(folder, tie_embeddings=False, ssm_cfg={**AUTHORS["ssm_cfg"], **mixer})
    agree(naive(load_checkpoint(folder)), reference)


@pytest.mark.parametrize("names", [("consolidated.safetensors", "params.json"), ("model.safetensors", "config.json")])
def test_codestral_as_released(tmp_path: Path, names: tuple[str, str]) -> None:
    """Mistral's model_type is "mamba", which transformers uses for the first Mamba."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_heads": 2, "head_dim": 64, "state_size": 128, "n_groups": 2}
    reference, folder = folder_of(tmp_path, **sizes)
    model = load_checkpoint(as_codestral(folder, *names))
    assert model.config == Mamba2Config(VOCABULARY, 64, 2, groups=2, tied=False)
    agree(naive(model), reference)


def test_a_folder_with_both_releases_is_read_as_transformers(tmp_path: Path) -> None:
    """The hub's Codestral folder has both; the weights come with their own configuration."""
    reference, folder = folder_of(tmp_path)
    (folder / "params.json").write_text(json.dumps({**CODESTRAL, "dim": 4096}))
    save_file({"model.lm_head.weight": torch.zeros(3)}, folder / "consolidated.safetensors")
    agree(naive(load_checkpoint(folder)), reference)


def test_a_given_config_wins(tmp_path: Path) -> None:
    _, folder = folder_of(tmp_path)
    given = Mamba2Config(VOCABULARY, 24, 3, state_size=5, heads=6, head_width=8, groups=2, norm_eps=1e-3, tied=False)
    assert load_checkpoint(folder, given).config.norm_eps == 1e-3
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json lacks 'hidden_size'"):
        load_checkpoint(folder)
    assert isinstance(load_checkpoint(folder, given), Mamba2)


REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_heads", "head_dim", "state_size", "n_groups")


@pytest.mark.parametrize("field", [*REQUIRED, "layer_norm_epsilon"])
def test_missing_field(tmp_path: Path, field: str) -> None:
    _, folder = folder_of(tmp_path)
    with pytest.raises(ValueError, match=rf"config\.json lacks '{field}'"):
        load_checkpoint(edited(folder, **{field: None}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'; only 'silu' is known"),
        ({"num_heads": 5}, r"num_heads 5 and head_dim 8, but expand \* hidden_size is 48"),
        ({"expand": 3}, r"num_heads 6 and head_dim 8, but expand \* hidden_size is 72"),
        ({"expand": "2"}, "expand '2', expected a positive int"),
        ({"n_groups": 4}, "groups is 4; expected a divisor of heads = 6"),
        ({"use_bias": "yes"}, "use_bias 'yes', expected true or false"),
        ({"time_step_limit": [0.1]}, r"time_step_limit \[0\.1\], expected \[shortest, longest\]"),
        ({"time_step_limit": [0.5, 0.1]}, r"time_step_limit \[0\.5, 0\.1\], expected"),
        ({"time_step_limit": [0.0, {"__float__": "NaN"}]}, "time_step_limit .*NaN.*, expected"),
        ({"time_step_limit": 3}, "time_step_limit 3, expected"),
        ({"use_bias": True}, r"missing tensor .*in_proj\.bias"),
        ({"use_conv_bias": False}, r"extra tensor .*conv1d\.bias"),
        ({"state_size": 6}, r"in_proj\.weight has shape \(122, 24\), the sizes of this model ask for \(126, 24\)"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_nonsense(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    _, folder = folder_of(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(edited(folder, **fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_model": None}, "config.json lacks 'd_model'"),
        ({"rms_norm": False}, "rms_norm False; only True is known"),
        ({"d_intermediate": 64}, "d_intermediate 64; only 0 is known"),
        ({"attn_layer_idx": [1]}, r"attn_layer_idx \[1\]; only \[\] is known"),
        ({"ssm_cfg": {"layer": "Mamba1"}}, "layer 'Mamba1'; only 'Mamba2' is known"),
        ({"ssm_cfg": {"layer": "Mamba2", "norm_before_gate": True}}, "norm_before_gate True; only False is known"),
        ({"ssm_cfg": {"layer": "Mamba2", "rmsnorm": False}}, "rmsnorm False; only True is known"),
        ({"ssm_cfg": {"layer": "Mamba2", "D_has_hdim": True}}, "D_has_hdim True; only False is known"),
        ({"ssm_cfg": {"layer": "Mamba2", "d_ssm": 16}}, "d_ssm 16; only None is known"),
        ({"ssm_cfg": {"layer": "Mamba2", "surprise": 1}}, r"ssm_cfg\.surprise, which is unknown"),
        ({"ssm_cfg": {"layer": "Mamba2", "headdim": 7}}, "head_width is 7; expected a divisor of inner = 48"),
        ({"ssm_cfg": {"layer": "Mamba2", "dt_limit": [1, 0]}}, r"dt_limit \[1, 0\], expected"),
        ({"ssm_cfg": "Mamba2"}, "ssm_cfg 'Mamba2', expected a table"),
        ({"pad_vocab_size_multiple": 16}, r"embedding\.weight has shape \(61, 24\), .* ask for \(64, 24\)"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_nonsense_in_an_authors_folder(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    _, folder = folder_of(tmp_path, tie_word_embeddings=True)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(as_authors(folder, **fields))
