"""The checks of exercise 01: what turns answers about attention into numbers.

The layers below that see what comes later are what task 01-causal asks a learner's test to reject.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import layer_norm
from torch.overrides import TorchFunctionMode

from hybridlab.course import ledger
from hybridlab.course.probe import Inputs, Probe, causal, gradient, normal, ramp, rejects, untouched

# 01-bytes: six numbers. Each probe puts one of them back to where it came from, so that a verdict tells no answer.

HEAD = 2 * 24 * 64 * 2  # bytes of a token for each head of keys: keys and values, 24 layers, 64 wide, 2 bytes a number
GIB = 2**30


# 01-window: read(q, k, v, window, cache=None) -> (outputs, (keys, values)); q (T, H, K), k (T, G, K), v (T, G, V), the cache
# at most window - 1 rows (rows, G, K) and (rows, G, V), the oldest first.
# 01-centre: windowed(q, k, v, window) -> outputs, without a cache.

GROUPS, HEADS, KEYS, VALUES, TOKENS, WINDOW = 2, 4, 3, 2, 7, 3
LONG_TEXT = 200


def _text(rng: Generator, tokens: int = TOKENS, groups: int = GROUPS) -> list[Tensor]:
    """q, k and v."""
    return [normal(rng, tokens, heads, width) for heads, width in ((HEADS, KEYS), (groups, KEYS), (groups, VALUES))]


def _cache(rng: Generator, rows: int = WINDOW - 1) -> tuple[Tensor, Tensor]:
    return normal(rng, rows, GROUPS, KEYS), normal(rng, rows, GROUPS, VALUES)


def _with_cache(rng: Generator) -> list[Tensor]:
    return [*_text(rng), *_cache(rng)]


def _loud(rng: Generator) -> list[Tensor]:
    """Keys along a ramp: scores from some -900 to some 900, the largest of them out of sight now and then."""
    q, k, v = _text(rng)
    return [q.sign(), ramp(TOKENS)[:, None, None] * k.sign(), v]


def _six_tokens() -> list[Tensor]:
    """The ledger, everybody asking for Ann; copies, because an answer may change what it is given."""
    return [ledger.query.repeat(6, 1, 1), ledger.keys[:, None].clone(), ledger.values[:, None, None].clone()]


def _read(answer: Any, text: list[Tensor], window: int, cache: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Outputs and cache in one tensor; a shape that is wrong is an error, which makes a verdict.

    Rows too many are left out: they have a check of their own (`_rows_kept`), and would fail all others with it.
    """
    q, k, v = text
    outputs, kept = answer(q, k, v, window, cache)
    rows = min(len(k) + (0 if cache is None else len(cache[0])), window - 1)
    keys, values = (x[max(0, len(x) - rows) :] for x in kept)
    for name, made, shape in (
        ("outputs", outputs, (*q.shape[:2], v.shape[2])),
        ("keys in the cache", keys, (rows, *k.shape[1:])),
        ("values in the cache", values, (rows, *v.shape[1:])),
    ):
        if tuple(made.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(made.shape)}")
    return torch.cat((outputs.flatten(), keys.flatten(), values.flatten()))


def _reading(window: int, inputs: Inputs, rows: int | None = None) -> Callable[[Any, Generator], Tensor]:
    def run(answer: Any, rng: Generator) -> Tensor:
        text = inputs(rng)
        return _read(answer, text, window, None if rows is None else _cache(rng, rows))

    return run


def _rows_kept(answer: Any, rng: Generator) -> dict[str, float]:
    """How many keys and values are kept, of a text and after a full cache."""
    rows: dict[str, float] = {}
    for window in (1, 2, 3, 4, 6, 20):
        for after, cache in (("", None), (" after a full cache", _cache(rng, window - 1))):
            kept = answer(*_text(rng), window, cache)[1]
            rows |= {
                f"{name}, window {window}{after}": float(len(x)) for name, x in zip(("keys", "values"), kept, strict=True)
            }
    return rows


def _five_inputs(answer: Any) -> Callable[..., Tensor]:
    """The answer as a function of five tensors, two of them the cache."""
    return lambda q, k, v, *cache: _read(answer, [q, k, v], WINDOW, cache)


