"""Exercises from solutions: the author writes one notebook, and what the learner must write is taken out of it."""

import ast
import json
import textwrap
from typing import Any

from nbformat import NotebookNode, from_dict

from hybridlab.course.notebook import VARIES, course_data, normal

BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
KINDS = {"P": "predict", "V": "vary", "R": "repair", "T": "test", "D": "derive"}
TASK_KEYS = ("task", "kind", "points", "difficulty", "minutes", "hints")


def exercise(solution: NotebookNode) -> NotebookNode:
    """The exercise notebook of an executed solution: the same cells and ids, without the answers and the verdicts on them.

    Raises:
        ValueError: markers that do not pair, or a task without a check.
    """
    copy = from_dict(solution)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.source = without_answer(cell.source)
            # What an answer printed would be part of the answer, and "ok" under an empty cell would be a lie.
            if course_data(cell):
                cell.outputs = []
            # Under nbval a check itself raises: what a learner's last run has stored is not compared.
            if "check" in course_data(cell):
                cell.metadata["tags"] = [VARIES]
    return normal(copy)


def without_answer(source: str) -> str:
    """A cell's source with every solution block taken out.

    Raises:
        ValueError: a marker without its partner, or an empty block.
    """
    kept: list[str] = []
    block: list[str] | None = None
    for line in source.split("\n"):
        marker = line.strip()
        if marker == BEGIN and block is None:
            block = []
        elif marker == END and block:
            kept += _stub(block)
            block = None
        elif marker in (BEGIN, END):
            raise ValueError(f"{marker!r} without its partner, or an empty block, in:\n{source}")
        elif block is None:
            kept.append(line)
        else:
            block.append(line)
    if block is not None:
        raise ValueError(f"{BEGIN!r} without {END!r} in:\n{source}")
    return "\n".join(kept)


def _stub(block: list[str]) -> list[str]:
    """What stands in a block's place: inside a function an exception, at the left margin `name = ...`."""
    first = next((line for line in block if line.strip()), "")
    indent = first[: len(first) - len(first.lstrip())]
    if indent:
        return [f"{indent}raise NotImplementedError"]
    nodes = ast.walk(ast.parse("\n".join(block)))
    names = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    if not names:
        raise ValueError("a solution block at the left margin must assign the answer:\n" + "\n".join(block))
    return [f"{name} = ..." for name in dict.fromkeys(names)]


def tasks(solution: NotebookNode) -> dict[str, dict[str, Any]]:
    """What `check`, `hint` and `solution` know of each task of a solution notebook, the numbers left empty.

    Raises:
        ValueError: metadata that are incomplete, a task named twice, a task without exactly one check cell.
    """
    found: dict[str, dict[str, Any]] = {}
    for cell in solution.cells:
        data = course_data(cell)
        if "task" in data:
            _refuse_incomplete(data)
            if data["task"] in found:
                raise ValueError(f"task {data['task']}: there are two of that name")
            found[data["task"]] = {key: data[key] for key in TASK_KEYS[1:]} | {
                "solution": answer(cell.source),
                "numbers": {},
            }
    checked = [course_data(cell)["check"] for cell in solution.cells if "check" in course_data(cell)]
    if sorted(checked) != sorted(found):
        raise ValueError(f"every task has one check cell: tasks {sorted(found)}, checks {sorted(checked)}")
    return found


def _refuse_incomplete(data: dict[str, Any]) -> None:
    name = data["task"]
    if missing := [key for key in TASK_KEYS if key not in data]:
        raise ValueError(f"task {name}: its metadata lack {', '.join(missing)}")
    if data["kind"] not in KINDS:
        raise ValueError(f"task {name}: kind: expected one of {list(KINDS)}, got {data['kind']!r}")
    if len(data["hints"]) != 3 or not all(data["hints"]):
        raise ValueError(f"task {name}: expected three hints, got {data['hints']!r}")
    if data["difficulty"] not in (1, 2, 3):
        raise ValueError(f"task {name}: difficulty: expected 1, 2 or 3, got {data['difficulty']!r}")


def answer(source: str) -> str:
    """A solution's answer cell without the markers, as `solution` shows it."""
    return "\n".join(line for line in textwrap.dedent(source).split("\n") if line.strip() not in (BEGIN, END))


def data_text(found: dict[str, dict[str, Any]]) -> str:
    """The text of the file in which the tasks' data are stored."""
    return json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
