"""The parts of a model: what each computes, by its docstring, and what it keeps, by that of its state."""

from collections.abc import Callable, Iterable, Iterator
from inspect import cleandoc
from textwrap import indent
from typing import Any, NamedTuple

import torch
from torch import nn

from hybridlab.course.docstrings import chapters, literal, paragraphs, sources
from hybridlab.course.model_wiring import halves
from hybridlab.layers import Layer
from hybridlab.models import LanguageModel
from hybridlab.state import Empty


class Part(NamedTuple):
    """A class that a model is made of, and the class of what one of them keeps."""

    kind: type
    keeps: type


def model_parts(makers: Iterable[Callable[[], LanguageModel]]) -> list[Part]:
    """The parts of an architecture, each once.

    Args:
        makers: build small models of it.
    """
    found: dict[type, Part] = {}
    for model in (make() for make in makers):
        for module in _modules(model):
            found.setdefault(type(module), Part(type(module), type(_state(model, module))))
    return list(found.values())


def parts_section(parts: Iterable[Part]) -> str:
    """A Markdown list: what each part computes and keeps."""
    return "\n\n".join("\n\n".join(_item(part)) for part in parts)


def parts_sources(parts: Iterable[Part]) -> Iterator[str]:
    """Where each part is from."""
    return (f"{part.kind.__name__}: {source}" for part in parts for source in sources(part.kind))


def _modules(model: LanguageModel) -> Iterator[nn.Module]:
    """The blocks, what in them reads the stream, and the layers inside of that; then the model's own."""
    for layer in model.layers:
        yield layer
        for half in halves(layer).values():
            yield half
            inner = [part for part in half.children() if isinstance(part, Layer)]
            yield from inner if len(inner) > 1 else ()
    yield from (part for part in model.children() if hasattr(part, "cache_after"))


def _state(model: LanguageModel, module: nn.Module) -> Any:
    if module in set(model.layers):
        return Empty()  # what a block keeps is what its parts keep
    if isinstance(module, Layer):
        return module.init_state(1, 1, dtype=torch.float32, device="meta")
    return model.init_state(1, 1, device="meta").shared


def _item(part: Part) -> Iterator[str]:
    chapter = chapters(part.kind)
    first, *rest = paragraphs(part.kind.__doc__)
    yield f"- **{part.kind.__name__}**{f' ({chapter})' if chapter else ''}: {indent(first, '  ').strip()}"
    yield from (indent(paragraph, "  ") for paragraph in [*rest, *_inherited(part.kind)])
    if part.keeps is not Empty:
        said = literal(cleandoc(part.keeps.__doc__ or "")).replace("\n\n", "\n")
        yield indent(f"Keeps `{part.keeps.__name__}`: {said[:1].lower()}{said[1:]}", "  ")


def _inherited(kind: type) -> Iterator[str]:
    """The equation of the layer that this one is a variant of."""
    base = kind.__bases__[0]
    said = paragraphs(base.__doc__)[:1] if base is not Layer and issubclass(base, Layer) else []
    yield from (f"A variant of `{base.__name__}`: {first}" for first in said if "y = " in first)
