"""Who sees whom: what is written of it, what is drawn, what is refused."""

import io

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from hybridlab.course.sights import SHADES, sights

CAUSAL = torch.ones(3, 3, dtype=torch.bool).tril()
STEPS = np.array([[1, 0, 0, 0], [2, 1, 0, 0]])


def test_text_has_a_digit_for_every_pair_that_meets():
    assert repr(sights({"causal": CAUSAL, "steps": STEPS})).splitlines() == [
        "causal",
        "  1 . .",
        "  1 1 .",
        "  1 1 1",
        "steps",
        "  1 . . .",
        "  2 1 . .",
    ]


def test_cells_have_the_shade_of_their_layers_and_digits_where_there_is_more_than_one():
    one, several = sights({"causal": CAUSAL, "steps": STEPS}).figure().axes
    assert [axes.get_title() for axes in (one, several)] == ["causal", "steps"]
    assert not one.texts
    assert [(text.get_position()[0], text.get_text()) for text in several.texts] == [(0.5, "1"), (0.5, "2"), (1.5, "1")]
    mesh = several.collections[0]
    mesh.update_scalarmappable()
    alpha = mesh.to_rgba(mesh.get_array())[..., 3]
    np.testing.assert_array_equal(alpha > 0, STEPS > 0)
    assert matplotlib.colors.to_hex(mesh.to_rgba(2)) == SHADES[1].lower()
    assert several.yaxis_inverted()


def test_a_frame_closes_the_cells_on_all_four_sides():
    figure = sights({"nobody": np.zeros((3, 4), bool)}).figure()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.axes[0].get_window_extent()
    left, right, bottom, top = (round(side) for side in (box.x0, box.x1, box.y0, box.y1))
    alpha = np.asarray(canvas.buffer_rgba())[::-1, :, 3].astype(float)
    upright = [alpha[bottom + 5 : top - 5, side - 2 : side + 3].sum(1).mean() for side in (left, right)]
    level = [alpha[side - 2 : side + 3, left + 5 : right - 5].sum(0).mean() for side in (bottom, top)]
    np.testing.assert_allclose(upright + level, upright[0], rtol=0.1)


def test_queries_are_numbered_from_the_end_of_the_keys():
    (axes,) = sights({"two after two": STEPS}).figure().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["3", "4"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4"]


def test_a_notebook_gets_the_same_png_every_time_and_a_dark_page_stays_dark():
    png = sights({"causal": CAUSAL})._repr_png_()
    assert png == sights({"causal": CAUSAL})._repr_png_()
    alpha = matplotlib.image.imread(io.BytesIO(png))[..., 3]
    assert (alpha == 0).mean() > 0.5
    assert (alpha == 1).any()


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ({}, "at least one"),
        ({"row": [True, False]}, r"'row' must be a matrix .* shape \(2,\)"),
        ({"long": np.zeros((2, 25), bool)}, "up to 24 columns"),
        ({"tall": np.zeros((3, 2), bool)}, r"no more rows than those, got shape \(3, 2\)"),
        ({"empty": np.zeros((0, 2), bool)}, r"got shape \(0, 2\)"),
        ({"weights": [[0.5, 0.5]]}, "bools or whole numbers from 0 to 9, got float64"),
        ({"negative": [[-1]]}, "from -1 to -1"),
        ({"deep": [[10]]}, "from 10 to 10"),
    ],
)
def test_refuses_what_it_cannot_draw(panels, message):
    with pytest.raises(ValueError, match=message):
        sights(panels)
