"""bytes_moved: what operations read and write, views and empty memory left out."""

import pytest
import torch

from hybridlab.course.bytes_moved import bytes_moved

X, Y = torch.ones(3, 5), torch.ones(3, 5)


@pytest.mark.parametrize(
    ("run", "numbers"),
    [
        pytest.param(lambda: X * Y, 45, id="two read, one written"),
        pytest.param(lambda: X * 2, 30, id="a plain number is not memory"),
        pytest.param(lambda: X.clone().mul_(Y), 30 + 45, id="in place reads and writes"),
        pytest.param(lambda: X[1] * Y[1], 15, id="a row only"),
        pytest.param(lambda: torch.stack((X, Y)), 60, id="a tuple of tensors"),
        pytest.param(lambda: X.unbind(0)[0].unsqueeze(0).T, 0, id="views"),
        pytest.param(lambda: torch.empty_like(X), 0, id="memory set aside"),
    ],
)
def test_counts_float32(run, numbers):
    assert bytes_moved(run) == 4 * numbers


def test_counts_bytes_not_numbers():
    assert bytes_moved(lambda: X.double()) == 15 * (4 + 8)


def test_nothing_is_counted_afterwards():
    first = bytes_moved(lambda: X * Y)
    _ = X * Y
    assert bytes_moved(lambda: X * Y) == first
