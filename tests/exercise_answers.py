"""The exercises as the tests see them: wrong and right answers beside each solution, and what their checks say."""

import ast
import json
import runpy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hybridlab.course.practice import verdicts

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
    cells = json.loads((ROOT / "exercises" / f"{exercise}.ipynb").read_text(encoding="utf-8"))["cells"]
    calls = [
        ast.parse("".join(cell["source"])).body[0].value
        for cell in cells
        if "check" in cell["metadata"].get("hybridlab", {})
    ]
    return {call.args[0].value: ast.unparse(call.args[1]) for call in calls}


def answer(exercise: str, task: str, source: str) -> Any:
    """What the answer cell of a task defines."""
    scope: dict[str, Any] = {}
    exec(source, scope)
    return eval(checked(exercise)[task], scope)


@cache
def complaints(exercise: str, task: str, source: str) -> list[str]:
    """The names of the checks that an answer fails."""
    return [verdict.name for verdict in verdicts(task, answer(exercise, task, source)) if verdict.complaint]
