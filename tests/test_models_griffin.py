"""Griffin and RecurrentGemma: their authors' logits from their authors' files, and what such files must say."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from alike import in_pieces, worst
from safetensors.torch import save_file
from torch import Tensor

from hybridlab.measure import account
from hybridlab.models import (
    PRESETS,
    Griffin,
    GriffinConfig,
    RecurrentGemma,
    RecurrentGemmaConfig,
    from_preset,
    load_checkpoint,
    set_backend,
)
from hybridlab.models.griffin_checkpoint import shortest
from hybridlab.state import state_nbytes

TOLERANCE = 2e-5  # of the largest logit
CUTS = {"all at once": [29], "one token a call": [1] * 29, "odd chunks": [3, 7, 1, 13, 5], "a token, the rest": [1, 28]}


class Golden(NamedTuple):
    """Outputs of the authors' code, and what our model of its weights must be."""

    config: GriffinConfig
    weights: dict[str, Tensor]
    fields: dict[str, Any]
    ids: Tensor
    logits: Tensor


def golden(name: str, config: GriffinConfig) -> Golden:
    with np.load(Path(__file__).parent / "data" / f"{name}.npz") as arrays:
        weights = {key[6:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("param:")}
        ids, logits = (torch.from_numpy(arrays[key]) for key in ("input_ids", "logits"))
        return Golden(config, weights, json.loads(str(arrays["config_json"])), ids, logits)


# The authors' windows are 6 and 5: so many keys beside the query's own.
GRIFFIN = golden("griffin_dm", GriffinConfig(53, 32, 3, heads=2, blocks=2, ffn_width=72, window=7))
GEMMA = golden(
    "recurrentgemma_dm",
    RecurrentGemmaConfig(53, 32, 5, pattern="GWG", inner=48, heads=4, ffn_width=72, window=6, logit_cap=9.0),
)
BOTH = pytest.mark.parametrize("case", [GRIFFIN, GEMMA], ids=["griffin", "recurrentgemma"])


def folder(path: Path, case: Golden, weights: dict[str, Tensor] | None = None, **changed: Any) -> Path:
    fields = {name: value for name, value in {**case.fields, **changed}.items() if value != "absent"}
    (path / "config.json").write_text(json.dumps(fields))
    kept = case.weights if weights is None else weights
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, path / "model.safetensors")
    return path


@torch.no_grad()
@BOTH
def test_the_authors_logits(tmp_path: Path, case: Golden) -> None:
    model = load_checkpoint(folder(tmp_path, case))
    assert type(model) is (RecurrentGemma if case is GEMMA else Griffin)
    assert model.config == case.config
    assert not model.training
    set_backend(model, "naive")
    for cut, cuts in CUTS.items():
        assert worst(in_pieces(model, case.ids, cuts), case.logits) < TOLERANCE, cut


@torch.no_grad()
@pytest.mark.minutes
@BOTH
def test_the_authors_logits_by_kernels(tmp_path: Path, case: Golden) -> None:
    model = load_checkpoint(folder(tmp_path, case))
    for cut, cuts in CUTS.items():
        assert worst(in_pieces(model, case.ids, cuts), case.logits) < TOLERANCE, cut


@torch.no_grad()
@BOTH
def test_a_file_with_a_configuration(tmp_path: Path, case: Golden) -> None:
    torch.save(case.weights, tmp_path / "weights.pt")
    model = load_checkpoint(tmp_path / "weights.pt", case.config)
    set_backend(model, "naive")
    assert type(model.config) is type(case.config)
    assert worst(model(case.ids).logits, case.logits) < TOLERANCE


@torch.no_grad()
@BOTH
def test_a_window_that_counts_the_query_gives_other_logits(tmp_path: Path, case: Golden) -> None:
    """The difference between the authors' count and transformers' is seen, so it is worth a test."""
    model = load_checkpoint(folder(tmp_path, case, attention_window_size=case.fields["attention_window_size"] - 1))
    set_backend(model, "naive")
    assert worst(model(case.ids).logits, case.logits) > 1e-3


