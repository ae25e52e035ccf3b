"""Times that can be compared: every contender runs in every round, so that a busy moment hits all of them alike.

Absolute times on a shared machine are off by up to ten; the ratio of two contenders *within one round* is not. So rounds are
kept apart, ratios are taken round by round, and what is reported is the median ratio with its quartiles. Processor time is
recorded beside wall time: cpu/wall well below the number of threads means that the threads waited.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

# A call shorter than this is repeated within a round. The contender before it has filled the caches with its own: after 2 ms
# of repeats a decode step still takes three times as long as it does in a loop of them.
SHORTEST = 2e-2
MOST_REPEATS = 1000
# Before repeats are timed, one in so many runs untimed: OpenMP's threads of the contender before spin for milliseconds more.
UNTIMED = 4


def brief(number: float) -> str:
    """Two digits, or all before the point: 0.52, 3.1, 31, 310."""
    return f"{number:.0f}" if number >= 9.95 else f"{number:.2g}"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of one number over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: list[float]) -> "Spread":
        """The spread of at least one number."""
        if len(numbers) == 1:
            return cls(numbers[0], numbers[0], numbers[0])
        low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{brief(self.median)} ({brief(self.low)} to {brief(self.high)})"


class Times(NamedTuple):
    """One contender: seconds a call in each round, by the wall clock and of processor time, and calls a round."""

    wall: list[float]
    cpu: list[float]
    repeats: int

    @property
    def seconds(self) -> Spread:
        """Wall seconds a call."""
        return Spread.of(self.wall)

    @property
    def cpu_per_wall(self) -> float:
        """Processor seconds a second: how many cores were busy."""
        return sum(self.cpu) / sum(self.wall)

    def over(self, other: "Times") -> Spread:
        """How many times as long as another contender, round by round."""
        return Spread.of([mine / theirs for mine, theirs in zip(self.wall, other.wall, strict=True)])


def interleave(contenders: Mapping[str, Callable[[], object]], seconds: float, least: int, most: int) -> dict[str, Times]:
    """Runs rounds of all contenders until `seconds` are over, at least `least` and at most `most` rounds.

    Every contender should have run once before: the first call compiles.

    Args:
        contenders: functions without arguments, by name.
        seconds: time after which no further round starts.
        least: rounds that run in any case.
        most: rounds that are enough.

    Returns:
        the times of each contender; round i of one is comparable with round i of another.
    """
    repeats = {name: _repeats(run) for name, run in contenders.items()}
    times = {name: Times([], [], repeats[name]) for name in contenders}
    names, end = list(contenders), time.perf_counter() + seconds
    for done in range(most):
        if done >= least and time.perf_counter() > end:
            break
        # Rotated, every other round backwards: none always runs behind the same one, on the cache that one leaves.
        start = done // 2 % len(names)
        for name in (names[start:] + names[:start])[:: -1 if done % 2 else 1]:
            for _ in range(repeats[name] // UNTIMED):
                contenders[name]()
            wall, cpu = timed(contenders[name], repeats[name])
            times[name].wall.append(wall)
            times[name].cpu.append(cpu)
    return times


def timed(run: Callable[[], object], repeats: int = 1) -> tuple[float, float]:
    """Wall and processor seconds of one call, averaged over `repeats` calls; waits for the GPU where there is one."""
    enabled = gc.isenabled()
    gc.disable()
    _wait()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        run()
    _wait()
    spent = (time.perf_counter() - wall) / repeats, (time.process_time() - cpu) / repeats
    if enabled:
        gc.enable()
    return spent


def _repeats(run: Callable[[], object]) -> int:
    once = min(timed(run)[0], timed(run)[0])
    return max(1, min(MOST_REPEATS, round(SHORTEST / once)))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
