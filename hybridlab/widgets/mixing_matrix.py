"""The picture that every chapter draws: how much of token j reaches output i, beside the recurrence that takes it there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from hybridlab.widgets.arrays import pack
from hybridlab.widgets.base import LivePicture, Shown, script
from hybridlab.widgets.controls import Slider, View
from hybridlab.widgets.palette import NEGATIVE, POSITIVE, ZERO
from hybridlab.widgets.recurrence import Numbers, Recurrence
from hybridlab.widgets.text import row, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TOKENS = 64
MOST_WRITTEN = 8  # tokens up to which every weight stands in its cell
MOST_MEMORIES = 4  # memories up to which each is written out
ROUNDING = 1e-12


class MixingMatrix(LivePicture):
    """How much of token j reaches output i, and by what path?

    To find out with it: pick an output and walk along its row. In a fading sum each step back halves the weight. Then pick a
    token and walk down its column: what you see is how it is forgotten. Where the recurrence is drawn, the lit path says
    why: one factor for the writing, one for every step between, one for the reading.

    Args:
        weights: (T, T), row i an output, column j a token; T up to 64. `weights_of` finds those of what is no recurrence.
        title: the mechanism's name.
        names: what the tokens are called; none: their numbers.
        recurrence: its factors, which must give the weights; none: for what has no such factors, such as attention, or a
            delta rule, whose tokens change what earlier ones have written.
        law: its equation in a line, to stand above the way.

    Raises:
        ValueError: no square matrix of finite numbers; factors that give another matrix.
    """

    question = "How much of token j reaches output i, and by what path?"
    _esm = script("token_matrix.js", "mixing_matrix.js")

    def __init__(
        self,
        weights: ArrayLike,
        title: str,
        names: Sequence[str] = (),
        recurrence: Recurrence | None = None,
        law: str = "",
    ) -> None:
        self.weights = _checked(weights)
        self.title, self.recurrence = title, recurrence
        tokens = len(self.weights)
        self.names = tuple(names) or tuple(str(t + 1) for t in range(tokens))
        if len(self.names) != tokens:
            raise ValueError(f"MixingMatrix: expected {tokens} names, got {len(self.names)}")
        if recurrence is not None:
            _check_factors(self.weights, recurrence)
        sliders = [Slider("i", "output i", 1, tokens, value=tokens), Slider("j", "token j", 1, tokens, value=1)]
        inputs = {
            "weights": pack(self.weights),
            "title": title,
            "names": list(self.names),
            "recurrence": _packed(recurrence),
            "law": law,
        }
        super().__init__(sliders, inputs)

    def shown(self, view: View) -> Shown:
        """The weight at (i, j), and what the recurrence multiplies to get it."""
        i, j = int(view["i"]) - 1, int(view["j"]) - 1
        name = self.names[j] if self.names[j] == str(j + 1) else f"{j + 1} ({self.names[j]})"
        if j > i:
            return Shown(f"Token {name} comes after output {i + 1} and cannot reach it.", {"weight": "0"})
        weight = short(self.weights[i, j])
        return Shown(f"Token {name} reaches output {i + 1} with weight {weight}.", {"weight": weight, **self._way(i, j)})

    def _way(self, i: int, j: int) -> dict[str, str]:
        factors = self.recurrence
        if factors is None:
            return {"all of this row": short(self.weights[i].sum())}
        if j == i and factors.now is not None:
            return {"not through the state": "the present token"}
        beside = {} if factors.skip is None or j < i else {"beside the state": short(factors.skip[i])}
        return {
            f"written at {j + 1}": _vector(factors.write[j]),
            f"left for output {i + 1}": _vector(factors.left(i, j)),
            f"read at {i + 1}": _vector(factors.read[i]),
            **beside,
        }

    def figure(self, view: View) -> "Figure":
        """The matrix, with the entry of the view outlined."""
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        figure = Figure(figsize=(4.8, 4.6), layout="constrained")
        axes = figure.add_subplot()
        limit = max(np.abs(self.weights).max(), 1e-12)
        colours = LinearSegmentedColormap.from_list("mixing", [NEGATIVE, ZERO, POSITIVE])
        axes.imshow(self.weights, cmap=colours, vmin=-limit, vmax=limit)
        if len(self.weights) <= MOST_WRITTEN:
            for (i, j), weight in np.ndenumerate(self.weights):
                ink = "white" if weight > 0.6 * limit else "black"
                axes.text(j, i, _cell(weight), ha="center", va="center", color=ink, fontsize=9)
            axes.set_xticks(range(len(self.names)), self.names, rotation=45)
            axes.set_yticks(range(len(self.names)), [str(i + 1) for i in range(len(self.names))])
        axes.add_patch(Rectangle((view["j"] - 1.5, view["i"] - 1.5), 1, 1, fill=False, linewidth=2))
        axes.set(xlabel="token j", ylabel="output i", title=self.title)
        return figure

    def __repr__(self) -> str:
        if len(self.weights) > MOST_WRITTEN:
            return f"{self.title}, {len(self.weights)} tokens. {self.shown(self.view).text}"
        rows = [row(f"out {i + 1}", [_cell(x) or "." for x in weights]) for i, weights in enumerate(self.weights)]
        return "\n".join([self.title, row("", self.names), *rows])


def _checked(weights: ArrayLike) -> Numbers:
    matrix = np.array(weights, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not 1 <= len(matrix) <= MOST_TOKENS:
        raise ValueError(f"MixingMatrix: weights must be (T, T) with T from 1 to {MOST_TOKENS}, got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("MixingMatrix: weights must be finite")
    # What rounding left of zero would print as a number of its own on every machine.
    matrix[np.abs(matrix) <= ROUNDING * np.abs(matrix).max()] = 0.0
    return matrix


def _check_factors(weights: Numbers, factors: Recurrence) -> None:
    if factors.tokens != len(weights):
        raise ValueError(f"MixingMatrix: recurrence has {factors.tokens} tokens, the weights {len(weights)}")
    apart = np.abs(factors.matrix() - weights)
    if not apart.max() <= 1e-9 * max(1.0, np.abs(weights).max()):
        i, j = np.unravel_index(apart.argmax(), apart.shape)
        raise ValueError(
            f"MixingMatrix: the recurrence gives {short(factors.weight(int(i), int(j)))} at output {i + 1}, token {j + 1}, "
            f"the weights say {short(weights[i, j])}: {short(apart[i, j])} apart"
        )


def _packed(factors: Recurrence | None) -> dict | None:
    return None if factors is None else {name: None if x is None else pack(x) for name, x in factors._asdict().items()}


def _vector(numbers: Numbers) -> str:
    if len(numbers) > MOST_MEMORIES:
        return f"{len(numbers)} numbers, length {short(np.sqrt((numbers**2).sum()))}"
    return ", ".join(short(x) for x in numbers)


def _cell(weight: float) -> str:
    """Four digits, nothing for zero."""
    return short(weight) if weight else ""
