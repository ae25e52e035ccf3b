"""Notebook files: the normal form, exercises from solutions, writing whole or not at all."""

import base64
import io
import json
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hybridlab.course import notebook as files
from hybridlab.course.generate import exercise, tasks, without_answer

TASK = {"task": "90-two", "kind": "P", "points": 1, "difficulty": 1, "minutes": 1, "hints": ["a?", "b", "c"]}


def png(**notes):
    from matplotlib.figure import Figure

    file = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(file, metadata=notes)
    return base64.b64encode(file.getvalue()).decode()


def one_cell(outputs=(), source="1", **metadata):
    return new_notebook(cells=[new_code_cell(source, id="a", outputs=list(outputs), metadata=metadata, execution_count=7)])


def normal_cell(outputs=(), source="1", **metadata):
    return files.normal(one_cell(outputs, source, **metadata)).cells[0]


def test_counts_run_from_one_and_metadata_are_those_of_every_notebook():
    cells = [new_markdown_cell("x", id="m"), new_code_cell("1", id="a", execution_count=9), new_code_cell("1", id="b")]
    made = files.normal(new_notebook(cells=cells, metadata={"widgets": {}}))
    assert [cell.execution_count for cell in files.code_cells(made)] == [1, 2]
    assert made.metadata == files.METADATA


def test_stream_pieces_are_joined_as_nbval_joins_them():
    cell = normal_cell([new_output("stream", name="stdout", text="a\n"), new_output("stream", name="stdout", text="b\n")])
    assert [output.text for output in cell.outputs] == ["a\nb\n"]


def test_widget_views_go_and_what_stands_beside_them_stays():
    data = {files.WIDGET: {"model_id": "1"}, "text/plain": "bar", "image/png": png()}
    assert set(normal_cell([new_output("display_data", data)]).outputs[0].data) == {"text/plain", "image/png"}


def test_a_frozen_progress_bar_goes_where_outputs_vary():
    bar = new_output("display_data", {files.WIDGET: {"model_id": "1"}, "text/plain": "  0%|   | 0/3"})
    assert normal_cell([bar], tags=[files.VARIES]).outputs == []
    assert len(normal_cell([bar]).outputs) == 1  # nbval would miss it


def test_pictures_lose_their_notes_and_nothing_else():
    ours, theirs = (normal_cell([new_output("display_data", {"image/png": png(Author=who)})]) for who in "ab")
    assert png(Author="a") != png(Author="b")
    assert ours == theirs
    assert base64.b64decode(ours.outputs[0].data["image/png"]).endswith(base64.b64decode(png())[-12:])


def test_errors_keep_name_and_message_alone():
    error = new_output("error", ename="ValueError", evalue="no", traceback=["\x1b[31mFile /home/someone"])
    assert normal_cell([error]).outputs[0].traceback == ["ValueError: no"]


def test_a_guess_is_folded_and_other_metadata_go():
    cell = normal_cell(source="guess('?', {}, '')", scrolled=True, execution={"iopub.status.busy": "now"})
    assert cell.metadata == {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
    assert normal_cell(source="my_guess(1)").metadata == {}


def test_normal_form_of_a_normal_form_is_itself():
    data = {files.WIDGET: {}, "text/plain": "1", "image/png": png(Author="a")}
    once = files.dumps(files.normal(one_cell([new_output("execute_result", data, execution_count=9)], "guess(1)  \n")))
    assert files.dumps(files.normal(json_notebook(once))) == once
    assert once.endswith("}\n")


def json_notebook(text):
    import nbformat

    return nbformat.reads(text, as_version=4)


def test_missing_ids_depend_on_what_cells_hold(tmp_path):
    raw = json.loads(files.dumps(one_cell()))
    raw["cells"] = [{k: v for k, v in cell.items() if k != "id"} for cell in raw["cells"] * 2]
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps(raw | {"nbformat_minor": 4}))
    first, second = ([cell.id for cell in files.read(path).cells] for _ in range(2))
    assert first == second
    assert len(set(first)) == 2


def test_two_cells_of_one_id_are_refused(tmp_path):
    raw = json.loads(files.dumps(one_cell()))
    (tmp_path / "n.ipynb").write_text(json.dumps(raw | {"cells": raw["cells"] * 2}))
    with pytest.raises(ValueError, match="two cells have the id 'a'"):
        files.read(tmp_path / "n.ipynb")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nbformat": 3, "cells": []}', "not json"])
def test_what_is_not_a_notebook_is_refused_by_name(text, tmp_path):
    path = tmp_path / "n.ipynb"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"n\.ipynb: not a notebook"):
        files.read(path)


