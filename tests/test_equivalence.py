"""check_equivalence: everything here is equivalent, and a wrong form, kernel or gradient is found and named."""

import importlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.measure import check_equivalence
from hybridlab.measure.cases import CASES
from hybridlab.measure.equivalence import LIMITS, TRUTH, Equivalence, Way, all_ways, relative_error
from hybridlab.ops import dispatch

OPS = list(CASES)
INPUTS = {
    "linear_recurrence": {"a", "b", "state"},
    "short_conv": {"x", "weight", "bias", "state"},
    "rg_lru": {"x", "recurrence_gate", "input_gate", "log_a", "state"},
    "selective_scan": {"x", "dt", "A", "B", "C", "D", "state"},
    "ssd": {"x", "dt", "A", "B", "C", "D", "state"},
    "retention": {"q", "k", "v", "log_decay", "state"},
    "long_conv": {"x", "filter", "skip", "state"},
    "modal_conv": {"x", "poles", "residues", "skip", "state"},
    "taylor_attention": {"q", "k", "v", "kv_state", "k_state"},
    "wkv4": {"k", "v", "log_decay", "bonus", "state"},
    "wkv6": {"r", "k", "v", "log_decay", "bonus", "state"},
    "delta_rule": {"q", "k", "v", "beta", "state"},
    "gated_delta_rule": {"q", "k", "v", "log_decay", "beta", "state"},
    "wkv7": {"r", "k", "v", "log_decay", "a", "b", "state"},
    "attention": {"q", "k", "v", "k_past", "v_past"},
}


def module(op: str) -> Any:
    return importlib.import_module(f"hybridlab.ops.{op}")


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "TRITON_INSTALLED", False)


@pytest.mark.minutes
@pytest.mark.parametrize("op", OPS)
def test_everything_is_equivalent(op: str) -> None:
    report = check_equivalence(op)
    assert report.ok, report.cases()
    compared = {way for way in report.ways if report.of(way)}
    assert compared == {way for way in report.ways if way.form != TRUTH}, "every backend runs here, Triton interpreted"


@pytest.mark.minutes
@pytest.mark.usefixtures("no_triton")
@pytest.mark.parametrize("op", OPS)
def test_every_case_compares_output_state_and_every_gradient(op: str) -> None:
    report = check_equivalence(op)
    assert report.ok, report.cases()
    assert {way.form for way in report.ways if way.form} == set(module(op).FORMS)
    assert {way.backend for way in report.ways} == set(module(op).BACKENDS)
    for way in report.ways:
        cases = report.of(way)
        if cases:
            assert [comparison.case for comparison in cases] == [case.name for case in CASES[op]]
            assert set.union(*(set(x.errors) for x in cases)) >= {"output", *(f"gradient of {x}" for x in INPUTS[op])}
            assert all(any(name.startswith("state") for name in comparison.errors) for comparison in cases)


