"""RWKV-5 and RWKV-6: a matrix of fading memories, each key channel with its own clock.

One state matrix S (K x V) a head. A token reads the state as earlier tokens left it, plus itself through the bonus; then
every row of S fades by its own decay and the token is written:

    o_t = r_t (S_{t-1} + (u * k_t) v_t^T)
    S_t = diag(e^{log_decay_t}) S_{t-1} + k_t v_t^T

The hazard: e^{-cumulative decay} overflows. No form here ever takes the exponential of a positive number: decays between
two tokens are exponentials of differences, and what lies in the future is set to -inf *before* the exponential, or the
gradient would be inf * 0.
"""

import torch
from torch import Tensor

from hybridlab.ops.checks import check_chunk_size, check_log_decay, check_state, check_tensors, state_dtype
from hybridlab.ops.dispatch import choose
from hybridlab.ops.kernel_op import kernel_op
from hybridlab.shapes import KeyBonus, KeyDecays, Keys, MatrixState, Receptances, Values

LAYOUT = {"r": "BTHK", "k": "BTHK", "v": "BTHV", "log_decay": "btHK", "bonus": "HK"}
INPUTS = (*LAYOUT, "state")
CHUNK_SIZE = 16


def wkv6(
    r: Receptances,
    k: Keys,
    v: Values,
    log_decay: KeyDecays,
    bonus: KeyBonus,
    state: MatrixState | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Values, MatrixState]:
    """The WKV operator of RWKV-6 (and of RWKV-5, with a decay that is constant in time).

    o_t = r_t (S_{t-1} + (u * k_t) v_t^T);  S_t = diag(e^{log_decay_t}) S_{t-1} + k_t v_t^T

    Args:
        r: receptances, (B, T, H, K); no scale is applied.
        k: keys, (B, T, H, K).
        v: values, (B, T, H, V).
        log_decay: natural logarithm of the decay a step, at most 0, (B, T, H, K); size 1 in B or T means constant along it.
        bonus: weight u of the present token, (H, K).
        state: S before the first token, (B, H, K, V), float32 at least; None is the empty state (zeros).
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent", "parallel" or "chunked": one of the plain PyTorch forms.
        chunk_size: tokens a chunk in the chunked form.

    Returns:
        output (B, T, H, V) in v's dtype, and the state after the last token (B, H, K, V).

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0; a positive or NaN log decay.

    Source: Eagle and Finch, arXiv 2404.05892, equations 16 to 19. Chapter 03.
    """
    sizes = check_tensors("wkv6", LAYOUT, (r, k, v, log_decay, bonus))
    check_log_decay("wkv6", log_decay)
    shape = (sizes["B"], sizes["H"], sizes["K"], sizes["V"])
    if state is None:
        state = r.new_zeros(shape, dtype=state_dtype(r.dtype))
    check_state("wkv6", state, shape, r)
    run = choose("wkv6", FORMS, BACKENDS, backend, form, r)
    if run is wkv6_chunked:
        check_chunk_size("wkv6", chunk_size)
        return wkv6_chunked(r, k, v, log_decay, bonus, state, chunk_size)
    return run(r, k, v, log_decay, bonus, state)


def wkv6_recurrent(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The literal equation, token by token."""
    out_dtype, (r, k, v, log_decay, bonus) = v.dtype, _widened(state, r, k, v, log_decay, bonus)
    log_decay = log_decay.expand(-1, k.shape[1], -1, -1)
    outputs = []
    for r_t, k_t, v_t, log_decay_t in zip(r.unbind(1), k.unbind(1), v.unbind(1), log_decay.unbind(1), strict=True):
        written = k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
        read = state + bonus.unsqueeze(-1) * written
        outputs.append((r_t.unsqueeze(-1) * read).sum(-2))
        state = log_decay_t.exp().unsqueeze(-1) * state + written
    return torch.stack(outputs, 1).to(out_dtype), state


def wkv6_parallel(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of tokens at once: o_t = sum_i (r_t * decay(i -> t)) k_i v_i, a (T, T) matrix for every key channel."""
    return wkv6_chunked(r, k, v, log_decay, bonus, state, chunk_size=k.shape[1])


def wkv6_chunked(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor, chunk_size: int = CHUNK_SIZE
) -> tuple[Tensor, Tensor]:
    """All pairs inside a chunk, the state between chunks."""
    out_dtype, (r, k, v, log_decay, bonus) = v.dtype, _widened(state, r, k, v, log_decay, bonus)
    log_decay = log_decay.expand(k.shape[0], k.shape[1], -1, -1)
    outputs = []
    for chunk in zip(*(x.split(chunk_size, 1) for x in (r, k, v, log_decay)), strict=True):
        output, state = _one_chunk(*chunk, bonus, state)
        outputs.append(output)
    return torch.cat(outputs, 1).to(out_dtype), state


def _one_chunk(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    # Time goes third, so that heads batch.
    r, k, v, log_decay = (x.transpose(1, 2) for x in (r, k, v, log_decay))
    length = k.shape[2]
    after = log_decay.cumsum(2)  # decay from before the chunk to after token t
    # ... to before token t, where it reads; shifted, not subtracted: a difference would lose digits of a long sum.
    before = torch.nn.functional.pad(after[:, :, :-1], (0, 0, 1, 0))
    pair = before.unsqueeze(3) - after.unsqueeze(2)  # from after token i to before token t
    earlier = torch.ones(length, length, dtype=torch.bool, device=k.device).tril(-1)
    pair = pair.masked_fill(~earlier.unsqueeze(-1), float("-inf")).exp()
    scores = torch.einsum("bhtk,bhik,bhtik->bhti", r, k, pair)
    scores = scores + torch.diag_embed((r * bonus.unsqueeze(1) * k).sum(-1))
    output = scores @ v + (r * before.exp()) @ state
    left = after[:, :, -1:]  # decay of the whole chunk
    state = left.exp().transpose(2, 3) * state + (k * (left - after).exp()).transpose(2, 3) @ v
    return output.transpose(1, 2), state


def _widened(state: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.to(state.dtype) for x in tensors)


def _shapes(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return torch.empty_like(v, memory_format=torch.contiguous_format), torch.empty_like(
        state, memory_format=torch.contiguous_format
    )


FORMS = {"recurrent": wkv6_recurrent, "parallel": wkv6_parallel, "chunked": wkv6_chunked}
BACKENDS = {
    "naive": wkv6_recurrent,
    "numba": kernel_op("wkv6_numba", INPUTS, _shapes),
    "triton": kernel_op("wkv6_triton", INPUTS, _shapes),
}
