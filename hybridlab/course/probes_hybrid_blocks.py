"""The checks of exercise 10: what turns answers about hybrid blocks into numbers.

The layers at the end, halves side by side or in a row, are what task 10-wiring hands to a learner's test.
"""

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize, silu

from hybridlab.course import ledger
from hybridlab.course.probe import (
    Probe,
    Run,
    causal,
    gradient,
    named_untouched,
    normal,
    places,
    ramp,
    rejects,
    shaped,
)
from hybridlab.models import HybridConfig, HybridLM
from hybridlab.state import state_nbytes

Inputs = Callable[[Generator], list[Any]]
Layer = Callable[[Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor, Tensor]]
Half = tuple[Tensor, Tensor]


def _apart(mine: Tensor, whole: Tensor) -> float:
    return (mine - whole).abs().max().item() if mine.shape == whole.shape else math.nan


# 10-calls: six whole numbers, of the model in the statement. A verdict says on which side an answer lies, and not how far.

WIDTH, INNER, HIDDEN, RANK, CALLS, BLOCKS, ITEM = 1024, 2048, 4096, 64, 9, 2, 2
ADAPTED = ((2 * WIDTH, INNER), (2 * WIDTH, INNER), (2 * WIDTH, INNER), (WIDTH, 2 * HIDDEN))  # query, key, value, gate and up
KEPT_WHOLE = ((INNER, WIDTH), (HIDDEN, WIDTH))


def _numbers(maps: tuple[tuple[int, int], ...]) -> int:
    return sum(width * out for width, out in maps)


def _adapters(rank: int) -> int:
    return rank * sum(width + out for width, out in ADAPTED)


ONE_BLOCK = _numbers(ADAPTED) + _numbers(KEPT_WHOLE)
BYTES_A_TOKEN = CALLS * 2 * INNER * ITEM
SAVED = ITEM * ((CALLS - BLOCKS) * ONE_BLOCK - CALLS * _adapters(RANK))
SIX = {
    "a: bytes that a token adds": BYTES_A_TOKEN,
    "b: parameters of two blocks": BLOCKS * ONE_BLOCK,
    "c: parameters of all changes": CALLS * _adapters(RANK),
    "d: the smallest such rank": next(rank for rank in itertools.count(1) if _adapters(rank) > _numbers(ADAPTED)),
    "e: multiplications a token": CALLS * ONE_BLOCK,
    "f: the first such token": SAVED // BYTES_A_TOKEN + 1,
}


def _side(letter: int, right: int) -> Run:
    """1 for a number that is too large, -1 for one that is too small."""

    def run(answer: Any, rng: Generator) -> float:
        given = float(answer[letter])
        return float(given > right) - float(given < right) if math.isfinite(given) else math.nan

    return run


# 10-meta: look(q, k, v, meta_k, meta_v, window, cache=None) -> (outputs, (keys, values)); q, k (B, T, K), v (B, T, V),
# meta_k (M, K), meta_v (M, V), a cache (B, S, K), (B, S, V).

BATCH, TOKENS, KEYS, VALUES, META = 2, 7, 3, 2, 2


def _text(rng: Generator, tokens: int = TOKENS, meta: int = META) -> list[Tensor]:
    q, k, v = (normal(rng, BATCH, tokens, width) for width in (KEYS, KEYS, VALUES))
    return [q, k, v, normal(rng, meta, KEYS), normal(rng, meta, VALUES)]


def _looked(answer: Any, given: list[Tensor], window: int, past: Half | None = None) -> tuple[Tensor, Half]:
    outputs, (keys, values) = answer(*given, window) if past is None else answer(*given, window, past)
    v = given[2]
    shaped("outputs", outputs, tuple(v.shape))
    rows = min((0 if past is None else past[0].shape[1]) + v.shape[1], window - 1)
    shaped("cached keys", keys, (*v.shape[:1], rows, given[1].shape[2]))
    shaped("cached values", values, (*v.shape[:1], rows, v.shape[2]))
    return outputs, (keys, values)


def _look(window: int, tokens: int = TOKENS, meta: int = META, past: int = 0) -> Run:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        given = _text(rng, tokens, meta)
        outputs, (keys, values) = _looked(answer, given, window, _past(rng, past) if past else None)
        return places("outputs", outputs) | places("keys", keys) | places("values", values)

    return run


