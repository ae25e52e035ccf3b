"""Mixers of Hyena, H3 and StripedHyena: their authors' outputs, filters that are kept, where memories begin and end."""

import io
import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alike import worst
from torch import Tensor

from hybridlab.layers import (
    Depth,
    GeluMLP,
    H3Mixer,
    HyenaFilter,
    HyenaMixer,
    HyenaSizes,
    Layer,
    RootRMSNorm,
    StripedHyenaMixer,
    StripedHyenaSizes,
    set_backend,
    short_filter,
)
from hybridlab.layers import h3_mixer as h3_module
from hybridlab.ops import short_conv
from hybridlab.ops.long_conv import long_conv
from hybridlab.ops.modal_conv import modal_filter
from hybridlab.state import state_nbytes

TOLERANCE = 2e-6  # of the largest output
CUTS = ([1] * 29, [3, 7, 1, 13, 5], [29])  # all at once last: the filters it keeps must not help the others
SMALL = HyenaSizes(taps=12, features=5, hidden=6)


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with np.load(Path(__file__).parent / "data" / f"{name}.npz") as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays if key != "config_json"}
        return tensors, json.loads(str(arrays["config_json"]))


def of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"param:{prefix}."
    return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}


def hyena_golden(name: str) -> tuple[HyenaMixer, dict[str, Tensor], dict[str, Tensor]]:
    """A mixer with the authors' weights, what they gave it, and their parameters."""
    tensors, config = golden("hyena_operators")
    c, theirs = config[name], of(tensors, name)
    floor = c["shift"] or None
    network = (c["emb_dim"], c["filter_order"], c["num_inner_mlps"], c["w"])
    mixer = HyenaMixer(c["d_model"], HyenaSizes(c["order"], c["l_max"], *network, floor=floor))
    names = {"in_proj": "input", "out_proj": "output", "short_filter": "conv", "filter_fn.bias": "skip"}
    names |= {"filter_fn.pos_emb.z": "filter.features", "filter_fn.modulation.deltas": "filter.decay"}
    names |= {"filter_fn.implicit_filter.1.freq": "filter.frequency"}
    names |= {f"filter_fn.implicit_filter.{2 * i}": f"filter.maps.{i}" for i in range(c["num_inner_mlps"] + 2)}
    fill(mixer, theirs, names)
    return mixer, tensors, theirs


def fill(mixer: Layer, theirs: dict[str, Tensor], names: dict[str, str]) -> None:
    own = mixer.state_dict()
    renamed = {}
    for key, tensor in theirs.items():
        start = next((start for start in names if key == start or key.startswith(f"{start}.")), key)
        ours = names.get(start, start) + key.removeprefix(start)
        if ours in own:
            renamed[ours] = tensor.reshape(own[ours].shape)
    mixer.load_state_dict(renamed)
    set_backend(mixer, "naive")


def h3_golden(name: str, head_width: int) -> tuple[H3Mixer, dict[str, Tensor]]:
    tensors, config = golden("h3_layers")
    mixer = H3Mixer(config["d_model"], config["d_state"], head_width)
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "output_linear": "output", "D": "skip"}
    names |= {"ssm_k_kernel.kernel.B": "shift_in", "ssm_k_kernel.kernel.C": "shift_out", "ssm_k_D": "shift_skip"}
    names |= {"kernel.kernel.log_dt": "log_step", "kernel.kernel.inv_A_real": "log_rate"}
    names |= {"kernel.kernel.A_imag": "frequency", "kernel.kernel.B": "wave_in", "kernel.kernel.C": "wave_out"}
    fill(mixer, of(tensors, name), names)
    return mixer, tensors


def in_pieces(layer: Layer, x: Tensor, cuts: list[int]) -> tuple[Tensor, Any]:
    state, pieces = None, []
    for piece in x.split(cuts, 1):
        y, state = layer(piece, state)
        pieces.append(y)
    return torch.cat(pieces, 1), state


@torch.no_grad()
@pytest.mark.parametrize("name", ["order2", "order3"])
def test_the_authors_hyena(name: str) -> None:
    mixer, tensors, _ = hyena_golden(name)
    assert worst(mixer.filter(29)[:, :29].mT, tensors[f"filter_{name}"][0]) < TOLERANCE
    for cuts in CUTS:
        y, state = in_pieces(mixer, tensors["input_hidden"], cuts)
        assert worst(y, tensors[f"output_{name}"]) < TOLERANCE
        assert [past.shape for past in state.past] == [(2, 29, 16)] * (mixer.sizes.order - 1)


