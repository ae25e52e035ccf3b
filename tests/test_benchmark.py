"""The benchmark measures what it says: rounds, floors, rivals that agree, targets, and what README quotes of it."""

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from hybridlab.measure import bench, roofline, stopwatch
from hybridlab.measure.bench import benchmark
from hybridlab.measure.contenders import contenders, ours, reason_to_skip, runner
from hybridlab.measure.machine import Machine, limited_threads, processor_name
from hybridlab.measure.problems import MODES, SETTINGS, problem
from hybridlab.measure.quotes import BEGIN, END, filled, quotes
from hybridlab.measure.results import Benchmark, Cell, Result, read
from hybridlab.measure.rivals import RIVALS
from hybridlab.measure.roofline import MATMUL, TRIAD, Work, floor
from hybridlab.measure.stopwatch import Spread, Times, interleave
from hybridlab.measure.targets import judge

ROOT = Path(__file__).resolve().parent.parent


def times(*wall: float) -> Times:
    return Times(list(wall), list(wall), 1)


def exactly(number: float) -> Spread:
    return Spread(number, number, number)


def made(op: str = "wkv4", threads: int = 2, quick: bool = False, over_floor: float = 3.0, **ratios: float) -> Benchmark:
    """A benchmark with the given ratios in all its cells."""
    shown = {name: Result(exactly(1e-3 * ratio), exactly(ratio), 2.0, 7, 1) for name, ratio in ratios.items()}
    results = {"numba": Result(exactly(1e-3), exactly(1.0), 2.0, 7, 1), **shown}
    sizes = (("forward", 1024), ("forward+backward", 1024), ("decode", 1))
    cells = tuple(Cell(mode, T, results, {}, exactly(over_floor), {"bound": "bytes"}) for mode, T in sizes)
    machine = Machine("Some CPU (R) 9", "cpu", 2, threads, "Linux x86_64", {"torch": "2.13.0"})
    return Benchmark(op, "numba", "B 1", machine, quick, cells)


# The stopwatch


def test_spread_is_the_median_and_the_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == exactly(7.0)


def test_ratio_is_taken_round_by_round() -> None:
    # A busy machine slows whole rounds: within them the ratio is 3, 4 and 5, while the ratio of the medians is 5.
    slow, kernel = times(300.0, 4.0, 50.0), times(100.0, 1.0, 10.0)
    assert slow.over(kernel) == Spread(4.0, 3.5, 4.5)


def test_every_contender_runs_once_a_round_and_none_always_behind_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(stopwatch, "_repeats", lambda run: 1)
    runs = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    found = interleave(runs, seconds=0, least=6, most=9)
    rounds = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert len(rounds) == 6
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert {names[0] for names in rounds} == {"a", "b", "c"}
    behind = {(names[i - 1], names[i]) for names in rounds for i in (1, 2)}
    assert behind == {(one, other) for one in "abc" for other in "abc" if one != other}
    assert [len(x.wall) for x in found.values()] == [6] * 3


def test_rounds_stop_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "_repeats", lambda run: 1)
    assert len(interleave({"a": lambda: None}, seconds=60, least=1, most=4)["a"].wall) == 4


def test_time_of_a_call_is_divided_by_the_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(0.0, 10.0)
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(clock))
    wall, _ = stopwatch.timed(lambda: None, repeats=5)
    assert wall == 2.0


def test_short_calls_run_untimed_before_they_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The contender before leaves threads that spin for a while: without this the same code differs from itself by a tenth.
    calls: list[str] = []
    monkeypatch.setattr(stopwatch, "_repeats", lambda run: 8)
    monkeypatch.setattr(stopwatch, "timed", lambda run, repeats: (calls.append(f"timed {repeats}"), (1.0, 1.0))[1])
    interleave({"a": lambda: calls.append("a")}, seconds=0, least=2, most=2)
    assert calls == ["a", "a", "timed 8"] * 2


# The floor


@pytest.mark.parametrize(("work", "bound", "seconds"), [(Work(4000, 10), "bytes", 4.0), (Work(10, 9000), "operations", 3.0)])
def test_floor_is_the_larger_of_moving_and_computing(
    work: Work, bound: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "TRIAD_NUMBERS", 1000)  # 12000 bytes in 12 s: 1000 a second
    monkeypatch.setattr(roofline, "MATMUL_ROWS", 10)  # 2000 operations in 2/3 s: 3000 a second
    ground = floor(work, {TRIAD: times(12.0, 12.0), MATMUL: times(2 / 3, 2 / 3)})
    assert ground.bound == bound
    assert ground.seconds == pytest.approx([seconds, seconds])
    assert ground.under(times(2 * seconds, 2 * seconds)).median == pytest.approx(2.0)


