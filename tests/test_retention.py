"""retention: every form and the kernel are the literal loop, gradients too; without decay it is linear attention."""

import functools
import math

import pytest
import torch
from torch import Tensor

from hybridlab.ops.retention import FORMS, retention
from hybridlab.ops.ssd import ssd

FLOAT64, FLOAT32 = torch.float64, torch.float32
# In float32 the loop itself is off by 5e-5, in the gradient of log_decay, where a hundred tokens cancel.
TOLERANCE = {FLOAT64: 1e-12, FLOAT32: 1e-4}
WAYS = {
    "recurrent": {"form": "recurrent"},
    "parallel": {"form": "parallel"},
    "chunked": {"form": "chunked"},
    "chunks of 1": {"form": "chunked", "chunk_size": 1},
    "chunks of 16": {"form": "chunked", "chunk_size": 16},
    "numba": {"backend": "numba"},
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
dtypes = pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32], ids=["float64", "float32"])
NAMES = ("q", "k", "v", "log_decay", "state")
RESULTS = ("output", "final state", *(f"gradient of {name}" for name in NAMES))
# (B, T, H, K, V): few tokens, which Numba takes one by one; chunks that are full, one longer, not full; keys and values of
# different widths, either way.
Size = tuple[int, int, int, int, int]
SIZES: list[Size] = [(1, 1, 1, 1, 1), (3, 1, 4, 5, 16), (2, 7, 6, 5, 3), (2, 64, 3, 2, 4), (1, 65, 5, 6, 9)]
SIZES += [(1, 130, 2, 33, 17)]
# "retnet" has the decays of RetNet's heads, log(1 - 2^(-5 - h)).
DECAYS: tuple[float | str, ...] = ("retnet", 0.0, -1e-6, -20.0, -900.0, -math.inf, "mixed")
decays = pytest.mark.parametrize("decay", DECAYS)


@functools.cache
def problem(size: Size, decay: float | str = "mixed") -> tuple[Tensor, ...]:
    """q, k, v, log_decay, state in float64; every number exists in float32 too."""
    batch, T, H, K, V = size
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(T + K), dtype=FLOAT64)
    if decay == "retnet":
        log_decay = torch.log1p(-(2.0 ** (-5 - torch.arange(H, dtype=FLOAT64))))
    else:
        log_decay = -(2 * draw(H) - 1).exp() if decay == "mixed" else torch.full((H,), decay, dtype=FLOAT64)
    tensors = draw(batch, T, H, K), draw(batch, T, H, K), draw(batch, T, H, V), log_decay, draw(batch, H, K, V)
    return tuple(x.float().double() for x in tensors)


