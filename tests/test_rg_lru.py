"""rg_lru: every form and kernel is the literal gated recurrence, gradients too, down to a = 1 and across documents."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, rms_norm, softplus
from transformers import RecurrentGemmaConfig
from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

from hybridlab.ops import short_conv
from hybridlab.ops.rg_lru import rg_lru

GOLDEN = Path(__file__).parent / "data" / "hawk_dm.npz"
FLOAT64, FLOAT32 = torch.float64, torch.float32
TOLERANCE = {FLOAT64: 1e-11, FLOAT32: 1e-5}
WAYS = {
    "recurrent": {"form": "recurrent"},
    "parallel": {"form": "parallel"},
    "chunked": {"form": "chunked"},
    "chunks of 5": {"form": "chunked", "chunk_size": 5},
    "numba": {"backend": "numba"},
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
dtypes = pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32], ids=["float64", "float32"])
# (B, T, D): one token, one channel, one past a chunk and past two, blocks of channels on threads.
SIZES = [(1, 1, 1), (3, 1, 7), (2, 13, 5), (2, 33, 3), (1, 65, 67), (1, 130, 200)]
# Typical -log_a: usual, near a = 1 (1 - a^2 is less than float32's digits), near a = 0, and gates of exactly 0 and 1.
KINDS = ("usual", "near one", "near zero", "ends")
NAMES = ("x", "recurrence_gate", "input_gate", "log_a", "state", "reset")
RESULTS = ("output", "final state", *(f"gradient of {name}" for name in NAMES[:5]))


@functools.cache
def problem(size: tuple[int, int, int], kind: str = "usual", documents: bool = True) -> tuple[Tensor, ...]:
    """x, both gates, log_a, state in float64 (every number exists in float32 too), and where documents start."""
    B, T, D = size
    generator = torch.Generator().manual_seed(T)
    normal = functools.partial(torch.randn, generator=generator, dtype=FLOAT64)
    r, i = normal(B, T, D).sigmoid(), normal(B, T, D).sigmoid()
    if kind == "ends":
        r = torch.where(r < 0.3, 0.0, torch.where(r > 0.7, 1.0, r))
    rate = {"usual": 0.1, "near one": 1e-7, "near zero": 3.0, "ends": 0.1}[kind]
    log_a = -rate * (0.1 + normal(D).abs())
    reset = (torch.rand(B, T, generator=generator) < 0.2) & documents
    return *(x.float().double() for x in (normal(B, T, D), r, i, log_a, normal(B, D))), reset


def results(
    inputs: tuple[Tensor, ...], dtype: torch.dtype = FLOAT64, with_state: bool = True, **way: object
) -> list[Tensor]:
    """Output, final state and every gradient, for fixed random gradients of the first two."""
    *given, reset = inputs
    leaves = [x.detach().to(dtype).requires_grad_() for x in (given if with_state else given[:4])]
    found = rg_lru(*leaves, reset=reset, **way)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=generator).to(dtype) for y in found]
    return [*found, *torch.autograd.grad(found, leaves, upstream)]


def assert_close(got: list[Tensor], want: list[Tensor], tolerance: float) -> None:
    assert len(got) == len(want)
    for name, x, y in zip(RESULTS, got, want, strict=False):
        assert x.shape == y.shape, name
        error = ((x.double() - y).abs().max() / y.abs().max().clamp_min(1e-30)).item()
        assert error <= tolerance, f"{name} is off by {error:.1e}"


def literal(inputs: tuple[Tensor, ...]) -> Tensor:
    """Number by number from the paper, and the documents' rule."""
    output = torch.empty_like(inputs[0])
    x, r, i, log_a, state, reset = (y.tolist() for y in inputs)
    for b, t, d in torch.cartesian_prod(*(torch.arange(n) for n in output.shape)).view(-1, 3).tolist():
        before = output[b, t - 1, d].item() if t else state[b][d]
        log_a_t = 8 * r[b][t][d] * log_a[d]
        a, room = math.exp(log_a_t), math.sqrt(-math.expm1(2 * log_a_t))
        if reset[b][t]:
            a, room = 0.0, 1.0
        output[b, t, d] = a * before + room * i[b][t][d] * x[b][t][d]
    return output


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1, 2), (2, 13, 5), (1, 40, 3)], ids=str)
@ways
def test_is_the_paper_number_by_number(way: dict, size: tuple[int, int, int], kind: str) -> None:
    inputs = problem(size, kind)
    want = literal(inputs)
    *given, reset = inputs
    assert_close(list(rg_lru(*given, reset, **way)), [want, want[:, -1]], 1e-12)


