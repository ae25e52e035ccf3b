"""Mamba-2's state-space duality: one recurrence that is also a masked attention, and everything between the two.

A head keeps a matrix S (P x N). A token writes its P numbers x_t along the direction B_t and reads along C_t; all of S fades
by one number, e^{dt_t A}. A step of dt_t = 0 leaves the state as it is:

    S_t = e^{dt_t A} S_{t-1} + (dt_t x_t) B_t^T
    y_t = S_t C_t + D x_t

Because a single number fades the whole matrix, the sum unrolls into attention without a softmax,

    y_t = sum over s <= t of (C_t . B_s) e^{A (dt_{s+1} + ... + dt_t)} dt_s x_s + ...

a (T, T) matrix of scores under a mask that fades. That is the parallel form; chunks take the matrix inside a chunk and the
state between chunks, and no matter where the cuts are, the result is the same.

Heads share B and C in groups of neighbours: head h uses group h // (H / G).

The hazards: the mask must cut the future off *before* the exponential, or the gradient is inf * 0; and the decay between two
tokens is the sum of the steps between them, not a difference of sums from the start, which has lost its small digits.
And where chunks are products of matrices, a NaN or an infinity reaches earlier tokens of its chunk: 0 times NaN is NaN.
"""

import torch
from torch import Tensor

from hybridlab.ops.checks import check_chunk_size, check_state, check_steps, check_tensors
from hybridlab.ops.chunks import fading_outside, in_chunks, log_fading_between
from hybridlab.ops.dispatch import choose
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.precision import state_dtype, widened
from hybridlab.shapes import GroupVectors, HeadInputs, PerHead, SSDState, Steps

LAYOUT = {"x": "BTHP", "dt": "BTH", "A": "H", "B": "BTGN", "C": "BTGN", "D": "H"}
INPUTS = (*LAYOUT, "state")
CHUNK_SIZE = 64


