"""The small parts of layers: decays, token shift, norms, rotation, initial values, backends."""

import math

import pytest
import torch
from torch.nn import functional

from hybridlab.layers import (
    Depth,
    GroupedAttention,
    HeadNorm,
    ResidualBlock,
    Rotary,
    RWKV4TimeMixing,
    RWKV5TimeMixing,
    RWKV6ChannelMixing,
    RWKV6TimeMixing,
    Shared,
    Stretch,
    SwiGLU,
    initial,
    rotary,
    set_backend,
)
from hybridlab.layers.token_shift import last_token, previous, weigh_past, weigh_present
from hybridlab.measure.recording import recording
from hybridlab.state import state_nbytes


def test_rwkv5_hands_over_one_decay_for_all_times() -> None:
    """(1, 1, H, K) in storage of H * K numbers: never expanded, never copied."""
    layer = RWKV5TimeMixing(24, 3, 8)
    with recording(layer) as calls:
        layer(torch.randn(2, 50, 24))
    (call,) = calls
    log_decay = call.inputs["log_decay"]
    assert log_decay.shape == (1, 1, 3, 8)
    assert log_decay.untyped_storage().nbytes() == 3 * 8 * 4


@pytest.mark.parametrize(
    "layer", [RWKV4TimeMixing(24, 24), RWKV5TimeMixing(24, 3, 8)], ids=["rwkv4 time mixing", "rwkv5 time mixing"]
)
def test_decay_is_computed_in_float32(layer: RWKV4TimeMixing | RWKV5TimeMixing) -> None:
    layer = layer.to(torch.bfloat16)
    log_decay = layer.log_decay()
    assert log_decay.dtype == torch.float32
    exact = -layer.time_decay.double().exp()
    torch.testing.assert_close(log_decay.double().flatten(), exact.flatten(), rtol=1e-6, atol=0)


def test_decay_of_rwkv6_is_computed_in_float32() -> None:
    layer = RWKV6TimeMixing(24, 3, 8).to(torch.bfloat16)
    log_decay = layer.log_decay(torch.randn(2, 5, 24, dtype=torch.bfloat16))
    assert log_decay.dtype == torch.float32
    assert log_decay.shape == (2, 5, 3, 8)
    # The network starts at zero, so every token has the decay of the ramp: to float32's digits, not bfloat16's.
    exact = -layer.time_decay.double().exp().view(3, 8).expand(2, 5, 3, 8)
    torch.testing.assert_close(log_decay.double(), exact, rtol=1e-6, atol=0)


def test_token_shift() -> None:
    x, last = torch.randn(2, 4, 3), torch.randn(2, 3)
    past = previous(x, last)
    assert torch.equal(past[:, 0], last)
    assert torch.equal(past[:, 1:], x[:, :-1])
    assert torch.equal(last_token(x), x[:, -1])
    assert state_nbytes([last_token(x)]) == 2 * 3 * 4


def test_mu_has_opposite_meanings() -> None:
    x, past, mu = torch.randn(3), torch.randn(3), torch.tensor([0.0, 1.0, 0.25])
    torch.testing.assert_close(weigh_present(x, past, mu), mu * x + (1 - mu) * past)
    torch.testing.assert_close(weigh_past(x, past, mu), x + mu * (past - x))


@pytest.mark.parametrize(
    "last",
    [torch.zeros(3, 5), torch.zeros(2, 4), torch.zeros(5), torch.zeros(2, 5, dtype=torch.float64)],
    ids=["batch", "width", "rank", "dtype"],
)
def test_a_carried_token_that_does_not_fit(last: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"the carried token must be \(2, 5\) torch\.float32 on cpu, got"):
        previous(torch.zeros(2, 7, 5), last)


def test_head_norm_is_the_group_norm_of_the_training_code() -> None:
    """The authors divide by 8 and use eps 1e-5; small inputs show a wrong eps."""
    norm = HeadNorm(3, 4).double()
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    x = 0.01 * torch.randn(2, 5, 3, 4, dtype=torch.float64)
    flat = x.reshape(10, 12) / 8
    expected = functional.group_norm(flat, 3, norm.weight, norm.bias, eps=1e-5).view(2, 5, 12)
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-12)


def test_rotation_shows_distance_only() -> None:
    q, k = torch.randn(1, 1, 1, 8, dtype=torch.float64), torch.randn(1, 1, 1, 8, dtype=torch.float64)

    def score(at: int, back: int) -> float:
        turned = (rotary.rotated(x, torch.tensor(p), Rotary()) for x, p in ((q, at), (k, at - back)))
        first, second = turned
        return (first * second).sum().item()

    assert score(5, 3) == pytest.approx(score(5000, 3), abs=1e-9)
    assert abs(score(5, 3) - score(5, 2)) > 1e-3


