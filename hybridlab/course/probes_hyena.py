"""The checks of exercise 06: what turns answers about long filters into numbers.

The layers at the end, linear or not, shifted with their text or not, are what task 06-shift hands to a learner's tests.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from hybridlab.course import ledger
from hybridlab.course.probe import Probe, Run, causal, gradient, normal, numbers, ramp, rejects, untouched
from hybridlab.state import state_tensors

Inputs = Callable[[Generator], list[Tensor]]
Layer = Callable[[Tensor], Tensor]
Draw = Callable[[Generator], Tensor]


def _sums(h: Tensor, x: Tensor) -> Tensor:
    """The convolution, sum by sum: h (..., W), x (..., T) -> (..., T)."""
    places = torch.arange(x.shape[-1])
    ages = places[:, None] - places
    taps = h[..., ages.clamp(0, h.shape[-1] - 1)].masked_fill((ages < 0) | (ages >= h.shape[-1]), 0.0)
    return (taps @ x[..., None])[..., 0]


# 06-circle: six numbers. Each probe lays random numbers on a circle of that size, and says who hears too much.


def _whole(number: Any) -> int:
    if float(number) != int(number):
        raise ValueError(f"expected a whole number, got {number}")
    return int(number)


def _circle(h: Tensor, x: Tensor, points: int) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(h, points) * torch.fft.rfft(x, points), points)


def _wrong(tokens: int, taps: int, points: int, rng: Generator, wanted: int | None = None) -> list[bool]:
    """Which of the last `wanted` outputs (None: of all) are wrong; old inputs for which there is no place are left out."""
    h, x = normal(rng, taps), normal(rng, tokens)
    laid = x if wanted is None else x[-points:]
    found = _circle(h[:tokens], laid, points)[: len(laid)]
    right = _circle(h[:tokens], x, 2 * tokens)[tokens - (wanted or tokens) : tokens]
    if len(found) < len(right):
        return len(right) * [True]
    return ((found[-len(right) :] - right).abs() > 1e-9).tolist()


def _enough(letter: int, tokens: int, taps: int, wanted: int | None = None) -> Run:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        points = _whole(answer[letter])
        if not 2 <= points <= 1 << 20:
            raise ValueError(f"expected 2 to 1,048,576 points, got {points}")
        sizes = {"so many points": points, "one point fewer": points - 1}
        return {f"{name}:": float(not any(_wrong(tokens, taps, size, rng, wanted))) for name, size in sizes.items()}

    return run


SMALLEST = {"so many points:": 1.0, "one point fewer:": 0.0}


def _last_wrong_output(answer: Any, rng: Generator) -> dict[str, float]:
    count, wrong = _whole(answer[3]), _wrong(100, 100, 150, rng)
    return {"the last of them:": float(any(wrong[count - 1 : count])), "any behind:": float(any(wrong[count:]))}


def _longest_text(answer: Any, rng: Generator) -> dict[str, float]:
    tokens = _whole(answer[5])
    if not 1 <= tokens <= 1 << 20:
        raise ValueError(f"expected 1 to 1,048,576 tokens, got {tokens}")
    sizes = {"so many tokens:": tokens, "one token more:": tokens + 1}
    return {name: float(not any(_wrong(size, 1200, 4096, rng))) for name, size in sizes.items()}


# 06-pieces: continued(h, x, past=None) -> (y, kept); h (D, W), x (B, D, T), past (B, D, S).

TEXTS, CHANNELS, TOKENS, TAPS, PAST = 2, 3, 7, 5, 4


def _piece(rng: Generator, tokens: int = TOKENS, taps: int = TAPS, past: int = PAST) -> list[Tensor]:
    return [normal(rng, CHANNELS, taps), normal(rng, TEXTS, CHANNELS, tokens), normal(rng, TEXTS, CHANNELS, past)]


def _first_piece(rng: Generator, tokens: int = TOKENS, taps: int = TAPS) -> list[Tensor]:
    return _piece(rng, tokens, taps)[:2]


def _both(answer: Any, given: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Outputs and what is kept, however many; another shape that is wrong is an error, which makes a verdict."""
    y, kept = answer(*given)
    x = given[1]
    if y.shape != x.shape:
        raise ValueError(f"outputs: expected shape {tuple(x.shape)}, got {tuple(y.shape)}")
    if kept.shape[:-1] != x.shape[:-1]:
        raise ValueError(f"kept: expected a shape that begins with {tuple(x.shape[:-1])}, got {tuple(kept.shape)}")
    return y, kept


