"""What tests of models and checkpoints do to compare logits, and to folders that should not load."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybridlab.models import LanguageModel, set_backend


def worst(got: Tensor, expected: Tensor) -> float:
    """The largest difference beside the largest number."""
    return ((got - expected).abs().max() / expected.abs().max()).item()


def in_pieces(model: LanguageModel, ids: Tensor, cuts: list[int]) -> Tensor:
    """Logits of a text that is read a piece at a time, the state carried."""
    state, pieces = None, []
    for piece in ids.split(cuts, 1):
        logits, state = model(piece, state)
        pieces.append(logits)
    return torch.cat(pieces, 1)


def naive(model: LanguageModel) -> LanguageModel:
    """The model, on the literal equations."""
    set_backend(model, "naive")
    return model


def edited(folder: Path, name: str = "config.json", **fields: Any) -> Path:
    """Fields of a JSON file changed; those that become None are taken out."""
    content = {**json.loads((folder / name).read_text()), **fields}
    (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder
