"""A figure that shows itself in a notebook without pyplot, which keeps every figure alive. Imports matplotlib."""

import io

from matplotlib.figure import Figure


class Picture(Figure):
    """A matplotlib figure that a notebook draws where it ends a cell."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()
