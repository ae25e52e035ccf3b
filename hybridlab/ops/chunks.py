"""Stretches of tokens and how much of them fades: what the chunked forms of several ops share."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def in_chunks(x: Tensor, chunk_size: int) -> Tensor:
    """(B, T, ...) to (B, chunks, chunk_size, ...); the end is filled with zeros: tokens that do nothing."""
    missing = -x.shape[1] % chunk_size
    return pad(x, (0, 0) * (x.ndim - 2) + (0, missing)).unflatten(1, (-1, chunk_size))


def fading_outside(log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decays from the start up to each token, from after each token to the end, and of the whole stretch."""
    sums = log_decay.cumsum(-1)
    after = pad(log_decay[..., 1:].flip(-1).cumsum(-1).flip(-1), (0, 1))
    return sums.exp(), after.exp(), sums[..., -1].exp()


def log_fading_between(log_decay: Tensor) -> Tensor:
    """Log decay from after token s up to token t, (..., t, s); -inf where s is later than t."""
    length = log_decay.shape[-1]
    seen = torch.ones(length, length, dtype=torch.bool, device=log_decay.device).tril()
    steps = log_decay.unsqueeze(-1).expand(*log_decay.shape, length).masked_fill(~seen.tril(-1), 0)
    return steps.cumsum(-2).masked_fill(~seen, float("-inf"))