def _on(inputs: Inputs) -> Run:
    """Outputs, how many inputs are kept, and which: a wrong count is a number that is wrong, not an error."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        given = inputs(rng)
        y, kept = _both(answer, given)
        count = kept.shape[-1]
        heard = min(given[0].shape[1] - 1, sum(z.shape[2] for z in given[1:]))
        if count != heard:  # then the first number that is wrong stands before these
            kept = torch.full((*kept.shape[:-1], heard), math.nan)
        return _labelled("outputs", y) | {"the count of kept inputs:": float(count)} | _labelled("kept", kept)

    return run


def _labelled(name: str, part: Tensor) -> dict[str, float]:
    seen = numbers(part)
    return {name + at: x for at, x in zip(seen.labels, seen.values, strict=True)}


def _ramps(rng: Generator) -> list[Tensor]:
    """Taps and inputs that all differ: a place that is off by one shows at once."""
    x, past = ramp(TOKENS).expand(1, 1, -1), ramp(PAST, -1000, -910).expand(1, 1, -1)
    return [ramp(TAPS, 1, 5)[None], x.clone(), past.clone()]


def _page(answer: Any, rng: Generator) -> Tensor:
    halves = 0.5 ** torch.arange(6, dtype=torch.float64)
    return answer(halves[None], ledger.values[None, None])[0]


def _pieces(answer: Any, h: Tensor, x: Tensor, sizes: list[int]) -> Tensor:
    outputs, past = [], None
    for piece in x.split(sizes, -1):
        y, past = _both(answer, [h, piece] if past is None else [h, piece, past])
        outputs.append(y)
    return torch.cat(outputs, -1)


def _any_cut(taps: int) -> Run:
    """How far two pieces are from the whole, for each place of the cut."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        h, x = _first_piece(rng, TOKENS, taps)
        whole = answer(h, x)[0]
        cuts = {f"cut after {cut}:": [cut, TOKENS - cut] for cut in range(1, TOKENS)}
        return {name: (_pieces(answer, h, x, sizes) - whole).abs().max().item() for name, sizes in cuts.items()}

    return run


def _token_by_token(answer: Any, rng: Generator) -> Tensor:
    h, x = _first_piece(rng, 12)
    return _pieces(answer, h, x, 12 * [1])


def _gradient_of_both(answer: Any, rng: Generator) -> Tensor:
    return gradient(_piece)(lambda *given: torch.cat(_both(answer, list(given)), -1), rng)


def _causal_in_time(inputs: Inputs, tokens: int) -> Run:
    """Every token after the first replaced in turn, in every input that has one dimension of tokens, the last."""
    return causal(inputs, tokens, dim=2)


def _all_float32(given: list[Tensor], answer: Any) -> dict[str, float]:
    made = answer(*[z.float() for z in given])
    named = zip(("outputs", "kept"), made if isinstance(made, tuple) else (made,), strict=False)
    return {f"{name}:": float(z.dtype == torch.float32) for name, z in named}


# 06-ahead: hyena(u, short, h) -> (B, D, T); u (B, 3D, T), short (3D, 3), h (D, W).


def _operator(rng: Generator, tokens: int = TOKENS, taps: int = TAPS) -> list[Tensor]:
    return [normal(rng, TEXTS, 3 * CHANNELS, tokens), normal(rng, 3 * CHANNELS, 3), normal(rng, CHANNELS, taps)]


def _mixed(inputs: Inputs) -> Run:
    def run(answer: Any, rng: Generator) -> Tensor:
        given = inputs(rng)
        y = answer(*given)
        shape = (given[0].shape[0], given[2].shape[0], given[0].shape[2])
        if tuple(y.shape) != shape:
            raise ValueError(f"outputs: expected shape {shape}, got {tuple(y.shape)}")
        return y

    return run


