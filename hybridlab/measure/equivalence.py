"""`check_equivalence`: is every form and every kernel the literal equation, to the last gradient?

The truth is the recurrent form in float64: the equation, token by token, differentiated by autograd. Every other way of
computing the op is given the same numbers, and its output, its final state and every gradient are compared with the truth.
An error is the largest difference beside the largest entry of the truth.
"""

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hybridlab.measure.cases import CASES, Case, Tensors
from hybridlab.measure.tables import Cell, Measured, Report, Table
from hybridlab.ops.dispatch import obstacle

LIMITS = {torch.float64: 1e-9, torch.float32: 2e-4}
# Errors count beside this where the truth is smaller still: a gradient of 1e-19 is what rounding leaves of a zero.
SMALLEST_SCALE = 1e-6
TRUTH = "recurrent"
KERNEL_DTYPES = {"numba": (torch.float64, torch.float32), "triton": (torch.float32,)}
STATES = {"attention": ("k_past", "v_past"), "taylor_attention": ("kv_state", "k_state")}


class Way(NamedTuple):
    """One way of computing an op; `form` is empty for kernels."""

    op: str
    backend: str
    form: str
    dtype: torch.dtype

    def __str__(self) -> str:
        return " ".join(filter(None, (self.op, self.backend, self.form, dtype_name(self.dtype))))

    def device(self) -> str:
        """Triton runs on a GPU where there is one, everything else on the CPU."""
        return "cuda" if self.backend == "triton" and torch.cuda.is_available() else "cpu"

    def obstacle(self) -> str:
        """Why it cannot run here; empty if it can."""
        return "" if self.form else obstacle(self.backend, self.device(), self.dtype)


class Comparison(NamedTuple):
    """One way on one case: the error of each result ("output", "state ...", "gradient of ..."), or what was raised."""

    way: Way
    case: str
    errors: dict[str, float]
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Every error is within the limit of its dtype; NaN is not."""
        return not self.problem and all(error <= LIMITS[self.way.dtype] for error in self.errors.values())


@dataclass(frozen=True, repr=False)
class Equivalence(Report):
    """What was compared.

    Attributes:
        ways: every way of computing the ops, the truth first for each op.
        comparisons: one for each way that can run here and each case.
    """

    ways: tuple[Way, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def ok(self) -> bool:
        """Whether every comparison is within its limit (ways that cannot run here are not compared)."""
        return all(comparison.ok for comparison in self.comparisons)

    def of(self, way: Way) -> list[Comparison]:
        """All comparisons of one way."""
        return [comparison for comparison in self.comparisons if comparison.way == way]

    def table(self) -> Table:
        """One row a way: the worst error over all cases."""
        columns = ("op", "backend", "form", "dtype", "cases", "output", "state", "gradients", "limit", "result")
        rows = tuple(_way_row(way, self.of(way)) for way in self.ways)
        failed = frozenset(i for i, way in enumerate(self.ways) if not all(x.ok for x in self.of(way)))
        note = f"worst error beside the largest entry of the {TRUTH} form in float64"
        return Table("equivalence", columns, rows, frozenset(columns[4:9]), failed, (note,))

    def cases(self) -> Table:
        """One row for each way and case, with the worst result by name."""
        columns = ("way", "case", "worst", "error", "result")
        rows = tuple(_case_row(comparison) for comparison in self.comparisons)
        failed = frozenset(i for i, comparison in enumerate(self.comparisons) if not comparison.ok)
        return Table("equivalence, case by case", columns, rows, frozenset({"error"}), failed)


def check_equivalence(op: str | None = None, progress: Callable[[str], None] | None = None) -> Equivalence:
    """Compares every form and backend of an op with its literal form in float64: outputs, states, every gradient.

    Limits are 1e-9 in float64 and 2e-4 in float32, beside the largest entry of each result. A form or kernel that raises is
    a failed row, a backend that cannot run on this machine is a row that says why; nothing is raised for either.

    Args:
        op: a name in `hybridlab.ops`, such as "wkv6"; None is all of them.
        progress: called with the name of each way before it runs.

    Returns:
        a report that shows as a table; `.ok` says whether every row passed, `.cases()` has one row a case.

    Raises:
        ValueError: for an unknown op.

    Chapter 03; every later op has its row here.
    """
    if op is not None and op not in CASES:
        raise ValueError(f"check_equivalence: unknown op {op!r}; choose {', '.join(CASES)}")
    ops = list(CASES) if op is None else [op]
    ways = tuple(way for name in ops for way in all_ways(name))
    truths: dict[tuple[str, str], Tensors] = {}
    comparisons: list[Comparison] = []
    for way in ways:
        if progress:
            progress(str(way))
        comparisons.extend(_compared(way, truths))
    return Equivalence(ways, tuple(comparisons))


def all_ways(op: str) -> Iterator[Way]:
    """The truth, the other PyTorch forms in float64, and every kernel in the dtypes that it takes."""
    module = importlib.import_module(f"hybridlab.ops.{op}")
    for form in sorted(module.FORMS, key=lambda form: form != TRUTH):
        yield Way(op, "naive", form, torch.float64)
    for backend in module.BACKENDS:
        for dtype in KERNEL_DTYPES.get(backend, ()):
            yield Way(op, backend, "", dtype)


def _compared(way: Way, truths: dict[tuple[str, str], Tensors]) -> Iterator[Comparison]:
    """Runs a way on every case of its op; the truth is only kept."""
    for case in () if way.obstacle() else CASES[way.op]:
        if way.form == TRUTH:
            truths[way.op, case.name] = results(way, case)
            continue
        try:
            got = results(way, case)
        # A kernel may raise anything at all; the table must still be whole.
        except Exception as error:
            yield Comparison(way, case.name, {}, f"{type(error).__name__}: {error}")
            continue
        truth = truths[way.op, case.name]
        yield Comparison(way, case.name, {name: relative_error(got.get(name), truth[name]) for name in truth})


def results(way: Way, case: Case) -> Tensors:
    """Output, what the final state means, and every float argument's gradient, for fixed random gradients of the former."""
    given = {name: x.to(way.device()) for name, x in case.tensors().items()}
    leaves = {name: x.to(_as_wide(way.dtype, x)).requires_grad_() for name, x in given.items() if _is_number(x)}
    function = getattr(importlib.import_module(f"hybridlab.ops.{way.op}"), way.op)
    state_names = [name for name in STATES.get(way.op, ("state",)) if name in leaves]
    inputs = {name: x for name, x in (given | leaves).items() if name not in state_names}
    states = tuple(leaves[name] for name in state_names)
    state = (states if way.op in STATES else states[0]) if states else None
    chosen = {"form": way.form} if way.form else {"backend": way.backend}
    output, final = function(**inputs, state=state, **chosen, **case.options)
    found = {"output": output, **meaning(way.op, final)}
    gradients = torch.autograd.grad(_loss(found), list(leaves.values()), allow_unused=True)
    named = dict(zip(leaves, gradients, strict=True))
    return {name: x.detach() for name, x in found.items()} | {
        f"gradient of {name}": _meant(way.op, name, leaves[name] if x is None else x, x is None) for name, x in named.items()
    }


