"""The duality widget: one sum in every chunk size, its work counted; the same numbers, blocks and ways in the browser."""

import re

import numpy as np
import pytest
import torch

from hybridlab.course import ledger
from hybridlab.ops import retention, ssd
from hybridlab.widgets import Duality
from hybridlab.widgets.chunks import Sums, chunked, work
from hybridlab.widgets.duality import CONSTANT, DECAYS, MOST_TOKENS, NONE, PER_TOKEN
from hybridlab.widgets.text import short

QUERIES = np.tile(ledger.query.numpy(), (6, 1))


def of_ledger() -> Duality:
    return Duality(ledger.values.numpy(), np.ones(6), -np.log(2), ledger.keys.numpy(), QUERIES, ledger.names)


def given(tokens: int, states: int = 4, width: int = 3, rate: float = -0.4) -> dict[str, np.ndarray | float]:
    rng = np.random.default_rng(tokens)
    B, C = rng.normal(size=(2, tokens, states))
    return {"x": rng.normal(size=(tokens, width)), "dt": rng.exponential(size=tokens), "A": rate, "B": B, "C": C}


def of(tokens: int, states: int = 4, width: int = 3, rate: float = -0.4) -> Duality:
    return Duality(**given(tokens, states, width, rate))


WIDGETS = {
    "ledger": of_ledger(),
    "one token": of(1),
    "one number": of(5, states=1, width=1),
    "ragged": of(11),
    "forgets at once": of(7, rate=-900.0),
    "forgets nothing": of(9, rate=0.0),
    "many": of(64, states=16, width=16),
}


# ---------------------------------------------------------------- the sums


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("name", WIDGETS)
def test_the_result_stays_whatever_the_chunks(name: str, decay: str) -> None:
    widget = WIDGETS[name]
    sums = widget.sums[decay]
    expected = sums.recurrent()
    largest = np.abs(expected).max()
    np.testing.assert_allclose(sums.matrix() @ sums.x, expected, rtol=0, atol=1e-12 * largest)
    for chunk, found in enumerate(widget.found[decay], 1):
        apart = np.abs(found.inside + found.through - expected).max() / largest
        assert apart <= 1e-12
        assert widget.apart[decay][chunk - 1] == apart
        assert "the outputs are the same to 1e-12." in widget.shown(widget.view | {"chunk": chunk, "decay": decay}).text


@pytest.mark.parametrize("name", WIDGETS)
def test_the_three_decays_are_the_courses_operators(name: str) -> None:
    sums = WIDGETS[name].sums
    own = {decay: [torch.tensor(part)[None] for part in head] for decay, head in sums.items()}
    x, dt, log_decay, B, C = own[PER_TOKEN]
    rate = (log_decay / dt)[0, :1]
    output, _ = ssd(x[:, :, None], dt[..., None], rate, B[:, :, None], C[:, :, None])
    np.testing.assert_allclose(sums[PER_TOKEN].recurrent(), output[0, :, 0], atol=1e-12)
    for decay in (CONSTANT, NONE):
        x, dt, log_decay, B, C = own[decay]
        assert (dt == 1).all()
        assert (log_decay == log_decay[0, 0]).all()
        output, _ = retention(C[:, :, None], B[:, :, None], x[:, :, None], log_decay[0, :1])
        np.testing.assert_allclose(sums[decay].recurrent(), output[0, :, 0], atol=1e-12)
    assert not sums[NONE].log_decay.any()
    np.testing.assert_allclose(sums[CONSTANT].log_decay.sum(), sums[PER_TOKEN].log_decay.sum())