def test_rotation_by_hand() -> None:
    """Channel i is paired with channel i + K / 2; the second pair of K = 4 turns by theta^(-1/2) a token."""
    x = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).view(1, 1, 1, 4)
    turned = rotary.rotated(x, torch.tensor(7), Rotary(theta=100.0)).flatten().tolist()
    for i, angle in enumerate((7.0, 0.7)):
        one, other = x.flatten()[i].item(), x.flatten()[i + 2].item()
        assert turned[i] == pytest.approx(one * math.cos(angle) - other * math.sin(angle), abs=1e-12)
        assert turned[i + 2] == pytest.approx(other * math.cos(angle) + one * math.sin(angle), abs=1e-12)


def test_stretch_divides_slow_frequencies_only() -> None:
    plain = rotary.frequencies(Rotary(5e5), 128, torch.float64, torch.device("cpu"))
    stretch = Stretch(factor=8, low=1, high=4, trained=8192)
    stretched = rotary.frequencies(Rotary(5e5, stretch), 128, torch.float64, torch.device("cpu"))
    wavelength = 2 * math.pi / plain
    fast, slow = wavelength < 8192 / 4, wavelength > 8192
    assert torch.equal(stretched[fast], plain[fast])
    torch.testing.assert_close(stretched[slow], plain[slow] / 8)
    between = ~fast & ~slow
    assert between.any()
    assert ((stretched[between] < plain[between]) & (stretched[between] > plain[between] / 8)).all()


def test_continuing_a_rotary_cache_needs_the_position() -> None:
    layer = GroupedAttention(24, 4, 2, 6, rotary=Rotary())
    _, state = layer(torch.randn(1, 3, 24))
    with pytest.raises(ValueError, match=r"shared\.position"):
        layer(torch.randn(1, 1, 24), state)
    layer(torch.randn(1, 1, 24), state, Shared(torch.tensor(3)))


def test_depth() -> None:
    assert [Depth(i, 3).rising for i in range(3)] == [0, 0.5, 1]
    assert [Depth(i, 4).falling for i in range(4)] == [1, 0.75, 0.5, 0.25]
    assert Depth().rising == 0


def test_initial_clocks_of_rwkv6() -> None:
    """Decays from exp(-e^-6), half-life 280 tokens, to exp(-e^-1), less than two; deeper layers have more slow clocks."""
    shallow, deep = (RWKV6TimeMixing(32, 2, 16, depth=Depth(i, 4)) for i in (0, 3))
    assert shallow.time_decay[0].item() == pytest.approx(-6)
    assert shallow.time_decay[-1].item() == pytest.approx(-1)
    assert (deep.time_decay[1:-1] < shallow.time_decay[1:-1]).all()
    # (i / D)^1 weighs the present in the first layer, and mu weighs the past.
    torch.testing.assert_close(shallow.mix_k.detach(), 1 - torch.arange(32) / 32)
    torch.testing.assert_close(deep.head_norm.weight.detach(), torch.ones(32))
    torch.testing.assert_close(shallow.head_norm.weight.detach(), torch.full((32,), 0.25**0.7))


@pytest.mark.parametrize("kind", [RWKV5TimeMixing, RWKV6TimeMixing], ids=["rwkv5", "rwkv6"])
def test_a_fresh_block_is_the_identity(kind: type[RWKV5TimeMixing] | type[RWKV6TimeMixing]) -> None:
    layer = ResidualBlock(kind(32, 2, 16), RWKV6ChannelMixing(32, 64), torch.nn.LayerNorm(32), torch.nn.LayerNorm(32))
    set_backend(layer, "naive")
    x = torch.randn(2, 3, 32)
    assert torch.equal(layer(x)[0], x)


def test_ramps() -> None:
    assert initial.zigzag(7).tolist() == [0, 1, -1, 0, 1, -1, 0]
    assert initial.bonus_ramp(4, Depth(1, 2)).tolist() == pytest.approx([1.0, 2 / 3 + 0.1, 1 / 3 - 0.1, 0.0])
    assert initial.mix_ramp(4, 0.5).tolist() == pytest.approx([0, 0.5, math.sqrt(0.5), math.sqrt(0.75)])


def test_set_backend_reaches_every_layer_with_an_op() -> None:
    layers = [RWKV4TimeMixing(24, 24), RWKV6TimeMixing(24, 3, 8), GroupedAttention(24, 4, 2, 6), SwiGLU(24, 32)]
    set_backend(torch.nn.ModuleList(layers), "naive")
    assert [layer.backend for layer in layers[:3]] == ["naive"] * 3


def test_set_backend_changes_all_or_nothing() -> None:
    layers = [RWKV6TimeMixing(24, 3, 8), GroupedAttention(24, 4, 2, 6)]
    model = torch.nn.ModuleList(layers)
    for name in ("cuda", "Naive", "chunked", ""):
        with pytest.raises(ValueError, match=rf"unknown backend {name!r} for RWKV6TimeMixing; choose auto, naive, numba"):
            set_backend(model, name)
    layers[0].backends = (*layers[0].backends, "imagined")  # type: ignore[misc]
    with pytest.raises(ValueError, match="unknown backend 'imagined' for GroupedAttention"):
        set_backend(model, "imagined")
    assert [layer.backend for layer in layers] == ["auto", "auto"]
