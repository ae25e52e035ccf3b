"""The Triton kernels of wkv4 against the literal equation in float64, in Triton's interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor
from triton_agreement import normal

from hybridlab.ops import wkv4

pytest.importorskip("triton", reason="triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONTRACT = 2e-4
# Where exponents are small, float32 leaves a right kernel within 1e-6.
TOLERANCE = CONTRACT if DEVICE == "cuda" else 1e-5
NAMES = ("output", "num / den", "log den + max", "grad k", "grad v", "grad log_decay", "grad bonus", "grad state")


def inputs(T: int, C: int = 5, *, B: int = 2, kind: str = "mixed") -> list[Tensor]:
    fixed = {"strong": -20.0, "zero": 0.0}
    log_decay = (
        torch.full((C,), fixed[kind], dtype=torch.float64, device=DEVICE) if kind in fixed else -(2 * normal(C)).exp()
    )
    state = torch.stack((normal(B, C), normal(B, C).exp(), 3 * normal(B, C)), -1)
    return [normal(B, T, C), normal(B, T, C), log_decay, normal(C), state]


def results(tensors: list[Tensor], dtype: torch.dtype, backend: str, *, state: bool = True) -> list[Tensor]:
    """Output, final state as what it stands for, and all gradients, of a fixed random weighting of both."""
    given = [x.detach().to(dtype).requires_grad_() for x in (tensors if state else tensors[:-1])]
    out, final = wkv4(*given, backend=backend)
    num, den, top = final.unbind(-1)
    meant = [out, num / den, den.log() + top]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in meant]
    return [*meant, *torch.autograd.grad(meant, given, weights)]


def assert_agrees(tensors: list[Tensor], *, state: bool = True, tolerance: float = TOLERANCE) -> None:
    expected = results(tensors, torch.float64, "naive", state=state)
    got = results(tensors, torch.float32, "triton", state=state)
    for name, right, ours in zip(NAMES, expected, got, strict=False):
        assert ours.shape == right.shape, name
        error = ((ours - right).abs().max() / right.abs().max().clamp(min=1e-30)).item()
        assert error < tolerance, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("T", [1, 2, 7, 16, 17, 33, 65])
def test_lengths(T: int) -> None:
    assert_agrees(inputs(T))


@pytest.mark.parametrize("C", [1, 32, 40])
def test_channels(C: int) -> None:
    assert_agrees(inputs(18, C))


@pytest.mark.parametrize("kind", ["mixed", "strong", "zero"])
@pytest.mark.parametrize("state", [True, False], ids=["state", "empty"])
def test_decays(kind: str, state: bool) -> None:
    assert_agrees(inputs(35, kind=kind), state=state)


@pytest.mark.parametrize("size", [-900.0, 900.0, None], ids=["-900", "+900", "both"])
@pytest.mark.parametrize("state", [True, False], ids=["state", "empty"])
def test_extreme_keys(size: float | None, state: bool) -> None:
    tensors = inputs(35)
    tensors[0] = tensors[0] + (900 * tensors[0].sign() if size is None else size)
    # An exponent near 900 has 6e-5 as its last float32 digit: the inputs are rounded before either computes.
    tensors = [x.float().double() for x in tensors]
    assert_agrees(tensors, state=state, tolerance=CONTRACT)


def test_one_token_alone_is_its_value() -> None:
    k, v, log_decay, bonus, _ = (x.float() for x in inputs(1))
    out, final = wkv4(k, v, log_decay, bonus, backend="triton")
    assert torch.equal(out, v)
    assert torch.isfinite(final).all()


def test_inputs_need_not_be_contiguous() -> None:
    tensors = inputs(20)
    strided = [*(x.transpose(0, 1).contiguous().transpose(0, 1) for x in tensors[:2]), *tensors[2:]]
    assert not strided[0].is_contiguous()
    assert_agrees(strided)


def test_steps_equal_the_whole() -> None:
    k, v, log_decay, bonus, state = (x.float() for x in inputs(20))
    whole, final = wkv4(k, v, log_decay, bonus, state, backend="triton")
    outputs = []
    for k_t, v_t in zip(k.split(1, 1), v.split(1, 1), strict=True):
        out, state = wkv4(k_t, v_t, log_decay, bonus, state, backend="triton")
        outputs.append(out)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-4, atol=1e-5)
    for split, together in ((state[..., 0] / state[..., 1], final[..., 0] / final[..., 1]), (state[..., 2], final[..., 2])):
        torch.testing.assert_close(split, together, rtol=1e-4, atol=1e-5)


def test_the_given_max_gets_its_partial_derivative() -> None:
    tensors = inputs(9)
    d_num, d_den, d_top = results(tensors, torch.float32, "triton")[-1].double().unbind(-1)
    num, den, _ = tensors[-1].unbind(-1)
    torch.testing.assert_close(d_top, num * d_num + den * d_den, rtol=1e-4, atol=1e-6)
