"""Taylor against softmax: its weights and sizes beside the course's operators, and the same numbers in the browser."""

import itertools
import math

import numpy as np
import pytest
import torch

from hybridlab.course import ledger
from hybridlab.ops import attention, taylor_attention
from hybridlab.ops.taylor_attention import feature_count
from hybridlab.widgets import TaylorSoftmax
from hybridlab.widgets.taylor_softmax import OFF, SOFTMAX, TAYLOR
from hybridlab.widgets.taylor_weights import ROOTS, polynomial, sizes, weights_of
from hybridlab.widgets.text import short


def of_ledger() -> TaylorSoftmax:
    queries = np.tile(ledger.query.numpy(), (6, 1))
    return TaylorSoftmax(queries, ledger.keys.numpy(), ledger.values.numpy(), ledger.names)


def of(tokens: int, width: int, values: int) -> TaylorSoftmax:
    rng = np.random.default_rng(tokens)
    q, k = rng.normal(size=(2, tokens, width))
    return TaylorSoftmax(q, k, rng.normal(size=(tokens, values)))


def without_weights() -> TaylorSoftmax:
    """Of order 1 the second output adds up 1 + 1 and 1 - 3."""
    return TaylorSoftmax([[1], [1], [1]], [[1], [-3], [2]], [1, 2, 3])


WIDGETS = {
    "ledger": of_ledger(),
    "one token": TaylorSoftmax([[1]], [[1]], [1]),
    "without weights": without_weights(),
    "random": of(12, 8, 2),
    "many": of(64, 64, 64),
}


# ---------------------------------------------------------------- the weights


def test_both_kernels_are_the_courses_operators() -> None:
    widget = of(9, 4, 3)
    for width, scale in itertools.product((1, 3, 4), (0.25, 1, 3.5)):
        weights = widget.weights(widget.view | {"order": 2, "width": width, "scale": scale})
        q, k, v = (torch.tensor(x)[None, :, None] for x in (scale * widget.q[:, :width], widget.k[:, :width], widget.v))
        taylor, state = taylor_attention(q, k, v, backend="naive")
        softmax, _ = attention(q, k, v)
        np.testing.assert_allclose(weights.taylor @ widget.v, taylor[0, :, 0], atol=1e-10)
        np.testing.assert_allclose(weights.softmax @ widget.v, softmax[0, :, 0], atol=1e-12)
        held = widget.sizes(widget.view | {"width": width})
        assert held.features == feature_count(width)
        assert held.state == sum(part.numel() for part in state)


def test_polynomials_are_the_first_terms_of_exp() -> None:
    s = np.linspace(-9, 9, 37)
    for order in range(5):
        np.testing.assert_allclose(polynomial(order, s), sum(s**n / math.factorial(n) for n in range(order + 1)), rtol=1e-11)
    for order, root in ROOTS.items():
        below, above = polynomial(order, np.array([root - 1e-9, root + 1e-9]))
        assert below < 0 < above
    assert min(polynomial(order, s).min() for order in (0, 2, 4)) > 0


def test_sizes_are_those_of_the_features() -> None:
    for order, width, values in [(0, 5, 2), (1, 3, 1), (2, 3, 1), (3, 4, 6), (4, 3, 2), (4, 1, 1)]:
        held = sizes(order, width, values)
        # A feature is a product of numbers of the key, one for every way to choose up to p of them.
        assert held.features == sum(1 for n in range(order + 1) for _ in itertools.product(range(width), repeat=n))
        assert held.state == held.features * (values + 1)
        assert held.longer == next(tokens for tokens in itertools.count(1) if tokens * (width + values) > held.state)


def test_a_row_whose_sum_is_zero_has_no_weights() -> None:
    weights = weights_of(np.array([[1.0, 0, 0], [1, -3, 0], [1, -3, 2]]), 1)
    assert weights.lost == (1,)
    np.testing.assert_array_equal(weights.taylor[1], 0)
    np.testing.assert_array_equal(weights.off[1], 0)
    np.testing.assert_allclose(weights.taylor[2], [2 / 3, -2 / 3, 1])
    assert weights.negative() == 2
    assert weights.lowest() == 1
    assert not weights_of(weights.logits, 2).lost