def _three_outputs(answer: Any, q: Tensor, k: Tensor, v: Tensor, *cache: Tensor) -> list[Tensor]:
    outputs, kept = answer(q, k, v, WINDOW, cache)
    return [outputs, *kept]


def _outputs_alone(answer: Any) -> Callable[..., Tensor]:
    return lambda q, k, v: answer(q, k, v, WINDOW)[0]


def _in_pieces(answer: Any, text: list[Tensor], window: int, sizes: list[int]) -> Tensor:
    outputs, cache = [], None
    for piece in zip(*(x.split(sizes) for x in text), strict=True):
        output, cache = answer(*piece, window, cache)
        outputs.append(output)
    return torch.cat([x.flatten() for x in (torch.cat(outputs), *(cache or ()))])


def _pieces(cuts: list[list[int]], window: int) -> Callable[[Any, Generator], dict[str, float]]:
    """How far a text in pieces is from the whole, for each way to cut it."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        text = _text(rng, sum(cuts[0]))
        whole = _in_pieces(answer, text, window, [len(text[0])])
        return {f"pieces of {sizes}": _apart(_in_pieces(answer, text, window, sizes), whole) for sizes in cuts}

    return run


def _apart(mine: Tensor, whole: Tensor) -> float:
    return (mine - whole).abs().max().item() if mine.shape == whole.shape else math.nan


def _forgotten(answer: Any, rng: Generator) -> dict[str, float]:
    """Replaces every token in turn; how far the outputs change that are a window or more behind it."""
    text, others = _text(rng), _text(rng)
    before = _outputs_alone(answer)(*text)
    changes = {}
    for t in range(TOKENS - WINDOW):
        replaced = [torch.cat((x[:t], y[t : t + 1], x[t + 1 :])) for x, y in zip(text, others, strict=True)]
        after = _outputs_alone(answer)(*replaced)
        changes[f"t={t} replaced"] = _apart(before[t + WINDOW :], after[t + WINDOW :])
    return changes


def _keys_seen(answer: Any, rng: Generator) -> dict[str, float]:
    """Unit vectors as values make the outputs the weights; how many of them the last token gives out."""
    q, k, _ = _text(rng, 9)
    unit = torch.eye(9, dtype=torch.float64)[:, None].expand(9, GROUPS, 9)
    return {f"window {W}": float((answer(q, k, unit, W)[-1, 0] > 0).sum()) for W in (1, 2, 3, 4, 5, 9, 12)}


def _windows(inputs: Inputs, windows: tuple[int, ...]) -> Callable[[Any, Generator], Tensor]:
    def run(answer: Any, rng: Generator) -> Tensor:
        text = inputs(rng)
        return torch.stack([answer(*text, window) for window in windows])

    return run


def _gradients(
    inputs: Inputs, function: Callable[[Any], Callable[..., Any]]
) -> Callable[[Any, Generator], dict[str, float]]:
    """Those of `gradient`, each with the name of the input whose it is."""
    names = ("q", "k", "v", "keys in the cache", "values in the cache")

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        found = gradient(inputs)(function(answer), rng).tolist()
        named = zip(names, inputs(rng), strict=False)
        return dict(zip((f"{name}, number {i}" for name, x in named for i in range(x.numel())), found, strict=True))

    return run


def _of(window: int) -> Callable[[Any], Callable[..., Tensor]]:
    return lambda answer: lambda *text: answer(*text, window)


class _Largest(TorchFunctionMode):
    """The most numbers that any tensor had which came out of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, made.numel() if isinstance(made, Tensor) else 0)
        return made


def _as_large_as_the_matrix(answer: Any, rng: Generator) -> float:
    text = _text(rng, LONG_TEXT)
    with _Largest() as largest:
        answer(*text, WINDOW)
    return float(largest.numbers >= LONG_TEXT**2)


# 01-causal: test(layer), where layer(x), x (T, 8) -> (T, 8). All begin with a LayerNorm: a shift is invisible to them.

WIDTH = 8
Layer = Callable[[Tensor], Tensor]


def _normed(x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:])


