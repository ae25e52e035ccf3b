"""selective_scan: every form and kernel is the literal loop, gradients too, at awkward sizes, steps and rates."""

import functools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad, silu, softplus
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from hybridlab.ops.selective_scan import CHUNK_SIZE, FORMS, selective_scan

FLOAT64, FLOAT32 = torch.float64, torch.float32
TOLERANCE = {FLOAT64: 1e-12, FLOAT32: 2e-5}
WAYS = {
    "recurrent": {"form": "recurrent"},
    "parallel": {"form": "parallel"},
    "chunked": {"form": "chunked"},
    "chunks of 5": {"form": "chunked", "chunk_size": 5},
    "numba": {"backend": "numba"},
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
dtypes = pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32], ids=["float64", "float32"])
# (B, T, E, N): one of everything; one token; odd; one past a chunk (a segment of Numba's backward) and past two; more
# channels than a block holds, not a multiple of one; a state of one number.
SIZES = [(1, 1, 1, 1), (3, 1, 7, 16), (2, 13, 5, 3), (2, 17, 3, 1), (1, 33, 45, 16), (1, 21, 300, 3)]
NAMES = ("x", "dt", "A", "B", "C", "D", "state")
RESULTS = ("output", "final state", *(f"gradient of {name}" for name in NAMES))
# What dt and A may be; "mixed" has all of them side by side.
STEPS = {"usual": None, "none": 0.0, "tiny": 1e-6, "long": 50.0}
RATES = {"usual": None, "none": 0.0, "slow": -1e-6, "fast": -20.0, "at once": -1e4}
KINDS = [("usual", "usual"), ("mixed", "mixed"), *((s, "mixed") for s in STEPS), *(("mixed", r) for r in RATES)]
kinds = pytest.mark.parametrize("kind", KINDS, ids="-".join)


@functools.cache
def problem(size: tuple[int, int, int, int], kind: tuple[str, str] = ("usual", "usual")) -> tuple[Tensor, ...]:
    """x, dt, A, B, C, D, state in float64; every number exists in float32 too."""
    batch, T, E, N = size
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(T + E), dtype=FLOAT64)
    dt = _chosen(softplus(draw(batch, T, E)), STEPS, kind[0])
    A = _chosen(-draw(E, N).exp(), RATES, kind[1])
    tensors = (draw(batch, T, E), dt, A, draw(batch, T, N), draw(batch, T, N), draw(E), draw(batch, E, N))
    return tuple(x.float().double() for x in tensors)


def _chosen(usual: Tensor, others: dict[str, float | None], kind: str) -> Tensor:
    if kind == "mixed":
        pick = torch.arange(usual.numel()).view(usual.shape) % len(others)
        return sum(torch.where(pick == i, _chosen(usual, others, name), 0.0) for i, name in enumerate(others))
    return usual if others[kind] is None else torch.full_like(usual, others[kind])


