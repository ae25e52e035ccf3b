"""Recording a run: what layers hand to their ops, without changing what they compute."""

import contextlib

import pytest
import torch
from shaken import RECURRENT, shaken, text

from hybridlab import ops
from hybridlab.layers import set_backend
from hybridlab.measure.recording import record, recording
from hybridlab.models import LETTERS
from hybridlab.state import state_tensors

# What the letters of a hybrid run on, attention (A) and window attention (W) left out.
OPS = {"P": "wkv4", "E": "wkv6", "R": "wkv6", "V": "wkv7", "M": "selective_scan", "S": "ssd", "G": "rg_lru"}
OPS |= {"T": "retention", "H": "long_conv", "B": "taylor_attention", "D": "delta_rule"}


@pytest.mark.parametrize("backend", ["naive", "numba"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_calls_are_what_the_op_computed(kind: str, backend: str) -> None:
    model = shaken(kind)
    set_backend(model, backend)
    calls = record(model, text(9, batch=2))
    final = model(text(9, batch=2)).state
    assert [(call.layer, call.op) for call in calls] == [(f"layers.{n}.mixer", RECURRENT[kind]) for n in range(2)]
    for call, state in zip(calls, final.layers, strict=True):
        assert call.inputs["backend"] == backend
        output, after = getattr(ops, call.op)(**call.inputs)
        torch.testing.assert_close(call.output, output, rtol=0, atol=0)
        torch.testing.assert_close(call.state, after, rtol=0, atol=0)
        # Another run of the model: PyTorch's matrix products may differ in the last bit once Numba has been loaded.
        kept = [tensor for tensor in state_tensors(state) if tensor.shape == call.state.shape]
        assert min((call.state - tensor).abs().max() for tensor in kept) < 1e-13
        assert not call.output.requires_grad


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_recorded_model_computes_what_it_always_does(kind: str) -> None:
    model = shaken(kind)
    expected = model(text(9)).logits
    with recording(model) as calls:
        first = model(text(9)[:, :4])
        rest = model(text(9)[:, 4:], first.state)
    torch.testing.assert_close(torch.cat((first.logits, rest.logits), 1), expected)
    assert [call.output.shape[1] for call in calls] == [4, 4, 5, 5]
    torch.testing.assert_close(calls[2].inputs["state"], calls[0].state)


def test_afterwards_the_model_is_as_it_was() -> None:
    model = shaken("RWKV6")
    with recording(model) as outer:
        with contextlib.suppress(KeyError), recording(model) as inner:
            model(text(3))
            raise KeyError
        model(text(3))
    model(text(3))
    assert (len(outer), len(inner)) == (4, 2)
    assert not any("op" in vars(module) for module in model.modules())


def test_layers_without_a_recurrence_are_passed_over() -> None:
    model = shaken("HybridLM of every letter")
    expected = [(f"layers.{i}.mixer", OPS[letter]) for i, letter in enumerate(LETTERS) if letter not in "AW"]
    assert [(call.layer, call.op) for call in record(model, text(7))] == expected
    assert record(shaken("Decoder"), text(7)) == []
