"""What a model keeps while it reads and writes: bytes after each token, drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hybridlab.cli.generate import Cost
from hybridlab.widgets.palette import SERIES

DPI = 150
INK, PALE = "#404040", "#d0d0d0"
UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1))


def draw_memory(costs: Sequence[Cost], prompt: int, path: Path) -> None:
    """Writes a PNG of what was kept after the prompt and after each new token: caches and recurrent states.

    Args:
        costs: of each step, at least one.
        prompt: tokens of the prompt.
        path: of the file.
    """
    tokens = [cost.tokens for cost in costs]
    lines = {"cache": [cost.cache_bytes for cost in costs], "recurrent state": [cost.state_bytes for cost in costs]}
    most = max(max(sizes) for sizes in lines.values())
    unit, size = next((unit, size) for unit, size in UNITS if most >= size)
    figure = Figure(figsize=(7, 4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for (name, sizes), (colour, dashes) in zip(lines.items(), SERIES, strict=False):
        if any(sizes):
            _draw_line(axes, name, (tokens, [count / size for count in sizes]), {"color": colour, "linestyle": dashes})
    axes.set_title(f"kept after each token, from the prompt's {prompt:,} on", loc="left", color=INK)
    axes.set_ylabel(unit, color=INK)
    axes.set_ylim(0, most / size * 1.1)
    _dress(axes)
    figure.savefig(path, format="png")


def _draw_line(axes: Axes, name: str, points: tuple[list[int], list[float]], style: dict[str, Any]) -> None:
    """A line with its name at its end; a dot where it is a single step."""
    axes.plot(*points, linewidth=2, marker="" if len(points[0]) > 1 else "o", **style)
    end = (points[0][-1], points[1][-1])
    axes.annotate(
        name,
        end,
        (6, 0),
        textcoords="offset points",
        va="center",
        color=style["color"],
        weight="bold",
        annotation_clip=False,
    )


def _dress(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    axes.set_xlabel("tokens read", color=INK)
    axes.tick_params(colors=INK)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
