"""Models learn from their initial values: eight tokens in a circle are known by heart after 40 steps."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import cross_entropy

from hybridlab.layers import Routing
from hybridlab.models import (
    H3,
    RWKV4,
    RWKV5,
    RWKV6,
    RWKV7,
    Based,
    BasedConfig,
    Decoder,
    DecoderConfig,
    FalconMamba,
    FalconMambaConfig,
    Gemma2,
    Gemma2Config,
    GoldFinch,
    GoldFinchConfig,
    Griffin,
    GriffinConfig,
    H3Config,
    Hawk,
    HawkConfig,
    HybridConfig,
    HybridLM,
    Hyena,
    HyenaConfig,
    Hymba,
    HymbaConfig,
    Jamba,
    JambaConfig,
    LanguageModel,
    Mamba,
    Mamba2,
    Mamba2Config,
    Mamba2Hybrid,
    Mamba2HybridConfig,
    MambaConfig,
    RetNet,
    RetNetConfig,
    RWKV4Config,
    RWKV5Config,
    RWKV6Config,
    RWKV7Config,
    StripedHyena,
    StripedHyenaConfig,
    Zamba,
    Zamba2,
    Zamba2Config,
    ZambaConfig,
    set_backend,
)
from hybridlab.models.jamba import Every

VOCABULARY, WIDTH, LAYERS = 32, 32, 2
MODELS: dict[str, Callable[[], LanguageModel]] = {
    "rwkv4": lambda: RWKV4(RWKV4Config(VOCABULARY, WIDTH, LAYERS)),
    "rwkv5": lambda: RWKV5(RWKV5Config(VOCABULARY, WIDTH, LAYERS, head_width=16)),
    "rwkv6": lambda: RWKV6(RWKV6Config(VOCABULARY, WIDTH, LAYERS, head_width=16, mix_rank=4, decay_rank=4)),
    "rwkv7": lambda: RWKV7(RWKV7Config(VOCABULARY, WIDTH, LAYERS, head_width=16)),
    "decoder": lambda: Decoder(DecoderConfig(VOCABULARY, WIDTH, LAYERS, heads=2)),
    "decoder, experts": lambda: Decoder(DecoderConfig(VOCABULARY, WIDTH, LAYERS, heads=2, routing=Routing(4, 2))),
    "gemma2": lambda: Gemma2(Gemma2Config(VOCABULARY, WIDTH, LAYERS, heads=2, window=8, score_cap=5.0, logit_cap=20.0)),
    "mamba": lambda: Mamba(MambaConfig(VOCABULARY, WIDTH, LAYERS)),
    "falcon mamba": lambda: FalconMamba(FalconMambaConfig(VOCABULARY, WIDTH, LAYERS, tied=False)),
    "mamba2": lambda: Mamba2(Mamba2Config(VOCABULARY, WIDTH, LAYERS, head_width=16, state_size=16)),
    "hawk": lambda: Hawk(HawkConfig(VOCABULARY, WIDTH, LAYERS, blocks=2)),
    "griffin": lambda: Griffin(GriffinConfig(VOCABULARY, WIDTH, 3, blocks=2, heads=2, window=5)),
    "retnet": lambda: RetNet(RetNetConfig(VOCABULARY, WIDTH, LAYERS, head_width=16)),
    "hyena": lambda: Hyena(HyenaConfig(VOCABULARY, WIDTH, LAYERS, taps=64)),
    "h3": lambda: H3(H3Config(VOCABULARY, WIDTH, LAYERS, state_size=8)),
    "stripedhyena": lambda: StripedHyena(StripedHyenaConfig(VOCABULARY, WIDTH, LAYERS, attention_layers=())),
    "based": lambda: Based(
        BasedConfig(VOCABULARY, WIDTH, 3, taylor_layers=(1,), window_layers=(2,), heads=2, key_width=4, ffn_width=64)
    ),
    "hymba": lambda: Hymba(HymbaConfig(VOCABULARY, WIDTH, LAYERS, heads=2, window=5, pattern="WS", meta_tokens=3)),
    "zamba": lambda: Zamba(ZambaConfig(VOCABULARY, WIDTH, 2, calls=(1,), heads=2)),
    "zamba2": lambda: Zamba2(
        Zamba2Config(VOCABULARY, WIDTH, 2, calls=(0, 1), heads=2, mixer_heads=4, adapter_rank=4, attention_adapters=True)
    ),
    "jamba": lambda: Jamba(
        JambaConfig(VOCABULARY, WIDTH, 3, heads=2, attention=Every(3, 2), routing=Routing(3, 2, renormalised=False))
    ),
    "mamba2 hybrid": lambda: Mamba2Hybrid(
        Mamba2HybridConfig(VOCABULARY, WIDTH, pattern="M-*-", head_width=16, ssm_head_width=16, state_size=16)
    ),
    "goldfinch": lambda: GoldFinch(GoldFinchConfig(VOCABULARY, WIDTH, LAYERS, head_width=16, gold_rank=8)),
    "hybrid": lambda: HybridLM(HybridConfig(VOCABULARY, WIDTH, pattern="RA", head_width=16)),
}


def loss_of(model: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten())


@pytest.mark.parametrize("name", MODELS)
def test_first_loss_is_that_of_a_guess(name: str) -> None:
    """Nothing is known yet: the loss lies near log(vocabulary). Logits that begin with variance 1 cost half of that more."""
    model = MODELS[name]()
    set_backend(model, "naive")
    loss = loss_of(model, torch.randint(0, VOCABULARY, (8, 17)))
    wide = 0.5 if name in ("hawk", "griffin", "retnet", "gemma2") else 0
    assert loss.item() == pytest.approx(math.log(VOCABULARY) + wide, abs=0.3)


@pytest.mark.parametrize("name", MODELS)
def test_learns_a_period(name: str) -> None:
    """Eight tokens in a circle, entered anywhere: each is followed by the same one, and generation goes round."""
    model = MODELS[name]()
    set_backend(model, "naive")
    period = torch.randperm(VOCABULARY)[:8]
    starts = torch.randint(0, 8, (40, 4, 1))
    rows = period[(starts + torch.arange(25)) % 8]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    for ids in rows:
        loss = loss_of(model, ids)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1
    continued = model.generate(rows[0], 8)
    assert torch.equal(continued[:, 25:], rows[0][:, 1:9])


@pytest.mark.parametrize("name", ["rwkv4", "rwkv5", "rwkv6", "rwkv7"])
def test_rwkv_starts_with_a_tiny_embedding_and_an_orthogonal_head(name: str) -> None:
    model = MODELS[name]()
    assert 0.9e-4 < model.embedding.weight.abs().max().item() <= 1e-4
    head = model.head.weight.detach()
    torch.testing.assert_close(head @ head.T, 0.25 * torch.eye(VOCABULARY), rtol=0, atol=1e-5)
