"""`python -m hybridlab.course build`: executes notebooks, puts them into normal form, generates the exercises.

If a script view lies beside a notebook (views.py), its cells are taken. A notebook is written only after all of it has run,
and each file whole or not at all: a failure or an interrupt leaves the old files.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from nbformat import NotebookNode

from hybridlab.course import practice
from hybridlab.course.execute import Execution, execute
from hybridlab.course.generate import data_text, exercise, tasks
from hybridlab.course.notebook import code_cells, course_data, dumps, normal, write
from hybridlab.course.views import drop_view, source_of

Progress = Callable[[int, int], None]


def build(path: Path, on_cell: Progress = lambda cell, cells: None) -> Execution:
    """Builds a chapter, or a solution and the exercise that comes of it.

    Args:
        path: the notebook; one that lies in a folder `solutions` has its exercise written to `exercises` beside that folder.
        on_cell: called before each cell with its number and how many there are.

    Returns:
        how it ran: the built notebook, seconds, bytes.

    Raises:
        CellError: a cell failed.
        ValueError: the notebook or a task in it is badly formed, or the solution fails its own checks.
    """
    if path.parent.name == "solutions":
        return _build_solution(path, on_cell)
    run = execute(source_of(path), path.parent, on_cell=on_cell)
    built = run._replace(notebook=normal(run.notebook))
    write(path, dumps(built.notebook))
    drop_view(path)
    return built


def _build_solution(path: Path, on_cell: Progress) -> Execution:
    source = source_of(path)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / f"{path.stem}.json"
        record.write_text(data_text(tasks(source)), encoding="utf-8")
        run = execute(source, path.parent, {practice.RECORD: folder}, on_cell)
        found = json.loads(record.read_text(encoding="utf-8"))
    built = run._replace(notebook=normal(run.notebook))
    _refuse_wrong(built.notebook)
    # Made in full before the first file is written, so that the three belong together.
    texts = {
        path: dumps(built.notebook),
        exercise_path(path): dumps(exercise(built.notebook)),
        data_path(path): data_text(found),
    }
    for target, text in texts.items():
        write(target, text)
    drop_view(path)
    return built


def exercise_path(solution: Path) -> Path:
    """Where a solution's exercise is: exercises/ beside solutions/."""
    return solution.parent.parent / "exercises" / solution.name


def data_path(solution: Path) -> Path:
    """Where a solution's data are: in the package, whose folder lies beside solutions/."""
    return solution.parent.parent / "hybridlab" / "course" / "exercises" / f"{solution.stem}.json"


def _refuse_wrong(solution: NotebookNode) -> None:
    for cell in code_cells(solution):
        if "check" in course_data(cell):
            said = "".join(output.get("text", "") for output in cell.outputs)
            if not said or any(not line.endswith(": ok") for line in said.rstrip().split("\n")[1:]):
                raise ValueError(f"cell {cell.id}: the solution fails its own checks:\n{said or '(no output)'}")