def _ages(T: int) -> Tensor:
    return torch.arange(T)[:, None] - torch.arange(T)


def _queries_keys_values(x: Tensor) -> tuple[Tensor, ...]:
    weights = normal(torch.Generator().manual_seed(1), 3, WIDTH, WIDTH) / math.sqrt(WIDTH)
    return (_normed(x) @ weights).unbind()


def _answers(scores: Tensor, values: Tensor, hidden: Tensor, loudness: float = -math.inf) -> Tensor:
    return (scores / math.sqrt(WIDTH)).masked_fill(hidden, loudness).softmax(-1) @ values


def _attention(x: Tensor, hidden: Tensor, loudness: float = -math.inf) -> Tensor:
    q, k, v = _queries_keys_values(x)
    return _answers(q @ k.T, v, hidden, loudness)


def full_attention(x: Tensor) -> Tensor:
    return _attention(x, _ages(len(x)) < 0)


def window_attention(x: Tensor) -> Tensor:
    ages = _ages(len(x))
    return _attention(x, (ages < 0) | (ages >= WINDOW))


def fades_with_distance(x: Tensor) -> Tensor:
    """A penalty for each step between two tokens, as ALiBi has it."""
    q, k, v = _queries_keys_values(x)
    ages = _ages(len(x))
    return _answers(q @ k.T - ages, v, ages < 0)


def residual_stream(x: Tensor) -> Tensor:
    return x + full_attention(x)


def token_shift(x: Tensor) -> Tensor:
    """Each token and the one before it; before the first there is nothing."""
    x = _normed(x)
    return 0.7 * x + 0.3 * torch.cat((torch.zeros_like(x[:1]), x[:-1]))


def mean_so_far(x: Tensor) -> Tensor:
    x = _normed(x)
    return x - x.cumsum(0) / torch.arange(1, len(x) + 1)[:, None]


def others_alone(x: Tensor) -> Tensor:
    """A token does not see itself; the first says nothing."""
    x = _normed(x)
    return x.cumsum(0) - x


def loud_and_rounded(x: Tensor) -> Tensor:
    """Attention a million times as loud, whose sums were rounded on the way, in each call in its own manner."""
    rng = torch.Generator().manual_seed(len(x))
    return 1e6 * full_attention(x) * (1 + 1e-12 * normal(rng, *x.shape))


def no_mask(x: Tensor) -> Tensor:
    return _attention(x, _ages(len(x)) > len(x))


def centred_window(x: Tensor) -> Tensor:
    return _attention(x, _ages(len(x)).abs() > 2)


def masks_the_first_chunk(x: Tensor) -> Tensor:
    """Chunks of four; the mask is made for the first and forgotten in the later ones."""
    chunk = torch.arange(len(x)) // 4
    ages = _ages(len(x))
    return _attention(x, (chunk[:, None] < chunk) | ((chunk == 0) & (ages < 0)))


def sees_the_prompt(x: Tensor) -> Tensor:
    """The first four tokens see one another, the rest is causal."""
    ages = _ages(len(x))
    return _attention(x, (ages < 0) & (torch.arange(len(x)) >= 4))


def hides_with_ten(x: Tensor) -> Tensor:
    """What comes later gets a score of -10, not of -inf."""
    return _attention(x, _ages(len(x)) < 0, loudness=-10.0)


def rolls(x: Tensor) -> Tensor:
    """Token shift by torch.roll: before the first token comes the last."""
    x = _normed(x)
    return 0.7 * x + 0.3 * x.roll(1, 0)


def loudest_of_the_text(x: Tensor) -> Tensor:
    """Keys in each channel divided by the largest of the whole text."""
    q, k, v = _queries_keys_values(x)
    return _answers(q @ (k / k.abs().amax(0)).T, v, _ages(len(x)) < 0)


def eight_on(x: Tensor) -> Tensor:
    """Sees what came before, and one token more, eight further on."""
    ages = _ages(len(x))
    return _attention(x, (ages < 0) & (ages != -8))


def counts_from_the_end(x: Tensor) -> Tensor:
    """Says how many tokens are still to come."""
    to_come = torch.arange(len(x) - 1, -1, -1, dtype=x.dtype)[:, None]
    return full_attention(x) + 0.1 * to_come


