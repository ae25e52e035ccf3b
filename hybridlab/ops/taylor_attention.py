"""Based's linear attention: the exponential of softmax attention cut off after its third term.

A score s = q.k / sqrt(K) weighs 1 + s + s^2/2 instead of e^s. That is ((s + 1)^2 + 1) / 2, at least 1/2 whatever s is, so
weights never turn negative and their sum never vanishes. And it is a dot product of features, so a state of fixed size
replaces the cache of keys and values:

    phi(x) = [1 | x / K^(1/4) | x x^T row by row / (sqrt(2) sqrt(K))]          F = 1 + K + K^2 numbers
    KV_t = KV_{t-1} + phi(k_t) v_t^T;  K_t = K_{t-1} + phi(k_t)
    o_t = phi(q_t) KV_t / (phi(q_t) . K_t + eps)

The hazards: F grows with K^2, so the features of all tokens at once are far larger than the keys; and the sum below the
fraction runs over the whole past, so whoever goes on from a state needs K as well as KV.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hybridlab.ops.checks import check_chunk_size, check_state, check_tensors
from hybridlab.ops.dispatch import choose
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.precision import state_dtype, widened
from hybridlab.shapes import FeatureMatrix, FeatureSum, Keys, Queries, Values

LAYOUT = {"q": "BTHK", "k": "BTHK", "v": "BTHV"}
INPUTS = (*LAYOUT, "eps", "kv_state", "k_state")
CHUNK_SIZE = 64


class TaylorState(NamedTuple):
    """What was written: features times values, and the features alone, which normalise.

    Bytes: B * H * F * (V + 1) * bytes of the dtype, float32 at least, with F = 1 + K + K^2.
    """

    kv: FeatureMatrix
    k: FeatureSum


def taylor_attention(
    q: Queries,
    k: Keys,
    v: Values,
    state: TaylorState | None = None,
    eps: float = 1e-12,
    *,
    backend: str = "auto",
    form: str | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Values, TaylorState]:
    """Causal attention with the second-order Taylor polynomial of the exponential as its weights.

    o_t = sum_{i<=t} w(s_ti) v_i / (sum_{i<=t} w(s_ti) + eps);  w(s) = 1 + s + s^2/2;  s_ti = q_t . k_i / sqrt(K)

    Args:
        q: queries, (B, T, H, K).
        k: keys, (B, T, H, K).
        v: values, (B, T, H, V).
        state: sums over the tokens before, KV (B, H, F, V) and K (B, H, F) with F = 1 + K + K^2, float32 at least; None is
            the empty state (zeros).
        eps: what is added to the sum of weights, finite and at least 0. That sum is at least half the number of tokens, so
            1e-12 changes nothing; some codes take 1e-6.
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent", "parallel" (masked attention) or "chunked": one of the plain PyTorch forms.
        chunk_size: tokens a chunk in the chunked form.

    Returns:
        output (B, T, H, V) in v's dtype, and the state after the last token.

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0; a negative, infinite or NaN eps.

    Source: Based, arXiv 2402.18668, section 4.1, with the features in the order of its code. Chapter 07.
    """
    sizes = check_tensors("taylor_attention", LAYOUT, (q, k, v))
    shape = (sizes["B"], sizes["H"], feature_count(sizes["K"]), sizes["V"])
    if state is None:
        empty = q.new_zeros(shape, dtype=state_dtype(q.dtype))
        state = TaylorState(empty, empty.new_zeros(shape[:3]))
    _check_state(state, shape, q)
    _check_eps(eps)
    check_chunk_size("taylor_attention", chunk_size)
    run = choose("taylor_attention", FORMS, BACKENDS, backend, form, q)
    inputs = (q, k, v, state[0].new_full((), eps), *state)
    output, kv, total = run(*inputs, chunk_size) if run is taylor_attention_chunked else run(*inputs)
    return output, TaylorState(kv, total)


def feature_count(width: int) -> int:
    """F = 1 + K + K^2 for keys of K numbers."""
    return 1 + width + width**2


def taylor_features(x: Tensor) -> Tensor:
    """phi(x) = [1 | x / K^(1/4) | x x^T row by row / (sqrt(2) sqrt(K))], so that phi(q) . phi(k) = 1 + s + s^2/2.

    Args:
        x: queries or keys, (..., K).

    Returns:
        (..., 1 + K + K^2), in x's dtype.

    Source: Based, arXiv 2402.18668, section 4.1. Chapter 07.
    """
    x = x * x.shape[-1] ** -0.25
    pairs = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2) * 0.5**0.5
    return torch.cat((torch.ones_like(x[..., :1]), x, pairs), -1)


def taylor_attention_recurrent(
    q: Tensor, k: Tensor, v: Tensor, eps: Tensor, kv_state: Tensor, k_state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The literal equation, token by token."""
    out_dtype, (q, k, v) = v.dtype, widened(kv_state, q, k, v)
    outputs = []
    for q_t, k_t, v_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
        read, written = taylor_features(q_t), taylor_features(k_t)
        kv_state = kv_state + written.unsqueeze(-1) * v_t.unsqueeze(-2)
        k_state = k_state + written
        weights = (read * k_state).sum(-1, keepdim=True)
        outputs.append((read.unsqueeze(-1) * kv_state).sum(-2) / (weights + eps))
    return torch.stack(outputs, 1).to(out_dtype), kv_state, k_state


