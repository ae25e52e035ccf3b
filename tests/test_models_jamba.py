"""Jamba as a model: its card, what each layer is, what attention does not know, its published sizes, its bytes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hybridlab.layers import GroupedAttention, MambaMixer, MixtureOfExperts, Routing, SwiGLU
from hybridlab.measure import account, check_invariants
from hybridlab.measure.memory import Account
from hybridlab.models import PRESETS, Jamba, JambaConfig, set_backend
from hybridlab.models.jamba import Every
from hybridlab.state import state_nbytes

VOCABULARY, WIDTH = 41, 24
CARDS: dict[str, Callable[[], Jamba]] = {
    "attention first, odd offsets": lambda: Jamba(
        JambaConfig(
            VOCABULARY,
            WIDTH,
            3,
            heads=4,
            groups=2,
            attention=Every(3, 0),
            mixtures=Every(3, 2),
            routing=Routing(3, 2, renormalised=False),
            state_size=5,
        )
    ),
    "no experts, tied, biases": lambda: Jamba(
        JambaConfig(
            VOCABULARY, WIDTH, 2, heads=2, attention=Every(2, 1), routing=None, filter_width=2, rank=3, bias=True, tied=True
        )
    ),
}


@pytest.fixture(scope="module")
def six() -> Account:
    """Jamba at six tokens, all in bfloat16, as the papers count."""
    return account("jamba-v0.1", 6, state_dtype="bfloat16")


@pytest.mark.parametrize("name", CARDS)
def test_card(name: str) -> None:
    model = CARDS[name]()
    set_backend(model, "naive")
    card = check_invariants(model)
    assert card.ok, card.failed


def test_what_each_layer_is() -> None:
    config = PRESETS["jamba-v0.1"].config
    assert config.letters == "MMMMAMMM" * 4
    assert (config.routing, config.norm_eps) == (Routing(16, 2, renormalised=False), 1e-6)
    assert PRESETS["jamba-1.5-large"].config.letters == "MMMMAMMM" * 9
    model = Jamba(JambaConfig(VOCABULARY, WIDTH, 9, heads=2, ffn_width=8, routing=Routing(3, 2, renormalised=False)))
    assert [type(block.mixer) for block in model.layers] == 4 * [MambaMixer] + [GroupedAttention] + 4 * [MambaMixer]
    assert [type(block.channel_mixer) for block in model.layers] == [SwiGLU, MixtureOfExperts] * 4 + [SwiGLU]
    assert not any(block.channel_mixer.routing.renormalised for block in model.layers[1::2])
    norms = (getattr(model.layers[0].mixer, f"{part}_norm") for part in ("step", "B", "C"))
    assert [norm.weight.shape for norm in norms] == [(2,), (16,), (16,)]


@torch.no_grad()
def test_attention_does_not_know_positions() -> None:
    """Two earlier tokens change places: one layer of attention reads the same, behind a layer of Mamba it does not."""
    for layers, knows in ((1, False), (2, True)):
        attention = Every(layers, layers - 1)
        model = Jamba(JambaConfig(VOCABULARY, WIDTH, layers, heads=2, attention=attention, routing=None)).double()
        set_backend(model, "naive")
        last = [model(torch.tensor([ids])).logits[0, -1] for ids in ([3, 5, 7, 11], [5, 3, 7, 11])]
        assert ((last[0] - last[1]).abs().max().item() > 1e-6) == knows


def test_published_sizes(six: Account) -> None:
    """52B and 12B; 398B and 94B. At 256K tokens their caches are those of the papers' tables: 4 GiB, 9 GiB."""
    assert six.parameters == 51_570_323_328
    assert six.active_parameters == 12_110_311_296
    assert six.kv_bytes * 262_144 // 6 == 4 * 2**30
    large = account("jamba-1.5-large", 262_144)
    assert large.parameters == 398_555_145_696
    assert large.active_parameters == 94_149_338_592
    assert large.kv_bytes == 9 * 2**30
    assert PRESETS["jamba-1.5-mini"].config == PRESETS["jamba-v0.1"].config


def test_bytes_at_six_tokens(six: Account) -> None:
    """Four layers attend, 2 * 8 * 128 numbers a token; 28 keep 16 numbers and three inputs of the filter a channel."""
    assert (six.kv_bytes, six.state_bytes) == (98_304, 8_716_288)
    wide = Jamba.from_preset("jamba-v0.1", device="meta").init_state(1, 6, dtype=torch.bfloat16)
    assert state_nbytes(wide) == 98_304 + 16_056_320


def test_what_a_token_costs(six: Account) -> None:
    """2 a weight of the matrices it meets, two experts of sixteen; 6 a number of Mamba's state, 3 a channel, 8 for its
    filter; attention's scores."""
    c = PRESETS["jamba-v0.1"].config
    attention = 4 * (2 * (2 * c.width**2 + 2 * c.width * 8 * 128) + 4 * c.width * six.context)
    maps = 3 * c.width * c.inner + c.inner * (c.rank + 2 * 16) + c.rank * c.inner
    mamba = 28 * (2 * maps + c.inner * (6 * 16 + 3 + 2 * 4))
    mlps = 2 * (16 + 16 * 2) * 3 * c.width * c.ffn_width + 2 * 16 * 16 * c.width
    assert six.flops_per_token == attention + mamba + mlps + 2 * c.width * c.vocabulary


def test_derived_sizes() -> None:
    config = JambaConfig(50, 512, 8)
    assert (config.heads, config.groups, config.ffn_width, config.inner, config.rank) == (4, 4, 1792, 1024, 32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 5}, "heads is 5; expected a divisor of width = 24"),
        ({"heads": 4, "groups": 3}, "groups is 3; expected a divisor of heads = 4"),
        ({"attention": Every(2, 2)}, r"attention is Every\(period=2, offset=2\); expected .* 0 <= offset < period"),
        ({"mixtures": (2, 1)}, r"mixtures is \(2, 1\); expected Every"),
        ({"mixtures": Every(2.0, 1)}, r"mixtures is Every\(period=2\.0"),
        ({"routing": Routing(2, 3)}, "expected None, or at least 1 active expert and no more than there are"),
        ({"state_size": 0}, "state_size is 0; expected a positive int"),
    ],
)
def test_sizes_that_do_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JambaConfig(VOCABULARY, WIDTH, 2, **fields)
