"""Hybrids by a word: layers follow the letters, in any order, and each keeps what its letter keeps."""

import pytest
import torch

from hybridlab.layers import GroupedAttention, MambaMixer, SwiGLU
from hybridlab.measure import account, check_invariants
from hybridlab.models import HybridConfig, HybridLM, set_backend

VOCABULARY, WIDTH = 41, 24


def test_attention_between_mambas() -> None:
    model = HybridLM(HybridConfig(vocabulary=VOCABULARY, width=WIDTH, layers=8, pattern="MMMAMMMM", head_width=8))
    kinds = [type(block.mixer) for block in model.layers]
    assert kinds == [MambaMixer] * 3 + [GroupedAttention] + [MambaMixer] * 4
    assert all(isinstance(block.channel_mixer, SwiGLU) for block in model.layers)
    set_backend(model, "naive")
    card = check_invariants(model)
    assert card.ok, card.failed


def test_one_cache_among_eight_layers() -> None:
    """The cache of one layer grows by two rows of D a token; seven keep three inputs and 16 numbers in each of 2 D
    channels."""
    model = HybridLM(HybridConfig(VOCABULARY, WIDTH, pattern="MMMAMMMM", head_width=8))
    for context in (1, 100):
        counted = account(model, context, dtype="float32")
        assert counted.kv_bytes == 4 * 2 * WIDTH * context
        assert counted.state_bytes == 4 * 7 * 2 * WIDTH * (3 + 16)


@torch.no_grad()
def test_order_matters() -> None:
    """The same layers in another order are another model, whatever the seed of their weights."""
    logits = []
    for pattern in ("MA", "AM"):
        torch.manual_seed(0)
        model = HybridLM(HybridConfig(VOCABULARY, WIDTH, pattern=pattern, head_width=8))
        set_backend(model, "naive")
        assert "".join("A" if isinstance(block.mixer, GroupedAttention) else "M" for block in model.layers) == pattern
        logits.append(model(torch.arange(9)[None]).logits)
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_words_that_do_not_fit() -> None:
    for fields, message in (
        ({"pattern": "MMXA"}, r"pattern is 'MMXA'; expected one letter a layer: A \(attention\), .* M \(Mamba"),
        ({"pattern": None}, "pattern is None; expected one letter a layer"),
        ({"pattern": "MMMA", "layers": 6}, "layers is 6; expected a multiple of 4 letters"),
    ):
        with pytest.raises(ValueError, match=message):
            HybridConfig(VOCABULARY, WIDTH, head_width=8, **fields)
