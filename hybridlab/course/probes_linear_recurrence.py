"""The checks of exercise 02: what turns answers about linear recurrences into numbers.

The joins below that are wrong on purpose are what task 02-join asks a learner's test to reject.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from hybridlab.course import ledger
from hybridlab.course.operations import operations
from hybridlab.course.probe import Probe, causal, gradient, normal, rejects, untouched

CHANNELS, TOKENS = 3, 7
# A scan of 1,000 tokens takes ten rounds of about fifteen operations; a loop takes two or more for each token.
MANY_TOKENS, OPERATIONS = 1000, 500
STRONG_TOKENS = 120


# 02-halflives: six numbers. Each probe puts one of them back to where it came from, so that a verdict tells no answer.


def _left(steps: float, half_life: float) -> float:
    return math.exp(math.log(0.5) * float(steps) / half_life)


def _left_by_turns(steps: float, odd: float, even: float) -> float:
    return math.sqrt(_left(steps, odd) * _left(steps, even))


def _left_by(decay: float, steps: int) -> float:
    """A decay below 0 keeps its sign: an even number of steps would hide it."""
    return math.copysign(abs(decay) ** steps, decay)


def _steps_until(left: float, half_life: float) -> float:
    return -half_life * math.log2(max(left, 1e-300))


# 02-reverse: reverse_scan(a, b, state=None), a and b (T, C), state (C,); and what both scans share.


def _operations_beyond(answer: Any, inputs: list[Tensor]) -> int:
    return max(0, operations(lambda: answer(*inputs)) - OPERATIONS)


def _steps(rng: Generator, tokens: int = TOKENS) -> list[Tensor]:
    """a and b with decays below 0, above 1 and, from five tokens on, one that is 0; and a state."""
    a, b, state = normal(rng, tokens, CHANNELS), normal(rng, tokens, CHANNELS), normal(rng, CHANNELS)
    a[4:5] = 0
    return [a, b, state]


def _strong_decay(rng: Generator) -> list[Tensor]:
    _, b, state = _steps(rng, STRONG_TOKENS)
    return [torch.full_like(b, 1e-3), b, state]


def _ends(x: Tensor) -> Tensor:
    return torch.cat((x[:3], x[-3:]))


def _six_tokens_from_the_end(answer: Any, rng: Generator) -> Tensor:
    values = ledger.values[:, None]
    return answer(torch.full_like(values, 0.5), values)


def _any_cut(answer: Any, rng: Generator) -> dict[str, float]:
    a, b, state = _steps(rng)
    whole = answer(a, b, state)
    apart = {}
    for cut in range(1, TOKENS):
        end = answer(a[cut:], b[cut:], state)
        pieces = torch.cat((answer(a[:cut], b[:cut], end[0]), end))
        apart[f"cut after {cut}"] = (pieces - whole).abs().max().item()
    return apart


def _blind_to_the_past(answer: Any, rng: Generator) -> Any:
    def mirrored(a: Tensor, b: Tensor) -> Tensor:
        return answer(a.flip(0), b.flip(0)).flip(0)

    return causal(lambda rng: _steps(rng)[:2], TOKENS)(mirrored, rng)


def _stays_float32(outputs: Callable[[Any, list[Tensor]], list[Tensor]], inputs: Callable[[Generator], list[Tensor]]) -> Any:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        made = outputs(answer, [x.float() for x in inputs(rng)])
        return {f"output {i}": float(output.dtype == torch.float32) for i, output in enumerate(made)}

    return run


# 02-root: room(log_a), any shape. Values and slopes are brought to a size near 1, so that their digits are compared.

LOGARITHMS = (-200.0, -5.0, -1.0, -0.1, -1e-3, -1e-5, -1e-6, -1e-9, -1e-20)


def _ratios(x: Tensor, made: Tensor) -> dict[str, float]:
    """Each room by about its size: a ratio, named after its logarithm."""
    if made.shape != x.shape:
        raise ValueError(f"expected shape {tuple(x.shape)}, got {tuple(made.shape)}")
    sizes = (-2 * x.double()).clamp(max=1).sqrt()
    flat = zip(x.flatten().tolist(), made.flatten().tolist(), sizes.flatten().tolist(), strict=True)
    return {f"log_a = {log_a:.4g}, room / {size:.4g}": room / size for log_a, room, size in flat}


def _values(dtype: torch.dtype) -> Callable[[Any, Generator], dict[str, float]]:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        x = torch.tensor(LOGARITHMS, dtype=dtype)
        return _ratios(x, answer(x))

    return run


def _random_clocks(answer: Any, rng: Generator) -> dict[str, float]:
    x = -torch.exp(4 * normal(rng, 4, 5) - 4).float()
    return _ratios(x, answer(x))


def _slopes_of(answer: Any, x: Tensor) -> dict[float, float]:
    """log_a -> slope."""
    x = x.requires_grad_()
    return dict(zip(x.tolist(), torch.autograd.grad(answer(x).sum(), x)[0].tolist(), strict=True))


def _slopes(answer: Any, rng: Generator) -> dict[str, float]:
    found = _slopes_of(answer, torch.tensor(LOGARITHMS[1:7]))
    sizes = {log_a: (-2 * log_a) ** 0.5 for log_a in found}
    return {f"log_a = {log_a:.4g}, slope * {sizes[log_a]:.4g}": slope * sizes[log_a] for log_a, slope in found.items()}


def _shut_gate(answer: Any, rng: Generator) -> dict[str, float]:
    found = _slopes_of(answer, torch.tensor([0.0, -0.5, -0.25]))
    finite = {"log_a = 0, slope finite (1) or not (0)": float(math.isfinite(found.pop(0.0)))}
    return finite | {f"log_a = {log_a}, slope": slope for log_a, slope in found.items()}


# 02-join: test(step, join, read).


class _Joining(NamedTuple):
    """One way of carrying steps: make one of a token's a and b, join two, read the state at the end of one."""

    step: Callable[[Tensor, Tensor], Any]
    join: Callable[[Any, Any], Any]
    read: Callable[[Any], Tensor]


