"""Softmax attention: every query looks back at every key it may see, so the state is the keys and values themselves.

    out_t = sum_i p_ti v_i,   p_t = softmax over the visible i of (scale * q_t . k_i)

Query t sees key i when i <= t and, under a window W, when i > t - W (W counts t itself) or i < sinks. Heads share keys in
groups of neighbours: head h reads key head h // (H / G).

`auto` on a CPU is the Numba kernel from 64 queries on; fewer do not fill its tiles and go to PyTorch's fused
`scaled_dot_product_attention`, and so does bfloat16, in blocks. On a GPU it is PyTorch's function where queries see all that
came before them (one token, or a text without a past). Windows, sinks, soft caps and a text after a past are the Triton
kernel's: there PyTorch's needs a mask or does not exist.

The state needs no positions. It holds what later steps can still see, oldest first: under a window the first `sinks` rows of
the whole sequence, then the last W - 1. A row's distance to a query is counted in rows, which is right for every row behind
the sinks, and for the sinks it does not matter; until something has been dropped, rows and positions are the same.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from hybridlab.ops.checks import check_tensors
from hybridlab.ops.dispatch import automatic, choose
from hybridlab.ops.kernel_op import kernel_op
from hybridlab.ops.precision import state_dtype
from hybridlab.shapes import GroupedKeys, GroupedValues, Queries, Values

LAYOUT = {"q": "BTHK", "k": "BTGK", "v": "BTGV"}
# Queries a block of the chunked form: fewer see fewer keys in vain, more make fewer calls.
BLOCK = 64
# Queries from which `auto` is the Numba kernel.
KERNEL_QUERIES = 64
# Stands for no window in what kernels are given: longer than any text.
ENDLESS = 1 << 30


class AttentionState(NamedTuple):
    """The keys and values that later queries can still see, oldest first.

    Bytes: B * S * G * (K + V) * bytes of the dtype, with S = `cache_rows(tokens, window, sinks)`: every token, or under a
    window W at most sinks + W - 1 of them.
    """

    k_past: GroupedKeys
    v_past: GroupedValues


class Sight(NamedTuple):
    """How a query looks: which keys it may see, and what happens to a score before the softmax."""

    window: int | None
    sinks: int
    scale: float
    softcap: float | None


def attention(
    q: Queries,
    k: GroupedKeys,
    v: GroupedValues,
    *,
    window: int | None = None,
    state: AttentionState | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: int = 0,
    backend: str = "auto",
    form: str | None = None,
) -> tuple[Values, AttentionState]:
    """Causal softmax attention, grouped-query, over everything or over a sliding window with sinks.

    out_t = sum_i softmax_i(scale * q_t . k_i) v_i over i <= t with, under a window W, i > t - W or i < sinks.

    Args:
        q: queries, (B, T, H, K).
        k: keys, (B, T, G, K); G divides H, and head h reads key head h // (H / G).
        v: values, (B, T, G, V).
        window: keys a query sees, itself included; None is all.
        state: the cache; its S rows come before the T new ones. None is the empty cache.
        scale: what multiplies the scores; None is 1 / sqrt(K).
        softcap: c, which turns a score s into c * tanh(s / c); None leaves it.
        sinks: the first so many keys of the whole sequence stay visible whatever the window. Keep it the same in all calls.
        backend: "auto", "naive", "numba" or "triton".
        form: "parallel" (the literal matrix), "recurrent" (one query at a time), "sdpa" (PyTorch's fused function) or
            "chunked" (that function on blocks of queries, each with the keys it sees; linear in T under a window).

    Returns:
        output (B, T, H, V) in v's dtype, and the cache after the last token.

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0; G that does not divide H; a window below 1.

    Source: arXiv 1706.03762, equation 1; groups 2305.13245, window 2310.06825, sinks 2309.17453, soft cap 2408.00118.
    Chapter 01.
    """
    sizes = check_tensors("attention", LAYOUT, (q, k, v))
    _check_heads(q, k, v)
    _check_numbers(window, sinks, softcap)
    past = AttentionState(k[:, :0], v[:, :0]) if state is None else state
    _check_cache(past, k, v)
    sight = Sight(window, sinks, sizes["K"] ** -0.5 if scale is None else scale, softcap)
    run = _chosen(backend, form, q, past[0].shape[1], sight)
    # Copies even an empty past, so that the cache never shares storage with the arguments.
    k, v = (torch.cat((old.to(new.dtype), new), 1) for old, new in zip(past, (k, v), strict=True))
    return run(q, k, v, sight).to(v.dtype), AttentionState(_kept(k, sight), _kept(v, sight))


def cache_rows(tokens: int, window: int | None = None, sinks: int = 0) -> int:
    """Rows S of the cache after so many tokens: all of them, or under a window at most sinks + window - 1."""
    return tokens if window is None else min(tokens, sinks + window - 1)


def attention_parallel(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
    """The literal equation: one (T, S + T) matrix of weights a head."""
    q, k, v = (x.transpose(1, 2) for x in _per_head(q, k, v))
    scores = _capped(q @ k.transpose(2, 3) * sight.scale, sight.softcap)
    scores = scores.masked_fill(~_visible(q.shape[2], k.shape[2], sight, q.device), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


def attention_recurrent(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
    """One query at a time, over the rows that it sees; no mask at all."""
    q, k, v = _per_head(q, k, v)
    past = k.shape[1] - q.shape[1]
    outputs = []
    for t, q_t in enumerate(q.unbind(1)):
        seen_k, seen_v = (_seen(x[:, : past + t + 1], sight, 1) for x in (k, v))
        scores = _capped((q_t.unsqueeze(1) * seen_k).sum(-1) * sight.scale, sight.softcap)
        outputs.append((scores.softmax(1).unsqueeze(-1) * seen_v).sum(1))
    return torch.stack(outputs, 1)


def attention_sdpa(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
    """PyTorch's fused function, which never stores the matrix where it has a kernel for the case. It has no soft cap."""
    if sight.softcap is not None:
        raise ValueError(f"attention: form='sdpa' has no softcap, got {sight.softcap}; use form='parallel'")
    length, total = q.shape[1], k.shape[1]
    mask, causal = None, False
    if not _sees_all(length, total - length, sight):
        mask = _visible(length, total, sight, q.device)
    elif length > 1:
        # Aligns the first query with the first key, so it is right only where there is no past.
        causal = True
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    # A dict, because a comparison of sizes is no plain bool while torch.compile traces symbolic sizes.
    grouped = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    output = scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=sight.scale, **grouped)
    return output.transpose(1, 2)