def _past(rng: Generator, rows: int) -> Half:
    return normal(rng, BATCH, rows, KEYS), normal(rng, BATCH, rows, VALUES)


def _cy_through_a_window(answer: Any, rng: Generator) -> dict[str, float]:
    """The ledger through a window of two, and one meta token that says nothing; all ask for Cy, sharply."""
    asks = 64 * torch.tensor([[0, 0, 1]], dtype=torch.float64).expand(1, 6, 3)
    meta_k, meta_v = torch.full((1, 3), 0.5, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    page = [asks, ledger.keys[None], ledger.values[None, :, None], meta_k, meta_v]
    outputs, (keys, values) = _looked(answer, page, 2)
    return places("outputs", outputs) | places("keys", keys) | places("values", values)


def _shouting(answer: Any, rng: Generator) -> dict[str, float]:
    """Scores from -900 to 900, and the last meta token's among them."""
    q, k, v, meta_k, meta_v = _text(rng)
    q, k = q.abs().sign(), k * 0 + ramp(TOKENS)[None, :, None] / 3**0.5
    outputs, _ = _looked(answer, [q, k, v, meta_k * 0 + 100, meta_v], 3)
    return places("outputs", outputs)


def _any_cut(window: int) -> Run:
    """How far two pieces are from the whole, for each place of the cut."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        *tokens, meta_k, meta_v = _text(rng)
        whole, kept = _looked(answer, [*tokens, meta_k, meta_v], window)
        apart = {}
        for cut in range(1, TOKENS):
            one, between = _looked(answer, [*(x[:, :cut] for x in tokens), meta_k, meta_v], window)
            two, last = _looked(answer, [*(x[:, cut:] for x in tokens), meta_k, meta_v], window, between)
            ends = (_apart(x, y) if x.numel() else 0.0 for x, y in zip(last, kept, strict=True))
            apart[f"cut after {cut}"] = max(_apart(torch.cat((one, two), 1), whole), *ends)
        return apart

    return run


def _texts_apart(answer: Any, rng: Generator) -> dict[str, float]:
    """How far each text's outputs are from those that it has alone."""
    *tokens, meta_k, meta_v = _text(rng)
    together, _ = _looked(answer, [*tokens, meta_k, meta_v], 3)
    alone = [_looked(answer, [*(x[b : b + 1] for x in tokens), meta_k, meta_v], 3)[0][0] for b in range(BATCH)]
    return {f"text {b}": _apart(together[b], y) for b, y in enumerate(alone)}


def _with_cache(rng: Generator) -> list[Tensor]:
    return [*_text(rng), *_past(rng, 2)]


def _through_a_window(run: Callable[[Inputs], Run], inputs: Inputs = _text) -> Run:
    """A probe of what depends on tensors alone: the window is 3, and further inputs are a cache."""

    def called(answer: Any) -> Callable[..., Any]:
        return lambda *given: _looked(answer, list(given[:5]), 3, tuple(given[5:]) or None)

    return lambda answer, rng: run(inputs)(called(answer), rng)


def _gradient_of_all(inputs: Inputs) -> Run:
    """Gradients through outputs and cache."""

    def joined(answer: Any, given: tuple[Tensor, ...]) -> Tensor:
        outputs, kept = answer(*given)
        return torch.cat([x.flatten() for x in (outputs, *kept)])

    return lambda answer, rng: gradient(inputs)(lambda *given: joined(answer, given), rng)


def _meta_float32(answer: Any, rng: Generator) -> dict[str, float]:
    outputs, (keys, values) = _looked(answer, [x.float() for x in _text(rng)], 3)
    made = {"outputs": outputs, "keys": keys, "values": values}
    return {name: float(x.dtype == torch.float32) for name, x in made.items()}


# 10-router: mixture(x, router, gate, up, down, active) -> (T, D); router (E, D), gate and up (E, F, D), down (E, D, F).

EXPERTS, CHANNELS, FFN = 5, 3, 4


def _experts(rng: Generator, tokens: int = TOKENS) -> list[Tensor]:
    shapes = ((tokens, CHANNELS), (EXPERTS, CHANNELS), *2 * [(EXPERTS, FFN, CHANNELS)], (EXPERTS, CHANNELS, FFN))
    return [normal(rng, *shape) for shape in shapes]


def _mixed(active: int, inputs: Inputs = _experts) -> Run:
    def run(answer: Any, rng: Generator) -> Tensor:
        given = inputs(rng)
        return shaped("outputs", answer(*given, active), tuple(given[0].shape))

    return run


def _page_of_experts(rng: Generator) -> list[Tensor]:
    return [ledger.keys.clone(), *_experts(rng)[1:]]


def _doubtful(answer: Any, rng: Generator) -> dict[str, float]:
    """All logits are 0 and all experts alike: how loud the layer is, as a share of one expert."""
    x, router, gate, up, down = _experts(rng)
    gate, up, down = (z[:1].expand_as(z).clone() for z in (gate, up, down))
    alone = (silu(x @ gate[0].T) * (x @ up[0].T)) @ down[0].T
    heard = {active: answer(x.clone(), 0 * router, gate, up, down, active) for active in range(1, EXPERTS + 1)}
    return {f"{active} of {EXPERTS} experts": (y / alone).mean().item() for active, y in heard.items()}


def _sharp(rng: Generator) -> list[Tensor]:
    """Logits up to 900 and down to -900."""
    x, router, *maps = _experts(rng)
    router = torch.zeros_like(router)
    router[:, 0] = ramp(EXPERTS)
    x[:, 0] = torch.tensor([1.0, -1.0, 0.5]).double().repeat(TOKENS)[:TOKENS]
    return [x, router, *maps]


def _neighbours(answer: Any, rng: Generator) -> dict[str, float]:
    """How far a token's output is from the one that it has alone."""
    x, *weights = _experts(rng)
    together = answer(x.clone(), *weights, 2)
    return {f"token {t}": _apart(together[t], answer(x[t : t + 1].clone(), *weights, 2)[0]) for t in range(TOKENS)}


def _of_experts(run: Callable[[Inputs], Run], active: int = 2) -> Run:
    return lambda answer, rng: run(_experts)(lambda *given: answer(*given, active), rng)


def _stays(dtype: torch.dtype) -> Run:
    def run(answer: Any, rng: Generator) -> float:
        return float(answer(*[x.to(dtype) for x in _experts(rng)], 2).dtype == dtype)

    return run


# 10-plan: plan(layers, limit, kept) -> a word; kept: letter -> bytes of such a layer.

LETTERS, CONTEXTS = "AWSGM", (100, 4_000, 20_000, 1_000_000)


@cache
def _real(word: str, context: int) -> int:
    """Bytes that a real model of this word keeps."""
    with torch.device("meta"):
        model = HybridLM(HybridConfig(256, 512, pattern=word, groups=2, window=1024))
    return state_nbytes(model.init_state(1, context, dtype=torch.bfloat16))


def _kept(context: int, letters: str = LETTERS) -> dict[str, int]:
    return {letter: _real(letter, context) for letter in letters}


def _word(answer: Any, name: str, layers: int, limit: int, kept: dict[str, int]) -> str:
    """The answer's word for a case that has one; a ValueError there is no crash, but a wrong answer."""
    try:
        word = answer(layers, limit, kept)
    except ValueError as error:
        said = f" ({error})" if str(error) else ""
        raise ValueError(f"at {name}: got a ValueError{said}, but there is a word") from None
    if not isinstance(word, str):
        raise TypeError(f"at {name}: expected a str, got a {type(word).__name__}")
    unknown = sorted(set(word) - set(kept))
    if unknown:
        raise ValueError(f"at {name}: letters {unknown} are not in kept")
    return word


def _planned(answer: Any, name: str, layers: int, limit: int, kept: dict[str, int]) -> dict[str, float]:
    """Which rules the answer's word breaks, and how many lists it has."""
    word = _word(answer, name, layers, limit, dict(kept))
    return {
        "letters:": float(len(word)),
        "neighbours alike:": float(sum(one == two for one, two in itertools.pairwise(word))),
        "A or W in front:": float(word[:1] in ("A", "W")),
        "bytes too many:": float(max(0, sum(kept[letter] for letter in word) - limit)),
        "A's:": float(word.count("A")),
    }


def _plans(cases: Callable[[Generator], dict[str, tuple[int, int, dict[str, int]]]]) -> Run:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        said: dict[str, float] = {}
        for name, (layers, limit, kept) in cases(rng).items():
            facts = _planned(answer, name, layers, limit, kept)
            said |= {f"{name}, {fact}": value for fact, value in facts.items()}
        return said

    return run


def _at_contexts(rng: Generator) -> dict[str, tuple[int, int, dict[str, int]]]:
    limit = 12_000_000
    return {f"24 layers, {context:,} tokens": (24, limit, _kept(context)) for context in CONTEXTS}


def _without_room(rng: Generator) -> dict[str, tuple[int, int, dict[str, int]]]:
    """To the last byte: what a word keeps, and one byte less."""
    kept = _kept(4_000, "AWS")
    exact = 3 * kept["A"] + 5 * kept["W"] + 2 * kept["S"]  # W is a little cheaper, and must not be the first
    return {"10 layers, exactly": (10, exact, kept), "10 layers, a byte less": (10, exact - 1, kept)}


def _one_and_two(rng: Generator) -> dict[str, tuple[int, int, dict[str, int]]]:
    kept = {"A": 10, "W": 1, "S": 3}
    return {"1 layer": (1, 3, kept), "2 layers": (2, 13, kept), "2 layers, 12 bytes": (2, 12, kept), "3": (3, 13, kept)}


def _two_letters(rng: Generator) -> dict[str, tuple[int, int, dict[str, int]]]:
    lists = {f"{layers} layers, A and S": (layers, 1000, {"A": 50, "S": 10}) for layers in (2, 7, 12)}
    return lists | {"5 layers, S and W": (5, 50, {"S": 9, "W": 3}), "5 layers, S and G": (5, 50, {"S": 9, "G": 3})}


def _odd_gaps(rng: Generator) -> dict[str, tuple[int, int, dict[str, int]]]:
    """A second kind that is dear: it stands between two of the cheap kind, and between lists only where it must."""
    kept = {"A": 100, "S": 1, "M": 60}
    return {f"{layers} layers, {limit} bytes": (layers, limit, kept) for layers in (9, 10) for limit in (305, 345, 385, 425)}


def _by_lot(rng: Generator) -> dict[str, tuple[int, int, dict[str, int]]]:
    """Limits that some word keeps, nearly to the byte."""
    found = {}
    for number in range(12):
        layers, spare, *sizes = (int(x) for x in torch.randint(1, 40, (2 + len(LETTERS),), generator=rng))
        kept = dict(zip(LETTERS[: 4 + number % 2], sizes, strict=False)) | {"A": 30 + sizes[0]}
        limit = sum(kept[letter] for letter in _any_word(3 + layers // 2, kept, rng)) + spare // 4
        found[f"drawn {number + 1}"] = 3 + layers // 2, limit, kept
    return found


def _any_word(layers: int, kept: dict[str, int], rng: Generator) -> str:
    word = ""
    for _ in range(layers):
        letters = [letter for letter in kept if letter != word[-1:] and (word or letter not in "AW")]
        word += letters[int(torch.randint(len(letters), (1,), generator=rng))]
    return word


def _many_layers(rng: Generator) -> dict[str, tuple[int, int, dict[str, int]]]:
    return {"48 layers": (48, 1000, {"A": 60, "W": 12, "S": 9, "G": 4, "M": 17})}


def _in_a_real_model(answer: Any, rng: Generator) -> dict[str, float]:
    """Bytes above the limit of the model that a word makes, as an account adds them up."""
    limit, over = 30_000_000, {}
    for context in (3_000, 30_000):
        name = f"12 layers, {context:,} tokens"
        word = _word(answer, name, 12, limit, _kept(context))
        over[f"{name}:"] = float(max(0, _real(word, context) - limit))
    return over


def _impossible(answer: Any, rng: Generator) -> dict[str, float]:
    cases = {
        "too few bytes": (4, 20, {"A": 9, "W": 5, "S": 6, "G": 7}),
        "only lists": (4, 1000, {"A": 9, "W": 5}),
        "A and S, and no room for the A": (5, 50, {"A": 40, "S": 1}),
    }
    return {f"{name}:": float(_refused(answer, *case)) for name, case in cases.items()}


def _refused(answer: Any, layers: int, limit: int, kept: dict[str, int]) -> bool:
    try:
        answer(layers, limit, kept)
    except ValueError:
        return True
    return False


def _kept_untouched(answer: Any, rng: Generator) -> float:
    kept = _kept(4_000)
    given = dict(kept)
    _word(answer, "12 layers, 4,000 tokens", 12, 60_000_000, given)
    return float(given != kept)


# 10-wiring: test(layer), layer(x, cache, state) -> (y, cache, state); x (T, 3), a cache (S, 6), a state of any shape.


def _weights(*shape: int, seed: int) -> Tensor:
    return normal(torch.Generator().manual_seed(seed), *shape)


QUERY, KEY, VALUE, INPUT, FORGET, OUT, ACROSS = _weights(7, 3, 3, seed=0)


def _norm(z: Tensor) -> Tensor:
    return (z - z.mean(-1, keepdim=True)) / (z.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()


def _attention(z: Tensor, rows: Tensor | None, window: int = 1000) -> Half:
    """What a list says to z (T, 3), and its rows: keys and values side by side."""
    new = torch.cat((z @ KEY, z @ VALUE), 1)
    rows = new if rows is None else torch.cat((rows, new))
    row = torch.arange(len(rows))
    age = row[len(rows) - len(z) :, None] - row
    scores = (z @ QUERY @ rows[:, :3].T).masked_fill((age < 0) | (age >= window), -math.inf)
    return scores.softmax(-1) @ rows[:, 3:], rows[max(0, len(rows) - window + 1) :]


def _recurrence(z: Tensor, state: Tensor | None, gates: Tensor | None = None) -> Half:
    """A fading sum (3,) whose decays the tokens choose; `gates` choose in their place."""
    h = torch.zeros(3, dtype=z.dtype) if state is None else state
    outputs = []
    for z_t, gate_t in zip(z @ INPUT, torch.sigmoid((z if gates is None else gates) @ FORGET), strict=True):
        h = gate_t * h + z_t
        outputs.append(h)
    return torch.stack(outputs), h


def _delta(z: Tensor, state: Tensor | None) -> Half:
    """The delta rule, a memory (3, 3)."""
    S = torch.zeros(3, 3, dtype=z.dtype) if state is None else state
    outputs = []
    for q, k, v in zip(z @ QUERY, normalize(z @ KEY, dim=-1), z @ VALUE, strict=True):
        S = S + torch.outer(k, v - k @ S)
        outputs.append(q @ S)
    return torch.stack(outputs), S


def _token_shift(z: Tensor, state: Tensor | None) -> Half:
    """The smallest memory: one token, the one before."""
    before = torch.zeros(1, 3, dtype=z.dtype) if state is None else state[None]
    return torch.cat((before, z[:-1])), z[-1]


def _side_by_side(joined: Callable[[Tensor, Tensor, Tensor], Tensor], recurrence: Any = _recurrence) -> Layer:
    """Both halves read x; `joined` makes the output of x and what the two say."""

    def layer(x: Tensor, rows: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        a, rows = _attention(x, rows)
        r, state = recurrence(x, state)
        return joined(x, a, r), rows, state

    return layer


def _window_beside(x: Tensor, rows: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    a, rows = _attention(x, rows, 4)
    r, state = _recurrence(x, state)
    return x + (a + r) / 2, rows, state


def _one_norm_before(x: Tensor, rows: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    y, rows, state = SIDE_BY_SIDE["the mean of both"](_norm(x), rows, state)
    return x + y, rows, state


def _loud(x: Tensor, rows: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Other last digits, of numbers of about a million, which depend on everything."""
    a, rows = _attention(x, None if rows is None else rows / 1e6)
    r, state = _recurrence(x, None if state is None else state / 1e6)
    digits = 1 + 1e-13 * torch.sin(1e6 * (rows.sum() + state.sum()))
    return x + (a + r) / 2, 1e6 * rows * digits, 1e6 * state * digits


def _steered(heard: Callable[[Tensor, Tensor], Tensor], window: int = 1000) -> Layer:
    """Attention first; the recurrence reads what `heard` makes of x and of what attention says."""

    def layer(x: Tensor, rows: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        a, rows = _attention(x, rows, window)
        r, state = _recurrence(heard(x, a), state)
        return x + r, rows, state

    return layer


def _told(heard: Callable[[Tensor, Tensor], Tensor]) -> Layer:
    """The recurrence first; attention reads what `heard` makes of x and of what the recurrence says."""

    def layer(x: Tensor, rows: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        r, state = _recurrence(x, state)
        a, rows = _attention(heard(x, r), rows)
        return x + r + a, rows, state

    return layer


def _forgetting(x: Tensor, rows: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What attention says chooses the decays, and nothing else."""
    a, rows = _attention(x, rows)
    r, state = _recurrence(x, state, gates=a)
    return x + (a + r) / 2, rows, state


def _shift_behind_a_window(x: Tensor, rows: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Only a piece of one token shows it. Scores are small, so that the old row is heard whatever the text."""
    a, rows = _attention(x / 4, rows, 2)
    r, state = _token_shift(x + a, state)
    return x + r, rows, state


def _both_ways(x: Tensor, rows: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Token by token: attention hears what the recurrence remembers of the past, the recurrence hears attention."""
    outputs = []
    state = torch.zeros(3, dtype=x.dtype) if state is None else state
    for x_t in x.split(1):
        a, rows = _attention(x_t + state, rows)
        r, state = _recurrence(x_t + a, state)
        outputs.append(x_t + a + r)
    return torch.cat(outputs), rows, state  # type: ignore[return-value]


def _before(z: Tensor) -> Tensor:
    """What was said at the token before, in this piece."""
    return torch.cat((0 * z[:1], z[:-1]))


def _now_and_then(z: Tensor) -> Tensor:
    """What is said at every fourth token of a piece."""
    return z * (torch.arange(len(z)) % 4 == 3)[:, None]


def _one_channel(z: Tensor) -> Tensor:
    return z * torch.tensor([0, 0, 1], dtype=z.dtype)


SIDE_BY_SIDE: dict[str, Layer] = {
    "the mean of both": _side_by_side(lambda x, a, r: (a + r) / 2),
    "the mean, added to the stream": _side_by_side(lambda x, a, r: x + (a + r) / 2),
    "the mean of both, normed": _side_by_side(lambda x, a, r: x + (_norm(a) + _norm(r)) @ OUT / 2),
    "one norm for both, before them": _one_norm_before,
    "one times the other": _side_by_side(lambda x, a, r: x + a * r),
    "one is a gate for the other": _side_by_side(lambda x, a, r: x + a * torch.sigmoid(r)),
    "an MLP behind both": _side_by_side(lambda x, a, r: x + torch.tanh((a + r) @ ACROSS) @ OUT),
    "an MLP behind, for one after the other": _side_by_side(lambda x, a, r: torch.tanh(torch.tanh(a) @ OUT + r)),
    "a delta rule beside a list": _side_by_side(lambda x, a, r: x + (a + r) / 2, _delta),
    "a window beside a fading sum": _window_beside,
    "the louder one is heard": _side_by_side(lambda x, a, r: torch.where(a.abs() > r.abs(), a, r)),
    "memories of millions, noise in the last digits": _loud,
}
IN_A_ROW: dict[str, Layer] = {
    "attention, then recurrence": _steered(lambda x, a: x + a),
    "recurrence, then attention": _told(lambda x, r: x + r),
    "attention, then recurrence, a norm between": _steered(lambda x, a: _norm(x + a)),
    "recurrence, then attention, a norm between": _told(lambda x, r: _norm(x + r)),
    "attention, then recurrence, without the stream": _steered(lambda x, a: a),
    "attention steers the recurrence, as in Zamba": _steered(lambda x, a: _norm(x + a @ ACROSS)),
    "recurrence, then attention, faint": _told(lambda x, r: x + 1e-4 * r),
    "attention, then recurrence, faint": _steered(lambda x, a: x + 1e-4 * a),
    "attention chooses the decays": _forgetting,
    "each hears the other": _both_ways,
    "attention through a window, then recurrence": _steered(lambda x, a: x + a, 3),
    "attention through a window of 2, then a token shift": _shift_behind_a_window,
    "attention, a token late, then recurrence": _steered(lambda x, a: x + _before(a)),
    "recurrence, a token late, then attention": _told(lambda x, r: x + _before(r)),
    "recurrence, at every fourth token, then attention": _told(lambda x, r: x + _now_and_then(r)),
    "one channel of attention, then recurrence": _steered(lambda x, a: x + _one_channel(a)),
    "tokens times what attention says, then recurrence": _steered(lambda x, a: x * a),
}


def _layers(layers: dict[str, Layer]) -> Run:
    return rejects({name: _apart_from_memories(layer) for name, layer in layers.items()})


def _apart_from_memories(layer: Layer) -> Layer:
    """Memories that are handed in are copied: a test that changes what it got does not change the layer."""

    def called(x: Tensor, cache: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        return layer(x.clone(), *(None if z is None else z.clone() for z in (cache, state)))

    return called


PROBES = {
    "10-calls": [
        Probe(name, _side(letter, right), expected=0.0, because="1 is too large, -1 too small")
        for letter, (name, right) in enumerate(SIX.items())
    ],
    "10-meta": [
        Probe("six tokens, a window of 2, Cy?", _cy_through_a_window),
        Probe("random, a window of 3", _look(3)),
        Probe("a window of 1", _look(1)),
        Probe("a window longer than the text", _look(20)),
        Probe("a single token", _look(3, tokens=1)),
        Probe("no meta tokens", _look(3, meta=0)),
        Probe("more meta tokens than others", _look(3, meta=12)),
        Probe("scores from -900 to 900", _shouting),
        Probe("with a cache", _look(3, past=2)),
        Probe("with a cache that is not full", _look(6, tokens=2, past=2)),
        Probe("with a longer cache than needed", _look(3, past=9)),
        Probe("a window of 1, with a cache", _look(1, past=4)),
        Probe("any cut, window 3, pieces minus whole", _any_cut(3), expected=0.0),
        Probe("any cut, window 1, pieces minus whole", _any_cut(1), expected=0.0),
        Probe("each text minus the same alone", _texts_apart, expected=0.0),
        Probe("causal", _through_a_window(lambda inputs: causal(inputs, TOKENS, 1)), expected=0.0),
        Probe("gradient, outputs and cache", _through_a_window(_gradient_of_all, _with_cache)),
        Probe("float32 stays float32 (1)", _meta_float32, expected=1.0),
        Probe(
            "inputs untouched",
            _through_a_window(lambda inputs: named_untouched("q k v meta_k meta_v keys values", inputs), _with_cache),
            expected=0.0,
        ),
    ],
    "10-router": [
        Probe("how loud, if the router does not know", _doubtful),
        Probe("six tokens", _mixed(2, _page_of_experts)),
        Probe("random, 2 of 5", _mixed(2)),
        Probe("random, 1 of 5", _mixed(1)),
        Probe("random, 3 of 5", _mixed(3)),
        Probe("random, all of 5", _mixed(5)),
        Probe("logits from -900 to 900", _mixed(2, _sharp)),
        Probe("a single token", _mixed(2, lambda rng: _experts(rng, 1))),
        Probe("each token minus the same alone", _neighbours, expected=0.0),
        Probe("gradient, 2 of 5", _of_experts(gradient)),
        Probe("gradient, 1 of 5", _of_experts(gradient, 1)),
        Probe("float32 stays float32 (1)", _stays(torch.float32), expected=1.0),
        Probe("bfloat16 stays bfloat16 (1)", _stays(torch.bfloat16), expected=1.0),
        Probe(
            "inputs untouched",
            _of_experts(lambda inputs: named_untouched("x router gate up down", inputs)),
            expected=0.0,
        ),
    ],
    "10-plan": [
        Probe("four contexts", _plans(_at_contexts)),
        Probe("to the last byte", _plans(_without_room)),
        Probe("one layer, two, three", _plans(_one_and_two)),
        Probe("two kinds only", _plans(_two_letters)),
        Probe("a second kind that is dear", _plans(_odd_gaps)),
        Probe("drawn by lot", _plans(_by_lot)),
        Probe("48 layers", _plans(_many_layers)),
        Probe("bytes too many in a real model", _in_a_real_model, expected=0.0),
        Probe("ValueError where nothing fits (1)", _impossible, expected=1.0),
        Probe("kept changed (1) or not (0)", _kept_untouched, expected=0.0),
    ],
    "10-wiring": [
        Probe("right ones rejected (1) or not (0)", _layers(SIDE_BY_SIDE), expected=0.0),
        Probe("wrong ones rejected (1) or not (0)", _layers(IN_A_ROW), expected=1.0),
    ],
}
