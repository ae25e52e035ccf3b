"""The gated delta rule: a memory that fades, and is then corrected.

All of a head's matrix S (K x V) fades by one number a token. Then the token asks it for its key, and what the answer lacks
of its value is written, times beta:

    S'  = e^{log_decay_t} S_{t-1}
    S_t = S' + beta_t k_t (v_t - S'^T k_t)^T
    o_t = S_t^T q_t

The error is measured against the state that has already faded. No scale is applied and nothing is normalised.

A chunk of tokens is one triangular system. Let u_t be what token t writes along k_t, and decay(s, t) what is left at t of
what was written at s. Each token's error needs what earlier ones wrote,

    u_t = beta_t (v_t - sum over s < t of decay(s, t) (k_s . k_t) u_s - decay(start, t) S_start^T k_t)

so (I + L) u = beta (v - ...), L strictly lower triangular: forward substitution, all heads and chunks at once. Outputs and
the next state are then those of attention with keys k and values u.

The hazards: the decays must be cut off for the future *before* the exponential, or the gradient is inf * 0; and along k the
state is multiplied by 1 - beta |k|^2, so that keys longer than 1 let it grow without bound.
"""

import torch
from torch import Tensor

from hybridlab.ops.checks import check_chunk_size, check_log_decay, check_state, check_tensors
from hybridlab.ops.chunks import fading_outside, in_chunks, log_fading_between
from hybridlab.ops.dispatch import choose
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.precision import state_dtype, widened
from hybridlab.shapes import HeadDecays, Keys, MatrixState, Queries, Values, WriteStrengths

LAYOUT = {"q": "BTHK", "k": "BTHK", "v": "BTHV", "log_decay": "BTH", "beta": "BTH"}
INPUTS = (*LAYOUT, "state")
CHUNK_SIZE = 32


def gated_delta_rule(
    q: Queries,
    k: Keys,
    v: Values,
    log_decay: HeadDecays,
    beta: WriteStrengths,
    state: MatrixState | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Values, MatrixState]:
    """The recurrence of Gated DeltaNet; with a log decay of 0, the delta rule.

    S' = e^{log_decay_t} S_{t-1};  S_t = S' + beta_t k_t (v_t - S'^T k_t)^T;  o_t = S_t^T q_t

    Args:
        q: queries, (B, T, H, K); no scale is applied.
        k: keys, (B, T, H, K), of a length of at most 1 if the state is not to grow.
        v: values, (B, T, H, V).
        log_decay: natural logarithm of the decay a step, at most 0, (B, T, H).
        beta: how much of its error a token writes, (B, T, H), from 0 to 1, or to 2 where eigenvalues may be negative. A
            token with log_decay = beta = 0 leaves the state as it is: that is how to pad.
        state: S before the first token, (B, H, K, V), float32 at least; None is the empty state (zeros).
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent", "parallel" (one triangular system) or "chunked": one of the plain PyTorch forms.
        chunk_size: tokens a chunk in the chunked form.

    Returns:
        output (B, T, H, V) in v's dtype, and the state after the last token (B, H, K, V).

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0; a positive or NaN log decay.

    Source: Gated DeltaNet, arXiv 2412.06464, equation 10 and section 3.3. Chapter 08.
    """
    sizes = check_tensors("gated_delta_rule", LAYOUT, (q, k, v, log_decay, beta))
    check_log_decay("gated_delta_rule", log_decay)
    shape = (sizes["B"], sizes["H"], sizes["K"], sizes["V"])
    if state is None:
        state = q.new_zeros(shape, dtype=state_dtype(q.dtype))
    check_state("gated_delta_rule", state, shape, q)
    check_chunk_size("gated_delta_rule", chunk_size)
    run = choose("gated_delta_rule", FORMS, BACKENDS, backend, form, q)
    if run is gated_delta_rule_chunked:
        return gated_delta_rule_chunked(q, k, v, log_decay, beta, state, chunk_size)
    return run(q, k, v, log_decay, beta, state)


def gated_delta_rule_recurrent(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The literal equation, token by token."""
    out_dtype, (q, k, v, log_decay, beta) = v.dtype, widened(state, q, k, v, log_decay, beta)
    outputs = []
    for q_t, k_t, v_t, log_decay_t, beta_t in zip(*(x.unbind(1) for x in (q, k, v, log_decay, beta)), strict=True):
        faded = log_decay_t.exp().unsqueeze(-1).unsqueeze(-1) * state
        error = v_t - (k_t.unsqueeze(-1) * faded).sum(-2)
        state = faded + (beta_t.unsqueeze(-1) * k_t).unsqueeze(-1) * error.unsqueeze(-2)
        outputs.append((q_t.unsqueeze(-1) * state).sum(-2))
    return torch.stack(outputs, 1).to(out_dtype), state


def gated_delta_rule_parallel(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """All tokens' corrections at once: one triangular system of T equations a head."""
    return gated_delta_rule_chunked(q, k, v, log_decay, beta, state, chunk_size=k.shape[1])


def gated_delta_rule_chunked(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor, chunk_size: int = CHUNK_SIZE
) -> tuple[Tensor, Tensor]:
    """A triangular system inside a chunk, the state between chunks."""
    out_dtype, (q, k, v, log_decay, beta) = v.dtype, widened(state, q, k, v, log_decay, beta)
    output, state = correcting_chunks(q, k, v, log_decay, beta, state, chunk_size)
    return output.to(out_dtype), state


def correcting_chunks(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Output and final state by chunks, all of them at once but for the state's own recurrence.

    Args:
        q: (B, T, H, K).
        k: (B, T, H, K).
        v: (B, T, H, V).
        log_decay: (B, T, H).
        beta: (B, T, H).
        state: (B, H, K, V).
        chunk_size: tokens a chunk.
    """
    length, width = v.shape[1], v.shape[3]
    chunk_size = min(chunk_size, length)
    q, k, v, log_decay, beta = (in_chunks(x, chunk_size).movedim(3, 1) for x in (q, k, v, log_decay, beta))
    decay = log_fading_between(log_decay).exp()
    before, after, whole = (x.unsqueeze(-1) for x in fading_outside(log_decay))
    beta = beta.unsqueeze(-1)
    answered = (beta * (k @ k.mT) * decay).tril(-1)
    wanted = beta * torch.cat([v, before * k], -1)
    # Unit triangular: the ones on the diagonal need not be written.
    solved = torch.linalg.solve_triangular(answered, wanted, upper=False, unitriangular=True)
    values, erasers = solved.split([width, k.shape[-1]], -1)
    starts, written = [], []
    for value, eraser, key, whole_n in zip(*(x.unbind(2) for x in (values, erasers, after * k, whole)), strict=True):
        starts.append(state)
        written.append(value - eraser @ state)
        state = whole_n.unsqueeze(-1) * state + key.mT @ written[-1]
    output = (q @ k.mT * decay) @ torch.stack(written, 2) + (before * q) @ torch.stack(starts, 2)
    return output.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :length], state


def _shapes(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return blank(v), blank(state)


FORMS = {
    "recurrent": gated_delta_rule_recurrent,
    "parallel": gated_delta_rule_parallel,
    "chunked": gated_delta_rule_chunked,
}
BACKENDS = {
    "naive": gated_delta_rule_recurrent,
    "numba": kernel_op("gated_delta_rule_numba", INPUTS, _shapes),
    "triton": kernel_op("gated_delta_rule_triton", INPUTS, _shapes),
}
