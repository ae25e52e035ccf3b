"""The verbs of an exercise: `check` an answer, ask for a `hint`, see the `solution`.

Hints, solutions and the stored numbers of right answers come from `hybridlab/course/exercises/NN_name.json`, which the build
writes from `solutions/NN_name.ipynb`: so the verbs work in any copy of an exercise, wherever it lies.
"""

import copy
import json
import math
import os
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from hybridlab.course.probe import Numbers, Probe, measure, numbers

DATA = Path(__file__).parent / "exercises"
RECORD = "HYBRIDLAB_RECORD"  # set by the build to a folder that stands for DATA and takes the solution's numbers
# How pytest names the cell that it is at, in the environment of a kernel that nbval starts.
NBVAL = ".ipynb::"
WHOLE = 1e15  # below it, a float that is a whole number is exactly that count

_hints_given: dict[str, int] = {}


class Verdict(NamedTuple):
    """One probe's word on an answer: `complaint` is empty if it is right."""

    name: str
    complaint: str

    def __str__(self) -> str:
        return f"{self.name}: no - {self.complaint}" if self.complaint else f"{self.name}: ok"


def check(task: str, answer: Any) -> None:
    """Checks an answer and prints one line a check, with the first number that is wrong.

    Args:
        task: the task's id, "NN-word".
        answer: what the task asks for: a function, or numbers.

    Raises:
        ValueError: there is no such task.
        AssertionError: under `pytest --nbval`, if the answer is not right. Saving a notebook stores its verdicts, so that
            comparing with what is stored would let a wrong answer pass.
    """
    __tracebackhide__ = True  # the learner's own cell is what matters
    if RECORD in os.environ:
        _record(task, answer)
    found = verdicts(task, answer)
    said = _said(task, found)
    print(said)
    if NBVAL in os.environ.get("PYTEST_CURRENT_TEST", "") and not _all_right(found):
        raise AssertionError(said)


def _all_right(found: list[Verdict] | None) -> bool:
    return found is not None and not any(verdict.complaint for verdict in found)


def _said(task: str, found: list[Verdict] | None) -> str:
    if found is None:
        return f"{task}: not answered yet"
    right = sum(not verdict.complaint for verdict in found)
    stuck = [] if _all_right(found) else [f'  stuck? hint("{task}")']
    return "\n".join([f"{task}: {right} of {len(found)}", *(f"  {verdict}" for verdict in found), *stuck])


def hint(task: str) -> None:
    """Prints the next of a task's three hints; after the third it starts again.

    Raises:
        ValueError: there is no such task.
    """
    hints = task_data(task)["hints"]
    given = _hints_given.get(task, 0) % len(hints)
    _hints_given[task] = given + 1
    print(f"hint {given + 1} of {len(hints)}: {hints[given]}")


def solution(task: str) -> None:
    """Prints a right answer to a task.

    Raises:
        ValueError: there is no such task.
    """
    print(task_data(task)["solution"])


def verdicts(task: str, answer: Any) -> list[Verdict] | None:
    """What each of the task's probes says of an answer; None if it is not answered yet."""
    stored = task_data(task)["numbers"]
    answer = answer if callable(answer) else copy.deepcopy(answer)
    if _unanswered(answer):
        return None
    try:
        return [_verdict(probe, answer, stored) for probe in probes(task)]
    except NotImplementedError:
        return None


def probes(task: str) -> list[Probe]:
    """The task's probes: those of `hybridlab.course.probes_<name>`, <name> being the chapter's.

    Raises:
        ValueError: there is no such task.
    """
    name = chapter(task).partition("_")[2]
    listed = import_module(f"hybridlab.course.probes_{name}").PROBES
    if task not in listed:
        raise ValueError(f"task: expected one of {sorted(listed)}, got {task!r}")
    return listed[task]


def chapter(task: str) -> str:
    """The chapter of a task: "03-limit" -> "03_rwkv".

    Raises:
        ValueError: no chapter has that number.
    """
    number = task.partition("-")[0]
    found = sorted(path.stem for path in _folder().glob("*.json") if path.stem.partition("_")[0] == number)
    if not found:
        raise ValueError(f"task: no exercise begins with {number!r}, got {task!r}")
    return found[0]


