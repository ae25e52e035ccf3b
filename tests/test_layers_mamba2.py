"""Mamba-2's mixer and its gated norm, against the same thing written out number by number."""

import math

import pytest
import torch
from torch import Tensor

from hybridlab.layers import Depth, GatedRMSNorm, Mamba2Mixer, Mamba2Sizes, set_backend
from hybridlab.measure.recording import recording

WIDTH, HEADS, HEAD_WIDTH, STATE, GROUPS, FILTER = 12, 6, 4, 5, 3, 3
SIZES = Mamba2Sizes(HEADS, HEAD_WIDTH, STATE, GROUPS, FILTER)
LIMITS = (0.4, 1.1)


def mixer(**choices: object) -> Mamba2Mixer:
    """Float64, and away from its initial values."""
    layer = Mamba2Mixer(WIDTH, SIZES, **choices).double()
    for parameter in layer.parameters():
        parameter.data.add_(0.5 * torch.randn_like(parameter))
    set_backend(layer, "naive")
    return layer


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def normed(x: Tensor, weight: Tensor, groups: int, eps: float) -> Tensor:
    """Slice by slice: neighbours are normalised together."""
    size = x.numel() // groups
    parts = [x[g * size : (g + 1) * size] for g in range(groups)]
    return torch.cat([part / (part.square().mean() + eps).sqrt() for part in parts]) * weight


