"""ssd: the recurrence, the masked attention, the chunks between them and the kernel are one, gradients too."""

import functools
import logging
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad, softplus
from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

from hybridlab.kernels import scalar_decay_numba
from hybridlab.ops.selective_scan import selective_scan
from hybridlab.ops.ssd import FORMS, ssd

FLOAT64, FLOAT32 = torch.float64, torch.float32
TOLERANCE = {FLOAT64: 1e-12, FLOAT32: 2e-5}
WHOLE = "whole"
CHUNKS = (1, 16, 64, WHOLE)
WAYS = {
    "recurrent": {"form": "recurrent"},
    "parallel": {"form": "parallel"},
    "chunked": {"form": "chunked"},
    "chunks of 5": {"form": "chunked", "chunk_size": 5},
    "numba": {"backend": "numba"},
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
dtypes = pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32], ids=["float64", "float32"])
NAMES = ("x", "dt", "A", "B", "C", "D", "state")
RESULTS = ("output", "final state", *(f"gradient of {name}" for name in NAMES))
# (B, T, H, G, P, N). Heads of a group that Numba cannot give to tasks of equal size; chunks that are full, one longer, and
# shorter than the fewest tokens that it takes by chunks; blocks of four that are not full.
Size = tuple[int, int, int, int, int, int]
SIZES: list[Size] = [(1, 1, 1, 1, 1, 1), (3, 1, 4, 2, 5, 16), (2, 7, 6, 2, 3, 5), (2, 8, 3, 3, 2, 4), (1, 65, 11, 1, 6, 7)]
SIZES += [(1, 130, 2, 1, 33, 17)]
LENGTHS = (1, 7, 64, 65, 130)
# What dt * A may be; "mixed" has all of them side by side.
FADES = {"usual": None, "none": 0.0, "tiny": -1e-6, "strong": -20.0, "at once": -900.0}
fades = pytest.mark.parametrize("fade", [*FADES, "mixed"])


@functools.cache
def problem(size: Size, fade: str = "usual") -> tuple[Tensor, ...]:
    """x, dt, A, B, C, D, state in float64; every number exists in float32 too."""
    batch, T, H, G, P, N = size
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(T + P), dtype=FLOAT64)
    dt, A = softplus(draw(batch, T, H)), -draw(H).exp()
    if fade != "usual":
        A = torch.full_like(A, -0.5)
        dt = _chosen(dt, fade)
    B, C = draw(batch, T, G, N), draw(batch, T, G, N)
    tensors = (draw(batch, T, H, P), dt, A, B, C, draw(H), draw(batch, H, P, N))
    return tuple(x.float().double() for x in tensors)


def _chosen(usual: Tensor, fade: str) -> Tensor:
    """Steps for a rate of -0.5."""
    if fade == "mixed":
        pick = torch.arange(usual.numel()).view(usual.shape) % len(FADES)
        return sum(torch.where(pick == i, _chosen(usual, name), 0.0) for i, name in enumerate(FADES))
    return usual if FADES[fade] is None else torch.full_like(usual, -2 * FADES[fade])