def test_where_a_chunk_ends_is_a_hole_in_neither_part() -> None:
    widget = WIDGETS["ragged"]
    sums = widget.sums[PER_TOKEN]
    matrix = sums.matrix()
    for chunk, found in enumerate(widget.found[PER_TOKEN], 1):
        same = np.equal.outer(np.arange(11) // chunk, np.arange(11) // chunk)
        np.testing.assert_allclose(found.inside, (matrix * same) @ sums.x, atol=1e-12)
        np.testing.assert_allclose(found.through, (matrix * ~same) @ sums.x, atol=1e-12)


def test_states_that_are_carried_are_the_recurrences() -> None:
    sums = WIDGETS["ragged"].sums[PER_TOKEN]
    state, states = np.zeros((4, 3)), []
    for x, dt, log_decay, B, _ in zip(*sums, strict=True):
        state = np.exp(log_decay) * state + np.outer(B, dt * x)
        states.append(state)
    for chunk in range(1, 12):
        ends = list(range(chunk, 11, chunk))
        found = chunked(sums, chunk).states
        assert found.shape == (len(ends), 4, 3)
        for end, carried in zip(ends, found, strict=True):
            np.testing.assert_allclose(carried, states[end - 1], atol=1e-12)


@pytest.mark.parametrize("decay", DECAYS)
def test_blocks_below_the_diagonal_have_rank_at_most_the_states(decay: str) -> None:
    matrix = of(24, states=3).sums[decay].matrix()
    for start in range(4, 24, 4):
        for block in (matrix[start : start + 4, :start], matrix[start : start + 4, :4]):
            assert np.linalg.matrix_rank(block, tol=1e-10 * np.abs(block).max()) <= 3
    assert np.linalg.matrix_rank(matrix[:4, :4]) == 4  # the mask gives a block on the diagonal its full rank


# ---------------------------------------------------------------- the work


class Counted(float):
    """A number that counts what it is multiplied with."""

    times = 0

    def __mul__(self, other: float) -> "Counted":
        Counted.times += 1
        return Counted(float(self) * float(other))

    __rmul__ = __mul__

    def __add__(self, other: float) -> "Counted":
        return Counted(float(self) + float(other))

    __radd__ = __add__


def counted(array: np.ndarray) -> np.ndarray:
    return np.array([Counted(x) for x in array.flat], dtype=object).reshape(array.shape)


@pytest.mark.parametrize(("tokens", "states", "width"), [(1, 2, 3), (6, 3, 1), (7, 2, 3), (12, 5, 2)])
def test_work_is_what_the_computation_multiplies(tokens: int, states: int, width: int) -> None:
    sums = of(tokens, states, width).sums[PER_TOKEN]
    numbers = sums._replace(x=counted(sums.x), B=counted(sums.B), C=counted(sums.C))
    for chunk in range(1, tokens + 1):
        Counted.times = 0
        found = chunked(numbers, chunk)
        cost = work(tokens, states, width, chunk)
        assert Counted.times == tokens * width + cost.multiplications  # dt x comes first
        assert cost.passes == len(found.states)
        assert cost.state_numbers == found.states.size
        lengths = [min(chunk, tokens - start) for start in range(0, tokens, chunk)]
        assert cost.block_numbers == sum(length**2 for length in lengths)
        assert cost.nbytes == 4 * (cost.block_numbers + cost.state_numbers)
        # The parts: scores, mask and sum of values; the state read, with its decay.
        assert cost.diagonal == cost.block_numbers * (states + 1 + width)
        assert cost.below == (tokens - lengths[0]) * states * (1 + width)


def test_both_ends() -> None:
    ends = [work(100, 16, 8, chunk) for chunk in (1, 100)]
    assert [cost.passes for cost in ends] == [99, 0]
    assert (ends[1].below, ends[1].state, ends[1].multiplications) == (0, 0, 100**2 * 25)
    # One token a chunk: the present token itself, then read, write and fade a state of 16 x 8.
    assert ends[0].multiplications == 100 * 25 + 99 * (16 * 9) + 99 * (16 * 9) + 98 * 16 * 8


def cheapest(tokens: int, states: int, width: int, of: str) -> int:
    costs = [getattr(work(tokens, states, width, chunk), of) for chunk in range(1, tokens + 1)]
    return 1 + costs.index(min(costs))


def test_what_the_docstring_says_can_be_found() -> None:
    widget = WIDGETS["many"]
    costs = [widget.work(chunk) for chunk in range(1, 65)]
    multiplications = [cost.multiplications for cost in costs]
    assert multiplications.index(min(multiplications)) + 1 == 4
    assert [cost.nbytes for cost in costs].index(min(cost.nbytes for cost in costs)) + 1 == 16 == (16 * 16) ** 0.5
    # Near sqrt(NP / (N + P)) and sqrt(NP) for other sizes too, the more so the longer the text.
    for tokens, states, width in ((1024, 16, 16), (4096, 64, 64), (4096, 128, 64)):
        fewest = cheapest(tokens, states, width, "multiplications")
        assert fewest == pytest.approx((states * width / (states + width)) ** 0.5, rel=0.35)
        assert 1 < fewest < cheapest(tokens, states, width, "nbytes") < tokens
        assert cheapest(tokens, states, width, "nbytes") == pytest.approx((states * width) ** 0.5, rel=0.1)
    # One entry, whatever the chunk: in a block or through states.
    shown = [widget.shown(widget.view | {"chunk": chunk, "i": 50, "j": 20}) for chunk in range(1, 65)]
    assert len({found.readout["weight"] for found in shown}) == 1
    assert len({found.readout["decay"].split(" = ")[1] for found in shown}) == 1
    assert [found.text.endswith("inside its block.") for found in shown] == [49 // q == 19 // q for q in range(1, 65)]


@pytest.mark.parametrize(("name", "value"), [("tokens", 0), ("states", 0), ("width", -1), ("chunk", 0), ("chunk", 7)])
def test_wrong_sizes_are_refused(name: str, value: int) -> None:
    sizes = {"tokens": 6, "states": 3, "width": 1, "chunk": 2} | {name: value}
    with pytest.raises(ValueError, match=f"work: {name} must be at (least 1|most tokens = 6), got {value}"):
        work(**sizes)


# ---------------------------------------------------------------- the words


def test_the_ledger_in_chunks_of_three() -> None:
    widget = of_ledger()
    assert widget.view == {"chunk": 3, "decay": PER_TOKEN, "i": 6, "j": 1}
    shown = widget.shown(widget.view)
    assert repr(widget) == shown.text
    assert shown.text == (
        "Chunk 3, 2 blocks: 126 multiplications, 1 state handed on, 84 B in between; the outputs are the same to 1e-12. "
        "Token 1 (Ann=2) reaches output 6 with weight 0.03125, through the state after token 3."
    )
    assert float(shown.readout.pop("apart from the recurrence")) < 1e-12
    assert shown.readout == {
        "weight": "0.03125",
        "C6 \u00b7 B1": "1",
        "decay": "0.25 \u00d7 0.125 = 0.03125",
        "dt1": "1",
        "output 6": "2.15 in its block + 0.0625 from the state = 2.213",
        "state after 3": "0.5, 2.5, 7",
        "multiplications": "90 in blocks + 18 below + 18 for states",
    }


@pytest.mark.parametrize(
    ("view", "end", "decay"),
    [
        ((6, 6, 6), "weight 0, inside its block.", "1, no step between"),
        ((6, 6, 5), "weight 0.5, inside its block.", "0.5"),
        ((6, 6, 1), "weight 0.03125, inside its block.", "0.5 \u00d7 0.125 across 3 steps \u00d7 0.5 = 0.03125"),
        ((1, 6, 5), "through the state after token 5.", "0.5"),
        ((1, 6, 3), "through the states after tokens 3, 4 and 5.", "0.5 \u00d7 0.5 \u00d7 0.5 = 0.125"),
        ((1, 6, 1), "through 5 states, after tokens 1 to 5.", "0.5 \u00d7 0.125 across 3 chunks \u00d7 0.5 = 0.03125"),
        ((2, 6, 1), "through the states after tokens 2 and 4.", "0.5 \u00d7 0.25 \u00d7 0.25 = 0.03125"),
        ((4, 6, 4), "through the state after token 4.", "0.25"),
        ((3, 2, 3), "comes after output 2: their entry is computed in its block, and masked.", None),
        ((3, 2, 4), "comes after output 2: their block is never computed.", None),
    ],
)
def test_ways(view: tuple[int, int, int], end: str, decay: str | None) -> None:
    widget = of_ledger()
    shown = widget.move(chunk=view[0], i=view[1], j=view[2]).shown(widget.view)
    assert shown.text.endswith(end)
    assert shown.readout.get("decay") == decay


def test_both_ends_have_their_names() -> None:
    widget = of_ledger()
    assert repr(widget.move(chunk=1)).startswith("Chunk 1, the recurrence: 102 multiplications, 5 states handed on, 84 B")
    assert repr(widget.move(chunk=6)).startswith("Chunk 6, masked attention: 180 multiplications, 0 states handed on, 144 B")


def test_what_is_apart_is_said() -> None:
    widget = of_ledger()
    widget.apart[PER_TOKEN][2] = 3e-9
    assert "the outputs are 3e-9 apart from the recurrence's." in repr(widget)


def test_rounding_is_not_shown() -> None:
    # 0.1 + 0.2 - 0.3 is 5.6e-17.
    B, C = np.array([[0.1, 0.2, -0.3]]), np.ones((1, 3))
    widget = Duality([1.0], [1.0], 0.0, B, C)
    assert widget.shown(widget.view).readout["C1 \u00b7 B1"] == "0"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.ones((65, 1))}, rf"x must be \(T, P\) with T and P from 1 to {MOST_TOKENS}, got \(65, 1\)"),
        ({"x": np.ones((3, 65))}, r"x must be .* got \(3, 65\)"),
        ({"x": np.ones((0, 2))}, r"x must be .* got \(0, 2\)"),
        ({"x": np.ones((3, 1, 1))}, r"x must be .* got \(3, 1, 1\)"),
        ({"B": np.ones((2, 4))}, r"B must be \(3, N\) with N from 1 to 64, got \(2, 4\)"),
        ({"B": np.ones((3, 65)), "C": np.ones((3, 65))}, r"B must be .* got \(3, 65\)"),
        ({"C": np.ones((3, 5))}, r"C must be \(3, 4\), got \(3, 5\)"),
        ({"dt": np.ones(4)}, r"dt must be \(3,\), got \(4,\)"),
        ({"dt": -np.ones(3)}, "dt must be at least 0, its smallest entry is -1"),
        ({"A": 0.5}, "A must be at most 0, got 0.5"),
        ({"A": -np.inf}, "A must be finite"),
        ({"x": np.full((3, 2), np.nan)}, "x must be finite"),
        ({"names": ["a"]}, "expected 3 names, got 1"),
    ],
)
def test_wrong_arguments_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"Duality: {message}"):
        Duality(**given(3) | changed)


