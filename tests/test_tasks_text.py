"""The text task: the same files everywhere, nothing lost, nothing of validation in training."""

import math

import pytest
import torch

from hybridlab.tasks.text import (
    ALPHABET,
    TRAIN_MODULES,
    VALIDATION_MODULES,
    decode,
    encode,
    python_source,
    random_pieces,
)


@pytest.fixture(scope="module")
def corpus():
    return python_source()


def test_the_alphabet_is_newline_indent_and_printable_ascii():
    assert len(ALPHABET) == len(set(ALPHABET)) == 97
    assert round(math.log(len(ALPHABET)), 2) == 4.57


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("if x:\n    y  # z", 13),
        ("        deep", 6),
        ("      six", 6),
        ("a    b", 6),
        ("\n\n    \n", 4),
        ("", 0),
    ],
    ids=["one indent", "two", "one and a half", "in the middle is none", "blank lines", "empty"],
)
def test_encode_and_decode_are_inverse(text, tokens):
    assert len(encode(text)) == tokens
    assert decode(encode(text)) == text


def test_every_token_stands_for_something():
    every = torch.arange(len(ALPHABET))
    assert torch.equal(encode(decode(every)), every)


def test_the_corpus_has_the_stated_size(corpus):
    assert 2.0e6 < len(corpus.train) < 2.4e6
    assert 0.09e6 < len(corpus.validation) < 0.12e6


def test_the_corpus_is_deterministic_and_is_source(corpus):
    assert all(torch.equal(a, b) for a, b in zip(corpus, python_source(), strict=True))
    for part in corpus:
        assert "\n    def __init__(self" in decode(part)


def test_no_file_is_on_both_sides():
    names = TRAIN_MODULES.split() + VALIDATION_MODULES.split()
    assert len(names) == len(set(names))


def test_unusual_characters_are_read_as_question_marks(tmp_path):
    for name in (TRAIN_MODULES + " " + VALIDATION_MODULES).split():
        (tmp_path / f"{name}.py").write_text("\tx = 'é'\r\n", encoding="utf-8")
    assert decode(python_source(tmp_path).validation).splitlines()[0] == "    x = '?'"


def test_a_missing_library_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"argparse\.py is not in .*zipped"):
        python_source(tmp_path)


@pytest.mark.parametrize("text", ["é", "\t", "\r"])
def test_encode_names_the_foreign_character(text):
    with pytest.raises(ValueError, match=r"character .* is not in the alphabet"):
        encode("fine" + text)


@pytest.mark.parametrize("ids", [torch.tensor([97]), torch.tensor([-1]), torch.zeros(1, 1, dtype=torch.int64)])
def test_decode_refuses_what_is_no_text(ids):
    with pytest.raises(ValueError, match="ids: expected"):
        decode(ids)


def test_targets_are_the_next_tokens():
    ids = torch.arange(50)
    inputs, targets = random_pieces(ids, batch=1000, length=9, generator=torch.Generator().manual_seed(3))
    assert inputs.shape == targets.shape == (1000, 9)
    assert torch.equal(targets, inputs + 1)
    assert inputs.min() == 0
    assert targets.max() == 49  # every place of the text can be drawn


def test_a_text_of_exactly_one_piece():
    inputs, targets = random_pieces(torch.arange(4), batch=2, length=3, generator=torch.Generator())
    assert inputs.tolist() == [[0, 1, 2]] * 2
    assert targets.tolist() == [[1, 2, 3]] * 2
    with pytest.raises(ValueError, match="more than length=4 tokens, got 4"):
        random_pieces(torch.arange(4), batch=2, length=4, generator=torch.Generator())
