"""GoldFinch and Finch-C2: their authors' logits from their authors' files, and what their fields may say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hybridlab.layers import FinchC2TimeMixing
from hybridlab.models import RWKV6, GoldFinch, GoldFinchConfig, LanguageModel, load_checkpoint, set_backend

DATA = Path(__file__).parent / "data"
TOLERANCE = 2e-5  # of the largest logit
CUTS = ([29], [1] * 29, [3, 7, 1, 13, 5], [17, 12])  # at the last one the authors' own cache goes wrong
CONFIGS = {
    "goldfinch": GoldFinchConfig(53, 32, 3, head_width=16, ffn_width=96, finch_layers=1, code_width=8),
    "finch_c2": GoldFinchConfig(53, 32, 2, head_width=16, heads=4, ffn_width=96, finch_layers=2),
}


class Golden:
    """One file of the authors' outputs."""

    def __init__(self, name: str) -> None:
        with np.load(DATA / f"{name}.npz") as arrays:
            self.weights = {key[6:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("param:")}
            self.fields: dict[str, Any] = json.loads(str(arrays["config_json"])) if "config_json" in arrays else {}
            self.ids, self.logits = torch.from_numpy(arrays["input_ids"]), torch.from_numpy(arrays["logits"])


GOLDEN = {name: Golden(name) for name in CONFIGS}
RELEASED = GOLDEN["goldfinch"]


def folder(path: Path, golden: Golden = RELEASED, without: str = "", **changed: Any) -> Path:
    fields = {name: value for name, value in {**golden.fields, **changed}.items() if value != "absent"}
    (path / "config.json").write_text(json.dumps(fields))
    torch.save({name: x for name, x in golden.weights.items() if name != without}, path / "pytorch_model.bin")
    return path


def worst(model: LanguageModel, golden: Golden, cuts: list[int]) -> float:
    state, pieces = None, []
    for piece in golden.ids.split(cuts, 1):
        logits, state = model(piece, state)
        pieces.append(logits)
    return ((torch.cat(pieces, 1) - golden.logits).abs().max() / golden.logits.abs().max()).item()


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_the_authors_logits(tmp_path: Path, name: str) -> None:
    """Attention behind one Finch-C2 layer; Finch-C2 alone, twice as wide inside. In any pieces, and in float64."""
    golden = GOLDEN[name]
    model = load_checkpoint(folder(tmp_path, golden))
    assert type(model) is GoldFinch
    assert model.config == CONFIGS[name]
    set_backend(model, "naive")
    for cuts in CUTS:
        assert worst(model, golden, cuts) < TOLERANCE
    assert worst(model.double(), golden, [29]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_with_a_configuration(tmp_path: Path, name: str) -> None:
    golden, path = GOLDEN[name], tmp_path / "released.pth"
    torch.save(golden.weights, path)
    model = load_checkpoint(path, CONFIGS[name])
    set_backend(model, "naive")
    assert worst(model, golden, [29]) < TOLERANCE
    with pytest.raises(ValueError, match=r"config\.json lacks 'use_v2' .*no config was given"):
        load_checkpoint(path)


@torch.no_grad()
def test_with_a_bonus_and_without_own_values(tmp_path: Path) -> None:
    """use_v2 0: the same tensors, of which others are read."""
    model = load_checkpoint(folder(tmp_path, use_v2=0))
    set_backend(model, "naive")
    assert not model.config.own_values
    assert torch.equal(model.layers[0].mixer.bonus, RELEASED.weights["blocks.0.att.time_faaaa"])
    assert worst(model, RELEASED, [29]) > 1e-2
    (tmp_path / "with").mkdir()
    both = load_checkpoint(folder(tmp_path / "with"))
    assert all(torch.equal(x, y) for x, y in zip(model.parameters(), both.parameters(), strict=True))


def test_rwkv6_is_told_apart(tmp_path: Path) -> None:
    """Most names are the same."""
    path = tmp_path / "released.pth"
    torch.save(Golden("rwkv6").weights, path)
    assert type(load_checkpoint(path)) is RWKV6
    mixers = [block.mixer for block in load_checkpoint(folder(tmp_path, GOLDEN["finch_c2"])).layers]
    assert all(type(mixer) is FinchC2TimeMixing for mixer in mixers)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"use_v2": "absent"}, "lacks 'use_v2'"),
        ({"use_v2": 2}, "use_v2 2, expected 0 or 1"),
        ({"use_one_minus_w": 0}, "use_one_minus_w 0; only 1 is known"),
        ({"rope": {"base": 10_000.0}}, r"rope \{'base': 10000\.0\}; only None is known"),
        ({"brope": {}}, r"brope \{\}; only None"),
        ({"parallel": 1}, "parallel 1; only 0"),
        ({"tmix": "x060"}, "tmix 'x060'; only 'x060c2'"),
        ({"tmix2": ""}, "tmix2 ''; only 'gold'"),
        ({"n_layer": 4}, "n_layer 4; only 3"),
        ({"inv_other_layer_ratio": 3}, "inv_other_layer_ratio 3, which makes 2 of what the tensors have 1"),
        ({"kv_cache_compression_ratio": 16}, "kv_cache_compression_ratio 16, which makes 2 of what the tensors have 8"),
        ({"kv_cache_compression_ratio": "many"}, "kv_cache_compression_ratio 'many', expected at least 1"),
        ({"head_size": 8}, "head_size 8; only 16"),
    ],
)
def test_fields_that_do_not_fit(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder(tmp_path, **changed))


def test_fields_that_may_be_absent(tmp_path: Path) -> None:
    """All but one: the tensors say the rest, or the authors' code has a default."""
    given = {name: "absent" for name in RELEASED.fields if name != "use_v2"}
    assert load_checkpoint(folder(tmp_path, **given)).config == CONFIGS["goldfinch"]


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    """Each name belongs to its kind of layer."""
    for name in ("emb.weight", "w_kv_cache_b.weight", "blocks.0.att.time_maa_v2", "blocks.2.att.query.weight"):
        with pytest.raises(ValueError, match=f"missing tensor '?{name}"):
            load_checkpoint(folder(tmp_path, without=name))
    path = tmp_path / "released.pth"
    for stray in ("blocks.1.att.time_decay", "blocks.0.att.time_maa_q"):
        torch.save({**RELEASED.weights, stray: torch.zeros(1, 1, 32)}, path)
        with pytest.raises(ValueError, match=f"extra tensor {stray}"):
            load_checkpoint(path, CONFIGS["goldfinch"])
    torch.save({**GOLDEN["finch_c2"].weights, "w_kv_cache_a.weight": torch.zeros(2, 32)}, path)
    with pytest.raises(ValueError, match=r"extra tensor w_kv_cache_a\.weight"):
        load_checkpoint(path, CONFIGS["finch_c2"])