RIGHT_LAYERS: dict[str, Layer] = {
    "attention": full_attention,
    "attention in a window": window_attention,
    "a penalty for distance": fades_with_distance,
    "attention added to its input": residual_stream,
    "token shift": token_shift,
    "the mean so far": mean_so_far,
    "the others alone": others_alone,
    "loud, other last digits": loud_and_rounded,
}
WRONG_LAYERS: dict[str, Layer] = {
    "no mask": no_mask,
    "a centred window": centred_window,
    "masks the first chunk alone": masks_the_first_chunk,
    "the first four see one another": sees_the_prompt,
    "hides with a score of -10": hides_with_ten,
    "rolls": rolls,
    "the loudest of the text": loudest_of_the_text,
    "the eighth token after": eight_on,
    "counts from the end": counts_from_the_end,
}


# 01-merge: summary(q, k, v), merge(one, other) and outputs(all), checked as three; q (T, K), k (S, K), v (S, V) -> (T, V).

ASKING, LISTED = 4, 9


def _halves(rng: Generator) -> list[Tensor]:
    return [normal(rng, ASKING, KEYS), normal(rng, LISTED, KEYS), normal(rng, LISTED, VALUES)]


def _loud_halves(rng: Generator) -> list[Tensor]:
    """Scores from some -900 to some 900, rising for two of the queries and falling for the others."""
    q, k, v = _halves(rng)
    q[:, 0] = torch.tensor([1.5, -1.5, 1.0, -1.0])
    k[:, 0] = ramp(LISTED)
    return [q, k, v]


def _far_apart(rng: Generator) -> list[Tensor]:
    """Two queries with all their scores near -900, beside which 0 weighs all there is, and two with all of them near 900."""
    q, k, v = _halves(rng)
    q[:, 0] = torch.tensor([1.5, -1.5, 1.5, -1.5])
    k[:, 0] = -1000
    return [q, k, v]


def _six_at_once() -> list[Tensor]:
    return [ledger.query[None].clone(), ledger.keys.clone(), ledger.values[:, None].clone()]


def _summaries(answer: Any, text: list[Tensor], sizes: list[int]) -> list[Any]:
    q, k, v = text
    return [answer[0](q, *piece) for piece in zip(k.split(sizes), v.split(sizes), strict=True)]


def _at_once(answer: Any, text: list[Tensor]) -> Tensor:
    return answer[2](answer[0](*text))


def _cut(answer: Any, text: list[Tensor], first: int) -> Tensor:
    return answer[2](answer[1](*_summaries(answer, text, [first, LISTED - first])))


def _every_cut(inputs: Inputs) -> Callable[[Any, Generator], Tensor]:
    def run(answer: Any, rng: Generator) -> Tensor:
        text = inputs(rng)
        return torch.stack([_cut(answer, text, first) for first in range(1, LISTED)])

    return run


def _float32_of(inputs: Inputs) -> Inputs:
    return lambda rng: [x.float() for x in inputs(rng)]


def _either_order(inputs: Inputs) -> Callable[[Any, Generator], dict[str, float]]:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        text, apart = inputs(rng), {}
        for first in range(1, LISTED):
            one, other = _summaries(answer, text, [first, LISTED - first])
            apart[f"cut after {first}"] = _apart(answer[2](answer[1](one, other)), answer[2](answer[1](other, one)))
        return apart

    return run


def _ways_to_merge(answer: Any, rng: Generator) -> dict[str, float]:
    """Four pieces, bracketed and ordered in several ways, minus all at once."""
    text = _loud_halves(rng)
    merge = answer[1]
    a, b, c, d = _summaries(answer, text, [2, 3, 1, 3])
    ways = {
        "a merge from the left": merge(merge(merge(a, b), c), d),
        "a merge from the right": merge(a, merge(b, merge(c, d))),
        "a merge as a tree": merge(merge(a, b), merge(c, d)),
        "a merge in shuffled order": merge(merge(d, a), merge(c, b)),
    }
    whole = _at_once(answer, text)
    return {name: _apart(answer[2](way), whole) for name, way in ways.items()}


