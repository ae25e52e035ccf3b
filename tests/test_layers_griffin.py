"""The parts of Griffin's family: block-diagonal maps, norms around 1, the gated MLP, the limited head, fresh weights."""

import math

import pytest
import torch
from torch.nn.functional import linear, softplus

from hybridlab.layers import (
    BlockDiagonal,
    CappedHead,
    Depth,
    EmbeddingScale,
    GeGLU,
    GriffinAttention,
    OffsetRMSNorm,
    RGLRUBlock,
    Rotary,
    Shared,
    initial,
    rotary,
    set_backend,
)
from hybridlab.layers import short_filter as short_filter_module
from hybridlab.measure.recording import record, recording
from hybridlab.models import Hawk, HawkConfig


def test_blocks_on_the_diagonal_of_a_full_matrix() -> None:
    layer = BlockDiagonal(12, 3).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    full = torch.block_diag(*layer.weight.detach())
    torch.testing.assert_close(layer(x), x @ full + layer.bias.flatten(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("blocks", [0, -3, 5])
def test_blocks_that_do_not_fill_the_width(blocks: int) -> None:
    with pytest.raises(ValueError, match=f"blocks must be a positive divisor of width = 12, got {blocks}"):
        BlockDiagonal(12, blocks)


def test_a_norm_around_1() -> None:
    norm = OffsetRMSNorm(6, eps=0.25).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    plain = x / (x.square().mean(-1, keepdim=True) + 0.25).sqrt()
    torch.testing.assert_close(norm(x), plain, rtol=0, atol=1e-12)
    torch.nn.init.normal_(norm.weight)
    torch.testing.assert_close(norm(x), plain * (1 + norm.weight), rtol=0, atol=1e-12)


def test_the_gated_mlp() -> None:
    """gelu(a) = a / 2 (1 + tanh(sqrt(2 / pi) (a + 0.044715 a^3))) on the first branch."""
    layer = GeGLU(6, 10).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    a = linear(x, layer.gate.weight, layer.gate.bias)
    gelu = a / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))
    expected = layer.down(gelu * linear(x, layer.up.weight, layer.up.bias))
    torch.testing.assert_close(layer(x)[0], expected, rtol=0, atol=1e-10)


def test_a_limited_head() -> None:
    head = CappedHead(4, 7, 2.0).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(head(x), 2 * torch.tanh(x @ head.weight.mT / 2), rtol=0, atol=1e-12)
    assert head(1000 * x).abs().max() <= 2


def test_a_scaled_embedding() -> None:
    x = torch.randn(2, 3, 4)
    assert torch.equal(EmbeddingScale(2.5)(x), 2.5 * x)


def test_fresh_decays_are_spread_over_a_ring() -> None:
    """a^2 is uniform from 0.81 to 0.998: so many channels lie within a circle as its share of the ring's area."""
    a = torch.exp(-softplus(initial.ring_rate(20_000).double()))
    assert 0.9 <= a.min().item() < 0.9003
    assert 0.9987 < a.max().item() <= 0.9991
    for radius in (0.93, 0.95, 0.98):
        share = (radius**2 - 0.81) / (0.999**2 - 0.81)
        assert (a < radius).double().mean().item() == pytest.approx(share, abs=0.01)


def test_fresh_weights() -> None:
    """Variance 1 over inputs, 2 / L of it in what writes into the stream; taps a tenth of the deviation; biases zero."""
    block, mlp = RGLRUBlock(64, 512, 4, depth=Depth(0, 8)), GeGLU(64, 512, Depth(0, 8))
    spreads = {
        block.input.weight: 64**-0.5,
        block.gate.weight: 64**-0.5,
        block.output.weight: math.sqrt(2 / 8 / 512),
        block.conv.weight: 0.05,
        block.recurrence_gate.weight: 128**-0.5,
        block.input_gate.weight: 128**-0.5,
        mlp.gate.weight: 64**-0.5,
        mlp.up.weight: 64**-0.5,
        mlp.down.weight: math.sqrt(2 / 8 / 512),
    }
    for weight, spread in spreads.items():
        assert weight.std().item() == pytest.approx(spread, rel=0.08)
    for name, parameter in (*block.named_parameters(), *mlp.named_parameters()):
        assert parameter.any() != name.endswith("bias"), name


