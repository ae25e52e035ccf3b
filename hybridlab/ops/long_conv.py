"""The long convolution: each channel adds up all of its past inputs, weighted by how long ago they were.

    y_t = sum_j filter_j x_{t - j}  (+ skip x_t)

over every j = 0 ... W - 1 for which there is an input; x at a negative time is a row of the state. It is a short convolution
with about as many taps as the text has tokens, and so two things are new. Sum by sum it costs W products a token; the
Fourier transform, under which a convolution is a product, costs about log W. And its state is the past inputs themselves: it
grows by a row a token, as an attention cache does. Only where the filter is a sum of few decaying waves do a few numbers do
instead: that is `hybridlab.ops.modal_conv`.

The hazard of the transform is that it is a circle: what runs over its end comes in again at its start, into tokens that must
not see it. With N points nothing does that asks to be seen if N is at least T + W - 1, W the taps that inputs reach. Old
inputs in front need no room of their own where they are W - 1 at most: what is spoiled is their outputs, which are dropped.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hybridlab.ops.checks import check_tensors
from hybridlab.ops.dispatch import automatic, choose
from hybridlab.ops.kernel_op import kernel_op
from hybridlab.ops.precision import state_dtype
from hybridlab.shapes import LongFilter, PastInputs, PerWidth, Stream

LAYOUT = {"x": "BTD", "filter": "DW", "skip": "D"}
INPUTS = ("x", "taps", "state")
# Lengths that transforms are fast for: these times a power of 2.
ODD_FACTORS = (1, 3, 5, 9, 15)
# Numbers that are transformed at a time on a CPU, and channels at least.
FFT_NUMBERS, FFT_CHANNELS = 1 << 17, 32
# `auto`: so few tokens are never transformed; elsewhere, products that take as long as a transform's points * log2(points).
FEW_TOKENS = 4
PRODUCTS_PER_STEP = 10


def long_conv(
    x: Stream,
    filter: LongFilter,  # noqa: A002
    skip: PerWidth | None = None,
    state: PastInputs | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
) -> tuple[Stream, PastInputs]:
    """A causal convolution along time, channel by channel, with a filter as long as the text, longer or shorter.

    y_t = sum_j filter_j x_{t - j} + skip x_t over j = 0 ... W - 1

    Args:
        x: inputs, (B, T, D).
        filter: (D, W); filter[:, 0] multiplies the present input. A filter that grows with the text must have at every
            call as many taps as there are inputs up to then, or the state forgets rows that later taps would reach.
        skip: weight of the present input beside the filter's, (D,); None is 0.
        state: the inputs before x, oldest first, (B, S, D) with any S, in x's dtype; None is no inputs.
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent" (token by token), "parallel" (one T x (S + T) matrix a channel) or "fft": one of the plain PyTorch
            forms. Matrix and transform spread an infinity or NaN of x over all tokens of its channel, earlier ones too.

    Returns:
        output (B, T, D) in x's dtype, and the past inputs (B, `past_rows(S + T, W)`, D).

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0.

    Source: H3, arXiv 2212.14052, section 3; Hyena, 2302.10866, section 3. Chapter 06.
    """
    given = {"x": x, "filter": filter} | ({} if skip is None else {"skip": skip})
    check_tensors("long_conv", {name: LAYOUT[name] for name in given}, tuple(given.values()))
    past = x[:, :0] if state is None else state
    _check_past(past, x)
    output, final = _chosen(x, filter, past, backend, form)(x, filter, past)
    if skip is not None:
        output = output + skip.to(output.dtype) * x.to(output.dtype)
    return output.to(x.dtype), final


def past_rows(tokens: int, taps: int) -> int:
    """Rows of the state after so many tokens: all of them, until there are as many as the filter has taps.

    Bytes: B * past_rows * D * bytes of x's dtype.
    """
    return min(tokens, taps)


def long_conv_recurrent(x: Tensor, taps: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The literal sum, token by token; the output in the dtype in which sums are taken."""
    rows, outputs = taps.to(state_dtype(x.dtype)).mT, []
    seen = torch.cat((state, x), 1)
    for now in range(state.shape[1], seen.shape[1]):
        reach = min(now + 1, len(rows))
        outputs.append((rows[:reach] * seen[:, now + 1 - reach : now + 1].flip(1)).sum(1))
    return torch.stack(outputs, 1), _kept(x, taps, state)


