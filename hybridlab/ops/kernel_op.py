"""Wraps a pair of kernels as one differentiable PyTorch operator.

A kernel file `kernels/<op>_<backend>.py` holds two plain functions on plain tensors:

    forward(*inputs) -> (output, final state, *saved)
    backward(*inputs, output, final state, *saved, grad of output, grad of final state) -> one gradient per input, but for
        those that are constant

A state of several tensors stands there as several: `results` says how many there are with the output.

`kernel_op` registers both as `torch.library.custom_op` with shapes for tracing (so `torch.compile(fullgraph=True)` and the
meta device work) and joins them under autograd. The kernel file is imported at the first call: importing hybridlab
needs neither Numba nor Triton, and TRITON_INTERPRET can be set until a Triton kernel is first used.
"""

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

ShapeOf = Callable[..., tuple[Tensor, ...]]
# An op returns its output and its final state.
RESULTS = 2


def load_kernels(module: str) -> ModuleType:
    """Imports `hybridlab.kernels.<module>`."""
    return importlib.import_module(f"hybridlab.kernels.{module}")


def blank(tensor: Tensor) -> Tensor:
    """An empty contiguous tensor of the same shape, dtype and device."""
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def kernel_op(
    module: str,
    inputs: Sequence[str],
    shapes: ShapeOf,
    saved: int = 0,
    constant: Sequence[str] = (),
    results: int = RESULTS,
) -> Callable[..., tuple[Tensor, ...]]:
    """The differentiable operator of one kernel file.

    Args:
        module: name of the file in `kernels/`, such as "wkv6_numba".
        inputs: names of the input tensors, in the order of `forward`.
        shapes: function of the inputs that returns empty tensors like those `forward` returns: the output, the final
            state, then `saved` tensors that only the backward reads.
        saved: how many of those there are.
        constant: names of the inputs that have no gradient, such as bools.
        results: how many tensors the output and the final state are together.

    Returns:
        a function of the input tensors that returns (output, final state), as that many tensors.
    """
    name = f"hybridlab::{module}"
    arguments = ", ".join(f"Tensor {x}" for x in inputs)
    everything = ", ".join(["Tensor"] * (results + saved))
    differentiable = ", ".join("Tensor" for x in inputs if x not in constant)

    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        return load_kernels(module).forward(*tensors)

    def backward(tensors: list[Tensor]) -> tuple[Tensor, ...]:
        return load_kernels(module).backward(*tensors)

    def backward_shapes(tensors: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(blank(x) for name, x in zip(inputs, tensors, strict=False) if name not in constant)

    forward_op = torch.library.custom_op(name, forward, mutates_args=(), schema=f"({arguments}) -> ({everything})")
    forward_op.register_fake(shapes)
    backward_op = torch.library.custom_op(
        f"{name}_backward", backward, mutates_args=(), schema=f"(Tensor[] tensors) -> ({differentiable})"
    )
    backward_op.register_fake(backward_shapes)

    def keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs, *output)

    def differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found = ctx.saved_tensors[len(inputs) : len(inputs) + results]
        wanted = [torch.zeros_like(y) if g is None else g for y, g in zip(found, grads[:results], strict=True)]
        gradients = iter(backward_op([*ctx.saved_tensors, *wanted]))
        return tuple(None if name in constant else next(gradients) for name in inputs)

    forward_op.register_autograd(differentiate, setup_context=keep)

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        return forward_op(*tensors)[:results]

    return call
