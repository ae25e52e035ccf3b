"""Memory under load: the answers are those of the ops and of literal loops, in the browser too, and the story is true."""

import re
from functools import cache
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from hybridlab import ops
from hybridlab.widgets import MemoryLoad
from hybridlab.widgets.base import Shown
from hybridlab.widgets.memory_load import (
    BOOKS,
    MEMORIES,
    NOT_SURE,
    PAIRS,
    VALUES,
    WIDTHS,
    Rules,
    answers,
    capacity_ends,
    likeness,
    memory_bytes,
    phone_books,
    right_of_first,
    written,
)

FIXED = ("sum", "fading", "delta", "gated")
CORNERS = [
    {},
    {"delta": True},
    {"pairs": 1},
    {"pairs": 1, "asked": 2, "width": "4", "delta": True},
    {"pairs": 1, "corrected": True, "delta": True},
    {"pairs": PAIRS, "asked": PAIRS, "width": "64", "delta": True},
    {"pairs": PAIRS, "asked": 1, "width": "4", "decay": 0.5, "delta": True},
    {"pairs": 60, "asked": 59, "width": "8", "decay": 1.0, "corrected": True, "delta": True},
    {"pairs": 30, "asked": 31, "list": False},
    {"pairs": 30, "asked": 4, "orthogonal": True, "delta": True, "gated": True, "decay": 0.95, "beta": 0.35},
    {"pairs": 16, "asked": 16, "orthogonal": True, "delta": True, "corrected": True, "beta": 0},
    {"pairs": 90, "asked": 80, "width": "64", "delta": True, "gated": True, "beta": 1.95},
    dict.fromkeys(MEMORIES, False),
]


def random_views(count: int) -> list[dict]:
    rng = np.random.default_rng(7)
    return [
        {
            "pairs": int(rng.integers(1, PAIRS + 1)),
            "asked": int(rng.integers(1, PAIRS + 1)),
            "width": str(rng.choice(WIDTHS)),
            "decay": float(rng.integers(50, 101)) / 100,
            "beta": float(rng.integers(41)) / 20,
            "corrected": bool(rng.integers(2)),
            "orthogonal": not rng.integers(4),
            **{name: bool(rng.integers(4)) for name in MEMORIES},
        }
        for _ in range(count)
    ]


@cache
def books():
    return phone_books(0)


@cache
def right(memory: str, width: int, corrected: bool = False, decay: float = 0.9) -> np.ndarray:
    return right_of_first(Rules(memory, decay, corrected), books(), width)


@cache
def held(memory: str, width: int) -> np.ndarray:
    """Which pairs are answered right when all are written, (BOOKS, PAIRS)."""
    *_, scores = written(Rules(memory, 0.9, False), books(), width)
    return answers(scores) == books().numbers


def writes(book: int, pairs: int, width: int, corrected: bool) -> tuple[np.ndarray, np.ndarray]:
    """Unit keys (T, width) and one-hot values (T, VALUES), one row for each write."""
    keys = books().keys[book, :pairs, :width] / np.linalg.norm(books().keys[book, :pairs, :width], axis=1, keepdims=True)
    numbers = books().numbers[book, :pairs]
    if corrected:
        keys = keys.repeat(2, axis=0)
        numbers = np.stack([books().slips[book, :pairs], numbers], axis=1).ravel()
    return keys, np.eye(VALUES)[numbers]


def scores_of(memory: str, book: int, pairs: int, width: int, corrected: bool, decay: float = 0.9) -> np.ndarray:
    """The widget's scores of the pairs that are written."""
    steps = written(Rules(memory, decay, corrected), books(), width)
    return next(scores[book, :pairs].copy() for n, scores in enumerate(steps, start=1) if n == pairs)


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("width", [4, 64])
@pytest.mark.parametrize("memory", FIXED)
def test_answers_are_those_of_the_state(memory: str, width: int, corrected: bool) -> None:
    keys, values = writes(3, 50, width, corrected)
    state = np.zeros((width, VALUES))
    for key, value in zip(keys, values, strict=True):
        state = 0.9 * state if memory in ("fading", "gated") else state
        state = state + np.outer(key, value - (state.T @ key if memory in ("delta", "gated") else 0))
    asked = writes(3, 50, width, False)[0]
    np.testing.assert_allclose(scores_of(memory, 3, 50, width, corrected), asked @ state, atol=1e-12)


