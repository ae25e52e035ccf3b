"""The phone book: a page of names with numbers is read once; then a name comes again, and its number is due.

    Ann 42, Bob 17, Cy 05, Bob      and the next token should be 17

Every book is drawn afresh: which names, in which order, with which numbers. So nothing can be learnt by heart but how to
keep a book in mind, and who has not read it guesses right one time in a hundred.

A name is a token and a number is a token; commas and spaces are only how they are written. A book of n pairs is 2n tokens.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridlab.shapes import TokenIds
from hybridlab.tasks.train import IGNORED, Batch

GIVEN_NAMES = (
    "Ada Ali Amy Ana Ann Ari Bea Ben Bo Bob Cara Carl Cleo Cy Dan Dee Dora Ed Ela Emil Eva Fay Finn Flo Gil Gus Hal Hana "
    "Hugo Ian Ida Igor Ines Ivo Jan Jin Joy Jun Kai Kim Kofi Kurt Lea Leo Lin Lou Luc Mae Max Mei Mia Mo Nell Nia Nils "
    "Noa Noor Ola Omar Otto Pam Pia Quin Raj Ray Rex Rio Rita Rosa Roy Ruth Sam Sara Sol Sven Tara Ted Tess Tim Tom Uma "
    "Una Uri Val Vera Vik Wei Will Xia Yan Yara Yuki Yves Zara Zed Zeno Zia Zita Ziv Zoe"
)
NAMES = tuple(GIVEN_NAMES.split())
NUMBERS = tuple(f"{number:02d}" for number in range(100))
VOCABULARY = NAMES + NUMBERS
ID_OF = {token: index for index, token in enumerate(VOCABULARY)}
SHORTEST = 2  # pairs: with one, there is nothing to tell apart


@dataclass(frozen=True)
class PhoneBook:
    """A page of a phone book. Write your own: PhoneBook({"Ann": "42", "Bob": "17"}).

    Attributes:
        numbers: each name's number, in the order of the page.
    """

    numbers: Mapping[str, str]

    @property
    def text(self) -> str:
        """The page as it reads: Ann 42, Bob 17."""
        return ", ".join(f"{name} {number}" for name, number in self.numbers.items())

    @property
    def ids(self) -> TokenIds:
        """The page as a model reads it, (1, 2n).

        Raises:
            ValueError: for a name or a number that is no token.
        """
        return encode(self.text)[None]


def phone_book(pairs: int, seed: int = 0) -> PhoneBook:
    """A random page.

    Args:
        pairs: names on it, 1 to 100.
        seed: another seed is another page.

    Raises:
        ValueError: for more pairs than there are names, or none.
    """
    ids = random_books(1, pairs, torch.Generator().manual_seed(seed))[0].tolist()
    tokens = [VOCABULARY[index] for index in ids]
    return PhoneBook(dict(zip(tokens[::2], tokens[1::2], strict=True)))


def encode(text: str) -> Tensor:
    """Text to token ids, int64, (T,). Commas and white space only separate.

    Raises:
        ValueError: for a word that is neither a name nor a number of two digits.
    """
    tokens = re.split(r"[,\s]+", text.strip(", \n"))
    for token in tokens:
        if token not in ID_OF:
            raise ValueError(f"text: {token!r} is no token; a phone book holds the names of NAMES and numbers 00 to 99")
    return torch.tensor([ID_OF[token] for token in tokens], dtype=torch.int64)


def decode(ids: Tensor) -> str:
    """Token ids, (T,), to the text they stand for; decode(encode(text)) is text that is written in the same way.

    Raises:
        ValueError: for more than one axis, or an id outside the vocabulary.
    """
    if ids.ndim != 1:
        raise ValueError(f"ids: expected one sequence (T,), got shape {tuple(ids.shape)}")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(VOCABULARY):
        raise ValueError(f"ids: expected 0 to {len(VOCABULARY) - 1}, got {int(ids.min())} to {int(ids.max())}")
    tokens = [VOCABULARY[index] for index in ids.tolist()]
    return "".join(f", {token}" if token in NAMES else f" {token}" for token in tokens).removeprefix(", ").lstrip()


def random_books(batch: int, pairs: int, generator: torch.Generator) -> TokenIds:
    """Pages with `pairs` different names and any numbers, as ids (B, 2 pairs): name, number, name, number, ...

    Raises:
        ValueError: for more pairs than there are names, or none.
    """
    if not isinstance(pairs, int) or not 1 <= pairs <= len(NAMES):
        raise ValueError(f"pairs must be 1 to {len(NAMES)}, the number of names there are, got {pairs!r}")
    names = torch.rand(batch, len(NAMES), generator=generator).argsort(1)[:, :pairs]
    numbers = len(NAMES) + torch.randint(len(NUMBERS), (batch, pairs), generator=generator)
    return torch.stack((names, numbers), 2).flatten(1)


def random_questions(books: TokenIds, generator: torch.Generator) -> tuple[TokenIds, TokenIds]:
    """All names of each book (B, 2n) in a random order, and the number of each: both (B, n)."""
    order = torch.rand(len(books), books.shape[1] // 2, generator=generator).argsort(1)
    return books[:, ::2].gather(1, order), books[:, 1::2].gather(1, order)


class Lessons:
    """What to train on: a book, then all its names once more, each to be answered with its number.

    Every batch has books of one size, from 2 pairs to the longest, drawn evenly on a logarithmic scale: short ones as often
    as long ones. Only the answers are scored. Called with a generator, it draws the next batch.

    Args:
        longest: pairs of the longest books, in the first batches and later.
        first: how many batches are first.
        tokens: about so many in each batch.
    """

    def __init__(self, longest: tuple[int, int], first: int, tokens: int) -> None:
        self.longest, self.first, self.tokens = longest, first, tokens
        self.drawn = 0

    def __call__(self, generator: torch.Generator) -> Batch:
        """Input_ids and targets, both (B, 3n)."""
        longest = self.longest[self.drawn >= self.first]
        self.drawn += 1
        share = torch.rand((), generator=generator).item()
        pairs = round(SHORTEST * (longest / SHORTEST) ** share)
        books = random_books(max(1, self.tokens // (3 * pairs)), pairs, generator)
        asked, numbers = random_questions(books, generator)
        return torch.cat((books, asked), 1), torch.cat((torch.full_like(books, IGNORED), numbers), 1)
