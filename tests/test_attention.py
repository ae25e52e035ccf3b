"""attention: every form is the softmax written pair by pair, and a cache cut to what can be seen changes nothing."""

import math
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from hybridlab.layers import GroupedAttention, set_backend
from hybridlab.models import HybridConfig, HybridLM
from hybridlab.ops.attention import BACKENDS, AttentionState, attention, cache_rows
from hybridlab.state import state_nbytes

MODULE = sys.modules["hybridlab.ops.attention"]  # the package's `attention` is the function
FORMS = ("parallel", "recurrent", "sdpa", "chunked")
EVERY_FORM = pytest.mark.parametrize("form", FORMS)
# What a query sees: everything, windows of one, of a few and of more than the text, and sinks before, in and beyond them.
SIGHTS = {
    "all": {},
    "window 1": {"window": 1},
    "window 4": {"window": 4},
    "window 40": {"window": 40},
    "window 4, sinks 2": {"window": 4, "sinks": 2},
    "window 1, sinks 3": {"window": 1, "sinks": 3},
    "window 3, sinks 30": {"window": 3, "sinks": 30},
    "sinks without a window": {"sinks": 3},
}
EVERY_SIGHT = pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS.keys())
# (B, T, H, G, K, V)
SIZES = {
    "one token": (1, 1, 1, 1, 1, 1),
    "own keys": (1, 7, 3, 3, 5, 2),
    "groups of 2": (2, 13, 4, 2, 6, 3),
    "one key head": (2, 9, 3, 1, 4, 4),
}


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form in blocks has several of them, and a short one at the end."""
    monkeypatch.setattr(MODULE, "BLOCK", 4)


def example(batch: int, length: int, heads: int, groups: int, width: int, value_width: int) -> list[Tensor]:
    """q, k and v, float64, with scores of some size."""
    q, k = torch.randn(batch, length, heads, width), torch.randn(batch, length, groups, width)
    v = torch.randn(batch, length, groups, value_width)
    return [2 * q.double(), k.double(), v.double()]


def literal(
    q: Tensor, k: Tensor, v: Tensor, window: int | None = None, sinks: int = 0, softcap: float | None = None
) -> Tensor:
    """Query by query and key by key, positions counted from the first token."""
    output = torch.empty(*q.shape[:3], v.shape[3], dtype=q.dtype)
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            g = h * k.shape[2] // q.shape[2]
            for t in range(q.shape[1]):
                seen = [i for i in range(t + 1) if window is None or t - i < window or i < sinks]
                scores = [math.fsum((q[b, t, h] * k[b, i, g]).tolist()) / math.sqrt(q.shape[3]) for i in seen]
                scores = [x if softcap is None else softcap * math.tanh(x / softcap) for x in scores]
                weights = [math.exp(x - max(scores)) for x in scores]
                output[b, t, h] = sum(w * v[b, i, g] for w, i in zip(weights, seen, strict=True)) / math.fsum(weights)
    return output


def worst(got: Tensor, truth: Tensor) -> float:
    """The largest error beside the largest entry; NaN where anything is NaN."""
    assert got.shape == truth.shape
    return ((got - truth).abs().max() / truth.abs().max()).item()


@EVERY_FORM
@EVERY_SIGHT
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_is_the_literal_softmax(size: tuple[int, ...], sight: dict, form: str) -> None:
    q, k, v = example(*size)
    assert worst(attention(q, k, v, **sight, form=form)[0], literal(q, k, v, **sight)) < 1e-12


@pytest.mark.parametrize("form", ["parallel", "recurrent", "chunked"])
def test_soft_cap(form: str) -> None:
    q, k, v = example(*SIZES["groups of 2"])
    capped, _ = attention(q, k, v, softcap=1.5, window=4, form=form)
    assert worst(capped, literal(q, k, v, window=4, softcap=1.5)) < 1e-12
    assert worst(attention(q, k, v, softcap=1.5)[0], literal(q, k, v, softcap=1.5)) < 1e-12


@EVERY_FORM
def test_scale(form: str) -> None:
    q, k, v = example(*SIZES["groups of 2"])
    for sight in ({}, {"window": 4}):
        scaled, _ = attention(q, k, v, **sight, scale=0.3, form=form)
        assert worst(scaled, literal(0.3 * math.sqrt(6) * q, k, v, **sight)) < 1e-12


WRONG = {
    "window without the query itself": lambda q, k, v: literal(q, k, v, window=5),
    "no window": literal,
    "groups laid out in turn": lambda q, k, v: literal(q[:, :, [0, 2, 1, 3]], k, v, window=4)[:, :, [0, 2, 1, 3]],
    "no scale": lambda q, k, v: literal(q * math.sqrt(q.shape[3]), k, v, window=4),
    "sinks where there are none": lambda q, k, v: literal(q, k, v, window=4, sinks=1),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_wrong_versions_are_far_from_the_literal_softmax(wrong: Callable[..., Tensor]) -> None:
    q, k, v = example(*SIZES["groups of 2"])
    assert worst(wrong(q, k, v), literal(q, k, v, window=4)) > 1e-2
    assert worst(attention(q, k, v, window=4)[0], wrong(q, k, v)) > 1e-2


@pytest.mark.parametrize("backend", ["auto", "naive"])
@EVERY_SIGHT
@pytest.mark.parametrize(
    "cuts", [(0, 1, 4, 11, 13), (0, 2, 12, 13), tuple(range(14))], ids=["odd", "long", "token by token"]
)
def test_pieces_give_the_whole(cuts: tuple[int, ...], sight: dict, backend: str) -> None:
    """Cuts before, at and past the window; the cache is all that goes from piece to piece."""
    q, k, v = example(*SIZES["groups of 2"])
    state, outputs = None, []
    for start, stop in pairwise(cuts):
        output, state = attention(*(x[:, start:stop] for x in (q, k, v)), **sight, state=state, backend=backend)
        outputs.append(output)
    assert worst(torch.cat(outputs, 1), literal(q, k, v, **sight)) < 1e-12
    _, final = attention(q, k, v, **sight, backend=backend)
    assert all(torch.equal(x, y) for x, y in zip(state, final, strict=True))


@EVERY_FORM
def test_a_cache_with_rows_that_nobody_sees_changes_nothing(form: str) -> None:
    q, k, v = example(*SIZES["groups of 2"])
    rows = AttentionState(k[:, :10], v[:, :10])
    for sight in ({"window": 4}, {"window": 4, "sinks": 2}):
        output, _ = attention(q[:, 10:], k[:, 10:], v[:, 10:], **sight, state=rows, form=form)
        assert worst(output, literal(q, k, v, **sight)[:, 10:]) < 1e-12


@EVERY_FORM
@EVERY_SIGHT
def test_gradients(sight: dict, form: str) -> None:
    """Against finite differences, through the output and the cache, for the arguments and a given cache."""
    inputs = [x.requires_grad_() for x in example(1, 3, 2, 1, 2, 2)]
    past = [x.detach().requires_grad_() for x in example(1, 5, 2, 1, 2, 2)[1:]]

    def flat(*leaves: Tensor) -> tuple[Tensor, ...]:
        output, state = attention(*leaves[:3], **sight, state=AttentionState(*leaves[3:]), form=form)
        return (output, *(x for x in state if x.numel()))

    assert torch.autograd.gradcheck(flat, (*inputs, *past), atol=1e-7)


@pytest.mark.parametrize("form", [None, "parallel", "recurrent"])
def test_agrees_with_pytorch(form: str | None) -> None:
    q, k, v = example(2, 19, 4, 4, 8, 8)
    expected = scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True).transpose(1, 2)
    assert worst(attention(q, k, v, form=form)[0], expected) < 1e-12


@EVERY_FORM
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["float32", "bfloat16"])
def test_narrow_dtypes(dtype: torch.dtype, limit: float, form: str) -> None:
    inputs = [x.to(dtype) for x in example(*SIZES["groups of 2"])]
    output, state = attention(*inputs, window=4, sinks=1, form=form)
    assert {output.dtype, *(x.dtype for x in state)} == {dtype}
    assert worst(output.double(), literal(*(x.double() for x in inputs), window=4, sinks=1)) < limit


@EVERY_FORM
def test_large_scores_do_not_overflow(form: str) -> None:
    q, k, v = (x.float() for x in example(*SIZES["own keys"]))
    output, _ = attention(1000 * q, k, v, window=3, form=form)
    assert worst(output.double(), literal(1000 * q.double(), k.double(), v.double(), window=3)) < 1e-3


@pytest.mark.parametrize(("window", "sinks"), [(None, 0), (1, 0), (4, 0), (4, 2), (1, 3)])
@pytest.mark.parametrize("length", [1, 3, 4, 5, 16])
def test_bytes_of_the_cache_are_those_of_its_formula(length: int, window: int | None, sinks: int) -> None:
    q, k, v = (x.float() for x in example(2, length, 4, 2, 6, 3))
    _, state = attention(q, k, v, window=window, sinks=sinks)
    rows = length if window is None else min(length, sinks + window - 1)
    assert cache_rows(length, window, sinks) == rows
    assert state_nbytes(state) == 2 * rows * 2 * (6 + 3) * 4


def test_the_cache_shares_nothing_with_the_arguments() -> None:
    q, k, v = example(*SIZES["own keys"])
    _, state = attention(q, k, v)
    addresses = {x.untyped_storage().data_ptr() for x in (k, v, *state)}
    assert len(addresses) == 4
    _, later = attention(q, k, v, state=state)
    assert not {x.untyped_storage().data_ptr() for x in later} & addresses


@pytest.mark.minutes
@pytest.mark.parametrize("dynamic", [False, True], ids=["sizes-fixed", "sizes-symbolic"])
def test_compiles_in_one_graph(dynamic: bool) -> None:
    q, k, v = example(*SIZES["groups of 2"])
    torch.compiler.reset()
    compiled = torch.compile(
        lambda *x: attention(*x, window=4, sinks=2), fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    for length in (3, 13):
        inputs = [x[:, :length] for x in (q, k, v)]
        assert worst(compiled(*inputs)[0], attention(*inputs, window=4, sinks=2)[0]) < 1e-12


def test_runs_on_meta() -> None:
    q, k, v = example(*SIZES["groups of 2"])
    output, state = attention(*(x.to("meta") for x in (q, k, v)), window=4)
    assert (output.shape, state.k_past.shape) == ((2, 13, 4, 3), (2, 3, 2, 6))


def _called(change: Callable[[dict], dict]) -> None:
    q, k, v = example(*SIZES["groups of 2"])
    past = AttentionState(k[:, :5], v[:, :5])
    given = {"q": q, "k": k, "v": v, "state": past}
    call = {**given, **change(given)}
    attention(call.pop("q"), call.pop("k"), call.pop("v"), **call)


BAD_INPUTS = {
    "no tokens": (lambda x: {"q": x["q"][:, :0]}, "T = 0"),
    "keys of another width": (lambda x: {"k": x["k"][..., 1:]}, r"k must be \(B, T, G, K\) with K = 6"),
    "fewer values than keys": (lambda x: {"v": x["v"][:, 1:]}, r"v must be \(B, T, G, V\) with T = 13"),
    "heads that do not divide": (lambda x: {"q": x["q"][:, :, 1:]}, "k has 2 heads, which must divide the 3 heads of q"),
    "mixed dtypes": (lambda x: {"q": x["q"].float()}, "k is torch.float64|one dtype"),
    "wider keys": (lambda x: {y: x[y].bfloat16() for y in "qv"} | {"k": x["k"].float()}, "must have one dtype"),
    "another device": (lambda x: {"v": x["v"].to("meta")}, "v is on meta"),
    "window 0": (lambda x: {"window": 0}, "window must be None or an int of at least 1"),
    "window that is no int": (lambda x: {"window": 2.5}, "window must be None or an int of at least 1"),
    "negative sinks": (lambda x: {"sinks": -1}, "sinks must be an int of at least 0, got -1"),
    "soft cap 0": (lambda x: {"softcap": 0.0}, "softcap must be None or positive, got 0.0"),
    "one past": (lambda x: {"state": x["k"]}, r"state must be a pair \(k_past, v_past\)"),
    "past of lists": (lambda x: {"state": ([], [])}, "k_past must be a tensor, got list"),
    "past of another batch": (
        lambda x: {"state": (x["k"][:1], x["v"])},
        r"k_past must be \(2, S, 2, 6\), got \(1, 13, 2, 6\)",
    ),
    "past of another dtype": (lambda x: {"state": (x["k"].float(), x["v"])}, "k_past is torch.float32 on cpu"),
    "pasts of two lengths": (lambda x: {"state": (x["k"], x["v"][:, 1:])}, "k_past has 13 rows and v_past 12"),
    "unknown backend": (lambda x: {"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba, triton"),
    "unknown form": (lambda x: {"form": "flash"}, "unknown form 'flash'; choose parallel, recurrent, sdpa, chunked"),
    "soft cap in sdpa": (lambda x: {"form": "sdpa", "softcap": 1.0}, "form='sdpa' has no softcap, got 1.0"),
}


@pytest.mark.parametrize(("change", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
def test_bad_inputs_are_named(change: Callable[[dict], dict], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _called(change)


def after_a_past(length: int, past: int, dtype: torch.dtype = torch.float64, **sizes: int) -> list[Tensor]:
    """q of the last tokens, and k and v of all; H, G, K and V may be given."""
    shape = {"H": 4, "G": 2, "K": 5, "V": 3} | sizes
    q, k, v = example(2, past + length, *(shape[name] for name in "HGKV"))
    return [x.to(dtype) for x in (q[:, past:], k, v)]


def called(q: Tensor, k: Tensor, v: Tensor, **how: object) -> Tensor:
    """The output, what comes before q's tokens given as a cache."""
    past = k.shape[1] - q.shape[1]
    return attention(q, k[:, past:], v[:, past:], state=AttentionState(k[:, :past], v[:, :past]), **how)[0]


