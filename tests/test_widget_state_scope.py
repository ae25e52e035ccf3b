"""The state scope: real runs against the model's own states; its numbers in Python, and the same in the browser."""

import math
import re

import numpy as np
import pytest
import torch
from shaken import RECURRENT, shaken, text

from hybridlab import ops
from hybridlab.measure.recording import OpCall, record
from hybridlab.models import RWKV4, RWKV5, RWKV6, RWKV4Config, RWKV5Config, RWKV6Config
from hybridlab.state import state_tensors
from hybridlab.widgets import MixingMatrix, StateScope, scope
from hybridlab.widgets.state_scope import (
    MOST_TOKENS,
    POSITIVE,
    Measured,
    cells_of,
    colour_limit,
    effective_rank,
    measure,
    norms,
    states_of,
)
from hybridlab.widgets.state_traces import (
    NOTHING_LEFT,
    AverageTrace,
    MatrixTrace,
    ScanTrace,
    Trace,
    VectorTrace,
    traces,
)

RNG = np.random.default_rng


def matrix_trace(tokens: int = 12, rows: int = 5, columns: int = 3, bonus: bool = True, steady: bool = False) -> MatrixTrace:
    rng = RNG(0)
    write, read = rng.normal(size=(2, tokens, rows))
    log_decay = -rng.exponential(0.3, (1 if steady else tokens, rows))
    return MatrixTrace(write, log_decay, read, rng.normal(size=(tokens, columns)), rng.normal(size=rows) if bonus else None)


def average_trace(tokens: int = 12, channels: int = 6, loud: float = 2.0) -> AverageTrace:
    rng = RNG(1)
    keys, values = rng.normal(size=(2, tokens, channels))
    return AverageTrace(loud * keys, -rng.exponential(0.3, (1, channels)), values, rng.normal(size=channels))


def scan_trace(tokens: int = 12, states: int = 4, channels: int = 7) -> ScanTrace:
    rng = RNG(5)
    write, read = rng.normal(size=(2, tokens, states))
    steps, values = rng.exponential(0.5, (tokens, channels)), rng.normal(size=(tokens, channels))
    return ScanTrace(write, read, steps, -rng.exponential(1, (states, channels)), values, rng.normal(size=channels))


def vector_trace(tokens: int = 12, channels: int = 6) -> VectorTrace:
    rng = RNG(6)
    write, values = rng.normal(size=(2, tokens, channels))
    log_decay = -rng.exponential(0.3, (tokens, channels))
    log_decay[4] = NOTHING_LEFT
    return VectorTrace(write, log_decay, values)


def real_states(call: OpCall) -> list[np.ndarray]:
    """The op's own final state, in the scope's terms, a head (or the channels) each."""
    state = call.state[0].numpy()
    if call.op == "wkv4":
        num, den, top = state.T
        return [np.stack((num / den, top + np.log(den)), -1)]
    if call.op == "rg_lru":
        return [state[:, None]]
    if call.op == "selective_scan":
        return [state.T]
    return list(state if call.op in ("wkv6", "retention") else state.swapaxes(1, 2))


def real_outputs(call: OpCall, output: torch.Tensor) -> np.ndarray:
    """What the op gives at each token to each head, or to the channels as one, (T, heads, V)."""
    found = output[0].detach().numpy()
    return found[:, None] if found.ndim == 2 else found


# ---------------------------------------------------------------- against the model


@pytest.mark.parametrize("kind", RECURRENT)
def test_states_are_the_models_own(kind: str) -> None:
    model, ids = shaken(kind), text(40)
    for length in (1, 2, 17, 40):
        calls = record(model, ids[:, :length])
        after = model(ids[:, :length]).state
        for call, layer in zip(calls, after.layers, strict=True):
            assert any(torch.equal(call.state, tensor) for tensor in state_tensors(layer))
            for trace, real in zip(traces(call), real_states(call), strict=True):
                np.testing.assert_allclose(trace.states()[-1], real, rtol=1e-11, atol=1e-12)
    # A longer run goes through the states where the shorter ones ended.
    longer, shorter = (traces(record(model, ids[:, :length])[1])[-1] for length in (40, 17))
    np.testing.assert_allclose(longer.states()[16], shorter.states()[-1], rtol=1e-11, atol=1e-12)


def changed(call: OpCall, decay: float, bonus: float) -> dict[str, torch.Tensor]:
    """The op's inputs with every log decay multiplied; what is written stays."""
    given = call.inputs
    if "bonus" in given:
        return {"log_decay": decay * given["log_decay"], "bonus": given["bonus"] + bonus}
    if "log_decay" in given:
        return {"log_decay": decay * given["log_decay"]}
    return {"A": decay * given["A"]}


