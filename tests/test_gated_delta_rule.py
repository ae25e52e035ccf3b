"""gated_delta_rule: every form and the kernel are the literal loop, gradients too; it fades first and corrects then."""

import functools
import math

import pytest
import torch
from torch import Tensor

from hybridlab.ops.gated_delta_rule import FORMS, gated_delta_rule
from hybridlab.ops.retention import retention

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
NAMES = ("q", "k", "v", "log_decay", "beta", "state")
RESULTS = ("output", "final state", *(f"gradient of {name}" for name in NAMES))
# (B, T, H, K, V), the last one wide enough for the kernel's threads and for several of its tiles.
Size = tuple[int, int, int, int, int]
SIZES: list[Size] = [(3, 1, 4, 5, 16), (2, 7, 3, 5, 3), (1, 64, 2, 2, 4), (2, 65, 3, 6, 9), (1, 130, 2, 33, 70)]
DECAYS: tuple[float | str, ...] = (0.0, -1e-6, -20.0, -900.0, -math.inf, "mixed")


@functools.cache
def problem(size: Size, decay: float | str = "mixed") -> tuple[Tensor, ...]:
    """q, k, v, log_decay, beta, state in float64 and exact in float32; keys have length 1, beta goes from 0 to 2."""
    batch, T, H, K, V = size
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(T + K), dtype=FLOAT64)
    k = torch.nn.functional.normalize(draw(batch, T, H, K), dim=-1)
    spread = draw(batch, T, H)
    log_decay = -(2 * spread - 1).exp() if decay == "mixed" else torch.full_like(spread, float(decay))
    beta = (1.5 * draw(batch, T, H) + 1).clamp(0, 2)
    tensors = draw(batch, T, H, K), k, draw(batch, T, H, V), log_decay, beta, draw(batch, H, K, V)
    return tuple(x.float().double() for x in tensors)


def results(
    inputs: tuple[Tensor, ...], dtype: torch.dtype = FLOAT64, with_state: bool = True, **way: object
) -> tuple[Tensor, ...]:
    """Output, final state and every gradient, for fixed random gradients of the first two."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in (inputs if with_state else inputs[:-1])]
    found = gated_delta_rule(*leaves, **way)
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
    """One number a head: it halves, then the key's error is written in part, whole, and twice."""
    q, k, v, beta = (torch.tensor(z, dtype=FLOAT64) for z in ([1.0, 2, 1], [1.0, 2, 1], [10.0, 9, 7], [0.5, 0.25, 2]))
    halves, state = torch.full((1, 3, 1), -math.log(2), dtype=FLOAT64), torch.full((1, 1, 1, 1), 8.0, dtype=FLOAT64)
    q, k, v = (z.view(1, 3, 1, 1) for z in (q, k, v))
    for way in FAST_WAYS.values():
        output, final = gated_delta_rule(q, k, v, halves, beta.view(1, 3, 1), state, **way)
        # 4 + (10 - 4) / 2 = 7; 3.5 + 0.25 * 2 * (9 - 7) = 4.5, read twice; 2.25 + 2 * (7 - 2.25) = 11.75
        torch.testing.assert_close(output.flatten().tolist(), [7.0, 9.0, 11.75])
        assert final.item() == pytest.approx(11.75)


def test_orthogonal_keys_correct_nothing() -> None:
    """As long as no key has been met before, an empty memory that forgets is retention."""
    q, _, v, _, _, _ = problem((2, 6, 3, 6, 5))
    keys = torch.eye(6, dtype=FLOAT64).view(1, 6, 1, 6).expand(2, 6, 3, 6)
    fading = torch.full((3,), -0.3, dtype=FLOAT64)
    want = retention(q, keys, v, fading, form="recurrent")
    for way in FAST_WAYS.values():
        got = gated_delta_rule(q, keys, v, fading.expand(2, 6, 3), torch.ones(2, 6, 3, dtype=FLOAT64), **way)
        assert_close(got, want, 1e-13)


def test_a_key_met_again_is_overwritten() -> None:
    _, k, v, _, _, _ = problem((1, 2, 1, 4, 3))
    k, ones = k[:, :1].expand(1, 2, 1, 4), torch.ones(1, 2, 1, dtype=FLOAT64)
    for way in FAST_WAYS.values():
        output, _ = gated_delta_rule(k, k, v, 0 * ones, ones, **way)
        torch.testing.assert_close(output, v)


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


