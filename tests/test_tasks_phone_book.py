"""The phone book: readable both ways, drawn afresh every time, nothing in it that could be learnt by heart."""

import pytest
import torch

from hybridlab.tasks.phone_book import (
    NAMES,
    NUMBERS,
    VOCABULARY,
    Lessons,
    PhoneBook,
    decode,
    encode,
    phone_book,
    random_books,
    random_questions,
)
from hybridlab.tasks.train import IGNORED


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_hundred_names_and_a_hundred_numbers():
    assert len(set(NAMES)) == len(NAMES) == len(NUMBERS) == 100
    assert all(name.isalpha() and name.istitle() for name in NAMES)
    assert {"Ann", "Bob", "Cy", "Dee"} < set(NAMES)  # those of the ledger
    assert VOCABULARY == NAMES + NUMBERS


def test_a_page_reads_as_its_entries():
    book = PhoneBook({"Ann": "42", "Bob": "07"})
    assert book.text == "Ann 42, Bob 07"
    assert book.ids.tolist() == [[NAMES.index("Ann"), 142, NAMES.index("Bob"), 107]]


@pytest.mark.parametrize("text", ["Ann 42, Bob 07", "Ann 42, Bob 07, Ann", "Ann", "42", "Ann 42, Bob 07, Ann 42"])
def test_text_comes_back(text):
    assert decode(encode(text)) == text


@pytest.mark.parametrize("text", ["Ann 42,Bob 07", " Ann  42 , Bob\n07,"])
def test_commas_and_spaces_only_separate(text):
    assert decode(encode(text)) == "Ann 42, Bob 07"


def test_every_token_stands_for_something():
    every = torch.arange(len(VOCABULARY))
    assert torch.equal(encode(decode(every)), every)


def test_a_seed_is_a_page():
    book = phone_book(8, seed=3)
    assert len(book.numbers) == 8
    assert book == phone_book(8, seed=3) != phone_book(8, seed=4)
    assert torch.equal(book.ids, random_books(1, 8, seeded(3)))


@pytest.mark.parametrize("pairs", [1, 7, 100])
def test_books_are_different_names_with_numbers(pairs):
    books = random_books(30, pairs, seeded())
    assert books.shape == (30, 2 * pairs)
    names, numbers = books[:, ::2], books[:, 1::2]
    assert all(len(set(row)) == pairs for row in names.tolist())
    assert 0 <= names.min() <= names.max() < 100 <= numbers.min() <= numbers.max() < 200


def test_names_say_nothing_about_numbers_or_places():
    """Whoever remembers, for each name or place, the number most often seen there, guesses right one time in a hundred."""
    books = random_books(4000, 50, seeded())
    names, numbers = books[:, ::2], books[:, 1::2] - 100
    places = torch.arange(50).expand_as(names)
    for known in (names, places, numbers.roll(1, 1)):
        counts = torch.zeros(100, 100)
        first, second = (half.flatten() for half in known.chunk(2)), (half.flatten() for half in numbers.chunk(2))
        (seen, later), (told, asked) = first, second
        counts.index_put_((seen, told), torch.ones(()), accumulate=True)
        right = (counts.argmax(1)[later] == asked).float().mean().item()
        assert abs(right - 0.01) < 5 * (0.01 / len(asked)) ** 0.5


def test_every_name_and_number_is_drawn_equally_often():
    books = random_books(4000, 50, seeded())
    for tokens, expected in ((books[:, ::2], 2000), (books[:, 1::2] - 100, 2000)):
        counts = tokens.flatten().bincount(minlength=100)
        assert (counts - expected).abs().max() < 5 * expected**0.5


def test_questions_are_all_names_in_another_order_with_their_numbers():
    books = random_books(20, 30, seeded())
    asked, numbers = random_questions(books, seeded(1))
    for book, names, answers in zip(books.tolist(), asked.tolist(), numbers.tolist(), strict=True):
        entries = dict(zip(book[::2], book[1::2], strict=True))
        assert sorted(names) == sorted(entries)
        assert names != book[::2]
        assert [entries[name] for name in names] == answers


def test_lessons_are_short_first_and_score_only_answers():
    draw, generator = Lessons((4, 40), first=30, tokens=600), seeded()
    sizes = []
    for _ in range(300):
        inputs, targets = draw(generator)
        pairs = inputs.shape[1] // 3
        sizes.append(pairs)
        assert inputs.shape == targets.shape == (600 // (3 * pairs), 3 * pairs)
        assert (targets[:, : 2 * pairs] == IGNORED).all()
        for row, answers in zip(inputs.tolist(), targets[:, 2 * pairs :].tolist(), strict=True):
            entries = dict(zip(row[: 2 * pairs : 2], row[1 : 2 * pairs : 2], strict=True))
            assert [entries[name] for name in row[2 * pairs :]] == answers
    assert (min(sizes[:30]), max(sizes[:30])) == (2, 4)
    assert (min(sizes[30:]), max(sizes[30:])) == (2, 40)
    assert 0.35 < sum(size < 9 for size in sizes[30:]) / 270 < 0.65  # half of the logarithmic scale lies below sqrt(2 x 40)


def test_no_batch_is_smaller_than_a_book():
    draw, generator = Lessons((100, 100), first=0, tokens=1), seeded()
    assert {len(draw(generator)[0]) for _ in range(5)} == {1}


@pytest.mark.parametrize("pairs", [0, -1, 101, 2.5])
def test_a_size_that_no_book_has_is_refused(pairs):
    with pytest.raises(ValueError, match=r"pairs must be 1 to 100, the number of names there are, got"):
        phone_book(pairs)


@pytest.mark.parametrize("text", ["Ann 42, Bob 7", "Xerxes 42", "ann 42", "", "Ann: 42"])
def test_encode_names_what_is_no_token(text):
    with pytest.raises(ValueError, match=r"text: '.*' is no token"):
        encode(text)


@pytest.mark.parametrize("ids", [torch.tensor([200]), torch.tensor([-1]), torch.zeros(1, 1, dtype=torch.int64)])
def test_decode_refuses_what_is_no_text(ids):
    with pytest.raises(ValueError, match="ids: expected"):
        decode(ids)
