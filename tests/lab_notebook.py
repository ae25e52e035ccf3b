"""A notebook that is open in JupyterLab: it is run, asked what its kernel says, and looked at, as a learner would."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nbformat
from lab_server import Lab
from playwright.sync_api import Browser, Locator, Page
from widget_pages import shown_in

from hybridlab.widgets.base import Shown

MILLISECONDS = 60_000
SETTLE_SECONDS = 10

# These run in the page. Before cells may run, the kernel must answer: else JupyterLab asks which kernel to take.
OPEN = """
async (path) => {
  const app = window.jupyterapp;
  await app.restored;
  const panel = await app.commands.execute('docmanager:open', {path, factory: 'Notebook'});
  await panel.context.ready;
  await panel.sessionContext.ready;
  const kernel = panel.sessionContext.session.kernel;
  await kernel.info;
  while (kernel.connectionStatus !== 'connected') await new Promise(done => setTimeout(done, 50));
  app.shell.activateById(panel.id);
  window.panel = panel;
}
"""
RUN_ALL = """
async () => {
  await window.jupyterapp.commands.execute('notebook:run-all-cells');
  const cells = window.panel.content.model.toJSON().cells.filter(cell => cell.cell_type === 'code');
  return cells.map(cell => ({id: cell.id, count: cell.execution_count, outputs: cell.outputs}));
}
"""
ASK = """
async (code) => {
  const said = [];
  const future = window.panel.sessionContext.session.kernel.requestExecute({code});
  future.onIOPub = ({header, content}) => {
    if (header.msg_type === 'stream') said.push(content.text);
    if (header.msg_type === 'error') said.push(`${content.ename}: ${content.evalue}`);
  };
  await future.done;
  return said.join('');
}
"""

# Of the course's own widgets: they alone bring a picture for pages without JavaScript.
MODELS = """
() => window.panel.content.model.toJSON().cells.flatMap(cell => cell.outputs ?? [])
  .filter(output => output.data?.['image/png'])
  .map(output => output.data['application/vnd.jupyter.widget-view+json']?.model_id).filter(Boolean)
"""
READ = """
nodes => nodes.map(({type, checked, value}) => type === 'checkbox' ? checked : type === 'range' ? Number(value) : value)
"""


class OpenNotebook:
    """A notebook in JupyterLab, its kernel ready.

    Attributes:
        page: the browser's page.
    """

    def __init__(self, browser: Browser, lab: Lab, path: str, **options: object) -> None:
        self.page: Page = browser.new_page(**options)
        self.page.set_default_timeout(MILLISECONDS)
        self.page.goto(lab.page_url())
        self.page.wait_for_function("window.jupyterapp")
        self.page.evaluate(OPEN, path)

    def run_all(self) -> list[dict[str, Any]]:
        """Runs every cell; id, count and outputs of each code cell."""
        return self.page.evaluate(RUN_ALL)

    def ask(self, code: str) -> str:
        """What the kernel prints when it runs some code."""
        return self.page.evaluate(ASK, code)

    def command(self, name: str, **arguments: object) -> None:
        """Runs one of JupyterLab's commands."""
        self.page.evaluate("([name, given]) => window.jupyterapp.commands.execute(name, given)", [name, arguments])

    def active_cell(self) -> int:
        """The number of the cell that JupyterLab's keys would change."""
        return self.page.evaluate("window.panel.content.activeCellIndex")

    def cells(self) -> int:
        """How many cells there are."""
        return self.page.evaluate("window.panel.content.widgets.length")

    def widgets(self) -> list["LabWidget"]:
        """The widgets that are shown, from top to bottom.

        Raises:
            AssertionError: some widget of an output is not shown.
        """
        models = self.page.evaluate(MODELS)
        shown = self.page.locator(".jp-Notebook .hl:has(.hl-status:not(:empty))")
        shown.nth(len(models) - 1).wait_for(state="attached")
        assert shown.count() == len(models)
        return [LabWidget(self, shown.nth(number), model) for number, model in enumerate(models)]

    def __enter__(self) -> "OpenNotebook":
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()


class LabWidget:
    """One widget in an open notebook: what its kernel says beside what is seen.

    Attributes:
        page: the browser's page.
        root: its element there.
        model: its name for both sides; two views of one widget share it.
        kind: its class.
    """

    def __init__(self, notebook: OpenNotebook, root: Locator, model: str) -> None:
        self.notebook, self.page, self.root, self.model = notebook, notebook.page, root, model
        self.kind: str = self.ask("type(widget).__name__")

    def ask(self, expression: str, more: str = "") -> Any:
        """What an expression of `widget` is in the kernel, after some `more` code; it comes as JSON."""
        find = f"from ipywidgets.widgets import widget as module\nwidget = module._instances[{self.model!r}]"
        answer = self.notebook.ask(f"import json\n{find}\n{more}\nprint(json.dumps({expression}))")
        try:
            return json.loads(answer)
        except json.JSONDecodeError:
            raise RuntimeError(f"{expression}: the kernel says {answer}") from None

    def controls(self) -> list[dict[str, Any]]:
        """What can be moved."""
        return self.ask("widget._spec['controls']")

    def view(self) -> dict[str, Any]:
        """Where the kernel thinks that the controls stand."""
        return self.ask("widget.view")

    def wait_for(self, moved: Callable[[dict[str, Any]], bool]) -> None:
        """Waits until the kernel's view is as wanted; fails after ten seconds."""
        end = time.monotonic() + SETTLE_SECONDS
        while not moved(self.view()):
            assert time.monotonic() < end, "the kernel did not hear of it"
            time.sleep(0.05)

    def settled(self) -> dict[str, Any]:
        """Waits until everything that is seen is what the kernel says at its view; that view.

        Raises:
            AssertionError: it is not after ten seconds.
        """
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            view, (text, readout), controls = self.ask("[widget.view, widget.shown(widget.view), widget._spec['controls']]")
            seen, stand = shown_in(self.root), self._differing(controls, view)
            if (seen, stand) == (Shown(text, readout), []):
                return view
            if time.monotonic() > end:
                assert seen == Shown(text, readout)
                assert not stand
            time.sleep(0.05)

    def _differing(self, controls: list[dict[str, Any]], view: dict[str, Any]) -> list[str]:
        """Controls that do not stand where a view says; a slider can only stand on its steps."""
        shown = [control for control in controls if control["kind"] != "play"]
        found = self.root.locator(".hl-control input, .hl-control select").evaluate_all(READ)
        return [
            f"{control['name']} stands at {value}, the kernel says {view[control['name']]}"
            for control, value in zip(shown, found, strict=True)
            if not _stands_at(view[control["name"]], value, control.get("step", 0))
        ]


def _stands_at(expected: Any, value: Any, step: float) -> bool:
    return abs(expected - value) <= step / 2 if step else expected == value


def write_notebook(path: Path, cells: Iterable[str]) -> None:
    """A notebook of code cells that has not been run."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    path.write_text(json.dumps(notebook), encoding="utf-8")
