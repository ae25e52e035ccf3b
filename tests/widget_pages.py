"""Widgets in standalone pages: no JupyterLab, no Python, no network. One Chromium serves a whole module of tests."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Locator, Page

from hybridlab.widgets.base import LivePicture, Shown

MOVE = """
([label, value]) => {
  const labels = [...document.querySelectorAll('.hl-control')];
  const input = labels.find(node => node.querySelector('span').textContent === label).querySelector('input, select');
  if (input.type === 'checkbox') { if (input.checked !== value) input.click(); return; }
  input.value = value;
  input.dispatchEvent(new Event(input.tagName === 'SELECT' ? 'change' : 'input'));
}
"""
PIXELS = "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)"


class WidgetPage:
    """One widget in a page of its own.

    Attributes:
        page: the page, for what only one widget has.
        problems: errors and console messages so far; `opened` asserts that there are none.
    """

    def __init__(self, page: Page, widget: LivePicture) -> None:
        self.page, self.widget, self.problems = page, widget, []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("request", self._asked)

    def _asked(self, request: object) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.problems.append(f"asked for {request.url}")

    def move(self, **values: object) -> None:
        """Moves controls as a learner would, by the names they have in the view."""
        labels = {control.name: control.label for control in self.widget.controls if hasattr(control, "value")}
        for name, value in values.items():
            self.page.evaluate(MOVE, [labels[name], value])

    def press(self, locator: str, *keys: str) -> None:
        """Presses keys while a part of the page has the focus."""
        for key in keys:
            self.page.locator(locator).first.press(key)

    def shown(self) -> Shown:
        """What stands beside the picture now."""
        return shown_in(self.page.locator("body"))

    def pixels(self, canvas: str = "canvas.hl-heat") -> np.ndarray:
        """RGBA of a canvas, (rows, columns, 4)."""
        return pixels_of(self.page.locator(canvas).first)


def shown_in(root: Locator) -> Shown:
    """What stands beside the picture of the one widget in an element."""
    labels = root.locator(".hl-readout dt").all_text_contents()
    texts = root.locator(".hl-readout dd").all_text_contents()
    assert len(set(labels)) == len(labels)
    return Shown(root.locator(".hl-status").text_content(), dict(zip(labels, texts, strict=True)))


def pixels_of(canvas: Locator) -> np.ndarray:
    """RGBA of a canvas, (rows, columns, 4)."""
    rows, columns = canvas.evaluate("canvas => [canvas.height, canvas.width]")
    return np.array(canvas.evaluate(PIXELS), dtype=np.uint8).reshape(rows, columns, 4)


@contextlib.contextmanager
def opened(browser: Browser, widget: LivePicture, folder: Path, **options: object) -> Iterator[WidgetPage]:
    """The widget's exported page, the network off; fails if the page says anything on its console or asks for anything."""
    context = browser.new_context(offline=True, viewport={"width": 1000, "height": 800}, **options)
    try:
        shown = WidgetPage(context.new_page(), widget)
        shown.page.goto(widget.save(folder / "widget.html").as_uri())
        shown.page.wait_for_selector(".hl-status:not(:empty)")
        yield shown
        assert not shown.problems
    finally:
        context.close()


def strengths(pixels: np.ndarray) -> np.ndarray:
    """The heat map's numbers, from -1 to 1, to one part in 255: blue is positive, orange negative."""
    sign = np.where(pixels[..., 2].astype(int) >= pixels[..., 0], 1, -1)
    return sign * pixels[..., 3] / 255
