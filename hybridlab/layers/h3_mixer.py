"""H3's mixer: keys that see the tokens just before, times values, into a memory of decaying waves, read by queries."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridlab.layers import initial
from hybridlab.layers.kept import Kept
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.modes import as_complex, bilinear, complex_zeros, wave_rates, wave_steps
from hybridlab.ops.modal_conv import BACKENDS, modal_conv
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.ops.short_conv import short_conv
from hybridlab.shapes import ConvState, Stream


class H3State(NamedTuple):
    """The last N - 1 keys, and N / 2 complex numbers for each product of a key and a value channel.

    Bytes: B * D * ((N - 1) * bytes of the dtype + K * N * bytes of the state dtype), K channels a head.
    """

    shift: ConvState
    waves: Tensor


class Dynamics(NamedTuple):
    """What both memories compute with: taps (D, N) of the shift, poles and residues (G, N / 2) of the waves."""

    taps: Tensor
    poles: Tensor
    residues: Tensor


class H3Mixer(Layer):
    """y = out(q . waves(shift(k) v)): with one channel a head, each of the two memories works channel by channel.

    The shift memory holds the last N keys: shift(k)_t = sum_j a_j k_{t - j} + D' k_t, a_j = sum_n B'_n C'_{n + j}. The waves
    are a diagonal state-space model of N / 2 complex numbers, s' = A s + B u in continuous time with A = -exp(log_rate) +
    i frequency, read as 2 Re(sum C s) + D u; steps of dt make it the s_t = p s_{t-1} + dt B u_t / (1 - dt A / 2) of tokens.

    With K > 1 channels a head, u_t is the outer product of its keys and values: one model of waves serves all K * K, and the
    queries add up over the keys. What comes out lies value by value, all heads of the first value channel first, although
    queries, keys and values come in head by head: so the authors' weights want it.

    Args:
        width: D.
        state_size: N, even.
        head_width: K; D / K heads.

    Raises:
        ValueError: an odd N, or K that does not divide D.

    Source: H3, arXiv 2212.14052, section 3 and the authors' code, whose initial values these are. Chapter 06.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(modal_conv)

    def __init__(self, width: int, state_size: int = 64, head_width: int = 1) -> None:
        super().__init__()
        if state_size % 2 or state_size < 2:
            raise ValueError(f"H3Mixer: state_size must be even and at least 2, got {state_size}")
        if width % head_width:
            raise ValueError(f"H3Mixer: head_width must divide width {width}, got {head_width}")
        self.width, self.state_size, self.head_width = width, state_size, head_width
        heads, modes = width // head_width, state_size // 2
        self.query, self.key, self.value = (initial.normal(width, width, bias=True) for _ in range(3))
        self.shift_in = nn.Parameter(torch.eye(1, state_size).repeat(width, 1))
        self.shift_out = nn.Parameter(torch.empty(width, state_size).uniform_(-(state_size**-0.5), state_size**-0.5))
        self.shift_skip = nn.Parameter(torch.randn(width))
        rates = wave_rates(modes)
        self.log_step = nn.Parameter(wave_steps(heads))
        self.log_rate = nn.Parameter((-rates.real).log().repeat(heads, 1))
        self.frequency = nn.Parameter(rates.imag.repeat(heads, 1))
        self.wave_in = nn.Parameter(torch.tensor([1.0, 0.0]).repeat(heads, modes, 1))
        self.wave_out = nn.Parameter(torch.randn(heads, modes, 2) * 2**-0.5)
        self.skip = nn.Parameter(torch.randn(heads))
        self.output = initial.normal(width, width, bias=True)
        self.kept: Kept[Dynamics] = Kept()

    def dynamics(self) -> Dynamics:
        """The two memories in discrete time, in float32 at least."""
        shift = (self.shift_in, self.shift_out, self.shift_skip)
        waves = (self.log_step, self.log_rate, self.frequency, self.wave_in, self.wave_out)
        return self.kept.get((*shift, *waves), lambda: Dynamics(self._taps(), *self._waves()))

    def _taps(self) -> Tensor:
        """(D, N), the present last, as `short_conv` has it; the skip is part of it."""
        wide = least_state_dtype(self.shift_in.dtype)
        size = 2 * self.state_size  # the correlation is circular: zeros keep its two ends apart
        written, read = (torch.fft.rfft(x.to(wide), n=size) for x in (self.shift_in, self.shift_out))
        taps = torch.fft.irfft(written.conj() * read, n=size)[:, : self.state_size].flip(1)
        return torch.cat((taps[:, :-1], taps[:, -1:] + self.shift_skip.to(wide).unsqueeze(1)), 1)

    def _waves(self) -> tuple[Tensor, Tensor]:
        """Poles and residues, (G, N / 2) each."""
        wide = least_state_dtype(self.log_step.dtype)
        rates = torch.complex(-self.log_rate.to(wide).exp(), self.frequency.to(wide))
        step = self.log_step.to(wide).exp().unsqueeze(1)
        poles, gains = bilinear(rates, step)
        return poles, gains * as_complex(self.wave_out) * as_complex(self.wave_in)

    def forward(self, x: Stream, state: H3State | None = None, shared: Shared | None = None) -> tuple[Stream, H3State]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = self.start(x) if state is None else state
        taps, poles, residues = self.dynamics()
        k, shift = short_conv(self.key(x), taps, None, state.shift, backend=self.backend)
        q, k, v = (part.unflatten(2, (-1, self.head_width)) for part in (self.query(x), k, self.value(x)))
        products = (k.unsqueeze(4) * v.unsqueeze(3)).flatten(2)  # (B, T, G * K * K)
        poles, residues, skip = (part.repeat_interleave(self.head_width**2, 0) for part in (poles, residues, self.skip))
        y, waves = self.op(products, poles, residues, skip, state.waves, backend=self.backend)
        y = (q.unsqueeze(4) * y.unflatten(2, (-1, self.head_width, self.head_width))).sum(3)  # (B, T, G, K) by value
        return self.output(y.transpose(2, 3).flatten(2)), H3State(shift, waves)

    def state_after(self, batch: int, length: int, storage: Storage) -> H3State:
        """The same size after any number of tokens."""
        shift = storage.cached(batch, self.state_size - 1, self.width)
        return H3State(shift, complex_zeros(storage, batch, self.width * self.head_width, self.state_size // 2))
