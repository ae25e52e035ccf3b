"""The Triton kernels of ssd against the literal loop in float64, in the interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus
from triton_agreement import normal

from hybridlab.ops.ssd import ssd

pytest.importorskip("triton", reason="triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The contract is 2e-4. The interpreter multiplies in float32, where a right kernel is within 1e-6.
TOLERANCE = 2e-4 if DEVICE == "cuda" else 1e-5
INPUTS = ("x", "dt", "A", "B", "C", "D", "state")
NAMES = ("output", "final state", *(f"gradient of {name}" for name in INPUTS))


def inputs(T: int, *, batch: int = 1, H: int = 2, G: int = 1, P: int = 8, N: int = 8) -> list[Tensor]:
    steps, rates = softplus(normal(batch, T, H)), -normal(H).exp()
    vectors = normal(batch, T, G, N), normal(batch, T, G, N)
    made = (normal(batch, T, H, P), steps, rates, *vectors, normal(H), normal(batch, H, P, N))
    return [x.float().double() for x in made]


def with_log_decays(tensors: list[Tensor], *log_decays: float) -> list[Tensor]:
    """Some of the usual steps become such that dt A is each of these."""
    dt, A = tensors[1:3]
    pick = torch.arange(dt.shape[1], device=DEVICE).view(-1, 1) % (len(log_decays) + 2)
    for i, log_decay in enumerate(log_decays):
        dt = torch.where(pick == i, log_decay / A, dt)
    return [tensors[0], dt.float().double(), *tensors[2:]]


def results(tensors: list[Tensor], dtype: torch.dtype, backend: str, *, bare: bool = False) -> list[Tensor]:
    """Output, final state and all gradients, of a fixed random weighting of both results. `bare` has no D and no state."""
    given = [x.detach().to(dtype).requires_grad_() for x in (tensors[:5] if bare else tensors)]
    found = ssd(*given, backend=backend)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in found]
    return [*found, *torch.autograd.grad(found, given, weights)]


def assert_agrees(tensors: list[Tensor], *, bare: bool = False) -> None:
    expected = results(tensors, torch.float64, "naive", bare=bare)
    got = results(tensors, torch.float32, "triton", bare=bare)
    for name, right, ours in zip(NAMES, expected, got, strict=False):
        assert ours.shape == right.shape, name
        error = ((ours - right).abs().max() / right.abs().max().clamp(min=1e-30)).item()
        assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("T", [1, 2, 7, 32, 33, 64, 65, 130])
def test_lengths(T: int) -> None:
    assert_agrees(inputs(T, batch=2 if T < 32 else 1))


# Numbers that are no power of two and more than a tile's, of either.
@pytest.mark.parametrize(("P", "N"), [(1, 1), (8, 24), (40, 16), (16, 72), (33, 130)], ids=str)
def test_widths(P: int, N: int) -> None:
    assert_agrees(inputs(18, P=P, N=N))
    assert_agrees(inputs(1, P=P, N=N))


@pytest.mark.parametrize(("H", "G"), [(4, 2), (6, 3), (3, 3), (9, 1)], ids=str)
def test_heads_of_a_group_share_b_and_c(H: int, G: int) -> None:
    """Nine heads are more than one program adds up."""
    assert_agrees(inputs(5, batch=2, H=H, G=G))
    assert_agrees(inputs(1, batch=2, H=H, G=G))


@pytest.mark.parametrize("log_decay", [0.0, -20.0, -900.0])
def test_one_decay_throughout(log_decay: float) -> None:
    tensors = inputs(35)
    tensors[1] = (log_decay / tensors[2]).expand_as(tensors[1]).float().double()
    assert_agrees(tensors)


@pytest.mark.parametrize("chunk", [32, 64])
def test_decays_of_all_kinds_beside_each_other(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sizes of chunk: after an all but complete forgetting, weak decays still count to their last digits."""
    from hybridlab.kernels import scalar_decay_triton

    monkeypatch.setitem(scalar_decay_triton.CHUNK, 4, chunk)
    assert_agrees(with_log_decays(inputs(66), 0.0, -900.0, -1e-6, -20.0))


