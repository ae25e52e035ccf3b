"""H3 as a model: its card, what it remembers, its sizes, its authors' checkpoint."""

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

from hybridlab.layers import Rotary
from hybridlab.measure import account, check_invariants
from hybridlab.measure.recording import record
from hybridlab.models import H3, PRESETS, H3Config, load_checkpoint, set_backend

VOCABULARY, WIDTH, LENGTH = 41, 16, 29
CARDS: dict[str, Callable[[], H3]] = {
    "attention inside": lambda: H3(
        H3Config(VOCABULARY, WIDTH, 3, state_size=6, attention_layers=(1,), heads=2, rotary=Rotary(fraction=0.5))
    ),
    "heads of 4, no positions": lambda: H3(
        H3Config(VOCABULARY, WIDTH, 2, state_size=2, head_width=4, attention_layers=(0,), heads=4)
    ),
}


@pytest.fixture(scope="module")
def published() -> H3:
    return H3.from_preset("h3-2.7b", device="meta")


@pytest.mark.parametrize("name", CARDS)
def test_card(name: str) -> None:
    model = CARDS[name]()
    set_backend(model, "naive")
    card = check_invariants(model)
    assert card.ok, card.failed


@pytest.mark.parametrize("context", [1, 4096, 262_144])
def test_what_it_remembers(published: H3, context: int) -> None:
    """63 keys and 32 complex numbers a channel in 30 layers, a cache in two."""
    counted = account(published, context, dtype="bfloat16")
    assert counted.kv_bytes == 2 * context * 2 * 2560 * 2
    assert counted.state_bytes == 30 * 2560 * (63 * 2 + 32 * 8)


def test_heads_remember_products() -> None:
    """K * K products a head: K times as many waves."""
    config = {"vocabulary": 11, "width": 16, "layers": 1, "state_size": 6}
    one, four = (H3(H3Config(**config, head_width=width)).init_state(1).layers[0].mixer for width in (1, 4))
    assert one.waves.shape == (1, 16, 3)
    assert four.waves.shape == (1, 64, 3)


def test_what_a_token_costs(published: H3) -> None:
    """2 a weight of every matrix, 2 a tap of the shift, 11 a complex number; the filters are not made at each token."""
    c = PRESETS["h3-2.7b"].config
    context, mlp = 1000, 2 * c.width * c.ffn_width
    memories = 2 * (4 * c.width**2 + mlp) + 2 * c.width * 64 + 11 * c.width * 32
    attention = 2 * (4 * c.width**2 + mlp) + 2 * 2 * c.width * context
    expected = 30 * memories + 2 * attention + 2 * c.width * c.vocabulary
    assert account(published, context).flops_per_token == expected


def test_the_op_can_be_listened_to() -> None:
    model = CARDS["attention inside"]()
    set_backend(model, "naive")
    calls = record(model, torch.zeros(1, 5, dtype=torch.int64))
    assert [(call.layer, call.op) for call in calls] == [(f"layers.{i}.mixer", "modal_conv") for i in (0, 2)]


def test_published_sizes() -> None:
    config = PRESETS["h3-2.7b"].config
    assert [layer for layer, letter in enumerate(config.letters) if letter == "A"] == [10, 21]
    assert (config.heads, config.state_size, config.head_width, config.ffn_width) == (20, 64, 1, 10_240)
    assert config.rotary is not None
    assert config.rotary.turned(config.width // config.heads) == 64


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"state_size": 5}, "state_size is 5; expected an even number"),
        ({"head_width": 3}, "head_width is 3; expected a divisor of width = 16"),
        ({"heads": 3}, "heads is 3; expected a divisor of width = 16"),
        ({"attention_layers": (2,)}, r"attention_layers is \(2,\); expected numbers from 0 to 1"),
        ({"heads": 2, "rotary": Rotary(fraction=0.4)}, "rotary is .* expected pairs of a head's 8 channels"),
    ],
)
def test_sizes_that_do_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        H3Config(VOCABULARY, WIDTH, 2, **fields)


