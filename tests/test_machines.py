"""The course on machines that are not this one: another Python, no triton, Colab, a folder with a difficult name."""

import json
import os
import re
import shutil
import subprocess
import sys
import types
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from hybridlab.cli import lab
from hybridlab.cli.facts import read_constraints

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted([*ROOT.glob("chapters/*.ipynb"), *ROOT.glob("solutions/*.ipynb")])

# Put on the path of a new Python, where it runs before anything else: triton is then nowhere to be found.
WITHOUT_TRITON = """
import sys
from importlib.machinery import PathFinder

class WithoutTriton(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "triton" else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTriton
"""


# Pythons


@pytest.mark.parametrize("python", ["3.11.2", "3.12.0", "3.13.0"])  # 3.11.2 is Debian 12's own
def test_every_pinned_version_takes_every_python_of_the_course(python: str) -> None:
    pinned = read_constraints((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    names = {found: re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower() for found in distributions()}
    tested = [found for found, name in names.items() if pinned.get(name) == found.version.split("+")[0]]
    assert len(tested) > 100
    refusing = [found for found in tested if python not in SpecifierSet(found.metadata["Requires-Python"] or "")]
    assert not [f"{names[found]} {found.version} wants {found.metadata['Requires-Python']}" for found in refusing]


# Without triton


@pytest.fixture
def without_triton(tmp_path: Path) -> dict[str, str]:
    """Variables for a Python that has no triton, as on macOS and Windows."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TRITON)
    return {"PYTHONPATH": str(tmp_path)}


def python(code: str, variables: dict[str, str]) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.minutes
def test_without_triton_ops_run_and_say_why_its_backend_does_not(without_triton: dict[str, str]) -> None:
    code = (
        "import torch\n"
        "from hybridlab.ops import wkv4\n"
        "k = torch.randn(1, 3, 2)\n"
        "print(wkv4(k, k, -torch.ones(2), torch.zeros(2))[0].shape)\n"
        "try: wkv4(k, k, -torch.ones(2), torch.zeros(2), backend='triton')\n"
        "except ValueError as error: print(error)\n"
    )
    works, refused = python(code, without_triton).splitlines()
    assert works == "torch.Size([1, 3, 2])"
    assert "triton is not installed (it exists for Linux only); use backend='numba'" in refused


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_without_triton_every_notebook_runs_and_says_what_it_shows_instead(path: Path, without_triton) -> None:
    from hybridlab.course.execute import execute
    from hybridlab.course.notebook import code_cells, read

    done = execute(read(path), path.parent, without_triton).notebook
    for cell in code_cells(done):
        if "check_equivalence(" in cell.source:
            assert "not here: triton is not installed" in json.dumps(cell.outputs)


# Colab


def test_on_colab_a_widget_turns_the_custom_widget_manager_on_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from anywidget import _util

    from hybridlab.course import ledger

    colab = types.ModuleType("google.colab.output")
    colab._widgets = types.SimpleNamespace(_installed_url=None)
    colab.enable_custom_widget_manager = lambda: setattr(colab._widgets, "_installed_url", "where Colab keeps it")
    monkeypatch.setitem(sys.modules, "google.colab.output", colab)
    _util.enable_custom_widget_manager_once.cache_clear()
    _, metadata = ledger.mixing(lambda values: values.cumsum(0), "sum")._repr_mimebundle_()
    _util.enable_custom_widget_manager_once.cache_clear()
    assert "where Colab keeps it" in json.dumps(metadata)


# The learner's own JupyterLab


def settings_of(plugin: str) -> dict:
    """What JupyterLab's settings of a plugin may be, from its own schema or from that of an installed extension."""
    jupyter, (package, _, name) = Path(sys.prefix) / "share" / "jupyter", plugin.partition(":")
    file = Path("schemas") / package / f"{name}.json"
    (schema,) = (path for path in (jupyter / "lab" / file, jupyter / "labextensions" / package / file) if path.is_file())
    return json.loads(schema.read_text(encoding="utf-8"))["properties"]


def test_defaults_of_the_lab_are_settings_that_jupyterlab_has() -> None:
    defaults = json.loads((lab.SETTINGS / "overrides.json").read_text(encoding="utf-8"))
    assert len(defaults) == 2
    for plugin, settings in defaults.items():
        known = settings_of(plugin)
        for name, value in settings.items():
            choices = [choice["const"] for choice in known[name].get("oneOf", [])]
            assert value in choices or (known[name]["type"], type(value)) == ("boolean", bool)


@pytest.mark.browser
def test_first_start_asks_no_question_and_works_below_a_difficult_name(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("playwright", reason="playwright is not installed: it comes with the extra `dev`")
    import lab_server

    monkeypatch.setattr(lab_server, "QUIET", {})  # a learner has no such settings
    course = tmp_path / "Übung mit Leerzeichen, n° 3 %20"
    shutil.copytree(ROOT / "chapters", course / "chapters")
    start = Path("chapters") / "00_start_here.ipynb"
    command = lab.lab_command(course, start, [], browser=False, port=None, superuser=False)
    with lab_server.running_lab(command, course, tmp_path / "private") as server, lab_server.browser_page() as page:
        page.goto(server.page_url(start.as_posix()))
        page.locator(".jp-Notebook .jp-RenderedMarkdown h1").first.wait_for(timeout=60_000)
        page.wait_for_timeout(3_000)  # the question comes a second after the notebook
        assert page.locator(".Toastify__toast").all_inner_texts() == []
        assert page.locator(".jp-Dialog").count() == 0


# The ways in that README names


def test_devcontainer_runs_what_exists() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    make, target = container["postCreateCommand"].split()
    assert make == "make"
    assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.fullmatch(r".*/python:3\.1[123]", container["image"])