def test_of_equal_errors_the_first_is_told() -> None:
    # With two tokens one weight gains what the other loses, but for rounding.
    rng = np.random.default_rng(0)
    for logits in rng.normal(size=(50, 2, 2)):
        assert weights_of(logits, 2).worst() == (1, 0)
    equal = weights_of(np.tile(rng.normal(size=3), (3, 1)) * [[1], [0], [0]], 1)
    assert equal.worst() == (0, 0)
    assert not equal.off.any()


# ---------------------------------------------------------------- the words


def test_what_the_docstring_says_can_be_found() -> None:
    widget = of_ledger()
    assert widget.shown(widget.view).readout["output 6"] == "3.024, softmax 3.022"
    assert widget.shown(widget.view | {"scale": 8}).readout["output 6"] == "2.717, softmax 2.869"
    assert widget.shown(widget.view).readout["cache holds more from"] == "7 tokens"
    many = WIDGETS["many"]
    for order in range(1, 5):
        low, high = (many.sizes(many.view | {"order": p}).state for p in (order - 1, order))
        assert high / low == pytest.approx(64, rel=0.02)
    errors = [abs(many.weights(many.view | {"order": 2, "scale": scale}).off).max() for scale in (0.25, 0.5, 1, 2)]
    assert errors == sorted(errors)
    for order, negative in ((0, False), (1, True), (2, False), (3, True), (4, False)):
        assert (many.weights(many.view | {"order": order, "scale": 2}).negative() > 0) == negative


def test_the_ledger() -> None:
    widget = of_ledger()
    assert widget.view == {"order": 2, "scale": 1, "width": 3, "matrix": TAYLOR, "i": 6, "j": 1}
    shown = widget.shown(widget.view)
    assert repr(widget) == shown.text
    assert shown.text == (
        "Order 2, logits \u00d7 1: the worst weight is 0.005269 off, at output 3, token 1 (Ann=2); "
        "an even order is never negative. Token 1 (Ann=2) reaches output 6 with weight 0.2209, in softmax 0.2233. "
        "The state holds 26 numbers, the cache of 6 tokens 24; from 7 tokens on the cache holds more."
    )
    assert shown.readout == {
        "logit": "0.5774",
        "polynomial": "1.744, exp 1.781",
        "weight": "0.2209, softmax 0.2233",
        "output 6": "3.024, softmax 3.022",
        "lowest sum of weights": "1.744 at output 1",
        "state": "13 \u00d7 2 = 26 numbers, 104 B",
        "cache of 6 tokens": "24 numbers, 96 B",
        "cache holds more from": "7 tokens",
    }


def test_what_breaks_is_said() -> None:
    widget = without_weights().move(order=1, i=2, j=2)
    shown = widget.shown(widget.view)
    assert "output 2 has no weights, for their sum is 0; the polynomial is negative below logit -1, as 2 of 6" in shown.text
    assert "Token 2 has no weight at output 2; softmax gives 0.01799." in shown.text
    assert shown.readout["weight"] == "none, softmax 0.01799"
    assert shown.readout["output 2"] == "none, softmax 1.018"
    assert shown.readout["lowest sum of weights"] == "0 at output 2"
    assert "negative below logit -1.596, as 2 of 6" in widget.shown(widget.view | {"order": 3}).text
    assert "no logit lies below logit -1." in widget.shown(widget.view | {"order": 1, "scale": 0.25}).text
    assert "order 0 weighs all tokens alike" in widget.shown(widget.view | {"order": 0}).text
    later = widget.shown(widget.view | {"j": 3})
    assert "Token 3 comes after output 2 and cannot reach it." in later.text
    assert (later.readout["logit"], later.readout["weight"]) == ("none", "0")
    assert "every weight is softmax's;" in repr(WIDGETS["one token"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"q": np.ones((65, 1))}, r"q must be \(T, K\) with T and K from 1 to 64, got \(65, 1\)"),
        ({"q": np.ones((3, 65))}, r"q must be .* got \(3, 65\)"),
        ({"q": np.ones(3)}, r"q must be .* got \(3,\)"),
        ({"k": np.ones((3, 3))}, r"k must be \(3, 2\), got \(3, 3\)"),
        ({"v": np.ones((2, 4))}, r"v must be \(3, V\) with V from 1 to 64, got \(2, 4\)"),
        ({"v": np.ones((3, 65))}, r"v must be .* got \(3, 65\)"),
        ({"v": np.full(3, np.nan)}, "v must be finite"),
        (
            {"q": np.full((3, 2), [99, 0])},
            r"q\.k / sqrt\(K\) must be at most 80, its largest is 99",
        ),  # with its first number
        ({"names": ["a"]}, "expected 3 names, got 1"),
    ],
)
def test_wrong_arguments_are_refused(changed: dict[str, object], message: str) -> None:
    given = {"q": np.ones((3, 2)), "k": np.ones((3, 2)), "v": np.ones((3, 4))}
    with pytest.raises(ValueError, match=f"TaylorSoftmax: {message}"):
        TaylorSoftmax(**given | changed)


