"""How many bytes autograd keeps for the backward pass."""

from collections.abc import Callable

import torch
from torch import Tensor


def bytes_kept(run: Callable[[], object]) -> int:
    """Runs a function and adds up the storages of all tensors that autograd puts aside for the backward pass.

    A storage that is put aside several times counts once. What checkpointing will compute again counts nothing.

    Args:
        run: called once, without arguments; what it returns stays alive until the sum is taken.

    Returns:
        bytes.

    Chapter 04.
    """
    kept: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        result = run()
    del result  # until here its graph held every storage, so that no address was used twice
    return sum(kept.values())