def results(
    inputs: tuple[Tensor, ...], dtype: torch.dtype = FLOAT64, with_state: bool = True, **way: object
) -> tuple[Tensor, ...]:
    """Output, final state and every gradient, for fixed random gradients of the first two."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in (inputs if with_state else inputs[:-1])]
    found = ssd(*leaves, **way)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=generator).to(dtype) for y in found]
    return (*(y.detach() for y in found), *torch.autograd.grad(found, leaves, upstream))


@functools.cache
def truth(size: Size, fade: str, with_state: bool) -> tuple[Tensor, ...]:
    return results(problem(size, fade), FLOAT64, with_state, form="recurrent")


def errors(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> dict[str, float]:
    """The worst error of each result beside its largest entry."""
    named = zip(RESULTS, got, want, strict=False)
    return {name: ((x.double() - y).abs().max() / y.abs().max().clamp_min(1e-30)).item() for name, x, y in named}


def assert_close(got: tuple[Tensor, ...], want: tuple[Tensor, ...], tolerance: float) -> None:
    assert [x.shape for x in got] == [y.shape for y in want]
    wrong = {name: f"{error:.1e}" for name, error in errors(got, want).items() if not error <= tolerance}
    assert not wrong, f"beyond {tolerance:.0e}: {wrong}"


def test_by_hand() -> None:
    """One number, steps 1 and 2, A = -ln 2: the first token is written with 1, halved twice, the second with 2."""
    x, B, C = (torch.tensor(z, dtype=FLOAT64).view(1, 2, 1, 1) for z in ([3.0, 5], [1.0, 10], [1.0, 1]))
    dt, A = torch.tensor([1.0, 2], dtype=FLOAT64).view(1, 2, 1), torch.full((1,), -math.log(2), dtype=FLOAT64)
    D, state = torch.full((1,), 100.0, dtype=FLOAT64), torch.full((1, 1, 1, 1), 8.0, dtype=FLOAT64)
    for way in WAYS.values():
        output, final = ssd(x, dt, A, B, C, D, state, **way)
        torch.testing.assert_close(output.flatten().tolist(), [4.0 + 3 + 300, 7 / 4 + 100 + 500])
        assert final.item() == pytest.approx(101.75)


@pytest.mark.minutes
@ways
def test_is_a_selective_scan_whose_channels_fade_alike(way: dict) -> None:
    """With one rate for all numbers of a head, one step for all its channels, and B and C of its group."""
    size = (2, 19, 6, 2, 3, 5)
    batch, T, H, G, P, N = size
    x, dt, A, B, C, D, state = problem(size)
    got, final = ssd(x, dt, A, B, C, D, state, **way)
    for h in range(H):
        g = h * G // H
        wide = dt[..., h : h + 1].expand(batch, T, P), A[h].expand(P, N), B[:, :, g], C[:, :, g], D[h].expand(P)
        want, last = selective_scan(x[:, :, h], *wide, state[:, h], form="recurrent")
        assert_close((got[:, :, h], final[:, h]), (want, last), 1e-13)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("with_state", [True, False], ids=["state", "no-state"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("T", LENGTHS)
def test_three_faces(T: int, groups: int, with_state: bool, chunk: int | str) -> None:
    size = (2, T, 4, groups, 3, 5)
    want = truth(size, "usual", with_state)
    assert_close(results(problem(size), FLOAT64, with_state, form="parallel"), want, TOLERANCE[FLOAT64])
    cut = T if chunk == WHOLE else chunk
    assert_close(results(problem(size), FLOAT64, with_state, form="chunked", chunk_size=cut), want, TOLERANCE[FLOAT64])


@pytest.mark.minutes
@pytest.mark.parametrize("with_state", [True, False], ids=["state", "no-state"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@dtypes
@ways
def test_agrees_with_the_loop(way: dict, dtype: torch.dtype, size: Size, with_state: bool) -> None:
    got = results(problem(size), dtype, with_state, **way)
    assert {x.dtype for x in got} == {dtype}
    assert_close(got, truth(size, "usual", with_state), TOLERANCE[dtype])


@fades
@pytest.mark.parametrize("dtype", [pytest.param(FLOAT64, marks=pytest.mark.minutes), FLOAT32], ids=["float64", "float32"])
@ways
def test_agrees_with_the_loop_however_fast_it_fades(way: dict, dtype: torch.dtype, fade: str) -> None:
    size = (2, 71, 5, 1, 4, 3)
    assert_close(results(problem(size, fade), dtype, **way), truth(size, fade, True), TOLERANCE[dtype])


@pytest.mark.parametrize("T", [5, 70])
@pytest.mark.parametrize("name", ["dt", "A"])
@dtypes
@ways
def test_tiny_gradients_keep_their_digits(way: dict, dtype: torch.dtype, name: str, T: int) -> None:
    """Nothing cancels where all is positive: each entry alone is right, if no gradient is a difference of two sums."""
    x, dt, _, B, C, D, state = (z.abs() for z in problem((1, T, 6, 1, 2, 3)))
    # Only the first token writes, so dt's gradient is that of the decay alone.
    x[:, 1:] *= name == "A"
    inputs = (x, torch.full_like(dt, 5), -torch.linspace(0.1, 8, 6).double(), B, C, 0 * D, state)
    want, got = (
        torch.autograd.grad(sum(y.sum() for y in ssd(*z, **how)), z[NAMES.index(name)])[0].double()
        for z, how in (
            ([y.float().double().requires_grad_() for y in inputs], {"form": "recurrent"}),
            ([y.to(dtype).requires_grad_() for y in inputs], way),
        )
    )
    assert want.abs().min() < 1e-4 * want.abs().max()
    assert ((got - want).abs() <= 3e-5 * want.abs() + 1e-37).all()


@ways
def test_gradcheck(way: dict) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 9, 4, 2, 2, 3))]
    assert torch.autograd.gradcheck(lambda *x: ssd(*x, **way), inputs)


@ways
def test_one_gradient_is_enough(way: dict) -> None:
    """A loss of the output alone, or of the state alone."""
    for which in (0, 1):
        got, want = ([x.clone().requires_grad_() for x in problem((2, 9, 2, 1, 3, 2))] for _ in range(2))
        ssd(*got, **way)[which].sum().backward()
        ssd(*want, form="recurrent")[which].sum().backward()
        for x, y in zip(got, want, strict=True):
            torch.testing.assert_close(*(torch.zeros_like(z) if z.grad is None else z.grad for z in (x, y)))


@ways
def test_without_a_skip(way: dict) -> None:
    x, dt, A, B, C, D, state = (z.clone().requires_grad_() for z in problem((2, 9, 2, 1, 3, 2)))
    output, final = ssd(x, dt, A, B, C, state=state, **way)
    want, final_too = ssd(x, dt, A, B, C, 0 * D, state, form="recurrent")
    assert_close((output.detach(), final.detach()), (want.detach(), final_too.detach()), 1e-12)
    for got, same in zip(torch.autograd.grad(output.sum(), (x, dt)), torch.autograd.grad(want.sum(), (x, dt)), strict=True):
        torch.testing.assert_close(got, same)


@dtypes
@ways
def test_padding_with_steps_of_nothing_leaves_the_state(way: dict, dtype: torch.dtype) -> None:
    x, dt, A, B, C, D, state = (z.to(dtype) for z in problem((2, 50, 4, 2, 5, 3)))
    _, final = ssd(x, dt, A, B, C, D, state, **way)
    x, B, C = (pad(z, (0, 0, 0, 0, 0, 20), value=3.0) for z in (x, B, C))
    _, padded = ssd(x, pad(dt, (0, 0, 0, 20)), A, B, C, D, state, **way)
    assert_close((padded,), (final.double(),), 1e-15 if dtype == FLOAT64 else 1e-6)
    _, untouched = ssd(x, 0 * pad(dt, (0, 0, 0, 20)), A, B, C, D, state, **way)
    assert torch.equal(untouched, state)


@pytest.mark.parametrize("cuts", [(1, 99), (7, 64, 29), (64, 36), (1,) * 100], ids=lambda cuts: f"{len(cuts)} pieces")
@ways
def test_pieces_are_the_whole(way: dict, cuts: tuple[int, ...]) -> None:
    x, dt, A, B, C, D, state = problem((2, 100, 4, 2, 5, 3))
    whole = ssd(x, dt, A, B, C, D, state, form="recurrent")
    outputs = []
    for x_n, dt_n, B_n, C_n in zip(*(z.split(cuts, 1) for z in (x, dt, B, C)), strict=True):
        output, state = ssd(x_n, dt_n, A, B_n, C_n, D, state, **way)
        outputs.append(output)
    assert_close((torch.cat(outputs, 1), state), whole, 1e-12)


@pytest.mark.parametrize("chunk", [16, 64])
@ways
def test_is_the_chunk_scan_of_transformers(way: dict, chunk: int, caplog: pytest.LogCaptureFixture) -> None:
    x, dt, A, B, C, D, state = problem((2, 83, 6, 2, 5, 7))
    # Once a process it says that another package would be faster.
    with caplog.at_level(logging.ERROR):
        want = mamba2_chunk_scan(x, dt, A, B, C, chunk, D=D, initial_states=state, return_final_states=True)
    # It computes in float32, whatever comes.
    assert_close(ssd(x, dt, A, B, C, D, state, **way), tuple(z.double() for z in want), 1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3, 16, 64])
def test_tasks_cover_every_head_once(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number of heads a task gets; the kernel runs with each."""
    monkeypatch.setattr(scalar_decay_numba, "get_num_threads", lambda: threads)
    counts = {scalar_decay_numba.heads_a_task(torch.empty(1, 1, heads, 64), 1) for heads in range(1, 25)}
    assert max(counts) <= scalar_decay_numba.WIDE // 64
    size = (1, 70, 24, 2, 8, 5)
    assert_close(results(problem(size), FLOAT64, backend="numba"), truth(size, "usual", True), 1e-12)


