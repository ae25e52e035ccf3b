"""Based as a model: its mixers against the authors' outputs, its frame by hand, what it keeps and what a token costs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alike import worst
from torch import Tensor
from torch.nn import functional

from hybridlab.layers import BaseConv, GroupedAttention, TaylorMixer
from hybridlab.measure import account, check_invariants
from hybridlab.measure.recording import record
from hybridlab.models import PRESETS, Based, BasedConfig, set_backend

VOCABULARY, WIDTH, HEADS, KEYS, WINDOW, LENGTH = 41, 24, 3, 4, 5, 13
TOLERANCE = 2e-5  # of the largest output
SIZES: dict[str, Any] = {"heads": HEADS, "key_width": KEYS, "window": WINDOW, "ffn_width": 40}


def tiny() -> Based:
    """Linear attention, a window, a filter."""
    model = Based(BasedConfig(VOCABULARY, WIDTH, 3, taylor_layers=(0,), window_layers=(1,), **SIZES), backend="naive")
    return model.double()


def shaken() -> Based:
    model = tiny()
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(Path(__file__).parent / "data" / "based_mixers.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays if key != "config_json"}


@pytest.fixture(scope="module")
def published() -> Based:
    return Based.from_preset("based-1.3b", device="meta")


@torch.no_grad()
@pytest.mark.parametrize("cuts", [[29], [1] * 29, [3, 7, 1, 18]], ids=["at once", "steps", "pieces"])
@pytest.mark.parametrize("kind", ["linear_attention", "base_conv"])
def test_mixers_of_the_authors(golden: dict[str, Tensor], kind: str, cuts: list[int]) -> None:
    mixer: TaylorMixer | BaseConv
    if kind == "linear_attention":
        mixer, start = TaylorMixer(32, heads=4, key_width=5, value_width=8), "param:lin."
        names = {"proj_q": "query", "proj_k": "key", "proj_v": "value", "out_proj": "output"}
    else:
        mixer, start = BaseConv(32, 64, filter_width=4), "param:conv."
        names = {"in_proj": "input", "conv.conv": "conv", "out_proj": "output"}
    weights = {}
    for name, tensor in golden.items():
        if name.startswith(start):
            holder, _, part = name.removeprefix(start).rpartition(".")
            weights[f"{names[holder]}.{part}"] = tensor.squeeze(1) if holder == "conv.conv" else tensor
    mixer.load_state_dict(weights)
    set_backend(mixer, "naive")
    state, pieces = None, []
    for piece in golden["input_hidden"].split(cuts, 1):
        y, state = mixer(piece, state)
        pieces.append(y)
    assert worst(torch.cat(pieces, 1), golden[f"output_{kind}"]) < TOLERANCE


@torch.no_grad()
def test_the_frame_by_hand() -> None:
    """Written out again from the description of the authors' code, with sums over all pairs of tokens."""
    model, ids = shaken(), torch.randint(VOCABULARY, (2, LENGTH))
    w = dict(model.named_parameters())

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"]

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def heads(x: Tensor, name: str) -> Tensor:
        return linear(x, name).unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def attended(weights: Tensor, x: Tensor, name: str) -> Tensor:
        y = (weights / weights.sum(-1, keepdim=True)) @ heads(x, f"{name}.value")
        return linear(y.transpose(1, 2).flatten(2), f"{name}.output")

    def turned(x: Tensor) -> Tensor:
        angles = torch.arange(LENGTH).double()[:, None] * 10_000.0 ** (-torch.arange(4).double() / 4)
        z = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat((z.real, z.imag), -1)

    x, time = w["embedding.weight"][ids], torch.arange(LENGTH)
    back = time[:, None] - time
    u = norm(x, "layers.0.mixer_norm")
    s = heads(u, "layers.0.mixer.query") @ heads(u, "layers.0.mixer.key").mT / KEYS**0.5
    x = x + attended((1 + s + s**2 / 2) * (back >= 0), u, "layers.0.mixer")
    x = x + mlp(norm(x, "layers.0.channel_norm"), "layers.0.channel_mixer", linear)
    u = norm(x, "layers.1.mixer_norm")
    s = turned(heads(u, "layers.1.mixer.query")) @ turned(heads(u, "layers.1.mixer.key")).mT / 8**0.5
    x = x + attended(s.exp() * ((back >= 0) & (back < WINDOW)), u, "layers.1.mixer")
    x = x + mlp(norm(x, "layers.1.channel_norm"), "layers.1.channel_mixer", linear)
    u, gate = linear(norm(x, "layers.2.mixer_norm"), "layers.2.mixer.input").split(2 * WIDTH, -1)
    taps = w["layers.2.mixer.conv.weight"]
    u = sum(taps[:, 2 - j] * functional.pad(u, (0, 0, j, 0))[:, :LENGTH] for j in range(3))
    x = x + linear(functional.silu(u) * gate, "layers.2.mixer.output")
    x = x + mlp(norm(x, "layers.2.channel_norm"), "layers.2.channel_mixer", linear)
    expected = norm(x, "norm") @ w["embedding.weight"].T
    assert worst(model(ids).logits, expected) < 1e-10  # the sum by hand has no eps of 1e-12


