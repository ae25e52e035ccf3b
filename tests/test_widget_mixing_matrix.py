"""The mixing matrix: its numbers in Python, and the same numbers, pixels and lit paths in the browser."""

import itertools

import numpy as np
import pytest

from hybridlab.course import ledger
from hybridlab.widgets import MixingMatrix, Recurrence, recurrence
from hybridlab.widgets.mixing_matrix import MOST_TOKENS

KEYS, QUERY = ledger.keys.numpy(), ledger.query.numpy()


def fading(keep: float = 0.5) -> Recurrence:
    return recurrence(KEYS, np.full((6, 1), keep), np.tile(QUERY, (6, 1)))


def reading_first(tokens: int, memories: int) -> Recurrence:
    rng = np.random.default_rng(0)
    write, read = rng.normal(size=(2, tokens, memories))
    return recurrence(write, rng.uniform(0.5, 1, (tokens, memories)), read, now=rng.normal(size=tokens))


def with_skip(tokens: int, memories: int = 2) -> Recurrence:
    """A channel of a selective scan: each memory fades at its own rate, in steps that each token chooses."""
    rng = np.random.default_rng(7)
    B, C = rng.normal(size=(2, tokens, memories))
    steps = rng.exponential(size=(tokens, 1))
    return recurrence(steps * B, np.exp(-steps * rng.exponential(size=memories)), C, skip=np.full(tokens, 0.75))


def picture(factors: Recurrence, names: tuple[str, ...] = ()) -> MixingMatrix:
    return MixingMatrix(factors.matrix(), "a picture", names, factors)


def unrolled(factors: Recurrence, values: np.ndarray) -> np.ndarray:
    """The recurrence itself, step by step."""
    memory, outputs = np.zeros(factors.write.shape[1]), []
    for t, value in enumerate(values):
        before = memory
        memory = factors.keep[t] * memory + factors.write[t] * value
        read = factors.read[t] @ memory if factors.now is None else factors.read[t] @ before + factors.now[t] * value
        outputs.append(read if factors.skip is None else read + factors.skip[t] * value)
    return np.array(outputs)


@pytest.mark.parametrize("factors", [fading(), reading_first(1, 1), reading_first(11, 3), fading(0.0), with_skip(9)])
def test_factors_are_the_recurrence(factors: Recurrence) -> None:
    values = np.random.default_rng(1).normal(size=factors.tokens)
    np.testing.assert_allclose(factors.matrix() @ values, unrolled(factors, values), atol=1e-12)


def test_half_of_it_is_left_at_each_step() -> None:
    # What the docstring says can be found: along a row of the fading sum each step back halves the weight.
    widget = picture(recurrence(np.ones(6), np.full(6, 0.5), np.ones(6)))
    weights = [float(widget.move(i=6, j=j).shown(widget.view).readout["weight"]) for j in range(1, 7)]
    assert weights == [2.0 ** (j - 6) for j in range(1, 7)]


def test_shown_names_the_way() -> None:
    widget = picture(fading(), ledger.names)
    shown = widget.move(i=5, j=4).shown(widget.view)
    assert shown.text == "Token 4 (Dee=1) reaches output 5 with weight 0.3."
    assert shown.readout == {
        "weight": "0.3",
        "written at 4": "0.6, 0.8, 0",
        "left for output 5": "0.3, 0.4, 0",
        "read at 5": "1, 0, 0",
    }
    assert widget.move(i=3).shown(widget.view).text == "Token 4 (Dee=1) comes after output 3 and cannot reach it."


def test_a_decay_that_all_memories_share_is_one_number_a_token() -> None:
    shared = recurrence(KEYS, [0.5, 0.25, 1, 0.5, 0.5, 0.5], np.tile(QUERY, (6, 1)))
    assert shared.keep.shape == (6, 3)
    assert shared.weight(1, 0) == 0.25


def test_what_goes_beside_the_state_is_named() -> None:
    factors = with_skip(4)
    widget = picture(factors)
    now = widget.shown({"i": 3, "j": 3})
    through = float(factors.read[2] @ factors.write[2])
    assert float(now.readout["weight"]) == pytest.approx(through + 0.75, rel=1e-3)
    assert now.readout["beside the state"] == "0.75"
    assert "beside the state" not in widget.shown({"i": 3, "j": 2}).readout


