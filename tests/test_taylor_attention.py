"""taylor_attention: every form and the kernel are the literal loop, gradients too, and Based's own layer."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridlab.ops.taylor_attention import FORMS, TaylorState, feature_count, taylor_attention, taylor_features
from hybridlab.state import state_nbytes

FLOAT64, FLOAT32 = torch.float64, torch.float32
TOLERANCE = {FLOAT64: 1e-12, FLOAT32: 2e-5}
FORM_WAYS = {
    "recurrent": {"form": "recurrent"},
    "parallel": {"form": "parallel"},
    "chunked": {"form": "chunked"},
    "chunks of 1": {"form": "chunked", "chunk_size": 1},
    "chunks of 16": {"form": "chunked", "chunk_size": 16},
}
NUMBA = {"backend": "numba"}
forms = pytest.mark.parametrize("way", FORM_WAYS.values(), ids=FORM_WAYS)
# Numba compiles for half a minute, most of it for the backward.
ways = pytest.mark.parametrize(
    "way", [*FORM_WAYS.values(), pytest.param(NUMBA, marks=pytest.mark.minutes)], ids=[*FORM_WAYS, "numba"]
)
NAMES = ("q", "k", "v", "kv_state", "k_state")
RESULTS = ("output", "final KV", "final K", *(f"gradient of {name}" for name in NAMES))
Size = tuple[int, int, int, int, int]
# (B, T, H, K, V): few tokens, which Numba takes one by one; chunks that are full, one longer, not full; keys of one number,
# of as many as in the published models, of more.
SIZES: list[Size] = [(1, 1, 1, 1, 1), (3, 1, 2, 5, 16), (2, 7, 3, 5, 3), (2, 64, 3, 2, 4), (1, 65, 2, 1, 3)]
SIZES += [(2, 130, 2, 3, 5), (1, 130, 2, 8, 33), (1, 70, 1, 16, 64), (1, 67, 1, 24, 7)]


@functools.cache
def problem(size: Size, lift: float = 1.0) -> tuple[Tensor, ...]:
    """q, k, v, KV, K in float64; every number exists in float32 too.

    K is that of a few keys, so that no sum of weights is near 0, and has a part that no feature reads: ij is not ji.
    """
    batch, T, H, K, V = size
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(T + K), dtype=FLOAT64)
    kv, total = draw(batch, H, feature_count(K), V), taylor_features(draw(batch, H, 3, K)).sum(2)
    apart = draw(batch, H, K, K)
    total[..., 1 + K :] += (apart - apart.mT).flatten(-2)
    tensors = lift * draw(batch, T, H, K), draw(batch, T, H, K), draw(batch, T, H, V), kv, total
    return tuple(x.float().double() for x in tensors)


def results(
    inputs: tuple[Tensor, ...], dtype: torch.dtype = FLOAT64, with_state: bool = True, **way: object
) -> tuple[Tensor, ...]:
    """Output, final state and every gradient, for fixed random gradients of the former."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in (inputs if with_state else inputs[:3])]
    output, state = taylor_attention(*leaves[:3], TaylorState(*leaves[3:]) if with_state else None, **way)
    found = (output, *state)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=generator).to(dtype) for y in found]
    return (*(y.detach() for y in found), *torch.autograd.grad(found, leaves, upstream))


