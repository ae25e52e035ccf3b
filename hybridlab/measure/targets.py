"""The ratios this project set out to reach at T = 1024, and whether a benchmark reached them."""

from typing import NamedTuple

from hybridlab.measure.results import CHUNKED, Benchmark, Cell
from hybridlab.measure.stopwatch import Spread
from hybridlab.measure.tables import Table

TOKENS = 1024
FLOOR = "floor"


class Target(NamedTuple):
    """One wish: the kernel at least `bound` times as fast as a rival, or within `bound` times the floor.

    `threads` is what it is defined for; None is any number.
    """

    op: str
    mode: str
    rival: str
    bound: float
    threads: int | None = None

    def measured(self, cell: Cell) -> Spread | None:
        """The figure that is judged, if it was measured."""
        if self.rival == FLOOR:
            return cell.over_floor
        result = cell.results.get(self.rival)
        return result.ratio if result else None

    def reached(self, figure: Spread) -> bool:
        """The median decides."""
        return figure.median <= self.bound if self.rival == FLOOR else figure.median >= self.bound

    def __str__(self) -> str:
        wish = f"<= {self.bound:g} x the floor" if self.rival == FLOOR else f">= {self.bound:g} x {self.rival}"
        return f"{self.op} {self.mode} {wish}" + (f" on {self.threads} threads" if self.threads else "")


# Of the CPU's kernels: on a GPU the rivals are others.
TARGETS = (
    Target("wkv4", "forward", "transformers", 15, threads=2),
    Target("wkv4", "forward", FLOOR, 5),
    Target("wkv4", "forward+backward", "naive", 3),
    Target("wkv6", "forward", "naive", 5),
    Target("wkv6", "forward", FLOOR, 6),
    Target("wkv6", "forward+backward", "naive", 3),
    Target("linear_recurrence", "forward", FLOOR, 2.5),
    Target("linear_recurrence", "forward", "transformers", 5),
    Target("linear_recurrence", "forward+backward", "naive", 3),
    Target("rg_lru", "forward", FLOOR, 2.5),
    Target("rg_lru", "forward", "transformers", 5),
    Target("rg_lru", "forward+backward", "naive", 3),
    Target("short_conv", "forward+backward", "naive", 3),
    Target("selective_scan", "forward", "transformers", 7),
    Target("selective_scan", "forward", "naive", 2),
    Target("selective_scan", "forward+backward", "naive", 3),
    Target("ssd", "forward", "transformers", 3),
    Target("ssd", "forward", CHUNKED, 1),
    Target("ssd", "forward+backward", "naive", 3),
    Target("retention", "forward", CHUNKED, 1),
    # What `auto` chooses is within a tenth of the best of all.
    *(
        Target(op, mode, rival, 0.9)
        for op, rivals in (("attention", ("sdpa",)), ("attention_window", ("sdpa", CHUNKED)), ("long_conv", ("fft",)))
        for mode in ("forward", "forward+backward")
        for rival in ("numba", *rivals)
    ),
    Target("taylor_attention", "forward", CHUNKED, 2.5),
    Target("taylor_attention", "forward+backward", "naive", 3),
    *(Target(op, "forward", CHUNKED, 1) for op in ("delta_rule", "gated_delta_rule", "wkv7")),
    *(Target(op, "forward+backward", "naive", 3) for op in ("delta_rule", "gated_delta_rule", "wkv7")),
)


def judge(benchmark: Benchmark) -> Table:
    """A row for each target of the benchmark's op: reached, missed, or not measured and why."""
    targets = [target for target in TARGETS if target.op == benchmark.op and benchmark.machine.device == "cpu"]
    rows = tuple((str(target), *_verdict(target, benchmark)) for target in targets)
    failed = frozenset(i for i, row in enumerate(rows) if row[2] == "missed")
    return Table(f"targets at T={TOKENS}", ("target", "measured", "result"), rows, failed=failed)


def _verdict(target: Target, benchmark: Benchmark) -> tuple[str, str]:
    threads = benchmark.machine.threads
    if target.threads not in (None, threads):
        return "", f"not measured: this ran on {threads}"
    cell = benchmark.cell(target.mode, TOKENS)
    figure = target.measured(cell) if cell else None
    if figure is None:
        return "", "not measured here"
    return str(figure), "reached" if target.reached(figure) else "missed"
