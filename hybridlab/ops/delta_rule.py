"""The delta rule: a memory that is corrected, not only added to.

A head keeps a matrix S (K x V) that answers a key with a value. A token asks it for its own key, and what the answer lacks
of its value is written, times beta: 0 writes nothing, 1 replaces the old answer, and up to 2 the error turns its sign:

    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T
    o_t = S_t^T q_t

Written out, S_t = (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T: the state is multiplied by a matrix, not a diagonal.
It is `hybridlab.ops.gated_delta_rule` where nothing fades. No scale is applied and nothing is normalised.

The hazard: along k the old state is multiplied by 1 - beta |k|^2. Keys are to have a length of 1 or less; with keys drawn
from N(0, 1) the state grows without bound.
"""

import torch
from torch import Tensor

from hybridlab.ops.checks import check_chunk_size, check_state, check_tensors
from hybridlab.ops.dispatch import choose
from hybridlab.ops.gated_delta_rule import CHUNK_SIZE, correcting_chunks
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.precision import state_dtype, widened
from hybridlab.shapes import Keys, MatrixState, Queries, Values, WriteStrengths

LAYOUT = {"q": "BTHK", "k": "BTHK", "v": "BTHV", "beta": "BTH"}
INPUTS = (*LAYOUT, "state")


def delta_rule(
    q: Queries,
    k: Keys,
    v: Values,
    beta: WriteStrengths,
    state: MatrixState | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Values, MatrixState]:
    """The recurrence of DeltaNet.

    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T;  o_t = S_t^T q_t

    Args:
        q: queries, (B, T, H, K); no scale is applied.
        k: keys, (B, T, H, K), of a length of at most 1 if the state is not to grow.
        v: values, (B, T, H, V).
        beta: how much of its error a token writes, (B, T, H), from 0 to 1, or to 2 where eigenvalues may be negative. A
            token with beta = 0 leaves the state as it is: that is how to pad.
        state: S before the first token, (B, H, K, V), float32 at least; None is the empty state (zeros).
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent", "parallel" (one triangular system) or "chunked": one of the plain PyTorch forms.
        chunk_size: tokens a chunk in the chunked form.

    Returns:
        output (B, T, H, V) in v's dtype, and the state after the last token (B, H, K, V).

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0.

    Source: DeltaNet, arXiv 2406.06484, equations 2 and 3 and section 3. Chapter 08.
    """
    sizes = check_tensors("delta_rule", LAYOUT, (q, k, v, beta))
    shape = (sizes["B"], sizes["H"], sizes["K"], sizes["V"])
    if state is None:
        state = q.new_zeros(shape, dtype=state_dtype(q.dtype))
    check_state("delta_rule", state, shape, q)
    check_chunk_size("delta_rule", chunk_size)
    run = choose("delta_rule", FORMS, BACKENDS, backend, form, q)
    if run is delta_rule_chunked:
        return delta_rule_chunked(q, k, v, beta, state, chunk_size)
    return run(q, k, v, beta, state)


def delta_rule_recurrent(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The literal equation, token by token."""
    out_dtype, (q, k, v, beta) = v.dtype, widened(state, q, k, v, beta)
    outputs = []
    for q_t, k_t, v_t, beta_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), beta.unbind(1), strict=True):
        error = v_t - (k_t.unsqueeze(-1) * state).sum(-2)
        state = state + (beta_t.unsqueeze(-1) * k_t).unsqueeze(-1) * error.unsqueeze(-2)
        outputs.append((q_t.unsqueeze(-1) * state).sum(-2))
    return torch.stack(outputs, 1).to(out_dtype), state


def delta_rule_parallel(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """All tokens' corrections at once: one triangular system of T equations a head."""
    return delta_rule_chunked(q, k, v, beta, state, chunk_size=k.shape[1])


def delta_rule_chunked(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor, chunk_size: int = CHUNK_SIZE
) -> tuple[Tensor, Tensor]:
    """A triangular system inside a chunk, the state between chunks."""
    out_dtype, (q, k, v, beta) = v.dtype, widened(state, q, k, v, beta)
    output, state = correcting_chunks(q, k, v, torch.zeros_like(beta), beta, state, chunk_size)
    return output.to(out_dtype), state


def _shapes(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return blank(v), blank(state)


FORMS = {"recurrent": delta_rule_recurrent, "parallel": delta_rule_parallel, "chunked": delta_rule_chunked}
BACKENDS = {
    "naive": delta_rule_recurrent,
    "numba": kernel_op("delta_rule_numba", INPUTS, _shapes),
    "triton": kernel_op("delta_rule_triton", INPUTS, _shapes),
}
