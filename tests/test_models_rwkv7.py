"""RWKV-7 as a model: its card, the first layer's values, its initial values, what it keeps and what a token costs."""

import math

import pytest
import torch

from hybridlab.layers import LowRank, RWKV7ChannelMixing, RWKV7Ranks, RWKV7TimeMixing, Shared
from hybridlab.layers.initial import Depth
from hybridlab.measure import account, check_invariants
from hybridlab.measure.recording import record
from hybridlab.models import PRESETS, RWKV7, HybridConfig, HybridLM, LanguageModel, RWKV7Config, set_backend

VOCABULARY, WIDTH = 41, 24
RANKS = RWKV7Ranks(3, 4, 2, 5)
IDS = torch.arange(9).unsqueeze(0)


def tiny(layers: int = 3) -> RWKV7:
    ranks = {f"{name}_rank": rank for name, rank in RANKS._asdict().items()}
    return RWKV7(RWKV7Config(VOCABULARY, WIDTH, layers, head_width=8, heads=2, **ranks), backend="naive")


def shaken(model: LanguageModel) -> LanguageModel:
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model


def test_card() -> None:
    """Three layers whose heads do not fill the width."""
    card = check_invariants(tiny())
    assert card.ok, card.failed


def test_only_the_first_of_a_kind_lacks_what_mixes_values() -> None:
    hybrid = HybridLM(HybridConfig(VOCABULARY, WIDTH, 6, pattern="AVR", head_width=8))
    for model, places in ((tiny(), range(3)), (hybrid, (1, 4))):
        mixers = [model.layers[place].mixer for place in places]
        assert [mixer.first_share is None for mixer in mixers] == [True] + [False] * (len(mixers) - 1)


@torch.no_grad()
@pytest.mark.parametrize("pattern", ["VVV", "AVRVWV"])
def test_others_take_the_values_of_the_first(pattern: str) -> None:
    """As much as their share says, which is 1, 0 or in between; those of the same tokens, in a prompt and in a step."""
    model = shaken(HybridLM(HybridConfig(VOCABULARY, WIDTH, pattern=pattern, head_width=8), backend="naive"))
    mixers = [block.mixer for block in model.layers if isinstance(block.mixer, RWKV7TimeMixing)]
    for share in (50.0, -50.0):
        for mixer in mixers[1:]:
            mixer.first_share.start.fill_(share)
        first, *others = [call.inputs["v"] for call in record(model, IDS) if call.op == "wkv7"]
        for v in others:
            assert torch.allclose(v, first, atol=1e-6) == (share > 0)
    assert model(IDS[:, 5:], model(IDS[:, :5]).state).logits.shape == (1, 4, VOCABULARY)


@pytest.mark.parametrize("shared", [None, Shared(torch.tensor(0))], ids=["nothing shared", "no values"])
def test_the_first_values_must_be_there(shared: Shared | None) -> None:
    layer = RWKV7TimeMixing(WIDTH, 3, 8, RANKS, first=False)
    with pytest.raises(ValueError, match=r"first_value must hold the first such layer's values, got (shared=)?None"):
        layer(torch.randn(1, 3, WIDTH), None, shared)


def test_calls_do_not_share_values() -> None:
    """A later call, with fewer tokens and sequences, takes the values of its own first layer."""
    model = shaken(tiny())
    alone = model(IDS[:, 3:4]).logits
    model(torch.cat((IDS, IDS)))
    assert torch.equal(model(IDS[:, 3:4]).logits, alone)


@torch.no_grad()
@pytest.mark.parametrize("depth", [Depth(0, 3), Depth(1, 3), Depth(2, 3)])
def test_initial_values_are_those_of_the_training_code(depth: Depth) -> None:
    """Channel by channel, as its loops have them."""
    width, heads, head_width = 128, 2, 64
    mixer = RWKV7TimeMixing(width, heads, head_width, depth=depth, first=False)
    rising, falling = depth.layer / 2, 1 - depth.layer / 3
    for n in (0, 1, 50, 63, 64, 127):
        line = n / (width - 1) - 0.5
        bend = (n % head_width - 31.5) / 31.5
        bend *= abs(bend)
        clock = -6 + 6 * (n / (width - 1)) ** (1 + rising**0.3)
        expected = {
            "decay.start": clock + 0.5 + 2.5 * bend,
            "rate.start": -0.19 + 0.3 * bend + 0.4 * line,
            "first_share.start": 0.73 - 0.4 * line,
            "removal": 0.71 - 0.1 * line,
            "slowing": 1.02,
        }
        powers = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
        expected |= {f"mix_{name}": 1 - (n / width) ** (power * falling) for name, power in powers.items()}
        assert {name: mixer.get_parameter(name)[n].item() for name in expected} == pytest.approx(expected, abs=2e-6)
    assert (mixer.bonus == -0.04).all()
    assert not mixer.output.weight.any()
    for linear, bound in ((mixer.receptance, 0.5), (mixer.key, 0.05), (mixer.value, 0.5)):
        assert 0.95 * bound < linear.weight.abs().max().item() * width**0.5 <= bound
    torch.testing.assert_close(mixer.head_norm.weight, torch.full((width,), ((depth.layer + 1) / 3) ** 0.7))
    channel = RWKV7ChannelMixing(width, 4 * width, depth)
    torch.testing.assert_close(channel.mix_k, 1 - (torch.arange(width) / width) ** falling**4)
    assert 0.95 * 0.5 < channel.key.weight.abs().max().item() * width**0.5 <= 0.5
    assert not channel.value.weight.any()