def taylor_attention_parallel(
    q: Tensor, k: Tensor, v: Tensor, eps: Tensor, kv_state: Tensor, k_state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Masked attention: one (T, T) matrix of weights a head."""
    return taylor_attention_chunked(q, k, v, eps, kv_state, k_state, q.shape[1])


def taylor_attention_chunked(
    q: Tensor, k: Tensor, v: Tensor, eps: Tensor, kv_state: Tensor, k_state: Tensor, chunk_size: int = CHUNK_SIZE
) -> tuple[Tensor, Tensor, Tensor]:
    """Masked attention inside a chunk, the state between chunks; features of one chunk at a time.

    Every value gets a 1 at its end, and every row of the state its K: the sum of weights is one more value.
    """
    out_dtype, (q, k, v) = v.dtype, widened(kv_state, q, k, v)
    v, state = torch.cat((v, torch.ones_like(v[..., :1])), -1), torch.cat((kv_state, k_state.unsqueeze(-1)), -1)
    outputs = []
    for q_n, k_n, v_n in zip(*(x.transpose(1, 2).split(chunk_size, 2) for x in (q, k, v)), strict=True):
        scores = q_n @ k_n.mT * q.shape[-1] ** -0.5
        weights = (1 + scores * (1 + scores / 2)).tril()
        sums = weights @ v_n + taylor_features(q_n) @ state
        outputs.append(sums[..., :-1] / (sums[..., -1:] + eps))
        state = state + taylor_features(k_n).mT @ v_n
    return torch.cat(outputs, 2).transpose(1, 2).to(out_dtype), state[..., :-1].contiguous(), state[..., -1].contiguous()


def _check_state(state: TaylorState, shape: tuple[int, ...], like: Tensor) -> None:
    if not isinstance(state, tuple) or len(state) != len(TaylorState._fields):
        raise ValueError(f"taylor_attention: state must be a pair (KV, K) or None, got {type(state).__name__}")
    check_state("taylor_attention", state[0], shape, like, name="state's KV")
    check_state("taylor_attention", state[1], shape[:3], like, name="state's K")


def _check_eps(eps: float) -> None:
    if not isinstance(eps, int | float) or isinstance(eps, bool) or not 0 <= eps < math.inf:
        raise ValueError(f"taylor_attention: eps must be a finite number and at least 0, got {eps!r}")


def _shapes(q: Tensor, k: Tensor, v: Tensor, eps: Tensor, kv_state: Tensor, k_state: Tensor) -> tuple[Tensor, ...]:
    return blank(v), blank(kv_state), blank(k_state), kv_state.new_empty(v.shape[:3])


FORMS = {"recurrent": taylor_attention_recurrent, "parallel": taylor_attention_parallel, "chunked": taylor_attention_chunked}
BACKENDS = {
    "naive": taylor_attention_recurrent,
    # The kernels save the sum of weights of every token, (B, T, H), for their backward.
    "numba": kernel_op("taylor_attention_numba", INPUTS, _shapes, saved=1, constant=("eps",), results=3),
    "triton": kernel_op("taylor_attention_triton", INPUTS, _shapes, saved=1, constant=("eps",), results=3),
}
