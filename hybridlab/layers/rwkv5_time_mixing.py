"""RWKV-5's token mixer (Eagle, version 5.2): one matrix of fading memories a head, its clocks fixed once trained."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from hybridlab.layers import initial
from hybridlab.layers.head_norm import HeadNorm
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.token_shift import last_token, previous, weigh_present
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.ops.wkv6 import BACKENDS, wkv6
from hybridlab.shapes import MatrixState, ShiftState, Stream


class TimeMixingState(NamedTuple):
    """The last token and one matrix a head.

    Bytes: B * (D * bytes of the dtype + H * K * V * bytes of the state dtype).
    """

    shift: ShiftState
    wkv: MatrixState


class MatrixTimeMixing(Layer):
    """What RWKV-5 and RWKV-6 have in common: the four linear maps, the bonus, the norm of the heads, and the state."""

    backends = backends_of(BACKENDS)
    op = staticmethod(wkv6)

    def __init__(self, width: int, heads: int, head_width: int, depth: Depth) -> None:
        super().__init__()
        self.width, self.heads, self.head_width = width, heads, head_width
        channels = heads * head_width
        self.bonus = nn.Parameter(initial.bonus_ramp(channels, depth).view(heads, head_width))
        self.receptance = initial.orthogonal(width, channels)
        self.key = initial.orthogonal(width, channels, gain=0.1)
        self.value = initial.orthogonal(width, channels)
        self.gate = initial.orthogonal(width, channels, gain=0.1)
        self.output = initial.zeros(channels, width)
        self.head_norm = HeadNorm(heads, head_width, weight=((depth.layer + 1) / depth.layers) ** 0.7)

    def mix(self, inputs: tuple[Tensor, ...], log_decay: Tensor, state: MatrixState) -> tuple[Stream, MatrixState]:
        """From the four mixed inputs (k, v, r, g) to the layer's output: y = O (norm(wkv6(R, K, V)) * silu(G))."""
        k, v, r, g = inputs
        k, v, r = (
            linear(x).unflatten(-1, (self.heads, self.head_width))
            for linear, x in ((self.key, k), (self.value, v), (self.receptance, r))
        )
        read, wkv = self.op(r, k, v, log_decay, self.bonus, state, backend=self.backend)
        return self.output(self.head_norm(read) * silu(self.gate(g))), wkv

    def state_after(self, batch: int, length: int, storage: Storage) -> TimeMixingState:
        """The same size after any number of tokens."""
        wkv = storage.recurrent(batch, self.heads, self.head_width, self.head_width)
        return TimeMixingState(storage.cached(batch, self.width), wkv)


class RWKV5TimeMixing(MatrixTimeMixing):
    """The time mixing of RWKV-5.2: y = O (norm(wkv6(R x_r, K x_k, V x_v)) * silu(G x_g)), x_j = mu_j x + (1 - mu_j) past.

    The decay a step is exp(-exp(time_decay)) for each key channel, constant in time, in float32 at least.

    Args:
        width: D.
        heads: H.
        head_width: K = V.
        depth: where the layer stands, for its initial values.

    Source: Eagle and Finch, arXiv 2404.05892, time mixing of Eagle. Chapter 03.
    """

    def __init__(self, width: int, heads: int, head_width: int = 64, depth: Depth = ONLY_LAYER) -> None:
        super().__init__(width, heads, head_width, depth)
        ramp = initial.mix_ramp(width, depth.falling)
        steep = initial.mix_ramp(width, 0.5 * depth.falling)
        self.mix_k = nn.Parameter(ramp)
        self.mix_v = nn.Parameter(ramp + 0.3 * depth.rising)
        self.mix_r = nn.Parameter(steep)
        self.mix_g = nn.Parameter(steep.clone())
        self.time_decay = nn.Parameter(initial.decay_ramp(heads * head_width, -6.0, 5.0, depth).view(heads, head_width))

    def log_decay(self) -> Tensor:
        """The natural logarithm of the decay a step, (1, 1, H, K): the same for every sequence and token."""
        return -torch.exp(self.time_decay.to(least_state_dtype(self.time_decay.dtype)))[None, None]

    def forward(
        self, x: Stream, state: TimeMixingState | None = None, shared: Shared | None = None
    ) -> tuple[Stream, TimeMixingState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = self.start(x) if state is None else state
        past = previous(x, state.shift)
        inputs = tuple(weigh_present(x, past, mu) for mu in (self.mix_k, self.mix_v, self.mix_r, self.mix_g))
        y, wkv = self.mix(inputs, self.log_decay(), state.wkv)
        return y, TimeMixingState(last_token(x), wkv)