def meaning(op: str, state: Tensor | tuple[Tensor, ...]) -> Tensors:
    """What a final state stands for; the split of wkv4's state between den and max means nothing."""
    if op == "wkv4":
        num, den, top = state.unbind(-1)  # type: ignore[union-attr]
        return {"state num / den": num / den, "state max + log den": top + den.log()}
    if isinstance(state, tuple):
        return {f"state {name}": x for name, x in zip(STATES[op], state, strict=True)}
    return {"state": state}


def _meant(op: str, name: str, gradient: Tensor, unused: bool) -> Tensor:
    if unused:
        return torch.zeros_like(gradient)
    # The max of a given state is a shift: its gradient follows from the other two.
    return gradient[..., :2] if (op, name) == ("wkv4", "state") else gradient


def _loss(found: Tensors) -> Tensor:
    """A random weighted sum of everything, the same for every way."""
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=torch.float64)
    for x in found.values():
        numbers = _numbers(x)
        weights = torch.randn(numbers.shape, generator=generator, dtype=torch.float64)
        total = total + (numbers * weights).sum()
    return total


def relative_error(got: Tensor | None, truth: Tensor) -> float:
    """The largest difference beside the largest entry of the truth; infinite for a wrong shape, NaN where there is NaN."""
    if got is None or got.shape != truth.shape:
        return math.inf
    if truth.numel() == 0:
        return 0.0
    right = _numbers(truth)
    apart = (_numbers(got) - right).abs().max()
    return (apart / right.abs().max().clamp_min(SMALLEST_SCALE)).item()


def _is_number(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _as_wide(dtype: torch.dtype, x: Tensor) -> torch.dtype:
    """A real dtype, or the complex one of its width where x is complex."""
    return dtype.to_complex() if x.is_complex() else dtype


def _numbers(x: Tensor) -> Tensor:
    """In float64 on the CPU; a complex tensor as its real and imaginary parts."""
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).double().cpu()


def dtype_name(dtype: torch.dtype) -> str:
    """float32 for torch.float32."""
    return str(dtype).removeprefix("torch.")


def _way_row(way: Way, comparisons: list[Comparison]) -> tuple[Cell, ...]:
    head = (way.op, way.backend, way.form or "kernel", dtype_name(way.dtype))
    if not comparisons:
        why = "the truth" if way.form == TRUTH else f"not here: {way.obstacle()}"
        return (*head, "", "", "", "", "", why)
    bad = [comparison for comparison in comparisons if not comparison.ok]
    verdict = f"FAIL: {_reason(bad[0])}" if bad else "ok"
    worst = (_worst(comparisons, kind) for kind in ("output", "state", "gradient"))
    return (*head, str(len(comparisons)), *worst, f"{LIMITS[way.dtype]:.0e}", verdict)


def _worst(comparisons: list[Comparison], kind: str) -> Cell:
    errors = [error for x in comparisons for name, error in x.errors.items() if name.startswith(kind)]
    return _shown(max(errors, key=_badness), LIMITS[comparisons[0].way.dtype]) if errors else ""


def _badness(error: float) -> float:
    return math.inf if math.isnan(error) else error


def _shown(error: float, limit: float) -> Cell:
    digits = f"{error:.1e}"
    return Measured(digits, f"< {limit:.0e}" if error <= limit else digits)


def _reason(comparison: Comparison) -> str:
    if comparison.problem:
        return f"{comparison.case}: {comparison.problem}"
    name, error = max(comparison.errors.items(), key=lambda item: _badness(item[1]))
    return f"{comparison.case}: {name} is off by {error:.1e}"


def _case_row(comparison: Comparison) -> tuple[Cell, ...]:
    if comparison.problem:
        return (str(comparison.way), comparison.case, "", "", f"FAIL: {comparison.problem}")
    name, error = max(comparison.errors.items(), key=lambda item: _badness(item[1]))
    shown = _shown(error, LIMITS[comparison.way.dtype])
    # Which result is worst is a matter of rounding unless it fails.
    worst = name if not comparison.ok else Measured(name, "")
    return (str(comparison.way), comparison.case, worst, shown, "ok" if comparison.ok else "FAIL")
