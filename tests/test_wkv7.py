"""wkv7: every form and the kernel are the literal loop, gradients too; it is the paper's recurrence, transposed."""

import functools
import math

import pytest
import torch
from torch import Tensor

from hybridlab.ops.gated_delta_rule import gated_delta_rule
from hybridlab.ops.wkv6 import wkv6
from hybridlab.ops.wkv7 import FORMS, wkv7

FLOAT64, FLOAT32 = torch.float64, torch.float32
TOLERANCE = {FLOAT64: 1e-11, FLOAT32: 1e-4}
WAYS = {
    "recurrent": {"form": "recurrent"},
    "parallel": {"form": "parallel"},
    "chunked": {"form": "chunked"},
    "chunks of 5": {"form": "chunked", "chunk_size": 5},
    "numba": {"backend": "numba"},
}
FAST_WAYS = {name: way for name, way in WAYS.items() if name != "numba"}
NAMES = ("r", "k", "v", "log_decay", "a", "b", "state")
RESULTS = ("output", "final state", *(f"gradient of {name}" for name in NAMES))
# (B, T, H, K, V), the last one wide enough for the kernel's threads and for several of its tiles.
Size = tuple[int, int, int, int, int]
SIZES: list[Size] = [(3, 1, 4, 5, 16), (2, 7, 3, 5, 3), (1, 64, 2, 2, 4), (2, 65, 3, 6, 9), (1, 130, 2, 33, 70)]
DECAYS: tuple[float | str, ...] = (0.0, -1e-6, -20.0, -900.0, -math.inf, "mixed")


@functools.cache
def problem(size: Size, decay: float | str = "mixed") -> tuple[Tensor, ...]:
    """r, k, v, log_decay, a, b, state in float64 and exact in float32; a has length 1, b takes parts of it away."""
    batch, T, H, K, V = size
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(T + K), dtype=FLOAT64)
    a, spread = torch.nn.functional.normalize(draw(batch, T, H, K), dim=-1), draw(batch, T, H, K)
    log_decay = -(2 * spread - 1).exp() if decay == "mixed" else torch.full_like(spread, float(decay))
    b = -a * draw(batch, T, H, K).sigmoid()
    r, k, v = draw(batch, T, H, K), draw(batch, T, H, K), draw(batch, T, H, V)
    return tuple(x.float().double() for x in (r, k, v, log_decay, a, b, draw(batch, H, K, V)))


