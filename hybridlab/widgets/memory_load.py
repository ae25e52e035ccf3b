"""Memory under load: n pairs are written, one is asked for, and every memory answers something."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridlab.widgets.arrays import pack
from hybridlab.widgets.base import LivePicture, Shown, script
from hybridlab.widgets.controls import Choice, Control, Play, Slider, Toggle, View
from hybridlab.widgets.palette import SERIES
from hybridlab.widgets.text import short, size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Numbers = NDArray[np.float64]
Whole = NDArray[np.int64]

MEMORIES = {"list": "list", "sum": "sum", "fading": "fading sum", "delta": "delta rule", "gated": "gated delta"}
FADING, CORRECTING = ("fading", "gated"), ("delta", "gated")  # which memories decay and beta are for
LOOKS = dict(zip(MEMORIES, SERIES, strict=False))
BOOKS, PAIRS, VALUES = 16, 128, 16
WIDTHS = (4, 8, 16, 32, 64)
NOT_SURE = -1
LEAST_LEAD = 1e-9  # of the largest score: what rounding could turn round is no answer
HELD = 0.9  # the share of pairs that must be answered right for a memory to hold them
FLOAT = 4  # bytes of a float32


class Books(NamedTuple):
    """Phone books, each with names that are random directions.

    Attributes:
        keys: (BOOKS, PAIRS, widest), odd whole numbers from -127 to 127: a direction that is never zero at any width.
        numbers: (BOOKS, PAIRS), the right value of each key, 0 to VALUES - 1.
        slips: (BOOKS, PAIRS), another value, for those that are written wrong first.
    """

    keys: Whole
    numbers: Whole
    slips: Whole


class Rules(NamedTuple):
    """How a memory is written.

    Attributes:
        memory: which of MEMORIES.
        decay: what each write leaves of the fading sum and of the gated delta rule.
        corrected: whether each number is first written wrong, then right.
        beta: how much of its error a delta rule writes.
        orthogonal: whether keys are orthogonal as far as they can be: pair n has direction n modulo the width, so that the
            directions are used up after as many pairs as the keys have components, and are shared from then on.
    """

    memory: str
    decay: float
    corrected: bool
    beta: float = 1.0
    orthogonal: bool = False


def phone_books(seed: int) -> Books:
    """The same books on every machine for the same seed."""
    rng = np.random.default_rng(seed)
    keys = 2 * np.floor(16 * rng.normal(size=(BOOKS, PAIRS, max(WIDTHS)))).astype(np.int64) + 1
    numbers = rng.integers(VALUES, size=(BOOKS, PAIRS))
    slips = (numbers + rng.integers(1, VALUES, size=(BOOKS, PAIRS))) % VALUES
    return Books(np.clip(keys, -127, 127), numbers, slips)


def likeness(keys: Whole, width: int) -> Numbers:
    """k_i . k_j of the unit keys, (..., PAIRS, PAIRS), from their first `width` components.

    Whole numbers until the last step: the browser gets the same bits.
    """
    part = keys[..., :width].astype(np.float64)
    dots = part @ part.swapaxes(-1, -2)
    squares = np.diagonal(dots, axis1=-2, axis2=-1)
    return dots / np.sqrt(squares[..., :, None] * squares[..., None, :])


def shared_directions(width: int) -> Numbers:
    """k_i . k_j of orthogonal keys that are used again from pair `width` + 1 on, (PAIRS, PAIRS)."""
    direction = np.arange(PAIRS) % width
    return (direction[:, None] == direction).astype(np.float64)


def written(rules: Rules, books: Books, width: int) -> Iterator[Numbers]:
    """What the memory answers to every key after each pair: scores (BOOKS, PAIRS, VALUES), changed in place.

    The memory is read by keys of the book alone, so its answers are all there is to know of it. With S its (width, VALUES)
    state they are S^T k_i, and a write at key j adds (k_i . k_j) times what was written to every answer i:

        sum         S <- S + k_j v^T
        fading sum  S <- decay S + k_j v^T
        delta rule  S <- S + beta k_j (v - S^T k_j)^T, and S^T k_j is the answer to key j
        gated delta S <- decay S, and then the delta rule
        list        softmax over j of sqrt(width) (k_i . k_j): attention with its own scale over keys of length sqrt(width)

    The list's scores wait for the division by their sum; it changes no answer.
    """
    alike = shared_directions(width)[None] if rules.orthogonal else likeness(books.keys, width)
    if rules.memory == "list":
        alike = np.exp(np.sqrt(width) * (alike - 1))
    scores = np.zeros((*books.numbers.shape, VALUES))
    for pair in range(PAIRS):
        for numbers in (books.slips, books.numbers) if rules.corrected else (books.numbers,):
            news = np.eye(VALUES)[numbers[:, pair]]
            if rules.memory in FADING:
                scores *= rules.decay
            if rules.memory in CORRECTING:
                news = rules.beta * (news - scores[:, pair])
            scores += alike[:, :, pair, None] * news[:, None, :]
        yield scores


def answers(scores: Numbers) -> Whole:
    """The value with the highest score along the last axis, NOT_SURE where none leads."""
    ranked = np.sort(scores, axis=-1)
    sure = ranked[..., -1] - ranked[..., -2] > LEAST_LEAD * np.abs(scores).max(axis=-1)
    return np.where(sure, scores.argmax(axis=-1), NOT_SURE)


def right_of_first(rules: Rules, books: Books, width: int) -> Whole:
    """How many of all pairs written so far are answered right after each pair, over all books: (PAIRS,)."""
    found = [
        (answers(scores[:, : n + 1]) == books.numbers[:, : n + 1]).sum()
        for n, scores in enumerate(written(rules, books, width))
    ]
    return np.array(found)


def capacity_ends(right: Whole) -> int | None:
    """The first n at which fewer than 90 % of the pairs are answered right; None: not up to PAIRS."""
    short_of = np.flatnonzero(right < HELD * BOOKS * np.arange(1, PAIRS + 1))
    return int(short_of[0]) + 1 if len(short_of) else None


def memory_bytes(memory: str, width: int, writes: int) -> int:
    """Bytes of a memory in float32: the list keeps every key and value, the others one (width, VALUES) matrix."""
    return FLOAT * (writes * (width + VALUES) if memory == "list" else width * VALUES)


class MemoryLoad(LivePicture):
    """How many pairs can a memory hold, and which does it lose first?

    To find out with it: write pairs until the sum fails, then double the width of the keys: twice as many fit, about 1.5
    pairs for each component. Then look at the strips. The sum loses old and new alike. The fading sum always has the newest
    pairs and guesses at the old ones: they are not weak, they are out of reach, because what came later weighs more. Only
    the list grows, and with keys of 16 components or more it alone loses nothing; in narrower keys names look alike, and it
    mixes them up too. Then switch the delta rule on. It erases what stands at a key before it writes there, which takes a
    little from every older pair: of those it answers fewer than the sum does. Now correct each number: the sum and the
    list keep slip and correction side by side and can only guess between them; the delta rule gives the same answers as
    before.

    That is at beta = 1. With beta = 0.2 a write erases little, and more pairs fit than in the sum; but now corrections do
    not get through. The gated delta rule fades before each write: with keys at random that is one more way to lose pairs.
    Last, orthogonal keys. Nothing disturbs anything, and the sum holds as much as the delta rule: a pair for each component.
    Then the directions are used up, and each is given to a second name. The sum mixes the two; the delta rule has the new
    one and nothing of the old one. No rule repairs that: two names in one direction are one name to every memory here.

    Args:
        seed: of the phone books. The answers are those of the first, the shares are means over 16.

    Raises:
        ValueError: a seed that is not a whole number from 0 on.
    """

    question = "How many pairs can a memory hold, and which does it lose first?"
    _esm = script("memory_load.js")

    def __init__(self, seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"MemoryLoad: seed must be a whole number from 0 on, got {seed!r}")
        self.books = phone_books(seed)
        self._right: dict[tuple[Rules, int], Whole] = {}
        controls: list[Control | Play] = [
            Slider("pairs", "pairs", 1, PAIRS, value=24),
            Play("pairs", milliseconds=150),
            Slider("asked", "asked for pair", 1, PAIRS, value=1),
            Choice("width", "key width", tuple(map(str, WIDTHS)), "16"),
            Slider("decay", "what fades keeps", 0.5, 1, value=0.9, step=0.01),
            Slider("beta", "delta rules: beta", 0, 2, value=1, step=0.05),
            Toggle("corrected", "correct each number", value=False),
            Toggle("orthogonal", "orthogonal keys", value=False),
            *(Toggle(name, label, value=name not in CORRECTING) for name, label in MEMORIES.items()),
        ]
        kinds = {"keys": "int8", "numbers": "uint8", "slips": "uint8"}
        super().__init__(controls, {name: pack(getattr(self.books, name), kind) for name, kind in kinds.items()})

    def right(self, rules: Rules, width: int) -> Whole:
        """`right_of_first` of these books, kept once it is known."""
        decay = rules.decay if rules.memory in FADING else 1.0
        beta = rules.beta if rules.memory in CORRECTING else 1.0
        known = (rules._replace(decay=decay, beta=beta), width)
        if known not in self._right:
            self._right[known] = right_of_first(known[0], self.books, width)
        return self._right[known]

    def scores(self, rules: Rules, width: int, pairs: int) -> Numbers:
        """What a memory of the first book answers to every key after so many pairs, (PAIRS, VALUES)."""
        first = Books(*(part[:1] for part in self.books))
        found = next(scores for n, scores in enumerate(written(rules, first, width), start=1) if n == pairs)[0]
        return found / found.sum(axis=1, keepdims=True) if rules.memory == "list" else found

    def shown(self, view: View) -> Shown:
        """What every memory answers, how sure it is, how many of all it has right, where it ends and what it costs."""
        pairs, asked, width = int(view["pairs"]), int(view["asked"]), int(view["width"])
        number = int(self.books.numbers[0, asked - 1]) if asked <= pairs else None
        readout, replies = {}, []
        for rules in _on(view):
            label = MEMORIES[rules.memory]
            scores = self.scores(rules, width, pairs)
            reply = _reply(int(answers(scores[asked - 1])))
            replies.append(f"the {label} {reply}")
            facts = [
                reply + _verdict(scores[asked - 1], number),
                f"{(answers(scores[:pairs]) == self.books.numbers[0, :pairs]).sum()} of {pairs} right",
                f"{short(100 * int(self.right(rules, width)[pairs - 1]) / (BOOKS * pairs))} % on average",
                _end(capacity_ends(self.right(rules, width))),
                size(memory_bytes(rules.memory, width, pairs * (1 + rules.corrected))),
            ]
            readout[label] = "; ".join(facts)
        pair = f"Pair {asked} was never written" if number is None else f"Pair {asked} has number {number}"
        said = f"answers: {', '.join(replies)}" if replies else "no memory is shown"
        return Shown(f"{pairs} pair{'' if pairs == 1 else 's'}, {_keys(view)}. {pair}; {said}.", readout)

    def figure(self, view: View) -> "Figure":
        """The answers on the left, the shares on the right, as at the view."""
        from matplotlib.figure import Figure

        pairs, asked, width = int(view["pairs"]), int(view["asked"]), int(view["width"])
        rules = _on(view)
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        halves = figure.subfigures(1, 2, squeeze=False)[0]
        for axes, each in zip(halves[0].subplots(max(1, len(rules)), squeeze=False)[:, 0], rules, strict=False):
            axes.bar(range(VALUES), self.scores(each, width, pairs)[asked - 1], color=LOOKS[each.memory][0])
            if asked <= pairs:
                axes.axvspan(*(self.books.numbers[0, asked - 1] + np.array([-0.5, 0.5])), color="0.88", zorder=0)
            axes.set_title(f"{MEMORIES[each.memory]}, asked for pair {asked}", fontsize=9)
            axes.set_xticks(range(VALUES))
        axes = halves[1].subplots()
        for each in rules:
            share = 100 * self.right(each, width) / (BOOKS * np.arange(1, PAIRS + 1))
            colour, dashes = LOOKS[each.memory]
            axes.plot(range(1, PAIRS + 1), share, label=MEMORIES[each.memory], color=colour, linestyle=dashes)
        axes.axhline(100 * HELD, color="0.6", linewidth=0.8)
        axes.axvline(pairs, color="0.3", linewidth=0.8)
        axes.set(xlabel="pairs written", ylabel="answered right, %", ylim=(0, 103), title=_keys(view))
        if rules:
            axes.legend(frameon=False)
        return figure


def _on(view: View) -> list[Rules]:
    choices = float(view["decay"]), view["corrected"], float(view["beta"]), view["orthogonal"]
    return [Rules(memory, *choices) for memory in MEMORIES if view[memory]]


def _keys(view: View) -> str:
    return f"{'orthogonal ' if view['orthogonal'] else ''}keys of width {view['width']}"


def _reply(answer: int) -> str:
    return "undecided" if answer == NOT_SURE else str(answer)


def _verdict(scores: Numbers, number: int | None) -> str:
    """Whether the answer is right, and by how much."""
    if number is None:
        return f", best score {short(scores.max())}"
    verdict = "right" if int(answers(scores)) == number else "wrong"
    return f", {verdict}: {short(scores[number])} against {short(np.delete(scores, number).max())}"


def _end(pairs: int | None) -> str:
    return f"90 % and more up to n = {PAIRS}" if pairs is None else f"under 90 % from n = {pairs}"
