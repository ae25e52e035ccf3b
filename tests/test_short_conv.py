"""short_conv: every form and kernel is the sum over the last W inputs, gradients too, in pieces shorter than the filter."""

import functools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from hybridlab.ops.short_conv import short_conv

FLOAT64, FLOAT32 = torch.float64, torch.float32
TOLERANCE = {FLOAT64: 1e-13, FLOAT32: 2e-6}
WAYS = {"recurrent": {"form": "recurrent"}, "parallel": {"form": "parallel"}, "numba": {"backend": "numba"}}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
dtypes = pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32], ids=["float64", "float32"])
# (B, T, D, W): one token, fewer than the state has rows, as many as the filter has taps, one tap, blocks on threads.
SIZES = [(1, 1, 1, 4), (3, 2, 7, 5), (2, 4, 3, 4), (2, 13, 5, 1), (2, 13, 5, 2), (1, 33, 67, 3), (1, 130, 200, 4)]
sizes = pytest.mark.parametrize("size", SIZES, ids=str)
NAMES = ("x", "weight", "bias", "state")
RESULTS = ("output", "final state", *(f"gradient of {name}" for name in NAMES))


@functools.cache
def problem(size: tuple[int, int, int, int]) -> tuple[Tensor, ...]:
    """x, weight, bias, state in float64; every number exists in float32 too."""
    B, T, D, W = size
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(T), dtype=FLOAT64)
    return tuple(x.float().double() for x in (draw(B, T, D), draw(D, W), draw(D), draw(B, W - 1, D)))


