"""Mamba-2's mixer: one linear map makes everything, a short filter and SSD mix over tokens, a gated norm reads it out."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from hybridlab.layers import initial
from hybridlab.layers.gated_norm import GatedRMSNorm
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.short_filter import ShortFilter
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.ops.ssd import BACKENDS, ssd
from hybridlab.shapes import ConvState, GroupVectors, HeadInputs, PerHead, SSDState, Steps, Stream

# The shortest and longest step that a token may take; the paper's models take any.
ANY_STEP = (0.0, math.inf)


class Mamba2State(NamedTuple):
    """The last inputs of the short filter, and one matrix a head.

    Bytes: B * ((W - 1) * (H * P + 2 * G * N) * bytes of the dtype + H * P * N * bytes of the state dtype).
    """

    conv: ConvState
    ssm: SSDState


class Mamba2Sizes(NamedTuple):
    """How large a Mamba-2 mixer is; none of these depends on the stream's width.

    Attributes:
        heads: H.
        head_width: P, of a head's inputs.
        state_size: N, length of the vectors B and C.
        groups: G; heads in a row share B and C, head h those of group h // (H / G).
        filter_width: W, taps of the short convolution.
    """

    heads: int
    head_width: int = 64
    state_size: int = 128
    groups: int = 1
    filter_width: int = 4

    @property
    def inner(self) -> int:
        """E = H P, channels of all heads."""
        return self.heads * self.head_width

    @property
    def filtered(self) -> int:
        """Channels of x, B and C together: what the short filter sees."""
        return self.inner + 2 * self.groups * self.state_size


class Mamba2Mixer(Layer):
    """y = out(norm(ssd(x, dt, A, B, C, D) * silu(z))), where [z | u | r] = in(stream) and [x | B | C] = silu(conv(u)).

    A token's step is dt = softplus(r + step_bias), kept within limits; A = -exp(A_log), one rate a head. Steps and rates are
    float32 at least.

    Args:
        width: D.
        sizes: H, P, N, G and W.
        depth: where the layer stands, for its initial values.
        bias: whether the maps from and to the stream have biases.
        conv_bias: whether the convolution has one.
        step_limits: the shortest and the longest step; a shortest above 0 lets no token go unread.
        norm_eps: added to mean squares in the gated norm, which has G groups: heads that share B and C are normed together.

    Raises:
        ValueError: groups that do not divide the heads, limits that leave no step, a filter without a tap.

    Source: Mamba-2, arXiv 2405.21060, section 7, and its code. Chapter 05.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(ssd)

    def __init__(
        self,
        width: int,
        sizes: Mamba2Sizes,
        depth: Depth = ONLY_LAYER,
        *,
        bias: bool = False,
        conv_bias: bool = True,
        step_limits: tuple[float, float] = ANY_STEP,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        _check(sizes, step_limits)
        self.sizes, self.step_limits = sizes, step_limits
        inner, filtered, heads = sizes.inner, sizes.filtered, sizes.heads
        self.input = initial.input_linear(width, inner + filtered + heads, bias)
        self.conv = ShortFilter(filtered, sizes.filter_width, conv_bias)
        self.step_bias = nn.Parameter(initial.step_bias(heads))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = GatedRMSNorm(inner, sizes.groups, norm_eps)
        self.output = initial.residual_linear(inner, width, bias, depth)

    def rates(self) -> PerHead:
        """A, (H,): how fast each head's matrix fades in a step of length 1."""
        return -self.A_log.to(least_state_dtype(self.A_log.dtype)).exp()

    def steps(self, raw: Tensor) -> Steps:
        """dt = softplus(r + step_bias) within the limits, (B, T, H)."""
        wide = least_state_dtype(raw.dtype)
        return softplus(raw.to(wide) + self.step_bias.to(wide)).clamp(*self.step_limits)

    def parted(self, filtered: Tensor) -> tuple[HeadInputs, GroupVectors, GroupVectors]:
        """x (B, T, H, P), and B and C (B, T, G, N), out of what was filtered together."""
        sizes = self.sizes
        vectors = sizes.groups * sizes.state_size
        x, B, C = filtered.split((sizes.inner, vectors, vectors), -1)
        B, C = (z.unflatten(-1, (sizes.groups, sizes.state_size)) for z in (B, C))
        return x.unflatten(-1, (sizes.heads, sizes.head_width)), B, C

    def forward(
        self, x: Stream, state: Mamba2State | None = None, shared: Shared | None = None
    ) -> tuple[Stream, Mamba2State]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = self.start(x) if state is None else state
        gate, filtered, raw = self.input(x).split((self.sizes.inner, self.sizes.filtered, self.sizes.heads), -1)
        filtered, conv = self.conv(filtered, state.conv, self.backend)
        x, B, C = self.parted(silu(filtered))
        y, ssm = self.op(x, self.steps(raw), self.rates(), B, C, self.D, state.ssm, backend=self.backend)
        return self.output(self.norm(y.flatten(2), gate)), Mamba2State(conv, ssm)

    def state_after(self, batch: int, length: int, storage: Storage) -> Mamba2State:
        """The same size after any number of tokens."""
        sizes = self.sizes
        conv = storage.cached(batch, sizes.filter_width - 1, sizes.filtered)
        return Mamba2State(conv, storage.recurrent(batch, sizes.heads, sizes.head_width, sizes.state_size))


def are_limits(steps: object) -> bool:
    """Whether this is a shortest and a longest step, with steps between them."""
    numbers = isinstance(steps, tuple) and len(steps) == 2 and all(isinstance(step, int | float) for step in steps)
    return numbers and 0 <= steps[0] <= steps[1] and steps[0] < math.inf  # type: ignore[index]


def _check(sizes: Mamba2Sizes, step_limits: tuple[float, float]) -> None:
    if sizes.groups < 1 or sizes.heads % sizes.groups:
        raise ValueError(f"Mamba2Mixer: groups must be a positive divisor of heads = {sizes.heads}, got {sizes.groups}")
    if not are_limits(step_limits):
        expected = "(shortest, longest) with 0 <= shortest <= longest"
        raise ValueError(f"Mamba2Mixer: step_limits must be {expected}, got {step_limits}")
