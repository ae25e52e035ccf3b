"""`check_invariants`: a model's card, six promises that hold for every causal language model with a state.

    finite              logits are numbers after 1, W, W + 1 and 4 W tokens
    causal              replacing a token changes no logit before it (and some later one, or nothing here could fail)
    batch-independent   a sequence gives the same logits alone and beside others
    step == full        one token at a time, the state carried, gives the logits of all at once
    chunk == full       so do pieces of odd lengths, and a state can be continued from twice
    bytes == formula    the state after a real forward is the one that init_state(batch, length) predicts, to the byte

W is the widest window in the model. The first five are checked in float64 on a copy in which weights that are all zero are
replaced by small random ones: a fresh model whose mixers write nothing would keep every promise.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from hybridlab.measure.equivalence import LIMITS, dtype_name
from hybridlab.measure.tables import Measured, Report, Table
from hybridlab.models import LanguageModel
from hybridlab.state import ModelState, state_nbytes

DEFAULT_WINDOW = 16  # where there is no window: one token past it is one past a chunk
MOST_REPLACED = 48
ODD_CUTS = (3, 5, 2, 7, 4)  # none is 1: single tokens have a row of their own


class Finding(NamedTuple):
    """What one row found: the worst relative difference (None where nothing is compared), and what is wrong, if anything."""

    worst: float | None
    wrong: str = ""


class Verdict(NamedTuple):
    """One row of a card; `ok` is None where the row could not be judged, and `wrong` says why."""

    name: str
    tried: str
    ok: bool | None
    worst: float | None
    wrong: str


@dataclass(frozen=True, repr=False)
class Card(Report):
    """What a model keeps of its promises.

    Attributes:
        model: its name.
        dtype: in which logits were compared.
        rows: one a promise.
    """

    model: str
    dtype: torch.dtype
    rows: tuple[Verdict, ...]

    @property
    def ok(self) -> bool:
        """Whether every promise was judged and kept."""
        return all(row.ok for row in self.rows)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the promises that are broken."""
        return tuple(row.name for row in self.rows if row.ok is False)

    def table(self) -> Table:
        """A row a promise."""
        columns = ("promise", "tried", "worst", "result")
        limit = LIMITS[self.dtype]
        rows = tuple((row.name, row.tried, self._worst(row, limit), _result(row)) for row in self.rows)
        failed = frozenset(i for i, row in enumerate(self.rows) if not row.ok)
        return Table(f"{self.model} in {dtype_name(self.dtype)}", columns, rows, frozenset({"worst"}), failed)

    @staticmethod
    def _worst(row: Verdict, limit: float) -> Measured | str:
        if row.worst is None:
            return ""
        digits = f"{row.worst:.1e}"
        return Measured(digits, f"< {limit:.0e}" if row.worst <= limit else digits)


class Subject(NamedTuple):
    """A model under test."""

    given: LanguageModel  # in its own dtype
    model: LanguageModel  # the copy in which logits are compared
    window: int
    generator: torch.Generator

    @property
    def limit(self) -> float:
        """The largest difference that rounding explains, beside the largest logit."""
        return LIMITS[self.model.embedding.weight.dtype]

    def prompt(self, length: int, batch: int = 1) -> Tensor:
        """Random tokens."""
        ids = torch.randint(self.model.config.vocabulary, (batch, length), generator=self.generator)
        return ids.to(self.model.embedding.weight.device)

    def lengths(self) -> list[int]:
        """1, W - 1, W, W + 1, 4 W: where a window, a chunk or a cache begins to matter."""
        return sorted({1, max(1, self.window - 1), self.window, self.window + 1, 4 * self.window})


@torch.no_grad()
def check_invariants(model: LanguageModel, window: int | None = None, name: str | None = None) -> Card:
    """Checks that a model is finite, causal, batch-independent, the same in any cut, and as large as it says.

    Args:
        model: left as it is; must hold real weights (not on the meta device).
        window: W; None is the widest window in the model, or 16 where there is none.
        name: what the card is titled; None is the class.

    Returns:
        a card that shows as a table; `.ok` and `.failed` say what came out.

    Raises:
        ValueError: no model, a model on the meta device, with one token id only, or a window below 1.

    Chapter 03; every later architecture has its card.
    """
    if not isinstance(model, LanguageModel):
        raise ValueError(f"check_invariants: model must be a LanguageModel, got {type(model).__name__}")
    if model.embedding.weight.is_meta:
        raise ValueError("check_invariants: model is on the meta device; build it with real weights")
    if model.config.vocabulary < 2:
        raise ValueError("check_invariants: model has a vocabulary of 1; replacing a token takes at least 2")
    if window is not None and window < 1:
        raise ValueError(f"check_invariants: window must be at least 1, got {window}")
    subject = Subject(model, _comparable(model), window or widest_window(model), torch.Generator().manual_seed(0))
    verdicts: list[Verdict] = []
    for promise in PROMISES:
        verdicts.append(_judged(promise, subject, verdicts))
    return Card(name or type(model).__name__, subject.model.embedding.weight.dtype, tuple(verdicts))


