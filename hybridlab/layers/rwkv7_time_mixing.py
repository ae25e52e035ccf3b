"""RWKV-7's token mixer (Goose): a matrix a head, in which a token replaces what its key has so far."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from hybridlab.layers import initial
from hybridlab.layers.head_norm import HeadNorm
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.low_rank import LowRank
from hybridlab.layers.rwkv5_time_mixing import TimeMixingState
from hybridlab.layers.token_shift import last_token, previous, weigh_past
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.ops.wkv7 import BACKENDS, wkv7
from hybridlab.shapes import EachKeyDecay, Stream, Values

# A channel keeps at least e^(-0.607) = 0.545 of itself a step.
FASTEST = -math.exp(-0.5)


class RWKV7Ranks(NamedTuple):
    """Widths of the waists of the four small networks: behind the decay, the rate, the mixing of values, and the gate."""

    decay: int
    rate: int
    value: int
    gate: int

    @classmethod
    def suggested(cls, width: int) -> "RWKV7Ranks":
        """What the authors' training code takes for this width; their released models differ from it here and there."""
        decay, value, gate = (max(32, round(factor * width**0.5 / 32) * 32) for factor in (2.5, 1.7, 5.0))
        return cls(decay, decay, value, gate)


class RWKV7TimeMixing(Layer):
    """The time mixing of RWKV-7: y = O ((norm(wkv7(r, k', v', w, -n, n a)) + (sum over a head of r k' u) v') * g).

    x_j = x + mu_j (past - x) for each of the six inputs. r, k, v = R x_r, K x_k, V x_v. Four small networks give, for every
    token and channel, the decay log w = -e^(-1/2) sigmoid(...) from x_w, the rate a = sigmoid(...) from x_a at which the
    state learns, the gate g from x_g, and s = sigmoid(...) from x_v, how much of the first such layer's values to take:

        n = k * removal, scaled to length 1 in each head        what is looked for, and taken away at the rate a
        k' = k * (1 + (a - 1) * slowing)                        what v' is written at
        v' = v + s (v_first - v)                                v in the first layer, which has no s

    Args:
        width: D.
        heads: H.
        head_width: K = V.
        ranks: of the small networks; None is what the authors suggest for the width.
        depth: where the layer stands, for its initial values.
        first: whether it is the model's first layer of this kind, which gives the others its values through `shared`.

    Source: RWKV-7 Goose, arXiv 2503.14456, section 4, and the authors' code. Chapter 08.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(wkv7)

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int = 64,
        ranks: RWKV7Ranks | None = None,
        depth: Depth = ONLY_LAYER,
        first: bool = True,
    ) -> None:
        super().__init__()
        self.width, self.heads, self.head_width = width, heads, head_width
        channels, ranks = heads * head_width, ranks or RWKV7Ranks.suggested(width)
        for name, power in (("r", 0.2), ("w", 0.9), ("k", 0.7), ("v", 0.7), ("a", 0.9), ("g", 0.2)):
            self.register_parameter(f"mix_{name}", nn.Parameter(1 - initial.mix_ramp(width, power * depth.falling)))
        tilt, bend = initial.tilt(channels), initial.head_bend(heads, head_width)
        clocks = -5.5 + 6 * (tilt + 0.5) ** (1 + depth.rising**0.3) + 2.5 * bend
        self.decay = LowRank(width, ranks.decay, channels, nn.Tanh(), clocks)
        self.rate = LowRank(width, ranks.rate, channels, start=-0.19 + 0.3 * bend + 0.4 * tilt)
        self.first_share = None if first else LowRank(width, ranks.value, channels, start=0.73 - 0.4 * tilt)
        self.gate = LowRank(width, ranks.gate, channels, nn.Sigmoid())
        self.removal = nn.Parameter(0.71 - 0.1 * tilt)
        self.slowing = nn.Parameter(torch.full((channels,), 1.02))
        self.bonus = nn.Parameter(torch.full((heads, head_width), -0.04))
        self.receptance = initial.uniform(width, channels, 0.5)
        self.key = initial.uniform(width, channels, 0.05)
        self.value = initial.uniform(width, channels, 0.5)
        self.output = initial.zeros(channels, width)
        self.head_norm = HeadNorm(heads, head_width, weight=((depth.layer + 1) / depth.layers) ** 0.7)

    def log_decay(self, x_w: Stream) -> EachKeyDecay:
        """The natural logarithm of the decay a step, (B, T, H, K), in float32 at least."""
        clocks = self.decay(x_w)
        return self._headed(FASTEST * torch.sigmoid(clocks.to(least_state_dtype(clocks.dtype))))

    def forward(
        self, x: Stream, state: TimeMixingState | None = None, shared: Shared | None = None
    ) -> tuple[Stream, TimeMixingState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = self.start(x) if state is None else state
        past = previous(x, state.shift)
        x_r, x_w, x_k, x_v, x_a, x_g = (weigh_past(x, past, getattr(self, f"mix_{name}")) for name in "rwkvag")
        k, rate = self.key(x_k), torch.sigmoid(self.rate(x_a))
        removed = normalize(self._headed(k * self.removal), dim=-1)
        k = self._headed(k * (1 + (rate - 1) * self.slowing))
        r, v = self._headed(self.receptance(x_r)), self._mixed_with_first(self._headed(self.value(x_v)), x_v, shared)
        replaced = removed * self._headed(rate)
        read, wkv = self.op(r, k, v, self.log_decay(x_w), -removed, replaced, state.wkv, backend=self.backend)
        own = (r * k * self.bonus).sum(-1, keepdim=True) * v
        y = self.output((self.head_norm(read) + own.flatten(2)) * self.gate(x_g))
        return y, TimeMixingState(last_token(x), wkv)

    def state_after(self, batch: int, length: int, storage: Storage) -> TimeMixingState:
        """The same size after any number of tokens."""
        wkv = storage.recurrent(batch, self.heads, self.head_width, self.head_width)
        return TimeMixingState(storage.cached(batch, self.width), wkv)

    def _mixed_with_first(self, v: Values, x_v: Stream, shared: Shared | None) -> Values:
        if self.first_share is None:
            if shared is not None:
                shared.first_value = v
            return v
        if shared is None or shared.first_value is None:
            found = "shared=None" if shared is None else "None"
            raise ValueError(f"RWKV7TimeMixing: shared.first_value must hold the first such layer's values, got {found}")
        return torch.lerp(v, shared.first_value, torch.sigmoid(self._headed(self.first_share(x_v))))

    def _headed(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_width))