@pytest.mark.parametrize(("memory", "decay"), [("sum", 1.0), ("fading", 0.8)])
def test_sums_are_linear_attention_of_the_ops(memory: str, decay: float) -> None:
    keys, values = (torch.tensor(x)[None, :, None] for x in writes(5, 40, 16, True))
    log_decay = torch.full_like(keys, np.log(decay))
    _, state = ops.wkv6(keys, keys, values, log_decay, torch.zeros(1, 16, dtype=torch.float64))
    expected = writes(5, 40, 16, False)[0] @ state[0, 0].numpy()
    np.testing.assert_allclose(scores_of(memory, 5, 40, 16, True, decay), expected, atol=1e-12)


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize(("beta", "decay"), [(1.0, 0.9), (0.35, 0.8), (2.0, 1.0), (0.0, 0.5)])
def test_corrections_are_those_of_the_ops(beta: float, decay: float, orthogonal: bool) -> None:
    asked, _ = writes(5, 40, 16, False)
    keys, values = writes(5, 40, 16, True)
    if orthogonal:
        asked = np.eye(16)[np.arange(40) % 16]
        keys = asked.repeat(2, axis=0)
    k, v = (torch.tensor(x)[None, :, None] for x in (keys, values))
    betas = torch.full((1, 80, 1), beta, dtype=torch.float64)
    _, corrected = ops.delta_rule(k, k, v, betas, form="recurrent")
    _, gated = ops.gated_delta_rule(k, k, v, torch.full_like(betas, np.log(decay)), betas, form="recurrent")
    for memory, state in {"delta": corrected, "gated": gated}.items():
        steps = written(Rules(memory, decay, True, beta, orthogonal), books(), 16)
        scores = next(scores[5, :40] for n, scores in enumerate(steps, start=1) if n == 40)
        np.testing.assert_allclose(scores, asked @ state[0, 0].numpy(), atol=1e-12)


@pytest.mark.parametrize("corrected", [False, True])
def test_list_is_softmax_attention_of_the_ops(corrected: bool) -> None:
    widget, width = MemoryLoad(), 32
    keys, values = (torch.tensor(x)[None, :, None] for x in writes(0, 40, width, corrected))
    _, past = ops.attention(keys, width**0.5 * keys, values)  # keys of length sqrt(width), and the op's own scale
    zero = torch.zeros(1, 1, 1, VALUES, dtype=torch.float64)
    found = widget.scores(Rules("list", 1.0, corrected), width, 40)
    for asked in (0, 7, 39):
        query = width**0.5 * torch.tensor(writes(0, 40, width, False)[0][asked])[None, None, None]
        # The query's own key comes last and is far below all others, so only the past counts.
        output, _ = ops.attention(query, -1e3 * query, zero, state=past)
        np.testing.assert_allclose(found[asked], output[0, 0, 0], atol=1e-12)


