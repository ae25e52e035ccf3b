"""Real text that every machine has: the source of Python's own standard library, as characters.

The files are named here one by one, so that every machine reads the same ones; Python 3.11 to 3.13 all ship them (the
versions differ in a few percent of the lines). Whole files go to training or to validation: two halves of one file share
their names and phrases, and a validation loss over such a half would flatter. About 2.2 million tokens to train on and
0.1 million to validate on.

The vocabulary is fixed and small, 97 tokens: the newline, the indent (four spaces at the start of a line, or after another
indent), and the 95 printable ASCII characters. Guessing uniformly costs ln 97 = 4.57 nats a token.
"""

import re
import sysconfig
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from hybridlab.shapes import TokenIds

# The tab is how the indent is written among single characters; a text itself holds none.
INDENT, SPACES = "\t", "    "
ALPHABET = "\n" + INDENT + "".join(map(chr, range(32, 127)))
ID_OF = {character: index for index, character in enumerate(ALPHABET)}

TRAIN_MODULES = (
    "argparse ast base64 bdb calendar code codecs configparser contextlib csv dataclasses difflib dis doctest enum filecmp "
    "fileinput fnmatch getpass gettext glob graphlib gzip hashlib imaplib inspect ipaddress linecache mailbox mimetypes "
    "netrc ntpath numbers operator optparse os pdb pickle pickletools pkgutil plistlib poplib posixpath pprint profile "
    "pstats pyclbr pydoc reprlib sched selectors shelve shutil smtplib socket string subprocess tarfile tempfile threading "
    "timeit tokenize trace traceback tracemalloc types typing uuid warnings webbrowser zipapp"
)
VALIDATION_MODULES = "bisect cmd copy queue socketserver textwrap wave weakref"


class Corpus(NamedTuple):
    """A text as token ids, int64, (T,): what to train on and what to validate on."""

    train: Tensor
    validation: Tensor


def encode(text: str) -> Tensor:
    """Text to token ids, int64, (T,).

    Raises:
        ValueError: for a character outside the alphabet.
    """
    if foreign := re.search("[^\n -~]", text):
        raise ValueError(f"text: character {foreign[0]!r} is not in the alphabet (the newline and printable ASCII)")
    indented = re.sub(rf"^(?:{SPACES})+", lambda found: INDENT * (len(found[0]) // len(SPACES)), text, flags=re.MULTILINE)
    return torch.tensor([ID_OF[character] for character in indented], dtype=torch.int64)


def decode(ids: Tensor) -> str:
    """Token ids, (T,), to the text they stand for; decode(encode(text)) is text.

    Raises:
        ValueError: for more than one axis, or an id outside the alphabet.
    """
    if ids.ndim != 1:
        raise ValueError(f"ids: expected one sequence (T,), got shape {tuple(ids.shape)}")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(ALPHABET):
        raise ValueError(f"ids: expected 0 to {len(ALPHABET) - 1}, got {int(ids.min())} to {int(ids.max())}")
    return "".join(ALPHABET[index] for index in ids.tolist()).replace(INDENT, SPACES)


def python_source(folder: str | Path | None = None) -> Corpus:
    """The corpus: the named files of the standard library, joined in order.

    Args:
        folder: where the files are; None is the running Python's standard library.

    Raises:
        ValueError: if a file is not there as plain source (some Pythons carry their library inside a zip archive).
    """
    folder = Path(folder or sysconfig.get_path("stdlib"))
    return Corpus(
        *(encode("\n".join(_read(folder, name) for name in names.split())) for names in (TRAIN_MODULES, VALIDATION_MODULES))
    )


def _read(folder: Path, name: str) -> str:
    path = folder / f"{name}.py"
    if not path.is_file():
        raise ValueError(
            f"folder: {path.name} is not in {folder}; expected the standard library as plain .py files "
            "(a zipped or stripped Python has none: use a Python from python.org, conda or your system)"
        )
    text = path.read_text(encoding="utf-8").expandtabs(len(SPACES))
    return re.sub("[^\n -~]", "?", text)


def random_pieces(ids: Tensor, batch: int, length: int, generator: torch.Generator) -> tuple[TokenIds, TokenIds]:
    """Pieces of the text at random places, and what follows each of their tokens.

    Args:
        ids: the text, (T,).
        batch: how many pieces.
        length: tokens in each.
        generator: where the randomness comes from.

    Returns:
        inputs and targets, both (batch, length); targets[:, t] is the token after inputs[:, t].

    Raises:
        ValueError: if the text is too short for one piece and its last target.
    """
    if len(ids) <= length:
        raise ValueError(f"ids: expected more than length={length} tokens, got {len(ids)}")
    starts = torch.randint(len(ids) - length, (batch, 1), generator=generator)
    pieces = ids[starts + torch.arange(length + 1)]
    return pieces[:, :-1], pieces[:, 1:]
