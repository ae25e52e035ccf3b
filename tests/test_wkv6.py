"""wkv6: every form and every backend against the literal recurrence in float64, at awkward sizes and strong decays."""

import functools

import pytest
import torch
from torch import Tensor

from hybridlab.ops.wkv6 import FORMS, wkv6

NAMES = ("r", "k", "v", "log_decay", "bonus", "state")
RESULTS = ("output", "final state", *(f"gradient of {name}" for name in NAMES))
DECAYS = (-20.0, -3.0, -1e-3, 0.0, "mixed")
LENGTHS = (1, 7, 16, 17, 65, 130)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
CONTENDERS = {
    "recurrent-float32": ({"form": "recurrent"}, torch.float32),
    "parallel-float64": ({"form": "parallel"}, torch.float64),
    "parallel-float32": ({"form": "parallel"}, torch.float32),
    "chunked-float64": ({"form": "chunked"}, torch.float64),
    "chunked-float32": ({"form": "chunked"}, torch.float32),
    "numba-float64": ({"backend": "numba"}, torch.float64),
    "numba-float32": ({"backend": "numba"}, torch.float32),
}
WAYS = {
    "recurrent": {"form": "recurrent"},
    "parallel": {"form": "parallel"},
    "chunked": {"form": "chunked"},
    "chunks of 5": {"form": "chunked", "chunk_size": 5},
    "numba": {"backend": "numba"},
}
contenders = pytest.mark.parametrize(("way", "dtype"), CONTENDERS.values(), ids=CONTENDERS)
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def problem(T: int, decay: float | str = "mixed", B: int = 2, H: int = 3, K: int = 5, V: int = 7) -> list[Tensor]:
    """r, k, v, log_decay, bonus, state in float64; K, V and H differ, so that no axes can be mixed up unseen."""
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(T), dtype=torch.float64)
    r, k, v, spread = draw(B, T, H, K), draw(B, T, H, K), draw(B, T, H, V), draw(B, T, H, K)
    log_decay = -torch.exp(2 * spread - 1) if decay == "mixed" else torch.full_like(spread, float(decay))
    return [r, k, v, log_decay, draw(H, K), draw(B, H, K, V)]


def results(inputs: list[Tensor], with_state: bool = True, **way: object) -> tuple[Tensor, ...]:
    """Output, final state and the gradient of every input, for fixed random gradients of the first two."""
    leaves = [x.clone().requires_grad_() for x in (inputs if with_state else inputs[:-1])]
    output, state = wkv6(*leaves, **way)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype) for y in (output, state)]
    return (output.detach(), state.detach(), *torch.autograd.grad([output, state], leaves, grads))


@functools.cache
def truth(T: int, decay: float | str, with_state: bool) -> tuple[Tensor, ...]:
    return results(problem(T, decay), with_state, form="recurrent")


