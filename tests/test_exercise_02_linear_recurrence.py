"""Exercise 02: some mistakes have a check of their own; what the statements and the solutions say is so.

What all exercises promise is in test_exercises.py.
"""

import pytest
import torch
from exercise_answers import ROOT, answer, answers, complaints, solution

from hybridlab.course.practice import verdicts

EXERCISE = "02_linear_recurrence"


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
        ("02-root", "where behind the root", ["slopes at shut gates and beside them"]),
        ("02-root", "one shut gate stops all gradients", ["slopes at shut gates and beside them"]),
        ("02-root", "1 where the gate is shut", ["the room at shut gates"]),
        ("02-join", "a loop alone", ["wrong ones rejected (1) or not (0)"]),
        ("02-join", "to the last digit", ["right ones rejected (1) or not (0)"]),
        (
            "02-join",
            "to the last digit, with numbers that need no rounding",
            ["right ones rejected (1) or not (0)"],
        ),
        ("02-backward", "a loop", ["operations beyond 500 at 1000 tokens"]),
        ("02-backward", "writes into grad", ["inputs untouched"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that every mistake fails says nothing: these fail exactly one, so that check is needed."""
    assert complaints(EXERCISE, task, answers(EXERCISE).wrong[task][name]) == catches


@pytest.mark.parametrize(
    ("task", "name", "said"),
    [
        ("02-reverse", "no state", "any cut, pieces minus whole: no - at cut after 1 got "),
        ("02-root", "as it was", "at log_a = -1e-05, room / 0.004472 got "),
        ("02-root", "an infinite slope", "at log_a = 0, slope finite (1) or not (0) got 0, expected 1"),
        ("02-join", "to the last digit, with numbers that need no rounding", "at other last digits got 1, expected 0"),
    ],
)
def test_a_verdict_says_what_its_number_is(task, name, said):
    found = verdicts(task, answer(EXERCISE, task, answers(EXERCISE).wrong[task][name]))
    assert any(said in str(verdict) for verdict in found), [str(verdict) for verdict in found]


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
    torch.testing.assert_close(solution(EXERCISE, "02-backward")(a, h, state, grad), wanted)


def test_the_repaired_root_has_every_digit_of_float32():
    log_a = -torch.logspace(-20, 2, 500, dtype=torch.float64).float()
    exact = torch.sqrt(-torch.expm1(2 * log_a.double()))
    torch.testing.assert_close(solution(EXERCISE, "02-root")(log_a).double(), exact, rtol=3e-7, atol=0)


def test_the_formula_of_the_statement_is_as_wrong_as_it_says():
    statement = (ROOT / "solutions" / "02_linear_recurrence.ipynb").read_text(encoding="utf-8")
    assert "at `log_a` = -1e-7, it is off by nine percent, and at -1e-8 it says 0" in statement
    log_a = torch.tensor([-1e-7, -1e-8])
    near, nothing = torch.sqrt(1 - torch.exp(log_a) ** 2).tolist()
    assert round(near / 2e-7**0.5 - 1, 2) == 0.09
    assert nothing == 0
    assert torch.sigmoid(torch.tensor(-110.0)) == 0
