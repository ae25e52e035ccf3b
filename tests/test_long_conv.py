"""long_conv: a filter as long as the text, whose state is the past inputs."""

import functools
import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, linear

from hybridlab.ops import long_conv
from hybridlab.state import state_nbytes

# The function hides the module of its name.
module = importlib.import_module("hybridlab.ops.long_conv")
FLOAT64, FLOAT32 = torch.float64, torch.float32
FORMS = {form: {"form": form} for form in ("recurrent", "parallel", "fft")}
WAYS = FORMS | {"numba": {"backend": "numba"}}
forms = pytest.mark.parametrize("way", FORMS.values(), ids=FORMS)
NUMBA = pytest.param(WAYS["numba"], marks=pytest.mark.minutes, id="numba")
ways = pytest.mark.parametrize("way", [*(pytest.param(way, id=form) for form, way in FORMS.items()), NUMBA])
# (B, T, D, W, S): one token, few tokens, taps as many as tokens, fewer and more, pasts shorter and longer than the filter,
# one past a power of two, more channels than a vector has, sums one past a tile.
SIZES = [
    (1, 1, 1, 1, 0), (2, 1, 3, 40, 33), (2, 3, 5, 7, 12), (2, 13, 3, 13, 0), (2, 37, 3, 5, 4), (2, 19, 21, 50, 5),
    (1, 13, 3, 20, 11), (1, 65, 17, 65, 0), (1, 5, 2, 1, 3), (3, 9, 4, 9, 20),
]  # fmt: skip
NAMES = ("x", "filter", "skip", "state")
RESULTS = ("output", "final state", *(f"gradient of {name}" for name in NAMES))
GOLDEN = Path(__file__).parent / "data" / "hyena_operators.npz"


@functools.cache
def problem(size: tuple[int, ...]) -> tuple[Tensor, ...]:
    """x, filter, skip, state in float64; every number exists in float32 too."""
    B, T, D, W, S = size
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(T), dtype=FLOAT64)
    return tuple(x.float().double() for x in (draw(B, T, D), draw(D, W), draw(D), draw(B, S, D)))