def attention_chunked(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
    """Block by block of queries, each over the keys that it sees: no (T, S) matrix, and T * W work under a window."""
    length, past = q.shape[1], k.shape[1] - q.shape[1]
    run: Callable[..., Tensor] = attention_sdpa if sight.softcap is None else attention_parallel
    if run is attention_sdpa and _sees_all(length, past, sight):
        return attention_sdpa(q, k, v, sight)
    outputs = []
    for start in range(0, length, BLOCK):
        block = q[:, start : start + BLOCK]
        seen = (_seen(x[:, : past + start + block.shape[1]], sight, block.shape[1]) for x in (k, v))
        outputs.append(run(block, *seen, sight))
    return torch.cat(outputs, 1)


def _sees_all(length: int, past: int, sight: Sight) -> bool:
    """Whether each query sees all that came before it, and PyTorch's fused function needs no mask for that."""
    everything = sight.window is None or length + past <= sight.window
    return everything and (length == 1 or past == 0)


def _per_head(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Keys and values repeated for every head that shares them; all float32 at least, for the sake of the softmax."""
    shared = q.shape[2] // k.shape[2]
    return tuple(x.to(state_dtype(x.dtype)) for x in (q, k.repeat_interleave(shared, 2), v.repeat_interleave(shared, 2)))


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _visible(length: int, total: int, sight: Sight, device: torch.device) -> Tensor:
    """(T, S + T) bool: the last query stands at the last key."""
    row = torch.arange(total, device=device)
    distance = row[total - length :].unsqueeze(1) - row
    causal = distance >= 0
    if sight.window is None:
        return causal
    return causal & ((distance < sight.window) | (row < sight.sinks))


def _seen(rows: Tensor, sight: Sight, queries: int) -> Tensor:
    """What the queries at the last so many rows see; the sinks, where anything lies between, beside the rest."""
    return rows if sight.window is None else _ends(rows, sight.sinks, sight.window - 1 + queries)


def _kept(rows: Tensor, sight: Sight) -> Tensor:
    """What later queries can still see: the next one sees itself and one row less of the past.

    A copy where anything is dropped, so that it is freed.
    """
    if sight.window is None:
        return rows
    kept = _ends(rows, sight.sinks, sight.window - 1)
    return kept if kept is rows else kept.clone()


def _ends(rows: Tensor, first: int, last: int) -> Tensor:
    """The first so many rows and the last so many, none twice."""
    total = rows.shape[1]
    if total <= first + last:
        return rows
    return torch.cat((rows[:, :first], rows[:, total - last :]), 1) if first else rows[:, total - last :]


def _check_heads(q: Tensor, k: Tensor, v: Tensor) -> None:
    heads, groups = q.shape[2], k.shape[2]
    if heads % groups:
        raise ValueError(f"attention: k has {groups} heads, which must divide the {heads} heads of q")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"attention: q, k and v must have one dtype, got {q.dtype}, {k.dtype} and {v.dtype}")


def _check_numbers(window: int | None, sinks: int, softcap: float | None) -> None:
    if window is not None and not _is_count(window, 1):
        raise ValueError(f"attention: window must be None or an int of at least 1 (it counts the query), got {window!r}")
    if not _is_count(sinks, 0):
        raise ValueError(f"attention: sinks must be an int of at least 0, got {sinks!r}")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"attention: softcap must be None or positive, got {softcap!r}")


def _is_count(number: int, least: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least


def _check_cache(state: AttentionState, k: Tensor, v: Tensor) -> None:
    if not isinstance(state, tuple) or len(state) != len(AttentionState._fields):
        raise ValueError(f"attention: state must be a pair (k_past, v_past) or None, got {type(state).__name__}")
    for name, past, new in zip(AttentionState._fields, state, (k, v), strict=True):
        if not isinstance(past, Tensor):
            raise ValueError(f"attention: {name} must be a tensor, got {type(past).__name__}")
        batch, _, heads, width = new.shape
        if past.ndim != new.ndim or past.shape[0] != batch or past.shape[2:] != new.shape[2:]:
            raise ValueError(f"attention: {name} must be ({batch}, S, {heads}, {width}), got {tuple(past.shape)}")
        # An empty cache has nothing to be cast: autocast makes bfloat16 keys beside a float32 model's empty one.
        if (past.dtype != new.dtype and past.shape[1]) or past.device != new.device:
            found, expected = f"{past.dtype} on {past.device}", f"{new.dtype} on {new.device}"
            raise ValueError(f"attention: {name} is {found}, but the new rows are {expected}")
    if state[0].shape[1] != state[1].shape[1]:
        raise ValueError(
            f"attention: k_past has {state[0].shape[1]} rows and v_past {state[1].shape[1]}; give both the same"
        )


def _chosen(backend: str, form: str | None, q: Tensor, past: int, sight: Sight) -> Callable[..., Any]:
    if backend != "auto" or form is not None:
        return choose("attention", FORMS, BACKENDS, backend, form, q)
    length, chosen = q.shape[1], automatic(q.device.type, q.dtype)
    if chosen == "numba":
        return BACKENDS["numba"] if length >= KERNEL_QUERIES else attention_chunked
    if chosen == "triton" and (sight.softcap is not None or not _sees_all(length, past, sight)):
        return BACKENDS["triton"]
    return attention_chunked


def _kernel(module: str) -> Callable[..., Tensor]:
    """A kernel file's operator; what a query sees goes as four numbers on the CPU, whatever the device."""
    operator = kernel_op(module, (*LAYOUT, "sight"), _shapes, saved=1, constant=("sight",), results=1)

    def run(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
        window, sinks = (min(number, ENDLESS) for number in (sight.window or ENDLESS, sight.sinks))
        numbers = (window, sinks, sight.scale, sight.softcap or 0.0)
        return operator(q, k, v, torch.tensor(numbers, dtype=torch.float64))[0]

    return run


def _shapes(q: Tensor, k: Tensor, v: Tensor, sight: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the log of the sum of a query's weights."""
    batch, length, heads, _ = q.shape
    output = v.new_empty(batch, length, heads, v.shape[3])
    return output, q.new_empty((batch, heads, length), dtype=state_dtype(q.dtype))


FORMS: dict[str, Callable[..., Any]] = {
    "parallel": attention_parallel,
    "recurrent": attention_recurrent,
    "sdpa": attention_sdpa,
    "chunked": attention_chunked,
}
BACKENDS: dict[str, Callable[..., Any]] = {
    "naive": attention_parallel,
    "numba": _kernel("attention_numba"),
    "triton": _kernel("attention_triton"),
}
