"""Gemma-2: windows by turns, a norm around every branch, caps, and an embedding that is exactly scaled."""

import math
from typing import Any

import pytest
import torch

from hybridlab.layers import CappedHead
from hybridlab.measure import account, memory
from hybridlab.measure.flops import Flops
from hybridlab.models import PRESETS, Gemma2, Gemma2Config, from_preset

WINDOW = 5
CONFIG = Gemma2Config(41, 24, 3, heads=4, groups=2, head_width=8, window=WINDOW, score_cap=0.5)
# Gemma 2, arXiv 2408.00118, table 2.
WITHOUT_EMBEDDING = {"gemma2-2b": 2_024_517_888, "gemma2-9b": 8_324_201_984, "gemma2-27b": 26_047_480_320}


@pytest.fixture
def _no_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters and bytes do not depend on what is slow in the account."""
    monkeypatch.setattr(memory, "count_flops", lambda model, context: Flops(0, {}))


def shaken(config: Gemma2Config = CONFIG) -> Gemma2:
    """Weights of which none is what it was at first."""
    model = Gemma2(config).double().eval()
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.usefixtures("_no_flops")
@pytest.mark.parametrize("name", WITHOUT_EMBEDDING)
def test_published_parameters_and_bytes_of_both_kinds_of_layers(name: str) -> None:
    """And bytes: half of the layers keep everything, the other half W - 1 rows (papers count W)."""
    config, model = PRESETS[name].config, from_preset(name, device="meta")
    row, window = 2 * config.groups * config.head_width * 2, config.window
    for context in (1, window - 1, window, window + 1, 4 * window):
        report = account(model, context)
        assert report.parameters == report.active_parameters
        assert report.parameters - config.vocabulary * config.width == WITHOUT_EMBEDDING[name]
        assert report.kv_bytes == config.layers // 2 * row * (context + min(context, window - 1))
        assert report.state_bytes == 0


def test_even_layers_look_through_the_window() -> None:
    assert [block.mixer.window for block in Gemma2(CONFIG).layers] == [WINDOW, None, WINDOW]
    report = account(Gemma2(CONFIG), 4 * WINDOW)
    windowed, everything, again = (part for part in report.parts if part.name.startswith("layers"))
    assert windowed.kv_bytes == again.kv_bytes == everything.kv_bytes * (WINDOW - 1) / (4 * WINDOW)
    # The step reads its own token beside the cache: W keys under the window.
    per_key = 4 * CONFIG.heads * CONFIG.head_width
    assert everything.flops_per_token - windowed.flops_per_token == per_key * (4 * WINDOW - WINDOW)


@torch.no_grad()
def test_a_block_is_its_equation() -> None:
    """x += norm(attention(norm x)); x += norm(mlp(norm x)): what a branch adds has been normed."""
    block = shaken().layers[1]
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    middle = x + block.mixer_added_norm(block.mixer(block.mixer_norm(x))[0])
    expected = middle + block.channel_added_norm(block.channel_mixer(block.channel_norm(middle))[0])
    torch.testing.assert_close(block(x)[0], expected, rtol=0, atol=1e-12)
    added = (middle - x) / (1 + block.mixer_added_norm.weight)
    torch.testing.assert_close(added.square().mean(-1), torch.ones(2, 7, dtype=torch.float64), rtol=1e-3, atol=0)


@torch.no_grad()
def test_scores_are_scaled_and_capped() -> None:
    """By query_scalar^-1/2 and softly, in every layer; both change the logits."""
    for block in Gemma2(Gemma2Config(41, 24, 2, heads=4, query_scalar=16.0, score_cap=0.5, window=3)).layers:
        assert (block.mixer.options.scale, block.mixer.options.softcap) == (0.25, 0.5)
    assert Gemma2Config(41, 24, 2, heads=4, head_width=10).query_scalar == 10
    assert PRESETS["gemma2-27b"].config.query_scalar == 4608 / 32


@torch.no_grad()
def test_the_root_of_the_width_is_not_rounded() -> None:
    """4.898979 for 24; RecurrentGemma's 4.90625 would be another model."""
    model = shaken()
    ids = torch.tensor([[3, 5]])
    torch.testing.assert_close(model.embedding_norm(model.embedding(ids)), model.embedding.weight[ids] * 24**0.5)
    assert model.embedding_norm.factor == math.sqrt(24)


@torch.no_grad()
def test_logits_are_limited_and_the_head_is_the_embedding() -> None:
    free, ids = shaken(Gemma2Config(41, 24, 3, heads=4, window=WINDOW)), torch.randint(0, 41, (2, 9))
    capped = Gemma2(Gemma2Config(41, 24, 3, heads=4, window=WINDOW, logit_cap=2.0)).double()
    capped.load_state_dict(free.state_dict())
    logits = free(ids).logits
    assert logits.abs().max() > 2
    torch.testing.assert_close(capped(ids).logits, 2 * (logits / 2).tanh(), rtol=0, atol=1e-12)
    assert isinstance(capped.head, CappedHead)
    assert capped.head.weight is capped.embedding.weight
    assert not capped.head.weight.is_meta


def test_no_map_has_a_bias() -> None:
    assert not [name for name, _ in Gemma2(CONFIG).named_parameters() if name.endswith("bias")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_cap": 0.0}, r"score_cap is 0\.0; expected a positive number"),
        ({"logit_cap": -3.0}, r"logit_cap is -3\.0; expected a positive number"),
        ({"query_scalar": -1.0}, r"query_scalar is -1\.0; expected a positive number"),
        ({"groups": 3}, "groups is 3; expected a divisor of heads = 4"),
        ({"window": 0}, "window is 0; expected a positive int"),
    ],
)
def test_impossible_sizes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Gemma2Config: {message}"):
        Gemma2Config(41, 24, 3, **{"heads": 4, **options})
