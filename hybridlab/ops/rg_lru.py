"""RG-LRU, the recurrence of Hawk and Griffin: each channel fades as fast as its gate says, and what fades makes room.

    a_t = exp(8 r_t log_a)
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t)

The square root keeps the size of h: what stays of the old state and what is let in always have squares that sum to 1. Where
`reset` is true a new document starts: a_t is 0 and the square root is 1, so that h_t = i_t x_t. That is no rounding of the
formula above: at the first token of a sequence the equation alone would shrink the input by sqrt(1 - a_t^2).

The hazards are all at a -> 1. There 1 - a^2 loses its digits, so it is taken as -expm1(2 log a). And there the slope of the
root grows without bound, and an infinite one times 0 would be NaN: the derivative of the root is at most 1000, here and in
the kernels, as in the authors' code. That touches gradients only where 1 - a^2 < 2.5e-7.
"""

from typing import Any

import torch
from torch import Tensor

from hybridlab.ops.checks import check_chunk_size, check_rates, check_state, check_tensors
from hybridlab.ops.dispatch import choose
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.linear_recurrence import (
    linear_recurrence_chunked,
    linear_recurrence_parallel,
    linear_recurrence_recurrent,
)
from hybridlab.ops.precision import state_dtype, widened
from hybridlab.shapes import ChannelState, PerWidth, Resets, Stream

LAYOUT = {"x": "BTD", "recurrence_gate": "BTD", "input_gate": "BTD", "log_a": "D"}
INPUTS = (*LAYOUT, "reset", "state")
CHUNK_SIZE = 32
# The paper's c: the fastest decay is a^8.
SHARPNESS = 8.0
STEEPEST = 1000.0


def rg_lru(
    x: Stream,
    recurrence_gate: Stream,
    input_gate: Stream,
    log_a: PerWidth,
    state: ChannelState | None = None,
    reset: Resets | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Stream, ChannelState]:
    """The real-gated linear recurrent unit.

    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t),  a_t = exp(8 r_t log_a);  h_t = i_t x_t where `reset` is true

    Args:
        x: what is written, (B, T, D).
        recurrence_gate: r, between 0 (keep everything) and 1, after its sigmoid, (B, T, D). Not checked: that would cost a
            pass over memory; a negative one shows as NaN.
        input_gate: i, after its sigmoid, (B, T, D).
        log_a: natural logarithm of a, finite and at most 0, (D,). The paper's log sigmoid(Lambda); RecurrentGemma stores
            a_param and means log_a = -softplus(a_param).
        state: h before the first token, (B, D), float32 at least; None is the empty state (zeros). The equation holds for
            the first token as for every other, state or not.
        reset: true at tokens that start a document, (B, T) bool; None is nowhere. RecurrentGemma's weights expect it at
            position 0.
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent", "parallel" (an associative scan) or "chunked": one of the plain PyTorch forms.
        chunk_size: tokens a chunk in the chunked form.

    Returns:
        h (B, T, D) in x's dtype, and the state after the last token (B, D).

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0; a log_a that is positive, infinite or NaN.

    Source: Griffin, arXiv 2402.19427, equations 1 to 4; the reset and the bounded derivative from the authors' code,
    recurrentgemma. Chapter 02.
    """
    sizes = check_tensors("rg_lru", LAYOUT, (x, recurrence_gate, input_gate, log_a))
    check_rates("rg_lru", "log_a", log_a)
    B, T, D = sizes["B"], sizes["T"], sizes["D"]
    if state is None:
        state = x.new_zeros((B, D), dtype=state_dtype(x.dtype))
    check_state("rg_lru", state, (B, D), x)
    if reset is None:
        reset = x.new_zeros((B, T), dtype=torch.bool)
    _check_reset(reset, (B, T), x)
    check_chunk_size("rg_lru", chunk_size)
    run = choose("rg_lru", FORMS, BACKENDS, backend, form, x)
    if run is rg_lru_chunked:
        return rg_lru_chunked(x, recurrence_gate, input_gate, log_a, reset, state, chunk_size)
    return run(x, recurrence_gate, input_gate, log_a, reset, state)


def rg_lru_recurrent(
    x: Tensor, recurrence_gate: Tensor, input_gate: Tensor, log_a: Tensor, reset: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The literal equation: every token's two factors, then token by token."""
    a, b = _factors(x, recurrence_gate, input_gate, log_a, reset, state)
    output, state = linear_recurrence_recurrent(a, b, state)
    return output.to(x.dtype), state


def rg_lru_parallel(
    x: Tensor, recurrence_gate: Tensor, input_gate: Tensor, log_a: Tensor, reset: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """An associative scan over all tokens at once."""
    a, b = _factors(x, recurrence_gate, input_gate, log_a, reset, state)
    output, state = linear_recurrence_parallel(a, b, state)
    return output.to(x.dtype), state


def rg_lru_chunked(
    x: Tensor,
    recurrence_gate: Tensor,
    input_gate: Tensor,
    log_a: Tensor,
    reset: Tensor,
    state: Tensor,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Tensor, Tensor]:
    """A scan inside every chunk, the state between chunks."""
    a, b = _factors(x, recurrence_gate, input_gate, log_a, reset, state)
    output, state = linear_recurrence_chunked(a, b, state, chunk_size)
    return output.to(x.dtype), state


def _factors(
    x: Tensor, recurrence_gate: Tensor, input_gate: Tensor, log_a: Tensor, reset: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """a_t and b_t of h_t = a_t h_{t-1} + b_t, in the state's dtype."""
    x, recurrence_gate, input_gate, log_a = widened(state, x, recurrence_gate, input_gate, log_a)
    reset = reset.unsqueeze(-1)
    log_a_t = SHARPNESS * recurrence_gate * log_a
    room = BoundedSqrt.apply(-torch.expm1(2 * log_a_t))
    return log_a_t.exp().masked_fill(reset, 0), room.masked_fill(reset, 1) * (input_gate * x)


class BoundedSqrt(torch.autograd.Function):
    """The square root; its derivative is at most STEEPEST."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """sqrt(x), entry by entry."""
        ctx.save_for_backward(x)
        return x.sqrt()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """The gradient of x."""
        (x,) = ctx.saved_tensors
        return grad * (4 * x).clamp_min(STEEPEST**-2).rsqrt()


def _check_reset(reset: Tensor, shape: tuple[int, int], like: Tensor) -> None:
    if not isinstance(reset, Tensor):
        raise ValueError(f"rg_lru: reset must be a tensor or None, got {type(reset).__name__}")
    if reset.dtype != torch.bool:
        raise ValueError(f"rg_lru: reset must be bool, got {reset.dtype}")
    if tuple(reset.shape) != shape:
        raise ValueError(f"rg_lru: reset must have shape {shape}, got {tuple(reset.shape)}")
    if reset.device != like.device:
        raise ValueError(f"rg_lru: reset is on {reset.device} but the inputs are on {like.device}")


def _shapes(
    x: Tensor, recurrence_gate: Tensor, input_gate: Tensor, log_a: Tensor, reset: Tensor, state: Tensor
) -> tuple[Tensor, ...]:
    return blank(x), blank(state)


FORMS = {"recurrent": rg_lru_recurrent, "parallel": rg_lru_parallel, "chunked": rg_lru_chunked}
BACKENDS = {
    "naive": rg_lru_recurrent,
    "numba": kernel_op("rg_lru_numba", INPUTS, _shapes, constant=("reset",)),
    "triton": kernel_op("rg_lru_triton", INPUTS, _shapes, constant=("reset",)),
}