def test_fallback_draws_the_view() -> None:
    widget = without_weights().move(order=3, i=3, j=2, matrix=OFF)
    weights = widget.weights(widget.view)
    kernels, matrix, row, held = widget.figure(widget.view).axes
    np.testing.assert_array_equal(matrix.images[0].get_array(), weights.off)
    assert matrix.images[0].get_clim() == (-min(1, abs(weights.off).max()), min(1, abs(weights.off).max()))
    worst, entry = [(*patch.get_xy(), patch.get_width()) for patch in matrix.patches]
    assert worst == (0.5, weights.worst()[0] + 0.5, weights.worst()[0] + 1)
    assert entry == (1.5, 2.5, 1)
    s, terms = kernels.lines[1].get_data()
    np.testing.assert_allclose(terms, polynomial(3, s))
    np.testing.assert_allclose(kernels.lines[0].get_ydata(), np.exp(s))
    assert kernels.patches[0].get_width() == pytest.approx(ROOTS[3] - s[0])
    assert kernels.get_ylim() == pytest.approx((min(terms), max(np.exp(s))))
    for bars, expected in zip(row.containers, (weights.softmax, weights.taylor), strict=True):
        np.testing.assert_allclose([bar.get_height() for bar in bars], expected[2])
    assert held.lines[0].get_ydata()[0] == widget.sizes(widget.view).state
    assert held.lines[2].get_xdata()[0] == widget.sizes(widget.view).longer <= widget.longest()
    assert widget._png().startswith(b"\x89PNG")
    _, matrix, row, _ = widget.figure(widget.view | {"order": 1, "i": 2, "matrix": TAYLOR}).axes
    assert [bar.get_visible() for bar in row.containers[1]] == [False, False]
    assert matrix.get_title("left") == "Taylor's weights to 1\ndashed: a row without weights"


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