def _empty_half(inputs: Inputs) -> Callable[[Any, Generator], dict[str, float]]:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        text = inputs(rng)
        whole = _at_once(answer, text)
        return {
            place: _apart(_cut(answer, text, first), whole)
            for place, first in (("an empty first list", 0), ("an empty second list", LISTED))
        }

    return run


def _sizes(answer: Any, rng: Generator) -> dict[str, float]:
    """How many numbers a summary has more than one of a single key."""
    text = _halves(rng)
    pieces = _summaries(answer, text, [1, 3, 5])
    made = {"three keys": pieces[1], "five keys": pieces[2], "three and five, merged": answer[1](*pieces[1:])}
    return {name: float(_numbers_in(x) - _numbers_in(pieces[0])) for name, x in made.items()}


def _numbers_in(summary: Any) -> int:
    return sum(x.numel() for x in ([summary] if isinstance(summary, Tensor) else summary))


def _summaries_untouched(answer: Any, rng: Generator) -> float:
    """A summary is used twice: the answers before and after it was merged."""
    one, other = _summaries(answer, _halves(rng), [4, 5])
    before = [answer[2](x).clone() for x in (one, other)]
    answer[1](one, other)
    return max(_apart(answer[2](x), y) for x, y in zip((one, other), before, strict=True))


def _all_cuts(answer: Any) -> Callable[..., Tensor]:
    """All cuts: where the largest score is decides which way a gradient takes."""
    return lambda *text: torch.stack([_cut(answer, list(text), first) for first in range(1, LISTED)])


