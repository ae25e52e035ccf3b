"""What a model's layers hand to their ops, and what they get back: a real run, to be looked at afterwards."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hybridlab.layers import Layer
from hybridlab.shapes import TokenIds


class OpCall(NamedTuple):
    """One call of an op.

    Attributes:
        layer: the calling layer's name in the model, such as "layers.1.mixer".
        op: the op's name, such as "wkv6".
        inputs: what it was given, by the names of its arguments; the state before the first token among them.
        output: what it returned.
        state: after the last token.
    """

    layer: str
    op: str
    inputs: dict[str, Any]
    output: Tensor
    state: Any


@contextmanager
def recording(model: nn.Module) -> Iterator[list[OpCall]]:
    """Records the op calls of a model's layers, in the order of the calls, for as long as the block lasts.

    Args:
        model: a model, a block or a layer. It computes what it always does; afterwards it is as it was.

    Yields:
        a list that grows with every call.
    """
    calls: list[OpCall] = []
    with ExitStack() as ends:
        for name, layer in model.named_modules():
            if isinstance(layer, Layer) and hasattr(type(layer), "op"):
                ends.callback(_restore, layer, vars(layer).get("op"))
                layer.op = _listener(name, layer.op, calls)
        yield calls


def record(model: nn.Module, input_ids: TokenIds) -> list[OpCall]:
    """The op calls of one run over token ids (B, T), from the empty state, without gradients."""
    with recording(model) as calls, torch.no_grad():
        model(input_ids)
    return calls


def _restore(layer: Layer, outer: Callable[..., Any] | None) -> None:
    """Back to the class's op, or to the listener of a recording around this one."""
    del layer.op
    if outer is not None:
        layer.op = outer


def _listener(name: str, op: Callable[..., Any], calls: list[OpCall]) -> Callable[..., Any]:
    signature = inspect.signature(op)

    def listened(*arguments: Any, **choices: Any) -> Any:
        output, state = op(*arguments, **choices)
        inputs = signature.bind(*arguments, **choices).arguments
        calls.append(OpCall(name, op.__name__, dict(inputs), output, state))
        return output, state

    return listened
