"""The Triton kernels of short_conv against the sum over taps in float64, in Triton's interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor

from hybridlab.ops import short_conv

pytest.importorskip("triton", reason="triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 2e-6
NAMES = ("output", "final state", "gradient of x", "gradient of weight", "gradient of bias", "gradient of state")


def inputs(T: int, D: int = 5, W: int = 4, *, B: int = 2) -> list[Tensor]:
    shapes = ((B, T, D), (D, W), (D,), (B, W - 1, D))
    return [torch.randn(shape).double().to(DEVICE) for shape in shapes]


def results(tensors: list[Tensor], dtype: torch.dtype, backend: str) -> list[Tensor]:
    """Output, final state and all gradients, of a fixed random weighting of both results."""
    given = [x.detach().to(dtype).requires_grad_() for x in tensors]
    found = short_conv(*given, backend=backend)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator).to(x) for x in found]
    return [*found, *torch.autograd.grad(found, given, weights)]


def assert_agrees(tensors: list[Tensor]) -> None:
    expected = results(tensors, torch.float64, "naive")
    got = results(tensors, torch.float32, "triton")
    assert len(got) == len(expected)
    for name, ours, right in zip(NAMES, got, expected, strict=False):
        assert ours.shape == right.shape, name
        if right.numel():
            error = ((ours - right).abs().max() / right.abs().max().clamp(min=1e-30)).item()
            assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("T", [1, 2, 3, 7, 29, 32, 33, 65])
def test_lengths(T: int) -> None:
    assert_agrees(inputs(T))


@pytest.mark.parametrize("W", [1, 2, 7, 40])
def test_filters(W: int) -> None:
    """Longer than a tile of tokens, too."""
    assert_agrees(inputs(35, W=W))


@pytest.mark.parametrize("D", [1, 64, 70])
def test_channels(D: int) -> None:
    assert_agrees(inputs(9, D))


def test_without_a_state_and_a_bias() -> None:
    assert_agrees(inputs(35)[:2])


def test_inputs_need_not_be_contiguous() -> None:
    assert_agrees([x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs(20)])


def test_steps_equal_the_whole() -> None:
    x, weight, bias, state = (y.float() for y in inputs(20))
    whole, final = short_conv(x, weight, bias, state, backend="triton")
    outputs = []
    for x_t in x.split(1, 1):
        out, state = short_conv(x_t, weight, bias, state, backend="triton")
        outputs.append(out)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-5, atol=1e-6)
    assert torch.equal(state, final)
