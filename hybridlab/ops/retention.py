"""Retention: linear attention whose past fades at one constant rate a head.

A head keeps a matrix S (K x V). A token adds k_t v_t^T to it and reads it, itself included, with q_t; all of S fades by
e^{log_decay} a step, the same at every token. With a log decay of 0 nothing fades, and that is plain linear attention:

    S_t = e^{log_decay} S_{t-1} + k_t v_t^T
    o_t = q_t S_t

It is `hybridlab.ops.ssd` with steps of length 1, A = log_decay, C = q, B = k, x = v, no D and a group a head; its states are
the transposes of those there. No scale is applied, and nothing is normalised.
"""

import torch
from torch import Tensor

from hybridlab.ops.checks import check_chunk_size, check_log_decay, check_state, check_tensors
from hybridlab.ops.dispatch import choose
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.precision import state_dtype, widened
from hybridlab.ops.ssd import CHUNK_SIZE, fading_attention, fading_chunks
from hybridlab.shapes import Keys, MatrixState, PerHead, Queries, Values

LAYOUT = {"q": "BTHK", "k": "BTHK", "v": "BTHV", "log_decay": "H"}
INPUTS = (*LAYOUT, "state")


def retention(
    q: Queries,
    k: Keys,
    v: Values,
    log_decay: PerHead,
    state: MatrixState | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Values, MatrixState]:
    """The retention of RetNet; with a log decay of 0, linear attention.

    S_t = e^{log_decay} S_{t-1} + k_t v_t^T;  o_t = q_t S_t

    Args:
        q: queries, (B, T, H, K); no scale is applied.
        k: keys, (B, T, H, K).
        v: values, (B, T, H, V).
        log_decay: natural logarithm of each head's decay a step, at most 0, (H,). RetNet's is log(1 - 2^(-5-h)).
        state: S before the first token, (B, H, K, V), float32 at least; None is the empty state (zeros).
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent", "parallel" (masked attention) or "chunked": one of the plain PyTorch forms.
        chunk_size: tokens a chunk in the chunked form.

    Returns:
        output (B, T, H, V) in v's dtype, and the state after the last token (B, H, K, V).

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0; a positive or NaN log decay.

    Source: RetNet, arXiv 2307.08621, equations 5 to 7, without their scale and normalisation. Chapter 05.
    """
    sizes = check_tensors("retention", LAYOUT, (q, k, v, log_decay))
    check_log_decay("retention", log_decay)
    shape = (sizes["B"], sizes["H"], sizes["K"], sizes["V"])
    if state is None:
        state = q.new_zeros(shape, dtype=state_dtype(q.dtype))
    check_state("retention", state, shape, q)
    check_chunk_size("retention", chunk_size)
    run = choose("retention", FORMS, BACKENDS, backend, form, q)
    if run is retention_chunked:
        return retention_chunked(q, k, v, log_decay, state, chunk_size)
    return run(q, k, v, log_decay, state)


def retention_recurrent(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The literal equation, token by token."""
    out_dtype, (q, k, v, log_decay) = v.dtype, widened(state, q, k, v, log_decay)
    decay = log_decay.exp().view(-1, 1, 1)
    outputs = []
    for q_t, k_t, v_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
        state = decay * state + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
        outputs.append((q_t.unsqueeze(-1) * state).sum(-2))
    return torch.stack(outputs, 1).to(out_dtype), state


def retention_parallel(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Masked attention: one (T, T) matrix of faded scores a head."""
    out_dtype, (q, k, v, log_decay) = v.dtype, widened(state, q, k, v, log_decay)
    output, state = fading_attention(q, k, v, log_decay.expand(1, k.shape[1], -1), state)
    return output.to(out_dtype), state


def retention_chunked(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, chunk_size: int = CHUNK_SIZE
) -> tuple[Tensor, Tensor]:
    """Masked attention inside a chunk, the state between chunks."""
    out_dtype, (q, k, v, log_decay) = v.dtype, widened(state, q, k, v, log_decay)
    output, state = fading_chunks(q, k, v, log_decay.expand(1, k.shape[1], -1), state, chunk_size)
    return output.to(out_dtype), state


def _shapes(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return blank(v), blank(state)


FORMS = {"recurrent": retention_recurrent, "parallel": retention_parallel, "chunked": retention_chunked}
BACKENDS = {
    "naive": retention_recurrent,
    "numba": kernel_op("retention_numba", INPUTS, _shapes),
    "triton": kernel_op("retention_triton", INPUTS, _shapes),
}
