"""What `check_equivalence` feeds to each op: a literal table of awkward inputs an op.

One token, an odd length, one token past a chunk and past two, keys and values of different widths, with and without a state,
decays of nothing, of 0 (no fading) and of -20 (all but gone), a decay that is constant in time, keys near +-900 (where e^k
overflows), steps that forget everything or turn the sign. Sizes are small: Triton's interpreter runs them too.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybridlab.ops.taylor_attention import taylor_features

Tensors = dict[str, Tensor]
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Case(NamedTuple):
    """One row of a table: what it tries, how its tensors are made, and the op's keywords."""

    name: str
    make: Callable[..., Tensors]
    sizes: tuple[int, ...]
    how: Mapping[str, Any] = NOTHING
    options: Mapping[str, Any] = NOTHING

    def tensors(self) -> Tensors:
        """The same float64 tensors at every call; every number of them exists in float32 too."""
        generator = torch.Generator().manual_seed(0)
        made = self.make(_Draw(generator), *self.sizes, **self.how)
        return {name: _rounded(x) for name, x in made.items()}


def _rounded(x: Tensor) -> Tensor:
    if x.is_complex():
        return x.to(torch.complex64).to(torch.complex128)
    return x.float().double() if x.is_floating_point() else x


class _Draw:
    """Seeded normal and uniform numbers."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def log_decay(self, kind: str, *shape: int) -> Tensor:
        """Log decays of one kind: usual ones (0.5 to 0.999 a step), all 0, all -20, or all kinds beside each other."""
        usual = -torch.exp(self.uniform(*shape) * 6 - 6.5)
        pick = torch.arange(usual.numel()).view(shape) % 5
        mixed = torch.where(pick == 0, 0.0, torch.where(pick == 1, -20.0, usual))
        return {"usual": usual, "mixed": mixed, "0": 0 * usual, "-20": 0 * usual - 20}[kind]


def _linear_recurrence(draw: _Draw, B: int, T: int, D: int, decay: str = "usual", state: bool = True) -> Tensors:
    """`decay` may also be "signs": kept whole, turned around or forgotten, beside usual steps of either sign."""
    a = draw.log_decay("mixed" if decay == "signs" else decay, B, T, D).exp()
    if decay == "signs":
        a = torch.where(a < 1e-6, 0.0, a) * draw.normal(B, T, D).sign()
    tensors = {"a": a, "b": draw.normal(B, T, D)}
    return tensors | ({"state": draw.normal(B, D)} if state else {})


def _rg_lru(
    draw: _Draw, B: int, T: int, D: int, rate: float = 0.2, gates: str = "usual", state: bool = True, resets: bool = False
) -> Tensors:
    """`rate` is the typical -log_a; gates are usual ones, or "ends": usual ones beside 0 and 1."""
    tensors = {"x": draw.normal(B, T, D), "recurrence_gate": draw.uniform(B, T, D), "input_gate": draw.uniform(B, T, D)}
    if gates == "ends":
        r = tensors["recurrence_gate"]
        tensors["recurrence_gate"] = torch.where(r < 0.3, 0.0, torch.where(r > 0.8, 1.0, r))
    tensors["log_a"] = -rate * (0.1 + draw.uniform(D))
    if state:
        tensors["state"] = draw.normal(B, D)
    return tensors | ({"reset": draw.uniform(B, T) < 0.3} if resets else {})


def _selective_scan(
    draw: _Draw, B: int, T: int, E: int, N: int, steps: str = "usual", rates: str = "usual", bare: bool = False
) -> Tensors:
    """`steps` and `rates` may be "any": usual ones beside none, tiny and huge ones. `bare` has no D and no state."""
    dt, A = (4 * draw.uniform(B, T, E) - 3).exp(), -draw.normal(E, N).exp()
    if steps == "any":
        dt = _beside(dt, 0.0, 1e-6, 50.0)
    if rates == "any":
        A = _beside(A, 0.0, -1e-6, -20.0, -1e4)
    tensors = {"x": draw.normal(B, T, E), "dt": dt, "A": A, "B": draw.normal(B, T, N), "C": draw.normal(B, T, N)}
    return tensors if bare else tensors | {"D": draw.normal(E), "state": draw.normal(B, E, N)}


def _ssd(
    draw: _Draw,
    B: int,
    T: int,
    H: int,
    P: int,
    N: int,
    groups: int = 1,
    steps: str = "usual",
    rates: str = "usual",
    bare: bool = False,
) -> Tensors:
    """`steps`, `rates` and `bare` as for the selective scan."""
    dt, A = (4 * draw.uniform(B, T, H) - 3).exp(), -draw.normal(H).exp()
    if steps == "any":
        dt = _beside(dt, 0.0, 1e-6, 50.0)
    if rates == "any":
        A = _beside(A, 0.0, -20.0, -900.0)
    reads, writes = draw.normal(B, T, groups, N), draw.normal(B, T, groups, N)
    tensors = {"x": draw.normal(B, T, H, P), "dt": dt, "A": A, "B": writes, "C": reads}
    return tensors if bare else tensors | {"D": draw.normal(H), "state": draw.normal(B, H, P, N)}


def _retention(draw: _Draw, B: int, T: int, H: int, K: int, V: int, decay: str = "usual", state: bool = True) -> Tensors:
    q, k, v = draw.normal(B, T, H, K), draw.normal(B, T, H, K), draw.normal(B, T, H, V)
    tensors = {"q": q, "k": k, "v": v, "log_decay": draw.log_decay(decay, H)}
    return tensors | ({"state": draw.normal(B, H, K, V)} if state else {})


def _beside(usual: Tensor, *others: float) -> Tensor:
    """Some of the usual numbers become each of the others."""
    pick = torch.arange(usual.numel()).view(usual.shape) % (len(others) + 2)
    for i, other in enumerate(others):
        usual = torch.where(pick == i, other, usual)
    return usual


def _short_conv(draw: _Draw, B: int, T: int, D: int, W: int, bias: bool = True, state: bool = True) -> Tensors:
    tensors = {"x": draw.normal(B, T, D), "weight": draw.normal(D, W)}
    tensors |= {"bias": draw.normal(D)} if bias else {}
    return tensors | ({"state": draw.normal(B, W - 1, D)} if state else {})


def _long_conv(draw: _Draw, B: int, T: int, D: int, W: int, past: int | None = None, skip: bool = True) -> Tensors:
    tensors = {"x": draw.normal(B, T, D), "filter": draw.normal(D, W)}
    tensors |= {"skip": draw.normal(D)} if skip else {}
    return tensors | ({} if past is None else {"state": draw.normal(B, past, D)})


def _modal_conv(draw: _Draw, B: int, T: int, D: int, N: int, sizes: str = "usual", bare: bool = False) -> Tensors:
    """`sizes` of poles: below 1, or "any": 0, 1 and a little more beside those. `bare` has no skip and no state."""
    size = 0.5 + draw.uniform(D, N) / 2
    if sizes == "any":
        size = _beside(size, 0.0, 1.0, 1.02)
    poles = torch.polar(size, 6.3 * draw.uniform(D, N))
    residues, state = (torch.complex(draw.normal(*shape), draw.normal(*shape)) for shape in ((D, N), (B, D, N)))
    tensors = {"x": draw.normal(B, T, D), "poles": poles, "residues": residues}
    return tensors if bare else tensors | {"skip": draw.normal(D), "state": state}


def _wkv4(
    draw: _Draw, B: int, T: int, C: int, decay: str = "usual", keys: float | None = None, state: bool = True
) -> Tensors:
    k = draw.normal(B, T, C)
    if keys is not None:
        k = keys * torch.linspace(-1, 1, T, dtype=torch.float64).view(1, T, 1) + k
    tensors = {"k": k, "v": draw.normal(B, T, C), "log_decay": draw.log_decay(decay, C), "bonus": draw.normal(C)}
    if state:
        tensors["state"] = torch.stack((draw.normal(B, C), 0.5 + draw.uniform(B, C), draw.normal(B, C)), -1)
    return tensors


def _wkv6(
    draw: _Draw, B: int, T: int, H: int, K: int, V: int, decay: str = "usual", state: bool = True, constant: bool = False
) -> Tensors:
    decay_shape = (1, 1, H, K) if constant else (B, T, H, K)
    r, k, v = draw.normal(B, T, H, K), draw.normal(B, T, H, K), draw.normal(B, T, H, V)
    tensors = {"r": r, "k": k, "v": v, "log_decay": draw.log_decay(decay, *decay_shape), "bonus": draw.normal(H, K)}
    if state:
        tensors["state"] = draw.normal(B, H, K, V)
    return tensors


def _delta_rule(draw: _Draw, B: int, T: int, H: int, K: int, V: int, keys: str = "unit", state: bool = True) -> Tensors:
    """Keys are of length 1, or "any": drawn from N(0, 1). Strengths go from 0 to 2, both ends included."""
    q, k, v = draw.normal(B, T, H, K), draw.normal(B, T, H, K), draw.normal(B, T, H, V)
    k = k / k.norm(dim=-1, keepdim=True) if keys == "unit" else k
    tensors = {"q": q, "k": k, "v": v, "beta": _beside(2 * draw.uniform(B, T, H), 0.0, 1.0, 2.0)}
    return tensors | ({"state": draw.normal(B, H, K, V)} if state else {})


def _gated_delta_rule(
    draw: _Draw, B: int, T: int, H: int, K: int, V: int, decay: str = "usual", keys: str = "unit", state: bool = True
) -> Tensors:
    return _delta_rule(draw, B, T, H, K, V, keys, state) | {"log_decay": draw.log_decay(decay, B, T, H)}


def _wkv7(
    draw: _Draw, B: int, T: int, H: int, K: int, V: int, decay: str = "usual", pairs: str = "model", state: bool = True
) -> Tensors:
    """a and b are the model's, minus a unit vector and a part of it, or "any": two small vectors drawn apart."""
    r, k, v = draw.normal(B, T, H, K), draw.normal(B, T, H, K), draw.normal(B, T, H, V)
    a, b = draw.normal(B, T, H, K), draw.normal(B, T, H, K)
    if pairs == "model":
        a = -a / a.norm(dim=-1, keepdim=True)
        b = -a * draw.uniform(B, T, H, K)
    else:
        a, b = a / K, b / K
    tensors = {"r": r, "k": k, "v": v, "log_decay": draw.log_decay(decay, B, T, H, K), "a": a, "b": b}
    return tensors | ({"state": draw.normal(B, H, K, V)} if state else {})


