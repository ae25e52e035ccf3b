"""Exercise 06: some mistakes have a check of their own; what the statements, hints and solutions say is so.

What all exercises promise is in test_exercises.py.
"""

import pytest
import torch
from exercise_answers import answer, answers, complaints, hints, solution, statement

from hybridlab.course import ledger
from hybridlab.course.practice import probes, verdicts
from hybridlab.course.probe import measure
from hybridlab.course.probes_hyena import LAYERS, LINEAR, NOT_LINEAR, NOT_SHIFTED, SHIFTED
from hybridlab.layers import HyenaMixer
from hybridlab.layers.hyena_filter import HyenaSizes
from hybridlab.ops import long_conv, modal_conv, short_conv

EXERCISE = "06_hyena"


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("task", "name", "catches"),
    [
        ("06-circle", "a: the eight that an FFT likes", ["a: all outputs right (1) or not (0)"]),
        ("06-circle", "f: half a token", ["f: all outputs right (1) or not (0)"]),
        ("06-pieces", "minus nothing is everything", ["a filter of one tap"]),
        ("06-pieces", "the past is detached", ["gradient of h, x, past"]),
        ("06-pieces", "always float64", ["float32 stays float32 (1)"]),
        ("06-ahead", "the gate is detached", ["gradient of u, short, h"]),
        ("06-ahead", "the newest 16 taps", ["100 tokens, 64 taps"]),
        ("06-waves", "modes: none may grow", ["modes: 0, 1, 1, 2", "decode: 0, 1, 1, 2"]),
        ("06-waves", "modes: in float32", ["decode: after 1,000 tokens"]),
        ("06-waves", "prefill: powers of 0", ["decode: a pole of 0"]),
        ("06-waves", "prefill: the text is kept", ["state too large (1) or not (0)"]),
        ("06-waves", "step: the state is changed", ["one state, continued twice"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that every mistake fails says nothing: these fail no other."""
    assert complaints(EXERCISE, task, answers(EXERCISE).wrong[task][name]) == catches


@pytest.mark.parametrize(
    ("name", "misjudges"),
    [
        ("linear: doubled alone", {"a filter, negative inputs cut"}),
        ("linear: positive numbers", {"a filter, negative inputs cut"}),
        ("linear: ten tokens", {"gated by what came 20 ago"}),
        ("linear: soft numbers", {"a filter, loud inputs cut"}),
        ("linear: numbers that add up to 1", {"a filter and a constant"}),
        ("linear: three digits", {"a faint gate behind a filter"}),
        ("linear: thirteen digits", {"other last digits"}),
        ("linear: to the last digit", set(LINEAR)),
        ("shifts: thirteen digits", {"other last digits"}),
        ("shifts: by two", {"every second token"}),
        ("shifts: ten tokens", {"begins anew every 16 tokens"}),
        ("shifts: three digits", {"a faint gate by place"}),
        ("shifts: silent at the silent tokens too", {"a filter and a constant"}),
    ],
)
def test_a_layer_is_there_for_a_mistake(name, misjudges):
    tests = answer(EXERCISE, "06-shift", answers(EXERCISE).wrong["06-shift"][name])
    misjudged = set()
    for probe in probes("06-shift"):
        said = measure(probe, tests)
        misjudged |= {label for label, value in zip(said.labels, said.values, strict=True) if value != probe.expected}
    assert misjudged == misjudges


def test_every_layer_keeps_or_breaks_its_promises_clearly_within_40_tokens():
    x, z = 10 * drawn(2, 40, 3)
    for name, layer in LAYERS.items():
        whole = layer(2 * x - 3 * z)
        apart = (whole - 2 * layer(x) + 3 * layer(z)).abs().max() / whole.abs().max()
        assert apart < 1e-10 if name in LINEAR else apart > 1e-6, name
        alone = layer(x)
        moved = (layer(torch.cat((torch.zeros(1, 3).double(), x)))[1:] - alone).abs().max() / alone.abs().max()
        assert moved < 1e-10 if name in SHIFTED else moved > 1e-6, name


def test_there_are_25_layers_of_all_four_kinds():
    assert len(LAYERS) == 25
    assert "the same 25 layers, of all four kinds" in statement("06-shift")
    assert all(kind & place for kind in (LINEAR.keys(), NOT_LINEAR.keys()) for place in (SHIFTED.keys(), NOT_SHIFTED.keys()))
    for name, layer in LAYERS.items():
        for tokens in (1, 200):
            assert layer(50 * drawn(tokens, 3)).shape == (tokens, 3), name
            assert layer(50 * drawn(tokens, 3)).isfinite().all(), name


def test_the_chapters_layer_keeps_silence_only_without_its_biases():
    linear, shifts = solution(EXERCISE, "06-shift")
    torch.manual_seed(3)
    layer = HyenaMixer(3, HyenaSizes(taps=256)).double().requires_grad_(False)

    def outputs(x):
        return layer(x[None])[0][0]

    for test in (linear, shifts):
        with pytest.raises(AssertionError):
            test(outputs)
    for bias in (layer.input.bias, layer.conv.bias, layer.output.bias):
        bias.zero_()
    shifts(outputs)
    with pytest.raises(AssertionError):
        linear(outputs)
    assert "Hyena without biases, gates made from the text, breaks the first and keeps the second" in statement("06-shift")


@pytest.mark.parametrize(
    ("name", "says"), [("minus nothing is everything", "11, expected 0"), ("all kept", "11, expected 4")]
)
def test_a_wrong_count_of_kept_inputs_is_a_verdict(name, says):
    tests = answer(EXERCISE, "06-pieces", answers(EXERCISE).wrong["06-pieces"][name])
    said = [verdict.complaint for verdict in verdicts("06-pieces", tests) if verdict.complaint]
    assert f"at the count of kept inputs: got {says}" in said
    assert not any("Error" in complaint for complaint in said)


def test_two_waves_have_one_law():
    p, r = drawn(2), drawn(2, seed=1)
    h = r @ torch.linalg.vander(p, N=3)
    torch.testing.assert_close(h[1] * h[1] - h[0] * h[2], -r.prod() * (p[0] - p[1]) ** 2)


def test_a_text_in_pieces_is_hybridlabs_long_conv():
    continued = solution(EXERCISE, "06-pieces")
    h, x, past = drawn(3, 9), drawn(2, 3, 7, seed=1), drawn(2, 3, 5, seed=2)
    expected, state = long_conv(x.mT, h, state=past.mT, form="recurrent")
    y, kept = continued(h, x, past)
    torch.testing.assert_close(y, expected.mT)
    torch.testing.assert_close(kept, state[:, 1:].mT)  # "hybridlab keeps one more than this"
    assert "`hybridlab` keeps one more than this" in statement("06-pieces")


def test_the_repaired_operator_is_hybridlabs_convolutions_and_two_gates():
    u, short, h = drawn(2, 9, 11), drawn(9, 3, seed=1), drawn(3, 6, seed=2)
    x0, x1, v = short_conv(u.mT, short.flip(1), form="parallel")[0].chunk(3, 2)
    expected = x0 * long_conv(x1 * v, h, form="recurrent")[0]
    torch.testing.assert_close(solution(EXERCISE, "06-ahead")(u, short, h), expected.mT)


def test_the_function_to_repair_is_the_one_in_the_statement_and_its_last_output_can_be_right():
    shown = statement("06-ahead").split("```python\n")[1].split("```")[0]
    assert "\nfrom torch.nn.functional import conv1d, pad\n" + shown == answers(EXERCISE).wrong["06-ahead"]["as it was"]
    as_it_was = answer(EXERCISE, "06-ahead", "from torch.nn.functional import conv1d, pad\n" + shown)
    u, short, h = drawn(2, 9, 8), drawn(9, 3, seed=1), drawn(3, 5, seed=2)
    other = u.clone()
    other[..., 5:] = drawn(2, 9, 3, seed=3)
    heard = (as_it_was(other, short, h) - as_it_was(u, short, h)).abs().amax((0, 1)) > 1e-9
    assert heard.tolist() == 2 * [False] + 6 * [True]  # three tokens ahead: two by the long one, one by the short one


def test_two_waves_are_hybridlabs_modal_conv():
    modes, prefill, step = solution(EXERCISE, "06-waves")
    x, h = drawn(12), torch.tensor([1.0, 0.3, -0.2, 0.5]).double()
    poles, residues = modes(h)
    expected, _ = modal_conv(x[None, :, None], poles[None], residues[None], form="recurrent")
    state, outputs = prefill(h, x[:5]), []
    for x_t in x[5:]:
        y, state = step(h, state, x_t)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs), expected[0, 5:, 0])


def test_the_numbers_in_the_hints():
    continued, halves = solution(EXERCISE, "06-pieces"), torch.tensor([[1, 0.5, 0.25]]).double()
    v = ledger.values[None, None]
    y, kept = continued(halves, v[..., :3])
    assert (y.flatten().round(decimals=9).tolist(), kept.flatten().tolist()) == ([2, 6, 10], [5, 7])
    assert continued(halves, v[..., 3:4], kept)[0].item() == pytest.approx(5.75)
    assert "2, 6, 10 come out, and (5, 7) must be kept; Dee's output is 1 + 7/2 + 5/4 = 5.75" in hints("06-pieces")[1]
    room = {
        zeros: torch.nn.functional.conv1d(torch.nn.functional.pad(v, zeros), halves.flip(1)[None])
        for zeros in [(1, 1), (2, 0)]
    }
    assert room[1, 1][0, 0, 0] == 6
    assert room[2, 0].flatten().tolist() == [2, 6, 10, 5.75, 6.25, 2.25]
    assert "they are 2, 6, 10, 5.75, 6.25, 2.25" in hints("06-ahead")[1]
    a, b = torch.linalg.solve(torch.tensor([[0.4, 0], [0.56, 0.4]]).double(), torch.tensor([0.56, 0.604]).double())
    assert (a.item(), b.item()) == (pytest.approx(1.4), pytest.approx(-0.45))
    poles, residues = solution(EXERCISE, "06-waves")[0](torch.tensor([0, 0.4, 0.56, 0.604]).double())
    assert sorted(zip(poles.real.tolist(), residues.real.tolist(), strict=True)) == [
        (pytest.approx(0.5), pytest.approx(-1)),
        (pytest.approx(0.9), pytest.approx(1)),
    ]
    assert "a = 1.4 and b = -0.45, and p^2 = 1.4 p - 0.45 has the roots 0.9 and 0.5" in hints("06-waves")[1]


@pytest.mark.parametrize(("points", "wrong"), [(6, [1, 2, 3, 4, 5]), (8, [1, 2, 3]), (11, [])])
def test_what_runs_over_comes_in_where_the_hint_says(points, wrong):
    h, x = drawn(6), drawn(6, seed=1)
    right = torch.fft.irfft(torch.fft.rfft(h, 64) * torch.fft.rfft(x, 64), 64)[:6]
    found = torch.fft.irfft(torch.fft.rfft(h, points) * torch.fft.rfft(x, points), points)[:6]
    assert [t + 1 for t in range(6) if abs(found[t] - right[t]) > 1e-9] == wrong
    assert all(
        words in hints("06-circle")[1] for words in ("at places 1 to 5: five wrong", "9, 10 and 11 do, at places 1 to 3")
    )
