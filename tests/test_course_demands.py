"""What tokens demand of a memory: what is written of it, what is drawn, what is refused."""

import io

import matplotlib.image
import numpy as np
import pytest
import torch

from hybridlab.course.demands import Demands, demands

LINES = {"Ann=2": ([1, 0], 2), "Dee=1": (torch.tensor([0.6, 0.8]), 1)}
WAYS = {"value": [[0, 0], [2, 0], [2.6, 0.8]], "error": torch.tensor([[0, 0], [2.0, 0], [2, 0], [1.88, -0.16]])}


def drawn() -> Demands:
    return demands(("Ann", "Bob"), LINES, WAYS)


def test_text_has_equations_and_points():
    assert repr(drawn()).splitlines() == [
        "Ann=2: 1 Ann = 2",
        "Dee=1: 0.6 Ann + 0.8 Bob = 1",
        "value: (0, 0) -> (2, 0) -> (2.6, 0.8)",
        "error: (0, 0) -> (2, 0) -> (2, 0) -> (1.88, -0.16)",
    ]


def test_lines_are_where_the_demand_is_met_and_ways_pass_through_their_points():
    (axes,) = drawn().figure().axes
    for line, (key, value) in zip(axes.lines[:2], LINES.values(), strict=True):
        for point in (line.get_xy1(), line.get_xy2()):
            assert np.dot(point, np.asarray(key)) == pytest.approx(value)
    dots = [line.get_xydata() for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(np.concatenate(dots), np.concatenate([np.asarray(way) for way in WAYS.values()]))
    arrows = [note for note in axes.texts if note.arrow_patch is not None]
    assert (arrows[0].xyann, arrows[0].xy) == (pytest.approx((0, 0)), pytest.approx((2, 0)))
    assert len(arrows) == 4  # a write that changes nothing has none
    assert axes.get_aspect() == 1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(WAYS)


def test_names_stand_inside_the_picture_on_their_lines():
    figure = drawn().figure()
    (axes,) = figure.axes
    figure.draw_without_rendering()
    named = [note for note in axes.texts if note.get_text()]
    for box in (note.get_window_extent() for note in named):
        assert axes.bbox.x0 < box.x0 < box.x1 < axes.bbox.x1
        assert axes.bbox.y0 < box.y0 < box.y1 < axes.bbox.y1
    names = {note.get_text(): note.xy for note in named}
    assert list(names) == list(LINES)
    for name, (key, value) in LINES.items():
        assert np.dot(names[name], np.asarray(key)) == pytest.approx(value)
        assert axes.get_xlim()[0] <= names[name][0] <= axes.get_xlim()[1]
        assert axes.get_ylim()[0] <= names[name][1] <= axes.get_ylim()[1]


def test_a_notebook_gets_the_same_png_every_time_and_a_dark_page_stays_dark():
    png = drawn()._repr_png_()
    assert png == drawn()._repr_png_()
    alpha = matplotlib.image.imread(io.BytesIO(png))[..., 3]
    assert (alpha == 0).mean() > 0.5
    assert (alpha == 1).any()


@pytest.mark.parametrize(
    ("lines", "ways", "message"),
    [
        ({}, {}, "ways must be 1 to 2, got 0"),
        ({}, {name: [[0, 0], [1, 1]] for name in "abc"}, "ways must be 1 to 2, got 3"),
        ({"three": ([1, 2, 3], 1)}, WAYS, r"key of 'three' .* got \[1.0, 2.0, 3.0\]"),
        ({"zero": ([0, 0], 1)}, WAYS, "key of 'zero' must be two numbers, not both 0"),
        ({}, {"short": [[0, 0]]}, r"'short' must be \(n, 2\) .* got shape \(1, 2\)"),
        ({}, {"wide": [[0, 0, 0], [1, 1, 1]]}, r"'wide' must be .* got shape \(2, 3\)"),
    ],
)
def test_refuses_what_cannot_be_drawn(lines, ways, message):
    with pytest.raises(ValueError, match=f"^demands: .*{message}"):
        demands(("x", "y"), lines, ways)
