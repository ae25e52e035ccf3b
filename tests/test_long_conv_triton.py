"""The Triton kernels of long_conv against the literal sum in float64, in Triton's interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor

from hybridlab.ops import long_conv

pytest.importorskip("triton", reason="triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 5e-6
NAMES = ("output", "final state", "gradient of x", "gradient of filter", "gradient of skip", "gradient of state")


def inputs(T: int, W: int, S: int, *, B: int = 2, D: int = 3) -> list[Tensor]:
    return [torch.randn(shape).double().to(DEVICE) for shape in ((B, T, D), (D, W), (D,), (B, S, D))]


def results(tensors: list[Tensor], dtype: torch.dtype, backend: str) -> list[Tensor]:
    """Output, final state and all gradients, of a fixed random weighting of both results."""
    given = [x.detach().to(dtype).requires_grad_() for x in tensors]
    found = long_conv(*given, backend=backend)
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


# Of taps and past: one of each, far more than tokens, fewer, as many; a filter that ends within the past.
@pytest.mark.parametrize("reach", [(1, 0), (50, 0), (40, 7), (4, 20), (30, 24)], ids=str)
def test_one_token_and_many(reach: tuple[int, int]) -> None:
    for T in (1, 2, 37):
        assert_agrees(inputs(T, *reach))


@pytest.mark.parametrize("T", [256, 257])
def test_past_a_tile_of_sums(T: int) -> None:
    assert_agrees(inputs(T, 300, 3, B=1, D=1))


@pytest.mark.minutes
def test_larger_tiles() -> None:
    """More than 512 sums are taken in tiles of 32 rows."""
    assert_agrees(inputs(1030, 1100, 3, B=1, D=1))


def test_one_channel_of_several_sequences() -> None:
    """Each with its own line of gradients, all with the same filter."""
    assert_agrees(inputs(9, 12, 2, B=3, D=1))


def test_many_channels() -> None:
    """A decode step takes 64 at a time."""
    assert_agrees(inputs(1, 4, 2, B=1, D=70))


def test_without_a_state_and_a_skip() -> None:
    assert_agrees(inputs(35, 20, 0)[:2])


def test_inputs_need_not_be_contiguous() -> None:
    for T in (1, 20):
        assert_agrees([x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs(T, 12, 5)])


def test_steps_equal_the_whole() -> None:
    x, filter_, skip, state = (y.float() for y in inputs(20, 15, 4))
    whole, final = long_conv(x, filter_, skip, state, backend="triton")
    outputs = []
    for x_t in x.split(1, 1):
        out, state = long_conv(x_t, filter_, skip, state, backend="triton")
        outputs.append(out)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(state, final)
