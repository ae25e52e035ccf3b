"""linear_recurrence: every form and kernel is the literal loop, gradients too, whatever a is."""

import functools
import math

import pytest
import torch
from torch import Tensor
from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

from hybridlab.ops.linear_recurrence import linear_recurrence

FLOAT64, FLOAT32 = torch.float64, torch.float32
TOLERANCE = {FLOAT64: 1e-12, FLOAT32: 2e-6}
WAYS = {
    "recurrent": {"form": "recurrent"},
    "parallel": {"form": "parallel"},
    "chunked": {"form": "chunked"},
    "chunks of 5": {"form": "chunked", "chunk_size": 5},
    "numba": {"backend": "numba"},
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
dtypes = pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32], ids=["float64", "float32"])
# (B, T, D): one token, one channel, one past a chunk and past two, blocks of channels on threads, wide and short.
SIZES = [(1, 1, 1), (3, 1, 7), (2, 13, 5), (2, 33, 3), (1, 65, 67), (1, 130, 200), (1, 5, 4001)]
# What a may be: usual decays, 1 (nothing fades), 0 (all forgotten), +-1 and 0 mixed with numbers of both signs, all but 0.
KINDS = ("usual", "one", "zero", "signs", "tiny")
NAMES = ("output", "final state", "gradient of a", "gradient of b", "gradient of state")


@functools.cache
def problem(size: tuple[int, int, int], kind: str = "usual") -> tuple[Tensor, ...]:
    """a, b, state in float64; every number exists in float32 too."""
    B, T, D = size
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(T), dtype=FLOAT64)
    a = {
        "usual": lambda: draw(B, T, D).sigmoid(),
        "one": lambda: torch.ones(B, T, D, dtype=FLOAT64),
        "zero": lambda: torch.zeros(B, T, D, dtype=FLOAT64),
        "signs": lambda: (1.5 * draw(B, T, D)).round().clamp(-1, 1) * (0.3 * draw(B, T, D)).round().exp().clamp(max=1),
        "tiny": lambda: draw(B, T, D) * 1e-20,
    }[kind]()
    return tuple(x.float().double() for x in (a, draw(B, T, D), draw(B, D)))


