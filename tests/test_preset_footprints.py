"""The file of footprints says what the presets say."""

import json

import pytest

from hybridlab.measure.preset_footprints import FILE, preset_footprints, written
from hybridlab.models import PRESETS

STALE = "run `python -m hybridlab.measure.preset_footprints`"
KEPT = json.loads(FILE.read_text(encoding="utf-8"))


def check(name: str) -> None:
    assert json.loads(json.dumps(written(name))) == KEPT[name], STALE


def test_every_preset_is_in_the_file() -> None:
    assert list(KEPT) == list(PRESETS), STALE
    assert list(preset_footprints()) == list(PRESETS)


@pytest.mark.parametrize("name", ["hymba-1.5b", "griffin-1b", "mamba2-130m"])
def test_file_is_what_is_measured(name: str) -> None:
    check(name)


@pytest.mark.minutes
@pytest.mark.parametrize("name", PRESETS)
def test_all_of_the_file_is_what_is_measured(name: str) -> None:
    check(name)