# Float32 numbers that must be moved, inputs + outputs + the final state, and operations: of T tokens, forward.
@pytest.mark.parametrize(
    ("op", "numbers", "operations"),
    [
        ("attention", lambda T: 2 * T * 12 * 64 + 4 * T * 4 * 64, lambda T: 12 * 64 * 4 * T * (T + 1) // 2),
        ("long_conv", lambda T: 3 * T * 864 + 864 + (T - 1) * 864, lambda T: 864 * 3 * 20 * 2 * T),
        ("delta_rule", lambda T: 4 * T * 8 * 128 + T * 8 + 8 * 128**2, lambda T: T * 8 * 128 * 128 * 6),
        ("wkv7", lambda T: 7 * T * 768 + 12 * 64 * 64, lambda T: T * 12 * 64 * 64 * 8),
        ("wkv4", lambda T: 2 * T * 768 + 2 * 768 + T * 768 + 3 * 768, lambda T: T * 768 * 12),
        ("wkv6", lambda T: 4 * T * 768 + 768 + T * 768 + 12 * 64 * 64, lambda T: T * 12 * 64 * 64 * 4),
        ("linear_recurrence", lambda T: 3 * T * 1024 + 1024, lambda T: T * 1024 * 2),
        ("rg_lru", lambda T: 4 * T * 1024 + 2 * 1024, lambda T: T * 1024 * 11),
        ("short_conv", lambda T: 2 * T * 1536 + (4 + 1 + 3) * 1536, lambda T: T * 1536 * 4 * 2),
        ("selective_scan", lambda T: 3 * T * 1536 + 2 * T * 16 + (16 + 1 + 16) * 1536, lambda T: T * 1536 * 16 * 7),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_work_is_what_must_be_moved_and_computed(op: str, numbers, operations) -> None:
    assert problem(op, "forward", 128).work == Work(4 * numbers(128), operations(128))


def test_decoding_reads_the_state_too() -> None:
    assert problem("linear_recurrence", "decode", 1).work.bytes == 4 * (3 + 2) * 1024


def test_backward_moves_inputs_again_and_a_gradient_for_each() -> None:
    T, C = 128, 768
    inputs, results = 4 * (2 * T * C + 2 * C), 4 * (T * C + 3 * C)
    work = problem("wkv4", "forward+backward", T).work
    assert work == Work(3 * inputs + 2 * results, 3 * T * C * 12)


# Contenders


BESIDE_KERNEL_AND_LOOP = {
    "wkv4": {"chunked"}, "wkv6": {"chunked"}, "linear_recurrence": {"parallel", "chunked"},
    "rg_lru": {"parallel", "chunked"}, "short_conv": {"parallel"}, "selective_scan": {"chunked"},
    "ssd": {"chunked"}, "retention": {"chunked"},
    "attention": {"auto", "sdpa"}, "attention_window": {"auto", "sdpa", "chunked"}, "long_conv": {"auto", "fft"},
    "taylor_attention": {"chunked"}, "delta_rule": {"chunked"}, "gated_delta_rule": {"chunked"}, "wkv7": {"chunked"},
}  # fmt: skip
OTHERS = {op: rival.name for op, rival in RIVALS.items()}


def entered(op: str, mode: str, tokens: int) -> dict:
    given = problem(op, mode, tokens)
    found = [c for c in contenders(given, "cpu") if not reason_to_skip(c.name, given)]
    return {f"{c.name} {c.detail}".strip(): runner(c, given) for c in found}


@pytest.mark.minutes
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", SETTINGS)
def test_contenders_compute_the_same(op: str, mode: str) -> None:
    runners = entered(op, mode, 1 if mode == "decode" else 19)
    ours = {"numba", "naive", *BESIDE_KERNEL_AND_LOOP[op]}
    assert {name.split()[0] for name in runners} - {"transformers", "conv1d"} == ours
    bench._check_agreement(runners, "numba")


@pytest.mark.minutes
@pytest.mark.parametrize("op", SETTINGS)
def test_backward_compares_the_gradient_of_every_input(op: str) -> None:
    given = problem(op, "forward+backward", 5)
    for name, run in entered(op, "forward+backward", 5).items():
        # The rival of wkv4 has the logarithm of log_decay for an input.
        own = {"log_decay"} if (op, name) == ("wkv4", "transformers") else set()
        assert run().keys() == {"output", *(f"gradient of {x}" for x in given.inputs.keys() - own)}


@pytest.mark.parametrize("op", [op for op, name in OTHERS.items() if name == "transformers"])
def test_transformers_takes_part_on_a_cpu(op: str) -> None:
    pytest.importorskip("transformers", reason="the rival is not installed")
    given = problem(op, "forward", 8)
    assert "transformers" in [c.name for c in contenders(given, "cpu")]
    assert "transformers" not in [c.name for c in contenders(given, "cuda")]


def test_convolution_of_pytorch_takes_part_everywhere() -> None:
    given = problem("short_conv", "forward", 8)
    assert all("conv1d" in [c.name for c in contenders(given, device)] for device in ("cpu", "cuda"))


def test_a_rival_that_writes_into_its_state_gets_one_of_its_own() -> None:
    pytest.importorskip("transformers", reason="the rival is not installed")
    given = problem("selective_scan", "decode", 1)
    before = given.state.clone()
    rival = next(c for c in contenders(given, "cpu") if c.name == "transformers")
    runner(rival, given)()
    assert torch.equal(given.state, before)


@pytest.mark.parametrize("spoil", [lambda y: y * 1.01, lambda y: y * float("nan")], ids=["1 % off", "NaN"])
def test_contender_that_computes_something_else_is_refused(spoil) -> None:
    given = problem("wkv6", "forward", 5)
    right = runner(ours("wkv6", "numba", backend="numba"), given)
    runners = {"numba": right, "cheat": lambda: {"output": spoil(right()["output"])}}
    with pytest.raises(RuntimeError, match="output of cheat differs from numba's"):
        bench._check_agreement(runners, "numba")


@pytest.mark.parametrize(
    ("name", "op", "tokens", "skipped"),
    [
        ("naive", "ssd", 1024, False),
        ("naive", "ssd", 2048, True),
        ("naive", "wkv4", 4096, False),
        ("transformers", "wkv4", 1024, False),
        ("transformers", "wkv4", 2048, True),
        ("transformers", "rg_lru", 1024, False),
        ("transformers", "linear_recurrence", 2048, True),
        ("transformers", "selective_scan", 128, True),
        ("naive", "selective_scan", 4096, False),
        ("conv1d", "short_conv", 4096, False),
        ("chunked", "selective_scan", 4096, False),
    ],
)
def test_backward_that_does_not_fit_is_left_out_with_a_reason(name: str, op: str, tokens: int, skipped: bool) -> None:
    given = problem(op, "forward+backward", 1)._replace(tokens=tokens)
    assert bool(reason_to_skip(name, given)) is skipped
    assert reason_to_skip(name, given._replace(mode="forward")) == ""


def test_search_for_a_chunk_size_repeats_short_calls_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # The second's first call is slow, the third is hopeless, the last is too long to be warm-up.
    seconds = {"a": [0.04, 0.03, 0.02], "b": [0.07, 0.01, 0.02], "c": [0.05, 0.0, 0.0], "d": [0.2, 0.0, 0.0]}
    calls: list[str] = []
    monkeypatch.setattr(bench, "runner", lambda form, given: form.name)
    monkeypatch.setattr(bench, "timed", lambda name: (calls.append(name) or seconds[name][calls.count(name) - 1], 0.0))
    forms = [ours("wkv4", name) for name in seconds]
    assert bench._fastest(forms, problem("wkv4", "forward", 1)).name == "b"
    assert "".join(calls) == "aaabbbcd"
    calls.clear()
    seconds |= {"d": [0.2, 0.0, 0.0], "e": [0.1, 0.0, 0.0]}
    assert bench._fastest([ours("wkv4", name) for name in "de"], problem("wkv4", "forward", 1)).name == "e"
    assert "".join(calls) == "de"


# The whole


@pytest.fixture
def small_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "TRIAD_NUMBERS", 1 << 12)
    monkeypatch.setattr(roofline, "MATMUL_ROWS", 32)
    monkeypatch.setattr(stopwatch, "SHORTEST", 1e-4)


# To compile the kernels of the others takes minutes.
COMPILED_SOON = ("linear_recurrence", "long_conv")
ALL_IN_TIME = [op if op in COMPILED_SOON else pytest.param(op, marks=pytest.mark.minutes) for op in SETTINGS]


@pytest.mark.usefixtures("small_probes")
@pytest.mark.parametrize("op", ALL_IN_TIME)
def test_benchmark_measures_writes_and_reads_back(op: str, tmp_path: Path) -> None:
    lines: list[str] = []
    found = benchmark(op, lengths=(8, 16), seconds=0, threads=1, device="cpu", progress=lines.append)
    assert [(cell.mode, cell.tokens) for cell in found.cells] == [
        ("forward", 8), ("forward", 16), ("forward+backward", 8), ("forward+backward", 16), ("decode", 1),
    ]  # fmt: skip
    assert len(lines) == len(found.cells)
    assert found.kernel == ("auto" if SETTINGS[op].chooses else "numba")
    assert all(cell.results[found.kernel].ratio == exactly(1.0) for cell in found.cells)
    others = {"numba", "naive", *BESIDE_KERNEL_AND_LOOP[op]}
    assert all(cell.results[name].seconds.median > 0 for cell in found.cells for name in others)
    assert found.sizes == SETTINGS[op].sizes
    assert found.machine.threads == 1
    data, page = found.write(tmp_path / "new")
    assert data.name == f"{found.machine.slug}_{op}.json"
    assert read(data) == found
    assert "| forward+backward | 16 |" in page.read_text()


def test_cells_for_the_progress_bar() -> None:
    assert bench.cells_to_measure(quick=False) == 13
    assert bench.cells_to_measure(quick=True) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"op": "wkv9"}, "unknown op 'wkv9'; choose wkv4, wkv6, linear_recurrence"),
        ({"op": "wkv4", "modes": ["sideways"]}, "unknown mode 'sideways'"),
        ({"op": "wkv4", "lengths": [0]}, "at least 1, got 0"),
        ({"op": "wkv4", "device": "toaster"}, "device 'toaster' is not on this machine"),
        ({"op": "wkv4", "threads": 0, "device": "cpu"}, "threads: expected 1 to"),
    ],
    ids=lambda x: next(reversed(x)) if isinstance(x, dict) else "",
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        benchmark(**arguments)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with limited_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("model name\t: Intel(R) Xeon(R) 8481C\n", "Intel(R) Xeon(R) 8481C"),
        ("cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n", "AMD EPYC family 26 model 2"),
        ("CPU implementer\t: 0x41\n", ""),
    ],
    ids=["named", "hidden by a virtual machine", "without a name"],
)
def test_processor_name(cpuinfo: str, name: str) -> None:
    assert processor_name(cpuinfo) == name


