"""Calls into PyTorch are counted, those by way of Python's numbers too."""

import pytest
import torch

from hybridlab.course.operations import operations

X = torch.ones(4, 5)


@pytest.mark.parametrize(
    ("run", "calls"),
    [
        (lambda: None, 0),
        (lambda: X + X, 1),
        (lambda: torch.exp(X @ X.T), 3),
        (lambda: [x + 1 for x in X.unbind()], 1 + 4),
        (lambda: X.tolist(), 20),
        (lambda: X.sum().item(), 2),
    ],
)
def test_counts(run, calls):
    assert operations(run) == calls


def test_what_a_function_raises_comes_through_and_counting_ends():
    with pytest.raises(ZeroDivisionError):
        operations(lambda: 1 / 0)
    assert operations(lambda: X + X) == 1