def ssd(
    x: HeadInputs,
    dt: Steps,
    A: PerHead,
    B: GroupVectors,
    C: GroupVectors,
    D: PerHead | None = None,
    state: SSDState | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[HeadInputs, SSDState]:
    """The state-space layer of Mamba-2.

    S_t = e^{dt_t A} S_{t-1} + (dt_t x_t) B_t^T;  y_t = S_t C_t + D x_t

    Args:
        x: inputs, (B, T, H, P).
        dt: length of each token's step, finite and at least 0 (a softplus and any limits have been applied), (B, T, H).
            A token with dt = 0 leaves the state as it is: that is how to pad.
        A: decay rate of each head, finite and at most 0, (H,). Mamba-2 stores A_log and means A = -exp(A_log).
        B: how a token is written into the state, (B, T, G, N); G divides H, and head h uses group h // (H / G).
        C: how the state is read, (B, T, G, N).
        D: weight of the token itself in its output, (H,); None is 0.
        state: S before the first token, (B, H, P, N), float32 at least; None is the empty state (zeros).
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent", "parallel" (masked attention) or "chunked": one of the plain PyTorch forms.
        chunk_size: tokens a chunk in the chunked form.

    Returns:
        output (B, T, H, P) in x's dtype, and the state after the last token (B, H, P, N).

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0; G that does not divide H; a dt that is negative,
            infinite or NaN; an A that is positive, infinite or NaN.

    Source: Mamba-2, arXiv 2405.21060, sections 3 and 6, listing 1. Chapter 05.
    """
    if D is None and isinstance(A, Tensor):
        D = torch.zeros_like(A)
    sizes = check_tensors("ssd", LAYOUT, (x, dt, A, B, C, D))
    if sizes["H"] % sizes["G"]:
        raise ValueError(f"ssd: B has {sizes['G']} groups, which must divide the {sizes['H']} heads of x")
    check_steps("ssd", dt, A)
    shape = (sizes["B"], sizes["H"], sizes["P"], sizes["N"])
    if state is None:
        state = x.new_zeros(shape, dtype=state_dtype(x.dtype))
    check_state("ssd", state, shape, x)
    check_chunk_size("ssd", chunk_size)
    run = choose("ssd", FORMS, BACKENDS, backend, form, x)
    if run is ssd_chunked:
        return ssd_chunked(x, dt, A, B, C, D, state, chunk_size)
    return run(x, dt, A, B, C, D, state)


def ssd_recurrent(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The literal equation, token by token."""
    out_dtype, (x, dt, A, B, C, D) = x.dtype, widened(state, x, dt, A, B, C, D)
    B, C = (z.repeat_interleave(x.shape[2] // z.shape[2], 2) for z in (B, C))
    outputs = []
    for x_t, dt_t, B_t, C_t in zip(x.unbind(1), dt.unbind(1), B.unbind(1), C.unbind(1), strict=True):
        written = (dt_t.unsqueeze(-1) * x_t).unsqueeze(-1) * B_t.unsqueeze(-2)
        state = (dt_t * A).exp().view(*dt_t.shape, 1, 1) * state + written
        outputs.append((state * C_t.unsqueeze(-2)).sum(-1) + D.unsqueeze(-1) * x_t)
    return torch.stack(outputs, 1).to(out_dtype), state


def ssd_parallel(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Masked attention: one (T, T) matrix of faded scores a head."""
    out_dtype, (x, dt, A, B, C, D) = x.dtype, widened(state, x, dt, A, B, C, D)
    output, final = fading_attention(C, B, dt.unsqueeze(-1) * x, dt * A, state.mT)
    return (output + D.unsqueeze(-1) * x).to(out_dtype), final.mT.contiguous()


def ssd_chunked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor, chunk_size: int = CHUNK_SIZE
) -> tuple[Tensor, Tensor]:
    """Masked attention inside a chunk, the state between chunks; all chunks at once but for the state's own recurrence."""
    out_dtype, (x, dt, A, B, C, D) = x.dtype, widened(state, x, dt, A, B, C, D)
    output, final = fading_chunks(C, B, dt.unsqueeze(-1) * x, dt * A, state.mT, chunk_size)
    return (output + D.unsqueeze(-1) * x).to(out_dtype), final.mT.contiguous()


def fading_attention(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """o_t = q_t S_t and the last S of S_t = e^{log_decay_t} S_{t-1} + k_t v_t^T, all pairs of tokens at once.

    Args:
        q: (B, T, G, K); G divides H.
        k: (B, T, G, K).
        v: (B, T, H, V).
        log_decay: (B or 1, T, H).
        state: (B, H, K, V).
    """
    q, k = (z.repeat_interleave(v.shape[2] // z.shape[2], 2).transpose(1, 2) for z in (q, k))
    v, log_decay = v.transpose(1, 2), log_decay.transpose(1, 2)
    before, after, whole = (z.unsqueeze(-1) for z in fading_outside(log_decay))
    output = (q @ k.mT * log_fading_between(log_decay).exp()) @ v + before * (q @ state)
    state = whole.unsqueeze(-1) * state + (after * k).mT @ v
    return output.transpose(1, 2), state


def fading_chunks(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """The same as `fading_attention`, by chunks.

    Heads of a group lie side by side, so that what they share is one wide matrix product: states are (K, heads * V).
    """
    (_, length, heads, width), groups = v.shape, k.shape[2]
    chunk_size = min(chunk_size, length)
    q, k, v, log_decay = (in_chunks(z, chunk_size) for z in (q, k, v, log_decay))
    q, k, log_decay = q.transpose(2, 3), k.transpose(2, 3), log_decay.transpose(2, 3)
    before, after, whole = fading_outside(log_decay)
    written = k.mT @ _beside(v * after.transpose(2, 3).unsqueeze(-1), groups)
    state = state.unflatten(1, (groups, -1)).transpose(2, 3).flatten(3)
    starts = []
    for whole_n, written_n in zip(_wide(whole, groups, width).unbind(1), written.unbind(1), strict=True):
        starts.append(state)
        state = whole_n * state + written_n
    scores = (q @ k.mT).unsqueeze(3) * log_fading_between(log_decay).exp().unflatten(2, (groups, -1))
    inside = scores.flatten(2, 3) @ v.transpose(2, 3)
    outside = _apart(q @ torch.stack(starts, 1), heads) * before.transpose(2, 3).unsqueeze(-1)
    output = inside.transpose(2, 3) + outside
    state = state.unflatten(3, (-1, width)).transpose(2, 3).flatten(1, 2)
    return output.flatten(1, 2)[:, :length], state


def _beside(x: Tensor, groups: int) -> Tensor:
    """(..., tokens, H, V) to (..., G, tokens, H / G * V)."""
    return x.unflatten(-2, (groups, -1)).flatten(-2).transpose(-2, -3)


def _apart(x: Tensor, heads: int) -> Tensor:
    """(..., G, tokens, H / G * V) to (..., tokens, H, V)."""
    return x.transpose(-2, -3).flatten(-2).unflatten(-1, (heads, -1))


def _wide(whole: Tensor, groups: int, width: int) -> Tensor:
    """(..., H) to (..., G, 1, H / G * V)."""
    return whole.unflatten(-1, (groups, 1, -1)).repeat_interleave(width, -1)


def _shapes(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return blank(x), blank(state)


FORMS = {"recurrent": ssd_recurrent, "parallel": ssd_parallel, "chunked": ssd_chunked}
BACKENDS = {
    "naive": ssd_recurrent,
    "numba": kernel_op("ssd_numba", INPUTS, _shapes),
    "triton": kernel_op("ssd_triton", INPUTS, _shapes),
}
