"""What a layer makes of its parameters alone, such as the taps of a filter: made once, and again when they have changed."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


class Ingredient(NamedTuple):
    """A parameter as it was: itself, its numbers (held, so that their address is not given away), and its version."""

    parameter: Tensor
    numbers: Tensor
    version: int

    def unchanged(self, parameter: Tensor) -> bool:
        """Whether this is the same parameter with the same numbers."""
        same = parameter is self.parameter and parameter._version == self.version
        return same and parameter.dtype == self.numbers.dtype and parameter.data_ptr() == self.numbers.data_ptr()


class Kept(Generic[Made]):
    """Keeps one value between calls that record no gradients, as decoding steps do.

    It is made anew once a parameter was changed in place (training, `load_state_dict`), replaced, converted or moved. Not
    seen are in-place changes through `.data`, which go behind PyTorch's back. Copies of a layer begin with nothing kept.
    """

    def __init__(self) -> None:
        self._made: Made | None = None
        self._ingredients: tuple[Ingredient, ...] = ()

    def __reduce__(self) -> tuple[type["Kept[Made]"], tuple[()]]:
        """Copied and saved empty."""
        return Kept, ()

    def get(
        self, parameters: tuple[Tensor, ...], make: Callable[[], Made], enough: Callable[[Made], bool] = lambda made: True
    ) -> Made:
        """What `make` returns, or what it returned before.

        Args:
            parameters: all that it is made of.
            make: makes it.
            enough: whether what was made before still serves.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or any(x.is_inference() for x in parameters):
            return make()
        if self._made is None or not enough(self._made) or not self._unchanged(parameters):
            self._made = make()
            self._ingredients = tuple(Ingredient(x, x.detach(), x._version) for x in parameters)
        return self._made

    def _unchanged(self, parameters: tuple[Tensor, ...]) -> bool:
        pairs = zip(self._ingredients, parameters, strict=True)
        return all(ingredient.unchanged(parameter) for ingredient, parameter in pairs)
