"""Hyena as a model: its card, its growing state, its price a token, its sizes, its authors' checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from hybridlab.measure import account, check_invariants
from hybridlab.measure.recording import record
from hybridlab.models import PRESETS, Hyena, HyenaConfig, load_checkpoint, set_backend

VOCABULARY, WIDTH, LENGTH = 41, 16, 29
SIZES = {"features": 5, "hidden": 8, "inner_maps": 1}
CARDS: dict[str, Callable[[], Hyena]] = {
    "filters that end": lambda: Hyena(HyenaConfig(VOCABULARY, WIDTH, 2, taps=11, **SIZES)),
    "order 3, no window": lambda: Hyena(HyenaConfig(VOCABULARY, WIDTH, 2, order=3, taps=64, fading=False, **SIZES)),
    "one tap in front, a floor": lambda: Hyena(HyenaConfig(VOCABULARY, WIDTH, 1, taps=64, floor=0.1, filter_width=1)),
}


@pytest.fixture(scope="module")
def published() -> Hyena:
    return Hyena.from_preset("hyena-125m", device="meta")


@pytest.mark.parametrize("name", CARDS)
def test_card(name: str) -> None:
    model = CARDS[name]()
    set_backend(model, "naive")
    card = check_invariants(model, window=11)
    assert card.ok, card.failed


def test_the_state_grows_until_the_filter_ends(published: Hyena) -> None:
    """Two rows of 3 D for the short convolution, and a row of D a token and layer."""
    for context in (1, 100, 2048, 10_000):
        counted = account(published, context, dtype="bfloat16")
        assert counted.state_bytes == 2 * 12 * 768 * (2 * 3 + min(context, 2048))
        assert counted.kv_bytes == 0


def test_a_token_costs_more_the_more_there_were(published: Hyena) -> None:
    """2 a weight of every matrix, 2 a tap of the filters; the network behind the long filter is not run at each token."""
    config = PRESETS["hyena-125m"].config
    matrices = (3 + 1) * config.width**2 + 2 * config.width * config.ffn_width
    for context in (1, 300, 2048, 5000):
        mixing = 2 * config.width * (3 * 3 + min(context, 2048))
        expected = config.layers * (2 * matrices + mixing) + 2 * config.width * config.vocabulary
        assert account(published, context).flops_per_token == expected


def test_the_op_can_be_listened_to() -> None:
    model = CARDS["order 3, no window"]()
    set_backend(model, "naive")
    calls = record(model, torch.zeros(1, 5, dtype=torch.int64))
    assert [(call.layer, call.op) for call in calls] == [(f"layers.{i}.mixer", "long_conv") for i in (0, 0, 1, 1)]
    assert calls[0].state.shape == (1, 5, WIDTH)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"order": 1}, "order is 1; expected at least 2"),
        ({"features": 4}, "features is 4; expected an odd number, at least 3"),
        ({"features": 1}, "features is 1"),
        ({"taps": 0}, "taps is 0; expected a positive int"),
        ({"frequency": -1.0}, r"frequency is -1\.0; expected a positive number"),
        ({"floor": -0.5}, r"floor is -0\.5"),
    ],
)
def test_sizes_that_do_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HyenaConfig(VOCABULARY, WIDTH, 2, **fields)


def test_published_sizes() -> None:
    config = PRESETS["hyena-125m"].config
    assert (config.order, config.taps, config.features, config.hidden, config.inner_maps) == (2, 2048, 33, 64, 2)
    assert (config.frequency, config.fading, config.floor, config.ffn_width) == (14.0, True, None, 3072)
    assert PRESETS["hyena-355m"].config.ffn_width == 2048


class Authors:
    """A language model in the authors' layout around the mixer of their golden file, and its logits step by step."""

    def __init__(self) -> None:
        with np.load(Path(__file__).parent / "data" / "hyena_operators.npz") as arrays:
            mixer = {key[13:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("param:order2.")}
        generator = torch.Generator().manual_seed(3)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator) * 0.3

        self.ids = torch.randint(VOCABULARY, (2, LENGTH), generator=generator)
        self.weights = {"backbone.embeddings.word_embeddings.weight": random(VOCABULARY, WIDTH)}
        self.weights |= {f"backbone.ln_f.{kind}": random(WIDTH) for kind in ("weight", "bias")}
        for layer in range(2):
            start = f"backbone.layers.{layer}."
            self.weights |= {f"{start}mixer.{name}": tensor.clone() for name, tensor in mixer.items()}
            copies = {3: 1, 5: 1}  # one frequency, which every sine repeats
            for copy, first in copies.items():
                freq = self.weights[f"{start}mixer.filter_fn.implicit_filter.{first}.freq"].clone()
                self.weights[f"{start}mixer.filter_fn.implicit_filter.{copy}.freq"] = freq
            self.weights |= {
                f"{start}{norm}.{kind}": random(WIDTH) for norm in ("norm1", "norm2") for kind in ("weight", "bias")
            }
            self.weights |= {f"{start}mlp.fc1.weight": random(24, WIDTH), f"{start}mlp.fc1.bias": random(24)}
            self.weights |= {f"{start}mlp.fc2.weight": random(WIDTH, 24), f"{start}mlp.fc2.bias": random(WIDTH)}
        self.weights["lm_head.weight"] = self.weights["backbone.embeddings.word_embeddings.weight"].clone()
        self.fields = {"d_model": WIDTH, "n_layer": 2, "d_inner": 24, "layer": {"l_max": 40, "modulate": True, "w": 4}}

    def linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (WIDTH,), self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def logits(self) -> Tensor:
        x = self.weights["backbone.embeddings.word_embeddings.weight"][self.ids]
        for layer in range(2):
            start = f"backbone.layers.{layer}."
            x = x + self.mixed(self.norm(x, f"{start}norm1"), f"{start}mixer.")
            hidden = functional.gelu(self.linear(self.norm(x, f"{start}norm2"), f"{start}mlp.fc1"), approximate="tanh")
            x = x + self.linear(hidden, f"{start}mlp.fc2")
        return self.linear(self.norm(x, "backbone.ln_f"), "lm_head")

    def mixed(self, x: Tensor, start: str) -> Tensor:
        """The operator of order 2, with its sum over the past written out."""
        short = self.weights[f"{start}short_filter.weight"]
        u = functional.pad(self.linear(x, f"{start}in_proj").mT, (2, 0))
        u = functional.conv1d(u, short, self.weights[f"{start}short_filter.bias"], groups=3 * WIDTH).mT
        last, gate, v = u.chunk(3, -1)
        v, taps = gate * v, self.filter(start)
        heard = [(taps[: t + 1].flip(0) * v[:, : t + 1]).sum(1) for t in range(LENGTH)]
        y = torch.stack(heard, 1) + self.weights[f"{start}filter_fn.bias"] * v
        return self.linear(y * last, f"{start}out_proj")

    def filter(self, start: str) -> Tensor:
        start = f"{start}filter_fn."
        h = self.weights[f"{start}pos_emb.z"][0]
        for index in (0, 2, 4):
            frequency = self.weights[f"{start}implicit_filter.{index + 1}.freq"]
            h = torch.sin(frequency * self.linear(h, f"{start}implicit_filter.{index}"))
        times = self.weights[f"{start}pos_emb.t"][0]
        return self.linear(h, f"{start}implicit_filter.6") * torch.exp(
            -times * self.weights[f"{start}modulation.deltas"][0].abs()
        )