@pytest.mark.parametrize(("decay", "bonus"), [(1.0, 0.0), (0.0, 0.75), (4.0, -1.5)])
@pytest.mark.parametrize("kind", sorted(set(RECURRENT) - {"Hawk"}))  # what it writes depends on its decay
def test_outputs_and_states_are_the_ops_with_other_decay_and_bonus(kind: str, decay: float, bonus: float) -> None:
    call = record(shaken(kind), text(25))[1]
    output, state = getattr(ops, call.op)(**call.inputs | changed(call, decay, bonus))
    outputs = real_outputs(call, output)
    finals = real_states(call._replace(state=state.detach()))
    for h, (trace, final) in enumerate(zip(traces(call), finals, strict=True)):
        states = trace.states(decay)
        np.testing.assert_allclose(states[-1], final, rtol=1e-11, atol=1e-12)
        for t in range(25):
            past, now = trace.parts(t, states, decay, bonus)
            np.testing.assert_allclose(past + now, outputs[t, h], rtol=1e-10, atol=1e-11)
            assert t or not past.any()


@pytest.mark.parametrize("decay", [1.0, 0.0, 4.0])
def test_rg_lru_fades_otherwise_and_writes_the_same(decay: float) -> None:
    call = record(shaken("Hawk"), text(25))[1]
    x, r, i, log_a, reset = (call.inputs[name] for name in ("x", "recurrence_gate", "input_gate", "log_a", "reset"))
    assert reset[0].tolist() == [True] + [False] * 24
    log_decay = (8 * r * log_a).masked_fill(reset[..., None], -math.inf)
    written = (1 - (2 * log_decay).exp()).sqrt() * i * x
    (trace,) = traces(call)
    states = trace.states(decay)
    a = (decay * log_decay).nan_to_num().exp()
    output, final = ops.linear_recurrence(a, written)
    np.testing.assert_allclose(states[-1, :, 0], final[0].numpy(), rtol=1e-11, atol=1e-12)
    for t in range(25):
        past, now = trace.parts(t, states, decay, 0.0)
        np.testing.assert_allclose(past + now, output[0, t].numpy(), rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(now, written[0, t].numpy(), rtol=1e-10, atol=1e-11)
    if decay == 1:
        np.testing.assert_allclose(states[..., 0], call.output[0].numpy(), rtol=1e-10, atol=1e-11)


def run(op: str, **inputs: torch.Tensor) -> OpCall:
    """A call of an op, as a layer would make it."""
    output, state = getattr(ops, op)(**inputs)
    return OpCall("layers.0.mixer", op, inputs, output, state)


def test_linear_recurrences_are_read() -> None:
    a, b = torch.rand(1, 20, 70, dtype=torch.float64), torch.randn(1, 20, 70, dtype=torch.float64)
    a[0, 7] = 0  # forgets everything
    call = run("linear_recurrence", a=a, b=b)
    groups = traces(call)
    assert [group.values.shape[1] for group in groups] == [64, 6]
    states = np.concatenate([group.states() for group in groups], 1)
    np.testing.assert_allclose(states[..., 0], call.output[0].numpy(), atol=1e-12)
    np.testing.assert_array_equal(states[7, :, 0], b[0, 7].numpy())
    half_lives = measure(groups[1], 7).half_lives
    assert (half_lives < 1e-4).all()
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match="traces: a must be a decay, from 0 to 1, got "):
            traces(run("linear_recurrence", a=torch.full((1, 2, 3), wrong), b=b[:, :2, :3].float()))


def test_a_document_that_starts_within_a_run_forgets_the_one_before() -> None:
    x, r, i = torch.rand(3, 1, 6, 4, dtype=torch.float64)
    reset = torch.tensor([[False, False, False, True, False, False]])
    call = run("rg_lru", x=x, recurrence_gate=r, input_gate=i, log_a=-torch.rand(4, dtype=torch.float64), reset=reset)
    (trace,) = traces(call)
    np.testing.assert_allclose(trace.states()[..., 0], call.output[0].numpy(), atol=1e-12)
    past, _ = trace.parts(3, trace.states(), 1.0, 0.0)
    assert not past.any()


def test_a_mechanism_without_a_skip_is_read() -> None:
    x, dt, A, B, C = (torch.rand(shape) for shape in ((1, 5, 3), (1, 5, 3), (3, 2), (1, 5, 2), (1, 5, 2)))
    call = run("selective_scan", x=x, dt=dt, A=-A, B=B, C=C)
    (trace,) = traces(call)
    assert not trace.skip.any()
    np.testing.assert_allclose(
        trace.parts(4, trace.states(), 1.0, 0.0)[0],
        (call.output[0, 4] - ((B[0, 4] @ C[0, 4]) * dt[0, 4] * x[0, 4])).numpy(),
        atol=1e-6,
    )


@pytest.mark.parametrize("kind", sorted(set(RECURRENT) - {"RWKV4"}))
def test_ways_lead_from_values_to_outputs(kind: str) -> None:
    call = record(shaken(kind), text(12))[1]
    outputs = real_outputs(call, call.output)
    for h, trace in enumerate(traces(call)):
        for channel in (0, 3):
            factors = trace.way(channel)
            picture = MixingMatrix(factors.matrix(), kind, recurrence=factors)
            np.testing.assert_allclose(picture.weights @ trace.values[:, channel], outputs[:, h, channel], atol=1e-11)


