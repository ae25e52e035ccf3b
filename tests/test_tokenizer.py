"""Tokenizers of checkpoints: ids as the library and RWKV's authors find them, text that comes in whole characters."""

import json
import random
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hybridlab.models.rwkv_vocabulary import RWKVVocabulary
from hybridlab.models.tokenizer import Tokenizer, TokenizerFile, end_ids, load_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers comes with the extra `course`")

TEXT = 'def größe(x): return "🙂漢字" * x\r\n\tπ\u2028e\u0301'


def byte_level() -> Any:
    """Every byte is a token; <s> stands before a text and </s> behind it; the file cuts and fills up, as for training."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<s>", "</s>"])
    made.add_tokens(["plain"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 256), ("</s>", 257)]
    )
    made.enable_truncation(4)
    made.enable_padding(direction="left", length=300)
    return made


def sentence_pieces() -> Any:
    """Llama's kind: words with a mark for the space before them, bytes for all else, no space before the first word."""
    words = ["<unk>", "▁Hello", "▁world", "▁", "!"] + [f"<0x{byte:02X}>" for byte in range(256)]
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE({w: i for i, w in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True)
    )
    decoders = tokenizers.decoders
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def saved(made: Any, folder: Path) -> TokenizerFile:
    made.save(str(folder / "tokenizer.json"))
    return TokenizerFile(folder / "tokenizer.json")


def streamed(tokenizer: Tokenizer, ids: list[int], prompt: list[int]) -> list[str]:
    """The pieces that an id each adds, and what is left at the end."""
    stream = tokenizer.stream(prompt)
    return [*(stream.push(index) for index in ids), stream.finish()]


@pytest.fixture(scope="module")
def world() -> RWKVVocabulary:
    """RWKV's vocabulary, as the authors' package ships it."""
    spec = find_spec("rwkv")
    if spec is None or spec.origin is None:
        pytest.skip("rwkv comes with the extra `dev`")
    return RWKVVocabulary.from_file(Path(spec.origin).parent / "rwkv_vocab_v20230424.txt")


def test_a_prompt_has_what_stands_before_a_text_and_nothing_behind_it_and_is_neither_cut_nor_filled(tmp_path: Path) -> None:
    tokenizer = saved(byte_level(), tmp_path)
    ids = tokenizer.encode("Hello, </s> a world")
    plain = byte_level()
    plain.no_truncation()
    plain.no_padding()
    assert ids == [256, *plain.encode("Hello, </s> a world", add_special_tokens=False).ids]
    assert ids[8] == 257  # what the user writes stays
    assert tokenizer.size == 259


def test_special_tokens_by_name(tmp_path: Path) -> None:
    assert saved(byte_level(), tmp_path).specials(["</s>", "plain", "H", "nothing"]) == {257}


def test_text_comes_in_whole_characters_at_once(tmp_path: Path, world: RWKVVocabulary) -> None:
    bytes_alone = RWKVVocabulary({byte + 1: bytes([byte]) for byte in range(256)})
    for tokenizer in (saved(byte_level(), tmp_path), bytes_alone, world):
        ids = [index for index in tokenizer.encode(TEXT) if index != 256]
        pieces = streamed(tokenizer, ids, tokenizer.encode("x"))
        assert "".join(pieces) == TEXT
        assert pieces[-1] == ""  # nothing waits longer than it must
    one_by_one = streamed(bytes_alone, bytes_alone.encode("aé🙂"), [])
    assert one_by_one == ["a", "", "é", "", "", "", "🙂", ""]


def test_a_word_after_the_prompt_keeps_its_space_and_one_at_the_start_has_none(tmp_path: Path) -> None:
    tokenizer = saved(sentence_pieces(), tmp_path)
    e_acute = [5 + byte for byte in "é".encode()]
    assert streamed(tokenizer, [2, *e_acute, 1, 4], [1]) == [" world", "", "é", " Hello", "!", ""]
    assert streamed(tokenizer, [2, 3, 1], []) == ["world", " ", " Hello", ""]


