"""What crosses between the layers of a model, watched while it reads a few tokens.

Each layer is handed a `Shared` that notes who writes a field and who reads it: a diagram drawn from these notes tells of no
wire that is not there, and leaves none out.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from torch import Tensor, nn

from hybridlab.layers import Shared
from hybridlab.layers.layer import Rebuilt
from hybridlab.models import LanguageModel
from hybridlab.state import Empty

SKELETON = ("embedding", "embedding_norm", "layers", "norm", "head")
# Every layer may ask for these, and they are no product of another layer.
EVERYWHERE = ("position", "input_ids", "carried")
WATCHED = tuple(field.name for field in fields(Shared) if field.name not in EVERYWHERE)


class Place(NamedTuple):
    """Where something happens: in a layer, or behind it, where the model itself acts. Behind layer -1 is the embedding."""

    layer: int
    behind: bool


EMBEDDING = Place(-1, True)


class Station(NamedTuple):
    """A module of the model itself that reads the stream behind a layer and adds nothing to it.

    Attributes:
        layer: number of that layer.
        kind: its class.
        keeps: classes of the states that it returns.
    """

    layer: int
    kind: str
    keeps: tuple[str, ...]


class Crossing(NamedTuple):
    """A value that is read elsewhere than it was made.

    Attributes:
        what: the field of `Shared`.
        source: where it was made.
        readers: where it is read.
    """

    what: str
    source: Place
    readers: tuple[Place, ...]


class Watch:
    """What the layers of a model, and the model between them, read and write of `Shared` from now on.

    Args:
        model: gets hooks that stay; it is of no other use afterwards.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.place = EMBEDDING
        self.stations: list[Station] = []
        self.sources: dict[str, Place] = {"embeddings": EMBEDDING}
        self.reads: dict[tuple[str, Place], list[Place]] = {}
        for number, layer in enumerate(model.layers):
            layer.register_forward_pre_hook(self._entering(number))
        model.after_layer = self._leaving(model.after_layer)  # type: ignore[method-assign, assignment]
        for name, module in model.named_children():
            if name not in SKELETON:
                module.register_forward_hook(self._called)

    def crossings(self) -> Iterator[Crossing]:
        """What is read elsewhere than it was made."""
        return (Crossing(what, source, tuple(readers)) for (what, source), readers in self.reads.items())

    def wrote(self, what: str) -> None:
        """A field has got a value here."""
        self.sources[what] = self.place

    def read(self, what: str) -> None:
        """A field is asked for here."""
        readers = self.reads.setdefault((what, self.sources[what]), [])
        if self.place not in readers:
            readers.append(self.place)

    def _entering(self, number: int) -> Callable[[nn.Module, tuple], tuple]:
        def hook(layer: nn.Module, given: tuple) -> tuple:
            x, state, shared = given
            self.place = Place(number, False)
            return x, state, Watched(shared, self)

        return hook

    def _leaving(self, act: Callable[[int, Tensor, Shared], None]) -> Callable[[int, Tensor, Shared], None]:
        def watched(number: int, x: Tensor, shared: Shared) -> None:
            self.place = Place(number, True)
            act(number, x, Watched(shared, self))

        return watched

    def _called(self, module: nn.Module, given: tuple, output: Any) -> None:
        kept = [kind for kind in state_kinds(output) if kind != Rebuilt.__name__]
        self.stations.append(Station(self.place.layer, type(module).__name__, tuple(kept)))


class Watched(Shared):
    """A `Shared` that tells a `Watch` what is asked of it, and hands everything on to the real one."""

    def __init__(self, real: Shared, watch: Watch) -> None:
        vars(self).update(_real=real, _watch=watch)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        if name in WATCHED:
            vars(self)["_watch"].read(name)
        return getattr(vars(self)["_real"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in WATCHED:
            vars(self)["_watch"].wrote(name)
        setattr(vars(self)["_real"], name, value)


def state_kinds(state: Any) -> Iterator[str]:
    """Classes of the states in a state, its innermost NamedTuples; one that is empty is not named."""
    inner = [part for part in state if hasattr(part, "_fields")]
    for part in inner:
        yield from state_kinds(part)
    if not inner and not isinstance(state, Empty):
        yield type(state).__name__