def widest_window(model: nn.Module) -> int:
    """The largest `window` of any module, or 16."""
    windows = [getattr(module, "window", None) for module in model.modules()]
    return max((x for x in windows if isinstance(x, int)), default=DEFAULT_WINDOW)


def _comparable(model: LanguageModel) -> LanguageModel:
    """A copy in float64, awake; in float32 if a layer insists on a backend that has no float64."""
    triton = any(getattr(module, "backend", None) == "triton" for module in model.modules())
    twin = deepcopy(model).eval().to(torch.float32 if triton else torch.float64)
    generator = torch.Generator().manual_seed(1)
    for parameter in twin.parameters():
        if not parameter.any():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.copy_(0.5 * noise / math.sqrt(parameter.shape[-1]))
    return twin


def _finite(subject: Subject) -> Finding:
    for length in subject.lengths():
        bad = ~subject.model(subject.prompt(length)).logits.isfinite().all(-1)[0]
        if bad.any():
            place = int(bad.nonzero()[0])
            return Finding(None, f"of {length} tokens, logits at token {place} are not finite")
    return Finding(None)


def _causal(subject: Subject) -> Finding:
    ids = subject.prompt(2 * subject.window + 1)
    before = subject.model(ids).logits
    worst, reached = 0.0, False
    for place in _places(subject, ids.shape[1]):
        after = subject.model(_replaced(subject, ids, place)).logits
        apart = difference(after[:, :place], before[:, :place])
        worst = max(worst, apart)
        if not apart <= subject.limit:
            return Finding(worst, f"token {place} changes a logit before it")
        reached = reached or difference(after[:, place + 1 :], before[:, place + 1 :]) > subject.limit
    return Finding(worst, "" if reached else "no token changes any later logit: nothing is mixed")


def _places(subject: Subject, length: int) -> list[int]:
    """Every token, or a random choice of them in a long text; the last reaches nothing and is left out."""
    order = torch.randperm(length - 1, generator=subject.generator) + 1
    return [0, *sorted(order[:MOST_REPLACED].tolist())]


def _replaced(subject: Subject, ids: Tensor, place: int) -> Tensor:
    """The same text with another token, any other, in one place."""
    vocabulary = subject.model.config.vocabulary
    shift = int(torch.randint(1, vocabulary, (), generator=subject.generator))
    ids = ids.clone()
    ids[:, place] = (ids[:, place] + shift) % vocabulary
    return ids


def _batch(subject: Subject) -> Finding:
    ids = subject.prompt(subject.window + 2, batch=3)
    cuts = [subject.window, 2]
    together = _in_pieces(subject.model, ids, cuts)
    alone = torch.cat([_in_pieces(subject.model, row.unsqueeze(0), cuts) for row in ids])
    return _same(subject, together, alone, "a sequence gives other logits beside others than alone")


def _step(subject: Subject) -> Finding:
    ids = subject.prompt(2 * subject.window + 1)
    stepped = _in_pieces(subject.model, ids, [1] * ids.shape[1])
    return _same(subject, stepped, subject.model(ids).logits, "token by token gives other logits")


def _chunk(subject: Subject) -> Finding:
    length = max(2 * subject.window + 1, sum(ODD_CUTS))
    ids = subject.prompt(length)
    whole = subject.model(ids).logits
    findings = []
    for cuts in (_odd_cuts(length), [subject.window + 1, length - subject.window - 1]):
        pieces = _in_pieces(subject.model, ids, cuts)
        findings.append(_same(subject, pieces, whole, f"pieces of {_short(cuts)} give other logits"))
    findings.append(_twice(subject, ids, whole))
    # A broken one before any other, else the largest difference.
    return max(findings, key=lambda finding: (bool(finding.wrong), finding.worst))


def _twice(subject: Subject, ids: Tensor, whole: Tensor) -> Finding:
    """A state is continued from, and once more: the first time must not have changed it."""
    cut = ids.shape[1] // 2
    state = subject.model(ids[:, :cut]).state
    subject.model(ids[:, cut:], state)
    again = subject.model(ids[:, cut:], state).logits
    return _same(subject, again, whole[:, cut:], "continuing a second time from one state gives other logits")


def _odd_cuts(length: int) -> list[int]:
    cuts: list[int] = []
    while sum(cuts) < length:
        cuts.append(ODD_CUTS[len(cuts) % len(ODD_CUTS)])
    rest = length - sum(cuts[:-1])
    # A single token at the end joins the piece before it.
    return [*cuts[:-2], cuts[-2] + rest] if rest == 1 else [*cuts[:-1], rest]


