"""Filters side by side: what is written of them, what is drawn, what is refused."""

import io

import matplotlib.image
import numpy as np
import pytest
import torch

from hybridlab.course.filters import filters

HALVES = 0.5 ** torch.arange(8.0)


def test_text_names_panels_and_curves_and_writes_six_taps():
    picture = filters({"fixed": {"decay 1/2": HALVES, "short": [1.0, -0.25]}, "other": {"third": [-1e-9]}})
    assert repr(picture).splitlines() == [
        "fixed",
        "  decay 1/2       1.0000   0.5000   0.2500   0.1250   0.0625   0.0312  ...",
        "  short           1.0000  -0.2500",
        "other",
        "  third           0.0000",
    ]


def test_every_curve_is_drawn_in_its_panel_with_its_own_dash():
    figure = filters({"left": {"a": HALVES, "b": -HALVES}, "right": {"c": [3.0, 1.0]}}).figure()
    left, right = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["left", "right"]
    named = {line.get_label(): line for axes in figure.axes for line in axes.lines if not line.get_label().startswith("_")}
    assert list(named) == ["a", "b", "c"]
    np.testing.assert_allclose(named["b"].get_ydata(), -HALVES.numpy())
    assert named["c"].axes is right
    assert named["a"].get_linestyle() != named["b"].get_linestyle()
    assert named["a"].get_linewidth() > named["b"].get_linewidth()
    assert left.get_ylim() == right.get_ylim()


def test_nothing_is_drawn_behind_the_curves_so_that_a_dark_page_stays_dark():
    picture = filters({"fixed": {"decay 1/2": HALVES}})
    alpha = matplotlib.image.imread(io.BytesIO(picture._repr_png_()))[..., 3]
    assert (alpha == 0).mean() > 0.8
    assert (alpha == 1).any()


def test_a_notebook_gets_the_same_png_every_time():
    picture = filters({"fixed": {"decay 1/2": HALVES}})
    png = picture._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert png == picture._repr_png_()


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ({}, "at least one"),
        ({"empty": {}}, "1 to 6 curves"),
        ({"full": {str(k): [1.0] for k in range(7)}}, "1 to 6 curves"),
        ({"nan": {"bad": [1.0, float("nan")]}}, "'bad' must be a row of finite numbers"),
        ({"matrix": {"bad": [[1.0]]}}, r"'bad' .* shape \(1, 1\)"),
        ({"none": {"bad": []}}, r"'bad' .* shape \(0,\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(panels, message):
    with pytest.raises(ValueError, match=message):
        filters(panels)
