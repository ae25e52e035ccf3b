"""What tokens demand of a memory of two numbers, drawn as lines, and the way a memory takes among them."""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridlab.widgets.palette import SERIES
from hybridlab.widgets.png import as_png
from hybridlab.widgets.text import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = NDArray[np.float64]
Line = tuple[Numbers, float]

DPI = 100
INK, PALE = "#767676", "#a0a0a0"  # legible on a light page and on a dark one
MARGIN = 0.12  # of the width, around what is drawn
WIDTHS = (4, 1.6)  # of the ways: where two go together, both are seen


class Demands:
    """Lines and ways; see `demands`.

    Attributes:
        lines: name -> (k, v), the line of all memories S with k . S = v.
        ways: name -> (n, 2), the memory before its first write and after each.
    """

    def __init__(self, axes: tuple[str, str], lines: dict[str, Line], ways: dict[str, Numbers]) -> None:
        self.axes, self.lines, self.ways = axes, lines, ways

    def __repr__(self) -> str:
        equations = (
            f"{name}: {' + '.join(f'{short(part)} {axis}' for part, axis in zip(k, self.axes, strict=True) if part)}"
            f" = {short(v)}"
            for name, (k, v) in self.lines.items()
        )
        ways = (
            f"{name}: {' -> '.join(f'({short(x)}, {short(y)})' for x, y in points)}" for name, points in self.ways.items()
        )
        return "\n".join([*equations, *ways])

    def _repr_png_(self) -> bytes:
        return as_png(self.figure())

    def figure(self) -> "Figure":
        """The plane of all memories; both axes to one scale, so that right angles are seen."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.6, 5.2), dpi=DPI, facecolor="none", layout="constrained")
        axes = figure.subplots()
        points = np.concatenate(list(self.ways.values()))
        low, high = points.min(0), points.max(0)
        edge = MARGIN * (high - low).max()
        axes.set(xlim=(low[0] - edge, high[0] + edge), ylim=(low[1] - edge, high[1] + edge), aspect="equal")
        for name, line in self.lines.items():
            _draw_line(axes, name, line)
        for (name, way), (colour, _), width in zip(self.ways.items(), SERIES, WIDTHS, strict=False):
            _draw_way(axes, way, colour, width)
            axes.plot([], [], color=colour, linewidth=width, label=name)
        axes.set_facecolor("none")
        axes.set_xlabel(self.axes[0], color=INK)
        axes.set_ylabel(self.axes[1], color=INK)
        axes.tick_params(colors=INK)
        axes.spines[:].set_color(PALE)
        axes.legend(frameon=False, labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        return figure


def demands(axes: tuple[str, str], lines: Mapping[str, tuple[ArrayLike, float]], ways: Mapping[str, ArrayLike]) -> Demands:
    """Draws what tokens demand of a memory S of two numbers, and the ways that memories take among the demands.

    Args:
        axes: the names of S's two numbers.
        lines: name -> (k, v): a token whose key (2,) is to be answered with v is content on the line k . S = v.
        ways: name -> (n, 2), n at least 2: S before its first write and after each; at most two of them.

    Returns:
        what a notebook shows as a picture; as text, the equations and the points.

    Raises:
        ValueError: a key that is no two numbers or zero, a way that is not (n, 2), none or more than two ways.

    Chapter 08.
    """
    if not 1 <= len(ways) <= len(WIDTHS):
        raise ValueError(f"demands: ways must be 1 to {len(WIDTHS)}, got {len(ways)}")
    return Demands(
        axes,
        {name: (_key(name, k), float(v)) for name, (k, v) in lines.items()},
        {name: _way(name, points) for name, points in ways.items()},
    )


def _key(name: str, given: ArrayLike) -> Numbers:
    key = np.asarray(given, dtype=np.float64)
    if key.shape != (2,) or not key.any():
        raise ValueError(f"demands: lines: the key of {name!r} must be two numbers, not both 0, got {key.tolist()}")
    return key


def _way(name: str, given: ArrayLike) -> Numbers:
    points = np.asarray(given, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 2:
        raise ValueError(f"demands: ways: {name!r} must be (n, 2) with n at least 2, got shape {points.shape}")
    return points


def _draw_line(axes: "Axes", name: str, line: Line) -> None:
    """The line, its name where it enters the picture, from the left or from above: slanting lines go to the lower right."""
    (k_x, k_y), value = line
    foot_x, foot_y = line[0] * value / (line[0] @ line[0])
    axes.axline((foot_x, foot_y), (foot_x - k_y, foot_y + k_x), color=PALE, linewidth=1, linestyle=(0, (5, 3)))
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    crossings = [(x, (value - k_x * x) / k_y) for x in (left, right) if k_y]
    crossings += [((value - k_y * y) / k_x, y) for y in (top, bottom) if k_x]
    entries = (point for point in crossings if left <= point[0] <= right and bottom <= point[1] <= top)
    where = next(entries, None)
    if where is not None:
        offset = (5, -13 if where[1] == top else 5)  # to the right, and inside
        axes.annotate(name, where, offset, textcoords="offset points", color=INK, fontsize=9)


def _draw_way(axes: "Axes", way: Numbers, colour: str, width: float) -> None:
    """A dot a state, and an arrow a write."""
    axes.plot(*way.T, "o", color=colour, markersize=3 + width)
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "mutation_scale": 10 + 2 * width}
    for start, end in pairwise(way):
        if not np.array_equal(start, end):
            axes.annotate("", end, start, arrowprops=style)
