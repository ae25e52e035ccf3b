"""`footprint`: a model's bytes at every context length at once, measured on its real states and not derived from a formula.

A real state is made at a few lengths on the meta device. Every tensor in it stays as it is, or grows by the same amount with
each token, or does so until a window is full; that this describes the state exactly is checked at further lengths.
"""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import torch

from hybridlab.measure.memory import DTYPES
from hybridlab.measure.storages import CACHED, RECURRENT, cached_storages, probe_state, storage_key
from hybridlab.models import LanguageModel
from hybridlab.ops.precision import state_dtype
from hybridlab.state import ModelState, state_nbytes, state_tensors

# What a tensor of each dtype of a probe follows, and the bytes of one unit: a complex number is two of the state's dtype.
UNITS = {
    CACHED: ("dtype", CACHED.itemsize),
    RECURRENT: ("state_dtype", RECURRENT.itemsize),
    RECURRENT.to_complex(): ("state_dtype", RECURRENT.itemsize),
}
ENDLESS = 2**32  # tokens; no window is as long
CHECKED = (3, 1000, 4097, 2**22, ENDLESS + 1)


class Piece(NamedTuple):
    """Tensors that grow alike: fixed + per_token * min(T, most) units for each sequence after T tokens, T from 1 on.

    Attributes:
        cache: whether attention reads it; all else is a recurrent state.
        unit: "dtype" for numbers in the model's dtype, "state_dtype" for numbers in that of recurrent states, "byte" for
            what follows neither.
        fixed: units that are there whatever the tokens.
        per_token: units that each token adds.
        most: tokens after which nothing is added; None is never.
    """

    cache: bool
    unit: str
    fixed: int
    per_token: int
    most: int | None

    def units(self, context: int) -> int:
        """Units after so many tokens, at least one."""
        return self.fixed + self.per_token * (context if self.most is None else min(context, self.most))


def unit_bytes(dtype: torch.dtype, recurrent: torch.dtype | None = None) -> dict[str, int]:
    """Bytes of each unit of a `Piece`, in a model of this dtype; recurrent states are float32 unless said."""
    return {"dtype": dtype.itemsize, "state_dtype": (recurrent or state_dtype(dtype)).itemsize, "byte": 1}


@dataclass(frozen=True)
class Footprint:
    """What a model keeps, as a function of context, batch and dtype.

    Attributes:
        parameters: all of them; a tied head counts once.
        pieces: of its state.
    """

    parameters: int
    pieces: tuple[Piece, ...]

    def kept_bytes(self, context: int, batch: int = 1, dtype: str = "bfloat16", cache: bool | None = None) -> int:
        """Bytes of all that is carried after `context` tokens: caches and shifts in `dtype`, recurrent states in float32.

        Args:
            context: tokens that each sequence has read, at least 1.
            batch: sequences.
            dtype: a key of `hybridlab.measure.memory.DTYPES`.
            cache: True counts attention's caches only, False recurrent states only, None both.
        """
        sizes = unit_bytes(DTYPES[dtype])
        pieces = [piece for piece in self.pieces if cache in (None, piece.cache)]
        return batch * sum(piece.units(context) * sizes[piece.unit] for piece in pieces)

    def weight_bytes(self, dtype: str = "bfloat16") -> int:
        """Bytes of the parameters in `dtype`."""
        return self.parameters * DTYPES[dtype].itemsize

    def first_too_long(self, limit: int, batch: int = 1, dtype: str = "bfloat16") -> int | None:
        """The first context, 1 or more tokens, at which `kept_bytes` are more than `limit`; None if it never comes."""
        if all(piece.most is not None or piece.per_token == 0 for piece in self.pieces):
            end = max((piece.most or 0 for piece in self.pieces), default=0) + 1
            if self.kept_bytes(end, batch, dtype) <= limit:
                return None
        end = 1
        while self.kept_bytes(end, batch, dtype) <= limit:
            end *= 2
        return 1 + bisect_right(range(1, end), limit, key=lambda context: self.kept_bytes(context, batch, dtype))


def footprint(model: LanguageModel) -> Footprint:
    """Measures what a model keeps at any context length; nothing is allocated.

    Args:
        model: on any device.

    Raises:
        ValueError: a state that does not grow evenly up to a window, or not in proportion to the batch.

    Chapter 12.
    """
    tensors = zip_longest(*(_storages(probe_state(model, length)) for length in (1, 2, ENDLESS)))
    merged: dict[tuple[bool, str, int | None], Piece] = {}
    for lengths in tensors:
        piece = _piece(model, lengths)
        key = (piece.cache, piece.unit, piece.most)
        before = merged.get(key, Piece(*key[:2], 0, 0, key[2]))
        merged[key] = before._replace(fixed=before.fixed + piece.fixed, per_token=before.per_token + piece.per_token)
    found = Footprint(sum(parameter.numel() for parameter in model.parameters()), tuple(merged.values()))
    _check(model, found)
    return found


class _Storage(NamedTuple):
    cache: bool
    unit: str
    units: int


def _storages(state: ModelState) -> list[_Storage]:
    """What each distinct storage of a state is, in their order."""
    cached = cached_storages(state)
    found = {}
    for tensor in state_tensors(state):
        key, (unit, itemsize) = storage_key(tensor), UNITS.get(tensor.dtype, ("byte", 1))
        found[key] = _Storage(key in cached, unit, tensor.untyped_storage().nbytes() // itemsize)
    return list(found.values())


def _piece(model: LanguageModel, lengths: tuple[_Storage | None, ...]) -> Piece:
    """From one storage at 1, 2 and endless tokens: with the first, a model may read rows of its own (Hymba does)."""
    if None in lengths:
        raise _uneven(model, "it has more tensors at one length than at another")
    one, two, endless = (storage for storage in lengths if storage is not None)
    return Piece(one.cache, one.unit, *growth(one.units, two.units, endless.units))


def growth(one: int, two: int, endless: int) -> tuple[int, int, int | None]:
    """`fixed`, `per_token` and `most` of an amount, from what it is at 1, at 2 and at `ENDLESS` tokens."""
    per_token = two - one
    fixed = one - per_token
    full = (endless - fixed) // per_token if per_token else ENDLESS
    return fixed, per_token, None if full == ENDLESS else full


def _check(model: LanguageModel, found: Footprint) -> None:
    """At lengths and a batch from which nothing was derived, and around every window."""
    windows = {piece.most for piece in found.pieces if piece.most is not None}
    around = {max(1, window + off) for window in windows for off in (-1, 0, 1)}
    sizes = unit_bytes(CACHED, RECURRENT)
    for length in sorted({*CHECKED, *around}):
        for batch in (1, 3):
            expected = batch * sum(piece.units(length) * sizes[piece.unit] for piece in found.pieces)
            measured = state_nbytes(probe_state(model, length, batch))
            if measured != expected:
                raise _uneven(model, f"batch {batch}, {length:,} tokens: {measured:,} bytes, not {expected:,}")


def _uneven(model: LanguageModel, what: str) -> ValueError:
    return ValueError(f"footprint: the state of {type(model).__name__} does not grow evenly with tokens and batch: {what}")