def test_rows_are_long_and_no_thread_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = torch.empty(1, 1, 24, 64)
    for threads, count in ((1, 4), (2, 4), (4, 3), (24, 1)):
        monkeypatch.setattr(scalar_decay_numba, "get_num_threads", lambda threads=threads: threads)
        assert scalar_decay_numba.heads_a_task(heads, 1) == count
    assert scalar_decay_numba.heads_a_task(heads, 24) == 1
    assert scalar_decay_numba.heads_a_task(torch.empty(1, 1, 4, 1024), 1) == 1


def no_fading_of_a_step(x: Tensor, dt: Tensor, A: Tensor, *rest: Tensor) -> Tensor:
    """The decay between two tokens without the step of the later one."""
    moved = pad(dt[:, 1:], (0, 0, 0, 1))
    return ssd(x * (dt / moved.clamp_min(1e-3)).unsqueeze(-1), moved.clamp_min(1e-3), A, *rest)[0]


def tiled_groups(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> Tensor:
    """Head h with group h % G."""
    B, C = (z.repeat(1, 1, x.shape[2] // z.shape[2], 1) for z in (B, C))
    return ssd(x, dt, A, B, C, D, state)[0]


def read_before_write(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> Tensor:
    own = (B * C).sum(-1).repeat_interleave(x.shape[2] // B.shape[2], 2) * dt
    return ssd(x, dt, A, B, C, D, state)[0] - own.unsqueeze(-1) * x


def skip_of_the_scaled_input(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> Tensor:
    return ssd(x, dt, A, B, C, None, state)[0] + (D * dt).unsqueeze(-1) * x


def step_not_in_the_input(x: Tensor, dt: Tensor, *rest: Tensor) -> Tensor:
    return ssd(x / dt.unsqueeze(-1), dt, *rest)[0]


def state_ignored(*inputs: Tensor) -> Tensor:
    return ssd(*inputs[:-1])[0]


def written_and_read_exchanged(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Tensor) -> Tensor:
    return ssd(x, dt, A, C, B, *rest)[0]


MUTANTS = [
    no_fading_of_a_step, tiled_groups, read_before_write, skip_of_the_scaled_input, step_not_in_the_input, state_ignored,
    written_and_read_exchanged,
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("size", [(2, 7, 6, 2, 3, 5), (2, 71, 4, 2, 4, 3)], ids=str)
def test_the_inputs_tell_classic_bugs_apart(mutant: object, size: Size) -> None:
    """Were an implementation wrong in this way, the comparisons above would see it."""
    wrong = mutant(*problem(size))
    assert errors((wrong,), truth(size, "usual", True)[:1])["output"] > 100 * TOLERANCE[FLOAT32]


def test_padding_with_any_step_would_be_seen() -> None:
    x, dt, A, B, C, D, state = problem((2, 50, 4, 2, 5, 3))
    _, final = ssd(x, dt, A, B, C, D, state)
    x, B, C = (pad(z, (0, 0, 0, 0, 0, 14)) for z in (x, B, C))
    _, padded = ssd(x, pad(dt, (0, 0, 0, 14), value=0.1), A, B, C, D, state)
    assert errors((padded,), (final,))["output"] > 0.01


def test_the_exponential_before_the_mask_is_lost_where_no_form_is() -> None:
    """Its output is right and its gradient is NaN: the classic bug."""
    x, dt, A, B, C, *_ = (z.float() for z in problem((1, 64, 2, 1, 3, 4), "strong"))

    def early(dt: Tensor) -> Tensor:
        sums = (dt * A).cumsum(1).transpose(1, 2)
        fading = (sums.unsqueeze(-1) - sums.unsqueeze(-2)).exp().tril()
        scores = torch.einsum("btn,bsn->bts", C[:, :, 0], B[:, :, 0]).unsqueeze(1)
        weights = torch.where(torch.ones(64, 64).tril().bool(), scores * fading, 0.0)
        return torch.einsum("bhts,bsh,bshp->bthp", weights, dt, x)

    leaf = dt.clone().requires_grad_()
    assert_close((early(leaf).detach(),), (ssd(x, dt, A, B, C)[0].double(),), 1e-5)
    assert not torch.autograd.grad(early(leaf).sum(), leaf)[0].isfinite().all()
    for way in WAYS.values():
        leaf = dt.clone().requires_grad_()
        assert torch.autograd.grad(ssd(x, leaf, A, B, C, **way)[0].sum(), leaf)[0].isfinite().all()


def test_differences_of_long_sums_lose_digits_that_no_form_loses() -> None:
    x, dt, A, B, C, *_ = problem((1, 1024, 1, 1, 2, 3))
    dt, A = dt * 2.5 / dt.mean(), torch.full_like(A, -1.0)
    want, _ = ssd(x, dt, A, B, C, form="recurrent")
    x, dt, A, B, C = (z.float() for z in (x, dt, A, B, C))
    sums = (dt * A).cumsum(1).squeeze(-1)
    fading = (sums.unsqueeze(-1) - sums.unsqueeze(-2)).masked_fill(~torch.ones(1024, 1024).tril().bool(), -math.inf).exp()
    unstable = torch.einsum("btn,bsn,bts,bs,bsp->btp", C[:, :, 0], B[:, :, 0], fading, dt[..., 0], x[:, :, 0]).unsqueeze(2)
    lost = errors((unstable,), (want,))["output"]
    for way in WAYS.values():
        assert errors(ssd(x, dt, A, B, C, **way)[:1], (want,))["output"] < lost / 5


def test_the_numba_forward_saves_only_its_inputs_and_results() -> None:
    saved: list[Tensor] = []
    inputs = [x.clone().requires_grad_() for x in problem((1, 70, 2, 1, 3, 4))]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x), x)[1], lambda x: x):
        output, state = ssd(*inputs, backend="numba")
    assert sum(x.numel() for x in saved) == sum(x.numel() for x in (*inputs, output, state))


@pytest.mark.parametrize("T", [1, 70])
@ways
def test_the_state_is_contiguous_and_owns_no_more_than_it_needs(way: dict, T: int) -> None:
    _, final = ssd(*problem((2, T, 4, 2, 5, 3)), **way)
    assert final.is_contiguous()
    assert final.untyped_storage().nbytes() == 2 * 4 * 5 * 3 * 8


@pytest.mark.parametrize("T", [3, 70])
@ways
def test_strided_inputs_and_nothing_overwritten(way: dict, T: int) -> None:
    inputs = problem((2, T, 4, 2, 5, 3))
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    before = [x.clone() for x in strided]
    assert_close(results(tuple(strided), **way), results(inputs, form="recurrent"), 1e-12)
    assert all(torch.equal(x, y) for x, y in zip(strided, before, strict=True))


@ways
def test_nan_stays_in_its_channel_and_visible(way: dict) -> None:
    inputs = [x.float() for x in problem((1, 20, 4, 1, 5, 2))]
    inputs[0][0, 3, 1, 2] = math.nan
    output, state = ssd(*inputs, **way)
    assert output[0, 3:, 1, 2].isnan().all()
    assert state[0, 1, 2].isnan().all()
    output[0, :, 1, 2] = state[0, 1, 2] = 0
    assert output.isfinite().all()
    assert state.isfinite().all()


def test_bfloat16_takes_the_chunked_form_and_a_float32_state() -> None:
    x, dt, A, B, C, D, state = problem((2, 71, 4, 2, 5, 3))
    x, dt, B, C = (z.bfloat16() for z in (x, dt, B, C))
    output, final = ssd(x, dt, A.float(), B, C, D.float(), state.float())
    same_output, same_final = ssd(x, dt, A.float(), B, C, D.float(), state.float(), form="chunked")
    assert (output.dtype, final.dtype) == (torch.bfloat16, FLOAT32)
    assert torch.equal(output, same_output)
    assert torch.equal(final, same_final)
    exact = ssd(x.double(), dt.double(), A, B.double(), C.double(), D, state, form="recurrent")
    assert_close((output,), exact[:1], 2**-8)
    assert_close((final,), exact[1:], 2e-6)


@pytest.mark.parametrize("T", [1, 71])
def test_auto_is_numba_on_a_cpu(T: int) -> None:
    inputs = [x.float() for x in problem((2, T, 4, 2, 5, 3))]
    for got, want in zip(ssd(*inputs), ssd(*inputs, backend="numba"), strict=True):
        assert torch.equal(got, want)


def test_numba_operator_passes_opcheck() -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 9, 2, 1, 3, 2))]
    ssd(*inputs, backend="numba")
    torch.library.opcheck(torch.ops.hybridlab.ssd_numba.default, inputs)


@pytest.mark.minutes
@pytest.mark.parametrize("name", ["recurrent", "parallel", "chunked", "numba"])
def test_compiles_in_one_graph(name: str) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 9, 4, 2, 3, 2))]
    compiled = torch.compile(lambda *z: ssd(*z, **WAYS[name]), fullgraph=True, backend="aot_eager")
    (got, _), (want, _) = compiled(*inputs), ssd(*inputs, **WAYS[name])
    assert torch.equal(got, want)
    for x, y in zip(torch.autograd.grad(got.sum(), inputs), torch.autograd.grad(want.sum(), inputs), strict=True):
        torch.testing.assert_close(x, y)


