"""How much of the token before it each token takes in: some by habit, some because of what the two of them are."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hybridlab.layers.token_shift import weights_by_token
from hybridlab.shapes import Stream


class MixingWeights(nn.Module):
    """The weights of the past in several mixtures at once: mu_j + tanh((x + mu_x (past - x)) down_j) up_j.

    `down` starts at zero, so that the weights are mu_j for every token at first.

    Args:
        mix_x: mu_x, the weight of the past in what the network reads, (D,).
        mus: mu_j by name, (D,) each, in the order in which the weights are returned.
        rank: inner width of the network, for each mixture.

    Source: Eagle and Finch, arXiv 2404.05892, the token shift of Finch. Chapter 11.
    """

    def __init__(self, mix_x: Tensor, mus: Mapping[str, Tensor], rank: int) -> None:
        super().__init__()
        self.mix_x = nn.Parameter(mix_x)
        self.mus = nn.ParameterDict(mus.items())  # of a dict, it would sort the names
        self.down = nn.Parameter(torch.zeros(len(mix_x), len(mus) * rank))
        self.up = nn.Parameter(torch.empty(len(mus), rank, len(mix_x)).uniform_(-0.01, 0.01))

    def forward(self, x: Stream, past: Stream) -> tuple[Stream, ...]:
        """A weight for every token and channel, (B, T, D), in each mixture; `weigh_past` takes it."""
        habits = torch.stack(tuple(self.mus.values()))
        return weights_by_token(x, past, self.mix_x, habits, self.down, self.up).unbind(0)