def _taylor_attention(draw: _Draw, B: int, T: int, H: int, K: int, V: int, lift: float = 1.0, state: bool = True) -> Tensors:
    """`lift` multiplies every score. A state's K is that of some keys, or the sum of weights could be near 0."""
    q, k, v = lift * draw.normal(B, T, H, K), draw.normal(B, T, H, K), draw.normal(B, T, H, V)
    tensors = {"q": q, "k": k, "v": v}
    if state:
        written = taylor_features(draw.normal(B, H, 3, K)).sum(2)
        tensors |= {"kv_state": draw.normal(B, H, written.shape[2], V), "k_state": written}
    return tensors


def _attention(
    draw: _Draw, B: int, T: int, H: int, G: int, K: int, V: int, past: int = 0, lift: float | None = None
) -> Tensors:
    tensors = {"q": draw.normal(B, T, H, K), "k": draw.normal(B, T, G, K), "v": draw.normal(B, T, G, V)}
    if past:
        tensors |= {"k_past": draw.normal(B, past, G, K), "v_past": draw.normal(B, past, G, V)}
    if lift is not None:
        # Every score is lifted by as much, so the weights stay ordinary while e^score overflows.
        for name, first in (("q", lift * K**0.5), ("k", 1.0), ("k_past", 1.0)):
            tensors[name][..., 0] = first
    return tensors