@ways
def test_runs_on_meta(way: dict) -> None:
    output, final = ssd(*(x.to("meta") for x in problem((2, 9, 4, 2, 3, 5))), **way)
    assert (output.shape, final.shape, final.device.type) == ((2, 9, 4, 3), (2, 4, 3, 5), "meta")


def changed(**changes: object) -> dict[str, object]:
    return dict(zip(NAMES, problem((2, 4, 6, 2, 3, 5)), strict=True)) | changes


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=FLOAT64)


BAD = {
    "x is a list": ({"x": [1.0]}, "x must be a tensor, got list"),
    "x is int": ({"x": torch.ones(2, 4, 6, 3, dtype=torch.int64)}, r"x must be floating, got torch.int64"),
    "x lacks an axis": ({"x": zeros(2, 4, 18)}, r"x must have 4 axes \(B, T, H, P\), got shape \(2, 4, 18\)"),
    "dt a channel": ({"dt": zeros(2, 4, 6, 3)}, r"dt must have 3 axes \(B, T, H\), got shape \(2, 4, 6, 3\)"),
    "dt of fewer heads": ({"dt": zeros(2, 4, 1)}, r"dt must be \(B, T, H\) with H = 6, got shape \(2, 4, 1\)"),
    "A of a scan": ({"A": zeros(6, 5)}, r"A must have 1 axes \(H\), got shape \(6, 5\)"),
    "A a number": ({"A": -1.0}, "A must be a tensor, got float"),
    "B without groups": ({"B": zeros(2, 4, 5)}, r"B must have 4 axes \(B, T, G, N\), got shape \(2, 4, 5\)"),
    "C of other groups": ({"C": zeros(2, 4, 3, 5)}, r"C must be \(B, T, G, N\) with G = 2, got shape \(2, 4, 3, 5\)"),
    "groups that divide no heads": (
        {"B": zeros(2, 4, 4, 5), "C": zeros(2, 4, 4, 5)},
        "B has 4 groups, which must divide the 6 heads of x",
    ),
    "C of fewer numbers": ({"C": zeros(2, 4, 2, 4)}, r"C must be \(B, T, G, N\) with N = 5, got shape \(2, 4, 2, 4\)"),
    "C is shorter": ({"C": zeros(2, 3, 2, 5)}, r"C must be \(B, T, G, N\) with T = 4, got shape \(2, 3, 2, 5\)"),
    "D a number": ({"D": 1.0}, "D must be a tensor, got float"),
    "D a channel": ({"D": zeros(6, 3)}, r"D must have 1 axes \(H\), got shape \(6, 3\)"),
    "T = 0": (
        {"x": zeros(2, 0, 6, 3), "dt": zeros(2, 0, 6), "B": zeros(2, 0, 2, 5), "C": zeros(2, 0, 2, 5)},
        "T = 0; every axis needs at least one entry",
    ),
    "B in float32": ({"B": torch.zeros(2, 4, 2, 5)}, "B is torch.float32 but x is torch.float64"),
    "C elsewhere": ({"C": zeros(2, 4, 2, 5).to("meta")}, "C is on meta but x is on cpu"),
    "negative dt": ({"dt": zeros(2, 4, 6) - 0.25}, "dt must be finite and at least 0, its entries go from -0.25 to -0.25"),
    "NaN dt": ({"dt": zeros(2, 4, 6) + math.nan}, "dt must be finite and at least 0, its entries go from nan"),
    "infinite dt": ({"dt": zeros(2, 4, 6) + math.inf}, "dt must be finite .* to inf"),
    "positive A": ({"A": zeros(6) + 0.5}, "A must be finite and at most 0, its entries go from 0.5 to 0.5"),
    "infinite A": ({"A": zeros(6) - math.inf}, "A must be finite and at most 0, its entries go from -inf"),
    "state turned": ({"state": zeros(2, 6, 5, 3)}, r"state must have shape \(2, 6, 3, 5\), got \(2, 6, 5, 3\)"),
    "state in float32": ({"state": torch.zeros(2, 6, 3, 5)}, "state must be torch.float64 for torch.float64 inputs"),
    "state elsewhere": ({"state": zeros(2, 6, 3, 5).to("meta")}, "state is on meta but the inputs are on cpu"),
    "state a tuple": ({"state": (1, 2)}, "state must be a tensor or None, got tuple"),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba"),
    "unknown form": ({"form": "scan"}, "unknown form 'scan'; choose recurrent, parallel, chunked"),
    "form with a kernel": ({"form": "chunked", "backend": "numba"}, "form='chunked' is plain PyTorch .* backend='numba'"),
    "chunk of none": ({"form": "chunked", "chunk_size": 0}, "chunk_size must be a positive int, got 0"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^ssd: .*{message}"):
        ssd(**changed(**changes))


def test_forms_are_named() -> None:
    assert set(FORMS) == {"recurrent", "parallel", "chunked"}
    naive, loop = ssd(**changed(), backend="naive"), ssd(**changed(), form="recurrent")
    assert torch.equal(naive[0], loop[0])
