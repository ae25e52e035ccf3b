"""What every widget shares: a question, controls, inputs that are sent once, and a picture that the browser draws.

Python sends the inputs when the widget is shown and then rests: every key press is computed and drawn in the browser
(`base.js` and the widget's own file), so it answers at once, in an exported page too, where there is no Python. What the
browser writes beside the picture is a pure function of inputs and view; it is written a second time in Python, and a test
compares the two.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import anywidget
import traitlets

from hybridlab.widgets.arrays import as_text
from hybridlab.widgets.controls import Control, Play, View, check_view, first_view, to_plain
from hybridlab.widgets.png import as_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
DPI = 110


def script(*names: str) -> str:
    """The ES module of a widget: what all share, then its own files."""
    return "\n".join((FOLDER / file).read_text(encoding="utf-8") for file in ("base.js", *names))


STYLE = (FOLDER / "base.css").read_text(encoding="utf-8")


class Shown(NamedTuple):
    """What stands beside a picture at one view.

    Attributes:
        text: one sentence with the numbers; screen readers say it, and it is the widget's `repr`.
        readout: labels and what is written at each.
    """

    text: str
    readout: dict[str, str]


class LivePicture(anywidget.AnyWidget):
    """Base of the widgets: a subclass gives its question, its script, `shown` and `figure`.

    Attributes:
        question: what a learner can find out with it.
        view: where the controls stand; set it, and the picture follows.
    """

    question: ClassVar[str]
    _css = STYLE
    _spec = traitlets.Dict().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)

    def __init__(self, controls: Sequence[Control | Play], inputs: Mapping[str, Any]) -> None:
        self.controls = tuple(controls)
        spec = {"question": self.question, "controls": [to_plain(control) for control in controls], "inputs": dict(inputs)}
        super().__init__(_spec=spec, view=first_view(controls))

    def shown(self, view: View) -> Shown:
        """What stands beside the picture at a view, from the inputs alone."""
        raise NotImplementedError

    def figure(self, view: View) -> "Figure":
        """The picture at a view, for pages without JavaScript."""
        raise NotImplementedError

    def move(self, **values: Any) -> "LivePicture":
        """The widget itself with some controls elsewhere.

        Raises:
            ValueError: no such control, or a value that it cannot take.
        """
        self.view = self.view | values
        return self

    def html(self) -> str:
        """A page that shows the widget without Python, server or network."""
        data = json.dumps(as_text({"_spec": self._spec, "view": self.view})).replace("<", "\\u003c")
        page = (FOLDER / "standalone.html").read_text(encoding="utf-8")
        parts = {"title": escape(self.question), "style": STYLE, "data": data, "script": str(self._esm)}
        for name, text in parts.items():
            page = page.replace(f"<!-- {name} -->", text, 1)
        return page

    def save(self, path: str | Path) -> Path:
        """Writes `html` to a file, to open in any browser, offline."""
        path = Path(path)
        path.write_text(self.html(), encoding="utf-8")
        return path

    @traitlets.validate("view")
    def _check_view(self, proposal: Any) -> View:
        try:
            check_view(self.controls, proposal["value"])
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from None
        return proposal["value"]

    def __repr__(self) -> str:
        return self.shown(self.view).text

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        return {**data, "text/plain": repr(self), "image/png": self._png()}, metadata

    def _png(self) -> bytes:
        figure = self.figure(self.view)
        figure.set(dpi=DPI, facecolor="white")  # explicit: on a dark page black letters would stand on black
        return as_png(figure)
