"""What README says of speed: written from benchmarks/*.json, never typed.

python -m hybridlab.measure.quotes

A test holds README's block equal to what this writes.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from hybridlab.measure.problems import SETTINGS
from hybridlab.measure.results import AUTO, FORMS, OTHERS, Benchmark, Cell, read
from hybridlab.measure.tables import Table
from hybridlab.measure.targets import TOKENS

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "<!-- benchmark: written by `python -m hybridlab.measure.quotes`, held to benchmarks/ by a test -->"
END = "<!-- benchmark end -->"
COLUMNS = ("float32", "T", "time", "against the floor", "naive loop", "best PyTorch form", "`transformers` or `conv1d`")
MODES = {"forward": TOKENS, "forward+backward": TOKENS, "decode": 1}
HOW = (
    "Median (quartiles) of ratios taken round by round, all contenders interleaved in one process; above 1 the kernel is "
    "faster. The floor is each byte moved once, or each operation done once, at the speed this machine showed in the same "
    "rounds. `hybridlab bench` measures yours; the whole tables are in [benchmarks/](benchmarks)."
)


def quotes(folder: Path) -> str:
    """The text of README's block: one table a machine, the choice of `auto`, and how it was measured."""
    found = [benchmark for benchmark in map(read, sorted(folder.glob("*.json"))) if not benchmark.quick]
    machines: dict[str, list[Benchmark]] = {}
    for benchmark in sorted(found, key=_place):
        machines.setdefault(str(benchmark.machine), []).append(benchmark)
    sections = [_section(machine, benchmarks) for machine, benchmarks in machines.items()]
    return "\n\n".join([*sections, HOW])


def _place(benchmark: Benchmark) -> int:
    return list(SETTINGS).index(benchmark.op)


def _section(machine: str, benchmarks: list[Benchmark]) -> str:
    versions = ", ".join(f"{name} {text}" for name, text in benchmarks[0].machine.versions.items())
    table = Table("", COLUMNS, tuple(_rows(benchmarks)), frozenset(COLUMNS[1:])).markdown()
    return f"{machine} ({versions}):\n\n{table}\n\n{_choice(benchmarks)}"


def _rows(benchmarks: list[Benchmark]) -> Iterator[tuple[str, ...]]:
    for benchmark in benchmarks:
        for mode, tokens in MODES.items():
            cell = benchmark.cell(mode, tokens)
            if cell:
                yield _row(benchmark, cell)


def _row(benchmark: Benchmark, cell: Cell) -> tuple[str, ...]:
    kernel = cell.results[benchmark.kernel]
    name = f"{benchmark.op} {cell.mode}, {benchmark.kernel}"
    ratios = (_least(cell, rivals) for rivals in (FORMS[:1], FORMS[1:], OTHERS))
    return (name, str(cell.tokens), f"{kernel.seconds.median * 1e3:.2g} ms", str(cell.over_floor), *ratios)


def _least(cell: Cell, rivals: tuple[str, ...]) -> str:
    """The fastest of some rivals; empty if none took part."""
    ratios = [cell.results[name].ratio for name in rivals if name in cell.results]
    return str(min(ratios, key=lambda ratio: ratio.median)) if ratios else ""


def _choice(benchmarks: list[Benchmark]) -> str:
    """What `auto` takes on one machine, and all the sizes at which that was the wrong choice."""
    fixed = [benchmark for benchmark in benchmarks if benchmark.kernel != AUTO]
    choosing = [benchmark for benchmark in benchmarks if benchmark.kernel == AUTO]
    return " ".join([*([_taken(fixed)] if fixed else []), *([_chosen(choosing)] if choosing else [])])


def _taken(benchmarks: list[Benchmark]) -> str:
    lost, sizes = _lost(benchmarks)
    taken = f'`backend="auto"` takes {benchmarks[0].kernel}'
    if not lost:
        return f"{taken}: the PyTorch forms were slower at all {sizes} sizes measured."
    return f"{taken}; a PyTorch form was faster at {len(lost)} of {sizes} sizes measured: {', '.join(lost)}."


def _chosen(benchmarks: list[Benchmark]) -> str:
    lost, sizes = _lost(benchmarks)
    names = ", ".join(benchmark.op for benchmark in benchmarks)
    within = f"For {names} it chooses by size: within a tenth of the fastest at {sizes - len(lost)} of {sizes} sizes"
    return f"{within}; not at {', '.join(lost)}." if lost else f"{within}."


def _lost(benchmarks: list[Benchmark]) -> tuple[list[str], int]:
    lost = [f"{benchmark.op} {size}" for benchmark in benchmarks for size in benchmark.lost()]
    return lost, sum(len(benchmark.cells) for benchmark in benchmarks)


def filled(page: str, text: str) -> str:
    """A page with its block replaced.

    Raises:
        ValueError: if the page has no such block.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(END) < page.index(BEGIN):
        raise ValueError(f"the page needs one block between {BEGIN!r} and {END!r}")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Rewrites README's block; the exit status."""
    page = ROOT / "README.md"
    try:
        page.write_text(filled(page.read_text(encoding="utf-8"), quotes(ROOT / "benchmarks")), encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"quotes: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
