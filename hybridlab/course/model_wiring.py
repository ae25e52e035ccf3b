"""How a model is wired, read off the model itself: its modules in order, the states that they make, and what crosses."""

from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from hybridlab.course.model_crossings import Crossing, Station, Watch, state_kinds
from hybridlab.layers import Layer, set_backend
from hybridlab.models import LanguageModel
from hybridlab.state import state_nbytes

TOKENS = 3
# Far more than any window or filter of a small model: a state that still grows here grows for ever.
LONG, LONGER = 1000, 2000
NORMS = {"block": (), "mixer": ("mixer_norm", "norm"), "channel_mixer": ("channel_norm",)}


class Memory(Enum):
    """How what a layer keeps grows with the text."""

    NOTHING = "keeps nothing"
    BOUNDED = "of a size that has a limit"
    GROWS = "grows with every token"


class Branch(NamedTuple):
    """One module that reads the stream, and what it keeps.

    Attributes:
        layer: number of the layer it belongs to.
        kind: its class.
        beside: classes of the layers that stand side by side in it, if there are several.
        norm: class of the norm before it; empty where it has none of its own.
        added_norm: class of the norm behind it; empty is none.
        details: such as "window 5".
        keeps: classes of its states.
        memory: how they grow.
        block: letter of the shared block that it is; empty where it is the layer's own.
    """

    layer: int
    kind: str
    beside: tuple[str, ...]
    norm: str
    added_norm: str
    details: tuple[str, ...]
    keeps: tuple[str, ...]
    memory: Memory
    block: str


class Wiring(NamedTuple):
    """A model as a diagram shows it.

    Attributes:
        opening: classes of what makes the stream.
        extra_rows: rows that the model puts before the tokens.
        letters: one a layer, where layers differ.
        branches: what reads the stream and adds to it, or steers the next.
        stations: what reads it and does not.
        carried: how what the model itself keeps grows.
        crossings: what else goes from one to another.
        closing: classes of what reads the stream at its end.
        tied: whether the last of them has the embedding's weight.
    """

    opening: tuple[str, ...]
    extra_rows: int
    letters: str
    branches: tuple[Branch, ...]
    stations: tuple[Station, ...]
    carried: Memory
    crossings: tuple[Crossing, ...]
    closing: tuple[str, ...]
    tied: bool


def wiring(make: Callable[[], LanguageModel]) -> Wiring:
    """The wiring of a small model.

    Args:
        make: builds it; it is run over a few tokens.
    """
    model = make().eval()
    set_backend(model, "naive")
    watch = Watch(model)
    with torch.no_grad():
        model(torch.zeros(1, TOKENS, dtype=torch.int64))
    letters = model.config.letters
    return Wiring(
        opening=tuple(_kind(part) for part in (model.embedding, model.embedding_norm) if not isinstance(part, nn.Identity)),
        extra_rows=model.rows_after(1) - 1,
        letters=letters if len(letters) == len(model.layers) else "",
        branches=tuple(branch for number, _ in enumerate(model.layers) for branch in _branches(model, number)),
        stations=tuple(watch.stations),
        carried=_memory(lambda length: model.init_state(1, length, device="meta").shared),
        crossings=tuple(watch.crossings()),
        closing=(_kind(model.norm), _kind(model.head)),
        tied=model.tied,
    )


def halves(layer: nn.Module) -> dict[str, Layer]:
    """The modules of a layer that read the stream: a shared block that it calls, its mixer, its channel mixer."""
    found = {name: getattr(layer, name, None) for name in NORMS}
    return {name: module for name, module in found.items() if module is not None}


def _branches(model: LanguageModel, number: int) -> Iterator[Branch]:
    layer = model.layers[number]
    for name, module in halves(layer).items():
        norm = next((getattr(layer, norm) for norm in NORMS[name] if hasattr(layer, norm)), None)
        added = getattr(layer, f"{name.removesuffix('_mixer')}_added_norm", None)
        beside = [part for part in module.children() if isinstance(part, Layer)]
        state_after = partial(module.init_state, 1, dtype=torch.float32, device="meta")
        yield Branch(
            number,
            _kind(module),
            tuple(_kind(part) for part in beside) if len(beside) > 1 else (),
            _norm_kind(norm),
            _norm_kind(added),
            tuple(_details(layer, name, module)),
            tuple(state_kinds(state_after(LONG))),
            _memory(state_after),
            _letter(model, module) if name == "block" else "",
        )


def _kind(module: nn.Module) -> str:
    return type(module).__name__


def _norm_kind(norm: nn.Module | None) -> str:
    return "" if norm is None or isinstance(norm, nn.Identity) else _kind(norm)


def _details(layer: nn.Module, name: str, module: nn.Module) -> Iterator[str]:
    if name == "block" and getattr(layer, "adapters", None) is not None:
        yield "adapted to this call"
    for part in (module, *module.children()):
        window, routing = getattr(part, "window", None), getattr(part, "routing", None)
        if isinstance(window, int):
            yield f"window {window}"
        if routing is not None:
            yield f"{routing.active} of {routing.experts} experts"


def _memory(state_after: Callable[[int], Any]) -> Memory:
    kept, later = (state_nbytes(state_after(length)) for length in (LONG, LONGER))
    if later > kept:
        return Memory.GROWS
    return Memory.BOUNDED if kept else Memory.NOTHING


def _letter(model: LanguageModel, block: nn.Module) -> str:
    """A for the first of the model's shared blocks."""
    return chr(ord("A") + [id(one) for one in model.get_submodule("shared_blocks").children()].index(id(block)))
