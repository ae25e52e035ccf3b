"""The floor under any implementation: each byte moved once, each operation done once, at the machine's own speed.

    floor = max(bytes / bandwidth, operations / peak)

Bandwidth is a triad (a = b + s c) over arrays larger than any cache, peak is a square float32 matrix product; both run in
the same rounds as what is judged, on the same threads. Bytes are those an operator *must* move: inputs in, results out.
Operations are the fewest known for the result. A problem that fits into the cache can go below its floor, and says so by a
ratio under 1.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hybridlab.measure.stopwatch import Spread, Times

# Float32 numbers an array of the triad (3 arrays of 64 MiB), and rows of the square matrices.
TRIAD_NUMBERS = 1 << 24
MATMUL_ROWS = 1024
TRIAD, MATMUL = "triad", "matmul"


class Work(NamedTuple):
    """What an operator must do at least: bytes to move and floating-point operations."""

    bytes: int
    operations: int


class Floor(NamedTuple):
    """The floor of each round in seconds, and what sets it."""

    seconds: list[float]
    bound: str
    work: Work
    bytes_per_second: float
    operations_per_second: float

    def under(self, times: Times) -> Spread:
        """How many times the floor a contender took, round by round."""
        return Spread.of([wall / floor for wall, floor in zip(times.wall, self.seconds, strict=True)])


def probes(device: str) -> dict[str, Callable[[], object]]:
    """The two measurements of the machine, to run in the same rounds as the contenders."""
    target, first, second = (torch.ones(TRIAD_NUMBERS, device=device) for _ in range(3))
    left, right, product = (torch.ones(MATMUL_ROWS, MATMUL_ROWS, device=device) for _ in range(3))
    return {
        TRIAD: lambda: torch.add(first, second, alpha=3.0, out=target),
        MATMUL: lambda: torch.mm(left, right, out=product),
    }


def floor(work: Work, times: Mapping[str, Times]) -> Floor:
    """The floor of some work in each round of `times`, which hold those of the probes."""
    bandwidth = [3 * TRIAD_NUMBERS * 4 / seconds for seconds in times[TRIAD].wall]
    peak = [2 * MATMUL_ROWS**3 / seconds for seconds in times[MATMUL].wall]
    moved = [work.bytes / rate for rate in bandwidth]
    computed = [work.operations / rate for rate in peak]
    bound = "bytes" if sum(moved) >= sum(computed) else "operations"
    seconds = [max(pair) for pair in zip(moved, computed, strict=True)]
    return Floor(seconds, bound, work, Spread.of(bandwidth).median, Spread.of(peak).median)


def least_bytes(read: list[Tensor], written: list[Tensor], backward: bool) -> int:
    """Inputs read once and results written once; a backward reads them all again and writes a gradient for each input."""
    inputs, results = (sum(x.numel() * x.element_size() for x in tensors) for tensors in (read, written))
    # Backward: inputs and the results' gradients in, the inputs' gradients out.
    return inputs + results + (2 * inputs + results if backward else 0)
