"""Presets have the published sizes: counted on the meta device, against the papers' formulas and tables."""

import pytest
import torch

from hybridlab.models import PRESETS, RWKV4, RWKV6, from_preset
from hybridlab.models.language_model import LanguageModel
from hybridlab.state import state_nbytes

# Parameters to the digits that the papers report. (As remembered; the formulas below are exact and independent of them.)
PRINTED = {
    "rwkv4-169m": 1.693e8,
    "rwkv4-430m": 4.304e8,
    "rwkv4-1.5b": 1.515e9,
    "rwkv4-3b": 2.985e9,
    "rwkv4-7b": 7.393e9,
    "rwkv4-14b": 1.415e10,
    "eagle-0.4b": 4.62e8,
    "eagle-1.5b": 1.58e9,
    "eagle-3b": 3.06e9,
    "eagle-7b": 7.52e9,
    "finch-1.6b": 1.60e9,
    "finch-3.1b": 3.10e9,
    "llama-3.1-8b": 8.03e9,
    "mistral-7b": 7.24e9,
}
# The papers' formulas for D, L, vocabulary; the transformers summed up matrix by matrix.
FORMULAS = {
    "RWKV4": lambda c: 2 * c.vocabulary * c.width + 13 * c.width**2 * c.layers + c.width * (11 * c.layers + 4),
    "RWKV5": lambda c: 13 * c.width**2 * c.layers + 14 * c.width * c.layers + 4 * c.width + 2 * c.width * c.vocabulary,
    "RWKV6": lambda c: 13 * c.width**2 * c.layers + 464 * c.width * c.layers + 4 * c.width + 2 * c.width * c.vocabulary,
    "Decoder": lambda c: (
        c.layers * (2 * c.width * c.head_width * (c.heads + c.groups) + 3 * c.width * c.ffn_width + 2 * c.width)
        + 2 * c.vocabulary * c.width
        + c.width
    ),
}


@pytest.fixture(scope="module")
def models() -> dict[str, LanguageModel]:
    return {name: from_preset(name, device="meta", dtype=torch.bfloat16) for name in PRESETS}


def test_every_preset_is_checked() -> None:
    assert set(PRINTED) == set(PRESETS)


@pytest.mark.parametrize("name", PRINTED)
def test_parameter_count(models: dict[str, LanguageModel], name: str) -> None:
    model = models[name]
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == FORMULAS[PRESETS[name].architecture.__name__](PRESETS[name].config)
    digits = len(f"{PRINTED[name]:.15g}".replace(".", "").strip("0"))
    assert float(f"{count:.{digits - 1}e}") == PRINTED[name]


@pytest.mark.parametrize("name", PRINTED)
def test_nothing_is_allocated(models: dict[str, LanguageModel], name: str) -> None:
    assert all(parameter.is_meta and parameter.dtype == torch.bfloat16 for parameter in models[name].parameters())
    assert models[name].init_state(1, 4096).position.is_meta


@pytest.mark.parametrize("length", [0, 1, 262_144])
@pytest.mark.parametrize("name", PRINTED)
def test_state_bytes(models: dict[str, LanguageModel], name: str, length: int) -> None:
    """Numbers a layer: 5 D for RWKV-4 (2 of them shifts), 66 D for RWKV-5 and 6, keys and values for attention."""
    config = PRESETS[name].config
    state = models[name].init_state(1, length, device="meta")
    if PRESETS[name].architecture.__name__ == "Decoder":
        expected = 2 * 2 * config.layers * length * config.groups * config.head_width
    else:
        wkv = 3 if PRESETS[name].architecture is RWKV4 else 64
        expected = config.layers * config.width * (2 * 2 + 4 * wkv)
    assert state_nbytes(state) == expected


def test_a_meta_model_runs() -> None:
    model = from_preset("finch-1.6b", device="meta", backend="numba")
    logits, state = model(torch.zeros(2, 3, dtype=torch.int64, device="meta"))
    assert logits.shape == (2, 3, 65_536)
    assert state_nbytes(state) == state_nbytes(model.init_state(2, 3))


def test_class_and_table_agree() -> None:
    assert RWKV6.from_preset("finch-1.6b", device="meta").config == PRESETS["finch-1.6b"].config


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'finch-9b'; choose .*finch-1\.6b"):
        from_preset("finch-9b")
    with pytest.raises(ValueError, match=r"RWKV4: unknown preset 'finch-1\.6b'"):
        RWKV4.from_preset("finch-1.6b")