def _second(step: tuple[Tensor, Tensor]) -> Tensor:
    return step[1]


def _pairs(join: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> _Joining:
    """Steps that are pairs (kept, added): join(a, b, c, d) of an older step (a, b) and a newer one (c, d)."""
    return _Joining(lambda a, b: (a, b), lambda old, new: join(*old, *new), _second)


def _matrix(a: Tensor, b: Tensor) -> Tensor:
    """The step as a map of (h, 1), (..., 2, 2)."""
    top, bottom = torch.stack((a, b), -1), torch.stack((torch.zeros_like(a), torch.ones_like(b)), -1)
    return torch.stack((top, bottom), -2)


def _write_into_the_older(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    old[1].mul_(new[0]).add_(new[1])
    old[0].mul_(new[0])
    return old


RIGHT_JOINS = {
    "pairs": _pairs(lambda a, b, c, d: (c * a, c * b + d)),
    "matrices": _Joining(_matrix, lambda old, new: new @ old, lambda step: step[..., 0, 1]),
    "other last digits": _pairs(lambda a, b, c, d: (c * a, (c * b + d) * (1 + 1e-13))),
    "functions": _Joining(lambda a, b: lambda h: a * h + b, lambda old, new: lambda h: new(old(h)), lambda step: step(0.0)),
}
WRONG_JOINS = {
    "takes the newer first": _pairs(lambda a, b, c, d: (a * c, a * d + b)),
    "adds without fading": _pairs(lambda a, b, c, d: (c * a, b + d)),
    "remembers the newer decay alone": _pairs(lambda a, b, c, d: (c, c * b + d)),
    "divides": _Joining(
        lambda a, b: (a, b / a), lambda old, new: (new[0] * old[0], old[1] + new[1] / old[0]), lambda step: step[0] * step[1]
    ),
    "takes logarithms": _Joining(
        lambda a, b: (a.log(), b), lambda old, new: (new[0] + old[0], new[0].exp() * old[1] + new[1]), _second
    ),
    "writes into the older": _Joining(lambda a, b: (a.clone(), b.clone()), _write_into_the_older, _second),
}


def _rejects(joinings: dict[str, _Joining]) -> Callable[[Any, Generator], dict[str, float]]:
    return lambda answer, rng: rejects(joinings)(lambda joining: answer(*joining), rng)


# 02-backward: backward(a, h, state, grad), all (T, C), state (C,) -> the gradients of a, of b and of the state.


def _saved(steps: list[Tensor], grad: Tensor) -> list[Tensor]:
    """What a forward pass leaves for the backward pass, and what the loss asks of each state."""
    a, b, h = steps
    states = []
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
        states.append(h)
    return [a, torch.stack(states), steps[2], grad]


def _backward_inputs(rng: Generator, tokens: int = TOKENS) -> list[Tensor]:
    return _saved(_steps(rng, tokens), normal(rng, tokens, CHANNELS))


def _from_empty(rng: Generator) -> list[Tensor]:
    a, b, state = _steps(rng)
    return _saved([a, b, torch.zeros_like(state)], normal(rng, TOKENS, CHANNELS))


def _last_state_alone(rng: Generator) -> list[Tensor]:
    a, b, state = _steps(rng)
    grad = torch.zeros_like(b)
    grad[-1] = normal(rng, CHANNELS)
    return _saved([torch.where(a == 0, 0.5, a), b, state], grad)


def _ledger_inputs(rng: Generator) -> list[Tensor]:
    values = ledger.values[:, None]
    return _saved([torch.full_like(values, 0.5), values, torch.full_like(values[0], 8.0)], torch.ones_like(values))


def _gradients(answer: Any, inputs: list[Tensor]) -> list[Tensor]:
    """The answer's three gradients. Inference mode: autograd cannot give them."""
    with torch.inference_mode():
        grad_a, grad_b, grad_state = answer(*inputs)
    return [grad_a, grad_b, grad_state]


def _gradient_of(index: int, inputs: Callable[[Generator], list[Tensor]]) -> Callable[[Any, Generator], Tensor]:
    return lambda answer, rng: _gradients(answer, inputs(rng))[index]


def _all_gradients(inputs: Callable[[Generator], list[Tensor]]) -> Callable[[Any, Generator], Tensor]:
    return lambda answer, rng: torch.cat([gradient.flatten() for gradient in _gradients(answer, inputs(rng))])


def _strong_gradients(answer: Any, rng: Generator) -> Tensor:
    grad_a, grad_b, grad_state = _gradients(answer, _saved(_strong_decay(rng), normal(rng, STRONG_TOKENS, CHANNELS)))
    return torch.cat((_ends(grad_a), _ends(grad_b), grad_state[None]))


def _untouched_by_backward(answer: Any, rng: Generator) -> dict[str, float]:
    return untouched(_backward_inputs)(lambda *inputs: _gradients(answer, list(inputs)), rng)


LOOP = "a loop over the tokens needs thousands of operations, a scan about two hundred"
UNDERFLOW = f"{STRONG_TOKENS} steps of 1/1000 underflow float64"

PROBES = {
    "02-halflives": [
        Probe("A: what is left after so many steps", lambda answer, rng: 0.8 ** float(answer[0]), 0.5, 2e-4),
        Probe("B: what it leaves after 20 steps", lambda answer, rng: _left_by(float(answer[1]), 20), 0.5, 1e-3),
        Probe("C: steps until only so much is left", lambda answer, rng: _steps_until(float(answer[2]), 20), 60.0, 1e-3),
        Probe(
            "D: what is left after so many steps, in thousandths", lambda answer, rng: 1000 * _left(answer[3], 20), 1.0, 2e-3
        ),
        Probe("E: what is left after so many tokens", lambda answer, rng: _left_by_turns(answer[4], 3, 6), 0.5, 1e-3),
        Probe(
            "F: what is left after 40 steps with this gate", lambda answer, rng: _left(40 * float(answer[5]), 5), 0.5, 1e-3
        ),
    ],
    "02-reverse": [
        Probe("six tokens", _six_tokens_from_the_end),
        Probe("random", lambda answer, rng: answer(*_steps(rng)[:2])),
        Probe("with a state", lambda answer, rng: answer(*_steps(rng))),
        Probe("a single token", lambda answer, rng: answer(*_steps(rng, 1))),
        Probe("strong decay", lambda answer, rng: _ends(answer(*_strong_decay(rng))), because=UNDERFLOW),
        Probe(
            "any cut, pieces minus whole",
            _any_cut,
            expected=0.0,
            because="the later piece hands its first output to the earlier one",
        ),
        Probe("blind to the past", _blind_to_the_past, expected=0.0),
        Probe("gradient", gradient(_steps)),
        Probe("float32 stays float32 (1)", _stays_float32(lambda answer, inputs: [answer(*inputs)], _steps), expected=1.0),
        Probe("inputs untouched", untouched(_steps), expected=0.0),
        Probe(
            f"operations beyond {OPERATIONS} at {MANY_TOKENS} tokens",
            lambda answer, rng: _operations_beyond(answer, _steps(rng, MANY_TOKENS)),
            expected=0.0,
            because=LOOP,
        ),
    ],
    "02-root": [
        Probe("near 1 and far from it, float32", _values(torch.float32), tolerance=1e-5),
        Probe("near 1 and far from it, float64", _values(torch.float64), tolerance=1e-9),
        Probe("random clocks", _random_clocks, tolerance=1e-5),
        Probe("slopes", _slopes, tolerance=1e-4),
        Probe("the room at shut gates", lambda answer, rng: answer(torch.zeros(2)), expected=[0.0, 0.0]),
        Probe("slopes at shut gates and beside them", _shut_gate, tolerance=1e-5),
        Probe(
            "float32 stays float32 (1)",
            _stays_float32(lambda answer, inputs: [answer(*inputs)], lambda rng: [-normal(rng, 4).exp()]),
            expected=1.0,
        ),
        Probe("inputs untouched", untouched(lambda rng: [-normal(rng, 4).exp()]), expected=0.0),
    ],
    "02-join": [
        Probe("right ones rejected (1) or not (0)", _rejects(RIGHT_JOINS), expected=0.0),
        Probe("wrong ones rejected (1) or not (0)", _rejects(WRONG_JOINS), expected=1.0),
    ],
    "02-backward": [
        Probe("six tokens", _all_gradients(_ledger_inputs)),
        Probe("gradient of a", _gradient_of(0, _backward_inputs)),
        Probe("gradient of b", _gradient_of(1, _backward_inputs)),
        Probe("gradient of the state", _gradient_of(2, _backward_inputs)),
        Probe("an empty first state", _all_gradients(_from_empty)),
        Probe("the last state alone is asked for", _all_gradients(_last_state_alone)),
        Probe("a single token", _all_gradients(lambda rng: _backward_inputs(rng, 1))),
        Probe("strong decay", _strong_gradients, because=UNDERFLOW),
        Probe("float32 stays float32 (1)", _stays_float32(_gradients, _backward_inputs), expected=1.0),
        Probe("inputs untouched", _untouched_by_backward, expected=0.0),
        Probe(
            f"operations beyond {OPERATIONS} at {MANY_TOKENS} tokens",
            lambda answer, rng: _operations_beyond(answer, _backward_inputs(rng, MANY_TOKENS)),
            expected=0.0,
            because=LOOP,
        ),
    ],
}