def folder(path: Path, authors: Authors, **changed: Any) -> Path:
    fields = {name: value for name, value in {**authors.fields, **changed}.items() if value != "absent"}
    (path / "config.json").write_text(json.dumps(fields))
    save_file({name: tensor.contiguous() for name, tensor in authors.weights.items()}, path / "model.safetensors")
    return path


@torch.no_grad()
def test_the_authors_checkpoint(tmp_path: Path) -> None:
    authors = Authors()
    model = load_checkpoint(folder(tmp_path, authors))
    assert type(model) is Hyena
    sizes = {"taps": 40, "features": 5, "hidden": 12, "inner_maps": 2}
    assert model.config == HyenaConfig(VOCABULARY, WIDTH, 2, ffn_width=24, **sizes)
    set_backend(model, "naive")
    expected = authors.logits()
    assert (model(authors.ids).logits - expected).abs().max() < 2e-5 * expected.abs().max()
    state, pieces = None, []
    for piece in authors.ids.split([20, 1, 1, 7], 1):
        logits, state = model(piece, state)
        pieces.append(logits)
    assert (torch.cat(pieces, 1) - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer": "absent"}, "lacks 'modulate'"),
        ({"layer": {"modulate": True, "num_heads": 2}}, "num_heads 2; only 1"),
        ({"layer": {"modulate": True, "l_max": 41}}, "l_max 41; only 40"),
        ({"layer": {"modulate": True, "normalized": True}}, "normalized True; only False"),
        ({"layer": {"modulate": True, "order": 3}}, "order 3; only 2"),
        ({"n_layer": 3}, "n_layer 3; only 2"),
        ({"layer_norm_epsilon": -1.0}, r"norm_eps is -1\.0"),
    ],
)
def test_what_the_weights_do_not_say(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder(tmp_path, Authors(), **fields))


def test_the_window_is_what_the_fields_say(tmp_path: Path) -> None:
    config = load_checkpoint(folder(tmp_path, Authors(), layer={"modulate": False, "shift": 0.05})).config
    assert (config.fading, config.floor) == (False, 0.05)


def test_only_order_2_is_loaded(tmp_path: Path) -> None:
    """The authors' code for language models lays out the filters of higher orders otherwise than the operator here."""
    authors = Authors()
    for layer in range(2):
        authors.weights[f"backbone.layers.{layer}.mixer.in_proj.weight"] = torch.zeros(4 * WIDTH, WIDTH)
    with pytest.raises(ValueError, match=r"in_proj\.weight has 64 rows, not 3 \* 16; only order 2 is known"):
        load_checkpoint(folder(tmp_path, authors))
