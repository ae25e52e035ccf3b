"""Token shift: every token also sees the one before it, the cheapest memory there is.

The two ways of mixing give the mixing weight mu opposite meanings: up to RWKV-5 it weighs the present token, from RWKV-6 on
the previous one.
"""

import torch
from torch import Tensor

from hybridlab.shapes import ShiftState, Stream


def previous(x: Stream, last: ShiftState) -> Stream:
    """The token before each token: x delayed by one, with the carried token in front.

    Args:
        x: (B, T, D).
        last: the token before x, (B, D); zeros at the start of a sequence.

    Raises:
        ValueError: if `last` does not fit x.
    """
    expected = (x.shape[0], x.shape[2])
    if tuple(last.shape) != expected or last.dtype != x.dtype or last.device != x.device:
        found = f"{tuple(last.shape)} {last.dtype} on {last.device}"
        raise ValueError(f"token shift: the carried token must be {expected} {x.dtype} on {x.device}, got {found}")
    return torch.cat((last.unsqueeze(1), x[:, :-1]), 1)


def last_token(x: Stream) -> ShiftState:
    """What the next call needs of x, in storage of its own."""
    return x[:, -1].clone(memory_format=torch.contiguous_format)


def weigh_present(x: Tensor, past: Tensor, mu: Tensor) -> Tensor:
    """mu x + (1 - mu) past: the mixing of RWKV-4 and RWKV-5."""
    return torch.lerp(past, x, mu)


def weigh_past(x: Tensor, past: Tensor, mu: Tensor) -> Tensor:
    """x + mu (past - x): the mixing of RWKV-6."""
    return torch.lerp(x, past, mu)


def weights_by_token(x: Stream, past: Stream, mix_x: Tensor, mus: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """mu_j + tanh((x + mu_x (past - x)) down_j) up_j: how much of the past each of several mixtures takes, for each token.

    Args:
        x: (B, T, D).
        past: the token before each, (B, T, D).
        mix_x: mu_x, of what the network reads, (D,).
        mus: mu_j, (J, D).
        down: the networks' way in, side by side, (D, J * rank).
        up: their way out, (J, rank, D).

    Returns:
        weights for `weigh_past`, (J, B, T, D).
    """
    inner = torch.tanh(weigh_past(x, past, mix_x) @ down).unflatten(-1, (len(mus), -1))
    return torch.einsum("b t j m, j m d -> j b t d", inner, up) + mus[:, None, None]