def test_channels_come_in_groups() -> None:
    model = shaken(RWKV4(RWKV4Config(vocabulary=41, width=16, layers=1, attention_width=150)))
    call = record(model, text(6))[0]
    groups = traces(call)
    assert [group.keys.shape for group in groups] == [(6, 64), (6, 64), (6, 22)]
    together = np.concatenate([group.states()[-1] for group in groups])
    np.testing.assert_allclose(together, real_states(call)[0], rtol=1e-11, atol=1e-12)
    outputs = np.concatenate([np.sum(group.parts(5, group.states(), 1, 0), axis=0) for group in groups])
    np.testing.assert_allclose(outputs, call.output[0, 5].numpy(), rtol=1e-10, atol=1e-11)
    widget = scope(model, text(6), heads=[2, 0])
    assert widget.names == ("channels 129 to 150", "channels 1 to 64")
    np.testing.assert_array_equal(widget.heads[0].keys, groups[2].keys.astype(np.float32))


def test_half_precision_is_read() -> None:
    model = shaken("RWKV5").to(torch.bfloat16)
    call = record(model, text(5))[0]
    np.testing.assert_allclose(traces(call)[1].states()[-1], call.state[0, 1].numpy(), rtol=1e-5, atol=1e-6)


def test_without_a_bonus_the_state_is_read_after_writing() -> None:
    trace = matrix_trace(bonus=False)
    for decay in (1.0, 0.5):
        states = trace.states(decay)
        for t in range(12):
            past, now = trace.parts(t, states, decay, 0.0)
            np.testing.assert_allclose(past + now, trace.read[t] @ states[t], atol=1e-12)
            np.testing.assert_allclose(now, (trace.read[t] @ trace.write[t]) * trace.values[t], atol=1e-12)


def test_loud_keys_do_not_overflow() -> None:
    states = average_trace(loud=900.0).states()
    assert np.isfinite(states).all()
    assert states[..., 1].max() > 900


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize(
    ("state", "rank"),
    [
        (np.eye(5), 5),
        (np.diag([2.0, 2.0, 0.0]), 2),
        (np.outer([1.0, -2.0, 3.0], [0.5, 4.0]), 1),
        (np.zeros((3, 3)), 0),
        (np.ones((100, 3)), 1),
        (np.diag([3.0, 1.0]), math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))),
    ],
)
def test_effective_rank(state: np.ndarray, rank: float) -> None:
    assert effective_rank(state) == pytest.approx(rank, abs=1e-12)


def test_measured_by_hand() -> None:
    # Two memories, one that halves and one that keeps; the second token is written twice as strongly, into the first only.
    trace = MatrixTrace(
        write=[[1.0, 1.0], [2.0, 0.0]],
        log_decay=[[-math.log(2), 0.0]],
        read=[[1.0, 0.0], [1.0, 1.0]],
        values=[[3.0, 4.0], [0.0, 1.0]],
        bonus=[1.0, 1.0],
    )
    np.testing.assert_allclose(trace.states(), [[[3, 4], [3, 4]], [[1.5, 4], [3, 4]]])
    found = measure(trace, 1)
    assert found.norm == pytest.approx(math.sqrt(1.5**2 + 16 + 9 + 16))
    np.testing.assert_allclose(found.changes, [1.5, 0])
    assert found.cell == (0, 0)
    np.testing.assert_allclose(found.half_lives, [1, math.inf])
    # Reads the sum of both rows as they were, (6, 8), and 1 * 2 of its own value (0, 1): (6, 10).
    assert found.output == pytest.approx(math.sqrt(36 + 100))
    assert found.share == pytest.approx(2 / (2 + 10))
    assert measure(trace, 1, bonus=1.5).share == pytest.approx(5 / (5 + 10))
    assert measure(trace, 1, decay=2).half_lives[0] == pytest.approx(0.5)
    assert measure(trace, 0).share == 1
    assert measure(trace, 0).cell == (0, 1)


def test_measured_of_averages_by_hand() -> None:
    # Equal keys and no decay: a plain average, twice as loud after the second token; the loud channel is the second.
    trace = AverageTrace([[0.0, 1.0], [0.0, 1.0]], [[0.0, 0.0]], [[2.0, 5.0], [4.0, 5.0]], [math.log(3), 0.0])
    np.testing.assert_allclose(trace.states()[1], [[3, math.log(2)], [5, 1 + math.log(2)]])
    found = measure(trace, 1)
    assert (found.rank, found.cell) == (None, (0, 0))
    assert found.loudest == (1, pytest.approx(1 + math.log(2)))
    np.testing.assert_allclose(found.changes, [1, 0])
    past, now = np.array([2 / 4, 5 / 2]), np.array([3 * 4 / 4, 5 / 2])
    lengths = np.linalg.norm(past), np.linalg.norm(now)
    assert found.output == pytest.approx(np.linalg.norm(past + now))
    assert found.share == pytest.approx(lengths[1] / sum(lengths))


