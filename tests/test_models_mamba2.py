"""Mamba-2 as a model: its sizes, its card, what it hands to its op, what a token costs."""

from collections.abc import Callable

import pytest
import torch

from hybridlab.layers import short_filter
from hybridlab.measure import account, check_invariants
from hybridlab.measure.recording import record
from hybridlab.models import PRESETS, HybridConfig, HybridLM, LanguageModel, Mamba2, Mamba2Config, set_backend
from hybridlab.ops import short_conv
from hybridlab.state import state_nbytes

VOCABULARY, WIDTH = 41, 24
CARDS: dict[str, Callable[[], LanguageModel]] = {
    "groups": lambda: Mamba2(Mamba2Config(VOCABULARY, WIDTH, 2, heads=6, head_width=7, state_size=5, groups=3)),
    "limits": lambda: Mamba2(Mamba2Config(VOCABULARY, WIDTH, 2, head_width=8, step_limits=(0.05, 0.5), bias=True)),
    "one tap": lambda: Mamba2(Mamba2Config(VOCABULARY, WIDTH, 2, head_width=16, filter_width=1, conv_bias=False)),
    "beside attention": lambda: HybridLM(HybridConfig(VOCABULARY, WIDTH, pattern="SAS", head_width=8)),
}


@pytest.mark.parametrize("name", CARDS)
def test_card(name: str) -> None:
    model = CARDS[name]()
    set_backend(model, "naive")
    card = check_invariants(model)
    assert card.ok, card.failed


def test_derived_sizes() -> None:
    config = Mamba2Config(50, 768, 2)
    assert (config.inner, config.heads, config.head_width, config.state_size, config.groups) == (1536, 24, 64, 128, 1)
    assert Mamba2Config(50, 32, 2, heads=5, head_width=7).inner == 35
    assert Mamba2Config(50, 32, 2, inner=96, head_width=8).heads == 12


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head_width": 7}, "head_width is 7; expected a divisor of inner = 64, or heads given"),
        ({"inner": 64, "heads": 3, "head_width": 16}, "inner is 64; expected 3 heads of 16"),
        ({"heads": 6, "head_width": 8, "groups": 4}, "groups is 4; expected a divisor of heads = 6"),
        ({"head_width": 8, "step_limits": (0.5, 0.1)}, r"step_limits is \(0\.5, 0\.1\); expected \(shortest, longest\)"),
        ({"head_width": 8, "step_limits": (0.5,)}, r"step_limits is \(0\.5,\)"),
        ({"head_width": 8, "step_limits": 1.0}, r"step_limits is 1\.0"),
        ({"state_size": 0}, "state_size is 0; expected a positive int"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_nonsense_in_a_configuration(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mamba2Config(50, 32, 2, **fields)


def test_the_op_can_be_listened_to() -> None:
    model = Mamba2(Mamba2Config(VOCABULARY, WIDTH, 2, head_width=8, state_size=5, groups=2), backend="naive")
    calls = record(model, torch.zeros(3, 9, dtype=torch.int64))
    assert [(call.layer, call.op) for call in calls] == [(f"layers.{i}.mixer", "ssd") for i in range(2)]
    assert calls[0].inputs["x"].shape == (3, 9, 6, 8)
    assert calls[0].inputs["B"].shape == (3, 9, 2, 5)
    assert calls[0].state.shape == (3, 6, 8, 5)


def test_both_ops_run_on_the_models_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    filters = []

    def listened(*inputs: torch.Tensor, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
        filters.append(backend)
        return short_conv(*inputs, backend=backend)

    monkeypatch.setattr(short_filter, "short_conv", listened)
    model = Mamba2(Mamba2Config(VOCABULARY, WIDTH, 2, head_width=8, state_size=5), backend="naive")
    calls = record(model, torch.zeros(1, 3, dtype=torch.int64))
    assert [call.inputs["backend"] for call in calls] == filters == ["naive"] * 2


@pytest.mark.parametrize("name", ["mamba2-130m", "codestral-mamba-7b"])
def test_flops_of_a_token(name: str) -> None:
    """2 a weight of every matrix and a tap of the filter; 5 a number of the state, 3 a channel and 1 a head in the op."""
    config = PRESETS[name].config
    vectors = 2 * config.groups * 128
    matrices = config.width * (2 * config.inner + vectors + config.heads) + config.inner * config.width
    mixing = 2 * 4 * (config.inner + vectors) + config.inner * (5 * 128 + 3) + config.heads
    expected = config.layers * (2 * matrices + mixing) + 2 * config.width * config.vocabulary
    assert account(name, 1_000_000).flops_per_token == expected


def test_state_is_eight_times_that_of_mamba() -> None:
    """N 128 instead of 16, at the same width and depth: the paper's own comparison. Filters are counted apart."""
    scans = [
        sum(layer[1].nbytes for layer in model.init_state(1, 100, device="meta").layers)
        for model in (PRESETS[name].architecture.from_preset(name, device="meta") for name in ("mamba2-2.7b", "mamba-2.8b"))
    ]
    assert scans[0] == 8 * scans[1] == 64 * 4 * 5120 * 128


def test_a_bfloat16_model_keeps_its_matrices_in_float32() -> None:
    model = Mamba2(Mamba2Config(VOCABULARY, WIDTH, 2, head_width=8, state_size=5), backend="naive").to(torch.bfloat16)
    logits, state = model(torch.randint(VOCABULARY, (2, 7)))
    assert logits.dtype == torch.bfloat16
    assert [(layer.conv.dtype, layer.ssm.dtype) for layer in state.layers] == [(torch.bfloat16, torch.float32)] * 2
    assert state_nbytes(state) == 2 * 2 * (3 * (48 + 10) * 2 + 6 * 8 * 5 * 4)
