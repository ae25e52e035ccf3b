"""python -m hybridlab.course build | check | edit | models: the authors' commands; see docs/authoring.md."""

import argparse
import sys
from functools import partial
from pathlib import Path

from hybridlab.course.build import build
from hybridlab.course.execute import CellError
from hybridlab.course.model_pages import build_pages, check_pages
from hybridlab.course.notebook import notebooks, shown
from hybridlab.course.verify import verify
from hybridlab.course.views import edit

HELP = "numbers (03: its chapter and solution), names (03_rwkv) or paths; none: all"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hybridlab.course", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("build", "execute notebooks, put them into normal form, generate the exercises"),
        ("check", "execute each notebook once and compare; rebuild what is generated and compare"),
        ("edit", "write a script view of a notebook; the next build takes it back"),
    ):
        commands.add_parser(name, help=what).add_argument("names", nargs="*", help=HELP)
    pages = commands.add_parser("models", help="write the pages of docs/models; takes a minute or two")
    pages.add_argument("--check", action="store_true", help="write nothing, say which pages are not current")
    options = parser.parse_args(arguments)
    try:
        if options.command == "models":
            return check_pages() if options.check else build_pages()
        return {"build": _build, "check": verify, "edit": _edit}[options.command](notebooks(options.names))
    except (CellError, FileExistsError, ValueError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: files are as they were before the notebook that was running", file=sys.stderr)
        return 130


def _build(paths: list[Path]) -> int:
    for path in paths:
        name = shown(path)
        try:
            run = build(path, partial(_progress_cell, name))
        except (CellError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from None
        _progress(f"{name}  {run.seconds:.1f} s, {run.peak_bytes / 2**20:,.0f} MiB\n")
    return 0


def _edit(paths: list[Path]) -> int:
    for path in paths:
        print(shown(edit(path)))
    return 0


def _progress_cell(name: str, cell: int, cells: int) -> None:
    _progress(f"{name}  cell {cell} of {cells}")


def _progress(text: str) -> None:
    """Writes over the line before, on a terminal; elsewhere only what ends a line."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="", flush=True)
    elif text.endswith("\n"):
        print(text, end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
