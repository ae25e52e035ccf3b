"""What a benchmark found, as data: to tables, to JSON and back."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hybridlab.measure.machine import Machine
from hybridlab.measure.stopwatch import Spread
from hybridlab.measure.tables import Report, Table

FORMAT = 1
CHUNKED = "chunked"
FORMS = ("naive", "parallel", CHUNKED)
OTHERS = ("conv1d", "transformers")


@dataclass(frozen=True)
class Result:
    """One contender in one cell.

    Attributes:
        seconds: wall seconds a call.
        ratio: its time beside the judged kernel's, round by round; above 1 the kernel is faster.
        cpu_per_wall: cores it kept busy.
        rounds: how many rounds ran.
        repeats: calls a round.
        detail: such as "chunks of 16".
    """

    seconds: Spread
    ratio: Spread
    cpu_per_wall: float
    rounds: int
    repeats: int
    detail: str = ""


@dataclass(frozen=True)
class Cell:
    """One op in one mode at one length.

    Attributes:
        results: by contender's name; the judged kernel among them.
        skipped: why a contender did not run, by name.
        over_floor: the judged kernel's time beside the roofline floor.
        floor: about that floor: seconds, what bounds it, bytes, operations, measured bytes and operations a second.
    """

    mode: str
    tokens: int
    results: dict[str, Result]
    skipped: dict[str, str]
    over_floor: Spread
    floor: dict[str, Any]

    def faster_form(self) -> str:
        """The plain PyTorch form that beats the judged kernel, which `auto` takes; empty if none does."""
        ratios = {name: self.results[name].ratio.median for name in FORMS if name in self.results}
        best = min(ratios, key=lambda name: ratios[name], default="")
        return best if best and ratios[best] < 1 else ""


@dataclass(frozen=True, repr=False)
class Benchmark(Report):
    """All cells of one op on one machine.

    Attributes:
        op: the op.
        kernel: the judged kernel: "numba" on a CPU, "triton" on a GPU; it is what backend="auto" takes.
        sizes: in words.
        machine: where.
        quick: whether it was a short look, not to be quoted.
        cells: by mode and length.
    """

    op: str
    kernel: str
    sizes: str
    machine: Machine
    quick: bool
    cells: tuple[Cell, ...]

    def cell(self, mode: str, tokens: int) -> Cell | None:
        """The cell of one mode and length, if it was measured."""
        return next((cell for cell in self.cells if (cell.mode, cell.tokens) == (mode, tokens)), None)

    def table(self) -> Table:
        """One row a cell: the kernel's time and, beside it, everyone else's."""
        rivals = [
            name for name in (*FORMS, *OTHERS) if any(name in cell.results or name in cell.skipped for cell in self.cells)
        ]
        columns = ("mode", "T", f"{self.kernel} ms", "x floor", *(f"{name} / {self.kernel}" for name in rivals), "cpu/wall")
        rows = tuple(self._row(cell, rivals) for cell in self.cells)
        title = f"{self.op}, {self.sizes}: {self.machine}"
        return Table(title, columns, rows, frozenset(columns[1:]), notes=self._notes())

    def lost(self) -> list[str]:
        """The sizes at which a plain PyTorch form would have been faster than what `auto` takes, each with that form."""
        return [f"{cell.mode} T={cell.tokens} ({cell.faster_form()})" for cell in self.cells if cell.faster_form()]

    def choice(self) -> str:
        """What `auto` takes, and where a plain PyTorch form would have been faster."""
        lost = self.lost()
        taken, sizes = f"auto takes {self.kernel} for {self.op}", f"{len(self.cells)} sizes measured"
        if not lost:
            return f"{taken}: the PyTorch forms were slower at all {sizes}"
        return f"{taken}; a PyTorch form was faster at {len(lost)} of {sizes}: {', '.join(lost)}"

    def _row(self, cell: Cell, rivals: list[str]) -> tuple[str, ...]:
        kernel = cell.results[self.kernel]
        shown = (_ratio(cell, name) for name in rivals)
        milliseconds = f"{kernel.seconds.median * 1e3:.3g}"
        return (cell.mode, str(cell.tokens), milliseconds, str(cell.over_floor), *shown, f"{kernel.cpu_per_wall:.2f}")

    def _notes(self) -> tuple[str, ...]:
        skipped = {
            f"{name} left out at {cell.mode} T={cell.tokens}: {why}"
            for cell in self.cells
            for name, why in cell.skipped.items()
        }
        versions = ", ".join(f"{name} {text}" for name, text in self.machine.versions.items())
        return (
            "ratios: median (quartiles) over interleaved rounds; cpu/wall is the kernel's",
            self.choice(),
            *sorted(skipped),
            versions,
        )

    def markdown(self) -> str:
        """The table as a page."""
        table = self.table()
        notes = "\n".join(f"- {note}" for note in table.notes)
        return f"# {table.title}\n\n{table.markdown()}\n\n{notes}\n"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"format": FORMAT, **asdict(self)}

    def write(self, folder: Path) -> list[Path]:
        """Writes `<machine>_<threads>t_<op>.json` and `.md` into a folder that is made if need be; the two paths."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{self.machine.slug}_{self.op}"
        data, page = folder / f"{stem}.json", folder / f"{stem}.md"
        data.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
        page.write_text(self.markdown(), encoding="utf-8")
        return [data, page]


def _ratio(cell: Cell, name: str) -> str:
    if name not in cell.results:
        return "left out" if name in cell.skipped else ""
    result = cell.results[name]
    return f"{result.ratio}{', ' + result.detail if result.detail else ''}"


def read(path: Path) -> Benchmark:
    """A benchmark from its JSON.

    Raises:
        ValueError: if the file is not of this format.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ValueError(f"{path.name}: not a benchmark of format {FORMAT}")
    data["machine"] = Machine(**data["machine"])
    data["cells"] = tuple(_cell(cell) for cell in data["cells"])
    return Benchmark(**data)


def _cell(data: dict[str, Any]) -> Cell:
    results = {name: _result(result) for name, result in data["results"].items()}
    return Cell(**{**data, "results": results, "over_floor": Spread(**data["over_floor"])})


def _result(data: dict[str, Any]) -> Result:
    return Result(**{**data, "seconds": Spread(**data["seconds"]), "ratio": Spread(**data["ratio"])})
