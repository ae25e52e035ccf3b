"""modal_conv: a filter that is a sum of waves, whose state is a few complex numbers."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridlab.ops import long_conv, modal_conv
from hybridlab.ops.modal_conv import modal_filter, powers
from hybridlab.state import state_nbytes

FLOAT64, FLOAT32 = torch.float64, torch.float32
FORMS = {form: {"form": form} for form in ("recurrent", "parallel")}
NUMBA = pytest.param({"backend": "numba"}, marks=pytest.mark.minutes, id="numba")
forms = pytest.mark.parametrize("way", FORMS.values(), ids=FORMS)
ways = pytest.mark.parametrize("way", [*(pytest.param(way, id=form) for form, way in FORMS.items()), NUMBA])
# (B, T, D, N): one token, one pole, a segment and one past it, more channels than a task has.
SIZES = [(1, 1, 1, 1), (2, 1, 3, 4), (2, 13, 5, 1), (2, 16, 3, 3), (3, 33, 5, 2), (1, 17, 70, 2)]
NAMES = ("x", "poles", "residues", "skip", "state")
RESULTS = ("output", "final state", *(f"gradient of {name}" for name in NAMES))
GOLDEN = Path(__file__).parent / "data" / "h3_layers.npz"


@functools.cache
def problem(size: tuple[int, int, int, int]) -> tuple[Tensor, ...]:
    """x, poles within the unit circle (one of them 0), residues, skip, state; every number exists in float32 too."""
    B, T, D, N = size
    generator = torch.Generator().manual_seed(T)
    draw = functools.partial(torch.randn, generator=generator)
    poles = torch.polar(torch.rand(D, N, generator=generator), 6.3 * torch.rand(D, N, generator=generator))
    poles[0, 0] = 0
    x, skip = draw(B, T, D), draw(D)
    residues, state = (draw(*shape, dtype=torch.complex64) for shape in ((D, N), (B, D, N)))
    return tuple(z.to(torch.complex128 if z.is_complex() else FLOAT64) for z in (x, poles, residues, skip, state))


def cast(z: Tensor, dtype: torch.dtype) -> Tensor:
    return z.to(dtype.to_complex() if z.is_complex() else dtype)


def results(inputs: tuple[Tensor, ...], dtype: torch.dtype = FLOAT64, **way: object) -> list[Tensor]:
    """Output, final state and every gradient, for fixed random gradients of the first two."""
    leaves = [cast(z.detach(), dtype).requires_grad_() for z in inputs]
    found = modal_conv(*leaves, **way)
    return [*found, *torch.autograd.grad(found, leaves, [cast(z, dtype) for z in upstream(*found)])]


def upstream(*results: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(z.shape, generator=generator, dtype=cast(z, FLOAT64).dtype) for z in results]


def literal(x: Tensor, poles: Tensor, residues: Tensor, skip: Tensor, state: Tensor) -> list[Tensor]:
    """Power by power, and the gradients by their sums over pairs of tokens: nothing is carried along.

    PyTorch's gradient of z is d/d Re z + i d/d Im z: what z is multiplied by is conjugated.
    """
    T = x.shape[1]
    output, final = skip * x, poles**T * state
    g_out, g_final = upstream(x, state)
    g_x, g_state = skip * g_out, (poles**T).conj() * g_final
    g_poles = (T * poles ** (T - 1) * state).conj() * g_final
    g_residues = torch.zeros_like(g_poles)
    for t in range(T):
        since = T - 1 - t
        final = final + poles**since * x[:, t, :, None]
        g_x[:, t] += ((poles**since).conj() * g_final).sum(-1).real
        if since:
            g_poles += x[:, t, :, None] * (since * poles ** (since - 1)).conj() * g_final
        # What the state left: p^{t+1} of it.
        asked = g_out[:, t, :, None]
        output[:, t] += (residues * poles ** (t + 1) * state).sum(-1).real
        g_state = g_state + asked * (residues * poles ** (t + 1)).conj()
        g_residues += asked * (poles ** (t + 1) * state).conj()
        g_poles += asked * (residues * (t + 1) * poles**t * state).conj()
        for s in range(t + 1):
            output[:, t] += (residues * poles ** (t - s)).sum(-1).real * x[:, s]
            g_x[:, s] += (residues * poles ** (t - s)).sum(-1).real * g_out[:, t]
            both = asked * x[:, s, :, None]
            g_residues += both * (poles ** (t - s)).conj()
            if t > s:
                g_poles += both * (residues * (t - s) * poles ** (t - s - 1)).conj()
    return [output, final, g_x, g_poles.sum(0), g_residues.sum(0), (g_out * x).sum((0, 1)), g_state]


def assert_close(got: list[Tensor], want: list[Tensor], tolerance: float) -> None:
    assert len(got) == len(want)
    for name, x, y in zip(RESULTS, got, want, strict=False):
        assert x.shape == y.shape, name
        error = ((x - y).abs().max() / y.abs().max().clamp_min(1e-30)).item()
        assert error <= tolerance, f"{name} is off by {error:.1e}"


@forms
def test_is_the_sum_of_waves(way: dict) -> None:
    for size in SIZES:
        assert_close(results(problem(size), **way), literal(*problem(size)), 1e-12)


@pytest.mark.minutes
@pytest.mark.parametrize(("dtype", "tolerance"), [(FLOAT64, 1e-12), (FLOAT32, 1e-5)], ids=["float64", "float32"])
def test_numba_is_the_sum_of_waves(dtype: torch.dtype, tolerance: float) -> None:
    for size in SIZES:
        got = results(problem(size), dtype, backend="numba")
        assert {z.dtype for z in got} == {dtype, dtype.to_complex()}
        assert_close(got, literal(*problem(size)), tolerance)


@pytest.mark.minutes
def test_numba_with_threads_is_the_recurrence() -> None:
    inputs = problem((2, 70, 150, 4))
    assert_close(results(inputs, backend="numba"), results(inputs, form="recurrent"), 1e-12)


@forms
def test_is_the_long_convolution_with_its_filter(way: dict) -> None:
    x, poles, residues, skip, _ = problem((2, 16, 3, 3))
    expected = long_conv(x, modal_filter(poles, residues, 16), skip, form="recurrent")[0]
    assert_close([modal_conv(x, poles, residues, skip, **way)[0]], [expected], 1e-12)


@pytest.mark.parametrize("cuts", [(1,) * 33, (2, 1, 13, 17), (32, 1)], ids=str)
@ways
def test_pieces_are_the_whole(way: dict, cuts: tuple[int, ...]) -> None:
    x, poles, residues, skip, state = problem((3, 33, 5, 2))
    whole, final = modal_conv(x, poles, residues, skip, state, form="recurrent")
    outputs = []
    for piece in x.split(cuts, 1):
        output, state = modal_conv(piece, poles, residues, skip, state, **way)
        outputs.append(output)
    assert_close([torch.cat(outputs, 1), state], [whole, final], 1e-12)


def test_powers_are_exact_at_a_pole_of_0_and_on_the_circle() -> None:
    turn = torch.tensor([[0, 1j, -1]], dtype=torch.complex128)
    assert powers(turn, 7)[0].T.tolist() == [[float(t == 0), 1j**t, (-1.0) ** t] for t in range(7)]


def test_agrees_with_the_kernel_of_the_authors_h3() -> None:
    """Bilinear rule: A becomes (1 + dt A / 2) / (1 - dt A / 2), B becomes dt B / (1 - dt A / 2); 2 Re of the sum."""
    with np.load(GOLDEN) as file:
        stored = {
            name.removeprefix("param:h1.kernel.kernel."): torch.from_numpy(file[name]) for name in file if "h1" in name
        }
        expected = torch.from_numpy(file["diag_kernel_head_dim1"])[0]
    dt = stored["log_dt"].exp().unsqueeze(-1)
    A = torch.complex(-stored["inv_A_real"].exp(), stored["A_imag"])
    B, C = (torch.view_as_complex(stored[name].contiguous()) for name in ("B", "C"))
    poles, residues = (1 + dt * A / 2) / (1 - dt * A / 2), 2 * C[0] * dt * B / (1 - dt * A / 2)
    impulse = torch.zeros(1, expected.shape[1], len(expected))
    impulse[:, 0] = 1
    for way in FORMS.values():
        assert_close([modal_conv(impulse, poles, residues, **way)[0][0].mT], [expected], 2e-6)


def test_the_classic_bugs_are_far_away() -> None:
    """Conjugates doubled, the imaginary part, no phase, the state lost, an empty state that is not zero."""
    x, poles, residues, skip, state = problem((2, 13, 5, 1))
    output = modal_conv(x, poles, residues, skip, state, form="recurrent")[0]
    for wrong in ((poles, 2 * residues), (poles, 1j * residues), (poles, residues.abs() + 0j), (poles.abs() + 0j, residues)):
        assert (modal_conv(x, *wrong, skip, state, form="recurrent")[0] - output).abs().max() > 0.3
    assert (modal_conv(x, poles, residues, skip, form="recurrent")[0] - output).abs().max() > 0.3


@ways
def test_no_state_and_no_skip_are_zeros(way: dict) -> None:
    x, poles, residues, skip, state = problem((2, 13, 5, 1))
    bare, given = modal_conv(x, poles, residues, **way), modal_conv(x, poles, residues, 0 * skip, 0 * state, **way)
    assert all(torch.equal(one, other) for one, other in zip(bare, given, strict=True))


@pytest.mark.parametrize("tokens", [1, 5, 40])
@ways
def test_the_state_is_as_long_after_any_text(way: dict, tokens: int) -> None:
    x, poles, residues, _, _ = (cast(z, FLOAT32) for z in problem((2, tokens, 3, 4)))
    _, state = modal_conv(x, poles, residues, **way)
    assert (state.shape, state.dtype, state_nbytes(state)) == ((2, 3, 4), torch.complex64, 2 * 3 * 4 * 8)
    assert state.untyped_storage().nbytes() == state_nbytes(state)


@ways
def test_strided_inputs_and_nothing_overwritten(way: dict) -> None:
    inputs = problem((2, 16, 3, 3))
    strided = [z.transpose(0, -1).contiguous().transpose(0, -1) for z in inputs]
    # A conjugated tensor is a view that only says so.
    strided[1], strided[4] = strided[1].conj().resolve_conj().conj(), strided[4].conj().resolve_conj().conj()
    before = [z.clone() for z in strided]
    assert_close(list(modal_conv(*strided, **way)), list(modal_conv(*inputs, form="recurrent")), 1e-12)
    assert all(torch.equal(x, y) for x, y in zip(strided, before, strict=True))


@forms
def test_bfloat16_is_summed_in_float32(way: dict) -> None:
    x, poles, residues, skip, state = (cast(z, FLOAT32) for z in problem((2, 16, 3, 3)))
    output, final = modal_conv(x.bfloat16(), poles, residues, skip.bfloat16(), state, **way)
    assert (output.dtype, final.dtype) == (torch.bfloat16, torch.complex64)
    exact = modal_conv(x.bfloat16().float(), poles, residues, skip.bfloat16().float(), state, form="recurrent")
    assert_close([output.float()], [exact[0]], 2**-8)
    assert_close([final], [exact[1]], 1e-6)


def test_auto_without_a_kernel_takes_one_token_by_the_recurrence() -> None:
    x, poles, residues, skip, state = (cast(z, FLOAT32) for z in problem((2, 16, 3, 3)))
    for given, form in ((x[:, :1].bfloat16(), "recurrent"), (x.bfloat16(), "parallel")):
        auto, named = (modal_conv(given, poles, residues, skip, state, **way) for way in ({}, {"form": form}))
        assert all(torch.equal(one, other) for one, other in zip(auto, named, strict=True))


@pytest.mark.minutes
def test_numba_operator_passes_opcheck() -> None:
    x, poles, residues, _, state = (z.clone().requires_grad_() for z in problem((2, 16, 3, 3)))
    modal_conv(x, poles, residues, backend="numba")
    torch.library.opcheck(torch.ops.hybridlab.modal_conv_numba.default, (x, poles, residues, state))


@pytest.mark.minutes
@ways
def test_compiles_in_one_graph(way: dict) -> None:
    inputs = [z.clone().requires_grad_() for z in problem((2, 16, 3, 3))]
    compiled = torch.compile(lambda *z: modal_conv(*z, **way), fullgraph=True, backend="aot_eager")
    got, want = compiled(*inputs), modal_conv(*inputs, **way)
    assert_close(list(got), list(want), 1e-14)
    pairs = (torch.autograd.grad(found[0].sum(), inputs) for found in (got, want))
    assert_close(*map(list, pairs), 1e-13)


def test_meta_tensors_have_the_shapes_of_real_ones() -> None:
    inputs = problem((2, 16, 3, 3))
    real = modal_conv(*inputs, form="recurrent")
    for meta, one in zip(modal_conv(*(z.to("meta") for z in inputs)), real, strict=True):
        assert (meta.is_meta, meta.shape, meta.dtype) == (True, one.shape, one.dtype)


def modes(*shape: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.full(shape, 0.5, dtype=dtype)


BAD = {
    "x is a list": ({"x": [1.0]}, "x must be a tensor, got list"),
    "x is complex": ({"x": modes(2, 4, 3)}, "x must be floating, got torch.complex128"),
    "T = 0": ({"x": torch.zeros(2, 0, 3, dtype=FLOAT64)}, "T = 0; every axis needs at least one entry"),
    "poles a list": ({"poles": [1.0]}, "poles must be a tensor, got list"),
    "poles real": ({"poles": modes(3, 2).real}, "poles must be torch.complex128 for torch.float64 inputs, got"),
    "poles as stored": ({"poles": modes(3, 2, 1)}, r"poles must have 2 axes \(D, N\), got shape \(3, 2, 1\)"),
    "poles transposed": ({"poles": modes(2, 3)}, r"poles must be \(D, N\) with D = 3, got shape \(2, 3\)"),
    "fewer residues": ({"residues": modes(3, 1)}, r"residues must be \(D, N\) with N = 2, got shape \(3, 1\)"),
    "residues of half width": ({"residues": modes(3, 2, dtype=torch.complex64)}, "residues is torch.float32 but x is"),
    "a pole of NaN": ({"poles": modes(3, 2) * math.nan}, "poles must be finite everywhere"),
    "an endless residue": ({"residues": modes(3, 2) * math.inf}, "residues must be finite everywhere"),
    "skip too long": ({"skip": torch.zeros(5, dtype=FLOAT64)}, r"skip must be \(D\) with D = 3, got shape \(5,\)"),
    "state without modes": ({"state": modes(2, 3)}, r"state must have shape \(2, 3, 2\), got \(2, 3\)"),
    "state real": ({"state": modes(2, 3, 2).real}, "state must be torch.complex128 for torch.float64 inputs"),
    "unknown backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba, triton"),
    "unknown form": ({"form": "fft"}, "unknown form 'fft'; choose recurrent, parallel"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes: dict, message: str) -> None:
    good = {"x": torch.zeros(2, 4, 3, dtype=FLOAT64), "poles": modes(3, 2), "residues": modes(3, 2)}
    with pytest.raises(ValueError, match=f"^modal_conv: .*{message}"):
        modal_conv(**good | changes)