def test_what_is_shown() -> None:
    widget = StateScope([MatrixTrace([[1.0], [2.0]], [[-1.0]], [[1.0], [1.0]], [[3.0], [0.0]])], tokens=["a", " "])
    shown = widget.shown(widget.view)
    assert shown.text == "After token 2 (space), head 1: norm 1.104; changed most: row 1 by 1.896, most in column 1."
    assert shown.readout == {
        "norm": "1.104",
        "effective rank": "1 of 1",
        "changed most": "row 1 by 1.896, most in column 1",
        "half-lives": "0.6931 to 0.6931 tokens",
        "output": "1.104",
        "present token's share": "0",
    }
    assert repr(widget) == shown.text
    assert [control.name for control in widget.controls] == ["t", "t", "decay"]


# ---------------------------------------------------------------- what the docstring says can be found


@pytest.fixture(scope="module")
def long_run() -> list[Trace]:
    """256 tokens through a slow head of RWKV-6, the channels of RWKV-4 and a quick head of RWKV-5."""
    torch.manual_seed(0)
    models = [
        RWKV6(RWKV6Config(41, 32, 2, head_width=16)),
        RWKV4(RWKV4Config(41, 32, 2)),
        RWKV5(RWKV5Config(41, 32, 2, head_width=16)),
    ]
    found = [traces(record(shaken(model), text(256))[0]) for model in models]
    return [found[0][0], found[1][0], found[2][-1]]


def test_the_norm_climbs_without_decay_and_levels_off_with_four_times_it(long_run: list[Trace]) -> None:
    never, trained, fast = (norms(cells_of(long_run[0], decay)) for decay in (0.0, 1.0, 4.0))
    assert never[255] > 2 * trained[255] > 4 * fast[255]
    assert never[255] > 3 * never[63]
    assert fast[255] < 1.6 * fast[63]
    ranks = [measure(long_run[0], 255, decay).rank for decay in (0.0, 1.0, 4.0)]
    assert ranks[0] > ranks[1] + 1 > ranks[2] + 2


def test_rows_with_short_half_lives_hold_the_last_tokens_only(long_run: list[Trace]) -> None:
    trace, last = long_run[2], 30
    assert isinstance(trace, MatrixTrace)
    ending = MatrixTrace(trace.write[-last:], trace.log_decay, trace.read[-last:], trace.values[-last:], trace.bonus)
    found = {}
    for decay in (0.0, 1.0, 4.0):
        whole, end = trace.states(decay)[-1], ending.states(decay)[-1]
        older = np.linalg.norm(whole - end, axis=1) / np.linalg.norm(whole, axis=1)
        short, long = (measure(trace, 255, decay).half_lives < 5, measure(trace, 255, decay).half_lives > 20)
        assert (older[short] < 0.05).all()
        assert (older[long] > 0.1).all()
        found[decay] = int(short.sum()), int(long.sum())
    assert found[0.0] == (0, 16)
    assert 0 < found[1.0][0] < found[4.0][0] == 16


def test_averages_that_never_forget_hardly_move(long_run: list[Trace]) -> None:
    moves = [np.linalg.norm(measure(long_run[1], 255, decay).changes) for decay in (0.0, 1.0, 4.0)]
    assert moves[0] < 0.2 * moves[1] < 0.2 * moves[2]


def test_mamba_2_has_one_clock_a_head_and_retnet_never_sets_it() -> None:
    for kind, sets in (("Mamba2", True), ("RetNet", False)):
        for trace in traces(record(shaken(kind), text(20))[1]):
            clocks = np.array([measure(trace, t).half_lives for t in range(20)])
            np.testing.assert_array_equal(clocks, np.broadcast_to(clocks[:, :1], clocks.shape))
            assert (len(set(clocks[:, 0])) == 20) is sets


# ---------------------------------------------------------------- what is refused


def test_wrong_layers_heads_and_texts_are_refused() -> None:
    hybrid = shaken("HybridLM of every letter")
    with pytest.raises(ValueError, match=r"one with a state to look at \(2, 3, 4, 5, 6, 7, 8, 11, 12\), got 0"):
        scope(hybrid, text(5))
    with pytest.raises(ValueError, match=r"layer: .* \(there is none\), got 1"):
        scope(shaken("Decoder"), text(5), layer=1)
    with pytest.raises(ValueError, match=r"heads: expected numbers from 0 to 2, got 3"):
        scope(hybrid, text(5), layer=3, heads=[3])
    with pytest.raises(ValueError, match=r"heads: .* got -1"):
        scope(hybrid, text(5), layer=3, heads=[-1])
    with pytest.raises(ValueError, match=r"expected a run of one sequence, got a batch of 2"):
        scope(hybrid, text(5, batch=2), layer=3)
    with pytest.raises(ValueError, match=r"expected 5 tokens, got 4"):
        scope(hybrid, text(5), layer=3, tokens="abcd")
    with pytest.raises(ValueError, match=rf"over the same tokens, at most {MOST_TOKENS}, got {MOST_TOKENS + 1}"):
        scope(hybrid, text(MOST_TOKENS + 1), layer=3)


