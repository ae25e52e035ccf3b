"""Peak memory of one call: the most that tensors took at one time, beside those that were there before.

On a GPU the allocator itself keeps count. On a CPU it does not: there every tensor that an operator returns is counted from
then on until its storage goes. What one operator or kernel allocates and frees within itself is not seen. PyTorch's profiler
would see some of that, but it writes to stderr and stores an event for each allocation.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Made = TypeVar("Made")


def with_peak(run: Callable[[], Made], device: torch.device) -> tuple[Made, int]:
    """What a call returns, and the bytes that it allocates at most at one time; what it returns is part of them.

    Args:
        run: is called once, slower than it is.
        device: where its tensors live.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        made = run()
        torch.cuda.synchronize(device)
        return made, torch.cuda.max_memory_allocated(device) - before
    with _Alive() as alive:
        made = run()
    return made, alive.peak


class _Alive(TorchDispatchMode):
    """Counts storages that operators make, until nobody holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operator, then counts what it made; views of what it was given are nothing new."""
        given = {storage._cdata for storage in _storages((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage._cdata not in given | self._counted:
                self._counted.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return made

    def _gone(self, key: int, nbytes: int) -> None:
        self._counted.discard(key)
        self.now -= nbytes


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    yield from (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
