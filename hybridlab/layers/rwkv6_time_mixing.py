"""RWKV-6's token mixer (Finch): a matrix of fading memories a head, whose clocks and mixing depend on the token."""

import torch
from torch import Tensor, nn

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Shared
from hybridlab.layers.rwkv5_time_mixing import MatrixTimeMixing, TimeMixingState
from hybridlab.layers.token_shift import last_token, previous, weigh_past, weights_by_token
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.shapes import Stream

# What is mixed from the present and the previous token, in the order of the published tensors.
MIXED = ("w", "k", "v", "r", "g")


class RWKV6TimeMixing(MatrixTimeMixing):
    """The time mixing of RWKV-6: y = O (norm(wkv6(R x_r, K x_k, V x_v)) * silu(G x_g)).

    x_j = x + (mu_j + m_j) (past - x), where the five m_j come from a small network on x + mu_x (past - x). The decay a step
    is exp(-exp(time_decay + tanh(x_w A) B)) for each key channel, in float32 at least.

    Args:
        width: D.
        heads: H.
        head_width: K = V.
        mix_rank: inner width of the network behind the m_j.
        decay_rank: inner width of the network behind the decay.
        depth: where the layer stands, for its initial values.

    Source: Eagle and Finch, arXiv 2404.05892, time mixing of Finch. Chapter 03.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int = 64,
        mix_rank: int = 32,
        decay_rank: int = 64,
        depth: Depth = ONLY_LAYER,
    ) -> None:
        super().__init__(width, heads, head_width, depth)
        channels = heads * head_width
        ramp = initial.mix_ramp(width, depth.falling)
        steep = initial.mix_ramp(width, 0.5 * depth.falling)
        self.mix_x = nn.Parameter(1 - ramp)
        self.mix_w = nn.Parameter(1 - ramp)
        self.mix_k = nn.Parameter(1 - ramp)
        self.mix_v = nn.Parameter(1 - ramp - 0.3 * depth.rising)
        self.mix_r = nn.Parameter(1 - steep)
        self.mix_g = nn.Parameter(1 - steep)
        self.mix_down = nn.Parameter(torch.zeros(width, len(MIXED) * mix_rank))
        self.mix_up = nn.Parameter(torch.empty(len(MIXED), mix_rank, width).uniform_(-0.01, 0.01))
        self.time_decay = nn.Parameter(initial.decay_ramp(channels, -6.0, 5.0, depth))
        self.decay_down = nn.Parameter(torch.zeros(width, decay_rank))
        self.decay_up = nn.Parameter(torch.empty(decay_rank, channels).uniform_(-0.01, 0.01))

    def mixed(self, x: Stream, past: Stream) -> tuple[Tensor, ...]:
        """The five inputs x_w, x_k, x_v, x_r, x_g, each (B, T, D)."""
        mus = torch.stack([getattr(self, f"mix_{name}") for name in MIXED])
        return weigh_past(x, past, weights_by_token(x, past, self.mix_x, mus, self.mix_down, self.mix_up)).unbind(0)

    def log_decay(self, x_w: Stream) -> Tensor:
        """The natural logarithm of the decay a step, (B, T, H, K)."""
        change = torch.tanh(x_w @ self.decay_down) @ self.decay_up
        wide = least_state_dtype(x_w.dtype)
        return -torch.exp(self.time_decay.to(wide) + change.to(wide)).unflatten(-1, (self.heads, self.head_width))

    def forward(
        self, x: Stream, state: TimeMixingState | None = None, shared: Shared | None = None
    ) -> tuple[Stream, TimeMixingState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = self.start(x) if state is None else state
        x_w, *inputs = self.mixed(x, previous(x, state.shift))
        y, wkv = self.mix(tuple(inputs), self.log_decay(x_w), state.wkv)
        return y, TimeMixingState(last_token(x), wkv)
