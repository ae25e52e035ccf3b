"""`benchmark`: a kernel against its rivals and against the floor of the machine, interleaved in one process."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hybridlab.measure.contenders import Contender, contenders, judged, reason_to_skip, runner
from hybridlab.measure.machine import limited_threads, this_machine
from hybridlab.measure.problems import MODES, SETTINGS, Problem, problem
from hybridlab.measure.results import CHUNKED, Benchmark, Cell, Result
from hybridlab.measure.roofline import floor, probes
from hybridlab.measure.stopwatch import Spread, Times, interleave, timed

LENGTHS = (128, 256, 512, 1024, 2048, 4096)
QUICK_LENGTHS = (128, 1024)
# Contenders that compute something else are no rivals: the largest difference beside the largest entry.
TOLERANCE = 1e-3
LEAST_ROUNDS, MOST_ROUNDS = 5, 60
# In the search for the best chunk size a call gets two more tries if it took neither this many seconds nor this many times
# the best so far: short first calls are mostly warm-up, long ones are what they are.
LONG, HOPELESS = 0.1, 4

Runners = dict[str, Callable[[], dict[str, Tensor]]]


def benchmark(
    op: str,
    *,
    modes: Sequence[str] = MODES,
    lengths: Sequence[int] | None = None,
    quick: bool = False,
    seconds: float = 3.0,
    threads: int | None = None,
    device: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Benchmark:
    """Times an op's kernel, its PyTorch forms and others' code on the same tensors, each contender once a round.

    Contenders must agree with the kernel before they are timed. Ratios are taken within a round; what is reported is their
    median and quartiles. The floor is max(bytes / bandwidth, operations / peak), measured in the same rounds.

    Args:
        op: an op with a kernel, such as "wkv6"; its sizes are those of SETTINGS in hybridlab.measure.problems.
        modes: among "forward", "forward+backward" and "decode" (one token after a state).
        lengths: tokens of the first two modes; None is 128 to 4096.
        quick: two lengths and few rounds, for a look.
        seconds: time for the rounds of one cell; slow contenders take longer.
        threads: of PyTorch and Numba alike; None is what they have.
        device: "cpu" or "cuda"; None is the GPU where there is one.
        progress: called with a line before each cell.

    Returns:
        a report that shows as a table and writes itself as JSON and Markdown.

    Raises:
        ValueError: unknown op or mode, a length below 1, a number of threads or a device that is not here.
        RuntimeError: a contender that disagrees with the kernel.

    Chapter 03 reads the table; chapter 13 explains it.
    """
    lengths = tuple(lengths or (QUICK_LENGTHS if quick else LENGTHS))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _check(op, modes, lengths, device)
    cells = []
    with limited_threads(threads):
        for mode in modes:
            for tokens in (1,) if mode == "decode" else lengths:
                if progress:
                    progress(f"{op} {mode} T={tokens}")
                cells.append(measure_cell(problem(op, mode, tokens, device), device, seconds / (4 if quick else 1)))
        return Benchmark(op, judged(op, device), SETTINGS[op].sizes, this_machine(device), quick, tuple(cells))


def cells_to_measure(quick: bool) -> int:
    """How many cells a benchmark of one op has, for a progress bar."""
    return 2 * len(QUICK_LENGTHS if quick else LENGTHS) + 1


def _check(op: str, modes: Sequence[str], lengths: Sequence[int], device: str) -> None:
    if op not in SETTINGS:
        raise ValueError(f"benchmark: unknown op {op!r}; choose {', '.join(SETTINGS)}")
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"benchmark: unknown mode {mode!r}; choose {', '.join(MODES)}")
    if min(lengths) < 1:
        raise ValueError(f"benchmark: lengths must be at least 1, got {min(lengths)}")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"benchmark: device {device!r} is not on this machine")


def measure_cell(given: Problem, device: str, seconds: float) -> Cell:
    """All contenders of one problem, checked, then timed in interleaved rounds together with the machine itself."""
    kernel = judged(given.op, device)
    runners, details, skipped = _entered(given, device)
    _check_agreement(runners, kernel)
    times = interleave({**runners, **probes(device)}, seconds, LEAST_ROUNDS, MOST_ROUNDS)
    results = {name: _result(times[name], times[kernel], details[name]) for name in runners}
    ground = floor(given.work, times)
    about = {"seconds": Spread.of(ground.seconds).median, "bound": ground.bound, **ground.work._asdict()}
    about |= {"bytes_per_second": ground.bytes_per_second, "operations_per_second": ground.operations_per_second}
    return Cell(given.mode, given.tokens, results, skipped, ground.under(times[kernel]), about)


def _entered(given: Problem, device: str) -> tuple[Runners, dict[str, str], dict[str, str]]:
    """Who takes part, what to know of each, and why others do not; of the chunked forms only the fastest."""
    runners: Runners = {}
    details: dict[str, str] = {}
    skipped: dict[str, str] = {}
    forms = []
    for contender in contenders(given, device):
        reason = reason_to_skip(contender.name, given)
        if reason:
            skipped[contender.name] = reason
        elif contender.name == CHUNKED:
            forms.append(contender)
        else:
            runners[contender.name], details[contender.name] = runner(contender, given), contender.detail
    if forms:
        best = _fastest(forms, given)
        runners[CHUNKED], details[CHUNKED] = runner(best, given), best.detail
    return runners, details, skipped


def _fastest(forms: list[Contender], given: Problem) -> Contender:
    """The form with the shortest time."""
    best, shortest = forms[0], math.inf
    for form in forms:
        run = runner(form, given)
        time = timed(run)[0]
        if time < min(LONG, HOPELESS * shortest):
            time = min(time, *(timed(run)[0] for _ in range(2)))
        if time < shortest:
            best, shortest = form, time
    return best


def _check_agreement(runners: Runners, kernel: str) -> None:
    """Runs everyone once, which also compiles, and compares results with the kernel's."""
    truth = runners[kernel]()
    for name, run in runners.items():
        for what, got in run().items():
            error = ((got - truth[what]).abs().max() / truth[what].abs().max()).item()
            if not error <= TOLERANCE:
                raise RuntimeError(f"benchmark: {what} of {name} differs from {kernel}'s by {error:.1e}; nothing was timed")


def _result(times: Times, kernel: Times, detail: str) -> Result:
    return Result(times.seconds, times.over(kernel), times.cpu_per_wall, len(times.wall), times.repeats, detail)