def views_of(widget: TaylorSoftmax) -> list[dict[str, object]]:
    tokens, width = widget.q.shape
    entries = {(tokens, 1), (1, tokens), ((tokens + 1) // 2, 1), (tokens, max(1, tokens // 3)), (min(2, tokens), 1)}
    return [
        {"order": order, "scale": scale, "width": keys, "i": i, "j": j}
        for keys in sorted({1, (width + 1) // 2, width})
        for scale in (0.25, 1, 1.5, 8)
        for order in range(5)
        for i, j in sorted(entries)
    ]


@pytest.mark.browser
@pytest.mark.parametrize("name", WIDGETS)
def test_browser_shows_what_python_says(name: str, browser, tmp_path) -> None:
    from widget_pages import opened

    widget = WIDGETS[name]
    views = views_of(widget)
    labels = {control.name: control.label for control in widget.controls}
    with opened(browser, widget, tmp_path) as page:
        assert page.shown() == widget.shown(widget.view)
        found = page.page.evaluate(SWEEP, [{labels[name]: value for name, value in view.items()} for view in views])
    for view, (status, terms, values) in zip(views, found, strict=True):
        shown = widget.shown(widget.view | view)
        assert (status, dict(zip(terms, values, strict=True))) == (shown.text, shown.readout), view


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "order"), [(TAYLOR, 1), (SOFTMAX, 2), (OFF, 3)])
def test_pixels_are_the_matrix(name: str, order: int, scheme: str, browser, tmp_path) -> None:
    from widget_pages import opened, strengths

    widget = WIDGETS["random"]
    weights = widget.weights(widget.view | {"order": order, "scale": 2})
    expected = {TAYLOR: weights.taylor, SOFTMAX: weights.softmax, OFF: weights.off}[name]
    most = np.abs(expected).max()
    with opened(browser, widget, tmp_path, color_scheme=scheme) as page:
        page.move(matrix=name, order=order, scale=2)
        assert (most > 1) == (name == TAYLOR)  # an odd order's weights, which are cut off at 1
        shades = expected.clip(-1, 1) / min(most, 1)
        np.testing.assert_allclose(strengths(page.pixels()), shades, atol=0.5 / 255 + 1e-9)
        assert page.page.locator(".hl-worst").get_attribute("y") == str(weights.worst()[0])
        caption = page.page.locator("figcaption").nth(1).text_content()
        beyond = f", at most {short(most)}" if most > 1 else ""
        assert caption == f"{name} to {short(min(most, 1))}{beyond}; dashed: the worst row"


def points(path: str) -> np.ndarray:
    return np.array([[float(x) for x in point.split()] for point in path.removeprefix("M").split("L")])


@pytest.mark.browser
def test_kernels_are_drawn_over_the_logits_that_occur(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = WIDGETS["random"]
    with opened(browser, widget, tmp_path) as page:
        for order, scale in [(1, 1), (3, 2), (2, 8), (3, 0.25)]:
            page.move(order=order, scale=scale)
            logits = widget.weights(widget.view | {"scale": scale}).logits[np.tri(12, dtype=bool)]
            edge = 0.04 * np.ptp(logits)  # of logits below and above 0
            s = np.linspace(logits.min() - edge, logits.max() + edge, 241)
            heights = np.exp(s), polynomial(order, s)
            curves = [points(page.page.locator(f".hl-{name}").get_attribute("d")) for name in ("exp", "polynomial")]
            low, high = min(0.0, *heights[1]), max(np.concatenate(heights))
            top, bottom = 26, 312 - 4 * (low < 0)
            for curve, values in zip(curves, heights, strict=True):
                np.testing.assert_allclose(curve[[0, -1], 0], [44, 376])
                part = (np.arcsinh(values) - np.arcsinh(low)) / (np.arcsinh(high) - np.arcsinh(low))
                np.testing.assert_allclose(curve[:, 1], bottom + part * (top - bottom), atol=0.006)
            negative = float(page.page.locator(".hl-negative").get_attribute("width"))
            expected = max(0, ROOTS.get(order, -np.inf) - s[0]) / (s[-1] - s[0]) * 332
            assert negative == pytest.approx(expected, abs=0.01)
            assert page.page.locator(".hl-logits").get_attribute("d").count("M") == logits.size


@pytest.mark.browser
def test_the_axis_of_logits_begins_or_ends_at_0_where_all_lie_on_one_side(browser, tmp_path) -> None:
    from widget_pages import opened

    most = 3**-0.5
    aside = TaylorSoftmax([[-1], [-1]], [[1], [3]], [1, 2])
    for widget, (low, high) in ((of_ledger(), (0, 1.04 * most)), (aside, (-3.12, 0))):
        kernels = widget.figure(widget.view).axes[0]
        assert kernels.get_xlim() == pytest.approx((low, high), abs=1e-12)
        with opened(browser, widget, tmp_path) as page:
            heights = points(page.page.locator(".hl-exp").get_attribute("d"))[:, 1]
            floor, ceiling = (
                min(0.0, *(polynomial(2, np.array([low, high])))),
                max(math.exp(high), polynomial(2, np.array([low]))[0]),
            )
            part = (np.arcsinh([math.exp(low), math.exp(high)]) - np.arcsinh(floor)) / (
                np.arcsinh(ceiling) - np.arcsinh(floor)
            )
            np.testing.assert_allclose(heights[[0, -1]], 312 - part * (312 - 26), atol=0.01)


@pytest.mark.browser
def test_bars_are_the_row(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = WIDGETS["random"]
    with opened(browser, widget, tmp_path) as page:
        page.move(order=3, scale=3, i=9)
        weights = widget.weights(widget.view | {"order": 3, "scale": 3})
        rows = [weights.softmax[8, :9], weights.taylor[8, :9]]
        for name, row in zip(("softmax", "taylor"), rows, strict=True):
            bars = page.page.locator(f"path.hl-{name}").get_attribute("d").split("z")[:-1]
            ends = np.array([[float(bar.split()[1].split("h")[0]), float(bar.split("V")[1].split("h")[0])] for bar in bars])
            part = (ends[:, 0] - ends[:, 1]) / (140 - 26)
            np.testing.assert_allclose(part, row / (max(0, *rows[0], *rows[1]) - min(0, *rows[1])), atol=1e-9)
    with opened(browser, without_weights(), tmp_path) as page:
        page.move(order=1, i=2)
        assert page.page.locator(".hl-warning").text_content() == "order 1 has no weights here: their sum is 0"
        assert page.page.locator("path.hl-taylor").get_attribute("visibility") == "hidden"
        assert page.page.locator("figcaption").nth(1).text_content().endswith("dashed: a row without weights")
        page.move(i=3)
        assert page.page.locator(".hl-warning").text_content() == ""
        assert page.page.locator("path.hl-taylor").get_attribute("visibility") == "visible"


@pytest.mark.browser
@pytest.mark.parametrize("name", ["ledger", "many"])
def test_state_and_cache_cross_where_it_is_said(name: str, browser, tmp_path) -> None:
    from widget_pages import opened

    widget = WIDGETS[name]
    left, right, top, bottom = 44, 344, 26, 166
    longest = math.log10(widget.longest())
    most = math.ceil(math.log10((widget.q.shape[1] + widget.v.shape[1]) * widget.longest()))
    with opened(browser, widget, tmp_path) as page:
        for order in range(5):
            page.move(order=order)
            held = widget.sizes(widget.view | {"order": order})
            mark = [float(page.page.locator(".hl-crossing").get_attribute(name)) for name in ("cx", "cy")]
            numbers = math.log10(held.per_token * held.longer)
            expected = left + math.log10(held.longer) / longest * (right - left), bottom - numbers / most * (bottom - top)
            assert mark == pytest.approx(expected)
            assert mark[0] <= right
            level = float(page.page.locator("path.hl-state").get_attribute("d").split()[1].split("H")[0])
            assert level == pytest.approx(bottom - math.log10(held.state) / most * (bottom - top))


@pytest.mark.browser
def test_keys_and_mouse_light_one_pair_everywhere(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = of_ledger()

    def said(**values: object) -> object:
        return widget.shown(widget.view | values)

    with opened(browser, widget, tmp_path) as page:
        kernels, row, held = page.page.locator("svg.hl-picture").all()
        entry, lit = page.page.locator(".hl-marks rect").last, page.page.locator(".hl-token")
        page.press(".hl-cells", "ArrowUp", "ArrowRight", "ArrowRight", "ArrowRight")
        assert page.shown() == said(i=5, j=4)
        assert [entry.get_attribute(name) for name in ("x", "y")] == ["3", "4"]
        assert float(lit.get_attribute("x")) == pytest.approx(44 + 3 * 368 / 6)
        row.press("ArrowLeft")
        assert page.shown() == said(i=5, j=3)
        for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowLeft", "ArrowRight"):
            kernels.press(key)
        assert page.shown() == said(i=5, j=3, order=3, scale=0.75)
        for key in ("ArrowDown", "ArrowLeft", "ArrowLeft", "ArrowRight"):
            held.press(key)
        assert page.shown() == said(i=5, j=3, order=2, scale=0.75, width=2)
        page.move(scale=1, width=3)
        box = row.bounding_box()
        page.page.mouse.move(box["x"] + box["width"] * (44 + 3.5 * 368 / 6) / 420, box["y"] + 20)
        assert page.shown() == said(i=5, j=4)
        box = kernels.bounding_box()
        page.page.mouse.move(box["x"] + box["width"] * 370 / 420, box["y"] + 40)
        assert page.shown() == said(i=5, j=1)  # Ann's logit is the largest
        page.page.mouse.move(box["x"] + box["width"] * 50 / 420, box["y"] + 40)
        assert page.shown() == said(i=5, j=2)  # Bob's is 0, as Cy's is
        now = page.page.locator(".hl-now")
        assert now.get_attribute("visibility") == "visible"
        page.move(j=6)
        assert now.get_attribute("visibility") == "hidden"


@pytest.mark.browser
def test_screen_readers_hear_the_numbers(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = of_ledger()
    with opened(browser, widget, tmp_path) as page:
        by_role = page.page.get_by_role
        by_role("slider", name="order").press("ArrowRight")
        by_role("slider", name="logits \u00d7").press("End")
        by_role("combobox", name="matrix").select_option(OFF)
        expected = widget.shown(widget.view | {"order": 3, "scale": 8}).text
        assert by_role("status").text_content() == expected
        pictures = by_role("img").all()
        assert [picture.get_attribute("aria-label") for picture in pictures] == [expected] * 4
        assert all(picture.get_attribute("tabindex") == "0" for picture in pictures)