def results(inputs: tuple[Tensor, ...], dtype: torch.dtype = FLOAT64, **way: object) -> list[Tensor]:
    """Output, final state and every gradient, for fixed random gradients of the first two."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
    found = short_conv(*leaves, **way)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=generator).to(dtype) for y in found]
    return [*found, *torch.autograd.grad(found, leaves, upstream)]


def literal(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor, g_out: Tensor, g_final: Tensor) -> list[Tensor]:
    """Product by product: what each tap of each token saw, and what it asks of it."""
    T, W = x.shape[1], weight.shape[1]
    seen = torch.cat((state, x), 1)
    output, g_seen, g_weight = torch.zeros_like(x), torch.zeros_like(seen), torch.zeros_like(weight)
    g_seen[:, T:] = g_final
    for t in range(T):
        output[:, t] = bias
        for j in range(W):
            output[:, t] += weight[:, j] * seen[:, t + j]
            g_seen[:, t + j] += weight[:, j] * g_out[:, t]
            g_weight[:, j] += (seen[:, t + j] * g_out[:, t]).sum(0)
    return [output, seen[:, T:], g_seen[:, W - 1 :], g_weight, g_out.sum((0, 1)), g_seen[:, : W - 1]]


def assert_close(got: list[Tensor], want: list[Tensor], tolerance: float) -> None:
    assert len(got) == len(want)
    for name, x, y in zip(RESULTS, got, want, strict=False):
        assert x.shape == y.shape, name
        if y.numel():
            error = ((x.double() - y).abs().max() / y.abs().max().clamp_min(1e-30)).item()
            assert error <= tolerance, f"{name} is off by {error:.1e}"


@pytest.mark.minutes
@sizes
@dtypes
@ways
def test_is_the_sum_over_the_taps(way: dict, dtype: torch.dtype, size: tuple[int, int, int, int]) -> None:
    inputs = problem(size)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(x.shape, generator=generator).double() for x in (inputs[0], inputs[3])]
    got = results(inputs, dtype, **way)
    assert {x.dtype for x in got} == {dtype}
    assert_close(got, literal(*inputs, *upstream), TOLERANCE[dtype])


@ways
def test_gradcheck(way: dict) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 3, 2, 5))]
    assert torch.autograd.gradcheck(lambda *x: short_conv(*x, **way), inputs)


@sizes
@ways
def test_one_gradient_is_enough(way: dict, size: tuple[int, int, int, int]) -> None:
    """A loss of the output alone, or of the state alone."""
    for which in (0, 1):
        leaves, twins = ([x.clone().requires_grad_() for x in problem(size)] for _ in range(2))
        got = torch.autograd.grad(short_conv(*leaves, **way)[which].sum(), leaves, allow_unused=True)
        want = torch.autograd.grad(short_conv(*twins, form="recurrent")[which].sum(), twins, allow_unused=True)
        pairs = [
            [torch.zeros_like(y) if z is None else z for z in (x, w)] for x, w, y in zip(got, want, leaves, strict=True)
        ]
        assert_close([x for x, _ in pairs], [w for _, w in pairs], 1e-13)


@sizes
@ways
def test_no_state_and_no_bias_are_zeros(way: dict, size: tuple[int, int, int, int]) -> None:
    x, weight, bias, state = problem(size)
    assert_close(list(short_conv(x, weight, **way)), list(short_conv(x, weight, 0 * bias, 0 * state, **way)), 0.0)


@sizes
@ways
def test_agrees_with_conv1d(way: dict, size: tuple[int, int, int, int]) -> None:
    x, weight, bias, state = problem(size)
    expected = conv1d(torch.cat((state, x), 1).mT, weight.unsqueeze(1), bias, groups=x.shape[2]).mT
    assert_close([short_conv(x, weight, bias, state, **way)[0]], [expected], 1e-13)


@ways
def test_agrees_with_the_convolution_in_transformers_mamba(way: dict) -> None:
    """Its module pads on both sides and cuts; its cache has W rows, the oldest of which nothing reads."""
    mixer = MambaMixer(MambaConfig(hidden_size=6, expand=2, conv_kernel=4, use_conv_bias=True), layer_idx=0)
    weight, bias = mixer.conv1d.weight.detach().squeeze(1), mixer.conv1d.bias.detach()
    for length in (1, 3, 4, 23):
        x = torch.randn(2, length, 12)
        output, final = short_conv(x, weight, bias, **way)
        assert_close([output], [mixer.conv1d(x.mT)[..., :length].mT.detach().double()], 1e-6)
        padded = torch.nn.functional.pad(x.mT, (4 - length, 0)) if length < 4 else x.mT[..., -4:]
        assert torch.equal(final, padded.mT[:, 1:])


@pytest.mark.parametrize("cuts", [(1,) * 13, (2, 1, 2, 1, 7), (3, 10), (4, 9)], ids=str)
@ways
def test_pieces_are_the_whole(way: dict, cuts: tuple[int, ...]) -> None:
    """Pieces of one and two tokens leave older rows in the state, which the next call still needs."""
    x, weight, bias, state = problem((2, 13, 5, 4))
    whole, final = short_conv(x, weight, bias, state, form="recurrent")
    outputs = []
    for piece in x.split(cuts, 1):
        output, state = short_conv(piece, weight, bias, state, **way)
        outputs.append(output)
    assert_close([torch.cat(outputs, 1), state], [whole, final], 1e-13)
    assert torch.equal(state, x[:, -3:])


def test_the_classic_bugs_are_far_away() -> None:
    """The filter the other way round, the state lost, only this call's inputs kept as the state."""
    x, weight, bias, state = problem((2, 2, 5, 4))
    output, final = short_conv(x, weight, bias, state)
    assert (short_conv(x, weight.flip(1), bias, state)[0] - output).abs().max() > 0.1
    assert (short_conv(x, weight, bias)[0] - output).abs().max() > 0.1
    assert torch.equal(final, torch.cat((state[:, -1:], x), 1))


@ways
def test_strided_inputs_and_nothing_overwritten(way: dict) -> None:
    inputs = problem((2, 9, 5, 4))
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    before = [x.clone() for x in strided]
    assert_close(list(short_conv(*strided, **way)), list(short_conv(*inputs, form="recurrent")), 1e-13)
    assert_close(results(tuple(strided), **way), results(inputs, form="recurrent"), 1e-13)
    assert all(torch.equal(x, y) for x, y in zip(strided, before, strict=True))


@pytest.mark.parametrize("length", [1, 2, 3, 65])
@ways
def test_the_state_owns_what_it_needs_and_no_more(way: dict, length: int) -> None:
    x, weight, bias, state = problem((1, length, 5, 4))
    _, final = short_conv(x, weight, bias, state, **way)
    assert final.untyped_storage().nbytes() == final.numel() * final.element_size()
    assert final.untyped_storage().data_ptr() not in (x.untyped_storage().data_ptr(), state.untyped_storage().data_ptr())


@ways
def test_nan_is_seen_by_w_tokens_of_its_channel(way: dict) -> None:
    x, weight, bias, state = (y.clone() for y in problem((1, 12, 4, 3)))
    x[0, 5, 1] = math.nan
    output, _ = short_conv(x, weight, bias, state, **way)
    assert output.isnan().nonzero().tolist() == [[0, t, 1] for t in (5, 6, 7)]


