"""The checks of exercise 08: what turns answers about the delta rule into numbers.

The texts at the end, some of which let the delta rule and a sum differ, are what task 08-angles hands to a learner's test.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from hybridlab.course import ledger
from hybridlab.course.probe import Probe, Run, causal, gradient, named_untouched, normal, places, ramp, rejects

Inputs = Callable[[Generator], list[Tensor]]
Text = tuple[Tensor, Tensor]

# 08-rewrite: six numbers. Each probe puts one of them back to where it came from, so that a verdict tells no answer.


def _dee(ann: float, bob: float) -> float:
    return 0.6 * ann + 0.8 * bob


def _dee_after_her_second_time(answer: Any, rng: Generator) -> float:
    """Her step goes along her key: what it did to Bob tells what it did to Ann."""
    step = (float(answer[0]) - 1.64) / 0.8
    return _dee(4 + 0.6 * step, float(answer[0]))


def _written_for_dee(answer: Any, rng: Generator) -> float:
    ann_before = 2 * float(answer[1]) - 4
    return (ann_before - 1) / 0.6


def _dee_with_a_long_key(answer: Any, rng: Generator) -> float:
    beta, found = float(answer[2]), 3 * 2 + 4 * 5
    return found + 25 * beta * (1 - found)


def _bob_after_dee(answer: Any, rng: Generator) -> float:
    return (float(answer[4]) - 0.6 * 4) / 0.8


def _dee_reflected(answer: Any, rng: Generator) -> float:
    return _dee(2, 5) + (float(answer[3]) - 2) / 0.6


# Both operators: outputs and last memory, whole and in pieces. The state is the last input, if there is one.

KEYS, VALUES, TOKENS, HEADS = 3, 2, 7, 4
LONG_TEXT = 150
WIPE = -1e6


def _both(answer: Any, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Outputs and state; a shape that is wrong is an error, which makes a verdict."""
    outputs, state = answer(*inputs)
    k, v = inputs[1:3]
    expected = (*v.shape[1:-1], k.shape[-1], v.shape[-1])
    for name, made, shape in (("outputs", outputs, tuple(v.shape)), ("state", state, expected)):
        if tuple(made.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(made.shape)}")
    return outputs, state


def _on(inputs: Inputs) -> Run:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        outputs, state = _both(answer, inputs(rng))
        return places("outputs", outputs) | places("memory", state)

    return run


def _gradients_of_both(inputs: Inputs) -> Run:
    def joined(answer: Any, given: list[Tensor]) -> Tensor:
        return torch.cat([x.flatten() for x in _both(answer, given)])

    return lambda answer, rng: gradient(inputs)(lambda *given: joined(answer, list(given)), rng)


def _stays_float32(inputs: Inputs) -> Run:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        outputs, state = answer(*[x.float() for x in inputs(rng)])
        return {name: float(x.dtype == torch.float32) for name, x in (("outputs", outputs), ("state", state))}

    return run


