"""How long a key press takes to reach the eye, in JupyterLab: each widget beside an ipywidgets `interact` with matplotlib.

    python tests/bench_widgets.py --out benchmarks/widgets

All stand in one notebook in one page and take turns, one press each a round, so that a busy moment hits all of them alike;
ratios are taken round by round. A press counts from the browser's own time stamp of the key event to the end of the first
frame whose picture differs: the picture is read at the start of each frame, and the clock is read again when that frame has
been laid out and painted. Two other clocks stand beside it: the start of the frame after that one, and what the browser
itself reports of the event (Event Timing: until the frame is presented, in steps of 8 ms, nothing below 16).
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab_notebook import OpenNotebook, write_notebook
from lab_server import LAB_COMMAND, VIEWPORT, chromium, chromium_path, running_lab
from playwright.sync_api import Locator
from widget_examples import EXAMPLES

from hybridlab.measure.machine import Machine, this_machine
from hybridlab.measure.stopwatch import Spread
from hybridlab.measure.tables import Report, Table

FORMAT = 1
KEYS = ("ArrowLeft", "ArrowRight")
WARM_UP, PRESSES = 3, 30
BURST, BURST_MILLISECONDS = 30, 25
PAUSE_SECONDS = (0.08, 0.12)  # between focus and press: random, so that presses fall anywhere within a frame
PACKAGES = ("jupyterlab", "ipywidgets", "anywidget", "matplotlib", "playwright")

RIVAL = "interact + matplotlib"
RIVAL_CELL = """
import matplotlib.pyplot as plt
from ipywidgets import interact
from matplotlib.patches import Rectangle

def redraw(i=64, j=1):
    figure, axes = plt.subplots(figsize=(4.8, 4.6))
    limit = abs(weights).max()
    axes.imshow(weights, cmap="PuOr", vmin=-limit, vmax=limit)
    axes.add_patch(Rectangle((j - 1.5, i - 1.5), 1, 1, fill=False, linewidth=2))
    axes.set(xlabel="token j", ylabel="output i", title="64 tokens")
    plt.show()

