"""The smallest model of every architecture and of every letter of a pattern: what `hybridlab check --models` checks."""

from collections.abc import Callable

from hybridlab.layers import Rotary, Routing
from hybridlab.models import (
    H3,
    LETTERS,
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
    RecurrentGemma,
    RecurrentGemmaConfig,
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
)
from hybridlab.models.jamba import Every

VOCABULARY, WIDTH, LAYERS, WINDOW = 41, 24, 2, 5


def _hybrid(pattern: str) -> LanguageModel:
    return HybridLM(HybridConfig(VOCABULARY, WIDTH, pattern=pattern, head_width=8, window=WINDOW))


TINY: dict[str, Callable[[], LanguageModel]] = {
    "RWKV4": lambda: RWKV4(RWKV4Config(VOCABULARY, WIDTH, LAYERS, attention_width=16)),
    "RWKV5": lambda: RWKV5(RWKV5Config(VOCABULARY, WIDTH, LAYERS, head_width=8)),
    "RWKV6": lambda: RWKV6(RWKV6Config(VOCABULARY, WIDTH, LAYERS, head_width=8, mix_rank=3, decay_rank=5)),
    "RWKV7": lambda: RWKV7(
        RWKV7Config(VOCABULARY, WIDTH, LAYERS, head_width=8, decay_rank=3, rate_rank=4, value_rank=2, gate_rank=5)
    ),
    "Decoder": lambda: Decoder(DecoderConfig(VOCABULARY, WIDTH, LAYERS, heads=4, groups=2)),
    "Decoder, window": lambda: Decoder(DecoderConfig(VOCABULARY, WIDTH, LAYERS, heads=4, groups=2, window=WINDOW)),
    "Decoder, experts": lambda: Decoder(DecoderConfig(VOCABULARY, WIDTH, LAYERS, heads=4, groups=2, routing=Routing(4, 2))),
    "Gemma2": lambda: Gemma2(
        Gemma2Config(VOCABULARY, WIDTH, LAYERS, heads=4, groups=2, window=WINDOW, query_scalar=9.0, score_cap=2.0)
    ),
    "Mamba": lambda: Mamba(MambaConfig(VOCABULARY, WIDTH, LAYERS, state_size=6)),
    "FalconMamba": lambda: FalconMamba(FalconMambaConfig(VOCABULARY, WIDTH, LAYERS, state_size=6, tied=False)),
    "Mamba2": lambda: Mamba2(Mamba2Config(VOCABULARY, WIDTH, LAYERS, head_width=8, state_size=6, groups=2)),
    "Hawk": lambda: Hawk(HawkConfig(VOCABULARY, WIDTH, LAYERS, inner=32, blocks=4, scaled=True, logit_cap=5.0)),
    "Griffin": lambda: Griffin(GriffinConfig(VOCABULARY, WIDTH, 3, inner=32, blocks=4, heads=2, window=WINDOW)),
    "RecurrentGemma": lambda: RecurrentGemma(RecurrentGemmaConfig(VOCABULARY, WIDTH, 4, heads=3, window=WINDOW)),
    "RetNet": lambda: RetNet(RetNetConfig(VOCABULARY, WIDTH, LAYERS, head_width=8)),
    "Hyena": lambda: Hyena(HyenaConfig(VOCABULARY, WIDTH, LAYERS, order=3, taps=3 * WINDOW, features=5, hidden=8)),
    "H3": lambda: H3(
        H3Config(
            VOCABULARY, WIDTH, 3, state_size=6, head_width=2, attention_layers=(1,), heads=3, rotary=Rotary(fraction=0.5)
        )
    ),
    "StripedHyena": lambda: StripedHyena(StripedHyenaConfig(VOCABULARY, WIDTH, LAYERS, heads=4, groups=2)),
    "Based": lambda: Based(
        BasedConfig(
            VOCABULARY, WIDTH, 3, taylor_layers=(1,), window_layers=(2,), heads=3, key_width=4, window=WINDOW, ffn_width=32
        )
    ),
    "Jamba": lambda: Jamba(
        JambaConfig(
            VOCABULARY,
            WIDTH,
            4,
            heads=4,
            groups=2,
            attention=Every(4, 2),
            routing=Routing(4, 2, renormalised=False),
            state_size=6,
        )
    ),
    "Mamba2Hybrid": lambda: Mamba2Hybrid(
        Mamba2HybridConfig(
            VOCABULARY, WIDTH, pattern="M-*-", heads=4, groups=2, ssm_head_width=8, ssm_groups=2, state_size=6
        )
    ),
    "Hymba": lambda: Hymba(
        HymbaConfig(VOCABULARY, WIDTH, 4, heads=3, groups=1, window=WINDOW, pattern="AWSA", meta_tokens=3, state_size=6)
    ),
    "Zamba": lambda: Zamba(ZambaConfig(VOCABULARY, WIDTH, 4, calls=(1, 3), heads=3, state_size=6)),
    "Zamba2": lambda: Zamba2(
        Zamba2Config(
            VOCABULARY,
            WIDTH,
            4,
            calls=(0, 2, 3),
            blocks=2,
            heads=3,
            state_size=6,
            mixer_heads=6,
            mixer_groups=2,
            adapter_rank=5,
            attention_adapters=True,
            rotary=Rotary(),
        )
    ),
    "GoldFinch": lambda: GoldFinch(
        GoldFinchConfig(VOCABULARY, WIDTH, 3, head_width=8, code_width=3, mix_rank=3, decay_rank=5, gold_rank=4)
    ),
    "HybridLM of every letter": lambda: _hybrid("".join(LETTERS)),
}