def results(
    inputs: tuple[Tensor, ...], dtype: torch.dtype = FLOAT64, with_state: bool = True, **way: object
) -> tuple[Tensor, ...]:
    """Output, final state and every gradient, for fixed random gradients of the first two."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in (inputs if with_state else inputs[:-1])]
    found = wkv7(*leaves, **way)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=generator).to(dtype) for y in found]
    return (*(y.detach() for y in found), *torch.autograd.grad(found, leaves, upstream))


@functools.cache
def truth(size: Size, decay: float | str = "mixed", with_state: bool = True) -> tuple[Tensor, ...]:
    return results(problem(size, decay), FLOAT64, with_state, form="recurrent")


def errors(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> dict[str, float]:
    """The worst error of each result beside its largest entry."""
    named = zip(RESULTS, got, want, strict=False)
    return {name: ((x.double() - y).abs().max() / y.abs().max().clamp_min(1e-6)).item() for name, x, y in named}


def assert_close(got: tuple[Tensor, ...], want: tuple[Tensor, ...], tolerance: float) -> None:
    assert [x.shape for x in got] == [y.shape for y in want]
    wrong = {name: f"{error:.1e}" for name, error in errors(got, want).items() if not error <= tolerance}
    assert not wrong, f"beyond {tolerance:.0e}: {wrong}"


def test_by_hand() -> None:
    """One number a head: of 8 all is found, undecayed; half of it stays, what was found is taken away, 10 is added."""
    r, k, v, a, b = (torch.tensor(z, dtype=FLOAT64).view(1, 2, 1, 1) for z in ([1.0, 2], [1, 2], [10, 3], [-1, 3], [1, 0.5]))
    halves, state = torch.full((1, 2, 1, 1), -math.log(2), dtype=FLOAT64), torch.full((1, 1, 1, 1), 8.0, dtype=FLOAT64)
    for way in FAST_WAYS.values():
        output, final = wkv7(r, k, v, halves, a, b, state, **way)
        # 4 - 8 + 10 = 6; 3 + 0.5 * 3 * 6 + 2 * 3 = 18, read twice
        torch.testing.assert_close(output.flatten().tolist(), [6.0, 36.0])
        assert final.item() == pytest.approx(18)


def test_is_the_papers_recurrence_transposed() -> None:
    """S_t = S_{t-1} (diag(w) + a b^T) + v k^T; o_t = S_t r, with S of V rows."""
    r, k, v, log_decay, a, b, state = problem((2, 7, 3, 5, 4))
    S, outputs = state.mT, []
    for t in range(7):
        turn = torch.diag_embed(log_decay[:, t].exp()) + torch.einsum("bhi,bhj->bhij", a[:, t], b[:, t])
        S = S @ turn + torch.einsum("bhi,bhj->bhij", v[:, t], k[:, t])
        outputs.append(torch.einsum("bhij,bhj->bhi", S, r[:, t]))
    for way in FAST_WAYS.values():
        assert_close(wkv7(r, k, v, log_decay, a, b, state, **way), (torch.stack(outputs, 1), S.mT), 1e-12)


def test_is_the_gated_delta_rule_where_all_channels_fade_alike() -> None:
    """What fades is found before it does: the delta rule's beta key, faded, takes it away."""
    q, k, v, log_decay, unit, _, state = problem((2, 20, 3, 5, 4))
    fading, beta = log_decay[..., 0], k[..., 0].abs().clamp(max=2)
    want = gated_delta_rule(q, unit, v, fading, beta, state, form="recurrent")
    removed, added = -unit * (beta * fading.exp()).unsqueeze(-1), unit * beta.unsqueeze(-1)
    for way in FAST_WAYS.values():
        got = wkv7(q, added, v, fading.unsqueeze(-1).expand_as(k), unit, removed, state, **way)
        assert_close(got, want, 1e-12)


def test_without_b_it_is_wkv6_that_reads_after_writing() -> None:
    r, k, v, log_decay, a, b, state = problem((2, 20, 3, 5, 4))
    want, final = wkv6(r * log_decay.exp(), k, v, log_decay, torch.zeros(3, 5, dtype=FLOAT64), state, form="recurrent")
    want = want + (r * k).sum(-1, keepdim=True) * v
    for way in FAST_WAYS.values():
        assert_close(wkv7(r, k, v, log_decay, a, 0 * b, state, **way), (want, final), 1e-12)


def test_forms_agree_with_the_loop() -> None:
    for way in list(FAST_WAYS.values())[1:]:
        for dtype, size in ((FLOAT64, SIZES[0]), (FLOAT32, SIZES[1]), (FLOAT64, SIZES[3])):
            assert_close(results(problem(size), dtype, **way), truth(size), TOLERANCE[dtype])
        for decay in (-20.0, -900.0, -math.inf):
            for dtype in (FLOAT64, FLOAT32):
                got = results(problem((1, 35, 2, 4, 3), decay), dtype, **way)
                assert_close(got, truth((1, 35, 2, 4, 3), decay), TOLERANCE[dtype])


