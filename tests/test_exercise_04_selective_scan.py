"""Exercise 04: some mistakes have a check of their own; what the statements and the solutions say is so.

What all exercises promise is in test_exercises.py.
"""

import math

import pytest
import torch
from exercise_answers import answer, answers, complaints, solution
from torch.nn.functional import softplus

from hybridlab.course import ledger
from hybridlab.course.practice import task_data
from hybridlab.ops import selective_scan

EXERCISE = "04_selective_scan"


@pytest.mark.parametrize(
    ("task", "name", "catches"),
    [
        ("04-weights", "a loop", ["operations beyond 100 at 120 tokens"]),
        ("04-weights", "exp - 1 instead of expm1", ["basins that hardly leak"]),
        ("04-weights", "exp before the mask", ["gradient, 3600 in all"]),
        ("04-weights", "always float64", ["float32 stays float32 (1)"]),
        ("04-padding", "detached", ["gradient"]),
        ("04-padding", "writes into raw", ["inputs untouched"]),
        (
            "04-padding",
            "a row without tokens has no state",
            ["padding all over a row: its state stays", "going on from any cut"],
        ),
        ("04-impostors", "to the last digit", ["right ones rejected (1) or not (0)"]),
        ("04-impostors", "two stretches are one, and no more", ["impostors rejected (1) or not (0)"]),
        ("04-copy", "too short a time for float32", ["in float32, share of letters right"]),
        ("04-copy", "four letters only", ["one, two and three letters"]),
        ("04-copy", "changes the rates", ["inputs untouched"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that many mistakes fail with others says little: these fail no other, so that check is needed."""
    assert complaints(EXERCISE, task, answers(EXERCISE).wrong[task][name]) == catches


@pytest.mark.parametrize("fixed", [True, False])
def test_the_weights_are_those_of_the_loop(fixed):
    rng = torch.Generator().manual_seed(1)
    x, raw = torch.randn(2, 19, generator=rng, dtype=torch.float64)
    dt = torch.full_like(raw, 0.1) if fixed else softplus(raw)
    A, C = torch.randn(2, 4, generator=rng, dtype=torch.complex128)
    A = torch.complex(-A.real.exp(), A.imag)
    h, outputs = torch.zeros_like(A), []
    for x_t, dt_t in zip(x, dt, strict=True):
        h = torch.exp(dt_t * A) * h + torch.expm1(dt_t * A) / A * x_t
        outputs.append((C * h).sum().real)
    torch.testing.assert_close(solution(EXERCISE, "04-weights")(dt, A, C) @ x, torch.stack(outputs))


def test_the_weights_of_the_hint():
    dt = torch.full((6,), 2.0, dtype=torch.float64).log()
    dt[3] = 0
    one = torch.ones(1, dtype=torch.complex128)
    last = solution(EXERCISE, "04-weights")(dt, -one, one)[-1]
    torch.testing.assert_close(last, torch.tensor([1 / 32, 1 / 16, 1 / 8, 0, 1 / 4, 1 / 2], dtype=torch.float64))


def test_the_faulty_read_is_right_at_every_real_token_and_its_state_is_not():
    """What the statement of the repair says of the version it shows."""
    x, raw = torch.randn(2, 1, 7, 3, dtype=torch.float64)
    A, B, C = -torch.rand(3, 4).double(), *torch.randn(2, 1, 7, 4, dtype=torch.float64)
    read = answer(EXERCISE, "04-padding", answers(EXERCISE).wrong["04-padding"]["as it was"])
    padded, state = read(x, raw, A, B, C, torch.arange(7)[None] < 4)
    alone, right = selective_scan(*(z[:, :4] for z in (x, softplus(raw))), A, B[:, :4], C[:, :4], form="recurrent")
    torch.testing.assert_close(padded[:, :4], alone, rtol=0, atol=0)
    assert not torch.allclose(state, right, rtol=0.1)


@pytest.mark.parametrize("busy", [0.3, 0.5, 1.0, 1.5])
def test_many_times_for_a_letter_are_right(busy):
    source = answers(EXERCISE).right["04-copy"]["by the inverse"].replace("math.log(2)", str(busy))
    assert complaints(EXERCISE, "04-copy", source) == []


def test_the_six_numbers_are_where_the_hold_gets_to():
    """The check of the first task goes backwards; this goes forwards."""
    scope = {"math": math}
    exec(task_data("04-clock")["solution"], scope)

    def level(steps, rate=-1.0):
        h = 0.0
        for dt, value in zip(steps, ledger.values.tolist(), strict=False):
            h = math.exp(dt * rate) * h + math.expm1(dt * rate) / rate * value
        return h

    half = math.log(2)
    assert scope["a"] == pytest.approx(level([2 * half] * 3))
    assert scope["b"] == pytest.approx(level([half, half, 0, half, half, 0]))
    assert scope["c"] == pytest.approx(level([half / 2] * 6, -2.0))
    assert 3 * math.exp(-scope["d"]) - 4 * math.expm1(-scope["d"]) == pytest.approx(3.8)
    assert scope["e"] == pytest.approx(math.exp(-2 * half) * 2 + 2 * half * 2)
    assert scope["f"] == pytest.approx(math.exp(4 * math.log(0.8)))