def test_wrong_recordings_are_refused() -> None:
    for kind in ("RWKV4", "RWKV5"):
        call = record(shaken(kind), text(5))[0]
        with pytest.raises(ValueError, match="must start from the empty state"):
            traces(call._replace(inputs=call.inputs | {"state": call.state}))
        assert traces(call._replace(inputs={name: x for name, x in call.inputs.items() if name != "state"}))
    with pytest.raises(
        ValueError, match=r"long_conv has no reader yet; there are readers for linear_recurrence, rg_lru, wkv4, wkv6, "
    ):
        traces(call._replace(op="long_conv"))


def test_wrong_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one trace"):
        StateScope([])
    with pytest.raises(ValueError, match=r"over the same tokens, at most 256, got 11, 12"):
        StateScope([matrix_trace(), matrix_trace(tokens=11)])
    with pytest.raises(ValueError, match=r"expected 1 names, got 2"):
        StateScope([matrix_trace()], names=["a", "b"])
    with pytest.raises(ValueError, match=r"names must differ, got a, a"):
        StateScope([matrix_trace(), average_trace()], names=["a", "a"])
    with pytest.raises(ValueError, match=r"7 heads are 1.75 MiB, more than the 1.50 MiB"):
        StateScope([matrix_trace(256, 64, 64, bonus=False)] * 7)
    assert StateScope([matrix_trace(256, 64, 64, bonus=False)] * 6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"write": np.ones((2, 129))}, r"write must be tokens by 1 to 128 channels, got shape \(2, 129\)"),
        ({"write": np.ones((0, 3))}, r"write must be .* got shape \(0, 3\)"),
        ({"values": np.ones((3, 4))}, r"values must have shape \(2, 4\), got \(3, 4\)"),
        ({"values": np.ones(2)}, r"values must be tokens by 1 to 128 channels, got shape \(2,\)"),
        ({"read": np.ones((2, 4))}, r"read must have shape \(2, 3\), got \(2, 4\)"),
        ({"log_decay": -np.ones((3, 3))}, r"log_decay must have shape \(2, 3\) or \(1, 3\) or .*, got \(3, 3\)"),
        ({"log_decay": np.full((1, 3), 0.5)}, r"log_decay must be at most 0, its largest entry is 0.5"),
        ({"log_decay": np.full((1, 3), -np.inf)}, r"log_decay must be finite everywhere"),
        ({"bonus": np.ones(2)}, r"bonus must have shape \(3,\), got \(2,\)"),
        ({"skip": np.ones(3)}, r"skip must have shape \(4,\), got \(3,\)"),
        ({"values": np.full((2, 4), np.nan)}, r"values must be finite everywhere"),
    ],
)
def test_wrong_traces_are_refused(changed: dict[str, np.ndarray], message: str) -> None:
    right = {"write": np.ones((2, 3)), "log_decay": -np.ones((1, 3)), "read": np.ones((2, 3)), "values": np.ones((2, 4))}
    assert MatrixTrace(**right).states().shape == (2, 3, 4)
    with pytest.raises(ValueError, match=f"MatrixTrace: {message}"):
        MatrixTrace(**right | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"read": np.ones((2, 4))}, r"read must have shape \(2, 3\), got \(2, 4\)"),
        ({"steps": np.ones((2, 3))}, r"steps must have shape \(2, 4\), got \(2, 3\)"),
        ({"steps": -np.ones((2, 4))}, "steps must be at least 0, the smallest entry is -1"),
        ({"rates": -np.ones((4, 3))}, r"rates must have shape \(3, 4\), got \(4, 3\)"),
        ({"rates": np.ones((3, 4))}, "rates must be at most 0, its largest entry is 1"),
        ({"skip": np.ones(3)}, r"skip must have shape \(4,\), got \(3,\)"),
        ({"values": np.full((2, 4), np.inf)}, "values must be finite everywhere"),
    ],
)
def test_wrong_scans_are_refused(changed: dict[str, np.ndarray], message: str) -> None:
    tokens = {"write": np.ones((2, 3)), "read": np.ones((2, 3)), "steps": np.ones((2, 4)), "values": np.ones((2, 4))}
    right = tokens | {"rates": -np.ones((3, 4)), "skip": np.ones(4)}
    assert ScanTrace(**right).states().shape == (2, 3, 4)
    with pytest.raises(ValueError, match=f"ScanTrace: {message}"):
        ScanTrace(**right | changed)


def test_wrong_vectors_are_refused() -> None:
    right = {"write": np.ones((2, 3)), "log_decay": -np.ones((2, 3)), "values": np.ones((2, 3))}
    assert VectorTrace(**right).states().shape == (2, 3, 1)
    for name, wrong in (("log_decay", np.ones((2, 3))), ("values", np.ones((2, 4))), ("write", np.ones((2, 129)))):
        with pytest.raises(ValueError, match="VectorTrace: "):
            VectorTrace(**right | {name: wrong})


# ---------------------------------------------------------------- the picture


