"""The checks of exercise 04: what turns answers about selective scans into numbers.

The holds below that are wrong on purpose are what task 04-impostors asks a learner's test to reject.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot, softplus

from hybridlab.course import ledger
from hybridlab.course.operations import operations
from hybridlab.course.probe import Probe, Run, causal, gradient, normal, rejects, untouched
from hybridlab.ops import selective_scan

Steps = list[float]


def _kind(made: Any) -> str:
    """What a learner's code has returned, for a complaint."""
    if made is None:
        return "None"
    return f"a tensor of {made.dtype}" if isinstance(made, Tensor) else f"a {type(made).__name__}"


# 04-clock: six numbers. Each probe goes back from one of them to where it came from, so that a verdict tells no answer.

HALF, QUARTER = math.log(2), math.log(4)


def _before(answer: Any, steps: Steps, rate: float = -1.0) -> float:
    """The level before the ledger's first token, if `answer` is the level after the last of these steps."""
    level = float(answer)
    for dt, value in reversed(list(zip(steps, ledger.values.tolist(), strict=False))):
        level = (level - math.expm1(dt * rate) / rate * value) / math.exp(dt * rate)
    return level


# 04-weights: weights(dt, A, C), dt (T,), A and C (N,) complex -> (T, T).

BASINS, TOKENS = 3, 7
# Written down at once it takes about fifteen operations; a loop takes three or more for each token.
MANY_TOKENS, OPERATIONS = 120, 100


def _filter_parts(rng: Generator) -> list[Tensor]:
    """dt, one of them 0, and the real and imaginary parts of A and of C."""
    dt = softplus(normal(rng, TOKENS))
    dt[4:5] = 0
    leak = -normal(rng, BASINS).exp()
    return [dt, leak, 3 * normal(rng, BASINS), normal(rng, BASINS), normal(rng, BASINS)]


def _far_apart(rng: Generator) -> list[Tensor]:
    """Tokens of 30 each, in basins of which one is slow enough to remember some of them: 3600 in all, and e^3600 is inf."""
    _, *parts = _filter_parts(rng)
    parts[0] = torch.tensor([-2.0, -0.3, -0.001], dtype=torch.float64)
    return [torch.full((MANY_TOKENS,), 30.0, dtype=torch.float64), *parts]


def _hardly_leaking(rng: Generator) -> list[Tensor]:
    dt, leak, _, *C = _filter_parts(rng)
    return [dt, torch.full_like(leak, -1e-12), torch.zeros_like(leak), *C]


def _complex_inputs(rng: Generator) -> list[Tensor]:
    dt, *others = _filter_parts(rng)
    return [dt, torch.complex(*others[:2]), torch.complex(*others[2:])]


def _weights(answer: Any, parts: list[Tensor]) -> Tensor:
    dt, *others = parts
    made = answer(dt, torch.complex(*others[:2]), torch.complex(*others[2:]))
    if not isinstance(made, Tensor) or made.is_complex():
        raise TypeError(f"expected a tensor of real numbers, got {_kind(made)}")
    return made


def _weights_of(inputs: Callable[[Generator], list[Tensor]]) -> Run:
    return lambda answer, rng: _weights(answer, inputs(rng))


def _of_parts(probe: Callable[[Callable[[Generator], list[Tensor]]], Run], inputs: Any = _filter_parts) -> Run:
    """A common probe, whose inputs must be real, of a function that takes complex ones."""
    return lambda answer, rng: probe(inputs)(lambda *parts: _weights(answer, list(parts)), rng)


def _six_weights(answer: Any, rng: Generator) -> Tensor:
    dt = torch.full_like(ledger.values, HALF)
    dt[3] = 0
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return _weights(answer, [dt, -one, zero, one, zero])


def _one_clock(rng: Generator) -> list[Tensor]:
    dt, *others = _filter_parts(rng)
    return [torch.full_like(dt, 0.1), *others]


def _each_row_is_moved(answer: Any, rng: Generator) -> float:
    made = _weights(answer, _one_clock(rng))
    return (made[1:, 1:] - made[:-1, :-1]).abs().max().item()


def _no_time(answer: Any, rng: Generator) -> dict[str, float]:
    """Token 5 takes no time: nothing of it is seen, and nothing changes at it."""
    made = _weights(answer, _filter_parts(rng))
    return {"its column": made[:, 4].abs().max().item(), "its row": (made[4] - made[3]).abs().max().item()}


