"""scan_tree: the picture is what the scan did, and a scan that is none has no picture."""

import io
from itertools import accumulate

import numpy as np
import pytest
from PIL import Image

from hybridlab.course.scan_tree import MOST_DRAWN, scan_tree
from hybridlab.widgets.palette import BLUE


def one_by_one(steps, join):
    return list(accumulate(steps, join))


def doubling(steps, join):
    reach = 1
    while reach < len(steps):
        steps = steps[:reach] + [join(old, new) for old, new in zip(steps, steps[reach:], strict=False)]
        reach *= 2
    return steps


@pytest.mark.parametrize("tokens", [1, 2, 3, 8, 13, 64])
def test_loop_takes_a_round_for_each_join(tokens):
    tree = scan_tree(one_by_one, tokens)
    assert (tree.joins, tree.rounds) == (tokens - 1, tokens - 1)


@pytest.mark.parametrize(("tokens", "joins", "rounds"), [(8, 17, 3), (9, 21, 4), (64, 321, 6)])
def test_doubling_joins_more_in_fewer_rounds(tokens, joins, rounds):
    tree = scan_tree(doubling, tokens)
    assert (tree.joins, tree.rounds) == (joins, rounds)


def test_text_tells_every_join():
    said = "doubling, 4 tokens: 5 joins in 2 rounds\n  round 1: 1\u20132 2\u20133 3\u20134\n  round 2: 1\u20133 1\u20134"
    assert repr(scan_tree(doubling, 4)) == said
    assert repr(scan_tree(doubling, 64, "a title")) == "a title, 64 tokens: 321 joins in 6 rounds"


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        pytest.param(lambda steps, join: [join(steps[0], steps[2])], "cannot join 1 and 3", id="a gap"),
        pytest.param(lambda steps, join: [join(steps[1], steps[0])], "cannot join 2 and 1", id="the wrong way round"),
        pytest.param(lambda steps, join: [join(steps[0], steps[0])], "cannot join 1 and 1", id="twice"),
        pytest.param(lambda steps, join: steps, "answer 2 is 2, expected 1\u20132", id="not from the first"),
        pytest.param(lambda steps, join: one_by_one(steps, join)[:2], "expected 3 answers, got 2", id="too few"),
    ],
)
def test_wrong_scans_are_refused(scan, message):
    with pytest.raises(ValueError, match=message):
        scan_tree(scan, 3)


def test_no_tokens():
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        scan_tree(one_by_one, 0)


def drawn(tree):
    axes = tree.figure().axes[0]
    boxes = {text.get_text(): (text.get_position(), text.get_bbox_patch().get_facecolor()) for text in axes.texts}
    lines = {tuple(line.get_xydata()[end]) for line in axes.lines for end in (0, -1)}
    return boxes, lines


def test_picture_shows_every_step_where_it_ends_and_when_it_is_known():
    tree = scan_tree(doubling, 8)
    boxes, lines = drawn(tree)
    places = {str(step): (step.last, step.round) for step in tree.joined} | {str(t): (t, 0) for t in range(1, 9)}
    assert {name: place for name, (place, _) in boxes.items()} == places
    assert lines == set(places.values())  # every line begins and ends at a step
    filled = {name for name, (_, colour) in boxes.items() if colour[:3] != (1, 1, 1)}
    assert filled == {"1", *(f"1\u2013{t}" for t in range(2, 9))}


def test_png_is_drawn_on_white_in_blue_and_is_the_same_each_time():
    first, second = (scan_tree(doubling, MOST_DRAWN)._repr_png_() for _ in range(2))
    assert first == second
    pixels = np.array(Image.open(io.BytesIO(first)).convert("RGB")).reshape(-1, 3)
    blue = [int(BLUE[i : i + 2], 16) for i in (1, 3, 5)]
    assert (pixels == 255).all(1).mean() > 0.6
    assert (pixels == blue).all(1).mean() > 0.01
    assert scan_tree(doubling, MOST_DRAWN + 1)._repr_png_() is None
