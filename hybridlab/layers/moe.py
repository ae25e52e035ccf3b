"""A mixture of experts: many gated MLPs, of which each token goes through a few, chosen by a router."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage
from hybridlab.layers.swiglu import SwiGLU
from hybridlab.ops.precision import state_dtype
from hybridlab.shapes import Stream
from hybridlab.state import Empty


class Routing(NamedTuple):
    """How many experts there are, how many a token goes through, and how those are weighed.

    Attributes:
        experts: in a layer.
        active: that a token goes through, those with the largest probabilities; at most `experts`.
        renormalised: whether the probabilities of the chosen are divided by their sum, as in Mixtral. That is the softmax
            over their logits alone. In Jamba they are not, and an unsure router makes the layer quieter.
    """

    experts: int
    active: int
    renormalised: bool = True

    def weigh(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of each token's experts, (..., active), from logits (..., experts); in float32 at least."""
        weights, chosen = logits.to(state_dtype(logits.dtype)).softmax(-1).topk(self.active, -1)
        total = weights.sum(-1, keepdim=True) if self.renormalised else 1
        return weights / total, chosen


class MixtureOfExperts(Layer):
    """y = sum over the chosen e of w_e expert_e(x), the experts SwiGLUs; the others are not computed. It carries nothing.

    Args:
        width: D.
        hidden: F, of each expert.
        routing: how many experts, and how they are chosen and weighed.
        depth: where the layer stands, for its initial values.

    Raises:
        ValueError: if a token is to go through no expert, or through more than there are.

    Source: Mixtral, arXiv 2401.04088, section 2.1; Jamba, arXiv 2403.19887. Chapter 11.
    """

    def __init__(self, width: int, hidden: int, routing: Routing, depth: Depth = ONLY_LAYER) -> None:
        super().__init__()
        if not 1 <= routing.active <= routing.experts:
            raise ValueError(f"MixtureOfExperts: routing.active must be in 1..{routing.experts}, got {routing.active}")
        self.routing = routing
        self.router = initial.normal(width, routing.experts)
        self.experts = nn.ModuleList(SwiGLU(width, hidden, depth) for _ in range(routing.experts))

    def forward(self, x: Stream, state: Empty | None = None, shared: Shared | None = None) -> tuple[Stream, Empty]:
        """(B, T, D) to (B, T, D)."""
        weights, chosen = self.routing.weigh(self.router(x))
        visits = chosen.flatten()
        by_expert = visits.argsort(stable=True)
        # One row a visit, experts one after the other; to each its visitors are one sequence.
        rows = x.flatten(0, 1)[by_expert // self.routing.active].unsqueeze(0).split(self._visitors(visits), 1)
        outputs = [expert(part)[0] for expert, part in zip(self.experts, rows, strict=True) if part.shape[1]]
        y = torch.cat(outputs, 1).squeeze(0)[by_expert.argsort()].view(*chosen.shape, -1)
        return (weights.unsqueeze(-1) * y).sum(-2).to(x.dtype), Empty()

    def state_after(self, batch: int, length: int, storage: Storage) -> Empty:
        """Nothing."""
        return Empty()

    def idle_parameters(self) -> int:
        """Parameters that a token does not use: those of the experts that it does not go through."""
        one = sum(parameter.numel() for parameter in self.experts[0].parameters())
        return one * (self.routing.experts - self.routing.active)

    def _visitors(self, visits: Tensor) -> list[int]:
        """Visits of each expert; on the meta device, where nobody knows, all are the first one's: the same work."""
        if visits.is_meta:
            return [len(visits)] + [0] * (self.routing.experts - 1)
        return visits.bincount(minlength=self.routing.experts).tolist()
