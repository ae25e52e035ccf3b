"""`plan`: which models fit a device, weights and state together, and how long a text each of them can take there."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from hybridlab.measure.footprint import Footprint
from hybridlab.measure.memory import DTYPES
from hybridlab.measure.preset_footprints import AS_BUILT, preset_footprints
from hybridlab.measure.tables import Report, Table
from hybridlab.measure.units import readable


@dataclass(frozen=True)
class Candidate:
    """One model on the device.

    Attributes:
        model: its name.
        parameters: all of them.
        weight_bytes: what they take.
        kept_bytes: of caches and states, all sequences together, at the context that was asked for.
        longest: the most tokens a sequence can have before the device is full; None is any number, 0 not even one.
        fits: whether the context that was asked for does.
    """

    model: str
    parameters: int
    weight_bytes: int
    kept_bytes: int
    longest: int | None
    fits: bool

    @property
    def total_bytes(self) -> int:
        """Weights and what is kept."""
        return self.weight_bytes + self.kept_bytes


@dataclass(frozen=True, repr=False)
class Plan(Report):
    """What fits.

    Attributes:
        device_bytes: of the device.
        context: tokens that each sequence has read.
        batch: sequences.
        dtype: of weights and caches.
        candidates: all models that were asked about, those with the most parameters first.
    """

    device_bytes: int
    context: int
    batch: int
    dtype: str
    candidates: tuple[Candidate, ...]

    @property
    def fitting(self) -> tuple[Candidate, ...]:
        """The models that fit."""
        return tuple(found for found in self.candidates if found.fits)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self) | {"candidates": [asdict(x) | {"total_bytes": x.total_bytes} for x in self.candidates]}

    def table(self) -> Table:
        """A row a model that fits."""
        columns = ("model", "parameters", "weights", "cache and state", "in all", "longest text")
        rows = tuple(
            (
                found.model,
                f"{found.parameters:,}",
                *(readable(count) for count in (found.weight_bytes, found.kept_bytes, found.total_bytes)),
                _longest(found),
            )
            for found in self.fitting
        )
        sequences = "" if self.batch == 1 else f" in each of {self.batch} sequences"
        title = f"what fits into {readable(self.device_bytes)} with {self.context:,} tokens{sequences}, {self.dtype}"
        note = f"{len(rows)} of {len(self.candidates)} models; room for what a step computes with is not counted"
        return Table(title, columns, rows, frozenset(columns[1:]), frozenset(), (note,))


def plan(
    device_bytes: int, context: int, batch: int = 1, dtype: str = "bfloat16", models: Iterable[str] | None = None
) -> Plan:
    """Finds the presets whose weights and states fit a device together.

    Args:
        device_bytes: memory of the device, such as 24 * 2**30.
        context: tokens that each sequence has read.
        batch: sequences.
        dtype: of weights and caches; recurrent states are float32.
        models: names of presets; None is all.

    Returns:
        a report that shows those that fit, the largest first; `.candidates` has all, each with its longest context.

    Raises:
        ValueError: device_bytes, context or batch below 1; an unknown dtype or preset.

    Chapter 12.
    """
    for name, count in (("device_bytes", device_bytes), ("context", context), ("batch", batch)):
        if type(count) is not int or count < 1:
            raise ValueError(f"plan: {name} must be an int of at least 1, got {count!r}")
    if dtype not in DTYPES:
        raise ValueError(f"plan: dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    known = preset_footprints()
    names = tuple(known if models is None else models)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"plan: unknown preset {unknown[0]!r}; choose {', '.join(known)}")
    found = [_candidate(name, known[name][AS_BUILT], device_bytes, context, batch, dtype) for name in names]
    ranked = sorted(found, key=lambda candidate: -candidate.parameters)
    return Plan(device_bytes, context, batch, dtype, tuple(ranked))


def _candidate(name: str, found: Footprint, device_bytes: int, context: int, batch: int, dtype: str) -> Candidate:
    weights, kept = found.weight_bytes(dtype), found.kept_bytes(context, batch, dtype)
    first = found.first_too_long(device_bytes - weights, batch, dtype)
    longest = None if first is None else first - 1
    return Candidate(name, found.parameters, weights, kept, longest, weights + kept <= device_bytes)


def _longest(found: Candidate) -> str:
    return "any" if found.longest is None else f"{found.longest:,} tokens"