@pytest.mark.parametrize("trace", [matrix_trace(), average_trace(), scan_trace(), vector_trace()])
def test_fallback_draws_the_view(trace: Trace) -> None:
    widget = StateScope([trace], tokens="ab\ncdef ghi$")
    view = widget.view | {"t": 8, "decay": 0.5}
    state, clocks, norm, _ = widget.figure(view).axes
    cells, found = cells_of(widget.heads[0], 0.5), measure(widget.heads[0], 7, 0.5)
    drawn = np.asarray(state.images[0].get_array())
    if not trace.lines:
        np.testing.assert_array_equal(drawn, cells[7])
    else:
        np.testing.assert_array_equal(drawn[:, :8], cells[:8, :, 0].T)
        assert not drawn[:, 8:].any()
    row, column = (found.cell[0], 7) if trace.lines else found.cell
    assert [patch.get_xy() for patch in state.patches] == [(0.5, row + 0.5), (column + 0.5, row + 0.5)]
    np.testing.assert_allclose([bar.get_width() for bar in clocks.patches], found.half_lives)
    np.testing.assert_allclose(norm.lines[0].get_ydata(), norms(cells))
    assert norm.lines[1].get_xydata()[0].tolist() == [8, found.norm]
    assert state.get_title() == "after token 8: … ab↵cdef "
    assert widget._png().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("tokens", "title"),
    [
        (["def", "f", "(", ")"], "after token 3: … def f ("),
        (["def", " f", "(", ")"], "after token 3: … def f("),
        (["\t", "a", "\n", "$"], "after token 3: …   a↵"),
        (["x" * 20, "y" * 20, "z" * 9, ""], "after token 3: … " + "y" * 20 + " " + "z" * 9),
    ],
)
def test_title_has_the_last_tokens(tokens: list[str], title: str) -> None:
    widget = StateScope([matrix_trace(tokens=4)], tokens=tokens).move(t=3)
    assert widget.figure(widget.view).axes[0].get_title() == title


SWEEP = """
async (views) => {
  const inputs = Object.fromEntries([...document.querySelectorAll('.hl-control')].map(node =>
    [node.querySelector('span').textContent, node.querySelector('input, select')]));
  return views.map(view => {
    for (const [label, value] of Object.entries(view)) {
      inputs[label].value = value;
      inputs[label].dispatchEvent(new Event(inputs[label].tagName === 'SELECT' ? 'change' : 'input'));
    }
    const texts = query => [...document.querySelectorAll(query)].map(node => node.textContent);
    return [document.querySelector('.hl-status').textContent, texts('.hl-readout dt'), texts('.hl-readout dd')];
  });
}
"""


def assert_same_at(widget: StateScope, page: object, views: list[dict[str, object]]) -> None:
    labels = {control.name: control.label for control in widget.controls if hasattr(control, "value")}
    moves = [{labels[name]: value for name, value in view.items()} for view in views]
    found = page.page.evaluate(SWEEP, moves)
    for view, (status, terms, values) in zip(views, found, strict=True):
        shown = widget.shown(view)
        assert (status, dict(zip(terms, values, strict=True))) == (shown.text, shown.readout), view


HANDMADE = {
    "no bonus, K > V": [matrix_trace(bonus=False)],
    "K < V, steady": [matrix_trace(rows=2, columns=7, steady=True)],
    "one token": [matrix_trace(tokens=1)],
    "one cell": [matrix_trace(rows=1, columns=1)],
    "zeros": [MatrixTrace(np.zeros((3, 2)), np.zeros((1, 2)), np.zeros((3, 2)), np.zeros((3, 4)), np.zeros(2))],
    "never forgets": [MatrixTrace(np.eye(4), np.zeros((1, 4)), np.eye(4), np.eye(4), np.ones(4))],
    "one clock": [
        MatrixTrace(
            *(
                getattr(matrix_trace(), name)[:, : 1 if name == "log_decay" else None]
                for name in ("write", "log_decay", "read", "values")
            ),
            skip=np.array([1.0, -2.0, 0.0]),
        )
    ],
    "one clock for good": [MatrixTrace(np.eye(4), np.full((1, 1), -0.1), np.eye(4), np.eye(4))],
    "scan": [scan_trace(), scan_trace(states=9, channels=2)],
    "vector": [vector_trace(), vector_trace(tokens=12, channels=1)],
    "every kind": [matrix_trace(), average_trace(), scan_trace(), vector_trace()],
    "tall": [matrix_trace(rows=20, columns=3)],
    "averages": [average_trace(), average_trace(channels=3, loud=900.0)],
    "both kinds": [matrix_trace(), average_trace(), matrix_trace(rows=8, columns=8)],
}