def mlp(x: Tensor, name: str, linear: Any) -> Tensor:
    return linear(linear(x, f"{name}.up") * functional.silu(linear(x, f"{name}.gate")), f"{name}.down")


def test_card() -> None:
    card = check_invariants(tiny())
    assert card.ok, card.failed


@pytest.mark.parametrize(
    ("name", "taylor", "window", "ffn_width"),
    [
        ("based-360m", [1, 6, 11, 16, 21], [2, 7, 12, 17, 22], 2048),
        ("based-1.3b", [1, 6, 11, 16, 21, 27, 33], [2, 7, 12, 17, 22, 28, 34], 3584),
    ],
)
def test_published_layers(name: str, taylor: list[int], window: list[int], ffn_width: int) -> None:
    config = PRESETS[name].config
    assert [layer for layer, letter in enumerate(config.letters) if letter == "B"] == taylor
    assert [layer for layer, letter in enumerate(config.letters) if letter == "W"] == window
    assert (config.heads, config.key_width, config.window, config.ffn_width) == (16, 16, 129, ffn_width)


def test_layers_are_what_their_letters_say(published: Based) -> None:
    kinds = {"B": TaylorMixer, "W": GroupedAttention, "C": BaseConv}
    assert [type(block.mixer) for block in published.layers] == [kinds[letter] for letter in published.config.letters]
    assert published.head.weight is published.embedding.weight


def test_what_it_keeps(published: Based) -> None:
    """128 keys and values under a window of 129; 273 features, each 112 values and a sum; two inputs of every filter."""
    for context in (1, 128, 129, 100_000):
        counted = account(published, context, dtype="bfloat16")
        assert counted.kv_bytes == 7 * 2 * min(context, 128) * 1792 * 2
        assert counted.state_bytes == 7 * 16 * 273 * (112 + 1) * 4 + 22 * 2 * 2 * 1792 * 2


def test_what_a_token_costs(published: Based) -> None:
    """2 a weight of every matrix, 2 a tap; 4 a pair of key and value under the window; and the features."""
    d, keys, context = 1792, 16, 1000
    maps = 7 * (2 * d * 256 + 2 * d**2) + 7 * 4 * d**2 + 22 * 6 * d**2 + 36 * 3 * d * 3584
    features = 273 * (4 * 112 + 3) + 2 * (keys + 2 * keys**2) + 1 + 112
    mixing = 7 * 16 * features + 7 * 4 * 129 * d + 22 * 2 * 3 * 2 * d
    assert account(published, context).flops_per_token == 2 * maps + mixing + 2 * d * 50_264


def test_the_op_can_be_listened_to() -> None:
    (call,) = record(tiny(), torch.zeros(1, 5, dtype=torch.int64))
    assert (call.layer, call.op) == ("layers.0.mixer", "taylor_attention")
    assert call.state.kv.shape == (1, HEADS, 1 + KEYS + KEYS**2, WIDTH // HEADS)


def test_initial_values() -> None:
    """GPT-2's: 0.02 everywhere, what writes into the stream divided by the root of twice the layers; no bias."""
    model = Based(BasedConfig(512, 256, 3, taylor_layers=(0,), window_layers=(1,), heads=4))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.ndim == 2 and "conv" not in name:
            std = 0.02 / 6**0.5 if name.endswith(("output.weight", "down.weight")) else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name
    assert sorted({name.rpartition(".")[0] for name, _ in model.named_parameters() if name.endswith("bias")}) == [
        "layers.2.mixer.input",
        "layers.2.mixer.output",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 5}, "heads is 5; expected a divisor of width = 24"),
        ({"heads": 8, "window_layers": (1,)}, "heads is 8; expected heads of an even width"),
        ({"taylor_layers": (0, 3)}, r"taylor_layers is \(0, 3\); expected numbers from 0 to 2"),
        ({"window_layers": (-1,)}, r"window_layers is \(-1,\); expected numbers from 0 to 2"),
        ({"taylor_layers": (0, 1), "window_layers": (1,)}, r"expected none of taylor_layers = \(0, 1\)"),
        ({"window": 0}, "window is 0; expected a positive int"),
        ({"key_width": -4}, "key_width is -4"),
        ({"filter_width": 0}, "filter_width is 0"),
    ],
)
def test_sizes_that_do_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BasedConfig(VOCABULARY, WIDTH, 3, **{**SIZES, **fields})


def test_derived_sizes() -> None:
    assert BasedConfig(VOCABULARY, 160, 3).ffn_width == 512
    assert BasedConfig(VOCABULARY, 160, 4, taylor_layers=(1,), window_layers=(2,)).letters == "CBWC"
    odd = BasedConfig(VOCABULARY, 24, 2, heads=8, taylor_layers=(1,))
    assert odd.letters == "CB"
