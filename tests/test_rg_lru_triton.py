"""The Triton kernels of rg_lru against the loop in float64, in Triton's interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor

from hybridlab.ops import rg_lru

pytest.importorskip("triton", reason="triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 2e-4 if DEVICE == "cuda" else 1e-5
INPUTS = ("x", "recurrence_gate", "input_gate", "log_a", "state")
NAMES = ("output", "final state", *(f"gradient of {name}" for name in INPUTS))


def inputs(T: int, D: int = 5, *, B: int = 2, rate: float = 0.1, documents: bool = False) -> list[Tensor]:
    x, r, i, state = (torch.randn(B, T, D), torch.rand(B, T, D), torch.rand(B, T, D), torch.randn(B, D))
    r = torch.where(r < 0.1, 0.0, torch.where(r > 0.9, 1.0, r))
    log_a = -rate * (0.1 + torch.rand(D))
    reset = torch.rand(B, T) < (0.2 if documents else 0.0)
    return [*(y.double().to(DEVICE) for y in (x, r, i, log_a, state)), reset.to(DEVICE)]


def results(tensors: list[Tensor], dtype: torch.dtype, backend: str) -> list[Tensor]:
    """Output, final state and all gradients, of a fixed random weighting of both results."""
    *given, reset = tensors
    given = [x.detach().to(dtype).requires_grad_() for x in given]
    found = rg_lru(*given, reset, backend=backend)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator).to(x) for x in found]
    return [*found, *torch.autograd.grad(found, given, weights)]


def assert_agrees(tensors: list[Tensor]) -> None:
    expected = results(tensors, torch.float64, "naive")
    got = results(tensors, torch.float32, "triton")
    assert len(got) == len(expected)
    for name, ours, right in zip(NAMES, got, expected, strict=True):
        assert ours.shape == right.shape, name
        error = ((ours - right).abs().max() / right.abs().max().clamp(min=1e-30)).item()
        assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("documents", [True, False], ids=["documents", "one-text"])
@pytest.mark.parametrize("T", [1, 2, 7, 32, 33, 65])
def test_lengths(T: int, documents: bool) -> None:
    assert_agrees(inputs(T, documents=documents))


@pytest.mark.parametrize("D", [1, 32, 64, 70])
def test_channels(D: int) -> None:
    assert_agrees(inputs(9, D))


@pytest.mark.parametrize("rate", [1e-7, 1e-4, 0.02, 20.0])
def test_decays(rate: float) -> None:
    """1 - a^2 comes from its series near a = 1, and from e^x elsewhere."""
    assert_agrees(inputs(35, rate=rate))


def test_inputs_need_not_be_contiguous() -> None:
    *given, reset = inputs(20, documents=True)
    assert_agrees([x.transpose(0, -1).contiguous().transpose(0, -1) for x in (*given, reset)])


def test_steps_equal_the_whole() -> None:
    *given, reset = inputs(20, documents=True)
    x, r, i, log_a, state = (y.float() for y in given)
    whole, final = rg_lru(x, r, i, log_a, state, reset, backend="triton")
    outputs = []
    for *token, start in zip(*(y.split(1, 1) for y in (x, r, i, reset)), strict=True):
        out, state = rg_lru(*token, log_a, state, start, backend="triton")
        outputs.append(out)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, final, rtol=1e-5, atol=1e-6)


def test_documents_do_not_see_each_other() -> None:
    *given, reset = inputs(40)
    reset[:, 17] = True
    x, r, i, log_a, state = (y.float() for y in given)
    changed = x.clone()
    changed[:, :17] += 1
    first, second = (rg_lru(y, r, i, log_a, state, reset, backend="triton")[0] for y in (x, changed))
    assert torch.equal(first[:, 17:], second[:, 17:])
    assert torch.equal(first[:, 17], i[:, 17] * x[:, 17])
    assert not torch.equal(first[:, 16], second[:, 16])
