"""A pytest plugin beside nbval: per notebook the outcome of every cell, seconds, and the most memory its kernel held."""

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hybridlab.course.execute import kernel_pid, peak_bytes
from hybridlab.course.notebook import course_data

UNANSWERED = "not answered yet"


@dataclass
class Run:
    """One notebook's run: cell id -> outcome ("passed", or what was wrong), seconds, bytes."""

    outcomes: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    peak_bytes: int = 0


class Recorder:
    """Records a `pytest --nbval` session. Keyed by cell ids, because nbval's cell numbers change with its versions."""

    def __init__(self) -> None:
        self.runs: dict[Path, Run] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Generator[None, Any, None]:
        """Records one phase of one cell; of an exercise as shipped, a graded cell that fails is as it should be."""
        outcome = yield
        report = outcome.get_result()
        run = self.runs.setdefault(Path(item.path), Run())
        run.seconds += report.duration
        if report.when == "call" and item.path.parent.name == "exercises" and "check" in course_data(item.cell):
            _turn_round(report, item)
        if report.when == "call" or report.outcome != "passed":
            run.outcomes[item.cell.id] = _word(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: Any) -> None:
        """Reads the kernel's memory while it is alive: nbval stops it after the last cell."""
        manager = getattr(item.parent.kernel, "km", None)
        if manager is not None:
            run = self.runs.setdefault(Path(item.path), Run())
            run.peak_bytes = max(run.peak_bytes, peak_bytes(kernel_pid(manager)))


def _turn_round(report: Any, item: Any) -> None:
    """An exercise that nobody has answered must fail in its graded cells, and say that this is why."""
    said = "".join(output.get("text", "") for output in item.test_outputs or [])
    if report.failed and UNANSWERED in said:
        report.outcome, report.longrepr = "passed", None
    else:
        report.outcome = "failed"
        report.longrepr = f"cell {item.cell.id}: a graded cell of an exercise must say {UNANSWERED!r}, it said:\n{said}"


def _word(report: Any) -> str:
    if report.passed and not hasattr(report, "wasxfail"):
        return "passed"
    # A kernel that is dead or stuck turns later cells into expected failures: those are failures.
    return "failed, see above" if report.failed else f"{report.outcome}: nothing was compared"