def _beginnings(answer: Any, rng: Generator) -> dict[str, float]:
    """How far the outputs of a text that ends early are from those of the whole."""
    u, short, h = _operator(rng)
    whole = answer(u, short, h)
    ends = range(1, TOKENS)
    return {f"the first {end}:": (answer(u[..., :end], short, h) - whole[..., :end]).abs().max().item() for end in ends}


# 06-waves: modes(h) -> (poles, residues), prefill(h, x) -> state, step(h, state, x_t) -> (y_t, state), checked as three.

FADING, TURNING = (0.9, -0.4), (0.98 * complex(math.cos(1), math.sin(1)), 0.98 * complex(math.cos(1), -math.sin(1)))


def _taps(poles: Any, residues: Any, count: int) -> Tensor:
    """Re sum_n R_n p_n^s at s = 0 ... count - 1."""
    waves = torch.linalg.vander(torch.as_tensor(poles, dtype=torch.complex128), N=count)
    return (torch.as_tensor(residues, dtype=torch.complex128) @ waves).real


def _fading(rng: Generator) -> Tensor:
    """Two real poles; four taps, as all of these."""
    return _taps(FADING, 1 + torch.rand(2, generator=rng, dtype=torch.float64), 4)


def _turning(rng: Generator) -> Tensor:
    """A pair of conjugate poles, with any phase."""
    residue = torch.view_as_complex(normal(rng, 2)).item()
    return _taps(TURNING, (residue, residue.conjugate()), 4)


def _with_a_pole_of_0(rng: Generator) -> Tensor:
    """One wave, and something more for the present; eighths, so that the pole is 0 to the last digit."""
    extra = torch.randint(1, 9, (1,), generator=rng).item() / 8
    return torch.tensor([1 + extra, 0.5, 0.25, 0.125], dtype=torch.float64)


def _never_ending(rng: Generator) -> Tensor:
    """A pole of 1: the sum of all inputs, and a wave that changes its sign."""
    return _taps((1, -0.5), 1 + torch.rand(2, generator=rng, dtype=torch.float64), 4)


def _fibonacci(rng: Generator) -> Tensor:
    return torch.tensor([0, 1, 1, 2], dtype=torch.float64)


FILTERS = {
    "two fading waves": _fading,
    "a pair of poles": _turning,
    "a pole of 0": _with_a_pole_of_0,
    "a pole of 1": _never_ending,
    "0, 1, 1, 2": _fibonacci,
}


def _filter_of_modes(drawn: Draw) -> Run:
    def run(answer: Any, rng: Generator) -> Tensor:
        poles, residues = answer[0](drawn(rng))
        for name, made in (("poles", poles), ("residues", residues)):
            if tuple(made.shape) != (2,):
                raise ValueError(f"{name}: expected shape (2,), got {tuple(made.shape)}")
        return _taps(poles, residues, 30)

    return run


def _decoded(answer: Any, h: Tensor, prompt: Tensor, rest: Tensor) -> Tensor:
    """The outputs that are written after a prompt, token by token."""
    _, prefill, step = answer
    state, outputs = prefill(h, prompt), []
    for x_t in rest:
        y, state = step(h, state, x_t)
        outputs.append(_real(y))
    return torch.stack(outputs)


def _real(y: Any) -> Tensor:
    y = torch.as_tensor(y)
    if y.is_complex() or y.ndim:
        raise ValueError(f"y_t: expected one real number, got {'a complex one' if y.is_complex() else tuple(y.shape)}")
    return y.double()


def _written(drawn: Draw, prompt: int = 9, tokens: int = 6) -> Run:
    return lambda answer, rng: _decoded(answer, drawn(rng), normal(rng, prompt), normal(rng, tokens))


def _ledger_written(answer: Any, rng: Generator) -> Tensor:
    """The chapter's rising filter, 0.9^s - 0.5^s."""
    v = ledger.values.clone()
    return _decoded(answer, _taps((0.9, 0.5), (1, -1), 4), v[:3], v[3:])


def _any_prompt(answer: Any, rng: Generator) -> dict[str, float]:
    """Outputs after prompts of each length minus those of the longest text that is written from the start."""
    h, x = _turning(rng), normal(rng, 9)
    whole = _decoded(answer, h, x[:0], x)
    lengths = range(1, len(x))
    return {f"a prompt of {n}:": (_decoded(answer, h, x[:n], x[n:]) - whole[n:]).abs().max().item() for n in lengths}


