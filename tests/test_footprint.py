"""A footprint is the account at every context, batch and dtype at once, and refuses what it cannot describe."""

from collections.abc import Callable

import pytest
import torch

from hybridlab.layers import GroupedAttention
from hybridlab.measure import account, memory
from hybridlab.measure.flops import Flops
from hybridlab.measure.footprint import Footprint, Piece, footprint
from hybridlab.measure.tiny import TINY, WINDOW
from hybridlab.models import PRESETS, Decoder, DecoderConfig, HybridConfig, HybridLM, LanguageModel, from_preset
from hybridlab.ops import AttentionState
from hybridlab.state import ModelState

CONTEXTS = (1, WINDOW - 2, WINDOW - 1, WINDOW, WINDOW + 1, 255, 4095, 4096, 12_345, 2**22 - 1)


def hybrid(pattern: str, **sizes: int) -> LanguageModel:
    return HybridLM(HybridConfig(41, 24, pattern=pattern, head_width=8, window=WINDOW, **sizes))


MODELS: dict[str, Callable[[], LanguageModel]] = {
    **TINY,
    **{name: lambda name=name: from_preset(name, device="meta") for name in PRESETS},
    "RW": lambda: hybrid("RW"),
    "RRRA": lambda: hybrid("RRRA", groups=1),
}


@pytest.fixture
def _no_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes do not depend on what is slow in the account."""
    monkeypatch.setattr(memory, "count_flops", lambda model, context: Flops(0, {}))


@pytest.mark.usefixtures("_no_flops")
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_account_to_the_byte(name: str) -> None:
    model = MODELS[name]()
    found = footprint(model)
    for context in CONTEXTS[:: 4 if name in PRESETS else 1]:
        for batch, dtype in ((1, "bfloat16"), (7, "float16"), (64, "float32"), (2, "float64")):
            report = account(model, context, batch, dtype)
            assert found.kept_bytes(context, batch, dtype) == report.total_bytes
            assert found.kept_bytes(context, batch, dtype, cache=True) == report.kv_bytes
            assert found.kept_bytes(context, batch, dtype, cache=False) == report.state_bytes
            assert found.weight_bytes(dtype) == report.weight_bytes


def test_pieces_of_a_hybrid() -> None:
    """One letter each of: cache, cache with a window (W - 1 rows), shift in bfloat16 and state in float32."""
    pieces = footprint(hybrid("RWA")).pieces
    assert set(pieces) == {
        Piece(cache=False, unit="dtype", fixed=24, per_token=0, most=None),
        Piece(cache=False, unit="state_dtype", fixed=3 * 8 * 8, per_token=0, most=None),
        Piece(cache=True, unit="dtype", fixed=0, per_token=2 * 24, most=WINDOW - 1),
        Piece(cache=True, unit="dtype", fixed=0, per_token=2 * 24, most=None),
    }


@pytest.mark.parametrize("pattern", ["A", "W", "R", "RW", "RWA"])
def test_first_too_long_is_the_first(pattern: str) -> None:
    found = footprint(hybrid(pattern))
    for limit in (0, 95, 96, 97, 1000, 1155, 1156, 1536, 5000, 20_000):
        for batch in (1, 3):
            too_long = [context for context in range(1, 1000) if found.kept_bytes(context, batch) > limit]
            assert found.first_too_long(limit, batch) == (too_long[0] if too_long else None)


def test_first_too_long_beyond_every_window() -> None:
    found = Footprint(0, (Piece(True, "byte", 10, 3, 1000), Piece(True, "byte", 0, 1, None)))
    assert found.first_too_long(10 + 4000) == 1001
    assert found.first_too_long(10 + 3000 + 10**9) == 10**9 + 1


def test_a_shared_storage_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(self: Decoder, *args: object, **kwargs: object) -> ModelState:
        state = LanguageModel.init_state(self, *args, **kwargs)
        return ModelState((state.layers[0],) * len(state.layers), state.shared, state.position)

    model = Decoder(DecoderConfig(41, 24, 3, heads=3))
    alone = footprint(model).kept_bytes(77)
    monkeypatch.setattr(Decoder, "init_state", shared)
    assert footprint(model).kept_bytes(77) == alone / 3


def keys(batch: int, rows: int) -> AttentionState:
    return AttentionState(*(torch.zeros(batch, rows, 1, 8, dtype=torch.bfloat16, device="meta") for _ in range(2)))


@pytest.mark.parametrize(
    ("state_after", "message"),
    [
        (lambda batch, length: keys(batch, length // 16 * 16), "batch 1, 1,000 tokens: 31,744 bytes, not 0"),
        (lambda batch, length: keys(batch, max(length - 5, 0)), "batch 1, 1,000 tokens: 31,840 bytes, not 0"),
        (lambda batch, length: keys(1, length), "batch 3, 3 tokens: 96 bytes, not 288"),
        (lambda batch, length: keys(batch, 1) if length > 1 else (), "more tensors at one length than at another"),
    ],
    ids=["in blocks of 16", "after five tokens", "whatever the batch", "from nothing"],
)
def test_uneven_states_are_refused(state_after: Callable, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GroupedAttention, "state_after", lambda self, batch, length, storage: state_after(batch, length))
    with pytest.raises(ValueError, match="footprint: the state of Decoder does not grow evenly .*" + message):
        footprint(Decoder(DecoderConfig(41, 24, 1, heads=3)))
