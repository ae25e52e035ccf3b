"""The checks of exercise 05: what turns answers about state space duality into numbers.

The mixing matrices below that no memory can have are what task 05-memory asks a learner's test to reject.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from hybridlab.course import ledger
from hybridlab.course.probe import Probe, causal, gradient, normal, ramp, rejects, untouched

HALF = math.log(0.5)
Inputs = Callable[[Generator], list[Tensor]]


# 05-entry: six numbers. Each probe puts one of them back to where it came from, so that a verdict tells no answer.


def _halvings(number: Any) -> float:
    return -math.log2(float(number))


# 05-fading: fading(q, k, v, log_decay=None, state=None) -> (outputs, state); q and k (T, G, K), v (T, H, V),
# log_decay (T, H), (H,) or None, state (H, V, K).

GROUPS, HEADS, KEYS, VALUES, TOKENS = 2, 4, 3, 2, 7
WIPE = -1e6
LONG_TEXT = 150


def _mixed(rng: Generator, tokens: int = TOKENS, groups: int = GROUPS) -> list[Tensor]:
    """q, k and v."""
    return [normal(rng, tokens, heads, size) for heads, size in ((groups, KEYS), (groups, KEYS), (HEADS, VALUES))]


def _by_token(rng: Generator, tokens: int = TOKENS) -> list[Tensor]:
    return [*_mixed(rng, tokens), -normal(rng, tokens, HEADS).exp()]


def _by_head(rng: Generator, tokens: int = TOKENS) -> list[Tensor]:
    return [*_mixed(rng, tokens), -normal(rng, HEADS).exp()]


def _state(rng: Generator) -> Tensor:
    return normal(rng, HEADS, VALUES, KEYS)


def _token_inputs(rng: Generator) -> list[Tensor]:
    return [*_by_token(rng), _state(rng)]


def _head_inputs(rng: Generator) -> list[Tensor]:
    return [*_by_head(rng), _state(rng)]


def _both(answer: Any, inputs: list[Tensor]) -> Tensor:
    """Outputs and state in one tensor; a shape that is wrong is an error, which makes a verdict."""
    outputs, state = answer(*inputs)
    q, _, v = inputs[:3]
    for name, made, shape in (
        ("outputs", outputs, v.shape),
        ("state", state, (v.shape[1], v.shape[2], q.shape[2])),
    ):
        if tuple(made.shape) != tuple(shape):
            raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(made.shape)}")
    return torch.cat((outputs.flatten(), state.flatten()))


def _on(inputs: Inputs) -> Callable[[Any, Generator], Tensor]:
    return lambda answer, rng: _both(answer, inputs(rng))


def _six_tokens(log_decay: float | None) -> Callable[[Any, Generator], Tensor]:
    def run(answer: Any, rng: Generator) -> Tensor:
        q, k, v = ledger.query.expand(6, 1, 3), ledger.keys[:, None], ledger.values[:, None, None]
        return answer(q, k, v, None if log_decay is None else torch.full_like(q[0, :, 0], log_decay))[0]

    return run


def _none_with_a_state(answer: Any, rng: Generator) -> Tensor:
    outputs, state = answer(*_mixed(rng), None, _state(rng))
    return torch.cat((outputs.flatten(), state.flatten()))


def _same_at_every_token(answer: Any, rng: Generator) -> float:
    *rest, log_decay, state = _head_inputs(rng)
    by_head = _both(answer, [*rest, log_decay, state])
    by_token = _both(answer, [*rest, log_decay.expand(TOKENS, HEADS).clone(), state])
    return (by_head - by_token).abs().max().item()


def _ramp_of_clocks(answer: Any, rng: Generator) -> Tensor:
    q, k, v, _, state = _token_inputs(rng)
    rising = ramp(TOKENS, -900, 0)
    return _both(answer, [q, k, v, torch.stack((rising, rising.flip(0), rising, rising.flip(0)), 1), state])


def _a_wipe_in_float32(answer: Any, rng: Generator) -> Tensor:
    q, k, v, log_decay, state = _token_inputs(rng)
    log_decay[2] = WIPE
    return _both(answer, [x.float() for x in (q, k, v, log_decay, state)])


def _long_text(answer: Any, rng: Generator) -> Tensor:
    """Outputs here and there: chunks of any usual size begin and end between them."""
    inputs = [*_by_token(rng, LONG_TEXT), _state(rng)]
    inputs[3] = 0.02 * inputs[3]
    outputs, state = answer(*inputs)
    return torch.cat((outputs[:: LONG_TEXT // 10].flatten(), state.flatten()))


def _any_cut(inputs: Inputs) -> Callable[[Any, Generator], dict[str, float]]:
    """How far two pieces are from the whole, for each place of the cut."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        q, k, v, log_decay, state = inputs(rng)
        whole, end = answer(q, k, v, log_decay, state)
        apart = {}
        for cut in range(1, TOKENS):
            first, later = (log_decay, log_decay) if log_decay.ndim == 1 else (log_decay[:cut], log_decay[cut:])
            one, between = answer(q[:cut], k[:cut], v[:cut], first, state)
            two, last = answer(q[cut:], k[cut:], v[cut:], later, between)
            apart[f"cut after {cut}"] = max(_apart(torch.cat((one, two)), whole), _apart(last, end))
        return apart

    return run


