"""From text to token ids and back, with the vocabulary that a checkpoint comes with."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hybridlab.models.checkpoint_files import read_json
from hybridlab.models.rwkv_vocabulary import RWKVVocabulary

if TYPE_CHECKING:
    import tokenizers

NAME = "tokenizer.json"
# Where ids that end a text are written; what comes first wins.
SETTINGS = ("generation_config.json", "config.json")
BROKEN = "\ufffd"


class TextStream(Protocol):
    """Text from ids as they come."""

    def push(self, index: int) -> str:
        """What can be read now: whole characters only."""

    def finish(self) -> str:
        """What still waits."""


class Tokenizer(Protocol):
    """What every vocabulary can do.

    Attributes:
        size: one more than the largest id.
        ends: ids that end a text, as far as the vocabulary itself says.
    """

    size: int
    ends: tuple[int, ...]

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with what the vocabulary puts before every text."""

    def specials(self, names: Collection[str]) -> set[int]:
        """The ids of the special tokens of these names, where there are such."""

    def stream(self, prompt: Sequence[int]) -> TextStream:
        """A reader of what comes after a prompt."""


def load_tokenizer(path: Path, vocab: Path | None = None) -> Tokenizer:
    """The tokenizer of a checkpoint.

    Args:
        path: of the checkpoint; a folder may hold a tokenizer.json.
        vocab: another tokenizer.json, or RWKV's own vocabulary file (.txt).

    Raises:
        ValueError: if there is none, it cannot be read, or the library `tokenizers` is not installed.
    """
    if vocab is None:
        vocab = path / NAME
        if not vocab.is_file():
            raise ValueError(f"there is no {NAME} in {path}: give a {NAME}, or RWKV's vocabulary (.txt), with --vocab")
    if not vocab.is_file():
        raise ValueError(f"vocab: no such file: {vocab}")
    return RWKVVocabulary.from_file(vocab) if vocab.suffix == ".txt" else TokenizerFile(vocab)


def end_ids(path: Path) -> tuple[int, ...]:
    """The ids that end a text, as a checkpoint's folder says (`eos_token_id`, one or a list); none for a file.

    Raises:
        ValueError: for what is not an id.
    """
    for name in SETTINGS:
        file = path / name
        found = read_json(file).get("eos_token_id") if file.is_file() else None
        if found is None:
            continue
        ids = found if isinstance(found, list) else [found]
        if not all(type(index) is int and index >= 0 for index in ids):
            raise ValueError(f"{file} has eos_token_id {found!r}, expected an id or a list of ids")
        return tuple(ids)
    return ()


class TokenizerFile:
    """A tokenizer.json, as the `tokenizers` library writes it.

    Args:
        path: of the file.

    Raises:
        ValueError: if the library is missing or cannot read the file.
    """

    ends: tuple[int, ...] = ()

    def __init__(self, path: Path) -> None:
        try:
            import tokenizers
        except ImportError:
            raise ValueError(
                f"{path} needs the library tokenizers: pip install -c constraints.txt -e '.[course]' in the repository"
            ) from None
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"vocab: cannot read {path}: {error}") from error
        # A file may still hold what it was trained with: a prompt is neither cut nor filled up.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.size = max(self._tokenizer.get_vocab().values(), default=-1) + 1

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt. What the file puts before a text (<s>) is in it, what it puts after one is not."""
        found = self._tokenizer.encode(text)
        added = found.special_tokens_mask
        end = max((place + 1 for place, special in enumerate(added) if not special), default=0)
        return found.ids[:end]

    def specials(self, names: Collection[str]) -> set[int]:
        """The ids of the special tokens of these names, where there are such."""
        added = self._tokenizer.get_added_tokens_decoder().items()
        return {index for index, token in added if token.special and token.content in names}

    def stream(self, prompt: Sequence[int]) -> "PieceStream":
        """A reader of what comes after a prompt."""
        return PieceStream(self._tokenizer, prompt)


class PieceStream:
    """Text from ids as they come. A piece waits while it ends inside a character.

    Pieces are read together with the one before, because how a piece is written may depend on it: the first word of a text
    has no space before it. (The library's own stream raises at bytes that never make a character.)
    """

    def __init__(self, tokenizer: "tokenizers.Tokenizer", prompt: Sequence[int]) -> None:
        self._tokenizer: Any = tokenizer
        self._read, self._waiting = list(prompt), list[int]()

    def push(self, index: int) -> str:
        """What can be read now. Special tokens add nothing."""
        self._waiting.append(index)
        piece = self._piece()
        if not piece or piece.endswith(BROKEN):
            return ""
        self._read, self._waiting = self._waiting, []
        return piece

    def finish(self) -> str:
        """What still waits; U+FFFD stands for a character that never became whole."""
        return self._piece()

    def _piece(self) -> str:
        return self._tokenizer.decode(self._read + self._waiting)[len(self._tokenizer.decode(self._read)) :]
