"""Finch-C2's token mixer, of GoldFinch: RWKV-6 without a gate, whose slow channels write softly."""

import torch
from torch import Tensor, nn

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.low_rank import LowRank
from hybridlab.layers.mixing_weights import MixingWeights
from hybridlab.layers.rwkv5_time_mixing import TimeMixingState
from hybridlab.layers.token_shift import last_token, previous, weigh_past
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.ops.wkv6 import BACKENDS, wkv6
from hybridlab.shapes import EachKeyDecay, Stream


class FinchC2TimeMixing(Layer):
    """The time mixing of Finch-C2: y = O norm(wkv6(R x_r, (1 - e^w) K x_k, V x_v, bonus 0) + V x_o + network(x_o)).

    w = -exp(start + network(x_w)) <= 0 is the log decay of a key channel, so what a token writes is as large as what it
    makes the channel forget: the state stays a weighted average. The state is read before the token is written; what the
    token says at once are values of its own, V x_o with a small correction. Every x_j mixes x with the token before it. The
    norm is a layer norm over all heads together.

    Args:
        width: D.
        heads: H.
        head_width: K = V.
        mix_rank: inner width of the network behind each mixture.
        rank: inner width of the networks behind the decay and the values of a token's own.
        own_values: whether a token has values of its own. Without them it reads what it writes, times a bonus, as in RWKV-6.
            The authors train and store the parameters of both, and so does this layer; one of the two is not read.
        depth: where the layer stands, for its initial values.

    Source: GoldFinch, arXiv 2407.12077, Finch-C2, and the authors' code. Chapter 11.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(wkv6)

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int = 64,
        mix_rank: int = 32,
        rank: int = 64,
        own_values: bool = True,
        depth: Depth = ONLY_LAYER,
    ) -> None:
        super().__init__()
        self.width, self.heads, self.head_width, self.own_values = width, heads, head_width, own_values
        channels = heads * head_width
        ramp, steep = (initial.mix_ramp(width, power * depth.falling) for power in (1.0, 0.5))
        values = 1 - ramp - 0.3 * depth.rising
        self.mixing = MixingWeights(
            1 - ramp, {"r": 1 - steep, "k": 1 - ramp, "v": values, "w": 1 - ramp, "o": values.clone()}, mix_rank
        )
        self.decay = LowRank(width, rank, channels, nn.Tanh(), initial.decay_ramp(channels, -6.0, 5.0, depth))
        self.own_value = LowRank(width, rank, channels, nn.Tanh())
        for network in (self.decay, self.own_value):
            nn.init.uniform_(network.up, -0.01, 0.01)
        self.bonus = nn.Parameter(initial.bonus_ramp(channels, depth).view(heads, head_width))
        self.receptance = initial.orthogonal(width, channels)
        self.key = initial.orthogonal(width, channels, gain=0.1)
        self.value = initial.orthogonal(width, channels)
        self.output = initial.zeros(channels, width)
        self.norm = nn.LayerNorm(channels)
        nn.init.constant_(self.norm.weight, ((depth.layer + 1) / depth.layers) ** 0.7)

    def log_decay(self, x_w: Stream) -> EachKeyDecay:
        """The natural logarithm of the decay a step, (B, T, H, K), in float32 at least."""
        clocks = self.decay(x_w)
        return self._headed(-torch.exp(clocks.to(least_state_dtype(clocks.dtype))))

    def forward(
        self, x: Stream, state: TimeMixingState | None = None, shared: Shared | None = None
    ) -> tuple[Stream, TimeMixingState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = self.start(x) if state is None else state
        past = previous(x, state.shift)
        x_r, x_k, x_v, x_w, x_o = (weigh_past(x, past, mu) for mu in self.mixing(x, past))
        log_decay = self.log_decay(x_w)
        forgotten = -torch.expm1(log_decay)
        r, k, v = (self._headed(linear(z)) for linear, z in ((self.receptance, x_r), (self.key, x_k), (self.value, x_v)))
        k = (k * forgotten).to(k.dtype)
        bonus = torch.zeros_like(self.bonus) if self.own_values else self.bonus
        read, wkv = self.op(r, k, v, log_decay, bonus, state.wkv, backend=self.backend)
        said = read.flatten(2)
        if self.own_values:
            said = said + self.value(x_o) + self.own_value(x_o)
        return self.output(self.norm(said)), TimeMixingState(last_token(x), wkv)

    def state_after(self, batch: int, length: int, storage: Storage) -> TimeMixingState:
        """The same size after any number of tokens."""
        wkv = storage.recurrent(batch, self.heads, self.head_width, self.head_width)
        return TimeMixingState(storage.cached(batch, self.width), wkv)

    def _headed(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_width))