interact(redraw, i=(1, 64), j=(1, 64));
"""

# In the page: watch(root) looks at the picture at each frame; seen() tells the times of keys and of frames that differ.
RECORDER = """
() => {
  let seen = null;
  document.addEventListener('keydown', (event) => seen?.keys.push(event.timeStamp), true);
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (entry.name === 'keydown') seen?.reported.push(entry.duration);
  }).observe({type: 'event', durationThreshold: 16});

  function look(root) {
    const images = [...root.querySelectorAll('img')];
    if (!images.every((image) => image.complete && image.naturalWidth)) return null;
    const read = (canvas) => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.join();
    const canvases = [...root.querySelectorAll('canvas')].map(read);
    return [root.querySelector('.hl-stage')?.innerHTML, ...canvases, ...images.map((image) => image.src)].join();
  }

  function watch(root) {
    const mine = seen = {keys: [], frames: [], reported: []};
    let last = look(root);
    const frame = () => {
      if (seen !== mine) return;
      const now = look(root);
      if (now !== null && now !== last) {
        last = now;
        const found = {};
        mine.frames.push(found);
        const after = new MessageChannel();
        after.port1.onmessage = () => { found.painted = performance.now(); };
        after.port2.postMessage(0);
        requestAnimationFrame((start) => { found.next = start; });
      }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  async function until(quiet, patience) {
    const start = performance.now();
    const latest = () => seen.frames.at(-1)?.painted ?? -Infinity;
    const done = () => seen.frames.at(-1)?.next && performance.now() - latest() >= quiet;
    while (!done() && performance.now() - start < patience) await new Promise((next) => setTimeout(next, 10));
    return seen;
  }

  window.recorder = {watch, until};
}
"""
# How many steps a slider can go down, and up: a native one, or one of ipywidgets, which are 1 apart here.
ROOM = """
(node) => {
  const number = (name) => Number(node.getAttribute(`aria-value${name}`));
  const steps = (room) => Math.round(room / node.step);
  if (node.type === 'range') return [steps(node.value - node.min), steps(node.max - node.value)];
  return [number('now') - number('min'), number('max') - number('now')];
}
"""


@dataclass(frozen=True)
class Press:
    """Milliseconds from a key event to the end of the frame that differs, to the next one, and as the browser reports it."""

    painted: float
    next: float
    reported: float | None


@dataclass(frozen=True)
class Burst:
    """Presses in quick succession: how long after the last one the last picture came, and how many pictures were shown."""

    presses: int
    apart: float
    lag: float
    shown: int


@dataclass(frozen=True)
class Latency:
    """One contender: a widget's slider or its picture, or the rival's slider."""

    name: str
    presses: tuple[Press, ...]
    burst: Burst | None

    def milliseconds(self) -> list[float]:
        """To the end of the first frame that differs, press by press."""
        return [press.painted for press in self.presses]

    def faster_than(self, rival: "Latency") -> Spread:
        """How many times as long the rival takes, round by round."""
        pairs = zip(rival.milliseconds(), self.milliseconds(), strict=True)
        return Spread.of([theirs / mine for theirs, mine in pairs])


def p95(numbers: list[float]) -> float:
    """The number that 95 % are at or below."""
    return statistics.quantiles(numbers, n=20, method="inclusive")[-1]


@dataclass(frozen=True, repr=False)
class WidgetBenchmark(Report):
    """What a run found: contenders in the page's order, the rival last; the machine's load average before and after."""

    machine: Machine
    versions: dict[str, str]
    load: tuple[float, float]
    latencies: tuple[Latency, ...]

    def table(self) -> Table:
        """One row a contender."""
        columns = ("key pressed on", "median ms", "p95 ms", "next frame", "reported", "rival / it", "burst lag ms", "shown")
        rows = tuple(self._row(found) for found in self.latencies)
        title = f"Key press to new pixels in JupyterLab: {self.machine}"
        return Table(title, columns, rows, frozenset(columns[1:]), notes=self._notes())

    def _row(self, found: Latency) -> tuple[str, ...]:
        times = found.milliseconds()
        following = statistics.median(press.next for press in found.presses)
        return (
            found.name,
            f"{statistics.median(times):.1f}",
            f"{p95(times):.1f}",
            f"{following:.1f}",
            *self._beside(found, self.latencies[-1]),
            f"{found.burst.lag:.0f}" if found.burst else "",
            f"{found.burst.shown} of {found.burst.presses}" if found.burst else "",
        )

    def _beside(self, found: Latency, rival: Latency) -> tuple[str, str]:
        if found is rival:
            return "", ""  # the browser reports when the slider moved, not the picture
        reported = [press.reported for press in found.presses if press.reported is not None]
        said = f"{statistics.median(reported):.0f} ({len(reported)})" if reported else "all under 16"
        return said, str(found.faster_than(rival))

    def _notes(self) -> tuple[str, ...]:
        apart = statistics.median(found.burst.apart for found in self.latencies if found.burst)
        presses = len(self.latencies[-1].presses)
        return (
            f"{presses} presses each, in turns, after {WARM_UP} that do not count; rival / it: median (quartiles) of rounds",
            "median, p95: key event to the end of the first frame that differs",
            "next frame: to the start of the one after it (median)",
            "reported: by the browser, until presented, in steps of 8 ms: median (how many presses took 16 ms or more)",
            f"burst: {BURST} presses, {apart:.0f} ms apart; lag from the last of them to the last new picture",
            f"load average {self.load[0]:.1f} before and {self.load[1]:.1f} after, on {self.machine.cores} cores",
            ", ".join(f"{name} {text}" for name, text in self.versions.items()),
        )

    def markdown(self) -> str:
        """The table as a page."""
        table = self.table()
        notes = "\n".join(f"- {note}" for note in table.notes)
        return f"# {table.title}\n\n{table.markdown()}\n\n{notes}\n"

    def write(self, folder: Path) -> list[Path]:
        """Writes `<machine>.json` and `.md` into a folder that is made if need be; the two paths."""
        folder.mkdir(parents=True, exist_ok=True)
        data, page = (folder / f"{self.machine.slug}.{kind}" for kind in ("json", "md"))
        data.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")
        page.write_text(self.markdown(), encoding="utf-8")
        return [data, page]


class Contender:
    """Something that a key changes.

    Args:
        name: in the table.
        root: where its picture is looked for.
        target: what has the focus when the key is pressed.
        slider: whether the target is one, whose ends are known.
    """

    def __init__(self, name: str, root: Locator, target: Locator, slider: bool) -> None:
        self.name, self.root, self.target, self.slider = name, root, target, slider
        self.presses: list[Press] = []
        self.burst: Burst | None = None
        self._rising = True

    def press(self) -> Press:
        """One press; turns round at an end, where nothing moves."""
        for _ in range(2):
            seen = self._seen([self._next_key()], quiet=0, patience=10_000 if self.slider else 1_000)
            if seen["frames"]:
                return first_press(seen)
            self._rising = not self._rising
        raise RuntimeError(f"{self.name}: a key press changes nothing that can be seen")

    def press_many(self) -> Burst:
        """A burst of presses, to and fro where the slider is short."""
        down, up = self.target.evaluate(ROOM)
        seen = self._seen(to_and_fro(down, up, BURST), quiet=1_500, patience=20_000)
        return burst(seen)

    def _next_key(self) -> str:
        if self.slider and not self.target.evaluate(ROOM)[self._rising]:
            self._rising = not self._rising
        return KEYS[self._rising]

    def _seen(self, keys: list[str], quiet: int, patience: int) -> dict[str, Any]:
        page = self.target.page
        self.target.scroll_into_view_if_needed()
        self.target.focus()
        self.root.evaluate("(root) => window.recorder.watch(root)")
        time.sleep(random.uniform(*PAUSE_SECONDS))
        start = time.monotonic()
        for count, key in enumerate(keys):
            time.sleep(max(0.0, start + count * BURST_MILLISECONDS / 1e3 - time.monotonic()))
            page.keyboard.press(key)
        return page.evaluate("([quiet, patience]) => window.recorder.until(quiet, patience)", [quiet, patience])


def to_and_fro(down: int, up: int, count: int) -> list[str]:
    """Keys that move a slider `count` times, from where it can go `down` and `up` steps: each press changes it."""
    keys = []
    rising = up >= down
    for _ in range(count):
        if (up if rising else down) == 0:
            rising = not rising
        step = 1 if rising else -1
        down, up = down + step, up - step
        keys.append(KEYS[rising])
    return keys


def first_press(seen: dict[str, Any]) -> Press:
    """What the recorder saw of one press.

    Raises:
        RuntimeError: the picture changed before the key came, so that it is no answer to it.
    """
    (key,), frame = seen["keys"], seen["frames"][0]
    if frame["painted"] <= key:
        raise RuntimeError("the picture changed before the key was pressed")
    return Press(frame["painted"] - key, frame["next"] - key, next(iter(seen["reported"]), None))


def burst(seen: dict[str, Any]) -> Burst:
    """What the recorder saw of many presses."""
    keys, frames = seen["keys"], seen["frames"]
    apart = (keys[-1] - keys[0]) / (len(keys) - 1)
    return Burst(len(keys), apart, frames[-1]["painted"] - keys[-1], len(frames))


def contenders(notebook: OpenNotebook) -> Iterator[Contender]:
    """Each widget's first slider and its picture, where that takes keys; the rival last."""
    for widget in notebook.widgets():
        name, root = widget.kind, widget.root
        yield Contender(f"{name}: slider", root, root.locator("input[type=range]").first, True)
        picture = root.locator(".hl-picture[tabindex='0']")
        if picture.count():
            yield Contender(f"{name}: picture", root, picture.first, False)
    rival = notebook.page.locator(".widget-interact")
    yield Contender(f"{RIVAL}: slider", rival, rival.locator(".noUi-handle").first, True)


def measure(notebook: OpenNotebook, presses: int) -> tuple[Latency, ...]:
    """Rounds of one press each, then a burst on each slider."""
    notebook.page.evaluate(RECORDER)
    found = list(contenders(notebook))
    for done in range(WARM_UP + presses):
        for contender in found:
            press = contender.press()
            if done >= WARM_UP:
                contender.presses.append(press)
    return tuple(Latency(each.name, tuple(each.presses), each.press_many() if each.slider else None) for each in found)


@contextmanager
def opened() -> Iterator[tuple[OpenNotebook, dict[str, str]]]:
    """A notebook with every widget and the rival, run, and the versions of what shows it."""
    with tempfile.TemporaryDirectory(prefix="bench_widgets_") as scratch:
        folder = Path(scratch) / "notebooks"
        folder.mkdir()
        write_notebook(folder / "widgets.ipynb", [*EXAMPLES.values(), RIVAL_CELL])
        with running_lab(LAB_COMMAND, folder, Path(scratch) / "private") as lab, chromium() as browser:
            versions = {name: version(name) for name in PACKAGES} | {"chromium": browser.version}
            with OpenNotebook(browser, lab, "widgets.ipynb", viewport=VIEWPORT) as notebook:
                notebook.run_all()
                yield notebook, versions


def benchmark(presses: int = PRESSES) -> WidgetBenchmark:
    """Starts JupyterLab and Chromium, and measures."""
    before = os.getloadavg()[0]
    with opened() as (notebook, versions):
        latencies = measure(notebook, presses)
    return WidgetBenchmark(this_machine(), versions, (before, os.getloadavg()[0]), latencies)


def main() -> None:
    """Prints the table and writes it."""
    parser = argparse.ArgumentParser(description="Time key presses on the widgets in JupyterLab.")
    parser.add_argument("--out", type=Path, help="folder to write JSON and Markdown to")
    parser.add_argument("--presses", type=int, default=PRESSES)
    given = parser.parse_args()
    if chromium_path() is None:
        print("The widgets are not timed: there is no Chromium on this machine. Install Debian's `chromium`.")
        return
    found = benchmark(given.presses)
    print(found)
    for path in found.write(given.out) if given.out else ():
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