@pytest.mark.minutes
@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32], ids=["float64", "float32"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_agrees_with_the_loop(way: dict, dtype: torch.dtype) -> None:
    for size in SIZES:
        for with_state in (True, False):
            got = results(problem(size), dtype, with_state, **way)
            assert {x.dtype for x in got} == {dtype}
            assert_close(got, truth(size, "mixed", with_state), TOLERANCE[dtype])
    for decay in DECAYS:
        for size in ((2, 3, 5, 4, 3), (1, 71, 2, 4, 3)):
            assert_close(results(problem(size, decay), dtype, **way), truth(size, decay), TOLERANCE[dtype])


@pytest.mark.minutes
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_pieces_are_the_whole_and_gradients_are_derivatives(way: dict) -> None:
    *tokens, state = problem((2, 100, 4, 3, 5))
    whole = wkv7(*tokens, state, form="recurrent")
    for cuts in ((1, 99), (7, 64, 29), (1,) * 100):
        outputs, carried = [], state
        for piece in zip(*(z.split(cuts, 1) for z in tokens), strict=True):
            output, carried = wkv7(*piece, carried, **way)
            outputs.append(output)
        assert_close((torch.cat(outputs, 1), carried), whole, 1e-12)
    leaves = [x.clone().requires_grad_() for x in problem((2, 6, 2, 3, 2))]
    assert torch.autograd.gradcheck(lambda *x: wkv7(*x, **way), leaves)
    for which in (0, 1):  # a loss of the output alone, or of the state alone
        alone = torch.autograd.grad(wkv7(*leaves, **way)[which].sum(), leaves, allow_unused=True)
        want = torch.autograd.grad(wkv7(*leaves, form="recurrent")[which].sum(), leaves, allow_unused=True)
        for x, y, leaf in zip(alone, want, leaves, strict=True):
            torch.testing.assert_close(*(torch.zeros_like(leaf) if z is None else z for z in (x, y)))


def stepped(tokens: tuple[Tensor, ...], state: Tensor, mistake: str) -> Tensor:
    """The recurrence with one mistake."""
    outputs = []
    for r, k, v, log_decay, a, b in zip(*(x.unbind(1) for x in tokens), strict=True):
        decay = log_decay.exp().unsqueeze(-1)
        looked_at = decay * state if mistake == "found after fading" else state
        found = torch.einsum("bhk,bhkv->bhv", b if mistake == "a and b exchanged" else a, looked_at)
        replaced = torch.einsum("bhk,bhv->bhkv", a if mistake == "a and b exchanged" else b, found)
        kept = decay * (state + replaced) if mistake == "replaced, then faded" else decay * state + replaced
        new = kept + torch.einsum("bhk,bhv->bhkv", k, v)
        outputs.append(torch.einsum("bhk,bhkv->bhv", r, state if mistake == "read before write" else new))
        state = new
    return torch.stack(outputs, 1)


MISTAKES = ("found after fading", "a and b exchanged", "replaced, then faded", "read before write")


def test_the_inputs_tell_classic_bugs_apart() -> None:
    """Were an implementation wrong in this way, the comparisons above would see it."""
    for size in SIZES[1], SIZES[3]:
        *tokens, state = problem(size)
        assert errors((stepped(tuple(tokens), state, "none"),), truth(size)[:1])["output"] < 1e-12
        wrong = {mistake: stepped(tuple(tokens), state, mistake) for mistake in MISTAKES}
        wrong["state ignored"] = wkv7(*tokens, form="recurrent")[0]
        wrong["scaled"] = wkv7(tokens[0] * size[3] ** -0.5, *tokens[1:], state, form="recurrent")[0]
        for mistake, output in wrong.items():
            assert errors((output,), truth(size)[:1])["output"] > 100 * TOLERANCE[FLOAT32], mistake


def test_the_model_reaches_where_factored_decays_are_lost() -> None:
    """(r e^{sum}) (k e^{-sum}): right in a chunk of 16 for the model's decays, lost at -20; a and b are out of it."""
    for decay, works in ((-0.6, True), (-20.0, False)):
        r, k, v, log_decay, a, b, _ = (x.float() for x in problem((1, 16, 2, 5, 3), decay))
        sums = log_decay.cumsum(1)
        scores = torch.einsum("bthk,bshk->bhts", r * sums.exp(), k * (-sums).exp())
        factored = torch.einsum("bhts,bshv->bthv", scores.tril(), v)
        for way in FAST_WAYS.values():
            want, _ = wkv7(r, k, v, log_decay, a, 0 * b, **way)
            assert want.isfinite().all()
            assert torch.allclose(factored, want, atol=1e-3) == works


def test_bfloat16_takes_the_chunked_form_and_a_float32_state() -> None:
    *tokens, state = (x.bfloat16() for x in problem((2, 71, 4, 5, 3)))
    output, final = wkv7(*tokens, state.float())
    same_output, same_final = wkv7(*tokens, state.float(), form="chunked")
    assert (output.dtype, final.dtype) == (torch.bfloat16, FLOAT32)
    assert torch.equal(output, same_output)
    assert torch.equal(final, same_final)
    exact = wkv7(*(x.double() for x in tokens), state.double(), form="recurrent")
    assert_close((output,), exact[:1], 2**-8)
    assert_close((final,), exact[1:], 2e-6)


@pytest.mark.minutes
def test_numba_is_a_proper_operator() -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 9, 2, 3, 2))]
    wkv7(*inputs, backend="numba")
    torch.library.opcheck(torch.ops.hybridlab.wkv7_numba.default, inputs)
    for T in (1, 71):
        singles = [x.float() for x in problem((2, T, 4, 5, 3))]
        for got, want in zip(wkv7(*singles), wkv7(*singles, backend="numba"), strict=True):
            assert torch.equal(got, want)


