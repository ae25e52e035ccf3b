"""One scalar decay a head: recurrence, chunks and masked attention are one sum, bracketed differently."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from hybridlab.widgets.arrays import pack
from hybridlab.widgets.base import LivePicture, Shown, script
from hybridlab.widgets.chunks import NUMBER_BYTES, ROUNDING, Chunked, Numbers, Sums, Work, chunked, work
from hybridlab.widgets.controls import Choice, Control, Play, Slider, View
from hybridlab.widgets.palette import NEGATIVE, POSITIVE, RED, SERIES, ZERO
from hybridlab.widgets.text import short, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TOKENS = MOST_CHANNELS = 64
MOST_WRITTEN = 4  # numbers up to which each is written out
TIMES = " \u00d7 "
PER_TOKEN, CONSTANT, NONE = "by dt: SSD", "constant: retention", "none: linear attention"
DECAYS = (PER_TOKEN, CONSTANT, NONE)
INSIDE, THROUGH, STATE = (SERIES[at][0] for at in (3, 2, 4))


class Duality(LivePicture):
    """Attention or recurrence: what changes when the same sum is cut into other chunks?

    To find out with it: move the chunk from 1, the recurrence, to T, masked attention. Blocks, work, carried states and
    bytes all move; the matrix and the outputs stay. Neither end is the cheapest: with 64 tokens, 16 state numbers and 16
    channels the fewest multiplications are at chunk 4, near sqrt(NP / (N + P)), and the fewest bytes at 16, sqrt(NP). Then
    pick an entry and move the chunk: one product runs inside a block or through carried states, and is the same number.

    Args:
        x: values of one head, (T, P), or (T,) for a single channel; T and P up to 64.
        dt: length of each token's step, at least 0, (T,).
        A: decay rate, at most 0: step t leaves e^{dt_t A}.
        B: what writes each token into the state, (T, N), N up to 64.
        C: what reads the state, (T, N).
        names: what the tokens are called; none: their numbers.

    Retention takes the mean of dt A as its constant log decay, linear attention takes none; both write x itself, not dt x.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, a negative dt, a positive A.

    Chapter 05.
    """

    question = "Attention or recurrence: what changes when the same sum is cut into other chunks?"
    _esm = script("token_matrix.js", "duality.js")

    def __init__(self, x: ArrayLike, dt: ArrayLike, A: float, B: ArrayLike, C: ArrayLike, names: Sequence[str] = ()) -> None:
        self.sums = {PER_TOKEN: _checked(x, dt, A, B, C)}
        self.sums |= {CONSTANT: _steady(self.sums[PER_TOKEN], A), NONE: _steady(self.sums[PER_TOKEN], 0.0)}
        tokens = len(self.sums[PER_TOKEN].x)
        self.names = tuple(names) or tuple(str(t + 1) for t in range(tokens))
        if len(self.names) != tokens:
            raise ValueError(f"Duality: expected {tokens} names, got {len(self.names)}")
        self.found = {decay: [chunked(sums, q + 1) for q in range(tokens)] for decay, sums in self.sums.items()}
        self.apart = {decay: _apart(sums.recurrent(), self.found[decay]) for decay, sums in self.sums.items()}
        controls: list[Control | Play] = [
            Slider("chunk", "tokens a chunk", 1, tokens, value=max(1, tokens // 2)),
            Play("chunk", milliseconds=600),
            Choice("decay", "decay", DECAYS, PER_TOKEN),
            Slider("i", "output i", 1, tokens, value=tokens),
            Slider("j", "token j", 1, tokens, value=1),
        ]
        given = self.sums[PER_TOKEN]
        inputs = {
            "heads": {
                decay: {name: pack(value) for name, value in sums._asdict().items()} for decay, sums in self.sums.items()
            },
            "apart": self.apart,
            "names": list(self.names),
            "sizes": [tokens, given.B.shape[1], given.x.shape[1]],
        }
        super().__init__(controls, inputs)

    def work(self, chunk: int) -> Work:
        """What these sums cost in chunks of so many tokens."""
        given = self.sums[PER_TOKEN]
        return work(len(given.x), given.B.shape[1], given.x.shape[1], chunk)

    def shown(self, view: View) -> Shown:
        """What the chunks cost at a view, and the way of the entry (i, j)."""
        cost = self.work(int(view["chunk"]))
        text = (
            f"{self._face(view)}: {cost.multiplications:,} multiplications, {_states(cost.passes)} handed on, "
            f"{size(cost.nbytes)} in between; the outputs are {self._same(view)}. {self._entry(view)}"
        )
        readout = {
            **self._factors(view),
            **self._output(view),
            "multiplications": f"{cost.diagonal:,} in blocks + {cost.below:,} below + {cost.state:,} for states",
            "apart from the recurrence": short(self.apart[view["decay"]][int(view["chunk"]) - 1]),
        }
        return Shown(text, readout)

    def _face(self, view: View) -> str:
        chunk, tokens = int(view["chunk"]), len(self.names)
        if chunk == 1:
            return "Chunk 1, the recurrence"
        if chunk == tokens:
            return f"Chunk {chunk}, masked attention"
        return f"Chunk {chunk}, {self.work(chunk).passes + 1} blocks"

    def _same(self, view: View) -> str:
        apart = self.apart[view["decay"]][int(view["chunk"]) - 1]
        return "the same to 1e-12" if apart <= ROUNDING else f"{short(apart)} apart from the recurrence's"

    def _entry(self, view: View) -> str:
        i, j = int(view["i"]) - 1, int(view["j"]) - 1
        name = self.names[j] if self.names[j] == str(j + 1) else f"{j + 1} ({self.names[j]})"
        ends = self._passed(view)
        if j > i:
            fate = "their block is never computed" if ends is None else "their entry is computed in its block, and masked"
            return f"Token {name} comes after output {i + 1}: {fate}."
        weight = short(self.sums[view["decay"]].matrix()[i, j])
        return f"Token {name} reaches output {i + 1} with weight {weight}, {_way(ends)}."

    def _passed(self, view: View) -> range | None:
        """Chunks whose state, as it is handed on, the way from j to i goes through; None: i's chunk comes before j's."""
        chunk = int(view["chunk"])
        to, since = ((int(view[name]) - 1) // chunk for name in "ij")
        return None if to < since else range((since + 1) * chunk, to * chunk + 1, chunk)

    def _factors(self, view: View) -> dict[str, str]:
        i, j, sums, ends = int(view["i"]) - 1, int(view["j"]) - 1, self.sums[view["decay"]], self._passed(view)
        if j > i:
            return {"weight": "0"}
        return {
            "weight": short(sums.matrix()[i, j]),
            f"C{i + 1} · B{j + 1}": short(sums.dots()[i, j]),
            "decay": _decays(np.cumsum(sums.log_decay), i, j, list(ends or ())),
            f"dt{j + 1}": short(sums.dt[j]),
        }

    def _output(self, view: View) -> dict[str, str]:
        """How output i is bracketed, and the state that its chunk is handed; of several channels, the first."""
        i, chunk, found = int(view["i"]) - 1, int(view["chunk"]), self.found[view["decay"]][int(view["chunk"]) - 1]
        largest = np.abs(found.inside + found.through).max()
        inside, through = (_clean(part[i, 0], largest) for part in found[:2])
        whole = short(_clean(inside + through, largest))
        which = "" if found.inside.shape[1] == 1 else ", channel 1"
        said = {f"output {i + 1}{which}": f"{short(inside)} in its block {_added(short(through))} from the state = {whole}"}
        before = i // chunk
        if before:
            said[f"state after {before * chunk}{which}"] = _vector(found.states[before - 1][:, 0])
        return said

    def figure(self, view: View) -> "Figure":
        """The matrix in its blocks, and what every chunk size costs."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 4.2), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(1.2, 1))
        self._draw_matrix(figure.add_subplot(grid[:, 0]), view)
        tokens = range(1, len(self.names) + 1)
        costs = [self.work(chunk) for chunk in tokens]
        multiplications = {
            "in blocks": (INSIDE, [cost.diagonal for cost in costs]),
            "below": (THROUGH, [cost.below for cost in costs]),
            "for states": (STATE, [cost.state for cost in costs]),
        }
        numbers = {
            "blocks": (INSIDE, [NUMBER_BYTES * cost.block_numbers for cost in costs]),
            "states": (STATE, [NUMBER_BYTES * cost.state_numbers for cost in costs]),
        }
        _draw_bars(figure.add_subplot(grid[0, 1]), multiplications, int(view["chunk"]), "multiplications")
        _draw_bars(figure.add_subplot(grid[1, 1]), numbers, int(view["chunk"]), "bytes in between")
        return figure

    def _draw_matrix(self, axes: "Axes", view: View) -> None:
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.patches import Rectangle

        weights, chunk = self.sums[view["decay"]].matrix(), int(view["chunk"])
        tokens = len(weights)
        limit = max(np.abs(weights).max(), 1e-12)
        colours = LinearSegmentedColormap.from_list("mixing", [NEGATIVE, ZERO, POSITIVE])
        extent = (0.5, tokens + 0.5, tokens + 0.5, 0.5)
        axes.imshow(weights, cmap=colours, vmin=-limit, vmax=limit, extent=extent)

        def outline(column: int, row: int, width: int, height: int, colour: str, line: float, dash: str = "solid") -> None:
            box = Rectangle(
                (column + 0.5, row + 0.5), width, height, fill=False, color=colour, linewidth=line, linestyle=dash
            )
            box.set(clip_on=False, zorder=3)
            axes.add_patch(box)

        line = max(0.3, min(1.5, 12 * chunk / tokens))
        starts = range(0, tokens, chunk)
        corners = [(column, row) for row in starts for column in range(0, row + 1, chunk)]
        for column, row in sorted(corners, key=lambda corner: corner[0] == corner[1]):  # solid lines over dashed ones
            colour, dash = (INSIDE, "solid") if column == row else (THROUGH, "dashed")
            sides = min(chunk, tokens - column), min(chunk, tokens - row)
            outline(column, row, *sides, colour, line, dash)
        outline(int(view["j"]) - 1, int(view["i"]) - 1, 1, 1, RED, line=2)
        title = f"chunk {chunk}: solid blocks by attention, dashed ones through states"
        axes.set(xlabel="token j", ylabel="output i")
        axes.set_title(title, fontsize=9)


