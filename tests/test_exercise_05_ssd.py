"""Exercise 05: some mistakes have a check of their own; what the statements and the solutions say is so.

What all exercises promise is in test_exercises.py.
"""

import math

import pytest
import torch
from exercise_answers import answer, answers, complaints, solution, statement

from hybridlab.course import ledger
from hybridlab.course.multiplications import multiplications
from hybridlab.course.practice import probes, task_data
from hybridlab.course.probe import measure
from hybridlab.course.probes_ssd import RIGHT_MATRICES, WRONG_MATRICES
from hybridlab.ops import retention, ssd
from hybridlab.widgets.chunks import work

EXERCISE = "05_ssd"


@pytest.mark.parametrize(
    ("task", "name", "catches"),
    [
        ("05-entry", "c: written without its dt", ["c: Dee's number as it is read back"]),
        ("05-fading", "a state that only log decays let in", ["with a state, no decay"]),
        ("05-fading", "differences of running sums", ["a wipe, float32"]),
        ("05-fading", "always float64", ["float32 stays float32 (1)"]),
        (
            "05-fading",
            "(H,) taken for (T,) where it can be",
            ["as many tokens as heads", "any cut, a decay for each head, pieces minus whole"],
        ),
        ("05-late", "as it was", ["gradient, steep decays, float32", "gradient, a ramp of decays"]),
        ("05-late", "tril in place of where", ["gradient, steep decays, float32", "gradient, a ramp of decays"]),
        ("05-late", "the smaller of the two", ["gradient, a ramp of decays", "gradient, a clock that stands still"]),
        ("05-late", "the first step removed in place", ["inputs untouched"]),
        ("05-cheapest", "the mask counted as a matrix product", ["cost, matrix products at a sixteenth"]),
        ("05-memory", "the middle alone", ["wrong ones rejected (1) or not (0)"]),
        ("05-memory", "the future may be seen", ["wrong ones rejected (1) or not (0)"]),
        ("05-memory", "one too many", ["wrong ones rejected (1) or not (0)"]),
        ("05-memory", "three digits", ["wrong ones rejected (1) or not (0)"]),
        ("05-memory", "a memory of one number alone", ["wrong ones rejected (1) or not (0)"]),
        ("05-memory", "with the diagonal", ["right ones rejected (1) or not (0)"]),
        ("05-memory", "to the last digit", ["right ones rejected (1) or not (0)"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that every mistake fails says nothing: these fail no other."""
    assert complaints(EXERCISE, task, answers(EXERCISE).wrong[task][name]) == catches


def test_tiled_groups_are_invisible_with_one_group_and_caught_with_two():
    failed = complaints(EXERCISE, "05-fading", answers(EXERCISE).wrong["05-fading"]["groups tiled"])
    assert "a decay for each head" in failed
    assert "one group for all heads" not in failed


def test_the_six_entries_are_those_of_hybridlab():
    a, b, c, d, e, f = solution(EXERCISE, "05-entry")
    x = torch.eye(6, dtype=torch.float64)[None, :, None]  # value channel j is 1 at token j alone: the outputs are the matrix
    keys, asks = (z.expand(1, 6, 1, 3) for z in (ledger.keys[None, :, None], torch.tensor([0.5, 1, 0]).double()))

    def matrix(*steps):
        dt = torch.tensor(steps, dtype=torch.float64)[None, :, None]
        return ssd(x, dt, torch.tensor([-math.log(2)]).double(), keys, asks, backend="naive")[0][0, :, 0]

    even, uneven = matrix(1, 1, 1, 1, 1, 1), matrix(1, 1, 2, 0.5, 3, 1)
    fixed, _ = retention(asks, keys, x, torch.tensor([0.9]).double().log(), backend="naive")
    found = [even[4, 1], even[3, 3], uneven[4, 3], fixed[0, 4, 0, 0], matrix(1, 1, 2, e, 3, 1)[5, 1]]
    torch.testing.assert_close(torch.stack(found), torch.tensor([a, b, c, d, 1 / 512]).double())
    # The way of Ann's 2 in chunks of two: one step to the chunk's end, the passing, and both steps of the last chunk.
    torch.testing.assert_close(uneven[5, 0].item(), 0.5 * 0.5**1 * f * 0.5 ** (3 + 1))


def test_one_function_is_hybridlabs_ssd_and_retention():
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(9, heads, size, generator=rng).double() for heads, size in ((2, 3), (2, 3), (4, 5)))
    log_decay, state = -torch.rand(4, generator=rng).double(), torch.randn(4, 5, 3, generator=rng).double()
    fading = solution(EXERCISE, "05-fading")
    outputs, last = ssd(v[None], v.new_ones(1, 9, 4), log_decay, k[None], q[None], state=state[None], backend="naive")
    torch.testing.assert_close(fading(q, k, v, log_decay, state), (outputs[0], last[0]))
    q4, k4 = (z.repeat_interleave(2, 1)[None] for z in (q, k))
    for constant, given in ((log_decay, log_decay), (torch.zeros_like(log_decay), None)):
        outputs, last = retention(q4, k4, v[None], constant, state.mT[None], backend="naive")
        torch.testing.assert_close(fading(q, k, v, given, state), (outputs[0], last[0].mT))


def test_the_function_to_repair_is_the_one_in_the_statement():
    shown = statement("05-late").split("```python\n")[1].split("```")[0]
    assert "import torch\n" + shown == answers(EXERCISE).wrong["05-late"]["as it was"].lstrip()
    assert task_data("05-late")["solution"] != shown


def four_steps(T, N, P, chunk):
    """The four products of the statement for all chunks, on the meta device."""
    chunks = math.ceil(T / chunk)
    U, B, C = (torch.empty(chunks, chunk, size, device="meta") for size in (P, N, N))
    L, column = torch.empty(chunks, chunk, chunk, device="meta"), torch.empty(chunks, chunk, 1, device="meta")
    S = torch.empty(chunks, P, N, device="meta")
    (C @ B.mT * L) @ U
    (column * U).mT @ B
    torch.empty(chunks, 1, 1, device="meta") * S
    column * (C @ S.mT)


@pytest.mark.parametrize("sizes", [(6, 3, 2, 3), (37, 5, 3, 8), (64, 16, 16, 16), (1024, 128, 64, 64)])
def test_the_derived_cost_is_what_is_counted(sizes):
    counted = multiplications(lambda: four_steps(*sizes))
    cost = solution(EXERCISE, "05-cheapest")[0]
    assert cost(*sizes) == counted.total
    assert cost(*sizes, 0) == counted.single


@pytest.mark.parametrize(("N", "P", "matrix"), [(16, 16, 1), (128, 64, 1), (128, 64, 1 / 16), (7, 30, 0)])
def test_no_chunk_is_cheaper_than_the_optimum(N, P, matrix):
    cost, optimum = solution(EXERCISE, "05-cheapest")
    best = optimum(N, P, matrix)
    T = math.lcm(*range(1, 41))
    cheapest = min(range(1, 41), key=lambda chunk: cost(T, N, P, chunk, matrix))
    assert cheapest in (math.floor(best), math.ceil(best)) or best > 40


def test_the_numbers_in_the_hints():
    cost, _ = solution(EXERCISE, "05-cheapest")
    assert (cost(3, 3, 1, 3), cost(6, 3, 1, 3)) == (72, 144)
    assert "Together 72, and 144 for both chunks" in task_data("05-cheapest")["hints"][1]
    read = ledger.keys @ ledger.query
    rows = [[read[s].item() * 0.5 ** (t - s) for s in range(4)] for t in (4, 5)]
    assert rows == [[0.0625, 0, 0, 0.3], [0.03125, 0, 0, 0.15]]
    assert "(.03125, 0, 0, .15) and (.0625, 0, 0, .3)" in task_data("05-memory")["hints"][1]


def beyond(matrix, N):
    """How far the worst block below the diagonal is from rank N, relative to its largest singular value."""
    sizes = [torch.linalg.svdvals(matrix[t:, :t]) for t in range(1, len(matrix))]
    return max((s[N] / s[0]).item() if len(s) > N and s[0] > 0 else 0.0 for s in sizes)


@pytest.mark.parametrize(("T", "N"), [(6, 1), (8, 2), (12, 2), (20, 3), (64, 8)])
def test_right_and_wrong_matrices_are_far_apart(T, N):
    for name, mixing in RIGHT_MATRICES.items():
        matrix = mixing(T, N)
        assert beyond(matrix, N) < 1e-11, name
        assert not matrix.triu(1).any(), name
    for name, mixing in WRONG_MATRICES.items():
        if (name, N) == ("squared scores", 1):
            continue
        matrix = mixing(T, N)
        assert beyond(matrix, N) > 1e-6 or matrix.triu(1).abs().max() > 0.1, name


@pytest.mark.parametrize("mixing", [*RIGHT_MATRICES.values(), *WRONG_MATRICES.values()])
@pytest.mark.parametrize("T", [1, 2, 3])
def test_a_matrix_of_any_size_can_be_asked_for(mixing, T):
    assert mixing(T, 1).shape == mixing(T, 2).shape == (T, T)
    assert mixing(T, 2).isfinite().all()


@pytest.mark.parametrize(
    ("name", "missed"), [("three digits", "one state number more"), ("a memory of one number alone", "squared scores")]
)
def test_one_wrong_layer_alone_stops_a_test_that_looks_too_little(name, missed):
    test = answer(EXERCISE, "05-memory", answers(EXERCISE).wrong["05-memory"][name])
    said = measure(probes("05-memory")[1], test)
    assert [layer for layer, rejected in zip(said.labels, said.values, strict=True) if not rejected] == [missed]


def test_with_matrix_products_for_nothing_the_optimum_is_the_widgets_fewest_bytes():
    optimum = solution(EXERCISE, "05-cheapest")[1]
    assert optimum(16, 16, 0) == 16 == min(range(1, 65), key=lambda chunk: work(64, 16, 16, chunk).nbytes)
