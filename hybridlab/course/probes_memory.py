"""The checks of exercise 12: what turns answers about memory into numbers.

The claims at the end, some of which come out and some of which do not, are what task 12-claim hands to a learner's test.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import scaled_dot_product_attention

from hybridlab.course.probe import Probe, Run, gradient, normal, rejects, untouched
from hybridlab.measure.footprint import Footprint, unit_bytes
from hybridlab.measure.memory import DTYPES
from hybridlab.measure.preset_footprints import AS_BUILT, preset_footprints
from hybridlab.state import state_nbytes

GIB, MIB = 2**30, 2**20
GB, MB = 10**9, 10**6
LONG = 262_144  # what papers call 256K

# 12-row: six numbers. Each probe puts one of them back to where it came from, so that a verdict tells no answer.

CALLS, WINDOWED, WINDOW, MAMBAS, CHANNELS, MIXTURES = 6, 3, 4096, 40, 8192, 20
ROW = 2 * 4 * 128 * 2
STATE = MAMBAS * CHANNELS * (3 * 2 + 16 * 4)
EXPERT = 3 * 4096 * 14_336
DEVICE, WEIGHTS, CONVERSATION = 72 * GB, 62 * GB, 32_768


def _whole(number: Any) -> int:
    if int(number) != number:
        raise ValueError(f"expected a whole number, got {number}")
    return int(number)


def _cache(tokens: int) -> int:
    return ROW * (CALLS * tokens + WINDOWED * min(tokens, WINDOW - 1))


def _window(answer: Any, rng: Generator) -> float:
    return (float(answer[1]) * GIB / ROW - CALLS * LONG) / WINDOWED + 1


def _channel(answer: Any, rng: Generator) -> dict[str, float]:
    """Taken apart: 16 numbers of 2 or of 4 bytes make a multiple of 32, and a few inputs stay far below it."""
    scan, conv = divmod(float(answer[2]) / (MAMBAS * CHANNELS), 16 * 2)
    return {"inputs that it reads again": conv / 2, "bytes of a number of its state": scan * 2}


def _crossed(answer: Any, rng: Generator) -> dict[str, float]:
    tokens = _whole(answer[3])
    return {"your number of tokens": float(_cache(tokens) > STATE), "one token less": float(_cache(tokens - 1) <= STATE)}


def _seated(answer: Any, rng: Generator) -> dict[str, float]:
    seats, one = _whole(answer[4]), _cache(CONVERSATION) + STATE
    return {
        "your number of conversations": float(WEIGHTS + seats * one <= DEVICE),
        "one more": float(WEIGHTS + (seats + 1) * one > DEVICE),
    }


# 12-int8: pack(x) -> (codes, scales) and attend(q, keys, values) -> outputs, checked as a pair.
# x (T, G, W), codes (T, G, W) int8, scales (T, G) bfloat16; q (H, K), outputs (H, V).

TOKENS, GROUPS, HEADS, KEYS, VALUES = 7, 2, 6, 16, 12
SIZES = "rows from 1e-30 to 1e30"


def _rows(rng: Generator, tokens: int = TOKENS) -> Tensor:
    return normal(rng, tokens, GROUPS, KEYS)


def _of_all_sizes(rng: Generator) -> Tensor:
    """Rows whose largest numbers go from 1e-30 to 1e30."""
    return _rows(rng) * 10 ** torch.linspace(-30, 30, TOKENS, dtype=torch.float64)[:, None, None]


def _with_one_loud_row(rng: Generator) -> Tensor:
    x = _rows(rng)
    x[3, 1] *= 1000
    return x


def _with_silence(rng: Generator) -> Tensor:
    x = _rows(rng)
    x[2] = 0
    return x


def _extremes(rng: Generator) -> Tensor:
    """Each row has its largest number with either sign."""
    x = _rows(rng)
    x[:, :, 3] = x.abs().amax(-1)
    x[:, :, 5] = -x[:, :, 3]
    return x


def _packed(answer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales of the shapes and dtypes that were asked for; anything else is an error, which makes a verdict."""
    codes, scales = answer[0](x.clone())
    for name, made, shape, dtype in (
        ("codes", codes, tuple(x.shape), torch.int8),
        ("scales", scales, tuple(x.shape[:-1]), torch.bfloat16),
    ):
        if (tuple(made.shape), made.dtype) != (shape, dtype):
            raise ValueError(f"{name}: expected {shape} of {dtype}, got {tuple(made.shape)} of {made.dtype}")
    return codes, scales


