"""Exercise 08: some mistakes have a check of their own; what the statements and the solutions say is so.

What all exercises promise is in test_exercises.py.
"""

import math

import numpy as np
import pytest
import torch
from exercise_answers import answer, answers, complaints, hints, solution, statement

from hybridlab.course import ledger
from hybridlab.course.practice import probes
from hybridlab.course.probe import measure
from hybridlab.course.probes_delta_rule import RIGHT_TEXTS, WRONG_TEXTS
from hybridlab.ops import delta_rule, gated_delta_rule, retention

EXERCISE = "08_delta_rule"


@pytest.mark.parametrize(
    ("task", "name", "catches"),
    [
        ("08-rewrite", "f: after one more round", ["f: Dee's answer, if Ann's is 4 and Bob's this"]),
        ("08-gate", "late: betas above 1 cut", ["late: keys longer than 1, betas up to 2"]),
        ("08-gate", "late: always float64", ["late: float32 stays float32 (1)"]),
        ("08-gate", "late: the error is detached", ["late: gradient"]),
        ("08-gate", "late: differences of running sums", ["late: a wipe, float32"]),
        ("08-gate", "late: by way of the chapter's rule", ["late: a ramp of clocks", "late: a wipe, float32"]),
        ("08-gate", "as_early: changes v", ["as_early: inputs untouched"]),
        ("08-new", "a copy of the old state", ["gradient", "gradient, with a state", "inputs untouched"]),
        ("08-new", "both copied, still in place", ["gradient", "gradient, with a state"]),
        ("08-new", "always float64", ["float32 stays float32 (1)"]),
        ("08-parity", "mirrors: keys of length root 2", ["mirrors: lengths of the keys"]),
        ("08-parity", "mirrors: made in float32", ["mirrors: 500 bits, outputs minus parity"]),
        ("08-parity", "mirrors: counted in the query", ["mirrors: a token minus the same token alone"]),
        ("08-parity", "mirrors: counted in the value", ["mirrors: a token minus the same token alone"]),
        ("08-parity", "tuned: decays changed", ["tuned: inputs untouched"]),
        ("08-angles", "keys must have length 1", ["right ones rejected (1) or not (0)"]),
        ("08-angles", "no more tokens than numbers", ["right ones rejected (1) or not (0)"]),
        ("08-angles", "neighbours alone", ["wrong ones rejected (1) or not (0)"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that every mistake fails says nothing: these fail no other."""
    assert complaints(EXERCISE, task, answers(EXERCISE).wrong[task][name]) == catches


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("keys must have length 1", "keys of any length"),
        ("the beta of the later token alone", "a key comes before it writes"),
        ("the beta of the earlier token alone", "a key asks again, and writes nothing"),
        ("angles, the key 0 not thought of", "keys of length 0"),
        ("to the last digit", "other last digits"),
        ("without the size", "the opposite name"),
        ("three digits", "a small lean"),
        ("every value is 1", "leans that cancel"),
        ("every query is Ann's", "a name twice"),
        ("neighbours alone", "a name twice, and silent between"),
    ],
)
def test_a_text_is_there_for_a_mistake(name, text):
    test = answer(EXERCISE, "08-angles", answers(EXERCISE).wrong["08-angles"][name])
    misjudged = []
    for expected, probe in enumerate(probes("08-angles")):  # 0 for the right texts, 1 for the wrong ones
        said = measure(probe, test)
        misjudged += [label for label, value in zip(said.labels, said.values, strict=True) if value != expected]
    assert text in misjudged


def after(tokens):
    """What the memory answers for the axes, after (key, value, beta) of each token."""
    k, v, beta = (torch.tensor(column, dtype=torch.float64) for column in zip(*tokens, strict=True))
    _, state = delta_rule(k[None, :, None], k[None, :, None], v[None, :, None, None], beta[None, :, None], backend="naive")
    return state[0, 0, :, 0]


def test_the_six_numbers_are_those_of_hybridlab():
    a, b, c, d, e, f = solution(EXERCISE, "08-rewrite")
    ann, bob, cy, dee = (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.6, 0.8, 0)
    first, whole = [(ann, 2, 1), (bob, 5, 1), (cy, 7, 1)], [(dee, 1, 1), (ann, 4, 1)]
    halves = [(key, value, 0.5) for key, value, _ in [*first, *whole]]
    found = [
        after([*first, *whole, (dee, 1, 1)])[1],
        after(halves)[0],
        after([*first, ((3, 4, 0), 1, c)])[:2] @ torch.tensor([3, 4]).double(),
        after([*first, (dee, 1, 2)])[0],
        after([whole[0], *first, whole[1]])[:2] @ torch.tensor([0.6, 0.8]).double(),
        after([*first, *whole, *30 * whole])[1],
    ]
    torch.testing.assert_close(torch.stack(found), torch.tensor([a, b, 1, d, e, f]).double())
    torch.testing.assert_close(after([*first, *whole]), torch.tensor([4, 1.64, 7]).double())


def gated(seed, tokens=40):
    rng = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(tokens, size, generator=rng).double() for size in (3, 3, 2))
    log_decay, beta = -0.2 * torch.rand(tokens, generator=rng).double(), torch.rand(tokens, generator=rng).double()
    return q, torch.nn.functional.normalize(k, dim=-1), v, log_decay, beta


def by_the_operator(q, k, v, log_decay, beta):
    outputs, state = gated_delta_rule(*(z[None, :, None] for z in (q, k, v, log_decay, beta)), backend="naive")
    return outputs[0, :, 0], state[0, 0]


def test_the_late_gate_is_the_gated_delta_rule_with_other_numbers():
    late, as_early = solution(EXERCISE, "08-gate")
    q, k, v, log_decay, beta = gated(0)
    torch.testing.assert_close(late(q, k, v, 0 * log_decay, beta), by_the_operator(q, k, v, 0 * log_decay, beta))
    values, betas = as_early(v, log_decay, beta)
    torch.testing.assert_close(late(q, k, v, log_decay, beta), by_the_operator(q, k, values, log_decay, betas))
    halves = torch.tensor([0.5]).double().log()
    assert as_early(torch.ones(1, 1).double(), halves, torch.ones(1).double())[1].item() == pytest.approx(2)


def test_with_mirrors_and_a_late_gate_a_name_that_comes_again_explodes():
    late, _ = solution(EXERCISE, "08-gate")
    q, k, v, log_decay, beta = gated(1, 400)
    again, mirrors = k[:1].expand_as(k), 2 + 0 * beta
    assert late(q, again, v, log_decay, mirrors)[1].norm() > 1e9
    assert late(q, k, v, log_decay, mirrors)[1].norm() < 1e3
    assert by_the_operator(q, again, v, log_decay, mirrors)[1].norm() < 1e3


def test_the_repaired_function_is_hybridlabs_delta_rule():
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(9, 4, size, generator=rng).double() for size in (3, 3, 2))
    beta, state = torch.rand(9, 4, generator=rng).double(), torch.randn(4, 3, 2, generator=rng).double()
    expected, last = delta_rule(q[None], k[None], v[None], beta[None], state[None], backend="naive")
    torch.testing.assert_close(solution(EXERCISE, "08-new")(q, k, v, beta, state), (expected[0], last[0]))


def test_the_function_to_repair_is_the_one_in_the_statement_and_answers_nothing():
    shown = statement("08-new").split("```python\n")[1].split("```")[0]
    assert "import torch\n" + shown == answers(EXERCISE).wrong["08-new"]["as it was"]
    q, k, v = (z[:, None].clone() for z in (ledger.keys, ledger.keys, ledger.values[:, None]))
    outputs, state = answer(EXERCISE, "08-new", "import torch\n" + shown)(q, k, v, torch.ones(6, 1).double())
    assert max(outputs.abs().max(), state.abs().max()) < 1e-12


def test_mirrors_are_read_by_hybridlab():
    mirrors, _ = solution(EXERCISE, "08-parity")
    bits = torch.randint(2, (300,), generator=torch.Generator().manual_seed(0))
    *tokens, state = mirrors(bits)
    outputs, _ = delta_rule(*(z[None, :, None] for z in tokens), state[None, None], form="chunked")
    torch.testing.assert_close(outputs[0, :, 0, 0], (bits.cumsum(0) % 2).double())


@pytest.mark.parametrize("N", range(1, 7))
def test_n_decays_count_to_n_and_no_further(N):
    """All N + 2 answers y_n satisfy sum_n c_n y_n = 0; where the c_n take turns, the y_n cannot."""
    a = (torch.arange(N) / N).double()
    h, d = solution(EXERCISE, "08-parity")[1](a)
    y = torch.stack([(a**n * h).sum() + d for n in range(N + 2)])
    odd = torch.arange(N + 2) % 2 == 1
    assert ((y > 0) == odd).tolist() == [True] * (N + 1) + [False]
    c = np.poly([*a.tolist(), 1.0])[::-1].copy()  # of (r - a_1) ... (r - a_N) (r - 1), the constant first
    assert abs(c @ y.numpy()) < 1e-6
    assert (c[1:] * (-1.0) ** np.arange(N + 1) * (-1) ** N > 0).all()


def test_the_numbers_in_the_hints():
    late, _ = solution(EXERCISE, "08-gate")
    halves, ones = torch.full((6,), 0.5).double().log(), torch.ones(6).double()
    given = ledger.query.expand(6, 3), ledger.keys, ledger.values[:, None], halves, ones
    rows = [[round(x, 4) for x in rule(*given)[0][:4, 0].tolist()] for rule in (late, by_the_operator)]
    assert rows == [[2, 1, 0.5, -0.53], [2, 1, 0.5, 0.16]]
    assert (
        "late answers 2, 1, 0.5, -0.53 at the first four tokens, the chapter's rule 2, 1, 0.5, 0.16" in hints("08-gate")[1]
    )
    h, d = solution(EXERCISE, "08-parity")[1](torch.tensor([0, 0.5]).double())
    assert [round(x, 9) for x in (*h.tolist(), d.item())] == [-6, 8, -3]
    assert [d + h[1] * 0.5**n + (n == 0) * h[0] for n in range(4)] == pytest.approx([-1, 1, -1, -2])
    assert "h = (-6, 8) and d = -3 give -1, 1, -1, -2" in hints("08-parity")[1]


def apart(k, beta):
    """How far the delta rule and the sum are from each other, with values and queries of about 1."""
    rng = torch.Generator().manual_seed(0)
    q, v = torch.randn(*k.shape, generator=rng).double(), torch.randn(len(k), 8, generator=rng).double()
    q, k, v = (z[None, :, None] for z in (q, k, v))
    corrected, _ = delta_rule(q, k, v, beta[None, :, None], backend="naive")
    added, _ = retention(q, k, beta[None, :, None, None] * v, torch.zeros(1).double(), backend="naive")
    return (corrected - added).abs().max().item()


def test_right_and_wrong_texts_are_far_apart():
    assert max(apart(*text) for text in RIGHT_TEXTS.values()) < 1e-10
    assert min(apart(*text) for text in WRONG_TEXTS.values()) > 1e-4
    assert (len(RIGHT_TEXTS), len(WRONG_TEXTS)) == (11, 12)
    assert all(word in statement("08-angles") for word in ("Twenty-three texts", "For eleven of", "For the other twelve"))
    assert all(
        beta.min() >= 0 and beta.max() <= 2 and len(k) == len(beta)
        for k, beta in [*RIGHT_TEXTS.values(), *WRONG_TEXTS.values()]
    )


def test_half_of_everything_is_a_mirror_for_a_late_gate():
    """Along its key a token multiplies the memory by e^l - beta."""
    late, _ = solution(EXERCISE, "08-gate")
    key, state = torch.tensor([[0.6, 0.8]]).double(), torch.eye(2).double()
    _, left = late(
        key, key, torch.zeros(1, 2).double(), torch.tensor([-math.log(2)]).double(), torch.ones(1).double(), state
    )
    torch.testing.assert_close(torch.linalg.eigvalsh(left), torch.tensor([-0.5, 0.5]).double())