def test_repr_holds_every_weight() -> None:
    lines = repr(picture(fading(), ledger.names)).splitlines()
    assert lines[1].split() == [*ledger.names]
    assert lines[-1].split() == ["out", "6", "0.03125", ".", ".", "0.15", "0.5", "."]
    assert repr(picture(reading_first(9, 2))).startswith("a picture, 9 tokens. Token 1 reaches output 9")


def test_text_does_not_show_rounding() -> None:
    matrix = np.array([[1.0, 0.0], [0.53125, 1.0]])
    texts = {repr(MixingMatrix(matrix + noise, "")) for noise in (-1e-13, 0.0, 1e-13)}
    (text,) = texts
    assert text.splitlines()[2:] == ["out 1         1        .", "out 2    0.5313        1"]


def test_wrong_factors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the recurrence gives 0.25 at output 6, token 5, the weights say 0.5"):
        MixingMatrix(
            np.tril(0.5 ** np.subtract.outer(range(6), range(6))),
            "",
            recurrence=recurrence(np.ones(6), np.where(np.arange(6) == 5, 0.25, 0.5), np.ones(6)),
        )
    with pytest.raises(ValueError, match="recurrence has 6 tokens, the weights 2"):
        MixingMatrix(np.eye(2), "", recurrence=fading())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones((2, 3)), r"weights must be \(T, T\) with T from 1 to 64, got \(2, 3\)"),
        (np.ones((0, 0)), r"got \(0, 0\)"),
        (np.ones((MOST_TOKENS + 1,) * 2), r"got \(65, 65\)"),
        (np.full((2, 2), np.nan), "weights must be finite"),
    ],
)
def test_wrong_weights_are_refused(weights: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixingMatrix(weights, "")


def test_other_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="expected 2 names, got 1"):
        MixingMatrix(np.eye(2), "", names=["Ann"])
    with pytest.raises(ValueError, match=r"got write \(6, 3\), keep \(4, 1\), read \(6, 3\)"):
        recurrence(KEYS, np.ones((4, 1)), KEYS)
    with pytest.raises(ValueError, match=r"got write \(6, 3, 1\)"):
        recurrence(KEYS[..., None], 1.0, 1.0)
    with pytest.raises(ValueError, match=r"now must be \(T,\) = \(6,\), got \(5,\)"):
        recurrence(KEYS, np.ones(6), KEYS, now=np.ones(5))
    with pytest.raises(ValueError, match=r"skip must be \(T,\) = \(6,\), got \(6, 1\)"):
        recurrence(KEYS, np.ones(6), KEYS, skip=np.ones((6, 1)))


def test_fallback_draws_the_view() -> None:
    widget = picture(fading(), ledger.names)
    axes = widget.figure({"i": 4, "j": 3}).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), widget.weights)
    assert axes.patches[0].get_xy() == (1.5, 2.5)
    written = [text.get_text() for text in axes.texts if text.get_text()]
    assert sorted(map(float, written)) == sorted(widget.weights[widget.weights != 0].tolist())


# ---------------------------------------------------------------- in the browser


@pytest.mark.browser
@pytest.mark.parametrize("factors", [fading(), reading_first(7, 1), reading_first(20, 6), with_skip(7), None])
def test_browser_shows_what_python_says(factors: Recurrence | None, browser, tmp_path) -> None:
    from widget_pages import opened

    weights = np.tril(np.random.default_rng(2).normal(size=(64, 64))) if factors is None else factors.matrix()
    widget = MixingMatrix(weights, "a picture", recurrence=factors)
    tokens = len(weights)
    views = [(tokens, 1), (1, 1), (1, tokens), (tokens, tokens), (tokens - 2, 3), (3, 2)]
    with opened(browser, widget, tmp_path) as page:
        for i, j in views:
            page.move(i=i, j=j)
            assert page.shown() == widget.shown({"i": i, "j": j})


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pixels_are_the_matrix(scheme: str, browser, tmp_path) -> None:
    from widget_pages import opened, strengths

    weights = np.tril(np.random.default_rng(3).normal(size=(64, 64)))
    with opened(browser, MixingMatrix(weights, ""), tmp_path, color_scheme=scheme) as page:
        found = strengths(page.pixels())
    np.testing.assert_allclose(found, weights / np.abs(weights).max(), atol=0.5 / 255 + 1e-9)


