"""The Triton kernels of taylor_attention against the literal loop in float64, in the interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor
from triton_agreement import normal

from hybridlab.ops.taylor_attention import TaylorState, taylor_attention, taylor_features

pytest.importorskip("triton", reason="triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The contract is 2e-4. The interpreter multiplies in float32, where a right kernel is within 1e-6.
TOLERANCE = 2e-4 if DEVICE == "cuda" else 1e-5
NAMES = ("output", "final KV", "final K", "grad q", "grad k", "grad v", "grad KV", "grad K")


def inputs(T: int, K: int = 3, V: int = 5, *, B: int = 1, H: int = 2) -> list[Tensor]:
    """q, k, v, KV, K; K has a part that no feature reads, so ij is not ji."""
    total, apart = taylor_features(normal(B, H, 3, K)).sum(2), normal(B, H, K, K)
    total[..., 1 + K :] += (apart - apart.mT).flatten(-2)
    made = (normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, V), normal(*total.shape, V), total)
    return [x.float().double() for x in made]


def results(
    tensors: list[Tensor], dtype: torch.dtype, backend: str, *, state: bool = True, eps: float = 1e-12
) -> list[Tensor]:
    """Output, final state and all gradients, of a fixed random weighting of both results."""
    given = [x.detach().to(dtype).requires_grad_() for x in (tensors if state else tensors[:3])]
    output, final = taylor_attention(*given[:3], TaylorState(*given[3:]) if state else None, eps, backend=backend)
    generator = torch.Generator().manual_seed(1)
    found = [output, *final]
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in found]
    return [*found, *torch.autograd.grad(found, given, weights)]


def assert_agrees(tensors: list[Tensor], *, state: bool = True, eps: float = 1e-12) -> None:
    expected = results(tensors, torch.float64, "naive", state=state, eps=eps)
    got = results(tensors, torch.float32, "triton", state=state, eps=eps)
    for name, right, ours in zip(NAMES, expected, got, strict=False):
        assert ours.shape == right.shape, name
        error = ((ours - right).abs().max() / right.abs().max().clamp(min=0.01)).item()
        assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("T", [1, 35])
def test_agrees_with_the_loop(T: int) -> None:
    assert_agrees(inputs(T, B=2, H=1), eps=0.5)


@pytest.mark.minutes
@pytest.mark.parametrize("T", [7, 32, 33, 65, 256, 257, 300])
def test_lengths(T: int) -> None:
    """Tiles and chunks of them that are full, one longer, not full."""
    assert_agrees(inputs(T, 2, 3, H=2 if T < 65 else 1))


@pytest.mark.minutes
@pytest.mark.parametrize(("K", "V"), [(1, 1), (16, 40), (8, 72), (24, 5)], ids=str)
@pytest.mark.parametrize("T", [1, 18])
def test_widths(K: int, V: int, T: int) -> None:
    assert_agrees(inputs(T, K, V, H=1))


@pytest.mark.minutes
def test_without_a_state() -> None:
    assert_agrees(inputs(35, B=2), state=False)


@pytest.mark.minutes
def test_large_scores() -> None:
    q, *others = inputs(35)
    assert_agrees([1000 * q, *others])


@pytest.mark.minutes
@pytest.mark.parametrize("T", [1, 20])
def test_inputs_need_not_be_contiguous(T: int) -> None:
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs(T, B=2)]
    assert not strided[0].is_contiguous()
    assert_agrees(strided)


def test_steps_equal_the_whole() -> None:
    q, k, v, *state = (x.float() for x in inputs(5))
    whole, final = taylor_attention(q, k, v, TaylorState(*state), backend="triton")
    outputs, state = [], TaylorState(*state)
    for now in zip(*(x.split(1, 1) for x in (q, k, v)), strict=True):
        output, state = taylor_attention(*now, state, backend="triton")
        outputs.append(output)
    for ours, right in zip((torch.cat(outputs, 1), *state), (whole, *final), strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter computes bfloat16 wrongly")
def test_bfloat16() -> None:
    q, k, v, *state = inputs(600, 16, 64)
    q, k, v, state = q.bfloat16(), k.bfloat16(), v.bfloat16(), TaylorState(*(x.float() for x in state))
    output, final = taylor_attention(q, k, v, state, backend="triton")
    wide = TaylorState(*(x.double() for x in state))
    right, right_final = taylor_attention(q.double(), k.double(), v.double(), wide, backend="naive")
    assert (output.dtype, final.kv.dtype) == (torch.bfloat16, torch.float32)
    assert (output - right).abs().max() < 2**-7 * right.abs().max()
    for ours, exact in zip(final, right_final, strict=True):
        assert (ours - exact).abs().max() < 2e-3 * exact.abs().max()