def by_hand(layer: Mamba2Mixer, x: Tensor, limits: tuple[float, float], eps: float) -> Tensor:
    """One sequence (T, D): every row of the first map cut by its place, one state a head, one token after the other."""
    p = {name: value.detach() for name, value in layer.named_parameters()}
    channels, vectors = HEADS * HEAD_WIDTH, GROUPS * STATE
    seen = [torch.zeros(channels + 2 * vectors, dtype=x.dtype)] * FILTER
    states = [torch.zeros(HEAD_WIDTH, STATE, dtype=x.dtype) for _ in range(HEADS)]
    outputs = []
    for x_t in x:
        row = p["input.weight"] @ x_t + p.get("input.bias", 0)
        z, filtered, raw = row[:channels], row[channels:-HEADS], row[-HEADS:]
        seen = [*seen[1:], filtered]
        mixed = silu(sum(p["conv.weight"][:, j] * seen[j] for j in range(FILTER)) + p.get("conv.bias", 0))
        inputs, B, C = mixed[:channels], mixed[channels : channels + vectors], mixed[channels + vectors :]
        read = []
        for h in range(HEADS):
            group = slice(h // (HEADS // GROUPS) * STATE, (h // (HEADS // GROUPS) + 1) * STATE)
            x_h = inputs[h * HEAD_WIDTH : (h + 1) * HEAD_WIDTH]
            dt = math.log1p(math.exp(raw[h] + p["step_bias"][h]))
            dt = min(max(dt, limits[0]), limits[1])
            states[h] = math.exp(-dt * math.exp(p["A_log"][h])) * states[h] + dt * torch.outer(x_h, B[group])
            read.append(states[h] @ C[group] + p["D"][h] * x_h)
        y = normed(torch.cat(read) * silu(z), p["norm.weight"], GROUPS, eps)
        outputs.append(p["output.weight"] @ y + p.get("output.bias", 0))
    return torch.stack(outputs)


@torch.no_grad()
@pytest.mark.parametrize(
    ("choices", "limits", "eps"),
    [
        ({}, (0.0, math.inf), 1e-5),
        ({"bias": True, "conv_bias": False}, (0.0, math.inf), 1e-5),
        ({"step_limits": LIMITS}, LIMITS, 1e-5),
        ({"norm_eps": 0.1}, (0.0, math.inf), 0.1),
    ],
    ids=["plain", "biases", "steps within limits", "another eps"],
)
def test_number_by_number(choices: dict[str, object], limits: tuple[float, float], eps: float) -> None:
    layer, x = mixer(**choices), torch.randn(2, 9, WIDTH, dtype=torch.float64)
    expected = torch.stack([by_hand(layer, row, limits, eps) for row in x])
    torch.testing.assert_close(layer(x)[0], expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_limits_bind_while_a_state_is_carried() -> None:
    """Every step is cut, in a whole text and token by token: transformers forgets the limits in the latter."""
    layer, x = mixer(step_limits=LIMITS), torch.randn(2, 9, WIDTH, dtype=torch.float64)
    with recording(layer) as calls:
        whole, _ = layer(x)
        state, pieces = None, []
        for piece in x.split(1, 1):
            y, state = layer(piece, state)
            pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-10)
    steps = torch.cat([call.inputs["dt"] for call in calls], 1)
    assert (steps.min().item(), steps.max().item()) == LIMITS


def test_steps_and_rates_are_computed_in_float32() -> None:
    layer = Mamba2Mixer(WIDTH, SIZES).to(torch.bfloat16)
    set_backend(layer, "naive")
    with recording(layer) as calls:
        layer(torch.randn(1, 3, WIDTH, dtype=torch.bfloat16))
    (call,) = calls
    assert call.inputs["dt"].dtype == call.inputs["A"].dtype == torch.float32
    torch.testing.assert_close(call.inputs["A"].double(), -layer.A_log.double().exp(), rtol=1e-6, atol=0)
    raw = torch.randn(1, 3, HEADS, dtype=torch.bfloat16)
    exact = torch.nn.functional.softplus(raw.double() + layer.step_bias.double())
    torch.testing.assert_close(layer.steps(raw).double(), exact, rtol=1e-6, atol=0)


def test_initial_values() -> None:
    """Steps from 0.001 to 0.1, evenly in their logarithm; rates from -1 to -16; the writer is small in a deep model."""
    layer = Mamba2Mixer(WIDTH, Mamba2Sizes(4096, 1, 1), depth=Depth(0, 16), bias=True)
    steps = torch.nn.functional.softplus(layer.step_bias.detach())
    assert 0.9e-3 < steps.min() < 1.1e-3
    assert 0.09 < steps.max() < 0.11
    assert steps.log().median().item() == pytest.approx(math.log(0.01), abs=0.2)
    rates = layer.rates().detach()
    assert -16 <= rates.min() < -15.9
    assert -1.1 < rates.max() <= -1
    assert rates.mean().item() == pytest.approx(-8.5, abs=0.3)
    assert torch.equal(layer.D.detach(), torch.ones(4096))
    assert layer.output.weight.abs().max().item() == pytest.approx(1 / math.sqrt(4096) / math.sqrt(16), rel=0.01)
    assert not layer.input.bias.any()
    assert not layer.output.bias.any()


def test_sizes_do_not_follow_the_width() -> None:
    """As Nemotron-H and Zamba2 need: heads, their width and the groups are free."""
    layer = Mamba2Mixer(10, Mamba2Sizes(heads=9, head_width=7, state_size=4, groups=3, filter_width=2))
    set_backend(layer, "naive")
    y, state = layer(torch.randn(2, 5, 10))
    assert y.shape == (2, 5, 10)
    assert state.conv.shape == (2, 1, 9 * 7 + 2 * 3 * 4)
    assert state.ssm.shape == (2, 9, 7, 4)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_gated_norm(groups: int) -> None:
    norm = GatedRMSNorm(8, groups, eps=0.01).double()
    torch.nn.init.normal_(norm.weight)
    y, z = torch.randn(2, 1, 3, 8, dtype=torch.float64)
    expected = torch.stack([normed(y_t * silu(z_t), norm.weight, groups, 0.01) for y_t, z_t in zip(y[0], z[0], strict=True)])
    torch.testing.assert_close(norm(y, z)[0], expected, rtol=0, atol=1e-12)


def test_gated_norm_of_bfloat16_is_rounded_once() -> None:
    """Squares of bfloat16 numbers, added up in bfloat16, would be wrong in the second digit."""
    norm = GatedRMSNorm(4096, 2).to(torch.bfloat16)
    y, z = torch.randn(2, 1, 1, 4096, dtype=torch.bfloat16)
    got = norm(y, z)
    assert got.dtype == torch.bfloat16
    exact = norm.double()(y.double(), z.double())
    torch.testing.assert_close(got.double(), exact, rtol=2**-8, atol=0)


@pytest.mark.parametrize(
    ("sizes", "limits", "message"),
    [
        ({"groups": 4}, (0.0, 1.0), "groups must be a positive divisor of heads = 6, got 4"),
        ({"groups": 0}, (0.0, 1.0), "groups must be a positive divisor of heads = 6, got 0"),
        ({"groups": -1}, (0.0, 1.0), "groups must be a positive divisor of heads = 6, got -1"),
        ({"filter_width": 0}, (0.0, 1.0), "ShortFilter: filter_width must be at least 1, got 0"),
        ({}, (0.2, 0.1), r"step_limits must be \(shortest, longest\).*got \(0\.2, 0\.1\)"),
        ({}, (-0.1, 1.0), r"step_limits must be .*got \(-0\.1, 1\.0\)"),
        ({}, (math.inf, math.inf), "step_limits must be"),
        ({}, (0.0, math.nan), "step_limits must be"),
    ],
)
def test_nonsense(sizes: dict[str, int], limits: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mamba2Mixer(WIDTH, SIZES._replace(**sizes), step_limits=limits)


@pytest.mark.parametrize("groups", [5, 0])
def test_a_gated_norm_without_fair_groups(groups: int) -> None:
    with pytest.raises(ValueError, match=f"groups must be a positive divisor of width = 24, got {groups}"):
        GatedRMSNorm(24, groups)