def _dtype_stays(inputs: Inputs, outputs: Callable[..., list[Tensor]]) -> Callable[[Any, Generator], dict[str, float]]:
    """1 for each of an answer's outputs that has its inputs' dtype."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        given, stays = inputs(rng), {}
        for dtype in (torch.float32, torch.float64):
            for i, made in enumerate(outputs(answer, *[x.to(dtype) for x in given])):
                stays[f"output {i} of {dtype}".replace("torch.", "")] = float(made.dtype == dtype)
        return stays

    return run


PROBES = {
    "01-bytes": [
        Probe("a: heads of keys that this has room for", lambda answer, rng: float(answer[0]) / HEAD, 16.0),
        Probe("b: conversations that this has room for", lambda answer, rng: float(answer[1]) / (4 * HEAD * 3000), 8.0),
        Probe("c: bytes that are left over", lambda answer, rng: GIB - HEAD * float(answer[2]), 4096.0),
        Probe("d: GiB that are used", lambda answer, rng: HEAD * float(answer[3]) * 131_072 / GIB, 3.0),
        Probe("e: width of a value", lambda answer, rng: float(answer[4]) / (24 * 16 * 2) - 64, 96.0),
        Probe("f: window", lambda answer, rng: float(answer[5]) / (12 * 4 * HEAD / 24) - 10_000 + 1, 1024.0),
    ],
    "01-window": [
        Probe("six tokens, window 3", _reading(3, lambda rng: _six_tokens())),
        Probe("window 1", _reading(1, _text), because="a token sees itself, and nothing has to be kept"),
        Probe("window 2", _reading(2, _text)),
        Probe("window 4", _reading(4, _text)),
        Probe("window 20, seven tokens", _reading(20, _text)),
        Probe("one head of keys for all", _reading(3, lambda rng: _text(rng, groups=1))),
        Probe("after a cache that is full", _reading(3, _text, rows=2)),
        Probe("after a cache that is not full", _reading(6, lambda rng: _text(rng, 2), rows=2)),
        Probe("a single token after a cache", _reading(4, lambda rng: _text(rng, 1), rows=3)),
        Probe("window 1, after a cache without rows", _reading(1, _text, rows=0)),
        Probe("rows in the cache", _rows_kept, because="of a young text all, then W - 1"),
        Probe("cut in two, pieces minus whole", _pieces([[cut, TOKENS - cut] for cut in range(1, TOKENS)], 4), expected=0.0),
        Probe("cut often, pieces minus whole", _pieces([[5, 4, 3], [9, 1, 1, 1], [1] * 12], 4), expected=0.0),
        Probe("a ramp of keys", _reading(3, _loud), because="scores from -900 to 900, also in what is hidden"),
        Probe("gradient", _gradients(_with_cache, _five_inputs)),
        Probe("causal", lambda answer, rng: causal(_text, TOKENS)(_outputs_alone(answer), rng), expected=0.0),
        Probe("tokens a window ago replaced", _forgotten, expected=0.0),
        Probe(
            "the dtype stays (1)",
            _dtype_stays(_with_cache, _three_outputs),
            expected=1.0,
        ),
        Probe("inputs untouched", lambda answer, rng: untouched(_with_cache)(_five_inputs(answer), rng), expected=0.0),
    ],
    "01-centre": [
        Probe("six tokens", _windows(lambda rng: _six_tokens(), (3,))),
        Probe("windows of 1 and 2", _windows(_text, (1, 2))),
        Probe("windows of 3 to 6", _windows(_text, (3, 4, 5, 6))),
        Probe("windows as long as the text and longer", _windows(_text, (TOKENS, TOKENS + 1, 20))),
        Probe("one head of keys for all", _windows(lambda rng: _text(rng, groups=1), (3,))),
        Probe("a single token", _windows(lambda rng: _text(rng, 1), (1, 4))),
        Probe("keys that the last of nine tokens sees", _keys_seen),
        Probe("a ramp of keys", _windows(_loud, (3, 4))),
        Probe("gradient", _gradients(_text, _of(4))),
        Probe("causal, window 3", lambda answer, rng: causal(_text, TOKENS)(_of(3)(answer), rng), expected=0.0),
        Probe("causal, window 4", lambda answer, rng: causal(_text, TOKENS)(_of(4)(answer), rng), expected=0.0),
        Probe("a tensor as large as T x T (1) or none (0)", _as_large_as_the_matrix, expected=0.0),
        Probe("the dtype stays (1)", _dtype_stays(_text, lambda answer, *given: [answer(*given, 3)]), expected=1.0),
        Probe("inputs untouched", lambda answer, rng: untouched(_text)(_of(3)(answer), rng), expected=0.0),
    ],
    "01-causal": [
        Probe("right ones rejected (1) or not (0)", rejects(RIGHT_LAYERS), expected=0.0),
        Probe("wrong ones rejected (1) or not (0)", rejects(WRONG_LAYERS), expected=1.0),
    ],
    "01-merge": [
        Probe(
            "six tokens, at once",
            lambda answer, rng: _at_once(answer, _six_at_once()),
        ),
        Probe("random, at once", lambda answer, rng: _at_once(answer, _halves(rng))),
        Probe("two halves, every cut", _every_cut(_halves)),
        Probe("the other order minus this one", _either_order(_halves), expected=0.0),
        Probe("four pieces minus all at once", _ways_to_merge, expected=0.0, because="scores from -900 to 900"),
        Probe("an empty half, minus the other alone", _empty_half(_halves), expected=0.0),
        Probe("an empty half, scores near -900 and 900, minus the other alone", _empty_half(_far_apart), expected=0.0),
        Probe("a ramp of scores", _every_cut(_loud_halves), because="scores from -900 to 900"),
        Probe("a ramp of scores, the other order minus this one", _either_order(_loud_halves), expected=0.0),
        Probe("a ramp of scores, float32", _every_cut(_float32_of(_loud_halves)), tolerance=1e-3),
        Probe("scores near -900 and 900", _every_cut(_far_apart)),
        Probe("gradient", _gradients(_halves, _all_cuts)),
        Probe("gradient, a ramp of scores", _gradients(_loud_halves, _all_cuts)),
        Probe("a summary's numbers, more than for one key", _sizes, expected=0.0),
        Probe("a summary before and after it was merged", _summaries_untouched, expected=0.0),
        Probe(
            "the dtype stays (1)", _dtype_stays(_halves, lambda answer, *given: [_all_cuts(answer)(*given)]), expected=1.0
        ),
        Probe("inputs untouched", lambda answer, rng: untouched(_halves)(_all_cuts(answer), rng), expected=0.0),
    ],
}
