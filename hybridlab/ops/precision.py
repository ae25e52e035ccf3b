"""In which dtype recurrent states are kept and sums are taken."""

import torch
from torch import Tensor


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Recurrent states are float32 at least: what is added a million times needs the digits."""
    return torch.float64 if dtype == torch.float64 else torch.float32


# What `to_complex` of a dtype says; torch.compile cannot trace that.
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def complex_state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Two of the numbers that recurrent states are kept in."""
    return COMPLEX[state_dtype(dtype)]


def widened(state: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the dtype of the state, in which everything is computed."""
    return tuple(x.to(state.dtype) for x in tensors)
