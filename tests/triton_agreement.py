"""Holds the Triton kernels of an op to its literal equation in float64; in Triton's interpreter where there is no GPU."""

from collections.abc import Callable

import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The contract is 2e-4. The interpreter multiplies in float32, where a right kernel is within 1e-6.
TOLERANCE = 2e-4 if DEVICE == "cuda" else 1e-5

Op = Callable[..., tuple[Tensor, Tensor]]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, device=DEVICE)


def beside(usual: Tensor, *others: float) -> Tensor:
    """Some of the usual numbers become each of the others; neighbours differ, in every row of tokens in another order."""
    pick = (torch.arange(usual.numel(), device=usual.device).view(usual.shape) * 7 // 3) % (len(others) + 2)
    for i, other in enumerate(others):
        usual = torch.where(pick == i, other, usual)
    return usual


def assert_agrees(op: Op, tensors: dict[str, Tensor], tolerance: float = TOLERANCE) -> None:
    """Output, final state and all gradients, of a fixed random weighting of both results."""
    expected, got = _results(op, tensors, torch.float64, "naive"), _results(op, tensors, torch.float32, "triton")
    for name, right in expected.items():
        ours = got[name]
        assert ours.shape == right.shape, name
        error = ((ours - right).abs().max() / right.abs().max().clamp(min=1e-30)).item()
        assert error < tolerance, f"{name}: relative error {error:.1e}"


def _results(op: Op, tensors: dict[str, Tensor], dtype: torch.dtype, backend: str) -> dict[str, Tensor]:
    # Rounded to float32 first, so that both are given the same numbers.
    given = {name: x.detach().float().to(dtype).requires_grad_() for name, x in tensors.items()}
    found = op(**given, backend=backend)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in found]
    gradients = torch.autograd.grad(found, list(given.values()), weights)
    names = ("output", "final state", *(f"gradient of {name}" for name in given))
    return dict(zip(names, (*found, *gradients), strict=True))


def assert_steps_equal_the_whole(op: Op, tensors: dict[str, Tensor]) -> None:
    """One token at a time, handing the state on, gives what all tokens at once give."""
    tensors = {name: x.float() for name, x in tensors.items()}
    whole, final = op(**tensors, backend="triton")
    state, outputs = tensors.pop("state"), []
    for t in range(whole.shape[1]):
        output, state = op(**{name: x[:, t : t + 1] for name, x in tensors.items()}, state=state, backend="triton")
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=1e-4, atol=1e-5)


def strided(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers, lying in memory another way."""
    turned = {name: x.transpose(0, -1).contiguous().transpose(0, -1) for name, x in tensors.items()}
    assert not any(x.is_contiguous() for x in turned.values())
    return turned


def assert_agrees_in_bfloat16(op: Op, tensors: dict[str, Tensor]) -> None:
    """To bfloat16's digits; the state, which stays float32, to more. Needs a GPU: the interpreter computes it wrongly."""
    given = {name: x.float() if name == "state" else x.bfloat16() for name, x in tensors.items()}
    output, final = op(**given, backend="triton")
    right, right_final = op(**{name: x.double() for name, x in given.items()}, backend="naive")
    assert (output.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    assert (output - right).abs().max() < 2**-7 * right.abs().max()
    assert (final - right_final).abs().max() < 5e-3 * right_final.abs().max()
