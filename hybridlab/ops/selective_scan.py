"""Mamba's selective scan: every channel keeps N fading memories, and each token decides how long its step is.

A token x_t of a channel is written into N numbers through B_t and read from them through C_t. Its step dt_t does two things
at once: a long step forgets the past (e^{dt A} near 0) and writes the token strongly; a step of 0 leaves the state as it is:

    h_t = e^{dt_t A} h_{t-1} + dt_t x_t B_t
    y_t = h_t C_t + D x_t

The paper discretises B by a zero-order hold; its code, and all others, take dt B (Euler's rule), and so does this one.

Every channel and state number is a linear recurrence of its own, h = a h + b, and two tokens in a row are again one:
(a, b) then (a', b') is (a' a, a' b + b'). That is associative, so all prefixes come out of a tree of joins, log2 T levels up
and down again. Dividing by the product of all a, which would need no tree, fails as soon as that product underflows: at
once, where dt is large.

The hazard is memory: h of all tokens has N numbers for each number of x. Only the parallel form holds it whole.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hybridlab.ops.checks import check_chunk_size, check_state, check_steps, check_tensors
from hybridlab.ops.dispatch import choose
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.linear_recurrence import linear_recurrence_parallel
from hybridlab.ops.precision import state_dtype, widened
from hybridlab.shapes import Inner, PerInner, Rates, ScanState, StateVectors

LAYOUT = {"x": "BTE", "dt": "BTE", "A": "EN", "B": "BTN", "C": "BTN", "D": "E"}
INPUTS = (*LAYOUT, "state")
CHUNK_SIZE = 16


def selective_scan(
    x: Inner,
    dt: Inner,
    A: Rates,
    B: StateVectors,
    C: StateVectors,
    D: PerInner | None = None,
    state: ScanState | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Inner, ScanState]:
    """The selective scan of Mamba.

    h_t = e^{dt_t A} h_{t-1} + dt_t x_t B_t;  y_t = h_t C_t + D x_t

    Args:
        x: inputs, (B, T, E).
        dt: length of each token's step, finite and at least 0 (a softplus has been taken), (B, T, E). A token with dt = 0
            leaves the state as it is: that is how to pad.
        A: decay rate of each state number, finite and at most 0, (E, N). Mamba stores A_log and means A = -exp(A_log).
        B: how a token is written into the state, (B, T, N), the same for all channels.
        C: how the state is read, (B, T, N).
        D: weight of the token itself in its output, (E,); None is 0.
        state: h before the first token, (B, E, N), float32 at least; None is the empty state (zeros).
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent", "parallel" or "chunked": one of the plain PyTorch forms.
        chunk_size: tokens a chunk in the chunked form.

    Returns:
        output (B, T, E) in x's dtype, and the state after the last token (B, E, N).

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0; a dt that is negative, infinite or NaN; an A that is
            positive, infinite or NaN.

    Source: Mamba, arXiv 2312.00752, algorithm 2 and the discretisation of its section 2. Chapter 04.
    """
    if D is None and isinstance(x, Tensor):
        D = x.new_zeros(x.shape[-1:])
    sizes = check_tensors("selective_scan", LAYOUT, (x, dt, A, B, C, D))
    check_steps("selective_scan", dt, A)
    shape = (sizes["B"], sizes["E"], sizes["N"])
    if state is None:
        state = x.new_zeros(shape, dtype=state_dtype(x.dtype))
    check_state("selective_scan", state, shape, x)
    check_chunk_size("selective_scan", chunk_size)
    run = choose("selective_scan", FORMS, BACKENDS, backend, form, x)
    if run is selective_scan_chunked:
        return selective_scan_chunked(x, dt, A, B, C, D, state, chunk_size)
    return run(x, dt, A, B, C, D, state)


def selective_scan_recurrent(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The literal equation, token by token."""
    out_dtype, (x, dt, A, B, C, D) = x.dtype, widened(state, x, dt, A, B, C, D)
    outputs = []
    for x_t, dt_t, B_t, C_t in zip(x.unbind(1), dt.unbind(1), B.unbind(1), C.unbind(1), strict=True):
        written = (dt_t * x_t).unsqueeze(-1) * B_t.unsqueeze(-2)
        state = (dt_t.unsqueeze(-1) * A).exp() * state + written
        outputs.append((state * C_t.unsqueeze(-2)).sum(-1) + D * x_t)
    return torch.stack(outputs, 1).to(out_dtype), state


def selective_scan_parallel(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """An associative scan over all tokens at once; the only form that holds every state, (B, T, E, N)."""
    out_dtype, (x, dt, A, B, C, D) = x.dtype, widened(state, x, dt, A, B, C, D)
    output, state = _stretch(x, dt, A, B, C, state)
    return (output + D * x).to(out_dtype), state


def selective_scan_chunked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor, chunk_size: int = CHUNK_SIZE
) -> tuple[Tensor, Tensor]:
    """A scan inside a chunk, one chunk after the other; its backward scans each chunk again, so it too holds but one."""
    out_dtype, (x, dt, A, B, C, D) = x.dtype, widened(state, x, dt, A, B, C, D)
    outputs = []
    for chunk in zip(*(z.split(chunk_size, 1) for z in (x, dt, B, C)), strict=True):
        x_n, dt_n, B_n, C_n = chunk
        output, state = checkpoint(_stretch, x_n, dt_n, A, B_n, C_n, state, use_reentrant=False, preserve_rng_state=False)
        outputs.append(output)
    return (torch.cat(outputs, 1) + D * x).to(out_dtype), state


def _stretch(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """What a stretch of tokens reads, without D x, and the state after it: one linear recurrence a channel and number."""
    decay = (dt.unsqueeze(-1) * A).exp()
    written = (dt * x).unsqueeze(-1) * B.unsqueeze(-2)
    states, final = linear_recurrence_parallel(decay.flatten(2), written.flatten(2), state.flatten(1))
    return torch.einsum("bten,btn->bte", states.view_as(decay), C), final.view_as(state)


def _shapes(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return blank(x), blank(state)


FORMS = {
    "recurrent": selective_scan_recurrent,
    "parallel": selective_scan_parallel,
    "chunked": selective_scan_chunked,
}
BACKENDS = {
    "naive": selective_scan_recurrent,
    "numba": kernel_op("selective_scan_numba", INPUTS, _shapes),
    "triton": kernel_op("selective_scan_triton", INPUTS, _shapes),
}
