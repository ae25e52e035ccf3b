"""Mamba's and Falcon-Mamba's folders, against transformers' full forward (its continuation of a cache is wrong)."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alike import in_pieces, worst
from safetensors.torch import load_file

from hybridlab.models import FalconMamba, FalconMambaConfig, Mamba, MambaConfig, load_checkpoint

transformers = pytest.importorskip("transformers")

TOLERANCE, EXACT = 2e-4, 1e-9  # of the largest logit, in float32 and in float64
VOCABULARY = 61
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 3, "state_size": 5}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "thrice as wide": {"expand": 3},
    "as wide as it says, not as it expands": {"expand": 16, "intermediate_size": 40},
    "biases": {"use_bias": True},
    "no bias in the filter": {"use_conv_bias": False},
    "untied": {"tie_word_embeddings": False},
    "rank 7": {"time_step_rank": 7},
    "filter of 2": {"conv_kernel": 2},
    "stream in its own dtype": {"residual_in_fp32": False},
    "other eps": {"layer_norm_epsilon": 1e-2},
}
FALCON_VARIANTS = {**VARIANTS, "other eps in the mixer": {"mixer_rms_eps": 1e-2}}
KINDS = [
    *(("Mamba", variant, options) for variant, options in VARIANTS.items()),
    *(("FalconMamba", variant, options) for variant, options in FALCON_VARIANTS.items()),
]


class WideTorch:
    """PyTorch, in which float32 is another name of float64: transformers rounds to float32 in many places."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def without_rounding(reference: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys.modules[type(reference).__module__], "torch", WideTorch())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    return reference.double()


def folder(path: Path, family: str = "Mamba", gain: float = 1.5, **options: Any) -> Any:
    """A folder that transformers writes, with random weights far from their usual start; returns its model."""
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**{**SIZES, **options}))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        scale = 0.3 if parameter.ndim == 1 else gain * parameter.shape[-1] ** -0.5
        parameter.data.add_(scale * torch.randn(parameter.shape, generator=generator))
    model.eval().save_pretrained(path)
    return model


def prompt(length: int = 37) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (3, length), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@pytest.mark.parametrize("exact", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("family", "variant", "options"), KINDS, ids=[f"{family}, {variant}" for family, variant, _ in KINDS]
)
def test_logits_of_transformers(
    tmp_path: Path, family: str, variant: str, options: dict[str, Any], exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = folder(tmp_path, family, **options)
    model = load_checkpoint(tmp_path, dtype=torch.float64 if exact else torch.float32)
    assert type(model) is {"Mamba": Mamba, "FalconMamba": FalconMamba}[family]
    assert not model.training
    assert (model.head.weight is model.embedding.weight) == reference.config.tie_word_embeddings
    if exact:
        reference = without_rounding(reference, monkeypatch)
    ids, tolerance = prompt(), EXACT if exact else TOLERANCE
    expected = reference(ids, use_cache=False).logits
    assert worst(model(ids).logits, expected) < tolerance
    for cuts in ([1, 9, 2, 17, 8], [17, 20]):
        assert worst(in_pieces(model, ids, cuts), expected) < tolerance


@torch.no_grad()
@pytest.mark.parametrize("wide", [True, False], ids=["wide stream", "bfloat16 stream"])
@pytest.mark.parametrize("family", ["Mamba", "FalconMamba"])
def test_bfloat16_is_as_exact_as_transformers(tmp_path: Path, family: str, wide: bool) -> None:
    reference = folder(tmp_path, family, 0.5, residual_in_fp32=wide)
    ids = prompt()
    exact = reference(ids, use_cache=False).logits
    rounded = reference.to(torch.bfloat16)(ids, use_cache=False).logits.float()
    model = load_checkpoint(tmp_path, dtype=torch.bfloat16)
    stream, _ = model.layers[0](model.embedding(ids))
    assert stream.dtype == (torch.float32 if wide else torch.bfloat16)
    logits = model(ids).logits
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - exact).norm() < 1.3 * (rounded - exact).norm()