def results(
    inputs: tuple[Tensor, ...], dtype: torch.dtype = FLOAT64, with_state: bool = True, **way: object
) -> tuple[Tensor, ...]:
    """Output, final state and every gradient, for fixed random gradients of the first two."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in (inputs if with_state else inputs[:-1])]
    found = retention(*leaves, **way)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=generator).to(dtype) for y in found]
    return (*(y.detach() for y in found), *torch.autograd.grad(found, leaves, upstream))


@functools.cache
def truth(size: Size, decay: float | str, with_state: bool) -> tuple[Tensor, ...]:
    return results(problem(size, decay), FLOAT64, with_state, form="recurrent")


def errors(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> dict[str, float]:
    """The worst error of each result beside its largest entry."""
    named = zip(RESULTS, got, want, strict=False)
    return {name: ((x.double() - y).abs().max() / y.abs().max().clamp_min(1e-30)).item() for name, x, y in named}


def assert_close(got: tuple[Tensor, ...], want: tuple[Tensor, ...], tolerance: float) -> None:
    assert [x.shape for x in got] == [y.shape for y in want]
    wrong = {name: f"{error:.1e}" for name, error in errors(got, want).items() if not error <= tolerance}
    assert not wrong, f"beyond {tolerance:.0e}: {wrong}"


def test_by_hand() -> None:
    """One number a head that halves: a token reads itself whole, and everything before it once more halved."""
    q, k, v = (torch.tensor(z, dtype=FLOAT64).view(1, 3, 1, 1) for z in ([1.0, 2, 1], [1.0, 3, 1], [10.0, 1, 7]))
    log_decay, state = torch.full((1,), -math.log(2), dtype=FLOAT64), torch.full((1, 1, 1, 1), 8.0, dtype=FLOAT64)
    for way in WAYS.values():
        output, final = retention(q, k, v, log_decay, state, **way)
        torch.testing.assert_close(output.flatten().tolist(), [14.0, 2 * (7.0 + 3), 5 + 7.0])
        assert final.item() == pytest.approx(12)


@ways
def test_no_decay_is_linear_attention(way: dict) -> None:
    q, k, v, log_decay, state = problem((2, 70, 3, 4, 5), 0.0)
    output, final = retention(q, k, v, log_decay, state, **way)
    scores = torch.einsum("bthk,bshk->bhts", q, k).tril()
    want = torch.einsum("bhts,bshv->bthv", scores, v) + torch.einsum("bthk,bhkv->bthv", q, state)
    assert_close((output, final), (want, state + torch.einsum("bthk,bthv->bhkv", k, v)), 1e-13)


@ways
def test_is_ssd_with_steps_of_one_and_a_group_a_head(way: dict) -> None:
    q, k, v, log_decay, state = problem((2, 70, 3, 4, 5))
    want, final = ssd(v, torch.ones_like(v[..., 0]), log_decay, k, q, None, state.mT, form="recurrent")
    assert_close(retention(q, k, v, log_decay, state, **way), (want, final.mT), 1e-13)


@pytest.mark.minutes
@pytest.mark.parametrize("with_state", [True, False], ids=["state", "no-state"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@dtypes
@ways
def test_agrees_with_the_loop(way: dict, dtype: torch.dtype, size: Size, with_state: bool) -> None:
    got = results(problem(size), dtype, with_state, **way)
    assert {x.dtype for x in got} == {dtype}
    assert_close(got, truth(size, "mixed", with_state), TOLERANCE[dtype])


@pytest.mark.parametrize("T", [3, 71])
@decays
@dtypes
@ways
def test_agrees_with_the_loop_however_fast_it_fades(way: dict, dtype: torch.dtype, decay: float | str, T: int) -> None:
    size = (2, T, 5, 4, 3)
    assert_close(results(problem(size, decay), dtype, **way), truth(size, decay, True), TOLERANCE[dtype])


@ways
def test_gradcheck(way: dict) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 9, 2, 3, 2))]
    assert torch.autograd.gradcheck(lambda *x: retention(*x, **way), inputs)


@ways
def test_one_gradient_is_enough(way: dict) -> None:
    """A loss of the output alone, or of the state alone."""
    for which in (0, 1):
        got, want = ([x.clone().requires_grad_() for x in problem((2, 9, 2, 3, 2))] for _ in range(2))
        retention(*got, **way)[which].sum().backward()
        retention(*want, form="recurrent")[which].sum().backward()
        for x, y in zip(got, want, strict=True):
            torch.testing.assert_close(*(torch.zeros_like(z) if z.grad is None else z.grad for z in (x, y)))


@pytest.mark.parametrize("cuts", [(1, 99), (7, 64, 29), (64, 36), (1,) * 100], ids=lambda cuts: f"{len(cuts)} pieces")
@ways
def test_pieces_are_the_whole(way: dict, cuts: tuple[int, ...]) -> None:
    q, k, v, log_decay, state = problem((2, 100, 4, 3, 5))
    whole = retention(q, k, v, log_decay, state, form="recurrent")
    outputs = []
    for q_n, k_n, v_n in zip(*(z.split(cuts, 1) for z in (q, k, v)), strict=True):
        output, state = retention(q_n, k_n, v_n, log_decay, state, **way)
        outputs.append(output)
    assert_close((torch.cat(outputs, 1), state), whole, 1e-12)


def read_before_write(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> Tensor:
    return retention(q, k, v, log_decay, state)[0] - (q * k).sum(-1, keepdim=True) * v


def faded_when_written(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> Tensor:
    """S = e^{log_decay} (S + k v^T)."""
    return retention(q, log_decay.exp().unsqueeze(-1) * k, v, log_decay, state)[0]


def scaled(q: Tensor, *rest: Tensor) -> Tensor:
    return retention(q * q.shape[-1] ** -0.5, *rest)[0]


def state_ignored(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> Tensor:
    return retention(q, k, v, log_decay)[0]


def state_not_faded_at_first(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> Tensor:
    return retention(q, k, v, log_decay, state / log_decay.exp().view(-1, 1, 1))[0]


def heads_shifted(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> Tensor:
    return retention(q, k, v, log_decay.roll(1, 0), state)[0]


MUTANTS = [read_before_write, faded_when_written, scaled, state_ignored, state_not_faded_at_first, heads_shifted]


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("size", [(2, 7, 6, 5, 3), (1, 65, 5, 6, 9)], ids=str)
def test_the_inputs_tell_classic_bugs_apart(mutant: object, size: Size) -> None:
    """Were an implementation wrong in this way, the comparisons above would see it."""
    wrong = mutant(*problem(size))
    assert errors((wrong,), truth(size, "mixed", True)[:1])["output"] > 100 * TOLERANCE[FLOAT32]


def test_factored_powers_are_lost_where_no_form_is() -> None:
    """gamma^t (gamma^-s): fine for RetNet's heads, not for every decay."""
    for decay, works in (("retnet", True), (-20.0, False)):
        q, k, v, log_decay, _ = (x.float() for x in problem((1, 65, 2, 4, 5), decay))
        powers = log_decay * torch.arange(65).view(-1, 1)
        scores = torch.einsum("bthk,bshk->bhts", q * powers.exp().unsqueeze(-1), k * (-powers).exp().unsqueeze(-1))
        factored = torch.einsum("bhts,bshv->bthv", scores.tril(), v)
        for way in WAYS.values():
            want, _ = retention(q, k, v, log_decay, **way)
            assert want.isfinite().all()
            assert torch.allclose(factored, want, atol=1e-3) == works


