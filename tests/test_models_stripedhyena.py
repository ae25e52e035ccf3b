"""StripedHyena as a model: its card, where it attends, what it remembers, its sizes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hybridlab.layers import GroupedAttention, StripedHyenaMixer
from hybridlab.measure import account, check_invariants
from hybridlab.measure.recording import record
from hybridlab.models import PRESETS, StripedHyena, StripedHyenaConfig, set_backend

VOCABULARY, WIDTH = 41, 24
CARDS: dict[str, Callable[[], StripedHyena]] = {
    "grouped": lambda: StripedHyena(StripedHyenaConfig(VOCABULARY, WIDTH, 3, heads=4, groups=2, state_size=3)),
    "attention first, in thirds": lambda: StripedHyena(
        StripedHyenaConfig(
            VOCABULARY, WIDTH, 2, heads=2, attention_layers=(0,), by_head=False, tied=True, attention_bias=True
        )
    ),
    "no attention, one tap": lambda: StripedHyena(
        StripedHyenaConfig(VOCABULARY, WIDTH, 2, attention_layers=(), filter_width=1, filter_bias=False)
    ),
}


@pytest.fixture(scope="module")
def published() -> StripedHyena:
    return StripedHyena.from_preset("stripedhyena-7b", device="meta")


@pytest.mark.parametrize("name", CARDS)
def test_card(name: str) -> None:
    model = CARDS[name]()
    set_backend(model, "naive")
    card = check_invariants(model)
    assert card.ok, card.failed


def test_half_of_the_layers_attend() -> None:
    """Every second one: 16 of 32 in the 7B, each with a full cache."""
    config = PRESETS["stripedhyena-7b"].config
    assert config.letters == "HA" * 16
    assert StripedHyenaConfig(11, 32, 5).letters == "HAHAH"
    kinds = [type(block.mixer) for block in CARDS["grouped"]().layers]
    assert kinds == [StripedHyenaMixer, GroupedAttention, StripedHyenaMixer]


@pytest.mark.parametrize("context", [1, 4096, 262_144])
def test_only_attention_grows(published: StripedHyena, context: int) -> None:
    """A cache of 2 * 8 * 128 numbers a token and layer; two rows of 3 D and two complex numbers a channel."""
    counted = account(published, context, dtype="bfloat16")
    assert counted.kv_bytes == 16 * context * 2 * 8 * 128 * 2
    assert counted.state_bytes == 16 * (2 * 3 * 4096 * 2 + 4096 * 2 * 8)
    halves = account(published, context, dtype="bfloat16", state_dtype="bfloat16")
    assert halves.state_bytes == 16 * (2 * 3 * 4096 * 2 + 4096 * 2 * 4)


def test_what_a_token_costs(published: StripedHyena) -> None:
    """2 a weight of every matrix, 2 a tap of the short filters, 11 a complex number of the waves; attention's scores."""
    c = PRESETS["stripedhyena-7b"].config
    context, mlp = 1000, 3 * c.width * c.ffn_width
    hyena = 2 * (4 * c.width**2 + mlp) + 2 * 3 * c.width * 3 + 11 * c.width * 2
    attention = 2 * (2 * c.width**2 + 2 * c.width * 8 * 128 + mlp) + 2 * 2 * c.width * context
    expected = 16 * (hyena + attention) + 2 * c.width * c.vocabulary
    assert account(published, context).flops_per_token == expected


def test_the_op_can_be_listened_to() -> None:
    model = CARDS["grouped"]()
    set_backend(model, "naive")
    calls = record(model, torch.zeros(1, 5, dtype=torch.int64))
    assert [(call.layer, call.op) for call in calls] == [(f"layers.{i}.mixer", "modal_conv") for i in (0, 2)]
    assert calls[0].inputs["poles"].shape == calls[0].state[0].shape == (WIDTH, 3)


def test_derived_sizes() -> None:
    config = StripedHyenaConfig(50, 512, 4)
    assert (config.heads, config.groups, config.ffn_width, config.attention_layers) == (4, 4, 1408, (1, 3))
    assert PRESETS["stripedhyena-7b"].config.rotary.theta == 500_000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 5}, "heads is 5; expected a divisor of width = 24"),
        ({"heads": 8}, "heads is 8; expected heads of an even number of channels"),
        ({"heads": 4, "groups": 3}, "groups is 3; expected a divisor of heads = 4"),
        ({"attention_layers": (2,)}, r"attention_layers is \(2,\); expected numbers from 0 to 1"),
        ({"state_size": 0}, "state_size is 0; expected a positive int"),
    ],
)
def test_sizes_that_do_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StripedHyenaConfig(VOCABULARY, WIDTH, 2, **fields)