def errors(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> dict[str, float]:
    """The worst error of each result, relative to its largest entry."""
    named = zip(RESULTS, got, want, strict=False)
    return {name: ((x.double() - y).abs().max() / (y.abs().max() or 1)).item() for name, x, y in named}


def assert_close(got: tuple[Tensor, ...], want: tuple[Tensor, ...], tolerance: float) -> None:
    found = errors(got, want)
    assert len(found) == len(got) == len(want)
    wrong = {name: f"{error:.1e}" for name, error in found.items() if not error <= tolerance}
    assert not wrong, f"beyond {tolerance:.0e}: {wrong}"


@pytest.mark.minutes
@pytest.mark.parametrize("with_state", [True, False], ids=["state", "no-state"])
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("T", LENGTHS)
@contenders
def test_agrees_with_the_recurrence(way: dict, dtype: torch.dtype, T: int, decay: float | str, with_state: bool) -> None:
    got = results([x.to(dtype) for x in problem(T, decay)], with_state, **way)
    assert {x.dtype for x in got} == {dtype}
    assert_close(got, truth(T, decay, with_state), TOLERANCE[dtype])


@contenders
def test_heads_as_wide_as_real_ones(way: dict, dtype: torch.dtype) -> None:
    """Wide enough for Numba's threads, and for its blocks of four."""
    inputs = problem(130, "mixed", B=1, H=2, K=64, V=36)
    got = results([x.to(dtype) for x in inputs], **way)
    assert_close(got, results(inputs, form="recurrent"), TOLERANCE[dtype])


def test_the_recurrence_is_the_equation() -> None:
    """By hand, one head of one key channel: the second token reads the first undecayed, the third through one decay."""
    r, k, v = (torch.tensor(x, dtype=torch.float64).reshape(1, 3, 1, 1) for x in ([1.0, 1, 1], [2.0, 3, 5], [1.0, 10, 100]))
    log_decay = torch.tensor([0.5, 0.25, 0.1], dtype=torch.float64).log().reshape(1, 3, 1, 1)
    output, state = wkv6(r, k, v, log_decay, torch.full((1, 1), 7.0, dtype=torch.float64), form="recurrent")
    torch.testing.assert_close(output.flatten().tolist(), [14.0, 212.0, 3530.5])
    assert state.item() == pytest.approx(503.05)


@pytest.mark.parametrize("constant_in", [(0,), (1,), (0, 1)], ids=["batch", "time", "both"])
@ways
def test_constant_decay_is_an_expanded_one(way: dict, constant_in: tuple[int, ...]) -> None:
    inputs = problem(37)
    for axis in constant_in:
        inputs[3] = inputs[3].narrow(axis, 0, 1)
    got = results(inputs, **way)
    want = list(results([*inputs[:3], inputs[3].expand_as(inputs[0]), *inputs[4:]], form="recurrent"))
    want[5] = want[5].sum(constant_in, keepdim=True)
    assert got[5].shape == inputs[3].shape
    assert_close(got, tuple(want), 1e-9)


@pytest.mark.parametrize("cuts", [(1, 36), (7, 17, 13), (16, 16, 5)], ids=str)
@ways
def test_pieces_are_the_whole(way: dict, cuts: tuple[int, ...]) -> None:
    *tokens, bonus, state = problem(37)
    whole, final = wkv6(*tokens, bonus, state, form="recurrent")
    outputs = []
    for piece in zip(*(x.split(cuts, 1) for x in tokens), strict=True):
        output, state = wkv6(*piece, bonus, state, **way)
        outputs.append(output)
    assert_close((torch.cat(outputs, 1), state), (whole, final), 1e-9)


@ways
def test_gradcheck(way: dict) -> None:
    inputs = [x.requires_grad_() for x in problem(6, B=1, H=2, K=2, V=3)]
    assert torch.autograd.gradcheck(lambda *x: wkv6(*x, **way), inputs)


@ways
def test_one_gradient_is_enough(way: dict) -> None:
    """A loss of the output alone, or of the state alone."""
    for which in (0, 1):
        got, want = [x.requires_grad_() for x in problem(9)], [x.requires_grad_() for x in problem(9)]
        wkv6(*got, **way)[which].sum().backward()
        wkv6(*want, form="recurrent")[which].sum().backward()
        for x, y in zip(got, want, strict=True):
            x_grad, y_grad = (torch.zeros_like(z) if z.grad is None else z.grad for z in (x, y))
            torch.testing.assert_close(x_grad, y_grad)


@ways
def test_strided_inputs_and_nothing_overwritten(way: dict) -> None:
    inputs = problem(9)
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    before = [x.clone() for x in strided]
    assert_close(wkv6(*strided, **way), wkv6(*inputs, form="recurrent"), 1e-9)
    assert all(torch.equal(x, y) for x, y in zip(strided, before, strict=True))


@ways
def test_a_decay_of_minus_infinity_forgets(way: dict) -> None:
    inputs = problem(20)
    inputs[3][:, 4] = float("-inf")
    got = results(inputs, **way)
    assert_close(got, results(inputs, form="recurrent"), 1e-9)
    inputs[5] = inputs[5] + 1
    assert torch.equal(wkv6(*inputs, **way)[0][:, 5:], got[0][:, 5:])


def test_bfloat16_takes_the_chunked_form() -> None:
    inputs = [*(x.bfloat16() for x in problem(37)[:5]), problem(37)[5].float()]
    output, state = wkv6(*inputs)
    same_output, same_state = wkv6(*inputs, form="chunked")
    assert (output.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(output, same_output)
    assert torch.equal(state, same_state)
    exact = wkv6(*(x.double() for x in inputs), form="recurrent")
    assert_close((output,), exact[:1], 2**-8)
    assert_close((state,), exact[1:], 2e-6)


def test_auto_is_numba_on_a_cpu() -> None:
    inputs = [x.float() for x in problem(37)]
    for got, want in zip(wkv6(*inputs), wkv6(*inputs, backend="numba"), strict=True):
        assert torch.equal(got, want)


@ways
def test_the_state_owns_what_it_needs_and_no_more(way: dict) -> None:
    *_, state = problem(65)
    _, final = wkv6(*problem(65), **way)
    assert final.untyped_storage().nbytes() == state.numel() * state.element_size()


def test_the_numba_forward_saves_only_its_inputs_and_results() -> None:
    saved: list[Tensor] = []
    inputs = [x.requires_grad_() for x in problem(65)]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x), x)[1], lambda x: x):
        output, state = wkv6(*inputs, backend="numba")
    assert sum(x.numel() for x in saved) == sum(x.numel() for x in (*inputs, output, state))