@pytest.mark.parametrize("documents", [True, False], ids=["documents", "one-text"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@dtypes
@ways
def test_agrees_with_the_loop(way: dict, dtype: torch.dtype, size: tuple[int, int, int], kind: str, documents: bool) -> None:
    inputs = problem(size, kind, documents)
    got = results(inputs, dtype, **way)
    assert {x.dtype for x in got} == {dtype}
    assert_close(got, results(inputs, FLOAT64, form="recurrent"), TOLERANCE[dtype])


@dtypes
@ways
def test_no_state_is_zeros_and_no_reset_is_nowhere(way: dict, dtype: torch.dtype) -> None:
    *given, state, reset = problem((2, 37, 5))
    got = results((*given, state, None), dtype, with_state=False, **way)
    assert_close(got, results((*given, 0 * state, reset & False), form="recurrent")[:-1], TOLERANCE[dtype])


@ways
def test_gradcheck(way: dict) -> None:
    *given, reset = problem((2, 7, 3))
    leaves = [x.clone().requires_grad_() for x in given]
    assert reset.any()
    assert torch.autograd.gradcheck(lambda *x: rg_lru(*x, reset, **way), leaves)


@ways
def test_one_gradient_is_enough(way: dict) -> None:
    """A loss of the output alone, or of the state alone."""
    *given, reset = problem((2, 9, 3))
    for which in (0, 1):
        leaves, twins = ([x.clone().requires_grad_() for x in given] for _ in range(2))
        got = torch.autograd.grad(rg_lru(*leaves, reset, **way)[which].sum(), leaves)
        want = torch.autograd.grad(rg_lru(*twins, reset, form="recurrent")[which].sum(), twins)
        assert_close(list(got), list(want), 1e-11)


@ways
def test_a_gate_of_zero_keeps_everything_and_its_slope_is_bounded(way: dict) -> None:
    """r = 0: a = 1, the root is 0, and its derivative of 1 / 0 counts as 1000. a^2 falls by 16 |log_a| for r = 1."""
    for dtype in (FLOAT64, FLOAT32):
        x, r, i = (torch.full((1, 1, 1), value, dtype=dtype) for value in (3.0, 0.0, 0.5))
        r.requires_grad_()
        log_a, state = torch.tensor([-0.25], dtype=dtype), torch.tensor([[7.0]], dtype=dtype)
        output, _ = rg_lru(x, r, i, log_a, state, **way)
        assert output.item() == 7
        slope = torch.autograd.grad(output.sum(), r)[0].item()
        assert slope == pytest.approx(7 * 8 * -0.25 + 1.5 * 1000 * 16 * 0.25, rel=1e-6)


@ways
def test_the_slope_is_the_true_one_until_it_reaches_the_bound(way: dict) -> None:
    """On both sides of 1 - a^2 = 2.5e-7, where 1 / (2 sqrt(1 - a^2)) is 1000."""
    for share in (0.5, 0.99, 1.01, 4.0, 1e4):
        x, i = torch.ones(1, 1, 1, dtype=FLOAT64), torch.ones(1, 1, 1, dtype=FLOAT64)
        r = torch.ones(1, 1, 1, dtype=FLOAT64, requires_grad=True)
        log_a = torch.tensor([math.log1p(-2.5e-7 * share) / 16], dtype=FLOAT64)
        output, _ = rg_lru(x, r, i, log_a, **way)
        slope = torch.autograd.grad(output.sum(), r)[0].item()
        bounded = min(1000.0, 1 / (2 * math.sqrt(2.5e-7 * share)))
        assert slope == pytest.approx(-bounded * 16 * log_a.item() * math.exp(16 * log_a.item()), rel=1e-6)


def test_the_root_keeps_its_digits_where_one_minus_a_squared_loses_them() -> None:
    r = i = x = torch.ones(1, 1, 1)
    for log_a_t, lost in ((-1e-4, 3e-5), (-1e-5, 3e-4), (-1e-6, 3e-3)):
        log_a = torch.tensor([log_a_t / 8], dtype=FLOAT32)
        truth = math.sqrt(-math.expm1(16 * log_a.item()))
        for way in WAYS.values():
            assert rg_lru(x, r, i, log_a, **way)[0].item() == pytest.approx(truth, rel=5e-7)
        squared = (8 * log_a).exp() ** 2
        assert abs((1 - squared).sqrt().item() / truth - 1) > lost


@ways
def test_a_document_starts_with_its_input_alone(way: dict) -> None:
    x, r, i, log_a, state, _ = problem((2, 20, 3))
    starts = torch.zeros(2, 20, dtype=torch.bool)
    starts[0, 6], starts[1, 0] = True, True
    output, _ = rg_lru(x, r, i, log_a, state, starts, **way)
    assert torch.equal(output[0, 6], i[0, 6] * x[0, 6])
    assert torch.equal(output[1, 0], i[1, 0] * x[1, 0])
    alone, _ = rg_lru(x[:1, 7:], r[:1, 7:], i[:1, 7:], log_a, output[:1, 6], **way)
    assert_close([output[:1, 7:]], [alone], 1e-12)
    leaves = [y.clone().requires_grad_() for y in (x, r, i, state)]
    later, _ = rg_lru(*leaves[:3], log_a, leaves[3], starts, **way)
    g_x, g_r, g_i, g_state = torch.autograd.grad(later[0, 6:].sum() + later[1].sum(), leaves)
    assert not any(g[0, :6].any() for g in (g_x, g_r, g_i))
    assert not g_state.any()
    assert not g_r[0, 6].any()
    assert not g_r[1, 0].any()


@pytest.mark.parametrize("cuts", [(1, 36), (7, 17, 13), (32, 5)], ids=str)
@ways
def test_pieces_are_the_whole(way: dict, cuts: tuple[int, ...]) -> None:
    x, r, i, log_a, state, reset = problem((2, 37, 5))
    whole, final = rg_lru(x, r, i, log_a, state, reset, form="recurrent")
    outputs = []
    for *tokens, starts in zip(*(y.split(cuts, 1) for y in (x, r, i, reset)), strict=True):
        output, state = rg_lru(*tokens, log_a, state, starts, **way)
        outputs.append(output)
    assert_close([torch.cat(outputs, 1), state], [whole, final], 1e-12)


@pytest.mark.parametrize("position", [0, 5], ids=["a document's start", "later"])
@pytest.mark.parametrize("length", [1, 23])
@ways
def test_agrees_with_transformers(way: dict, length: int, position: int) -> None:
    """The whole module; it resets at position 0 by itself."""
    torch.manual_seed(2)
    theirs = RecurrentGemmaRglru(RecurrentGemmaConfig(lru_width=12, hidden_size=12, num_attention_heads=3))
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    x, past = torch.randn(2, length, 12), torch.randn(2, 12)
    positions = position + torch.arange(length).repeat(2, 1)
    positions[1, length // 2 :] -= positions[1, length // 2].item()
    theirs.recurrent_states = past.clone()
    expected = theirs(x, positions)
    heads = x.unflatten(-1, (3, 4)).unsqueeze(-2)
    r, i = (
        ((heads @ getattr(theirs, f"{gate}_weight")).squeeze(-2) + getattr(theirs, f"{gate}_bias")).flatten(-2).sigmoid()
        for gate in ("recurrent_gate", "input_gate")
    )
    got = rg_lru(x, r, i, -softplus(theirs.recurrent_param), past, positions == 0, **way)
    assert_close(list(got), [expected.double(), theirs.recurrent_states.double()], 2e-6)


@ways
def test_golden_hawk(way: dict) -> None:
    """Two blocks of the authors' own Hawk, to the logits: a convolution and an RG-LRU each, reset at position 0."""
    golden = np.load(GOLDEN)
    weights = {name.removeprefix("param:"): torch.from_numpy(golden[name]) for name in golden if name.startswith("param:")}
    ids, embedding = torch.from_numpy(golden["input_ids"]), weights["embedder.input_embedding"]
    x = embedding[ids] * torch.tensor(embedding.shape[1] ** 0.5).bfloat16().float()
    for block in range(2):
        own = {
            name.removeprefix(f"blocks.{block}."): w for name, w in weights.items() if name.startswith(f"blocks.{block}.")
        }
        x = x + _hawk_mixer(_normed(x, own["temporal_pre_norm.scale"]), own, way)
        y = _normed(x, own["channel_pre_norm.scale"])
        gate, up = (y @ w + b[0, 0] for w, b in zip(own["mlp_block.ffw_up.w"], own["mlp_block.ffw_up.b"], strict=True))
        x = x + (gelu(gate, approximate="tanh") * up) @ own["mlp_block.ffw_down.weight"].mT + own["mlp_block.ffw_down.bias"]
    logits = _normed(x, weights["final_norm.scale"]) @ embedding.mT
    assert_close([logits], [torch.from_numpy(golden["logits"]).double()], 2e-5)


def _normed(x: Tensor, scale: Tensor) -> Tensor:
    return rms_norm(x, scale.shape, 1 + scale, 1e-6)


def _hawk_mixer(x: Tensor, weights: dict[str, Tensor], way: dict) -> Tensor:
    own = {name.removeprefix("recurrent_block."): w for name, w in weights.items()}
    y = gelu(x @ own["linear_y.weight"].mT + own["linear_y.bias"], approximate="tanh")
    u = x @ own["linear_x.weight"].mT + own["linear_x.bias"]
    u, _ = short_conv(u, own["conv_1d.w"].mT, own["conv_1d.b"])
    heads = u.unflatten(-1, own["rg_lru.a_gate.b"].shape).unsqueeze(-2)
    r, i = (
        ((heads @ own[f"rg_lru.{gate}.w"]).squeeze(-2) + own[f"rg_lru.{gate}.b"]).flatten(-2).sigmoid()
        for gate in ("a_gate", "input_gate")
    )
    reset = torch.zeros(u.shape[:2], dtype=torch.bool)
    reset[:, 0] = True
    h, _ = rg_lru(u, r, i, -softplus(own["rg_lru.a_param"]), reset=reset, **way)
    return (h * y) @ own["linear_out.weight"].mT + own["linear_out.bias"]


@ways
def test_strided_inputs_and_nothing_overwritten(way: dict) -> None:
    *given, reset = problem((2, 9, 5))
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in (*given, reset)]
    before = [x.clone() for x in strided]
    assert_close(results(tuple(strided), **way), results((*given, reset), form="recurrent"), 1e-11)
    assert_close(list(rg_lru(*strided, **way)), list(rg_lru(*given, reset, form="recurrent")), 1e-12)
    assert all(torch.equal(x, y) for x, y in zip(strided, before, strict=True))


@ways
def test_the_state_owns_what_it_needs_and_no_more(way: dict) -> None:
    _, final = rg_lru(*problem((2, 65, 5)), **way)
    assert final.untyped_storage().nbytes() == final.numel() * final.element_size()


@ways
def test_nan_stays_visible_and_in_its_channel(way: dict) -> None:
    x, r, i, log_a, state, _ = (y.clone() for y in problem((1, 40, 4)))
    x[0, 3, 1], r[0, 20, 2] = math.nan, -0.1
    output, final = rg_lru(x, r, i, log_a, state, **way)
    assert output[0, 3:, 1].isnan().all()
    assert output[0, 20:, 2].isnan().all(), "a negative gate shows"
    assert final.isnan().tolist() == [[False, True, True, False]]
    assert output[0, :, [0, 3]].isfinite().all()


def test_the_numba_forward_saves_only_its_inputs_and_results() -> None:
    saved: list[Tensor] = []
    *given, reset = problem((2, 65, 5))
    leaves = [x.clone().requires_grad_() for x in given]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x), x)[1], lambda x: x):
        output, state = rg_lru(*leaves, reset, backend="numba")
    assert sum(x.numel() for x in saved) == sum(x.numel() for x in (*leaves, reset, output, state))


