"""Runs the parts of `make check`, `make test` or `make test-all` and prints each part's time beside its allowance.

    python tests/suite.py test

Every part runs even if one before it fails, so that one run tells everything. A part that takes more than three times
its allowance fails: the allowances are for two quiet cores.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 3  # times the allowance: a shared machine is slower than a quiet one, but not without bound

# The script, not `python -m pytest`: that puts the root on the path, where `import kernels` finds a second copy of them.
PYTEST = (str(Path(sys.executable).parent / "pytest"), "-q", "--durations=5")
# A process a core, at most eight; a file stays in one, so that its kernels are compiled and its models built once.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PARALLEL = (*PYTEST, "-n", str(min(8, CORES)), "--dist", "loadfile")
QUICK = "not slow and not browser and not aot and not minutes"


class Part(NamedTuple):
    """One command of a suite. `minutes` is its allowance on two quiet cores."""

    name: str
    minutes: float
    command: tuple[str, ...]


LINT = Part("lint", 0.25, (sys.executable, "-m", "ruff", "check", "."))
FORMAT = Part("format", 0.25, (sys.executable, "-m", "ruff", "format", "--check", "."))
TYPES = Part("types", 0.75, (sys.executable, "-m", "mypy"))
QUICK_TESTS = Part("quick tests", 4, (*PARALLEL, "-m", QUICK))

FAST = (LINT, FORMAT, TYPES, QUICK_TESTS)
LONG = (
    Part("longer tests", 6, (*PARALLEL, "-m", "minutes and not slow")),
    Part("kernels compiled ahead of time", 2, (*PYTEST, "-m", "aot and not slow")),
    Part("notebooks, each executed once", 8, (sys.executable, "-m", "hybridlab.course", "check")),
    Part("browser", 12, (*PARALLEL, "-m", "browser and not slow")),
)
SLOW = (Part("slow matrix", 6, (*PYTEST, "-m", "slow")),)
SUITES = {"check": FAST, "test": FAST + LONG, "test-all": FAST + LONG + SLOW}


def run(part: Part) -> tuple[bool, float]:
    """Runs one part from the root of the repository; true if it passed within its limit."""
    print(f"\n=== {part.name} (allowance {part.minutes:g} min)", flush=True)
    start = time.monotonic()
    status = subprocess.run(part.command, cwd=ROOT, check=False).returncode
    minutes = (time.monotonic() - start) / 60
    return status == 0 and minutes <= LIMIT * part.minutes, minutes


def main(suite: str) -> int:
    """Runs a suite and prints its table; the exit status."""
    rows = [(part, *run(part)) for part in SUITES[suite]]
    print(f"\n{'part':34}{'minutes':>9}{'allowance':>11}  result")
    for part, passed, minutes in rows:
        print(f"{part.name:34}{minutes:9.1f}{part.minutes:11g}  {'passed' if passed else 'FAILED'}")
    print(f"{'all':34}{sum(row[2] for row in rows):9.1f}{sum(part.minutes for part in SUITES[suite]):11g}")
    return 0 if all(row[1] for row in rows) else 1


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SUITES:
        sys.exit(f"usage: python tests/suite.py {{{','.join(SUITES)}}}")
    try:
        sys.exit(main(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