class Authors:
    """Three layers in the authors' layout: the golden H3 layer, attention, the H3 layer again; and its logits."""

    def __init__(self, turned: int) -> None:
        with np.load(Path(__file__).parent / "data" / "h3_layers.npz") as arrays:
            mixer = {key[9:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("param:h1.")}
        generator = torch.Generator().manual_seed(3)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator) * 0.3

        self.turned = turned
        self.ids = torch.randint(VOCABULARY, (2, LENGTH), generator=generator)
        self.weights = {"backbone.embeddings.word_embeddings.weight": random(VOCABULARY, WIDTH)}
        self.weights |= {f"backbone.ln_f.{kind}": random(WIDTH) for kind in ("weight", "bias")}
        for layer in range(3):
            start = f"backbone.layers.{layer}."
            self.weights |= {
                f"{start}{norm}.{kind}": random(WIDTH) for norm in ("norm1", "norm2") for kind in ("weight", "bias")
            }
            self.weights |= {f"{start}mlp.fc1.weight": random(24, WIDTH), f"{start}mlp.fc1.bias": random(24)}
            self.weights |= {f"{start}mlp.fc2.weight": random(WIDTH, 24), f"{start}mlp.fc2.bias": random(WIDTH)}
            if layer == 1:
                self.weights |= {
                    f"{start}mixer.Wqkv.weight": random(3 * WIDTH, WIDTH),
                    f"{start}mixer.Wqkv.bias": random(3 * WIDTH),
                }
                self.weights |= {
                    f"{start}mixer.out_proj.weight": random(WIDTH, WIDTH),
                    f"{start}mixer.out_proj.bias": random(WIDTH),
                }
            else:
                self.weights |= {f"{start}mixer.{name}": tensor.clone() for name, tensor in mixer.items()}
        if turned:
            self.weights["backbone.layers.1.mixer.rotary_emb.inv_freq"] = 10_000.0 ** -(torch.arange(0, turned, 2) / turned)
        self.fields = {
            "attn_cfg": {"num_heads": 2, "rotary_emb_dim": turned},
            "ssm_cfg": {"mode": "diag", "measure": "diag-lin"},
        }

    def linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (WIDTH,), self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def logits(self) -> Tensor:
        embedding = self.weights["backbone.embeddings.word_embeddings.weight"]
        x = embedding[self.ids]
        for layer in range(3):
            start = f"backbone.layers.{layer}."
            mix = self.attended if layer == 1 else self.remembered
            x = x + mix(self.norm(x, f"{start}norm1"), f"{start}mixer.")
            hidden = functional.gelu(self.linear(self.norm(x, f"{start}norm2"), f"{start}mlp.fc1"), approximate="tanh")
            x = x + self.linear(hidden, f"{start}mlp.fc2")
        return self.norm(x, "backbone.ln_f") @ embedding.mT

    def attended(self, x: Tensor, start: str) -> Tensor:
        q, k, v = (part.unflatten(2, (2, 8)).transpose(1, 2) for part in self.linear(x, f"{start}Wqkv").chunk(3, -1))
        if self.turned:
            q, k = (self.rotated(part, self.weights[f"{start}rotary_emb.inv_freq"]) for part in (q, k))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.linear(y.transpose(1, 2).flatten(2), f"{start}out_proj")

    def rotated(self, x: Tensor, frequencies: Tensor) -> Tensor:
        """The first channels, halves paired, by e^(i t f); the others as they are."""
        first, second = x[..., : self.turned].chunk(2, -1)
        turns = torch.polar(torch.ones(()), torch.outer(torch.arange(LENGTH), frequencies))
        pairs = torch.complex(first, second) * turns
        return torch.cat((pairs.real, pairs.imag, x[..., self.turned :]), -1)

    def remembered(self, x: Tensor, start: str) -> Tensor:
        """The two memories, step by step as the authors decode."""
        q, k, v = (self.linear(x, f"{start}{name}_proj") for name in "qkv")
        w = {name.removeprefix(start): tensor for name, tensor in self.weights.items() if name.startswith(start)}
        dt = w["kernel.kernel.log_dt"].exp().unsqueeze(1)
        step = dt * torch.complex(-w["kernel.kernel.inv_A_real"].exp(), w["kernel.kernel.A_imag"])
        B, C = (torch.view_as_complex(w[f"kernel.kernel.{name}"]) for name in "BC")
        poles, entering = (1 + step / 2) / (1 - step / 2), dt * B / (1 - step / 2)
        shift, waves = torch.zeros(2, WIDTH, 8), torch.zeros(2, WIDTH, 4, dtype=torch.complex64)
        outputs = []
        for q_t, k_t, v_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
            shift = functional.pad(shift, (1, -1)) + w["ssm_k_kernel.kernel.B"] * k_t.unsqueeze(2)
            keyed = (w["ssm_k_kernel.kernel.C"][0] * shift).sum(2) + w["ssm_k_D"] * k_t
            u = keyed * v_t
            waves = poles * waves + entering * u.unsqueeze(2)
            outputs.append((2 * (C[0] * waves).sum(2).real + w["D"] * u) * q_t)
        return self.linear(torch.stack(outputs, 1), f"{start}output_linear")


def folder(path: Path, authors: Authors, **changed: Any) -> Path:
    fields = {name: value for name, value in {**authors.fields, **changed}.items() if value != "absent"}
    (path / "config.json").write_text(json.dumps(fields))
    save_file({name: tensor.contiguous() for name, tensor in authors.weights.items()}, path / "model.safetensors")
    return path


@torch.no_grad()
@pytest.mark.parametrize("turned", [0, 4])
def test_the_authors_checkpoint(tmp_path: Path, turned: int) -> None:
    """No name for the head, which is the embedding; attention with and without positions."""
    authors = Authors(turned)
    authors.weights["lm_head.weight"] = authors.weights["backbone.embeddings.word_embeddings.weight"].clone()
    model = load_checkpoint(folder(tmp_path, authors))
    assert type(model) is H3
    rotary = Rotary(fraction=0.5) if turned else None
    sizes = {"ffn_width": 24, "state_size": 8, "attention_layers": (1,), "heads": 2, "rotary": rotary}
    assert model.config == H3Config(VOCABULARY, WIDTH, 3, **sizes)
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
        ({"attn_cfg": "absent"}, "lacks 'num_heads'"),
        ({"attn_cfg": {"num_heads": 3}}, "heads is 3; expected a divisor of width = 16"),
        ({"attn_cfg": {"num_heads": 2, "rotary_emb_dim": "all"}}, "rotary_emb_dim 'all', expected a positive int"),
        ({"ssm_cfg": {"disc": "zoh"}}, "disc 'zoh'; only 'bilinear'"),
        ({"d_model": 17}, "d_model 17; only 16"),
        ({"max_position_embeddings": 2048}, "max_position_embeddings 2048; only 0"),
    ],
)
def test_what_the_weights_do_not_say(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder(tmp_path, Authors(4), **fields))