@pytest.mark.parametrize("T", [1, 70])
@ways
def test_the_state_owns_what_it_needs_and_no_more(way: dict, T: int) -> None:
    _, final = retention(*problem((2, T, 4, 5, 3)), **way)
    assert final.untyped_storage().nbytes() == 2 * 4 * 5 * 3 * 8


@pytest.mark.parametrize("T", [3, 70])
@ways
def test_strided_inputs_and_nothing_overwritten(way: dict, T: int) -> None:
    inputs = problem((2, T, 4, 5, 3))
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    before = [x.clone() for x in strided]
    assert_close(results(tuple(strided), **way), results(inputs, form="recurrent"), 1e-12)
    assert all(torch.equal(x, y) for x, y in zip(strided, before, strict=True))


def test_bfloat16_takes_the_chunked_form_and_a_float32_state() -> None:
    q, k, v, log_decay, state = problem((2, 71, 4, 5, 3))
    q, k, v, log_decay, state = q.bfloat16(), k.bfloat16(), v.bfloat16(), log_decay.float(), state.float()
    output, final = retention(q, k, v, log_decay, state)
    same_output, same_final = retention(q, k, v, log_decay, state, form="chunked")
    assert (output.dtype, final.dtype) == (torch.bfloat16, FLOAT32)
    assert torch.equal(output, same_output)
    assert torch.equal(final, same_final)
    exact = retention(*(x.double() for x in (q, k, v, log_decay, state)), form="recurrent")
    assert_close((output,), exact[:1], 2**-8)
    assert_close((final,), exact[1:], 2e-6)


@pytest.mark.parametrize("T", [1, 71])
def test_auto_is_numba_on_a_cpu(T: int) -> None:
    inputs = [x.float() for x in problem((2, T, 4, 5, 3))]
    for got, want in zip(retention(*inputs), retention(*inputs, backend="numba"), strict=True):
        assert torch.equal(got, want)


