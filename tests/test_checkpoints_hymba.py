"""Hymba: its authors' logits from a folder as they released it, and what its fields may say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alike import in_pieces, worst
from safetensors.torch import save_file
from torch import Tensor

from hybridlab.layers import Rotary
from hybridlab.models import PRESETS, Hymba, HymbaConfig, LanguageModel, load_checkpoint, set_backend
from hybridlab.models.checkpoint_files import read_checkpoint
from hybridlab.models.hymba import stretched
from hybridlab.models.hymba_checkpoint import FOLDERS

# Of the largest logit. Our float64 logits lie 2.1e-5 from the authors' float32 ones, whichever way the text is cut.
TOLERANCE = 5e-5
CUTS = ([29], [1] * 29, [3, 7, 1, 13, 5])
# 5 meta tokens; a window of 6 keys beside the query's own; NTK rotation of a text 4 times as long as the first training's.
CONFIG = HymbaConfig(
    53, 24, 7, heads=4, groups=2, ffn_width=32, window=7, rotary=stretched(1e4, 4, 6), meta_tokens=5, state_size=5, rank=3
)


class Golden:
    """One file of the authors' outputs."""

    def __init__(self, name: str) -> None:
        with np.load(Path(__file__).parent / "data" / f"{name}.npz") as arrays:
            self.weights = {key[6:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("param:")}
            self.fields: dict[str, Any] = json.loads(str(arrays["config_json"])) | {"model_type": "hymba"}
            self.ids, self.logits = torch.from_numpy(arrays["input_ids"]), torch.from_numpy(arrays["logits"])


GOLDEN = Golden("hymba_lm")


def folder(path: Path, weights: dict[str, Tensor] | None = None, **changed: Any) -> Path:
    fields = {name: value for name, value in {**GOLDEN.fields, **changed}.items() if value != "absent"}
    (path / "config.json").write_text(json.dumps(fields))
    kept = GOLDEN.weights if weights is None else weights
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, path / "model.safetensors")
    return path


def configured(path: Path, **changed: Any) -> HymbaConfig:
    """What the fields alone say."""
    config = FOLDERS["hymba"].configure(read_checkpoint(folder(path, **changed)))
    assert isinstance(config, HymbaConfig)
    return config


def loaded(path: Path, config: HymbaConfig | None = None) -> LanguageModel:
    model = load_checkpoint(path, config)
    set_backend(model, "naive")
    return model


@torch.no_grad()
def test_the_authors_logits(tmp_path: Path) -> None:
    """In any pieces; the saved head is the embedding, and may be left out."""
    model = loaded(folder(tmp_path))
    assert type(model) is Hymba
    assert model.config == CONFIG
    assert model.head.weight is model.embedding.weight
    for cuts in CUTS:
        assert worst(in_pieces(model, GOLDEN.ids, cuts), GOLDEN.logits) < TOLERANCE
    headless = {name: tensor for name, tensor in GOLDEN.weights.items() if name != "lm_head.weight"}
    model = loaded(folder(tmp_path, headless), CONFIG)
    assert worst(model(GOLDEN.ids).logits, GOLDEN.logits) < TOLERANCE


