"""The modal convolution: a long convolution whose filter is a sum of N decaying waves, so that N numbers are its past.

    h_t = Re sum_n R_n p_n^t         y_t = sum_j h_j x_{t - j}  (+ skip x_t)

A complex pole p says how fast a wave turns and fades at each token, its residue R how strongly and in which phase it is
heard. Because p^{t+1} = p p^t, the waves of all past inputs add up to one number each:

    X_t = p X_{t-1} + x_t            y_t = Re sum_n R_n X_t  (+ skip x_t)

So a filter without end has a state of constant size, N complex numbers a channel, where `hybridlab.ops.long_conv` keeps
every input. StripedHyena decodes so. H3's diagonal state space is the same: y_t = 2 Re sum_n C_n x_t with
x_t = A_n x_{t-1} + B_n u_t has the poles A_n and the residues 2 C_n B_n.

The hazard is the powers: e^{t log p} fails at a pole of 0 and loses digits of long t; they are multiplied up here, in log2 T
doublings.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hybridlab.ops.checks import check_finite, check_state, check_tensors
from hybridlab.ops.dispatch import automatic, choose
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.long_conv import long_conv_fft
from hybridlab.ops.precision import complex_state_dtype
from hybridlab.shapes import ModalState, Modes, PerWidth, Stream

LAYOUT = {"x": "BTD", "poles": "DN", "residues": "DN", "skip": "D"}
INPUTS = ("x", "poles", "residues", "state")


def modal_conv(
    x: Stream,
    poles: Modes,
    residues: Modes,
    skip: PerWidth | None = None,
    state: ModalState | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
) -> tuple[Stream, ModalState]:
    """A causal convolution along time with h_t = Re sum_n R_n p_n^t, channel by channel, and a state of constant size.

    X_t = p X_{t-1} + x_t;  y_t = Re sum_n R_n X_t + skip x_t

    Only the real part is taken: who keeps one of each pair of conjugate modes doubles its residue.

    Args:
        x: inputs, (B, T, D).
        poles: p, finite, complex (D, N). A pole outside the unit circle grows without bound.
        residues: R, finite, complex (D, N).
        skip: weight of the present input beside the filter's, (D,); None is 0.
        state: X before the first token, complex (B, D, N); None is the empty state (zeros). Poles, residues and state are
            complex128 for float64 inputs, else complex64.
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent" (token by token) or "parallel" (the filter, and its convolution by Fourier transforms): one of the
            plain PyTorch forms.

    Returns:
        output (B, T, D) in x's dtype, and the state after the last token (B, D, N), B * D * N * 8 bytes in complex64.

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0; poles or residues that are infinite or NaN.

    Source: Laughing Hyena, arXiv 2310.18780, section 3; StripedHyena; H3, 2212.14052, section 3. Chapter 06.
    """
    given = {"x": x, "poles": _real(poles), "residues": _real(residues)} | ({} if skip is None else {"skip": skip})
    sizes = check_tensors("modal_conv", {name: LAYOUT[name] for name in given}, tuple(given.values()))
    _check_modes(x, {"poles": poles, "residues": residues})
    shape, kind = (sizes["B"], sizes["D"], sizes["N"]), complex_state_dtype(x.dtype)
    if state is None:
        state = x.new_zeros(shape, dtype=kind)
    check_state("modal_conv", state, shape, x, dtype=kind)
    output, final = _chosen(x, backend, form)(x, poles, residues, state)
    if skip is not None:
        output = output + skip.to(output.dtype) * x.to(output.dtype)
    return output.to(x.dtype), final


def modal_filter(poles: Modes, residues: Modes, taps: int) -> Tensor:
    """The filter that poles and residues stand for, h_t = Re sum_n R_n p_n^t at t = 0 ... taps - 1: (D, taps)."""
    return (residues.unsqueeze(-1) * powers(poles, taps)).sum(1).real


def powers(poles: Tensor, count: int) -> Tensor:
    """p^0 ... p^{count - 1} in a new last axis."""
    found, square = torch.ones_like(poles).unsqueeze(-1), poles.unsqueeze(-1)
    while found.shape[-1] < count:
        found, square = torch.cat((found, square * found), -1), square * square
    return found[..., :count]


def modal_conv_recurrent(x: Tensor, poles: Tensor, residues: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The literal equation, token by token; the output in the dtype in which sums are taken."""
    outputs = []
    for x_t in x.unbind(1):
        state = poles * state + x_t.unsqueeze(-1)
        outputs.append((residues * state).sum(-1).real)
    return torch.stack(outputs, 1), state


def modal_conv_parallel(x: Tensor, poles: Tensor, residues: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The filter as long as the text, and what is left of the state at each token; holds D * N * (T + 1) powers."""
    length, wide = x.shape[1], x.to(residues.real.dtype)
    turned = powers(poles, length + 1)
    heard = residues.unsqueeze(-1) * turned
    output, _ = long_conv_fft(wide, heard[..., :-1].sum(1).real, wide[:, :0])
    left = torch.einsum("bdn,dnt->btd", state, heard[..., 1:]).real
    added = torch.einsum("btd,dnt->bdn", wide.to(poles.dtype), turned[..., :-1].flip(-1))
    return output + left, turned[..., -1] * state + added


def _real(modes: Tensor) -> Tensor:
    """The real parts, whose shape, device and width of numbers are those of the modes."""
    return modes.real if isinstance(modes, Tensor) else modes


def _check_modes(x: Tensor, modes: dict[str, Tensor]) -> None:
    expected = complex_state_dtype(x.dtype)
    for name, numbers in modes.items():
        if numbers.dtype != expected:
            raise ValueError(f"modal_conv: {name} must be {expected} for {x.dtype} inputs, got {numbers.dtype}")
        check_finite("modal_conv", name, numbers)


def _chosen(x: Tensor, backend: str, form: str | None) -> Callable[..., tuple[Tensor, ...]]:
    """Without a kernel, `auto` makes the filter only where it serves more than one token."""
    if backend == "auto" and form is None and automatic(x.device.type, x.dtype) == "chunked":
        form = "recurrent" if x.shape[1] == 1 else "parallel"
    return choose("modal_conv", FORMS, BACKENDS, backend, form, x)


def _shapes(x: Tensor, poles: Tensor, residues: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return torch.empty(x.shape, dtype=poles.real.dtype, device=x.device), blank(state)


FORMS = {"recurrent": modal_conv_recurrent, "parallel": modal_conv_parallel}
BACKENDS = {
    "naive": modal_conv_recurrent,
    "numba": kernel_op("modal_conv_numba", INPUTS, _shapes),
    "triton": kernel_op("modal_conv_triton", INPUTS, _shapes),
}