def long_conv_parallel(x: Tensor, taps: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """All sums at once: one matrix a channel, constant along its diagonals. Its D * T * (S + T) numbers are the hazard."""
    seen, wide = torch.cat((state, x), 1), state_dtype(x.dtype)
    total, width = seen.shape[1], taps.shape[1]
    row = torch.arange(total, device=x.device)
    ago = row[state.shape[1] :].unsqueeze(1) - row
    matrix = taps.to(wide)[:, ago.clamp(0, width - 1)].masked_fill((ago < 0) | (ago >= width), 0.0)
    return torch.einsum("dts,bsd->btd", matrix, seen.to(wide)), _kept(x, taps, state)


def long_conv_fft(x: Tensor, taps: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The product of two transforms; a few channels at a time, so that they stay in the near caches."""
    reach, rows, points = _circle(x, taps, state)
    wide = state_dtype(x.dtype)
    signal = x if rows == 0 else torch.cat((state[:, state.shape[1] - rows :], x), 1)
    channels = max(FFT_CHANNELS, FFT_NUMBERS // (points * len(x))) if x.device.type == "cpu" else x.shape[2]
    outputs = []
    for inputs, filters in zip(signal.mT.split(channels, 1), taps[:, :reach].split(channels), strict=True):
        spectrum = torch.fft.rfft(inputs.to(wide).contiguous(), points) * torch.fft.rfft(filters.to(wide), points)
        outputs.append(torch.fft.irfft(spectrum, points)[..., rows : rows + x.shape[1]])
    return torch.cat(outputs, 1).mT, _kept(x, taps, state)


def _circle(x: Tensor, taps: Tensor, state: Tensor) -> tuple[int, int, int]:
    """Taps that reach an input, rows of the state that a tap reaches, and points of the transform."""
    reach = min(taps.shape[1], state.shape[1] + x.shape[1])
    return reach, min(state.shape[1], reach - 1), fast_length(x.shape[1] + reach - 1)


def fast_length(least: int) -> int:
    """The shortest length that transforms are fast for, at least so many points."""
    return min(factor << max(0, -(-least // factor) - 1).bit_length() for factor in ODD_FACTORS)


def _kept(x: Tensor, taps: Tensor, state: Tensor) -> Tensor:
    """What later calls may still reach, in storage of its own."""
    gone = state.shape[1] + x.shape[1] - past_rows(state.shape[1] + x.shape[1], taps.shape[1])
    return torch.cat((state[:, gone:], x[:, max(0, gone - state.shape[1]) :]), 1)


def _chosen(x: Tensor, taps: Tensor, state: Tensor, backend: str, form: str | None) -> Callable[..., tuple[Tensor, ...]]:
    if backend == "auto" and form is None and not _sums_are_less(x, taps, state):
        return long_conv_fft
    if backend == "auto" and form is None and _kernel_would_turn_for_one(x, taps):
        return long_conv_recurrent
    return choose("long_conv", FORMS, BACKENDS, backend, form, x)


def _kernel_would_turn_for_one(x: Tensor, taps: Tensor) -> bool:
    """Whether the CPU's kernel would lay all taps of a channel apart, and that for a single token."""
    return x.shape[1] == 1 and taps.stride(0) != 1 and automatic(x.device.type, x.dtype) == "numba"


def _sums_are_less(x: Tensor, taps: Tensor, state: Tensor) -> bool:
    """Whether `auto` adds products up rather than to transform: for few tokens, and as far as measured on a CPU."""
    batch, length, _ = x.shape
    if length <= FEW_TOKENS:
        return True
    if automatic(x.device.type, x.dtype) != "numba":
        return False
    reach, rows, points = _circle(x, taps, state)
    missing = reach - 1 - rows
    products = length * reach - missing * (missing + 1) // 2
    # A transform in and one out for each sequence, one for the filter that they share.
    return batch * products < PRODUCTS_PER_STEP * (2 * batch + 1) * points * math.log2(points)


def _check_past(state: Tensor, x: Tensor) -> None:
    if not isinstance(state, Tensor):
        raise ValueError(f"long_conv: state must be a tensor or None, got {type(state).__name__}")
    batch, _, width = x.shape
    if state.ndim != x.ndim or (state.shape[0], state.shape[2]) != (batch, width):
        raise ValueError(f"long_conv: state must be ({batch}, S, {width}), got {tuple(state.shape)}")
    if state.dtype != x.dtype or state.device != x.device:
        found, expected = f"{state.dtype} on {state.device}", f"{x.dtype} on {x.device}"
        raise ValueError(f"long_conv: state is {found} but x is {expected}; it holds inputs and has their dtype")


def _shapes(x: Tensor, taps: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    rows = past_rows(state.shape[1] + x.shape[1], taps.shape[1])
    output = torch.empty(x.shape, dtype=state_dtype(x.dtype), device=x.device)
    return output, state.new_empty((x.shape[0], rows, x.shape[2]))


FORMS = {"recurrent": long_conv_recurrent, "parallel": long_conv_parallel, "fft": long_conv_fft}
BACKENDS = {
    "naive": long_conv_recurrent,
    "numba": kernel_op("long_conv_numba", INPUTS, _shapes),
    "triton": kernel_op("long_conv_triton", INPUTS, _shapes),
}
