"""`account`: what a model keeps in memory, to the byte, and how much it computes a token.

Nothing here is a formula of an architecture: the real model makes its real state as it stands after `context` tokens, on the
meta device, and the account adds up its storages. A cache of attention counts as `kv_bytes`, everything else as
`state_bytes`: `recurrent_bytes` are what is added up token by token (SSM and WKV states), `conv_bytes` past inputs that are
kept as they are (those of short and long convolutions and of token shifts). hybridlab/measure/storages.py tells them apart.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from hybridlab.layers import MixtureOfExperts
from hybridlab.measure.flops import Flops, count_flops
from hybridlab.measure.storages import Kind, kinds, probe_state, storage_key
from hybridlab.measure.tables import Report, Table
from hybridlab.models import PRESETS, LanguageModel, from_preset
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.state import ModelState, state_tensors

SUMS = ("kv_bytes", "recurrent_bytes", "conv_bytes", "state_bytes", "total_bytes", "weight_bytes")
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Part:
    """One part of a model: a layer, or what stands before and after them.

    Attributes:
        name: its attribute in the model, such as "layers.0".
        kind: what it is made of.
        parameters: numbers that it owns; one that an earlier part owns too is counted there.
        kv_bytes: of its cache.
        recurrent_bytes: of what it adds up token by token.
        conv_bytes: of past inputs that it keeps for a convolution or a token shift.
        flops_per_token: of one decode step, 2 a multiply-add.
    """

    name: str
    kind: str
    parameters: int
    kv_bytes: int
    recurrent_bytes: int
    conv_bytes: int
    flops_per_token: int

    @property
    def state_bytes(self) -> int:
        """Bytes of everything that is no cache."""
        return self.recurrent_bytes + self.conv_bytes

    def amounts(self) -> tuple[int, ...]:
        """The five numbers."""
        return self.parameters, self.kv_bytes, self.recurrent_bytes, self.conv_bytes, self.flops_per_token

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self) | {"state_bytes": self.state_bytes}


@dataclass(frozen=True, repr=False)
class Account(Report):
    """What one model keeps and computes at one context length.

    Attributes:
        model: its name.
        context: tokens that each sequence has read.
        batch: sequences.
        dtype: of weights and caches.
        state_dtype: of recurrent states.
        parameters: all of them; a tied head counts once.
        active_parameters: those that one token uses: all but those of experts that it does not go through.
        flops_per_token: of the step that reads token number `context`, for one sequence.
        parts: a row a layer, and what stands before and after them.
    """

    model: str
    context: int
    batch: int
    dtype: str
    state_dtype: str
    parameters: int
    active_parameters: int
    flops_per_token: int
    parts: tuple[Part, ...]

    @property
    def kv_bytes(self) -> int:
        """Bytes of attention's caches, all sequences together."""
        return sum(part.kv_bytes for part in self.parts)

    @property
    def recurrent_bytes(self) -> int:
        """Bytes of what is added up token by token, all sequences together."""
        return sum(part.recurrent_bytes for part in self.parts)

    @property
    def conv_bytes(self) -> int:
        """Bytes of past inputs that convolutions and token shifts read again, all sequences together."""
        return sum(part.conv_bytes for part in self.parts)

    @property
    def state_bytes(self) -> int:
        """Bytes of everything that is no cache, all sequences together."""
        return self.recurrent_bytes + self.conv_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes of all that is carried from token to token; weights are not in it."""
        return self.kv_bytes + self.state_bytes

    @property
    def weight_bytes(self) -> int:
        """Bytes of the parameters in `dtype`."""
        return self.parameters * DTYPES[self.dtype].itemsize

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return (
            asdict(self) | {name: getattr(self, name) for name in SUMS} | {"parts": [part.as_dict() for part in self.parts]}
        )

    def table(self) -> Table:
        """A row a part; neighbours that are alike share one."""
        columns = ("part", "kind", "parameters", "cache bytes", "recurrent bytes", "conv bytes", "FLOPs a token")
        rows = [(_span(run), run[0].kind, *(f"{x:,}" for x in run[0].amounts())) for run in _alike(self.parts)]
        sums = (self.parameters, self.kv_bytes, self.recurrent_bytes, self.conv_bytes, self.flops_per_token)
        total = ("in all", "", *(f"{x:,}" for x in sums))
        title = f"{self.model} after {self.context:,} tokens, batch {self.batch}, {self.dtype}"
        mixed = self.state_bytes and self.dtype != self.state_dtype
        notes: tuple[str, ...] = (f"recurrent states in {self.state_dtype}",) if mixed else ()
        if self.active_parameters < self.parameters:
            notes += (f"a token uses {self.active_parameters:,} parameters",)
        return Table(title, columns, (*rows, total), frozenset(columns[2:]), frozenset(), notes)


def account(
    model: LanguageModel | str,
    context: int,
    batch: int = 1,
    dtype: str | torch.dtype = "bfloat16",
    state_dtype: str | torch.dtype | None = None,
) -> Account:
    """Counts parameters, bytes of state and operations a token of a real model; nothing is allocated.

    Args:
        model: a model, or the name of a preset.
        context: tokens that each sequence has read, at least 1.
        batch: sequences, at least 1.
        dtype: of weights, caches and token shifts.
        state_dtype: of recurrent states; None is float32 (float64 in float64). Papers often count bfloat16.

    Returns:
        a report that shows as a table, a row a layer; `.as_dict()` has its numbers.

    Raises:
        ValueError: neither a model nor a known preset; an unknown dtype; a context or batch below 1.

    Chapter 12.
    """
    for name, count in (("context", context), ("batch", batch)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"account: {name} must be an int of at least 1, got {count!r}")
    if not isinstance(model, LanguageModel | str):
        raise ValueError(f"account: model must be a model or the name of a preset, got {model!r}")
    kind = _dtype("dtype", dtype)
    state_kind = least_state_dtype(kind) if state_dtype is None else _dtype("state_dtype", state_dtype)
    title = model if isinstance(model, str) else type(model).__name__
    built = from_preset(_known(model), device="meta") if isinstance(model, str) else model
    state = built.init_state(batch, context, dtype=kind, state_dtype=state_kind, device="meta")
    flops = count_flops(built, context)
    parameters = sum(parameter.numel() for parameter in built.parameters())
    return Account(
        model=title,
        context=context,
        batch=batch,
        dtype=_name(kind),
        state_dtype=_name(state_kind),
        parameters=parameters,
        active_parameters=parameters - _idle(built),
        flops_per_token=flops.total,
        parts=tuple(_parts(built, state, context, flops)),
    )


def _parts(model: LanguageModel, state: ModelState, context: int, flops: Flops) -> Iterator[Part]:
    """Parts in the order of the model; a parameter or a storage that is used twice belongs to the first."""
    carried = _by_part(state)
    probes = _by_part(probe_state(model, context))
    numbers: set[int] = set()
    storages: set[int] = set()
    for name, module in _modules(model):
        parameters = _added(numbers, {id(x): x.numel() for x in module.parameters()} if module is not None else {})
        kept = _by_kind(carried.get(name, ()), probes.get(name, ()))
        cache, recurrent, conv = (_added(storages, kept[kind]) for kind in (Kind.CACHE, Kind.RECURRENT, Kind.CONV))
        part = Part(name, _kind(module), parameters, cache, recurrent, conv, flops.modules.get(name, 0))
        if any(part.amounts()):
            yield part


def _by_part(state: ModelState) -> dict[str, Any]:
    """What a state holds for each part of a model."""
    return {f"layers.{i}": layer for i, layer in enumerate(state.layers)} | {"shared": state.shared}


def _by_kind(state: Any, probe: Any) -> dict[Kind, dict[int, int]]:
    """Bytes of each storage of each kind."""
    found: dict[Kind, dict[int, int]] = {kind: {} for kind in Kind}
    for kind, tensor in zip(kinds(probe), state_tensors(state), strict=True):
        found[kind][storage_key(tensor)] = tensor.untyped_storage().nbytes()
    return found


def _added(counted: set[int], sizes: dict[int, int]) -> int:
    """The sum of sizes that were not counted before; now they are."""
    new = sizes.keys() - counted
    counted |= new
    return sum(sizes[key] for key in new)


def _idle(model: LanguageModel) -> int:
    """Parameters that a token does not use."""
    return sum(module.idle_parameters() for module in model.modules() if isinstance(module, MixtureOfExperts))


def _modules(model: LanguageModel) -> Iterator[tuple[str, nn.Module | None]]:
    """The model's children, its layers one by one, and what layers share."""
    for name, module in model.named_children():
        if module is model.layers:
            yield from ((f"layers.{i}", layer) for i, layer in enumerate(model.layers))
        else:
            yield name, module
    yield "shared", None