def test_bfloat16_takes_the_chunked_form_and_a_float32_state() -> None:
    *tokens, state, reset = problem((2, 37, 5))
    half = (*(x.bfloat16() for x in tokens), state.float(), reset)
    output, final = rg_lru(*half)
    assert (output.dtype, final.dtype) == (torch.bfloat16, FLOAT32)
    assert torch.equal(output, rg_lru(*half, form="chunked")[0])
    exact = rg_lru(*(x.double() for x in half[:5]), reset, form="recurrent")
    assert_close([output], [exact[0]], 2**-8)
    assert_close([final], [exact[1]], 2e-6)


def test_numba_operator_passes_opcheck() -> None:
    *given, state, reset = problem((2, 5, 3))
    inputs = (*(x.clone().requires_grad_() for x in given), reset, state.clone().requires_grad_())
    rg_lru(*problem((2, 5, 3)), backend="numba")
    torch.library.opcheck(torch.ops.hybridlab.rg_lru_numba.default, inputs)


@pytest.mark.parametrize("with_reset", [True, False], ids=["reset", "no-reset"])
@pytest.mark.parametrize("way", [{"backend": "numba"}, {"form": "parallel"}, {"form": "chunked"}], ids=str)
def test_compiles_in_one_graph(way: dict, with_reset: bool) -> None:
    *given, starts = problem((2, 7, 3))
    leaves, reset = [x.clone().requires_grad_() for x in given], starts if with_reset else None
    compiled = torch.compile(lambda *x: rg_lru(*x, **way), fullgraph=True, backend="aot_eager")
    got, want = compiled(*leaves, reset), rg_lru(*leaves, reset, **way)
    assert_close(list(got), list(want), 1e-15)
    assert_close(list(torch.autograd.grad(got[0].sum(), leaves)), list(torch.autograd.grad(want[0].sum(), leaves)), 1e-15)


