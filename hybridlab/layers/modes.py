"""Complex numbers of layers that remember in decaying waves: kept as pairs of real ones, as their authors do."""

import math

import torch
from torch import Tensor

from hybridlab.layers.layer import Storage
from hybridlab.ops.precision import COMPLEX
from hybridlab.ops.precision import state_dtype as least_state_dtype


def as_complex(pairs: Tensor) -> Tensor:
    """(..., 2), real and imaginary parts in any float dtype, to (...), in complex64 at least."""
    return torch.view_as_complex(pairs.to(least_state_dtype(pairs.dtype)).contiguous())


def complex_zeros(storage: Storage, *shape: int) -> Tensor:
    """Where a recurrent state of complex numbers is added up: each is two numbers of the state's dtype.

    Complex numbers of 16-bit halves cannot be computed with; where they are only counted, they are pairs in a last axis.
    """
    if storage.state_dtype not in COMPLEX:
        return storage.recurrent(*shape, 2)
    return torch.zeros(shape, dtype=COMPLEX[storage.state_dtype], device=storage.device)


def bilinear(rates: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Waves of continuous time, s' = A s + u, read every `step`: their poles, and what 2 Re(c s) makes of c = 1.

    p = (1 + dt A / 2) / (1 - dt A / 2), gain = 2 dt / (1 - dt A / 2), both of the shape of the rates A.
    """
    half = step * rates / 2
    return (1 + half) / (1 - half), 2 * step / (1 - half)


def wave_rates(modes: int) -> Tensor:
    """Where the waves of S4D-Lin begin, complex (modes,): all fade at the rate 1/2, number n turns by pi n a time unit."""
    return torch.complex(torch.full((modes,), -0.5), math.pi * torch.arange(modes))


def wave_steps(channels: int, shortest: float = 1e-3, longest: float = 0.1) -> Tensor:
    """log of the time that a token takes, (channels,): log-uniform from `shortest` to `longest`."""
    return torch.empty(channels).uniform_(math.log(shortest), math.log(longest))
