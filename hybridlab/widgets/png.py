"""A matplotlib figure as the bytes of a PNG, the same ones wherever it is drawn."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_png(figure: "Figure") -> bytes:
    """Without the version of matplotlib, which would change a notebook that shows the same."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    return png.getvalue()
