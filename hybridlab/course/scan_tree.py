"""The tree that an order of evaluation makes: which steps are joined, in which round, on the way to every answer.

A scan is any function from T steps and a `join` to T answers; answer t is the steps 1 to t joined. Here it is given steps
that are no numbers but know which tokens they stand for. It does with them what it always does, every join is noted, and the
picture shows the order that was really taken.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hybridlab.widgets.palette import BLUE
from hybridlab.widgets.png import as_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scan = Callable[[list, Callable[[Any, Any], Any]], Sequence[Any]]

MOST_DRAWN = 16
DPI = 100
MARGIN = 0.12  # inches
INK, PALE = "#222222", "#8a8a8a"


class Step(NamedTuple):
    """The steps of tokens `first` to `last` as one, known after `round` rounds; `parts` are the two it was joined from."""

    first: int
    last: int
    round: int = 0
    parts: tuple["Step", ...] = ()

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}\u2013{self.last}"


class ScanTree:
    """What a scan did with T tokens; see `scan_tree`.

    Attributes:
        tokens: T.
        joined: every join, in the order in which they were made.
    """

    def __init__(self, title: str, tokens: int, joined: tuple[Step, ...]) -> None:
        self.title, self.tokens, self.joined = title, tokens, joined

    @property
    def joins(self) -> int:
        """The work: how many times two steps were joined."""
        return len(self.joined)

    @property
    def rounds(self) -> int:
        """The depth: joins that wait for one another, along the longest way."""
        return max((step.round for step in self.joined), default=0)

    def __repr__(self) -> str:
        lines = [f"{self.title}, {self.tokens} tokens: {self.joins} joins in {self.rounds} rounds"]
        if self.tokens <= MOST_DRAWN:
            for number in range(1, self.rounds + 1):
                made = sorted((step for step in self.joined if step.round == number), key=lambda step: step.last)
                lines.append(f"  round {number}: {' '.join(map(str, made))}")
        return "\n".join(lines)

    def _repr_png_(self) -> bytes | None:
        if self.tokens > MOST_DRAWN:
            return None
        return as_png(self.figure())

    def figure(self) -> "Figure":
        """Tokens from left to right, rounds from top to bottom; what reaches back to token 1 is an answer, and filled."""
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        layout = ConstrainedLayoutEngine(w_pad=MARGIN, h_pad=MARGIN)
        figure = Figure(figsize=(7.4, 1.4 + 0.6 * self.rounds), dpi=DPI, facecolor="white", layout=layout)
        axes = figure.add_subplot()
        for step in self.joined:
            for part in step.parts:
                # What has waited some rounds first goes straight down: a slanted line would run through others' answers.
                across, down = (part.last, part.last, step.last), (part.round, step.round - 1, step.round)
                axes.plot(across, down, color=PALE, linewidth=1.3, zorder=1)
        size = 11 if self.tokens <= 8 else 8
        for step in (*_leaves(self.tokens), *self.joined):
            answer = step.first == 1
            box = {"boxstyle": "round,pad=0.28", "facecolor": BLUE if answer else "white", "edgecolor": INK, "linewidth": 1}
            colour = "white" if answer else INK
            axes.text(step.last, step.round, str(step), ha="center", va="center", color=colour, fontsize=size, bbox=box)
        names = ["tokens", *(f"round {number}" for number in range(1, self.rounds + 1))]
        axes.set_yticks(range(self.rounds + 1), names, color=INK)
        axes.set(xlim=(0.4, self.tokens + 0.6), ylim=(self.rounds + 0.45, -0.45), xticks=[])
        axes.set_title(f"{self.title}: {self.joins} joins in {self.rounds} rounds", color=INK, fontsize=12)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return figure


def scan_tree(scan: Scan, tokens: int, title: str = "") -> ScanTree:
    """Runs a scan on steps that know only which tokens they stand for, and draws what it joined.

    Args:
        scan: a function (steps, join) -> answers, one for each step.
        tokens: how many steps it is given; up to 16 can be drawn.
        title: what to call it; none: the function's name.

    Returns:
        what a notebook shows as a picture; `.joins` and `.rounds` count.

    Raises:
        ValueError: the scan joins steps that are no neighbours, or an answer is not the steps from the first to its own.

    Chapter 02.
    """
    if tokens < 1:
        raise ValueError(f"scan_tree: tokens must be at least 1, got {tokens}")
    joined: list[Step] = []

    def join(old: Step, new: Step) -> Step:
        if old.last + 1 != new.first:
            raise ValueError(f"scan_tree: cannot join {old} and {new}: the second must begin right after the first")
        joined.append(Step(old.first, new.last, 1 + max(old.round, new.round), (old, new)))
        return joined[-1]

    answers = scan(_leaves(tokens), join)
    reached = [(answer.first, answer.last) for answer in answers]
    if len(reached) != tokens:
        raise ValueError(f"scan_tree: expected {tokens} answers, got {len(reached)}")
    for t, (first, last) in enumerate(reached, start=1):
        if (first, last) != (1, t):
            raise ValueError(f"scan_tree: answer {t} is {Step(first, last)}, expected {Step(1, t)}")
    return ScanTree(title or scan.__name__, tokens, tuple(joined))


def _leaves(tokens: int) -> list[Step]:
    return [Step(t, t) for t in range(1, tokens + 1)]
