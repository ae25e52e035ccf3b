"""The RWKV models against outputs of the authors' own code (tests/data/rwkv*.npz, float32 on a CPU)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from alike import worst

from hybridlab.models import RWKV4, RWKV5, RWKV6, RWKV7, LanguageModel, load_checkpoint, set_backend

DATA = Path(__file__).parent / "data"
TOLERANCE = 2e-5  # of the largest logit
CUTS = {"one token a call": [1] * 29, "odd chunks": [3, 7, 1, 13, 5], "all but one": [28, 1]}


class Golden(NamedTuple):
    model: LanguageModel
    input_ids: torch.Tensor
    logits: torch.Tensor
    greedy: torch.Tensor


@pytest.fixture(
    scope="module",
    params=[("rwkv4", RWKV4), ("rwkv5", RWKV5), ("rwkv6", RWKV6), ("rwkv7", RWKV7)],
    ids=lambda p: p[0],
)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    name, architecture = request.param
    with np.load(DATA / f"{name}.npz") as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays if key != "config_json"}
    path = tmp_path_factory.mktemp(name) / "released.pth"
    torch.save({key[6:]: value for key, value in tensors.items() if key.startswith("param:")}, path)
    model = load_checkpoint(path)
    assert type(model) is architecture
    assert not model.training
    set_backend(model, "naive")
    return Golden(model, tensors["input_ids"], tensors["logits"], tensors["greedy"])


@torch.no_grad()
def test_full_forward(golden: Golden) -> None:
    assert worst(golden.model(golden.input_ids).logits, golden.logits) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("cut", CUTS)
def test_any_cut_of_the_prefix(golden: Golden, cut: str) -> None:
    state, pieces = None, []
    for ids in golden.input_ids.split(CUTS[cut], 1):
        logits, state = golden.model(ids, state)
        pieces.append(logits)
    assert worst(torch.cat(pieces, 1), golden.logits) < TOLERANCE
    assert state is not None
    assert state.position.item() == golden.input_ids.shape[1]


def test_greedy_continuation(golden: Golden) -> None:
    continued = golden.model.generate(golden.input_ids, golden.greedy.shape[1])
    assert torch.equal(continued[:, : golden.input_ids.shape[1]], golden.input_ids)
    assert torch.equal(continued[:, golden.input_ids.shape[1] :], golden.greedy)
