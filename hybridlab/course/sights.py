"""Who sees whom: a row a query, a column a key, and in each cell after how many layers one reaches the other."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridlab.widgets.png import as_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Layers = NDArray[np.int64]

MOST_TOKENS = 24  # more cells would be too small to read
MOST_LAYERS = 9  # one digit
DPI = 100
INK, PALE = "#767676", "#a0a0a0"  # legible on a light page and on a dark one
SHADES = ("#0072B2", "#56B4E9", "#9AD3F2", "#CDE8F8")  # of one layer, two, three, and more
LETTERS = ("white", "black", "black", "black")


class Sights:
    """Panels of cells; see `sights`.

    Attributes:
        panels: title -> layers needed, (T, S).
    """

    def __init__(self, panels: dict[str, Layers]) -> None:
        self.panels = panels

    def __repr__(self) -> str:
        lines = []
        for title, layers in self.panels.items():
            lines.append(title)
            lines.extend("  " + " ".join(str(count) if count else "." for count in row) for row in layers.tolist())
        return "\n".join(lines)

    def _repr_png_(self) -> bytes:
        return as_png(self.figure())

    def figure(self) -> "Figure":
        """The panels from left to right."""
        from matplotlib.figure import Figure

        tallest = max(len(layers) / layers.shape[1] for layers in self.panels.values())
        size = (0.4 + 2.6 * len(self.panels), 0.8 + 2.1 * tallest)
        figure = Figure(figsize=size, dpi=DPI, facecolor="none", layout="constrained")
        row = figure.subplots(1, len(self.panels), squeeze=False)[0]
        for axes, (title, layers) in zip(row, self.panels.items(), strict=True):
            _draw(axes, title, layers)
        return figure


def sights(panels: Mapping[str, ArrayLike]) -> Sights:
    """Draws who sees whom, so that several rules can be held beside each other.

    Args:
        panels: title of a panel -> a matrix, row i a query and column j a key: whether i sees j (bool), or after how many
            layers j reaches i (a whole number up to 9; 0 is never). The last query stands at the last key; up to 24 keys.

    Returns:
        what a notebook shows as a picture; as text, a digit a cell and a dot for never.

    Raises:
        ValueError: nothing to draw, or no such matrix.

    Chapter 01.
    """
    if not panels:
        raise ValueError("sights: panels must be at least one, got none")
    return Sights({title: _layers(title, cells) for title, cells in panels.items()})


def _layers(title: str, cells: ArrayLike) -> Layers:
    numbers = np.asarray(cells)
    if numbers.ndim != 2 or not 1 <= len(numbers) <= numbers.shape[1] <= MOST_TOKENS:
        expected = f"a matrix of up to {MOST_TOKENS} columns with no more rows than those"
        raise ValueError(f"sights: panels: {title!r} must be {expected}, got shape {numbers.shape}")
    if numbers.dtype.kind not in "bui" or numbers.min() < 0 or numbers.max() > MOST_LAYERS:
        raise ValueError(
            f"sights: panels: {title!r} must hold bools or whole numbers from 0 to {MOST_LAYERS}, got {numbers.dtype} "
            f"from {numbers.min()} to {numbers.max()}"
        )
    return numbers.astype(np.int64)


def _draw(axes: "Axes", title: str, layers: Layers) -> None:
    from matplotlib.colors import ListedColormap

    colours = ListedColormap(["none", *SHADES])
    shades = np.minimum(layers, len(SHADES))
    axes.set_facecolor("none")
    # unclipped: the axes would cut the outer lines of the frame
    axes.pcolormesh(shades, cmap=colours, vmin=-0.5, vmax=len(SHADES) + 0.5, edgecolors=PALE, linewidth=0.4, clip_on=False)
    if layers.max() > 1:
        _write(axes, layers)
    rows, columns = layers.shape
    axes.set(aspect="equal", xlim=(0, columns), ylim=(rows, 0))
    axes.set_title(title, color=INK, fontsize=10)
    axes.set_xlabel("key", color=INK)
    axes.set_ylabel("query", color=INK)
    axes.set_xticks([0.5, columns - 0.5], ["1", str(columns)])
    axes.set_yticks([0.5, rows - 0.5], [str(columns - rows + 1), str(columns)])
    axes.tick_params(colors=INK, length=0)
    axes.spines[:].set_visible(False)


def _write(axes: "Axes", layers: Layers) -> None:
    """The digits."""
    for i, j in np.argwhere(layers):
        letter = LETTERS[min(layers[i, j], len(LETTERS)) - 1]
        axes.text(j + 0.5, i + 0.53, str(layers[i, j]), color=letter, fontsize=7, ha="center", va="center")
