"""Folders that transformers writes, loaded and compared with transformers' own full forward (its cached paths have bugs)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hybridlab.models import RWKV4, Decoder, DecoderConfig, LanguageModel, RWKV4Config, load_checkpoint, set_backend

transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-4  # of the largest logit
VOCABULARY = 61
RWKV = {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 5, "context_length": 64}
RWKV_VARIANTS = {
    "plain": {},
    "wide attention": {"attention_hidden_size": 40},
    "narrow attention, own ffn": {"attention_hidden_size": 8, "intermediate_size": 56},
    "rescaled every 2 layers": {"rescale_every": 2},
    "never rescaled": {"rescale_every": 0},
    "tied": {"tie_word_embeddings": True},
    "other eps": {"layer_norm_epsilon": 1e-3},
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
DECODER_VARIANTS = {
    "llama": ("Llama", {}),
    "llama, as many key heads": ("Llama", {"num_key_value_heads": 4}),
    "llama, own head width": ("Llama", {"head_dim": 12}),
    "llama 3.1 rotation": ("Llama", {"rope_parameters": LLAMA3}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral, window 5": ("Mistral", {"sliding_window": 5}),
}


def written(model: Any, folder: Path, **options: Any) -> Path:
    """Random weights far from their usual start, so that no term of the model is hidden by a zero."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 0.3 if parameter.ndim == 1 or "time_" in name else 1.5 * parameter.shape[-1] ** -0.5
        parameter.data.add_(scale * noise)
    model.eval().save_pretrained(folder, **options)
    return folder


def rwkv_folder(folder: Path, **options: Any) -> tuple[Any, Path]:
    model = transformers.RwkvForCausalLM(transformers.RwkvConfig(**{**RWKV, **options}))
    return model, written(model, folder)


def decoder_folder(folder: Path, family: str, **options: Any) -> tuple[Any, Path]:
    config = getattr(transformers, f"{family}Config")(**{**DECODER, **options})
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.set_attn_implementation("eager")
    return model, written(model, folder)


@torch.no_grad()
def agree(model: LanguageModel, reference: Any, length: int = 37) -> None:
    ids = torch.randint(0, VOCABULARY, (3, length), generator=torch.Generator().manual_seed(2))
    expected = reference(ids, use_cache=False).logits
    got = model(ids).logits
    assert ((got - expected).abs().max() / expected.abs().max()).item() < TOLERANCE
    state, pieces = None, []
    for chunk in ids.split([1, 9, length - 13, 3], 1):
        logits, state = model(chunk, state)
        pieces.append(logits)
    assert ((torch.cat(pieces, 1) - expected).abs().max() / expected.abs().max()).item() < TOLERANCE


@pytest.mark.parametrize("variant", RWKV_VARIANTS)
def test_rwkv(tmp_path: Path, variant: str) -> None:
    reference, folder = rwkv_folder(tmp_path, **RWKV_VARIANTS[variant])
    model = load_checkpoint(folder)
    assert isinstance(model, RWKV4)
    assert not model.training
    set_backend(model, "naive")
    agree(model, reference)


@pytest.mark.parametrize("variant", DECODER_VARIANTS)
def test_decoder(tmp_path: Path, variant: str) -> None:
    family, options = DECODER_VARIANTS[variant]
    reference, folder = decoder_folder(tmp_path, family, **options)
    model = load_checkpoint(folder)
    assert isinstance(model, Decoder)
    agree(model, reference)


def test_greedy_text_of_llama(tmp_path: Path) -> None:
    reference, folder = decoder_folder(tmp_path, "Llama")
    ids = torch.randint(0, VOCABULARY, (2, 7))
    expected = reference.generate(ids, max_new_tokens=9, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(load_checkpoint(folder).generate(ids, 9), expected)


def test_sharded(tmp_path: Path) -> None:
    reference, _ = rwkv_folder(tmp_path / "whole")
    reference.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    whole, shards = load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "shards")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, shards.state_dict()[name]), name


@pytest.mark.parametrize("scaling", [None, {**LLAMA3, "rope_theta": None}], ids=["plain", "llama3"])
def test_rotary_fields_of_the_hub(tmp_path: Path, scaling: dict[str, Any] | None) -> None:
    """The hub's files have rope_theta beside rope_scaling, transformers 5 writes rope_parameters: one meaning."""
    style_5 = {"rope_theta": 777.0, "rope_type": "default"} if scaling is None else {**LLAMA3, "rope_theta": 777.0}
    _, folder = decoder_folder(tmp_path, "Llama", rope_parameters=style_5)
    new = load_checkpoint(folder).config
    fields = json.loads((folder / "config.json").read_text())
    del fields["rope_parameters"]
    fields |= {"rope_theta": 777.0, "rope_scaling": scaling}
    (folder / "config.json").write_text(json.dumps(fields))
    assert load_checkpoint(folder).config == new
    assert isinstance(new, DecoderConfig)
    assert new.rotary.theta == 777.0
    assert (new.rotary.stretch is None) == (scaling is None)


def test_tied_head_is_one_tensor(tmp_path: Path) -> None:
    _, folder = rwkv_folder(tmp_path, tie_word_embeddings=True)
    model = load_checkpoint(folder)
    assert model.head.weight is model.embedding.weight


def test_a_given_config_wins(tmp_path: Path) -> None:
    _, folder = rwkv_folder(tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json lacks 'hidden_size'"):
        load_checkpoint(folder)
    model = load_checkpoint(folder, RWKV4Config(VOCABULARY, 24, 5, norm_eps=1e-3))
    assert isinstance(model.config, RWKV4Config)
    assert model.config.norm_eps == 1e-3


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64], ids=["as in the file", "float32", "float64"])
def test_dtype(tmp_path: Path, dtype: torch.dtype | None) -> None:
    model = transformers.RwkvForCausalLM(transformers.RwkvConfig(**RWKV)).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = load_checkpoint(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype or torch.bfloat16}


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "vocab_size", "layer_norm_epsilon"])
def test_missing_field_of_rwkv(tmp_path: Path, field: str) -> None:
    _, folder = rwkv_folder(tmp_path)
    without(folder, field)
    with pytest.raises(ValueError, match=rf"config\.json lacks '{field}'"):
        load_checkpoint(folder)


@pytest.mark.parametrize("field", ["num_attention_heads", "intermediate_size", "rms_norm_eps"])
def test_missing_field_of_llama(tmp_path: Path, field: str) -> None:
    _, folder = decoder_folder(tmp_path, "Llama")
    without(folder, field)
    with pytest.raises(ValueError, match=rf"config\.json lacks '{field}'"):
        load_checkpoint(folder)


def test_missing_rotary_field(tmp_path: Path) -> None:
    _, folder = decoder_folder(tmp_path, "Llama", rope_parameters=LLAMA3)
    fields = json.loads((folder / "config.json").read_text())
    del fields["rope_parameters"]["low_freq_factor"]
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="lacks 'low_freq_factor'"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_act", "gelu", "hidden_act 'gelu'"),
        ("mlp_bias", True, "mlp_bias True"),
        ("model_type", "bert", "model_type 'bert'; known are rwkv, llama, mistral"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, "rope_type 'yarn'"),
    ],
    ids=["activation", "bias", "architecture", "rotation"],
)
def test_a_variant_that_this_decoder_is_not(tmp_path: Path, field: str, value: Any, message: str) -> None:
    _, folder = decoder_folder(tmp_path, "Llama")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, field: value}))
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder)


def without(folder: Path, field: str) -> None:
    fields = json.loads((folder / "config.json").read_text())
    del fields[field]
    (folder / "config.json").write_text(json.dumps(fields))