@torch.no_grad()
@pytest.mark.parametrize(("name", "head_width"), [("h1", 1), ("h4", 4)])
def test_the_authors_h3(name: str, head_width: int) -> None:
    mixer, tensors = h3_golden(name, head_width)
    for cuts in CUTS:
        y, state = in_pieces(mixer, tensors["input_hidden"], cuts)
        assert worst(y, tensors[f"output_head_dim{head_width}"]) < TOLERANCE
    assert state.shift.shape == (2, 7, 16)
    assert state.waves.shape == (2, 16 * head_width, 4)
    assert state.waves.dtype == torch.complex64


@torch.no_grad()
def test_the_authors_kernels_of_h3() -> None:
    mixer, tensors = h3_golden("h1", 1)
    taps, poles, residues = mixer.dynamics()
    shift = taps.flip(1) - torch.cat((mixer.shift_skip.unsqueeze(1), torch.zeros(16, 7)), 1)
    assert worst(shift, tensors["shift_kernel_head_dim1"][0, :, :8]) < TOLERANCE
    assert not tensors["shift_kernel_head_dim1"][0, :, 8:].any()
    assert worst(modal_filter(poles, residues, 29), tensors["diag_kernel_head_dim1"][0]) < TOLERANCE


def test_features_and_windows_begin_as_the_authors() -> None:
    """Their file holds features rounded to 1/128."""
    for name in ("order2", "order3"):
        mixer, _, theirs = hyena_golden(name)
        fresh = HyenaFilter(len(mixer.filter.decay), mixer.sizes)
        torch.testing.assert_close(fresh.features, theirs["filter_fn.pos_emb.z"][0], rtol=0, atol=1 / 255)
        torch.testing.assert_close(fresh.decay, theirs["filter_fn.modulation.deltas"].flatten().abs())
    assert HyenaFilter(3, SMALL).decay.tolist() == pytest.approx([3.0701, 9.2103, 15.3506], abs=1e-4)


@torch.no_grad()
def test_the_window() -> None:
    """What is left of a filter of ones at its end: e^-decay, and the floor."""
    for sizes, expected in (
        (SMALL, lambda decay: (-decay).exp()),
        (SMALL._replace(floor=0.25), lambda decay: (-decay).exp() + 0.25),
        (SMALL._replace(fading=False), torch.ones_like),
    ):
        made = HyenaFilter(5, sizes)
        for step in made.maps:
            step.weight.zero_()
        made.maps[-1].weight[:, 0] = 1 / math.sin(14 * 0.1)
        made.maps[-2].bias[0] = 0.1
        filters = made(99)
        assert filters.shape == (5, 12)
        torch.testing.assert_close(filters[:, -1], expected(made.decay))


def test_fresh_hyena() -> None:
    mixer = HyenaMixer(300, depth=Depth(0, 8))
    assert mixer.input.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert mixer.output.weight.std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert mixer.skip.std().item() == pytest.approx(1, rel=0.2)
    assert mixer.filter.frequency.unique().tolist() == [14.0]
    assert [step.bias is None for step in mixer.filter.maps] == [False, False, False, True]
    assert all(step.weight.std().item() == pytest.approx(0.02, rel=0.05) for step in mixer.filter.maps)
    down = GeluMLP(300, 600, Depth(0, 8)).down
    assert down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.02)


def test_fresh_h3() -> None:
    mixer = H3Mixer(3000, 8)
    taps, poles, residues = mixer.dynamics()
    torch.testing.assert_close(taps.flip(1)[:, 1:], mixer.shift_out[:, 1:])  # what is written is the newest key
    assert mixer.shift_out.abs().max().item() == pytest.approx(8**-0.5, rel=0.01)
    steps = mixer.log_step.exp()
    assert (steps.min().item(), steps.max().item()) == pytest.approx((1e-3, 0.1), rel=0.05)
    assert (steps < 1e-2).float().mean().item() == pytest.approx(0.5, abs=0.04)
    rates = 2 / steps.unsqueeze(1) * (poles - 1) / (poles + 1)
    expected = torch.complex(torch.tensor(-0.5), math.pi * torch.arange(4)).expand(3000, 4)
    torch.testing.assert_close(rates, expected, rtol=1e-3, atol=1e-3)
    drawn = residues / (2 * steps.unsqueeze(1)) * (1 - steps.unsqueeze(1) * rates / 2)
    assert drawn.abs().square().mean().item() == pytest.approx(1, rel=0.05)


def test_fresh_stripedhyena() -> None:
    """Its waves begin as those of H3, and last for tokens."""
    mixer = StripedHyenaMixer(3000, StripedHyenaSizes(state_size=2))
    poles = torch.view_as_complex(mixer.poles)
    assert 0.94 < poles.abs().min().item() < 0.96
    assert 0.999 < poles.abs().max().item() < 1
    assert not mixer.D.any()