@ways
def test_meta_tensors_have_the_shapes_of_real_ones(way: dict) -> None:
    inputs = problem((2, 37, 3))
    real = rg_lru(*inputs, **way)
    for meta, one in zip(rg_lru(*(x.to("meta") for x in inputs), **way), real, strict=True):
        assert (meta.is_meta, meta.shape, meta.dtype, meta.stride()) == (True, one.shape, one.dtype, one.stride())


def zeros(*shape: int, **how: object) -> Tensor:
    return torch.zeros(*shape, **{"dtype": FLOAT64, **how})


BAD = {
    "x is a list": ({"x": [1.0]}, "x must be a tensor, got list"),
    "x is int": ({"x": torch.ones(2, 4, 3, dtype=torch.int64)}, r"x must be floating, got torch.int64"),
    "gate shorter": ({"recurrence_gate": zeros(2, 3, 3)}, r"recurrence_gate must be \(B, T, D\) with T = 4, got shape"),
    "gate a token": ({"input_gate": zeros(2, 4)}, r"input_gate must have 3 axes \(B, T, D\), got shape \(2, 4\)"),
    "gate in float32": ({"input_gate": torch.zeros(2, 4, 3)}, "input_gate is torch.float32 but x is torch.float64"),
    "T = 0": ({name: zeros(2, 0, 3) for name in NAMES[:3]}, "T = 0; every axis needs at least one entry"),
    "log_a a token": ({"log_a": zeros(2, 4, 3)}, r"log_a must have 1 axes \(D\), got shape \(2, 4, 3\)"),
    "log_a positive": ({"log_a": zeros(3) + 0.25}, "log_a must be finite and at most 0, .* from 0.25 to 0.25"),
    "log_a infinite": ({"log_a": zeros(3) - math.inf}, "log_a must be finite and at most 0, .* from -inf to -inf"),
    "log_a NaN": ({"log_a": zeros(3) + math.nan}, "log_a must be finite and at most 0, .* from nan to nan"),
    "state of a token": ({"state": zeros(2, 1, 3)}, r"state must have shape \(2, 3\), got \(2, 1, 3\)"),
    "state in float32": ({"state": torch.zeros(2, 3)}, "state must be torch.float64 for torch.float64 inputs"),
    "reset a list": ({"reset": [True]}, "reset must be a tensor or None, got list"),
    "reset of numbers": ({"reset": zeros(2, 4)}, "reset must be bool, got torch.float64"),
    "reset a channel": ({"reset": zeros(2, 4, 1, dtype=torch.bool)}, r"reset must have shape \(2, 4\), got \(2, 4, 1\)"),
    "reset elsewhere": (
        {"reset": zeros(2, 4, dtype=torch.bool, device="meta")},
        "reset is on meta but the inputs are on cpu",
    ),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba, triton"),
    "unknown form": ({"form": "scan"}, "unknown form 'scan'; choose recurrent, parallel, chunked"),
    "form with a kernel": ({"form": "parallel", "backend": "numba"}, "form='parallel' is plain PyTorch .* backend='numba'"),
    "chunk of none": ({"form": "chunked", "chunk_size": 0}, "chunk_size must be a positive int, got 0"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    good = dict(zip(NAMES, problem((2, 4, 3)), strict=True))
    with pytest.raises(ValueError, match=f"^rg_lru: .*{message}"):
        rg_lru(**good | changes)
