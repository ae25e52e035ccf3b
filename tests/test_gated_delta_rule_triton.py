"""The Triton kernels of gated_delta_rule against the literal loop in float64, in the interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from triton_agreement import (
    DEVICE,
    TOLERANCE,
    assert_agrees,
    assert_agrees_in_bfloat16,
    assert_steps_equal_the_whole,
    beside,
    normal,
    strided,
)

from hybridlab.ops.gated_delta_rule import gated_delta_rule

pytest.importorskip("triton", reason="triton exists for Linux only")


def inputs(T: int, K: int = 8, V: int = 24, *, B: int = 1, H: int = 2) -> dict[str, Tensor]:
    """Keys of length 1, beta from 0 to 2, decays of e^{-e^6} to nearly 1."""
    tensors = {"q": normal(B, T, H, K), "k": normalize(normal(B, T, H, K), dim=-1), "v": normal(B, T, H, V)}
    tensors |= {"log_decay": -torch.exp(2 * normal(B, T, H)), "beta": 2 * torch.sigmoid(normal(B, T, H))}
    return tensors | {"state": normal(B, H, K, V)}


@pytest.fixture(params=[16, 32])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Both sizes of chunk: that of float32, and that of bfloat16."""
    from hybridlab.kernels import delta_triton

    monkeypatch.setitem(delta_triton.CHUNK, 4, request.param)
    return request.param


@pytest.mark.parametrize("T", [1, 17])
def test_one_token_and_one_past_a_chunk(T: int) -> None:
    assert_agrees(gated_delta_rule, inputs(T, B=2))


@pytest.mark.minutes
@pytest.mark.parametrize("T", [2, 7, 16, 64, 65, 130])
def test_lengths(T: int, chunk: int) -> None:
    assert_agrees(gated_delta_rule, inputs(T))


# Numbers that are no power of two, and more than a tile's, of either; states that are square could be transposed unseen.
@pytest.mark.minutes
@pytest.mark.parametrize(("K", "V"), [(1, 1), (16, 16), (40, 16), (8, 72), (130, 33)], ids=str)
@pytest.mark.parametrize("T", [1, 18])
def test_widths(K: int, V: int, T: int) -> None:
    assert_agrees(gated_delta_rule, inputs(T, K, V))


@pytest.mark.minutes
@pytest.mark.parametrize("log_decay", [0.0, -20.0, -900.0, float("-inf")])
def test_one_decay_throughout(log_decay: float) -> None:
    for T in (1, 20):
        tensors = inputs(T)
        assert_agrees(gated_delta_rule, tensors | {"log_decay": torch.full_like(tensors["log_decay"], log_decay)})


def test_decays_of_all_kinds_beside_each_other() -> None:
    tensors = inputs(35)
    assert_agrees(gated_delta_rule, tensors | {"log_decay": beside(tensors["log_decay"], 0.0, -900.0, -1e-6, -20.0)})


@pytest.mark.minutes
def test_tokens_after_much_forgetting_keep_their_digits(chunk: int) -> None:
    """The difference of two float32 sums beyond -900 * 8 is wrong by 1e-3."""
    tensors = inputs(chunk, H=1)
    log_decay, v = torch.full_like(tensors["log_decay"], -0.1), tensors["v"].clone()
    log_decay[:, :-8], v[:, :-8] = -900.0, 1e-3 * v[:, :-8]
    tensors = {name: x.float() for name, x in (tensors | {"log_decay": log_decay, "v": v}).items()}
    right, _ = gated_delta_rule(**{name: x.double() for name, x in tensors.items()}, backend="naive")
    ours, _ = gated_delta_rule(**tensors, backend="triton")
    assert (ours - right)[:, -7:].abs().max() < TOLERANCE * right[:, -7:].abs().max()


@pytest.mark.minutes
def test_gradients_of_decays_keep_their_digits_where_they_are_tiny() -> None:
    """Where only the values are negative and what is read is small, nothing cancels: each entry alone must be right."""
    tensors = {name: x.abs() for name, x in inputs(40).items()}
    decays = torch.linspace(0.1, 20, 40, dtype=torch.float64, device=DEVICE).view(1, 40, 1).expand(1, 40, 2)
    tensors |= {"log_decay": -decays, "beta": 0.05 * tensors["beta"]}
    wanted, got = (_positive_decay_gradient(tensors, *how) for how in ((torch.float64, "naive"), (torch.float32, "triton")))
    assert wanted.min() > 0
    assert wanted.min() < 1e-6 * wanted.max()
    assert ((got - wanted).abs() / wanted).max() < 1e-4


def _positive_decay_gradient(tensors: dict[str, Tensor], dtype: torch.dtype, backend: str) -> Tensor:
    given = {name: x.float().to(dtype) for name, x in tensors.items()}
    log_decay = given["log_decay"].requires_grad_()
    return torch.autograd.grad(sum(x.sum() for x in gated_delta_rule(**given, backend=backend)), log_decay)[0]


@pytest.mark.minutes
def test_without_a_state() -> None:
    tensors = inputs(19, B=2)
    del tensors["state"]
    assert_agrees(gated_delta_rule, tensors)


def test_padding_leaves_the_state() -> None:
    for T in (1, 5):
        tensors = {name: x.float() for name, x in inputs(T).items()}
        tensors |= {name: torch.zeros_like(tensors[name]) for name in ("log_decay", "beta")}
        assert torch.equal(gated_delta_rule(**tensors, backend="triton")[1], tensors["state"])


@pytest.mark.minutes
def test_inputs_need_not_be_contiguous() -> None:
    for T in (1, 5):
        assert_agrees(gated_delta_rule, strided(inputs(T, B=2)))


def test_steps_equal_the_whole() -> None:
    assert_steps_equal_the_whole(gated_delta_rule, inputs(5))


def test_one_token_takes_the_step_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridlab.kernels import delta_triton

    monkeypatch.setattr(delta_triton, "carry_kernel", None)
    gated_delta_rule(**{name: x.float() for name, x in inputs(1).items()}, backend="triton")
    with pytest.raises(TypeError):
        gated_delta_rule(**{name: x.float() for name, x in inputs(2).items()}, backend="triton")


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter computes bfloat16 wrongly")
def test_bfloat16() -> None:
    assert_agrees_in_bfloat16(gated_delta_rule, inputs(150, 128, 64, B=2))
