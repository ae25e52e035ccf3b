"""The card of a model: every tiny model keeps its promises, and each broken one breaks exactly the promise it should."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hybridlab.layers import Layer, Shared
from hybridlab.measure import check_invariants
from hybridlab.measure.invariants import widest_window
from hybridlab.measure.tiny import TINY, WINDOW
from hybridlab.models import Decoder, DecoderConfig, HybridConfig, HybridLM, LanguageModel

PROMISES = ("finite", "causal", "batch-independent", "step == full", "chunk == full", "bytes == formula")


def hybrid(pattern: str = "RW") -> LanguageModel:
    return HybridLM(HybridConfig(41, 16, pattern=pattern, head_width=8, window=4))


class Wrapped(Layer):
    """The model's first block, and something done to what goes in or comes out."""

    def __init__(self, layer: nn.Module, **broken: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.broken = layer, broken

    def forward(self, x: Tensor, state: Any = None, shared: Shared | None = None) -> tuple[Tensor, Any]:
        state = self.broken.get("read", lambda x, state: state)(x, state)
        y, final = self.layer(x, state, shared)
        return self.broken.get("output", lambda y: y)(y), self.broken.get("kept", lambda final: final)(final)

    def state_after(self, batch: int, length: int, storage: Any) -> Any:
        return self.layer.state_after(batch, length, storage)


def broken(pattern: str = "RW", **how: Callable[..., Any]) -> LanguageModel:
    model = hybrid(pattern)
    model.layers[0] = Wrapped(model.layers[0], **how)
    return model


def sees_the_next_token(y: Tensor) -> Tensor:
    return y + torch.cat((y[:, 1:], torch.zeros_like(y[:, :1])), 1)


def centred_window(y: Tensor) -> Tensor:
    return nn.functional.avg_pool1d(y.transpose(1, 2), 3, 1, 1).transpose(1, 2)


def norm_over_time(y: Tensor) -> Tensor:
    return y / (1 + y.square().mean((0, 1), keepdim=True))


def norm_over_batch(y: Tensor) -> Tensor:
    return y - 0.5 * y.mean(0, keepdim=True)


def nan_past_window(y: Tensor) -> Tensor:
    y = y.clone()
    y[:, 5:] = torch.nan
    return y


def replaced(state: Any, **mixer: Any) -> Any:
    return state._replace(mixer=state.mixer._replace(**mixer))


def shift_lost_in_pieces(x: Tensor, state: Any) -> Any:
    """Right for single tokens; the classical bug of a prefill that always starts from zeros."""
    return state if x.shape[1] == 1 else replaced(state, shift=torch.zeros_like(state.mixer.shift))


def shift_lost_in_steps(x: Tensor, state: Any) -> Any:
    return state if x.shape[1] > 1 else replaced(state, shift=torch.zeros_like(state.mixer.shift))


def emptied_when_read(x: Tensor, state: Any) -> Any:
    """Every logit is right, as long as nobody continues from a state a second time."""
    kept = replaced(state, wkv=state.mixer.wkv.clone())
    state.mixer.wkv.zero_()
    return kept


def disguised(state: Any) -> Any:
    """As many bytes, in another dtype."""
    wkv = state.mixer.wkv
    return replaced(state, wkv=wkv.view(torch.int64 if wkv.dtype == torch.float64 else torch.int32))


def undisguised(x: Tensor, state: Any) -> Any:
    return replaced(state, wkv=state.mixer.wkv.view(x.dtype))


def pins_its_buffer(state: Any) -> Any:
    shift = state.mixer.shift
    return replaced(state, shift=torch.stack((shift, shift, shift), 1)[:, -1])


def one_row_too_many(state: Any) -> Any:
    return replaced(state, **{name: nn.functional.pad(x, (0, 0, 0, 0, 1, 0)) for name, x in state.mixer._asdict().items()})


BROKEN: dict[str, tuple[Callable[[], LanguageModel], set[str]]] = {
    "sees the next token": (lambda: broken(output=sees_the_next_token), {"causal"}),
    "centred window": (lambda: broken(output=centred_window), {"causal"}),
    "norm over time": (lambda: broken(output=norm_over_time), {"causal", "batch-independent"}),
    "norm over batch": (lambda: broken(output=norm_over_batch), {"batch-independent"}),
    "NaN past the window": (lambda: broken(output=nan_past_window), {"finite"}),
    "shift lost in pieces": (lambda: broken(read=shift_lost_in_pieces), {"chunk == full"}),
    "shift lost in steps": (lambda: broken(read=shift_lost_in_steps), {"step == full"}),
    "wkv lost": (
        lambda: broken(kept=lambda final: replaced(final, wkv=torch.zeros_like(final.mixer.wkv))),
        {"step == full", "chunk == full"},
    ),
    "state in float16": (
        lambda: broken(kept=lambda final: replaced(final, shift=final.mixer.shift.half().to(final.mixer.shift.dtype))),
        {"step == full", "chunk == full"},
    ),
    "pins its buffer": (lambda: broken(kept=pins_its_buffer), {"bytes == formula"}),
}


@pytest.mark.parametrize("name", TINY)
def test_tiny_models_keep_every_promise(name: str) -> None:
    card = check_invariants(TINY[name](), name=name)
    assert card.ok, card
    assert tuple(row.name for row in card.rows) == PROMISES
    assert not card.failed


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_breaks_its_own_promise(name: str) -> None:
    make, expected = BROKEN[name]
    card = check_invariants(make())
    assert set(card.failed) == expected, card
    assert not card.ok


def test_without_causality_cuts_are_not_judged() -> None:
    card = check_invariants(broken(output=sees_the_next_token))
    unjudged = [row for row in card.rows if row.ok is None]
    assert [row.name for row in unjudged] == ["step == full", "chunk == full"]
    assert all("not judged" in row.wrong for row in unjudged)


def test_a_state_changed_in_place_is_found() -> None:
    card = check_invariants(broken(read=emptied_when_read))
    assert card.failed == ("chunk == full",)
    assert "continuing a second time" in repr(card)


def test_a_state_of_another_dtype_is_found() -> None:
    card = check_invariants(broken(read=undisguised, kept=disguised))
    assert card.failed == ("bytes == formula",)
    assert "int32, init_state says (2, 2, 8, 8) float32" in repr(card)


def test_a_cache_longer_than_promised_is_found() -> None:
    """A window's cache of W rows: logits stay right, because the row is out of sight."""
    card = check_invariants(broken("W", kept=one_row_too_many))
    (bytes_row,) = [row for row in card.rows if row.name == "bytes == formula"]
    assert bytes_row.ok is False
    assert "init_state says" in bytes_row.wrong


def test_a_wrong_position_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """init_state(batch, length) counts from one; a first call, at length 0, is right."""
    right = HybridLM.init_state

    def wrong(self: LanguageModel, batch: int, length: int = 0, **how: Any) -> Any:
        state = right(self, batch, length, **how)
        return state._replace(position=state.position + (length > 0))

    monkeypatch.setattr(HybridLM, "init_state", wrong)
    card = check_invariants(hybrid())
    assert card.failed == ("bytes == formula",)
    assert "the position is 1" in repr(card)


def test_states_that_mix_sequences_are_found() -> None:
    card = check_invariants(broken(kept=lambda final: replaced(final, shift=final.mixer.shift.flip(0))))
    assert card.failed == ("batch-independent",)


def test_a_model_that_mixes_nothing_is_not_called_causal() -> None:
    """It would keep every promise, because none of them could fail."""
    model = hybrid("R")
    model.layers[0].mixer = Wrapped(model.layers[0].mixer, output=lambda y: 0 * y)
    card = check_invariants(model)
    assert card.failed == ("causal",)
    assert "nothing is mixed" in repr(card)


def test_what_is_not_finite_is_not_compared() -> None:
    card = check_invariants(broken(output=nan_past_window))
    assert [row.ok for row in card.rows] == [False, None, None, None, None, True]
    assert "of 16 tokens, logits at token" in card.rows[0].wrong


def test_zero_weights_of_a_fresh_model_hide_nothing() -> None:
    """RWKV's output matrices start at zero; what stands before them must be judged all the same."""
    model = broken("R", read=shift_lost_in_steps)
    assert not model.layers[0].layer.mixer.output.weight.any()
    assert check_invariants(model).failed == ("step == full",)
    assert not model.layers[0].layer.mixer.output.weight.any(), "the model itself stays as it was"


def test_a_layer_that_raises_is_a_row() -> None:
    def fails(x: Tensor, state: Any) -> Any:
        if x.shape[0] > 1:
            raise RuntimeError("one sequence only")
        return state

    card = check_invariants(broken(read=fails))
    assert set(card.failed) == {"batch-independent", "bytes == formula"}
    assert "RuntimeError: one sequence only" in repr(card)


def test_the_card_shows_itself_the_same_everywhere() -> None:
    model = hybrid()
    first, second = check_invariants(model), check_invariants(model)
    assert repr(first) == repr(second)
    assert repr(first).splitlines()[0] == "HybridLM in float64"
    assert first._repr_html_().count("<tr>") == 1 + len(PROMISES)
    assert "FAIL" not in repr(first)


def test_the_widest_window_is_found() -> None:
    assert widest_window(TINY["Decoder, window"]()) == WINDOW
    assert widest_window(TINY["RWKV4"]()) == 16
    assert check_invariants(hybrid(), window=3).rows[0].tried == "1 to 12 tokens"


def test_bad_input() -> None:
    with torch.device("meta"):
        model = Decoder(DecoderConfig(41, 16, 1))
    with pytest.raises(ValueError, match="model must be a LanguageModel, got ResidualBlock"):
        check_invariants(hybrid().layers[0])
    with pytest.raises(ValueError, match="meta device"):
        check_invariants(model)
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        check_invariants(hybrid(), window=0)
    with pytest.raises(ValueError, match="vocabulary of 1"):
        check_invariants(Decoder(DecoderConfig(1, 16, 1)))
