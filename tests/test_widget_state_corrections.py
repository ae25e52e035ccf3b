"""Tokens that look before they write, in the state scope; and the weights of what is no diagonal recurrence."""

import numpy as np
import pytest
import torch
from shaken import shaken, text

from hybridlab import ops
from hybridlab.course import ledger
from hybridlab.layers import set_backend
from hybridlab.layers.delta_mixer import DeltaMixer
from hybridlab.measure.recording import OpCall, record, recording
from hybridlab.widgets import MixingMatrix, StateScope, weights_of
from hybridlab.widgets.state_scope import measure
from hybridlab.widgets.state_traces import DeltaTrace, GatedDeltaTrace, MatrixTrace, traces

TOKENS = 17


def inputs(op: str) -> dict[str, torch.Tensor]:
    """Of two heads, K = 4 and V = 3; keys of length 1."""
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(1, TOKENS, 2, *shape, dtype=torch.float64, generator=generator)

    q, k, v = drawn(4), torch.nn.functional.normalize(drawn(4), dim=-1), drawn(3)
    beta = 2 * drawn().sigmoid()
    if op == "delta_rule":
        return {"q": q, "k": k, "v": v, "beta": beta}
    if op == "gated_delta_rule":
        return {"q": q, "k": k, "v": v, "log_decay": -drawn().exp(), "beta": beta}
    return {"r": q, "k": drawn(4), "v": v, "log_decay": -drawn(4).exp(), "a": -k, "b": k * drawn(4).sigmoid()}


def called(op: str, given: dict[str, torch.Tensor]) -> OpCall:
    return OpCall("layers.0.mixer", op, given, *getattr(ops, op)(**given, form="recurrent"))


OPS = ("delta_rule", "gated_delta_rule", "wkv7")


# ---------------------------------------------------------------- the state scope


@pytest.mark.parametrize("decay", [1.0, 0.0, 4.0])
@pytest.mark.parametrize("op", OPS)
def test_states_and_outputs_are_the_ops_at_any_decay(op: str, decay: float) -> None:
    given = inputs(op)
    fading = {"log_decay": decay * given["log_decay"]} if "log_decay" in given else {}
    call = called(op, given | fading)
    for h, trace in enumerate(traces(called(op, given))):
        states = trace.states(decay)
        np.testing.assert_allclose(states[-1], call.state[0, h], atol=1e-12)
        for t in range(TOKENS):
            past, now = trace.parts(t, states, decay, 0.0)
            np.testing.assert_allclose(past + now, call.output[0, t, h], atol=1e-12)
            assert t or not past.any()


def test_layers_hand_over_what_they_do() -> None:
    torch.manual_seed(0)
    mixer, model, ids = DeltaMixer(12, 2, 4, strongest=2.0).double(), shaken("RWKV7"), text(20)
    for each in (mixer, model):
        set_backend(each, "naive")
    with recording(mixer) as calls, torch.no_grad():
        _, state = mixer(torch.randn(1, 9, 12, dtype=torch.float64))
    calls += record(model, ids)
    finals = [state.delta, *(layer.mixer.wkv for layer in model(ids).state.layers)]
    assert len(calls) == len(finals) > 2
    for call, final in zip(calls, finals, strict=True):
        for trace, real in zip(traces(call), final[0].detach().numpy(), strict=True):
            np.testing.assert_allclose(trace.states()[-1], real, rtol=1e-11, atol=1e-12)


def test_a_delta_rule_need_not_climb_where_a_sum_does() -> None:
    key, ones = np.tile([0.6, 0.8], (8, 1)), np.ones((8, 1))
    still = np.zeros((1, 1))
    replaced = StateScope([DeltaTrace(key, -key, key, still, key, ones)])
    added = StateScope([MatrixTrace(key, still, key, ones)])
    assert [measure(replaced.heads[0], t).norm for t in (0, 7)] == pytest.approx([1, 1], abs=1e-6)
    assert [measure(added.heads[0], t).norm for t in (0, 7)] == pytest.approx([1, 8], abs=1e-6)
    assert replaced.shown(replaced.view).readout["half-lives"] == "infinite to infinite tokens"


