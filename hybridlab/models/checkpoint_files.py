"""Reading checkpoint files: folders with config.json and safetensors, and single files. Every failure is a ValueError."""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from hybridlab.models.checkpoint_layout import Checkpoint

# The weights of a folder, whole or in shards that an index names, and the configuration they come with. What comes first is
# taken; the last are Mistral's names.
WEIGHTS = {
    "model.safetensors": "config.json",
    "pytorch_model.bin": "config.json",
    "consolidated.safetensors": "params.json",
}
INDEX = ".index.json"


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors and configuration at a path.

    Raises:
        ValueError: if something is missing, cut short or of another kind; it names the file.
    """
    if not path.exists():
        raise ValueError(f"load_checkpoint: no such file or folder: {path}")
    return _read_folder(path) if path.is_dir() else Checkpoint(str(path), _read_file(path), {})


def _read_folder(folder: Path) -> Checkpoint:
    for name, config in WEIGHTS.items():
        whole, index = folder / name, folder / f"{name}{INDEX}"
        if whole.exists() or index.exists():
            fields = read_json(folder / config) if (folder / config).exists() else {}
            tensors = _read_file(whole) if whole.exists() else _read_shards(folder, index.name)
            return Checkpoint(str(folder), tensors, fields)
    found = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
    expected = " or ".join((*WEIGHTS, *(f"{name}{INDEX}" for name in WEIGHTS)))
    raise ValueError(f"load_checkpoint: {folder} must hold {expected}; it holds {found}")


def _read_shards(folder: Path, index: str) -> dict[str, Tensor]:
    shards = read_json(folder / index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ValueError(f"load_checkpoint: {folder / index} lacks the table 'weight_map' of file names")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(shards.values())):
        if not (folder / shard).exists():
            raise ValueError(f"load_checkpoint: {index} names {shard!r}, which is missing in {folder}")
        tensors |= _read_file(folder / shard)
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    read = load_file if path.suffix == ".safetensors" else _read_pickle
    content = _attempt(read, path)
    if not isinstance(content, Mapping):
        raise ValueError(f"load_checkpoint: {path} must hold a dict of tensors, got {type(content).__name__}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"load_checkpoint: {name!r} must be a tensor, got {type(tensor).__name__}: {path}")
    return dict(content)


def _read_pickle(path: Path) -> Any:
    # Mapped, not read: a converted copy is all that has to fit in memory. The format before 2020 cannot be mapped.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def read_json(path: Path) -> dict[str, Any]:
    """The table that a JSON file holds.

    Raises:
        ValueError: if it cannot be read or holds something else; it names the file.
    """
    fields = _attempt(lambda file: json.loads(file.read_text(encoding="utf-8")), path)
    if not isinstance(fields, dict):
        raise ValueError(f"load_checkpoint: {path} must hold a table, got {type(fields).__name__}")
    return fields


def _attempt(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
    except Exception as error:  # a damaged file makes the readers below raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"load_checkpoint: cannot read {path}: truncated or of another kind ({reason})") from error