@torch.no_grad()
@pytest.mark.parametrize("family", ["Mamba", "FalconMamba"])
def test_greedy_text(tmp_path: Path, family: str) -> None:
    reference = folder(tmp_path, family)
    ids = prompt(7)
    expected = reference.generate(ids, max_new_tokens=9, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(load_checkpoint(tmp_path).generate(ids, 9), expected)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    fields = json.loads((path / "config.json").read_text())
    change(fields)
    (path / "config.json").write_text(json.dumps(fields))


def test_fields_of_the_hub(tmp_path: Path) -> None:
    """The released folders leave out what is usual, and keep the authors' fields beside transformers' own."""
    folder(tmp_path)
    written = load_checkpoint(tmp_path).config

    def as_released(fields: dict[str, Any]) -> None:
        for name in ("tie_word_embeddings", "residual_in_fp32", "use_bias", "use_conv_bias", "time_step_rank", "expand"):
            del fields[name]
        fields |= {"d_model": 24, "d_inner": 48, "n_layer": 3, "ssm_cfg": {}, "rms_norm": True, "time_step_rank": "auto"}

    edit(tmp_path, as_released)
    assert load_checkpoint(tmp_path).config == written
    edit(tmp_path, lambda fields: fields.pop("intermediate_size", None))
    assert load_checkpoint(tmp_path).config == written


@pytest.mark.parametrize("family", ["Mamba", "FalconMamba"])
@pytest.mark.parametrize(
    "field", ["hidden_size", "num_hidden_layers", "vocab_size", "state_size", "conv_kernel", "layer_norm_epsilon"]
)
def test_missing_field(tmp_path: Path, family: str, field: str) -> None:
    folder(tmp_path, family)
    edit(tmp_path, lambda fields: fields.pop(field))
    with pytest.raises(ValueError, match=rf"config\.json lacks '{field}'"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_act", "gelu", "hidden_act 'gelu'; only 'silu' is known"),
        ("use_bias", "no", "use_bias 'no', expected true or false"),
        ("tie_word_embeddings", 1, "tie_word_embeddings 1, expected true or false"),
        ("time_step_rank", "some", "time_step_rank 'some', expected a positive int"),
        ("state_size", 7, r"A_log has shape \(48, 5\), .* ask for \(48, 7\)"),
        ("intermediate_size", 50, r"in_proj\.weight has shape \(96, 24\), .* ask for \(100, 24\)"),
        ("num_hidden_layers", 2, r"extra tensor backbone\.layers\.2\."),
        ("use_bias", True, r"missing tensor backbone\.layers\.0\.mixer\.in_proj\.bias"),
        ("use_conv_bias", False, r"extra tensor backbone\.layers\.0\.mixer\.conv1d\.bias"),
        ("tie_word_embeddings", False, r"missing tensor lm_head\.weight"),
    ],
)
def test_nonsense_and_contradictions(tmp_path: Path, field: str, value: Any, message: str) -> None:
    folder(tmp_path)
    edit(tmp_path, lambda fields: fields.update({field: value}))
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("expand", [0, -1, "2", True])
def test_expand_of_nonsense(tmp_path: Path, expand: Any) -> None:
    folder(tmp_path)

    def change(fields: dict[str, Any]) -> None:
        fields.pop("intermediate_size", None)
        fields["expand"] = expand

    edit(tmp_path, change)
    with pytest.raises(ValueError, match=f"expand {expand!r}, expected a positive number"):
        load_checkpoint(tmp_path)


def test_a_given_config_wins(tmp_path: Path) -> None:
    folder(tmp_path, layer_norm_epsilon=1e-3)
    config = MambaConfig(VOCABULARY, 24, 3, state_size=5, wide_stream=False)
    assert load_checkpoint(tmp_path, config).config == config
    with pytest.raises(ValueError, match=r"config is a FalconMambaConfig, but config\.json says 'mamba'"):
        load_checkpoint(tmp_path, FalconMambaConfig(VOCABULARY, 24, 3))


def authors(path: Path, config: dict[str, Any] | None = None, **options: Any) -> Any:
    """The same model in the authors' folder: their name for the embedding, the tied head stored, a pickle, their fields."""
    reference = folder(path, **options)
    tensors = load_file(path / "model.safetensors")
    tensors["backbone.embedding.weight"] = tensors.pop("backbone.embeddings.weight")
    tensors.setdefault("lm_head.weight", tensors["backbone.embedding.weight"])
    (path / "model.safetensors").unlink()
    torch.save(tensors, path / "pytorch_model.bin")
    usual = {"d_model": 24, "n_layer": 3, "ssm_cfg": {"d_state": 5}, "rms_norm": True, "residual_in_fp32": True}
    fields = {**usual, "vocab_size": VOCABULARY, "pad_vocab_size_multiple": 1, "fused_add_norm": True, **(config or {})}
    (path / "config.json").write_text(json.dumps(fields))
    return reference


