"""The Triton kernels of wkv7 against the literal loop in float64, in the interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from triton_agreement import (
    DEVICE,
    assert_agrees,
    assert_agrees_in_bfloat16,
    assert_steps_equal_the_whole,
    beside,
    normal,
    strided,
)

from hybridlab.ops.wkv7 import wkv7

pytest.importorskip("triton", reason="triton exists for Linux only")


def inputs(T: int, K: int = 8, V: int = 24, *, B: int = 1, H: int = 2) -> dict[str, Tensor]:
    """As in the model: a is a key of length 1 turned around, b that key times a rate; decays of e^{-e^6} to nearly 1."""
    removed, rate = normalize(normal(B, T, H, K), dim=-1), torch.sigmoid(normal(B, T, H, K))
    tensors = {"r": normal(B, T, H, K), "k": normal(B, T, H, K), "v": normal(B, T, H, V)}
    tensors |= {"log_decay": -torch.exp(2 * normal(B, T, H, K)), "a": -removed, "b": removed * rate}
    return tensors | {"state": normal(B, H, K, V)}


@pytest.mark.parametrize("T", [1, 17])
def test_one_token_and_one_past_a_chunk(T: int) -> None:
    assert_agrees(wkv7, inputs(T, B=2))


@pytest.mark.minutes
@pytest.mark.parametrize("T", [2, 7, 16, 64, 65, 130])
def test_lengths(T: int) -> None:
    assert_agrees(wkv7, inputs(T))


# Numbers that are no power of two, and more than a tile's, of either; states that are square could be transposed unseen.
@pytest.mark.minutes
@pytest.mark.parametrize(("K", "V"), [(1, 1), (16, 16), (40, 16), (8, 72), (130, 33)], ids=str)
@pytest.mark.parametrize("T", [1, 18])
def test_widths(K: int, V: int, T: int) -> None:
    assert_agrees(wkv7, inputs(T, K, V))


@pytest.mark.minutes
@pytest.mark.parametrize("log_decay", [0.0, -20.0, -900.0, float("-inf")])
def test_one_decay_throughout(log_decay: float) -> None:
    for T in (1, 20):
        tensors = inputs(T)
        assert_agrees(wkv7, tensors | {"log_decay": torch.full_like(tensors["log_decay"], log_decay)})


def test_decays_of_all_kinds_beside_each_other() -> None:
    tensors = inputs(35)
    assert_agrees(wkv7, tensors | {"log_decay": beside(tensors["log_decay"], 0.0, -900.0, -1e-6, -20.0)})


@pytest.mark.minutes
def test_gradients_of_decays_keep_their_digits_where_they_are_tiny() -> None:
    """Where all is positive nothing cancels: each entry alone must be right, not only beside the largest."""
    tensors = {name: x.abs() for name, x in inputs(40).items()}
    tensors |= {"a": 0.1 * tensors["a"], "log_decay": -20 * torch.rand_like(tensors["log_decay"])}
    wanted, got = (_positive_decay_gradient(tensors, *how) for how in ((torch.float64, "naive"), (torch.float32, "triton")))
    assert wanted.min() < 1e-6 * wanted.max()
    assert ((got - wanted).abs() / wanted).max() < 1e-4


def _positive_decay_gradient(tensors: dict[str, Tensor], dtype: torch.dtype, backend: str) -> Tensor:
    given = {name: x.float().to(dtype) for name, x in tensors.items()}
    log_decay = given["log_decay"].requires_grad_()
    return torch.autograd.grad(sum(x.sum() for x in wkv7(**given, backend=backend)), log_decay)[0]


@pytest.mark.minutes
def test_corrections_that_turn_everything_around() -> None:
    """a and b along one and the same key, S <- (I - 2 k k^T) S: powers of the chunk's matrix outgrow its inverse."""
    tensors = inputs(33)
    key = normalize(normal(1, 1, 1, 8), dim=-1).expand_as(tensors["a"])
    nothing = torch.zeros_like(tensors["log_decay"])
    assert_agrees(wkv7, tensors | {"log_decay": nothing, "a": -key, "b": 2 * key})


@pytest.mark.minutes
def test_without_a_state() -> None:
    tensors = inputs(19, B=2)
    del tensors["state"]
    assert_agrees(wkv7, tensors)


@pytest.mark.minutes
def test_inputs_need_not_be_contiguous() -> None:
    for T in (1, 5):
        assert_agrees(wkv7, strided(inputs(T, B=2)))


def test_steps_equal_the_whole() -> None:
    assert_steps_equal_the_whole(wkv7, inputs(5))


def test_one_token_takes_the_step_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridlab.kernels import wkv7_triton

    monkeypatch.setattr(wkv7_triton, "carry_kernel", None)
    wkv7(**{name: x.float() for name, x in inputs(1).items()}, backend="triton")
    with pytest.raises(TypeError):
        wkv7(**{name: x.float() for name, x in inputs(2).items()}, backend="triton")


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter computes bfloat16 wrongly")
def test_bfloat16() -> None:
    assert_agrees_in_bfloat16(wkv7, inputs(150, 64, 64, B=2))
