"""`python -m hybridlab.course models`: a page in docs/models for every architecture, and an index of them.

A page says nothing of its own. What the model is comes from docstrings, its wiring from the model while it runs, sizes and
bytes from the presets, the card from `check_invariants`; only pitfalls and tricks are written by hand, in model_notes/.
"""

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch

from hybridlab.course.docstrings import chapters, linked, literal, paragraphs, sources
from hybridlab.course.model_diagram import diagram, in_words
from hybridlab.course.model_parts import Part, model_parts, parts_section, parts_sources
from hybridlab.course.model_wiring import wiring
from hybridlab.course.notebook import ROOT, write
from hybridlab.layers import MixtureOfExperts
from hybridlab.measure import check_invariants, invariants
from hybridlab.measure.tables import Table
from hybridlab.measure.tiny import TINY
from hybridlab.measure.units import readable
from hybridlab.models import LanguageModel
from hybridlab.models.presets import ARCHITECTURES
from hybridlab.state import state_nbytes

FOLDER = ROOT / "docs" / "models"
NOTES = Path(__file__).with_name("model_notes")
CONTEXTS = {"4K": 4096, "32K": 32_768, "256K": 262_144}
BY_HAND = ("Pitfalls", "Tricks")
CARD = "Judged anew by `hybridlab check --models`; [what each line promises](README.md#what-a-card-promises)."
NO_PRESETS = "No published model of this architecture is among the presets."
SIZES = (
    "The last three columns are what one sequence keeps after so many tokens, caches in bfloat16 and recurrent states in\n"
    "float32; weights are not in them. `hybridlab memory {name} --context 32768` has them to the byte, layer by layer."
)

Architecture = type[LanguageModel]
Measure = Callable[[Architecture], str]


def pages(sizes: Measure, cards: Measure) -> dict[Path, str]:
    """All files of docs/models and their text.

    Args:
        sizes: the section on published sizes, which takes seconds to measure.
        cards: the section with cards, which takes minutes.

    Raises:
        ValueError: an architecture without notes, or with notes of other sections.
    """
    files = {FOLDER / "README.md": _index()}
    for architecture in architectures():
        files[page_path(architecture)] = _page(architecture, sizes(architecture), cards(architecture))
        for name in small_models()[architecture]:
            files[FOLDER / picture(name)] = diagram(name, wiring(TINY[name]))
    return files


def architectures() -> tuple[Architecture, ...]:
    """Every published architecture, and the free one."""
    return tuple(dict.fromkeys((*ARCHITECTURES, *small_models())))


@cache
def small_models() -> dict[Architecture, list[str]]:
    """The names in TINY of each architecture's small models."""
    names: dict[Architecture, list[str]] = {}
    for name, make in TINY.items():
        names.setdefault(type(make()), []).append(name)
    return names


def page_path(architecture: Architecture) -> Path:
    """Where the page of an architecture is."""
    return FOLDER / f"{stem(architecture)}.md"


def stem(architecture: Architecture) -> str:
    """The name of the module that holds an architecture."""
    return architecture.__module__.rpartition(".")[2]


def picture(name: str) -> str:
    """The file name of a small model's diagram."""
    return name.lower().replace(", ", "-").replace(" ", "-") + ".svg"


def section(text: str, heading: str) -> str:
    """What stands in a page under a heading of the second level."""
    _, found, rest = f"\n{text}".partition(f"\n## {heading}\n")
    return rest.partition("\n## ")[0].strip() if found else ""


def _page(architecture: Architecture, sizes: str, cards: str) -> str:
    title, what = heading(architecture)
    notes = _notes(architecture)
    parts = model_parts(TINY[name] for name in small_models()[architecture])
    sections = {
        "Wiring": _wiring(architecture),
        "Parts": parts_section(parts),
        "Published sizes": sizes,
        "Card": cards,
        **notes,
        "Sources": _sources(architecture, parts),
    }
    body = "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items())
    built = chapters(architecture)
    intro = [what, *_about(architecture), *([f"Built in {built}."] if built else [])]
    return "\n\n".join([GENERATED, f"# {title}", *intro, body]) + "\n"


GENERATED = (
    "<!-- Written by `python -m hybridlab.course models`; edit docstrings or hybridlab/course/model_notes instead. -->"
)


def heading(architecture: Architecture) -> tuple[str, str]:
    """An architecture's name, and what it is in a sentence: the first line of its module."""
    title, _, what = _module_paragraphs(architecture)[0].partition(": ")
    return title, what[:1].upper() + what[1:]


def _module_paragraphs(architecture: Architecture) -> list[str]:
    return paragraphs(sys.modules[architecture.__module__].__doc__)


def _about(architecture: Architecture) -> Iterator[str]:
    """What the skeleton says, then the class, then the rest of the module."""
    classes = architecture.__mro__[: architecture.__mro__.index(LanguageModel)]
    for kind in reversed(classes):
        yield from paragraphs(kind.__doc__)
    yield from _module_paragraphs(architecture)[1:]


