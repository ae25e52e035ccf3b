"""Three small trained models that read a phone book and answer from what they kept of it.

`phone_models()` loads them: "attention" keeps every token it has read, "fixed state" keeps the same few numbers however long
the book is, "hybrid" has two layers of this kind and one of the other. They have one width, one depth and one recipe
(`phone_training.py`), and they are asked in one way: the book is read once, and from then on there is only the state.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from hybridlab.measure.tables import Report, Table
from hybridlab.models.hybrid import HybridConfig, HybridLM
from hybridlab.shapes import TokenIds
from hybridlab.state import ModelState
from hybridlab.tasks.phone_book import ID_OF, NAMES, VOCABULARY, PhoneBook, random_books, random_questions

FOLDER = Path(__file__).with_name("data")
WEIGHTS = "phone_models.safetensors"
REPORT = "phone_models.json"
COMMAND = "hybridlab train phone-book --out FOLDER"


class Result(NamedTuple):
    """How well a model answered from books of one size, and what it kept of each.

    Attributes:
        model: its name.
        pairs: names in each book; every one of them was asked for.
        accuracy: right answers among all.
        standard_error: of the accuracy, from book to book.
        nbytes: of the state after one book.
        books: how many.
    """

    model: str
    pairs: int
    accuracy: float
    standard_error: float
    nbytes: int
    books: int


@dataclass(frozen=True, repr=False)
class Results(Report):
    """All of a set of models' results; shows itself as a table, one row for each size of book.

    Attributes:
        rows: model by model, from short books to long ones.
    """

    rows: tuple[Result, ...]

    def table(self) -> Table:
        """Right answers in percent and bytes kept, each model beside the others."""
        models = list(dict.fromkeys(row.model for row in self.rows))
        columns = ("pairs", *(head for model in models for head in (model, "bytes")))
        cells: dict[int, list[str]] = {}
        for row in self.rows:
            cells.setdefault(row.pairs, [f"{row.pairs}"]).extend([f"{100 * row.accuracy:.1f} %", f"{row.nbytes:,}"])
        title = f"Right answers, and bytes kept of a book; {self.rows[0].books} fresh books of each size"
        return Table(title, columns, tuple(map(tuple, cells.values())), frozenset(columns))


def phone_models(folder: str | Path = FOLDER) -> dict[str, HybridLM]:
    """The trained models by name, in eval mode: "attention", "fixed state", "hybrid".

    Args:
        folder: where `hybridlab train phone-book` wrote them; the course's own otherwise.

    Raises:
        ValueError: if they are not there, or the files are not what that command writes.
    """
    configs = _report(folder)["configs"]
    weights = _weights(Path(folder) / WEIGHTS)
    return {name: _model(name, HybridConfig(**config), weights) for name, config in configs.items()}


def phone_results(folder: str | Path = FOLDER) -> Results:
    """What the models reached on fresh books when they were trained; written by the same command.

    Raises:
        ValueError: if the report is not there.
    """
    return Results(tuple(Result(**row) for row in _report(folder)["results"]))


@torch.no_grad()
def read(model: HybridLM, book: PhoneBook) -> ModelState:
    """Everything that a model keeps of a book: its state after the last number. `state_nbytes` counts it."""
    return model(book.ids).state


def ask(model: HybridLM, book: PhoneBook, name: str) -> str:
    """Reads a book, closes it, and says what the model takes for the number of a name.

    Returns:
        the likeliest of all tokens, such as "42".

    Raises:
        ValueError: for a name that no phone book holds.
    """
    if name not in NAMES:
        raise ValueError(f"name: {name!r} is in no phone book; choose one of NAMES, such as {', '.join(NAMES[:4])}")
    answer = answers(model, read(model, book), torch.tensor([[ID_OF[name]]]))
    return VOCABULARY[int(answer)]


@torch.no_grad()
def answers(model: HybridLM, state: ModelState, asked: TokenIds) -> TokenIds:
    """The likeliest token after each name, every name asked of the same state: no question sees another one.

    Args:
        model: what read the books.
        state: after reading them, one a row.
        asked: names, (B, n).

    Returns:
        token ids, (B, n).
    """
    return torch.cat([model(name, state).logits.argmax(-1) for name in asked.split(1, 1)], 1)


@torch.no_grad()
def scores(model: HybridLM, pairs: int, books: int = 50, seed: int = 0) -> Tensor:
    """Share of right answers for each of some fresh books, every name of which is asked for, (books,).

    Raises:
        ValueError: for a size that no book has.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = random_books(books, pairs, generator)
    asked, numbers = random_questions(ids, generator)
    return (answers(model, model(ids).state, asked) == numbers).double().mean(1)


def accuracy(model: HybridLM, pairs: int, books: int = 50, seed: int = 0) -> float:
    """Share of right answers over all names of some fresh books with so many pairs; guessing gives 0.01."""
    return scores(model, pairs, books, seed).mean().item()


def _report(folder: str | Path) -> dict[str, Any]:
    path = Path(folder) / REPORT
    if not path.is_file():
        raise ValueError(f"folder: {path} is not there; `{COMMAND}` writes it")
    return json.loads(path.read_text(encoding="utf-8"))


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # a missing or damaged file makes the reader raise nearly anything
        raise ValueError(f"folder: cannot read {path} ({error}); `{COMMAND}` writes it") from error


def _model(name: str, config: HybridConfig, weights: dict[str, Tensor]) -> HybridLM:
    model = HybridLM(config)
    prefix = f"{name}."
    model.load_state_dict({key.removeprefix(prefix): x.float() for key, x in weights.items() if key.startswith(prefix)})
    return model.eval()
