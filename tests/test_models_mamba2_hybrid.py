"""Mamba-2-Hybrid as a model: its card, its word of symbols, its published size, its bytes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hybridlab.layers import GroupedAttention, Mamba2Mixer, PlainMLP
from hybridlab.measure import account, check_invariants
from hybridlab.models import PRESETS, Mamba2Hybrid, Mamba2HybridConfig, set_backend

VOCABULARY, WIDTH = 41, 24
CARDS: dict[str, Callable[[], Mamba2Hybrid]] = {
    "attention first, own widths": lambda: Mamba2Hybrid(
        Mamba2HybridConfig(
            VOCABULARY,
            WIDTH,
            pattern="*M-",
            heads=3,
            groups=1,
            head_width=10,
            activation="squared relu",
            ssm_heads=4,
            ssm_head_width=5,
            ssm_groups=2,
            state_size=6,
            step_limits=(0.01, 2.0),
            tied=True,
        )
    ),
    "two MLPs in a row": lambda: Mamba2Hybrid(
        Mamba2HybridConfig(VOCABULARY, WIDTH, pattern="M--", head_width=8, ssm_head_width=8, filter_width=2)
    ),
}


@pytest.mark.parametrize("name", CARDS)
def test_card(name: str) -> None:
    model = CARDS[name]()
    set_backend(model, "naive")
    card = check_invariants(model)
    assert card.ok, card.failed


def test_a_layer_is_what_its_symbol_says() -> None:
    """24 Mamba-2 layers, 4 of attention and 28 MLPs; the word of a tiny model is repeated."""
    config = PRESETS["mamba2-hybrid-8b"].config
    assert [config.letters.count(symbol) for symbol in "M*-"] == [24, 4, 28]
    assert [layer for layer, symbol in enumerate(config.letters) if symbol == "*"] == [10, 22, 33, 45]
    model = Mamba2Hybrid(Mamba2HybridConfig(VOCABULARY, WIDTH, 6, pattern="M*-", head_width=8, ssm_head_width=8))
    assert [type(block.mixer) for block in model.layers] == [Mamba2Mixer, GroupedAttention, PlainMLP] * 2
    assert not any(name.endswith("channel_mixer") for name, _ in model.named_modules())


@torch.no_grad()
@pytest.mark.parametrize("name", ["gelu", "gelu by tanh", "squared relu"])
def test_activations(name: str) -> None:
    """At -2, 0 and 1, of which each of the three makes something else; two maps without bias around it."""
    expected = {
        "gelu": [-0.0455003, 0.0, 0.8413447],
        "gelu by tanh": [-0.0454023, 0.0, 0.8411920],
        "squared relu": [0.0, 0.0, 1.0],
    }
    layer = PlainMLP(3, 3, name).double()
    for linear in (layer.up, layer.down):
        assert linear.bias is None
        torch.nn.init.eye_(linear.weight)
    y, _ = layer(torch.tensor([[[-2.0, 0.0, 1.0]]], dtype=torch.float64))
    torch.testing.assert_close(y.flatten(), torch.tensor(expected[name], dtype=torch.float64), rtol=0, atol=1e-7)


def test_published_size_and_bytes() -> None:
    """16,384 bytes of cache a token; a matrix a head of 64 by 128 in each of 24 layers, and three inputs of the filters."""
    counted = account("mamba2-hybrid-8b", 1000, state_dtype="bfloat16")
    assert counted.parameters == counted.active_parameters == 8_654_517_248
    assert counted.kv_bytes == 16_384 * 1000
    assert counted.state_bytes == 24 * (8192 * 128 + 3 * (8192 + 2 * 8 * 128)) * 2


def test_derived_sizes() -> None:
    config = Mamba2HybridConfig(50, 512)
    assert (config.layers, config.heads, config.groups, config.ffn_width, config.ssm_heads) == (6, 4, 4, 2048, 16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"pattern": "MXA"},
            r"pattern is 'MXA'; expected one letter a layer: M \(Mamba-2\), \* \(attention\), -",
        ),
        ({"pattern": ""}, "pattern is ''; expected one letter a layer"),
        ({"pattern": None}, "pattern is None; expected one letter a layer"),
        ({"pattern": "M-", "layers": 3}, "layers is 3; expected a multiple of 2 symbols"),
        ({"heads": 0}, "head_width is 128; expected a divisor of width = 24, or heads given"),
        ({"groups": 3}, "groups is 3; expected a divisor of heads = 4"),
        ({"activation": "relu"}, "activation is 'relu'; expected one of gelu, gelu by tanh, squared relu"),
        ({"ssm_head_width": 7}, r"ssm_head_width is 7; expected a divisor of 2 \* width = 48, or ssm_heads given"),
        ({"ssm_groups": 4}, "ssm_groups is 4; expected a divisor of ssm_heads = 6"),
        ({"step_limits": (2.0, 1.0)}, r"step_limits is \(2\.0, 1\.0\); expected"),
    ],
)
def test_sizes_that_do_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mamba2HybridConfig(VOCABULARY, WIDTH, **{"heads": 4, "ssm_head_width": 8, **fields})


def test_unknown_activation_of_a_layer() -> None:
    with pytest.raises(ValueError, match=r"PlainMLP: activation must be one of gelu, .* got 'silu'"):
        PlainMLP(4, 8, "silu")