def _wiring(architecture: Architecture) -> str:
    names = small_models()[architecture]
    drawn = (f"![{in_words(wiring(TINY[name]))}]({picture(name)})" for name in names)
    which = " and ".join(f'`TINY["{name}"]`' for name in names)
    return "\n\n".join([f"Drawn from {which} of `hybridlab.measure.tiny`, as it runs; published models are deeper.", *drawn])


def sizes_section(architecture: Architecture) -> str:
    """A row a preset: parameters, and bytes at three lengths."""
    if not architecture.presets:
        return NO_PRESETS
    columns = ("preset", "parameters", "a token uses", *CONTEXTS)
    rows = tuple(size_row(architecture, name) for name in architecture.presets)
    if all(total == used for _, total, used, *_ in rows):
        columns, rows = columns[:2] + columns[3:], tuple(row[:2] + row[3:] for row in rows)
    table = Table("", columns, rows, frozenset(columns[1:])).markdown()
    return f"{table}\n\n{SIZES.format(name=next(iter(architecture.presets)))}"


def size_row(architecture: Architecture, name: str) -> tuple[str, ...]:
    """The row of one preset."""
    model = architecture.from_preset(name, device="meta")
    total = sum(parameter.numel() for parameter in model.parameters())
    idle = sum(part.idle_parameters() for part in model.modules() if isinstance(part, MixtureOfExperts))
    states = (model.init_state(1, length, dtype=torch.bfloat16) for length in CONTEXTS.values())
    return f"`{name}`", f"{total:,}", f"{total - idle:,}", *(readable(state_nbytes(state)) for state in states)


def cards_section(architecture: Architecture) -> str:
    """The cards of an architecture's small models, as `hybridlab check --models` prints them but for the digits."""
    cards = (f"```text\n{_card(name)}\n```" for name in small_models()[architecture])
    return "\n\n".join([CARD, *cards])


def _card(name: str) -> str:
    torch.manual_seed(0)
    return check_invariants(TINY[name](), name=name).table().text()


def stored(heading: str) -> Measure:
    """A section as it stands in the page that there is."""
    return lambda architecture: section(page_path(architecture).read_text(encoding="utf-8"), heading)


def _notes(architecture: Architecture) -> dict[str, str]:
    path = NOTES / f"{stem(architecture)}.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = {name: linked(section(text, name)) for name in BY_HAND}
    missing = [name for name, body in found.items() if not body]
    if missing:
        raise ValueError(f"{path.name}: expected sections {', '.join(BY_HAND)} in {NOTES.name}/, {missing[0]} is missing")
    return found


def _sources(architecture: Architecture, parts: list[Part]) -> str:
    """Of the class, of its parts, and of the numbers of each preset."""
    presets: dict[str, list[str]] = {}
    for name, preset in architecture.presets.items():
        presets.setdefault(preset.source, []).append(f"`{name}`")
    said = [*sources(architecture), *parts_sources(parts)]
    said += [f"{', '.join(names)}: {source}." for source, names in presets.items()]
    return "\n".join(f"- {linked(literal(line))}" for line in said)


def _index() -> str:
    rows = []
    for architecture in architectures():
        title, what = heading(architecture)
        presets = ", ".join(f"`{name}`" for name in architecture.presets)
        rows.append((f"[{title}]({page_path(architecture).name})", what.rstrip("."), presets))
    table = Table("", ("model", "what it is", "presets"), tuple(rows)).markdown()
    card = "\n\n".join(paragraphs(invariants.__doc__)[1:])
    return f"{GENERATED}\n\n# Models\n\n{INDEX}\n\n{table}\n\n## What a card promises\n\n{card}\n"


INDEX = (
    "One page an architecture: how it is wired, what each part computes and keeps, the published sizes and their memory,\n"
    "the card of promises that a small one keeps, and what to look out for."
)


def build_pages() -> int:
    """Writes every page that is not as it should be, and removes what no page needs; the exit status."""
    for path, text in _changes(pages(sizes_section, cards_section)).items():
        print(path.relative_to(ROOT))
        if text is None:
            path.unlink()
        else:
            write(path, text)
    return 0


def check_pages() -> int:
    """Says which pages are not current; the exit status."""
    changes = _changes(pages(sizes_section, cards_section))
    for path in changes:
        print(f"{path.relative_to(ROOT)} is not current: run `python -m hybridlab.course models`")
    return 1 if changes else 0


def _changes(files: dict[Path, str]) -> dict[Path, str | None]:
    """What has to be written, and None for what has to go."""
    there = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*")}
    written = {path: text for path, text in files.items() if there.get(path) != text}
    return {**written, **dict.fromkeys(there.keys() - files.keys())}
