"""The planner: what it says fits does, to the byte, by the account of the real model."""

import json
from functools import cache

import pytest
import torch
from typer.testing import CliRunner

from hybridlab.cli.app import app
from hybridlab.measure.planner import Candidate, plan
from hybridlab.models import PRESETS, LanguageModel, from_preset
from hybridlab.state import state_nbytes

GIB = 2**30
# A cache that grows, one with a window, a state, and rows of its own before the text.
KINDS = ("llama-3.2-3b", "recurrentgemma-2b", "mamba-130m", "hymba-1.5b")


def one(model: str, device_bytes: int, context: int = 1, batch: int = 1, dtype: str = "bfloat16") -> Candidate:
    (found,) = plan(device_bytes, context, batch, dtype, [model]).candidates
    return found


def needed(model: str, context: int, batch: int, dtype: str) -> int:
    """Bytes of weights and states, from the real model."""
    kind, built = getattr(torch, dtype), on_meta(model)
    state = built.init_state(batch, context, dtype=kind, device="meta")
    return sum(x.numel() for x in built.parameters()) * kind.itemsize + state_nbytes(state)


@cache
def on_meta(model: str) -> LanguageModel:
    return from_preset(model, device="meta")


def test_a_device_of_just_these_bytes_is_enough_and_one_byte_less_is_not() -> None:
    for model, batch, dtype in zip(KINDS, (1, 3, 5, 2), ("bfloat16", "float32") * 2, strict=True):
        size = needed(model, 3000, batch, dtype)
        assert one(model, size, 3000, batch, dtype).total_bytes == size
        assert one(model, size, 3000, batch, dtype).fits, model
        assert not one(model, size - 1, 3000, batch, dtype).fits, model


def test_the_longest_text_fits_and_one_token_more_does_not() -> None:
    for model, batch, dtype in (("llama-3.2-3b", 3, "bfloat16"), ("hymba-1.5b", 2, "float32")):
        size = 16 * GIB
        longest = one(model, size, 1, batch, dtype).longest
        assert longest is not None
        assert needed(model, longest, batch, dtype) <= size < needed(model, longest + 1, batch, dtype), model


def test_a_state_takes_any_length_or_none() -> None:
    size = needed("mamba-130m", 1, 1, "bfloat16")
    assert one("mamba-130m", size, 10**6).longest is None
    assert one("mamba-130m", size - 1).longest == 0
    assert not one("mamba-130m", size - 1).fits


def test_all_presets_the_largest_first() -> None:
    found = plan(24 * GIB, 32_768)
    assert {x.model for x in found.candidates} == set(PRESETS)
    sizes = [x.parameters for x in found.candidates]
    assert sizes == sorted(sizes, reverse=True)
    assert 0 < len(found.fitting) < len(PRESETS)
    assert {x.model for x in plan(24 * GIB, 32_768, 64).fitting} < {x.model for x in found.fitting}


def test_the_table_shows_what_fits() -> None:
    found = plan(16 * GIB, 4096, 2, models=["mistral-7b", "mamba-130m", "jamba-v0.1"])
    table = found.table()
    assert table.title == "what fits into 16.00 GiB with 4,096 tokens in each of 2 sequences, bfloat16"
    assert [row[0] for row in table.rows] == ["mistral-7b", "mamba-130m"]
    assert table.rows[1][-1] == "any"
    assert table.notes[0].startswith("2 of 3 models")
    mistral = json.loads(json.dumps(found.as_dict()))["candidates"][1]
    assert mistral["total_bytes"] == mistral["weight_bytes"] + 2 * 4096 * 131_072


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "device_bytes must be an int of at least 1, got 0"),
        ((24.5, 1), "device_bytes must be an int of at least 1, got 24.5"),
        ((GIB, 0), "context must be an int of at least 1, got 0"),
        ((GIB, 1, True), "batch must be an int of at least 1, got True"),
        ((GIB, 1, 1, "int8"), "dtype must be one of float64, float32, bfloat16, float16, got 'int8'"),
        ((GIB, 1, 1, "bfloat16", ["gpt"]), "unknown preset 'gpt'; choose rwkv4-169m"),
    ],
)
def test_errors_name_the_argument(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match="plan: " + message):
        plan(*arguments)


def test_the_command_prints_the_plan() -> None:
    result = CliRunner().invoke(app, ["plan", "--memory", "24 GiB", "--context", "32768", "--batch", "2"])
    assert result.exit_code == 0
    assert "what fits into 24.00 GiB with 32,768 tokens in each of 2 sequences" in result.stdout
    assert "recurrentgemma-9b" in result.stdout
    assert "zamba-7b" not in result.stdout
    as_json = CliRunner().invoke(app, ["plan", "--memory", "24 GiB", "--context", "32768", "--batch", "2", "--json"])
    assert json.loads(as_json.stdout) == json.loads(json.dumps(plan(24 * GIB, 32_768, 2).as_dict()))
