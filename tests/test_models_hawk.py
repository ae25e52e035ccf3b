"""Hawk: its authors' logits from its authors' files, transformers' logits, and what its checkpoints must say."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alike import in_pieces, worst
from safetensors.torch import save_file
from torch import Tensor

from hybridlab.measure import account
from hybridlab.models import PRESETS, Hawk, HawkConfig, load_checkpoint, set_backend
from hybridlab.models.griffin_skeleton import rounded_root

TOLERANCE = 2e-5  # of the largest logit
CUTS = {"all at once": [29], "one token a call": [1] * 29, "odd chunks": [3, 7, 1, 13, 5], "a token, the rest": [1, 28]}
CONFIG = HawkConfig(53, 40, 2, inner=60, blocks=5, ffn_width=72, scaled=True)

with np.load(Path(__file__).parent / "data" / "hawk_dm.npz") as arrays:
    WEIGHTS = {name[6:]: torch.from_numpy(arrays[name]) for name in arrays if name.startswith("param:")}
    FIELDS: dict[str, Any] = json.loads(str(arrays["config_json"]))
    IDS, LOGITS = torch.from_numpy(arrays["input_ids"]), torch.from_numpy(arrays["logits"])


def folder(path: Path, weights: dict[str, Tensor] = WEIGHTS, **changed: Any) -> Path:
    fields = {name: value for name, value in {**FIELDS, **changed}.items() if value != "absent"}
    (path / "config.json").write_text(json.dumps(fields))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path / "model.safetensors")
    return path


@torch.no_grad()
@pytest.mark.parametrize("backend", ["naive", "numba"])
@pytest.mark.parametrize("cut", CUTS)
def test_the_authors_logits(tmp_path: Path, cut: str, backend: str) -> None:
    model = load_checkpoint(folder(tmp_path))
    assert type(model) is Hawk
    assert model.config == CONFIG
    assert not model.training
    set_backend(model, backend)
    assert worst(in_pieces(model, IDS, CUTS[cut]), LOGITS) < TOLERANCE


@torch.no_grad()
def test_a_file_with_a_configuration(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "hawk.pt")
    model = load_checkpoint(tmp_path / "hawk.pt", CONFIG)
    set_backend(model, "naive")
    assert worst(model(IDS).logits, LOGITS) < TOLERANCE


def test_greedy_text_is_that_of_no_state_at_all(tmp_path: Path) -> None:
    model = load_checkpoint(folder(tmp_path, logits_soft_cap=3.0))
    set_backend(model, "naive")
    ids = IDS[:, :6]
    for _ in range(5):
        with torch.no_grad():
            ids = torch.cat((ids, model(ids).logits[:, -1:].argmax(-1)), 1)
    assert torch.equal(model.generate(IDS[:, :6], 5), ids)


@torch.no_grad()
def test_the_limit_bends_logits_and_nothing_else(tmp_path: Path) -> None:
    model = load_checkpoint(folder(tmp_path, logits_soft_cap=3.0))
    set_backend(model, "naive")
    assert worst(model(IDS).logits, 3 * (LOGITS / 3).tanh()) < TOLERANCE
    assert model.head.weight is model.embedding.weight
    hot = model.generate(IDS, 3, temperature=1.0, seed=1)
    free = load_checkpoint(folder(tmp_path))
    assert not torch.equal(free.generate(IDS, 3, temperature=1.0, seed=1), hot)


def test_a_fresh_model_with_a_limit_has_its_embedding_as_head() -> None:
    model = Hawk(replace(CONFIG, logit_cap=3.0))
    assert model.head.weight is model.embedding.weight
    assert not model.head.weight.is_meta


@torch.no_grad()
def test_a_new_document_begins_at_position_0_only() -> None:
    """A state of zeros at position 5 is not a start: there the equation's factor sqrt(1 - a^2) holds."""
    model = Hawk(CONFIG).double()
    set_backend(model, "naive")
    ids = IDS[:, :4]
    first = model(ids).logits
    torch.testing.assert_close(model(ids, model.init_state(2)).logits, first, rtol=0, atol=0)
    assert worst(model(ids, model.init_state(2, 5)).logits, first) > 1e-3


def test_the_root_is_rounded_to_bfloat16() -> None:
    assert rounded_root(24) == 4.90625
    assert rounded_root(2560) == 50.5
    assert rounded_root(4096) == 64
    with torch.device("meta"):
        assert rounded_root(40) == 6.3125


# transformers' names, beside the authors'; its Hawk is a RecurrentGemma without attention.
THEIRS = {
    "model.embed_tokens.weight": "embedder.input_embedding",
    "model.final_norm.weight": "final_norm.scale",
    "model.layers": "blocks",
    "temporal_pre_norm.weight": "temporal_pre_norm.scale",
    "channel_pre_norm.weight": "channel_pre_norm.scale",
    "temporal_block": "recurrent_block",
    "conv_1d.weight": "conv_1d.w",
    "conv_1d.bias": "conv_1d.b",
    "rg_lru.recurrent_param": "rg_lru.a_param",
    "rg_lru.recurrent_gate_weight": "rg_lru.a_gate.w",
    "rg_lru.recurrent_gate_bias": "rg_lru.a_gate.b",
    "rg_lru.input_gate_weight": "rg_lru.input_gate.w",
    "rg_lru.input_gate_bias": "rg_lru.input_gate.b",
    "mlp_block.down_proj": "mlp_block.ffw_down",
}


