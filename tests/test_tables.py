"""Tables: digits in a terminal, the same text everywhere in what a notebook stores."""

import io

from rich.console import Console

from hybridlab.measure.tables import Measured, Report, Table

TABLE = Table(
    "a title",
    ("name", "error"),
    (("one <b>", Measured("1.23e-16", "< 1e-09")), ("two", "0.5")),
    right=frozenset({"error"}),
    failed=frozenset({1}),
    notes=("a note",),
)


class Shown(Report):
    def table(self) -> Table:
        return TABLE


def printed(thing: object) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    console.print(thing)
    return console.file.getvalue()


def test_text() -> None:
    assert (
        repr(Shown())
        == str(Shown())
        == "a title\nname       error\n-------  -------\none <b>  < 1e-09\ntwo          0.5\na note"
    )


def test_html_is_escaped_and_has_no_digits() -> None:
    html = Shown()._repr_html_()
    assert "one &lt;b&gt;" in html
    assert "&lt; 1e-09" in html
    assert "1.23e-16" not in html
    assert html.count("font-weight: bold") == 1


def test_a_terminal_shows_the_digits_and_marks_failures() -> None:
    text = printed(Shown())
    assert "1.23e-16" in text
    assert "a note" in text
    assert "\x1b[1;31m" in text


def test_markdown() -> None:
    assert TABLE.markdown().splitlines() == ["| name | error |", "| --- | --: |", "| one <b> | 1.23e-16 |", "| two | 0.5 |"]


def test_brackets_are_text_not_markup() -> None:
    table = Table("t", ("name",), (("[red]x[/red]",),))
    console = Console(file=io.StringIO(), width=80)
    console.print(table.rich())
    assert "[red]x[/red]" in console.file.getvalue()
