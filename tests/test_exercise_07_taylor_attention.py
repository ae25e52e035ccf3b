"""Exercise 07: some mistakes have a check of their own; what the statements and the solutions say is so.

What all exercises promise is in test_exercises.py.
"""

import pytest
import torch
from exercise_answers import answer, answers, complaints, solution, statement

from hybridlab.course import ledger
from hybridlab.course.practice import probes, task_data
from hybridlab.course.probe import measure
from hybridlab.course.probes_taylor_attention import RIGHT_WEIGHTS, WRONG_WEIGHTS
from hybridlab.ops import taylor_attention

EXERCISE = "07_taylor_attention"


def page():
    return ledger.query.expand(6, 3), ledger.keys, ledger.values[:, None]


def random_text(*sizes):
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(9, size, generator=rng, dtype=torch.float64) for size in sizes]


@pytest.mark.parametrize(
    ("task", "name", "catches"),
    [
        ("07-symmetric", "no longer than ten", ["products, a hundred times as long"]),
        ("07-symmetric", "every pair twice", ["features: too many (1), too few (-1), the fewest (0)"]),
        ("07-symmetric", "the pairs detached", ["gradient"]),
        ("07-symmetric", "always float64", ["float32 stays float32 (1)"]),
        ("07-carried", "summed over the texts", ["texts and heads in front, three pieces"]),
        ("07-carried", "the normaliser detached", ["gradient, three pieces"]),
        ("07-carried", "the text itself is carried", ["state too large (1) or not (0)"]),
        ("07-carried", "kept outside", ["one state, continued twice"]),
        ("07-crossover", "always order 2", ["crossover, order 1", "crossover, order 4"]),
        ("07-ranks", "too coarse", ["wrong ones rejected (1) or not (0)"]),
        ("07-ranks", "one direction, a query of 1", ["wrong ones rejected (1) or not (0)"]),
        ("07-ranks", "no negative weight", ["right ones rejected (1) or not (0)"]),
        ("07-ranks", "never equal", ["right ones rejected (1) or not (0)"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that every mistake fails says nothing: these fail no other."""
    assert complaints(EXERCISE, task, answers(EXERCISE).wrong[task][name]) == catches


def test_a_text_as_it_was_passes_until_it_is_cut():
    failed = complaints(EXERCISE, "07-carried", answers(EXERCISE).wrong["07-carried"]["as it was"])
    assert "six tokens, cut after three" in failed
    assert "six tokens, whole" not in failed


def size(K, V, heads=1):
    """Numbers in the state that hybridlab keeps."""
    q, v = torch.zeros(1, 1, heads, K), torch.zeros(1, 1, heads, V)
    return sum(x.numel() for x in taylor_attention(q, q, v, backend="naive")[1])


def test_the_counts_are_those_of_hybridlab():
    a, b, c, d, e, f = solution(EXERCISE, "07-count")

    assert (a, c, d, f) == (size(5, 1) // 2, size(7, 6), 2 * size(16, 64, heads=8), size(16, 16, heads=4))
    assert size(e, 1) // 2 == 111
    assert b == 4**0 + 4**1 + 4**2 + 4**3
    assert size(64, 64) == 4161 * 65  # said in f


def test_the_halved_features_are_hybridlabs_taylor_attention():
    q, k, v = random_text(4, 4, 3)
    features = solution(EXERCISE, "07-symmetric")
    weights = (features(q) @ features(k).T).tril()
    ours, _ = taylor_attention(*(x[None, :, None] for x in (q, k, v)), backend="naive")
    torch.testing.assert_close(weights @ v / weights.sum(1, keepdim=True), ours[0, :, 0])
    rank = torch.linalg.matrix_rank(features(torch.randn(99, 4, dtype=torch.float64)))
    assert rank == features(q).shape[1] == 15  # no feature is a sum of others


def test_the_repaired_text_is_hybridlabs_taylor_attention():
    q, k, v = random_text(3, 3, 2)
    taylor = solution(EXERCISE, "07-carried")
    first, state = taylor(q[:4], k[:4], v[:4])
    then, _ = taylor(q[4:], k[4:], v[4:], state)
    ours, _ = taylor_attention(*(x[None, :, None] for x in (q, k, v)), backend="naive")
    torch.testing.assert_close(torch.cat((first, then)), ours[0, :, 0])


def test_the_function_to_repair_is_the_one_in_the_statement():
    shown = statement("07-carried").split("```python\n")[1].split("```")[0]
    as_it_was = answers(EXERCISE).wrong["07-carried"]["as it was"]
    assert as_it_was.endswith(shown)
    taylor = answer(EXERCISE, "07-carried", as_it_was)
    q, k, v = page()
    _, state = taylor(q[:3], k[:3], v[:3])
    outputs, _ = taylor(q[3:], k[3:], v[3:], state)
    assert [round(y, 4) for y in outputs[:, 0].tolist()] == [12.0125, 7.5769, 5.7513]
    for number in ("5.7513", "3.0237", "12.0125"):
        assert number in statement("07-carried")


@pytest.mark.parametrize(("K", "V"), [(3, 1), (1, 1), (16, 64), (4, 3)])
def test_the_state_is_smaller_from_the_crossover_on(K, V):
    crossover, widest = solution(EXERCISE, "07-crossover")
    T = crossover(K, V)
    assert (T - 1) * (K + V) <= size(K, V) < T * (K + V)
    assert widest(T, V) >= K > widest(T - 1, V)


def test_the_numbers_in_the_hints():
    features = solution(EXERCISE, "07-symmetric")(ledger.keys[3])
    assert any(abs(x - 0.2772) < 1e-4 for x in features.abs().tolist())
    s = ledger.keys @ ledger.query / 3**0.5
    weights = 1 + s + s**2 / 2
    found = [weights @ ledger.values, weights.sum(), weights[3:].sum(), s[0], weights[0]]
    assert [round(x.item(), 4) for x in found] == [23.8705, 7.8944, 4.1504, 0.5774, 1.744]
    assert round((1 - 2.5774 + 2.5774**2 / 2), 4) == 1.7441  # 2.5774 has been rounded
    crossover, widest = solution(EXERCISE, "07-crossover")
    assert (crossover(3, 1), widest(7, 1)) == (7, 3)


def worst_fall(weigh, K, length):
    """How much lighter than a key with a smaller logit one is, relative to that key."""
    rng = torch.Generator().manual_seed(K)
    q, k = (length * torch.randn(n, K, generator=rng, dtype=torch.float64) for n in (1, 500))
    w = weigh(q[0], k)[(k @ q[0]).argsort()]
    return ((w[:-1] - w[1:]) / (1e-9 + w[:-1].abs())).max().item()


def test_right_and_wrong_rules_are_far_apart():
    """Also those that break the promise in a short span alone."""
    sizes = [(K, length) for K in (1, 2, 4, 8) for length in (0.3, 1, 3)]
    for name, weigh in RIGHT_WEIGHTS.items():
        assert max(worst_fall(weigh, *size) for size in sizes) < 1e-10, name
    for name, weigh in WRONG_WEIGHTS.items():
        assert max(worst_fall(weigh, *size) for size in sizes) > 1e-4, name


@pytest.mark.parametrize("weigh", [*RIGHT_WEIGHTS.values(), *WRONG_WEIGHTS.values()])
def test_weights_of_any_size_can_be_asked_for(weigh):
    for n, K in ((1, 1), (2, 1), (5, 3)):
        q, k = torch.full((K,), -1.0, dtype=torch.float64), torch.full((n, K), 300.0 / K**0.5, dtype=torch.float64)
        weights = weigh(q, k)
        assert weights.shape == (n,)
        assert weights.isfinite().all()


@pytest.mark.parametrize(
    ("name", "missed"),
    [
        ("too coarse", {"fades"}),
        ("one direction, a query of 1", {"the angle", "positive features", "fades"}),
    ],
)
def test_what_a_test_that_looks_too_little_misses(name, missed):
    test = answer(EXERCISE, "07-ranks", answers(EXERCISE).wrong["07-ranks"][name])
    said = measure(probes("07-ranks")[1], test)
    assert {rule for rule, rejected in zip(said.labels, said.values, strict=True) if not rejected} == missed


def test_no_answer_stands_in_the_statements():
    assert task_data("07-symmetric")["solution"] not in statement("07-symmetric")
    assert "(K + 1)" not in statement("07-symmetric")
    assert "-1.2" not in statement("07-ranks")
