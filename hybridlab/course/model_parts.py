"""The parts of a model in a list: what each computes, by its docstring, and what it keeps, by that of its state."""

from collections.abc import Callable, Iterable, Iterator
from inspect import cleandoc
from textwrap import indent
from typing import Any

import torch
from torch import nn

from hybridlab.course.docstrings import chapters, literal, paragraphs
from hybridlab.course.model_wiring import halves
from hybridlab.layers import Layer
from hybridlab.models import LanguageModel
from hybridlab.state import Empty


def parts(makers: Iterable[Callable[[], LanguageModel]]) -> Iterator[str]:
    """Lines of a Markdown list, an item a class in the order of the models.

    Args:
        makers: build small models of one architecture.
    """
    seen: set[type] = set()
    for make in makers:
        model = make()
        for module in _modules(model):
            if type(module) not in seen:
                seen.add(type(module))
                yield from _item(module, _state(model, module))


def _modules(model: LanguageModel) -> Iterator[nn.Module]:
    """What reads the stream, and the layers inside of it; then the model's own."""
    for layer in model.layers:
        for half in halves(layer).values():
            yield half
            inner = [part for part in half.children() if isinstance(part, Layer)]
            yield from inner if len(inner) > 1 else ()
    yield from (part for part in model.children() if hasattr(part, "cache_after"))


def _state(model: LanguageModel, module: nn.Module) -> Any:
    if isinstance(module, Layer):
        return module.init_state(1, 1, dtype=torch.float32, device="meta")
    return model.init_state(1, 1, device="meta").shared


def _item(module: nn.Module, state: Any) -> Iterator[str]:
    kind, chapter = type(module), chapters(type(module))
    first, *rest = paragraphs(kind.__doc__)
    yield f"- **{kind.__name__}**{f' ({chapter})' if chapter else ''}: {indent(first, '  ').strip()}"
    for paragraph in rest:
        yield ""
        yield indent(paragraph, "  ")
    if not isinstance(state, Empty):
        yield ""
        said = literal(cleandoc(type(state).__doc__ or "")).replace("\n\n", "\n")
        yield indent(f"Keeps `{type(state).__name__}`: {said[:1].lower()}{said[1:]}", "  ")
    yield ""
