"""StripedHyena's mixer: Hyena of order 2 whose filter is a sum of decaying waves, so that its state does not grow."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.modes import as_complex, bilinear, complex_zeros, wave_rates, wave_steps
from hybridlab.layers.short_filter import ShortFilter
from hybridlab.ops.modal_conv import BACKENDS, modal_conv
from hybridlab.shapes import ConvState, Stream


class StripedHyenaState(NamedTuple):
    """The last W - 1 inputs of the short convolution, and N complex numbers a channel.

    Bytes: B * D * (3 * (W - 1) * bytes of the dtype + 2 * N * bytes of the state dtype).
    """

    conv: ConvState
    waves: Tensor


class StripedHyenaSizes(NamedTuple):
    """Sizes of a StripedHyena mixer; none depends on the stream's width.

    Attributes:
        state_size: N, waves a filter.
        filter_width: W, taps of the short convolution.
        filter_bias: whether the short convolution has biases.
        heads: the projections lie head by head, [x_2 | x_1 | v] in each; None: in three parts of the whole width.
    """

    state_size: int = 2
    filter_width: int = 3
    filter_bias: bool = True
    heads: int | None = None


DEFAULT_SIZES = StripedHyenaSizes()


class StripedHyenaMixer(Layer):
    """y = out(x_2 * (h * u + D u)), u = x_1 v, where [x_2 | x_1 | v] = conv(in(x)) and h_t = Re sum_n R_n p_n^t.

    The star of h is a convolution over all of the past, but the poles p and residues R let it be carried in N complex
    numbers a channel. They begin as the waves of H3: the authors learned them in that form and converted them afterwards.

    Args:
        width: D.
        sizes: N, W and how channels lie.

    Raises:
        ValueError: heads that do not divide the width.

    Source: the authors' code, togethercomputer/stripedhyena (its checkpoint_conversion.py for the form that was learned);
    modal filters, arXiv 2310.18780. Chapter 06.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(modal_conv)

    def __init__(self, width: int, sizes: StripedHyenaSizes = DEFAULT_SIZES) -> None:
        super().__init__()
        if width % (sizes.heads or 1):
            raise ValueError(f"StripedHyenaMixer: heads must divide width {width}, got {sizes.heads}")
        self.width, self.sizes = width, sizes
        poles, gains = bilinear(wave_rates(sizes.state_size), wave_steps(width).exp().unsqueeze(1))
        heard = gains * as_complex(torch.randn(width, sizes.state_size, 2) * 2**-0.5)
        self.input = nn.Linear(width, 3 * width)
        self.conv = ShortFilter(3 * width, sizes.filter_width, sizes.filter_bias)
        self.poles = nn.Parameter(torch.view_as_real(poles))
        self.residues = nn.Parameter(torch.view_as_real(heard))
        self.D = nn.Parameter(torch.zeros(width))
        self.output = nn.Linear(width, width)

    def forward(
        self, x: Stream, state: StripedHyenaState | None = None, shared: Shared | None = None
    ) -> tuple[Stream, StripedHyenaState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = self.start(x) if state is None else state
        projected, conv = self.conv(self.input(x), state.conv, self.backend)
        # Head by head, or as if there were one head.
        gate, key, value = (part.flatten(2) for part in projected.unflatten(2, (self.sizes.heads or 1, 3, -1)).unbind(3))
        poles, residues = as_complex(self.poles), as_complex(self.residues)
        y, waves = self.op(key * value, poles, residues, self.D, state.waves, backend=self.backend)
        return self.output(y * gate), StripedHyenaState(conv, waves)

    def state_after(self, batch: int, length: int, storage: Storage) -> StripedHyenaState:
        """The same size after any number of tokens."""
        conv = storage.cached(batch, self.sizes.filter_width - 1, 3 * self.width)
        return StripedHyenaState(conv, complex_zeros(storage, batch, self.width, self.sizes.state_size))