def test_numba_operator_passes_opcheck() -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 9, 2, 3, 2))]
    retention(*inputs, backend="numba")
    torch.library.opcheck(torch.ops.hybridlab.retention_numba.default, inputs)


@pytest.mark.minutes
@pytest.mark.parametrize("name", ["recurrent", "parallel", "chunked", "numba"])
def test_compiles_in_one_graph(name: str) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 9, 3, 4, 2))]
    compiled = torch.compile(lambda *z: retention(*z, **WAYS[name]), fullgraph=True, backend="aot_eager")
    (got, _), (want, _) = compiled(*inputs), retention(*inputs, **WAYS[name])
    assert torch.equal(got, want)
    for x, y in zip(torch.autograd.grad(got.sum(), inputs), torch.autograd.grad(want.sum(), inputs), strict=True):
        torch.testing.assert_close(x, y)


@ways
def test_runs_on_meta(way: dict) -> None:
    output, final = retention(*(x.to("meta") for x in problem((2, 9, 4, 3, 5))), **way)
    assert (output.shape, final.shape, final.device.type) == ((2, 9, 4, 5), (2, 4, 3, 5), "meta")


def changed(**changes: object) -> dict[str, object]:
    return dict(zip(NAMES, problem((2, 4, 3, 5, 7)), strict=True)) | changes


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=FLOAT64)


BAD = {
    "q is a list": ({"q": [1.0]}, "q must be a tensor, got list"),
    "q lacks an axis": ({"q": zeros(2, 4, 15)}, r"q must have 4 axes \(B, T, H, K\), got shape \(2, 4, 15\)"),
    "k of fewer heads": ({"k": zeros(2, 4, 1, 5)}, r"k must be \(B, T, H, K\) with H = 3, got shape \(2, 4, 1, 5\)"),
    "v is shorter": ({"v": zeros(2, 3, 3, 7)}, r"v must be \(B, T, H, V\) with T = 4, got shape \(2, 3, 3, 7\)"),
    "log_decay a token": ({"log_decay": zeros(2, 4, 3)}, r"log_decay must have 1 axes \(H\), got shape \(2, 4, 3\)"),
    "log_decay a number": ({"log_decay": -0.1}, "log_decay must be a tensor, got float"),
    "T = 0": ({x: zeros(2, 0, 3, 7) for x in ("q", "k", "v")}, "T = 0; every axis needs at least one entry"),
    "k in float32": ({"k": torch.zeros(2, 4, 3, 5)}, "k is torch.float32 but q is torch.float64"),
    "v elsewhere": ({"v": zeros(2, 4, 3, 7).to("meta")}, "v is on meta but q is on cpu"),
    "positive decay": ({"log_decay": zeros(3) + 0.25}, "at most 0 everywhere, its largest entry is 0.25"),
    "NaN decay": ({"log_decay": zeros(3) * math.nan}, "its largest entry is NaN"),
    "state turned": ({"state": zeros(2, 3, 7, 5)}, r"state must have shape \(2, 3, 5, 7\), got \(2, 3, 7, 5\)"),
    "state in float32": ({"state": torch.zeros(2, 3, 5, 7)}, "state must be torch.float64 for torch.float64 inputs"),
    "state a tuple": ({"state": (1, 2)}, "state must be a tensor or None, got tuple"),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba"),
    "unknown form": ({"form": "scan"}, "unknown form 'scan'; choose recurrent, parallel, chunked"),
    "form with a kernel": ({"form": "chunked", "backend": "numba"}, "form='chunked' is plain PyTorch .* backend='numba'"),
    "chunk of none": ({"form": "chunked", "chunk_size": 0}, "chunk_size must be a positive int, got 0"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^retention: .*{message}"):
        retention(**changed(**changes))


def test_forms_are_named() -> None:
    assert set(FORMS) == {"recurrent", "parallel", "chunked"}
    naive, loop = retention(**changed(), backend="naive"), retention(**changed(), form="recurrent")
    assert torch.equal(naive[0], loop[0])
