"""The Triton kernels of wkv6 against the literal equation in float64, in Triton's interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor
from triton_agreement import normal

from hybridlab.ops import wkv6

pytest.importorskip("triton", reason="triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The contract is 2e-4. The interpreter multiplies in float32, where a right kernel is within 1e-6.
TOLERANCE = 2e-4 if DEVICE == "cuda" else 1e-5
NAMES = ("output", "final state", "grad r", "grad k", "grad v", "grad log_decay", "grad bonus", "grad state")
DECAYS = ("mixed", "strong", "zero", "constant in time", "constant in batch", "constant")


def decays(kind: str, B: int, T: int, H: int, K: int) -> Tensor:
    if kind in ("strong", "zero"):
        return torch.full((B, T, H, K), -20.0 if kind == "strong" else 0.0, dtype=torch.float64, device=DEVICE)
    if kind == "mixed":  # from e^{-e^{6}} to nearly 1, side by side
        return -torch.exp(2 * normal(B, T, H, K))
    return -torch.exp(normal(B if kind == "constant in time" else 1, T if kind == "constant in batch" else 1, H, K))


def inputs(T: int, K: int = 16, V: int = 16, *, B: int = 1, H: int = 2, kind: str = "mixed") -> list[Tensor]:
    r, k, v = normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, V)
    return [r, k, v, decays(kind, B, T, H, K), normal(H, K), normal(B, H, K, V)]


def results(tensors: list[Tensor], dtype: torch.dtype, backend: str, *, state: bool = True) -> list[Tensor]:
    """Output, final state and all gradients, of a fixed random weighting of both results."""
    given = [x.detach().to(dtype).requires_grad_() for x in (tensors if state else tensors[:-1])]
    out, final = wkv6(*given, backend=backend)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in (out, final)]
    return [out, final, *torch.autograd.grad([out, final], given, weights)]


def assert_agrees(tensors: list[Tensor], *, state: bool = True) -> None:
    expected = results(tensors, torch.float64, "naive", state=state)
    got = results(tensors, torch.float32, "triton", state=state)
    for name, right, ours in zip(NAMES, expected, got, strict=False):
        assert ours.shape == right.shape, name
        error = ((ours - right).abs().max() / right.abs().max().clamp(min=1e-30)).item()
        assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("T", [1, 2, 7, 16, 17, 33, 65])
def test_lengths(T: int) -> None:
    assert_agrees(inputs(T, 32, 48))


@pytest.mark.parametrize(("K", "V"), [(1, 1), (8, 24), (40, 16), (16, 72), (128, 128)], ids=str)
def test_widths(K: int, V: int) -> None:
    assert_agrees(inputs(18, K, V, H=1))


@pytest.mark.parametrize("kind", DECAYS)
@pytest.mark.parametrize("T", [1, 35])
def test_decays(kind: str, T: int) -> None:
    assert_agrees(inputs(T, B=2, kind=kind))


def test_without_a_state() -> None:
    assert_agrees(inputs(35, B=2), state=False)


def test_several_chunks() -> None:
    assert_agrees(inputs(130, B=1, H=1))


def test_inputs_need_not_be_contiguous() -> None:
    tensors = inputs(20, B=2)
    strided = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in tensors]
    assert not strided[0].is_contiguous()
    assert_agrees(strided)


def test_total_forgetting() -> None:
    tensors = inputs(20)
    tensors[3][:, ::3] = float("-inf")
    assert_agrees(tensors)


def test_decay_gradients_keep_their_digits_where_they_are_tiny() -> None:
    # Everything positive, so nothing cancels: each entry alone must be right, not only beside the largest.
    tensors = [x.abs() for x in inputs(40)]
    tensors[3] = -20 * torch.rand_like(tensors[3])
    expected = _positive_decay_gradient(tensors, torch.float64, "naive")
    got = _positive_decay_gradient(tensors, torch.float32, "triton")
    assert expected.min() < 1e-6 * expected.max()
    assert ((got - expected).abs() / expected).max() < 1e-4


def _positive_decay_gradient(tensors: list[Tensor], dtype: torch.dtype, backend: str) -> Tensor:
    given = [x.to(dtype).requires_grad_() for x in tensors]
    out, final = wkv6(*given, backend=backend)
    return torch.autograd.grad(out.sum() + final.sum(), given[3])[0]


def test_steps_equal_the_whole() -> None:
    r, k, v, log_decay, bonus, state = (x.float() for x in inputs(5, 8, 24))
    whole, final = wkv6(r, k, v, log_decay, bonus, state, backend="triton")
    outputs = []
    for t in range(5):
        now = slice(t, t + 1)
        out, state = wkv6(r[:, now], k[:, now], v[:, now], log_decay[:, now], bonus, state, backend="triton")
        outputs.append(out)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=1e-4, atol=1e-5)


def test_one_token_takes_the_step_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridlab.kernels import wkv6_triton

    monkeypatch.setattr(wkv6_triton, "carry_kernel", None)
    wkv6(*(x.float() for x in inputs(1)), backend="triton")
    with pytest.raises(TypeError):
        wkv6(*(x.float() for x in inputs(2)), backend="triton")


def test_a_constant_decay_is_not_copied() -> None:
    from hybridlab.kernels import wkv6_triton

    _, k, _, log_decay, _, _ = inputs(9, B=2, kind="constant")
    seen = wkv6_triton._expanded(log_decay, k)
    assert seen.data_ptr() == log_decay.data_ptr()
    assert seen.shape == k.shape
    assert seen.stride()[:2] == (0, 0)