# Targets


@pytest.mark.parametrize(
    ("ratios", "verdicts"),
    [
        ({"transformers": 15.0, "naive": 3.0, "over_floor": 5.0}, ["reached", "reached", "reached"]),
        ({"transformers": 14.9, "naive": 2.9, "over_floor": 5.1}, ["missed", "missed", "missed"]),
        ({"naive": 9.0}, ["not measured here", "reached", "reached"]),
        ({"transformers": 99.0, "naive": 9.0, "threads": 1}, ["not measured: this ran on 1", "reached", "reached"]),
    ],
    ids=["just reached", "just missed", "no transformers", "another number of threads"],
)
def test_targets_are_judged(ratios: dict, verdicts: list[str]) -> None:
    table = judge(made(**ratios))
    assert [row[2] for row in table.rows] == verdicts
    assert table.failed == {i for i, verdict in enumerate(verdicts) if verdict == "missed"}


@pytest.mark.parametrize(
    ("op", "ratios", "verdicts"),
    [
        ("wkv6", {"naive": 4.0, "over_floor": 6.0}, ["forward >= 5 x naive: missed", "forward <= 6 x the floor: reached",
            "forward+backward >= 3 x naive: reached"]),
        ("linear_recurrence", {"naive": 2.9, "transformers": 5.0, "over_floor": 2.6}, ["forward <= 2.5 x the floor: missed",
            "forward >= 5 x transformers: reached", "forward+backward >= 3 x naive: missed"]),
        ("rg_lru", {"naive": 3.0, "transformers": 4.9, "over_floor": 2.5}, ["forward <= 2.5 x the floor: reached",
            "forward >= 5 x transformers: missed", "forward+backward >= 3 x naive: reached"]),
        ("short_conv", {"naive": 3.0}, ["forward+backward >= 3 x naive: reached"]),
        ("selective_scan", {"naive": 2.0, "transformers": 7.0}, ["forward >= 7 x transformers: reached",
            "forward >= 2 x naive: reached", "forward+backward >= 3 x naive: missed"]),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_each_op_has_targets_of_its_own(op: str, ratios: dict, verdicts: list[str]) -> None:
    assert [f"{row[0]}: {row[2]}" for row in judge(made(op, **ratios)).rows] == [f"{op} {verdict}" for verdict in verdicts]


# What README quotes


def test_quotes_come_from_the_files(tmp_path: Path) -> None:
    made(naive=31.4, chunked=2.7, transformers=27.1).write(tmp_path)
    made("wkv6", naive=8.0, chunked=0.9).write(tmp_path)
    text = quotes(tmp_path)
    for quoted in (
        "31 (31 to 31)",
        "2.7 (2.7 to 2.7)",
        "27 (27 to 27)",
        "Some CPU (R) 9, 2 threads on 2 cores",
        "torch 2.13.0",
    ):
        assert quoted in text
    assert "takes numba; a PyTorch form was faster at 3 of 6 sizes measured: wkv6 forward T=1024 (chunked), " in text


def test_quotes_keep_the_order_of_the_settings_and_the_fastest_form(tmp_path: Path) -> None:
    made("short_conv", naive=31.4, parallel=2.7, conv1d=5.5).write(tmp_path)
    made("linear_recurrence", naive=31.4, parallel=7.7, chunked=3.3, transformers=27.1).write(tmp_path)
    made("wkv6", naive=31.4).write(tmp_path)
    text = quotes(tmp_path)
    rows = [line.split("|")[1:-1] for line in text.splitlines() if " forward, numba" in line]
    assert [[cell.split()[0] if cell.strip() else "" for cell in row] for row in rows] == [
        ["wkv6", "1024", "1", "3", "31", "", ""],
        ["linear_recurrence", "1024", "1", "3", "31", "3.3", "27"],
        ["short_conv", "1024", "1", "3", "31", "2.7", "5.5"],
    ]
    assert "takes numba: the PyTorch forms were slower at all 9 sizes measured." in text


def test_tables_have_a_column_for_each_rival_that_took_part() -> None:
    columns = made("short_conv", naive=31.4, conv1d=5.5, parallel=0.9).table().columns
    assert columns[4:] == ("naive / numba", "parallel / numba", "conv1d / numba", "cpu/wall")
    assert made("short_conv", naive=31.4, conv1d=0.5, parallel=0.9).cells[0].faster() == "parallel"


def test_what_chooses_by_size_may_take_a_tenth_longer(tmp_path: Path) -> None:
    """Its own choice runs beside it, and chance decides who is ahead; a kernel that it did not take may be ahead as well."""
    fair, missed = (replace(made("attention", auto=1.0, sdpa=sdpa), kernel="auto") for sdpa in (0.95, 0.8))
    assert fair.lost() == []
    assert fair.choice() == "auto chooses by size: within a tenth of the fastest at 3 of 3"
    assert [line.split("(")[1] for line in missed.lost()] == ["sdpa)"] * 3
    assert fair.table().columns[4:] == ("numba / auto", "sdpa / auto", "cpu/wall")
    made(naive=2.0).write(tmp_path)
    missed.write(tmp_path)
    text = quotes(tmp_path)
    assert "takes numba: the PyTorch forms were slower at all 3 sizes measured." in text
    assert (
        "For attention it chooses by size: within a tenth of the fastest at 0 of 3 sizes; not at attention forward" in text
    )


def test_a_quick_look_is_not_quoted(tmp_path: Path) -> None:
    made(naive=31.4, quick=True).write(tmp_path)
    assert "31 (" not in quotes(tmp_path)


def test_block_is_replaced_and_nothing_else() -> None:
    assert filled(f"before\n{BEGIN}\nold\n{END}\nafter\n", "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_page_without_one_block_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="needs one block"):
        filled(page, "new")


def test_foreign_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match=r"x\.json: not a benchmark"):
        read(path)


def test_readme_says_what_the_benchmarks_say() -> None:
    folder = ROOT / "benchmarks"
    assert {read(path).op for path in folder.glob("*.json")} == set(SETTINGS), "run `make bench`"
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert page == filled(page, quotes(folder)), "run `python -m hybridlab.measure.quotes`"


def test_pages_say_what_the_data_say() -> None:
    for path in (ROOT / "benchmarks").glob("*.json"):
        assert path.with_suffix(".md").read_text(encoding="utf-8") == read(path).markdown()