def test_wrong_traces_are_refused() -> None:
    right = {name: np.ones((2, 3)) for name in ("seek", "replace", "write", "read")}
    right |= {"log_decay": -np.ones((2, 1)), "values": np.ones((2, 4))}
    for kind in (DeltaTrace, GatedDeltaTrace):
        assert kind(**right).states().shape == (2, 3, 4)
        for name, wrong in (("seek", np.ones((2, 4))), ("replace", np.ones((3, 3))), ("log_decay", np.ones((2, 1)))):
            with pytest.raises(ValueError, match=f"{kind.__name__}: {name} must"):
                kind(**right | {name: wrong})


@pytest.mark.browser
@pytest.mark.parametrize("op", OPS)
def test_browser_says_what_python_says(op: str, browser, tmp_path) -> None:
    from widget_pages import opened

    widget = StateScope(traces(called(op, inputs(op))))
    with opened(browser, widget, tmp_path) as page:
        for t, decay, head in ((1, 1.0, 1), (2, 1.0, 2), (TOKENS, 0.25, 1), (TOKENS, 1.0, 2), (9, 3.5, 1), (12, 0.0, 2)):
            page.move(t=t, decay=decay, head=f"head {head}")
            assert page.shown() == widget.shown({**widget.view, "t": t, "decay": decay, "head": f"head {head}"})


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("op", OPS)
def test_weights_give_the_outputs(op: str) -> None:
    given = {name: x[:, :, :1] for name, x in inputs(op).items()}
    weights = weights_of(lambda v: getattr(ops, op)(**given | {"v": v}, form="recurrent")[0], TOKENS)
    assert not np.triu(weights, 1).any()
    expected = called(op, given).output[0, :, 0].numpy()
    np.testing.assert_allclose(weights @ given["v"][0, :, 0].numpy(), expected, atol=1e-12)


def test_what_a_key_had_is_taken_away() -> None:
    # The ledger's first and fifth tokens have one key; with beta = 1 nothing of the first value is left.
    q, k = (x[None, :, None] for x in (ledger.query.expand(6, 3), ledger.keys))
    assert torch.equal(ledger.keys[0], ledger.keys[4])
    weights = weights_of(lambda v: ops.delta_rule(q, k, v, torch.ones(1, 6, 1).double(), form="recurrent")[0], 6)
    assert weights[4:, 0] == pytest.approx([0, 0], abs=1e-12)
    assert weights[4, 4] == pytest.approx(1)
    assert repr(MixingMatrix(weights, "delta rule", ledger.names)).splitlines()[0] == "delta rule"


def test_normalised_attention_and_long_filters() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 9, 1, 4, dtype=torch.float64, generator=generator).unbind(0)
    taylor = weights_of(lambda v: ops.taylor_attention(q, k, v, form="recurrent")[0], 9)
    np.testing.assert_allclose(taylor.sum(1), 1)
    scores = (q[0, :, 0] @ k[0, :, 0].T / 2).numpy()
    order_2 = np.tril(1 + scores + scores**2 / 2)
    np.testing.assert_allclose(taylor, order_2 / order_2.sum(1, keepdims=True), atol=1e-10)
    taps = torch.randn(1, 5, dtype=torch.float64, generator=generator)
    found = weights_of(lambda v: ops.long_conv(v[:, :, 0], taps.expand(9, -1), form="recurrent")[0], 9)
    expected = sum(float(tap) * np.eye(9, k=-lag) for lag, tap in enumerate(taps[0]))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_what_is_no_sum_of_values_has_no_weights() -> None:
    with pytest.raises(ValueError, match="mix must be linear in the values"):
        weights_of(lambda v: v**2, 3)
    with pytest.raises(ValueError, match="mix must be linear in the values"):
        weights_of(lambda v: v + 1, 3)
    with pytest.raises(ValueError, match=r"mix must give 3 numbers for each of 3 tokens, got \(1, 2, 1, 3\)"):
        weights_of(lambda v: v[:, :2], 3)
