"""Floating-point operations of one decode step, counted on the real model while it runs on the meta device.

Matrix products are counted by PyTorch (2 a multiply-add), the mixing ops by the formulas below. Elementwise work (norms,
gates, activations, token shift) is left out: it is linear in the width, where a matrix product is quadratic.
"""

import importlib
import logging
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import nn

from hybridlab.layers.kept import Kept
from hybridlab.models import LanguageModel, set_backend


class Flops(NamedTuple):
    """Operations a token: of the whole model, and of each of its modules by its name."""

    total: int
    modules: dict[str, int]


def wkv4_flops(k: tuple[int, ...], *others: Any, out_shape: Any = None) -> int:
    """Two weighted averages a channel: 5 for the output, a division, 5 for the state; exponentials are left out."""
    batch, length, channels = k
    return 11 * batch * length * channels


def wkv6_flops(r: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *others: Any, out_shape: Any = None) -> int:
    """Each entry of the state: 2 to read it, 3 to fade it and add k v^T; and the bonus, 3 a key and 2 a value."""
    batch, length, heads, keys = k
    values = v[-1]
    return batch * length * heads * (5 * keys * values + 3 * keys + 2 * values)


def wkv7_flops(r: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *others: Any, out_shape: Any = None) -> int:
    """Each entry of the state: 2 to look at it, 5 to fade it and add what replaces and what is new, 2 to read it."""
    batch, length, heads, keys = k
    return 9 * batch * length * heads * keys * v[-1]


def delta_rule_flops(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *others: Any, out_shape: Any = None) -> int:
    """Each entry of the state: 2 to look at it, 2 to correct it, 2 to read it; and 2 a value: the error, times beta."""
    batch, length, heads, keys = k
    return batch * length * heads * (6 * keys + 2) * v[-1]


def taylor_attention_flops(
    q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *others: Any, out_shape: Any = None
) -> int:
    """Each feature: 4 a value to add and read it, 3 for the sum of weights; to make those of query and key, 1 a number and 2
    a pair of numbers; eps, and a division a value."""
    batch, length, heads, keys = k
    features, values = 1 + keys + keys**2, v[-1]
    making = 2 * (keys + 2 * keys**2)
    return batch * length * heads * (features * (4 * values + 3) + making + 1 + values)


def short_conv_flops(x: tuple[int, ...], weight: tuple[int, ...], *others: Any, out_shape: Any = None) -> int:
    """2 a channel and tap, the bias in the place of the addition that the first tap lacks."""
    batch, length, channels = x
    return 2 * batch * length * channels * weight[-1]


def selective_scan_flops(
    x: tuple[int, ...], dt: tuple[int, ...], A: tuple[int, ...], *others: Any, out_shape: Any = None
) -> int:
    """Each number of the state: 1 for dt A, 3 to fade it and add (dt x) B, 2 to read it; and 3 a channel: dt x, D x."""
    batch, length, inner = x
    return batch * length * inner * (6 * A[-1] + 3)


def retention_flops(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *others: Any, out_shape: Any = None) -> int:
    """Each entry of the state: 3 to fade it and add k v^T, 2 to read it."""
    batch, length, heads, keys = k
    return 5 * batch * length * heads * keys * v[-1]


def ssd_flops(
    x: tuple[int, ...], dt: tuple[int, ...], A: tuple[int, ...], B: tuple[int, ...], *others: Any, out_shape: Any = None
) -> int:
    """Each entry of the state: 3 to fade it and add (dt x) B, 2 to read it; 3 a channel: dt x, D x added; dt A, 1 a head."""
    batch, length, heads, width = x
    return batch * length * heads * (5 * width * B[-1] + 3 * width + 1)


def rg_lru_flops(x: tuple[int, ...], *others: Any, out_shape: Any = None) -> int:
    """7 a channel: 2 for log a, 1 to double it, 2 to weigh the input, 2 to fade and add; exponentials are left out."""
    batch, length, channels = x
    return 7 * batch * length * channels


def long_conv_flops(
    x: tuple[int, ...], taps: tuple[int, ...], state: tuple[int, ...], *others: Any, out_shape: Any = None
) -> int:
    """2 a channel for each tap that reaches an input: more with every token, until the filter ends."""
    batch, length, width = x
    return 2 * batch * width * sum(min(state[1] + token, taps[1]) for token in range(1, length + 1))


def modal_conv_flops(x: tuple[int, ...], poles: tuple[int, ...], *others: Any, out_shape: Any = None) -> int:
    """Each complex number of the state: 7 to turn it and add x, 4 to add up the real part of what it is read as."""
    batch, length, width = x
    return 11 * batch * length * width * poles[-1]


FORMULAS: dict[str, Callable[..., int]] = {
    "delta_rule": delta_rule_flops,
    "long_conv": long_conv_flops,
    "modal_conv": modal_conv_flops,
    "retention": retention_flops,
    "rg_lru": rg_lru_flops,
    "selective_scan": selective_scan_flops,
    "short_conv": short_conv_flops,
    "ssd": ssd_flops,
    "taylor_attention": taylor_attention_flops,
    "wkv4": wkv4_flops,
    "wkv6": wkv6_flops,
    "wkv7": wkv7_flops,
}


def count_flops(model: LanguageModel, context: int) -> Flops:
    """Operations of the step that reads the last of `context` tokens.

    Args:
        model: left as it is; a copy without memory runs.
        context: tokens, the one that is read included; at least 1.
    """
    twin = meta_twin(model)
    state = twin.init_state(1, context - 1)
    token = torch.zeros(1, 1, dtype=torch.int64, device="meta")
    with torch.no_grad():
        if _keeps(twin):  # what is kept between calls, such as Hyena's filters, is made before the step that is counted
            twin(token, state)
        with _counter() as counter:
            twin(token, state)
    root = type(twin).__name__
    found = {name.removeprefix(f"{root}."): sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    return Flops(counter.get_total_flops(), found)


def _keeps(model: LanguageModel) -> bool:
    return any(isinstance(part, Kept) for module in model.modules() for part in vars(module).values())


def meta_twin(model: LanguageModel) -> LanguageModel:
    """A float32 copy on the meta device, on the backend that is one operator an op; weights are not copied."""
    tensors = [*model.parameters(), *model.buffers()]
    memo: dict[int, Any] = {id(x): _meta(x) for x in tensors}
    twin = deepcopy(model, memo).float()
    set_backend(twin, "auto")
    return twin


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty


def _counter() -> Any:
    """PyTorch's counter, imported when it is needed: it imports triton, after which TRITON_INTERPRET is set too late."""
    # In a GPU build without triton (Windows) it warns, of kernels that no model here has.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    from torch.utils.flop_counter import FlopCounterMode

    return FlopCounterMode(display=False, custom_mapping=_mapping())


def _mapping() -> dict[Any, Callable[..., int]]:
    """The operators that `auto` takes on the meta device, with their formulas."""
    for op in FORMULAS:
        importlib.import_module(f"hybridlab.ops.{op}")
    return {getattr(torch.ops.hybridlab, f"{op}_numba"): formula for op, formula in FORMULAS.items()}