def test_fallback_draws_the_view() -> None:
    widget = of_ledger().move(chunk=4, i=5, j=2)
    matrix, multiplications, in_between = widget.figure(widget.view).axes
    np.testing.assert_array_equal(matrix.images[0].get_array(), widget.sums[PER_TOKEN].matrix())
    *blocks, entry = [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in matrix.patches]
    assert blocks == [(0.5, 4.5, 4, 2), (0.5, 0.5, 4, 4), (4.5, 4.5, 2, 2)]
    assert not any(patch.get_clip_on() for patch in matrix.patches)  # else half of the outer lines is cut off
    assert entry == (1.5, 4.5, 1, 1)
    costs = [widget.work(chunk) for chunk in range(1, 7)]
    tops = [bar.get_y() + bar.get_height() for bar in multiplications.containers[2]]
    assert tops == [cost.multiplications for cost in costs]
    assert [bar.get_y() + bar.get_height() for bar in in_between.containers[1]] == [cost.nbytes for cost in costs]
    assert multiplications.containers[3][0].get_height() == costs[3].multiplications
    for bars in (multiplications, in_between):
        assert bars.get_xlabel() == "tokens a chunk"
        assert bars.get_ylim()[1] > max(bar.get_y() + bar.get_height() for bar in bars.patches)
    assert widget._png().startswith(b"\x89PNG")