def _apart(mine: Tensor, whole: Tensor) -> float:
    return (mine - whole).abs().max().item() if mine.shape == whole.shape else math.nan


def _gradients_of_both(inputs: Inputs) -> Callable[[Any, Generator], Tensor]:
    return lambda answer, rng: gradient(inputs)(lambda *given: _both(answer, list(given)), rng)


def _stays_float32(answer: Any, rng: Generator) -> dict[str, float]:
    outputs, state = answer(*[x.float() for x in _token_inputs(rng)])
    return {name: float(x.dtype == torch.float32) for name, x in (("outputs", outputs), ("state", state))}


# 05-late: blocks(u, log_decay, B, C), u (..., Q, P), log_decay (..., Q), B and C (..., Q, N) -> (..., Q, P).

LONG = 64


def _chunk(rng: Generator, tokens: int = TOKENS, batch: tuple[int, ...] = ()) -> list[Tensor]:
    """u, log_decay, B and C of chunks, the decays mild."""
    clocks = -0.3 * normal(rng, *batch, tokens).exp()
    return [normal(rng, *batch, tokens, 2), clocks, normal(rng, *batch, tokens, 3), normal(rng, *batch, tokens, 3)]


def _steep(rng: Generator) -> list[Tensor]:
    """Forty steps of -20, then mild ones, whose gradients are not lost among the small numbers.

    Steps are 64ths: running sums are exact in float32, so that right answers agree however they add.
    """
    given = [x.float() for x in _chunk(rng, LONG)]
    given[1] = (64 * given[1]).round() / 64
    given[1][:40] = -20
    return given


def _standing_clock(rng: Generator) -> list[Tensor]:
    """Steps of 0 among others, as padding makes them."""
    given = _chunk(rng)
    given[1][2:4] = given[1][-1] = 0
    return given


def _ramp_of_steps(rng: Generator) -> list[Tensor]:
    u, _, B, C = _chunk(rng)
    return [u, ramp(TOKENS, -900, 0), B, C]


def _ledger_chunk(answer: Any, rng: Generator) -> Tensor:
    return answer(ledger.values[:, None], torch.full_like(ledger.values, HALF), ledger.keys, ledger.query.expand(6, 3))


# 05-cheapest: cost(T, N, P, chunk, matrix=1) and optimum(N, P, matrix=1), checked as a pair.

SIZES = [(64, 16, 16, 8), (1024, 128, 64, 64), (4096, 3, 5, 1), (6, 3, 1, 6)]
UNEVEN = [(37, 5, 3, 8), (100, 4, 2, 64), (7, 2, 2, 6), (1, 3, 4, 1)]
STATES = [(16, 16), (128, 64), (1, 1), (2, 1), (1, 64), (7, 200)]


def _costs(
    sizes: list[tuple[int, int, int, int]], matrix: float | None = None
) -> Callable[[Any, Generator], dict[str, float]]:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        given = () if matrix is None else (matrix,)
        return {"T, N, P, chunk = {}, {}, {}, {}:".format(*size): answer[0](*size, *given) for size in sizes}

    return run


def _optima(matrix: float | None = None) -> Callable[[Any, Generator], dict[str, float]]:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        given = () if matrix is None else (matrix,)
        return {f"N, P = {N}, {P}:": answer[1](N, P, *given) for N, P in STATES}

    return run


# 05-memory: test(mixing), where mixing(T, N) -> (T, T).

WHISPER = 1e-4


def _drawn(T: int, N: int) -> tuple[Generator, Tensor, Tensor]:
    """What a layer with N state numbers writes and reads along, drawn anew for each size: B and C (T, N)."""
    rng = torch.Generator().manual_seed(1000 * N + T)
    return rng, normal(rng, T, N), normal(rng, T, N)