@pytest.mark.parametrize(("rank", "gain"), [(4, 0.1), (64, 0.1 * 2)])
def test_a_small_network_starts_as_a_constant(rank: int, gain: float) -> None:
    """Nothing goes in; what comes out is orthogonal, more of it where the waist is wider than what follows."""
    network = LowRank(24, rank, 16, torch.nn.Tanh(), torch.arange(16.0))
    torch.testing.assert_close(network(torch.randn(2, 3, 24)), torch.arange(16.0).expand(2, 3, 16))
    up = network.up.detach()
    small = up @ up.mT if rank < 16 else up.mT @ up
    torch.testing.assert_close(small, gain**2 * torch.eye(min(rank, 16)), rtol=0, atol=1e-6)


def test_decay_is_bounded_and_computed_in_float32() -> None:
    layer = RWKV7TimeMixing(WIDTH, 3, 8, RANKS).to(torch.bfloat16)
    with torch.no_grad():
        layer.decay.start.copy_(torch.linspace(-60, 60, WIDTH))
    log_decay = layer.log_decay(torch.randn(1, 2, WIDTH, dtype=torch.bfloat16))
    assert log_decay.dtype == torch.float32
    assert log_decay.min().item() == pytest.approx(-math.exp(-0.5), rel=1e-6)
    assert -1e-20 < log_decay.max().item() < 0


def test_ranks() -> None:
    """The suggested ones are those of the smallest released model; others differ."""
    assert RWKV7Ranks.suggested(768) == PRESETS["rwkv7-0.1b"].config.ranks == (64, 64, 32, 128)
    assert RWKV7Ranks.suggested(24) == (32, 32, 32, 32)
    config = RWKV7Config(VOCABULARY, 128, 2, gate_rank=7)
    assert (config.ranks, config.heads, config.ffn_width) == ((32, 32, 32, 7), 2, 512)
    with pytest.raises(ValueError, match="value_rank is -1; expected a positive int"):
        RWKV7Config(VOCABULARY, 128, 2, value_rank=-1)


def test_what_a_token_costs() -> None:
    """2 a weight of every matrix, and 9 a number of the state."""
    c = PRESETS["rwkv7-0.4b"].config
    ranks = 2 * c.width * sum(c.ranks)
    layer = 2 * (4 * c.width**2 + ranks + 2 * c.width * c.ffn_width) + 9 * c.width * 64
    expected = c.layers * layer - 2 * 2 * c.width * c.value_rank + 2 * c.width * c.vocabulary
    counted = account("rwkv7-0.4b", 1000)
    assert counted.flops_per_token == expected
    assert (counted.kv_bytes, counted.state_bytes) == (0, c.layers * c.width * (2 * 2 + 64 * 4))


def test_the_op_can_be_listened_to() -> None:
    """What it is given: a direction of length 1 to look along, the same times a rate to write along."""
    calls = record(shaken(tiny()), IDS)
    assert [(call.layer, call.op) for call in calls] == [(f"layers.{i}.mixer", "wkv7") for i in range(3)]
    for call in calls:
        a, b = call.inputs["a"], call.inputs["b"]
        torch.testing.assert_close(a.norm(dim=-1), torch.ones(1, 9, 2))
        assert ((-b / a >= 0) & (-b / a <= 1)).all()


def test_bfloat16_keeps_its_matrices_in_float32() -> None:
    model = tiny().to(torch.bfloat16)
    set_backend(model, "auto")
    output = model(IDS)
    assert output.logits.dtype == torch.bfloat16
    assert output.state.layers[1].mixer.wkv.dtype == torch.float32
