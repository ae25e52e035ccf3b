"""The course in a real browser: JupyterLab opens, the chapters run, every widget in them is moved and looked at."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("playwright", reason="playwright is not installed: it comes with the extra `dev`")

from lab_notebook import LabWidget, OpenNotebook, write_notebook
from lab_server import LAB_COMMAND, VIEWPORT, Lab, running_lab
from playwright.sync_api import Browser, Locator
from widget_examples import EXAMPLES
from widget_pages import pixels_of, strengths

from hybridlab.cli.lab import SETTINGS

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parent.parent
EVERY = "every_widget.ipynb"
# What a learner finds in each chapter, from top to bottom.
CHAPTERS = {
    "00_start_here": ["MixingMatrix", "MemoryLoad", "CacheRace"],
    "01_attention": ["MixingMatrix", "CacheRace", "MixingMatrix"],
    "02_linear_recurrence": ["MixingMatrix", "MixingMatrix"],
    "03_rwkv": ["MixingMatrix", "MixingMatrix", "StateScope"],
    "04_selective_scan": ["MixingMatrix", "StateScope"],
    "05_ssd": ["MixingMatrix", "Duality", "Duality"],
    "06_hyena": ["MixingMatrix", "MixingMatrix", "FilterExplorer", "MixingMatrix"],
    "07_taylor_attention": ["MixingMatrix", "TaylorSoftmax"],
    "08_delta_rule": ["MixingMatrix", "MemoryLoad"],
    "10_hybrid_blocks": ["MixingMatrix", "MixingMatrix", "PatternBuilder"],
    "11_full_models": ["MixingMatrix"],
    "12_memory": ["MixingMatrix", "CacheRace"],
}
LEAST_CONTRAST = 4.5  # of text on its background, WCAG AA

# The contrast of every text in a widget with what it stands on. A canvas resolves colours: it knows all notations.
# Left out: what is dimmed until its turn comes, and numbers inside coloured cells, which have an ink of their own.
CONTRASTS = """
root => {
  const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const over = (colour, below, alpha) => {
    pen.fillStyle = `rgb(${below})`;
    pen.fillRect(0, 0, 1, 1);
    pen.globalAlpha = alpha;
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    pen.globalAlpha = 1;
    return Array.from(pen.getImageData(0, 0, 1, 1).data).slice(0, 3);
  };
  const ancestors = (node) => (node ? [...ancestors(node.parentElement), node] : []);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((x) => (x / 255 <= 0.04045 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const node of root.querySelectorAll('*')) {
    const words = [...node.childNodes].filter((child) => child.nodeType === 3).map((child) => child.data.trim()).join('');
    if (!words || !node.checkVisibility() || node.closest('option, .hl-text') || node.style.fill) continue;
    const chain = ancestors(node);
    const ground = chain.reduce((below, part) => over(getComputedStyle(part).backgroundColor, below, 1), [255, 255, 255]);
    const style = getComputedStyle(node);
    const alpha = chain.reduce((product, part) => product * Number(getComputedStyle(part).opacity), 1);
    const ink = over(node instanceof SVGElement ? style.fill : style.color, ground, alpha);
    const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
    found.push([words, (high + 0.05) / (low + 0.05)]);
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for the module, on copies of the chapters, since it saves; a notebook shows every widget twice."""
    folder = tmp_path_factory.mktemp("browser")
    shutil.copytree(ROOT / "chapters", folder / "course" / "chapters", ignore=shutil.ignore_patterns(".*"))
    write_notebook(folder / "course" / EVERY, [code for example in EXAMPLES.values() for code in (example, "_")])
    command = [*LAB_COMMAND, f"--LabApp.app_settings_dir={SETTINGS}"]  # as `hybridlab lab` starts it
    with running_lab(command, folder / "course", folder / "private") as running:
        yield running


@pytest.fixture(scope="module")
def every(lab: Lab, browser: Browser) -> Iterator[OpenNotebook]:
    """The notebook of every widget, run."""
    with OpenNotebook(browser, lab, EVERY, viewport=VIEWPORT) as notebook:
        notebook.run_all()
        yield notebook


# ---------------------------------------------------------------- the chapters


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_runs_and_its_widgets_move(chapter: str, lab: Lab, browser: Browser) -> None:
    with OpenNotebook(browser, lab, f"chapters/{chapter}.ipynb", viewport=VIEWPORT) as notebook:
        cells = notebook.run_all()
        errors = [output["evalue"] for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
        assert not errors
        assert cells, "the chapter has no code cells"
        assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))
        widgets = notebook.widgets()
        assert [widget.kind for widget in widgets] == CHAPTERS[chapter]
        for widget in widgets:
            move_controls(widget)
            PICTURES[widget.kind](widget)


def move_controls(widget: LabWidget) -> None:
    """Moves every control by keyboard, each slider by mouse too: the kernel hears it, and says of it what is seen."""
    for control in widget.controls():
        MOVES[control["kind"]](widget, control)


def move_slider(widget: LabWidget, control: dict[str, Any]) -> None:
    """One step by key; then a click in its middle."""
    name, low, high, step = (control[key] for key in ("name", "low", "high", "step"))
    before = widget.view()[name]
    key, sign = ("ArrowLeft", -1) if before > low else ("ArrowRight", 1)
    slider = widget.root.get_by_role("slider", name=control["label"], exact=True)
    slider.press(key)
    assert widget.settled()[name] == pytest.approx(before + sign * step, abs=0.51 * step)
    slider.click()
    assert abs(widget.settled()[name] - (low + high) / 2) <= max(step, (high - low) / 20)


def choose(widget: LabWidget, control: dict[str, Any]) -> None:
    """Takes the option after the one that is taken; the first is "no model" in some, and nobody left would say nothing."""
    options = list(control["options"])
    chosen = options[(options.index(widget.view()[control["name"]]) + 1) % len(options)]
    widget.root.get_by_role("combobox", name=control["label"], exact=True).select_option(chosen)
    assert widget.settled()[control["name"]] == chosen


def toggle(widget: LabWidget, control: dict[str, Any]) -> None:
    """Switches, and switches back."""
    before = widget.view()[control["name"]]
    box = widget.root.get_by_role("checkbox", name=control["label"], exact=True)
    box.press("Space")
    assert widget.settled()[control["name"]] is not before
    box.click()
    assert widget.settled()[control["name"]] is before


def play(widget: LabWidget, control: dict[str, Any]) -> None:
    """Plays until the kernel hears of a step, and pauses."""
    before = widget.view()[control["name"]]
    widget.root.get_by_role("button", name=control["label"], exact=True).click()
    widget.wait_for(lambda view: view[control["name"]] != before)
    widget.root.get_by_role("button", name="Pause", exact=True).click()
    stopped = widget.settled()
    widget.page.wait_for_timeout(2 * control["milliseconds"])
    assert widget.settled() == stopped


def start_from(widget: LabWidget, control: dict[str, Any]) -> None:
    """Takes another pattern of layers."""
    patterns = dict(zip(control["options"], control["patterns"], strict=True))
    chosen = next(name for name, pattern in patterns.items() if pattern != widget.view()["pattern"])
    widget.root.get_by_role("combobox", name=control["label"], exact=True).select_option(chosen)
    assert widget.settled()["pattern"] == patterns[chosen]


def go_to_layer(widget: LabWidget, control: dict[str, Any]) -> None:
    """The last layer, where the slider ends, and the one before."""
    slider = widget.root.get_by_role("slider", name=control["label"], exact=True)
    for key, layer in (("End", widget.view()["layers"]), ("ArrowLeft", widget.view()["layers"] - 1)):
        slider.press(key)
        assert widget.settled()["layer"] == layer


MOVES = {
    "slider": move_slider,
    "choice": choose,
    "toggle": toggle,
    "play": play,
    "pattern": start_from,
    "place": go_to_layer,
}


def move_mixing_matrix(widget: LabWidget) -> None:
    """Mouse and arrow keys on the matrix; its pixels are its weights."""
    weights = np.array(widget.ask("widget.weights.tolist()"))
    tokens = len(weights)
    cells = widget.root.locator(".hl-cells")
    same_pixels(cells, weights / np.abs(weights).max())
    row, column = tokens // 2, tokens // 3
    hover(cells, (column + 0.5) / tokens, (row + 0.5) / tokens)
    assert widget.settled() == {"i": row + 1, "j": column + 1}
    press(cells, "ArrowUp", "ArrowUp", "ArrowDown", "ArrowUp", "ArrowRight", "ArrowRight", "ArrowLeft")
    assert widget.settled() == {"i": row - 1, "j": column + 2}
    light = widget.root.locator(".hl-marks rect")
    assert [float(light.get_attribute(name)) for name in ("y", "x")] == [row - 2, column + 1]


def move_duality(widget: LabWidget) -> None:
    """Mouse and arrow keys on the matrix, whose pixels are its weights; arrow keys and a click on what chunks cost."""
    weights = np.array(widget.ask("widget.sums[widget.view['decay']].matrix().tolist()"))
    tokens = len(weights)
    cells, chart = widget.root.locator(".hl-cells").first, widget.root.locator(".hl-picture[tabindex='0']").nth(1)
    same_pixels(cells, weights / np.abs(weights).max())
    hover(cells, (tokens // 3 + 0.5) / tokens, (tokens // 2 + 0.5) / tokens)
    press(cells, "ArrowUp", "ArrowRight")
    chart.click()
    press(chart, "ArrowLeft", "ArrowLeft", "ArrowRight")
    view = widget.settled()
    assert (view["i"], view["j"]) == (tokens // 2, tokens // 3 + 2)
    assert abs(view["chunk"] - tokens / 2) <= 2
    same_pixels(cells, weights / np.abs(weights).max())  # whatever the chunk


def move_state_scope(widget: LabWidget) -> None:
    """Arrow keys on the state, whose pixels are the kernel's numbers; a click on the line of norms."""
    cells, line = widget.root.locator(".hl-picture[tabindex='0']:visible").all()
    tokens = widget.ask("len(widget.tokens)")
    press(cells, "Home", "ArrowRight", "ArrowRight", "ArrowLeft")
    assert widget.settled()["t"] == 2
    line.click()
    assert abs(widget.settled()["t"] - tokens / 2) <= 1 + tokens / 20
    states = "cells_of(widget.head(widget.view), widget.view['decay'])"
    state, limit = widget.ask(
        f"[{states}[int(widget.view['t']) - 1].tolist(), colour_limit({states})]",
        "from hybridlab.widgets.state_scope import cells_of, colour_limit",
    )
    if len(state[0]) > 1:  # RWKV-4 draws its tokens side by side
        same_pixels(cells, np.clip(np.array(state) / limit, -1, 1))


def move_cache_race(widget: LabWidget) -> None:
    """A token by arrow key, and a context by mouse, on the lines."""
    lines = widget.root.locator(".hl-picture").last
    before = round(2 ** widget.settled()["log2_context"])
    press(lines, "ArrowRight", "ArrowRight", "ArrowLeft")
    assert round(2 ** widget.settled()["log2_context"]) == before + 1
    lines.click()
    assert round(2 ** widget.settled()["log2_context"]) != before + 1


def move_memory_load(widget: LabWidget) -> None:
    """Arrow keys on the curves and the strips; a mouse over the strips asks for what it points at."""
    curves, strips = widget.root.locator(".hl-picture[tabindex='0']").all()
    before = widget.settled()
    press(curves, "ArrowLeft", "ArrowLeft", "ArrowRight")
    press(strips, "ArrowRight", "ArrowRight", "ArrowLeft")
    assert widget.settled() == before | {"pairs": before["pairs"] - 1, "asked": before["asked"] + 1}
    hover(strips, 0.2, 0.5)
    assert widget.settled()["asked"] < before["asked"]


def move_taylor_softmax(widget: LabWidget) -> None:
    """Arrow keys on all four pictures and a mouse on two; the matrix shows the kernel's weights."""
    cells = widget.root.locator(".hl-cells")
    kernels, row, sizes = widget.root.locator("svg.hl-picture").all()
    tokens = widget.ask("len(widget.names)")
    hover(cells, 0.5 / tokens, (tokens // 2 + 0.5) / tokens)
    press(cells, "ArrowUp", "ArrowRight")
    press(row, "ArrowRight")
    before = widget.settled()
    assert (before["i"], before["j"]) == (tokens // 2, 3)
    press(sizes, "ArrowLeft", "ArrowLeft", "ArrowRight")
    assert widget.settled()["width"] == max(1, before["width"] - 2) + 1
    press(kernels, *["ArrowDown"] * 4, *["ArrowUp"] * 2, "ArrowLeft", "ArrowLeft", "ArrowRight")
    assert widget.settled()["order"] == 2
    assert widget.settled()["scale"] == max(0.25, before["scale"] - 0.5) + 0.25
    for name, numbers in (
        ("Taylor's weights", "taylor"),
        ("softmax's weights", "softmax"),
        ("Taylor's minus softmax's", "off"),
    ):
        widget.root.get_by_role("combobox").select_option(name)
        widget.settled()
        weights = np.array(widget.ask(f"widget.weights(widget.view).{numbers}.tolist()"))
        same_pixels(cells, weights / np.abs(weights).max())


def move_filter_explorer(widget: LabWidget) -> None:
    """Arrow keys on the rows and on the matrix, whose pixels are one channel's taps; a mouse over its diagonals."""
    rows, cells = widget.root.locator(".hl-picture[tabindex='0']").all()
    widget.ask("None", "widget.move(ago=9, channel='1')")
    widget.settled()
    press(rows, "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown")
    press(cells, "ArrowLeft", "ArrowDown", "ArrowRight")
    assert widget.settled()["ago"] == 11
    assert widget.settled()["channel"] == "2"
    weights = "toeplitz(numbers(widget.view).taps[1])"
    expected = np.array(widget.ask(f"{weights}.tolist()", "from hybridlab.widgets.filter_explorer import numbers, toeplitz"))
    same_pixels(cells, expected / np.abs(expected).max())
    hover(cells, (20 + 0.5) / 128, (60 + 0.5) / 128)
    assert widget.settled()["ago"] == 40


def move_pattern_builder(widget: LabWidget) -> None:
    """Letters and arrow keys on the stack, a button, and a click on a layer."""
    widget.ask("None", "widget.move(pattern='MMA', layers=6, layer=1)")
    widget.settled()
    stack = widget.root.locator(".hl-picture[tabindex='0']")
    press(stack, "d", "G", "ArrowRight", "ArrowUp", "ArrowLeft")
    assert widget.settled()["pattern"] == "DGASMA"
    widget.root.get_by_role("button", name="T retention").click()
    assert widget.settled()["pattern"] == "DGTSMA"
    assert widget.settled()["layer"] == 4
    widget.root.locator("[data-layer='6']").click()
    assert widget.settled()["pattern"] == "DGTSMW"


PICTURES: dict[str, Callable[[LabWidget], None]] = {
    "MixingMatrix": move_mixing_matrix,
    "Duality": move_duality,
    "StateScope": move_state_scope,
    "CacheRace": move_cache_race,
    "MemoryLoad": move_memory_load,
    "FilterExplorer": move_filter_explorer,
    "TaylorSoftmax": move_taylor_softmax,
    "PatternBuilder": move_pattern_builder,
}


def same_pixels(cells: Locator, expected: np.ndarray) -> None:
    """A heat map shows numbers from -1 to 1, to one part in 255."""
    np.testing.assert_allclose(strengths(pixels_of(cells.locator("canvas"))), expected, atol=0.5 / 255 + 1e-6)


def hover(picture: Locator, across: float, down: float) -> None:
    """Moves the mouse to a point of a picture, in parts of its size."""
    box = picture.bounding_box()
    picture.hover(position={"x": across * box["width"], "y": down * box["height"]})


def press(picture: Locator, *keys: str) -> None:
    """Presses keys on a picture."""
    for key in keys:
        picture.press(key)


# ---------------------------------------------------------------- one of each


def example(every: OpenNotebook, kind: str) -> tuple[LabWidget, LabWidget]:
    """Both views of an example."""
    first, second = [widget for widget in every.widgets() if widget.kind == kind]
    return first, second


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_control_of_an_example(kind: str, every: OpenNotebook) -> None:
    widget, other = example(every, kind)
    move_controls(widget)
    PICTURES[kind](widget)
    assert other.model == widget.model
    assert other.settled() == widget.settled()  # a second view has followed all the way


@pytest.mark.parametrize("kind", EXAMPLES)
def test_keys_move_the_widget_and_not_the_notebook(kind: str, every: OpenNotebook) -> None:
    widget, _ = example(every, kind)
    for target in widget.root.locator("input, select, button, .hl-picture[tabindex='0']").locator("visible=true").all():
        target.scroll_into_view_if_needed()
        target.focus()
        active, cells = every.active_cell(), every.cells()
        for key in ("ArrowDown", "ArrowUp", "ArrowRight", "ArrowLeft", "a", "j"):  # a: a cell above; j: the next cell
            every.page.keyboard.press(key)
        assert (every.active_cell(), every.cells()) == (active, cells)
    widget.settled()


@pytest.mark.parametrize("kind", EXAMPLES)
def test_kernel_moves_every_view(kind: str, every: OpenNotebook) -> None:
    widget, other = example(every, kind)
    name, low, high = next((c["name"], c["low"], c["high"]) for c in widget.controls() if c["kind"] == "slider")
    for goal in (low, high):
        widget.ask("None", f"widget.move({name}={goal})")
        assert widget.settled()[name] == goal
        assert other.settled()[name] == goal


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_text_stands_out_in_both_themes(theme: str, every: OpenNotebook) -> None:
    every.command("apputils:change-theme", theme=theme)
    every.page.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
    every.page.wait_for_timeout(300)
    for widget in every.widgets():
        pale = {text: ratio for text, ratio in widget.root.evaluate(CONTRASTS) if ratio < LEAST_CONTRAST}
        assert not pale, f"{widget.kind} in {theme}"


def test_readout_does_not_overlap(every: OpenNotebook) -> None:
    # JupyterLab's own style for lists of terms, which a standalone page has not, floats them.
    for widget in every.widgets():
        for term, text in zip(*(widget.root.locator(f".hl-readout {tag}").all() for tag in ("dt", "dd")), strict=True):
            left, right = term.bounding_box(), text.bounding_box()
            assert left["x"] + term.evaluate("node => node.scrollWidth") <= right["x"] + 1, widget.kind


def test_a_saved_widget_still_answers_without_its_kernel(every: OpenNotebook, lab: Lab, browser: Browser) -> None:
    expected = [widget.settled() for widget in every.widgets()]
    every.command("docmanager:save")
    for session in lab.call("/api/sessions"):
        lab.call(f"/api/sessions/{session['id']}", "DELETE")
    with OpenNotebook(browser, lab, EVERY, viewport=VIEWPORT) as again:  # its new kernel has run nothing
        shown = again.page.locator(".jp-Notebook .hl:has(.hl-status:not(:empty))")
        shown.nth(len(expected) - 1).wait_for(state="attached")
        status = shown.first.locator(".hl-status")
        before = status.text_content()
        shown.first.locator("input[type=range]").first.press("ArrowRight")
        shown.first.locator("input[type=range]").first.press("ArrowLeft")
        shown.first.locator("input[type=range]").first.press("ArrowLeft")
        assert status.text_content() != before
