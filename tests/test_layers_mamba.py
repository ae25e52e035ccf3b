"""Mamba's parts: what a fresh mixer is like, what its norms and its wide stream do, and where its two ops run."""

import math

import pytest
import torch
from torch import Tensor

from hybridlab.layers import Depth, Layer, MambaMixer, MambaSizes, MixerBlock, ShortFilter, StreamNorm, initial, set_backend
from hybridlab.layers import short_filter as short_filter_module
from hybridlab.measure import account
from hybridlab.measure.recording import record
from hybridlab.models import PRESETS, Mamba, MambaConfig

WIDTH, SIZES = 64, MambaSizes(inner=128, rank=4, state_size=6)


def test_fresh_steps_last_from_a_thousandth_to_a_tenth() -> None:
    """Log-uniform: each third of the way, on a logarithmic scale, is home to a third of the channels."""
    torch.manual_seed(0)
    layer = MambaMixer(WIDTH, SIZES._replace(inner=3000))
    steps = layer.steps(torch.zeros(1, 1, SIZES.rank)).flatten()
    assert 0.99e-3 < steps.min().item() < 1.1e-3
    assert 0.09 < steps.max().item() < 0.101
    for end in (1, 2):
        assert (steps < 10 ** (-3 + 2 * end / 3)).float().mean().item() == pytest.approx(end / 3, abs=0.04)
    assert layer.step.weight.abs().max().item() == pytest.approx(SIZES.rank**-0.5, rel=0.01)


def test_no_step_begins_below_the_floor() -> None:
    steps = torch.nn.functional.softplus(initial.step_bias(50, shortest=1e-6, longest=1e-5))
    torch.testing.assert_close(steps, torch.full((50,), 1e-4), rtol=1e-3, atol=0)


def test_fresh_rates_and_skip() -> None:
    """Number n of a channel's memory fades at the rate n; every channel passes its own token on once."""
    layer = MambaMixer(WIDTH, SIZES)
    torch.testing.assert_close(layer.rates(), -torch.arange(1.0, 7.0).expand(128, 6))
    assert torch.equal(layer.D, torch.ones(128))


@pytest.mark.parametrize("layers", [1, 16])
def test_what_writes_into_the_stream_begins_smaller_in_deeper_models(layers: int) -> None:
    layer = MambaMixer(WIDTH, SIZES, Depth(0, layers), bias=True)
    largest = layer.output.weight.abs().max().item()
    assert largest == pytest.approx(128**-0.5 / math.sqrt(layers), rel=0.01)
    assert layer.input.weight.abs().max().item() == pytest.approx(WIDTH**-0.5, rel=0.01)
    assert not layer.output.bias.any()
    assert not layer.input.bias.any()


def test_fresh_filter() -> None:
    conv = ShortFilter(500, 4)
    assert conv.bias is not None
    for values in (conv.weight, conv.bias):
        assert values.abs().max().item() == pytest.approx(0.5, rel=0.02)
        assert values.mean().abs().item() < 0.05
    assert ShortFilter(5, 4, bias=False).bias is None


@torch.no_grad()
def test_norms_of_the_selection() -> None:
    """Behind its norm, a choice ten times as large is the same choice; each of the three has a norm of its own."""
    plain = MambaMixer(WIDTH, SIZES).double()
    normed = MambaMixer(WIDTH, SIZES, selection_norm=lambda width: torch.nn.RMSNorm(width, eps=1e-12)).double()
    x = torch.randn(2, 5, SIZES.inner, dtype=torch.float64)
    assert [norm.normalized_shape for norm in (normed.step_norm, normed.B_norm, normed.C_norm)] == [(4,), (6,), (6,)]
    for layer, same in ((plain, False), (normed, True)):
        before = layer.selected(x)
        layer.selection.weight *= 10
        for one, other in zip(before, layer.selected(x), strict=True):
            assert torch.allclose(one, other, rtol=1e-9) == same
    normed.B_norm.weight *= 2
    dt, B, C = normed.selected(x)
    torch.testing.assert_close(dt, before[0])
    torch.testing.assert_close(B, 2 * before[1])
    torch.testing.assert_close(C, before[2])


