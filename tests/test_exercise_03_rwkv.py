"""Exercise 03: every wrong answer is rejected, every right one accepted, and what ships is unanswered."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from hybridlab.course.practice import verdicts
from hybridlab.course.probes_rwkv import PROBES

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = runpy.run_path(str(ROOT / "solutions" / "03_rwkv_wrong.py"))
WRONG, RIGHT = ANSWERS["WRONG"], ANSWERS["RIGHT"]
DEFINES = {"03-limit": "outputs", "03-bonus": "bonus", "03-maximum": "wkv", "03-resume": "mixer", "03-kill": "test"}


def cases(answers):
    return [pytest.param(task, source, id=f"{task}-{name}") for task in answers for name, source in answers[task]]


def complaints(task, source):
    """The names of the checks that an answer fails."""
    scope = {}
    exec(source, scope)
    return [verdict.name for verdict in verdicts(task, scope[DEFINES[task]]) if verdict.complaint]


@pytest.mark.parametrize(("task", "source"), cases(WRONG))
def test_a_wrong_answer_is_rejected(task, source):
    assert complaints(task, source)


@pytest.mark.parametrize(("task", "source"), cases(RIGHT))
def test_a_right_answer_written_differently_is_accepted(task, source):
    assert complaints(task, source) == []


def test_there_are_enough_of_both():
    assert set(WRONG) == set(RIGHT) == set(PROBES) == set(DEFINES)
    assert all(len(answers) >= 5 for answers in WRONG.values())
    assert all(len(answers) >= 2 for answers in RIGHT.values())
    assert sum(map(len, WRONG.values())) >= 50


@pytest.mark.parametrize(
    ("task", "name", "catches"),
    [
        ("03-maximum", "a maximum over the whole sequence", ["ramp of keys"]),
        ("03-maximum", "keys clamped where exp still holds", ["neighbours near 900"]),
        ("03-maximum", "keys changed in place", ["inputs untouched"]),
        ("03-resume", "factored exponentials", ["strong decay"]),
        ("03-resume", "keeps every token", ["numbers in the state"]),
        ("03-resume", "the state is detached", ["gradient through a cut"]),
        ("03-kill", "the outputs only", ["rejects wrong ones (1)"]),
        ("03-kill", "to the last digit", ["lets right ones pass (0)"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that every mistake fails says nothing: these fail exactly one, so that check is needed."""
    assert complaints(task, dict(WRONG[task])[name]) == catches


def graded():
    cells = json.loads((ROOT / "exercises" / "03_rwkv.ipynb").read_text(encoding="utf-8"))["cells"]
    return {
        cell["id"]: cell["metadata"]["hybridlab"]["check"]
        for cell in cells
        if "check" in cell["metadata"].get("hybridlab", {})
    }


@pytest.mark.minutes
def test_the_exercise_as_shipped_fails_in_its_graded_cells_alone():
    pytest_script = Path(sys.executable).parent / "pytest"
    options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=60", "-p", "no:cacheprovider", "-q", "-rf"]
    command = [pytest_script, *options, "exercises/03_rwkv.ipynb"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    counts = re.search(r"(\d+) failed, (\d+) passed", said)
    assert counts, said
    assert int(counts[1]) == len(graded()) == 5, said
    for task in graded().values():
        assert f"{task}: not answered yet" in said
    assert "NotImplementedError" not in said