def test_cases_are_awkward() -> None:
    assert {1, 13} <= {case.tensors()["q"].shape[1] for case in CASES["attention"]}
    for op in ("wkv4", "wkv6", "retention"):
        made = [case.tensors() for case in CASES[op]]
        decays = [tensors["log_decay"] for tensors in made]
        assert {"state" in tensors for tensors in made} == {True, False}
        assert any((x == 0).all() for x in decays)
        assert any((x == -20).all() for x in decays)
        assert any({0.0, -20.0} < set(x.flatten().tolist()) for x in decays)
        assert {1, 1 + module(op).CHUNK_SIZE, 1 + 2 * module(op).CHUNK_SIZE} <= {x["k"].shape[1] for x in made}
    steps = [case.tensors()["a"] for case in CASES["linear_recurrence"]]
    assert any({-1.0, 0.0, 1.0} < set(x.flatten().tolist()) for x in steps)
    chunk = module("linear_recurrence").CHUNK_SIZE
    assert {1, 1 + chunk, 1 + 2 * chunk} <= {x.shape[1] for x in steps}
    gated = [case.tensors() for case in CASES["rg_lru"]]
    assert {"reset" in x for x in gated} == {"state" in x for x in gated} == {True, False}
    assert any(x["reset"].any() and not x["reset"].all() for x in gated if "reset" in x)
    assert any({0.0, 1.0} < set(x["recurrence_gate"].flatten().tolist()) for x in gated)
    assert any((8 * x["log_a"] < -15).all() for x in gated)
    assert any((8 * x["log_a"] > -1e-6).all() for x in gated), "where 1 - a^2 is less than a float32's digits"
    scans = [case.tensors() for case in CASES["selective_scan"]]
    assert any({0.0, 50.0} < set(x["dt"].flatten().tolist()) and x["dt"].unique()[1] < 2e-6 for x in scans)
    assert any({0.0, -20.0, -1e4} < set(x["A"].flatten().tolist()) for x in scans)
    assert {"D" in x for x in scans} == {"state" in x for x in scans} == {True, False}
    assert {1, 3, 16} <= {x["A"].shape[1] for x in scans}
    chunk = module("selective_scan").CHUNK_SIZE
    assert {1, 1 + chunk, 1 + 2 * chunk} <= {x["x"].shape[1] for x in scans}
    duals = [case.tensors() for case in CASES["ssd"]]
    assert any({0.0, 50.0} < set(x["dt"].flatten().tolist()) and x["dt"].unique()[1] < 2e-6 for x in duals)
    assert any({0.0, -20.0, -900.0} < set(x["A"].flatten().tolist()) for x in duals)
    assert {"D" in x for x in duals} == {"state" in x for x in duals} == {True, False}
    assert {(1, 5), (2, 4), (3, 3)} <= {(x["B"].shape[2], x["x"].shape[2]) for x in duals}, "groups and heads"
    chunk = module("ssd").CHUNK_SIZE
    assert {1, 1 + chunk, 1 + 2 * chunk} <= {x["x"].shape[1] for x in duals}
    powers = [case.tensors() for case in CASES["taylor_attention"]]
    assert {"k_state" in x for x in powers} == {True, False}
    chunk = module("taylor_attention").CHUNK_SIZE
    assert {1, 1 + chunk, 1 + 2 * chunk} <= {x["q"].shape[1] for x in powers}
    assert {1, 3, 16} <= {x["q"].shape[3] for x in powers}
    assert max((x["q"][..., :1, :] @ x["k"][..., :1, :].mT).abs().max() for x in powers) > 300
    convolved = [case.tensors() for case in CASES["short_conv"]]
    assert {"bias" in x for x in convolved} == {"state" in x for x in convolved} == {True, False}
    assert {1 < x["x"].shape[1] < x["weight"].shape[1] - 1 for x in convolved} == {True, False}
    assert max(case.tensors()["k"].max() for case in CASES["wkv4"]) > 890
    assert min(case.tensors()["k"].min() for case in CASES["wkv4"]) < -890
    assert any(case.tensors()["log_decay"].shape[1] == 1 < case.tensors()["k"].shape[1] for case in CASES["wkv6"])


@pytest.mark.parametrize("op", OPS)
def test_cases_are_the_same_numbers_in_float32_and_at_every_call(op: str) -> None:
    for case in CASES[op]:
        first, second = case.tensors(), case.tensors()
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name])
            single = torch.complex64 if tensor.is_complex() else torch.float32
            assert torch.equal(tensor, tensor.to(single).to(tensor.dtype))


Run = Callable[..., tuple[Tensor, Tensor]]


def no_bonus(run: Run) -> Run:
    return lambda r, k, v, log_decay, bonus, state: run(r, k, v, log_decay, 0 * bonus, state)


def state_forgotten(run: Run) -> Run:
    return lambda r, k, v, log_decay, bonus, state: run(r, k, v, log_decay, bonus, 0 * state)