def _two_ways_on(answer: Any, rng: Generator) -> float:
    """One state, continued twice: the second time finds it as the first did."""
    _, prefill, step = answer
    h, x = _turning(rng), normal(rng, 9)
    state = prefill(h, x)
    outputs = [_real(step(h, state, x[0])[0]).clone() for _ in range(2)]
    return abs((outputs[0] - outputs[1]).item())


def _state_too_large(answer: Any, rng: Generator) -> dict[str, float]:
    _, prefill, step = answer
    h = _fading(rng)
    found: dict[str, float] = {}
    for tokens in (0, 1, 50):
        state = prefill(h, normal(rng, tokens))
        after = step(h, state, normal(rng, 1)[0])[1]
        found |= {f"{tokens} tokens:": float(_reals(state) > 4), f"{tokens} tokens and a step:": float(_reals(after) > 4)}
    return found


def _reals(state: Any) -> int:
    return sum(part.numel() * (1 + part.is_complex()) for part in state_tensors(state))


def _three_untouched(answer: Any, rng: Generator) -> dict[str, float]:
    run = untouched(lambda rng: [_turning(rng), normal(rng, 9)])
    changes = run(lambda h, x: (answer[0](h), _decoded(answer, h, x[:5], x[5:])), rng)
    return dict(zip(("h", "x"), changes.values(), strict=True))


# 06-shift: linear(layer) and shifts(layer), where layer(x), x (T, 3) -> (T, 3).

WIDTH = 3


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return normal(torch.Generator().manual_seed(seed), *shape)


FILTER = _drawn(WIDTH, 1000) * 0.9 ** torch.arange(1000)
SHORT = _drawn(3 * WIDTH, 3, seed=1)
MAPS = _drawn(4, WIDTH, WIDTH, seed=2)
BY_PLACE = _drawn(1000, WIDTH, seed=3)


def _filtered(x: Tensor) -> Tensor:
    return _sums(FILTER[:, : len(x)], x.mT).mT


def _by_fft(x: Tensor) -> Tensor:
    return _circle(FILTER[:, : len(x)], x.mT, 2 * len(x)).mT[: len(x)]


def _two_maps(x: Tensor) -> Tensor:
    return _filtered(x @ MAPS[0]) @ MAPS[1]


def _other_digits(x: Tensor) -> Tensor:
    """A filter that rounds: by what it says, and by where."""
    y = _filtered(x)
    return y * (1 + 1e-12 * torch.sin(1e6 * y + torch.arange(len(x))[:, None]))


def _gates_by_place(x: Tensor) -> Tensor:
    """Gates that were learned for each place: products, but not of the text with itself."""
    places = BY_PLACE[: len(x)]
    return places * _filtered(places.flip(1) * x)


def _faint_place(x: Tensor) -> Tensor:
    return (1 + 1e-4 * BY_PLACE[: len(x)]) * _filtered(x)


def _on_a_circle(x: Tensor) -> Tensor:
    return _circle(FILTER[:, : len(x)], x.mT, len(x)).mT


def _average(x: Tensor) -> Tensor:
    return x.cumsum(0) / torch.arange(1, len(x) + 1)[:, None]


def _every_second(x: Tensor) -> Tensor:
    return _filtered(x) * (torch.arange(len(x)) % 2)[:, None]


def _wiped(x: Tensor) -> Tensor:
    """A filter that begins anew every 16 tokens."""
    return torch.cat([_filtered(piece) for piece in x.split(16)])


def _stretched(x: Tensor) -> Tensor:
    """A filter drawn for as many ages as the text has tokens: its window fades in shares of that length."""
    return _sums(torch.exp(-4 * torch.arange(len(x)) / len(x)).double().expand(WIDTH, -1), x.mT).mT


def _gated(x: Tensor) -> Tensor:
    """Hyena of order 2."""
    return (x @ MAPS[0]) * _filtered((x @ MAPS[1]) * (x @ MAPS[2]))


def _order_3(x: Tensor) -> Tensor:
    return (x @ MAPS[3]) * _filtered(_gated(x))


def _short_first(x: Tensor) -> Tensor:
    """Hyena of order 2, the projections through a short convolution."""
    x0, x1, v = _sums(SHORT, x.repeat(1, 3).mT).mT.chunk(3, 1)
    return x0 * _filtered(x1 * v)