def test_long_keys_grow_and_still_agree() -> None:
    """Keys from N(0, 1): the state grows by 10^3 in seven tokens."""
    q, k, v, log_decay, beta, state = problem((2, 7, 3, 8, 3))
    inputs = q, 8**0.5 * k, v, log_decay, beta, state
    for way in list(FAST_WAYS.values())[1:]:
        assert_close(results(inputs, **way), results(inputs, form="recurrent"), 1e-10)


@pytest.mark.minutes
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_pieces_are_the_whole_and_gradients_are_derivatives(way: dict) -> None:
    *tokens, state = problem((2, 100, 4, 3, 5))
    whole = gated_delta_rule(*tokens, state, form="recurrent")
    for cuts in ((1, 99), (7, 64, 29), (1,) * 100):
        outputs, carried = [], state
        for piece in zip(*(z.split(cuts, 1) for z in tokens), strict=True):
            output, carried = gated_delta_rule(*piece, carried, **way)
            outputs.append(output)
        assert_close((torch.cat(outputs, 1), carried), whole, 1e-12)
    leaves = [x.clone().requires_grad_() for x in problem((2, 6, 2, 3, 2))]
    assert torch.autograd.gradcheck(lambda *x: gated_delta_rule(*x, **way), leaves)
    for which in (0, 1):  # a loss of the output alone, or of the state alone
        alone = torch.autograd.grad(gated_delta_rule(*leaves, **way)[which].sum(), leaves, allow_unused=True)
        want = torch.autograd.grad(gated_delta_rule(*leaves, form="recurrent")[which].sum(), leaves, allow_unused=True)
        for x, y, leaf in zip(alone, want, leaves, strict=True):
            torch.testing.assert_close(*(torch.zeros_like(leaf) if z is None else z for z in (x, y)))


def error_before_fading(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    """The error is measured against the state that has not faded yet."""
    outputs = []
    for t in range(q.shape[1]):
        error = v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], state)
        written = torch.einsum("bh,bhk,bhv->bhkv", beta[:, t], k[:, t], error)
        state = log_decay[:, t].exp()[..., None, None] * state + written
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, 1)


def read_before_write(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    outputs = []
    for t in range(q.shape[1]):
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
        state = gated_delta_rule(*(z[:, t : t + 1] for z in (q, k, v, log_decay, beta)), state, form="recurrent")[1]
    return torch.stack(outputs, 1)


def nothing_corrected(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    outputs = []
    for t in range(q.shape[1]):
        written = torch.einsum("bh,bhk,bhv->bhkv", beta[:, t], k[:, t], v[:, t])
        state = log_decay[:, t].exp()[..., None, None] * state + written
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, 1)


def scaled(q: Tensor, *rest: Tensor) -> Tensor:
    return gated_delta_rule(q * q.shape[-1] ** -0.5, *rest, form="recurrent")[0]


def strength_up_to_one(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    return gated_delta_rule(q, k, v, log_decay, beta.clamp(max=1), state, form="recurrent")[0]


def state_ignored(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    return gated_delta_rule(q, k, v, log_decay, beta, form="recurrent")[0]


def test_the_inputs_tell_classic_bugs_apart() -> None:
    """Were an implementation wrong in this way, the comparisons above would see it."""
    mutants = (error_before_fading, read_before_write, nothing_corrected, scaled, strength_up_to_one, state_ignored)
    for size in SIZES[1], SIZES[3]:
        for mutant in mutants:
            wrong = mutant(*problem(size))
            assert errors((wrong,), truth(size)[:1])["output"] > 100 * TOLERANCE[FLOAT32], mutant


def test_bfloat16_takes_the_chunked_form_and_a_float32_state() -> None:
    *tokens, state = (x.bfloat16() for x in problem((2, 71, 4, 5, 3)))
    output, final = gated_delta_rule(*tokens, state.float())
    same_output, same_final = gated_delta_rule(*tokens, state.float(), form="chunked")
    assert (output.dtype, final.dtype) == (torch.bfloat16, FLOAT32)
    assert torch.equal(output, same_output)
    assert torch.equal(final, same_final)
    exact = gated_delta_rule(*(x.double() for x in tokens), state.double(), form="recurrent")
    assert_close((output,), exact[:1], 2**-8)
    assert_close((final,), exact[1:], 2e-6)


@pytest.mark.minutes
def test_numba_is_a_proper_operator() -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 9, 2, 3, 2))]
    gated_delta_rule(*inputs, backend="numba")
    torch.library.opcheck(torch.ops.hybridlab.gated_delta_rule_numba.default, inputs)
    for T in (1, 71):
        singles = [x.float() for x in problem((2, T, 4, 5, 3))]
        for got, want in zip(gated_delta_rule(*singles), gated_delta_rule(*singles, backend="numba"), strict=True):
            assert torch.equal(got, want)


