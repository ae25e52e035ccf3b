"""Bytes of a state: distinct storages, nothing missed, nothing counted twice."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hybridlab.state import Empty, ModelState, state_nbytes


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


def zeros(*shape: int, device: str = "cpu") -> Tensor:
    return torch.zeros(*shape, device=device)


def test_counts_every_tensor_once() -> None:
    state = (Pair(zeros(2, 3), zeros(4)), [zeros(5).double()], {"a": zeros(1)})
    assert state_nbytes(state) == 4 * (6 + 4) + 8 * 5 + 4


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_shared_tensor_counts_once(device: str) -> None:
    shared = zeros(7, device=device)
    assert state_nbytes((Pair(shared, zeros(1, device=device)), shared, shared.view(7, 1))) == 4 * 8


def test_distinct_empty_tensors_count_nothing() -> None:
    assert state_nbytes((zeros(0, 8), zeros(3, 0), Empty())) == 0


def test_a_view_counts_the_buffer_it_keeps_alive() -> None:
    buffer = zeros(1000, 64)
    assert state_nbytes((buffer[-3:],)) == 4 * 1000 * 64
    assert state_nbytes((buffer[-3:].clone(),)) == 4 * 3 * 64


def test_position_is_not_counted() -> None:
    state = ModelState((Pair(zeros(2), zeros(3)), Empty()), shared=(zeros(4),), position=torch.tensor(17))
    assert state_nbytes(state) == 4 * 9


@pytest.mark.parametrize("leaf", [3, None, 2.5, "x"], ids=repr)
def test_a_leaf_that_is_no_tensor_is_refused(leaf: object) -> None:
    with pytest.raises(TypeError, match="every leaf must be a tensor"):
        state_nbytes((zeros(2), leaf))
