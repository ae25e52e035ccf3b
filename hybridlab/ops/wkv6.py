"""RWKV-5 and RWKV-6: a matrix of fading memories, each key channel with its own clock.

One state matrix S (K x V) a head. A token reads the state as earlier tokens left it, plus itself through the bonus; then
every row of S fades by its own decay and the token is written:

    o_t = r_t (S_{t-1} + (u * k_t) v_t^T)
    S_t = diag(e^{log_decay_t}) S_{t-1} + k_t v_t^T

The hazard: e^{-cumulative decay} overflows. No form here ever takes the exponential of a positive number: the decay between
two tokens is the exponential of the sum of the steps between them, or the product of their decays, and what lies in the
future is set to -inf *before* the exponential, or the gradient would be inf * 0.
"""

import torch
from torch import Tensor

from hybridlab.ops.checks import check_chunk_size, check_log_decay, check_state, check_tensors
from hybridlab.ops.chunks import in_chunks
from hybridlab.ops.dispatch import choose
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.precision import state_dtype, widened
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

    Source: Eagle and Finch, arXiv 2404.05892, the WKV recurrence of the time mixing. Chapter 03.
    """
    sizes = check_tensors("wkv6", LAYOUT, (r, k, v, log_decay, bonus))
    check_log_decay("wkv6", log_decay)
    shape = (sizes["B"], sizes["H"], sizes["K"], sizes["V"])
    if state is None:
        state = r.new_zeros(shape, dtype=state_dtype(r.dtype))
    check_state("wkv6", state, shape, r)
    check_chunk_size("wkv6", chunk_size)
    run = choose("wkv6", FORMS, BACKENDS, backend, form, r)
    if run is wkv6_chunked:
        return wkv6_chunked(r, k, v, log_decay, bonus, state, chunk_size)
    return run(r, k, v, log_decay, bonus, state)


def wkv6_recurrent(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The literal equation, token by token."""
    out_dtype, (r, k, v, log_decay, bonus) = v.dtype, widened(state, r, k, v, log_decay, bonus)
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
    out_dtype, (r, k, v, log_decay, bonus) = v.dtype, widened(state, r, k, v, log_decay, bonus)
    r, k, v, log_decay = (x.transpose(1, 2) for x in (r, k, v, log_decay.expand(k.shape)))
    scores = torch.einsum("bhtk,bhik,bhtik->bhti", r, k, _between(log_decay).exp())
    scores = scores + torch.diag_embed((r * bonus.unsqueeze(1) * k).sum(-1))
    before, after, whole = _outside(log_decay)
    output = scores @ v + (r * before) @ state
    state = whole.unsqueeze(-1) * state + (k * after).transpose(-1, -2) @ v
    return output.transpose(1, 2).to(out_dtype), state


def wkv6_chunked(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor, chunk_size: int = CHUNK_SIZE
) -> tuple[Tensor, Tensor]:
    """Pairs inside a chunk, the state between chunks; all chunks at once but for the state's own recurrence."""
    out_dtype, (r, k, v, log_decay, bonus) = v.dtype, widened(state, r, k, v, log_decay, bonus)
    length, chunk_size = k.shape[1], min(chunk_size, k.shape[1])
    r, k, v, log_decay = (_chunks(x, chunk_size) for x in (r, k, v, log_decay.expand(k.shape)))
    before, after, whole = _outside(log_decay)
    written = (k * after).transpose(-1, -2) @ v
    starts = []
    for whole_n, written_n in zip(whole.unsqueeze(-1).unbind(2), written.unbind(2), strict=True):
        starts.append(state)
        state = whole_n * state + written_n
    output = _scores(r, k, log_decay.exp(), bonus) @ v + (r * before) @ torch.stack(starts, 2)
    return output.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :length].to(out_dtype), state


def _chunks(x: Tensor, chunk_size: int) -> Tensor:
    """(B, T, H, K) to (B, H, chunks, chunk_size, K); the end is filled with zeros: tokens that do nothing."""
    return in_chunks(x, chunk_size).permute(0, 3, 1, 2, 4).contiguous()


def _scores(r: Tensor, k: Tensor, decay: Tensor, bonus: Tensor) -> Tensor:
    """What token t of a chunk takes from token i, (..., t, i): one diagonal after another, each one step further back."""
    scores = torch.diag_embed((r * bonus[:, None, None] * k).sum(-1))
    faded = k[..., :-1, :]
    for distance in range(1, k.shape[-2]):
        scores = scores + torch.diag_embed((r[..., distance:, :] * faded).sum(-1), offset=-distance)
        faded = faded[..., :-1, :] * decay[..., distance:-1, :]
    return scores


def _outside(log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decays from the start to before each token, from after each token to the end, and of the whole stretch.

    Exclusive sums, shifted rather than subtracted: a difference of long sums has lost its small digits.
    """
    sums = log_decay.cumsum(-2)
    before = torch.nn.functional.pad(sums[..., :-1, :], (0, 0, 1, 0))
    after = torch.nn.functional.pad(log_decay[..., 1:, :].flip(-2).cumsum(-2).flip(-2), (0, 0, 0, 1))
    return before.exp(), after.exp(), sums[..., -1, :].exp()


def _between(log_decay: Tensor) -> Tensor:
    """Log decay from after token i to before token t, (..., t, i, K); -inf where i is not earlier than t."""
    length = log_decay.shape[-2]
    earlier = torch.ones(length, length, dtype=torch.bool, device=log_decay.device).tril(-1).unsqueeze(-1)
    steps = log_decay.unsqueeze(-2).expand(*log_decay.shape[:-1], length, -1).masked_fill(~earlier, 0)
    sums = torch.nn.functional.pad(steps.cumsum(-3)[..., :-1, :, :], (0, 0, 0, 0, 1, 0))
    return sums.masked_fill(~earlier, float("-inf"))


def _shapes(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return blank(v), blank(state)


FORMS = {"recurrent": wkv6_recurrent, "parallel": wkv6_parallel, "chunked": wkv6_chunked}
BACKENDS = {
    "naive": wkv6_recurrent,
    "numba": kernel_op("wkv6_numba", INPUTS, _shapes),
    "triton": kernel_op("wkv6_triton", INPUTS, _shapes),
}