@pytest.mark.browser
def test_keys_and_mouse_light_the_same_entry_in_both(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = picture(fading(), ledger.names)
    with opened(browser, widget, tmp_path) as page:
        cells, light = page.page.locator(".hl-cells"), page.page.locator(".hl-marks rect")
        way = page.page.locator("figure svg:not(.hl-marks)")
        page.press(".hl-cells", "ArrowUp", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft")
        assert page.shown() == widget.shown({"i": 5, "j": 4})
        assert [light.get_attribute(name) for name in ("x", "y")] == ["3", "4"]
        assert page.page.locator(".hl-lit").text_content() == "0.3 v4"
        assert way.locator("g text").all_text_contents() == ["\u00d7 0.5"]
        page.press(".hl-cells", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp")  # one more than there are rows
        assert page.shown() == widget.shown({"i": 1, "j": 4})
        box = cells.bounding_box()
        page.page.mouse.move(box["x"] + box["width"] * 0.5 / 6, box["y"] + box["height"] * 3.5 / 6)
        assert page.shown() == widget.shown({"i": 4, "j": 1})
        page.page.locator(".hl-sum span").nth(1).hover()
        assert page.shown() == widget.shown({"i": 4, "j": 4})
        box = way.bounding_box()
        page.page.mouse.move(box["x"] + box["width"] * 1.5 / 6, box["y"] + box["height"] * 0.9)
        page.page.mouse.move(box["x"] + box["width"] * 2.5 / 6, box["y"] + box["height"] * 0.1)
        assert page.shown() == widget.shown({"i": 3, "j": 2})


@pytest.mark.browser
def test_names_and_numbers_are_as_large_as_they_can_be(browser, tmp_path) -> None:
    from widget_pages import opened

    def boxes(page, middle: str) -> list[dict[str, float]]:
        marks = page.page.locator(".hl-matrix .hl-marks > text" + middle)
        return [marks.nth(n).bounding_box() for n in range(marks.count())]

    for tokens, name, smallest in ((3, "Ann=2", 12), (8, "Ann=2", 12), (12, "Ann=2", 8), (16, "Ann=2", 6), (16, "", 12)):
        names = tuple(name or str(t + 1) for t in range(tokens))
        widget = MixingMatrix(np.tri(tokens), "a picture", names)
        with opened(browser, widget, tmp_path) as page:
            below, beside = boxes(page, "[text-anchor=middle]"), boxes(page, "[text-anchor=end]")
        assert len(below) == len(beside) == tokens
        assert all(left["x"] + left["width"] < right["x"] for left, right in itertools.pairwise(below))
        assert all(upper["y"] + upper["height"] < lower["y"] + 4 for upper, lower in itertools.pairwise(beside))
        assert min(box["height"] for box in below) >= smallest
        assert min(box["height"] for box in beside) >= 12


@pytest.mark.browser
def test_the_law_stands_above_its_way(browser, tmp_path) -> None:
    from widget_pages import opened

    factors = fading()
    widget = MixingMatrix(factors.matrix(), "a fading sum", recurrence=factors, law="h ← h/2 + k v")
    with opened(browser, widget, tmp_path) as page:
        assert page.page.locator("figcaption").all_text_contents() == ["a fading sum", "h ← h/2 + k v"]


@pytest.mark.browser
def test_screen_readers_hear_the_numbers(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = picture(fading(), ledger.names)
    with opened(browser, widget, tmp_path) as page:
        page.page.get_by_role("slider", name="output i").press("ArrowLeft")
        expected = widget.shown({"i": 5, "j": 1}).text
        assert page.page.get_by_role("status").text_content() == expected
        pictures = page.page.get_by_role("img")
        assert pictures.count() == 2
        assert [pictures.nth(n).get_attribute("aria-label") for n in range(2)] == [expected] * 2
