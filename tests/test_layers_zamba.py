"""The parts of Zamba: a Mamba mixer whose heads choose for themselves, and a block that must be told the embeddings."""

import pytest
import torch
from torch.nn.functional import gelu, rms_norm, scaled_dot_product_attention

from hybridlab.layers import (
    HeadedMambaMixer,
    HeadedMambaSizes,
    MambaMixer,
    MambaSizes,
    Shared,
    SharedBlock,
    SharedBlockOptions,
)

WIDTH, HEADS, CHANNELS, RANK, STATE = 12, 3, 5, 4, 6
SIZES = HeadedMambaSizes(HEADS, HEADS * CHANNELS, RANK, STATE)


def shaken_mixer() -> HeadedMambaMixer:
    layer = HeadedMambaMixer(WIDTH, SIZES, bias=True).double()
    layer.backend = "naive"
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def head_alone(layer: HeadedMambaMixer, head: int) -> MambaMixer:
    """One head as a Mamba of its own: its share of the channels, and of what is written back."""
    alone = MambaMixer(WIDTH, MambaSizes(CHANNELS, RANK, STATE), bias=True).double()
    alone.backend = "naive"
    own = slice(head * CHANNELS, (head + 1) * CHANNELS)
    gate = slice(SIZES.inner + own.start, SIZES.inner + own.stop)
    pairs = {
        "input.weight": torch.cat((layer.input.weight[own], layer.input.weight[gate])),
        "input.bias": torch.cat((layer.input.bias[own], layer.input.bias[gate])),
        "conv.weight": layer.conv.weight[own],
        "conv.bias": layer.conv.bias[own],  # type: ignore[index]
        "selection.weight": layer.selection[head],
        "step.weight": layer.step_weight[head],
        "step.bias": layer.step_bias[head],
        "A_log": layer.A_log[head],
        "D": layer.D[head],
        "output.weight": layer.output.weight[:, own],
        "output.bias": layer.output.bias / HEADS,
    }
    alone.load_state_dict(pairs)
    return alone


@torch.no_grad()
def test_heads_are_mambas_that_write_into_the_same_stream() -> None:
    layer, x = shaken_mixer(), torch.randn(2, 9, WIDTH).double()
    y, state = layer(x)
    outputs, states = zip(*(head_alone(layer, head)(x) for head in range(HEADS)), strict=True)
    torch.testing.assert_close(y, sum(outputs), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.ssm, torch.cat([one.ssm for one in states], 1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.conv, torch.cat([one.conv for one in states], 2), rtol=1e-12, atol=1e-12)


def test_fresh_values_are_those_of_mamba() -> None:
    torch.manual_seed(0)
    layer = HeadedMambaMixer(WIDTH, HeadedMambaSizes(3, 3000, RANK, STATE))
    steps, _, _ = layer.selected(torch.zeros(1, 1, 3, 1000))
    assert 0.99e-3 < steps.min().item() < 1.1e-3
    assert 0.09 < steps.max().item() < 0.101
    torch.testing.assert_close(layer.rates(), -torch.arange(1.0, STATE + 1).expand(3, 1000, STATE))
    assert layer.selection.abs().max().item() == pytest.approx(1000**-0.5, rel=0.01)
    assert layer.step_weight.abs().max().item() == pytest.approx(RANK**-0.5, rel=0.01)
    assert torch.equal(layer.D, torch.ones(3, 1000))


def test_a_bfloat16_mixer_keeps_its_state_and_steps_in_float32() -> None:
    layer = HeadedMambaMixer(WIDTH, SIZES).to(torch.bfloat16)
    layer.backend = "naive"
    y, state = layer(torch.randn(1, 4, WIDTH, dtype=torch.bfloat16))
    assert (y.dtype, state.conv.dtype, state.ssm.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert layer.selected(torch.randn(1, 4, 3, 5, dtype=torch.bfloat16))[0].dtype == torch.float32


@pytest.mark.parametrize("heads", [0, 2])
def test_heads_divide_the_channels(heads: int) -> None:
    with pytest.raises(ValueError, match=f"heads must be a positive divisor of inner = 15, got {heads}"):
        HeadedMambaMixer(WIDTH, SIZES._replace(heads=heads))


def test_a_shared_block_must_be_told_the_embeddings() -> None:
    block = SharedBlock(WIDTH, SharedBlockOptions(2, 2, 12, 20))
    with pytest.raises(ValueError, match=r"shared\.embeddings must be the token embeddings"):
        block(torch.zeros(1, 3, WIDTH))


@torch.no_grad()
def test_the_equation_of_a_shared_block() -> None:
    """Scores times sqrt(2 / K); gelu by the error function, not by its tanh formula; nothing is added to x."""
    block = SharedBlock(WIDTH, SharedBlockOptions(4, 2, 6, 20, bias=True)).double()
    for parameter in block.parameters():
        parameter.add_(0.5 * torch.randn_like(parameter))
    x, embeddings = torch.randn(2, 3, 7, WIDTH).double()
    y, _ = block(x, None, Shared(torch.tensor(0), embeddings))
    read = rms_norm(torch.cat((x, embeddings), -1), (2 * WIDTH,), block.norm.weight, 1e-5)
    maps = (block.attention.query, block.attention.key, block.attention.value)
    q, k, v = (linear(read).unflatten(-1, (-1, 6)).transpose(1, 2) for linear in maps)
    heads = scaled_dot_product_attention(q, k, v, is_causal=True, scale=3**-0.5, enable_gqa=True).transpose(1, 2)
    found = rms_norm(block.attention.output(heads.flatten(2)), (WIDTH,), block.mlp_norm.weight, 1e-5)
    expected = block.mlp.down(gelu(block.mlp.gate(found)) * block.mlp.up(found))
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
