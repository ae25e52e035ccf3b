"""The six-token ledger, which every mechanism of the course works through.

Five entries are written (Ann=2, Bob=5, Cy=7, Dee=1, Ann=4), then Ann is asked for. Dee's key collides with Ann's and Bob's,
and Ann is rewritten: 2, 4, their mean or their sum? Each mechanism is a different policy; what it answers is its row.
"""

import io
from collections.abc import Callable, Sequence
from math import copysign

import torch
from torch import Tensor

names = ("Ann=2", "Bob=5", "Cy=7", "Dee=1", "Ann=4", "Ann?")
keys = torch.tensor(
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0], [1, 0, 0], [0, 0, 0]],
    dtype=torch.float64,
)
values = torch.tensor([2, 5, 7, 1, 4, 0], dtype=torch.float64)
query = torch.tensor([1, 0, 0], dtype=torch.float64)

# Okabe and Ito's orange and blue, told apart by colour-blind readers too; white between them is zero.
NEGATIVE, ZERO, POSITIVE = "#E69F00", "#FFFFFF", "#0072B2"


class Mixing:
    """How much the value of token j reaches output i: `weights` (T, T). A notebook shows a picture, print shows numbers."""

    def __init__(self, weights: Tensor, title: str):
        self.weights, self.title = weights.detach(), title

    def __repr__(self) -> str:
        heads = _row("", _tokens(self.weights.shape[1]))
        rows = [_row(f"out {i + 1}", [_digits(x) for x in weights]) for i, weights in enumerate(self.weights.tolist())]
        return "\n".join([self.title, heads, *rows])

    def _repr_png_(self) -> bytes:
        return _picture(self.weights, self.title)


def show() -> None:
    """Prints the ledger: one column a token."""
    print(_row("t", [str(t + 1) for t in range(6)]))
    print(_row("", names))
    for channel in range(3):
        print(_row(f"k[{channel}]", [f"{x:g}" for x in keys[:, channel].tolist()]))
    print(_row("v", [f"{x:g}" for x in values.tolist()]))


def row(mechanism: str, answer: float, bytes_at_6: int, bytes_at_million: int) -> None:
    """Prints a mechanism's row: what it answers at token 6, and the bytes it carries after 6 and after 1,000,000 tokens."""
    print(f"{'mechanism':24}{'answer':>10}{'bytes at 6':>16}{'bytes at 1,000,000':>22}")
    print(f"{mechanism:24}{_digits(float(answer), zero='0'):>10}{bytes_at_6:>16,}{bytes_at_million:>22,}")


def mixing(outputs: Callable[[Tensor], Tensor], title: str, at: Tensor = values) -> Mixing:
    """The mixing matrix of a mechanism: how much the value of token j reaches output i. End a cell with it.

    M_ij = d output_i / d value_j

    For a mechanism that is linear in its values, outputs = M values exactly.

    Args:
        outputs: from values (T,) to outputs (T,); it must keep the autograd graph.
        title: the mechanism's name.
        at: the values around which to look, (T,); the ledger's own.

    Returns:
        M: its numbers are `.weights`, (T, T), row i an output, column j a token.
    """
    return Mixing(torch.autograd.functional.jacobian(outputs, at), title)


def _picture(weights: Tensor, title: str) -> bytes:
    """A PNG of the matrix, every weight written in its cell, readable on a light and on a dark page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.6), dpi=110, facecolor="white", layout="constrained")
    axes = figure.add_subplot(facecolor="white")
    limit = max(weights.abs().max().item(), 1e-12)
    colours = LinearSegmentedColormap.from_list("mixing", [NEGATIVE, ZERO, POSITIVE])
    axes.imshow(weights.numpy(), cmap=colours, vmin=-limit, vmax=limit)
    for i, line in enumerate(weights.tolist()):
        for j, weight in enumerate(line):
            ink = "white" if weight > 0.6 * limit else "black"
            axes.text(j, i, f"{weight:.3g}" if abs(weight) > 1e-9 else "", ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(weights.shape[1]), _tokens(weights.shape[1]), rotation=45)
    axes.set_yticks(range(weights.shape[0]), [str(i + 1) for i in range(weights.shape[0])])
    axes.set(xlabel="token j", ylabel="output i", title=title)
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    return png.getvalue()


def _tokens(count: int) -> Sequence[str]:
    return names if count == len(names) else [str(j + 1) for j in range(count)]


def _row(head: str, cells: Sequence[str]) -> str:
    return f"{head:6}" + "".join(f"{cell:>9}" for cell in cells)


def _digits(number: float, zero: str = ".") -> str:
    """Five significant digits, and a sign of its own for zero and for what rounding left of zero.

    Halves are what this ledger is made of, and such numbers can lie exactly between two roundings: the push away from zero
    decides the same way on every processor.
    """
    return f"{number + copysign(1e-12, number):.5g}" if abs(number) > 1e-9 else zero
