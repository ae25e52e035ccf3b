"""Filters side by side: what an impulse leaves behind, step by step, one curve for each."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridlab.widgets.palette import SERIES
from hybridlab.widgets.png import as_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = dict[str, NDArray[np.float64]]

WRITTEN = 6  # taps that are written out
DPI = 100
INK, PALE = "#767676", "#a0a0a0"  # legible on a light page and on a dark one


class Filters:
    """Panels of curves; see `filters`.

    Attributes:
        panels: title -> name -> taps.
    """

    def __init__(self, panels: dict[str, Curves]) -> None:
        self.panels = panels

    def __repr__(self) -> str:
        lines = []
        for title, curves in self.panels.items():
            lines.append(title)
            lines.extend(f"  {name:14}{_written(taps)}" for name, taps in curves.items())
        return "\n".join(lines)

    def _repr_png_(self) -> bytes:
        return as_png(self.figure())

    def figure(self) -> "Figure":
        """The panels from left to right, on one scale; earlier curves are drawn wider, so that equal ones stay visible."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(1 + 3.7 * len(self.panels), 3), dpi=DPI, facecolor="none", layout="constrained")
        rows = figure.subplots(1, len(self.panels), sharey=True, squeeze=False)
        for axes, (title, curves) in zip(rows[0], self.panels.items(), strict=True):
            _draw(axes, title, curves)
        return figure


def filters(panels: Mapping[str, Mapping[str, ArrayLike]]) -> Filters:
    """Draws filters, so that they can be held beside each other.

    Args:
        panels: title of a panel -> name of a curve -> its taps, tap 0 first; up to six curves a panel.

    Returns:
        what a notebook shows as a picture; as text, the first six taps of each.

    Raises:
        ValueError: nothing to draw, too many curves, taps that are no row of finite numbers.

    Chapter 04.
    """
    read = {title: {name: _taps(name, taps) for name, taps in curves.items()} for title, curves in panels.items()}
    if not read or not all(1 <= len(curves) <= len(SERIES) for curves in read.values()):
        counts = {title: len(curves) for title, curves in read.items()}
        raise ValueError(f"filters: panels must be at least one, with 1 to {len(SERIES)} curves each, got {counts}")
    return Filters(read)


def _taps(name: str, taps: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(taps, dtype=np.float64)
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise ValueError(f"filters: panels: {name!r} must be a row of finite numbers, got shape {numbers.shape}")
    return numbers


def _written(taps: NDArray[np.float64]) -> str:
    shown = " ".join(f"{x + 0.0:8.4f}" for x in np.round(taps[:WRITTEN], 4))
    return shown + ("" if len(taps) <= WRITTEN else "  ...")


def _draw(axes: "Axes", title: str, curves: Curves) -> None:
    axes.set_facecolor("none")
    axes.axhline(0, color=PALE, linewidth=0.8)
    for k, ((name, taps), (colour, dash)) in enumerate(zip(curves.items(), SERIES, strict=False)):
        width = 1.6 + 1.2 * (len(curves) - 1 - k)
        axes.plot(taps, color=colour, linestyle=dash, linewidth=width, label=name, alpha=0.9)
    axes.set_title(title, color=INK, fontsize=11)
    axes.set_xlabel("age (steps since the token)", color=INK)
    axes.tick_params(colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(INK)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