def results(
    inputs: tuple[Tensor, ...], dtype: torch.dtype = FLOAT64, with_state: bool = True, **way: object
) -> tuple[Tensor, ...]:
    """Output, final state and every gradient, for fixed random gradients of the first two."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in (inputs if with_state else inputs[:-1])]
    found = selective_scan(*leaves, **way)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=generator).to(dtype) for y in found]
    return (*(y.detach() for y in found), *torch.autograd.grad(found, leaves, upstream))


@functools.cache
def truth(size: tuple[int, int, int, int], kind: tuple[str, str], with_state: bool) -> tuple[Tensor, ...]:
    return results(problem(size, kind), FLOAT64, with_state, form="recurrent")


def literal(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """From the definition unrolled: token i counts in state t with the exponential of A times the steps after it."""
    T = x.shape[1]
    sums = torch.cat((torch.zeros_like(dt[:, :1]), dt), 1).cumsum(1)  # the state given counts as token 0
    written = torch.cat((state.unsqueeze(1), (dt * x).unsqueeze(-1) * B.unsqueeze(2)), 1)
    states = [
        (((sums[:, t : t + 1] - sums[:, : t + 1]).unsqueeze(-1) * A).exp() * written[:, : t + 1]).sum(1)
        for t in range(1, T + 1)
    ]
    output = torch.stack([torch.einsum("ben,bn->be", h, C[:, t]) for t, h in enumerate(states)], 1) + D * x
    return output, states[-1]


def errors(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> dict[str, float]:
    """The worst error of each result beside its largest entry."""
    named = zip(RESULTS, got, want, strict=False)
    return {name: ((x.double() - y).abs().max() / y.abs().max().clamp_min(1e-30)).item() for name, x, y in named}


def assert_close(got: tuple[Tensor, ...], want: tuple[Tensor, ...], tolerance: float) -> None:
    assert [x.shape for x in got] == [y.shape for y in want]
    wrong = {name: f"{error:.1e}" for name, error in errors(got, want).items() if not error <= tolerance}
    assert not wrong, f"beyond {tolerance:.0e}: {wrong}"


@kinds
@ways
def test_is_the_unrolled_definition(way: dict, kind: tuple[str, str]) -> None:
    inputs = problem((2, 13, 5, 3), kind)
    assert_close(selective_scan(*inputs, **way), literal(*inputs), 1e-12)


def test_by_hand() -> None:
    """One number, steps 1 and 2, A = -ln 2: the first token is written with 1, halved twice, the second with 2."""
    x, dt, B, C = (torch.tensor(z, dtype=FLOAT64).view(1, 2, 1) for z in ([3.0, 5], [1.0, 2], [1.0, 10], [1.0, 1]))
    A, D = torch.full((1, 1), -math.log(2), dtype=FLOAT64), torch.full((1,), 100.0, dtype=FLOAT64)
    for way in WAYS.values():
        output, state = selective_scan(x, dt, A, B, C, D, torch.full((1, 1, 1), 8.0, dtype=FLOAT64), **way)
        torch.testing.assert_close(output.flatten().tolist(), [4.0 + 3 + 300, 7 / 4 + 100 + 500])
        assert state.item() == pytest.approx(101.75)


@pytest.mark.minutes
@pytest.mark.parametrize("with_state", [True, False], ids=["state", "no-state"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@dtypes
@ways
def test_agrees_with_the_loop(way: dict, dtype: torch.dtype, size: tuple[int, int, int, int], with_state: bool) -> None:
    kind = ("usual", "usual")
    got = results(problem(size, kind), dtype, with_state, **way)
    assert {x.dtype for x in got} == {dtype}
    assert_close(got, truth(size, kind, with_state), TOLERANCE[dtype])


@kinds
@dtypes
@ways
def test_agrees_with_the_loop_at_any_step_and_rate(way: dict, dtype: torch.dtype, kind: tuple[str, str]) -> None:
    size = (2, 35, 20, 3)
    assert_close(results(problem(size, kind), dtype, **way), truth(size, kind, True), TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["dt", "A"])
@dtypes
@ways
def test_tiny_gradients_keep_their_digits(way: dict, dtype: torch.dtype, name: str) -> None:
    """Nothing cancels where all is positive: each entry alone is right. h_t - dt B x for what is left of h would not be."""
    inputs = [z.abs() for z in problem((1, 9, 6, 3))]
    inputs[1:3] = torch.full_like(inputs[1], 5), -torch.linspace(0.1, 8, 18).double().view(6, 3)
    # With x = 0 but for the first token, dt's gradient is that of the decay alone.
    inputs[0][:, 1:] *= name == "A"
    want, got = (
        torch.autograd.grad(sum(y.sum() for y in selective_scan(*z, **how)), z[NAMES.index(name)])[0].double()
        for z, how in (
            ([y.float().double().requires_grad_() for y in inputs], {"form": "recurrent"}),
            ([y.to(dtype).requires_grad_() for y in inputs], way),
        )
    )
    assert want.abs().min() < 1e-5 * want.abs().max()
    assert ((got - want).abs() <= 2e-5 * want.abs() + 1e-37).all()


@ways
def test_gradcheck(way: dict) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 6, 3, 2))]
    assert torch.autograd.gradcheck(lambda *x: selective_scan(*x, **way), inputs)


@ways
def test_one_gradient_is_enough(way: dict) -> None:
    """A loss of the output alone, or of the state alone."""
    for which in (0, 1):
        got, want = ([x.clone().requires_grad_() for x in problem((2, 9, 3, 2))] for _ in range(2))
        selective_scan(*got, **way)[which].sum().backward()
        selective_scan(*want, form="recurrent")[which].sum().backward()
        for x, y in zip(got, want, strict=True):
            grads = (torch.zeros_like(z) if z.grad is None else z.grad for z in (x, y))
            torch.testing.assert_close(*grads)


@ways
def test_without_a_skip(way: dict) -> None:
    x, dt, A, B, C, D, state = (z.clone().requires_grad_() for z in problem((2, 9, 3, 2)))
    output, final = selective_scan(x, dt, A, B, C, state=state, **way)
    want, final_too = selective_scan(x, dt, A, B, C, 0 * D, state, form="recurrent")
    assert_close((output.detach(), final.detach()), (want.detach(), final_too.detach()), 1e-12)
    for got, same in zip(torch.autograd.grad(output.sum(), (x, dt)), torch.autograd.grad(want.sum(), (x, dt)), strict=True):
        torch.testing.assert_close(got, same)


@dtypes
@ways
def test_padding_with_steps_of_nothing_leaves_the_state(way: dict, dtype: torch.dtype) -> None:
    x, dt, A, B, C, D, state = (z.to(dtype) for z in problem((2, 21, 5, 3), ("usual", "mixed")))
    _, final = selective_scan(x, dt, A, B, C, D, state, **way)
    x, B, C = (pad(z, (0, 0, 0, 20), value=3.0) for z in (x, B, C))
    _, padded = selective_scan(x, pad(dt, (0, 0, 0, 20)), A, B, C, D, state, **way)
    assert_close((padded,), (final.double(),), 1e-15 if dtype == FLOAT64 else 3e-7)
    _, untouched = selective_scan(x, 0 * pad(dt, (0, 0, 0, 20)), A, B, C, D, state, **way)
    assert torch.equal(untouched, state)


@pytest.mark.parametrize("cuts", [(1, 36), (7, 17, 13), (16, 16, 5), (1,) * 37], ids=str)
@ways
def test_pieces_are_the_whole(way: dict, cuts: tuple[int, ...]) -> None:
    x, dt, A, B, C, D, state = problem((2, 37, 5, 3))
    whole = selective_scan(x, dt, A, B, C, D, state, form="recurrent")
    outputs = []
    for x_n, dt_n, B_n, C_n in zip(*(z.split(cuts, 1) for z in (x, dt, B, C)), strict=True):
        output, state = selective_scan(x_n, dt_n, A, B_n, C_n, D, state, **way)
        outputs.append(output)
    assert_close((torch.cat(outputs, 1), state), whole, 1e-12)


@ways
def test_is_the_scan_of_transformers_mamba(way: dict) -> None:
    """The whole mixer without a cache, its scan replaced by ours."""
    torch.manual_seed(0)
    config = MambaConfig(hidden_size=12, state_size=7, expand=3, time_step_rank=5)
    mixer = MambaMixer(config, layer_idx=0).double().eval()
    torch.nn.init.normal_(mixer.dt_proj.bias)
    torch.nn.init.normal_(mixer.D)
    stream = torch.randn(2, 23, 12, dtype=FLOAT64)
    x, gate = mixer.in_proj(stream).chunk(2, -1)
    x = silu(mixer.conv1d(x.transpose(1, 2))[..., :23]).transpose(1, 2)
    step, B, C = mixer.x_proj(x).split([5, 7, 7], -1)
    y, _ = selective_scan(x, softplus(mixer.dt_proj(step)), -mixer.A_log.exp(), B, C, mixer.D, **way)
    # transformers takes the exponential of A_log, B and x in float32.
    assert_close((mixer.out_proj(y * silu(gate)).detach(),), (mixer(stream).detach(),), 1e-6)


def zero_order_hold(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> Tensor:
    """As the paper writes it: (e^{dt A} - 1) / A in the place of dt, which differs for every state number."""
    outputs = []
    for t in range(x.shape[1]):
        step = dt[:, t].unsqueeze(-1) * A
        state = step.exp() * state + torch.expm1(step) / A * B[:, t].unsqueeze(1) * x[:, t].unsqueeze(-1)
        outputs.append(torch.einsum("ben,bn->be", state, C[:, t]) + D * x[:, t])
    return torch.stack(outputs, 1)


def read_before_write(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> Tensor:
    return selective_scan(x, dt, A, B, C, D, state)[0] - (B * C).sum(-1, keepdim=True) * dt * x


def skip_of_the_scaled_input(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> Tensor:
    return selective_scan(x, dt, A, B, C, None, state)[0] + D * dt * x


def step_not_in_the_input(x: Tensor, dt: Tensor, *rest: Tensor) -> Tensor:
    return selective_scan(x / dt, dt, *rest)[0]


def state_ignored(*inputs: Tensor) -> Tensor:
    return selective_scan(*inputs[:-1])[0]


def written_and_read_exchanged(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Tensor) -> Tensor:
    return selective_scan(x, dt, A, C, B, *rest)[0]


MUTANTS = [
    zero_order_hold, read_before_write, skip_of_the_scaled_input, step_not_in_the_input, state_ignored,
    written_and_read_exchanged,
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("size", [(2, 13, 5, 3), (1, 33, 45, 16)], ids=str)
def test_the_inputs_tell_classic_bugs_apart(mutant: object, size: tuple[int, int, int, int]) -> None:
    """Were an implementation wrong in this way, the comparisons above would see it."""
    wrong = mutant(*problem(size))
    assert errors((wrong,), truth(size, ("usual", "usual"), True)[:1])["output"] > 100 * TOLERANCE[FLOAT32]


def test_dividing_by_the_cumulative_product_is_lost_where_no_form_is() -> None:
    x, dt, A, B, C, D, _ = (z.float() for z in problem((1, 130, 3, 2)))
    sums = (dt.unsqueeze(-1) * A).cumsum(1)
    written = (dt * x).unsqueeze(-1) * B.unsqueeze(2)
    divided = torch.einsum("bten,btn->bte", sums.exp() * (written / sums.exp()).cumsum(1), C) + D * x
    assert not divided.isfinite().all()
    for way in WAYS.values():
        assert selective_scan(x, dt, A, B, C, D, **way)[0].isfinite().all()


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, tuple | list) else (made,):
            self.numbers = max(self.numbers, x.numel() if isinstance(x, Tensor) else 0)
        return made


@pytest.mark.parametrize(("name", "tokens"), [("parallel", 160), ("chunked", CHUNK_SIZE), ("chunks of 5", 5)])
def test_only_the_parallel_form_holds_every_state(name: str, tokens: int) -> None:
    batch, T, E, N = 1, 160, 8, 32
    with Largest() as largest, torch.no_grad():
        selective_scan(*problem((batch, T, E, N)), **WAYS[name])
    assert largest.numbers == tokens * E * N


@pytest.mark.parametrize(("name", "holds_all"), [("parallel", True), ("chunked", False), ("numba", False)])
def test_only_the_parallel_form_keeps_every_state_for_its_backward(name: str, holds_all: bool) -> None:
    saved: dict[int, int] = {}
    inputs = [x.clone().requires_grad_() for x in problem((1, 160, 8, 32))]

    def keep(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        results_of = selective_scan(*inputs, **WAYS[name])
    small = sum(x.untyped_storage().nbytes() for x in (*inputs, *results_of)) + 8 * 8 * 32 * 160 // CHUNK_SIZE
    assert (sum(saved.values()) > 2 * small) == holds_all


@ways
def test_the_state_owns_what_it_needs_and_no_more(way: dict) -> None:
    _, final = selective_scan(*problem((2, 35, 20, 3)), **way)
    assert final.untyped_storage().nbytes() == 2 * 20 * 3 * 8


@ways
def test_strided_inputs_and_nothing_overwritten(way: dict) -> None:
    inputs = problem((2, 9, 5, 3))
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    before = [x.clone() for x in strided]
    assert_close(results(tuple(strided), **way), results(inputs, form="recurrent"), 1e-12)
    assert all(torch.equal(x, y) for x, y in zip(strided, before, strict=True))


@ways
def test_nan_stays_in_its_channel_and_visible(way: dict) -> None:
    inputs = [x.float() for x in problem((1, 20, 4, 2))]
    inputs[0][0, 3, 1] = math.nan
    output, state = selective_scan(*inputs, **way)
    assert output[0, 3:, 1].isnan().all()
    assert state[0, 1].isnan().all()
    assert output[0, :, [0, 2, 3]].isfinite().all()
    assert output[0, :3].isfinite().all()


def test_bfloat16_takes_the_chunked_form_and_a_float32_state() -> None:
    x, dt, A, B, C, D, state = problem((2, 21, 5, 3))
    x, dt, B, C = (z.bfloat16() for z in (x, dt, B, C))
    output, final = selective_scan(x, dt, A.float(), B, C, D.float(), state.float())
    same_output, same_final = selective_scan(x, dt, A.float(), B, C, D.float(), state.float(), form="chunked")
    assert (output.dtype, final.dtype) == (torch.bfloat16, FLOAT32)
    assert torch.equal(output, same_output)
    assert torch.equal(final, same_final)
    exact = selective_scan(x.double(), dt.double(), A, B.double(), C.double(), D, state, form="recurrent")
    assert_close((output,), exact[:1], 2**-8)
    assert_close((final,), exact[1:], 2e-6)


def test_auto_is_numba_on_a_cpu() -> None:
    inputs = [x.float() for x in problem((2, 21, 5, 3))]
    for got, want in zip(selective_scan(*inputs), selective_scan(*inputs, backend="numba"), strict=True):
        assert torch.equal(got, want)


def test_numba_operator_passes_opcheck() -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 5, 3, 2))]
    selective_scan(*inputs, backend="numba")
    torch.library.opcheck(torch.ops.hybridlab.selective_scan_numba.default, inputs)


@pytest.mark.minutes
@pytest.mark.parametrize("name", ["recurrent", "chunked", "numba"])
def test_compiles_in_one_graph(name: str) -> None:
    inputs = [x.clone().requires_grad_() for x in problem((2, 5, 3, 2))]
    compiled = torch.compile(lambda *z: selective_scan(*z, **WAYS[name]), fullgraph=True, backend="aot_eager")
    (got, _), (want, _) = compiled(*inputs), selective_scan(*inputs, **WAYS[name])
    assert torch.equal(got, want)
    for x, y in zip(torch.autograd.grad(got.sum(), inputs), torch.autograd.grad(want.sum(), inputs), strict=True):
        torch.testing.assert_close(x, y)


def test_runs_on_meta() -> None:
    output, final = selective_scan(*(x.to("meta") for x in problem((2, 5, 3, 4))))
    assert (output.shape, final.shape, final.device.type) == ((2, 5, 3), (2, 3, 4), "meta")


def changed(**changes: object) -> dict[str, object]:
    return dict(zip(NAMES, problem((2, 4, 3, 5)), strict=True)) | changes


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=FLOAT64)


BAD = {
    "x is a list": ({"x": [1.0]}, "x must be a tensor, got list"),
    "x is int": ({"x": torch.ones(2, 4, 3, dtype=torch.int64)}, r"x must be floating, got torch.int64"),
    "x lacks an axis": ({"x": zeros(4, 3)}, r"x must have 3 axes \(B, T, E\), got shape \(4, 3\)"),
    "dt a token": ({"dt": zeros(2, 4, 1)}, r"dt must be \(B, T, E\) with E = 3, got shape \(2, 4, 1\)"),
    "A a channel": ({"A": zeros(3)}, r"A must have 2 axes \(E, N\), got shape \(3,\)"),
    "A turned": ({"A": zeros(5, 3)}, r"A must be \(E, N\) with E = 3, got shape \(5, 3\)"),
    "B a channel": ({"B": zeros(2, 4, 3, 5)}, r"B must have 3 axes \(B, T, N\), got shape \(2, 4, 3, 5\)"),
    "C of fewer numbers": ({"C": zeros(2, 4, 4)}, r"C must be \(B, T, N\) with N = 5, got shape \(2, 4, 4\)"),
    "C is shorter": ({"C": zeros(2, 3, 5)}, r"C must be \(B, T, N\) with T = 4, got shape \(2, 3, 5\)"),
    "D a number": ({"D": 1.0}, "D must be a tensor, got float"),
    "D of another width": ({"D": zeros(5)}, r"D must be \(E\) with E = 3, got shape \(5,\)"),
    "T = 0": (
        {"x": zeros(2, 0, 3), "dt": zeros(2, 0, 3), "B": zeros(2, 0, 5), "C": zeros(2, 0, 5)},
        "T = 0; every axis needs at least one entry",
    ),
    "B in float32": ({"B": torch.zeros(2, 4, 5)}, "B is torch.float32 but x is torch.float64"),
    "C elsewhere": ({"C": zeros(2, 4, 5).to("meta")}, "C is on meta but x is on cpu"),
    "negative dt": ({"dt": zeros(2, 4, 3) - 0.25}, "dt must be finite and at least 0, its entries go from -0.25 to -0.25"),
    "NaN dt": ({"dt": zeros(2, 4, 3) + math.nan}, "dt must be finite and at least 0, its entries go from nan"),
    "infinite dt": ({"dt": zeros(2, 4, 3) + math.inf}, "dt must be finite .* to inf"),
    "positive A": ({"A": zeros(3, 5) + 0.5}, "A must be finite and at most 0, its entries go from 0.5 to 0.5"),
    "NaN A": ({"A": zeros(3, 5) * math.nan}, "A must be finite and at most 0, its entries go from nan"),
    "infinite A": ({"A": zeros(3, 5) - math.inf}, "A must be finite and at most 0, its entries go from -inf"),
    "state turned": ({"state": zeros(2, 5, 3)}, r"state must have shape \(2, 3, 5\), got \(2, 5, 3\)"),
    "state in float32": ({"state": torch.zeros(2, 3, 5)}, "state must be torch.float64 for torch.float64 inputs"),
    "state elsewhere": ({"state": zeros(2, 3, 5).to("meta")}, "state is on meta but the inputs are on cpu"),
    "state a tuple": ({"state": (1, 2)}, "state must be a tensor or None, got tuple"),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba, triton"),
    "unknown form": ({"form": "scan"}, "unknown form 'scan'; choose recurrent, parallel, chunked"),
    "form with a kernel": ({"form": "chunked", "backend": "numba"}, "form='chunked' is plain PyTorch .* backend='numba'"),
    "chunk of none": ({"form": "chunked", "chunk_size": 0}, "chunk_size must be a positive int, got 0"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^selective_scan: .*{message}"):
        selective_scan(**changed(**changes))


def test_forms_are_named() -> None:
    assert set(FORMS) == {"recurrent", "parallel", "chunked"}
    naive, loop = selective_scan(**changed(), backend="naive"), selective_scan(**changed(), form="recurrent")
    assert torch.equal(naive[0], loop[0])