def results(inputs: tuple[Tensor, ...], dtype: torch.dtype = FLOAT64, **way: object) -> list[Tensor]:
    """Output, final state and every gradient, for fixed random gradients of the first two."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
    found = long_conv(*leaves, **way)
    return [*found, *torch.autograd.grad(found, leaves, [x.to(dtype) for x in upstream(*found)])]


def upstream(*results: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(y.shape, generator=generator).double() for y in results]


def literal(x: Tensor, taps: Tensor, skip: Tensor, state: Tensor) -> list[Tensor]:
    """Product by product: what each tap of each token saw, and what it asks of it."""
    (T, W), S = (x.shape[1], taps.shape[1]), state.shape[1]
    seen, kept = torch.cat((state, x), 1), min(S + T, W)
    g_out, g_final = upstream(x, seen[:, S + T - kept :])
    output, g_seen, g_taps = skip * x, torch.zeros_like(seen), torch.zeros_like(taps)
    g_seen[:, S + T - kept :] = g_final
    g_seen[:, S:] += skip * g_out
    for t in range(T):
        for j in range(min(W, S + t + 1)):
            output[:, t] += taps[:, j] * seen[:, S + t - j]
            g_seen[:, S + t - j] += taps[:, j] * g_out[:, t]
            g_taps[:, j] += (seen[:, S + t - j] * g_out[:, t]).sum(0)
    return [output, seen[:, S + T - kept :], g_seen[:, S:], g_taps, (g_out * x).sum((0, 1)), g_seen[:, :S]]


def assert_close(got: list[Tensor], want: list[Tensor], tolerance: float) -> None:
    assert len(got) == len(want)
    for name, x, y in zip(RESULTS, got, want, strict=False):
        assert x.shape == y.shape, name
        if y.numel():
            error = ((x.double() - y).abs().max() / y.abs().max().clamp_min(1e-30)).item()
            assert error <= tolerance, f"{name} is off by {error:.1e}"


@forms
def test_is_the_sum_over_all_past_inputs(way: dict) -> None:
    for size in SIZES:
        assert_close(results(problem(size), **way), literal(*problem(size)), 1e-12)


@pytest.mark.minutes
@pytest.mark.parametrize(("dtype", "tolerance"), [(FLOAT64, 1e-12), (FLOAT32, 1e-5)], ids=["float64", "float32"])
def test_numba_is_the_sum_over_all_past_inputs(dtype: torch.dtype, tolerance: float) -> None:
    """The last size has enough products for threads."""
    for size in (*SIZES, (2, 130, 70, 130, 60)):
        got = results(problem(size), dtype, backend="numba")
        assert {x.dtype for x in got} == {dtype}
        assert_close(got, literal(*problem(size)), tolerance)


def test_a_transform_in_float32_is_as_exact_as_its_largest_sum() -> None:
    inputs = problem((2, 37, 3, 50, 20))
    assert_close(results(inputs, FLOAT32, form="fft"), literal(*inputs), 2e-6)


@pytest.mark.minutes
@ways
def test_gradcheck(way: dict) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 3, 2, 5, 3))]
    assert torch.autograd.gradcheck(lambda *x: long_conv(*x, **way), inputs)


@forms
def test_agrees_with_conv1d(way: dict) -> None:
    for size in SIZES:
        x, taps, skip, state = problem(size)
        seen = torch.nn.functional.pad(torch.cat((state, x), 1).mT, (taps.shape[1] - 1, 0))
        expected = conv1d(seen, taps.flip(1).unsqueeze(1), groups=x.shape[2])[..., -x.shape[1] :].mT
        assert_close([long_conv(x, taps, None, state, **way)[0]], [expected], 1e-12)
        assert_close([long_conv(x, taps, skip, state, **way)[0]], [expected + skip * x], 1e-12)


@pytest.mark.parametrize("cuts", [(1,) * 23, (2, 1, 7, 13), (20, 3)], ids=str)
@pytest.mark.parametrize("reach", [7, 22, 23, 40])
@forms
def test_pieces_are_the_whole(way: dict, cuts: tuple[int, ...], reach: int) -> None:
    x, taps, skip, state = problem((2, 23, 3, reach, 4))
    whole, final = long_conv(x, taps, skip, state, form="recurrent")
    outputs = []
    for piece in x.split(cuts, 1):
        output, state = long_conv(piece, taps, skip, state, **way)
        outputs.append(output)
    assert_close([torch.cat(outputs, 1), state], [whole, final], 1e-12)


@forms
def test_a_filter_may_be_made_as_it_is_needed(way: dict) -> None:
    """With as many taps as inputs so far nothing is forgotten that a later, longer filter reaches."""
    x, taps, _, _ = problem((2, 13, 3, 40, 0))
    outputs, state, read = [], None, 0
    for piece in x.split((5, 1, 1, 6), 1):
        read += piece.shape[1]
        output, state = long_conv(piece, taps[:, :read], None, state, **way)
        outputs.append(output)
    assert_close([torch.cat(outputs, 1)], [long_conv(x, taps, form="recurrent")[0]], 1e-12)


def test_the_classic_bugs_are_far_away() -> None:
    """A transform that wraps: without room, with the room of 2 T for a longer filter; the filter backwards; no past."""
    x, taps, _, state = problem((2, 37, 3, 90, 20))
    right = long_conv(x, taps, form="fft")[0]
    for points, reach in ((37, 37), (74, 90)):
        wrapped = torch.fft.irfft(torch.fft.rfft(x.mT, points) * torch.fft.rfft(taps[:, :reach], points), points)
        assert (wrapped[..., :37].mT - right).abs().max() > 0.5
    assert (long_conv(x, taps[:, :37].flip(1), form="fft")[0] - right).abs().max() > 1
    assert (long_conv(x, taps, None, state, form="fft")[0] - right).abs().max() > 1


@pytest.mark.parametrize("order", [2, 3])
def test_is_the_convolution_of_the_authors_hyena(order: int) -> None:
    """Their operator around it: a short convolution with bias, gates taken from the last but one to the first."""
    with np.load(GOLDEN) as file:
        numbers = {
            name.removeprefix(f"param:order{order}."): torch.from_numpy(file[name]) for name in file if "json" not in name
        }
        width = json.loads(str(file["config_json"]))[f"order{order}"]["d_model"]
    x = linear(numbers["input_hidden"], numbers["in_proj.weight"], numbers["in_proj.bias"]).mT
    x = conv1d(x, numbers["short_filter.weight"], numbers["short_filter.bias"], padding=2, groups=x.shape[1])
    *gates, v = x[..., : numbers["input_hidden"].shape[1]].mT.split(width, -1)
    filters = numbers[f"filter_order{order}"][0].mT.split(width)
    skips = numbers["filter_fn.bias"].split(width)
    for gate, taps, skip in zip(gates[:0:-1], filters, skips, strict=True):
        v = long_conv(v * gate, taps, skip, form="fft")[0]
    output = linear(v * gates[0], numbers["out_proj.weight"], numbers["out_proj.bias"])
    assert_close([output], [numbers[f"output_order{order}"].double()], 2e-6)


def test_the_state_grows_until_the_filter_ends() -> None:
    for tokens, reach in ((1, 9), (8, 9), (9, 9), (10, 9), (40, 9)):
        x, taps, _, _ = problem((2, tokens, 3, reach, 0))
        for way in FORMS.values():
            _, state = long_conv(x.float(), taps.float(), **way)
            assert state.shape == (2, module.past_rows(tokens, reach), 3)
            assert state_nbytes(state) == 2 * min(tokens, reach) * 3 * 4
            assert torch.equal(state, x.float()[:, -min(tokens, reach) :])


def test_auto_adds_up_what_is_little_and_transforms_what_is_much() -> None:
    def chosen(length: int, taps: int, past: int = 0, dtype: torch.dtype = FLOAT32, turned: bool = False) -> str:
        x, state = (torch.empty(1, rows, 8, dtype=dtype, device="meta") for rows in (length, past))
        filters = torch.empty(taps, 8, dtype=dtype, device="meta").mT
        run = module._chosen(x, filters.contiguous() if turned else filters, state, "auto", None)
        return {module.long_conv_fft: "fft", module.long_conv_recurrent: "loop"}.get(run, "sums")

    # Without a past half of the products are missing: 1024 tokens are still less work as sums.
    assert [chosen(T, T) for T in (1, 64, 512, 1024, 4096)] == ["sums", "sums", "sums", "sums", "fft"]
    # A short filter, and a step after a long past, are few products.
    assert [chosen(4096, 64), chosen(1, 10**5, 10**5), chosen(1024, 10**5, 10**5)] == ["sums", "sums", "fft"]
    assert [chosen(64, 64, dtype=torch.bfloat16), chosen(1, 64, 63, torch.bfloat16)] == ["fft", "sums"]
    # A kernel that wants time first would turn the whole filter for one token.
    assert [chosen(1, 64, 63, turned=True), chosen(2, 64, 63, turned=True)] == ["loop", "sums"]


def test_lengths_of_transforms() -> None:
    lengths = [module.fast_length(least) for least in range(1, 3000)]
    assert all(least <= length <= 1.34 * least for least, length in enumerate(lengths, 1))
    assert all(not (n := length // (length & -length)) & ~15 and n in module.ODD_FACTORS for length in lengths)


@forms
def test_strided_inputs_and_nothing_overwritten(way: dict) -> None:
    inputs = problem((2, 9, 5, 12, 4))
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    before = [x.clone() for x in strided]
    assert_close(results(tuple(strided), **way), results(inputs, form="recurrent"), 1e-12)
    assert all(torch.equal(x, y) for x, y in zip(strided, before, strict=True))


@pytest.mark.parametrize("past", [0, 3, 20])
@ways
def test_the_state_owns_what_it_needs_and_no_more(way: dict, past: int) -> None:
    x, taps, skip, state = problem((2, 3, 5, 9, past))
    _, final = long_conv(x, taps, skip, state, **way)
    assert final.untyped_storage().nbytes() == final.numel() * final.element_size()
    assert final.untyped_storage().data_ptr() not in (x.untyped_storage().data_ptr(), state.untyped_storage().data_ptr())


@pytest.mark.parametrize("way", [FORMS["recurrent"], NUMBA])
def test_nan_is_seen_by_w_tokens_of_its_channel(way: dict) -> None:
    x, taps, _, state = (y.clone() for y in problem((1, 40, 4, 3, 2)))
    x[0, 21, 1] = math.nan
    assert long_conv(x, taps, None, state, **way)[0].isnan().nonzero().tolist() == [[0, t, 1] for t in (21, 22, 23)]


def test_bfloat16_is_summed_in_float32_and_its_state_is_bfloat16() -> None:
    half = tuple(x.bfloat16() for x in problem((2, 37, 5, 40, 3)))
    exact = long_conv(*(x.double() for x in half), form="recurrent")
    for way in ({}, *FORMS.values()):
        output, final = long_conv(*half, **way)
        assert (output.dtype, final.dtype) == (torch.bfloat16, torch.bfloat16)
        assert_close([output], [exact[0]], 2**-8)
        assert torch.equal(final.double(), exact[1])


@pytest.mark.minutes
def test_numba_operator_passes_opcheck() -> None:
    x, taps, _, state = (x.clone().requires_grad_() for x in problem((2, 5, 3, 4, 2)))
    long_conv(x, taps, backend="numba")
    torch.library.opcheck(torch.ops.hybridlab.long_conv_numba.default, (x, taps, state))


@pytest.mark.parametrize("way", [{"form": "fft"}, pytest.param({"backend": "numba"}, marks=pytest.mark.minutes)], ids=str)
def test_compiles_in_one_graph(way: dict) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 7, 3, 9, 4))]
    compiled = torch.compile(lambda *x: long_conv(*x, **way), fullgraph=True, backend="aot_eager")
    got, want = compiled(*inputs), long_conv(*inputs, **way)
    assert_close(list(got), list(want), 1e-15)
    assert_close(list(torch.autograd.grad(got[0].sum(), inputs)), list(torch.autograd.grad(want[0].sum(), inputs)), 1e-14)


@ways
def test_meta_tensors_have_the_shapes_of_real_ones(way: dict) -> None:
    for size in ((2, 37, 3, 20, 4), (1, 1, 3, 20, 4)):
        real = long_conv(*problem(size), form="recurrent")
        for meta, one in zip(long_conv(*(x.to("meta") for x in problem(size)), **way), real, strict=True):
            assert (meta.is_meta, meta.shape, meta.dtype) == (True, one.shape, one.dtype)


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=FLOAT64)


BAD = {
    "x is a list": ({"x": [1.0]}, "x must be a tensor, got list"),
    "x is int": ({"x": torch.ones(2, 4, 3, dtype=torch.int64)}, "x must be floating, got torch.int64"),
    "x of two axes": ({"x": zeros(4, 3)}, r"x must have 3 axes \(B, T, D\), got shape \(4, 3\)"),
    "T = 0": ({"x": zeros(2, 0, 3)}, "T = 0; every axis needs at least one entry"),
    "filter a list": ({"filter": [1.0]}, "filter must be a tensor, got list"),
    "filter transposed": ({"filter": zeros(5, 3)}, r"filter must be \(D, W\) with D = 3, got shape \(5, 3\)"),
    "filter without taps": ({"filter": zeros(3, 0)}, "W = 0; every axis needs at least one entry"),
    "skip too long": ({"skip": zeros(5)}, r"skip must be \(D\) with D = 3, got shape \(5,\)"),
    "skip in float32": ({"skip": zeros(3).float()}, "skip is torch.float32 but x is torch.float64"),
    "state of another width": ({"state": zeros(2, 4, 5)}, r"state must be \(2, S, 3\), got \(2, 4, 5\)"),
    "state of two axes": ({"state": zeros(4, 3)}, r"state must be \(2, S, 3\), got \(4, 3\)"),
    "state in float32": ({"state": zeros(2, 3, 3).float()}, "state is torch.float32 on cpu but x is torch.float64 on cpu"),
    "state a tuple": ({"state": (1, 2)}, "state must be a tensor or None, got tuple"),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba, triton"),
    "no chunks": ({"form": "chunked"}, "unknown form 'chunked'; choose recurrent, parallel, fft"),
    "form with a kernel": ({"form": "fft", "backend": "numba"}, "form='fft' is plain PyTorch .* backend='numba'"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    good = dict(zip(NAMES, problem((2, 4, 3, 5, 2)), strict=True))
    with pytest.raises(ValueError, match=f"^long_conv: .*{message}"):
        long_conv(**good | changes)
