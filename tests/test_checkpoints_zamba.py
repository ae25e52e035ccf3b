"""Zamba and Zamba2 folders that transformers writes: one shared block or two, what calls have of their own, both styles."""

from pathlib import Path
from typing import Any

import pytest
import torch
from alike import edited
from safetensors.torch import load_file, save_file
from test_checkpoints_transformers import VOCABULARY, agree

from hybridlab.layers import Rotary
from hybridlab.models import Zamba, Zamba2, Zamba2Config, ZambaConfig, load_checkpoint, set_backend

transformers = pytest.importorskip("transformers")

KINDS = ["linear_attention", "hybrid", "linear_attention", "hybrid", "hybrid", "linear_attention"]
CALLS = (1, 3, 4)
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "mamba_d_state": 5,
    "layers_block_type": KINDS,
}
SIZES = {
    "Zamba": {**COMMON, "num_key_value_heads": 4},
    # Chunks of 8 are cut and padded at 37 tokens; what is computed in one chunk would hide how states are carried.
    "Zamba2": {**COMMON, "n_mamba_heads": 6, "mamba_ngroups": 2, "adapter_rank": 3, "chunk_size": 8},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "two heads": ("Zamba", {}),
    "three heads, grouped keys": ("Zamba", {"n_mamba_heads": 3, "num_key_value_heads": 2}),
    "untied, biases": ("Zamba", {"tie_word_embeddings": False, "mamba_proj_bias": True, "mamba_conv_bias": False}),
    "own widths": ("Zamba", {"attention_head_dim": 10, "mamba_dt_rank": 5, "mamba_expand": 3, "mamba_d_conv": 2}),
    "one block": ("Zamba2", {"rms_norm_eps": 0.05}),
    "two blocks": ("Zamba2", {"num_mem_blocks": 2, "mamba_ngroups": 1, "mamba_expand": 1, "n_mamba_heads": 3}),
    "a block a call": ("Zamba2", {"num_mem_blocks": 3}),
    "two blocks, untied": ("Zamba2", {"num_mem_blocks": 2, "tie_word_embeddings": False}),
    "positions": ("Zamba2", {"use_mem_rope": True, "rope_parameters": {"rope_type": "default", "rope_theta": 30.0}}),
    "attention adapted": ("Zamba2", {"num_mem_blocks": 2, "use_shared_attention_adapter": True}),
    "biases": ("Zamba2", {"num_mem_blocks": 2, "add_bias_linear": True}),
    "no step too short": ("Zamba2", {"time_step_min": 0.5}),
}


def folder_of(folder: Path, family: str, **options: Any) -> tuple[Any, Path]:
    """Weights of a small gain: with a large one these models blow rounding up a thousand times."""
    config = getattr(transformers, f"{family}Config")(**{**SIZES[family], **options})
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        gain = 0.2 if parameter.ndim == 1 else 0.6 * parameter.shape[-1] ** -0.5
        parameter.data.add_(gain * torch.randn(parameter.shape, generator=generator))
    share(model)
    model.eval().save_pretrained(folder)
    return model, folder


def share(model: Any) -> None:
    """Untied, transformers 5 gives each call a block of its own: here they start out alike, and the file holds all."""
    layers = [layer for layer in model.model.layers if hasattr(layer, "linear")]
    blocks = [getattr(layer, "shared_transf", None) or layer.shared_transformer for layer in layers]
    for number, block in enumerate(blocks):
        block.load_state_dict(blocks[number % getattr(model.config, "num_mem_blocks", 1)].state_dict())


def loaded(folder: Path) -> Zamba | Zamba2:
    """On the literal equations."""
    model = load_checkpoint(folder)
    set_backend(model, "naive")
    assert isinstance(model, Zamba | Zamba2)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_folder(tmp_path: Path, variant: str) -> None:
    family, options = VARIANTS[variant]
    reference, folder = folder_of(tmp_path, family, **options)
    model = loaded(folder)
    assert type(model).__name__ == family
    assert (model.head.weight is model.embedding.weight) == options.get("tie_word_embeddings", True)
    agree(model, reference)


