"""What is counted as a multiplication, and which of them matrix units can take."""

import pytest
import torch

from hybridlab.course.multiplications import Multiplications, multiplications

X, Y, BATCH = torch.ones(4, 5), torch.ones(5, 3), torch.ones(7, 4, 5)


@pytest.mark.parametrize(
    ("run", "matrix", "single", "exponentials"),
    [
        (lambda: X @ Y, 4 * 5 * 3, 0, 0),
        (lambda: BATCH @ Y, 7 * 4 * 5 * 3, 0, 0),
        (lambda: BATCH @ BATCH.mT, 7 * 4 * 5 * 4, 0, 0),
        (lambda: X[:1] @ Y, 0, 5 * 3, 0),
        (lambda: X[:, :1] @ Y[:1], 0, 4 * 3, 0),
        (lambda: X @ Y[:, :1], 0, 4 * 5, 0),
        (lambda: X @ Y[:, 0], 0, 4 * 5, 0),
        (lambda: X[0] @ Y[:, 0], 0, 5, 0),
        (lambda: torch.outer(X[0], X[1]), 0, 5 * 5, 0),
        (lambda: X[:, None] * X, 0, 4 * 4 * 5, 0),
        (lambda: torch.ones(6).mul_(2), 0, 6, 0),
        (lambda: X.exp() + X.cumsum(0), 0, 0, 4 * 5),
        (lambda: (X * X) @ Y.exp(), 4 * 5 * 3, 4 * 5, 5 * 3),
        (lambda: None, 0, 0, 0),
    ],
)
def test_counts(run, matrix, single, exponentials):
    assert multiplications(run) == Multiplications(matrix, single, exponentials)


def test_total_leaves_exponentials_out():
    assert Multiplications(60, 20, 15).total == 80


def test_nothing_runs_on_the_meta_device():
    def run():
        big = torch.empty(100_000, 1_000_000, device="meta")
        assert (big @ big.mT).device.type == "meta"

    assert multiplications(run).matrix == 100_000 * 1_000_000 * 100_000
