"""What docstrings say, as Markdown: their prose, their sources, the chapters that they name."""

import re
import textwrap
from collections.abc import Iterator
from inspect import cleandoc

from hybridlab.course.notebook import CHAPTERS, ROOT

HEADED = re.compile(r"(Args|Attributes|Returns|Raises|Source|Chapter|Bytes)s?\b[: ]")
# Of a skeleton's subclass: "Griffin. Args: `config`, and `backend`, what the layers pass to their ops."
ONLY_ARGUMENTS = re.compile(r"^[^.]*\. Args: ")
ARXIV = re.compile(r"(?:arXiv )?\b(\d{4}\.\d{5})\b")
CODE = re.compile(r"(`[^`]*`)")


def paragraphs(docstring: str | None) -> list[str]:
    """The paragraphs that say what something is, before arguments and sources; an indented one as a block of text."""
    said = []
    for paragraph in cleandoc(docstring or "").split("\n\n"):
        if HEADED.match(paragraph):
            break
        if paragraph and not ONLY_ARGUMENTS.match(paragraph.replace("\n", " ")):
            block = paragraph.startswith("    ")
            said.append(f"```text\n{textwrap.dedent(paragraph)}\n```" if block else linked(literal(paragraph)))
    return said


def literal(text: str) -> str:
    """Prose in which no star, bracket or tag means anything to Markdown; code between backticks is left."""
    pieces = CODE.split(text)
    return "".join(piece if piece.startswith("`") else _escaped(piece) for piece in pieces)


def _escaped(text: str) -> str:
    # A star between spaces is a star already.
    stars = re.sub(r"(?<! )\*|\*(?! )", r"\\*", text)
    return re.sub(r"<(?=[a-zA-Z/!])", "&lt;", stars).replace("](", "]\\(")


def sources(kind: type) -> Iterator[str]:
    """The lines of a class's docstring that say where it is from, without the chapter."""
    for paragraph in cleandoc(kind.__doc__ or "").split("\n\n"):
        if paragraph.startswith("Source: "):
            text = " ".join(paragraph.removeprefix("Source: ").split())
            yield re.sub(r" ?Chapter \d\d\.$", "", text)


def linked(text: str) -> str:
    """With a link at every arXiv number."""
    return ARXIV.sub(lambda found: f"[{found[0]}](https://arxiv.org/abs/{found[1]})", text)


def chapters(kind: type) -> str:
    """A link to the chapter that a class's docstring names; the bare number where there is no such chapter yet."""
    found = re.search(r"Chapter (\d\d)\.$", cleandoc(kind.__doc__ or ""))
    if not found:
        return ""
    name = f"chapter {found[1]}"
    there = sorted(CHAPTERS.glob(f"{found[1]}_*.ipynb"))
    return f"[{name}](../../{there[0].relative_to(ROOT).as_posix()})" if there else name
