"""RWKV-4's token mixer: one fading average a channel."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.token_shift import last_token, previous, weigh_present
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.ops.wkv4 import BACKENDS, empty_state, wkv4
from hybridlab.shapes import ShiftState, Stream, Wkv4State


class RWKV4State(NamedTuple):
    """The last token and, for every channel, numerator, denominator and their common exponent.

    Bytes: B * (D * bytes of the dtype + 3 * C * bytes of the state dtype).
    """

    shift: ShiftState
    wkv: Wkv4State


class RWKV4TimeMixing(Layer):
    """The time mixing of RWKV-4: y = O (sigmoid(R x_r) * wkv4(K x_k, V x_v)), x_j = mu_j x + (1 - mu_j) past.

    The decay a step is exp(-exp(time_decay)), always computed in float32 at least.

    Args:
        width: D.
        channels: C, the attention width; D in every published model.
        depth: where the layer stands, for its initial values.

    Source: RWKV, arXiv 2305.13048, time mixing. Chapter 03.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(wkv4)

    def __init__(self, width: int, channels: int, depth: Depth = ONLY_LAYER) -> None:
        super().__init__()
        self.width, self.channels = width, channels
        ramp = initial.mix_ramp(width, depth.falling)
        self.mix_k = nn.Parameter(ramp)
        self.mix_v = nn.Parameter(ramp + 0.3 * depth.rising)
        self.mix_r = nn.Parameter(initial.mix_ramp(width, 0.5 * depth.falling))
        self.time_decay = nn.Parameter(initial.decay_ramp(channels, -5.0, 8.0, depth))
        self.bonus = nn.Parameter(math.log(0.3) + 0.5 * initial.zigzag(channels))
        self.key = initial.zeros(width, channels)
        self.value = initial.orthogonal(width, channels)
        self.receptance = initial.zeros(width, channels)
        self.output = initial.zeros(channels, width)

    def log_decay(self) -> Tensor:
        """The natural logarithm of the decay a step, (C,)."""
        return -torch.exp(self.time_decay.to(least_state_dtype(self.time_decay.dtype)))

    def forward(self, x: Stream, state: RWKV4State | None = None, shared: Shared | None = None) -> tuple[Stream, RWKV4State]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = self.start(x) if state is None else state
        past = previous(x, state.shift)
        k = self.key(weigh_present(x, past, self.mix_k))
        v = self.value(weigh_present(x, past, self.mix_v))
        r = torch.sigmoid(self.receptance(weigh_present(x, past, self.mix_r)))
        average, wkv = self.op(k, v, self.log_decay(), self.bonus, state.wkv, backend=self.backend)
        return self.output(r * average), RWKV4State(last_token(x), wkv)

    def state_after(self, batch: int, length: int, storage: Storage) -> RWKV4State:
        """The same size after any number of tokens."""
        wkv = empty_state(batch, self.channels, dtype=storage.state_dtype, device=storage.device)
        return RWKV4State(storage.cached(batch, self.width), wkv)
