"""Settings of what looks back, or corrects what it holds: attention, long filters, Taylor attention, delta rules."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hybridlab.measure.setting import Draw, Setting, Tensors, each
from hybridlab.ops.attention import AttentionState
from hybridlab.ops.taylor_attention import TaylorState

# Heads and head width of models of 130M to 170M, key heads in groups of three, a window; the width of a small Hyena.
HEADS, HEAD_WIDTH, GROUPS, WINDOW, CHANNELS = 12, 64, 4, 256, 864
# Heads and keys of Based 360M; heads of DeltaNet 340M and their width; modes a channel of StripedHyena.
TAYLOR_HEADS, TAYLOR_KEYS, DELTA_HEADS, DELTA_WIDTH, MODES = 16, 16, 8, 128, 2
# What a decoding step looks back on where the past is kept whole.
PAST = 1024


def _attention(draw: Draw, tokens: int) -> tuple[Tensors, AttentionState]:
    return _attended(draw, tokens, PAST if tokens == 1 else tokens)


def _attention_window(draw: Draw, tokens: int) -> tuple[Tensors, AttentionState]:
    return _attended(draw, tokens, WINDOW - 1 if tokens == 1 else min(tokens, WINDOW - 1))


def _attended(draw: Draw, tokens: int, rows: int) -> tuple[Tensors, AttentionState]:
    q, (k, v) = draw.normal(1, tokens, HEADS, HEAD_WIDTH), draw.normal(2, 1, tokens, GROUPS, HEAD_WIDTH)
    return {"q": q, "k": k, "v": v}, AttentionState(*draw.normal(2, 1, rows, GROUPS, HEAD_WIDTH))


def _attention_operations(tokens: int, window: int) -> int:
    """For a pair that is seen and a number of its head: a multiply-add for the score, one for the value."""
    seen = PAST + 1 if tokens == 1 else tokens
    pairs = sum(min(t, window) for t in range(1, tokens + 1)) if tokens > 1 else min(seen, window)
    return 4 * HEADS * HEAD_WIDTH * pairs


def _long_conv(draw: Draw, tokens: int) -> tuple[Tensors, Tensor]:
    """A filter as long as the text, as an implicit one is cut; a step reads all of a long past."""
    past = PAST if tokens == 1 else tokens
    decay = torch.exp(-torch.linspace(0, 5, past, device=draw.generator.device))
    inputs = {"x": draw.normal(1, tokens, CHANNELS), "filter": draw.normal(CHANNELS, past) * decay}
    return inputs | {"skip": draw.normal(CHANNELS)}, draw.normal(1, past - 1, CHANNELS)


def _long_conv_operations(tokens: int) -> int:
    """Directly, or by three transforms of twice the length, 2.5 n log2 n for n real numbers each: whichever is less."""
    if tokens == 1:
        return 2 * CHANNELS * PAST
    direct, size = tokens * (tokens + 1), 2 * tokens
    return CHANNELS * min(direct, int(3 * 2.5 * size * math.log2(size)))


def _taylor_attention(draw: Draw, tokens: int) -> tuple[Tensors, TaylorState]:
    q, k = draw.normal(2, 1, tokens, TAYLOR_HEADS, TAYLOR_KEYS)
    features = 1 + TAYLOR_KEYS + TAYLOR_KEYS**2
    state = TaylorState(*(draw.normal(1, TAYLOR_HEADS, features, *v).abs() for v in ((HEAD_WIDTH,), ())))
    return {"q": q, "k": k, "v": draw.normal(1, tokens, TAYLOR_HEADS, HEAD_WIDTH)}, state


def _taylor_operations(tokens: int) -> int:
    """Through the state, of which x_i x_j and x_j x_i are one, or through all pairs: whichever is less."""
    features = 1 + TAYLOR_KEYS + TAYLOR_KEYS * (TAYLOR_KEYS + 1) // 2
    state, pairs = 4 * features * (HEAD_WIDTH + 1), (tokens + 1) * (TAYLOR_KEYS + HEAD_WIDTH + 2)
    return TAYLOR_HEADS * tokens * min(state, pairs)


def _delta_rule(draw: Draw, tokens: int) -> tuple[Tensors, Tensor]:
    q, k = normalize(draw.normal(2, 1, tokens, DELTA_HEADS, DELTA_WIDTH), dim=-1)
    v, beta = draw.normal(1, tokens, DELTA_HEADS, DELTA_WIDTH), draw.uniform(1, tokens, DELTA_HEADS)
    return {"q": q, "k": k, "v": v, "beta": beta}, draw.normal(1, DELTA_HEADS, DELTA_WIDTH, DELTA_WIDTH)


def _gated_delta_rule(draw: Draw, tokens: int) -> tuple[Tensors, Tensor]:
    inputs, state = _delta_rule(draw, tokens)
    return inputs | {"log_decay": -0.1 * draw.uniform(1, tokens, DELTA_HEADS)}, state


def _wkv7(draw: Draw, tokens: int) -> tuple[Tensors, Tensor]:
    shape = (1, tokens, HEADS, HEAD_WIDTH)
    r, k, v, away = (draw.normal(*shape) for _ in range(4))
    a = -normalize(away, dim=-1)
    inputs = {"r": r, "k": k, "v": v, "log_decay": -0.6065 * draw.uniform(*shape), "a": a, "b": -a * draw.uniform(*shape)}
    return inputs, draw.normal(1, HEADS, HEAD_WIDTH, HEAD_WIDTH)


DELTA = each(6 * DELTA_HEADS * DELTA_WIDTH**2)
LOOKUPS = {
    "attention": Setting(
        "B 1, H 12, G 4, K = V = 64, float32",
        _attention,
        "q",
        lambda T: _attention_operations(T, T + PAST),
        ("sdpa",),
        most_naive=PAST,
        chooses=True,
    ),
    "attention_window": Setting(
        "B 1, H 12, G 4, K = V = 64, W 256, float32",
        _attention_window,
        "q",
        lambda T: _attention_operations(T, WINDOW),
        ("sdpa", "chunked"),
        "attention",
        {"window": WINDOW},
        most_naive=PAST,
        chooses=True,
    ),
    "long_conv": Setting(
        "B 1, D 864, T' = T, float32", _long_conv, "x", _long_conv_operations, ("fft",), most_naive=PAST, chooses=True
    ),
    "taylor_attention": Setting("B 1, H 16, K 16, V 64, float32", _taylor_attention, "v", _taylor_operations, ("chunked",)),
    # For a number of the state: a multiply-add to read it for the key, one to correct it, one to read it for the query.
    "delta_rule": Setting("B 1, H 8, K = V = 128, float32", _delta_rule, "v", DELTA, ("chunked",)),
    "gated_delta_rule": Setting("B 1, H 8, K = V = 128, float32", _gated_delta_rule, "v", DELTA, ("chunked",)),
    # One more to write the value: what a and b correct is apart from it.
    "wkv7": Setting("B 1, H 12, K = V = 64, float32", _wkv7, "v", each(8 * HEADS * HEAD_WIDTH**2), ("chunked",)),
}