def _last_rows(answer: Any, rng: Generator) -> Tensor:
    return _weights(answer, _far_apart(rng))[-2:, -5:]


def _gradient_far_apart(answer: Any, rng: Generator) -> Tensor:
    """The gradients of the last weights, by the last steps and by the basins."""

    def last(*parts: Tensor) -> Tensor:
        return _weights(answer, list(parts))[-2:]

    made = gradient(_far_apart)(last, rng)
    return torch.cat((made[:3], made[MANY_TOKENS - 3 :]))


def _weights_stay_float32(answer: Any, rng: Generator) -> float:
    return float(_weights(answer, [x.float() for x in _filter_parts(rng)]).dtype == torch.float32)


def _operations_beyond(answer: Any, rng: Generator) -> int:
    parts = _far_apart(rng)
    return max(0, operations(lambda: _weights(answer, parts)) - OPERATIONS)


# 04-padding: read(x, raw, A, B, C, real, state), (B, T, E) and so on.

ROWS, CHANNELS = 3, 2
PATTERNS = {
    "at the end": ["xxxxxxx", "xxxx...", "x......"],
    "in front": ["xxxxxxx", "...xxxx", "......x"],
    "in the middle": ["xxxxxxx", "xx...xx", "x.x.x.x"],
}


def _real(pattern: list[str]) -> Tensor:
    return torch.tensor([[mark == "x" for mark in row] for row in pattern])


def _read_inputs(rng: Generator) -> list[Tensor]:
    """x, raw, A, B, C and a state."""
    x, raw = normal(rng, ROWS, TOKENS, CHANNELS), normal(rng, ROWS, TOKENS, CHANNELS)
    A = -normal(rng, CHANNELS, BASINS).exp()
    B, C = normal(rng, ROWS, TOKENS, BASINS), normal(rng, ROWS, TOKENS, BASINS)
    return [x, raw, A, B, C, normal(rng, ROWS, CHANNELS, BASINS)]


def _littered(rng: Generator, real: Tensor) -> list[Tensor]:
    """The inputs with padding full of loud numbers; `raw` is 900 at some of it and -900 at the rest."""
    inputs = _read_inputs(rng)
    for x, loud in zip((inputs[0], inputs[1], inputs[3], inputs[4]), (1e6, 900.0, 1e3, 1e3), strict=True):
        x[~real] = loud * x[~real].sign()
    return inputs


