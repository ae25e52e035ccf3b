"""`guess(...)`: predict, then reveal. A question whose every option opens and says what it is worth.

The options are HTML `<details>`: they open on a click or with Enter, in JupyterLab (one at a time once the cell has run:
until then it drops their names), in VS Code, on a website and in a notebook that nobody has run. No widget, no kernel and no
saved state is needed, and nothing waits for an answer.
"""

from html import escape

LETTERS = "ABCDEFGH"


class Guess:
    """A question with options; see `guess`. `reveal()` returns in text what the options say when they are opened."""

    def __init__(self, question: str, options: dict[str, str], answer: str):
        if not 2 <= len(options) <= len(LETTERS):
            raise ValueError(f"options: expected 2 to {len(LETTERS)} of them, got {len(options)}")
        if answer not in options:
            raise ValueError(f"answer: expected one of {list(options)}, got {answer!r}")
        if empty := [option for option, because in options.items() if not because.strip()]:
            raise ValueError(f"options: every one says why it is right or why it tempts; {empty} say nothing")
        self.question, self.options, self.answer = question, options, answer

    def __repr__(self) -> str:
        lines = [f"  {letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False)]
        return "\n".join([self.question, *lines])

    def reveal(self) -> str:
        """What each option says, in text."""
        lines = [
            f"  {letter}. {option}: {self._verdict(option)}. {because}"
            for letter, (option, because) in zip(LETTERS, self.options.items(), strict=False)
        ]
        return "\n".join([self.question, *lines])

    def _verdict(self, option: str) -> str:
        return "yes" if option == self.answer else "no"

    def _repr_html_(self) -> str:
        # Options of one question share a name: opening one closes the others.
        group = escape("guess " + self.question, quote=True)
        items = "".join(self._item(group, letter, option) for letter, option in zip(LETTERS, self.options, strict=False))
        return (
            '<div style="border-left: 3px solid currentColor; padding: 0.2em 0 0.2em 1em; max-width: 46em">'
            f"<p><strong>{escape(self.question)}</strong><br>Decide first, then open your choice.</p>{items}</div>"
        )

    def _item(self, group: str, letter: str, option: str) -> str:
        verdict = f"<strong>{self._verdict(option).capitalize()}.</strong> {escape(self.options[option])}"
        return (
            f'<details name="{group}" style="margin: 0.4em 0">'
            f'<summary style="cursor: pointer">{letter}. {escape(option)}</summary>'
            f'<p style="margin: 0.3em 0 0.3em 1.4em">{verdict}</p></details>'
        )


def guess(question: str, options: dict[str, str], answer: str) -> Guess:
    """Asks for a prediction; end a cell with it. Every option is a real mistake or the right answer, and says which.

    Args:
        question: one sentence.
        options: option -> what opening it says: why it is right, or why it tempts and what is wrong with it.
        answer: the option that is right.

    Returns:
        what the notebook shows: the question, and options that open on a click.

    Raises:
        ValueError: fewer than two options, an answer that is not among them, an option that says nothing.
    """
    return Guess(question, options, answer)
