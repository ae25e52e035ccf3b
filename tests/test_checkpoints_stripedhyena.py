"""StripedHyena: its authors' logits from its authors' files and folders, and what their fields may say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alike import in_pieces, worst
from safetensors.torch import save_file

from hybridlab.layers import GroupedAttention, Rotary, StripedHyenaMixer
from hybridlab.models import LanguageModel, StripedHyena, StripedHyenaConfig, load_checkpoint, set_backend

TOLERANCE = 2e-5  # of the largest logit
CUTS = ([29], [1] * 29, [3, 7, 1, 13, 5])
CONFIGS = {
    "stripedhyena": StripedHyenaConfig(
        53, 32, 3, heads=4, groups=2, attention_layers=(1,), ffn_width=56, state_size=5, filter_width=4
    ),
    "stripedhyena_plainsplit": StripedHyenaConfig(
        53, 32, 3, heads=4, attention_layers=(0,), ffn_width=56, by_head=False, tied=True
    ),
}


class Golden:
    """One file of the authors' outputs."""

    def __init__(self, name: str) -> None:
        with np.load(Path(__file__).parent / "data" / f"{name}.npz") as arrays:
            self.weights = {key[6:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("param:")}
            self.fields: dict[str, Any] = json.loads(str(arrays["config_json"]))
            self.ids, self.logits = torch.from_numpy(arrays["input_ids"]), torch.from_numpy(arrays["logits"])


GOLDEN = {name: Golden(name) for name in CONFIGS}
RELEASED = GOLDEN["stripedhyena"]


def folder(path: Path, golden: Golden = RELEASED, prefix: str = "", **changed: Any) -> Path:
    fields = {name: value for name, value in {**golden.fields, **changed}.items() if value != "absent"}
    (path / "config.json").write_text(json.dumps(fields))
    save_file({prefix + name: tensor.contiguous() for name, tensor in golden.weights.items()}, path / "model.safetensors")
    return path


def loaded(path: Path, config: StripedHyenaConfig | None = None) -> LanguageModel:
    model = load_checkpoint(path, config)
    set_backend(model, "naive")
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_the_authors_logits(tmp_path: Path, name: str) -> None:
    """Channels by head and in thirds, grouped keys, attention first, a tied head; in any pieces."""
    golden = GOLDEN[name]
    model = loaded(folder(tmp_path, golden))
    assert type(model) is StripedHyena
    assert model.config == CONFIGS[name]
    for cuts in CUTS:
        assert worst(in_pieces(model, golden.ids, cuts), golden.logits) < TOLERANCE


@torch.no_grad()
def test_a_folder_of_the_hub(tmp_path: Path) -> None:
    """The same names behind `backbone.`, and a vocabulary that their code fills up."""
    model = loaded(
        folder(tmp_path, prefix="backbone.", model_type="stripedhyena", vocab_size=51, make_vocab_size_divisible_by=53)
    )
    assert worst(model(RELEASED.ids).logits, RELEASED.logits) < TOLERANCE


@torch.no_grad()
def test_a_file_with_a_configuration(tmp_path: Path) -> None:
    torch.save(RELEASED.weights, tmp_path / "stripedhyena.pt")
    model = loaded(tmp_path / "stripedhyena.pt", CONFIGS["stripedhyena"])
    assert worst(model(RELEASED.ids).logits, RELEASED.logits) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize(
    "changed", [{"column_split_hyena": False}, {"eps": 0.1}, {"rotary_emb_base": 100.0}], ids=["split", "eps", "rotary"]
)
def test_what_the_fields_say_is_heard(tmp_path: Path, changed: dict[str, Any]) -> None:
    """A field that the weights do not show changes the logits."""
    model = loaded(folder(tmp_path, **changed))
    assert worst(model(RELEASED.ids).logits, RELEASED.logits) > 1e-3


@torch.no_grad()
def test_biases_of_attention(tmp_path: Path) -> None:
    """Rows of the packed bias go to queries, keys and values as those of the matrix do."""
    golden = Golden("stripedhyena")
    holder = "blocks.1.inner_mha_cls."
    bias = torch.arange(64.0)
    golden.weights |= {f"{holder}Wqkv.bias": bias, f"{holder}out_proj.bias": torch.full((32,), 7.0)}
    model = load_checkpoint(folder(tmp_path, golden, qkv_proj_bias=True, mha_out_proj_bias=True))
    attention = model.layers[1].mixer
    assert isinstance(attention, GroupedAttention)
    assert torch.equal(torch.cat([part.bias for part in (attention.query, attention.key, attention.value)]), bias)
    assert [len(part.bias) for part in (attention.query, attention.key, attention.value)] == [32, 16, 16]
    assert attention.output.bias.unique().tolist() == [7.0]


def test_the_released_fields(tmp_path: Path) -> None:
    """Those of the 7B: a hyena layer beyond the last, many that only say how it is run."""
    released = {
        "attn_layer_idxs": [1],
        "hyena_layer_idxs": [0, 2, 4],
        "use_flash_attn": True,
        "prefill_style": "fft",
        "rotary_emb_base": 500000,
        "max_seqlen": 32768,
    }
    config = load_checkpoint(folder(tmp_path, **released)).config
    assert config.attention_layers == (1,)
    assert config.rotary == Rotary(500_000)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hyena_filter_groups", 4, "hyena_filter_groups 4; only 1"),
        ("num_filters", 16, "num_filters 16; only 32"),
        ("final_norm", False, "final_norm False; only True"),
        ("column_split", True, "column_split True; only False"),
        ("proj_groups", 3, "proj_groups 3, which does not divide num_attention_heads 4"),
        ("proj_groups", 4, r"Wqkv\.weight \(keys\) has shape \(16, 32\), the sizes of this model ask for \(8, 32\)"),
        ("attn_layer_idxs", [1, 2], "do not share out layer 2"),
        ("hyena_layer_idxs", [0], "do not share out layer 2"),
        ("hyena_layer_idxs", "even", "hyena_layer_idxs 'even', expected layers"),
        ("attn_layer_idxs", [True], r"attn_layer_idxs \[True\], expected layers"),
        ("mha_out_proj_bias", True, "mha_out_proj_bias True; only False"),
        ("state_size", 3, "poles has shape .* ask for"),
        ("short_filter_length", "absent", "lacks 'short_filter_length'"),
        ("tie_embeddings", "absent", "lacks 'tie_embeddings'"),
        ("tie_embeddings", True, "the head is tied, but .*unembed"),
        ("eps", "absent", "lacks 'eps'"),
        ("num_attention_heads", "absent", "lacks 'num_attention_heads'"),
    ],
)
def test_fields_that_are_missing_or_wrong(tmp_path: Path, field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder(tmp_path, **{field: value}))


def test_missing_and_damaged_tensors(tmp_path: Path) -> None:
    golden = Golden("stripedhyena")
    packed = golden.weights.pop("blocks.1.inner_mha_cls.Wqkv.weight")
    with pytest.raises(ValueError, match=r"missing tensor blocks\.1\.inner_mha_cls\.Wqkv\.weight \(queries\)"):
        load_checkpoint(folder(tmp_path, golden))
    golden.weights["blocks.1.inner_mha_cls.Wqkv.weight"] = packed[:63]
    with pytest.raises(ValueError, match=r"Wqkv\.weight \(keys\) has shape \(15, 32\)"):
        load_checkpoint(folder(tmp_path, golden))


@torch.no_grad()
def test_poles_stay_whole_in_a_bfloat16_model(tmp_path: Path) -> None:
    """Loaded in bfloat16, a wave is still computed in complex64."""
    model = load_checkpoint(folder(tmp_path), dtype=torch.bfloat16)
    mixer = model.layers[0].mixer
    assert isinstance(mixer, StripedHyenaMixer)
    set_backend(model, "naive")
    output = model(RELEASED.ids)
    assert output.state.layers[0].mixer.waves.dtype == torch.complex64
    assert worst(output.logits.float(), RELEASED.logits) < 0.1
