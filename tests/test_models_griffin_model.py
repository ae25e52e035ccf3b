"""`GriffinModel`, called as people call it: what comes out is a Griffin or a Hawk."""

from typing import Any

import pytest
import torch

from hybridlab.models import Griffin, GriffinConfig, GriffinModel, Hawk, HawkConfig, set_backend
from hybridlab.state import state_nbytes


@torch.no_grad()
def test_the_call_that_people_arrive_with() -> None:
    model = GriffinModel(d_model=512, num_layers=12, num_heads=8, window_size=128, hawk_only=False)
    assert type(model) is Griffin
    assert model.config == GriffinConfig(256, 512, 12, blocks=8, heads=8, window=128)
    assert model.config.letters == "GGW" * 4
    assert GriffinModel().config == model.config
    set_backend(model, "naive")
    ids = torch.tensor([list(b"a text is bytes")])
    logits, state = model(ids)
    assert logits.shape == (1, 15, 256)
    assert state_nbytes(state) == state_nbytes(model.init_state(1, 15))


@torch.no_grad()
def test_a_query_sees_so_many_keys() -> None:
    """One layer of attention reads the token three back under a window of four, not under one of three."""
    for window, seen in ((3, False), (4, True)):
        model = GriffinModel(d_model=16, num_layers=3, num_heads=2, window_size=window)
        attention = model.layers[2].mixer.double()
        x = torch.randn(1, 4, 16, dtype=torch.float64, requires_grad=False)
        other = x.clone()
        other[:, 0] += 1
        last = [attention(stream)[0][0, -1] for stream in (x, other)]
        assert ((last[0] - last[1]).abs().max().item() > 1e-9) == seen


def test_hawk_only() -> None:
    model = GriffinModel(d_model=40, num_layers=2, num_heads=4, window_size=128, hawk_only=True, vocabulary=11)
    assert type(model) is Hawk
    assert model.config == HawkConfig(11, 40, 2, blocks=4)


def test_backend_reaches_the_layers() -> None:
    for hawk_only in (False, True):
        model = GriffinModel(16, 3, 2, 5, hawk_only, backend="naive")
        assert {block.mixer.backend for block in model.layers} == {"naive"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"d_model": 512.0}, r"GriffinModel: d_model must be a positive int, got 512\.0"),
        ({"num_layers": 0}, "GriffinModel: num_layers must be a positive int, got 0"),
        ({"num_heads": 7}, "GriffinModel: num_heads must be a divisor of d_model = 512, got 7"),
        ({"num_heads": 256}, "GriffinModel: num_heads must be one that leaves heads of a multiple of 4 channels"),
        ({"window_size": None}, "GriffinModel: window_size must be a positive int, got None"),
        ({"hawk_only": "no"}, "GriffinModel: hawk_only must be True or False, got 'no'"),
        ({"vocabulary": True}, "GriffinModel: vocabulary must be a positive int, got True"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GriffinModel(**arguments)
