"""DeltaNet's token mixer: heads that correct what they have under a key, instead of adding to it."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import normalize, rms_norm, silu

from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.ops.delta_rule import BACKENDS, delta_rule
from hybridlab.shapes import MatrixState, Stream


class DeltaState(NamedTuple):
    """A matrix a head.

    Bytes: B * H * K * V * bytes of the state dtype.
    """

    delta: MatrixState


class DeltaMixer(Layer):
    """y = out(norm(delta_rule(q, k, v, beta))), with k and q scaled to length 1 and beta = strongest * sigmoid(strength(x)).

    Along its key a token multiplies the state by 1 - beta. With `strongest` = 1 that is never negative: a memory can be kept
    or erased. With 2 it reaches -1: a memory can change its sign, and a token can mirror the state at a plane.

    The published layer has a short convolution in front of q, k and v besides; here a token sees the others through its
    state alone. The norm is an RMS norm of each head for itself, without weights.

    Args:
        width: D.
        heads: H.
        head_width: K = V.
        strongest: the upper limit of beta, from above 0 to 2.
        eps: added to the mean squares.

    Raises:
        ValueError: for a limit that lets the state grow.

    Source: DeltaNet, arXiv 2406.06484, section 3; beta up to 2, arXiv 2411.12537. Chapter 08.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(delta_rule)

    def __init__(self, width: int, heads: int, head_width: int, strongest: float = 1.0, eps: float = 1e-5) -> None:
        super().__init__()
        if not 0 < strongest <= 2:
            raise ValueError(f"DeltaMixer: strongest must be above 0 and at most 2, got {strongest}")
        self.heads, self.head_width, self.strongest, self.eps = heads, head_width, strongest, eps
        self.query, self.key, self.value = (nn.Linear(width, heads * head_width, bias=False) for _ in range(3))
        self.strength = nn.Linear(width, heads)
        self.output = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, x: Stream, state: DeltaState | None = None, shared: Shared | None = None) -> tuple[Stream, DeltaState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        state = self.start(x) if state is None else state
        q, k, v = (linear(x).unflatten(-1, (self.heads, -1)) for linear in (self.query, self.key, self.value))
        q, k = (normalize(silu(y), dim=-1) for y in (q, k))
        beta = self.strongest * torch.sigmoid(self.strength(x))
        read, after = self.op(q, k, v, beta, state.delta, backend=self.backend)
        return self.output(rms_norm(read, read.shape[-1:], eps=self.eps).flatten(2)), DeltaState(after)

    def state_after(self, batch: int, length: int, storage: Storage) -> DeltaState:
        """The same size after any number of tokens."""
        return DeltaState(storage.recurrent(batch, self.heads, self.head_width, self.head_width))
