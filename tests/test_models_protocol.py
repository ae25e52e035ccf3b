"""What every model promises as a whole: any cut, causality, independent rows, exact bytes, and clear errors."""

from collections.abc import Callable

import pytest
import torch

from hybridlab.layers import MixtureOfExperts, Rotary, Routing
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
from hybridlab.state import ModelState, state_nbytes, state_tensors

VOCABULARY, WIDTH, WINDOW, LENGTH, BATCH = 41, 24, 5, 21, 2
PATTERN = "RWREPMSGTHAVBVD"
MODELS: dict[str, Callable[[], LanguageModel]] = {
    "rwkv4": lambda: RWKV4(RWKV4Config(VOCABULARY, WIDTH, 2, attention_width=16)),
    "rwkv5": lambda: RWKV5(RWKV5Config(VOCABULARY, WIDTH, 2, head_width=8)),
    "rwkv6": lambda: RWKV6(RWKV6Config(VOCABULARY, WIDTH, 2, head_width=8, mix_rank=3, decay_rank=5)),
    "rwkv7": lambda: RWKV7(
        RWKV7Config(VOCABULARY, WIDTH, 3, head_width=8, decay_rank=3, rate_rank=4, value_rank=2, gate_rank=5)
    ),
    "decoder": lambda: Decoder(DecoderConfig(VOCABULARY, WIDTH, 2, heads=4, groups=2)),
    "decoder, experts": lambda: Decoder(DecoderConfig(VOCABULARY, WIDTH, 2, heads=4, groups=2, routing=Routing(3, 2))),
    "gemma2": lambda: Gemma2(
        Gemma2Config(VOCABULARY, WIDTH, 2, heads=4, groups=2, window=WINDOW, score_cap=2.0, logit_cap=7.0)
    ),
    "mamba": lambda: Mamba(MambaConfig(VOCABULARY, WIDTH, 2, state_size=5, filter_width=3)),
    "falcon mamba": lambda: FalconMamba(FalconMambaConfig(VOCABULARY, WIDTH, 2, inner=30, rank=3, bias=True, tied=False)),
    "mamba2": lambda: Mamba2(Mamba2Config(VOCABULARY, WIDTH, 2, heads=6, head_width=7, state_size=5, groups=3, bias=True)),
    "hawk": lambda: Hawk(HawkConfig(VOCABULARY, WIDTH, 2, inner=20, blocks=5, filter_width=3, scaled=True, logit_cap=7.0)),
    "griffin": lambda: Griffin(
        GriffinConfig(VOCABULARY, WIDTH, 4, inner=20, blocks=5, heads=3, window=WINDOW, logit_cap=7.0)
    ),
    "retnet": lambda: RetNet(RetNetConfig(VOCABULARY, WIDTH, 2, head_width=8, value_width=5, ffn_width=30)),
    "hyena": lambda: Hyena(HyenaConfig(VOCABULARY, WIDTH, 2, order=3, taps=3 * WINDOW, features=5, hidden=6, inner_maps=1)),
    "h3": lambda: H3(
        H3Config(VOCABULARY, WIDTH, 3, state_size=4, head_width=2, attention_layers=(1,), heads=3, rotary=Rotary())
    ),
    "stripedhyena": lambda: StripedHyena(StripedHyenaConfig(VOCABULARY, WIDTH, 3, heads=4, groups=2, filter_width=4)),
    "based": lambda: Based(
        BasedConfig(VOCABULARY, WIDTH, 3, taylor_layers=(2,), window_layers=(0,), heads=3, key_width=5, window=WINDOW)
    ),
    "hymba": lambda: Hymba(
        HymbaConfig(VOCABULARY, WIDTH, 5, heads=4, groups=2, window=WINDOW, pattern="WSSAW", meta_tokens=3, bias=True)
    ),
    "zamba": lambda: Zamba(ZambaConfig(VOCABULARY, WIDTH, 4, calls=(0, 2, 3), heads=4, groups=2, mixer_heads=3)),
    "zamba2": lambda: Zamba2(
        Zamba2Config(
            VOCABULARY, WIDTH, 4, calls=(1, 2, 3), blocks=2, heads=4, mixer_heads=6, adapter_rank=3, rotary=Rotary()
        )
    ),
    "jamba": lambda: Jamba(
        JambaConfig(
            VOCABULARY, WIDTH, 3, heads=4, groups=2, attention=Every(2, 1), routing=Routing(3, 2, renormalised=False)
        )
    ),
    "mamba2 hybrid": lambda: Mamba2Hybrid(
        Mamba2HybridConfig(VOCABULARY, WIDTH, pattern="M-*M", heads=3, groups=1, ssm_heads=6, ssm_head_width=7, ssm_groups=3)
    ),
    "goldfinch": lambda: GoldFinch(
        GoldFinchConfig(VOCABULARY, WIDTH, 4, head_width=8, code_width=3, mix_rank=2, decay_rank=5, gold_rank=4)
    ),
    "hybrid": lambda: HybridLM(HybridConfig(VOCABULARY, WIDTH, pattern=PATTERN, head_width=8, window=WINDOW)),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    model = random_weights(MODELS[request.param]().double())
    set_backend(model, "naive")
    return model


def random_weights(model: LanguageModel) -> LanguageModel:
    """Moves every weight, so that nothing hides behind an initial zero."""
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model


def prompt(length: int = LENGTH) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (BATCH, length))