def _unpacked(codes: Tensor, scales: Tensor) -> Tensor:
    return codes.double() * scales.double()[..., None]


def _beyond_half_a_step(rows: Callable[[Generator], Tensor]) -> Run:
    """For each row, by how many steps more than a half its worst number is off."""

    def run(answer: Any, rng: Generator) -> Tensor:
        x = rows(rng)
        codes, scales = _packed(answer, x)
        steps = (x.double() - _unpacked(codes, scales)).abs() / scales.double()[..., None]
        return (steps.amax(-1) - 0.5).clamp(min=0)

    return run


def _steps_to_the_largest(answer: Any, rng: Generator) -> Tensor:
    x = _of_all_sizes(rng)
    _, scales = _packed(answer, x)
    return x.abs().amax(-1) / scales.double()


def _silent_rows(answer: Any, rng: Generator) -> Tensor:
    return _unpacked(*_packed(answer, _with_silence(rng)))[2]


def _alone(answer: Any, rng: Generator) -> dict[str, float]:
    """How far rows that are packed together are from the same rows packed alone."""
    x = _with_one_loud_row(rng)
    whole = _unpacked(*_packed(answer, x))
    return {f"token {t + 1}": _apart(whole[t : t + 1], _unpacked(*_packed(answer, x[t : t + 1]))) for t in range(TOKENS)}


def _packed_bytes(answer: Any, rng: Generator) -> dict[str, float]:
    """What a packed cache keeps alive, beyond a byte a number and two bytes a row."""
    return {
        f"{tokens} tokens": float(state_nbytes(_packed(answer, _rows(rng, tokens))) - tokens * GROUPS * (KEYS + 2))
        for tokens in (1, TOKENS)
    }


def _apart(mine: Tensor, other: Tensor) -> float:
    return (mine - other).abs().max().item() if mine.shape == other.shape else math.nan


def _cache8(rng: Generator, tokens: int, width: int) -> tuple[Tensor, Tensor]:
    codes = torch.randint(-127, 128, (tokens, GROUPS, width), generator=rng).to(torch.int8)
    return codes, (0.01 + 0.01 * torch.rand(tokens, GROUPS, generator=rng)).bfloat16()


def _question(rng: Generator, tokens: int = TOKENS) -> list[Any]:
    """A query, packed keys and packed values."""
    return [normal(rng, HEADS, KEYS), _cache8(rng, tokens, KEYS), _cache8(rng, tokens, VALUES)]


def _attended(answer: Any, q: Tensor, keys: Any, values: Any) -> Tensor:
    outputs = answer[1](q, keys, values)
    expected = (len(q), values[0].shape[-1])
    if tuple(outputs.shape) != expected:
        raise ValueError(f"outputs: expected shape {expected}, got {tuple(outputs.shape)}")
    return outputs


def _asked(question: Callable[[Generator], list[Any]]) -> Run:
    return lambda answer, rng: _attended(answer, *question(rng))


def _one_key_for_all(rng: Generator) -> list[Any]:
    """One head of keys and values, which serves all heads of queries."""
    q, *caches = _question(rng)
    return [q, *((codes[:, :1], scales[:, :1]) for codes, scales in caches)]


def _loud_question(rng: Generator) -> list[Any]:
    """Scores from -889 to 889, each key louder than the one before it."""
    q, (codes, scales), values = _question(rng)
    q[:, 0], scales[:] = 4, 7
    codes[:] = 0
    codes[:, :, 0] = torch.linspace(-127, 127, TOKENS).to(torch.int8)[:, None]
    return [q, (codes, scales), values]


def _in_float32(rng: Generator) -> list[Any]:
    q, *caches = _question(rng)
    return [q.float(), *caches]


def _query_gradient(answer: Any, rng: Generator) -> Any:
    q, *caches = _question(rng)
    return gradient(lambda _: [q])(lambda query: _attended(answer, query, *caches), rng)


def _dtypes(answer: Any, rng: Generator) -> dict[str, float]:
    q, *caches = _question(rng)
    kinds = (torch.float64, torch.float32, torch.bfloat16)
    return {str(kind).removeprefix("torch."): float(answer[1](q.to(kind), *caches).dtype == kind) for kind in kinds}


