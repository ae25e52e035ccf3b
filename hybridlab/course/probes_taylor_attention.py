"""The checks of exercise 07: what turns answers about Taylor attention into numbers.

The rules for weighing keys below, right and wrong, are what task 07-ranks asks a learner's test to tell apart.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from hybridlab.course import ledger
from hybridlab.course.probe import Probe, causal, gradient, normal, rejects, untouched
from hybridlab.state import state_tensors

Inputs = Callable[[Generator], list[Tensor]]


# 07-count: six numbers. Each probe puts one of them back to where it came from, so that a verdict tells no answer.


def _key_width(features: float, order: int = 2) -> float:
    """The K, a real number, whose powers up to `order` add up to this."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(middle**n for n in range(order + 1)) < features else (low, middle)
    return low


# 07-symmetric: features(x), x (..., K) -> (..., F).

KEYS, VALUES, TOKENS = 3, 2, 7


def _queries_and_keys(rng: Generator, K: int, *batch: int) -> list[Tensor]:
    return [normal(rng, *batch, 5, K), normal(rng, *batch, TOKENS, K)]


def _products(answer: Any, q: Tensor, k: Tensor) -> Tensor:
    """Dot products of features: they do not tell one right answer from another."""
    query_features, key_features = answer(q), answer(k)
    for name, made, given in (("queries", query_features, q), ("keys", key_features, k)):
        if made.shape[:-1] != given.shape[:-1]:
            raise ValueError(f"features of {tuple(given.shape)} {name}: got shape {tuple(made.shape)}")
    return query_features @ key_features.mT


def _on(inputs: Inputs) -> Callable[[Any, Generator], Tensor]:
    return lambda answer, rng: _products(answer, *inputs(rng))


def _long_keys(rng: Generator) -> list[Tensor]:
    return [100 * x for x in _queries_and_keys(rng, 4)]


def _a_single_vector(answer: Any, rng: Generator) -> Tensor:
    return answer(normal(rng, 4)) @ answer(normal(rng, 4))


def _too_many_or_too_few(answer: Any, rng: Generator) -> dict[str, float]:
    # The dot product is a polynomial in q and k whose rank is this number: nobody needs more, or does with less.
    more = {K: answer(normal(rng, 2, K)).shape[-1] - math.comb(K + 2, 2) for K in (1, 2, 3, 8, 16)}
    return {f"K = {K}:": float((n > 0) - (n < 0)) for K, n in more.items()}  # how many too many would tell the number


# 07-carried: taylor(q, k, v, state=None) -> (outputs, state), q and k (..., T, K), v (..., T, V); any kind of state.


def _text(rng: Generator, tokens: int = TOKENS, *batch: int) -> list[Tensor]:
    return [normal(rng, *batch, tokens, size) for size in (KEYS, KEYS, VALUES)]


def _long_text(rng: Generator) -> list[Tensor]:
    """Long queries and keys: logits of some tens."""
    q, k, v = _text(rng)
    return [4 * q, 4 * k, v]


def _page() -> list[Tensor]:
    return [ledger.query.expand(6, 3).clone(), ledger.keys.clone(), ledger.values[:, None].clone()]


def _in_pieces(answer: Any, given: list[Tensor], sizes: list[int]) -> Tensor:
    """The outputs of a text that is read piece after piece."""
    outputs, state = [], None
    for q, k, v in zip(*(x.split(sizes, -2) for x in given), strict=True):
        output, state = answer(q, k, v) if state is None else answer(q, k, v, state)
        if output.shape != v.shape:
            raise ValueError(f"outputs: expected shape {tuple(v.shape)}, got {tuple(output.shape)}")
        outputs.append(output)
    return torch.cat(outputs, -2)


def _cut(answer: Any, *given: Tensor) -> Tensor:
    return _in_pieces(answer, list(given), [2, 4, given[0].shape[-2] - 6])


def _any_cut(answer: Any, rng: Generator) -> dict[str, float]:
    """How far two pieces are from the whole, for each place of the cut."""
    given = _text(rng)
    whole = answer(*given)[0]
    cuts = {f"cut after {cut}": [cut, TOKENS - cut] for cut in range(1, TOKENS)}
    return {name: (_in_pieces(answer, given, sizes) - whole).abs().max().item() for name, sizes in cuts.items()}


def _two_ways_on(answer: Any, rng: Generator) -> float:
    """One state, continued twice: the second time finds it as the first did."""
    first, then = _text(rng), _text(rng)
    state = answer(*first)[1]
    outputs = [answer(*then, state)[0].clone() for _ in range(2)]
    return (outputs[0] - outputs[1]).abs().max().item()