def task_data(task: str) -> dict[str, Any]:
    """What the build stored of a task: kind, points, hints, solution, numbers.

    Raises:
        ValueError: there is no such task.
    """
    tasks = json.loads(_file(task).read_text(encoding="utf-8"))
    if task not in tasks:
        raise ValueError(f"task: expected one of {sorted(tasks)}, got {task!r}")
    return tasks[task]


def _folder() -> Path:
    return Path(os.environ.get(RECORD, DATA))


def _file(task: str) -> Path:
    return _folder() / f"{chapter(task)}.json"


def _unanswered(answer: Any) -> bool:
    parts = answer if isinstance(answer, list | tuple) else [answer]
    return any(part is ... for part in parts)


def _verdict(probe: Probe, answer: Any, stored: dict[str, Any]) -> Verdict:
    try:
        complaint = _complaint(probe, measure(probe, answer), _expected(probe, stored))
    except NotImplementedError:
        raise
    except Exception as error:
        # Whatever a learner's code raises is a verdict on it, not an end of the checks.
        complaint = _blame(error)
    return Verdict(probe.name, complaint + _because(probe) if complaint else "")


def _because(probe: Probe) -> str:
    return f" ({probe.because})" if probe.because else ""


def _expected(probe: Probe, stored: dict[str, Any]) -> Numbers:
    if probe.expected is not None:
        return numbers(probe.expected)
    values, shape = stored[probe.name]
    return Numbers([float(value) for value in values], [], None if shape is None else tuple(shape))


def _complaint(probe: Probe, mine: Numbers, right: Numbers) -> str:
    """The first number that is wrong, or nothing."""
    if not mine.values:
        return "gave no numbers"
    if right.shape == () and probe.expected is not None:
        # One number expected of a probe that gives many: each of them must be it.
        right = Numbers(right.values * len(mine.values), mine.labels, mine.shape)
    if mine.shape != right.shape or len(mine.values) != len(right.values):
        return f"expected shape {right.shape}, got {mine.shape}"
    for value, expected, label in zip(mine.values, right.values, mine.labels, strict=True):
        if not abs(value - expected) <= probe.tolerance * max(1.0, abs(expected)) and value != expected:
            return f"{'at ' + label + ' ' if label else ''}{_apart(value, expected)}"
    return ""


def _apart(value: float, expected: float) -> str:
    """Both numbers, with as many digits as it takes to see the difference; counts with all they have."""
    if value.is_integer() and expected.is_integer() and max(abs(value), abs(expected)) < WHOLE:
        return f"got {value:.0f}, expected {expected:.0f}"
    texts = ((f"{value:.{digits}g}", f"{expected:.{digits}g}") for digits in range(6, 18))
    got, wanted = next((pair for pair in texts if pair[0] != pair[1]), (str(value), str(expected)))
    return f"got {got}, expected {wanted}"


def _blame(error: Exception) -> str:
    """An exception in one line, with the line of the learner's own code that it passed through last."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "ipykernel" in f.filename or f.filename.startswith("<")
    ]
    place = f' in "{frames[-1].line}"' if frames and frames[-1].line else ""
    message = str(error).strip().partition("\n")[0]
    if isinstance(error, ValueError) and message and not frames:
        return message  # a check's own complaint of what it was given
    return f"{type(error).__name__}{place}: {message}" if message else f"{type(error).__name__}{place}"


def _record(task: str, answer: Any) -> None:
    """Stores the solution's numbers for the probes that do not say what they expect."""
    path = _file(task)
    tasks = json.loads(path.read_text(encoding="utf-8"))
    tasks[task]["numbers"] = {p.name: _rounded(measure(p, answer)) for p in probes(task) if p.expected is None}
    path.write_text(json.dumps(tasks), encoding="utf-8")


def _rounded(seen: Numbers) -> list[Any]:
    return [[_short(value) for value in seen.values], None if seen.shape is None else list(seen.shape)]


def _short(value: float) -> float | str:
    # Nine digits: far finer than any tolerance, coarser than what differs between processors. JSON has no inf.
    return float(f"{round(value, 9):.9g}") + 0.0 if math.isfinite(value) else str(value)