def _any_cut(inputs: Inputs) -> Run:
    """How far two pieces are from the whole, for each place of the cut."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        *tokens, state = inputs(rng)
        whole, end = answer(*tokens, state.clone())
        apart = {}
        for cut in range(1, TOKENS):
            one, between = answer(*[x[:cut] for x in tokens], state.clone())
            two, last = answer(*[x[cut:] for x in tokens], between)
            apart[f"cut after {cut}"] = max(_apart(torch.cat((one, two)), whole), _apart(last, end))
        return apart

    return run


def _apart(mine: Tensor, whole: Tensor) -> float:
    return (mine - whole).abs().max().item() if mine.shape == whole.shape else math.nan


# 08-gate: late(q, k, v, log_decay, beta, state=None) -> (outputs, state) and as_early(v, log_decay, beta) -> (v, beta),
# checked as a pair; q and k (T, K), v (T, V), log_decay and beta (T,), state (K, V).


def _late(run: Run) -> Run:
    return lambda answer, rng: run(answer[0], rng)


def _gated(rng: Generator, tokens: int = TOKENS) -> list[Tensor]:
    k = torch.nn.functional.normalize(normal(rng, tokens, KEYS), dim=-1)
    log_decay, beta = -0.5 * normal(rng, tokens).exp(), torch.rand(tokens, generator=rng, dtype=torch.float64)
    return [normal(rng, tokens, KEYS), k, normal(rng, tokens, VALUES), log_decay, beta]


def _gated_from(rng: Generator, tokens: int = TOKENS) -> list[Tensor]:
    return [*_gated(rng, tokens), normal(rng, KEYS, VALUES)]


def _gated_ledger(rng: Generator) -> list[Tensor]:
    halves = torch.full((6,), 0.5, dtype=torch.float64).log()
    return [ledger.query.expand(6, 3), ledger.keys, ledger.values[:, None], halves, torch.ones_like(halves)]


def _long_keys(rng: Generator) -> list[Tensor]:
    q, k, v, log_decay, beta, state = _gated_from(rng)
    return [q, 1.5 * k, v, log_decay, 2 * beta, state]


def _no_fading(rng: Generator) -> list[Tensor]:
    q, k, v, log_decay, beta, state = _gated_from(rng)
    return [q, k, v, 0 * log_decay, beta, state]


def _ramp_of_clocks(rng: Generator) -> list[Tensor]:
    q, k, v, _, beta, state = _gated_from(rng)
    return [q, k, v, ramp(TOKENS, -900, 0), beta, state]


def _a_wipe_in_float32(rng: Generator) -> list[Tensor]:
    q, k, v, log_decay, beta, state = _gated_from(rng)
    log_decay[2] = WIPE
    return [x.float() for x in (q, k, v, log_decay, beta, state)]


def _long_text(answer: Any, rng: Generator) -> Tensor:
    """Outputs here and there: chunks of any usual size begin and end between them."""
    q, k, v, log_decay, beta, state = _gated_from(rng, LONG_TEXT)
    outputs, state = answer(q, k, v, 0.02 * log_decay, beta, state)
    return torch.cat((outputs[:: LONG_TEXT // 10].flatten(), state.flatten()))


def _early(inputs: Inputs) -> Run:
    """What the chapter's rule makes of an answer's values and betas."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        _, k, v, log_decay, beta, S = inputs(rng)
        values, betas = answer[1](v.clone(), log_decay.clone(), beta.clone())
        if values.shape != v.shape or betas.shape != beta.shape:
            raise ValueError(f"expected values like v and betas like beta, got {tuple(values.shape)}, {tuple(betas.shape)}")
        states = []
        for k_t, v_t, decay, beta_t in zip(k, values, torch.exp(log_decay), betas, strict=True):
            S = decay * S
            S = S + beta_t * torch.outer(k_t, v_t - k_t @ S)
            states.append(S)
        return places("memories", torch.stack(states))

    return run


def _steep(rng: Generator) -> list[Tensor]:
    q, k, v, _, beta, state = _gated_from(rng)
    return [q, k, v, ramp(TOKENS, -5, 0), beta, state]


def _early_untouched(answer: Any, rng: Generator) -> dict[str, float]:
    return named_untouched("v log_decay beta", lambda rng: _gated(rng)[2:])(answer[1], rng)


# 08-new: delta(q, k, v, beta, state=None) -> (outputs, state); q and k (T, H, K), v (T, H, V), beta (T, H), state (H, K, V).


def _heads(rng: Generator, tokens: int = TOKENS) -> list[Tensor]:
    k = torch.nn.functional.normalize(normal(rng, tokens, HEADS, KEYS), dim=-1)
    beta = 2 * torch.rand(tokens, HEADS, generator=rng, dtype=torch.float64)
    return [normal(rng, tokens, HEADS, KEYS), k, normal(rng, tokens, HEADS, VALUES), beta]


def _heads_from(rng: Generator, tokens: int = TOKENS) -> list[Tensor]:
    return [*_heads(rng, tokens), normal(rng, HEADS, KEYS, VALUES)]


