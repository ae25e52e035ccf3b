"""Every exercise: every wrong answer is rejected, every right one accepted, and what ships is unanswered."""

import re
import subprocess
import sys
from pathlib import Path

import exercise_answers as exercises
import nbformat
import pytest

from hybridlab.course.practice import probes


def cases(kind):
    return [
        pytest.param(exercise, task, source, id=f"{task}-{name}")
        for exercise in exercises.NAMES
        for task, named in getattr(exercises.answers(exercise), kind).items()
        for name, source in named.items()
    ]


@pytest.mark.parametrize(("exercise", "task", "source"), cases("wrong"))
def test_a_wrong_answer_is_rejected(exercise, task, source):
    assert exercises.complaints(exercise, task, source)


@pytest.mark.parametrize(("exercise", "task", "source"), cases("right"))
def test_a_right_answer_written_differently_is_accepted(exercise, task, source):
    assert exercises.complaints(exercise, task, source) == []


@pytest.mark.parametrize("exercise", exercises.NAMES)
def test_there_are_enough_of_both(exercise):
    wrong, right = exercises.answers(exercise)
    assert set(wrong) == set(right) == set(exercises.checked(exercise))
    assert len(wrong) == 5
    assert all(probes(task) for task in wrong)
    assert all(len(named) >= 5 for named in wrong.values())
    assert all(len(named) >= 2 for named in right.values())


@pytest.mark.parametrize("exercise", exercises.NAMES)
def test_every_check_is_failed_by_a_wrong_answer(exercise):
    for task, named in exercises.answers(exercise).wrong.items():
        failed = {name for source in named.values() for name in exercises.complaints(exercise, task, source)}
        assert failed == {probe.name for probe in probes(task)}


TASKS = [(exercise, task) for exercise in exercises.NAMES for task in exercises.checked(exercise)]


@pytest.mark.minutes
@pytest.mark.parametrize(("exercise", "task"), TASKS)
def test_another_seed_tells_the_same_answers_apart(exercise, task):
    """A grader's seed is secret: it must neither reject a right answer nor let a wrong one pass."""
    wrong, right = (named[task] for named in exercises.answers(exercise))
    passed = {
        name
        for name, source in {**wrong, **right}.items()
        if not exercises.complaints_with(exercise, task, exercises.answer(exercise, task, source), seed=7)
    }
    assert passed == set(right)


def graded_by_nbval(notebook):
    """Cells that fail, cells that pass, and all that was said."""
    pytest_script = Path(sys.executable).parent / "pytest"
    options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=60", "-p", "no:cacheprovider", "-q", "-rf"]
    command = [pytest_script, *options, notebook]
    said = subprocess.run(command, cwd=exercises.ROOT, capture_output=True, text=True, check=False).stdout
    counts = (re.search(rf"(\d+) {word}", said) for word in ("failed", "passed"))
    return *(int(count[1]) if count else 0 for count in counts), said


@pytest.mark.minutes
@pytest.mark.parametrize("outputs", ["as shipped", "as a learner's run leaves them"])
@pytest.mark.parametrize("exercise", exercises.NAMES)
def test_an_exercise_without_answers_fails_in_its_graded_cells_alone(exercise, outputs, tmp_path):
    """Saved in JupyterLab a notebook stores the verdicts that it got: to compare with those would let everything pass."""
    notebook = nbformat.read(exercises.ROOT / "exercises" / f"{exercise}.ipynb", 4)
    tasks = exercises.checked(exercise)
    if outputs != "as shipped":
        for cell in notebook.cells:
            if "check" in cell.metadata.get("hybridlab", {}):
                said = f"{cell.metadata.hybridlab['check']}: not answered yet\n"
                cell.outputs = [nbformat.v4.new_output("stream", text=said)]
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    failed, passed, said = graded_by_nbval(tmp_path / "mine.ipynb")
    assert (failed, failed + passed) == (len(tasks), sum(cell.cell_type == "code" for cell in notebook.cells)), said
    for task in tasks:
        assert f"{task}: not answered yet" in said
    assert "NotImplementedError" not in said


@pytest.mark.minutes
@pytest.mark.parametrize("exercise", exercises.NAMES)
def test_a_solved_exercise_passes(exercise):
    failed, passed, said = graded_by_nbval(f"solutions/{exercise}.ipynb")
    assert failed == 0 < passed, said