# Of the kernels, whose tiles have 64 rows: tiles of which a window sees nothing, a part or all; sinks that end within one.
FAR = [
    {},
    {"window": 1},
    {"window": 1, "sinks": 3},
    {"window": 4, "sinks": 2, "softcap": 1.5},
    {"window": 64},
    {"window": 65, "sinks": 70},
    {"window": 100},
    {"window": 40, "softcap": 5.0},
    {"window": 1000, "sinks": 1},
]
LENGTHS = [(1, 0), (1, 150), (3, 140), (13, 0), (64, 1), (65, 0), (70, 130)]  # queries, rows of the cache


def test_numba_is_the_literal_form() -> None:
    for length, past in LENGTHS:
        q, k, v = after_a_past(length, past)
        for sight in FAR:
            right = called(q, k, v, **sight, form="parallel")
            assert worst(called(q, k, v, **sight, backend="numba"), right) < 1e-12, (length, past, sight)
    large = called(1000 * q, k, v, window=3, backend="numba")
    assert worst(large, called(1000 * q, k, v, window=3, form="parallel")) < 1e-12


@pytest.mark.minutes
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 2e-5)], ids=["float64", "float32"])
def test_numba_gradients(dtype: torch.dtype, limit: float) -> None:
    for length, past in LENGTHS:
        leaves = [x.requires_grad_() for x in after_a_past(length, past, dtype)]
        weights = torch.randn(2, length, 4, 3, dtype=dtype)
        for sight in FAR:
            right, ours = (
                torch.autograd.grad(called(*leaves, **sight, **how), leaves, weights)
                for how in ({"form": "parallel"}, {"backend": "numba"})
            )
            for x, y in zip(ours, right, strict=True):
                assert (x - y).abs().max() <= limit * y.abs().max().clamp_min(1e-3), (length, past, sight)


