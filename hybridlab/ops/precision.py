"""In which dtype recurrent states are kept and sums are taken."""

import torch
from torch import Tensor


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Recurrent states are float32 at least: what is added a million times needs the digits."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def widened(state: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the dtype of the state, in which everything is computed."""
    return tuple(x.to(state.dtype) for x in tensors)
