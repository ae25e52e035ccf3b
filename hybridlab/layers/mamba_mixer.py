"""Mamba's mixer: a selective scan between two maps, behind a short convolution and a gate. No channel mixer is needed."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu, softplus

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.short_filter import ShortFilter
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.ops.selective_scan import BACKENDS, selective_scan
from hybridlab.shapes import ConvState, Inner, Rates, ScanState, StateVectors, Stream


class MambaState(NamedTuple):
    """The last W - 1 inputs of the convolution, and N numbers a channel.

    Bytes: B * E * ((W - 1) * bytes of the dtype + N * bytes of the state dtype).
    """

    conv: ConvState
    ssm: ScanState


class MambaSizes(NamedTuple):
    """Sizes of a Mamba mixer; none depends on the stream's width.

    Attributes:
        inner: E, channels that are convolved and scanned.
        rank: inner width of the map that finds a token's steps.
        state_size: N, numbers that each channel remembers.
        filter_width: W, taps of the short convolution.
    """

    inner: int
    rank: int
    state_size: int = 16
    filter_width: int = 4


class MambaMixer(Layer):
    """y = out((scan(x') + D x') * silu(z)), where [x | z] = in(x) and x' = silu(conv(x)).

    What is selective comes from x' itself: [r | B | C] = select(x'), and each channel's step is dt = softplus(step(r)). The
    rates are A = -exp(A_log). Steps and rates are float32 at least.

    Args:
        width: D.
        sizes: E, N, rank and W.
        depth: where the layer stands, for its initial values.
        bias: whether the maps from and to the stream have biases.
        conv_bias: whether the convolution has one.
        selection_norm: makes the norm of a width through which r, B and C go, each its own; None is no norm. Falcon-Mamba
            has one without weights, Jamba one with.

    Source: Mamba, arXiv 2312.00752, section 3.4 and its code. Chapter 04.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(selective_scan)

    def __init__(
        self,
        width: int,
        sizes: MambaSizes,
        depth: Depth = ONLY_LAYER,
        *,
        bias: bool = False,
        conv_bias: bool = True,
        selection_norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.sizes = sizes
        norm = selection_norm or nn.Identity
        inner, state_size, rank = sizes.inner, sizes.state_size, sizes.rank
        self.input = initial.input_linear(width, 2 * inner, bias)
        self.conv = ShortFilter(inner, sizes.filter_width, conv_bias)
        self.selection = nn.Linear(inner, rank + 2 * state_size, bias=False)
        self.step_norm, self.B_norm, self.C_norm = norm(rank), norm(state_size), norm(state_size)
        self.step = nn.Linear(rank, inner)
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        self.step.bias = nn.Parameter(initial.step_bias(inner))
        self.A_log = nn.Parameter(torch.arange(1.0, state_size + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.output = initial.residual_linear(inner, width, bias, depth)

    def rates(self) -> Rates:
        """A, (E, N): how fast each number fades in a step of length 1."""
        return -self.A_log.to(least_state_dtype(self.A_log.dtype)).exp()

    def selected(self, x: Inner) -> tuple[Inner, StateVectors, StateVectors]:
        """What each token chooses: its steps dt (B, T, E), and B and C (B, T, N)."""
        state_size, rank = self.sizes.state_size, self.sizes.rank
        low, B, C = self.selection(x).split((rank, state_size, state_size), -1)
        return self.steps(self.step_norm(low)), self.B_norm(B), self.C_norm(C)

    def steps(self, low: Tensor) -> Inner:
        """dt = softplus(step(r)), (B, T, E); the bias is added in float32 at least."""
        wide = least_state_dtype(low.dtype)
        return softplus(linear(low, self.step.weight) + self.step.bias.to(wide))

    def forward(self, x: Stream, state: MambaState | None = None, shared: Shared | None = None) -> tuple[Stream, MambaState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        y, state = self.scanned(x, self.start(x) if state is None else state)
        return self.output(y), state

    def scanned(self, x: Stream, state: MambaState) -> tuple[Inner, MambaState]:
        """What the map back to the stream reads, (B, T, E), and the state after the last token."""
        x, gate = self.input(x).chunk(2, -1)
        x, conv = self.conv(x, state.conv, self.backend)
        x = silu(x)
        dt, B, C = self.selected(x)
        y, ssm = self.op(x, dt, self.rates(), B, C, self.D, state.ssm, backend=self.backend)
        return y * silu(gate), MambaState(conv, ssm)

    def state_after(self, batch: int, length: int, storage: Storage) -> MambaState:
        """The same size after any number of tokens."""
        inner, state_size = self.sizes.inner, self.sizes.state_size
        conv = storage.cached(batch, self.sizes.filter_width - 1, inner)
        return MambaState(conv, storage.recurrent(batch, inner, state_size))