def _heads_with_long_keys(rng: Generator) -> list[Tensor]:
    q, k, v, beta, state = _heads_from(rng)
    return [q, k * normal(rng, TOKENS, HEADS, 1).exp(), v, beta, state]


def _ledger_heads(rng: Generator) -> list[Tensor]:
    """Two heads: one asks for Ann, one for Bob."""
    asks = torch.eye(2, 3, dtype=torch.float64).expand(6, 2, 3)
    keys, values = ledger.keys[:, None].expand(6, 2, 3), ledger.values[:, None, None].expand(6, 2, 1)
    return [asks, keys, values, torch.ones(6, 2, dtype=torch.float64)]


# 08-parity: mirrors(bits) -> (q, k, v, beta, state) and tuned(a) -> (h, d), checked as a pair.


def _bits(rng: Generator, tokens: int) -> Tensor:
    return torch.randint(2, (tokens,), generator=rng)


def _read(made: Any) -> Tensor:
    """The outputs of a head of the delta rule."""
    q, k, v, beta, S = made
    outputs = []
    for q_t, k_t, v_t, beta_t in zip(q, k, v, beta, strict=True):
        S = S + beta_t * torch.outer(k_t, v_t - k_t @ S)
        outputs.append(q_t @ S)
    return torch.cat(outputs)


def _mirrored(text: Callable[[Generator], Tensor]) -> Run:
    return lambda answer, rng: _read(answer[0](text(rng)))


def _far_away(answer: Any, rng: Generator) -> dict[str, float]:
    bits = _bits(rng, 500)
    outputs = _read(answer[0](bits.clone()))
    apart = (outputs - (bits.cumsum(0) % 2)).abs()
    return {f"bits {t + 1} to {t + 50}": apart[t : t + 50].max().item() for t in range(0, len(bits), 50)}


def _from_its_bit_alone(answer: Any, rng: Generator) -> dict[str, float]:
    """How far what a token holds is from what it holds as a text of its own."""
    bits = _bits(rng, 9)
    *whole, first = answer[0](bits.clone())
    apart = {}
    for t in range(len(bits)):
        *alone, state = answer[0](bits[t : t + 1].clone())
        for name, x, y in zip(("q", "k", "v", "beta"), whole, alone, strict=True):
            apart[f"{name} of bit {t + 1}"] = _apart(x[t], y[0])
        apart[f"the first state, bit {t + 1} alone"] = _apart(first, state)
    return apart


def _lengths(answer: Any, rng: Generator) -> Tensor:
    return answer[0](_bits(rng, 9))[1].norm(dim=1)


def _betas_out_of_range(answer: Any, rng: Generator) -> Tensor:
    beta = answer[0](_bits(rng, 9))[3]
    return beta - beta.clamp(0, 2)