@pytest.mark.parametrize("family", SIZES)
def test_sharded(tmp_path: Path, family: str) -> None:
    reference, whole = folder_of(tmp_path / "whole", family)
    reference.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    one, other = load_checkpoint(whole), load_checkpoint(tmp_path / "shards")
    assert one.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_where_the_files_keep_what_a_call_has_of_its_own(tmp_path: Path) -> None:
    """With two blocks the third call is the first block's again: its adapter lies in layer 1, and it is layer 4's here."""
    _, folder = folder_of(tmp_path, "Zamba2", num_mem_blocks=2)
    file, model = load_file(folder / "model.safetensors"), load_checkpoint(folder).state_dict()
    for call, (owner, layer) in enumerate([(1, 1), (3, 3), (1, 4)]):
        adapter = f"model.layers.{owner}.shared_transformer.feed_forward.gate_up_proj_adapter_list.{call}"
        for number, part in enumerate(("down", "up")):
            assert torch.equal(file[f"{adapter}.{number}.weight"].T, model[f"layers.{layer}.adapters.mlp.{part}"])
    for block, layer in enumerate((1, 3)):
        attention = f"model.layers.{layer}.shared_transformer.self_attn"
        assert torch.equal(file[f"{attention}.q_proj.weight"], model[f"shared_blocks.{block}.attention.query.weight"])
    assert not any("model.layers.4.shared_transformer" in name for name in file)


def test_sizes_read_from_a_folder(tmp_path: Path) -> None:
    options = {"mamba_d_conv": 3, "rms_norm_eps": 0.25, "mamba_dt_rank": 7, "mamba_conv_bias": False}
    _, folder = folder_of(tmp_path, "Zamba", **options, mamba_proj_bias=True, tie_word_embeddings=False)
    sizes = {"calls": CALLS, "heads": 4, "ffn_width": 40, "state_size": 5}
    assert load_checkpoint(folder).config == ZambaConfig(
        VOCABULARY, 24, 6, **sizes, filter_width=3, bias=True, norm_eps=0.25, tied=False, rank=7, conv_bias=False
    )


def test_sizes_read_from_a_folder_of_zamba2(tmp_path: Path) -> None:
    options = {"use_shared_attention_adapter": True, "use_mem_rope": True, "add_bias_linear": True, "time_step_min": 0.01}
    _, folder = folder_of(tmp_path, "Zamba2", **options, num_mem_blocks=2)
    sizes = {"calls": CALLS, "blocks": 2, "heads": 4, "ffn_width": 40, "state_size": 5, "mixer_heads": 6, "mixer_groups": 2}
    assert load_checkpoint(folder).config == Zamba2Config(
        VOCABULARY,
        24,
        6,
        **sizes,
        bias=True,
        adapter_rank=3,
        attention_adapters=True,
        rotary=Rotary(),
        step_limits=(0.01, float("inf")),
    )


def test_fields_of_the_hub(tmp_path: Path) -> None:
    """The hub calls layers without attention "mamba", and writes rope_theta beside the other fields."""
    rotation = {"rope_type": "default", "rope_theta": 30.0}
    reference, folder = folder_of(tmp_path, "Zamba2", use_mem_rope=True, rope_parameters=rotation)
    new = load_checkpoint(folder).config
    kinds = [kind.replace("linear_attention", "mamba") for kind in KINDS]
    edited(folder, layers_block_type=kinds, hybrid_layer_ids=list(CALLS), rope_parameters=None, rope_theta=30.0)
    model = loaded(folder)
    assert model.config == new
    agree(model, reference)


def test_absent_fields_mean_what_transformers_means(tmp_path: Path) -> None:
    """Without a list of layers Zamba calls its block in the third layer and in one of six after it: in layers 2 and 7."""
    reference, folder = folder_of(tmp_path, "Zamba", num_hidden_layers=8, layers_block_type=None, mamba_d_state=16)
    optional = ("layers_block_type", "attn_layer_period", "attn_layer_offset", "mamba_d_state", "mamba_d_conv", "hidden_act")
    optional += ("mamba_expand", "mamba_dt_rank", "mamba_conv_bias", "mamba_proj_bias", "tie_word_embeddings")
    optional += ("attention_hidden_size", "attention_head_dim", "num_key_value_heads", "hidden_mamba_act")
    model = loaded(edited(folder, **dict.fromkeys(optional)))
    assert model.config.calls == (2, 7)
    agree(model, reference)


def test_absent_fields_of_zamba2(tmp_path: Path) -> None:
    sizes = {"mamba_d_state": 64, "mamba_ngroups": 1, "adapter_rank": 128, "intermediate_size": None}
    reference, folder = folder_of(tmp_path, "Zamba2", **sizes)
    optional = (*sizes, "num_mem_blocks", "use_mem_rope", "use_shared_attention_adapter", "add_bias_linear", "hidden_act")
    optional += ("time_step_min", "mamba_d_conv", "mamba_expand", "num_key_value_heads", "tie_word_embeddings")
    optional += ("use_long_context", "rope_parameters", "attention_head_dim")
    agree(loaded(edited(folder, **dict.fromkeys(optional))), reference)