def changes() -> dict[str, Callable[[HyenaFilter], Any]]:
    other = HyenaFilter(5, SMALL).state_dict()

    def trained(made: HyenaFilter) -> None:
        optimizer = torch.optim.AdamW(made.parameters(), lr=0.1)
        with torch.enable_grad():
            made(12).square().sum().backward()
        optimizer.step()

    def rounded(made: HyenaFilter) -> None:
        made.to(torch.bfloat16).float()

    def replaced(made: HyenaFilter) -> None:
        made.maps[1] = torch.nn.Linear(6, 6)

    def renewed(made: HyenaFilter) -> None:
        """Another parameter in the same memory, changed as often as the first."""
        twin = torch.nn.Parameter(made.frequency.data)
        made.frequency = twin.mul_(2)

    return {
        "another parameter": renewed,
        "training": trained,
        "load_state_dict": lambda made: made.load_state_dict(other) is None,
        "load_state_dict, assigned": lambda made: made.load_state_dict(other, assign=True) is None,
        "there and back": rounded,
        "another map": replaced,
        "in place": lambda made: made.frequency.mul_(2) is None,
        "buffer": lambda made: made.decay.mul_(2) is None,
    }


@torch.no_grad()
@pytest.mark.parametrize("name", changes())
def test_a_kept_filter_follows_its_parameters(name: str) -> None:
    made = HyenaFilter(5, SMALL)
    made.frequency.mul_(1)
    before = made(12)
    assert made(12) is before
    changes()[name](made)
    after = made(12)
    torch.testing.assert_close(after, made.computed(12), rtol=0, atol=0)
    assert worst(after, before) > 1e-4


@torch.no_grad()
def test_kept_dynamics_follow_a_conversion() -> None:
    """There and back, every parameter is the same object and of the same dtype again, with other numbers."""
    mixer = H3Mixer(4, 6)
    before = mixer.dynamics()
    assert mixer.dynamics() is before
    mixer.to(torch.bfloat16).float()
    after = mixer.dynamics()
    torch.testing.assert_close(after, deepcopy(mixer).dynamics(), rtol=0, atol=0)
    assert worst(after.poles.imag, before.poles.imag) > 1e-4


def saved(mixer: HyenaMixer) -> io.BytesIO:
    mixer.zero_grad()
    set_backend(mixer, "naive")
    stored = io.BytesIO()
    torch.save(mixer, stored)
    stored.seek(0)
    return stored


def test_what_is_kept_records_no_gradients_and_is_not_copied() -> None:
    mixer = HyenaMixer(4, SMALL)
    set_backend(mixer, "naive")
    x = torch.randn(1, 9, 4)
    with torch.no_grad():
        kept = mixer.filter(9)
        mixer(x)
    mixer(x)[0].sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in mixer.filter.parameters())
    stored = saved(mixer)
    assert len(stored.getvalue()) == len(saved(HyenaMixer(4, SMALL)).getvalue())
    for twin in (deepcopy(mixer), torch.load(stored, weights_only=False)):
        with torch.no_grad():
            assert twin.filter(9) is not kept
            torch.testing.assert_close(twin.filter(9), kept)
    assert not any("kept" in name for name in mixer.state_dict())
    with torch.inference_mode():
        inside = HyenaFilter(4, SMALL)
        inside.frequency += 1
        torch.testing.assert_close(inside(9)[:, :9], inside.computed(9))
        assert mixer.filter(9) is mixer.filter(8)