def test_bytes_that_make_no_character_are_shown_as_such_and_never_an_error(tmp_path: Path) -> None:
    draw = random.Random(0)
    junk = [[draw.randrange(256) for _ in range(12)] for _ in range(300)]
    made = byte_level()
    tokenizer = saved(made, tmp_path)
    assert all("".join(streamed(tokenizer, ids, [1])) == made.decode([1, *ids])[1:] for ids in junk)
    tokenizer = saved(sentence_pieces(), tmp_path)
    assert all("".join(streamed(tokenizer, ids, [1])) for ids in junk)
    cut = [5 + byte for byte in "🙂".encode()[:2]]
    assert streamed(tokenizer, [4, *cut], [1]) == ["!", "", "", "\ufffd\ufffd"]
    assert streamed(RWKVVocabulary({7: "é".encode()[:1], 8: b"a"}), [7, 8, 999, 7], []) == ["", "\ufffda", "", "", "\ufffd"]


def test_rwkv_takes_the_longest_token_of_its_file(world: RWKVVocabulary, tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_text("1 'a' 1\n2 'b' 1\n5 'ab' 2\n6 'abab' 4\n7 'é' 2\n9 b'\\xff' 1\n12 ' ' 1\n", encoding="utf-8")
    small = RWKVVocabulary.from_file(file)
    assert small.encode("abababé a") == [6, 5, 7, 12, 1]
    assert (small.size, small.ends, world.size) == (13, (0,), 65_530)
    with pytest.raises(ValueError, match="no token for the byte 0x63 at 2"):
        small.encode("abc")


@pytest.mark.minutes
def test_rwkv_ids_are_those_of_the_authors_tokenizer(world: RWKVVocabulary) -> None:
    import rwkv
    from rwkv.rwkv_tokenizer import TRIE_TOKENIZER

    theirs = TRIE_TOKENIZER(str(Path(rwkv.__file__).parent / "rwkv_vocab_v20230424.txt"))
    draw = random.Random(0)
    blocks = [(32, 127), (0x80, 0x800), (0x4E00, 0x9FFF), (0x1F300, 0x1F700), (9, 14)]
    noise = "".join(chr(draw.randrange(*draw.choice(blocks))) for _ in range(20_000))
    for text in (Path(random.__file__).read_text(encoding="utf-8"), noise, TEXT):
        assert world.encode(text) == theirs.encode(text)


def test_ids_that_end_a_text(tmp_path: Path) -> None:
    def says(name: str, eos: Any) -> tuple[int, ...]:
        (tmp_path / name).write_text(json.dumps({"eos_token_id": eos}))
        return end_ids(tmp_path)

    assert end_ids(tmp_path) == ()
    assert says("config.json", 2) == (2,)
    assert says("generation_config.json", None) == (2,)
    assert says("generation_config.json", [3, 5]) == (3, 5)  # as in transformers, it wins
    assert end_ids(tmp_path / "config.json") == ()
    for wrong in ("2", [1, None], True, -1):
        with pytest.raises(ValueError, match=r"generation_config\.json has eos_token_id .*, expected an id or a list"):
            says("generation_config.json", wrong)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{}", "cannot read .*tokenizer.json"),
        ("v.txt", "1 'a' 1\n2 'b' 2\n", "line 2 of .*v.txt must be an id, a token in quotes and its length.*'b' 2"),
        ("v.txt", "1 'a' 1\nx 'b' 1\n", "line 2"),
        ("v.txt", "1 __import__('os') 1\n", "line 1"),
        ("v.txt", "1 7 1\n", "line 1"),
        ("v.txt", "1\n", "line 1"),
        ("v.txt", "1 '' 0\n", "line 1"),
        ("v.txt", "", "is empty"),
    ],
)
def test_foreign_files_are_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path, tmp_path / name)


def test_missing_files_and_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no tokenizer\.json in .*--vocab"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"no such file: .*v\.txt"):
        load_tokenizer(tmp_path, tmp_path / "v.txt")
    saved(byte_level(), tmp_path)
    assert load_tokenizer(tmp_path).encode("a")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match="needs the library tokenizers: pip install"):
        load_tokenizer(tmp_path)
