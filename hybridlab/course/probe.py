"""Probes: what turns a learner's answer into numbers, so that it can be compared with the numbers of a right answer.

A probe never calls the reference. `check` compares with numbers that the build stored; a grader runs the same probes with a
secret seed on both answers and compares what comes out.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

Inputs = Callable[[Generator], list[Tensor]]
Run = Callable[[Any, Generator], Any]

VISIBLE_SEED = 0


class Probe(NamedTuple):
    """One named check of an answer.

    Attributes:
        name: what a verdict calls it: "causal", "ramp of keys".
        run: (answer, rng) -> a number, a list, a tensor, or a dict of label -> number. Every random input comes from `rng`.
        expected: what every right answer gives, where that is known without one; None: the solution's numbers, stored by the
            build.
        tolerance: largest allowed difference of a number, relative to its expected size or to 1, whichever is larger.
        because: said after a failure: what kind of mistake this probe is made to find.
    """

    name: str
    run: Run
    expected: Any = None
    tolerance: float = 1e-6
    because: str = ""


class Numbers(NamedTuple):
    """What a probe saw: `values` flat, and for each its place in words (`labels`). `shape` is None for a dict."""

    values: list[float]
    labels: list[str]
    shape: tuple[int, ...] | None


def measure(probe: Probe, answer: Any, seed: int = VISIBLE_SEED) -> Numbers:
    """Runs one probe on an answer, with numbers of its own that do not depend on the other probes."""
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return numbers(probe.run(answer, rng))


def numbers(result: Any) -> Numbers:
    """A probe's result as flat numbers with labels.

    Raises:
        TypeError: the result is not numbers; the message is written for the learner whose answer it is.
    """
    if isinstance(result, dict):
        return Numbers([float(value) for value in result.values()], [str(key) for key in result], None)
    try:
        # Python's numbers are float64; left to itself, PyTorch would make them float32.
        tensor = result.detach().double() if isinstance(result, Tensor) else torch.as_tensor(result, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected numbers, got {type(result).__name__} ({str(result)[:60]})") from error
    return Numbers(tensor.flatten().tolist(), [_index(i) for i in _indices(tensor.shape)], tuple(tensor.shape))


def _indices(shape: torch.Size) -> Iterator[tuple[int, ...]]:
    return iter(torch.cartesian_prod(*map(torch.arange, shape)).reshape(-1, len(shape)).tolist() if shape else [()])


def _index(index: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, index))}]" if index else ""


def ramp(length: int, low: float = -900.0, high: float = 900.0) -> Tensor:
    """Keys that rise from `low` to `high`: (length,), float64. e^900 overflows, and only a running maximum survives it."""
    return torch.linspace(low, high, length, dtype=torch.float64)


def normal(rng: Generator, *shape: int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def untouched(inputs: Inputs) -> Run:
    """A probe of purity: how far a call changes its own inputs. Expect 0."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        given = inputs(rng)
        kept = [x.clone() for x in given]
        answer(*given)
        return {f"input {i}": _apart(x, y) for i, (x, y) in enumerate(zip(given, kept, strict=True))}

    return run


def named_untouched(names: str, inputs: Inputs) -> Run:
    """`untouched`, with the inputs called by their names."""
    return lambda answer, rng: dict(zip(names.split(), untouched(inputs)(answer, rng).values(), strict=True))


def shaped(name: str, made: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What was made, if it has this shape; a wrong one is an error, which makes a verdict."""
    if tuple(made.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(made.shape)}")
    return made


def places(name: str, x: Tensor) -> dict[str, float]:
    """The numbers of `x`, each called by what a learner would type to see it."""
    indices = itertools.product(*map(range, x.shape))
    return {f"{name}{list(index)}": value for index, value in zip(indices, x.flatten().tolist(), strict=True)}


def causal(inputs: Inputs, steps: int, dim: int = 0) -> Run:
    """A probe of causality: replaces every step in turn, and measures how far the outputs before it change. Expect 0.

    Replaced by another draw of the inputs, not shifted: a normalisation would hide a shift.

    Args:
        inputs: rng -> the inputs, random; those whose size along `dim` is `steps` are replaced at the step.
        steps: tokens, T.
        dim: which dimension is time, in inputs and output.
    """

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        given, others = inputs(rng), inputs(rng)
        before = _first(answer(*[x.clone() for x in given]))
        changes = {}
        for t in range(1, steps):
            replaced = [_replaced(x, other, t, steps, dim) for x, other in zip(given, others, strict=True)]
            after = _first(answer(*replaced))
            changes[f"t={t} replaced"] = _apart(before.narrow(dim, 0, t), after.narrow(dim, 0, t))
        return changes

    return run


def gradient(inputs: Inputs) -> Run:
    """A probe of gradients: those of the sum of squares of the output, for every input, one after the other."""

    def run(answer: Any, rng: Generator) -> Tensor:
        given = [x.clone().requires_grad_() for x in inputs(rng)]
        output = _first(answer(*given))
        if not output.requires_grad:
            raise ValueError("the output does not depend on the inputs for autograd: detached, or made from .item()")
        grads = torch.autograd.grad(output.square().sum(), given, allow_unused=True)
        return torch.cat([(torch.zeros_like(x) if g is None else g).flatten() for x, g in zip(given, grads, strict=True)])

    return run


def rejects(versions: dict[str, Any]) -> Run:
    """A probe of a test that a learner wrote: 1 for each version it rejects, 0 for each it lets pass.

    A test rejects by raising AssertionError. What it returns fails nothing under pytest either, so a test that returns
    anything is told so; any other error of its own is the learner's to see as well.
    """

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        return {name: float(_rejected(answer, version)) for name, version in versions.items()}

    return run


def _rejected(test: Any, version: Any) -> bool:
    try:
        returned = test(version)
    except AssertionError:
        return True
    if returned is not None:
        raise TypeError(f"a test raises AssertionError or returns nothing: this one returned a {type(returned).__name__}")
    return False


def _first(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def _replaced(x: Tensor, other: Tensor, t: int, steps: int, dim: int) -> Tensor:
    x = x.clone()
    if x.dim() > dim and x.shape[dim] == steps:
        x.select(dim, t).copy_(other.select(dim, t))
    return x


def _apart(x: Tensor, y: Tensor) -> float:
    return (x - y).abs().max().item() if x.shape == y.shape else float("nan")