@torch.no_grad()
def test_decoding_makes_a_filter_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each token: as often as its length doubles."""
    mixer = HyenaMixer(4, SMALL._replace(taps=100))
    set_backend(mixer, "naive")
    made: list[int] = []
    computed = mixer.filter.computed
    monkeypatch.setattr(mixer.filter, "computed", lambda length: made.append(length) or computed(length))
    in_pieces(mixer, torch.randn(1, 120, 4), [7] + [1] * 113)
    assert made == [8, 16, 32, 64, 128]


@torch.no_grad()
def test_a_filter_ends() -> None:
    """Past its W taps nothing is seen, nothing more is kept, and pieces still agree."""
    mixer = HyenaMixer(4, SMALL._replace(order=3)).double()
    set_backend(mixer, "naive")
    x = torch.randn(2, 40, 4, dtype=torch.float64)
    whole, state = mixer(x)
    for cuts in ([1] * 40, [5, 11, 13, 11], [30, 10]):
        y, pieced = in_pieces(mixer, x, cuts)
        torch.testing.assert_close(y, whole)
        assert [past.shape for past in pieced.past] == [(2, 12, 4)] * 2
    assert state_nbytes(state) == state_nbytes(mixer.init_state(2, 40, dtype=torch.float64)) == 8 * 2 * 4 * (4 * 2 + 2 * 12)
    filters = mixer.filter(40)
    assert filters.shape == (8, 12)
    *gates, v = mixer.conv(mixer.input(x), mixer.start(x).conv, "naive")[0].chunk(4, -1)
    for index, gate in enumerate((gates[2], gates[1])):
        v, _ = long_conv(gate * v, filters[4 * index : 4 * index + 4], mixer.skip[index], backend="naive")
    torch.testing.assert_close(mixer.output(gates[0] * v), whole)


@torch.no_grad()
@pytest.mark.parametrize("heads", [None, 2])
def test_stripedhyena_is_hyena_with_waves_for_a_filter(heads: int | None) -> None:
    sizes = StripedHyenaSizes(state_size=3, filter_width=2, heads=heads)
    mixer = StripedHyenaMixer(6, sizes).double()
    set_backend(mixer, "naive")
    mixer.D.normal_()
    x = torch.randn(2, 20, 6, dtype=torch.float64)
    projected = mixer.conv(mixer.input(x), mixer.start(x).conv, "naive")[0]
    order = torch.tensor([0, 1, 2, 9, 10, 11, 3, 4, 5, 12, 13, 14, 6, 7, 8, 15, 16, 17]) if heads else torch.arange(18)
    gate, key, value = projected[..., order].chunk(3, -1)
    filters = modal_filter(*(torch.view_as_complex(part) for part in (mixer.poles, mixer.residues)), 20)
    expected = mixer.output(gate * long_conv(key * value, filters, mixer.D, backend="naive")[0])
    torch.testing.assert_close(mixer(x)[0], expected)
    y, state = in_pieces(mixer, x, [1, 4, 1, 14])
    torch.testing.assert_close(y, expected)
    assert state_nbytes(state) == 2 * 6 * (3 * 1 * 8 + 2 * 3 * 8)


def test_eps_outside_the_root() -> None:
    norm = RootRMSNorm(2, eps=0.5).double()
    x = torch.tensor([[[3.0, 4.0]]], dtype=torch.float64)
    torch.testing.assert_close(norm(x), x / (12.5**0.5 + 0.5))
    zeros = torch.zeros(1, 1, 2, dtype=torch.float64, requires_grad=True)
    norm(zeros).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("make", [lambda: HyenaMixer(8, SMALL), lambda: H3Mixer(8, 4, 2), lambda: StripedHyenaMixer(8)])
def test_a_bfloat16_mixer_remembers_in_float32(make: Callable[[], Layer]) -> None:
    layer = make().to(torch.bfloat16)
    set_backend(layer, "naive")
    x = torch.randn(2, 9, 8, dtype=torch.bfloat16)
    y, state = layer(x)
    assert y.dtype == torch.bfloat16
    assert state_nbytes(state) == state_nbytes(layer.init_state(2, 9, dtype=torch.bfloat16))
    assert worst(y.float(), layer.float()(x.float())[0]) < 0.05


def test_waves_are_counted_in_any_dtype() -> None:
    """Papers count states in bfloat16: two numbers of 2 bytes each."""
    layer = StripedHyenaMixer(8)
    for dtype, size in ((torch.bfloat16, 2), (torch.float16, 2), (torch.float32, 4), (torch.float64, 8)):
        state = layer.init_state(1, dtype=torch.bfloat16, state_dtype=dtype)
        assert state_nbytes(state.waves) == 8 * 2 * 2 * size


@pytest.mark.parametrize("make", [lambda: HyenaMixer(8, SMALL), lambda: H3Mixer(8, 4), lambda: StripedHyenaMixer(8)])
def test_both_ops_run_where_the_layer_is_told(make: Callable[[], Layer], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def spy(*arguments: Any, backend: str) -> Any:
        told.append(backend)
        return short_conv(*arguments, backend="naive")

    for module in (short_filter, h3_module):
        monkeypatch.setattr(module, "short_conv", spy)
    layer = make()
    op = layer.op
    layer.op = lambda *arguments, backend: told.append(backend) or op(*arguments, backend="naive")  # type: ignore[method-assign]
    layer.backend = "elsewhere"
    layer(torch.randn(1, 3, 8))
    assert told == ["elsewhere"] * 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HyenaMixer(8, SMALL._replace(order=1)), "order must be at least 2, got 1"),
        (lambda: HyenaMixer(8, SMALL._replace(features=4)), "features must be odd and at least 3, got 4"),
        (lambda: H3Mixer(8, 5), "state_size must be even and at least 2, got 5"),
        (lambda: H3Mixer(8, 4, 3), "head_width must divide width 8, got 3"),
        (lambda: StripedHyenaMixer(8, StripedHyenaSizes(heads=3)), "heads must divide width 8, got 3"),
    ],
)
def test_sizes_that_do_not_fit(make: Callable[[], Layer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
