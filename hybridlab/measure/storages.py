"""What each tensor of a model's state is: a cache, a recurrent state, or past inputs that are kept as they are.

A cache is known by its type. The other two are told apart by where a layer asks for them (`Storage.recurrent`, `.cached`): a
state that is made in two dtypes of different sizes shows on each of its tensors which one it was.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from hybridlab.layers import KeyCache
from hybridlab.models import LanguageModel
from hybridlab.ops import AttentionState
from hybridlab.state import ModelState, state_tensors

CACHES = (AttentionState, KeyCache)
# Two dtypes of different sizes: in a state that is made of them each tensor shows which of the two it follows.
CACHED, RECURRENT = torch.bfloat16, torch.float64


class Kind(StrEnum):
    """What a tensor of a state is: keys and values; sums over all tokens; the last inputs of a convolution or shift."""

    CACHE = "cache"
    RECURRENT = "recurrent"
    CONV = "conv"


def probe_state(model: LanguageModel, length: int, batch: int = 1) -> ModelState:
    """A state on the meta device whose tensors show what they are."""
    return model.init_state(batch, length, dtype=CACHED, state_dtype=RECURRENT, device="meta")


def kinds(probe: Any) -> Iterator[Kind]:
    """What each tensor of (a part of) a `probe_state` is, in the order of `state_tensors`."""
    cached = cached_storages(probe)
    for tensor in state_tensors(probe):
        if storage_key(tensor) in cached:
            yield Kind.CACHE
        else:
            yield Kind.RECURRENT if tensor.dtype in (RECURRENT, RECURRENT.to_complex()) else Kind.CONV


def storage_key(tensor: Tensor) -> int:
    """What tells storages apart, on the meta device too."""
    return tensor.untyped_storage()._cdata


def cached_storages(state: Any) -> set[int]:
    """Keys of the storages of every cache in a nesting of states."""
    return {storage_key(tensor) for tensor in _cached(state)}


def _cached(state: Any) -> Iterator[Tensor]:
    if isinstance(state, CACHES):
        yield from state_tensors(state)
    elif isinstance(state, tuple | list):
        for inner in state:
            yield from _cached(inner)