def in_authors_layout(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in weights.items():
        for theirs, authors in THEIRS.items():
            name = name.replace(theirs, authors)
        renamed[name] = tensor.squeeze(1).mT if name.endswith("conv_1d.w") else tensor
    for layer in range(3):
        block = f"blocks.{layer}.mlp_block."
        for kind, end in (("weight", "w"), ("bias", "b")):
            pair = torch.stack([renamed.pop(f"{block}{half}_proj.{kind}") for half in ("gate", "up")])
            renamed[f"{block}ffw_up.{end}"] = pair.mT if end == "w" else pair[:, None, None]
    return {name: tensor for name, tensor in renamed.items() if name != "lm_head.weight"}


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.float64, 1e-6)], ids=["float32", "float64"])
def test_transformers_logits(tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    """Full forwards: a limit of 4, a scaled embedding, six taps; transformers computes parts in float32 in any case."""
    transformers = pytest.importorskip("transformers")
    config = transformers.RecurrentGemmaConfig(
        vocab_size=53,
        hidden_size=24,
        num_hidden_layers=3,
        intermediate_size=80,
        num_attention_heads=4,
        block_types=["recurrent"],
        conv1d_width=6,
        logits_soft_cap=4.0,
    )
    reference = transformers.RecurrentGemmaForCausalLM(config).to(dtype).eval()
    for name, parameter in reference.named_parameters():
        parameter.normal_(std=0.5 if parameter.ndim == 1 or "bias" in name else parameter.shape[-1] ** -0.5)
    torch.save(in_authors_layout(reference.state_dict()), tmp_path / "hawk.pt")
    sizes = HawkConfig(53, 24, 3, blocks=4, filter_width=6, ffn_width=40, scaled=True, logit_cap=4.0)
    model = load_checkpoint(tmp_path / "hawk.pt", sizes, dtype=dtype)
    set_backend(model, "naive")
    expected = reference(IDS, use_cache=False).logits
    assert expected.abs().max() > 1  # the limit bends
    assert worst(model(IDS).logits, expected) < tolerance
    assert worst(in_pieces(model, IDS, CUTS["odd chunks"]), expected) < tolerance


@pytest.mark.parametrize("field", ["embeddings_scale_by_sqrt_dim", "logits_soft_cap"])
def test_what_the_weights_do_not_say(tmp_path: Path, field: str) -> None:
    with pytest.raises(ValueError, match=rf"config\.json lacks '{field}' \(and no config was given\)"):
        load_checkpoint(folder(tmp_path, **{field: "absent"}))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("block_types", ["RECURRENT", "ATTENTION"], r"block_types \['RECURRENT', 'ATTENTION'\]; only \['RECURRENT', "),
        ("block_types", ["RECURRENT"], r"block_types \['RECURRENT'\]"),
        ("vocab_size", 54, "vocab_size 54; only 53"),
        ("width", 41, "width 41; only 40"),
        ("mlp_expanded_width", 36, "mlp_expanded_width 36; only 72"),
        ("num_heads", 4, "num_heads 4; only 5"),
        ("lru_width", 48, "lru_width 48; only 60"),
        ("embeddings_scale_by_sqrt_dim", 1, "embeddings_scale_by_sqrt_dim 1, expected true or false"),
        ("logits_soft_cap", -1.0, r"logit_cap is -1\.0; expected a positive number"),
        ("logits_soft_cap", "9", "logit_cap is '9'; expected a positive number"),
    ],
)
def test_a_configuration_that_contradicts_the_weights(tmp_path: Path, field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder(tmp_path, **{field: value}))


def test_missing_tensors(tmp_path: Path) -> None:
    for name in WEIGHTS:
        lacking = {key: value for key, value in WEIGHTS.items() if key != name}
        with pytest.raises(ValueError, match=f"missing tensor '?{name}"):
            load_checkpoint(folder(tmp_path, lacking))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("blocks.1.mlp_block.ffw_up.w", (3, 40, 72), r" must stack 2 tensors, got shape \(3, "),
        ("blocks.1.mlp_block.ffw_up.b", (), r" must stack 2 tensors, got shape \(\)"),
        ("blocks.1.mlp_block.ffw_up.w", (2, 72, 40), r", as .* holds it, has shape \(40, 72\), .* ask for \(72, 40\)"),
        ("blocks.1.recurrent_block.conv_1d.b", (61,), r" has shape \(61,\), the sizes of this model ask for \(60,\)"),
        ("blocks.1.recurrent_block.conv_1d.w", (60, 4), r", as .* holds it, has shape \(4, 60\), .* ask for \(60, 4\)"),
    ],
)
def test_misshapen_tensors(tmp_path: Path, name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"{name}{message}"):
        load_checkpoint(folder(tmp_path, {**WEIGHTS, name: torch.zeros(shape)}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 7}, "blocks is 7; expected a divisor of inner = 60"),
        ({"logit_cap": 0.0}, r"logit_cap is 0\.0; expected a positive number"),
        ({"inner": -60}, "inner is -60; expected a positive int"),
    ],
)
def test_impossible_sizes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"HawkConfig: {message}"):
        HawkConfig(53, 40, 2, **{"inner": 60, "blocks": 5, **options})


def test_operations_of_a_token() -> None:
    """2 a weight of a matrix; of the filter 2 a tap and channel, of the recurrence 7 a channel."""
    config = PRESETS["hawk-3b"].config
    matrices = 3 * config.width * config.inner + 2 * config.inner**2 // 16 + 3 * config.width * config.ffn_width
    expected = config.layers * (2 * matrices + 8 * config.inner + 7 * config.inner) + 2 * config.vocabulary * config.width
    assert account("hawk-3b", 1).flops_per_token == account("hawk-3b", 1_000_000).flops_per_token == expected
