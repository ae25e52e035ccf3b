"""The course in a real browser: JupyterLab opens, the chapters run from top to bottom, nothing is left behind."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: it comes with the extra `dev`")

from lab_server import LAB_COMMAND, RUN_ALL, browser_page, running_lab

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ["00_start_here", "03_rwkv"]
RUN_MILLISECONDS = 300_000


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_runs_in_jupyterlab(chapter: str, tmp_path: Path) -> None:
    # A copy, because JupyterLab saves what it ran.
    folder = tmp_path / "course"
    shutil.copytree(ROOT / "chapters", folder / "chapters", ignore=shutil.ignore_patterns(".*"))
    with running_lab(LAB_COMMAND, folder, tmp_path / "private") as lab, browser_page() as page:
        page.set_default_timeout(RUN_MILLISECONDS)
        page.goto(lab.page_url())
        page.wait_for_function("window.jupyterapp")
        cells = page.evaluate(RUN_ALL, f"chapters/{chapter}.ipynb")
        shown = page.locator(".jp-Notebook .jp-OutputArea-output").count()
    errors = [output["evalue"] for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert not errors
    assert cells, "the chapter has no code cells"
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert shown > 0