def _short(cuts: list[int]) -> str:
    return ", ".join(map(str, cuts[:5])) + (", ..." if len(cuts) > 5 else "")


def _in_pieces(model: LanguageModel, ids: Tensor, cuts: list[int]) -> Tensor:
    state, logits = None, []
    for piece in ids.split(cuts, 1):
        output = model(piece, state)
        logits.append(output.logits)
        state = output.state
    return torch.cat(logits, 1)


def _same(subject: Subject, got: Tensor, expected: Tensor, wrong: str) -> Finding:
    apart = difference(got, expected)
    if apart <= subject.limit:
        return Finding(apart)
    off = ~((got - expected).abs() <= subject.limit * expected.abs().max())
    row, place = off.any(-1).nonzero()[0].tolist()
    return Finding(apart, f"{wrong}, first at token {place}" + (f" of sequence {row}" if len(got) > 1 else ""))


def difference(got: Tensor, expected: Tensor) -> float:
    """The largest difference beside the largest logit; infinite where a logit is not finite."""
    if not got.isfinite().all():
        return math.inf
    scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny) if expected.numel() else 1
    return ((got - expected).abs().max() / scale).item() if expected.numel() else 0.0


def _bytes(subject: Subject) -> Finding:
    """In the model's own dtype; read at once, and in two pieces, after which a cache must be cut as well."""
    model, batch = deepcopy(subject.given).eval(), 2
    begun = (_from_scratch(subject, model, state) for state in (None, model.init_state(batch)))
    if not torch.equal(*(logits.nan_to_num() for logits in begun)):
        return Finding(None, "starting from init_state(batch) gives other logits than starting from None")
    for length in subject.lengths():
        ids = subject.prompt(length, batch)
        predicted = model.init_state(batch, length)
        for cut in sorted({0, length // 2}):
            state = model(ids[:, :cut]).state if cut else None
            wrong = _unlike(model(ids[:, cut:], state).state, predicted)
            if wrong:
                return Finding(None, f"after {length} tokens {wrong}")
    return Finding(None)


def _from_scratch(subject: Subject, model: LanguageModel, state: ModelState | None) -> Tensor:
    ids = torch.zeros(2, 3, dtype=torch.int64, device=subject.model.embedding.weight.device)
    return model(ids, state).logits


def _unlike(state: ModelState, predicted: ModelState) -> str:
    """How a real state differs from the predicted one; empty if in nothing."""
    (real, shape), (wanted, wanted_shape) = tree_flatten(state), tree_flatten(predicted)
    if shape != wanted_shape:
        return "the state is built otherwise than init_state's"
    for x, y in zip(real, wanted, strict=True):
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            expected = f"{tuple(y.shape)} {dtype_name(y.dtype)}"
            return f"a state is {tuple(x.shape)} {dtype_name(x.dtype)}, init_state says {expected}"
    if int(state.position) != int(predicted.position):
        return f"the position is {int(state.position)}"
    kept, formula = state_nbytes(state), state_nbytes(predicted)
    return "" if kept == formula else f"the state keeps {kept:,} bytes alive, init_state says {formula:,}"


class Promise(NamedTuple):
    """A row: its name, what is tried under a window W, the check, and the rows without which it means nothing."""

    name: str
    tried: Callable[[int], str]
    check: Callable[[Subject], Finding]
    needs: tuple[str, ...] = ()


PROMISES = (
    Promise("finite", lambda w: f"1 to {4 * w} tokens", _finite),
    Promise("causal", lambda w: f"each of {2 * w + 1} tokens replaced", _causal, ("finite",)),
    Promise("batch-independent", lambda w: "3 sequences", _batch, ("finite",)),
    Promise("step == full", lambda w: f"{2 * w + 1} tokens", _step, ("finite", "causal")),
    Promise("chunk == full", lambda w: "odd cuts", _chunk, ("finite", "causal")),
    Promise("bytes == formula", lambda w: f"0 to {4 * w} tokens", _bytes),
)


def _judged(promise: Promise, subject: Subject, before: list[Verdict]) -> Verdict:
    tried = promise.tried(subject.window)
    missing = [row.name for row in before if row.name in promise.needs and not row.ok]
    if missing:
        return Verdict(promise.name, tried, None, None, f"not judged: the model is not {missing[0]}")
    try:
        finding = promise.check(subject)
    # A broken model may raise anything; the other rows still say what holds.
    except Exception as error:
        finding = Finding(None, f"{type(error).__name__}: {error}")
    return Verdict(promise.name, tried, not finding.wrong, finding.worst, finding.wrong)


def _result(row: Verdict) -> str:
    if row.ok is None:
        return row.wrong
    return "ok" if row.ok else f"FAIL: {row.wrong}"