def _state_too_large(answer: Any, rng: Generator) -> dict[str, float]:
    allowed = (1 + KEYS + KEYS**2) * (VALUES + 1)
    sizes = {tokens: sum(x.numel() for x in state_tensors(answer(*_text(rng, tokens))[1])) for tokens in (1, 9, 50)}
    return {f"{tokens} tokens:": float(size > allowed) for tokens, size in sizes.items()}


def _stays_float32(answer: Any, rng: Generator) -> dict[str, float]:
    given = [x.float() for x in _text(rng)]
    output, state = answer(*given)
    later, _ = answer(*given, state)
    return {name: float(x.dtype == torch.float32) for name, x in (("outputs", output), ("outputs, continued", later))}


# 07-crossover: crossover(K, V, order=2, state_bytes=4, cache_bytes=4) and widest(T, V, state_bytes=4, cache_bytes=4).

SIZES = [(16, 64), (8, 8), (64, 64), (5, 2), (2, 100), (256, 256)]
TIES = [(1, 1), (2, 5), (4, 3), (3, 10)]
TEXTS = [(2048, 64), (100, 10), (10_000, 1), (1_000_000, 112), (7, 1)]
NARROW = [(3, 5), (4, 5), (6, 5), (9, 7), (14, 6)]


def _crossovers(sizes: list[tuple[int, int]], *options: int) -> Callable[[Any, Generator], dict[str, float]]:
    return lambda answer, rng: {f"K, V = {K}, {V}:": answer[0](K, V, *options) for K, V in sizes}


def _widest(texts: list[tuple[int, int]], *options: int) -> Callable[[Any, Generator], dict[str, float]]:
    return lambda answer, rng: {f"T, V = {T}, {V}:": answer[1](T, V, *options) for T, V in texts}


# 07-ranks: test(weigh), where weigh(q, k) with q (K,), k (n, K) -> weights (n,).


def _logits(q: Tensor, k: Tensor) -> Tensor:
    return k @ q / len(q) ** 0.5


def _polynomial(s: Tensor, order: int) -> Tensor:
    return torch.stack([s**n / math.factorial(n) for n in range(order + 1)]).sum(0)


def _order(order: int, q: Tensor, k: Tensor) -> Tensor:
    return _polynomial(_logits(q, k), order)


def _order_2_from(lowest: float, q: Tensor, k: Tensor) -> Tensor:
    """Order 2 of logits that are cut off from below."""
    return _polynomial(_logits(q, k).clamp(min=lowest), 2)


def _above_the_lowest(q: Tensor, k: Tensor) -> Tensor:
    """Order 2 of what a logit has more than the lowest one."""
    s = _logits(q, k)
    return _polynomial(s - s.min(), 2)


def _top_two(q: Tensor, k: Tensor) -> Tensor:
    """Softmax among the two largest, and nothing for all others."""
    s = _logits(q, k)
    return torch.softmax(s.masked_fill(s < s.topk(min(2, len(s))).values[-1], -math.inf), 0)


def _other_digits(q: Tensor, k: Tensor) -> Tensor:
    """The exponential, rounded on the way: keys with equal logits weigh almost the same."""
    noise = torch.randn(len(k), generator=torch.Generator().manual_seed(len(k)), dtype=torch.float64)
    return _logits(q, k).exp() * (1 + 1e-12 * noise)


def _angle(q: Tensor, k: Tensor) -> Tensor:
    """e to the cosine: how long a key is does not count."""
    return torch.exp(torch.nn.functional.normalize(k, dim=-1) @ torch.nn.functional.normalize(q, dim=-1))


def _nearness(q: Tensor, k: Tensor) -> Tensor:
    return 1 / (1 + (k - q).square().sum(-1))


def _positive_features(q: Tensor, k: Tensor) -> Tensor:
    """Linear attention with features elu(x) + 1, which are never negative."""
    return (torch.nn.functional.elu(k) + 1) @ (torch.nn.functional.elu(q) + 1)


def _fades(q: Tensor, k: Tensor) -> Tensor:
    """The exponential, a hundredth less for each token since."""
    return _logits(q, k).exp() * 0.99 ** torch.arange(len(k) - 1, -1, -1, dtype=torch.float64)


RIGHT_WEIGHTS = {
    "the exponential": lambda q, k: _logits(q, k).exp(),
    "softmax": lambda q, k: _logits(q, k).softmax(0),
    "order 1": partial(_order, 1),
    "order 3": partial(_order, 3),
    "order 2, cut off in the right place": partial(_order_2_from, -1.0),
    "order 2 above the lowest": _above_the_lowest,
    "negative logits weigh nothing": lambda q, k: _logits(q, k).relu(),
    "the two largest": _top_two,
    "other last digits": _other_digits,
}
WRONG_WEIGHTS = {
    "order 2": partial(_order, 2),
    "order 4": partial(_order, 4),
    "order 10": partial(_order, 10),
    "the square alone": lambda q, k: _logits(q, k).square() / 2,
    "order 2, cut off too far down": partial(_order_2_from, -1.2),
    "the angle": _angle,
    "nearness": _nearness,
    "positive features": _positive_features,
    "fades": _fades,
}


