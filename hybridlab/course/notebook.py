"""Notebook files: where they are, how they are read and written, and the one normal form in which they are committed.

A notebook in normal form depends on its sources and on what they print, on nothing else: no times, no widget state, no
version of the kernel, no path. Building it twice gives the same bytes.
"""

import base64
import hashlib
import json
import os
import re
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbval.plugin import coalesce_streams

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS, SOLUTIONS, EXERCISES = (ROOT / name for name in ("chapters", "solutions", "exercises"))

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KEPT = ("hybridlab", "jupyter", "tags")  # of a cell's metadata
VARIES = "nbval-ignore-output"
WIDGET = "application/vnd.jupyter.widget-view+json"
PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def read(path: Path) -> NotebookNode:
    """Reads a notebook; cells without an id get one that depends only on what they hold.

    Raises:
        ValueError: the file is not a notebook of format 4.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["nbformat"] != 4:
            raise ValueError(f"nbformat is {raw['nbformat']}, expected 4")
        _add_ids(raw["cells"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a notebook: {error}") from error
    raw["nbformat_minor"] = 5
    return nbformat.reads(json.dumps(raw), as_version=4)


def _add_ids(cells: list[dict[str, Any]]) -> None:
    given = [cell["id"] for cell in cells if "id" in cell]
    taken = set(given)
    if twice := next((name for name in taken if given.count(name) > 1), None):
        raise ValueError(f"two cells have the id {twice!r}")
    for place, cell in enumerate(cells):
        if "id" not in cell:
            text = cell["cell_type"] + "".join(cell["source"])
            cell["id"] = hashlib.sha256(text.encode()).hexdigest()[:8]
            if cell["id"] in taken:
                cell["id"] += f"-{place}"
            taken.add(cell["id"])


def dumps(notebook: NotebookNode) -> str:
    """The text of a notebook file: keys sorted, one space of indent, a newline at the end."""
    return nbformat.writes(notebook, version=4, sort_keys=True, indent=1, ensure_ascii=False).rstrip("\n") + "\n"


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all: an interrupted build leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def code_cells(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """Yields the cells that hold code."""
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def tags(cell: NotebookNode) -> list[str]:
    """A cell's tags."""
    return cell.metadata.get("tags", [])


def course_data(cell: NotebookNode) -> dict[str, Any]:
    """What a cell's metadata say for the course: a task, or a check."""
    return cell.metadata.get("hybridlab", {})


def normal(notebook: NotebookNode) -> NotebookNode:
    """A copy in normal form; the normal form of a normal form is itself."""
    cells = [_normal_cell(cell) for cell in notebook.cells]
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    return nbformat.from_dict({"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5})


def _normal_cell(cell: NotebookNode) -> NotebookNode:
    metadata = {key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)}
    source = "\n".join(line.rstrip() for line in cell.source.strip("\n").split("\n"))
    bare = {"id": cell.id, "cell_type": cell.cell_type, "metadata": metadata, "source": source}
    if cell.cell_type == "code":
        if re.match(r"guess\(", source):
            _hide(metadata)
        bare["outputs"] = _normal_outputs(cell)
        bare["execution_count"] = None
    return nbformat.from_dict(bare)


def _hide(metadata: dict[str, Any]) -> None:
    """The source of a guess holds its answer: JupyterLab folds it away, and so does the site."""
    metadata["jupyter"] = {"source_hidden": True}
    metadata["tags"] = sorted({*metadata.get("tags", []), "hide-input"})


def _normal_outputs(cell: NotebookNode) -> list[NotebookNode]:
    varies = VARIES in tags(cell)
    outputs = [_normal_output(output, varies) for output in coalesce_streams(nbformat.from_dict(cell.outputs))]
    return [output for output in outputs if output is not None]


def _normal_output(output: NotebookNode, varies: bool) -> NotebookNode | None:
    if output.output_type == "stream":
        return nbformat.from_dict({"output_type": "stream", "name": output.name, "text": output.text})
    if output.output_type == "error":
        # The traceback holds paths and colours; the name and the message are what a reader needs.
        line = f"{output.ename}: {output.evalue}"
        return nbformat.from_dict(
            {"output_type": "error", "ename": output.ename, "evalue": output.evalue, "traceback": [line]}
        )
    data = {kind: _normal_data(kind, value) for kind, value in output.data.items() if kind != WIDGET}
    if varies and WIDGET in output.data and set(data) <= {"text/plain"}:
        return None  # a progress bar at 0 %, frozen, says nothing
    return nbformat.from_dict({"output_type": output.output_type, "metadata": {}, "data": data})


def _normal_data(kind: str, value: Any) -> Any:
    return _plain_png(value) if kind == "image/png" else value


def _plain_png(text: str) -> str:
    """A PNG without its notes (who wrote it, which version, when)."""
    png = base64.b64decode(text)
    kept, place = [png[:8]], 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        chunk = png[place : place + length + 12]
        if chunk[4:8] in PNG_KEPT:
            kept.append(chunk)
        place += len(chunk)
    return base64.b64encode(b"".join(kept)).decode() + "\n"


def shown(path: Path) -> str:
    """A path as messages show it: from the root of the repository, where it lies in it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def notebooks(names: list[str]) -> list[Path]:
    """The chapters and solutions that are meant.

    Args:
        names: numbers ("03": the chapter and the solution), stems ("03_rwkv") or paths; none means all.

    Raises:
        ValueError: a name that means no notebook.
    """
    everything = _all_in(CHAPTERS) + _all_in(SOLUTIONS)
    if not names:
        return everything
    found = [path for name in names for path in _meant(name, everything)]
    return list(dict.fromkeys(found))


def _all_in(folder: Path) -> list[Path]:
    # A notebook that is being written may exist as a script view only.
    views = [path.with_suffix(".ipynb") for path in folder.glob("[0-9]*.py") if not path.stem.endswith("_wrong")]
    return sorted({*folder.glob("[0-9]*.ipynb"), *views})


def _meant(name: str, everything: list[Path]) -> list[Path]:
    path = Path(name).resolve()
    if path.suffix == ".ipynb" and (path.is_file() or path.with_suffix(".py").is_file()):
        return [path]
    found = [path for path in everything if name in (path.stem, path.stem.partition("_")[0])]
    if not found:
        known = sorted({path.stem for path in everything})
        raise ValueError(f"{name}: no such notebook; expected a path, or one of {', '.join(known) or '(none yet)'}")
    return found
