"""The six-token ledger, which every mechanism of the course works through.

Five entries are written (Ann=2, Bob=5, Cy=7, Dee=1, Ann=4), then Ann is asked for. Dee's key collides with Ann's and Bob's,
and Ann is rewritten: 2, 4, their mean or their sum? Each mechanism is a different policy; what it answers is its row.
"""

from collections.abc import Callable
from math import copysign
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hybridlab.widgets.text import row as line

if TYPE_CHECKING:
    from hybridlab.widgets import MixingMatrix, Recurrence

names = ("Ann=2", "Bob=5", "Cy=7", "Dee=1", "Ann=4", "Ann?")
keys = torch.tensor(
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0], [1, 0, 0], [0, 0, 0]],
    dtype=torch.float64,
)
values = torch.tensor([2, 5, 7, 1, 4, 0], dtype=torch.float64)
query = torch.tensor([1, 0, 0], dtype=torch.float64)


def show() -> None:
    """Prints the ledger: one column a token."""
    print(line("t", [str(t + 1) for t in range(6)]))
    print(line("", names))
    for channel in range(3):
        print(line(f"k[{channel}]", [f"{x:g}" for x in keys[:, channel].tolist()]))
    print(line("v", [f"{x:g}" for x in values.tolist()]))


def row(mechanism: str, answer: float, bytes_at_6: int, bytes_at_million: int) -> None:
    """Prints a mechanism's row: what it answers at token 6, and the bytes it carries after 6 and after 1,000,000 tokens."""
    rows((mechanism, answer, bytes_at_6, bytes_at_million))


def rows(*mechanisms: tuple[str, float, int, int]) -> None:
    """Prints the rows of several mechanisms under one head; each is what `row` takes."""
    print(f"{'mechanism':24}{'answer':>10}{'bytes at 6':>16}{'bytes at 1,000,000':>22}")
    for mechanism, answer, bytes_at_6, bytes_at_million in mechanisms:
        print(f"{mechanism:24}{_digits(float(answer), zero='0'):>10}{bytes_at_6:>16,}{bytes_at_million:>22,}")


def mixing(
    outputs: Callable[[Tensor], Tensor], title: str, way: "Recurrence | None" = None, law: str = ""
) -> "MixingMatrix":
    """The mixing matrix of a mechanism: how much the value of token j reaches output i. End a cell with it.

    M_ij = d output_i / d value_j, at the ledger's values

    For a mechanism that is linear in its values, outputs = M values exactly.

    Args:
        outputs: from values (6,) to outputs (6,); it must keep the autograd graph.
        title: the mechanism's name.
        way: what its recurrence multiplies, from `hybridlab.widgets.recurrence`; it must give the same matrix.
        law: its equation in a line.

    Returns:
        M: a picture to walk through by mouse or arrow keys; its numbers are `.weights`, (6, 6), row i an output.
    """
    from hybridlab.widgets import MixingMatrix

    weights = torch.autograd.functional.jacobian(outputs, values)
    return MixingMatrix(weights.numpy(), title, names, way, law)


def _digits(number: float, zero: str = ".") -> str:
    """Five significant digits, and a sign of its own for zero and for what rounding left of zero.

    Halves are what this ledger is made of, and such numbers can lie exactly between two roundings: the push away from zero
    decides the same way on every processor.
    """
    return f"{number + copysign(1e-12, number):.5g}" if abs(number) > 1e-9 else zero
