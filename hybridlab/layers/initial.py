"""Initial values for training from scratch, as the authors of each architecture chose them.

RWKV starts every channel with a clock and a taste of its own: decays and mixing weights are ramps over the channels whose
slope depends on depth, and whatever writes into the residual stream starts at zero, so that a block begins as the identity.
Mamba's clocks are its steps: drawn evenly on a logarithmic scale, from a thousandth to a tenth of a time constant.
Griffin draws its decays as points on a ring in the plane of complex numbers, close to 1, and takes their sizes.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Depth(NamedTuple):
    """Where a layer stands in its model: number `layer` (from 0) of `layers`."""

    layer: int = 0
    layers: int = 1

    @property
    def rising(self) -> float:
        """0 in the first layer, 1 in the last."""
        return self.layer / max(1, self.layers - 1)

    @property
    def falling(self) -> float:
        """1 in the first layer, almost 0 in the last."""
        return 1 - self.layer / self.layers


# A layer that stands for itself.
ONLY_LAYER = Depth()


def mix_ramp(width: int, power: float) -> Tensor:
    """The weight of the present token in a token shift: (i / D)^power over channels i."""
    return (torch.arange(width) / width) ** power


def decay_ramp(channels: int, slowest: float, span: float, depth: Depth) -> Tensor:
    """log(-log decay) over channels: from `slowest` to `slowest + span`, bent towards slow clocks in deeper layers."""
    fraction = torch.arange(channels) / max(1, channels - 1)
    return slowest + span * fraction ** (0.7 + 1.3 * depth.rising)


def zigzag(channels: int) -> Tensor:
    """-1, 0 or 1 by channel, so that neighbours differ: 0, 1, -1, 0, 1, -1, ..."""
    return (torch.arange(channels) + 1) % 3 - 1


def bonus_ramp(channels: int, depth: Depth) -> Tensor:
    """The bonus of RWKV-5 and RWKV-6: a falling ramp in deep layers, plus a small zigzag."""
    fraction = torch.arange(channels) / max(1, channels - 1)
    return depth.rising * (1 - fraction) + 0.1 * zigzag(channels)


def tilt(channels: int) -> Tensor:
    """From -1/2 in the first channel to 1/2 in the last."""
    return torch.arange(channels) / max(1, channels - 1) - 0.5


def head_bend(heads: int, head_width: int) -> Tensor:
    """From -1 to 1 over the channels of each head, flat in the middle: the square with its sign, (H * K,)."""
    straight = 2 * tilt(head_width)
    return (straight * straight.abs()).repeat(heads)


def uniform(inputs: int, outputs: int, bound: float) -> nn.Linear:
    """RWKV-7's map: entries within +-bound / sqrt(inputs); no bias."""
    linear = _empty_linear(inputs, outputs)
    nn.init.uniform_(linear.weight, -bound * inputs**-0.5, bound * inputs**-0.5)
    return linear


def orthogonal(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    """A linear map without bias whose matrix starts orthogonal."""
    linear = _empty_linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    return linear


def zeros(inputs: int, outputs: int) -> nn.Linear:
    """A linear map without bias that starts at zero."""
    linear = _empty_linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    return linear


def normal(inputs: int, outputs: int, std: float = 0.02, bias: bool = False) -> nn.Linear:
    """A linear map with normal entries; its bias, if it has one, starts at zero."""
    linear = _empty_linear(inputs, outputs, bias)
    nn.init.normal_(linear.weight, std=std)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def residual_std(depth: Depth) -> float:
    """GPT-2's spread of what writes into the stream: two writers a layer add up to the spread of one matrix."""
    return 0.02 / math.sqrt(2 * depth.layers)


def step_bias(channels: int, shortest: float = 1e-3, longest: float = 0.1, floor: float = 1e-4) -> Tensor:
    """What softplus turns into steps of `shortest` to `longest`, log-uniform over channels, none below `floor`."""
    low, high = math.log(shortest), math.log(longest)
    steps = torch.empty(channels).uniform_(low, high).exp().clamp_min(floor)
    return steps + torch.log(-torch.expm1(-steps))


def input_linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    """Mamba's map from the stream: PyTorch's start; no bias at first."""
    linear = nn.Linear(inputs, outputs, bias=bias)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def residual_linear(inputs: int, outputs: int, bias: bool, depth: Depth) -> nn.Linear:
    """Mamba's map back to the stream: as `input_linear`, divided by the root of the number of layers."""
    linear = input_linear(inputs, outputs, bias)
    with torch.no_grad():
        linear.weight /= math.sqrt(depth.layers)
    return linear


def unit_linear(inputs: int, outputs: int, variance: float = 1.0, bias: bool = True) -> nn.Linear:
    """Griffin's map: of inputs with variance 1 it makes outputs with this variance; its bias starts at zero."""
    linear = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(linear.weight, std=math.sqrt(variance / inputs))
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def ring_rate(channels: int, inner: float = 0.9, outer: float = 0.999) -> Tensor:
    """What softplus turns into -log a, where a is the distance of a random point on a ring from its middle."""
    log_a = torch.empty(channels).uniform_(inner**2, outer**2).log() / 2
    return torch.log(torch.expm1(-log_a))


def glorot(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    """RetNet's map: Glorot's uniform start, times a gain; no bias."""
    linear = _empty_linear(inputs, outputs)
    nn.init.xavier_uniform_(linear.weight, gain)
    return linear


def _empty_linear(inputs: int, outputs: int, bias: bool = False) -> nn.Linear:
    # Without this, PyTorch would fill the matrix once more than needed. It does not look at the default device by itself.
    return nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias, device=torch.get_default_device())
