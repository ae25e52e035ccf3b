"""Draws the README's pictures: `python docs/pictures.py`. Caches are bfloat16, recurrent states float32.

One is drawn from the account, the other is a photograph of a widget, for which Chromium must be here.
"""

import shutil
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from playwright.sync_api import sync_playwright

from hybridlab.cli.facts import BROWSERS
from hybridlab.measure import account
from hybridlab.models import from_preset
from hybridlab.widgets import CacheRace
from hybridlab.widgets.base import LivePicture

CONTEXTS = [2**power for power in range(8, 19, 2)]
# Okabe and Ito's colours, with a dash pattern each for those who do not see them.
LINES = {
    "llama-3.1-8b": ("#D55E00", "-"),
    "rwkv4-7b": ("#0072B2", "--"),
    "eagle-7b": ("#009E73", "-."),
}


def memory_picture() -> Figure:
    """Bytes that one sequence keeps against tokens read, for three models of about the same size."""
    figure = Figure(figsize=(8, 3.6), dpi=150, facecolor="white", layout="constrained")
    axes = figure.add_subplot(facecolor="white")
    for name, (colour, dashes) in LINES.items():
        model = from_preset(name, device="meta")
        mebibytes = [account(model, context=context).total_bytes / 2**20 for context in CONTEXTS]
        axes.plot(CONTEXTS, mebibytes, color=colour, linestyle=dashes, linewidth=2.5)
        axes.annotate(
            f"{name}: {_size(mebibytes[-1])}",
            (CONTEXTS[-1], mebibytes[-1]),
            (6, -3),
            textcoords="offset points",
            color=colour,
        )
    axes.set(xscale="log", yscale="log", xlabel="tokens read", ylabel="MiB that one sequence keeps")
    axes.set_xticks(CONTEXTS, ["256", "1K", "4K", "16K", "64K", "256K"], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlim(CONTEXTS[0], CONTEXTS[-1] * 20)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines["bottom"].set_bounds(CONTEXTS[0], CONTEXTS[-1])
    axes.set_title("A cache grows with every token, a state does not", loc="left")
    return figure


def _size(mebibytes: float) -> str:
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.1f} MiB"


def photograph(widget: LivePicture, path: Path) -> None:
    """A widget as a reader sees it on a light page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, BROWSERS))), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1000, "height": 700}, device_scale_factor=1.5)
        page.set_content(widget.html())
        page.locator("#picture").screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    folder = Path(__file__).parent
    FigureCanvasAgg(memory_picture()).print_png(str(folder / "memory.png"), metadata={"Software": None})
    photograph(CacheRace().move(log2_context=16), folder / "race.png")