def test_likeness_is_the_cosine() -> None:
    keys = books().keys[2]
    assert np.abs(keys).max() == 127
    assert (keys % 2 == 1).all()
    unit = keys[:, :8] / np.linalg.norm(keys[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(likeness(keys, 8), unit @ unit.T, atol=1e-14)
    np.testing.assert_array_equal(np.diagonal(likeness(keys, 8)), 1.0)


def test_books_are_a_seeds_and_slips_are_wrong() -> None:
    again, other = phone_books(0), phone_books(1)
    for name, part in books()._asdict().items():
        np.testing.assert_array_equal(part, getattr(again, name))
        assert (part != getattr(other, name)).mean() > 0.8
    assert (books().slips != books().numbers).all()
    assert set(books().slips.ravel()) == set(books().numbers.ravel()) == set(range(VALUES))


def test_a_tie_is_no_answer() -> None:
    scores = np.array([[0.0, 2.0, 2.0], [0.0, 2.0, 2.0 + 1e-12], [0.0, 2e-20, 1e-20], [-1.0, -3.0, -2.0], [0.0, 0.0, 0.0]])
    assert answers(scores).tolist() == [NOT_SURE, NOT_SURE, 1, 0, NOT_SURE]


def test_right_answers_are_counted_over_all_books() -> None:
    found = right("sum", 8)
    for pairs in (1, 9, 100):
        each = [answers(scores_of("sum", b, pairs, 8, False)) == books().numbers[b, :pairs] for b in range(BOOKS)]
        assert found[pairs - 1] == np.sum(each)


def test_capacity_ends_below_nine_in_ten() -> None:
    written_pairs = BOOKS * np.arange(1, PAIRS + 1)
    just = np.ceil(0.9 * written_pairs).astype(int)
    assert capacity_ends(just) is None
    just[30] -= 1
    just[60] -= 1
    assert capacity_ends(just) == 31


def test_bytes_are_those_of_the_tensors() -> None:
    keys, values = (torch.tensor(x, dtype=torch.float32)[None, :, None] for x in writes(0, 21, 32, True))
    _, past = ops.attention(keys, keys, values)
    assert memory_bytes("list", 32, 42) == sum(x.nbytes for x in past)
    state = ops.wkv6(keys, keys, values, torch.zeros_like(keys), torch.zeros(1, 32))[1]
    assert {memory_bytes(name, 32, 42) for name in FIXED} == {state.nbytes}


# ---------------------------------------------------------------- what the docstring says can be found


def test_capacity_of_the_sum_grows_with_the_width() -> None:
    ends = [capacity_ends(right("sum", width)) for width in WIDTHS]
    assert all(1.25 < end / width < 1.8 for end, width in zip(ends, WIDTHS, strict=True))
    assert all(1.5 < after / before < 2.3 for before, after in pairwise(ends))


@pytest.mark.parametrize("width", [16, 32, 64])
def test_sum_loses_old_and_new_alike(width: int) -> None:
    old, new = held("sum", width)[:, :64].mean(), held("sum", width)[:, 64:].mean()
    assert 0.3 < old < 0.9
    assert abs(old - new) < 0.05


@pytest.mark.parametrize("width", [16, 32, 64])
def test_fading_has_the_newest_and_guesses_at_the_old(width: int) -> None:
    found = held("fading", width)
    assert found[:, -4:].all()
    assert found[:, :64].mean() < 1.5 / VALUES
    # Not because the old are weak: a state ten times as strong gives the same answers.
    *_, scores = written(Rules("fading", 0.9, False), books(), width)
    np.testing.assert_array_equal(answers(10 * scores), answers(scores))


def test_list_alone_loses_nothing_from_width_16_on() -> None:
    for width in (16, 32, 64):
        assert held("list", width).all()
        assert not any(held(name, width).all() for name in FIXED)
    assert [capacity_ends(right("list", width)) is None for width in WIDTHS] == [False, False, True, True, True]


@pytest.mark.parametrize("width", [16, 32, 64])
def test_delta_rule_answers_fewer_old_pairs_than_the_sum(width: int) -> None:
    assert held("delta", width)[:, :64].mean() < held("sum", width)[:, :64].mean() - 0.2
    assert capacity_ends(right("delta", width)) < capacity_ends(right("sum", width))


@pytest.mark.parametrize("width", WIDTHS)
def test_correction_costs_the_delta_rule_nothing(width: int) -> None:
    np.testing.assert_array_equal(right("delta", width, corrected=True), right("delta", width))
    np.testing.assert_allclose(scores_of("delta", 0, 90, width, True), scores_of("delta", 0, 90, width, False), atol=1e-13)
    for memory in ("list", "sum"):
        assert right(memory, width, corrected=True)[0] == 0  # the first name alone: a tie
        assert right(memory, width, corrected=True)[15] < 0.65 * BOOKS * 16


@pytest.mark.parametrize(
    "width", [16, pytest.param(32, marks=pytest.mark.minutes), pytest.param(64, marks=pytest.mark.minutes)]
)
def test_weak_writes_hold_more_and_correct_less(width: int) -> None:
    ends = {
        (beta, corrected): capacity_ends(right_of_first(Rules("delta", 1.0, corrected, beta), books(), width))
        for beta in (0.2, 1.0)
        for corrected in (False, True)
    }
    assert ends[0.2, False] > capacity_ends(right("sum", width)) > ends[1.0, False]
    assert ends[0.2, True] <= ends[1.0, True] / 2
    assert capacity_ends(right("gated", width)) < 0.7 * ends[1.0, False]


@pytest.mark.parametrize("width", [8, 32])
def test_orthogonal_keys_hold_a_pair_for_each_component(width: int) -> None:
    numbers = books().numbers
    for memory in MEMORIES:
        found = [scores.copy() for scores in written(Rules(memory, 0.9, False, 1.0, True), books(), width)]
        assert (answers(found[width - 1][:, :width]) == numbers[:, :width]).all()
        if memory != "delta":
            continue
        exact = np.eye(VALUES)[numbers[:, PAIRS - width :]]
        np.testing.assert_array_equal(found[-1][:, PAIRS - width :], exact)
        np.testing.assert_array_equal(found[-1][:, :width], np.roll(exact, (PAIRS - width) % width, axis=1))
    summed = right_of_first(Rules("sum", 1.0, False, 1.0, True), books(), width)
    replaced = right_of_first(Rules("delta", 1.0, False, 1.0, True), books(), width)
    assert summed[width - 1] == replaced[width - 1] == BOOKS * width
    assert summed[2 * width - 1] < 0.8 * replaced[2 * width - 1] < 0.8 * BOOKS * (1.25 * width)


# ---------------------------------------------------------------- what is said


def test_shown_says_answers_shares_ends_and_bytes() -> None:
    widget = MemoryLoad()
    view = widget.move(pairs=2, asked=2, width="64", corrected=True, delta=True, list=False).view
    number, slip = int(books().numbers[0, 1]), int(books().slips[0, 1])
    shown = widget.shown(view)
    assert list(shown.readout) == ["sum", "fading sum", "delta rule"]
    assert shown.text.startswith(f"2 pairs, keys of width 64. Pair 2 has number {number}; answers: the sum ")
    share = {name: f"{100 * right(name, 64, True)[1] / (2 * BOOKS):g} % on average" for name in FIXED}
    rest = f"2 of 2 right; {share['delta']}; under 90 % from n = 56; 4.00 KiB"
    assert shown.readout["delta rule"] == f"{number}, right: 1 against 0; {rest}"
    assert share["fading"] != share["sum"]
    assert share["fading"] in shown.readout["fading sum"]
    assert widget.move(list=True).shown(widget.view).readout["list"].endswith("; 1.25 KiB")  # 4 writes of 64 + 16 floats
    scores = widget.scores(Rules("delta", 1.0, True), 64, 2)[1]
    assert abs(scores[slip]) < 1e-12


def test_shown_knows_beta_and_the_kind_of_keys() -> None:
    shown = {name: name in ("delta", "gated") for name in MEMORIES}
    widget = MemoryLoad().move(**shown, pairs=17, beta=0.5, orthogonal=True)
    first, last = books().numbers[0, [0, 16]]
    assert first != last
    assert repr(widget).startswith("17 pairs, orthogonal keys of width 16. Pair 1 has number ")
    # Half of the first pair is written; the 17th writes half of its error in the same direction.
    assert widget.shown(widget.view).readout["delta rule"].startswith(f"{last}, wrong: 0.25 against 0.5; 16 of 17 right; ")
    faded = 0.5 * 0.9**16 / 2
    assert widget.shown(widget.view).readout["gated delta"].startswith(f"{last}, wrong: {faded:.5f}"[:-1])


def test_shown_of_what_was_never_written() -> None:
    shown = MemoryLoad().move(pairs=1, asked=9, sum=False, fading=False).shown({**MemoryLoad().view, "pairs": 1, "asked": 9})
    answer = books().numbers[0, 0]
    assert shown.text.startswith(f"1 pair, keys of width 16. Pair 9 was never written; answers: the list {answer}, the sum ")
    facts = ["1 of 1 right", "100 % on average", "90 % and more up to n = 128", "128 B"]
    assert shown.readout["list"] == "; ".join([f"{answer}, best score 1", *facts])


def test_nothing_shown_says_so() -> None:
    widget = MemoryLoad().move(**dict.fromkeys(MEMORIES, False))
    assert repr(widget).endswith("; no memory is shown.")
    assert widget.shown(widget.view).readout == {}
    assert widget._png().startswith(b"\x89PNG")


def test_repr_is_the_sentence() -> None:
    widget = MemoryLoad()
    number = books().numbers[0, 0]
    assert repr(widget) == widget.shown(widget.view).text
    assert repr(widget).startswith(f"24 pairs, keys of width 16. Pair 1 has number {number}; answers: the list {number}")


@pytest.mark.parametrize("seed", [-1, 1.0, "0", True, None])
def test_wrong_seeds_are_refused(seed: object) -> None:
    with pytest.raises(ValueError, match=f"seed must be a whole number from 0 on, got {seed!r}"):
        MemoryLoad(seed)


def test_wrong_places_are_refused() -> None:
    with pytest.raises(ValueError, match="pairs: expected a number from 1 to 128, got 129"):
        MemoryLoad().move(pairs=129)
    with pytest.raises(ValueError, match="width: expected one of '4', '8', '16', '32', '64', got '5'"):
        MemoryLoad().move(width="5")


def test_fallback_draws_the_view() -> None:
    widget = MemoryLoad()
    figure = widget.figure({**widget.view, "asked": 3, "delta": True, "gated": True})
    *bars, lines = (axes for half in figure.subfigs for axes in half.axes)
    assert [axes.get_title() for axes in bars] == [f"{label}, asked for pair 3" for label in MEMORIES.values()]
    heights = [patch.get_height() for patch in bars[1].containers[0]]
    np.testing.assert_array_equal(heights, widget.scores(Rules("sum", 1.0, False), 16, 24)[2])
    np.testing.assert_allclose(lines.lines[1].get_ydata(), 100 * right("sum", 16) / (BOOKS * np.arange(1, PAIRS + 1)))


# ---------------------------------------------------------------- in the browser


@pytest.mark.browser
def test_browser_says_what_python_says(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = MemoryLoad(seed=4)
    with opened(browser, widget, tmp_path) as page:
        for values in CORNERS + random_views(16):
            view = {**widget.view, **values}
            page.move(**view)
            assert page.shown() == widget.shown(view), view


def drawn(page, memory: str) -> tuple[np.ndarray, list[float]]:
    """Signed bar heights of a memory and how strongly each is painted."""
    rects = page.page.locator(f"g.hl-{memory} rect.hl-score")
    zero = float(page.page.locator(f"g.hl-{memory} path").first.get_attribute("d").split("H")[0].split()[1])
    parts = rects.evaluate_all(
        "all => all.map(r => ['y', 'height', 'fill-opacity'].map(name => Number(r.getAttribute(name))))"
    )
    return np.array([height * (1 if y < zero - height / 2 else -1) for y, height, _ in parts]), [ink for *_, ink in parts]


@pytest.mark.browser
@pytest.mark.parametrize("memory", MEMORIES)
def test_bars_are_the_scores(memory: str, browser, tmp_path) -> None:
    from widget_pages import opened

    widget = MemoryLoad()
    view = {
        **widget.view,
        "pairs": 70,
        "asked": 5,
        "width": "32",
        "delta": True,
        "gated": True,
        "corrected": memory == "delta",
    }
    scores = widget.scores(Rules(memory, 0.9, view["corrected"]), 32, 70)[4]
    with opened(browser, widget, tmp_path) as page:
        page.move(**view)
        bars, ink = drawn(page, memory)
        facts = widget.shown(view).readout[MEMORIES[memory]]
        said = page.page.locator(f"g.hl-{memory} text").all_text_contents()
        assert said == [MEMORIES[memory], facts.split(":")[0], facts.split("; ")[-1]]
        marks = page.page.locator(f"g.hl-{memory} .hl-right").evaluate_all("all => all.map(r => r.getAttribute('x'))")
    spread = max(0, scores.max()) - min(0, scores.min())
    np.testing.assert_allclose(bars, scores * 46 / spread, atol=1e-9)
    assert ink == [1 if v == answers(scores) else 0.4 for v in range(VALUES)]
    assert [float(x) for x in marks] == [25 * books().numbers[0, 4]]


@pytest.mark.browser
def test_lines_are_the_shares_and_strips_are_the_pairs(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = MemoryLoad()
    pairs, width = 90, 32
    with opened(browser, widget, tmp_path) as page:
        page.move(pairs=pairs, asked=40, width=str(width), delta=True, gated=True)
        curves, strips = page.page.locator("svg.hl-picture").nth(1), page.page.locator("svg.hl-picture").nth(2)
        ends = curves.locator(".hl-end").all_text_contents()
        now = float(curves.locator(".hl-now").get_attribute("d")[1:].split()[0])
        lines = {name: curves.locator(f"path.hl-{name}").get_attribute("d") for name in MEMORIES}
        cells = {name: strips.locator(f"path.hl-{name}").get_attribute("d") for name in MEMORIES}
        faint = strips.locator("path[fill-opacity]").evaluate_all("all => all.map(path => path.getAttribute('d'))")
        asked = strips.locator(".hl-asked").get_attribute("d")
    place = 42 + 2.6 * (np.arange(1, PAIRS + 1) - 0.5)
    assert now == pytest.approx(place[pairs - 1])
    assert float(re.search(r"L([\d.]+) ", asked)[1]) == pytest.approx(place[39])
    assert ends == [str(capacity_ends(right(name, width))) for name in FIXED]
    for name, lost in zip(MEMORIES, faint, strict=True):
        points = np.array([point.split() for point in lines[name][1:].split("L")], dtype=float)
        share = right(name, width) / (BOOKS * np.arange(1, PAIRS + 1))
        np.testing.assert_allclose(points, np.stack([place, 186 - share * 156], axis=1), atol=1e-9)
        starts = np.array([float(x) for x in re.findall(r"M([\d.]+) ", cells[name])])
        expected = answers(scores_of(name, 0, pairs, width, False)) == books().numbers[0, :pairs]
        np.testing.assert_allclose(starts, place[:pairs][expected] - 1.3, atol=1e-9)
        starts = np.array([float(x) for x in re.findall(r"M([\d.]+) ", lost)])
        np.testing.assert_allclose(starts, place[:pairs][~expected] - 1.3, atol=1e-9)


@pytest.mark.browser
def test_keys_and_mouse_move_pairs_and_question(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = MemoryLoad()

    def shown(**values: int) -> Shown:
        return widget.shown({**widget.view, **values})

    def across(pair: int) -> float:
        return (42 + 2.6 * (pair - 0.5)) / 460

    with opened(browser, widget, tmp_path) as page:
        curves, strips = page.page.locator("svg.hl-picture").nth(1), page.page.locator("svg.hl-picture").nth(2)
        curves.press("ArrowRight")
        strips.press("ArrowRight")
        strips.press("ArrowRight")
        assert page.shown() == shown(pairs=25, asked=3)
        curves.press("ArrowLeft")
        strips.press("ArrowLeft")
        assert page.shown() == shown(pairs=24, asked=2)
        box = strips.bounding_box()
        page.page.mouse.move(box["x"] + box["width"] * across(17), box["y"] + 10)
        assert page.shown() == shown(asked=17)
        box = curves.bounding_box()
        page.page.mouse.move(box["x"] + box["width"] * across(50), box["y"] + 50)
        assert page.shown() == shown(asked=17)  # a mouse that only passes does not write
        page.page.mouse.down()
        assert page.shown() == shown(pairs=50, asked=17)
        page.page.mouse.move(box["x"] + box["width"] * across(52), box["y"] + 50)
        page.page.mouse.up()
        assert page.shown() == shown(pairs=52, asked=17)


@pytest.mark.browser
def test_screen_readers_hear_the_answers(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = MemoryLoad()
    with opened(browser, widget, tmp_path) as page:
        page.page.get_by_role("slider", name="asked for pair").press("ArrowRight")
        expected = widget.shown({**widget.view, "asked": 2}).text
        assert page.page.get_by_role("status").text_content() == expected
        pictures = page.page.get_by_role("img")
        assert [pictures.nth(n).get_attribute("aria-label") for n in range(pictures.count())] == [expected] * 3


def overlap(one: list[float], other: list[float]) -> bool:
    """Whether two boxes (left, right, top, bottom) share more than the empty space above and below a line's letters."""
    across = min(one[1], other[1]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[2], other[2])
    return across > 0 and down > 4


@pytest.mark.browser
@pytest.mark.parametrize("wide", [1000, 640])
def test_no_text_lies_on_another(wide: int, browser, tmp_path) -> None:
    from widget_pages import opened

    with opened(browser, MemoryLoad(), tmp_path) as page:
        page.page.set_viewport_size({"width": wide, "height": 900})
        for values in [
            {"delta": True},
            {"delta": True, "gated": True, "orthogonal": True},
            {"corrected": True, "asked": 5},
            {"width": "4"},
            {"width": "64", "pairs": 128, "asked": 128},
        ]:
            page.move(**values)
            for n in range(3):
                texts = page.page.locator("svg.hl-picture").nth(n).locator("text")
                boxes = texts.evaluate_all(
                    "all => all.map(t => t.getBoundingClientRect()).map(b => [b.left, b.right, b.top, b.bottom])"
                )
                assert not [both for both in combinations(boxes, 2) if overlap(*both)], (values, n)
        assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