@pytest.mark.parametrize("family", SIZES)
def test_copies_of_a_shared_block_must_be_alike(tmp_path: Path, family: str) -> None:
    """What was untied and then trained is no shared block any more. Saved tied, it stands in the file once."""
    reference, folder = folder_of(tmp_path, family, tie_word_embeddings=False)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layers.4.shared_transf" in name and name.endswith("q_proj.weight"))
    save_file({**tensors, name: tensors[name] + 1}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"layers\.4\..*q_proj\.weight differs from model\.layers\.1\..*q_proj\.weight"):
        load_checkpoint(folder)
    once = {name: tensor for name, tensor in tensors.items() if ".shared_transf" not in name or "layers.1." in name}
    assert len(once) < len(tensors)
    save_file(once, folder / "model.safetensors")
    agree(loaded(folder), reference)


@pytest.mark.parametrize("family", SIZES)
def test_a_given_config_wins(tmp_path: Path, family: str) -> None:
    _, folder = folder_of(tmp_path, family)
    given = load_checkpoint(folder).config
    (folder / "config.json").unlink()
    assert load_checkpoint(folder, given).config == given
    other = ZambaConfig if family == "Zamba2" else Zamba2Config
    with pytest.raises(ValueError, match="none of transformers zamba"):
        load_checkpoint(folder, other(VOCABULARY, 24, 6, calls=CALLS))


REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps", "n_mamba_heads")
WRONG: list[tuple[str, dict[str, Any], str]] = [
    *((family, {field: None}, f"config.json lacks '{field}'") for family in SIZES for field in REQUIRED),
    ("Zamba2", {"layers_block_type": None}, "config.json lacks 'layers_block_type'"),
    ("Zamba", {"layers_block_type": KINDS[:5]}, "layers_block_type .* expected 6 of linear_attention, mamba, hybrid"),
    ("Zamba2", {"layers_block_type": [*KINDS[:5], "attention"]}, "layers_block_type .*'attention'.* expected 6 of"),
    ("Zamba2", {"layers_block_type": ["mamba"] * 6}, "blocks is 1; expected at most one for each of 0 calls"),
    ("Zamba", {"layers_block_type": ["mamba", *KINDS[:5]]}, r"missing tensor model\.layers\.1\.input_layernorm"),
    ("Zamba", {"attention_hidden_size": 24}, "attention_hidden_size 24; only 48 is known"),
    ("Zamba", {"hidden_act": "silu"}, "hidden_act 'silu'; only 'gelu' is known"),
    ("Zamba", {"hidden_mamba_act": "gelu"}, "hidden_mamba_act 'gelu'; only 'silu' is known"),
    ("Zamba", {"n_mamba_heads": 5}, "mixer_heads is 5; expected a divisor of inner = 48"),
    ("Zamba", {"n_mamba_heads": 3}, r"A_log has shape \(2, 24, 5\), .* ask for \(3, 16, 5\)"),
    ("Zamba", {"mamba_proj_bias": True}, r"missing tensor .*in_proj\.bias"),
    ("Zamba2", {"num_key_value_heads": 3}, "groups is 3; expected a divisor of heads = 4"),
    ("Zamba2", {"mamba_ngroups": 4}, "mixer_groups is 4; expected a divisor of 6 heads"),
    ("Zamba2", {"time_step_min": -1}, r"step_limits is \(-1, inf\)"),
    ("Zamba2", {"use_long_context": True}, "use_long_context True; only False is known"),
    ("Zamba2", {"use_mem_rope": True, "rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
    ("Zamba2", {"num_mem_blocks": 2}, r"missing tensor .*model\.layers\.3\.shared_transformer"),
    ("Zamba2", {"use_shared_attention_adapter": True}, r"missing tensor .*linear_q_adapter_list\.0\.0\.weight"),
    ("Zamba2", {"add_bias_linear": True}, r"missing tensor .*in_proj\.bias"),
    ("Zamba2", {"adapter_rank": 4}, r"adapter_list\.0\.0\.weight, .* has shape \(24, 3\), .* ask for \(24, 4\)"),
    ("Zamba2", {"intermediate_size": 39}, r"down_proj\.weight has shape \(24, 40\), .* ask for \(24, 39\)"),
]


def test_nonsense(tmp_path: Path) -> None:
    for family in SIZES:
        folder_of(tmp_path / family, family)
    untouched = {family: (tmp_path / family / "config.json").read_text() for family in SIZES}
    for family, fields, message in WRONG:
        (tmp_path / family / "config.json").write_text(untouched[family])
        with pytest.raises(ValueError, match=message):
            load_checkpoint(edited(tmp_path / family, **fields))
