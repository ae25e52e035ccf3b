"""Hyena's implicit filter: a small network says how much an input weighs by how long ago it was."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from hybridlab.layers import initial
from hybridlab.layers.kept import Kept
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.shapes import LongFilter

# Of the windows that fade with time, the fastest and the slowest are down to a hundredth after so many filter lengths.
FASTEST, SLOWEST, FADED = 0.3, 1.5, 1e-2


class HyenaSizes(NamedTuple):
    """Sizes of a Hyena mixer; none depends on the stream's width.

    Attributes:
        order: N, long convolutions and one: there are N gates and N - 1 filters.
        taps: W, of each filter: what was longer ago is not seen.
        features: of a time, which the network reads; odd.
        hidden: width of the network.
        inner: its maps from hidden to hidden.
        frequency: what the network's sines begin with.
        fading: whether the filter is multiplied by a window that fades with time.
        floor: what the window fades to; None is 0.
        filter_width: taps of the short convolution.
    """

    order: int = 2
    taps: int = 2048
    features: int = 33
    hidden: int = 64
    inner: int = 2
    frequency: float = 14.0
    fading: bool = True
    floor: float | None = None
    filter_width: int = 3


class HyenaFilter(nn.Module):
    """h_tc = network(z_t)_c * (exp(-tau_t decay_c) + floor), tau_t = t / (W - 1), for t = 0 ... W - 1.

    The features z of the times are learned too: they begin as tau_t and the cosines and sines of 2 pi f t / W at a few
    frequencies f. The network is a chain of linear maps with sin(frequency * a) between them, one learned frequency a hidden
    channel for all sines. Everything is computed in float32 at least.

    Args:
        channels: filters.
        sizes: W, and those of the network.

    Source: Hyena, arXiv 2302.10866, section 3.3 and the authors' code, whose initial values these are. Chapter 06.
    """

    def __init__(self, channels: int, sizes: HyenaSizes) -> None:
        super().__init__()
        self.sizes = sizes
        widths = (sizes.features, *(1 + sizes.inner) * (sizes.hidden,), channels)
        steps = list(pairwise(widths))
        self.features = nn.Parameter(time_features(sizes.taps, sizes.features))
        self.frequency = nn.Parameter(torch.full((sizes.hidden,), float(sizes.frequency)))
        self.maps = nn.ModuleList(initial.normal(*ends, bias=index < len(steps) - 1) for index, ends in enumerate(steps))
        self.decay: Tensor
        self.register_buffer("decay", torch.linspace(1 / SLOWEST, 1 / FASTEST, channels) * -math.log(FADED))
        self.kept: Kept[Tensor] = Kept()

    def forward(self, length: int) -> LongFilter:
        """At least the first `length` taps, (channels, length or more), or all of them if there are fewer."""
        sources = (*self.parameters(), self.decay)
        return self.kept.get(
            sources, lambda: self._ahead(length), lambda taps: taps.shape[1] >= min(length, self.sizes.taps)
        )

    def _ahead(self, length: int) -> Tensor:
        """Where taps are kept for later calls, a power of two of them, so that decoding seldom needs more."""
        return self.computed(length if torch.is_grad_enabled() else 1 << (length - 1).bit_length())

    def computed(self, length: int) -> LongFilter:
        """The first `length` taps, or all if there are fewer, (channels, length); kept time by time, as ops read them."""
        wide = least_state_dtype(self.features.dtype)
        taps = self.features[:length].to(wide)
        for index, step in enumerate(self.maps):
            if index:
                taps = torch.sin(self.frequency.to(wide) * taps)
            taps = linear(taps, *(part.to(wide) for part in step.parameters()))
        return (taps * self._window(len(taps), wide)).mT if self.sizes.fading else taps.mT

    def _window(self, length: int, dtype: torch.dtype) -> Tensor:
        """(length, channels)."""
        times = torch.arange(length, dtype=dtype, device=self.decay.device) / max(1, self.sizes.taps - 1)
        return torch.exp(torch.outer(-times, self.decay.to(dtype).abs())) + (self.sizes.floor or 0.0)


def time_features(taps: int, features: int) -> Tensor:
    """What the network first reads of the times 0 ... W - 1, (W, features): tau, cosines, and sines with a minus."""
    bands = (features - 1) // 2
    times = torch.arange(taps)
    angles = torch.outer(times * (2 * math.pi / taps), torch.linspace(1e-4, bands - 1, bands))
    return torch.cat((times.unsqueeze(1) / max(1, taps - 1), angles.cos(), -angles.sin()), 1)
