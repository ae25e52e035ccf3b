"""RWKV-4: a weighted average of the values, in which old tokens fade and the present one gets a bonus.

Every channel is a mixer of its own. Token i weighs e^{k_i}, faded by one decay for each step after the next; the present
token weighs e^{u + k_t}:

    out_t = (A_{t-1} + e^{u + k_t} v_t) / (D_{t-1} + e^{u + k_t})
    A_t   = e^{log_decay} A_{t-1} + e^{k_t} v_t             D_t = e^{log_decay} D_{t-1} + e^{k_t}

The hazard: e^{k} overflows float32 at k = 89. The state therefore holds three numbers a channel, (num, den, max), that
stand for A = num e^{max} and D = den e^{max}; no form takes the exponential of a positive number. The empty state is
num = den = 0 and max = -1e38: a zero would drown every key below -104, and -inf would give inf - inf. Two states are the
same when num / den and max + log(den) are; the split between den and max means nothing.

Gradients: max is only a shift, so `maximum` is a constant to autograd, and no gradient leaves through the max of the *final*
state. That loses nothing: whatever depends on A and D alone has its whole gradient in num and den. The max of the *given*
state receives its true partial derivative, num * d/dnum + den * d/dden.
"""

import torch
from torch import Tensor

from hybridlab.ops.checks import check_chunk_size, check_finite, check_log_decay, check_state, check_tensors
from hybridlab.ops.dispatch import choose
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.precision import state_dtype, widened
from hybridlab.shapes import Channels, PerChannel, Wkv4State

LAYOUT = {"k": "BTC", "v": "BTC", "log_decay": "C", "bonus": "C"}
INPUTS = (*LAYOUT, "state")
CHUNK_SIZE = 16
EMPTY_MAX = -1e38


def wkv4(
    k: Channels,
    v: Channels,
    log_decay: PerChannel,
    bonus: PerChannel,
    state: Wkv4State | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Channels, Wkv4State]:
    """The WKV operator of RWKV-4.

    out_t = (A_{t-1} + e^{u + k_t} v_t) / (D_{t-1} + e^{u + k_t});  A_t = e^{log_decay} A_{t-1} + e^{k_t} v_t, D_t the same
    with v = 1.

    Args:
        k: keys, natural logarithms of the weights, (B, T, C).
        v: values, (B, T, C).
        log_decay: natural logarithm of the decay a step, finite and at most 0, (C,). RWKV-4 stores time_decay and means
            log_decay = -exp(time_decay).
        bonus: u, what the present token's key gains, (C,).
        state: (num, den, max) before the first token, (B, C, 3), float32 at least; None is `empty_state`.
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent", "parallel" or "chunked": one of the plain PyTorch forms.
        chunk_size: tokens a chunk in the chunked form.

    Returns:
        output (B, T, C) in v's dtype, and the state after the last token (B, C, 3).

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0; a positive, infinite or NaN log decay.

    Source: RWKV, arXiv 2305.13048, the WKV operator of the time mixing and its stable form in the appendix. Chapter 03.
    """
    sizes = check_tensors("wkv4", LAYOUT, (k, v, log_decay, bonus))
    check_log_decay("wkv4", log_decay)
    # An age of 0 times -inf would be NaN.
    check_finite("wkv4", "log_decay", log_decay)
    if state is None:
        state = empty_state(sizes["B"], sizes["C"], dtype=state_dtype(k.dtype), device=k.device)
    check_state("wkv4", state, (sizes["B"], sizes["C"], 3), k)
    run = choose("wkv4", FORMS, BACKENDS, backend, form, k)
    if run is wkv4_chunked:
        check_chunk_size("wkv4", chunk_size)
        return wkv4_chunked(k, v, log_decay, bonus, state, chunk_size)
    return run(k, v, log_decay, bonus, state)


def empty_state(
    batch: int, channels: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Wkv4State:
    """The state before any token: num = den = 0, max = -1e38."""
    state = torch.zeros(batch, channels, 3, dtype=dtype, device=device)
    state[..., 2] = EMPTY_MAX
    return state


def wkv4_recurrent(k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The literal equation, token by token, each sum shifted by the larger of its two exponents."""
    out_dtype, (k, v, log_decay, bonus) = v.dtype, widened(state, k, v, log_decay, bonus)
    num, den, top = state.unbind(-1)
    outputs = []
    for k_t, v_t in zip(k.unbind(1), v.unbind(1), strict=True):
        old, new, _ = _shifted(top, bonus + k_t)
        outputs.append((old * num + new * v_t) / (old * den + new))
        old, new, top = _shifted(top + log_decay, k_t)
        num, den = old * num + new * v_t, old * den + new
    return torch.stack(outputs, 1).to(out_dtype), torch.stack((num, den, top.detach()), -1)


def _shifted(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two exponentials, shifted so that the larger is 1, and the shift."""
    top = torch.maximum(old, new).detach()
    return (old - top).exp(), (new - top).exp(), top


def wkv4_parallel(k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of tokens at once: for every channel a softmax over the log weights of the past, a (T, T) matrix."""
    return wkv4_chunked(k, v, log_decay, bonus, state, chunk_size=k.shape[1])


def wkv4_chunked(
    k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor, chunk_size: int = CHUNK_SIZE
) -> tuple[Tensor, Tensor]:
    """All pairs inside a chunk, the state between chunks."""
    out_dtype, (k, v, log_decay, bonus) = v.dtype, widened(state, k, v, log_decay, bonus)
    outputs = []
    for k_chunk, v_chunk in zip(k.split(chunk_size, 1), v.split(chunk_size, 1), strict=True):
        output, state = _one_chunk(k_chunk, v_chunk, log_decay, bonus, state)
        outputs.append(output)
    return torch.cat(outputs, 1).to(out_dtype), state


def _one_chunk(k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    num, den, top = (x.unsqueeze(1) for x in state.unbind(-1))
    time = torch.arange(k.shape[1], device=k.device)
    # Log weights: of token i in output t (..., t, i, C), and of the state in output t (..., t, C).
    ages = (time.unsqueeze(1) - time - 1).unsqueeze(-1)
    earlier = k.unsqueeze(1) + log_decay * ages
    earlier = earlier.masked_fill(ages < 0, float("-inf"))
    pairs = torch.where(ages == -1, (bonus + k).unsqueeze(1), earlier)
    output, _, _ = _averaged(pairs, v, top + log_decay * time.unsqueeze(-1), num, den)
    last = k.shape[1] - 1
    final = (k + log_decay * (last - time).unsqueeze(-1)).unsqueeze(1)
    _, sums, shift = _averaged(final, v, top + log_decay * (last + 1), num, den)
    return output, torch.stack((*(x.squeeze(1) for x in sums), shift.squeeze(1)), -1)


def _averaged(
    pairs: Tensor, v: Tensor, carried: Tensor, num: Tensor, den: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """Averages v (and the state) by log weights: logsumexp a row, the shift a constant to autograd."""
    shift = torch.maximum(pairs.amax(2), carried).detach()
    weights, old = (pairs - shift.unsqueeze(2)).exp(), (carried - shift).exp()
    num = old * num + (weights * v.unsqueeze(1)).sum(2)
    den = old * den + weights.sum(2)
    return num / den, (num, den), shift


def _shapes(k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return blank(v), blank(state)


FORMS = {"recurrent": wkv4_recurrent, "parallel": wkv4_parallel, "chunked": wkv4_chunked}
BACKENDS = {
    "naive": wkv4_recurrent,
    "numba": kernel_op("wkv4_numba", INPUTS, _shapes),
    "triton": kernel_op("wkv4_triton", INPUTS, _shapes),
}
