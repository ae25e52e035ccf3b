"""How an op is measured: its tensors at a published size, and the operations that no solution can avoid."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


class Draw:
    """Seeded float32 numbers."""

    def __init__(self, device: str) -> None:
        self.generator = torch.Generator(device).manual_seed(0)

    def normal(self, *shape: int) -> Tensor:
        """Of mean 0 and deviation 1."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device)

    def uniform(self, *shape: int) -> Tensor:
        """Between 0 and 1."""
        return torch.rand(shape, generator=self.generator, device=self.generator.device)


class Setting(NamedTuple):
    """How an op is measured.

    Attributes:
        sizes: in words.
        tensors: (draw, tokens) to the op's inputs by name and a state that some tokens might have left.
        like: the input whose shape is the output's.
        operations: tokens to floating-point operations; an exponential or a root counts as one.
        forms: the plain PyTorch forms that take part, beside the naive loop. None that holds T x T numbers or all states.
        function: the op, where the setting is one of several of it.
        options: what else the op is given.
        most_naive: tokens of the naive loop, where its time grows with their square; None is any number.
        chooses: whether `auto` chooses among kernel and forms by size: then it is judged, and the kernel is a rival.
    """

    sizes: str
    tensors: Callable[[Draw, int], tuple[Tensors, Any]]
    like: str
    operations: Callable[[int], int]
    forms: tuple[str, ...]
    function: str = ""
    options: Mapping[str, Any] = {}
    most_naive: int | None = None
    chooses: bool = False


def each(operations: int) -> Callable[[int], int]:
    """As many operations for every token."""
    return lambda tokens: operations * tokens
