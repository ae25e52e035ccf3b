"""Exercise 02: every wrong answer is rejected, every right one accepted, and what ships is unanswered."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hybridlab.course.practice import task_data, verdicts
from hybridlab.course.probes_linear_recurrence import PROBES

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = runpy.run_path(str(ROOT / "solutions" / "02_linear_recurrence_wrong.py"))
WRONG, RIGHT = ANSWERS["WRONG"], ANSWERS["RIGHT"]
DEFINES = {
    "02-halflives": "[A, B, C, D, E, F]",
    "02-reverse": "reverse_scan",
    "02-root": "room",
    "02-join": "test",
    "02-backward": "backward",
}


def cases(answers):
    return [pytest.param(task, source, id=f"{task}-{name}") for task in answers for name, source in answers[task]]


def answer_in(source, task):
    scope = {}
    exec(source, scope)
    return eval(DEFINES[task], scope)


def complaints(task, source):
    """The names of the checks that an answer fails."""
    return [verdict.name for verdict in verdicts(task, answer_in(source, task)) if verdict.complaint]


def stored_solution(task):
    return answer_in(ANSWERS["SCAN"] + task_data(task)["solution"], task)


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
    assert sum(map(len, WRONG.values())) >= 100


def test_every_check_is_needed_by_a_wrong_answer():
    failed = {task: {name for _, source in WRONG[task] for name in complaints(task, source)} for task in WRONG}
    assert failed == {task: {probe.name for probe in PROBES[task]} for task in PROBES}


@pytest.mark.parametrize(
    ("task", "name", "catches"),
    [
        ("02-halflives", "E: the mean of the half-lives", ["E: what is left after so many tokens"]),
        ("02-halflives", "B: the other root", ["B: what it leaves after 20 steps"]),
        ("02-reverse", "a loop", ["operations beyond 500 at 1000 tokens"]),
        ("02-reverse", "decays detached", ["gradient"]),
        ("02-reverse", "always float64", ["float32 stays float32 (1)"]),
        ("02-root", "sinh, which overflows", ["near 1 and far from it, float32"]),
        ("02-root", "steep slopes cut off at 100", ["slopes"]),
        ("02-root", "where behind the root", ["slopes at and beside a shut gate"]),
        ("02-root", "one shut gate stops all gradients", ["slopes at and beside a shut gate"]),
        ("02-root", "1 where the gate is shut", ["a shut gate"]),
        ("02-join", "a loop alone", ["rejects wrong ones (1)"]),
        ("02-join", "to the last digit", ["lets right ones pass (0)"]),
        ("02-backward", "a loop", ["operations beyond 500 at 1000 tokens"]),
        ("02-backward", "writes into grad", ["inputs untouched"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that every mistake fails says nothing: these fail exactly one, so that check is needed."""
    assert complaints(task, dict(WRONG[task])[name]) == catches


@pytest.mark.parametrize("tokens", [1, 2, 7, 8])
def test_the_derived_gradients_are_those_of_autograd(tokens):
    rng = torch.Generator().manual_seed(1)
    a, b, grad = torch.randn(3, tokens, 4, generator=rng, dtype=torch.float64)
    state = torch.randn(4, generator=rng, dtype=torch.float64)
    a[tokens // 2, :2] = 0
    inputs = [x.requires_grad_() for x in (a, b, state)]
    h, states = state, []
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
        states.append(h)
    h = torch.stack(states)
    wanted = torch.autograd.grad(h, inputs, grad)
    torch.testing.assert_close(stored_solution("02-backward")(a, h, state, grad), wanted)


def test_the_repaired_root_has_every_digit_of_float32():
    log_a = -torch.logspace(-20, 2, 500, dtype=torch.float64).float()
    exact = torch.sqrt(-torch.expm1(2 * log_a.double()))
    torch.testing.assert_close(stored_solution("02-root")(log_a).double(), exact, rtol=3e-7, atol=0)


def test_the_formula_of_the_statement_is_as_wrong_as_it_says():
    statement = (ROOT / "solutions" / "02_linear_recurrence.ipynb").read_text(encoding="utf-8")
    assert "at `log_a` = -1e-7, it is off by nine percent, and at -1e-8 it says 0" in statement
    log_a = torch.tensor([-1e-7, -1e-8])
    near, nothing = torch.sqrt(1 - torch.exp(log_a) ** 2).tolist()
    assert round(near / 2e-7**0.5 - 1, 2) == 0.09
    assert nothing == 0
    assert torch.sigmoid(torch.tensor(-110.0)) == 0


def graded():
    cells = json.loads((ROOT / "exercises" / "02_linear_recurrence.ipynb").read_text(encoding="utf-8"))["cells"]
    return {
        cell["id"]: cell["metadata"]["hybridlab"]["check"]
        for cell in cells
        if "check" in cell["metadata"].get("hybridlab", {})
    }


@pytest.mark.minutes
def test_the_exercise_as_shipped_fails_in_its_graded_cells_alone():
    pytest_script = Path(sys.executable).parent / "pytest"
    options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=60", "-p", "no:cacheprovider", "-q", "-rf"]
    command = [pytest_script, *options, "exercises/02_linear_recurrence.ipynb"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    counts = re.search(r"(\d+) failed, (\d+) passed", said)
    assert counts, said
    assert int(counts[1]) == len(graded()) == 5, said
    for task in graded().values():
        assert f"{task}: not answered yet" in said
    assert "NotImplementedError" not in said