@torch.no_grad()
def test_nothing_is_left_of_an_earlier_conversation(tmp_path: Path) -> None:
    """A conversation that begins with one single token, after another one of the same batch was read."""
    model = load_checkpoint(folder(tmp_path, GEMMA))
    set_backend(model, "naive")
    _, earlier = model(GEMMA.ids.flip(1))
    first, state = model(GEMMA.ids[:, :1])
    rest, _ = model(GEMMA.ids[:, 1:], state)
    assert worst(torch.cat((first, rest), 1), GEMMA.logits) < TOLERANCE
    carried, _ = model(GEMMA.ids[:, :1], earlier)
    assert worst(carried, first) > 1e-3


@torch.no_grad()
def test_greedy_text_is_that_of_no_state_at_all(tmp_path: Path) -> None:
    model = load_checkpoint(folder(tmp_path, GEMMA))
    set_backend(model, "naive")
    ids = GEMMA.ids[:, :6]
    for _ in range(5):
        ids = torch.cat((ids, model(ids).logits[:, -1:].argmax(-1)), 1)
    assert torch.equal(model.generate(GEMMA.ids[:, :6], 5), ids)


def test_the_shortest_pattern() -> None:
    assert [shortest(letters) for letters in ("GGWGGWG", "G", "GW", "GWGGW", "GGGW")] == ["GGW", "G", "GW", "GWG", "GGGW"]


@pytest.mark.parametrize(("pattern", "letters"), [("GGW", "GGWGG"), ("W", "WWWWW"), ("GWGGWGG", "GWGGW")])
def test_the_pattern_is_repeated_and_cut(pattern: str, letters: str) -> None:
    model = Griffin(GriffinConfig(11, 8, 5, pattern=pattern, heads=2, blocks=2))
    mixers = {"G": "RGLRUBlock", "W": "GriffinAttention"}
    assert [type(layer.mixer).__name__ for layer in model.layers] == [mixers[letter] for letter in letters]


def test_deep_models_start_with_quiet_writers() -> None:
    """Whatever writes into the stream starts with variance 2 / L, in both kinds of layers and in the MLP."""
    model = Griffin(GriffinConfig(11, 64, 32, pattern="GW", heads=2, blocks=2, ffn_width=64))
    for name in ("mixer.output", "channel_mixer.down"):
        for layer in (0, 31):
            spread = model.get_submodule(f"layers.{layer}.{name}").weight.std().item()
            assert spread == pytest.approx((2 / 32 / 64) ** 0.5, rel=0.1), (layer, name)


@BOTH
@pytest.mark.parametrize("field", ["embeddings_scale_by_sqrt_dim", "attention_window_size"])
def test_what_the_weights_do_not_say(tmp_path: Path, case: Golden, field: str) -> None:
    with pytest.raises(ValueError, match=rf"config\.json lacks '{field}' \(and no config was given\)"):
        load_checkpoint(folder(tmp_path, case, **{field: "absent"}))


def test_weights_alone_do_not_say_which_of_the_two_they_are(tmp_path: Path) -> None:
    torch.save(GEMMA.weights, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"config\.json lacks '"):
        load_checkpoint(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("block_types", ["RECURRENT"] * 5, r"block_types \['RECURRENT', .*; only \['RECURRENT', 'ATTENTION', "),
        ("vocab_size", 54, "vocab_size 54; only 53"),
        ("width", 41, "width 41; only 32"),
        ("mlp_expanded_width", 36, "mlp_expanded_width 36; only 72"),
        ("num_heads", 2, "num_heads 2; only 4"),
        ("lru_width", 32, "lru_width 32; only 48"),
        ("attention_window_size", 0, "attention_window_size 0, expected a positive int"),
        ("logits_soft_cap", -1.0, r"logit_cap is -1\.0; expected a positive number"),
    ],
)
def test_a_configuration_that_contradicts_the_weights(tmp_path: Path, field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder(tmp_path, GEMMA, **{field: value}))


def test_missing_tensors(tmp_path: Path) -> None:
    for name in GRIFFIN.weights:
        lacking = {key: value for key, value in GRIFFIN.weights.items() if key != name}
        with pytest.raises(ValueError, match=f"missing tensor '?{name}"):
            load_checkpoint(folder(tmp_path, GRIFFIN, lacking))