def test_bfloat16_takes_the_parallel_form_and_a_state_of_its_own_dtype() -> None:
    half = tuple(x.bfloat16() for x in problem((2, 37, 5, 4)))
    output, final = short_conv(*half)
    assert (output.dtype, final.dtype) == (torch.bfloat16, torch.bfloat16)
    assert torch.equal(output, short_conv(*half, form="parallel")[0])
    exact = short_conv(*(x.double() for x in half), form="recurrent")
    assert_close([output], [exact[0]], 2**-8)
    assert torch.equal(final, half[0][:, -3:])


def test_numba_operator_passes_opcheck() -> None:
    inputs = tuple(x.clone().requires_grad_() for x in problem((2, 5, 3, 4)))
    short_conv(*inputs, backend="numba")
    torch.library.opcheck(torch.ops.hybridlab.short_conv_numba.default, inputs)


@pytest.mark.parametrize("way", [{"backend": "numba"}, {"form": "parallel"}], ids=str)
@pytest.mark.parametrize("given", [2, 4], ids=["no-state", "state"])
def test_compiles_in_one_graph(way: dict, given: int) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 7, 3, 4))[:given]]
    compiled = torch.compile(lambda *x: short_conv(*x, **way), fullgraph=True, backend="aot_eager")
    got, want = compiled(*inputs), short_conv(*inputs, **way)
    assert_close(list(got), list(want), 1e-15)
    assert_close(list(torch.autograd.grad(got[0].sum(), inputs)), list(torch.autograd.grad(want[0].sum(), inputs)), 1e-15)


@ways
def test_meta_tensors_have_the_shapes_of_real_ones(way: dict) -> None:
    inputs = problem((2, 37, 3, 4))
    real = short_conv(*inputs, **way)
    for meta, one in zip(short_conv(*(x.to("meta") for x in inputs), **way), real, strict=True):
        assert (meta.is_meta, meta.shape, meta.dtype, meta.stride()) == (True, one.shape, one.dtype, one.stride())


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=FLOAT64)


BAD = {
    "x is a list": ({"x": [1.0]}, "x must be a tensor, got list"),
    "x is int": ({"x": torch.ones(2, 4, 3, dtype=torch.int64)}, "x must be floating, got torch.int64"),
    "x of two axes": ({"x": zeros(4, 3)}, r"x must have 3 axes \(B, T, D\), got shape \(4, 3\)"),
    "T = 0": ({"x": zeros(2, 0, 3)}, "T = 0; every axis needs at least one entry"),
    "weight a list": ({"weight": [1.0], "bias": None}, "weight must be a tensor, got list"),
    "weight as conv1d has it": ({"weight": zeros(3, 1, 4)}, r"weight must have 2 axes \(D, W\), got shape \(3, 1, 4\)"),
    "weight transposed": ({"weight": zeros(4, 3)}, r"weight must be \(D, W\) with D = 3, got shape \(4, 3\)"),
    "weight without taps": ({"weight": zeros(3, 0)}, "W = 0; every axis needs at least one entry"),
    "bias too long": ({"bias": zeros(5)}, r"bias must be \(D\) with D = 3, got shape \(5,\)"),
    "bias in float32": ({"bias": zeros(3).float()}, "bias is torch.float32 but x is torch.float64"),
    "state of W rows": ({"state": zeros(2, 4, 3)}, r"state must have shape \(2, 3, 3\), got \(2, 4, 3\)"),
    "state in float32": ({"state": zeros(2, 3, 3).float()}, "state must be torch.float64 for torch.float64 inputs"),
    "state a tuple": ({"state": (1, 2)}, "state must be a tensor or None, got tuple"),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba, triton"),
    "no chunks": ({"form": "chunked"}, "unknown form 'chunked'; choose recurrent, parallel"),
    "form with a kernel": ({"form": "parallel", "backend": "numba"}, "form='parallel' is plain PyTorch .* backend='numba'"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    good = dict(zip(NAMES, problem((2, 4, 3, 4)), strict=True))
    with pytest.raises(ValueError, match=f"^short_conv: .*{message}"):
        short_conv(**good | changes)


def test_a_bfloat16_state_is_not_widened() -> None:
    """Unlike the state of a recurrence, it is copied, never added to."""
    x, weight, bias, state = (y.bfloat16() for y in problem((2, 4, 3, 4)))
    with pytest.raises(ValueError, match=r"state must be torch\.bfloat16 for torch\.bfloat16 inputs, got torch\.float32"):
        short_conv(x, weight, bias, state.float())