def test_without_d_and_state() -> None:
    assert_agrees(inputs(35), bare=True)


def test_padding_with_steps_of_nothing_leaves_the_state() -> None:
    for T in (1, 5):
        tensors = [x.float() for x in inputs(T)]
        tensors[1].zero_()
        assert torch.equal(ssd(*tensors, backend="triton")[1], tensors[-1])


def test_inputs_need_not_be_contiguous() -> None:
    for T in (1, 9):
        strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs(T, batch=2, G=2)]
        assert not strided[0].is_contiguous()
        assert_agrees(strided)


def test_tiny_gradients_of_rates_keep_their_digits() -> None:
    """Where all is positive nothing cancels: each entry alone must be right, not only beside the largest."""
    tensors = [x.abs() for x in inputs(40, H=6)]
    tensors[1], tensors[2] = torch.ones_like(tensors[1]), -torch.linspace(0.1, 20, 6, device=DEVICE).double()
    tensors = [x.float().double() for x in tensors]
    wanted, got = (
        torch.autograd.grad(sum(y.sum() for y in ssd(*z, backend=backend)), z[2])[0]
        for z, backend in (
            ([x.clone().requires_grad_() for x in tensors], "naive"),
            ([x.float().requires_grad_() for x in tensors], "triton"),
        )
    )
    assert wanted.min() < 1e-6 * wanted.max()
    assert ((got - wanted).abs() / wanted).max() < 1e-5


@pytest.mark.parametrize("chunk", [32, 64])
def test_tokens_after_much_forgetting_keep_their_digits(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The difference of two float32 sums beyond -900 * 24 is wrong by 1e-3."""
    from hybridlab.kernels import scalar_decay_triton

    monkeypatch.setitem(scalar_decay_triton.CHUNK, 4, chunk)
    tensors = inputs(chunk, H=1)
    tensors[1], tensors[2] = torch.full_like(tensors[1], 0.1), -torch.ones_like(tensors[2])
    tensors[1][:, :-8] = 900.0
    tensors[0][:, :-8] *= 1e-3
    tensors = [x.float().double() for x in tensors]
    right = ssd(*tensors, backend="naive")
    ours = ssd(*(x.float() for x in tensors), backend="triton")
    assert (ours[0] - right[0])[:, -7:].abs().max() < TOLERANCE * right[0][:, -7:].abs().max()
    assert (ours[1] - right[1]).abs().max() < TOLERANCE * right[1].abs().max()


def test_steps_equal_the_whole() -> None:
    x, dt, A, B, C, D, state = (z.float() for z in inputs(5, H=4, G=2))
    whole, final = ssd(x, dt, A, B, C, D, state, backend="triton")
    outputs = []
    for now in zip(*(z.split(1, 1) for z in (x, dt, B, C)), strict=True):
        output, state = ssd(now[0], now[1], A, now[2], now[3], D, state, backend="triton")
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=1e-4, atol=1e-5)


def test_one_token_takes_the_step_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridlab.kernels import scalar_decay_triton

    monkeypatch.setattr(scalar_decay_triton, "carry_kernel", None)
    ssd(*(x.float() for x in inputs(1)), backend="triton")
    with pytest.raises(TypeError):
        ssd(*(x.float() for x in inputs(2)), backend="triton")


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter computes bfloat16 wrongly")
def test_bfloat16() -> None:
    tensors = [x.bfloat16() if i in (0, 3, 4) else x.float() for i, x in enumerate(inputs(150, batch=2, H=4, P=64, N=128))]
    output, final = ssd(*tensors, backend="triton")
    right, right_final = ssd(*(x.double() for x in tensors), backend="naive")
    assert (output.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    assert (output - right).abs().max() < 2**-7 * right.abs().max()
    assert (final - right_final).abs().max() < 2e-3 * right_final.abs().max()