def test_what_the_op_is_given() -> None:
    """Gates from the convolved input, log a from the rates, a reset at the first token of a text and nowhere else."""
    layer = RGLRUBlock(8, 12, 3).double()
    set_backend(layer, "naive")
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    with recording(layer) as calls:
        _, state = layer(x[:, :3])
        layer(x[:, 3:], state, Shared(torch.tensor(3)))
    first, second = (call.inputs for call in calls)
    u = first["x"]
    torch.testing.assert_close(first["recurrence_gate"], layer.recurrence_gate(u).sigmoid())
    torch.testing.assert_close(first["input_gate"], layer.input_gate(u).sigmoid())
    torch.testing.assert_close(first["log_a"], -softplus(layer.rate))
    assert first["reset"].tolist() == [[True, False, False]] * 2
    assert not second["reset"].any()
    torch.testing.assert_close(calls[0].output[:, 0], first["input_gate"][:, 0] * u[:, 0])
    assert torch.equal(second["state"], calls[0].state)


def test_rates_are_float32_at_least() -> None:
    layer = RGLRUBlock(8, 12, 3).to(torch.bfloat16)
    with recording(layer) as calls:
        _, state = layer(torch.randn(2, 5, 8, dtype=torch.bfloat16))
    exact = -softplus(layer.rate.double())
    torch.testing.assert_close(calls[0].inputs["log_a"].double(), exact, rtol=1e-6, atol=0)
    assert (state.conv.dtype, state.recurrent.dtype) == (torch.bfloat16, torch.float32)


def test_continuing_needs_the_position() -> None:
    layer = RGLRUBlock(8, 12, 3)
    set_backend(layer, "naive")
    _, state = layer(torch.randn(1, 3, 8))
    with pytest.raises(ValueError, match=r"RGLRUBlock: a state is continued, so shared\.position must say where"):
        layer(torch.randn(1, 1, 8), state)


def test_both_ops_run_on_the_chosen_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Hawk(HawkConfig(41, 24, 1, inner=32, blocks=4))
    set_backend(model, "naive")
    heard = []
    conv = short_filter_module.short_conv

    def listened(*arguments: object, backend: str) -> object:
        heard.append(backend)
        return conv(*arguments, backend=backend)  # type: ignore[arg-type]

    monkeypatch.setattr(short_filter_module, "short_conv", listened)
    (call,) = record(model, torch.zeros(1, 3, dtype=torch.int64))
    assert call.op == "rg_lru"
    assert call.inputs["backend"] == "naive"
    assert heard == ["naive"]


def test_half_a_head_is_turned() -> None:
    """The first half as a head of its own, with frequencies of its own width; the second half reads without positions."""
    x, at = torch.randn(2, 5, 3, 8, dtype=torch.float64), torch.tensor(7)
    turned = rotary.rotated(x, at, Rotary(theta=50.0, fraction=0.5))
    torch.testing.assert_close(turned[..., :4], rotary.rotated(x[..., :4], at, Rotary(theta=50.0)), rtol=0, atol=0)
    assert torch.equal(turned[..., 4:], x[..., 4:])


def test_griffins_attention_by_hand() -> None:
    """One head of keys for all; a query sees three keys; scores over the root of the head width; a bias at the end."""
    layer = GriffinAttention(12, 3, 1, 8, 3, input_bias=True).double()
    set_backend(layer, "naive")
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, 6, 12, dtype=torch.float64)
    q, k, v = (m(x).unflatten(-1, (-1, 8)) for m in (layer.query, layer.key, layer.value))
    q, k = (rotary.rotated(y, torch.tensor(0), Rotary(fraction=0.5)) for y in (q, k))
    rows = []
    for t in range(6):
        seen = slice(max(0, t - 2), t + 1)
        weights = (torch.einsum("h k, s k -> h s", q[0, t], k[0, seen, 0]) / math.sqrt(8)).softmax(-1)
        rows.append((weights @ v[0, seen, 0]).flatten())
    expected = linear(torch.stack(rows), layer.output.weight, layer.output.bias)
    torch.testing.assert_close(layer(x)[0][0], expected, rtol=0, atol=1e-12)


def test_fresh_attention() -> None:
    """Maps as all of Griffin's, and no bias but the output's, which starts at zero."""
    layer = GriffinAttention(64, 8, 1, 32, 5, depth=Depth(0, 8))
    spreads = {layer.query: 1 / 8, layer.key: 1 / 8, layer.value: 1 / 8, layer.output: math.sqrt(2 / 8 / 256)}
    for matrix, spread in spreads.items():
        assert matrix.weight.std().item() == pytest.approx(spread, rel=0.08)
    assert {name for name, _ in layer.named_parameters() if name.endswith("bias")} == {"output.bias"}
    assert not layer.output.bias.any()