CASES: dict[str, tuple[Case, ...]] = {
    "linear_recurrence": (
        Case("one token, no state", _linear_recurrence, (2, 1, 3), {"state": False}),
        Case("one token", _linear_recurrence, (1, 1, 5)),
        Case("odd length", _linear_recurrence, (2, 13, 5)),
        Case("one past a chunk, no state", _linear_recurrence, (1, 33, 3), {"state": False}),
        Case("one past two chunks", _linear_recurrence, (1, 65, 7)),
        Case("nothing fades", _linear_recurrence, (1, 35, 3), {"decay": "0"}),
        Case("all but gone at once", _linear_recurrence, (1, 35, 3), {"decay": "-20"}),
        Case("kept, turned around, forgotten", _linear_recurrence, (2, 35, 11), {"decay": "signs"}),
    ),
    "rg_lru": (
        Case("one token, no state", _rg_lru, (2, 1, 3), {"state": False}),
        Case("one token", _rg_lru, (1, 1, 5)),
        Case("odd length", _rg_lru, (2, 13, 5)),
        Case("one past a chunk, no state", _rg_lru, (1, 33, 3), {"state": False}),
        Case("one past two chunks", _rg_lru, (1, 65, 7)),
        Case("documents start", _rg_lru, (2, 35, 5), {"resets": True}),
        Case("gates of 0 and 1, documents start", _rg_lru, (2, 35, 5), {"gates": "ends", "resets": True}),
        Case("a all but 1", _rg_lru, (1, 35, 3), {"rate": 1e-7}),
        Case("a all but 0", _rg_lru, (1, 35, 3), {"rate": 20.0}),
    ),
    "selective_scan": (
        Case("one token, no D, no state", _selective_scan, (2, 1, 3, 2), {"bare": True}),
        Case("one token", _selective_scan, (1, 1, 5, 16)),
        Case("odd length, one number a channel", _selective_scan, (2, 13, 5, 1)),
        Case("one past a chunk, no D, no state", _selective_scan, (1, 17, 3, 3), {"bare": True}),
        Case("one past two chunks", _selective_scan, (1, 33, 7, 3)),
        Case("steps of 0, 1e-6 and 50", _selective_scan, (1, 19, 11, 3), {"steps": "any"}),
        Case("rates from 0 to -1e4", _selective_scan, (1, 19, 11, 3), {"rates": "any"}),
        Case("any step at any rate", _selective_scan, (2, 19, 13, 3), {"steps": "any", "rates": "any"}),
    ),
    "ssd": (
        Case("one token, no D, no state", _ssd, (2, 1, 3, 2, 4), {"bare": True}),
        Case("one token", _ssd, (1, 1, 2, 8, 16)),
        Case("a few tokens, two groups", _ssd, (2, 7, 4, 3, 5), {"groups": 2}),
        Case("odd length, a group a head", _ssd, (2, 13, 3, 5, 2), {"groups": 3}),
        Case("one past a chunk, no D, no state", _ssd, (1, 65, 2, 3, 3), {"bare": True}),
        Case("past two chunks, two groups", _ssd, (1, 129, 4, 2, 3), {"groups": 2}),
        Case("steps of 0, 1e-6 and 50", _ssd, (2, 35, 5, 3, 4), {"steps": "any"}),
        Case("rates from 0 to -900", _ssd, (1, 35, 10, 3, 4), {"rates": "any", "groups": 2}),
        Case("any step at any rate", _ssd, (2, 67, 5, 3, 4), {"steps": "any", "rates": "any"}),
    ),
    "retention": (
        Case("one token, no state", _retention, (2, 1, 2, 3, 5), {"state": False}),
        Case("one token", _retention, (1, 1, 1, 8, 8)),
        Case("odd length", _retention, (2, 13, 2, 5, 3)),
        Case("one past a chunk, no state", _retention, (1, 65, 1, 16, 16), {"state": False}),
        Case("past two chunks", _retention, (1, 129, 2, 7, 18)),
        Case("nothing fades: linear attention", _retention, (1, 67, 2, 4, 4), {"decay": "0"}),
        Case("all but gone at once", _retention, (1, 67, 1, 4, 4), {"decay": "-20"}),
        Case("decays of all kinds", _retention, (2, 35, 5, 7, 5), {"decay": "mixed"}),
    ),
    "short_conv": (
        Case("one token, no state, no bias", _short_conv, (2, 1, 3, 4), {"state": False, "bias": False}),
        Case("one token", _short_conv, (1, 1, 5, 4)),
        Case("fewer tokens than the state has rows", _short_conv, (2, 2, 3, 5)),
        Case("as many tokens as the filter has taps", _short_conv, (1, 4, 3, 4)),
        Case("odd length, no state", _short_conv, (2, 13, 5, 4), {"state": False}),
        Case("one past two tiles", _short_conv, (1, 65, 7, 3)),
        Case("a filter of one tap", _short_conv, (2, 5, 3, 1)),
    ),
    "long_conv": (
        Case("one token, no state", _long_conv, (2, 1, 3, 1)),
        Case("one token, no skip, filter far longer", _long_conv, (1, 1, 5, 9), {"skip": False}),
        Case("one token after a past", _long_conv, (2, 1, 18, 40), {"past": 33}),
        Case("a few tokens after a past longer than the filter", _long_conv, (2, 3, 5, 7), {"past": 12}),
        Case("as many taps as tokens", _long_conv, (2, 13, 3, 13)),
        Case("filter shorter than the text", _long_conv, (2, 37, 3, 5)),
        Case("filter longer than the text and its past", _long_conv, (2, 19, 3, 50), {"past": 5}),
        Case("filter that ends in the past", _long_conv, (1, 13, 3, 20), {"past": 11}),
        Case("past a tile of sums", _long_conv, (1, 259, 2, 261), {"past": 3}),
    ),
    "modal_conv": (
        Case("one token, no skip, no state", _modal_conv, (2, 1, 3, 2), {"bare": True}),
        Case("one token", _modal_conv, (1, 1, 5, 4)),
        Case("odd length, one pole", _modal_conv, (2, 13, 3, 1)),
        Case("one past a chunk, no skip, no state", _modal_conv, (1, 17, 3, 5), {"bare": True}),
        Case("one past two chunks", _modal_conv, (2, 33, 19, 2)),
        Case("poles of 0, 1 and beyond", _modal_conv, (1, 35, 5, 3), {"sizes": "any"}),
    ),
    "taylor_attention": (
        Case("two tokens, no state", _taylor_attention, (2, 2, 2, 3, 5), {"state": False}),
        Case("one token", _taylor_attention, (1, 1, 1, 8, 8)),
        Case("odd length", _taylor_attention, (2, 13, 2, 5, 3)),
        Case("one past a chunk, no state", _taylor_attention, (1, 65, 1, 16, 16), {"state": False}),
        Case("one past two chunks", _taylor_attention, (1, 129, 2, 3, 18)),
        Case("past a chunk of tiles", _taylor_attention, (1, 259, 1, 2, 3)),
        Case("keys of one number", _taylor_attention, (1, 67, 2, 1, 4)),
        Case("scores in the hundreds", _taylor_attention, (1, 35, 1, 4, 4), {"lift": 300.0}),
        Case("an eps that counts", _taylor_attention, (1, 9, 2, 3, 4), {}, {"eps": 2.0}),
    ),
    "wkv4": (
        Case("one token, no state", _wkv4, (2, 1, 3), {"state": False}),
        Case("one token", _wkv4, (1, 1, 5)),
        Case("odd length", _wkv4, (2, 13, 5)),
        Case("one past a chunk, no state", _wkv4, (1, 17, 3), {"state": False}),
        Case("one past two chunks", _wkv4, (1, 33, 67)),
        Case("decay 0", _wkv4, (1, 19, 3), {"decay": "0"}),
        Case("decay -20", _wkv4, (1, 19, 3), {"decay": "-20"}),
        Case("decays of all kinds", _wkv4, (2, 19, 11), {"decay": "mixed"}),
        Case("keys rising to 900", _wkv4, (1, 19, 5), {"decay": "mixed", "keys": 900.0}),
        Case("keys falling to -900, no state", _wkv4, (1, 19, 5), {"decay": "mixed", "keys": -900.0, "state": False}),
    ),
    "wkv6": (
        Case("one token, no state", _wkv6, (2, 1, 2, 3, 5), {"state": False}),
        Case("one token", _wkv6, (1, 1, 1, 8, 8)),
        Case("odd length", _wkv6, (2, 13, 2, 5, 3)),
        Case("one past a chunk, no state", _wkv6, (1, 17, 1, 16, 16), {"state": False}),
        Case("one past two chunks", _wkv6, (1, 33, 2, 7, 18)),
        Case("decay 0", _wkv6, (1, 35, 1, 4, 4), {"decay": "0"}),
        Case("decay -20", _wkv6, (1, 35, 1, 4, 4), {"decay": "-20"}),
        Case("decays of all kinds", _wkv6, (2, 35, 1, 17, 5), {"decay": "mixed"}),
        Case("decay constant in time", _wkv6, (2, 19, 2, 10, 4), {"decay": "mixed", "constant": True}),
    ),
    "delta_rule": (
        Case("one token, no state", _delta_rule, (2, 1, 2, 3, 5), {"state": False}),
        Case("one token", _delta_rule, (1, 1, 1, 8, 8)),
        Case("long keys, a few tokens", _delta_rule, (2, 7, 2, 5, 3), {"keys": "any"}),
        Case("one past a chunk, no state", _delta_rule, (1, 65, 1, 16, 16), {"state": False}),
        Case("past two chunks", _delta_rule, (1, 130, 2, 7, 18)),
    ),
    "gated_delta_rule": (
        Case("one token, no state", _gated_delta_rule, (2, 1, 2, 3, 5), {"state": False}),
        Case("one token", _gated_delta_rule, (1, 1, 1, 8, 8)),
        Case("long keys, a few tokens", _gated_delta_rule, (2, 7, 2, 5, 3), {"keys": "any"}),
        Case("one past a chunk, no state", _gated_delta_rule, (1, 65, 1, 16, 16), {"state": False}),
        Case("past two chunks", _gated_delta_rule, (1, 130, 2, 7, 18)),
        Case("nothing fades: the delta rule", _gated_delta_rule, (1, 35, 2, 4, 4), {"decay": "0"}),
        Case("all but gone at once", _gated_delta_rule, (1, 35, 1, 4, 4), {"decay": "-20"}),
        Case("decays of all kinds", _gated_delta_rule, (2, 35, 5, 7, 5), {"decay": "mixed"}),
    ),
    "wkv7": (
        Case("one token, no state", _wkv7, (2, 1, 2, 3, 5), {"state": False}),
        Case("one token", _wkv7, (1, 1, 1, 8, 8)),
        Case("odd length, a and b apart", _wkv7, (2, 13, 2, 5, 3), {"pairs": "any"}),
        Case("one past a chunk, no state", _wkv7, (1, 33, 1, 16, 16), {"state": False}),
        Case("past two chunks", _wkv7, (1, 66, 2, 7, 18)),
        Case("decay 0", _wkv7, (1, 35, 1, 4, 4), {"decay": "0"}),
        Case("decay -20", _wkv7, (1, 35, 1, 4, 4), {"decay": "-20"}),
        Case("decays of all kinds", _wkv7, (2, 35, 1, 17, 5), {"decay": "mixed"}),
    ),
    "attention": (
        Case("one token, no cache", _attention, (2, 1, 2, 1, 4, 4)),
        Case("odd length, no cache", _attention, (2, 13, 4, 2, 5, 3)),
        Case("one token after a cache", _attention, (1, 1, 2, 2, 4, 4), {"past": 9}),
        Case("some tokens after a cache", _attention, (2, 7, 4, 2, 4, 4), {"past": 6}),
        Case("window, no cache", _attention, (1, 13, 2, 1, 4, 4), {}, {"window": 4}),
        Case("window, over a cache", _attention, (1, 9, 2, 1, 4, 4), {"past": 3}, {"window": 4}),
        Case("window of one", _attention, (1, 5, 2, 1, 4, 4), {}, {"window": 1}),
        Case("window and sinks", _attention, (1, 13, 2, 1, 4, 4), {}, {"window": 4, "sinks": 2}),
        Case("scores near 900", _attention, (1, 11, 2, 2, 4, 4), {"past": 2, "lift": 900.0}),
    ),
}
