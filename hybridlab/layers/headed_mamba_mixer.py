"""Zamba's mixer: a Mamba whose channels form a few heads, each of which chooses for itself what its channels keep."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.mamba_mixer import MambaState
from hybridlab.layers.short_filter import ShortFilter
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.ops.selective_scan import BACKENDS, selective_scan
from hybridlab.shapes import GroupVectors, HeadInputs, ScanState, Stream


class HeadedMambaSizes(NamedTuple):
    """Sizes of a Mamba mixer with heads; none depends on the stream's width.

    Attributes:
        heads: H.
        inner: E = H P, channels of all heads.
        rank: inner width of the map that finds a token's steps.
        state_size: N, numbers that each channel remembers.
        filter_width: W, taps of the short convolution.
    """

    heads: int
    inner: int
    rank: int
    state_size: int = 16
    filter_width: int = 4


class HeadedMambaMixer(Layer):
    """y = out((scan(x') + D x') * silu(z)), where [x | z] = in(x) and x' = silu(conv(x)): Mamba, but each head of x' alone.

    A head makes dt, B and C from its own P channels, [r | B | C] = select_h(x'_h) and dt = softplus(step_h(r)), and scans
    them. In Mamba all channels share one B and one C; here only those of a head do. Steps and rates are float32 at least.

    Args:
        width: D.
        sizes: H, E, N, rank and W.
        depth: where the layer stands, for its initial values.
        bias: whether the maps from and to the stream have biases.
        conv_bias: whether the convolution has one.

    Raises:
        ValueError: heads that do not divide E.

    Source: Zamba, arXiv 2405.16712, and its authors' code. Chapter 11.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(selective_scan)

    def __init__(
        self,
        width: int,
        sizes: HeadedMambaSizes,
        depth: Depth = ONLY_LAYER,
        *,
        bias: bool = False,
        conv_bias: bool = True,
    ) -> None:
        super().__init__()
        heads, inner, rank, state_size = sizes.heads, sizes.inner, sizes.rank, sizes.state_size
        if heads < 1 or inner % heads:
            raise ValueError(f"HeadedMambaMixer: heads must be a positive divisor of inner = {inner}, got {heads}")
        self.sizes, channels = sizes, inner // heads
        self.input = initial.input_linear(width, 2 * inner, bias)
        self.conv = ShortFilter(inner, sizes.filter_width, conv_bias)
        self.selection = _uniform(channels**-0.5, heads, rank + 2 * state_size, channels)
        self.step_weight = _uniform(rank**-0.5, heads, channels, rank)
        self.step_bias = nn.Parameter(initial.step_bias(inner).view(heads, channels))
        self.A_log = nn.Parameter(torch.arange(1.0, state_size + 1).log().repeat(heads, channels, 1))
        self.D = nn.Parameter(torch.ones(heads, channels))
        self.output = initial.residual_linear(inner, width, bias, depth)

    def rates(self) -> Tensor:
        """A, (H, P, N): how fast each number fades in a step of length 1."""
        return -self.A_log.to(least_state_dtype(self.A_log.dtype)).exp()

    def selected(self, x: HeadInputs) -> tuple[HeadInputs, GroupVectors, GroupVectors]:
        """What each head of each token chooses: its steps dt (B, T, H, P), and B and C (B, T, H, N)."""
        state_size, rank = self.sizes.state_size, self.sizes.rank
        chosen = torch.einsum("b t h p, h r p -> b t h r", x, self.selection)
        low, B, C = chosen.split((rank, state_size, state_size), -1)
        raw = torch.einsum("b t h r, h p r -> b t h p", low, self.step_weight)
        return softplus(raw + self.step_bias.to(least_state_dtype(raw.dtype))), B, C

    def forward(self, x: Stream, state: MambaState | None = None, shared: Shared | None = None) -> tuple[Stream, MambaState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = self.start(x) if state is None else state
        x, gate = self.input(x).chunk(2, -1)
        x, conv = self.conv(x, state.conv, self.backend)
        y, ssm = self.scanned(silu(x).unflatten(-1, (self.sizes.heads, -1)), state.ssm)
        return self.output(y.flatten(2) * silu(gate)), MambaState(conv, ssm)

    def scanned(self, x: HeadInputs, state: ScanState) -> tuple[HeadInputs, ScanState]:
        """What is read from the heads, (B, T, H, P), and their states one after the other, (B, E, N)."""
        dt, B, C = self.selected(x)
        per_token = (z.unbind(2) for z in (x, dt, B, C))
        outputs, states = [], []
        for x_h, dt_h, B_h, C_h, A_h, D_h, state_h in zip(
            *per_token, self.rates(), self.D, state.chunk(self.sizes.heads, 1), strict=True
        ):
            output, final = self.op(x_h, dt_h, A_h, B_h, C_h, D_h, state_h, backend=self.backend)
            outputs.append(output)
            states.append(final)
        return torch.stack(outputs, 2), torch.cat(states, 1)

    def state_after(self, batch: int, length: int, storage: Storage) -> MambaState:
        """The same size after any number of tokens."""
        inner, state_size = self.sizes.inner, self.sizes.state_size
        conv = storage.cached(batch, self.sizes.filter_width - 1, inner)
        return MambaState(conv, storage.recurrent(batch, inner, state_size))


def _uniform(bound: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
