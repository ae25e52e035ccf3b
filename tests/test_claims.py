"""Published numbers are computed from the accounts of real models; those that cannot be say which assumption fails."""

import tomllib
from pathlib import Path

import pytest

from hybridlab.measure import claims
from hybridlab.measure.claims import REFUTED, REPRODUCED, TO_COME, WAYS, Claim, check_claims
from hybridlab.measure.published import FILE, Published, published_numbers
from hybridlab.models import PRESETS

ROOT = Path(__file__).parents[1]
NUMBERS = {number.id: number for number in published_numbers()}
# Nemotron-H, Qwen3-Next, MiniMax-01, LFM2, Bamba, YOCO and Longformer, whose architectures the package does not have.
NO_MODEL = {
    "state_nemotron_h_8b", "params_qwen3_next", "active_minimax01", "params_lfm2_1.2b", "params_bamba_9b",
    "goldfinch_table_yoco", "longformer_sparsity",
}  # fmt: skip
# What the account knows beyond the formula outside: the recurrence's own operations.
COUNTED_MORE = {"flop_rwkv4_169m": 11 * 12 * 768}
QUICK = ("params_mamba_130m", "state_rwkv4_7b", "based_feature_dim", "mqar_attention_state", "kv256k_mistral_7b")


def number(value: float, tolerance: float) -> Published:
    return Published("id", "a claim", "a source", True, value, value, "x", tolerance, True, "")


def computed(name: str) -> float:
    """The number of a claim whose model exists."""
    (claim,) = check_claims([name]).claims
    assert claim.computed is not None
    return claim.computed


def test_every_number_has_a_way_or_lacks_its_model() -> None:
    assert set(WAYS) | NO_MODEL == set(NUMBERS)
    assert not set(WAYS) & NO_MODEL


def test_file_travels_with_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "hybridlab.measure"
    ]
    assert FILE in {path for pattern in patterns for path in (ROOT / "hybridlab" / "measure").glob(pattern)}
    assert all(x.source and (x.note or x.reproduced) for x in NUMBERS.values())


@pytest.mark.parametrize("name", QUICK)
def test_a_few_numbers(name: str) -> None:
    assert computed(name) == NUMBERS[name].exact
    assert check_claims([name]).claims[0].verdict == REPRODUCED


@pytest.mark.minutes
@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.possible])
def test_every_number_of_a_model_that_is_here(name: str) -> None:
    """The account comes to what a formula outside comes to; and to what is published, or it is known why not."""
    known = NUMBERS[name]
    assert computed(name) == pytest.approx(known.exact + COUNTED_MORE.get(name, 0), rel=1e-9 if known.reproduced else 1e-3)
    assert check_claims([name]).claims[0].verdict == (REPRODUCED if known.reproduced else REFUTED)
    assert known.reproduced or known.note.startswith("fails: ")


@pytest.mark.minutes
def test_what_retnets_share_hangs_on() -> None:
    """70% comes out for 8 sequences, and for fewer it does not."""
    saved = [claims._retnet_saves(batch) for batch in (1, 4, 8)]
    assert saved[2] == pytest.approx(0.7, rel=0.01)
    assert saved[0] < saved[1] < 0.6


@pytest.mark.parametrize(
    ("value", "computed", "verdict"),
    [(80, 80, REPRODUCED), (80, 80.8, REPRODUCED), (80, 80.9, REFUTED), (80, 79.1, REFUTED), (80, None, TO_COME)],
)
def test_verdicts(value: float, computed: float | None, verdict: str) -> None:
    assert Claim(number(value, 0.01), computed).verdict == verdict


def test_without_its_preset_a_claim_is_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "PRESETS", {name: preset for name, preset in PRESETS.items() if name != "mamba-130m"})
    report = check_claims(["params_mamba_130m", "mqar_attention_state"])
    assert [claim.verdict for claim in report.claims] == [TO_COME, REPRODUCED]
    assert repr(report).endswith("1 reproduced, 0 not reproduced, 1 to come")


def test_the_table_shows_what_fails() -> None:
    table = check_claims(["goldfinch_table_deepseek_v2", "mqar_attention_state"]).table()
    assert table.failed == {0}
    assert table.rows[0][1:5] == ("18", "9", "GiB", REFUTED)
    assert table.rows[0][5].startswith("fails: two bytes")
    assert table.rows[1][1:3] == ("131,072", "131,072")


def test_an_unknown_id_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown id 'kv'; choose kv256k_jamba_v0\.1, "):
        check_claims(["kv"])