@pytest.mark.minutes
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_compiles_in_one_graph_runs_on_meta_and_overwrites_nothing(way: dict) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 9, 3, 4, 2))]
    compiled = torch.compile(lambda *z: gated_delta_rule(*z, **way), fullgraph=True, backend="aot_eager")
    (got, _), (want, _) = compiled(*inputs), gated_delta_rule(*inputs, **way)
    torch.testing.assert_close(got, want)
    for x, y in zip(torch.autograd.grad(got.sum(), inputs), torch.autograd.grad(want.sum(), inputs), strict=True):
        torch.testing.assert_close(x, y)
    output, final = gated_delta_rule(*(x.to("meta") for x in problem((2, 9, 4, 3, 5))), **way)
    assert (output.shape, final.shape, final.device.type) == ((2, 9, 4, 5), (2, 4, 3, 5), "meta")
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in problem((2, 9, 4, 3, 5))]
    before = [x.clone() for x in strided]
    assert_close(results(tuple(strided), **way), truth((2, 9, 4, 3, 5)), 1e-12)
    assert all(torch.equal(x, y) for x, y in zip(strided, before, strict=True))
    _, final = gated_delta_rule(*strided, **way)
    assert final.untyped_storage().nbytes() == final.numel() * 8


def changed(**changes: object) -> dict[str, object]:
    return dict(zip(NAMES, problem((2, 4, 3, 5, 7)), strict=True)) | changes


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=FLOAT64)


BAD = {
    "q is a list": ({"q": [1.0]}, "q must be a tensor, got list"),
    "k of fewer heads": ({"k": zeros(2, 4, 1, 5)}, r"k must be \(B, T, H, K\) with H = 3, got shape \(2, 4, 1, 5\)"),
    "v is shorter": ({"v": zeros(2, 3, 3, 7)}, r"v must be \(B, T, H, V\) with T = 4, got shape \(2, 3, 3, 7\)"),
    "log_decay a channel": ({"log_decay": zeros(2, 4, 3, 5)}, r"log_decay must have 3 axes \(B, T, H\)"),
    "beta a head": ({"beta": zeros(3)}, r"beta must have 3 axes \(B, T, H\), got shape \(3,\)"),
    "beta constant": ({"beta": zeros(1, 1, 3)}, r"beta must be \(B, T, H\) with B = 2, got shape \(1, 1, 3\)"),
    "k in float32": ({"k": torch.zeros(2, 4, 3, 5)}, "k is torch.float32 but q is torch.float64"),
    "beta elsewhere": ({"beta": zeros(2, 4, 3).to("meta")}, "beta is on meta but q is on cpu"),
    "positive decay": ({"log_decay": zeros(2, 4, 3) + 0.25}, "at most 0 everywhere, its largest entry is 0.25"),
    "NaN decay": ({"log_decay": zeros(2, 4, 3) * math.nan}, "its largest entry is NaN"),
    "state turned": ({"state": zeros(2, 3, 7, 5)}, r"state must have shape \(2, 3, 5, 7\), got \(2, 3, 7, 5\)"),
    "state in float32": ({"state": torch.zeros(2, 3, 5, 7)}, "state must be torch.float64 for torch.float64 inputs"),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba"),
    "unknown form": ({"form": "scan"}, "unknown form 'scan'; choose recurrent, parallel, chunked"),
    "form with a kernel": ({"form": "chunked", "backend": "numba"}, "form='chunked' is plain PyTorch .* backend='numba'"),
    "chunk of none": ({"form": "chunked", "chunk_size": 0}, "chunk_size must be a positive int, got 0"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^gated_delta_rule: .*{message}"):
        gated_delta_rule(**changed(**changes))


def test_forms_are_named() -> None:
    assert set(FORMS) == {"recurrent", "parallel", "chunked"}
    naive, loop = gated_delta_rule(**changed(), backend="naive"), gated_delta_rule(**changed(), form="recurrent")
    assert torch.equal(naive[0], loop[0])