def test_write_leaves_the_old_file_if_it_is_interrupted(tmp_path, monkeypatch):
    path = tmp_path / "n.ipynb"
    files.write(path, "old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_names_mean_notebooks(monkeypatch, tmp_path):
    for name in ("chapters/03_x.ipynb", "chapters/04_y.py", "solutions/03_x.ipynb", "solutions/03_x_wrong.py"):
        files.write(tmp_path / name, "{}")
    monkeypatch.setattr(files, "CHAPTERS", tmp_path / "chapters")
    monkeypatch.setattr(files, "SOLUTIONS", tmp_path / "solutions")

    def found(*names):
        return [str(path.relative_to(tmp_path)) for path in files.notebooks(list(names))]

    assert found() == ["chapters/03_x.ipynb", "chapters/04_y.ipynb", "solutions/03_x.ipynb"]
    assert found("03") == found("03_x") == ["chapters/03_x.ipynb", "solutions/03_x.ipynb"]
    assert found(str(tmp_path / "solutions/03_x.ipynb")) == ["solutions/03_x.ipynb"]
    with pytest.raises(ValueError, match="05: no such notebook; expected a path, or one of 03_x, 04_y"):
        found("05")


@pytest.mark.parametrize(
    ("source", "stub"),
    [
        pytest.param(
            "def f(x):\n    # BEGIN SOLUTION\n    y = 2\n    return y\n    # END SOLUTION",
            "def f(x):\n    raise NotImplementedError",
            id="in a function",
        ),
        pytest.param(
            "# BEGIN SOLUTION\na = 1\nb, c = 2, 3\n# END SOLUTION\nd = 4", "a = ...\nb = ...\nc = ...\nd = 4", id="names"
        ),
        pytest.param("print(1)", "print(1)", id="nothing to take out"),
    ],
)
def test_an_answer_is_taken_out(source, stub):
    assert without_answer(source) == stub
    compile(stub, "stub", "exec")


@pytest.mark.parametrize(
    "source",
    [
        "# BEGIN SOLUTION\na = 1",
        "a = 1\n# END SOLUTION",
        "# BEGIN SOLUTION\n# END SOLUTION",
        "# BEGIN SOLUTION\nprint(1)\n# END SOLUTION",
        "# BEGIN SOLUTION\na = 1\n# BEGIN SOLUTION\n# END SOLUTION",
    ],
)
def test_markers_that_do_not_pair_are_refused(source):
    with pytest.raises(ValueError, match=r"SOLUTION|solution block"):
        without_answer(source)


def solved(task=TASK, check="90-two"):
    verdict = new_output("stream", name="stdout", text="90-two: 1 of 1\n  two: ok\n")
    cells = [
        new_code_cell("# BEGIN SOLUTION\ntwo = 2\n# END SOLUTION\nprint(two)", id="answer", metadata={"hybridlab": task}),
        new_code_cell("check('90-two', two)", id="check", metadata={"hybridlab": {"check": check}}, outputs=[verdict]),
    ]
    cells[0].outputs = [new_output("stream", name="stdout", text="2\n")]
    return new_notebook(cells=cells)


def test_an_exercise_keeps_ids_and_nothing_of_the_answer_or_the_verdict_on_it():
    made = exercise(solved())
    assert [cell.id for cell in made.cells] == ["answer", "check"]
    assert made.cells[0].source == "two = ...\nprint(two)"
    assert made.cells[0].outputs == []
    assert made.cells[1].outputs == []
    assert made.cells[1].execution_count == 2


def test_data_of_a_task_hold_what_the_verbs_need():
    assert tasks(solved()) == {
        "90-two": {key: TASK[key] for key in TASK if key != "task"} | {"solution": "two = 2\nprint(two)", "numbers": {}}
    }


@pytest.mark.parametrize(
    ("task", "check", "message"),
    [
        pytest.param({"task": "90-two"}, "90-two", "lack kind, points, difficulty, minutes, hints", id="incomplete"),
        pytest.param(TASK | {"kind": "X"}, "90-two", "kind: expected one of", id="kind"),
        pytest.param(TASK | {"hints": ["a", "b"]}, "90-two", "expected three hints", id="two hints"),
        pytest.param(TASK | {"hints": ["a", "b", ""]}, "90-two", "expected three hints", id="empty hint"),
        pytest.param(TASK | {"difficulty": 4}, "90-two", "expected 1, 2 or 3", id="difficulty"),
        pytest.param(TASK, "90-three", "every task has one check cell", id="no check"),
    ],
)
def test_a_task_that_is_badly_formed_is_named(task, check, message):
    with pytest.raises(ValueError, match=message):
        tasks(solved(task, check))


def committed():
    root = Path(__file__).resolve().parent.parent
    return sorted([*root.glob("chapters/*.ipynb"), *root.glob("solutions/*.ipynb"), *root.glob("exercises/*.ipynb")])


@pytest.mark.parametrize("path", committed(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_committed_notebooks_are_in_normal_form_and_their_checks_can_fail(path):
    notebook = files.read(path)
    assert path.read_text(encoding="utf-8") == files.dumps(files.normal(notebook))
    for cell in files.code_cells(notebook):
        assert cell.execution_count is not None
        if "check" in files.course_data(cell):
            shipped = path.parent.name == "exercises"
            assert bool(cell.outputs) is not shipped
            assert (files.VARIES in files.tags(cell)) is shipped  # of an exercise the check itself raises
