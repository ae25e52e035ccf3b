"""The Triton kernels of retention against the literal loop in float64, in the interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor
from triton_agreement import normal

from hybridlab.ops.retention import retention

pytest.importorskip("triton", reason="triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The contract is 2e-4. The interpreter multiplies in float32, where a right kernel is within 1e-6.
TOLERANCE = 2e-4 if DEVICE == "cuda" else 1e-5
NAMES = ("output", "final state", "grad q", "grad k", "grad v", "grad log_decay", "grad state")
# RetNet's first and fourth head; none, strong and stronger.
DECAYS = (-0.03174869831458027, -0.003913899321136329, 0.0, -20.0, -900.0)


def inputs(T: int, K: int = 8, V: int = 16, *, B: int = 1, decays: tuple[float, ...] = DECAYS[:2]) -> list[Tensor]:
    H = len(decays)
    log_decay = torch.tensor(decays, dtype=torch.float64, device=DEVICE)
    made = (normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, V), log_decay, normal(B, H, K, V))
    return [x.float().double() for x in made]


def results(tensors: list[Tensor], dtype: torch.dtype, backend: str, *, state: bool = True) -> list[Tensor]:
    """Output, final state and all gradients, of a fixed random weighting of both results."""
    given = [x.detach().to(dtype).requires_grad_() for x in (tensors if state else tensors[:-1])]
    found = retention(*given, backend=backend)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in found]
    return [*found, *torch.autograd.grad(found, given, weights)]


def assert_agrees(tensors: list[Tensor], *, state: bool = True) -> None:
    expected = results(tensors, torch.float64, "naive", state=state)
    got = results(tensors, torch.float32, "triton", state=state)
    for name, right, ours in zip(NAMES, expected, got, strict=False):
        assert ours.shape == right.shape, name
        error = ((ours - right).abs().max() / right.abs().max().clamp(min=1e-30)).item()
        assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("T", [1, 7, 32, 33, 64, 65, 130])
def test_lengths(T: int) -> None:
    assert_agrees(inputs(T, B=2 if T < 32 else 1))


# States that are square could be transposed unseen.
@pytest.mark.parametrize(("K", "V"), [(1, 1), (16, 16), (40, 16), (8, 72), (130, 33)], ids=str)
@pytest.mark.parametrize("T", [1, 18])
def test_widths(K: int, V: int, T: int) -> None:
    assert_agrees(inputs(T, K, V))


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("T", [1, 35])
def test_decays(decay: float, T: int) -> None:
    """Each alone: a strong decay's gradient is tiny beside a weak one's."""
    assert_agrees(inputs(T, B=2, decays=(decay,)))


def test_linear_attention_sums_all_that_went_before() -> None:
    q, k, v, log_decay, _ = (x.float() for x in inputs(70, decays=(0.0,)))
    output, final = retention(q, k, v, log_decay, backend="triton")
    expected = torch.einsum("bthk,bshk,ts,bshv->bthv", q, k, torch.ones(70, 70, device=DEVICE).tril(), v)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(final, torch.einsum("bthk,bthv->bhkv", k, v), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("T", [1, 20])
def test_total_forgetting(T: int) -> None:
    assert_agrees(inputs(T, decays=(float("-inf"), -0.1)))


def test_without_a_state() -> None:
    assert_agrees(inputs(35, B=2), state=False)


@pytest.mark.parametrize("T", [1, 20])
def test_inputs_need_not_be_contiguous(T: int) -> None:
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs(T, B=2)]
    assert not strided[0].is_contiguous()
    assert_agrees(strided)


def test_steps_equal_the_whole() -> None:
    q, k, v, log_decay, state = (x.float() for x in inputs(5))
    whole, final = retention(q, k, v, log_decay, state, backend="triton")
    outputs = []
    for now in zip(*(x.split(1, 1) for x in (q, k, v)), strict=True):
        output, state = retention(*now, log_decay, state, backend="triton")
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter computes bfloat16 wrongly")
def test_bfloat16() -> None:
    tensors = [x.bfloat16() if i < 3 else x.float() for i, x in enumerate(inputs(150, 128, 64))]
    output, final = retention(*tensors, backend="triton")
    right, right_final = retention(*(x.double() for x in tensors), backend="naive")
    assert (output.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    assert (output - right).abs().max() < 2**-7 * right.abs().max()
    assert (final - right_final).abs().max() < 2e-3 * right_final.abs().max()
