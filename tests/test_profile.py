"""A profile's bytes are exact, its passes apart, and what its clock and its meter see is what the model does."""

import json
from collections.abc import Callable

import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from hybridlab.measure import profile, profile_model
from hybridlab.measure.peak import with_peak
from hybridlab.measure.tiny import TINY, VOCABULARY
from hybridlab.models import Decoder, DecoderConfig, LanguageModel
from hybridlab.state import state_nbytes

CPU = torch.device("cpu")
MIB = 2**20


def decoder() -> LanguageModel:
    return Decoder(DecoderConfig(VOCABULARY, 24, 1, heads=3))


def bytes_of(tokens: int) -> Tensor:
    return torch.empty(tokens, dtype=torch.uint8)


def test_peak_is_the_most_at_one_time() -> None:
    def run() -> Tensor:
        first, second = bytes_of(4 * MIB), bytes_of(2 * MIB)
        del first
        third = bytes_of(3 * MIB)
        del second
        return third.view(3, MIB)[0]

    made, peak = with_peak(run, CPU)
    assert (made.numel(), peak) == (MIB, 6 * MIB)


def test_peak_counts_nothing_that_was_there_before() -> None:
    before = bytes_of(MIB)
    assert with_peak(lambda: before[3:].view(-1).add_(1), CPU)[1] == 0
    assert with_peak(lambda: before.t() + 1, CPU)[1] == MIB


def test_peak_of_a_model_holds_its_state() -> None:
    """And the step that reads one more token copies a cache: beside the old one there is a new one."""
    model, ids = decoder(), torch.zeros(1, 500, dtype=torch.int64)
    (_, state), prefill = with_peak(lambda: model.hidden(ids), CPU)
    (_, longer), step = with_peak(lambda: model.hidden(ids[:, :1], state), CPU)
    assert prefill > state_nbytes(state)
    assert state_nbytes(longer) < step < 2 * state_nbytes(longer)


def test_a_profile_of_a_cache_and_of_a_state(capsys: pytest.CaptureFixture[str]) -> None:
    grows, stays = profile_model(decoder(), seq_lens=[16, 64]), profile_model(TINY["Hawk"](), seq_lens=[64, 16], batch=2)
    assert [cost.state_bytes for cost in grows.costs] == [2 * 24 * 4 * tokens for tokens in (16, 64)]
    assert [cost.tokens for cost in stays.costs] == [64, 16]
    assert len({cost.state_bytes for cost in stays.costs}) == 1
    assert grows.costs[0].prefill_peak_bytes < grows.costs[1].prefill_peak_bytes
    assert grows.costs[0].decode_peak_bytes < grows.costs[1].decode_peak_bytes
    assert stays.costs[0].decode_peak_bytes == stays.costs[1].decode_peak_bytes
    assert grows.weight_bytes == 4 * sum(parameter.numel() for parameter in decoder().parameters())
    assert stays.prefill_rate(stays.costs[0]) == 2 * 64 / stays.costs[0].prefill_seconds
    assert "100%" in capsys.readouterr().err


def test_it_is_timed_without_the_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass that measures memory is slow and must not be in the times; prefill and decode are told apart."""
    model, calls = decoder(), []
    hidden = model.hidden

    def watched(ids: Tensor, state: object = None) -> object:
        calls.append((ids.shape[1], _get_current_dispatch_mode() is not None))
        return hidden(ids, state)

    def clock(run: Callable[[], object]) -> tuple[float, float]:
        run()
        return {7: 2.0, 1: 0.5}[calls[-1][0]], 0.0

    monkeypatch.setattr(model, "hidden", watched)
    monkeypatch.setattr(profile, "timed", clock)
    (cost,) = profile_model(model, seq_lens=[7]).costs
    assert calls == [(7, True), (1, True), (7, False), (1, False), (1, False)]
    assert (cost.prefill_seconds, cost.decode_seconds) == (2.0, 0.5)


def test_the_report_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "ENOUGH", 0)
    report = profile_model(decoder(), seq_lens=[1, 8])
    assert repr(report) == repr(profile_model(decoder(), seq_lens=[1, 8])), "what a notebook stores holds no times"
    numbers = json.loads(json.dumps(report.as_dict()))
    assert numbers["costs"][1]["decode_tokens_per_second"] == 1 / report.costs[1].decode_seconds
    figure = report.plot()
    assert DisplayFormatter().format(figure)[0]["image/png"][1:4] == b"PNG", "a notebook draws it, without pyplot"
    speed, memory = figure.axes
    assert [line.get_label() for line in speed.lines] == ["prefill", "decode"]
    states = next(line for line in memory.lines if line.get_label() == "state")
    assert states.get_xydata().tolist() == [[1, 2 * 24 * 4], [8, 8 * 2 * 24 * 4]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": torch.nn.Linear(1, 1)}, "model must be a LanguageModel, got Linear"),
        ({"seq_lens": []}, "seq_lens must name at least one length, got none"),
        ({"seq_lens": [4, 0]}, "seq_lens must be ints of at least 1, got 0"),
        ({"seq_lens": [True]}, "seq_lens must be ints of at least 1, got True"),
        ({"batch": 0}, "batch must be an int of at least 1, got 0"),
    ],
    ids=["no model", "no lengths", "length 0", "a bool", "batch 0"],
)
def test_bad_input(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        profile_model(**{"model": decoder(), "seq_lens": [4]} | arguments)


def test_a_model_without_memory_is_refused() -> None:
    with torch.device("meta"):
        model = decoder()
    with pytest.raises(ValueError, match="meta device, where nothing runs"):
        profile_model(model, seq_lens=[4])
