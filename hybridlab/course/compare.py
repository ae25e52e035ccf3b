"""`same(mine, ours)`: are two results the same numbers, how far apart are they at worst, and where?"""

from collections.abc import Iterator
from math import ceil, inf, isnan, log10
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

# What rounding alone explains, relative to the largest number (or to 1, if that is larger). Two orders of summation differ
# by about 1e-16 times the number of terms; these leave room for long sums, and none for a wrong term.
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-3}


class Difference(NamedTuple):
    """The worst place of one pair of tensors: how far apart, where, both values, and what a difference is measured by.

    `scale` is the largest number of `ours`, or 1 if that is larger; `rounding` is what rounding alone explains, times scale.
    """

    apart: float
    where: str
    mine: float
    ours: float
    scale: float
    rounding: float


def same(mine: Any, ours: Any, tolerance: float | None = None) -> None:
    """Compares two results and prints how far apart they are at worst.

    A difference that rounding explains is printed as a bound, a power of ten, because its digits change from one processor
    to the next; a larger one (allowed by `tolerance`) is printed with its place and both values.

    Args:
        mine: a tensor, an array, a number, or a tuple, list, NamedTuple or dict of them.
        ours: the same structure. Shapes and dtypes must agree; a Python number or list takes the dtype of the other side.
        tolerance: largest allowed difference, relative to the largest number in `ours` or to 1, whichever is larger. None is
            what rounding explains in this dtype: 1e-10 in float64, 1e-4 in float32, 2e-2 in bfloat16, 0 for whole numbers.

    Raises:
        AssertionError: the two differ; the message says in what, where, and by how much.
    """
    pairs = list(_pairs(mine, ours, ""))
    differences = [_difference(*pair) for pair in pairs]
    worst = max(differences, key=lambda d: _excess(d, tolerance))
    count = _things(sum(left.numel() for left, _, _ in pairs))
    if _excess(worst, tolerance) > 1:
        raise AssertionError(f"not the same: {count}, {_place(worst)}, allowed {_allowed(worst, tolerance):.2g}")
    print(f"same: {count}, {_summary(worst)}")


def _allowed(difference: Difference, tolerance: float | None) -> float:
    return difference.rounding if tolerance is None else tolerance * difference.scale


def _excess(difference: Difference, tolerance: float | None) -> float:
    """How many times what is allowed; so a float64 error is not hidden behind bfloat16's, and NaN is worst."""
    if isnan(difference.apart):
        return inf
    allowed = _allowed(difference, tolerance)
    return difference.apart / allowed if allowed else (inf if difference.apart else 0.0)


def _summary(worst: Difference) -> str:
    if worst.apart == 0 and worst.rounding == 0:
        return "no difference"
    if worst.apart <= worst.rounding:
        return f"worst difference below {_power_of_ten(worst.rounding):.0e}"
    return _place(worst)


def _power_of_ten(bound: float) -> float:
    return 10.0 ** ceil(log10(bound) - 1e-9)


def _place(worst: Difference) -> str:
    at = f" at {worst.where}" if worst.where else ""
    return f"worst difference {worst.apart:.2g}{at}: mine {worst.mine:.6g}, ours {worst.ours:.6g}"


def _things(count: int) -> str:
    return "1 number" if count == 1 else f"{count} numbers"


def _pairs(mine: Any, ours: Any, path: str) -> Iterator[tuple[Tensor, Tensor, str]]:
    """Yields (mine, ours, path) for every leaf of two equally built structures."""
    if isinstance(ours, dict) or _is_tuple(ours) or _is_tuple(mine):
        yield from _children(mine, ours, path)
        return
    left, right = _tensor(mine, ours), _tensor(ours, mine)
    if left.shape != right.shape:
        raise AssertionError(f"not the same: {path or 'mine'} has shape {tuple(left.shape)}, ours has {tuple(right.shape)}")
    if left.dtype != right.dtype:
        raise AssertionError(f"not the same: {path or 'mine'} is {_name(left.dtype)}, ours is {_name(right.dtype)}")
    if left.numel() == 0:
        raise AssertionError(f"not the same: {path or 'mine'} is empty, shape {tuple(left.shape)}: nothing to compare")
    if left.is_complex():  # compared part by part: real in place 0 of one more axis, imaginary in place 1
        left, right = torch.view_as_real(left.resolve_conj()), torch.view_as_real(right.resolve_conj())
    yield left, right, path


def _children(mine: Any, ours: Any, path: str) -> Iterator[tuple[Tensor, Tensor, str]]:
    left, right = _named(mine), _named(ours)
    if len(left) != len(right) or not right:
        raise AssertionError(f"not the same: {path or 'mine'} has {len(left)} parts, ours has {len(right)}")
    for (my_name, my_part), (name, part) in zip(left.items(), right.items(), strict=True):
        # A plain tuple may be compared with a NamedTuple: then the place decides, and the name is the NamedTuple's.
        both_named = isinstance(my_name, str) and isinstance(name, str)
        if both_named and my_name != name:
            raise AssertionError(f"not the same: {path or 'mine'} has the part {my_name!r} where ours has {name!r}")
        label = f".{name}" if isinstance(name, str) else f"[{name}]"
        yield from _pairs(my_part, part, path + label)


def _is_tuple(value: Any) -> bool:
    """True for a structure: a tuple, or a list of anything but plain numbers."""
    if isinstance(value, list):
        return any(isinstance(item, Tensor | np.ndarray | tuple | dict) for item in value)
    return isinstance(value, tuple)


def _named(value: Any) -> dict[Any, Any]:
    if isinstance(value, dict):
        return value
    if hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    raise AssertionError(f"not the same: one side is a {type(value).__name__}, the other has several parts")


def _tensor(value: Any, other: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(other, Tensor | np.ndarray):
        return torch.as_tensor(value, dtype=_tensor(other, 0).dtype)
    tensor = torch.as_tensor(value)
    return tensor.double() if tensor.is_floating_point() or isinstance(other, float) else tensor


def _difference(mine: Tensor, ours: Tensor, path: str) -> Difference:
    left, right = mine.double(), ours.double()
    finite = right[right.isfinite()]
    scale = max(1.0, finite.abs().max().item()) if finite.numel() else 1.0
    # Equal first: infinity minus infinity is NaN.
    apart = torch.where(left == right, 0.0, (left - right).abs())
    flat = int(apart.nan_to_num(nan=inf).argmax())
    index = [int(i) for i in np.unravel_index(flat, tuple(apart.shape))]
    where = path + (f"[{', '.join(map(str, index))}]" if index else "")
    size, my_value, value = (x.flatten()[flat].item() for x in (apart, left, right))
    return Difference(size, where, my_value, value, scale, ROUNDING.get(ours.dtype, 0.0) * scale)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
