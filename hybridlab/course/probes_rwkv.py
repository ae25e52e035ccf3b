"""The checks of exercise 03: what turns answers about WKV into numbers.

The versions of WKV below that are wrong on purpose are what task 03-kill asks a learner's test to reject.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_leaves

from hybridlab.course import ledger
from hybridlab.course.probe import Probe, causal, gradient, normal, ramp, rejects, untouched

CHANNELS, TOKENS = 2, 7
KEYS, STEPS = 4, 9
HALF = math.log(0.5)


# 03-bonus: log decays to the bonus that makes decay-then-add the same as WKV.


def _decays(_: Generator) -> list[Tensor]:
    return [torch.tensor([-3.0, -0.5, -0.001], dtype=torch.float64)]


# 03-maximum: wkv(k, v, log_decay, bonus), k and v (T, C), log_decay and bonus (C,).


def _scalar_inputs(rng: Generator) -> list[Tensor]:
    k, v = normal(rng, TOKENS, CHANNELS), normal(rng, TOKENS, CHANNELS)
    return [k, v, -normal(rng, CHANNELS).exp(), normal(rng, CHANNELS)]


def _six_tokens(answer: Any, rng: Generator) -> Tensor:
    zero = torch.zeros(1, dtype=torch.float64)
    return answer(torch.zeros(6, 1, dtype=torch.float64), ledger.values[:, None], zero + HALF, zero)


def _ramp_of_keys(answer: Any, rng: Generator) -> Tensor:
    _, v, log_decay, bonus = _scalar_inputs(rng)
    rising = ramp(TOKENS)
    return answer(torch.stack((rising, rising.flip(0)), 1), v, log_decay, bonus)


def _lone_small_key(answer: Any, rng: Generator) -> Tensor:
    _, v, log_decay, bonus = _scalar_inputs(rng)
    return answer(torch.full((1, CHANNELS), -900.0, dtype=torch.float64), v[:1], log_decay, bonus) - v[:1]


def _loud_neighbours(answer: Any, rng: Generator) -> Tensor:
    """Keys one apart at the loud end and at the quiet end: whoever clamps them weighs them all the same."""
    _, v, log_decay, bonus = _scalar_inputs(rng)
    return answer(torch.stack((ramp(TOKENS, 894, 900), ramp(TOKENS, -900, -894)), 1), v, log_decay, bonus)


# 03-resume: mixer(x, mu, log_decay, bonus, state=None) -> (outputs, state); x (T, K), the rest (K,).


def _mixer_inputs(rng: Generator) -> list[Tensor]:
    return [normal(rng, STEPS, KEYS), torch.sigmoid(normal(rng, KEYS)), -normal(rng, KEYS).exp(), normal(rng, KEYS)]


def _in_pieces(answer: Any, inputs: list[Tensor], cuts: list[int]) -> Tensor:
    x, *weights = inputs
    outputs, state = [], None
    for start, end in zip([0, *cuts], [*cuts, STEPS], strict=True):
        output, state = answer(x[start:end], *weights, state)
        outputs.append(output)
    return torch.cat(outputs)


def _apart(mine: Tensor, whole: Tensor) -> float:
    return (mine - whole).abs().max().item() if mine.shape == whole.shape else math.nan


def _cut(ways: dict[str, list[int]]) -> Callable[[Any, Generator], dict[str, float]]:
    """How far the pieces are from the whole, for each way of cutting."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        inputs = _mixer_inputs(rng)
        whole = _in_pieces(answer, inputs, [])
        return {name: _apart(_in_pieces(answer, inputs, cuts), whole) for name, cuts in ways.items()}

    return run


def _ledger_keys(answer: Any, rng: Generator) -> Tensor:
    shares = torch.full((3,), 0.25, dtype=torch.float64)
    return answer(ledger.keys, shares, torch.zeros_like(shares) + HALF, torch.ones_like(shares))[0]


def _strong_decay(answer: Any, rng: Generator) -> Tensor:
    x, mu, log_decay, bonus = _mixer_inputs(rng)
    return _in_pieces(answer, [x, mu, torch.full_like(log_decay, -200.0), bonus], [4])


def _prefix_used_twice(answer: Any, rng: Generator) -> float:
    x, *weights = _mixer_inputs(rng)
    _, state = answer(x[:4], *weights, None)
    once, twice = (answer(x[4:], *weights, state)[0] for _ in range(2))
    return _apart(twice, once)


def _state_size(answer: Any, rng: Generator) -> dict[str, float]:
    x, *weights = _mixer_inputs(rng)
    states = {n: answer(x[:n], *weights, None)[1] for n in (1, 5, STEPS)}
    return {f"after {n} tokens": sum(leaf.numel() for leaf in tree_leaves(state)) for n, state in states.items()}


def _gradient_through_a_cut(answer: Any, rng: Generator) -> Tensor:
    inputs = [x.requires_grad_() for x in _mixer_inputs(rng)]
    outputs = _in_pieces(answer, inputs, [4])
    return torch.cat([g.flatten() for g in torch.autograd.grad(outputs[4:].square().sum(), inputs)])


# 03-kill: test(wkv6), where wkv6(r, k, v, log_decay, bonus, state=None) -> (outputs, state).