def _counted(decays: Callable[[Generator], list[Tensor]]) -> Run:
    """What a tuned memory says after 0, 1, ..., N ones: 1 for odd."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        said = {}
        for a in decays(rng):
            h, d = answer[1](a.clone())
            if tuple(h.shape) != tuple(a.shape):
                raise ValueError(f"h: expected shape {tuple(a.shape)}, got {tuple(h.shape)}")
            for n in range(len(a) + 1):
                said[f"N = {len(a)} after {n} ones, odd (1) or even (0):"] = float((h.sum() + d).item() > 0)
                h = a * h
        return said

    return run


def _spread(rng: Generator) -> list[Tensor]:
    """Two to six decays, at least 0.05 apart, in any order."""
    return [
        ((torch.arange(N) + 0.6 * torch.rand(N, generator=rng, dtype=torch.float64)) / N)[torch.randperm(N, generator=rng)]
        for N in range(2, 7)
    ]


def _tuned_untouched(answer: Any, rng: Generator) -> dict[str, float]:
    return named_untouched("a", lambda rng: _spread(rng)[-1:])(answer[1], rng)


# 08-angles: test(k, beta), where k (T, K) and beta (T,) are those of a text.


def _one(tokens: int) -> Tensor:
    return torch.ones(tokens, dtype=torch.float64)


def _axes(*order: int, width: int = 4) -> Tensor:
    return torch.eye(width, dtype=torch.float64)[list(order)]


def _frame(width: int, seed: int = 0) -> Tensor:
    """`width` keys of length 1 at right angles, along no axis."""
    return torch.linalg.qr(normal(torch.Generator().manual_seed(seed), width, width)).Q


def _rates(tokens: int) -> Tensor:
    return 0.2 + 1.8 * torch.rand(tokens, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _column(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _leaning(tokens: int, late: int, early: int, much: float) -> Tensor:
    """Right angles, but for one pair."""
    k = _frame(tokens)
    k[late] = (1 - much * much) ** 0.5 * k[late] + much * k[early]
    return k


def _rounded(k: Tensor) -> Tensor:
    return k + 1e-13 * normal(torch.Generator().manual_seed(2), *k.shape)


RIGHT_TEXTS: dict[str, Text] = {
    "axes": (_axes(0, 1, 2, 3), _one(4)),
    "a turned frame": (_frame(5), _rates(5)),
    "keys of any length": (_column(0.1, 3, 20, 1, 0.5)[:, None] * _frame(5), _rates(5)),
    "a single token": (_column(0.6, 0.8)[None], _one(1)),
    "a key asks again, and writes nothing": (_axes(0, 1, 0, 2), _column(1, 1, 0, 1)),
    "a key comes before it writes": (_axes(0, 1, 0, 2), _column(0, 1, 1, 1)),
    "keys of length 0": (_axes(0, 1, 2, 3) * _column(1, 0, 0, 1)[:, None], _one(4)),
    "nothing is written": (_frame(6)[:, :3], 0 * _one(6)),
    "more tokens than numbers, the others silent": (_axes(0, 0, 1, 1, 1, 2, 3, 3), _column(1, 0, 0, 0, 2, 0.5, 0, 1)),
    "other last digits": (_rounded(_frame(12)), _rates(12)),
    "mirrors": (_frame(4, 3), 2 * _one(4)),
}
WRONG_TEXTS: dict[str, Text] = {
    "the ledger": (ledger.keys, _one(6)),
    "a name twice": (_axes(0, 1, 2, 1), _one(4)),
    "the opposite name": (_axes(0, 1, 2, 0) * _column(1, 1, 1, -1)[:, None], _one(4)),
    "first and last": (_leaning(9, 8, 0, 0.6), _one(9)),
    "two in the middle of a long text": (_leaning(40, 30, 5, 0.6), _rates(40)),
    "the first two": (_leaning(6, 1, 0, 0.6), _one(6)),
    "a small lean": (_leaning(6, 4, 2, 1e-3), _one(6)),
    "leans that cancel": (torch.stack((*_axes(0, 1), (_axes(0) - _axes(1))[0] / 2**0.5)), _one(3)),
    "a name twice, the second time softly": (_axes(0, 1, 0), _column(1, 1, 0.01)),
    "a name twice, the first time softly": (_axes(0, 1, 0), _column(0.01, 1, 1)),
    "a name twice, and silent between": (_axes(0, 0, 0), _column(1, 0, 1)),
    "short keys": (0.1 * normal(torch.Generator().manual_seed(4), 3, 4), _one(3)),
}


def _texts(texts: dict[str, Text]) -> Run:
    run = rejects(texts)
    return lambda answer, rng: run(lambda text: answer(*(x.clone() for x in text)), rng)


PROBES = {
    "08-rewrite": [
        Probe("a: what Dee answers, if her second step did this to Bob", _dee_after_her_second_time, 1.0, 1e-3),
        Probe("b: what Dee must have written along her key, if Ann ends at this", _written_for_dee, -0.8, 1e-3),
        Probe("c: what the memory answers for the long key, with this beta", _dee_with_a_long_key, 1.0, 1e-2),
        Probe("d: what Dee answers, if her step did this to Ann", _dee_reflected, -3.2, 1e-3),
        Probe("e: Bob's answer, if Ann's is 4 and Dee's this", _bob_after_dee, 5.0, 1e-3),
        Probe("f: Dee's answer, if Ann's is 4 and Bob's this", lambda answer, rng: _dee(4, float(answer[5])), 1.0, 1e-3),
    ],
    "08-gate": [
        Probe("late: six tokens, halves", _late(_on(_gated_ledger))),
        Probe("late: random", _late(_on(_gated))),
        Probe("late: with a state", _late(_on(_gated_from))),
        Probe("late: keys longer than 1, betas up to 2", _late(_on(_long_keys))),
        Probe("late: nothing fades", _late(_on(_no_fading)), because="all log decays are 0"),
        Probe("late: a ramp of clocks", _late(_on(_ramp_of_clocks)), because="log decays from -900 to 0"),
        Probe("late: a wipe, float32", _late(_on(_a_wipe_in_float32)), tolerance=1e-4, because="one log decay is -1e6"),
        Probe("late: a single token", _late(_on(lambda rng: _gated_from(rng, 1)))),
        Probe(f"late: {LONG_TEXT} tokens", _late(_long_text)),
        Probe("late: any cut, pieces minus whole", _late(_any_cut(_gated_from)), expected=0.0),
        Probe("late: causal", _late(causal(_gated, TOKENS)), expected=0.0),
        Probe("late: gradient", _late(_gradients_of_both(_gated_from))),
        Probe("late: float32 stays float32 (1)", _late(_stays_float32(_gated_from)), expected=1.0),
        Probe("late: inputs untouched", _late(named_untouched("q k v log_decay beta state", _gated_from)), expected=0.0),
        Probe("as_early: the memories of the chapter's rule", _early(_gated_from)),
        Probe("as_early: log decays from -5 to 0", _early(_steep)),
        Probe("as_early: inputs untouched", _early_untouched, expected=0.0),
    ],
    "08-new": [
        Probe("six tokens", _on(_ledger_heads)),
        Probe("random", _on(_heads)),
        Probe("with a state", _on(_heads_from)),
        Probe("long keys", _on(_heads_with_long_keys)),
        Probe("a single token", _on(lambda rng: _heads_from(rng, 1))),
        Probe("any cut, pieces minus whole", _any_cut(_heads_from), expected=0.0),
        Probe("causal", causal(_heads, TOKENS), expected=0.0),
        Probe("gradient", _gradients_of_both(_heads)),
        Probe("gradient, with a state", _gradients_of_both(_heads_from)),
        Probe("float32 stays float32 (1)", _stays_float32(_heads_from), expected=1.0),
        Probe("inputs untouched", named_untouched("q k v beta state", _heads_from), expected=0.0),
    ],
    "08-parity": [
        Probe("mirrors: all ones", _mirrored(lambda rng: torch.ones(7, dtype=torch.int64))),
        Probe("mirrors: all zeros", _mirrored(lambda rng: torch.zeros(7, dtype=torch.int64))),
        Probe("mirrors: 12 bits", _mirrored(lambda rng: _bits(rng, 12))),
        Probe("mirrors: 500 bits, outputs minus parity", _far_away, expected=0.0),
        Probe("mirrors: a token minus the same token alone", _from_its_bit_alone, expected=0.0),
        Probe("mirrors: lengths of the keys", _lengths, expected=1.0),
        Probe("mirrors: betas out of range, by how much", _betas_out_of_range, expected=0.0),
        Probe("tuned: one decay", _counted(lambda rng: [torch.tensor([0.5]).double()])),
        Probe("tuned: two to six decays", _counted(_spread)),
        Probe("tuned: a decay of 0", _counted(lambda rng: [torch.tensor([0.3, 0.0, 0.8]).double()])),
        Probe("tuned: inputs untouched", _tuned_untouched, expected=0.0),
    ],
    "08-angles": [
        Probe("right ones rejected (1) or not (0)", _texts(RIGHT_TEXTS), expected=0.0),
        Probe("wrong ones rejected (1) or not (0)", _texts(WRONG_TEXTS), expected=1.0),
    ],
}