@torch.no_grad()
@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({}, {}),
        ({"ssm_cfg": {"d_state": 5, "layer": "Mamba1", "dt_rank": "auto", "dt_min": 0.01}, "d_intermediate": 0}, {}),
        (
            {"ssm_cfg": {"d_state": 3, "expand": 3, "dt_rank": 4, "d_conv": 3}},
            {"state_size": 3, "expand": 3, "time_step_rank": 4, "conv_kernel": 3},
        ),
        ({"ssm_cfg": {"d_state": 5, "bias": True, "conv_bias": False}}, {"use_bias": True, "use_conv_bias": False}),
        ({"tie_embeddings": False, "attn_layer_idx": []}, {"tie_word_embeddings": False}),
        ({"vocab_size": 57, "pad_vocab_size_multiple": 8}, {"vocab_size": 64}),
        ({"vocab_size": 63, "pad_vocab_size_multiple": None}, {"vocab_size": 64}),
        ({"vocab_size": 64, "pad_vocab_size_multiple": 16}, {"vocab_size": 64}),
    ],
    ids=["plain", "later fields", "other sizes", "biases", "untied", "padded", "padded by default", "padded already"],
)
def test_folder_of_the_authors(tmp_path: Path, config: dict[str, Any], options: dict[str, Any]) -> None:
    reference = authors(tmp_path, config, **options)
    model = load_checkpoint(tmp_path)
    assert type(model) is Mamba
    assert model.tied == config.get("tie_embeddings", True)
    ids = prompt()
    expected = reference(ids, use_cache=False).logits
    assert worst(model(ids).logits, expected) < TOLERANCE
    assert worst(in_pieces(model, ids, [17, 20]), expected) < TOLERANCE


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rms_norm": False}, "rms_norm False; only True is known"),
        ({"d_intermediate": 64}, "d_intermediate 64; only 0"),
        ({"attn_layer_idx": [1]}, r"attn_layer_idx \[1\]; only \[\]"),
        ({"ssm_cfg": {"layer": "Mamba2"}}, "layer 'Mamba2'; only 'Mamba1'"),
        ({"ssm_cfg": {"d_stat": 5}}, r"ssm_cfg\.d_stat, which is unknown"),
        ({"ssm_cfg": {"d_state": 5, "dt_rank": "all"}}, "dt_rank 'all', expected a positive int"),
        ({"ssm_cfg": []}, r"ssm_cfg \[\], expected a table"),
        ({"d_model": None}, "lacks 'd_model'"),
        ({"n_layer": None}, "lacks 'n_layer'"),
        ({"vocab_size": None}, "lacks 'vocab_size'"),
        ({"pad_vocab_size_multiple": 8}, r"embedding\.weight has shape \(61, 24\), .* ask for \(64, 24\)"),
        ({"residual_in_fp32": "yes"}, "residual_in_fp32 'yes', expected true or false"),
    ],
)
def test_nonsense_of_the_authors(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    authors(tmp_path, config)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path)


def test_a_file_alone_needs_a_config(tmp_path: Path) -> None:
    authors(tmp_path)
    file = tmp_path / "pytorch_model.bin"
    with pytest.raises(ValueError, match="lacks 'd_model' \\(and no config was given\\)"):
        load_checkpoint(file)
    config = MambaConfig(VOCABULARY, 24, 3, state_size=5)
    given, found = load_checkpoint(file, config), load_checkpoint(tmp_path)
    assert given.config == config == found.config
    assert all(torch.equal(given.state_dict()[name], tensor) for name, tensor in found.state_dict().items())


def test_sharded_pickles(tmp_path: Path) -> None:
    authors(tmp_path)
    whole = load_checkpoint(tmp_path).state_dict()
    tensors = torch.load(tmp_path / "pytorch_model.bin")
    names = list(tensors)
    shards = {"a.bin": names[::2], "b.bin": names[1::2]}
    for shard, part in shards.items():
        torch.save({name: tensors[name] for name in part}, tmp_path / shard)
    (tmp_path / "pytorch_model.bin").unlink()
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    loaded = load_checkpoint(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in whole.items())


def test_safetensors_come_first(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_text("not weights")
    assert isinstance(load_checkpoint(tmp_path), Mamba)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"cannot read .*pytorch_model\.bin"):
        load_checkpoint(tmp_path)
