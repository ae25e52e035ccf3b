"""The Triton kernels of linear_recurrence against the loop in float64, in Triton's interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor
from triton_agreement import normal

from hybridlab.ops import linear_recurrence

pytest.importorskip("triton", reason="triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 2e-6
NAMES = ("output", "final state", "gradient of a", "gradient of b", "gradient of state")


def inputs(T: int, D: int = 5, *, B: int = 2, kind: str = "usual") -> list[Tensor]:
    a = {
        "usual": lambda: normal(B, T, D).sigmoid(),
        "one": lambda: torch.ones_like(normal(B, T, D)),
        "signs": lambda: normal(B, T, D).round().clamp(-1, 1),
        "tiny": lambda: 1e-20 * normal(B, T, D),
    }[kind]()
    return [x.float().double() for x in (a, normal(B, T, D), normal(B, D))]


def results(tensors: list[Tensor], dtype: torch.dtype, backend: str) -> list[Tensor]:
    """Output, final state and all gradients, of a fixed random weighting of both results."""
    given = [x.detach().to(dtype).requires_grad_() for x in tensors]
    found = linear_recurrence(*given, backend=backend)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator).to(x) for x in found]
    return [*found, *torch.autograd.grad(found, given, weights)]


def assert_agrees(tensors: list[Tensor]) -> None:
    expected = results(tensors, torch.float64, "naive")
    got = results(tensors, torch.float32, "triton")
    assert len(got) == len(expected)
    for name, ours, right in zip(NAMES, got, expected, strict=False):
        assert ours.shape == right.shape, name
        error = ((ours - right).abs().max() / right.abs().max().clamp(min=1e-30)).item()
        assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("T", [1, 2, 7, 32, 33, 65])
def test_lengths(T: int) -> None:
    assert_agrees(inputs(T))


@pytest.mark.parametrize("D", [1, 64, 70])
def test_channels(D: int) -> None:
    assert_agrees(inputs(9, D))


@pytest.mark.parametrize("kind", ["one", "signs", "tiny"])
def test_decays(kind: str) -> None:
    assert_agrees(inputs(35, kind=kind))


def test_without_a_state() -> None:
    assert_agrees(inputs(35)[:2])


def test_inputs_need_not_be_contiguous() -> None:
    assert_agrees([x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs(20)])


def test_steps_equal_the_whole() -> None:
    a, b, state = (x.float() for x in inputs(20))
    whole, final = linear_recurrence(a, b, state, backend="triton")
    outputs = []
    for a_t, b_t in zip(a.split(1, 1), b.split(1, 1), strict=True):
        out, state = linear_recurrence(a_t, b_t, state, backend="triton")
        outputs.append(out)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, final, rtol=1e-5, atol=1e-6)
