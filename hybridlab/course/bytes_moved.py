"""How many bytes PyTorch moves: what its operations read and write, one after another."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# These only set memory aside.
EMPTY = (torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty, torch.ops.aten.empty_strided)


def bytes_moved(run: Callable[[], object]) -> int:
    """Runs a function and adds up the bytes of every tensor that its PyTorch operations take and return.

    Views move nothing and count nothing. Caches are not modelled: what one operation writes and the next reads counts twice,
    as it would on a processor whose caches the tensors exceed.

    Args:
        run: called once, without arguments.

    Returns:
        bytes read and written.

    Chapter 02.
    """
    with _Traffic() as traffic:
        run()
    return traffic.bytes


class _Traffic(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func.overloadpacket not in EMPTY:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)
        return result