def _loop(step: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """A whole mechanism from one step: (S, r_t, k_t, v_t, decay_t (K, 1), bonus (K, 1)) -> (output, S)."""

    def wkv6(
        r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        outputs = []
        state = k.new_zeros(k.shape[1], v.shape[1]) if state is None else state
        for r_t, k_t, v_t, log_decay_t in zip(r, k, v, log_decay, strict=True):
            output, state = step(state, r_t, k_t[:, None] * v_t, log_decay_t.exp()[:, None], bonus[:, None])
            outputs.append(output)
        return torch.stack(outputs), state

    return wkv6


right_loop = _loop(lambda S, r, kv, decay, u: (r @ (S + u * kv), decay * S + kv))
reads_after_the_decay = _loop(lambda S, r, kv, decay, u: (r @ (decay * S + u * kv), decay * S + kv))
remembers_the_bonus = _loop(lambda S, r, kv, decay, u: (r @ (S + u * kv), decay * S + u * kv))
one_clock_for_all = _loop(lambda S, r, kv, decay, u: (r @ (S + u * kv), decay.mean() * S + kv))


def right_pairs(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same sums bracketed differently: their last digits differ from the loop's."""
    state = k.new_zeros(k.shape[1], v.shape[1]) if state is None else state
    after = log_decay.cumsum(0)
    before = torch.cat((torch.zeros_like(after[:1]), after[:-1]))
    earlier = torch.ones(len(k), len(k), device=k.device).tril(-1).bool()[:, :, None]
    pairs = (before[:, None] - after).masked_fill(~earlier, -math.inf).exp()
    scores = torch.einsum("tk,ik,tik->ti", r, k, pairs) + torch.diag((r * bonus * k).sum(-1))
    output = scores @ v + (r * before.exp()) @ state
    return output, after[-1].exp()[:, None] * state + (k * (after[-1] - after).exp()).T @ v


def forgets_what_it_was_given(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Begins with an empty state, whatever it is handed."""
    return right_loop(r, k, v, log_decay, bonus)


def leaves_out_the_last_token(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the state that the last token read, not the one it left."""
    outputs, _ = right_loop(r, k, v, log_decay, bonus, state)
    if len(k) == 1:
        return outputs, k.new_zeros(k.shape[1], v.shape[1]) if state is None else state
    return outputs, right_loop(r[:-1], k[:-1], v[:-1], log_decay[:-1], bonus, state)[1]


WRONG_VERSIONS = {
    "reads after the decay": reads_after_the_decay,
    "remembers the bonus": remembers_the_bonus,
    "one clock for all": one_clock_for_all,
    "forgets what it was given": forgets_what_it_was_given,
    "leaves out the last token": leaves_out_the_last_token,
}
RIGHT_VERSIONS = {"a loop": right_loop, "all pairs": right_pairs}


PROBES = {
    "03-limit": [
        Probe("six outputs", lambda answer, rng: [float(x) for x in answer], tolerance=1e-3),
    ],
    "03-bonus": [
        Probe("three clocks", lambda answer, rng: answer(*_decays(rng))),
        Probe("random clocks", lambda answer, rng: answer(-normal(rng, 4).exp())),
        Probe("gradient", gradient(_decays)),
        Probe("inputs untouched", untouched(_decays), expected=0.0),
    ],
    "03-maximum": [
        Probe("six tokens", _six_tokens),
        Probe("random keys", lambda answer, rng: answer(*_scalar_inputs(rng))),
        Probe("ramp of keys", _ramp_of_keys, because="keys of -900 and 900 in one sequence"),
        Probe("neighbours near 900", _loud_neighbours, because="keys one apart are not alike, however large"),
        Probe("a lone key of -900", _lone_small_key, expected=0.0, because="one token averages to its own value"),
        Probe("causal", causal(_scalar_inputs, TOKENS), expected=0.0),
        Probe("gradient", gradient(_scalar_inputs)),
        Probe("inputs untouched", untouched(_scalar_inputs), expected=0.0),
    ],
    "03-resume": [
        Probe("the ledger's keys", _ledger_keys),
        Probe("random, in one piece", lambda answer, rng: _in_pieces(answer, _mixer_inputs(rng), [])),
        Probe("any cut", _cut({f"cut after {n}": [n] for n in range(1, STEPS)}), expected=0.0),
        Probe("many cuts", _cut({"token by token": [*range(1, STEPS)], "2, 3, 4": [2, 5]}), expected=0.0),
        Probe("strong decay", _strong_decay, because="five steps of -200: e^1000 overflows float64"),
        Probe("one prefix, used twice", _prefix_used_twice, expected=0.0, because="a state is never changed in place"),
        Probe("numbers in the state", _state_size, expected=float(KEYS + KEYS * KEYS)),
        Probe("gradient through a cut", _gradient_through_a_cut),
        Probe("causal", causal(_mixer_inputs, STEPS), expected=0.0),
        Probe("inputs untouched", untouched(_mixer_inputs), expected=0.0),
    ],
    "03-kill": [
        Probe("lets right ones pass (0)", rejects(RIGHT_VERSIONS), expected=0.0),
        Probe("rejects wrong ones (1)", rejects(WRONG_VERSIONS), expected=1.0),
    ],
}