def _kind(module: nn.Module | None) -> str:
    """The classes of a shared block that is called and of a block's two halves, or the class itself."""
    if module is None:
        return ""
    halves = [getattr(module, name, None) for name in ("block", "mixer", "channel_mixer")]
    return " + ".join(type(half).__name__ for half in halves if half is not None) or type(module).__name__


def _alike(parts: tuple[Part, ...]) -> list[list[Part]]:
    """Runs of neighbours that differ in name only."""
    runs: list[list[Part]] = []
    for part in parts:
        if runs and (runs[-1][-1].kind, runs[-1][-1].amounts()) == (part.kind, part.amounts()):
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def _span(run: list[Part]) -> str:
    first, last = run[0].name, run[-1].name
    return first if len(run) == 1 else f"{first} .. {last.rpartition('.')[2]}, each"


def _dtype(argument: str, dtype: str | torch.dtype) -> torch.dtype:
    if dtype in DTYPES.values():
        return dtype  # type: ignore[return-value]
    if dtype not in DTYPES:
        raise ValueError(f"account: {argument} must be one of {', '.join(DTYPES)}, got {dtype!r}")
    return DTYPES[str(dtype)]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _known(preset: str) -> str:
    if preset not in PRESETS:
        raise ValueError(f"account: unknown preset {preset!r}; choose {', '.join(PRESETS)}")
    return preset
