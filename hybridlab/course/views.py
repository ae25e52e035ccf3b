"""Script views: a notebook as a Python file (Jupytext's percent format), to edit; git ignores it, the build removes it."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from nbformat import NotebookNode

from hybridlab.course.notebook import read


def view_path(notebook: Path) -> Path:
    """Where the view of a notebook lies while it is edited: beside it."""
    return notebook.with_suffix(".py")


def edit(notebook: Path) -> Path:
    """Writes a view of a notebook, to edit; the next build takes it back.

    Raises:
        FileExistsError: there is a view already, whose edits would be lost.
    """
    view = view_path(notebook)
    if view.exists():
        raise FileExistsError(f"{view.name} is there already: edit it, then build; or delete it")
    _jupytext("--to", "py:percent", "--opt", "notebook_metadata_filter=-all", "--output", str(view), str(notebook))
    return view


def source_of(notebook: Path) -> NotebookNode:
    """What a build starts from: the notebook, or its view with the ids of the cells that it still has.

    Raises:
        ValueError: neither can be read.
    """
    view = view_path(notebook)
    if not view.exists():
        return read(notebook)
    with tempfile.TemporaryDirectory() as folder:
        merged = Path(folder) / notebook.name
        known = set()
        if notebook.exists():
            merged.write_bytes(notebook.read_bytes())
            known = {cell.id for cell in read(notebook).cells}
        _jupytext(*(["--update"] if known else []), "--to", "ipynb", "--output", str(merged), str(view))
        _drop_new_ids(merged, known)
        return read(merged)


def drop_view(notebook: Path) -> None:
    """Removes the view of a notebook that was built from it."""
    view_path(notebook).unlink(missing_ok=True)


def _drop_new_ids(notebook: Path, known: set[str]) -> None:
    """Jupytext draws ids at random; `read` makes some that depend on what the cells hold."""
    raw = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in raw["cells"]:
        if cell.get("id") not in known:
            cell.pop("id", None)
    notebook.write_text(json.dumps(raw), encoding="utf-8")


def _jupytext(*arguments: str) -> None:
    command = [sys.executable, "-P", "-m", "jupytext", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"jupytext: {done.stderr.strip() or done.stdout.strip()}")