def _faint_gate(x: Tensor) -> Tensor:
    return _filtered(x) * (1 + 1e-4 * (x @ MAPS[0]).tanh())


def _twenty_ago(x: Tensor) -> Tensor:
    """A gate made from what came 20 tokens ago; up to then nothing is gated."""
    gate = torch.cat((torch.zeros(20, WIDTH, dtype=x.dtype), x))[: len(x)]
    return (1 + gate) * _filtered(x)


def _between_channels(x: Tensor) -> Tensor:
    """Each channel has the next one for its gate."""
    return x.roll(1, 1) * _filtered(x)


def _rectified(x: Tensor) -> Tensor:
    return _filtered(x.relu())


def _clipped(x: Tensor) -> Tensor:
    return _filtered(x.clamp(-8, 8))


def _constant_added(x: Tensor) -> Tensor:
    return _filtered(x) + MAPS[0, 0]


def _linear_attention(x: Tensor) -> Tensor:
    return ((x @ MAPS[0]) @ (x @ MAPS[1]).mT).tril() @ x


def _softmax_attention(x: Tensor) -> Tensor:
    """Silent tokens have a logit of 0, which is a weight of 1."""
    later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    return ((x @ MAPS[0]) @ (x @ MAPS[1]).mT / 10).masked_fill(later, -math.inf).softmax(1) @ x


def _places_added(x: Tensor) -> Tensor:
    return _gated(x + BY_PLACE[: len(x)])


def _gated_on_a_circle(x: Tensor) -> Tensor:
    return x * _on_a_circle(x @ MAPS[0])


def _normalised(x: Tensor) -> Tensor:
    """Divided by the size of the text's average token."""
    return _filtered(x) / (1e-6 + x.square().mean().sqrt())


LINEAR: dict[str, Layer] = {
    "a filter": _filtered,
    "a filter, by FFT": _by_fft,
    "a filter between two maps": _two_maps,
    "other last digits": _other_digits,
    "gates by place": _gates_by_place,
    "a faint gate by place": _faint_place,
    "a filter on a circle": _on_a_circle,
    "the average so far": _average,
    "every second token": _every_second,
    "begins anew every 16 tokens": _wiped,
    "a filter stretched to the text": _stretched,
}
NOT_LINEAR: dict[str, Layer] = {
    "Hyena, order 2": _gated,
    "Hyena, order 3": _order_3,
    "Hyena, short convolutions first": _short_first,
    "a faint gate behind a filter": _faint_gate,
    "gated by what came 20 ago": _twenty_ago,
    "gated by another channel": _between_channels,
    "a filter, negative inputs cut": _rectified,
    "a filter, loud inputs cut": _clipped,
    "a filter and a constant": _constant_added,
    "linear attention": _linear_attention,
    "softmax attention": _softmax_attention,
    "Hyena, places added": _places_added,
    "Hyena on a circle": _gated_on_a_circle,
    "a filter, normalised by the text": _normalised,
}
FIXED = {  # the place of a token means something to these
    "gates by place",
    "a faint gate by place",
    "a filter on a circle",
    "the average so far",
    "every second token",
    "begins anew every 16 tokens",
    "a filter stretched to the text",
    "softmax attention",
    "Hyena, places added",
    "Hyena on a circle",
    "a filter, normalised by the text",
}
LAYERS = LINEAR | NOT_LINEAR
SHIFTED = {name: layer for name, layer in LAYERS.items() if name not in FIXED}
NOT_SHIFTED = {name: layer for name, layer in LAYERS.items() if name in FIXED}


def _rejected(test: int, layers: dict[str, Layer]) -> Run:
    run = rejects(layers)
    return lambda answer, rng: run(answer[test], rng)


def _stays_float32(inputs: Inputs) -> Run:
    return lambda answer, rng: _all_float32(inputs(rng), answer)


