"""Every exercise: every wrong answer is rejected, every right one accepted, and what ships is unanswered."""

import re
import subprocess
import sys
from pathlib import Path

import exercise_answers as exercises
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


@pytest.mark.minutes
@pytest.mark.parametrize("exercise", exercises.NAMES)
def test_an_exercise_as_shipped_fails_in_its_graded_cells_alone(exercise):
    pytest_script = Path(sys.executable).parent / "pytest"
    options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=60", "-p", "no:cacheprovider", "-q", "-rf"]
    command = [pytest_script, *options, f"exercises/{exercise}.ipynb"]
    said = subprocess.run(command, cwd=exercises.ROOT, capture_output=True, text=True, check=False).stdout
    counts = re.search(r"(\d+) failed, (\d+) passed", said)
    assert counts, said
    assert int(counts[1]) == len(exercises.checked(exercise)), said
    for task in exercises.checked(exercise):
        assert f"{task}: not answered yet" in said
    assert "NotImplementedError" not in said
