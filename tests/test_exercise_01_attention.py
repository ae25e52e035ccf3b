"""Exercise 01: some mistakes have a check of their own; what the statements and the solutions say is so.

What all exercises promise is in test_exercises.py.
"""

import json
import math

import pytest
import torch
from exercise_answers import ROOT, answer, answers, complaints, solution
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from hybridlab.course import ledger
from hybridlab.course.practice import probes, task_data, verdicts
from hybridlab.course.probe import measure
from hybridlab.course.probes_attention import RIGHT_LAYERS, WRONG_LAYERS
from hybridlab.ops import attention
from hybridlab.ops.attention import cache_rows
from hybridlab.state import state_nbytes

EXERCISE = "01_attention"
REJECTED_RIGHT, PASSED_WRONG = ["right ones rejected (1) or not (0)"], ["wrong ones rejected (1) or not (0)"]


def shown(task):
    """The code in the cell before a task's answer cell."""
    cells = json.loads((ROOT / "solutions" / f"{EXERCISE}.ipynb").read_text(encoding="utf-8"))["cells"]
    at = next(i for i, cell in enumerate(cells) if cell["metadata"].get("hybridlab", {}).get("task") == task)
    return "".join(cells[at - 1]["source"]).split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize(
    ("task", "name", "catches"),
    [
        ("01-bytes", "f: W rows", ["f: window"]),
        ("01-bytes", "d: five do not share evenly", ["d: GiB that are used"]),
        ("01-window", "the cache is detached", ["gradient"]),
        ("01-window", "exponentials by hand", ["a ramp of keys"]),
        ("01-window", "always float64", ["the dtype stays (1)"]),
        ("01-centre", "a mask of T x T", ["a tensor as large as T x T (1) or none (0)"]),
        ("01-centre", "exponentials by hand", ["a ramp of keys"]),
        ("01-centre", "always float32", ["the dtype stays (1)"]),
        ("01-causal", "the shift", PASSED_WRONG),
        ("01-causal", "every token replaced, the length never", PASSED_WRONG),
        ("01-causal", "four digits", PASSED_WRONG),
        ("01-causal", "all digits", REJECTED_RIGHT),
        ("01-causal", "its own output as well", REJECTED_RIGHT),
        ("01-merge", "the old top handed on", ["four pieces minus all at once"]),
        ("01-merge", "an empty list has no largest", None),
        ("01-merge", "all scores kept", ["a summary's numbers, more than for one key"]),
        ("01-merge", "the factor of one side is detached", ["gradient"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that every mistake fails says nothing: these fail no other."""
    found = complaints(EXERCISE, task, answers(EXERCISE).wrong[task][name])
    assert found == catches if catches else all(check.startswith("an empty half") for check in found) and found


@pytest.mark.parametrize(
    "name", ["the mask in the corner of a text without a past", "a triangle in the wrong corner", "the cache is always full"]
)
def test_a_mask_in_the_wrong_corner_is_right_until_a_cache_comes(name):
    failed = complaints(EXERCISE, "01-window", answers(EXERCISE).wrong["01-window"][name])
    assert "window 4" not in failed
    assert "cut in two, pieces minus whole" in failed


def test_the_bytes_are_those_of_hybridlabs_cache():
    a, b, c, d, e, f = solution(EXERCISE, "01-bytes")

    def measured(tokens, groups, window=None, value_width=64, batch=1):
        q, k, v = (
            torch.empty(batch, tokens, heads, width, dtype=torch.bfloat16, device="meta")
            for heads, width in ((16, 64), (groups, 64), (groups, value_width))
        )
        return state_nbytes(attention(q, k, v, window=window, backend="naive", form="sdpa")[1])

    assert a == 24 * measured(1, 16)
    assert b == 24 * measured(3000, 4, batch=8)
    assert c * 24 * measured(1, 1) <= 2**30 < (c + 1) * 24 * measured(1, 1)
    fits = [G for G in (1, 2, 4, 8, 16) if 24 * 131_072 * measured(1, G) <= 2**32]
    assert d == max(fits)
    assert e == 24 * measured(1, 16, value_width=96)
    row = measured(1, 4)
    assert f == 12 * row * (10_000 + cache_rows(10_000, 1024))


@pytest.mark.parametrize("window", [1, 3, 30])
def test_both_windows_are_hybridlabs_attention(window):
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(9, heads, width, generator=rng).double() for heads, width in ((4, 3), (2, 3), (2, 5)))
    ours, kept = attention(q[None], k[None], v[None], window=window, backend="naive")
    torch.testing.assert_close(solution(EXERCISE, "01-centre")(q, k, v, window), ours[0])
    read, cache, outputs = solution(EXERCISE, "01-window"), None, []
    for piece in zip(*(x.split([2, 1, 6]) for x in (q, k, v)), strict=True):
        output, cache = read(*piece, window, cache)
        outputs.append(output)
    torch.testing.assert_close((torch.cat(outputs), *cache), (ours[0], *(x[0] for x in kept)))


def test_the_function_to_repair_is_the_one_in_the_statement():
    wrong = answers(EXERCISE).wrong["01-centre"]["as it was"]
    assert wrong.partition("\n")[2].lstrip() == shown("01-centre")


def test_the_function_to_repair_is_right_with_windows_of_one_and_two():
    failed = complaints(EXERCISE, "01-centre", answers(EXERCISE).wrong["01-centre"]["as it was"])
    assert "windows of 1 and 2" not in failed
    assert {"windows of 3 to 6", "causal, window 3", "causal, window 4"} <= set(failed)


def test_the_shown_test_lets_every_layer_pass():
    shift = "import torch\n" + shown("01-causal")
    assert answers(EXERCISE).wrong["01-causal"]["the shift"].strip() == shift.strip()
    test = answer(EXERCISE, "01-causal", shift)
    for probe in probes("01-causal"):
        assert not any(measure(probe, test).values)


@pytest.mark.parametrize("T", [10, 12, 20])
def test_right_and_wrong_layers_are_far_apart(T):
    x = torch.randn(T, 8, generator=torch.Generator().manual_seed(T), dtype=torch.float64)

    def told_otherwise(layer):
        whole = layer(x)
        apart = [((layer(x[:t]) - whole[:t]).abs() / (1e-3 + whole[:t].abs())).max() for t in range(1, T)]
        return max(apart).item()

    for name, layer in RIGHT_LAYERS.items():
        assert told_otherwise(layer) < 1e-11, name
    for name, layer in WRONG_LAYERS.items():
        assert told_otherwise(layer) > 1e-4, name


@pytest.mark.parametrize("layer", [*RIGHT_LAYERS.values(), *WRONG_LAYERS.values()])
@pytest.mark.parametrize("T", [1, 2])
def test_a_layer_reads_a_text_of_any_length(layer, T):
    x = torch.arange(T * 8, dtype=torch.float64).reshape(T, 8)
    assert layer(x).shape == (T, 8)
    assert layer(x).isfinite().all()


@pytest.mark.parametrize(
    ("name", "missed"),
    [
        ("every token replaced, the length never", ["counts from the end"]),
        ("too short a text", ["the eighth token after"]),
        ("the output right before", ["rolls"]),
        ("four digits", ["hides with a score of -10"]),
        ("the first output alone", ["masks the first chunk alone"]),
    ],
)
def test_a_test_that_looks_too_little_is_stopped_by_a_layer_made_for_it(name, missed):
    test = answer(EXERCISE, "01-causal", answers(EXERCISE).wrong["01-causal"][name])
    said = measure(probes("01-causal")[1], test)
    assert set(missed) <= {layer for layer, rejected in zip(said.labels, said.values, strict=True) if not rejected}


@pytest.mark.parametrize("name", ["returns what it found, and raises nothing", "False where it should raise"])
def test_a_test_that_returns_what_it_should_raise_is_told_so(name):
    said = verdicts("01-causal", answer(EXERCISE, "01-causal", answers(EXERCISE).wrong["01-causal"][name]))
    assert any("a test raises AssertionError or returns nothing" in verdict.complaint for verdict in said)


def test_a_row_too_many_is_said_once():
    assert complaints(EXERCISE, "01-window", answers(EXERCISE).wrong["01-window"]["W rows kept"]) == ["rows in the cache"]


def test_merged_halves_are_pytorchs_attention():
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(rows, width, generator=rng).double() for rows, width in ((5, 3), (11, 3), (11, 2)))
    summary, merge, outputs = solution(EXERCISE, "01-merge")
    halves = [summary(q, *half) for half in zip(k.split([4, 7]), v.split([4, 7]), strict=True)]
    torch.testing.assert_close(outputs(merge(*halves))[None], scaled_dot_product_attention(q[None], k[None], v[None]))


def test_the_numbers_in_the_hints():
    exponentials = torch.exp(ledger.keys @ ledger.query / math.sqrt(3))

    def said(first, last):
        part = slice(first - 1, last)
        total = exponentials[part].sum()
        return f"{total:.4f}", f"{(exponentials[part] @ ledger.values[part]) / total:.4f}"

    hints = {task: task_data(task)["hints"][1] for task in ("01-bytes", "01-window", "01-centre", "01-causal", "01-merge")}
    numbers = [*said(1, 3), *said(4, 6), *said(1, 6)]
    assert all(number in hints["01-merge"] for number in numbers)
    assert said(4, 6)[1] in hints["01-window"]
    assert all(said(1, last)[1] in hints["01-centre"] for last in (2, 3))
    assert "524,288" in hints["01-bytes"]
    assert 2 * 32 * 32 * 128 * 2 == 524_288 == 4 * 131_072
    for token in ("(2, 5, 7)", "(3, 6, 8)"):
        assert token in hints["01-causal"]
        normed = layer_norm(torch.tensor([float(x) for x in token[1:-1].split(",")]), (3,))
        assert f"({', '.join(f'{x:.4f}' for x in normed.tolist())})" in hints["01-causal"]
