"""How many multiplications PyTorch does, and how many of them are parts of a matrix product."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten
MATRIX = (ATEN.mm, ATEN.bmm)
SINGLE = (ATEN.mul, ATEN.mul_)


class Multiplications(NamedTuple):
    """What was counted.

    Attributes:
        matrix: multiplications of products of two matrices, with at least two rows, columns and terms: a number that was
            fetched is used more than once, and matrix units can take them.
        single: all others: number by number, outer products, a matrix times a vector.
        exponentials: numbers whose exponential was taken.
    """

    matrix: int
    single: int
    exponentials: int

    @property
    def total(self) -> int:
        """All multiplications; an exponential is none."""
        return self.matrix + self.single


def multiplications(run: Callable[[], object]) -> Multiplications:
    """Runs a function and counts the multiplications of its PyTorch operations, those with a constant included.

    Tensors on the meta device are counted like others, and cost neither time nor memory. Divisions and powers are left out.

    Args:
        run: called once, without arguments.

    Returns:
        the counts.

    Chapter 05.
    """
    with _Counter() as counter:
        run()
    return Multiplications(counter.matrix, counter.single, counter.exponentials)


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = self.single = self.exponentials = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in MATRIX:
            self._product(args[0], args[1])
        elif packet in SINGLE:
            self.single += result.numel()
        elif packet in (ATEN.mv, ATEN.dot):
            self.single += args[0].numel()
        elif packet is ATEN.exp:
            self.exponentials += result.numel()
        return result

    def _product(self, left: Tensor, right: Tensor) -> None:
        count = left.numel() * right.shape[-1]
        if min(*left.shape[-2:], right.shape[-1]) > 1:
            self.matrix += count
        else:
            self.single += count