@torch.no_grad()
@pytest.mark.minutes
def test_the_authors_logits_by_kernels(tmp_path: Path) -> None:
    model = load_checkpoint(folder(tmp_path))
    for cuts in CUTS:
        assert worst(in_pieces(model, GOLDEN.ids, cuts), GOLDEN.logits) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize(
    "changed",
    [
        {"sliding_window": 5},
        {"global_attn_idx": [0, 3]},
        {"rope_type": None},
        {"orig_max_position_embeddings": 32},
        {"rms_norm_eps": 0.1},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_the_fields_say_is_heard(tmp_path: Path, changed: dict[str, Any]) -> None:
    """A field that the weights do not show changes the logits."""
    assert worst(loaded(folder(tmp_path, **changed))(GOLDEN.ids).logits, GOLDEN.logits) > 1e-3


def test_the_released_fields(tmp_path: Path) -> None:
    """Those of Hymba-1.5B-Base make the preset, the triple of layers 16 to 18 included."""
    pairs = [[first, first + 1] for first in (*range(1, 15, 2), *range(19, 31, 2))]
    released = {
        "vocab_size": 32001,
        "hidden_size": 1600,
        "num_hidden_layers": 32,
        "num_attention_heads": 25,
        "num_key_value_heads": 5,
        "intermediate_size": 5504,
        "sliding_window": 1024,
        "num_memory_tokens": 128,
        "global_attn_idx": [0, 15, 31],
        "kv_reuse_group": [*pairs, [16, 17, 18]],
        "mamba_d_state": 16,
        "mamba_dt_rank": 100,
        "max_position_embeddings": 8192,
        "orig_max_position_embeddings": 2048,
        "v_head_dim": 128,
    }
    assert configured(tmp_path, **released) == PRESETS["hymba-1.5b"].config


def test_fields_that_may_be_left_out(tmp_path: Path) -> None:
    config = configured(tmp_path, kv_reuse_group=None, rope_type="absent", mamba_dt_rank="auto", v_head_dim="absent")
    assert config.pattern == "AWWAWWA"
    assert config.rotary == Rotary()
    assert config.rank == 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_experts", 2, "num_experts 2; only 1"),
        ("kq_norm", "perhead-rms", "kq_norm 'perhead-rms'; only 'none'"),
        ("memory_tokens_interspersed_every", 8, "memory_tokens_interspersed_every 8; only 0"),
        ("mlp_hidden_act", "relu2", "mlp_hidden_act 'relu2'; only 'silu'"),
        ("kv_reuse_every_i_layer", 2, "kv_reuse_every_i_layer 2; only -1"),
        ("v_head_dim", 6, "v_head_dim 6; only 12"),
        ("rope_type", "dynamic_ntk", "rope_type 'dynamic_ntk'; known are 'default' and 'ntk'"),
        ("tie_word_embeddings", False, "tie_word_embeddings False; only True"),
        ("num_memory_tokens", 0, "num_memory_tokens 0, expected a positive int"),
        ("num_memory_tokens", 4, r"model\.memory_tokens has shape \(5, 24\), the sizes of this model ask for \(4, 24\)"),
        ("global_attn_idx", [0, 7], r"\[0, 7\] in global_attn_idx, expected numbers of layers"),
        ("global_attn_idx", "absent", "lacks 'global_attn_idx'"),
        ("kv_reuse_group", [[1, 2], [3, 4]], r"\[3, 4\] in kv_reuse_group, expected neighbours"),
        ("kv_reuse_group", [[1, 2], [2, 3]], r"\[2, 3\] in kv_reuse_group, expected neighbours, in no other group"),
        ("kv_reuse_group", [[2, 1]], r"\[2, 1\] in kv_reuse_group, expected neighbours"),
        ("kv_reuse_group", [[]], r"\[\] in kv_reuse_group, expected neighbours"),
        ("kv_reuse_group", [["1", "2"]], r"\['1', '2'\] in kv_reuse_group, expected numbers of layers"),
        ("kv_reuse_group", [[1, 2]], r"layers\.5\.mamba\.in_proj\.weight \(keys\)"),
        ("kv_reuse_group", [[1, 2], [4, 5, 6]], "expected neighbours, in no other group and not in global_attn_idx"),
        ("mamba_proj_bias", True, r"missing tensor .*in_proj\.bias \(queries\)"),
        ("num_key_value_heads", 1, r"in_proj\.weight \(keys\) has shape \(12, 24\), .* ask for \(6, 24\)"),
        ("num_attention_heads", 5, "groups is 2; expected a divisor of heads = 5"),
        ("mamba_d_state", 4, r"x_proj\.0\.weight has shape \(13, 48\)"),
        ("sliding_window", "absent", "lacks 'sliding_window'"),
        ("rms_norm_eps", "absent", "lacks 'rms_norm_eps'"),
    ],
)
def test_fields_that_are_missing_or_wrong(tmp_path: Path, field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder(tmp_path, **{field: value}))


def test_missing_and_damaged_tensors(tmp_path: Path) -> None:
    """Of a packed matrix the message names the part; a consumer of keys must not bring any."""
    packed = "model.layers.{}.mamba.in_proj.weight"
    lacking = {name: tensor for name, tensor in GOLDEN.weights.items() if name != packed.format(1)}
    with pytest.raises(ValueError, match=r"missing tensor model\.layers\.1\.mamba\.in_proj\.weight \(queries\)"):
        load_checkpoint(folder(tmp_path, lacking))
    short = {**GOLDEN.weights, packed.format(1): GOLDEN.weights[packed.format(1)][:-1]}
    with pytest.raises(ValueError, match=r"in_proj\.weight \((keys|values)\) has shape"):
        load_checkpoint(folder(tmp_path, short))
    swapped = {**GOLDEN.weights, packed.format(2): GOLDEN.weights[packed.format(1)].clone()}
    with pytest.raises(ValueError, match=r"extra tensor model\.layers\.2\.mamba\.in_proj\.weight \(keys\)"):
        load_checkpoint(folder(tmp_path, swapped))
    other = {**GOLDEN.weights, "lm_head.weight": GOLDEN.weights["lm_head.weight"] + 1}
    with pytest.raises(ValueError, match=r"the head is tied, but lm_head\.weight differs"):
        load_checkpoint(folder(tmp_path, other))