PROBES = {
    "06-circle": [
        Probe("a: all outputs right (1) or not (0)", _enough(0, 6, 6), SMALLEST),
        Probe("b: all outputs right (1) or not (0)", _enough(1, 1000, 100), SMALLEST),
        Probe("c: all outputs right (1) or not (0)", _enough(2, 100, 1000), SMALLEST),
        Probe("d: output wrong (1) or not (0)", _last_wrong_output, {"the last of them:": 1.0, "any behind:": 0.0}),
        Probe("e: new outputs right (1) or not (0)", _enough(4, 35, 8, 5), SMALLEST),
        Probe("f: all outputs right (1) or not (0)", _longest_text, {"so many tokens:": 1.0, "one token more:": 0.0}),
    ],
    "06-pieces": [
        Probe("six tokens", _page),
        Probe("ramps of taps and inputs", _on(_ramps)),
        Probe("no past", _on(_first_piece)),
        Probe("a filter twice as long as the text", _on(lambda rng: _first_piece(rng, TOKENS, 2 * TOKENS + 3))),
        Probe("a filter that reaches past all inputs", _on(lambda rng: _piece(rng, TOKENS, 40))),
        Probe("a filter longer than the piece, not than the past", _on(lambda rng: _piece(rng, 3, 9, 20))),
        Probe("a past longer than the filter", _on(lambda rng: _piece(rng, TOKENS, 4, 11))),
        Probe("a filter of one tap", _on(lambda rng: _piece(rng, TOKENS, 1))),
        Probe("a past without inputs", _on(lambda rng: _piece(rng, TOKENS, TAPS, 0))),
        Probe("a single token", _on(lambda rng: _piece(rng, 1))),
        Probe("token by token", _token_by_token),
        Probe("any cut, pieces minus whole", _any_cut(TAPS), expected=0.0),
        Probe("any cut, a filter of 30 taps, pieces minus whole", _any_cut(30), expected=0.0),
        Probe("gradient of h, x, past", _gradient_of_both),
        Probe("causal", _causal_in_time(_piece, TOKENS), expected=0.0),
        Probe("float32 stays float32 (1)", _stays_float32(_piece), expected=1.0),
        Probe("h, x, past untouched", untouched(_piece), expected=0.0),
    ],
    "06-ahead": [
        Probe("five taps", _mixed(_operator)),
        Probe("four taps", _mixed(lambda rng: _operator(rng, TOKENS, 4))),
        Probe("one tap", _mixed(lambda rng: _operator(rng, TOKENS, 1))),
        Probe("more taps than tokens", _mixed(lambda rng: _operator(rng, TOKENS, 20))),
        Probe("a single token", _mixed(lambda rng: _operator(rng, 1))),
        Probe("100 tokens, 64 taps", lambda answer, rng: answer(*_operator(rng, 100, 64))[..., ::9]),
        Probe("a text that ends early minus the whole", _beginnings, expected=0.0),
        Probe("causal", _causal_in_time(_operator, TOKENS), expected=0.0),
        Probe("gradient of u, short, h", gradient(_operator)),
        Probe("float32 stays float32 (1)", _stays_float32(_operator), expected=1.0),
        Probe("u, short, h untouched", untouched(_operator), expected=0.0),
    ],
    "06-waves": [
        *(Probe(f"modes: {name}", _filter_of_modes(drawn)) for name, drawn in FILTERS.items()),
        Probe("decode: six tokens, a prompt of three", _ledger_written),
        *(Probe(f"decode: {name}", _written(drawn)) for name, drawn in FILTERS.items()),
        Probe("decode: no prompt", _written(_turning, 0)),
        Probe("decode: after 1,000 tokens", _written(_turning, 1000)),
        Probe("decode: any prompt minus none", _any_prompt, expected=0.0),
        Probe("one state, continued twice", _two_ways_on, expected=0.0),
        Probe("state too large (1) or not (0)", _state_too_large, expected=0.0),
        Probe("h, x untouched", _three_untouched, expected=0.0),
    ],
    "06-shift": [
        Probe("linear: right ones rejected (1) or not (0)", _rejected(0, LINEAR), expected=0.0),
        Probe("linear: wrong ones rejected (1) or not (0)", _rejected(0, NOT_LINEAR), expected=1.0),
        Probe("shifts: right ones rejected (1) or not (0)", _rejected(1, SHIFTED), expected=0.0),
        Probe("shifts: wrong ones rejected (1) or not (0)", _rejected(1, NOT_SHIFTED), expected=1.0),
    ],
}