def _carried(steps: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The mixing matrix of S <- steps[t] S + B_t, read along C_t; steps (T, N, N)."""
    S, matrix = B.new_zeros(B.shape[1], len(B)), B.new_zeros(len(B), len(B))
    for t, step in enumerate(steps):
        S = step @ S  # a column for each token: what is left of it
        S[:, t] = B[t]
        matrix[t] = C[t] @ S
    return matrix


def _kept(rng: Generator, *shape: int) -> Tensor:
    """Decays between 0 and 1, most of them nearer to 1."""
    return torch.exp(-0.5 * torch.rand(*shape, generator=rng, dtype=torch.float64))


def one_clock(T: int, N: int) -> Tensor:
    """SSD: one decay for the whole state, another at each token."""
    rng, B, C = _drawn(T, N)
    return _carried(torch.diag_embed(_kept(rng, T, 1).expand(T, N)), B, C)


def a_clock_for_each_number(T: int, N: int) -> Tensor:
    """Mamba: no single mask."""
    rng, B, C = _drawn(T, N)
    return _carried(torch.diag_embed(_kept(rng, T, N)), B, C)


def a_wipe(T: int, N: int) -> Tensor:
    """SSD that forgets everything at every third token."""
    rng, B, C = _drawn(T, N)
    kept = _kept(rng, T, 1)
    kept[2::3] = 0
    return _carried(torch.diag_embed(kept.expand(T, N)), B, C)


def no_clock(T: int, N: int) -> Tensor:
    """Linear attention."""
    _, B, C = _drawn(T, N)
    return (C @ B.T).tril()


def numbers_that_mix(T: int, N: int) -> Tensor:
    """A whole matrix a token takes the place of the decay."""
    rng, B, C = _drawn(T, N)
    return _carried(torch.linalg.qr(normal(rng, T, N, N)).Q, B, C)


def past_the_memory(T: int, N: int) -> Tensor:
    """SSD with D: every token reaches its own output on a way of its own."""
    rng, _, _ = _drawn(T, N)
    return one_clock(T, N) + torch.diag(normal(rng, T))


def other_digits(T: int, N: int) -> Tensor:
    """SSD whose sums were rounded on the way."""
    rng, _, _ = _drawn(T, N)
    return one_clock(T, N) * (1 + 1e-12 * normal(rng, T, T))


def _ages(T: int) -> Tensor:
    return (torch.arange(T)[:, None] - torch.arange(T)).double()


def softmax_attention(T: int, N: int) -> Tensor:
    _, B, C = _drawn(T, N)
    return torch.softmax((C @ B.T).masked_fill(_ages(T) < 0, -math.inf), 1)


def fades_by_age(T: int, N: int) -> Tensor:
    """A mask of 1 / (1 + age): no product of steps is that."""
    return no_clock(T, N) / (1 + _ages(T).clamp(min=0))


def window(T: int, N: int) -> Tensor:
    """What is older than half the text is gone, at once."""
    return no_clock(T, N) * (_ages(T) < max(1, T // 2))


def a_pace_for_each_token(T: int, N: int) -> Tensor:
    """What was written fades at a rate that was written with it, not at the step's."""
    rng, _, _ = _drawn(T, N)
    return no_clock(T, N) * _kept(rng, T) ** (3 * _ages(T).clamp(min=0))


def sees_the_future(T: int, N: int) -> Tensor:
    _, B, C = _drawn(T, N)
    return C @ B.T * 0.8 ** _ages(T).abs()


def one_number_more(T: int, N: int) -> Tensor:
    """Three digits do not show it."""
    rng, B, C = _drawn(T, N + 1)
    B[:, N] *= WHISPER
    return _carried(torch.diag_embed(_kept(rng, T, 1).expand(T, N + 1)), B, C)


def squared_scores(T: int, N: int) -> Tensor:
    """A memory of N (N + 1) / 2 numbers: with N = 1 the promise is kept."""
    return no_clock(T, N).square()


def right_at_the_seam_alone(T: int, N: int) -> Tensor:
    """Two halves: between them a state, inside each what no state can do."""
    late = torch.arange(T) >= T // 2
    return torch.where(late[:, None] == late, fades_by_age(T, N), no_clock(T, N))


RIGHT_MATRICES = {
    "one clock": one_clock,
    "a clock for each state number": a_clock_for_each_number,
    "a wipe now and then": a_wipe,
    "no clock": no_clock,
    "state numbers that mix": numbers_that_mix,
    "a way past the memory": past_the_memory,
    "other last digits": other_digits,
}
WRONG_MATRICES = {
    "softmax": softmax_attention,
    "fades by age": fades_by_age,
    "a window": window,
    "a pace for each token": a_pace_for_each_token,
    "sees the future": sees_the_future,
    "one state number more": one_number_more,
    "squared scores": squared_scores,
    "right at the seam alone": right_at_the_seam_alone,
}


PROBES = {
    "05-entry": [
        Probe("a: halvings on the way", lambda answer, rng: _halvings(answer[0]), 3.0, 1e-3),
        Probe("b: halvings on the way", lambda answer, rng: _halvings(float(answer[1]) / 1.1), 0.0, 1e-3),
        Probe("c: Dee's number as it is read back", lambda answer, rng: float(answer[2]) / (1.1 * 0.5 / 8), 1.0, 1e-3),
        Probe("d: steps on the way", lambda answer, rng: math.log(float(answer[3]) / 0.5) / math.log(0.9), 4.0, 1e-3),
        Probe("e: 512 times the entry, with this step", lambda answer, rng: 512 * 0.5 ** (6 + float(answer[4])), 1.0, 1e-3),
        Probe(
            "f: halvings on the whole way of Ann's 2, with this passing",
            lambda answer, rng: 5 + _halvings(answer[5]),
            7.5,
            1e-3,
        ),
    ],
    "05-fading": [
        Probe("six tokens, a half", _six_tokens(HALF)),
        Probe("six tokens, no decay", _six_tokens(None)),
        Probe("a decay for each head", _on(_by_head)),
        Probe("a decay for each token", _on(_by_token)),
        Probe("no decay", _on(_mixed)),
        Probe("one group for all heads", _on(lambda rng: _mixed(rng, groups=1))),
        Probe("with a state, a decay for each head", _on(_head_inputs)),
        Probe("with a state, a decay for each token", _on(_token_inputs)),
        Probe("with a state, no decay", _none_with_a_state),
        Probe("a constant (H,) minus the same at every token (T, H)", _same_at_every_token, expected=0.0),
        Probe("as many tokens as heads", _on(lambda rng: _by_head(rng, HEADS)), because="(H,) may look like (T,)"),
        Probe("a single token", _on(lambda rng: [*_by_token(rng, 1), _state(rng)])),
        Probe(f"{LONG_TEXT} tokens", _long_text),
        Probe("a ramp of clocks", _ramp_of_clocks, because="log decays from -900 to 0"),
        Probe("a wipe, float32", _a_wipe_in_float32, tolerance=1e-4, because="the others' small steps are still there"),
        Probe("any cut, a decay for each token, pieces minus whole", _any_cut(_token_inputs), expected=0.0),
        Probe("any cut, a decay for each head, pieces minus whole", _any_cut(_head_inputs), expected=0.0),
        Probe("causal", causal(_by_token, TOKENS), expected=0.0),
        Probe("gradient, a decay for each token", _gradients_of_both(_token_inputs)),
        Probe("gradient, a decay for each head", _gradients_of_both(_head_inputs)),
        Probe("float32 stays float32 (1)", _stays_float32, expected=1.0),
        Probe("inputs untouched", untouched(_token_inputs), expected=0.0),
    ],
    "05-late": [
        Probe("six tokens", _ledger_chunk),
        Probe("random", lambda answer, rng: answer(*_chunk(rng))),
        Probe("many chunks at once", lambda answer, rng: answer(*_chunk(rng, 5, (2, 3)))),
        Probe("a single token", lambda answer, rng: answer(*_chunk(rng, 1))),
        Probe("steep decays, float32", lambda answer, rng: answer(*_steep(rng)), tolerance=1e-4),
        Probe("a ramp of decays", lambda answer, rng: answer(*_ramp_of_steps(rng))),
        Probe("gradient", gradient(_chunk)),
        Probe("gradient, many chunks", gradient(lambda rng: _chunk(rng, 5, (2, 3)))),
        Probe("gradient, steep decays, float32", gradient(_steep), tolerance=1e-3),
        Probe("gradient, a ramp of decays", gradient(_ramp_of_steps)),
        Probe("gradient, a clock that stands still", gradient(_standing_clock), because="some log decays are 0"),
        Probe("causal", causal(_chunk, TOKENS), expected=0.0),
        Probe(
            "float32 stays float32 (1)",
            lambda answer, rng: float(answer(*[x.float() for x in _chunk(rng)]).dtype == torch.float32),
            expected=1.0,
        ),
        Probe("inputs untouched", untouched(_chunk), expected=0.0),
    ],
    "05-cheapest": [
        Probe("cost", _costs(SIZES)),
        Probe("cost, the last chunk not full", _costs(UNEVEN)),
        Probe("cost, matrix products at a sixteenth", _costs(SIZES + UNEVEN, 1 / 16)),
        Probe("optimum", _optima(), tolerance=1e-4),
        Probe("optimum, matrix products at a sixteenth", _optima(1 / 16), tolerance=1e-4),
        Probe("optimum, matrix products for nothing", _optima(0.0), tolerance=1e-4),
    ],
    "05-memory": [
        Probe("right ones rejected (1) or not (0)", rejects(RIGHT_MATRICES), expected=0.0),
        Probe("wrong ones rejected (1) or not (0)", rejects(WRONG_MATRICES), expected=1.0),
    ],
}
