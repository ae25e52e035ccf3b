"""Who runs against whom in a benchmark: each way of computing an op, on the same tensors, in three modes.

forward            the whole sequence from the empty state, without autograd
forward+backward   the same with the gradient of every input
decode             one token after a given state, without autograd
"""

import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybridlab.measure.problems import SETTINGS, Problem, Tensors
from hybridlab.measure.rivals import RIVALS, Prepare, Run
from hybridlab.ops.dispatch import automatic

CHUNK_SIZES = (8, 16, 32, 64, 128)
# Bytes that a contender may keep for its backward before it is left out.
MOST_KEPT = 4 * 2**30
# States' sizes that the loop keeps a token for its backward: the state, the outer product, what is read, its decayed copy.
KEPT_STATES = 4


class Contender(NamedTuple):
    """One way of computing an op.

    Attributes:
        name: "naive", "parallel", "chunked", "numba", "triton" or a rival's.
        prepare: the problem's inputs and state in the form that `run` wants; not timed.
        run: (inputs, state) to (output, final state); timed.
        detail: what else to know of it, such as the chunk size.
    """

    name: str
    prepare: Prepare
    run: Run
    detail: str = ""


def kernel_name(device: str) -> str:
    """The backend that is judged: the one `auto` takes for float32 on this device."""
    return automatic(device, torch.float32)


def contenders(given: Problem, device: str) -> Iterator[Contender]:
    """All who can run the problem here, the judged kernel first; the chunked form once for each chunk size."""
    yield ours(given.op, kernel_name(device), backend=kernel_name(device))
    yield ours(given.op, "naive", form="recurrent")
    for form in SETTINGS[given.op].forms:
        if form == "chunked":
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
    """One backend or form of a public op of hybridlab."""
    function = getattr(importlib.import_module(f"hybridlab.ops.{op}"), op)

    def run(inputs: Tensors, state: Tensor | None) -> tuple[Tensor, Tensor]:
        return function(**inputs, state=state, **how)

    detail = f"chunks of {how['chunk_size']}" if "chunk_size" in how else ""
    return Contender(name, lambda inputs, state: (inputs, state), run, detail)


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
