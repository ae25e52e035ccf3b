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
FORMS = ("naive", "parallel", "fft", "sdpa", CHUNKED)
KERNELS = ("numba", "triton")
# What chooses among several is right if it is within a tenth of the best: beside its own choice it takes a little longer.
AUTO, CLOSE = "auto", 1 / 1.1
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
        results: by contender's name; the judged one among them.
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

    def faster(self) -> str:
        """What `auto` should have taken: the form that beats the kernel it takes, or what beats its choice by a tenth."""
        rivals, bound = ((*FORMS, *KERNELS), CLOSE) if AUTO in self.results else (FORMS, 1.0)
        ratios = {name: self.results[name].ratio.median for name in rivals if name in self.results}
        best = min(ratios, key=lambda name: ratios[name], default="")
        return best if best and ratios[best] < bound else ""


@dataclass(frozen=True, repr=False)
class Benchmark(Report):
    """All cells of one op on one machine.

    Attributes:
        op: the op.
        kernel: who is judged: "numba" on a CPU, "triton" on a GPU, which is what backend="auto" takes; or "auto", where it
            chooses by size.
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
            name
            for name in (*KERNELS, *FORMS, *OTHERS)
            if name != self.kernel and any(name in cell.results or name in cell.skipped for cell in self.cells)
        ]
        columns = ("mode", "T", f"{self.kernel} ms", "x floor", *(f"{name} / {self.kernel}" for name in rivals), "cpu/wall")
        rows = tuple(self._row(cell, rivals) for cell in self.cells)
        title = f"{self.op}, {self.sizes}: {self.machine}"
        return Table(title, columns, rows, frozenset(columns[1:]), notes=self._notes())

    def lost(self) -> list[str]:
        """The sizes at which `auto` takes what is slower than something else, each with that."""
        return [f"{cell.mode} T={cell.tokens} ({cell.faster()})" for cell in self.cells if cell.faster()]

    def choice(self) -> str:
        """What `auto` takes, and where something else would have been faster."""
        lost = self.lost()
        if self.kernel == AUTO:
            sizes = len(self.cells)
            within = f"auto chooses by size: within a tenth of the fastest at {sizes - len(lost)} of {sizes}"
            return f"{within}; not at {', '.join(lost)}" if lost else within
        taken, measured = f"auto takes {self.kernel} for {self.op}", f"{len(self.cells)} sizes measured"
        if not lost:
            return f"{taken}: the PyTorch forms were slower at all {measured}"
        return f"{taken}; a PyTorch form was faster at {len(lost)} of {measured}: {', '.join(lost)}"

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