def results(
    inputs: tuple[Tensor, ...], dtype: torch.dtype = FLOAT64, with_state: bool = True, **way: object
) -> list[Tensor]:
    """Output, final state and every gradient, for fixed random gradients of the first two."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in (inputs if with_state else inputs[:2])]
    found = linear_recurrence(*leaves, **way)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=generator).to(dtype) for y in found]
    return [*found, *torch.autograd.grad(found, leaves, upstream)]


def literal(a: Tensor, b: Tensor, state: Tensor, g_out: Tensor, g_final: Tensor) -> list[Tensor]:
    """Sums over all pairs of tokens: h_t = sum_i (a_{i+1} ... a_t) b_i with b_0 = state, and the gradients of that sum."""
    T = a.shape[1]
    added = torch.cat((state.unsqueeze(1), b), 1)
    kept = torch.zeros(T + 1, T + 1, *state.shape, dtype=FLOAT64)  # [t, i]: what is left of token i at token t
    for i in range(T + 1):
        kept[i, i] = 1
        for t in range(i + 1, T + 1):
            kept[t, i] = kept[t - 1, i] * a[:, t - 1]
    h = torch.einsum("tibd,bid->btd", kept, added)
    asked = torch.cat((0 * g_final.unsqueeze(1), g_out), 1)
    asked[:, T] += g_final
    g = torch.einsum("tibd,btd->bid", kept, asked)
    return [h[:, 1:], h[:, T], g[:, 1:] * h[:, :-1], g[:, 1:], g[:, 0]]


def assert_close(got: list[Tensor], want: list[Tensor], tolerance: float) -> None:
    assert len(got) == len(want)
    for name, x, y in zip(NAMES, got, want, strict=False):
        assert x.shape == y.shape, name
        error = ((x.double() - y).abs().max() / y.abs().max().clamp_min(1e-30)).item()
        assert error <= tolerance, f"{name} is off by {error:.1e}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1, 2), (2, 13, 5), (1, 40, 3)], ids=str)
@ways
def test_is_the_sum_over_all_pairs(way: dict, size: tuple[int, int, int], kind: str) -> None:
    inputs = problem(size, kind)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(x.shape, generator=generator).double() for x in inputs[1:]]
    assert_close(results(inputs, **way), literal(*inputs, *upstream), 1e-12)


@pytest.mark.parametrize("with_state", [True, False], ids=["state", "no-state"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@dtypes
@ways
def test_agrees_with_the_loop(
    way: dict, dtype: torch.dtype, size: tuple[int, int, int], kind: str, with_state: bool
) -> None:
    inputs = problem(size, kind)
    got = results(inputs, dtype, with_state, **way)
    assert {x.dtype for x in got} == {dtype}
    assert_close(got, results(inputs, FLOAT64, with_state, form="recurrent"), TOLERANCE[dtype])


@ways
def test_gradcheck(way: dict) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 7, 3), "signs")]
    assert torch.autograd.gradcheck(lambda *x: linear_recurrence(*x, **way), inputs)


@ways
def test_one_gradient_is_enough(way: dict) -> None:
    """A loss of the output alone, or of the state alone."""
    for which in (0, 1):
        leaves = [x.clone().requires_grad_() for x in problem((2, 9, 3))]
        twins = [x.clone().requires_grad_() for x in problem((2, 9, 3))]
        got = torch.autograd.grad(linear_recurrence(*leaves, **way)[which].sum(), leaves)
        want = torch.autograd.grad(linear_recurrence(*twins, form="recurrent")[which].sum(), twins)
        assert_close(list(got), list(want), 1e-12)


def test_dividing_by_the_cumulative_product_is_lost_where_no_form_is() -> None:
    """P_t sum(b / P): right for a few tokens, NaN once the product of 130 usual decays has underflowed, or one a is 0."""

    def divided(a: Tensor, b: Tensor) -> Tensor:
        product = a.cumprod(1)
        return product * (b / product).cumsum(1)

    generator = torch.Generator().manual_seed(0)
    a = 0.01 + 0.98 * torch.rand(1, 130, 4, generator=generator)
    b = torch.randn(1, 130, 4, generator=generator)
    truth, _ = linear_recurrence(a.double(), b.double(), form="recurrent")
    assert_close([divided(a[:, :40], b[:, :40])], [truth[:, :40]], 1e-4)
    assert divided(a, b).isnan().any()
    for way in WAYS.values():
        assert_close([linear_recurrence(a, b, **way)[0]], [truth], 1e-6)


@pytest.mark.parametrize("cuts", [(1, 36), (7, 17, 13), (32, 5)], ids=str)
@ways
def test_pieces_are_the_whole(way: dict, cuts: tuple[int, ...]) -> None:
    a, b, state = problem((2, 37, 5), "signs")
    whole, final = linear_recurrence(a, b, state, form="recurrent")
    outputs = []
    for a_piece, b_piece in zip(a.split(cuts, 1), b.split(cuts, 1), strict=True):
        output, state = linear_recurrence(a_piece, b_piece, state, **way)
        outputs.append(output)
    assert_close([torch.cat(outputs, 1), state], [whole, final], 1e-12)


@ways
def test_a_zero_forgets_the_past_and_its_gradient(way: dict) -> None:
    a, b, state = (x.clone() for x in problem((2, 20, 3)))
    a[:, 6] = 0
    output, _ = linear_recurrence(a, b, state, **way)
    state.requires_grad_()
    changed, _ = linear_recurrence(a, b, state, **way)
    assert torch.equal(output[:, 6:], changed[:, 6:].detach())
    assert not torch.autograd.grad(changed[:, 6:].sum(), state)[0].any()
    assert torch.equal(output[:, 6], b[:, 6])


@ways
def test_agrees_with_transformers(way: dict) -> None:
    a, b, state = (x.float() for x in problem((2, 23, 9)))
    never = torch.zeros(2, 23, 1, dtype=torch.bool)
    expected, theirs = RecurrentGemmaRglru._rnn_scan(None, b, a, never, state)
    assert_close(list(linear_recurrence(a, b, state, **way)), [expected.double(), theirs.double()], 1e-6)


@ways
def test_strided_inputs_and_nothing_overwritten(way: dict) -> None:
    inputs = problem((2, 9, 5))
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    before = [x.clone() for x in strided]
    assert_close(results(tuple(strided), **way), results(inputs, form="recurrent"), 1e-12)
    assert_close(list(linear_recurrence(*strided, **way)), list(linear_recurrence(*inputs, form="recurrent")), 1e-12)
    assert all(torch.equal(x, y) for x, y in zip(strided, before, strict=True))


@ways
def test_the_state_owns_what_it_needs_and_no_more(way: dict) -> None:
    _, final = linear_recurrence(*problem((2, 65, 5)), **way)
    assert final.untyped_storage().nbytes() == final.numel() * final.element_size()


@ways
def test_nan_stays_visible_and_in_its_channel(way: dict) -> None:
    a, b, state = (x.clone() for x in problem((1, 40, 4)))
    b[0, 3, 1] = math.nan
    output, final = linear_recurrence(a, b, state, **way)
    assert output[0, 3:, 1].isnan().all()
    assert final[0, 1].isnan()
    assert output[0, :, [0, 2, 3]].isfinite().all()


def test_the_numba_forward_saves_only_its_inputs_and_results() -> None:
    saved: list[Tensor] = []
    inputs = [x.clone().requires_grad_() for x in problem((2, 65, 5))]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x), x)[1], lambda x: x):
        output, state = linear_recurrence(*inputs, backend="numba")
    assert sum(x.numel() for x in saved) == sum(x.numel() for x in (*inputs, output, state))


def test_bfloat16_takes_the_chunked_form_and_a_float32_state() -> None:
    a, b, state = problem((2, 37, 5))
    half = (a.bfloat16(), b.bfloat16(), state.float())
    output, final = linear_recurrence(*half)
    same, _ = linear_recurrence(*half, form="chunked")
    assert (output.dtype, final.dtype) == (torch.bfloat16, FLOAT32)
    assert torch.equal(output, same)
    exact = linear_recurrence(*(x.double() for x in half), form="recurrent")
    assert_close([output], [exact[0]], 2**-8)
    assert_close([final], [exact[1]], 2e-6)


def test_numba_operator_passes_opcheck() -> None:
    inputs = tuple(x.clone().requires_grad_() for x in problem((2, 5, 3)))
    linear_recurrence(*inputs, backend="numba")
    torch.library.opcheck(torch.ops.hybridlab.linear_recurrence_numba.default, inputs)


@pytest.mark.parametrize("way", [{"backend": "numba"}, {"form": "parallel"}, {"form": "chunked"}], ids=str)
def test_compiles_in_one_graph(way: dict) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 7, 3))]
    compiled = torch.compile(lambda *x: linear_recurrence(*x, **way), fullgraph=True, backend="aot_eager")
    got, want = compiled(*inputs), linear_recurrence(*inputs, **way)
    assert_close(list(got), list(want), 1e-15)
    assert_close(list(torch.autograd.grad(got[0].sum(), inputs)), list(torch.autograd.grad(want[0].sum(), inputs)), 1e-15)


@ways
def test_meta_tensors_have_the_shapes_of_real_ones(way: dict) -> None:
    inputs = problem((2, 37, 3))
    real = linear_recurrence(*inputs, **way)
    for meta, one in zip(linear_recurrence(*(x.to("meta") for x in inputs), **way), real, strict=True):
        assert (meta.is_meta, meta.shape, meta.dtype, meta.stride()) == (True, one.shape, one.dtype, one.stride())


BAD = {
    "a is a list": ({"a": [1.0]}, "a must be a tensor, got list"),
    "a is int": ({"a": torch.ones(2, 4, 3, dtype=torch.int64)}, r"a must be floating, got torch.int64"),
    "a lacks an axis": ({"a": torch.zeros(2, 4).double()}, r"a must have 3 axes \(B, T, D\), got shape \(2, 4\)"),
    "a a channel": ({"a": torch.zeros(2, 1, 3).double()}, r"b must be \(B, T, D\) with T = 1, got shape \(2, 4, 3\)"),
    "b is wider": ({"b": torch.zeros(2, 4, 5).double()}, r"b must be \(B, T, D\) with D = 3, got shape \(2, 4, 5\)"),
    "b in float32": ({"b": torch.zeros(2, 4, 3)}, "b is torch.float32 but a is torch.float64"),
    "b elsewhere": ({"b": torch.zeros(2, 4, 3, device="meta").double()}, "b is on meta but a is on cpu"),
    "T = 0": (
        {"a": torch.zeros(2, 0, 3).double(), "b": torch.zeros(2, 0, 3).double()},
        "T = 0; every axis needs at least one",
    ),
    "state of a token": ({"state": torch.zeros(2, 1, 3).double()}, r"state must have shape \(2, 3\), got \(2, 1, 3\)"),
    "state in float32": ({"state": torch.zeros(2, 3)}, "state must be torch.float64 for torch.float64 inputs"),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba, triton"),
    "unknown form": ({"form": "scan"}, "unknown form 'scan'; choose recurrent, parallel, chunked"),
    "form with a kernel": ({"form": "parallel", "backend": "numba"}, "form='parallel' is plain PyTorch .* backend='numba'"),
    "chunk of none": ({"form": "chunked", "chunk_size": 0}, "chunk_size must be a positive int, got 0"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    good = dict(zip(("a", "b", "state"), problem((2, 4, 3)), strict=True))
    with pytest.raises(ValueError, match=f"^linear_recurrence: .*{message}"):
        linear_recurrence(**good | changes)