PROBES = {
    "07-count": [
        Probe("a: K, from the features", lambda answer, rng: _key_width(float(answer[0])), 5.0, 1e-3),
        Probe("b: K, from the features", lambda answer, rng: _key_width(float(answer[1]), 3), 4.0, 1e-3),
        Probe("c: V, from the numbers", lambda answer, rng: float(answer[2]) / 57 - 1, 6.0, 1e-3),
        Probe("d: heads, from the bytes", lambda answer, rng: float(answer[3]) / (2 * 273 * 65), 8.0, 1e-3),
        Probe("e: features, from the K", lambda answer, rng: 1 + float(answer[4]) + float(answer[4]) ** 2, 111.0, 1e-3),
        Probe("f: heads, from the numbers", lambda answer, rng: float(answer[5]) / (273 * 17), 4.0, 1e-3),
    ],
    "07-symmetric": [
        Probe("six tokens", lambda answer, rng: _products(answer, ledger.query[None].clone(), ledger.keys.clone())),
        Probe("products, K = 1", _on(lambda rng: _queries_and_keys(rng, 1))),
        Probe("products, K = 4", _on(lambda rng: _queries_and_keys(rng, 4))),
        Probe("products, K = 5", _on(lambda rng: _queries_and_keys(rng, 5))),
        Probe("products, a hundred times as long", _on(_long_keys)),
        Probe("texts and heads in front", _on(lambda rng: _queries_and_keys(rng, 4, 2, 3))),
        Probe("a single vector", _a_single_vector),
        Probe("features: too many (1), too few (-1), the fewest (0)", _too_many_or_too_few, expected=0.0),
        Probe("gradient", lambda answer, rng: gradient(lambda g: _queries_and_keys(g, 4))(partial(_products, answer), rng)),
        Probe("each token by itself", causal(lambda rng: [normal(rng, TOKENS, 4)], TOKENS), expected=0.0),
        Probe(
            "float32 stays float32 (1)",
            lambda answer, rng: float(answer(normal(rng, TOKENS, 4).float()).dtype == torch.float32),
            expected=1.0,
        ),
        Probe("input untouched", untouched(lambda rng: [normal(rng, TOKENS, 4)]), expected=0.0),
    ],
    "07-carried": [
        Probe("six tokens, whole", lambda answer, rng: answer(*_page())[0]),
        Probe("six tokens, cut after three", lambda answer, rng: _in_pieces(answer, _page(), [3, 3])),
        Probe("any cut, pieces minus whole", _any_cut, expected=0.0),
        Probe("token by token", lambda answer, rng: _in_pieces(answer, _text(rng), [1] * TOKENS)),
        Probe("long queries and keys, three pieces", lambda answer, rng: _cut(answer, *_long_text(rng))),
        Probe("texts and heads in front, three pieces", lambda answer, rng: _cut(answer, *_text(rng, TOKENS, 2, 3))),
        Probe("gradient, three pieces", lambda answer, rng: gradient(_text)(partial(_cut, answer), rng)),
        Probe("one state, continued twice", _two_ways_on, expected=0.0),
        Probe("state too large (1) or not (0)", _state_too_large, expected=0.0),
        Probe(
            "causal, three pieces",
            lambda answer, rng: causal(_text, TOKENS)(partial(_cut, answer), rng),
            expected=0.0,
        ),
        Probe("float32 stays float32 (1)", _stays_float32, expected=1.0),
        Probe("inputs untouched", untouched(_text), expected=0.0),
    ],
    "07-crossover": [
        Probe("crossover", _crossovers(SIZES)),
        Probe("crossover, both are equal on the way", _crossovers(TIES)),
        Probe("crossover, order 1", _crossovers(SIZES, 1)),
        Probe("crossover, order 4", _crossovers(SIZES, 4)),
        Probe("crossover, a cache of two bytes", _crossovers(SIZES + TIES, 2, 4, 2)),
        Probe("crossover, a cache of four bytes, a state of two", _crossovers(SIZES + TIES, 2, 2, 4)),
        Probe("widest", _widest(TEXTS)),
        Probe("widest, short texts", _widest(NARROW), because="smaller, not as large; and 0 if there is none"),
        Probe("widest, a cache of two bytes", _widest(TEXTS + NARROW, 4, 2)),
    ],
    "07-ranks": [
        Probe("right ones rejected (1) or not (0)", rejects(RIGHT_WEIGHTS), expected=0.0),
        Probe("wrong ones rejected (1) or not (0)", rejects(WRONG_WEIGHTS), expected=1.0),
    ],
}