def _caches_untouched(answer: Any, rng: Generator) -> dict[str, float]:
    q, keys, values = _question(rng)
    given = {"q": q, "codes of k": keys[0], "scales of k": keys[1], "codes of v": values[0], "scales of v": values[1]}
    kept = {name: x.clone() for name, x in given.items()}
    answer[1](q, keys, values)
    return {name: _apart(x.double(), kept[name].double()) for name, x in given.items()}


def _beside_all_bits(answer: Any, rng: Generator) -> Tensor:
    """How far 200 tokens in 8 bits are from the same in 64; a few keys and values are loud."""
    q, k, v = normal(rng, HEADS, KEYS), normal(rng, 200, GROUPS, KEYS), normal(rng, 200, GROUPS, VALUES)
    k[7, 0] *= 3
    v[150, 1] *= 10
    exact = scaled_dot_product_attention(q[:, None], k.transpose(0, 1), v.transpose(0, 1), enable_gqa=True)
    return _attended(answer, q, _packed(answer, k), _packed(answer, v)) - exact[:, 0]


# 12-meta: remember(cache, k, v, window, meta) -> (keys, values); k (B, T, G, K), v (B, T, G, V), a cache is such a pair.

BATCH, PIECES = 2, [5, 1, 4, 2]
SETTINGS = {
    "window 4, 3 meta tokens": (4, 3),
    "window 4, none": (4, 0),
    "window 1, 3 meta tokens": (1, 3),
    "window 1, none": (1, 0),
    "window 2, 1 meta token": (2, 1),
    "window 3, 6 meta tokens": (3, 6),
    "window 20, 3 meta tokens": (20, 3),
}


def _text(rng: Generator, tokens: int, batch: int = BATCH) -> list[Tensor]:
    return [normal(rng, batch, tokens, GROUPS, width) for width in (KEYS, VALUES)]