def _draw_bars(axes: "Axes", parts: dict[str, tuple[str, list[int]]], chunk: int, title: str) -> None:
    below = np.zeros(len(next(iter(parts.values()))[1]))
    sizes = range(1, len(below) + 1)
    for name, (colour, heights) in parts.items():
        axes.bar(sizes, heights, bottom=below, color=colour, width=0.9, label=name)
        below = below + heights
    axes.bar(chunk, below[chunk - 1], color="none", edgecolor=RED, linewidth=2)
    axes.set(xlabel="tokens a chunk", ylim=(0, 1.08 * below.max()))
    axes.set_title(title, loc="left", fontsize=9)
    axes.legend(fontsize=7, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _checked(x: ArrayLike, dt: ArrayLike, A: float, B: ArrayLike, C: ArrayLike) -> Sums:
    values, steps, write, read = (np.array(given, dtype=np.float64) for given in (x, dt, B, C))
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not 1 <= len(values) <= MOST_TOKENS or not 1 <= values.shape[1] <= MOST_CHANNELS:
        raise ValueError(f"Duality: x must be (T, P) with T and P from 1 to {MOST_TOKENS}, got {values.shape}")
    tokens = len(values)
    if write.ndim != 2 or len(write) != tokens or not 1 <= write.shape[1] <= MOST_CHANNELS:
        raise ValueError(f"Duality: B must be ({tokens}, N) with N from 1 to {MOST_CHANNELS}, got {write.shape}")
    for name, given, expected in (("dt", steps, (tokens,)), ("C", read, write.shape)):
        if given.shape != expected:
            raise ValueError(f"Duality: {name} must be {expected}, got {given.shape}")
    for name, given in (("x", values), ("dt", steps), ("A", np.asarray(A)), ("B", write), ("C", read)):
        if not np.isfinite(given).all():
            raise ValueError(f"Duality: {name} must be finite")
    if steps.min() < 0:
        raise ValueError(f"Duality: dt must be at least 0, its smallest entry is {steps.min():.4g}")
    if A > 0:
        raise ValueError(f"Duality: A must be at most 0, got {A:.4g}")
    return Sums(values, steps, steps * float(A), write, read)


def _steady(sums: Sums, rate: float) -> Sums:
    """The same writing and reading under a log decay that does not depend on the token, with x itself written."""
    steps = np.ones_like(sums.dt)
    return sums._replace(dt=steps, log_decay=steps * sums.dt.mean() * rate)


def _apart(expected: Numbers, found: list[Chunked]) -> list[float]:
    """For each chunk size the largest difference from the recurrence, in parts of its largest output."""
    largest = np.abs(expected).max() or 1.0
    return [float(np.abs(run.inside + run.through - expected).max() / largest) for run in found]


def _clean(number: float, largest: float) -> float:
    """0 for what rounding left of it."""
    return 0.0 if abs(number) <= ROUNDING * largest else float(number)


def _added(text: str) -> str:
    """A number that follows others: + 2.5, - 2.5."""
    return f"- {text[1:]}" if text.startswith("-") else f"+ {text}"


def _states(count: int) -> str:
    return "1 state" if count == 1 else f"{count} states"


def _way(ends: range | None) -> str:
    """Through which states, each named by the last token that is in it."""
    if not ends:
        return "inside its block"
    if len(ends) == 1:
        return f"through the state after token {ends[0]}"
    if len(ends) <= MOST_WRITTEN:
        return f"through the states after tokens {', '.join(map(str, ends[:-1]))} and {ends[-1]}"
    return f"through {len(ends)} states, after tokens {ends[0]} to {ends[-1]}"


def _decays(since: Numbers, i: int, j: int, ends: list[int]) -> str:
    """The decay between token j and output i, leg by leg: step by step in a block, else from state to state."""

    def left(at: int, to: int) -> str:
        return short(np.exp(since[to] - since[at]))

    stops = sorted({j, *(end - 1 for end in ends), i}) if ends else list(range(j, i + 1))
    legs = [left(at, to) for at, to in pairwise(stops)]
    if len(legs) > MOST_WRITTEN:
        legs = [legs[0], f"{left(stops[1], stops[-2])} across {len(legs) - 2} {'chunks' if ends else 'steps'}", legs[-1]]
    if len(legs) < 2:
        return legs[0] if legs else "1, no step between"
    return f"{TIMES.join(legs)} = {left(j, i)}"


def _vector(numbers: Numbers) -> str:
    """Every number of a few, the length of many."""
    length = float(np.sqrt((numbers**2).sum()))
    if len(numbers) > MOST_WRITTEN:
        return f"{len(numbers)} numbers, length {short(length)}"
    return ", ".join(short(_clean(x, length)) for x in numbers)
