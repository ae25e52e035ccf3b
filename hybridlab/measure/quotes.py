"""What README says of speed: written from benchmarks/*.json, never typed.

python -m hybridlab.measure.quotes

A test holds README's block equal to what this writes.
"""

import sys
from pathlib import Path

from hybridlab.measure.results import CHUNKED, Benchmark, Cell, read
from hybridlab.measure.tables import Table
from hybridlab.measure.targets import TOKENS

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "<!-- benchmark: written by `python -m hybridlab.measure.quotes`, held to benchmarks/ by a test -->"
END = "<!-- benchmark end -->"
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
    for benchmark in found:
        machines.setdefault(str(benchmark.machine), []).append(benchmark)
    sections = [_section(machine, benchmarks) for machine, benchmarks in machines.items()]
    return "\n\n".join([*sections, HOW])


def _section(machine: str, benchmarks: list[Benchmark]) -> str:
    versions = ", ".join(f"{name} {text}" for name, text in benchmarks[0].machine.versions.items())
    rivals = ("naive", CHUNKED, "transformers")
    columns = ("float32", "T", "time", "against the floor", "naive loop", "best chunked form", "`transformers`")
    rows = tuple(_row(benchmark, cell, rivals) for benchmark in benchmarks for cell in _quoted(benchmark))
    table = Table("", columns, rows, frozenset(columns[1:])).markdown()
    choices = ". ".join(benchmark.choice().replace("auto", '`backend="auto"`', 1) for benchmark in benchmarks)
    return f"{machine} ({versions}):\n\n{table}\n\n{choices}."


def _quoted(benchmark: Benchmark) -> list[Cell]:
    cells = (benchmark.cell(mode, tokens) for mode, tokens in MODES.items())
    return [cell for cell in cells if cell]


def _row(benchmark: Benchmark, cell: Cell, rivals: tuple[str, ...]) -> tuple[str, ...]:
    kernel = cell.results[benchmark.kernel]
    ratios = (f"{cell.results[name].ratio}" if name in cell.results else "" for name in rivals)
    name = f"{benchmark.op} {cell.mode}, {benchmark.kernel}"
    return (name, str(cell.tokens), f"{kernel.seconds.median * 1e3:.2g} ms", str(cell.over_floor), *ratios)


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
