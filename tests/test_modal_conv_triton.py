"""The Triton kernels of modal_conv against the recurrence in float64, in Triton's interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor

from hybridlab.ops import modal_conv

pytest.importorskip("triton", reason="triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 5e-6
NAMES = ("x", "poles", "residues", "skip", "state")
RESULTS = ("output", "final state", *(f"gradient of {name}" for name in NAMES))


def inputs(T: int, D: int = 3, N: int = 3, *, B: int = 2) -> list[Tensor]:
    poles = torch.polar(torch.rand(D, N), 6.3 * torch.rand(D, N))
    residues, state = (torch.randn(shape, dtype=torch.complex64) for shape in ((D, N), (B, D, N)))
    return [z.to(DEVICE) for z in (torch.randn(B, T, D), poles, residues, torch.randn(D), state)]


def cast(z: Tensor, dtype: torch.dtype) -> Tensor:
    return z.to(dtype.to_complex() if z.is_complex() else dtype)


def results(tensors: list[Tensor], dtype: torch.dtype, backend: str) -> list[Tensor]:
    """Output, final state and all gradients, of a fixed random weighting of both results."""
    given = [cast(z.detach(), dtype).requires_grad_() for z in tensors]
    found = modal_conv(*given, backend=backend)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(z.shape, generator=generator, dtype=cast(z, torch.float32).dtype).to(z) for z in found]
    return [*found, *torch.autograd.grad(found, given, weights)]


def assert_agrees(tensors: list[Tensor]) -> None:
    expected = results(tensors, torch.float64, "naive")
    got = results(tensors, torch.float32, "triton")
    assert len(got) == len(expected)
    for name, ours, right in zip(RESULTS, got, expected, strict=False):
        assert ours.shape == right.shape, name
        error = ((ours - right).abs().max() / right.abs().max().clamp(min=1e-30)).item()
        assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("T", [1, 2, 32, 33, 65])
def test_lengths(T: int) -> None:
    """A chunk has 32 tokens."""
    assert_agrees(inputs(T))


@pytest.mark.parametrize(("D", "N"), [(1, 1), (70, 5), (300, 1)], ids=str)
def test_channels_and_modes(D: int, N: int) -> None:
    """A tile has 256 numbers."""
    assert_agrees(inputs(3, D, N))


def test_without_a_skip_and_a_state() -> None:
    assert_agrees(inputs(9)[:3])


def test_inputs_need_not_be_contiguous() -> None:
    assert_agrees([z.transpose(0, -1).contiguous().transpose(0, -1) for z in inputs(20)])


def test_steps_equal_the_whole() -> None:
    x, poles, residues, skip, state = inputs(20)
    whole, final = modal_conv(x, poles, residues, skip, state, backend="triton")
    outputs = []
    for x_t in x.split(1, 1):
        out, state = modal_conv(x_t, poles, residues, skip, state, backend="triton")
        outputs.append(out)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, final, rtol=1e-5, atol=1e-6)
