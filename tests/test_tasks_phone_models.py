"""The three shipped models: what their table says is so, on fresh books; and the command that makes them keeps its word."""

import json
import tomllib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hybridlab.cli import main
from hybridlab.cli.app import app
from hybridlab.measure import account
from hybridlab.state import state_nbytes
from hybridlab.tasks import phone_training
from hybridlab.tasks.phone_book import PhoneBook, phone_book, random_books, random_questions
from hybridlab.tasks.phone_models import (
    FOLDER,
    REPORT,
    WEIGHTS,
    accuracy,
    answers,
    ask,
    phone_models,
    phone_results,
    read,
    scores,
)
from hybridlab.tasks.phone_training import FULL, QUICK, SHAPES, SIZES, Shape, new_model, train_phone_models

ROOT = Path(__file__).resolve().parent.parent
KINDS = tuple(SHAPES)


@pytest.fixture(scope="module")
def models():
    return phone_models()


@pytest.fixture(scope="module")
def rows():
    return {(row.model, row.pairs): row for row in phone_results().rows}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# The shipped models


def test_all_three_are_there_in_one_width_and_depth(models):
    assert tuple(models) == KINDS == ("attention", "fixed state", "hybrid")
    sizes = {(model.config.width, model.config.layers, model.config.ffn_width) for model in models.values()}
    assert sizes == {(FULL.width, 3, FULL.ffn_width)}
    shapes = {name: (m.config.pattern, m.config.heads, m.config.head_width) for name, m in models.items()}
    assert shapes == {name: shape[:3] for name, shape in SHAPES.items()}
    assert not any(model.training for model in models.values())
    assert {p.dtype for model in models.values() for p in model.parameters()} == {torch.float32}


def test_the_files_are_small_and_travel_with_the_package():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1.2e6
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["hybridlab.tasks"]
    shipped = {path.name for pattern in patterns for path in FOLDER.parent.glob(pattern)}
    assert shipped == {WEIGHTS, REPORT, "state_tracking.json"}


def test_the_report_is_of_the_recipe_that_is_written_here():
    recipe = json.loads((FOLDER / REPORT).read_text())["recipe"]
    seed = recipe.pop("seed")
    assert seed == 0
    assert recipe == json.loads(json.dumps(phone_training.asdict(FULL)))


def test_the_table_says_what_the_chapter_says(rows):
    assert set(rows) == {(name, pairs) for name in KINDS for pairs in SIZES}
    for pairs in SIZES:
        assert rows["attention", pairs].accuracy >= 0.97
        assert rows["hybrid", pairs].accuracy >= 0.97
    assert min(rows["fixed state", pairs].accuracy for pairs in (2, 4, 8)) >= 0.9
    assert rows["fixed state", 64].accuracy < 0.5
    assert len({rows["fixed state", pairs].nbytes for pairs in SIZES}) == 1
    assert rows["hybrid", 64].nbytes < rows["attention", 64].nbytes / 1.5


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("pairs", [4, 16, 64])
def test_the_table_is_so_on_fresh_books(models, rows, name, pairs):
    row = rows[name, pairs]
    again = scores(models[name], pairs, books=40, seed=7)
    spread = (row.standard_error**2 + again.var().item() / 40) ** 0.5
    # The second term: where every answer was right the spread says nothing, and three misses in n can still be chance.
    assert abs(again.mean().item() - row.accuracy) <= 4 * spread + 3 / (40 * pairs)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("pairs", [2, 64])
def test_bytes_are_those_of_the_state_and_of_the_account(models, rows, name, pairs):
    counted = account(models[name], 2 * pairs, dtype="float32")
    assert rows[name, pairs].nbytes == state_nbytes(read(models[name], phone_book(pairs))) == counted.total_bytes


@pytest.mark.parametrize("name", KINDS)
def test_without_the_book_a_model_guesses(models, name):
    generator = torch.Generator().manual_seed(0)
    books = random_books(20, 100, generator)
    asked, numbers = random_questions(books, generator)
    other_books = models[name](books.roll(1, 0)).state  # the same names, with other numbers
    assert (answers(models[name], other_books, asked) == numbers).double().mean() < 0.03