def _read(answer: Any, inputs: list[Tensor], real: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs, 0 at padding, and the state. Without a sixth input it begins with none."""
    made = answer(*inputs[:5], real, *inputs[5:])
    if not isinstance(made, tuple) or len(made) != 2:
        raise TypeError(f"expected a tuple of outputs and state, got {_kind(made)}")
    outputs, state = made
    return torch.where(real[:, :, None], outputs, 0.0), state


def _flat(outputs: Tensor, state: Tensor) -> Tensor:
    return torch.cat((outputs.flatten(), state.flatten()))


def _outputs_and_state(name: str) -> Run:
    real = _real(PATTERNS[name])
    return lambda answer, rng: _flat(*_read(answer, _littered(rng, real), real))


def _without_padding(answer: Any, rng: Generator) -> Tensor:
    *given, _ = _read_inputs(rng)
    return _flat(*_read(answer, given, torch.ones(ROWS, TOKENS, dtype=torch.bool)))


def _as_alone(answer: Any, rng: Generator) -> dict[str, float]:
    """How far each padded row's state is from that of the row without its padding."""
    apart = {}
    for name, pattern in PATTERNS.items():
        real = _real(pattern)
        x, raw, A, B, C, state = _littered(rng, real)
        _, together = _read(answer, [x, raw, A, B, C, state], real)
        for row in range(1, ROWS):
            kept = real[row]
            alone = [z[row : row + 1, kept] for z in (x, raw)] + [A] + [z[row : row + 1, kept] for z in (B, C)]
            _, single = _read(answer, [*alone, state[row : row + 1]], kept[kept][None])
            apart[f"row {row + 1}, padding {name}"] = (together[row] - single[0]).abs().max().item()
    return apart


def _padding_all_over(answer: Any, rng: Generator) -> float:
    real = _real(["xxxxxxx", ".......", "xxxxxxx"])
    inputs = _littered(rng, real)
    return (_read(answer, inputs, real)[1][1] - inputs[-1][1]).abs().max().item()


def _going_on(answer: Any, rng: Generator) -> dict[str, float]:
    """Rows padded at the end, read in two pieces: how far the outputs are from those in one piece."""
    real = _real(["xxx..xx", "x....xx", "...xxxx"])
    *given, A, B, C, state = _littered(rng, real)
    whole, _ = _read(answer, [*given, A, B, C, state], real)
    apart = {}
    for cut in range(1, TOKENS):
        first, rest = ([z[:, part] for z in (*given, B, C)] for part in (slice(cut), slice(cut, None)))
        _, carried = _read(answer, [*first[:2], A, *first[2:], state], real[:, :cut])
        outputs, _ = _read(answer, [*rest[:2], A, *rest[2:], carried], real[:, cut:])
        apart[f"cut after {cut}"] = (outputs - whole[:, cut:]).abs().max().item()
    return apart


MIXED = _real(["xxxxxxx", "xxxx...", ".xx.x.x"])


def _read_flat(answer: Any) -> Callable[..., Tensor]:
    return lambda *inputs: _flat(*_read(answer, list(inputs), MIXED))


def _into_padding(answer: Any, rng: Generator) -> dict[str, float]:
    """The largest gradient that reaches x, raw and B at padding."""
    inputs = [x.requires_grad_() for x in _littered(rng, MIXED)]
    x, raw, _, B, *_ = inputs
    grads = torch.autograd.grad(_read_flat(answer)(*inputs).square().sum(), (x, raw, B), allow_unused=True)
    named = zip(("x", "raw", "B"), grads, strict=True)
    return {name: 0.0 if grad is None else grad[~MIXED].abs().max().item() for name, grad in named}


def _read_causal(answer: Any, rng: Generator) -> Any:
    return causal(_read_inputs, TOKENS, dim=1)(lambda *inputs: _read(answer, list(inputs), MIXED), rng)


def _read_stays_float32(answer: Any, rng: Generator) -> dict[str, float]:
    outputs, state = _read(answer, [x.float() for x in _read_inputs(rng)], MIXED)
    return {"outputs": float(outputs.dtype == torch.float32), "state": float(state.dtype == torch.float32)}


def _read_untouched(answer: Any, rng: Generator) -> dict[str, float]:
    return untouched(lambda rng: [*_read_inputs(rng)[:5], MIXED.double(), _read_inputs(rng)[5]])(
        lambda *inputs: answer(*inputs[:5], MIXED, inputs[6]), rng
    )


# 04-impostors: test(hold), where hold(x, dt, A) -> levels (T, N).


def _loop(step: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """All levels from one step: (h, x_t, dt_t, A) -> h."""

    def hold(x: Tensor, dt: Tensor, A: Tensor) -> Tensor:
        h, levels = torch.zeros_like(A), []
        for x_t, dt_t in zip(x, dt, strict=True):
            h = step(h, x_t, dt_t, A)
            levels.append(h)
        return torch.stack(levels)

    return hold


right_loop = _loop(lambda h, x, dt, A: torch.exp(dt * A) * h + torch.expm1(dt * A) / A * x)


def right_pairs(x: Tensor, dt: Tensor, A: Tensor) -> Tensor:
    """Every token's share in every level at once."""
    time = dt.cumsum(0)
    kept = torch.exp((time[:, None] - time).tril()[:, :, None] * A)
    return ((kept * torch.expm1(dt[:, None] * A) / A).permute(2, 0, 1).tril() @ x).T


def right_towards(x: Tensor, dt: Tensor, A: Tensor) -> Tensor:
    """Each level moves towards the one at which it would settle."""
    return _loop(lambda h, x, dt, A: torch.lerp(-x / A, h, torch.exp(dt * A)))(x, dt, A)


def one_time_for_all(x: Tensor, dt: Tensor, A: Tensor) -> Tensor:
    """The mean of the times, for every token."""
    return right_loop(x, dt.mean().expand_as(dt), A)


def the_time_before(x: Tensor, dt: Tensor, A: Tensor) -> Tensor:
    """What a token writes is right; what it keeps, it keeps for the time of the token before."""
    keep = torch.exp(torch.cat((dt[:1], dt[:-1]))[:, None] * A)
    h, levels = torch.zeros_like(A), []
    for kept, written in zip(keep, torch.expm1(dt[:, None] * A) / A * x[:, None], strict=True):
        h = kept * h + written
        levels.append(h)
    return torch.stack(levels)


RIGHT_HOLDS = {"a loop": right_loop, "all pairs": right_pairs, "towards a level": right_towards}
WRONG_HOLDS = {
    "Euler's input": _loop(lambda h, x, dt, A: torch.exp(dt * A) * h + dt * x),
    "Euler's leak too": _loop(lambda h, x, dt, A: h + dt * (A * h + x)),
    "trapezoid": _loop(lambda h, x, dt, A: ((1 + dt * A / 2) * h + dt * x) / (1 - dt * A / 2)),
    "as if A were -1": _loop(lambda h, x, dt, A: torch.exp(dt * A) * h - torch.expm1(dt * A) * x),
    "one time for all": one_time_for_all,
    "the time of the token before": the_time_before,
}


# 04-copy: design(A) -> idle, busy, C; A (N,), C (N, N).

LETTERS, MANY_PLACES = 8, 2000


def _rates(rng: Generator, basins: int) -> Tensor:
    """-1, -2, ..., -N in any order, times a number between 0.3 and 1."""
    scale = 0.3 + 0.7 * torch.rand(1, generator=rng, dtype=torch.float64)
    return -scale * (1 + torch.randperm(basins, generator=rng))


def _designed(answer: Any, A: Tensor) -> tuple[float, float, Tensor]:
    made = answer(A)
    if not isinstance(made, tuple) or len(made) != 3:
        raise TypeError(f"expected a tuple of idle, busy and C, got {_kind(made)}")
    idle, busy, C = made
    if not isinstance(C, Tensor) or tuple(C.shape) != (len(A), len(A)):
        raise ValueError(f"C: expected a tensor of shape {(len(A), len(A))}, got {getattr(C, 'shape', _kind(C))}")
    return float(idle), float(busy), C


def _page(rng: Generator, letters: list[int], places: int) -> Tensor:
    """One page: a letter's number at its place, -1 at a dot."""
    where = torch.rand(places, generator=rng).topk(len(letters)).indices.sort().values
    return torch.full((places,), -1).scatter(0, where, torch.tensor(letters))


def _answers(design: tuple[float, float, Tensor], A: Tensor, page: Tensor) -> Tensor:
    """What comes out at the question marks: (N, LETTERS)."""
    idle, busy, C = design
    ids = torch.cat((page, torch.full((len(A),), -1)))
    x = torch.where((ids >= 0)[:, None], one_hot(ids.clamp(min=0), LETTERS), 0).to(A.dtype)
    dt = torch.where(ids >= 0, busy, idle).to(A.dtype)[:, None].expand(len(ids), LETTERS)
    reads = torch.cat((A.new_zeros(len(page), len(A)), C.to(A.dtype)))
    scanned, _ = selective_scan(
        x[None], dt[None], A.expand(LETTERS, len(A)), torch.ones_like(reads)[None], reads[None], form="recurrent"
    )
    return scanned[0, len(page) :]


def _off(answer: Any, rng: Generator, letters: list[int], places: int) -> float:
    """How far the answers are from the letters."""
    A = _rates(rng, len(letters))
    found = _answers(_designed(answer, A), A, _page(rng, letters, places))
    return (found - one_hot(torch.tensor(letters), LETTERS)).abs().max().item()


def _pages(pages: dict[str, tuple[list[int], int]]) -> Run:
    return lambda answer, rng: {name: _off(answer, rng, *page) for name, page in pages.items()}


def _in_float32(answer: Any, rng: Generator) -> dict[str, float]:
    """The share of letters whose channel is the largest."""
    shares = {}
    for scale in (0.3, 0.6, 1.0):
        A = -scale * torch.arange(1, 5, dtype=torch.float64)
        letters = torch.randint(LETTERS, (4,), generator=rng)
        found = _answers(_designed(answer, A), A.float(), _page(rng, letters.tolist(), 100))
        shares[f"rates times {scale}"] = (found.argmax(-1) == letters).double().mean().item()
    return shares


PROBES = {
    "04-clock": [
        Probe(
            "a: undoing your steps, the level before token 1",
            lambda answer, rng: _before(answer[0], [QUARTER] * 3),
            0.0,
            4e-3,
        ),
        Probe(
            "b: undoing your steps, the level before token 1",
            lambda answer, rng: _before(answer[1], [HALF, HALF, 0, HALF, HALF, 0]),
            0.0,
            4e-3,
        ),
        Probe(
            "c: undoing your steps, the level before token 1",
            lambda answer, rng: _before(answer[2], [HALF / 2] * 6, -2.0),
            0.0,
            4e-3,
        ),
        Probe("d: taking your dt, the level after the 4", lambda answer, rng: 4 - math.exp(-float(answer[3])), 3.8, 1e-4),
        Probe(
            "e: undoing your step, the level before the 2",
            lambda answer, rng: 4 * (float(answer[4]) - 2 * QUARTER),
            2.0,
            1e-3,
        ),
        Probe(
            "f: going by your number, what the first basin keeps", lambda answer, rng: float(answer[5]) ** 0.25, 0.8, 1e-4
        ),
    ],
    "04-weights": [
        Probe("six tokens, Dee skipped", _six_weights),
        Probe("all dt equal", _weights_of(_one_clock)),
        Probe("all dt equal: each row is the one above, moved", _each_row_is_moved, expected=0.0),
        Probe("any dt", _weights_of(_filter_parts)),
        Probe("a token of no time", _no_time, expected=0.0, because="its column is empty, and its row is the one above"),
        Probe("a single token", lambda answer, rng: _weights(answer, [x[:1] for x in _filter_parts(rng)])),
        Probe("basins that hardly leak", _weights_of(_hardly_leaking), because="e^z - 1 loses its digits near z = 0"),
        Probe("3600 in all", _last_rows, because="e^3600 overflows float64, and e^-3600 is 0"),
        Probe("no row knows a later token", _of_parts(lambda inputs: causal(inputs, TOKENS)), expected=0.0),
        Probe("gradient", _of_parts(gradient)),
        Probe("gradient, 3600 in all", _gradient_far_apart, because="an overflow that is masked later still spoils it"),
        Probe("float32 stays float32 (1)", _weights_stay_float32, expected=1.0),
        Probe("inputs untouched", untouched(_complex_inputs), expected=0.0),
        Probe(
            f"operations beyond {OPERATIONS} at {MANY_TOKENS} tokens",
            _operations_beyond,
            expected=0.0,
            because="a loop over the tokens needs hundreds",
        ),
    ],
    "04-padding": [
        Probe("without padding", _without_padding),
        Probe("padding at the end", _outputs_and_state("at the end")),
        Probe("padding in front", _outputs_and_state("in front")),
        Probe("padding in the middle", _outputs_and_state("in the middle")),
        Probe("states as if each row were read alone", _as_alone, expected=0.0),
        Probe("padding all over a row: its state stays", _padding_all_over, expected=0.0),
        Probe("going on from any cut", _going_on, expected=0.0),
        Probe("gradient", lambda answer, rng: gradient(_read_inputs)(_read_flat(answer), rng)),
        Probe("gradient at padding", _into_padding, expected=0.0),
        Probe("causal", _read_causal, expected=0.0),
        Probe("float32 stays float32 (1)", _read_stays_float32, expected=1.0),
        Probe("inputs untouched", _read_untouched, expected=0.0),
    ],
    "04-impostors": [
        Probe("right ones rejected (1) or not (0)", rejects(RIGHT_HOLDS), expected=0.0),
        Probe("impostors rejected (1) or not (0)", rejects(WRONG_HOLDS), expected=1.0),
    ],
    "04-copy": [
        Probe("four letters", _pages({"no dots": ([0, 3, 5, 2], 4), "30 places": ([7, 1, 4, 6], 30)}), expected=0.0),
        Probe("letters that come twice", _pages({"two": ([3, 5, 3, 5], 12), "one": ([6, 6, 6, 6], 12)}), expected=0.0),
        Probe(
            "one, two and three letters",
            _pages({"one": ([4], 5), "two": ([2, 0], 8), "three": ([1, 7, 1], 20)}),
            expected=0.0,
        ),
        Probe(f"{MANY_PLACES} places", _pages({"four letters": ([5, 0, 2, 7], MANY_PLACES)}), expected=0.0),
        Probe("in float32, share of letters right", _in_float32, expected=1.0),
        Probe("inputs untouched", untouched(lambda rng: [_rates(rng, 4)]), expected=0.0),
    ],
}
