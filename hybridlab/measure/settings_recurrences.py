"""Settings of the recurrences whose state fades: sizes of published models."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from hybridlab.measure.setting import Draw, Setting, Tensors, each

# Channels of RWKV-4 169M; 12 heads of RWKV-6; inner width, states and taps of Mamba 130M; the width of a small Hawk.
CHANNELS, HEADS, HEAD_WIDTH, INNER, STATES, TAPS, WIDTH = 768, 12, 64, 1536, 16, 4, 1024
# Heads of Mamba-2 130M, each 64 wide, and their states; heads, keys and values of the paper's RetNet 1.3B.
SSD_HEADS, SSD_STATES, RETNET_HEADS, RETNET_KEYS, RETNET_VALUES = 24, 128, 8, 256, 512


def _wkv4(draw: Draw, tokens: int) -> tuple[Tensors, Tensor]:
    k, v = draw.normal(1, tokens, CHANNELS), draw.normal(1, tokens, CHANNELS)
    inputs = {"k": k, "v": v, "log_decay": -draw.normal(CHANNELS).exp(), "bonus": draw.normal(CHANNELS)}
    state = (draw.normal(1, CHANNELS), 0.5 + draw.normal(1, CHANNELS) ** 2, draw.normal(1, CHANNELS))
    return inputs, torch.stack(state, -1)


def _wkv6(draw: Draw, tokens: int) -> tuple[Tensors, Tensor]:
    shape = (1, tokens, HEADS, HEAD_WIDTH)
    inputs = {name: draw.normal(*shape) for name in ("r", "k", "v")}
    inputs |= {"log_decay": -(draw.normal(*shape) - 2).exp(), "bonus": draw.normal(HEADS, HEAD_WIDTH)}
    return inputs, draw.normal(1, HEADS, HEAD_WIDTH, HEAD_WIDTH)


def _linear_recurrence(draw: Draw, tokens: int) -> tuple[Tensors, Tensor]:
    return {"a": draw.uniform(1, tokens, WIDTH), "b": draw.normal(1, tokens, WIDTH)}, draw.normal(1, WIDTH)


def _rg_lru(draw: Draw, tokens: int) -> tuple[Tensors, Tensor]:
    # Gates and rates stay away from 0, where a is 1: `transformers` takes 1 - a^2, which has no digits left there.
    x, recurrence_gate, input_gate = draw.normal(1, tokens, WIDTH), *(0.1 + 0.9 * draw.uniform(2, 1, tokens, WIDTH))
    log_a = -0.01 - 0.1 * draw.uniform(WIDTH)
    inputs = {"x": x, "recurrence_gate": recurrence_gate, "input_gate": input_gate, "log_a": log_a}
    return inputs, draw.normal(1, WIDTH)


def _short_conv(draw: Draw, tokens: int) -> tuple[Tensors, Tensor]:
    inputs = {"x": draw.normal(1, tokens, INNER), "weight": draw.normal(INNER, TAPS), "bias": draw.normal(INNER)}
    return inputs, draw.normal(1, TAPS - 1, INNER)


def _selective_scan(draw: Draw, tokens: int) -> tuple[Tensors, Tensor]:
    x, dt = draw.normal(1, tokens, INNER), softplus(draw.normal(1, tokens, INNER) - 4)
    A = -torch.arange(1.0, STATES + 1, device=x.device).repeat(INNER, 1)
    B, C = draw.normal(1, tokens, STATES), draw.normal(1, tokens, STATES)
    return {"x": x, "dt": dt, "A": A, "B": B, "C": C, "D": x.new_ones(INNER)}, draw.normal(1, INNER, STATES)


def _ssd(draw: Draw, tokens: int) -> tuple[Tensors, Tensor]:
    shape = (1, tokens, SSD_HEADS)
    x, dt = draw.normal(*shape, HEAD_WIDTH), softplus(draw.normal(*shape) - 4)
    A = -1 - 15 * draw.uniform(SSD_HEADS)
    B, C = draw.normal(1, tokens, 1, SSD_STATES), draw.normal(1, tokens, 1, SSD_STATES)
    return {"x": x, "dt": dt, "A": A, "B": B, "C": C, "D": A.abs()}, draw.normal(1, SSD_HEADS, HEAD_WIDTH, SSD_STATES)


def _retention(draw: Draw, tokens: int) -> tuple[Tensors, Tensor]:
    q, k = draw.normal(2, 1, tokens, RETNET_HEADS, RETNET_KEYS) / RETNET_KEYS**0.25
    v = draw.normal(1, tokens, RETNET_HEADS, RETNET_VALUES)
    log_decay = torch.log1p(-(2.0 ** (-5 - torch.arange(RETNET_HEADS, device=v.device))))
    state = draw.normal(1, RETNET_HEADS, RETNET_KEYS, RETNET_VALUES)
    return {"q": q, "k": k, "v": v, "log_decay": log_decay}, state


SSD = each(4 * SSD_HEADS * HEAD_WIDTH * SSD_STATES)
RETENTION = each(4 * RETNET_HEADS * RETNET_KEYS * RETNET_VALUES)
RECURRENCES = {
    # For a channel's three numbers: e^k, three for num, two for den, five for what the present token adds, one division.
    "wkv4": Setting("B 1, C 768, float32", _wkv4, "v", each(12 * CHANNELS), ("chunked",)),
    # For a number of the state: a multiply-add to write it and one to read it.
    "wkv6": Setting("B 1, H 12, K = V = 64, float32", _wkv6, "v", each(4 * HEADS * HEAD_WIDTH**2), ("chunked",)),
    "linear_recurrence": Setting("B 1, D 1024, float32", _linear_recurrence, "b", each(2 * WIDTH), ("parallel", "chunked")),
    # For a channel: log a in two products, a, 1 - a^2 in three, its root, two products for what is written, a multiply-add.
    "rg_lru": Setting("B 1, D 1024, float32", _rg_lru, "x", each(11 * WIDTH), ("parallel", "chunked")),
    "short_conv": Setting("B 1, D 1536, W 4, float32", _short_conv, "x", each(2 * TAPS * INNER), ("parallel",)),
    # For a number of the state: dt A and its exponential, dt x B, a multiply-add to write it and one to read it.
    "selective_scan": Setting("B 1, E 1536, N 16, float32", _selective_scan, "x", each(7 * INNER * STATES), ("chunked",)),
    # As for wkv6.
    "ssd": Setting("B 1, H 24, G 1, P 64, N 128, float32", _ssd, "x", SSD, ("chunked",)),
    "retention": Setting("B 1, H 8, K 256, V 512, float32", _retention, "v", RETENTION, ("chunked",)),
}