@pytest.mark.minutes
def test_numba_on_wide_heads_that_fill_tiles_in_one_graph() -> None:
    """Widths that vectors divide and that they do not; compiled and called give the same."""
    for width, value_width in ((64, 64), (33, 130)):
        inputs = after_a_past(100, 60, torch.float32, H=2, G=2, K=width, V=value_width)
        leaves = [x.requires_grad_() for x in inputs]
        right = called(*(x.double() for x in leaves), window=90, form="parallel")
        right_grads = torch.autograd.grad(right.sum(), leaves)
        torch.compiler.reset()
        for run in (called, torch.compile(called, fullgraph=True, backend="aot_eager")):
            ours = run(*leaves, window=90, backend="numba")
            assert worst(ours.double(), right) < 1e-5
            ours_grads = torch.autograd.grad(ours.sum(), leaves)
            assert max(worst(x, y) for x, y in zip(ours_grads, right_grads, strict=True)) < 1e-4


@pytest.mark.minutes
def test_a_key_seen_alone_has_exactly_no_gradient() -> None:
    """Its weight is 1 whatever its score; rounding must leave no gradient of q."""
    for length, sight in ((1, {}), (70, {"window": 1})):
        q, k, v = (x.float().requires_grad_() for x in example(1, length, 2, 1, 5, 3))
        output, _ = attention(q, k, v, **sight, backend="numba")
        assert worst(output, v.expand(-1, -1, 2, -1)) == 0
        grads = torch.autograd.grad((output * torch.randn_like(output)).sum(), (q, k))
        assert not any(x.any() for x in grads)


