"""check, hint and solution: verdicts on answers, from anywhere."""

import json
import sys
from types import ModuleType

import pytest
import torch

from hybridlab.course import check, hint, practice, solution
from hybridlab.course.probe import Probe

TASKS = {
    "90-double": {"hints": ["why?", "4", "return"], "solution": "def double(x):\n    return 2 * x", "numbers": {}},
    "90-two": {"hints": ["a", "b", "c"], "solution": "two = 2", "numbers": {}},
}
PROBES = {
    "90-two": [Probe("two", lambda answer, rng: answer, tolerance=1e-3)],
    "90-double": [
        Probe("random", lambda answer, rng: answer(torch.randn(3, generator=rng))),
        Probe("zero", lambda answer, rng: answer(torch.zeros(2)), expected=0.0, because="nothing doubled is nothing"),
    ],
}


def double(x):
    return 2 * x


@pytest.fixture(autouse=True)
def exercise_90(tmp_path, monkeypatch):
    """An exercise of two tasks, its numbers recorded from right answers as the build does it."""
    (tmp_path / "90_tiny.json").write_text(json.dumps(TASKS))
    monkeypatch.setattr(practice, "DATA", tmp_path)
    monkeypatch.setattr(practice, "_hints_given", {})
    module = ModuleType("hybridlab.course.probes_tiny")
    module.PROBES = PROBES
    monkeypatch.setitem(sys.modules, "hybridlab.course.probes_tiny", module)
    with monkeypatch.context() as recording:
        recording.setenv(practice.RECORD, str(tmp_path))
        check("90-double", double)
        check("90-two", 2)
    monkeypatch.chdir("/")


def said(capsys, task, answer):
    capsys.readouterr()
    check(task, answer)
    return capsys.readouterr().out


def test_a_difference_in_late_digits_is_shown(capsys, monkeypatch):
    monkeypatch.setitem(PROBES, "90-two", [Probe("two", lambda answer, rng: answer, tolerance=1e-9)])
    assert "two: no - got 2.0000001, expected 2\n" in said(capsys, "90-two", 2.0000001)


def test_a_right_answer(capsys):
    assert said(capsys, "90-double", double) == "90-double: 2 of 2\n  random: ok\n  zero: ok\n"
    assert said(capsys, "90-two", 2.0000001) == "90-two: 1 of 1\n  two: ok\n"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        pytest.param(lambda x: 3 * x, "random: no - at [0] got 4.62299, expected 3.08199", id="wrong"),
        pytest.param(lambda x: 2 * x + 1, "zero: no - at [0] got 1, expected 0 (nothing doubled is nothing)", id="why"),
        pytest.param(
            lambda x: 2 * x + 2e-6, "zero: no - at [0] got 2e-06, expected 0 (nothing doubled is nothing)", id="small"
        ),
        pytest.param(lambda x: x * torch.nan, "random: no - at [0] got nan, expected 3.08199", id="nan"),
        pytest.param(lambda x: 2 * x[:2], "random: no - expected shape (3,), got (2,)", id="shape"),
        pytest.param(lambda x: x[:0], "zero: no - gave no numbers (nothing doubled is nothing)", id="empty"),
        pytest.param(lambda x: None, "random: no - TypeError: expected numbers, got NoneType (None)", id="nothing"),
        pytest.param(lambda x: 1 / 0, "random: no - ZeroDivisionError: division by zero", id="raises"),
        pytest.param(lambda: 0, "random: no - TypeError: ", id="takes nothing"),
        pytest.param(3, "random: no - TypeError: 'int' object is not callable", id="no function"),
    ],
)
def test_a_wrong_answer_names_the_first_wrong_number(answer, line, capsys):
    out = said(capsys, "90-double", answer)
    lines = [text.strip() for text in out.splitlines()]
    assert any(text.startswith(line) for text in lines), out
    assert lines[-1] == 'stuck? hint("90-double")'
    assert int(out.split(": ")[1][0]) < 2


def test_counts_are_told_apart_to_the_last_unit():
    assert practice._apart(6_487_040.0, 6_481_920.0) == "got 6487040, expected 6481920"
    assert practice._apart(0.5, 0.25) == "got 0.5, expected 0.25"
    assert practice._apart(1e300, 1.0) == "got 1e+300, expected 1"


def test_a_complaint_of_a_check_is_no_crash_of_the_learners():
    """A ValueError that passed through no line of the answer is the check's own word on what it was given."""
    assert practice._blame(ValueError("outputs: too few")) == "outputs: too few"
    scope = {}
    exec(compile("def answer(x):\n    raise ValueError('mine')", "<answer>", "exec"), scope)
    with pytest.raises(ValueError, match="mine") as raised:
        scope["answer"](1)
    assert practice._blame(raised.value).startswith("ValueError")


def not_yet(x):
    raise NotImplementedError


@pytest.mark.parametrize(("task", "answer"), [("90-double", not_yet), ("90-two", ...), ("90-two", [1, ...])])
def test_an_unanswered_task_says_only_that(task, answer, capsys):
    assert said(capsys, task, answer) == f"{task}: not answered yet\n"


def test_an_answer_is_judged_as_it_stood(capsys):
    two = torch.tensor(2.0)
    found = practice.verdicts("90-two", two)
    two += 1
    assert [str(verdict) for verdict in found] == ["two: ok"]
    assert two == 3


def test_hints_come_one_at_a_time(capsys):
    for _ in range(4):
        hint("90-two")
    hint("90-double")
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "hint 1 of 3: a",
        "hint 2 of 3: b",
        "hint 3 of 3: c",
        "hint 1 of 3: a",
        "hint 1 of 3: why?",
    ]


def test_solution_is_shown(capsys):
    capsys.readouterr()
    solution("90-double")
    assert capsys.readouterr().out == "def double(x):\n    return 2 * x\n"


@pytest.mark.parametrize(
    ("task", "message"),
    [("90-three", r"expected one of \['90-double', '90-two'\], got '90-three'"), ("77-x", "no exercise begins with '77'")],
)
def test_an_unknown_task_is_named(task, message):
    for verb in (hint, solution, lambda task: check(task, 1)):
        with pytest.raises(ValueError, match=message):
            verb(task)


def test_recorded_numbers_do_not_hold_noise(tmp_path):
    stored = json.loads((tmp_path / "90_tiny.json").read_text())
    assert set(stored["90-double"]["numbers"]) == {"random"}  # what a probe expects is not recorded
    assert all(len(f"{abs(x)}") <= 12 for x in stored["90-double"]["numbers"]["random"][0])
    assert practice._short(-1e-17) == 0
    assert str(practice._short(-0.0)) == "0.0"
    assert practice._short(float("inf")) == "inf"


def test_recording_a_wrong_solution_does_not_make_it_right(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(practice.RECORD, str(tmp_path))
    assert "zero: no" in said(capsys, "90-double", lambda x: 2 * x + 1)