def test_steps_and_rates_of_a_bfloat16_model_are_float32() -> None:
    layer = MambaMixer(WIDTH, SIZES).to(torch.bfloat16)
    dt, B, C = layer.selected(torch.randn(1, 3, SIZES.inner, dtype=torch.bfloat16))
    assert (dt.dtype, layer.rates().dtype) == (torch.float32, torch.float32)
    assert (B.dtype, C.dtype) == (torch.bfloat16, torch.bfloat16)


class Drop(Layer):
    """Adds a 64th to every channel."""

    def forward(self, x: Tensor, state: None = None, shared: None = None) -> tuple[Tensor, None]:
        return torch.full_like(x, 1 / 64), None


@pytest.mark.parametrize(("wide", "expected"), [(True, 12.0), (False, 8.0)])
def test_a_wide_stream_adds_up_what_a_narrow_one_drops(wide: bool, expected: float) -> None:
    """8 + 1/64 is 8 in bfloat16, 256 times over."""
    x = torch.full((1, 1, 4), 8.0, dtype=torch.bfloat16)
    block = MixerBlock(Drop(), StreamNorm(4, eps=1e-5).to(torch.bfloat16), wide)
    for _ in range(256):
        x, _ = block(x)
    assert x.unique().tolist() == [expected]
    assert block.norm(x).dtype == torch.bfloat16


def test_a_norm_squares_in_the_dtype_of_the_stream() -> None:
    """300 squared is too much for float16."""
    norm = StreamNorm(2, eps=1e-5).to(torch.float16)
    assert norm(torch.tensor([[[300.0, 300.0]]])).tolist() == [[[1.0, 1.0]]]
    norm = StreamNorm(2, eps=1e-5).double()
    x = torch.tensor([[[1.0, 3.0]]], dtype=torch.float64)
    torch.testing.assert_close(norm(x), x / math.sqrt(5 + 1e-5))


def test_both_ops_run_where_the_layer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def spy(op):  # type: ignore[no-untyped-def]
        def spied(*arguments, backend):  # type: ignore[no-untyped-def]
            told.append(backend)
            return op(*arguments, backend=backend)

        return spied

    monkeypatch.setattr(short_filter_module, "short_conv", spy(short_filter_module.short_conv))
    layer = MambaMixer(WIDTH, SIZES)
    layer.op = spy(layer.op)
    outputs = []
    for backend in ("naive", "numba"):
        set_backend(layer, backend)
        outputs.append(layer(torch.ones(1, 9, WIDTH))[0])
    assert told == ["naive", "naive", "numba", "numba"]
    torch.testing.assert_close(*outputs)
    with pytest.raises(ValueError, match="unknown backend 'fast' for MambaMixer"):
        set_backend(layer, "fast")


def test_the_op_can_be_listened_to() -> None:
    calls = record(Mamba(MambaConfig(11, 16, 2, state_size=3)), torch.zeros(1, 5, dtype=torch.int64))
    assert [(call.layer, call.op) for call in calls] == [(f"layers.{i}.mixer", "selective_scan") for i in range(2)]
    assert calls[0].inputs["dt"].shape == (1, 5, 32)
    assert calls[0].state.shape == (1, 32, 3)


def test_flops_of_a_token() -> None:
    """2 a weight of every matrix; 2 a tap of the filter; 6 a number of the state and 3 a channel in the scan."""
    config = PRESETS["mamba-130m"].config
    inner, rank, numbers = 2 * config.width, 48, 16
    matrices = 3 * inner * config.width + inner * (2 * rank + 2 * numbers)
    mixing = inner * (2 * 4 + 6 * numbers + 3)
    expected = config.layers * (2 * matrices + mixing) + 2 * config.width * config.vocabulary
    assert account("mamba-130m", 1).flops_per_token == account("mamba-130m", 1_000_000).flops_per_token == expected