@torch.no_grad()
@pytest.mark.parametrize("cuts", [[1] * LENGTH, [3, 7, 1, 10]], ids=["steps", "odd"])
def test_cuts_change_nothing(model: LanguageModel, cuts: list[int]) -> None:
    ids = prompt()
    whole = model(ids)
    state, pieces = None, []
    for piece in ids.split(cuts, 1):
        logits, state = model(piece, state)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole.logits, rtol=0, atol=1e-9)
    assert state is not None
    assert state.position.dtype == torch.int64
    assert state.position.item() == whole.state.position.item() == LENGTH


@torch.no_grad()
def test_causal(model: LanguageModel) -> None:
    """Each token in turn becomes every possible other one at random; the logits before it stay, its own change."""
    ids = prompt()
    before = model(ids).logits
    for t in range(LENGTH):
        changed = ids.clone()
        changed[:, t] = (ids[:, t] + torch.randint(1, VOCABULARY, (BATCH,))) % VOCABULARY
        after = model(changed).logits
        # To the bit, but for experts: with other rows beside they may round otherwise.
        rounding = 1e-9 if any(isinstance(module, MixtureOfExperts) for module in model.modules()) else 0.0
        assert (after[:, :t] - before[:, :t]).abs().sum() <= rounding, f"token {t} reached back"
        assert ((after[:, t] - before[:, t]).abs().amax(-1) > 1e-6).all(), f"token {t} does not see itself"


@torch.no_grad()
def test_rows_are_independent(model: LanguageModel) -> None:
    ids = prompt()
    together = model(ids).logits
    for row in range(BATCH):
        torch.testing.assert_close(model(ids[row : row + 1]).logits[0], together[row], rtol=0, atol=1e-11)


@torch.no_grad()
@pytest.mark.parametrize("length", [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 4 * WINDOW])
def test_init_state_is_the_state_of_a_forward(model: LanguageModel, length: int) -> None:
    promised = model.init_state(BATCH, length)
    assert promised.position.item() == length
    if length == 0:
        return
    state = model(prompt(length)).state
    assert state_nbytes(state) == state_nbytes(promised)
    for one, other in zip(state_tensors(state), state_tensors(promised), strict=True):
        assert (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_bfloat16(name: str) -> None:
    """Recurrent states stay float32, everything else is bfloat16, and steps go on where the prompt ended."""
    model = random_weights(MODELS[name]()).to(torch.bfloat16)
    set_backend(model, "naive")
    logits, state = model(prompt())
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()
    for one, other in zip(state_tensors(state), state_tensors(model.init_state(BATCH, LENGTH)), strict=True):
        assert one.dtype == other.dtype
    _, after = model(prompt(1), state)
    assert after.position.item() == LENGTH + 1


def test_bytes_of_a_hybrid() -> None:
    """Numbers of float32. R, E, V: a shift and H matrices; P: a shift and three a channel; M: three inputs of the filter and
    sixteen a channel, twice the width; S: three inputs of the filter, of x, B and C, and six matrices; G: three inputs
    of the filter and one number a channel; T, D: H matrices; H: two inputs of the filter, thrice the width, and all inputs;
    A: all tokens; W: W - 1 of them; B: a row of values, and a sum, a feature of a key of 8."""
    model = MODELS["hybrid"]()
    matrices, cache = WIDTH + 3 * 8 * 8, 2 * WIDTH
    mamba, mamba2 = 2 * WIDTH * (3 + 16), 3 * (2 * WIDTH + 2 * 16) + 6 * 8 * 16
    for length in (1, WINDOW, 4 * WINDOW):
        caches = cache * length + cache * min(length, WINDOW - 1)
        caches += 2 * 3 * WIDTH + WIDTH * length
        numbers = (
            5 * matrices + 3 * (1 + 8 + 64) * 9 + (WIDTH + 3 * WIDTH) + mamba + mamba2 + 4 * WIDTH + 2 * 3 * 8 * 8 + caches
        )
        assert state_nbytes(model.init_state(1, length)) == 4 * numbers


def test_a_longer_hybrid_repeats_its_pattern() -> None:
    model = HybridLM(HybridConfig(VOCABULARY, WIDTH, 6, pattern="RRA", head_width=8))
    kinds = [type(block.mixer).__name__ for block in model.layers]
    assert kinds == ["RWKV6TimeMixing", "RWKV6TimeMixing", "GroupedAttention"] * 2


def test_every_letter_is_in_use() -> None:
    assert set(PATTERN) == set(LETTERS)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(2, 0, dtype=torch.int64), r"at least one token, got shape \(2, 0\)"),
        (torch.zeros(5, dtype=torch.int64), r"must be \(B, T\).* got shape \(5,\)"),
        (torch.zeros(1, 5), r"int64 tensor, got torch\.float32"),
        ([[1, 2]], "int64 tensor, got list"),
        (torch.tensor([[0, VOCABULARY]]), rf"0\.\.{VOCABULARY - 1}, got ids from 0 to {VOCABULARY}"),
        (torch.tensor([[-1, 3]]), r"got ids from -1 to 3"),
    ],
    ids=["no tokens", "no batch", "floats", "list", "too large", "negative"],
)
def test_wrong_ids(ids: torch.Tensor, message: str) -> None:
    model = MODELS["rwkv6"]()
    for call in (model, lambda ids: model.generate(ids, 1)):
        with pytest.raises(ValueError, match=message):
            call(ids)