@pytest.mark.minutes
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_compiles_in_one_graph_runs_on_meta_and_overwrites_nothing(way: dict) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 9, 3, 4, 2))]
    compiled = torch.compile(lambda *z: wkv7(*z, **way), fullgraph=True, backend="aot_eager")
    (got, _), (want, _) = compiled(*inputs), wkv7(*inputs, **way)
    torch.testing.assert_close(got, want)
    for x, y in zip(torch.autograd.grad(got.sum(), inputs), torch.autograd.grad(want.sum(), inputs), strict=True):
        torch.testing.assert_close(x, y)
    output, final = wkv7(*(x.to("meta") for x in problem((2, 9, 4, 3, 5))), **way)
    assert (output.shape, final.shape, final.device.type) == ((2, 9, 4, 5), (2, 4, 3, 5), "meta")
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in problem((2, 9, 4, 3, 5))]
    before = [x.clone() for x in strided]
    assert_close(results(tuple(strided), **way), truth((2, 9, 4, 3, 5)), 1e-12)
    assert all(torch.equal(x, y) for x, y in zip(strided, before, strict=True))
    _, final = wkv7(*strided, **way)
    assert final.untyped_storage().nbytes() == final.numel() * 8


def changed(**changes: object) -> dict[str, object]:
    return dict(zip(NAMES, problem((2, 4, 3, 5, 7)), strict=True)) | changes


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=FLOAT64)


BAD = {
    "r is a list": ({"r": [1.0]}, "r must be a tensor, got list"),
    "k of fewer heads": ({"k": zeros(2, 4, 1, 5)}, r"k must be \(B, T, H, K\) with H = 3, got shape \(2, 4, 1, 5\)"),
    "v is shorter": ({"v": zeros(2, 3, 3, 7)}, r"v must be \(B, T, H, V\) with T = 4, got shape \(2, 3, 3, 7\)"),
    "log_decay a head": ({"log_decay": zeros(2, 4, 3)}, r"log_decay must have 4 axes \(B, T, H, K\)"),
    "log_decay constant": ({"log_decay": zeros(1, 1, 3, 5)}, r"log_decay must be \(B, T, H, K\) with B = 2"),
    "a as wide as v": ({"a": zeros(2, 4, 3, 7)}, r"a must be \(B, T, H, K\) with K = 5, got shape \(2, 4, 3, 7\)"),
    "b in float32": ({"b": torch.zeros(2, 4, 3, 5)}, "b is torch.float32 but r is torch.float64"),
    "a elsewhere": ({"a": zeros(2, 4, 3, 5).to("meta")}, "a is on meta but r is on cpu"),
    "positive decay": ({"log_decay": zeros(2, 4, 3, 5) + 0.25}, "at most 0 everywhere, its largest entry is 0.25"),
    "NaN decay": ({"log_decay": zeros(2, 4, 3, 5) * math.nan}, "its largest entry is NaN"),
    "the paper's state": ({"state": zeros(2, 3, 7, 5)}, r"state must have shape \(2, 3, 5, 7\), got \(2, 3, 7, 5\)"),
    "state in float32": ({"state": torch.zeros(2, 3, 5, 7)}, "state must be torch.float64 for torch.float64 inputs"),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba"),
    "unknown form": ({"form": "scan"}, "unknown form 'scan'; choose recurrent, parallel, chunked"),
    "form with a kernel": ({"form": "chunked", "backend": "numba"}, "form='chunked' is plain PyTorch .* backend='numba'"),
    "chunk of none": ({"form": "chunked", "chunk_size": 0}, "chunk_size must be a positive int, got 0"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^wkv7: .*{message}"):
        wkv7(**changed(**changes))


def test_forms_are_named() -> None:
    assert set(FORMS) == {"recurrent", "parallel", "chunked"}
    naive, loop = wkv7(**changed(), backend="naive"), wkv7(**changed(), form="recurrent")
    assert torch.equal(naive[0], loop[0])