@pytest.mark.parametrize("name", KINDS)
def test_a_book_of_ones_own(models, name):
    book = PhoneBook({"Ann": "42", "Bob": "17", "Cy": "05", "Dee": "99"})
    assert [ask(models[name], book, who) for who in book.numbers] == ["42", "17", "05", "99"]


@pytest.mark.parametrize("name", KINDS)
def test_no_question_sees_another(models, name):
    state = read(models[name], phone_book(12))
    asked = phone_book(12).ids[:, ::2]
    together = answers(models[name], state, asked)
    assert torch.equal(together.flip(1), answers(models[name], state, asked.flip(1)))


def test_accuracy_is_the_mean_of_the_scores(models):
    each = scores(models["fixed state"], 32, books=6, seed=2)
    assert each.shape == (6,)
    assert 0 < accuracy(models["fixed state"], 32, books=6, seed=2) == each.mean().item() < 1
    assert not torch.equal(each, scores(models["fixed state"], 32, books=6, seed=3))


def test_the_results_show_themselves():
    text = repr(phone_results())
    assert "100 fresh books" in text
    for row in phone_results().rows:
        assert f"{100 * row.accuracy:.1f} %" in text
        assert f"{row.nbytes:,}" in text


def test_what_cannot_be_asked_is_named(models, tmp_path):
    with pytest.raises(ValueError, match="'Xerxes' is in no phone book"):
        ask(models["hybrid"], phone_book(3), "Xerxes")
    with pytest.raises(ValueError, match=r"phone_models\.json is not there; `hybridlab train phone-book"):
        phone_models(tmp_path)
    (tmp_path / REPORT).write_bytes((FOLDER / REPORT).read_bytes())
    with pytest.raises(ValueError, match=r"cannot read .*phone_models\.safetensors"):
        phone_models(tmp_path)


# The command


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quick")
    train_phone_models(folder, seed=5, recipe=QUICK)
    return folder


def test_the_command_writes_what_loads(quick, tmp_path):
    out = tmp_path / "new" / "folder"
    ended = CliRunner().invoke(app, ["train", "phone-book", "--out", str(out), "--seed", "5", "--quick"])
    assert ended.exit_code == 0, ended.output
    assert [f"training: {name}" in ended.output for name in KINDS] == [True] * 3
    assert set(contents(out)) == {WEIGHTS, REPORT}
    assert tuple(phone_models(out)) == KINDS
    assert contents(out) == contents(quick)  # the same seed, the same files


def test_another_seed_is_another_model_and_the_old_files_are_replaced(quick, tmp_path):
    for name, content in contents(quick).items():
        (tmp_path / name).write_bytes(content)
    train_phone_models(tmp_path, seed=6, recipe=QUICK)
    assert set(contents(tmp_path)) == {WEIGHTS, REPORT}
    assert all(contents(tmp_path)[name] != content for name, content in contents(quick).items())


def test_the_callers_random_numbers_are_left_alone():
    before = torch.get_rng_state()
    first, second = (new_model(Shape("WRA", 2, 8), seed, QUICK) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first.head.weight, second.head.weight)


def test_stored_weights_are_what_was_measured(quick):
    for row in phone_results(quick).rows:
        model = phone_models(quick)[row.model]
        again = phone_training.measure(row.model, model, row.pairs, row.books)
        assert again == row


def test_an_interrupted_run_leaves_what_was_there(quick, tmp_path):
    for name, content in contents(quick).items():
        (tmp_path / name).write_bytes(content)

    def interrupted(name):
        if name == "hybrid":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_phone_models(tmp_path, seed=6, recipe=QUICK, on_model=interrupted)
    assert contents(tmp_path) == contents(quick)


def test_a_folder_that_cannot_be_written_is_named_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(phone_training, "trained", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main(["train", "phone-book", "--out", str(tmp_path / "file")])
    assert ended.value.code == 2
    assert "out: cannot write into" in capsys.readouterr().err

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", "somewhere")

    monkeypatch.setattr(phone_training.tempfile, "TemporaryDirectory", refused)
    with pytest.raises(ValueError, match=r"out: cannot write into .* \(Permission denied\); give a folder of your own"):
        train_phone_models(tmp_path)


def test_an_unknown_task_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "chess", "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "unknown task 'chess'; choose phone-book" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