@pytest.mark.browser
@pytest.mark.parametrize("heads", HANDMADE)
def test_browser_shows_what_python_says(heads: str, browser, tmp_path) -> None:
    from widget_pages import opened

    widget = StateScope(HANDMADE[heads])
    count = len(widget.tokens)
    views = [
        widget.view | {"t": t, "decay": decay, **choice}
        for choice in ([{"head": name} for name in widget.names] if len(widget.names) > 1 else [{}])
        for decay in (1, 0, 0.25, 4)
        for t in range(1, count + 1)
    ]
    if "bonus" in widget.view:
        views += [view | {"bonus": bonus} for view in views[::3] for bonus in (-3, 0.5)]
    with opened(browser, widget, tmp_path) as page:
        assert page.shown() == widget.shown(widget.view)
        assert_same_at(widget, page, views)


@pytest.mark.browser
@pytest.mark.parametrize("kind", RECURRENT)
def test_browser_follows_a_real_run(kind: str, browser, tmp_path) -> None:
    from widget_pages import opened

    widget = scope(shaken(kind), text(48), layer=1)
    views = [
        {name: value for name, value in view.items() if name in widget.view}
        for decay, bonus in ((1, 0), (0, 0.25), (4, -1), (0.5, 3))
        for t in range(1, 49)
        for view in [{"t": t, "decay": decay, "bonus": bonus, "head": widget.names[-1]}]
    ]
    with opened(browser, widget, tmp_path) as page:
        assert_same_at(widget, page, views)


@pytest.mark.browser
def test_browser_at_full_size(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = StateScope([matrix_trace(256, 64, 64), average_trace(256, 64), scan_trace(256, 16, 64)])
    views = [
        {"t": t, "decay": decay, "bonus": 0, "head": name}
        for name in widget.names
        for decay in (1, 0)
        for t in (1, 2, 3, 40, 64, 65, 128, 200, 256)
    ]
    with opened(browser, widget, tmp_path) as page:
        assert_same_at(widget, page, views)


@pytest.mark.browser
def test_browsers_singular_values_are_numpys(browser) -> None:
    rng = RNG(2)
    hard = [
        rng.normal(size=(64, 64)),
        rng.normal(size=(64, 5)) @ rng.normal(size=(5, 64)),
        rng.normal(size=(64, 64)) * 10.0 ** -rng.uniform(0, 12, (64, 1)),
        np.vander(np.linspace(0.5, 1, 32), 32),
        np.linalg.qr(rng.normal(size=(16, 16)))[0],
        rng.normal(size=(3, 40)),
        rng.normal(size=(40, 3)),
        1e-150 * rng.normal(size=(4, 4)),
    ]
    source = str(StateScope._esm).replace("export default", "return effective_rank;")
    script = f"(matrices) => {{ const rank = (() => {{ {source} }})(); return matrices.map(([m, k, v]) => rank(m, k, v)); }}"
    page = browser.new_page()
    found = page.evaluate(script, [[matrix.ravel().tolist(), *matrix.shape] for matrix in hard])
    page.close()
    np.testing.assert_allclose(found, [effective_rank(matrix) for matrix in hard], rtol=1e-9)


def svg_values(page: object, query: str, *names: str) -> list[float]:
    return [float(page.page.locator(query).get_attribute(name)) for name in names]


# A page a view: Chromium complains on the console about a canvas that is read again and again.


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("t", "decay", "bonus"), [(12, 1, 0), (1, 1, 0), (7, 0.25, 2)])
def test_pixels_are_the_state_and_what_is_read(t: int, decay: float, bonus: float, scheme: str, browser, tmp_path) -> None:
    from widget_pages import opened, strengths

    widget = StateScope([matrix_trace(rows=9, columns=7)])
    trace, states = widget.heads[0], states_of(widget.heads[0], decay)
    with opened(browser, widget, tmp_path, color_scheme=scheme) as page:
        page.move(t=t, decay=decay, bonus=bonus)
        state, strip = strengths(page.pixels()), strengths(page.pixels("canvas[height='1']"))
    np.testing.assert_allclose(state, np.clip(states[t - 1] / colour_limit(states), -1, 1), atol=0.5 / 255 + 1e-9)
    most = max(np.abs(np.sum(trace.parts(at, states, decay, 0), axis=0)).max() for at in range(12))
    read = np.sum(trace.parts(t - 1, states, decay, bonus), axis=0)
    np.testing.assert_allclose(strip, np.clip(read / most, -1, 1)[None], atol=0.5 / 255 + 1e-9)


@pytest.mark.browser
@pytest.mark.parametrize("t", [12, 5])
def test_each_kind_of_trace_has_a_picture_of_its_size(t: int, browser, tmp_path) -> None:
    from widget_pages import opened, strengths

    heads = [matrix_trace(), scan_trace(), scan_trace(states=2, channels=9), vector_trace()]
    widget = StateScope(heads)
    for h, head in enumerate(widget.heads):
        cells = cells_of(head, 1)
        expected = np.where(np.arange(12) < t, cells[..., 0].T, 0) if head.lines else cells[t - 1]
        with opened(browser, widget, tmp_path) as page:
            page.move(t=t, head=widget.names[h])
            shown = strengths(page.pixels(".hl-panel:not([hidden]) canvas.hl-heat"))
        np.testing.assert_allclose(shown, np.clip(expected / colour_limit(cells), -1, 1), atol=0.5 / 255 + 1e-9)