def decay_before_read(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> Tensor:
    """As in gated linear attention: the state fades before the token reads it."""
    moved = torch.cat([log_decay[:, 1:], torch.zeros_like(log_decay[:, :1])], 1)
    return wkv6(r, k, v, moved, bonus, log_decay[:, 0].exp().unsqueeze(-1) * state, form="recurrent")[0]


def read_after_write(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> Tensor:
    return wkv6(r, k, v, log_decay, bonus + 1, state, form="recurrent")[0]


def no_bonus(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> Tensor:
    return wkv6(r, k, v, log_decay, torch.zeros_like(bonus), state, form="recurrent")[0]


def scaled(r: Tensor, *rest: Tensor) -> Tensor:
    return wkv6(r * r.shape[-1] ** -0.5, *rest, form="recurrent")[0]


def state_ignored(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> Tensor:
    return wkv6(r, k, v, log_decay, bonus, form="recurrent")[0]


def heads_shifted(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> Tensor:
    return wkv6(r, k, v, log_decay, bonus.roll(1, 0), state, form="recurrent")[0]


@pytest.mark.parametrize("mutant", [decay_before_read, read_after_write, no_bonus, scaled, state_ignored, heads_shifted])
@pytest.mark.parametrize("T", LENGTHS)
def test_the_inputs_tell_classic_bugs_apart(mutant: object, T: int) -> None:
    """Were an implementation wrong in this way, the comparisons above would see it at every length."""
    wrong = mutant(*problem(T))
    assert errors((wrong,), truth(T, "mixed", True)[:1])["output"] > 100 * TOLERANCE[torch.float32]


def test_strong_decay_tells_the_factored_form_apart() -> None:
    """(r e^{sum}) (k e^{-sum}): right for mild decays, lost at -20."""

    def factored(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
        sums = log_decay.cumsum(1)
        scores = torch.einsum("bthk,bihk->bhti", r * (sums - log_decay).exp(), k * (-sums).exp())
        return torch.einsum("bhti,bihv->bthv", scores.tril(-1), v)

    for decay, works in ((-1e-3, True), (-20.0, False)):
        r, k, v, log_decay, bonus, _ = (x.float() for x in problem(65, decay))
        want = wkv6(r, k, v, log_decay, torch.zeros_like(bonus))[0]
        assert torch.allclose(factored(r, k, v, log_decay), want, atol=1e-3) == works


def changed(**changes: object) -> dict[str, object]:
    return dict(zip(NAMES, problem(4), strict=True)) | changes


BAD = {
    "r is a list": ({"r": [1.0]}, "r must be a tensor, got list"),
    "r is int": ({"r": torch.ones(2, 4, 3, 5, dtype=torch.int64)}, r"r must be floating, got torch.int64"),
    "r lacks an axis": ({"r": torch.zeros(2, 4, 15)}, r"r must have 4 axes \(B, T, H, K\), got shape \(2, 4, 15\)"),
    "k has other heads": (
        {"k": torch.zeros(2, 4, 2, 5).double()},
        r"k must be \(B, T, H, K\) with H = 3, got shape \(2, 4, 2, 5\)",
    ),
    "v is shorter": (
        {"v": torch.zeros(2, 3, 3, 7).double()},
        r"v must be \(B, T, H, V\) with T = 4, got shape \(2, 3, 3, 7\)",
    ),
    "log_decay a head": (
        {"log_decay": -torch.ones(2, 4, 3, 1).double()},
        r"log_decay must be \(B or 1, T or 1, H, K\) with K = 5, got shape \(2, 4, 3, 1\)",
    ),
    "bonus flat": ({"bonus": torch.zeros(15).double()}, r"bonus must have 2 axes \(H, K\), got shape \(15,\)"),
    "k in float32": ({"k": torch.zeros(2, 4, 3, 5)}, "k is torch.float32 but r is torch.float64"),
    "v elsewhere": ({"v": torch.zeros(2, 4, 3, 7, device="meta").double()}, "v is on meta but r is on cpu"),
    "T = 0": (
        {
            "r": torch.zeros(2, 0, 3, 5).double(),
            "k": torch.zeros(2, 0, 3, 5).double(),
            "v": torch.zeros(2, 0, 3, 7).double(),
        },
        "T = 0; every axis needs at least one entry",
    ),
    "positive decay": (
        {"log_decay": torch.full((2, 4, 3, 5), 0.25).double()},
        "at most 0 everywhere, its largest entry is 0.25",
    ),
    "NaN decay": ({"log_decay": torch.full((2, 4, 3, 5), float("nan")).double()}, "its largest entry is NaN"),
    "state transposed": (
        {"state": torch.zeros(2, 3, 7, 5).double()},
        r"state must have shape \(2, 3, 5, 7\), got \(2, 3, 7, 5\)",
    ),
    "state in float32": (
        {"state": torch.zeros(2, 3, 5, 7)},
        "state must be torch.float64 for torch.float64 inputs, got torch.float32",
    ),
    "state elsewhere": (
        {"state": torch.zeros(2, 3, 5, 7, device="meta").double()},
        "state is on meta but the inputs are on cpu",
    ),
    "state a tuple": ({"state": (1, 2)}, "state must be a tensor or None, got tuple"),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba, triton"),
    "unknown form": ({"form": "scan"}, "unknown form 'scan'; choose recurrent, parallel, chunked"),
    "form with a kernel": ({"form": "chunked", "backend": "numba"}, "form='chunked' is plain PyTorch .* backend='numba'"),
    "chunk of none": ({"form": "chunked", "chunk_size": 0}, "chunk_size must be a positive int, got 0"),
    "chunk of halves": ({"chunk_size": 2.5}, "chunk_size must be a positive int, got 2.5"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^wkv6: .*{message}"):
        wkv6(**changed(**changes))


def test_numba_says_why_it_cannot() -> None:
    half = {name: x.bfloat16() for name, x in changed().items() if name != "state"}
    with pytest.raises(
        ValueError, match=r"Numba kernels take float32 and float64, these are torch\.bfloat16; use backend='auto'"
    ):
        wkv6(**half, backend="numba")


def test_forms_are_named() -> None:
    assert set(FORMS) == {"recurrent", "parallel", "chunked"}
    assert torch.equal(wkv6(**changed(), backend="naive")[0], wkv6(**changed(), form="recurrent")[0])
