"""delta_rule: every form and the kernel are the literal loop, gradients too; the gated rule's tests hold what both share."""

import functools

import pytest
import torch
from torch import Tensor

from hybridlab.ops.delta_rule import FORMS, delta_rule
from hybridlab.ops.gated_delta_rule import gated_delta_rule

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
NAMES = ("q", "k", "v", "beta", "state")
RESULTS = ("output", "final state", *(f"gradient of {name}" for name in NAMES))
Size = tuple[int, int, int, int, int]
SIZES: list[Size] = [(3, 1, 4, 5, 16), (2, 7, 3, 5, 3), (1, 64, 2, 2, 4), (2, 65, 3, 6, 9), (1, 130, 2, 33, 70)]


@functools.cache
def problem(size: Size) -> tuple[Tensor, ...]:
    """q, k, v, beta, state in float64 and exact in float32; keys have length 1, beta goes from 0 to 2."""
    batch, T, H, K, V = size
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(T + K), dtype=FLOAT64)
    k = torch.nn.functional.normalize(draw(batch, T, H, K), dim=-1)
    beta = (1.5 * draw(batch, T, H) + 1).clamp(0, 2)
    tensors = draw(batch, T, H, K), k, draw(batch, T, H, V), beta, draw(batch, H, K, V)
    return tuple(x.float().double() for x in tensors)


def results(
    inputs: tuple[Tensor, ...], dtype: torch.dtype = FLOAT64, with_state: bool = True, **way: object
) -> tuple[Tensor, ...]:
    """Output, final state and every gradient, for fixed random gradients of the first two."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in (inputs if with_state else inputs[:-1])]
    found = delta_rule(*leaves, **way)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=generator).to(dtype) for y in found]
    return (*(y.detach() for y in found), *torch.autograd.grad(found, leaves, upstream))


def assert_close(got: tuple[Tensor, ...], want: tuple[Tensor, ...], tolerance: float) -> None:
    """Errors beside the largest entry of each result."""
    assert [x.shape for x in got] == [y.shape for y in want]
    named = zip(RESULTS, got, want, strict=False)
    errors = {name: ((x.double() - y).abs().max() / y.abs().max().clamp_min(1e-6)).item() for name, x, y in named}
    wrong = {name: f"{error:.1e}" for name, error in errors.items() if not error <= tolerance}
    assert not wrong, f"beyond {tolerance:.0e}: {wrong}"


def test_the_loop_is_the_product_of_the_paper() -> None:
    """S_t = (I - beta k k^T) S_{t-1} + beta k v^T: matrices, not differences."""
    q, k, v, beta, state = problem((2, 7, 3, 5, 3))
    outputs, S = [], state
    for t in range(7):
        turn = torch.eye(5, dtype=FLOAT64) - torch.einsum("bh,bhi,bhj->bhij", beta[:, t], k[:, t], k[:, t])
        S = turn @ S + torch.einsum("bh,bhi,bhj->bhij", beta[:, t], k[:, t], v[:, t])
        outputs.append(torch.einsum("bhi,bhij->bhj", q[:, t], S))
    for way in FAST_WAYS.values():
        assert_close(delta_rule(q, k, v, beta, state, **way), (torch.stack(outputs, 1), S), 1e-13)


def test_a_strength_of_two_reflects() -> None:
    """Asked again for the same key, the answer has gone as far beyond the value as it had been short of it."""
    _, k, v, beta, state = problem((2, 1, 3, 5, 3))
    before = torch.einsum("bthk,bhkv->bthv", k, state)
    for way in FAST_WAYS.values():
        answer, _ = delta_rule(k, k, v, torch.full_like(beta, 2), state, **way)
        torch.testing.assert_close(answer, 2 * v - before)


def test_forms_agree_with_the_loop() -> None:
    for way in list(FAST_WAYS.values())[1:]:
        for dtype, size in ((FLOAT64, SIZES[0]), (FLOAT32, SIZES[1]), (FLOAT64, SIZES[3])):
            assert_close(results(problem(size), dtype, **way), results(problem(size), form="recurrent"), TOLERANCE[dtype])


@pytest.mark.minutes
@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32], ids=["float64", "float32"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_agrees_with_the_loop(way: dict, dtype: torch.dtype) -> None:
    for size in SIZES:
        for with_state in (True, False):
            got = results(problem(size), dtype, with_state, **way)
            assert {x.dtype for x in got} == {dtype}
            assert_close(got, results(problem(size), FLOAT64, with_state, form="recurrent"), TOLERANCE[dtype])


@pytest.mark.minutes
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_is_the_gated_rule_without_a_gate(way: dict) -> None:
    """Pieces, gradients, one graph, meta: all by the gated rule's code, which its own tests hold."""
    q, k, v, beta, state = inputs = [x.clone().requires_grad_() for x in problem((2, 9, 3, 4, 2))]
    want = gated_delta_rule(q, k, v, torch.zeros_like(beta), beta, state, form="recurrent")
    assert_close(delta_rule(*inputs, **way), want, 1e-13)
    first, carried = delta_rule(*(x[:, :4] for x in inputs[:-1]), state, **way)
    second, final = delta_rule(*(x[:, 4:] for x in inputs[:-1]), carried, **way)
    assert_close((torch.cat([first, second], 1), final), want, 1e-13)
    compiled = torch.compile(lambda *z: delta_rule(*z, **way), fullgraph=True, backend="aot_eager")
    got = compiled(*inputs)
    for x, y in zip(torch.autograd.grad(got[0].sum(), inputs), torch.autograd.grad(want[0].sum(), inputs), strict=True):
        torch.testing.assert_close(x, y)
    output, final = delta_rule(*(x.to("meta") for x in problem((2, 9, 4, 3, 5))), **way)
    assert (output.shape, final.shape, final.device.type) == ((2, 9, 4, 5), (2, 4, 3, 5), "meta")


@pytest.mark.minutes
def test_numba_is_a_proper_operator() -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 9, 2, 3, 2))]
    delta_rule(*inputs, backend="numba")
    torch.library.opcheck(torch.ops.hybridlab.delta_rule_numba.default, inputs)


def changed(**changes: object) -> dict[str, object]:
    return dict(zip(NAMES, problem((2, 4, 3, 5, 7)), strict=True)) | changes


BAD = {
    "q is a list": ({"q": [1.0]}, "q must be a tensor, got list"),
    "beta a channel": ({"beta": torch.zeros(2, 4, 3, 5).double()}, r"beta must have 3 axes \(B, T, H\)"),
    "beta in float32": ({"beta": torch.zeros(2, 4, 3)}, "beta is torch.float32 but q is torch.float64"),
    "state turned": (
        {"state": torch.zeros(2, 3, 7, 5).double()},
        r"state must have shape \(2, 3, 5, 7\), got \(2, 3, 7, 5\)",
    ),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba"),
    "unknown form": ({"form": "scan"}, "unknown form 'scan'; choose recurrent, parallel, chunked"),
    "chunk of none": ({"form": "chunked", "chunk_size": 0}, "chunk_size must be a positive int, got 0"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^delta_rule: .*{message}"):
        delta_rule(**changed(**changes))


def test_forms_are_named() -> None:
    assert set(FORMS) == {"recurrent", "parallel", "chunked"}
    naive, loop = delta_rule(**changed(), backend="naive"), delta_rule(**changed(), form="recurrent")
    assert torch.equal(naive[0], loop[0])
