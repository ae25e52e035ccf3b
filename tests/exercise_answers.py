"""The exercises as the tests see them: wrong and right answers beside each solution, and what their checks say."""

import ast
import json
import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hybridlab.course.practice import _complaint, probes, task_data, verdicts
from hybridlab.course.probe import Probe, measure, numbers

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / "exercises").glob("*.ipynb"))


class Answers(NamedTuple):
    """Answers to the tasks of one exercise: task -> name -> source of the answer cell."""

    wrong: dict[str, dict[str, str]]
    right: dict[str, dict[str, str]]


@cache
def answers(exercise: str) -> Answers:
    """What stands in solutions/<exercise>_wrong.py."""
    given = runpy.run_path(str(ROOT / "solutions" / f"{exercise}_wrong.py"))
    return Answers(*({task: dict(named) for task, named in given[kind].items()} for kind in ("WRONG", "RIGHT")))


@cache
def checked(exercise: str) -> dict[str, str]:
    """Task -> what its check cell passes on, such as `reverse_scan` or `[A, B, C]`."""
    calls = [
        ast.parse("".join(cell["source"])).body[0].value
        for cell in _cells(exercise)
        if "check" in cell["metadata"].get("hybridlab", {})
    ]
    return {call.args[0].value: ast.unparse(call.args[1]) for call in calls}


def _cells(exercise: str) -> list[dict[str, Any]]:
    return json.loads((ROOT / "exercises" / f"{exercise}.ipynb").read_text(encoding="utf-8"))["cells"]


def statement(task: str) -> str:
    """The text of the cell before a task's answer cell."""
    (exercise,) = (name for name in NAMES if name.startswith(task[:2]))
    cells = json.loads((ROOT / "solutions" / f"{exercise}.ipynb").read_text(encoding="utf-8"))["cells"]
    at = next(i for i, cell in enumerate(cells) if cell["metadata"].get("hybridlab", {}).get("task") == task)
    return "".join(cells[at - 1]["source"])


def hints(task: str) -> list[str]:
    """The three hints of a task."""
    return task_data(task)["hints"]


def answer(exercise: str, task: str, source: str) -> Any:
    """What the answer cell of a task defines."""
    scope: dict[str, Any] = {}
    exec(source, scope)
    return eval(checked(exercise)[task], scope)


def solution(exercise: str, task: str) -> Any:
    """The author's answer, with what the exercise's cells before the first task define."""
    return answer(exercise, task, "\n".join([*_before_the_tasks(exercise), task_data(task)["solution"]]))


def _before_the_tasks(exercise: str) -> Iterator[str]:
    for cell in _cells(exercise):
        if "task" in cell["metadata"].get("hybridlab", {}):
            return
        if cell["cell_type"] == "code":
            yield "".join(cell["source"])


def complaints_with(exercise: str, task: str, mine: Any, seed: int) -> list[str]:
    """The names of the checks that an answer fails with inputs of another seed, as a grader would run them."""
    return [probe.name for probe in probes(task) if _differs(probe, mine, solution(exercise, task), seed)]


def _differs(probe: Probe, mine: Any, right: Any, seed: int) -> bool:
    expected = measure(probe, right, seed) if probe.expected is None else numbers(probe.expected)
    try:
        return bool(_complaint(probe, measure(probe, mine, seed), expected))
    except Exception:  # whatever an answer raises is a verdict on it
        return True


@cache
def complaints(exercise: str, task: str, source: str) -> list[str]:
    """The names of the checks that an answer fails."""
    return [verdict.name for verdict in verdicts(task, answer(exercise, task, source)) if verdict.complaint]