# ---------------------------------------------------------------- in the browser

SWEEP = """
(views) => {
  const find = (label) => [...document.querySelectorAll('.hl-control')]
    .find((node) => node.querySelector('span').textContent === label).querySelector('input, select');
  const texts = (query) => [...document.querySelectorAll(query)].map((node) => node.textContent);
  return views.map((view) => {
    for (const [label, value] of Object.entries(view)) {
      const input = find(label);
      input.value = value;
      input.dispatchEvent(new Event(input.tagName === 'SELECT' ? 'change' : 'input'));
    }
    return [document.querySelector('.hl-status').textContent, texts('.hl-readout dt'), texts('.hl-readout dd')];
  });
}
"""


def entries(tokens: int) -> list[tuple[int, int]]:
    if tokens <= 7:
        return [(i, j) for i in range(1, tokens + 1) for j in range(1, tokens + 1)]
    return [(tokens, 1), (tokens, tokens), (tokens - 1, tokens), (tokens // 2, 2), (2 * tokens // 3, tokens // 3), (3, 2)]


@pytest.mark.browser
@pytest.mark.parametrize("name", WIDGETS)
def test_browser_shows_what_python_says(name: str, browser, tmp_path) -> None:
    from widget_pages import opened

    widget = WIDGETS[name]
    tokens = len(widget.names)
    views = [
        {"decay": decay, "chunk": chunk, "i": i, "j": j}
        for decay in DECAYS
        for chunk in range(1, tokens + 1)
        for i, j in entries(tokens)
    ]
    labels = {control.name: control.label for control in widget.controls if hasattr(control, "value")}
    with opened(browser, widget, tmp_path) as page:
        assert page.shown() == widget.shown(widget.view)
        found = page.page.evaluate(SWEEP, [{labels[name]: value for name, value in view.items()} for view in views])
    for view, (status, terms, values) in zip(views, found, strict=True):
        shown = widget.shown(view)
        assert (status, dict(zip(terms, values, strict=True))) == (shown.text, shown.readout), view


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("chunk", "decay"), [(1, PER_TOKEN), (5, CONSTANT), (64, NONE)])
def test_pixels_are_the_matrix_and_the_outputs(chunk: int, decay: str, scheme: str, browser, tmp_path) -> None:
    from widget_pages import opened, strengths

    widget = WIDGETS["many"]
    with opened(browser, widget, tmp_path, color_scheme=scheme) as page:
        page.move(chunk=chunk, decay=decay)
        matrix, outputs = strengths(page.pixels()), strengths(page.pixels("canvas.hl-heat >> nth=1"))
    weights, expected = widget.sums[decay].matrix(), widget.sums[decay].recurrent()
    np.testing.assert_allclose(matrix, weights / np.abs(weights).max(), atol=0.5 / 255 + 1e-9)
    np.testing.assert_allclose(outputs, expected / np.abs(expected).max(), atol=0.5 / 255 + 1e-9)


def covered(path: str, tokens: int) -> np.ndarray:
    """How often each cell lies in a rectangle of an SVG path of "M x y h w v h h w z"."""
    cells = np.zeros((tokens, tokens), dtype=int)
    for part in path.split("z")[:-1]:
        start, width, rest = part.strip().lstrip("M").split("h")[0], *part.split("h")[1].split("v")
        left, top = map(float, start.split())
        cells[int(top) : int(top + float(rest)), int(left) : int(left + float(width))] += 1
    return cells


@pytest.mark.browser
def test_blocks_tile_what_lies_on_and_below_the_diagonal(browser, tmp_path) -> None:
    from widget_pages import opened

    place = np.arange(11)
    with opened(browser, WIDGETS["ragged"], tmp_path) as page:
        for chunk in range(1, 12):
            page.move(chunk=chunk)
            diagonal, below = (
                covered(page.page.locator(f"path.hl-{name}").get_attribute("d"), 11) for name in ("diagonal", "below")
            )
            numbers = place // chunk
            np.testing.assert_array_equal(diagonal, np.equal.outer(numbers, numbers))
            np.testing.assert_array_equal(below, np.greater.outer(numbers, numbers))


@pytest.mark.browser
def test_carried_states_stand_between_the_chunks(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = of_ledger()
    with opened(browser, widget, tmp_path) as page:
        for chunk in (1, 3, 4, 6):
            page.move(chunk=chunk)
            states = widget.found[PER_TOKEN][chunk - 1].states[..., 0]
            boxes = page.page.locator("path.hl-boxes").get_attribute("d").split("z")[:-1]
            assert len(boxes) == len(states) + 1
            bars = page.page.locator("path.hl-bars").first.get_attribute("d").split("z")[:-1]
            lengths = np.array([float(bar.split("h")[1].split("v")[0]) for bar in bars]).reshape(states.shape)
            edges = [(float(box[1:].split()[0]), float(box.split("h")[1].split("v")[0])) for box in boxes]
            for at, bar in enumerate(bars):
                box = at // 3
                assert sum(edges[box]) < float(bar[1:].split()[0]) < edges[box + 1][0]
            if states.size:
                np.testing.assert_allclose(lengths / lengths.max(), states / states.max(), atol=1e-9)
                written = page.page.locator(".hl-numbers text").all_text_contents()
                assert [float(text) for text in written] == pytest.approx(states.ravel(), abs=1e-9)


@pytest.mark.browser
def test_one_product_is_lit_in_both_views(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = of_ledger()

    def view(**values: int) -> dict[str, object]:
        return widget.view | values

    with opened(browser, widget, tmp_path) as page:
        cells, entry = page.page.locator(".hl-cells").first, page.page.locator(".hl-marks rect").first
        chunks = page.page.locator("figure svg.hl-picture")
        stops = page.page.locator("path.hl-stops")
        page.press(".hl-cells", "ArrowUp", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft")
        assert page.shown() == widget.shown(view(i=5, j=3))
        assert [entry.get_attribute(name) for name in ("x", "y")] == ["2", "4"]
        assert page.page.locator(".hl-lit").text_content() == "0 x3"
        assert page.page.locator(".hl-output").get_attribute("y") == "4"
        assert stops.get_attribute("d").count("M") == 1
        page.move(chunk=1)
        assert stops.get_attribute("d").count("M") == 2
        page.move(chunk=6)
        assert stops.get_attribute("d") == ""
        assert "C" in page.page.locator("path.hl-way").get_attribute("d")
        page.move(chunk=3)
        box = cells.bounding_box()
        page.page.mouse.move(box["x"] + box["width"] * 0.5 / 6, box["y"] + box["height"] * 5.5 / 6)
        assert page.shown() == widget.shown(view(i=6, j=1))
        brackets = page.page.locator(".hl-bracket").all_text_contents()
        assert brackets == ["(0.03125 x1)", "(0.15 x4 + 0.5 x5)"]
        page.page.locator(".hl-bracket span").nth(2).hover()
        assert page.shown() == widget.shown(view(i=6, j=5))
        box = chunks.bounding_box()
        page.page.mouse.move(box["x"] + box["width"] * 0.08, box["y"] + box["height"] * 0.9)
        page.page.mouse.move(box["x"] + box["width"] * 0.62, box["y"] + box["height"] * 0.1)
        assert page.shown() == widget.shown(view(i=4, j=1))
        page.move(j=6)
        assert page.page.locator("path.hl-way").get_attribute("d") == ""


@pytest.mark.browser
def test_of_a_long_sum_only_what_is_near_is_written(browser, tmp_path) -> None:
    from widget_pages import opened

    with opened(browser, WIDGETS["many"], tmp_path) as page:
        page.move(chunk=8, i=50, j=20, decay=NONE)
        parts = page.page.locator(".hl-sum").evaluate("node => [...node.childNodes].map(child => child.textContent)")
        tokens = tokens_of(parts)
        assert tokens == [[16], [17, 18, 19, 20, 21, 22, 23, 24]]
        assert parts[:4] == ["y", "50", " = ", "\u2026"]
        assert parts[5].startswith("(\u2026 + ")
        assert parts[-1] == "\u2026"
        page.move(i=22)
        parts = page.page.locator(".hl-sum").evaluate("node => [...node.childNodes].map(child => child.textContent)")
        tokens = tokens_of(parts)
        assert tokens == [[16], [17, 18, 19, 20, 21, 22]]


@pytest.mark.browser
def test_a_sum_adds_and_subtracts(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = Duality([1, 1, 1, 1], np.ones(4), 0, [[-1], [-2], [3], [-4]], np.ones((4, 1)))
    assert widget.shown(widget.view | {"chunk": 2}).readout["output 4"] == "-1 in its block - 3 from the state = -4"
    with opened(browser, widget, tmp_path) as page:
        page.move(chunk=2)
        assert page.page.locator(".hl-sum").text_content() == "y4 = (-1 x1 - 2 x2) + (3 x3 - 4 x4)"


@pytest.mark.browser
def test_outputs_of_one_channel_have_their_numbers(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = of_ledger()
    with opened(browser, widget, tmp_path) as page:
        for decay in DECAYS:
            page.move(decay=decay)
            numbers = page.page.locator(".hl-number").all_text_contents()
            assert numbers == [short(y) for y in widget.sums[decay].recurrent()[:, 0]]
    with opened(browser, WIDGETS["ragged"], tmp_path) as page:
        assert not page.page.locator(".hl-number").count()


def tokens_of(parts: list[str]) -> list[list[int]]:
    """The tokens that are written out in each bracket."""
    return [[int(token) for token in re.findall(r"x(\d+)", part)] for part in parts if part.startswith("(")]


@pytest.mark.browser
def test_charts_are_the_work_and_move_the_chunk(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = of_ledger()
    costs = [widget.work(chunk) for chunk in range(1, 7)]
    with opened(browser, widget, tmp_path) as page:
        charts = page.page.locator(".hl-stage > div svg")
        for at, totals in enumerate(
            [[c.multiplications for c in costs], [c.nbytes for c in costs], [c.passes for c in costs]]
        ):
            heights = []
            for chunk in range(1, 7):
                page.move(chunk=chunk)
                heights.append(float(charts.nth(at).locator(".hl-chunk").get_attribute("height")))
                found = ": the least" if totals[chunk - 1] == min(totals) else ""  # nothing tells before one is there
                assert charts.nth(at).locator("text").all_text_contents() == [f"chunk {chunk}{found}"]
            expected = np.array(totals) / max(totals) * 50
            np.testing.assert_allclose(heights, np.maximum(expected, 1))
        assert page.page.locator(".hl-stage strong").all_text_contents() == ["180", "144 B", "0"]
        charts.first.press("ArrowLeft")
        charts.first.press("ArrowLeft")
        charts.first.press("ArrowRight")
        assert page.shown() == widget.shown(widget.view | {"chunk": 5})
        box = charts.nth(1).bounding_box()
        page.page.mouse.click(box["x"] + box["width"] * 1.5 / 6, box["y"] + box["height"] / 2)
        assert page.shown() == widget.shown(widget.view | {"chunk": 2})
        assert (
            page.page.get_by_role("img").first.get_attribute("aria-label") == widget.shown(widget.view | {"chunk": 2}).text
        )


def test_sums_are_read_from_lists() -> None:
    widget = Duality([1, 2], [1, 1], 0, [[1], [1]], [[1], [1]])
    assert isinstance(widget.sums[PER_TOKEN], Sums)
    np.testing.assert_allclose(widget.sums[PER_TOKEN].recurrent(), [[1], [3]])
