"""The state protocol: what a model carries from token to token, and exactly how many bytes that is.

A layer's state is a NamedTuple of tensors. Each tensor owns its storage: a view of a longer buffer would keep the whole
buffer alive, and the bytes would not be what they seem. States are never changed in place; a call returns a new one.

A model's state is a `ModelState`. Its `position` (tokens read so far) is bookkeeping, the same for every architecture, and
`state_nbytes` leaves it out.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_leaves

from hybridlab.shapes import Position


class ModelState(NamedTuple):
    """What a whole model carries: one state a layer, what layers share, and how many tokens were read.

    Bytes: the sum over `layers` and `shared`; `position` is not counted.
    """

    layers: tuple[Any, ...]
    shared: Any
    position: Position


class Empty(NamedTuple):
    """The state of a layer that carries nothing (an MLP, a consumer of another layer's cache). Bytes: 0."""


def state_tensors(state: Any) -> Iterator[Tensor]:
    """Yields every tensor of a state, `position` left out.

    Raises:
        TypeError: if a leaf is not a tensor: bytes held elsewhere would be missed.
    """
    if isinstance(state, ModelState):
        yield from state_tensors((state.layers, state.shared))
        return
    for leaf in tree_leaves(state):
        if not isinstance(leaf, Tensor):
            raise TypeError(f"state: every leaf must be a tensor, got {type(leaf).__name__} ({leaf!r})")
        yield leaf


def state_nbytes(state: Any) -> int:
    """Bytes that a state keeps alive: the sum over its distinct storages.

    Storages, not tensors: a tensor that two layers share counts once, a view counts the whole buffer behind it.

    Args:
        state: a NamedTuple of tensors, a `ModelState`, or any nesting of tuples, lists and dicts of them.

    Returns:
        bytes.
    """
    storages = {}
    for tensor in state_tensors(state):
        storage = tensor.untyped_storage()
        # Meta tensors have no address, so their storages are told apart by the storage object itself.
        key = storage._cdata if tensor.is_meta else storage.data_ptr() or storage._cdata
        storages[key] = storage.nbytes()
    return sum(storages.values())