def _nothing(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return k[:, :0].clone(), v[:, :0].clone()


def _remembered(answer: Any, text: Sequence[Tensor], pieces: list[int], window: int, meta: int) -> list[Tensor]:
    """The cache after a text that came in pieces."""
    cache = _nothing(*text)
    for k, v in zip(*(x.split(pieces, 1) for x in text), strict=True):
        cache = answer(cache, k.clone(), v.clone(), window, meta)
    return list(cache)


def _row_count(answer: Any, rng: Generator) -> dict[str, float]:
    counts = {}
    for name, setting in SETTINGS.items():
        for pieces in ([2], [12], PIECES):
            keys, values = _remembered(answer, _text(rng, sum(pieces)), pieces, *setting)
            if keys.shape[1] != values.shape[1]:
                raise ValueError(f"expected as many rows of keys as of values, got {keys.shape[1]} and {values.shape[1]}")
            counts[f"{name}, pieces of {pieces}"] = float(keys.shape[1])
    return counts


def _what_is_kept(pieces: list[int], batch: int = BATCH) -> Run:
    """The rows themselves, keys first, of all settings."""

    def run(answer: Any, rng: Generator) -> Tensor:
        tokens, kept = sum(pieces), []
        for name, (window, meta) in SETTINGS.items():
            cache = _remembered(answer, _text(rng, tokens, batch), pieces, window, meta)
            rows = min(tokens, meta + window - 1)
            if any(x.shape[1] != rows for x in cache):
                raise ValueError(f"{name}: expected {rows} rows, got {', '.join(str(x.shape[1]) for x in cache)}")
            kept += [x.flatten() for x in cache]
        return torch.cat(kept)

    return run


def _bytes_too_many(batch: int) -> Run:
    """What a cache keeps alive, beyond the bytes of the rows it has."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        found = {}
        for (name, setting), pieces in product(SETTINGS.items(), ([12], PIECES)):
            cache = _remembered(answer, _text(rng, 12, batch), pieces, *setting)
            found[f"{name}, pieces of {pieces}"] = float(state_nbytes(cache) - sum(x.nbytes for x in cache))
        return found

    return run


def _stays(answer: Any, rng: Generator) -> dict[str, float]:
    text = _text(rng, 9)
    kinds = (torch.float32, torch.bfloat16)
    return {
        str(kind).removeprefix("torch."): float(
            all(x.dtype == kind for x in _remembered(answer, [x.to(kind) for x in text], [9], 4, 3))
        )
        for kind in kinds
    }


def _continued(rng: Generator) -> list[Tensor]:
    """A cache that is full, and three tokens more."""
    return [*_text(rng, 6), *_text(rng, 3)]


def _joined(answer: Any) -> Callable[..., Tensor]:
    def run(*given: Tensor) -> Tensor:
        return torch.cat([x.flatten() for x in answer((given[0], given[1]), given[2], given[3], 4, 3)])

    return run


def _meta_untouched(answer: Any, rng: Generator) -> dict[str, float]:
    changes = untouched(_continued)(_joined(answer), rng)
    return dict(zip(("cached k", "cached v", "k", "v"), changes.values(), strict=True))


# 12-plan: longest(weights, kept, room, batch, limit) -> tokens and plan(models, room, context, batch, limit) -> pairs.

CALLS_AT_MOST = 100
LIMIT = 2**24
Kept = Callable[[int], int]


class _Account:
    """A model's bytes as a function that may be asked so often, and for no text that is not there."""

    def __init__(self, kept: Kept, limit: int) -> None:
        self.kept, self.limit, self.calls = kept, limit, 0

    def __call__(self, tokens: int) -> int:
        self.calls += 1
        if self.calls > CALLS_AT_MOST:
            raise RuntimeError(f"kept was called more than {CALLS_AT_MOST} times")
        if type(tokens) is not int or not 1 <= tokens <= self.limit:
            raise ValueError(f"kept takes a whole number of tokens from 1 to {self.limit:,}, got {tokens!r}")
        return self.kept(tokens)


def _footprint(preset: str) -> Footprint:
    return preset_footprints()[preset][AS_BUILT]


def _preset(name: str) -> tuple[int, Kept]:
    found = _footprint(name)
    return found.weight_bytes(), found.kept_bytes


def _longest(answer: Any, weights: int, kept: Kept, room: int, batch: int = 1, limit: int = LIMIT) -> float:
    return answer[0](weights, _Account(kept, limit), room, batch, limit)


def _of_presets(names: tuple[str, ...], batch: int = 1) -> Run:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        return {
            f"{name}, {room} GiB": _longest(answer, *_preset(name), room * GIB, batch)
            for name, room in product(names, (4, 16, 24, 80))
        }

    return run


def _a_step(tokens: int) -> int:
    """Pages of 256 rows of 100 bytes."""
    return 100 * 256 * math.ceil(tokens / 256)


def _a_doubling(tokens: int) -> int:
    """A buffer that is made twice as long whenever it is full."""
    return 8 * 2 ** math.ceil(math.log2(tokens))


def _to_the_byte(answer: Any, rng: Generator) -> dict[str, float]:
    """Room for so many tokens of 7 bytes beside a state of 50 and weights of 1,000; a byte less, and one more."""
    return {
        f"{tokens} tokens {more:+d} byte": _longest(answer, 1000, lambda t: 50 + 7 * t, 1050 + 7 * tokens + more)
        for tokens, more in product((1, 2, 1000, 123_457), (-1, 0, 1))
    }


def _stairs(answer: Any, rng: Generator) -> dict[str, float]:
    return {
        f"{name}, {room:,} bytes": _longest(answer, 10, kept, room)
        for (name, kept), room in product((("pages", _a_step), ("doubling", _a_doubling)), (30_000, 1_000_000, 1_048_586))
    }


def _ends(answer: Any, rng: Generator) -> dict[str, float]:
    return {
        "a state, and room for it": _longest(answer, 5, lambda tokens: 9, 14),
        "a state, and a byte too little": _longest(answer, 5, lambda tokens: 9, 13),
        "no state at all": _longest(answer, 5, lambda tokens: 0, 5),
        "no room for the weights": _longest(answer, 50, lambda tokens: tokens, 20),
        "limit 1, room": _longest(answer, 5, lambda tokens: tokens, 100, limit=1),
        "limit 1, no room": _longest(answer, 5, lambda tokens: tokens, 5, limit=1),
        "limit 1,000": _longest(answer, 5, lambda tokens: tokens, 10**6, limit=1000),
        "limit 1,000, a token too many": _longest(answer, 5, lambda tokens: tokens, 1004, limit=1000),
    }


DEVICE_MODELS = ("mistral-7b", "mamba-2.8b", "zamba-7b", "rwkv4-3b", "gemma2-2b", "hymba-1.5b", "griffin-7b", "jamba-v0.1")


def _planned(room: int, context: int, batch: int = 1) -> Run:
    """How many fit, then for each its place in the list of models, and its longest text."""

    def run(answer: Any, rng: Generator) -> list[float]:
        models = {}
        for name in DEVICE_MODELS:
            weights, kept = _preset(name)
            models[name] = (weights, _Account(kept, LIMIT))
        found = answer[1](models, room, context, batch, LIMIT)
        pairs = [(DEVICE_MODELS.index(name), longest) for name, longest in found]
        return [len(pairs), *(number for pair in pairs for number in pair)]

    return run


# 12-claim: test(printed, count, caption) and behind(printed, count, captions), checked as a pair.


class Counted(NamedTuple):
    """What `account` counts of one model at one context."""

    kv_bytes: int
    state_bytes: int
    weight_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.kv_bytes + self.state_bytes


def count_preset(
    preset: str, context: int, batch: int = 1, dtype: str = "bfloat16", state_dtype: str = "float32"
) -> Counted:
    """The bytes of `account(preset, ...)`, which are the same, from what was measured before: no model is built."""
    found, sizes = _footprint(preset), unit_bytes(DTYPES[dtype], DTYPES[state_dtype])
    cache, state = (
        batch * sum(piece.units(context) * sizes[piece.unit] for piece in found.pieces if piece.cache == cached)
        for cached in (True, False)
    )
    return Counted(cache, state, found.weight_bytes(dtype))


Claim = tuple[str, Callable[..., Counted], dict[str, Any]]


def _caption(
    what: str = "kv_bytes",
    context: int = LONG,
    batch: int = 1,
    dtype: str = "bfloat16",
    state_dtype: str = "float32",
    unit: int = GIB,
    than: str | None = None,
) -> dict[str, Any]:
    other = partial(count_preset, than) if than else None
    settings = {"context": context, "batch": batch, "dtype": dtype, "state_dtype": state_dtype}
    return {"what": what, **settings, "unit": unit, "than": other}


def _claim(printed: str, preset: str, **caption: Any) -> Claim:
    return printed, partial(count_preset, preset), _caption(**caption)


RIGHT_CLAIMS: dict[str, Claim] = {
    "Jamba, one digit": _claim("4", "jamba-v0.1"),
    "Jamba, one digit in another unit": _claim("4", "jamba-v0.1", unit=GB),
    "Llama 2": _claim("128", "llama-2-7b"),
    "Zamba, all digits": _claim("94.25", "zamba-7b"),
    "GoldFinch, one decimal": _claim("0.1", "goldfinch-1.45b"),
    "Hymba, one digit": _claim("1", "hymba-1.5b"),
    "a cache that is not there": _claim("0", "rwkv4-7b"),
    "a cache that is too small to be seen": _claim("0.0", "griffin-7b"),
    "a state in 16 bits": _claim("8.7", "jamba-v0.1", what="state_bytes", state_dtype="bfloat16", unit=MB),
    "a state in 32 bits": _claim("16.1", "jamba-v0.1", what="state_bytes", unit=MB),
    "a state to the byte": _claim("16056320", "jamba-v0.1", what="state_bytes", unit=1),
    "eight conversations": _claim("8.00", "llama-3.1-8b", context=8192, batch=8),
    "a cache in 32 bits": _claim("8.0", "jamba-v0.1", dtype="float32"),
    "eight times smaller": _claim("8.0", "jamba-v0.1", than="mistral-7b"),
    "larger, not smaller": _claim("0.34", "zamba-7b", than="mistral-7b"),
    "Llama 3.2, 8K = 8,000": _claim("918", "llama-3.2-3b", context=8000, unit=MB),
    "Hymba, 8K = 8,192": _claim("79", "hymba-1.5b", context=8192, unit=MB),
    "Hymba, cache and state": _claim("86", "hymba-1.5b", what="total_bytes", context=8192, unit=MB),
    "weights": _claim("103", "jamba-v0.1", what="weight_bytes", unit=GB),
}
WRONG_CLAIMS: dict[str, Claim] = {
    "another unit": _claim("4.0", "jamba-v0.1", unit=GB),
    "one digit too many": _claim("1.0", "hymba-1.5b"),
    "eight conversations for one": _claim("8", "llama-3.1-8b", context=8192),
    "one conversation for two": _claim("4", "jamba-v0.1", batch=2),
    "shared weights, shared cache": _claim("7.25", "zamba-7b"),
    "no window": _claim("84", "gemma2-9b"),
    "as many heads of keys as of queries": _claim("128", "mistral-7b"),
    "8K = 8,000 for 8,192": _claim("918", "llama-3.2-3b", context=8192, unit=MB),
    "a little less": _claim("11.67", "hymba-1.5b", context=8000, than="llama-3.2-3b"),
    "16 bits for 32": _claim("8.7", "jamba-v0.1", what="state_bytes", unit=MB),
    "32 bits for 16": _claim("16.1", "jamba-v0.1", what="state_bytes", state_dtype="bfloat16", unit=MB),
    "16 bits for 32, cache": _claim("4", "jamba-v0.1", dtype="float32"),
    "weights in one byte": _claim("51.6", "jamba-v0.1", what="weight_bytes", unit=GB),
    "the state left out": _claim("4.00", "jamba-v0.1", what="total_bytes"),
    "upside down": _claim("0.125", "jamba-v0.1", than="mistral-7b"),
    "than itself, not than Llama 2": _claim("6", "zamba-7b", than="llama-2-7b"),
    "a little more": _claim("91.1", "zamba2-7b"),
    "a byte": _claim("16056321", "jamba-v0.1", what="state_bytes", unit=1),
    "a state for a cache": _claim("2", "rwkv4-7b", unit=MB),
    "cut, not rounded": _claim("169", "mamba2-2.7b", what="state_bytes", unit=MB),
    "the same size, not as large": _claim("1", "zamba2-7b", than="mistral-7b"),
}


def _claims(claims: dict[str, Claim]) -> Run:
    run = rejects(claims)
    return lambda answer, rng: run(lambda claim: answer[0](claim[0], claim[1], dict(claim[2])), rng)


def _explained(printed: str, preset: str, captions: Sequence[dict[str, Any]]) -> Run:
    """For each caption whether the answer names it."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        found = answer[1](printed, partial(count_preset, preset), [dict(caption) for caption in captions])
        if not isinstance(found, list) or found != sorted(set(found)) or any(type(i) is not int for i in found):
            raise ValueError(f"expected a list of places, the smallest first, got {str(found)[:60]}")
        if not set(found) <= set(range(len(captions))):
            raise ValueError(f"expected places from 0 to {len(captions) - 1}, got {found}")
        return {f"caption {i} named (1) or not (0):": float(i in found) for i in range(len(captions))}

    return run


JAMBA_CAPTIONS = [
    _caption(what, context, unit=unit)
    for what, context, unit in product(("kv_bytes", "total_bytes"), (LONG, 256_000), (GIB, GB))
]
HYMBA_CAPTIONS = [
    _caption(what, context, unit=unit)
    for what, context, unit in product(("kv_bytes", "total_bytes"), (8000, 8192), (MB, MIB))
]
STATE_CAPTIONS = [
    _caption("state_bytes", dtype=dtype, state_dtype=state, batch=batch, unit=MB)
    for dtype, state, batch in product(("float32", "bfloat16"), ("float32", "bfloat16"), (1, 2))
]
TIMES_CAPTIONS = [_caption(context=context, than="llama-3.2-3b") for context in (8000, 8192)]


PROBES = {
    "12-row": [
        Probe("a: calls that this has room for", lambda answer, rng: float(answer[0]) / ROW, 6.0),
        Probe("b: window", _window, 4096.0, 1e-5, "every digit of b counts"),
        Probe("c: a channel", _channel),
        Probe("d: larger than c (1), and not yet with one token less (1)", _crossed, 1.0),
        Probe("e: they fit (1), and one more would not (1)", _seated, 1.0),
        Probe("f: experts that a token uses", lambda answer, rng: 16 - float(answer[5]) / (MIXTURES * EXPERT), 2.0),
    ],
    "12-int8": [
        Probe("pack: steps beyond a half", _beyond_half_a_step(_rows), 0.0, 1e-3),
        Probe("pack: steps beyond a half, bfloat16", _beyond_half_a_step(lambda rng: _rows(rng, 200).bfloat16()), 0.0, 1e-3),
        Probe("pack: steps beyond a half, faint and loud", _beyond_half_a_step(_of_all_sizes), 0.0, 1e-3, SIZES),
        Probe("pack: steps beyond a half, the largest twice", _beyond_half_a_step(_extremes), 0.0, 1e-3),
        Probe("pack: steps to a row's largest number", _steps_to_the_largest, 127.0, 4e-3, SIZES),
        Probe("pack: a row of zeros", _silent_rows, 0.0),
        Probe("pack: together minus alone", _alone, 0.0),
        Probe("pack: bytes too many", _packed_bytes, 0.0),
        Probe("pack: inputs untouched", lambda a, rng: untouched(lambda rng: [_with_silence(rng)])(a[0], rng), 0.0),
        Probe("attend: seven tokens", _asked(_question)),
        Probe("attend: a single token", _asked(lambda rng: _question(rng, 1))),
        Probe("attend: one head of keys for all", _asked(_one_key_for_all)),
        Probe("attend: a ramp of scores", _asked(_loud_question), because="scores from -889 to 889"),
        Probe("attend: float32", _asked(_in_float32), tolerance=1e-5),
        Probe("attend: gradient of q", _query_gradient),
        Probe("attend: the dtype of q stays (1)", _dtypes, 1.0),
        Probe("attend: inputs untouched", _caches_untouched, 0.0),
        Probe("both: 8 bits minus 64", _beside_all_bits, 0.0, 0.05),
    ],
    "12-meta": [
        Probe("rows", _row_count),
        Probe("what is kept, all at once", _what_is_kept([12])),
        Probe("what is kept, a young text", _what_is_kept([2])),
        Probe("what is kept, in pieces", _what_is_kept(PIECES)),
        Probe("what is kept, token by token", _what_is_kept([1] * 11)),
        Probe("bytes too many", _bytes_too_many(BATCH), 0.0),
        Probe("bytes too many, batch 1", _bytes_too_many(1), 0.0),
        Probe("gradient", lambda answer, rng: gradient(_continued)(_joined(answer), rng)),
        Probe("the dtype stays (1)", _stays, 1.0),
        Probe("inputs untouched", _meta_untouched, 0.0),
    ],
    "12-plan": [
        Probe("longest: caches", _of_presets(("mistral-7b", "llama-2-7b", "zamba-7b")), tolerance=0.0),
        Probe("longest: windows", _of_presets(("gemma2-2b", "gemma2-9b", "hymba-1.5b", "griffin-7b")), tolerance=0.0),
        Probe("longest: states", _of_presets(("mamba-2.8b", "rwkv4-3b")), tolerance=0.0),
        Probe("longest: 50 conversations", _of_presets(("mistral-7b", "hymba-1.5b", "rwkv4-3b"), 50), tolerance=0.0),
        Probe("longest: to the byte", _to_the_byte, tolerance=0.0),
        Probe("longest: stairs", _stairs, tolerance=0.0, because="pages, and buffers that double"),
        Probe("longest: ends", _ends, tolerance=0.0),
        Probe("plan: 16 GiB, 32,768 tokens", _planned(16 * GIB, 32_768), tolerance=0.0),
        Probe("plan: 16 GiB, as many tokens as one of them has room for", _planned(16 * GIB, 20_571), tolerance=0.0),
        Probe("plan: 24 GiB, 8 conversations", _planned(24 * GIB, 8192, 8), tolerance=0.0),
        Probe("plan: 1 GiB", _planned(GIB, 100), tolerance=0.0),
    ],
    "12-claim": [
        Probe("test: right ones rejected (1) or not (0)", _claims(RIGHT_CLAIMS), 0.0),
        Probe("test: wrong ones rejected (1) or not (0)", _claims(WRONG_CLAIMS), 1.0),
        Probe("behind: Jamba's 4", _explained("4", "jamba-v0.1", JAMBA_CAPTIONS)),
        Probe("behind: Jamba's 4.0", _explained("4.0", "jamba-v0.1", JAMBA_CAPTIONS)),
        Probe("behind: Hymba's 79", _explained("79", "hymba-1.5b", HYMBA_CAPTIONS)),
        Probe("behind: Jamba's 8.7", _explained("8.7", "jamba-v0.1", STATE_CAPTIONS)),
        Probe("behind: Hymba's 11.67", _explained("11.67", "hymba-1.5b", TIMES_CAPTIONS)),
        Probe("behind: no captions", lambda answer, rng: len(answer[1]("4", partial(count_preset, "jamba-v0.1"), [])), 0.0),
    ],
}
