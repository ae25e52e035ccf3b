"""Who runs against whom in a benchmark: each way of computing an op, on the same tensors, in three modes.

forward            the whole sequence from the empty state, without autograd
forward+backward   the same with the gradient of every input
decode             one token after a given state, without autograd
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybridlab.measure.roofline import Work, least_bytes
from hybridlab.ops.dispatch import automatic

Tensors = dict[str, Tensor]
MODES = ("forward", "forward+backward", "decode")
CHUNK_SIZES = (8, 16, 32, 64, 128)
CHANNELS, HEADS, WIDTH = 768, 12, 64
# Bytes that a contender may keep for its backward before it is left out.
MOST_KEPT = 2 * 2**30
# States' sizes that the loop keeps a token for its backward: the state, the outer product, what is read, its decayed copy.
KEPT_STATES = 4
# Operations a token and number of the state. wkv6: a multiply-add to write it and one to read it. wkv4, 12 for its three
# numbers: e^k, three for num, two for den, five for what the present token adds to both, one division.
OPERATIONS = 4
TRANSFORMERS_MOST_TOKENS = 1024


class Problem(NamedTuple):
    """The tensors of one measurement, and what any solution must move and compute."""

    op: str
    mode: str
    tokens: int
    inputs: Tensors
    state: Tensor | None
    gradient: Tensor
    work: Work


class Contender(NamedTuple):
    """One way of computing an op.

    Attributes:
        name: "naive", "chunked", "numba", "triton" or "transformers".
        prepare: the problem's inputs and state in the form that `run` wants; not timed.
        run: (inputs, state) to (output, final state); timed.
        detail: what else to know of it, such as the chunk size.
    """

    name: str
    prepare: Callable[[Tensors, Tensor | None], tuple[Tensors, Any]]
    run: Callable[[Tensors, Any], tuple[Tensor, Any]]
    detail: str = ""


def problem(op: str, mode: str, tokens: int, device: str = "cpu") -> Problem:
    """Seeded inputs of the published sizes, float32: wkv4 with 768 channels, wkv6 with 12 heads of 64."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    inputs, state = {"wkv4": _wkv4, "wkv6": _wkv6}[op](normal, tokens)
    gradient = normal(*inputs["v"].shape)
    read = [*inputs.values(), *([state] if mode == "decode" else [])]
    backward = mode == "forward+backward"
    operations = OPERATIONS * tokens * state.numel() * (3 if backward else 1)
    work = Work(least_bytes(read, [gradient, state], backward), operations)
    return Problem(op, mode, tokens, inputs, state if mode == "decode" else None, gradient, work)


def _wkv4(normal: Callable[..., Tensor], tokens: int) -> tuple[Tensors, Tensor]:
    k, v = normal(1, tokens, CHANNELS), normal(1, tokens, CHANNELS)
    inputs = {"k": k, "v": v, "log_decay": -normal(CHANNELS).exp(), "bonus": normal(CHANNELS)}
    state = torch.stack((normal(1, CHANNELS), 0.5 + normal(1, CHANNELS) ** 2, normal(1, CHANNELS)), -1)
    return inputs, state


def _wkv6(normal: Callable[..., Tensor], tokens: int) -> tuple[Tensors, Tensor]:
    shape = (1, tokens, HEADS, WIDTH)
    inputs = {name: normal(*shape) for name in ("r", "k", "v")}
    inputs |= {"log_decay": -(normal(*shape) - 2).exp(), "bonus": normal(HEADS, WIDTH)}
    return inputs, normal(1, HEADS, WIDTH, WIDTH)


def kernel_name(device: str) -> str:
    """The backend that is judged: the one `auto` takes for float32 on this device."""
    return automatic(device, torch.float32)


def contenders(given: Problem, device: str) -> Iterator[Contender]:
    """All who can run the problem here, the judged kernel first; the chunked form once for each chunk size."""
    yield ours(given.op, kernel_name(device), backend=kernel_name(device))
    yield ours(given.op, "naive", form="recurrent")
    sizes = [size for size in CHUNK_SIZES if size <= given.tokens] or CHUNK_SIZES[:1]
    for size in sizes:
        yield ours(given.op, "chunked", form="chunked", chunk_size=size)
    if given.op == "wkv4" and device == "cpu" and importlib.util.find_spec("transformers"):
        yield _transformers()


def reason_to_skip(name: str, given: Problem) -> str:
    """Why a contender is left out of a problem; empty if it runs."""
    if given.mode != "forward+backward":
        return ""
    if name == "naive" and given.op == "wkv6":
        kept = KEPT_STATES * given.tokens * HEADS * WIDTH * WIDTH * 4
        return f"would keep {kept / 2**30:.1f} GiB for its backward" if kept > MOST_KEPT else ""
    if name == "transformers" and given.tokens > TRANSFORMERS_MOST_TOKENS:
        return "its backward takes time in the square of the length: it indexes k[:, t]"
    return ""


def ours(op: str, name: str, **how: Any) -> Contender:
    """One backend or form of a public op of hybridlab."""
    function = getattr(importlib.import_module(f"hybridlab.ops.{op}"), op)

    def run(inputs: Tensors, state: Tensor | None) -> tuple[Tensor, Tensor]:
        return function(**inputs, state=state, **how)

    detail = f"chunks of {how['chunk_size']}" if "chunk_size" in how else ""
    return Contender(name, lambda inputs, state: (inputs, state), run, detail)


def _transformers() -> Contender:
    """The path of `transformers` for a CPU; its inputs are time_decay = log(-log_decay) and a state of three tensors."""
    from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

    def prepare(inputs: Tensors, state: Tensor | None) -> tuple[Tensors, list[Tensor] | None]:
        own = {"time_decay": (-inputs["log_decay"]).log(), **inputs}
        del own["log_decay"]
        return own, None if state is None else list(state.unbind(-1))

    def run(inputs: Tensors, state: list[Tensor] | None) -> tuple[Tensor, Any]:
        decay, bonus, k, v = (inputs[name] for name in ("time_decay", "bonus", "k", "v"))
        return rwkv_linear_attention_cpu(decay, bonus, k, v, state=state, return_state=True)

    return Contender("transformers", prepare, run)


def runner(contender: Contender, given: Problem) -> Callable[[], Tensors]:
    """A function without arguments that runs a contender in the problem's mode and returns what can be compared."""
    inputs, state = contender.prepare(given.inputs, given.state)
    if given.mode != "forward+backward":
        return lambda: _forward(contender, inputs, state)
    leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    return lambda: _backward(contender, leaves, state, given.gradient)


@torch.no_grad()
def _forward(contender: Contender, inputs: Tensors, state: Any) -> Tensors:
    output, _ = contender.run(inputs, state)
    return {"output": output}


def _backward(contender: Contender, leaves: Tensors, state: Any, gradient: Tensor) -> Tensors:
    output, _ = contender.run(leaves, state)
    gradients = dict(zip(leaves, torch.autograd.grad(output, list(leaves.values()), gradient), strict=True))
    return {"output": output.detach(), "gradient of k": gradients["k"], "gradient of v": gradients["v"]}