def test_blocks_see_no_more_than_their_window(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    whole = MODULE.attention_sdpa

    def watched(q: Tensor, k: Tensor, v: Tensor, sight: object) -> Tensor:
        seen.append((q.shape[1], k.shape[1]))
        return whole(q, k, v, sight)

    monkeypatch.setattr(MODULE, "attention_sdpa", watched)
    attention(*example(1, 30, 2, 1, 4, 4), window=7, sinks=2, form="chunked")
    assert len(seen) == 8
    assert max(seen) == (4, 7 - 1 + 4 + 2)


def test_auto_is_the_kernel_for_many_queries_of_wide_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    kernel = BACKENDS["numba"]
    monkeypatch.setitem(BACKENDS, "numba", lambda *given: asked.append(given[0].shape[1]) or kernel(*given))
    for length in (1, 63, 64):
        for dtype in (torch.float64, torch.bfloat16):
            called(*after_a_past(length, 3, dtype), window=9)
    assert asked == [64]


def test_meta_takes_what_a_cpu_would() -> None:
    inputs = [x.to("meta").requires_grad_() for x in after_a_past(70, 30, torch.float32)]
    output = called(*inputs, window=9, backend="numba")
    assert output.shape == (2, 70, 4, 3)
    assert [x.shape for x in torch.autograd.grad(output.sum(), inputs)] == [x.shape for x in inputs]


@EVERY_FORM
def test_an_empty_cache_may_have_another_dtype(form: str) -> None:
    """As under autocast, where a float32 model's empty cache meets bfloat16 keys."""
    q, k, v = (x.bfloat16() for x in example(*SIZES["groups of 2"]))
    empty = AttentionState(k[:, :0].float(), v[:, :0].float())
    output, state = attention(q, k, v, state=empty, form=form)
    assert {output.dtype, *(x.dtype for x in state)} == {torch.bfloat16}
    assert torch.equal(output, attention(q, k, v, form=form)[0])


def test_layers_run_under_autocast() -> None:
    layer = GroupedAttention(12, heads=2, groups=1, head_width=6, window=4)
    x = torch.randn(2, 7, 12)
    with torch.autocast("cpu", torch.bfloat16):
        start, state = layer(x[:, :3], layer.start(x))
        rest, _ = layer(x[:, 3:], state)
    assert worst(torch.cat((start, rest), 1).float(), layer(x)[0]) < 0.05


@pytest.mark.minutes
def test_models_with_attention_run_on_numba() -> None:
    torch.manual_seed(0)
    model = HybridLM(HybridConfig(11, 16, pattern="AWR", head_width=8, groups=1, window=3))
    ids = torch.randint(11, (2, 9))
    right = model(ids).logits
    set_backend(model, "numba")
    torch.testing.assert_close(model(ids).logits, right)
