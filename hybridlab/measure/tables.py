"""The one kind of table that every measurement returns: a coloured one in a terminal, HTML in a notebook, else plain text.

What a notebook stores must be the same on every machine, or it could not be compared. A number that is not, such as a
rounding error, is a `Measured`: the terminal shows its digits, everything that is stored shows what holds everywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any, NamedTuple


class Measured(NamedTuple):
    """A number that differs between machines: its digits, and what can be said of it on all of them."""

    digits: str
    everywhere: str


Cell = str | Measured


@dataclass(frozen=True)
class Table:
    """Rows of text under a title.

    Attributes:
        title: one line.
        columns: their names.
        rows: one cell a column.
        right: names of the columns that are aligned to the right (numbers).
        failed: indices of rows that report a failure.
        notes: lines below.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    right: frozenset[str] = frozenset()
    failed: frozenset[int] = frozenset()
    notes: tuple[str, ...] = field(default=())

    def text(self) -> str:
        """Plain text, the same on every machine."""
        stored = [[_everywhere(cell) for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(self.columns, *stored, strict=True)]
        lines = [self._line(cells, widths) for cells in (self.columns, *stored)]
        return "\n".join([self.title, lines[0], "  ".join("-" * width for width in widths), *lines[1:], *self.notes])

    def _line(self, cells: Any, widths: list[int]) -> str:
        padded = (
            cell.rjust(width) if name in self.right else cell.ljust(width)
            for name, cell, width in zip(self.columns, cells, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    def html(self) -> str:
        """What a notebook shows, the same on every machine."""
        head = "".join(f"<th{self._style(name)}>{escape(name)}</th>" for name in self.columns)
        notes = "".join(f"<div>{escape(note)}</div>" for note in self.notes)
        body = "".join(self._html_rows())
        return f"<div><b>{escape(self.title)}</b><table><tr>{head}</tr>{body}</table>{notes}</div>"

    def _html_rows(self) -> Iterator[str]:
        for index, row in enumerate(self.rows):
            cells = (
                f"<td{self._style(name)}>{escape(_everywhere(cell))}</td>"
                for name, cell in zip(self.columns, row, strict=True)
            )
            mark = ' style="color: var(--jp-error-color1, #b00020); font-weight: bold"' if index in self.failed else ""
            yield f"<tr{mark}>{''.join(cells)}</tr>"

    def _style(self, column: str) -> str:
        return f' style="text-align: {"right" if column in self.right else "left"}"'

    def markdown(self) -> str:
        """A GitHub table with the digits, title and notes left out."""
        rule = ("--:" if name in self.right else "---" for name in self.columns)
        rows = ((_digits(cell) for cell in row) for row in self.rows)
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.columns, rule, *rows))

    def rich(self) -> Any:
        """What `rich` prints, with the digits."""
        # Imported here: importing hybridlab.measure must not need rich.
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=self.title, title_justify="left", box=box.SIMPLE_HEAD)
        for name in self.columns:
            # Folded in a narrow terminal: an ellipsis would hide digits.
            table.add_column(Text(name), justify="right" if name in self.right else "left", overflow="fold")
        for index, row in enumerate(self.rows):
            table.add_row(*(Text(_digits(cell)) for cell in row), style="bold red" if index in self.failed else None)
        return Group(table, *(Text(note) for note in self.notes))


class Report:
    """Something that shows itself as a table: subclasses say which."""

    def table(self) -> Table:
        """The table that is shown."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()

    def __rich__(self) -> Any:
        return self.table().rich()


def _everywhere(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.everywhere


def _digits(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.digits
