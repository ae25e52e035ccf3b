"""Who runs against whom in a benchmark: each way of computing an op, on the same tensors, in three modes.

forward            the whole sequence from the empty state, without autograd
forward+backward   the same with the gradient of every input
decode             one token after a given state, without autograd
"""

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from hybridlab.measure.problems import SETTINGS, Problem
from hybridlab.measure.rivals import RIVALS, Prepare, Run
from hybridlab.measure.setting import Tensors
from hybridlab.ops.dispatch import automatic

AUTO = "auto"

CHUNK_SIZES = (8, 16, 32, 64, 128)
# Bytes that a contender may keep for its backward before it is left out.
MOST_KEPT = 4 * 2**30
# States' sizes that the loop keeps a token for its backward: the state, the outer product, what is read, its decayed copy.
KEPT_STATES = 4


class Contender(NamedTuple):
    """One way of computing an op.

    Attributes:
        name: "auto", a backend's, a form's or a rival's.
        prepare: the problem's inputs and state in the form that `run` wants; not timed.
        run: (inputs, state) to (output, final state); timed.
        detail: what else to know of it, such as the chunk size.
    """

    name: str
    prepare: Prepare
    run: Run
    detail: str = ""


def judged(op: str, device: str) -> str:
    """Who is judged: the backend `auto` takes for float32 on this device, or `auto` itself where it chooses by size."""
    return AUTO if SETTINGS[op].chooses else automatic(device, torch.float32)


def contenders(given: Problem, device: str) -> Iterator[Contender]:
    """All who can run the problem here, the judged one first; a form in chunks once for each chunk size."""
    yield ours(given.op, judged(given.op, device), backend=judged(given.op, device))
    if SETTINGS[given.op].chooses:
        kernel = automatic(device, torch.float32)
        yield ours(given.op, kernel, backend=kernel)
    yield ours(given.op, "naive", form="recurrent")
    for form in SETTINGS[given.op].forms:
        if form == "chunked" and "chunk_size" in inspect.signature(_function(given.op)).parameters:
            yield from _chunked(given)
        else:
            yield ours(given.op, form, form=form)
    rival = RIVALS.get(given.op)
    if rival and rival.runs_on(device):
        yield Contender(rival.name, *rival.make())


def _chunked(given: Problem) -> Iterator[Contender]:
    for size in [size for size in CHUNK_SIZES if size <= given.tokens] or CHUNK_SIZES[:1]:
        yield ours(given.op, "chunked", form="chunked", chunk_size=size)


def reason_to_skip(name: str, given: Problem) -> str:
    """Why a contender is left out of a problem; empty if it runs."""
    most = SETTINGS[given.op].most_naive
    if name == "naive" and most is not None and given.tokens > most:
        return "its time grows with the square of the length"
    if given.mode != "forward+backward":
        return ""
    if name == "naive":
        kept = KEPT_STATES * given.tokens * given.state_bytes
        return f"would keep {kept / 2**30:.1f} GiB for its backward" if kept > MOST_KEPT else ""
    rival = RIVALS.get(given.op)
    if rival and rival.name == name and rival.most_tokens is not None and given.tokens > rival.most_tokens:
        return "its backward takes time in the square of the length: it indexes [:, t]"
    return ""


def ours(op: str, name: str, **how: Any) -> Contender:
    """One backend or form of a public op of hybridlab, in the setting of this name."""
    function, options = _function(op), SETTINGS[op].options

    def run(inputs: Tensors, state: Any) -> tuple[Any, Any]:
        return function(**inputs, state=state, **options, **how)

    detail = f"chunks of {how['chunk_size']}" if "chunk_size" in how else ""
    return Contender(name, lambda inputs, state: (inputs, state), run, detail)


def _function(op: str) -> Callable[..., tuple[Any, Any]]:
    """The public op that a setting measures."""
    name = SETTINGS[op].function or op
    found: Callable[..., tuple[Any, Any]] = getattr(importlib.import_module(f"hybridlab.ops.{name}"), name)
    return found


def runner(contender: Contender, given: Problem) -> Callable[[], Tensors]:
    """A function without arguments that runs a contender in the problem's mode and returns what can be compared."""
    inputs, state = contender.prepare(given.inputs, given.state)
    if given.mode != "forward+backward":
        return lambda: _forward(contender, inputs, state)
    leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    return lambda: _backward(contender, leaves, state, given)


@torch.no_grad()
def _forward(contender: Contender, inputs: Tensors, state: Any) -> Tensors:
    output, _ = contender.run(inputs, state)
    return {"output": output}


def _backward(contender: Contender, leaves: Tensors, state: Any, given: Problem) -> Tensors:
    output, _ = contender.run(leaves, state)
    gradients = dict(zip(leaves, torch.autograd.grad(output, list(leaves.values()), given.gradient), strict=True))
    # A rival may have inputs of its own, such as the logarithm of one of ours.
    shared = {f"gradient of {name}": gradients[name] for name in given.inputs if name in gradients}
    return {"output": output.detach(), **shared}
