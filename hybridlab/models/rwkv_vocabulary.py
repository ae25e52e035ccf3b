"""The vocabulary of RWKV's World models: tokens are byte strings, and the longest one that fits is always taken."""

import ast
import codecs
from collections.abc import Collection, Sequence
from pathlib import Path

END = 0  # no text stands for it; the authors' training texts are separated by it


class RWKVVocabulary:
    """The token ids of a text, as the authors' own tokenizer finds them.

    Args:
        tokens: id -> bytes.

    Attributes:
        size: one more than the largest id.
        ends: ids that end a text.

    Source: `rwkv_tokenizer.py` of the RWKV authors' package. Chapter 11.
    """

    ends: tuple[int, ...] = (END,)

    def __init__(self, tokens: dict[int, bytes]) -> None:
        self.size = max(tokens) + 1
        self._tokens = tokens
        self._ids = {token: index for index, token in tokens.items()}
        lengths: dict[int, set[int]] = {}
        for token in self._ids:
            lengths.setdefault(token[0], set()).add(len(token))
        # By the first byte: a few lengths to try, the longest first.
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    @classmethod
    def from_file(cls, path: Path) -> "RWKVVocabulary":
        """Reads lines such as `256 ' the' 4`: the id, the token as Python writes it, how many bytes it has.

        Raises:
            ValueError: for a line of another kind; it says which.
        """
        tokens = {}
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    index, token = _read(line)
                except (ValueError, SyntaxError):
                    raise ValueError(
                        f"vocab: line {number} of {path} must be an id, a token in quotes and its length in bytes, "
                        f"got {line.strip()[:40]!r}"
                    ) from None
                tokens[index] = token
        if not tokens:
            raise ValueError(f"vocab: {path} is empty")
        return cls(tokens)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text.

        Raises:
            ValueError: if no token begins with one of its bytes.
        """
        source, place, ids = text.encode(), 0, []
        while place < len(source):
            token = self._longest(source, place)
            ids.append(self._ids[token])
            place += len(token)
        return ids

    def _longest(self, source: bytes, place: int) -> bytes:
        for length in self._lengths.get(source[place], ()):
            if (token := source[place : place + length]) in self._ids:
                return token
        raise ValueError(f"prompt: the vocabulary has no token for the byte {source[place]:#04x} at {place}")

    def specials(self, names: Collection[str]) -> set[int]:
        """The ids of the special tokens of these names: there are none."""
        return set()

    def stream(self, prompt: Sequence[int]) -> "ByteStream":
        """A reader of what comes after a prompt."""
        return ByteStream(self._tokens)


class ByteStream:
    """Text from ids as they come. The bytes of a character that is not whole yet wait."""

    def __init__(self, tokens: dict[int, bytes]) -> None:
        self._tokens = tokens
        self._reader = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, index: int) -> str:
        """What can be read now. An id that stands for no text adds none."""
        return self._reader.decode(self._tokens.get(index, b""))

    def finish(self) -> str:
        """What still waits; U+FFFD stands for a character that never became whole."""
        return self._reader.decode(b"", final=True)


def _read(line: str) -> tuple[int, bytes]:
    index, rest = line.split(" ", 1)
    written, length = rest.rsplit(" ", 1)
    token = ast.literal_eval(written.strip())
    token = token.encode() if isinstance(token, str) else token
    if not isinstance(token, bytes) or len(token) != int(length) or not token:
        raise ValueError
    return int(index), token