@pytest.mark.browser
@pytest.mark.parametrize("t", [12, 5])
def test_pixels_are_the_averages_so_far_and_how_loud_each_is(t: int, browser, tmp_path) -> None:
    from widget_pages import opened, strengths

    widget = StateScope([average_trace(loud=0.3)])
    states = states_of(widget.heads[0], 1)
    with opened(browser, widget, tmp_path) as page:
        page.move(t=12)
        page.move(t=t)
        averages, loud = strengths(page.pixels()), strengths(page.pixels("canvas[width='1'] >> nth=1"))
    so_far = np.where(np.arange(12) < t, states[..., 0].T, 0)
    expected = np.clip(so_far / colour_limit(states[..., :1]), -1, 1)
    np.testing.assert_allclose(averages, expected, atol=0.5 / 255 + 1e-9)
    np.testing.assert_allclose(loud[:, 0], np.exp(states[t - 1, :, 1] - states[t - 1, :, 1].max()), atol=0.5 / 255 + 1e-9)


@pytest.mark.browser
def test_marks_stand_at_the_change_the_clocks_and_the_norm(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = StateScope([matrix_trace(rows=9, columns=7)], tokens="ab\ncdef ghi$")
    with opened(browser, widget, tmp_path) as page:
        for t, decay in ((12, 1), (1, 0.5), (6, 0.5), (7, 0)):
            page.move(t=t, decay=decay)
            found: Measured = measure(widget.heads[0], t - 1, decay)
            assert svg_values(page, "rect.hl-cell", "y", "x") == list(found.cell)
            assert svg_values(page, ".hl-clocks rect", "y") == [found.cell[0] + 0.1]
            path = page.page.locator(".hl-clocks path[fill]").get_attribute("d")
            widths = [float(bar.split("h")[1].split("v")[0]) for bar in path.split("z") if bar]
            along = np.log(np.clip(found.half_lives, 0.1, 1e5) / 0.1) / np.log(1e6)
            np.testing.assert_allclose(widths, np.maximum(0.5, 100 * along), rtol=1e-9)
            line = norms(cells_of(widget.heads[0], decay))
            drawn = page.page.locator(f"path[stroke='{POSITIVE}']").get_attribute("d")
            heights = [float(point.split()[1]) for point in re.split("[ML]", drawn)[1:]]
            np.testing.assert_allclose(heights, 90 - line / line.max() * 70, atol=0.051)
            height, place = svg_values(page, "circle.hl-now", "cy", "cx")
            np.testing.assert_allclose(height, 90 - line[t - 1] / line.max() * 70)
            np.testing.assert_allclose(place, 4 + (t - 1) / 11 * 392)
            lit = page.page.locator(".hl-text .hl-lit")
            assert lit.all_text_contents() == ["↵\n" if t == 3 else widget.tokens[t - 1]]
            faint = page.page.locator(".hl-text span").evaluate_all("spans => spans.map(span => span.style.opacity < 1)")
            assert faint == [False] * t + [True] * (12 - t)


@pytest.mark.browser
def test_keys_mouse_and_play_scrub(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = StateScope([matrix_trace(), average_trace()])

    def view(t: int, head: int = 1) -> dict[str, object]:
        return widget.view | {"t": t, "head": f"head {head}"}

    with opened(browser, widget, tmp_path) as page:
        state = ".hl-panel:not([hidden]) .hl-cells.hl-picture"
        page.press(state, "ArrowLeft", "ArrowLeft")
        assert page.shown() == widget.shown(view(10))
        page.press(state, "ArrowRight", "Home", "ArrowRight")
        assert page.shown() == widget.shown(view(2))
        page.press(state, "ArrowDown")
        assert page.shown() == widget.shown(view(12))
        page.press(state, "ArrowUp", "ArrowUp")
        assert page.shown() == widget.shown(view(1))
        page.press(state, "End")
        assert page.shown() == widget.shown(view(12))
        page.page.locator(".hl-text span").nth(4).click()
        assert page.shown() == widget.shown(view(5))
        chart = page.page.locator("svg.hl-picture")
        box = chart.bounding_box()
        page.page.mouse.click(box["x"] + box["width"] * 0.51, box["y"] + box["height"] / 2)
        assert page.shown() == widget.shown(view(7))
        assert page.page.get_by_role("img").first.get_attribute("aria-label") == widget.shown(view(7)).text
        page.move(head="head 2")
        assert page.shown() == widget.shown(view(7, head=2))
        box = page.page.locator(state).bounding_box()
        page.page.mouse.click(box["x"] + box["width"] * 2.5 / 12, box["y"] + 5)
        assert page.shown() == widget.shown(view(3, head=2))
        page.move(t=11)
        page.page.get_by_role("button", name="Play").click()
        page.page.wait_for_function("document.querySelector('.hl-status').textContent.includes('token 12')")
        assert page.shown() == widget.shown(view(12, head=2))
        page.page.wait_for_function("document.querySelector('button').textContent === 'Play'")