def errors(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> dict[str, float]:
    """The worst error of each result beside its largest entry."""
    named = zip(RESULTS, got, want, strict=False)
    return {name: ((x.double() - y).abs().max() / y.abs().max().clamp_min(0.01)).item() for name, x, y in named}


def assert_close(got: tuple[Tensor, ...], want: tuple[Tensor, ...], tolerance: float) -> None:
    assert [x.shape for x in got] == [y.shape for y in want]
    wrong = {name: f"{error:.1e}" for name, error in errors(got, want).items() if not error <= tolerance}
    assert not wrong, f"beyond {tolerance:.0e}: {wrong}"


@ways
def test_by_hand(way: dict) -> None:
    """One number a head, so K^(1/4) is 1: scores are products, and weights 1 + s + s^2/2."""
    q, k, v = (torch.tensor(x, dtype=FLOAT64).view(1, 3, 1, 1) for x in ([1.0, 2, -1], [1.0, 0, 3], [10.0, 1, 7]))
    output, state = taylor_attention(q, k, v, **way)
    want = [10.0, (5 * 10 + 1 * 1) / 6, (0.5 * 10 + 1 * 1 + 2.5 * 7) / 4]
    torch.testing.assert_close(output.flatten().tolist(), want)
    half = math.sqrt(0.5)
    torch.testing.assert_close(state.k.flatten().tolist(), [3.0, 4.0, 10 * half])
    torch.testing.assert_close(state.kv.flatten().tolist(), [18.0, 31.0, 73 * half])


def test_features_are_the_polynomial_in_the_order_of_the_published_code() -> None:
    x, y = torch.randn(2, 7, 5, dtype=FLOAT64)
    scores = (x * y).sum(-1) / math.sqrt(5)
    torch.testing.assert_close((taylor_features(x) * taylor_features(y)).sum(-1), 1 + scores + scores**2 / 2)
    x = torch.tensor([2.0, 3.0], dtype=FLOAT64)
    torch.testing.assert_close(taylor_features(x), torch.tensor([1, 2 / 2**0.25, 3 / 2**0.25, 2, 3, 3, 4.5], dtype=FLOAT64))


@ways
def test_is_attention_with_polynomial_weights(way: dict) -> None:
    q, k, v, *_ = problem((2, 70, 3, 4, 5))
    scores = torch.einsum("bthk,bshk->bhts", q, k) / 2
    weights = (1 + scores + scores**2 / 2).tril()
    want = torch.einsum("bhts,bshv->bthv", weights / weights.sum(-1, keepdim=True), v)
    assert_close((taylor_attention(q, k, v, eps=0, **way)[0],), (want,), 1e-13)


@ways
def test_is_the_layer_of_based(way: dict) -> None:
    """Projections of the authors' layer around the op; their output is float32."""
    with np.load(Path(__file__).parent / "data" / "based_mixers.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file if name != "config_json"}
    x = arrays["input_hidden"]
    weights = [arrays[f"param:lin.proj_{name}.weight"] for name in "qkv"]
    q, k, v = ((x @ weight.mT).unflatten(-1, (4, -1)) for weight in weights)
    output = taylor_attention(q, k, v, **way)[0].flatten(2) @ arrays["param:lin.out_proj.weight"].mT
    want = arrays["output_linear_attention"]
    assert (output - want).abs().max() < 2e-6 * want.abs().max()


def assert_agrees_with_the_loop(dtype: torch.dtype, size: Size, **way: object) -> None:
    # One token without a state is its own value, whatever q is: see the test of that.
    for with_state in (True, False) if size[1] > 1 else (True,):
        want = results(problem(size), FLOAT64, with_state, form="recurrent")
        got = results(problem(size), dtype, with_state, **way)
        assert {x.dtype for x in got} == {dtype}
        assert_close(got, want, TOLERANCE[dtype])


def test_forms_agree_with_the_loop() -> None:
    for size in ((1, 1, 1, 1, 1), (2, 35, 2, 3, 5), (1, 67, 1, 8, 4)):
        for way in FORM_WAYS.values():
            assert_agrees_with_the_loop(FLOAT64, size, **way)
    assert_agrees_with_the_loop(FLOAT32, (2, 35, 2, 3, 5), form="chunked")


@pytest.mark.minutes
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_numba_agrees_with_the_loop(dtype: torch.dtype, size: Size) -> None:
    assert_agrees_with_the_loop(dtype, size, **NUMBA)


@ways
def test_one_token_alone_is_its_own_value(way: dict) -> None:
    for dtype in TOLERANCE:
        q, k, v = (x.to(dtype).requires_grad_() for x in problem((3, 1, 2, 5, 16))[:3])
        output, _ = taylor_attention(q, k, v, eps=0, **way)
        torch.testing.assert_close(output, v)
        for gradient in torch.autograd.grad(output.square().sum(), (q, k)):
            assert gradient.abs().max() < TOLERANCE[dtype]


@ways
def test_large_scores(way: dict) -> None:
    """Weights of 1e7 beside weights of 1: sums of them have all digits of a float32, and so have gradients."""
    inputs = problem((1, 70, 2, 3, 4), 1000.0)
    scores = torch.einsum("bthk,bshk->bhts", *inputs[:2]) / math.sqrt(3)
    assert scores.abs().max() > 3000
    want = results(inputs, form="recurrent")
    for dtype in TOLERANCE:
        assert_close(results(inputs, dtype, **way), want, TOLERANCE[dtype])


@ways
def test_eps_is_added_to_the_sum_of_weights(way: dict) -> None:
    q, k, v, *_ = problem((2, 11, 2, 3, 4))
    scores = torch.einsum("bthk,bshk->bhts", q, k) / math.sqrt(3)
    total = (1 + scores + scores**2 / 2).tril().sum(-1).mT.unsqueeze(-1)
    plain, _ = taylor_attention(q, k, v, eps=0, **way)
    torch.testing.assert_close(taylor_attention(q, k, v, eps=0.5, **way)[0], plain * total / (total + 0.5))
    torch.testing.assert_close(taylor_attention(q, k, v, **way)[0], plain, rtol=1e-10, atol=1e-10)


@ways
def test_gradcheck(way: dict) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((1, 9, 2, 2, 2))]

    def run(q: Tensor, k: Tensor, v: Tensor, kv: Tensor, total: Tensor) -> tuple[Tensor, ...]:
        output, state = taylor_attention(q, k, v, TaylorState(kv, total), **way)
        return output, *state

    assert torch.autograd.gradcheck(run, inputs)


@ways
def test_one_gradient_is_enough(way: dict) -> None:
    """A loss of the output alone, of KV alone, of K alone."""
    for which in range(3):
        got, want = ([x.clone().requires_grad_() for x in problem((2, 9, 2, 3, 2))] for _ in range(2))
        for leaves, how in ((got, way), (want, {"form": "recurrent"})):
            output, state = taylor_attention(*leaves[:3], TaylorState(*leaves[3:]), **how)
            (output, *state)[which].sum().backward()
        for x, y in zip(got, want, strict=True):
            torch.testing.assert_close(*(torch.zeros_like(z) if z.grad is None else z.grad for z in (x, y)))


@ways
def test_pieces_are_the_whole(way: dict) -> None:
    """Both parts of the state are carried: without K, a piece's weights would sum to 1 by themselves."""
    q, k, v, *given = problem((2, 100, 2, 3, 5))
    whole, final = taylor_attention(q, k, v, TaylorState(*given), form="recurrent")
    for cuts in ((1, 99), (7, 64, 29), (64, 36), (1,) * 100):
        state, outputs = TaylorState(*given), []
        for piece in zip(*(x.split(cuts, 1) for x in (q, k, v)), strict=True):
            output, state = taylor_attention(*piece, state, **way)
            outputs.append(output)
        assert_close((torch.cat(outputs, 1), *state), (whole, *final), 1e-12)


def state_ignored(q: Tensor, k: Tensor, v: Tensor, kv: Tensor, total: Tensor) -> Tensor:
    return taylor_attention(q, k, v, form="parallel")[0]


def sums_not_carried(q: Tensor, k: Tensor, v: Tensor, kv: Tensor, total: Tensor) -> Tensor:
    return taylor_attention(q, k, v, TaylorState(kv, 0 * total), form="parallel")[0]


def not_normalised_by_itself(q: Tensor, k: Tensor, v: Tensor, kv: Tensor, total: Tensor) -> Tensor:
    """A token that reads before it is written, as the state has it."""
    shifted = torch.cat((torch.zeros_like(k[:, :1]), k[:, :-1]), 1), torch.cat((torch.zeros_like(v[:, :1]), v[:, :-1]), 1)
    return taylor_attention(q, *shifted, TaylorState(kv, total), form="parallel")[0]


def not_scaled(q: Tensor, k: Tensor, v: Tensor, kv: Tensor, total: Tensor) -> Tensor:
    return taylor_attention(q * q.shape[3] ** 0.5, k, v, TaylorState(kv, total), form="parallel")[0]


def first_order(q: Tensor, k: Tensor, v: Tensor, kv: Tensor, total: Tensor) -> Tensor:
    """Without the square: 1 + s."""
    tiny = 1e-4
    kv, total = kv.clone(), total.clone()
    for x in (kv, total):
        x[:, :, 1 : 1 + q.shape[3]] /= tiny
    return taylor_attention(q * tiny, k, v, TaylorState(kv, total), form="parallel")[0]


@pytest.mark.parametrize("mutant", [state_ignored, sums_not_carried, not_normalised_by_itself, not_scaled, first_order])
def test_the_inputs_tell_classic_bugs_apart(mutant: object) -> None:
    """Were an implementation wrong in this way, the comparisons above would see it."""
    for size in SIZES[1:4] + SIZES[5:7]:
        inputs = problem(size)
        want, _ = taylor_attention(*inputs[:3], TaylorState(*inputs[3:]), form="recurrent")
        assert errors((mutant(*inputs),), (want,))["output"] > 100 * TOLERANCE[FLOAT32]


@ways
def test_the_state_owns_what_its_formula_says(way: dict) -> None:
    for T in (1, 70):
        *inputs, kv, total = problem((2, T, 3, 4, 5))
        _, final = taylor_attention(*inputs, TaylorState(kv, total), **way)
        assert state_nbytes(final) == 2 * 3 * (1 + 4 + 16) * (5 + 1) * 8
        assert sum(x.untyped_storage().nbytes() for x in final) == state_nbytes(final)


@ways
def test_strided_inputs_and_nothing_overwritten(way: dict) -> None:
    for T in (3, 70):
        inputs = problem((2, T, 3, 4, 5))
        strided = tuple(x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs)
        before = [x.clone() for x in strided]
        assert_close(results(strided, **way), results(inputs, form="recurrent"), 1e-12)
        assert all(torch.equal(x, y) for x, y in zip(strided, before, strict=True))


def test_bfloat16_takes_the_chunked_form_and_a_float32_state() -> None:
    q, k, v, *state = problem((2, 71, 2, 5, 3))
    q, k, v, state = q.bfloat16(), k.bfloat16(), v.bfloat16(), TaylorState(*(x.float() for x in state))
    output, final = taylor_attention(q, k, v, state)
    same, same_final = taylor_attention(q, k, v, state, form="chunked")
    assert (output.dtype, *(x.dtype for x in final)) == (torch.bfloat16, FLOAT32, FLOAT32)
    assert all(torch.equal(x, y) for x, y in zip((output, *final), (same, *same_final), strict=True))
    wide = TaylorState(*(x.double() for x in state))
    exact, exact_final = taylor_attention(q.double(), k.double(), v.double(), wide, form="recurrent")
    assert_close((output,), (exact,), 2**-8)
    assert_close((output, *final), (output.double(), *exact_final), 2e-6)


@pytest.mark.minutes
def test_auto_is_numba_on_a_cpu() -> None:
    for T in (1, 71):
        q, k, v, *_ = (x.float() for x in problem((2, T, 2, 5, 3)))
        (got, state), (want, same) = taylor_attention(q, k, v), taylor_attention(q, k, v, backend="numba")
        assert all(torch.equal(x, y) for x, y in zip((got, *state), (want, *same), strict=True))


@pytest.mark.minutes
def test_numba_operator_passes_opcheck() -> None:
    q, k, v, *state = (x.clone().requires_grad_() for x in problem((2, 9, 2, 3, 2)))
    taylor_attention(q, k, v, **NUMBA)
    eps = torch.tensor(1e-12, dtype=FLOAT64)
    torch.library.opcheck(torch.ops.hybridlab.taylor_attention_numba.default, (q, k, v, eps, *state))


@pytest.mark.parametrize(
    "name", ["chunked", *(pytest.param(name, marks=pytest.mark.minutes) for name in ("recurrent", "parallel", "numba"))]
)
def test_compiles_in_one_graph(name: str) -> None:
    way = NUMBA if name == "numba" else FORM_WAYS[name]
    inputs = [x.clone().requires_grad_() for x in problem((2, 3, 2, 3, 2) if name == "recurrent" else (2, 9, 2, 3, 2))]

    def run(q: Tensor, k: Tensor, v: Tensor, *state: Tensor) -> Tensor:
        return taylor_attention(q, k, v, TaylorState(*state), **way)[0]

    got, want = torch.compile(run, fullgraph=True, backend="aot_eager")(*inputs), run(*inputs)
    torch.testing.assert_close(got, want)
    for x, y in zip(torch.autograd.grad(got.sum(), inputs), torch.autograd.grad(want.sum(), inputs), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("way", [*FORM_WAYS.values(), NUMBA], ids=[*FORM_WAYS, "numba"])
def test_runs_on_meta(way: dict) -> None:
    q, k, v, *state = (x.to("meta") for x in problem((2, 9, 4, 3, 5)))
    output, final = taylor_attention(q, k, v, TaylorState(*state), **way)
    assert (output.shape, final.kv.shape, final.k.shape) == ((2, 9, 4, 5), (2, 4, 13, 5), (2, 4, 13))
    assert {x.device.type for x in (output, *final)} == {"meta"}


def changed(**changes: object) -> dict[str, object]:
    q, k, v, *state = problem((2, 4, 3, 5, 7))
    return {"q": q, "k": k, "v": v, "state": TaylorState(*state)} | changes


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=FLOAT64)


KV, SUMS = zeros(2, 3, 31, 7), zeros(2, 3, 31)
BAD = {
    "q is a list": ({"q": [1.0]}, "q must be a tensor, got list"),
    "q lacks an axis": ({"q": zeros(2, 4, 15)}, r"q must have 4 axes \(B, T, H, K\), got shape \(2, 4, 15\)"),
    "k of fewer heads": ({"k": zeros(2, 4, 1, 5)}, r"k must be \(B, T, H, K\) with H = 3, got shape \(2, 4, 1, 5\)"),
    "v is shorter": ({"v": zeros(2, 3, 3, 7)}, r"v must be \(B, T, H, V\) with T = 4, got shape \(2, 3, 3, 7\)"),
    "T = 0": ({x: zeros(2, 0, 3, 7) for x in ("q", "k", "v")}, "T = 0; every axis needs at least one entry"),
    "k in float32": ({"k": torch.zeros(2, 4, 3, 5)}, "k is torch.float32 but q is torch.float64"),
    "v elsewhere": ({"v": zeros(2, 4, 3, 7).to("meta")}, "v is on meta but q is on cpu"),
    "state one tensor": ({"state": KV}, r"state must be a pair \(KV, K\) or None, got Tensor"),
    "state of three": ({"state": (KV, SUMS, SUMS)}, r"state must be a pair \(KV, K\) or None, got tuple"),
    "KV turned": ({"state": (KV.mT, SUMS)}, r"state's KV must have shape \(2, 3, 31, 7\), got \(2, 3, 7, 31\)"),
    "KV of half the features": (
        {"state": (zeros(2, 3, 21, 7), SUMS)},
        r"state's KV must have shape \(2, 3, 31, 7\), got \(2, 3, 21, 7\)",
    ),
    "K with values": ({"state": (KV, KV)}, r"state's K must have shape \(2, 3, 31\), got \(2, 3, 31, 7\)"),
    "K in float32": ({"state": (KV, SUMS.float())}, "state's K must be torch.float64 for torch.float64 inputs"),
    "eps below 0": ({"eps": -1e-6}, "eps must be a finite number and at least 0, got -1e-06"),
    "eps infinite": ({"eps": math.inf}, "eps must be a finite number and at least 0, got inf"),
    "eps NaN": ({"eps": math.nan}, "eps must be a finite number and at least 0, got nan"),
    "eps a tensor": ({"eps": zeros(1)}, "eps must be a finite number and at least 0, got tensor"),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba"),
    "unknown form": ({"form": "scan"}, "unknown form 'scan'; choose recurrent, parallel, chunked"),
    "form with a kernel": ({"form": "chunked", "backend": "numba"}, "form='chunked' is plain PyTorch .* backend='numba'"),
    "chunk of none": ({"form": "chunked", "chunk_size": 0}, "chunk_size must be a positive int, got 0"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^taylor_attention: .*{message}"):
        taylor_attention(**changed(**changes))


def test_forms_are_named() -> None:
    assert set(FORMS) == {"recurrent", "parallel", "chunked"}
    naive, loop = taylor_attention(**changed(), backend="naive"), taylor_attention(**changed(), form="recurrent")
    assert torch.equal(naive[0], loop[0])