def test_a_tensor_of_the_other_kind_of_layer(tmp_path: Path) -> None:
    """Both kinds of layers have an output; a layer must not take it from the other kind."""
    name = "blocks.2.recurrent_block.linear_out.weight"
    with pytest.raises(ValueError, match=f"extra tensor {name} for Griffin"):
        load_checkpoint(folder(tmp_path, GRIFFIN, {**GRIFFIN.weights, name: torch.zeros(32, 32)}))


def test_an_empty_tensor(tmp_path: Path) -> None:
    name = "blocks.2.attention_block.proj_k.weight"
    with pytest.raises(ValueError, match="num_heads 2; only 32 is known"):
        load_checkpoint(folder(tmp_path, GRIFFIN, {**GRIFFIN.weights, name: torch.zeros(0, 32)}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "GGA"}, "pattern is 'GGA'; expected letters G .* and W"),
        ({"pattern": ""}, "pattern is ''"),
        ({"heads": 4, "groups": 3}, "groups is 3; expected a divisor of heads = 4"),
        ({"head_width": 6}, r"head_width is 6; expected one of which pairs are turned \(3 channels are\)"),
        ({"head_width": 1}, "head_width is 1; expected one of which pairs are turned"),
        ({"heads": 0, "head_width": 7}, "head_width is 7; expected a divisor of width = 32, or heads given"),
        ({"window": 0}, "window is 0; expected a positive int"),
        ({"blocks": 3}, "blocks is 3; expected a divisor of inner = 32"),
    ],
)
def test_impossible_sizes(options: dict[str, Any], message: str) -> None:
    sizes = {"heads": 2, "blocks": 2, **options}
    with pytest.raises(ValueError, match=f"GriffinConfig: {message}"):
        GriffinConfig(53, 32, 3, **sizes)


def test_published_states() -> None:
    """RecurrentGemma-2B keeps 18 * (2560 * 4 + 3 * 2560 * 2) + 8 * 2 * 2048 * 256 * 2 bytes at any context from 2048 on."""
    model = from_preset("recurrentgemma-2b", device="meta")
    sizes = [state_nbytes(model.init_state(1, length, dtype=torch.bfloat16)) for length in (2047, 2048, 2049, 10**6)]
    assert sizes == [17_238_016 - 8 * 2 * 256 * 2, 17_238_016, 17_238_016, 17_238_016]
    seven = account("griffin-7b", 1024)
    assert (seven.kv_bytes, seven.state_bytes) == (10 * 2 * 1024 * 128 * 2, 22 * (5632 * 4 + 3 * 5632 * 2))


def test_published_parameters() -> None:
    """transformers counts 2,682,862,080 of the released 2B; its report prints 2.7B, and 2.0B without the embedding."""
    model = from_preset("recurrentgemma-2b", device="meta")
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 2_682_862_080
    assert f"{(count - model.embedding.weight.numel()) / 1e9:.1f}" == "2.0"
    letters = {name: PRESETS[name].config.letters for name in ("recurrentgemma-2b", "recurrentgemma-9b", "griffin-7b")}
    assert [(word.count("G"), word.count("W")) for word in letters.values()] == [(18, 8), (26, 12), (22, 10)]


def test_operations_of_a_token() -> None:
    """2 a weight of a matrix and a key or value that is read; of the filter 2 a tap, of the recurrence 7 a channel."""
    c = PRESETS["griffin-1b"].config
    recurrent = 2 * (3 * c.width * c.inner + 2 * c.inner**2 // c.blocks) + 2 * 4 * c.inner + 7 * c.inner
    attention = 2 * c.width * 128 * 2 * (c.heads + 1) + 2 * 2 * c.heads * 128 * c.window
    mlp = 2 * 3 * c.width * c.ffn_width
    expected = 16 * recurrent + 8 * attention + 24 * mlp + 2 * c.vocabulary * c.width
    assert account("griffin-1b", 1_000_000).flops_per_token == expected


def test_the_state_of_a_real_forward() -> None:
    model = Griffin(GriffinConfig(11, 8, 3, heads=2, blocks=2, window=4, inner=12))
    set_backend(model, "naive")
    for length in (1, 3, 4, 9):
        _, state = model(torch.zeros(2, length, dtype=torch.int64))
        expected = 2 * (2 * 12 * (3 + 1) + 2 * min(length, 3) * 4) * 4
        assert state_nbytes(state) == state_nbytes(model.init_state(2, length)) == expected