def test_wrong_states(model: LanguageModel) -> None:
    state = model(prompt()).state
    with pytest.raises(ValueError, match="state must be a ModelState or None, got tuple"):
        model(prompt(1), tuple(state))
    with pytest.raises(ValueError, match=f"state has 1 layers, the model has {len(model.layers)}"):
        model(prompt(1), ModelState(state.layers[:1], state.shared, state.position))
    with pytest.raises(ValueError, match=r"\(1, |must be \(1"):
        model(prompt(1)[:1], state)


@pytest.mark.parametrize(("batch", "length"), [(0, 1), (1, -1)])
def test_wrong_sizes_of_a_state(batch: int, length: int) -> None:
    with pytest.raises(ValueError, match=f"got {batch} and {length}"):
        MODELS["rwkv4"]().init_state(batch, length)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RWKV6Config(0, 64, 2), "RWKV6Config: vocabulary is 0; expected a positive int"),
        (lambda: RWKV6Config(50, 64.0, 2), r"width is 64\.0; expected a positive int"),
        (lambda: RWKV6Config(50, 64, True), "layers is True"),
        (lambda: RWKV6Config(50, 96, 2), "head_width is 64; expected a divisor of width = 96"),
        (lambda: RWKV5Config(50, 64, 2, head_width=0), "head_width is 0"),
        (lambda: RWKV4Config(50, 64, 2, norm_eps=0.0), r"norm_eps is 0\.0; expected a positive number"),
        (lambda: RWKV4Config(50, 64, 2, ffn_width=-4), "ffn_width is -4"),
        (lambda: DecoderConfig(50, 64, 2, heads=4, groups=3), "groups is 3; expected a divisor of heads = 4"),
        (lambda: DecoderConfig(50, 64, 2, heads=4, head_width=5), "head_width is 5; expected an even number"),
        (lambda: DecoderConfig(50, 64, 2, window=0), "window is 0"),
        (lambda: HybridConfig(50, 64, pattern="RXA"), r"pattern is 'RXA'; expected one letter a layer: A \(attention\)"),
        (lambda: HybridConfig(50, 64, pattern=""), "is ''|is 0"),
        (lambda: HybridConfig(50, 64, 5, pattern="RA"), "layers is 5; expected a multiple of 2"),
    ],
)
def test_nonsense_in_a_configuration(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_derived_sizes() -> None:
    assert RWKV6Config(50, 2560, 2).ffn_width == 8960
    assert RWKV5Config(50, 320, 2).ffn_width == 1120
    assert RWKV4Config(50, 320, 2).ffn_width == 1280
    assert RWKV6Config(50, 256, 2).heads == 4
    assert HybridConfig(50, 256, pattern="RRAW").layers == 4


def test_backend_of_the_constructor_and_unknown_names() -> None:
    model = RWKV6(RWKV6Config(VOCABULARY, WIDTH, 2, head_width=8), backend="naive")
    assert [block.mixer.backend for block in model.layers] == ["naive", "naive"]
    with pytest.raises(ValueError, match="unknown backend 'fast' for RWKV6TimeMixing"):
        RWKV6(RWKV6Config(VOCABULARY, WIDTH, 2, head_width=8), backend="fast")
