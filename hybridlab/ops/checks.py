"""The errors every op raises: they name the argument, what came and what was expected."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hybridlab.ops.precision import state_dtype

Sizes = dict[str, int]


def check_tensors(op: str, layout: Mapping[str, str], tensors: tuple[Tensor, ...]) -> Sizes:
    """Checks type, rank, sizes, dtype and device of an op's tensors.

    Args:
        op: name for messages.
        layout: argument name -> one character an axis, in the order of `tensors`. A capital is a dimension letter of
            `hybridlab.shapes`, its small form says that the axis may also have size 1, a digit is that very size.
        tensors: the arguments.

    Returns:
        the size of each letter.

    Raises:
        ValueError: names the argument, what came and what was expected.
    """
    sizes: Sizes = {}
    for (name, axes), tensor in zip(layout.items(), tensors, strict=True):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{op}: {name} must be a tensor, got {type(tensor).__name__}")
        shape = tensor.shape
        if len(shape) != len(axes):
            raise ValueError(f"{op}: {name} must have {len(axes)} axes {spelled(axes)}, got shape {tuple(shape)}")
        for axis, size in zip(axes, shape, strict=True):
            _check_size(op, name, axes, tuple(shape), axis, size, sizes)
    _check_kinds(op, list(layout), tensors)
    return sizes


def spelled(axes: str) -> str:
    """The layout as people write it: "BTHK" becomes "(B, T, H, K)"."""
    return "(" + ", ".join(f"{axis.upper()} or 1" if axis.islower() else axis for axis in axes) + ")"


def _check_size(op: str, name: str, axes: str, shape: tuple[int, ...], axis: str, size: int, sizes: Sizes) -> None:
    if axis.isdigit():
        expected = int(axis)
    elif axis.islower() and size == 1:
        return
    else:
        expected = sizes.setdefault(axis.upper(), size)
    if size == 0:
        raise ValueError(f"{op}: {name} has shape {shape}, {axis.upper()} = 0; every axis needs at least one entry")
    if size != expected:
        known = "" if axis.isdigit() else f" with {axis.upper()} = {expected}"
        raise ValueError(f"{op}: {name} must be {spelled(axes)}{known}, got shape {shape}")


def _check_kinds(op: str, names: list[str], tensors: tuple[Tensor, ...]) -> None:
    first = tensors[0]
    if not first.dtype.is_floating_point:
        raise ValueError(f"{op}: {names[0]} must be floating, got {first.dtype}")
    wide = state_dtype(first.dtype)
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.dtype != first.dtype and tensor.dtype != wide:
            raise ValueError(f"{op}: {name} is {tensor.dtype} but {names[0]} is {first.dtype}; give both the same dtype")
        if tensor.device != first.device:
            raise ValueError(f"{op}: {name} is on {tensor.device} but {names[0]} is on {first.device}")


def check_log_decay(op: str, log_decay: Tensor) -> None:
    """A log decay is at most 0: a positive one grows the state without bound. Skipped while compiling and on meta."""
    if torch.compiler.is_compiling() or log_decay.is_meta:
        return
    largest = log_decay.detach().max().item()
    if not largest <= 0:
        what = "NaN" if largest != largest else f"{largest:.4g}"
        raise ValueError(f"{op}: log_decay must be at most 0 everywhere, its largest entry is {what}")


def check_steps(op: str, dt: Tensor, A: Tensor) -> None:
    """Steps of length dt >= 0 decay at rates A <= 0, so every e^{dt A} is at most 1. Skipped while compiling and on meta."""
    check_rates(op, "A", A)
    if torch.compiler.is_compiling() or dt.is_meta:
        return
    shortest, longest = (x.item() for x in dt.detach().aminmax())
    if not 0 <= shortest <= longest < math.inf:
        raise ValueError(f"{op}: dt must be finite and at least 0, its entries go from {shortest:.4g} to {longest:.4g}")


def check_rates(op: str, name: str, rates: Tensor) -> None:
    """Decay rates are finite (0 times infinity would be NaN) and at most 0. Skipped while compiling and on meta."""
    if torch.compiler.is_compiling() or rates.is_meta:
        return
    fastest, slowest = (x.item() for x in rates.detach().aminmax())
    if not -math.inf < fastest <= slowest <= 0:
        raise ValueError(f"{op}: {name} must be finite and at most 0, its entries go from {fastest:.4g} to {slowest:.4g}")


def check_finite(op: str, name: str, tensor: Tensor) -> None:
    """No infinity and no NaN. Skipped while compiling and on meta."""
    if torch.compiler.is_compiling() or tensor.is_meta:
        return
    if not tensor.detach().isfinite().all():
        raise ValueError(f"{op}: {name} must be finite everywhere, it holds an infinity or NaN")


def check_state(
    op: str,
    state: Tensor,
    shape: tuple[int, ...],
    like: Tensor,
    dtype: torch.dtype | None = None,
    name: str = "state",
) -> None:
    """A given state has this shape, this dtype (None: that of recurrent states, float32 at least) and the inputs' device."""
    dtype = dtype or state_dtype(like.dtype)
    if not isinstance(state, Tensor):
        raise ValueError(f"{op}: {name} must be a tensor or None, got {type(state).__name__}")
    if tuple(state.shape) != shape:
        raise ValueError(f"{op}: {name} must have shape {shape}, got {tuple(state.shape)}")
    if state.dtype != dtype:
        raise ValueError(f"{op}: {name} must be {dtype} for {like.dtype} inputs, got {state.dtype}")
    if state.device != like.device:
        raise ValueError(f"{op}: {name} is on {state.device} but the inputs are on {like.device}")


def check_chunk_size(op: str, chunk_size: int) -> None:
    """A chunk holds at least one token."""
    if not isinstance(chunk_size, int) or isinstance(chunk_size, bool) or chunk_size < 1:
        raise ValueError(f"{op}: chunk_size must be a positive int, got {chunk_size!r}")
