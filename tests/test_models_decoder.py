"""The plain decoder at its published sizes: parameters, those that a token uses, and the cache."""

import pytest
import torch

from hybridlab.layers import AttentionOptions, GroupedAttention, MixtureOfExperts, Routing
from hybridlab.measure import account, memory
from hybridlab.measure.flops import Flops
from hybridlab.models import PRESETS, Decoder, DecoderConfig

CONTEXT_256K = 262_144
# All, and those that a token uses: as printed for the checkpoints' own tensors.
EXACT = {
    "llama-2-7b": (6_738_415_616, 6_738_415_616),
    "llama-3.1-8b": (8_030_261_248, 8_030_261_248),
    "llama-3.2-3b": (3_212_749_824, 3_212_749_824),
    "mixtral-8x22b": (140_620_634_112, 39_152_031_744),
}
# Jamba, arXiv 2403.19887, and Jamba-1.5, 2408.12570, tables 1: billions in all and active, GiB of cache at 256K tokens.
TABLES_OF_JAMBA = {
    "llama-2-7b": (6.7, 6.7, 128),
    "llama-3.1-70b": (70, 70, 80),
    "mistral-7b": (7.2, 7.2, 32),
    "mixtral-8x7b": (46.7, 12.9, 32),
}


@pytest.fixture
def _no_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters and bytes do not depend on what is slow in the account."""
    monkeypatch.setattr(memory, "count_flops", lambda model, context: Flops(0, {}))


@pytest.mark.usefixtures("_no_flops")
@pytest.mark.parametrize("name", EXACT)
def test_exact_counts(name: str) -> None:
    report = account(name, 1)
    assert (report.parameters, report.active_parameters) == EXACT[name]


@pytest.mark.usefixtures("_no_flops")
@pytest.mark.parametrize("name", TABLES_OF_JAMBA)
def test_the_tables_of_jamba(name: str) -> None:
    available, active, cache = TABLES_OF_JAMBA[name]
    report = account(name, CONTEXT_256K)
    assert report.kv_bytes == cache * 2**30
    for count, printed in ((report.parameters, available), (report.active_parameters, active)):
        assert count / 1e9 == pytest.approx(printed, rel=0.01)


@pytest.mark.usefixtures("_no_flops")
def test_the_cache_of_llama_3_2() -> None:
    """Hymba, arXiv 2411.13676: 918 MB at 8K, which is 8000 tokens and 10^6 bytes there."""
    assert round(account("llama-3.2-3b", 8000).kv_bytes / 1e6) == 918


def test_operations_of_mixtral() -> None:
    """2 an active weight of every matrix but the embedding, and 4 H K a token in sight."""
    config, context = PRESETS["mixtral-8x7b"].config, 1000
    report = account("mixtral-8x7b", context)
    norms = (2 * config.layers + 1) * config.width
    matrices = report.active_parameters - norms - config.vocabulary * config.width
    assert report.flops_per_token == 2 * matrices + 4 * config.layers * config.heads * config.head_width * context
    assert "GroupedAttention + MixtureOfExperts" in repr(report)
    assert "a token uses 12,879,925,248 parameters" in repr(report)


def test_biases_are_those_of_attention_alone() -> None:
    config = DecoderConfig(41, 24, 2, heads=4, groups=2, attention_bias=True, routing=Routing(3, 2))
    biased = {name for name, _ in Decoder(config).named_parameters() if name.endswith(".bias")}
    maps = ("query", "key", "value", "output")
    assert biased == {f"layers.{layer}.mixer.{name}.bias" for layer in range(2) for name in maps}


def test_every_layer_has_the_same_window_and_routing() -> None:
    model = Decoder(DecoderConfig(41, 24, 3, heads=4, window=5, routing=Routing(3, 2)))
    attentions = [module for module in model.modules() if isinstance(module, GroupedAttention)]
    mixtures = [module for module in model.modules() if isinstance(module, MixtureOfExperts)]
    assert [attention.window for attention in attentions] == [5] * 3
    assert [mixture.routing for mixture in mixtures] == [Routing(3, 2)] * 3


@torch.no_grad()
def test_a_scale_and_a_cap_are_the_equations() -> None:
    """s = c tanh(scale q k / c), softmax over what is seen, by hand for two tokens of one head."""
    layer = GroupedAttention(4, 1, 1, 4, options=AttentionOptions(scale=0.3, softcap=0.7, bias=True)).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 2, 4, dtype=torch.float64)
    q, k, v = (linear(x)[0] for linear in (layer.query, layer.key, layer.value))
    scores = 0.7 * (0.3 * q[1] @ k.T / 0.7).tanh()
    expected = torch.stack((v[0], scores.softmax(0) @ v))
    torch.testing.assert_close(layer(x)[0][0], layer.output(expected), rtol=0, atol=1e-12)