def final_state_scaled(run: Run) -> Run:
    def wrong(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        output, final = run(*inputs)
        return output, final * (1 + 1e-3)

    return wrong


def gradient_of(place: int) -> Callable[[Run], Run]:
    """Right in every number, one gradient off by a thousandth."""

    def wrapped(run: Run) -> Run:
        def wrong(*inputs: Tensor) -> tuple[Tensor, Tensor]:
            x = inputs[place]
            x = x + (1e-3 * x - (1e-3 * x).detach())
            return run(*inputs[:place], x, *inputs[place + 1 :])

        return wrong

    return wrapped


def nan_at_strong_decay(run: Run) -> Run:
    def wrong(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        output, final = run(*inputs)
        return output * (torch.nan if inputs[3].min() < -15 else 1), final

    return wrong


def raises(run: Run) -> Run:
    def wrong(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        raise RuntimeError("out of registers")

    return wrong


# What is wrong, and which results are then off. Numbers that are off take gradients with them.
WRONG: dict[str, tuple[Callable[[Run], Run], set[str]]] = {
    "no bonus": (no_bonus, {"output"}),
    "state forgotten": (state_forgotten, {"output", "state", "gradient of state"}),
    "final state off": (final_state_scaled, {"state"}),
    "gradient of r": (gradient_of(0), {"gradient of r"}),
    "gradient of k": (gradient_of(1), {"gradient of k"}),
    "gradient of v": (gradient_of(2), {"gradient of v"}),
    "gradient of log_decay": (gradient_of(3), {"gradient of log_decay"}),
    "gradient of bonus": (gradient_of(4), {"gradient of bonus"}),
    "gradient of state": (gradient_of(5), {"gradient of state"}),
    "NaN at strong decay": (nan_at_strong_decay, {"output"}),
}
PLACES = pytest.mark.parametrize("place", ["FORMS chunked", "BACKENDS numba"])


def broken_report(place: str, wrap: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch) -> Equivalence:
    """The report with one form or kernel wrapped; only that one may fail."""
    table, key = place.split()
    functions = getattr(module("wkv6"), table)
    monkeypatch.setitem(functions, key, wrap(functions[key]))
    report = check_equivalence("wkv6")
    failed = {comparison.way for comparison in report.comparisons if not comparison.ok}
    assert {way.form or way.backend for way in failed} == {key}
    assert not report.ok
    assert repr(report).count("FAIL: ") == len(failed)
    return report


@pytest.mark.usefixtures("no_triton")
@PLACES
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_version_is_found_and_named(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrap, expected = WRONG[name]
    report = broken_report(place, wrap, monkeypatch)
    off = {
        result
        for comparison in report.comparisons
        for result, error in comparison.errors.items()
        if not error <= LIMITS[comparison.way.dtype]
    }
    assert expected <= off
    if name.startswith("gradient"):
        assert off == expected
        assert f"{name} is off by 1.0e-03" in repr(report)
    else:
        assert {x for x in off if not x.startswith("gradient")} == {x for x in expected if not x.startswith("gradient")}


@pytest.mark.usefixtures("no_triton")
@PLACES
def test_what_raises_is_a_row(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "RuntimeError: out of registers" in repr(broken_report(place, raises, monkeypatch))


def test_wkv4_states_are_compared_by_what_they_mean(monkeypatch: pytest.MonkeyPatch, no_triton: None) -> None:
    """Another split between den and max is the same state."""
    run = module("wkv4").FORMS["chunked"]

    def other_split(*inputs: Tensor, **how: Any) -> tuple[Tensor, Tensor]:
        output, final = run(*inputs, **how)
        num, den, top = final.unbind(-1)
        return output, torch.stack((num / 8, den / 8, top + math.log(8)), -1)

    monkeypatch.setitem(module("wkv4").FORMS, "chunked", other_split)
    assert check_equivalence("wkv4").ok
    monkeypatch.setitem(module("wkv4").FORMS, "chunked", lambda *x: (run(*x)[0], run(*x)[1] * torch.tensor([1, 1.001, 1])))
    assert not check_equivalence("wkv4").ok


@pytest.mark.usefixtures("no_triton")
def test_a_backend_that_cannot_run_is_a_row_that_says_why() -> None:
    report = check_equivalence("wkv6")
    assert report.ok
    assert "not here: triton is not installed" in repr(report)


@pytest.mark.usefixtures("no_triton")
def test_what_a_notebook_stores_has_no_digits_of_this_machine() -> None:
    report = check_equivalence("wkv6")
    assert repr(report) == repr(check_equivalence("wkv6"))
    assert "e-16" not in repr(report) + report._repr_html_()
    assert "< 1e-09" in repr(report)
    assert "e-16" in report.table().markdown()


def test_relative_error() -> None:
    truth = torch.tensor([1.0, -4.0], dtype=torch.float64)
    assert relative_error(truth + 0.4, truth) == pytest.approx(0.1)
    assert relative_error(truth[:1], truth) == math.inf
    assert relative_error(None, truth) == math.inf
    assert math.isnan(relative_error(truth * torch.nan, truth))
    assert relative_error(truth * 0, truth * 1e-30) < LIMITS[torch.float64], "a gradient of 1e-30 is a zero"


def test_ways_of_an_op() -> None:
    ways = list(all_ways("wkv6"))
    assert ways[0] == Way("wkv6", "naive", TRUTH, torch.float64)
    assert {(way.backend, way.dtype) for way in ways if not way.form} == {
        ("numba", torch.float64),
        ("numba", torch.float32),
        ("triton", torch.float32),
    }


def test_unknown_op() -> None:
    with pytest.raises(ValueError, match=f"unknown op 'wkv9'; choose {', '.join(CASES)}"):
        check_equivalence("wkv9")
