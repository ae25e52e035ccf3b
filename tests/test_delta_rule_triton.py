"""The Triton kernels of delta_rule against the literal loop in float64, in the interpreter where there is no GPU.

They are those of gated_delta_rule: here is what no decay and the strongest corrections ask of them.
"""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from triton_agreement import (
    DEVICE,
    assert_agrees,
    assert_agrees_in_bfloat16,
    assert_steps_equal_the_whole,
    normal,
    strided,
)

from hybridlab.ops.delta_rule import delta_rule

pytest.importorskip("triton", reason="triton exists for Linux only")


def inputs(T: int, K: int = 8, V: int = 24, *, B: int = 1, H: int = 2) -> dict[str, Tensor]:
    """Keys of length 1, beta from 0 to 2."""
    tensors = {"q": normal(B, T, H, K), "k": normalize(normal(B, T, H, K), dim=-1), "v": normal(B, T, H, V)}
    return tensors | {"beta": 2 * torch.sigmoid(normal(B, T, H)), "state": normal(B, H, K, V)}


@pytest.mark.parametrize("T", [1, 17])
def test_one_token_and_one_past_a_chunk(T: int) -> None:
    assert_agrees(delta_rule, inputs(T, B=2))


@pytest.mark.minutes
@pytest.mark.parametrize("T", [7, 16, 64, 65, 130])
def test_lengths(T: int) -> None:
    assert_agrees(delta_rule, inputs(T))


@pytest.mark.minutes
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("T", [1, 20])
def test_one_strength_throughout(beta: float, T: int) -> None:
    tensors = inputs(T)
    assert_agrees(delta_rule, tensors | {"beta": torch.full_like(tensors["beta"], beta)})


@pytest.mark.minutes
@pytest.mark.parametrize("length", [16, 32])
def test_the_error_of_one_key_turned_around_again_and_again(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All keys alike and beta 2: the powers of a chunk's matrix outgrow its inverse by more than float32's digits."""
    from hybridlab.kernels import delta_triton

    monkeypatch.setitem(delta_triton.CHUNK, 4, length)
    tensors = inputs(33)
    key = normalize(normal(1, 1, 1, 8), dim=-1).expand_as(tensors["k"])
    assert_agrees(delta_rule, tensors | {"k": key, "beta": torch.full_like(tensors["beta"], 2.0)}, tolerance=2e-4)


@pytest.mark.minutes
def test_without_a_state() -> None:
    tensors = inputs(19, B=2)
    del tensors["state"]
    assert_agrees(delta_rule, tensors)


@pytest.mark.minutes
def test_inputs_need_not_be_contiguous() -> None:
    for T in (1, 5):
        assert_agrees(delta_rule, strided(inputs(T, B=2)))


def test_steps_equal_the_whole() -> None:
    assert_steps_equal_the_whole(delta_rule, inputs(5))


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter computes bfloat16 wrongly")
def test_bfloat16() -> None:
    assert_agrees_in_bfloat16(delta_rule, inputs(150, 128, 64, B=2))
