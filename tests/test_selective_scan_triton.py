"""The Triton kernels of selective_scan against the literal loop in float64, in the interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus
from triton_agreement import normal

from hybridlab.ops.selective_scan import selective_scan

pytest.importorskip("triton", reason="triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The contract is 2e-4. The interpreter's exponential is NumPy's, and a right kernel is within 1e-6.
TOLERANCE = 2e-4 if DEVICE == "cuda" else 1e-5
INPUTS = ("x", "dt", "A", "B", "C", "D", "state")
NAMES = ("output", "final state", *(f"gradient of {name}" for name in INPUTS))
# Side by side: usual steps and none, tiny and long ones; usual rates and none, slow, fast and immediate ones.
STEPS, RATES = (0.0, 1e-6, 50.0), (0.0, -1e-6, -20.0, -1e4)


def beside(usual: Tensor, others: tuple[float, ...]) -> Tensor:
    pick = torch.arange(usual.numel(), device=DEVICE).view(usual.shape) % (len(others) + 1)
    for i, other in enumerate(others):
        usual = torch.where(pick == i, other, usual)
    return usual


def inputs(T: int, E: int = 3, N: int = 2, *, batch: int = 1, extreme: bool = False) -> list[Tensor]:
    dt, A = softplus(normal(batch, T, E)), -normal(E, N).exp()
    if extreme:
        dt, A = beside(dt, STEPS), beside(A, RATES)
    made = (normal(batch, T, E), dt, A, normal(batch, T, N), normal(batch, T, N), normal(E), normal(batch, E, N))
    return [x.float().double() for x in made]


def results(tensors: list[Tensor], dtype: torch.dtype, backend: str, *, state: bool = True) -> list[Tensor]:
    """Output, final state and all gradients, of a fixed random weighting of both results."""
    given = [x.detach().to(dtype).requires_grad_() for x in (tensors if state else tensors[:-1])]
    found = selective_scan(*given, backend=backend)
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


# One past a chunk of the backward, and past two.
@pytest.mark.parametrize("T", [1, 2, 7, 32, 33, 65])
def test_lengths(T: int) -> None:
    assert_agrees(inputs(T, batch=2 if T < 32 else 1))


# More channels than a block holds, not a multiple of one; state sizes that are no power of two, and more than a tile's.
@pytest.mark.parametrize(("E", "N"), [(1, 1), (45, 16), (70, 3), (5, 20), (2, 600)], ids=str)
def test_widths(E: int, N: int) -> None:
    assert_agrees(inputs(3, E, N))


@pytest.mark.parametrize("T", [1, 35])
def test_any_step_and_rate(T: int) -> None:
    assert_agrees(inputs(T, 10, 3, extreme=True))


def test_several_blocks_of_several_sequences() -> None:
    """What B and C receive is added over blocks, what A and D receive over sequences."""
    assert_agrees(inputs(4, 37, 16, batch=3))


def test_without_a_state() -> None:
    assert_agrees(inputs(9), state=False)


def test_padding_with_steps_of_nothing_leaves_the_state() -> None:
    tensors = [x.float() for x in inputs(5)]
    tensors[1].zero_()
    assert torch.equal(selective_scan(*tensors, backend="triton")[1], tensors[-1])


def test_inputs_need_not_be_contiguous() -> None:
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs(9, batch=2)]
    assert not strided[0].is_contiguous()
    assert_agrees(strided)


def test_tiny_gradients_keep_their_digits() -> None:
    """Nothing cancels where all is positive: each entry alone must be right, not only beside the largest."""
    tensors = [x.abs() for x in inputs(6, 4, 3)]
    tensors[1:3] = torch.full_like(tensors[1], 4), -torch.linspace(0.1, 8, 12, device=DEVICE).double().view(4, 3)
    tensors = [x.float().double() for x in tensors]
    wanted, got = (
        torch.autograd.grad(sum(y.sum() for y in selective_scan(*z, backend=backend)), z[2])[0]
        for z, backend in (
            ([x.clone().requires_grad_() for x in tensors], "naive"),
            ([x.float().requires_grad_() for x in tensors], "triton"),
        )
    )
    assert wanted.min() < 1e-5 * wanted.max()
    assert ((got - wanted).abs() / wanted).max() < 2e-5


def test_steps_equal_the_whole() -> None:
    x, dt, A, B, C, D, state = (z.float() for z in inputs(5, 4, 3))
    whole, final = selective_scan(x, dt, A, B, C, D, state, backend="triton")
    outputs = []
    for now in zip(*(z.split(1, 1) for z in (x, dt, B, C)), strict=True):
        output, state = selective_scan(now[0], now[1], A, now[2], now[3], D, state, backend="triton")
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), whole)
    torch.testing.assert_close(state, final)


def test_two_byte_inputs_take_wider_blocks_and_a_float32_state() -> None:
    from hybridlab.kernels import selective_scan_triton as kernels

    x, _, A, *_ = inputs(2, 4096, 16)
    assert kernels.walking_blocks(x.float(), A) == (32, 16)
    assert kernels.walking_blocks(x.bfloat16(), A) == (64, 16)


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter computes bfloat16 wrongly")
def test_bfloat16() -> None:
    tensors = [x.bfloat16() if i in (0, 1, 3, 4) else x.float() for i, x in enumerate(inputs(70, 100, 16, batch=2))]
    output, final = selective_scan(*tensors, backend="triton")
    right, right_final = selective_scan(*(x.double() for x in tensors), backend="naive")
    assert (output.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    assert (output - right).abs().max() < 2**-7 * right.abs().max()
    assert (final - right_final).abs().max() < 2e-4 * right_final.abs().max()
