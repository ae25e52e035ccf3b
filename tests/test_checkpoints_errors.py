"""What load_checkpoint says to damaged and foreign files: always a ValueError that names the file or the tensor."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hybridlab.models import DecoderConfig, RWKV5Config, load_checkpoint

DATA = Path(__file__).parent / "data"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(params=["rwkv4", "rwkv5", "rwkv6"])
def tensors(request: pytest.FixtureRequest) -> Tensors:
    return read(request.param)


@pytest.fixture
def rwkv6() -> Tensors:
    return read("rwkv6")


def read(name: str) -> Tensors:
    with np.load(DATA / f"{name}.npz") as arrays:
        return {key[6:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("param:")}


def refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)


def test_missing_tensor(tmp_path: Path, tensors: Tensors) -> None:
    for name in tensors:
        content = {key: value for key, value in tensors.items() if key != name}
        refused(tmp_path, content, f"missing tensor '?{name}")


def test_extra_tensor(tmp_path: Path, tensors: Tensors) -> None:
    refused(tmp_path, {**tensors, "blocks.1.att.surprise": torch.zeros(3)}, r"extra tensor blocks\.1\.att\.surprise")


def test_a_third_layer_of_one_tensor(tmp_path: Path, tensors: Tensors) -> None:
    refused(tmp_path, {**tensors, "blocks.2.ln1.weight": torch.ones(48)}, r"missing tensor blocks\.2\.")


def test_a_layer_with_none_before_it(tmp_path: Path, tensors: Tensors) -> None:
    stray = {**tensors, "blocks.900000000.ln1.weight": torch.ones(48)}
    refused(tmp_path, stray, r"blocks\.900000000\.ln1\.weight has no layers before it")


def test_wrong_shape(tmp_path: Path, tensors: Tensors) -> None:
    name = "blocks.1.att.value.weight"
    refused(tmp_path, {**tensors, name: torch.zeros(48, 47)}, rf"{name} has shape \(48, 47\).* ask for \(48, 48\)")


def test_transposed(tmp_path: Path, tensors: Tensors) -> None:
    name = "blocks.1.ffn.value.weight"
    refused(tmp_path, {**tensors, name: tensors[name].t()}, rf"{name} has shape \(112, 48\).* ask for \(48, 112\)")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_not_finite(tmp_path: Path, tensors: Tensors, bad: float) -> None:
    name = "blocks.1.ffn.key.weight"
    damaged = tensors[name].clone()
    damaged[3, 5] = bad
    refused(tmp_path, {**tensors, name: damaged}, f"{name} holds NaN or infinity")


def test_integers(tmp_path: Path, tensors: Tensors) -> None:
    refused(tmp_path, {**tensors, "ln_out.bias": torch.zeros(48, dtype=torch.int64)}, r"ln_out\.bias must be floating")


def test_version_5_0(tmp_path: Path) -> None:
    """One decay a head, as before 5.2."""
    content = {**read("rwkv5"), "blocks.0.att.time_decay": torch.zeros(3), "blocks.1.att.time_decay": torch.zeros(3)}
    refused(tmp_path, content, r"blocks\.0\.att\.time_decay has shape \(3,\)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold a dict of tensors, got list"),
        (torch.zeros(3), "must hold a dict of tensors, got Tensor"),
        ({"model": {"emb.weight": torch.zeros(3, 3)}}, "'model' must be a tensor, got dict"),
        ({7: torch.zeros(3)}, "7 must be a tensor"),
        ({}, "holds nothing"),
        ({"conv1.weight": torch.zeros(3, 3), "fc.bias": torch.zeros(3)}, r"holds conv1\.weight, fc\.bias"),
    ],
    ids=["list", "tensor", "nested", "numbered", "empty", "foreign"],
)
def test_not_a_model(tmp_path: Path, content: object, message: str) -> None:
    refused(tmp_path, content, message)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    refused(tmp_path, {"emb.weight": Path("x")}, "cannot read")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_truncated(tmp_path: Path, rwkv6: Tensors, kind: str, share: float) -> None:
    path = tmp_path / f"model.{kind}"
    if kind == "pth":
        torch.save(rwkv6, path)
    else:
        save_file(rwkv6, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"cannot read .*model\.{kind}: truncated or of another kind"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["notes.pth", "notes.safetensors"])
def test_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not a checkpoint\n" * 50)
    with pytest.raises(ValueError, match="cannot read"):
        load_checkpoint(tmp_path / name)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file or folder: .*nowhere"):
        load_checkpoint(tmp_path / "nowhere")


def test_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "rwkv"}')
    with pytest.raises(ValueError, match=r"must hold model\.safetensors .* it holds config\.json"):
        load_checkpoint(tmp_path)


def test_missing_shard(tmp_path: Path) -> None:
    index = {"weight_map": {"head.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"names 'model-00001-of-00002\.safetensors', which is missing"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("shard", [3, ["model.safetensors"], None])
def test_index_without_file_names(tmp_path: Path, shard: object) -> None:
    index = {"weight_map": {"emb.weight": "model.safetensors", "head.weight": shard}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="lacks the table 'weight_map' of file names"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": ["rwkv"]}, r"model_type \['rwkv'\]; known are"),
        ({"model_type": "rwkv", "hidden_size": {}}, r"hidden_size \{\}, expected a positive int"),
        ({"model_type": "llama", "hidden_size": "48"}, "hidden_size '48', expected a positive int"),
        ({"model_type": "llama", "num_attention_heads": 0}, "num_attention_heads 0, expected a positive int"),
        ({"model_type": "llama", "rope_parameters": [1]}, r"rope_parameters \[1\], expected a table"),
        ({"model_type": "mistral", "rope_scaling": "x"}, "rope_scaling 'x', expected a table"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_config_of_nonsense(tmp_path: Path, rwkv6: Tensors, fields: dict[str, object], message: str) -> None:
    sizes = {"vocab_size": 53, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
    save_file(rwkv6, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "intermediate_size": 64, "rms_norm_eps": 1e-5, **fields}))
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.int8])
def test_dtype_that_is_no_floating_dtype(tmp_path: Path, rwkv6: Tensors, dtype: Any) -> None:
    torch.save(rwkv6, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"dtype must be None or a floating torch\.dtype, got"):
        load_checkpoint(tmp_path / "model.pth", dtype=dtype)


def test_broken_config(tmp_path: Path, rwkv6: Tensors) -> None:
    save_file(rwkv6, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(ValueError, match=r"cannot read .*config\.json"):
        load_checkpoint(tmp_path)


def test_config_of_another_architecture(tmp_path: Path, rwkv6: Tensors) -> None:
    path = tmp_path / "model.pth"
    torch.save(rwkv6, path)
    with pytest.raises(ValueError, match=r"none of RWKV-5\.2|missing tensor"):
        load_checkpoint(path, RWKV5Config(53, 48, 2, head_width=16))
    with pytest.raises(ValueError, match="none of transformers llama"):
        load_checkpoint(path, DecoderConfig(53, 48, 2))


def test_authors_names_in_safetensors(tmp_path: Path, rwkv6: Tensors) -> None:
    save_file(rwkv6, tmp_path / "weights.safetensors")
    torch.save(rwkv6, tmp_path / "weights.pth")
    one, other = (load_checkpoint(tmp_path / f"weights.{kind}").state_dict() for kind in ("safetensors", "pth"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_file_of_the_old_format(tmp_path: Path, rwkv6: Tensors) -> None:
    torch.save(rwkv6, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(load_checkpoint(tmp_path / "old.pth").head.weight, rwkv6["head.weight"])
