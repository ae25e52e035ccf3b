"""How many operations of PyTorch a function calls: a loop over the tokens shows in it, however fast it is."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


def operations(run: Callable[[], object]) -> int:
    """Runs a function and counts its calls into PyTorch.

    A tensor that is taken apart into Python's numbers counts as one operation for each of them.

    Args:
        run: called once, without arguments.

    Returns:
        the count.

    Chapter 04.
    """
    with _Counter() as counter:
        run()
    return counter.calls


class _Counter(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += args[0].numel() if func is Tensor.tolist else 1
        return func(*args, **(kwargs or {}))
