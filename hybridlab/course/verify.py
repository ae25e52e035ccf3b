"""`python -m hybridlab.course check`: does every notebook still print what is stored in it?

Each notebook is executed once, by nbval, which compares stored and new text (pictures are not compared, cells tagged
`nbval-ignore-output` neither). What only needs reading is checked without running: the normal form, the limits, and that
exercises and their data are those that the solutions give.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat import NotebookNode

from hybridlab.course.build import data_path, exercise_path
from hybridlab.course.execute import CELL_SECONDS, ENVIRONMENT, UNSET
from hybridlab.course.generate import data_text, exercise, tasks
from hybridlab.course.notebook import code_cells, course_data, dumps, normal, read, shown, tags
from hybridlab.course.recorder import Recorder, Run
from hybridlab.course.views import view_path

MAX_CELLS, MAX_LINES = 80, 10
SECONDS, BYTES = 60, 2**30  # what a chapter may take on two quiet cores
SLACK = 3  # times that: a shared machine is slower, but not without bound


def verify(paths: list[Path]) -> int:
    """Checks notebooks, prints what each took and what is wrong; the exit status.

    Args:
        paths: chapters and solutions; a solution's exercise is checked with it.
    """
    problems = {path: list(_reading(path)) for path in paths}
    exercises = [exercise_path(path) for path in paths if _is_solution(path) and exercise_path(path).exists()]
    for path, run in _running([*paths, *exercises]).items():
        problems.setdefault(path, []).extend(_ran_badly(run, _expected_cells(path)))
        print(f"{shown(path):40}{run.seconds:8.1f} s{run.peak_bytes / 2**20:10,.0f} MiB")
    count = 0
    for path, found in problems.items():
        for problem in found:
            count += 1
            print(f"{shown(path)}: {problem}")
    print(f"{len(problems)} notebooks, {count} problems" if count else f"{len(problems)} notebooks, all as stored")
    return 1 if count else 0


def _is_solution(path: Path) -> bool:
    return path.parent.name == "solutions"


def _reading(path: Path) -> Iterator[str]:
    """What is wrong with a notebook that shows without running it."""
    try:
        notebook = read(path)
    except (OSError, ValueError) as error:
        yield str(error)
        return
    if view_path(path).exists():
        yield f"{view_path(path).name} holds edits that are not built: build, or delete it"
    if path.read_text(encoding="utf-8") != dumps(normal(notebook)):
        yield "not in normal form: build it"
    yield from _unsafe(notebook)
    if path.parent.name == "chapters":
        yield from _too_long(notebook)
    if _is_solution(path):
        yield from _stale(path, notebook)


def _too_long(notebook: NotebookNode) -> Iterator[str]:
    if len(notebook.cells) > MAX_CELLS:
        yield f"{len(notebook.cells)} cells, at most {MAX_CELLS}"
    for cell in code_cells(notebook):
        lines = sum(bool(line.strip()) and not line.strip().startswith("#") for line in cell.source.split("\n"))
        # A guess is text, folded away.
        if lines > MAX_LINES and "hide-input" not in tags(cell):
            yield f"cell {cell.id}: {lines} lines of code, at most {MAX_LINES}"


def _unsafe(notebook: NotebookNode) -> Iterator[str]:
    """Cells that nbval would pass without comparing."""
    for cell in code_cells(notebook):
        if "check" in course_data(cell) and not cell.outputs:
            yield f"cell {cell.id}: a check without a stored verdict cannot fail"
        if "nbval-skip" in tags(cell) or "# NBVAL_" in cell.source:
            yield f"cell {cell.id}: skipped, or marked by a comment: use the tags that the authoring guide names"
        if cell.source.rstrip().endswith(";"):
            # nbval runs cells without history, and IPython looks there for the semicolon.
            yield f"cell {cell.id}: a closing semicolon silences nothing under nbval: end with plt.show(), or assign"
        if any(output.get("name") == "stderr" for output in cell.outputs):
            yield f"cell {cell.id}: writes to stderr"


def _stale(path: Path, solution: NotebookNode) -> Iterator[str]:
    """Generated files that differ from what the solution gives. The stored numbers are compared when its checks run."""
    try:
        found, made = tasks(solution), dumps(exercise(solution))
    except ValueError as error:
        yield str(error)
        return
    if _text(exercise_path(path)) != made:
        yield f"{shown(exercise_path(path))} is not what this solution gives: build it"
    stored = _text(data_path(path))
    if _without_numbers(stored) != _without_numbers(data_text(found)):
        yield f"{shown(data_path(path))} is not what this solution gives: build it"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else "{}"


def _without_numbers(text: str) -> dict:
    return {task: {**data, "numbers": None} for task, data in json.loads(text).items()}


def _running(paths: list[Path]) -> dict[Path, Run]:
    """Executes each notebook once, under nbval; what happened in each."""
    recorder = Recorder()
    kept = dict(os.environ)
    for name in UNSET:
        os.environ.pop(name, None)
    # Not the build's hash seed: an output that hangs on the order of a set must show.
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name != "PYTHONHASHSEED"})
    start = time.monotonic()
    try:
        status = pytest.main([*_arguments(), *map(str, paths)], plugins=[recorder])
    finally:
        os.environ.clear()
        os.environ.update(kept)
    if status == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise ValueError(f"pytest --nbval ended with {status!r} after {time.monotonic() - start:.0f} s")
    return {path: recorder.runs.get(path, Run()) for path in paths}


def _arguments() -> list[str]:
    # No configuration file: the project's own options are for its tests.
    return [
        "--nbval",
        "--nbval-current-env",
        f"--nbval-cell-timeout={CELL_SECONDS}",
        "-q",
        "--no-header",
        # nbval looks at this option alone, not at the terminal.
        f"--color={'yes' if sys.stdout.isatty() else 'no'}",
        "-Wignore::pytest.PytestAssertRewriteWarning",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
    ]


def _expected_cells(path: Path) -> list[str]:
    try:
        return [cell.id for cell in code_cells(read(path))]
    except (OSError, ValueError):
        return []


def _ran_badly(run: Run, cells: list[str]) -> Iterator[str]:
    for cell in cells:
        outcome = run.outcomes.get(cell, "did not run")
        if outcome != "passed":
            yield f"cell {cell}: {outcome}"
    if run.seconds > SLACK * SECONDS:
        yield f"took {run.seconds:.0f} s: the allowance is {SECONDS} s, the limit {SLACK} times that"
    if run.peak_bytes > SLACK * BYTES:
        yield f"held {run.peak_bytes / 2**30:.1f} GiB: the allowance is 1 GiB, the limit {SLACK} times that"
