"""The short convolution: each channel adds up its last W inputs, the present one included, with fixed weights.

    y_t = bias + sum_j weight_j x_{t - (W - 1) + j}

The last weight multiplies the present input. No activation follows; the mixers around it choose their own. What the next
call needs are the last W - 1 inputs, oldest first; before the first token they are zeros.

The hazard: a call of fewer than W - 1 tokens, such as a decoding step, must keep the newer of the old rows.
"""

import torch
from torch import Tensor

from hybridlab.ops.checks import check_state, check_tensors
from hybridlab.ops.dispatch import choose
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.precision import state_dtype
from hybridlab.shapes import ConvState, ConvWeight, PerWidth, Stream

LAYOUT = {"x": "BTD", "weight": "DW", "bias": "D"}
INPUTS = (*LAYOUT, "state")


def short_conv(
    x: Stream,
    weight: ConvWeight,
    bias: PerWidth | None = None,
    state: ConvState | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
) -> tuple[Stream, ConvState]:
    """A causal convolution along time, channel by channel, with a filter of a few taps.

    y_t = bias + sum_j weight_j x_{t - (W - 1) + j} over j = 0 ... W - 1

    Args:
        x: inputs, (B, T, D).
        weight: filter, (D, W); weight[:, W - 1] multiplies the present input, as in PyTorch's conv1d.
        bias: (D,); None is zeros.
        state: the last W - 1 inputs before x, oldest first, (B, W - 1, D), in x's dtype; None is zeros.
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent" (token by token) or "parallel" (tap by tap): one of the plain PyTorch forms.

    Returns:
        output (B, T, D) in x's dtype, and the last W - 1 inputs (B, W - 1, D).

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0.

    Source: the convolution before the recurrence in H3, arXiv 2212.14052, Mamba, 2312.00752, and Griffin, 2402.19427.
    Chapter 04.
    """
    if bias is None and isinstance(weight, Tensor):
        bias = weight.new_zeros(weight.shape[:1])
    sizes = check_tensors("short_conv", LAYOUT, (x, weight, bias))
    shape = (sizes["B"], sizes["W"] - 1, sizes["D"])
    if state is None:
        state = x.new_zeros(shape)
    check_state("short_conv", state, shape, x, dtype=x.dtype)
    return choose("short_conv", FORMS, BACKENDS, backend, form, x)(x, weight, bias, state)


def short_conv_recurrent(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The literal equation, token by token."""
    wide, outputs = state_dtype(x.dtype), []
    for x_t in x.unbind(1):
        seen = torch.cat((state, x_t.unsqueeze(1)), 1)
        outputs.append(bias.to(wide) + (weight.mT.to(wide) * seen.to(wide)).sum(1))
        state = seen[:, 1:]
    return torch.stack(outputs, 1).to(x.dtype), state.clone(memory_format=torch.contiguous_format)


def short_conv_parallel(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Tap by tap, all tokens at once."""
    wide, length = state_dtype(x.dtype), x.shape[1]
    seen = torch.cat((state, x), 1)
    output = bias.to(wide)
    for j, weight_j in enumerate(weight.to(wide).unbind(1)):
        output = output + weight_j * seen[:, j : j + length].to(wide)
    return output.to(x.dtype), seen[:, length:].clone(memory_format=torch.contiguous_format)


def _shapes(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return blank(x), blank(state)


FORMS = {"recurrent": short_conv_recurrent, "parallel": short_conv_parallel}
BACKENDS = {
    "naive": short_conv_recurrent,
    "numba": kernel_op("short_conv_numba", INPUTS, _shapes),
    "triton": kernel_op("short_conv_triton", INPUTS, _shapes),
}
