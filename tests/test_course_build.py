"""`course build` and `course check` on small notebooks that really run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from hybridlab.course import notebook as files
from hybridlab.course.__main__ import main
from hybridlab.course.build import build
from hybridlab.course.execute import CellError
from hybridlab.course.recorder import Run
from hybridlab.course.verify import _ran_badly
from hybridlab.course.views import edit, source_of

SETUP = """
import sys, types
from hybridlab.course import check, practice
from hybridlab.course.probe import Probe
probes = types.ModuleType("hybridlab.course.probes_tiny")
probes.PROBES = {"90-two": [Probe("two", lambda answer, rng: answer)]}
sys.modules[probes.__name__] = probes
practice.DATA = practice.Path("../hybridlab/course/exercises").resolve()
"""
TASK = {"task": "90-two", "kind": "P", "points": 1, "difficulty": 1, "minutes": 1, "hints": ["a?", "b", "c"]}


def code(source, name, **metadata):
    return new_code_cell(source, id=name, metadata=metadata)


def put(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, files.dumps(new_notebook(cells=list(cells))))
    return path


def course(*arguments):
    """Runs the command in a process of its own, as an author does."""
    command = [sys.executable, "-m", "hybridlab.course", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.minutes
def test_building_twice_gives_the_same_bytes(tmp_path):
    path = put(
        tmp_path / "chapters/90_tiny.ipynb",
        new_markdown_cell("# Tiny", id="title"),
        code("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()", "plot"),
        code("from tqdm.auto import tqdm\nfor i in tqdm(range(2)):\n    print(i)", "bar"),
        code("print({str(i) for i in range(20)})", "order"),
        code("1 / 0", "error", tags=["raises-exception"]),
        code("from hybridlab.course import guess\n", "import"),
        code("guess('Which?', {'a': 'No.', 'b': 'Yes.'}, 'b')", "guess"),
    )
    run = build(path)
    first = path.read_bytes()
    build(path)
    assert path.read_bytes() == first
    text = first.decode()
    assert files.dumps(files.normal(files.read(path))) == text
    assert str(tmp_path) not in text
    assert sys.version.split()[0] not in text
    assert "widget-view" not in text
    assert run.seconds > 0
    assert run.peak_bytes > 2**20
    # With another hash seed and once more executed, everything but the order of a set is as stored.
    checked = course("check", path)
    assert "cell order: failed" in checked.stdout
    assert "1 problems" in checked.stdout


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("x = 1\nx.missing", "cell bad: AttributeError", id="raises"),
        pytest.param("import sys\nprint('careful', file=sys.stderr)", "cell bad writes to stderr", id="stderr"),
        pytest.param("%no_such_magic", "cell bad", id="magic"),
        pytest.param("import os\nos._exit(1)", "cell bad: the kernel ended", id="dead kernel"),
    ],
)
@pytest.mark.minutes
def test_a_build_that_fails_names_the_cell_and_writes_nothing(source, message, tmp_path):
    path = put(tmp_path / "chapters/90_tiny.ipynb", code("print(1)", "good"), code(source, "bad"), code("print(2)", "after"))
    before = path.read_bytes()
    with pytest.raises(CellError, match=message) as error:
        build(path)
    assert source.splitlines()[-1] in str(error.value)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.minutes
def test_an_interrupted_build_leaves_the_old_file(tmp_path):
    started = tmp_path / "started"
    path = put(
        tmp_path / "chapters/90_tiny.ipynb", code(f"open({str(started)!r}, 'w')\nimport time\ntime.sleep(100)", "slow")
    )
    before = path.read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-m", "hybridlab.course", "build", str(path)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "interrupted: files are as they were before the notebook that was running"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def solution_cells(answer="two = 2", probe=SETUP):
    return [
        code(probe.strip(), "setup"),
        code(f"# BEGIN SOLUTION\n{answer}\n# END SOLUTION", "answer", hybridlab=TASK),
        code('check("90-two", two)', "check", hybridlab={"check": "90-two"}),
    ]


@pytest.mark.minutes
def test_a_solution_gives_an_exercise_and_what_its_verbs_need(tmp_path):
    path = put(tmp_path / "solutions/90_tiny.ipynb", *solution_cells())
    build(path)
    stored = json.loads((tmp_path / "hybridlab/course/exercises/90_tiny.json").read_text())
    assert stored["90-two"]["numbers"] == {"two": [[2.0], []]}
    assert stored["90-two"]["solution"] == "two = 2"
    shipped = files.read(tmp_path / "exercises/90_tiny.ipynb")
    assert shipped.cells[1].source == "two = ..."
    assert shipped.cells[2].outputs == []
    assert shipped.cells[2].metadata.tags == ["nbval-ignore-output"]

    passed = course("check", path)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    # The exercise ran too, and failed where it must.
    assert "exercises/90_tiny.ipynb" in passed.stdout

    shipped.cells[1].source = "two = 2"  # an answer that slipped into what ships
    files.write(tmp_path / "exercises/90_tiny.ipynb", files.dumps(shipped))
    stored["90-two"]["hints"][0] = "older"
    (tmp_path / "hybridlab/course/exercises/90_tiny.json").write_text(json.dumps(stored))
    stale = course("check", path)
    assert stale.returncode == 1
    assert "exercises/90_tiny.ipynb is not what this solution gives" in stale.stdout
    assert "90_tiny.json is not what this solution gives" in stale.stdout
    assert "a graded cell of an exercise must say 'not answered yet'" in stale.stdout


@pytest.mark.minutes
def test_a_solution_that_fails_its_own_checks_is_not_built(tmp_path):
    demanding = SETUP.replace("lambda answer, rng: answer)", "lambda answer, rng: answer, expected=2.0)")
    path = put(tmp_path / "solutions/90_tiny.ipynb", *solution_cells("two = 3", demanding))
    with pytest.raises(ValueError, match=r"cell check: the solution fails its own checks:\n90-two: 0 of 1"):
        build(path)
    assert not (tmp_path / "exercises").exists()


DEFECTS = {
    "fine": (lambda raw: None, ""),
    "stale": (lambda raw: raw["cells"][0]["outputs"][0].update(text=["2\n"]), "cell a: failed"),
    "changed": (lambda raw: raw["cells"][0].update(source=["print(3)"]), "cell a: failed"),
    "missing": (lambda raw: raw["cells"][0].update(outputs=[]), "cell a: failed"),
    "unrun": (lambda raw: raw["cells"][0].update(outputs=[], execution_count=None), "not in normal form"),
    "kernel": (lambda raw: raw["metadata"]["kernelspec"].update(name="mine"), "not in normal form"),
    "skipped": (lambda raw: raw["cells"][0]["metadata"].update(tags=["nbval-skip"]), "cell a: skipped, or marked"),
    "comment": (
        lambda raw: raw["cells"][0].update(source=["# NBVAL_IGNORE_OUTPUT\n", "print(1)"]),
        "cell a: skipped, or marked",
    ),
    "semicolon": (lambda raw: raw["cells"][0].update(source=["print(1);"]), "closing semicolon"),
    "long": (lambda raw: raw["cells"][0].update(source=["print(1)", *["\n0"] * 10]), "11 lines of code, at most 10"),
    "many": (lambda raw: raw["cells"].extend({**raw["cells"][1], "id": f"m{i}"} for i in range(79)), "81 cells, at most 80"),
}


@pytest.mark.minutes
def test_check_finds_every_defect_and_executes_each_notebook_once(tmp_path):
    counter = tmp_path / "runs"
    paths = []
    for name, (break_it, _) in DEFECTS.items():
        count = code(f"with open({str(counter)!r}, 'a') as file:\n    _ = file.write('{name}\\n')", "count")
        cells = [
            code("print(1)", "a"),
            new_markdown_cell("text", id="text"),
            *([count] if name in ("fine", "stale") else []),
        ]
        path = put(tmp_path / f"chapters/9_{name}.ipynb", *cells)
        if name == "fine":
            build(path)
            counter.unlink()
        else:
            notebook = files.normal(files.read(path))
            notebook.cells[0].outputs = [{"output_type": "stream", "name": "stdout", "text": "1\n"}]
            raw = json.loads(files.dumps(files.normal(notebook)))
            break_it(raw)
            path.write_text(json.dumps(raw, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        paths.append(path)
    done = course("check", *paths)
    found = [line for line in done.stdout.splitlines() if line.startswith(str(tmp_path)) and ".ipynb: " in line]
    for name, (_, problem) in DEFECTS.items():
        mine = [line for line in found if f"9_{name}.ipynb" in line]
        assert any(problem in line for line in mine) if problem else not mine, (name, mine)
    assert done.returncode == 1
    assert sorted(counter.read_text().split()) == ["fine", "stale"]


def test_check_limits_time_and_memory():
    assert not list(_ran_badly(Run({"a": "passed"}, 179, 3 * 2**30), ["a"]))
    assert "took 181 s" in next(_ran_badly(Run({"a": "passed"}, 181, 0), ["a"]))
    assert "held 4.0 GiB" in next(_ran_badly(Run({"a": "passed"}, 1, 4 * 2**30), ["a"]))


def test_a_cell_that_did_not_report_is_a_problem():
    assert list(_ran_badly(Run({"a": "passed"}, 1, 1), ["a", "b"])) == ["cell b: did not run"]


@pytest.mark.minutes
def test_a_script_view_goes_out_and_comes_back(tmp_path):
    tagged = code("y = 2", "tagged", tags=["nbval-ignore-output"], hybridlab={"check": "90-two"})
    path = put(tmp_path / "chapters/90_tiny.ipynb", new_markdown_cell("# Tiny", id="title"), code("x = 1", "one"), tagged)
    view = edit(path)
    with pytest.raises(FileExistsError, match=r"90_tiny\.py is there already"):
        edit(path)
    view.write_text(view.read_text() + "\n# %%\nz = 3\n")
    back, again = source_of(path), source_of(path)
    assert [cell.id for cell in back.cells][:3] == ["title", "one", "tagged"]
    assert [cell.id for cell in back.cells] == [cell.id for cell in again.cells]
    assert back.cells[2].metadata.hybridlab == {"check": "90-two"}
    assert back.cells[3].source == "z = 3"
    assert view.exists()  # until a build has written the notebook


def test_unknown_names_are_an_error_that_lists_what_there_is(capsys):
    assert main(["build", "77"]) == 1
    assert "77: no such notebook; expected a path, or one of" in capsys.readouterr().err


def test_the_start_chapter_links_to_every_chapter_that_is_there():
    chapters = Path(__file__).resolve().parent.parent / "chapters"
    text = "".join(cell.source for cell in files.read(chapters / "00_start_here.ipynb").cells)
    there = {path.name for path in chapters.glob("*.ipynb")} - {"00_start_here.ipynb"}
    linked = {part.split(")")[0] for part in text.split("](")[1:]}
    assert there <= linked
    assert all(os.path.exists(chapters / name) for name in linked if name.endswith(".ipynb") and there)
