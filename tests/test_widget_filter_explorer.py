"""The filter explorer: taps are those of the layer, in the browser too, and what its docstring promises can be found."""

import math
import re
from collections.abc import Iterator
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch

from hybridlab.layers import HyenaFilter, HyenaMixer, HyenaSizes, hyena_filter
from hybridlab.ops import long_conv
from hybridlab.state import state_nbytes
from hybridlab.widgets import FilterExplorer
from hybridlab.widgets.filter_explorer import (
    CHANNELS,
    POINTS,
    SEEDS,
    TOKENS,
    Found,
    draws,
    features_of,
    numbers,
    taps_of,
    toeplitz,
    weights,
)
from hybridlab.widgets.text import short

FIRST = FilterExplorer().view
CORNERS = [
    {},
    {"ago": 0, "channel": "1"},
    {"log2_taps": 4, "ago": 1, "channel": "4"},
    {"log2_taps": 4, "ago": 15},
    {"log2_taps": 4, "ago": 16},
    {"log2_taps": 8, "ago": 255, "frequency": 40},
    {"bands": 1, "hidden": 4, "frequency": 1},
    {"bands": 2, "fading": False, "seed": 8},
    {"slowest": 0.1, "fastest": 3},
    {"log2_taps": math.log2(121)},
]


# Each control moves alone: what the browser keeps must not outlive any of them.
ALONE = {"hidden": 32, "frequency": 15, "bands": 9, "seed": 2, "log2_taps": 6, "slowest": 2, "fastest": 0.5, "fading": False}


def random_views(count: int) -> list[dict]:
    rng = np.random.default_rng(9)
    return [
        {
            "frequency": int(rng.integers(1, 41)),
            "hidden": 4 * int(rng.integers(1, 17)),
            "bands": int(rng.integers(1, 17)),
            "seed": int(rng.integers(1, SEEDS + 1)),
            "log2_taps": float(rng.integers(16, 33)) / 4,
            "fading": bool(rng.integers(4)),
            "slowest": int(rng.integers(2, 61)) / 20,
            "fastest": int(rng.integers(2, 61)) / 20,
            "channel": str(rng.integers(1, CHANNELS + 1)),
            "ago": int(rng.integers(256)),
        }
        for _ in range(count)
    ]


@cache
def of_every_seed(**values: float) -> tuple[Found, ...]:
    return tuple(numbers(FIRST | values | {"seed": seed}) for seed in range(1, SEEDS + 1))


def band(**values: float) -> float:
    """Mean over seeds and channels."""
    return float(np.mean([found.band for found in of_every_seed(**values)]))


def reach(**values: float) -> np.ndarray:
    """Mean over seeds, channel by channel."""
    return np.mean([found.reach for found in of_every_seed(**values)], axis=0)


# ---------------------------------------------------------------- the numbers


@pytest.fixture
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def sizes_of(view: dict) -> HyenaSizes:
    sizes = HyenaSizes(taps=taps_of(view), features=features_of(view), hidden=view["hidden"])
    return sizes._replace(frequency=view["frequency"], fading=view["fading"])


@pytest.mark.usefixtures("_double")
@torch.no_grad()
def test_taps_are_those_of_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    for values in CORNERS + random_views(10):
        view = FIRST | values
        monkeypatch.setattr(hyena_filter, "FASTEST", view["fastest"])
        monkeypatch.setattr(hyena_filter, "SLOWEST", view["slowest"])
        layer = HyenaFilter(CHANNELS, sizes_of(view))
        for step, weight in zip(layer.maps, weights(view), strict=True):
            step.weight.copy_(torch.tensor(weight))
        found = numbers(view)
        np.testing.assert_allclose(found.taps, layer(taps_of(view)).numpy()[:, : taps_of(view)], rtol=0, atol=1e-11)
        np.testing.assert_array_equal(found.taps, found.network * found.windows)


def test_weights_begin_as_the_layers() -> None:
    """With the same spread; a narrower network has a part of the wider one's; a seed decides."""
    fresh = HyenaFilter(CHANNELS, HyenaSizes())
    for seed in range(1, SEEDS + 1):
        drawn = weights(FIRST | {"seed": seed})
        assert [part.shape for part in drawn] == [tuple(step.weight.shape) for step in fresh.maps]
        inner = np.concatenate([part.ravel() for part in drawn])
        assert inner.std() == pytest.approx(fresh.maps[1].weight.std().item(), rel=0.04)
        assert abs(inner.mean()) < 1e-3
    assert all((part % 2 == 1).all() for part in draws(3))
    assert np.mean(draws(1)[1] != draws(2)[1]) > 0.9
    for wide, narrow in zip(weights(FIRST), weights(FIRST | {"hidden": 8, "bands": 2}), strict=True):
        np.testing.assert_array_equal(narrow, wide[: len(narrow), : narrow.shape[1]])


def test_what_is_measured_of_a_filter() -> None:
    for values in ({}, {"log2_taps": 8, "frequency": 3, "seed": 2}):
        found = numbers(FIRST | values)
        for taps, spectrum, reach_of, band_of in zip(*found[2:], strict=True):
            waves = np.exp(-2j * np.pi * np.outer(np.arange(POINTS // 2 + 1) / POINTS, np.arange(len(taps))))
            np.testing.assert_allclose(spectrum, np.abs(waves @ taps), atol=1e-12)
            shares = [sum(taps[:count] ** 2) / sum(taps**2) for count in (reach_of - 1, reach_of)]
            assert shares[0] < 0.99 <= shares[1]
            whole = np.abs(np.fft.fft(taps, POINTS)) ** 2
            turning = np.abs(np.fft.fftfreq(POINTS))
            inside, before = (whole[turning <= band_of - step].sum() / whole.sum() for step in (0, 1 / POINTS))
            assert before < 0.9 <= inside + 1e-12


def test_the_matrix_is_the_ops_convolution() -> None:
    x = np.random.default_rng(2).normal(size=TOKENS)
    for log2_taps in (4, 7, 8):
        taps = numbers(FIRST | {"log2_taps": log2_taps}).taps[2]
        y, _ = long_conv(torch.tensor(x)[None, :, None], torch.tensor(taps)[None], backend="naive")
        np.testing.assert_allclose(toeplitz(taps) @ x, y[0, :, 0].numpy(), atol=1e-12)


def test_costs_are_those_of_the_layer() -> None:
    for channels, values in ((40, {}), (96, {"log2_taps": 5, "bands": 3, "hidden": 12})):
        widget, view = FilterExplorer(channels), FIRST | values
        with torch.device("meta"):
            layer = HyenaFilter(channels, sizes_of(view))
        taps = taps_of(view)
        assert widget.parameters(view) == (sum(part.numel() for part in layer.parameters()), channels * taps)
        mixer = HyenaMixer(channels, sizes_of(view))
        kept = state_nbytes(mixer.init_state(1, 3 * taps, dtype=torch.float32).past)
        assert f"{kept / 1024:.2f} KiB" in widget.shown(view).readout["kept at decode"]
        assert kept == 4 * channels * taps


def test_where_the_network_is_smaller() -> None:
    widget = FilterExplorer()
    for values in ({}, {"hidden": 4, "bands": 16}, {"bands": 1}):
        first = widget.smaller_from(FIRST | values)
        costs = [widget.parameters(FIRST | values | {"log2_taps": math.log2(taps)}) for taps in (first - 1, first)]
        assert [network < explicit for network, explicit in costs] == [False, True]
    assert widget.smaller_from(FIRST) == 121
    assert FilterExplorer(34).smaller_from(FIRST) is not None
    assert FilterExplorer(33).smaller_from(FIRST) is None


# ---------------------------------------------------------------- what the docstring says can be found


def test_the_sine_frequency_widens_the_band_and_not_the_length() -> None:
    bands = [band(frequency=frequency) for frequency in (5, 10, 14, 25, 40)]
    assert bands == sorted(bands)
    assert bands[-1] > 0.4  # white noise: 0.45
    np.testing.assert_allclose(reach(frequency=40), reach(frequency=5), rtol=0.06)
    for frequency in (1, 5):  # waves of the features alone: the fastest turns 15 times
        assert all(max(found.band) <= 16 / 128 for found in of_every_seed(frequency=frequency, fading=False))
    assert band(frequency=1, fading=False) == pytest.approx(band(frequency=5, fading=False), rel=0.05)


def test_fewer_features_and_a_narrower_network_calm() -> None:
    assert band(bands=4) < 0.5 * band()
    assert band(hidden=16) < 0.7 * band()


def test_the_window_sets_the_length() -> None:
    assert min(reach(fading=False)) > 0.97 * 128
    assert all(reach()[:-1] > 1.2 * reach()[1:])
    assert reach(fastest=0.6)[-1] / reach(fastest=0.3)[-1] == pytest.approx(2, rel=0.15)


def test_a_filter_of_any_length_is_one_curve() -> None:
    """Of twice the taps every second one is as before, but that the last tap is W - 1 and not W steps ago."""
    for found, longer in zip(of_every_seed(), of_every_seed(log2_taps=8), strict=True):
        for before, after in zip(found.taps, longer.taps[:, ::2], strict=True):
            assert np.abs(after - before).max() < 0.02 * np.abs(before).max()


# ---------------------------------------------------------------- what is said


def test_shown_says_how_far_how_fast_and_how_much() -> None:
    widget = FilterExplorer()
    view = FIRST | {"log2_taps": 4, "ago": 3, "channel": "3"}
    found, shown = numbers(view), widget.shown(view)
    assert shown.text == (
        f"16 taps from 33 features, width 64, sine frequency 14. Channel 3: 99 % of its energy in {found.reach[2]} taps, "
        f"90 % below {short(found.band[2])} waves a token; an input 3 steps ago weighs {short(found.taps[2, 3])}."
    )
    share = 100 * abs(found.taps[2, 3]) / np.abs(found.taps[2]).max()
    assert shown.readout == {
        "tap 3": f"{short(found.taps[2, 3])}, {short(share)} % of the largest",
        "99 % of the energy": f"in {', '.join(map(str, found.reach))} of 16 taps",
        "90 % of the energy": f"below {', '.join(map(short, found.band))} waves a token",
        "filters of 256 channels": "107.31 KiB as a network, 16.00 KiB tap by tap",
        "the network is smaller": "from 121 taps on",
        "kept at decode": "16 inputs a channel, 16.00 KiB",
    }
    assert widget.shown(view | {"ago": 0}).text.endswith(f"; the present input weighs {short(found.taps[2, 0])}.")
    assert "an input 1 step ago weighs" in widget.shown(view | {"ago": 1}).text
    assert widget.shown(view | {"ago": 16}).text.endswith("; an input 16 steps ago is out of reach.")
    assert widget.shown(view | {"ago": 16}).readout["tap 16"] == "0, after the last one"
    assert FilterExplorer(8).shown(view).readout["the network is smaller"] == "at no length"


def test_repr_is_the_sentence_and_draws_no_random_numbers() -> None:
    state = torch.get_rng_state()
    widget = FilterExplorer()
    assert repr(widget.move(seed=2)) == widget.shown(FIRST | {"seed": 2}).text
    assert repr(widget) != repr(FilterExplorer())
    assert torch.equal(torch.get_rng_state(), state)


def test_wrong_arguments_are_refused() -> None:
    for channels in (0, -1, 2.0, "4", True, None):
        with pytest.raises(ValueError, match=re.escape(f"channels must be a whole number from 1 on, got {channels!r}")):
            FilterExplorer(channels)
    with pytest.raises(ValueError, match="bands: expected a number from 1 to 16, got 17"):
        FilterExplorer().move(bands=17)
    with pytest.raises(ValueError, match=r"hidden: expected a whole number, got 4\.5"):
        FilterExplorer().move(hidden=4.5)


def test_fallback_draws_the_view() -> None:
    widget = FilterExplorer()
    view = FIRST | {"channel": "4", "ago": 5}
    axes, found = widget.figure(view).axes, numbers(view)
    for row in range(CHANNELS):
        taps, mark, dot = axes[2 * row].lines
        np.testing.assert_array_equal(taps.get_ydata(), found.taps[row])
        assert mark.get_xdata()[0] == found.reach[row] - 1
        assert list(dot.get_xydata()[0]) == [5, found.taps[row, 5]]
    np.testing.assert_array_equal(axes[-1].images[0].get_array(), toeplitz(found.taps[3]))
    assert list(axes[-1].lines[0].get_ydata()) == [6, TOKENS]
    assert widget.move(log2_taps=4, ago=200)._png().startswith(b"\x89PNG")


# ---------------------------------------------------------------- in the browser


@pytest.mark.browser
def test_browser_says_what_python_says(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = FilterExplorer(channels=1000)
    with opened(browser, widget, tmp_path) as page:
        alone = [dict(list(ALONE.items())[:count]) for count in range(len(ALONE) + 1)]
        for values in alone + CORNERS + random_views(20):
            view = FIRST | values
            if view["log2_taps"] % 0.25:
                continue  # no place of the slider
            page.move(**view)
            assert page.shown() == widget.shown(view), view


def points(path: str) -> np.ndarray:
    return np.array([pair.split() for pair in path[1:].split("L")], dtype=float)


@pytest.mark.browser
def test_curves_are_pythons_numbers(browser, tmp_path) -> None:
    from widget_pages import opened

    for values in ({}, {"log2_taps": 6.5, "frequency": 31, "seed": 5, "hidden": 20, "bands": 7, "ago": 30, "channel": "3"}):
        view = FIRST | values
        found = numbers(view)
        with opened(browser, FilterExplorer(), tmp_path) as page:
            page.move(**view)

            def drawn(part: str, *names: str, page=page) -> list:
                read = "(all, names) => all.map(node => names.map(name => node.getAttribute(name)))"
                return page.page.locator(part).evaluate_all(read, names)

            taps, spectra = drawn(".hl-taps", "d"), drawn(".hl-spectrum", "d")
            edges, held, below = drawn(".hl-window", "d"), drawn(".hl-held", "width"), drawn(".hl-below", "width")
            dots, names = drawn(".hl-dot", "cx", "cy"), drawn("text[font-weight]", "font-weight")
        length = taps_of(view)
        for row in range(CHANNELS):
            limit, middle = np.abs(found.taps[row]).max(), 114 * row + 22 + 41
            places = 330 * np.arange(length) / (length - 1)
            expected = np.stack((places, middle - 41 * found.taps[row] / limit), axis=1)
            np.testing.assert_allclose(points(taps[row][0]), expected, rtol=0, atol=1e-7)
            share = found.spectra[row] / found.spectra[row].max()
            waves = np.stack((372 + 188 * np.arange(POINTS // 2 + 1) / (POINTS // 2), middle + 41 - 82 * share), axis=1)
            curve = spectra[row][0].removesuffix("Z")
            np.testing.assert_allclose(points(curve)[:-2], waves, rtol=0, atol=1e-7)
            upper, lower = (points(edge) for edge in re.findall("M[^M]+", edges[row][0]))
            most = np.abs(found.network[row]).max() * found.windows[row] / limit
            np.testing.assert_allclose(upper[:, 1], middle - 41 * np.minimum(1, most), atol=1e-7)
            np.testing.assert_allclose(lower[:, 1] - middle, middle - upper[:, 1], atol=1e-7)
            assert float(held[row][0]) == pytest.approx(places[found.reach[row] - 1])
            assert float(below[row][0]) == pytest.approx(188 * 2 * found.band[row])
            assert [float(x) for x in dots[row]] == pytest.approx(expected[view["ago"]], abs=1e-7)
        weight = [name for (name,) in names if name != "600"]
        assert weight == ["700" if str(row + 1) == view["channel"] else "400" for row in range(CHANNELS)]


@pytest.mark.browser
def test_matrix_and_bytes(browser, tmp_path) -> None:
    from widget_pages import opened, strengths

    widget = FilterExplorer()
    for log2_taps, channel in ((7, "2"), (5, "4"), (8, "1")):
        with opened(browser, widget, tmp_path) as page:
            page.move(log2_taps=log2_taps, channel=channel)
            view = FIRST | {"log2_taps": log2_taps, "channel": channel}
            expected = toeplitz(numbers(view).taps[int(channel) - 1])
            np.testing.assert_allclose(strengths(page.pixels()), expected / np.abs(expected).max(), atol=0.5 / 255 + 1e-6)
            network, explicit = widget.parameters(view)
            bars = page.page.locator(".hl-bytes").evaluate_all("all => all.map(bar => Number(bar.getAttribute('width')))")
            np.testing.assert_allclose(bars, 360 * np.array([network, explicit, explicit]) / (256 * 256))
            assert page.page.locator(".hl-diagonal").get_attribute("d") == "M0 12L116 128"
            page.move(ago=128)
            assert page.page.locator(".hl-diagonal").get_attribute("d") == ""


@pytest.mark.browser
def test_keys_and_mouse_move_the_tap_and_the_channel(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = FilterExplorer()
    with opened(browser, widget, tmp_path) as page:
        rows, cells = page.page.locator("svg.hl-picture").first, page.page.locator(".hl-cells")
        for key, values in (
            ("ArrowRight", {"ago": 13}),
            ("ArrowDown", {"ago": 13, "channel": "3"}),
            ("ArrowDown", {"ago": 13, "channel": "4"}),
            ("ArrowDown", {"ago": 13, "channel": "4"}),
            ("ArrowUp", {"ago": 13, "channel": "3"}),
            ("ArrowLeft", {"channel": "3"}),
        ):
            rows.press(key)
            assert page.shown() == widget.shown(FIRST | values), key
        for key, ago in (("ArrowLeft", 13), ("ArrowDown", 14), ("ArrowRight", 13), ("ArrowUp", 12)):
            cells.press(key)
            assert page.shown() == widget.shown(FIRST | {"ago": ago, "channel": "3"}), key
        box = cells.bounding_box()
        page.page.mouse.move(box["x"] + box["width"] * 10.5 / TOKENS, box["y"] + box["height"] * 50.5 / TOKENS)
        assert page.shown() == widget.shown(FIRST | {"ago": 40, "channel": "3"})
        page.page.mouse.move(box["x"] + box["width"] * 90.5 / TOKENS, box["y"] + box["height"] * 50.5 / TOKENS)
        assert page.shown() == widget.shown(FIRST | {"ago": 0, "channel": "3"})  # nothing comes from what is still to come
        box = rows.bounding_box()
        page.page.mouse.move(box["x"] + box["width"] * 330 / 560 * 60 / 127, box["y"] + box["height"] * 0.06)
        assert page.shown() == widget.shown(FIRST | {"ago": 60, "channel": "3"})
        page.page.mouse.down()
        page.page.mouse.up()
        assert page.shown() == widget.shown(FIRST | {"ago": 60, "channel": "1"})
        page.page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.06)
        assert page.shown() == widget.shown(FIRST | {"ago": 60, "channel": "1"})  # spectra have no taps


@pytest.mark.browser
def test_screen_readers_hear_the_filter(browser, tmp_path) -> None:
    from widget_pages import opened

    widget = FilterExplorer()
    with opened(browser, widget, tmp_path) as page:
        page.page.get_by_role("slider", name="features of a time").press("ArrowLeft")
        expected = widget.shown(FIRST | {"bands": 15}).text
        assert "from 31 features" in expected
        assert page.page.get_by_role("slider", name="features of a time").get_attribute("aria-valuetext") == "31"
        assert page.page.get_by_role("slider", name="fastest fades in").get_attribute("aria-valuetext") == "0.3 L"
        assert page.page.get_by_role("status").text_content() == expected
        pictures = page.page.get_by_role("img").all()
        assert [picture.get_attribute("aria-label") for picture in pictures] == [expected] * 3


def overlap(one: list[float], other: list[float]) -> bool:
    """Whether two boxes (left, right, top, bottom) share more than the empty space above and below a line's letters."""
    return min(one[1], other[1]) > max(one[0], other[0]) and min(one[3], other[3]) - max(one[2], other[2]) > 3


@pytest.mark.browser
def test_no_text_lies_on_another(browser, tmp_path) -> None:
    from widget_pages import opened

    with opened(browser, FilterExplorer(), tmp_path) as page:
        for wide in (1000, 640):
            page.page.set_viewport_size({"width": wide, "height": 900})
            for values in ({}, {"log2_taps": 8, "fading": False, "frequency": 40}):
                page.move(**FIRST | values)
                boxes = page.page.locator(".hl-panel svg text:visible").evaluate_all(
                    "all => all.map(t => t.getBoundingClientRect()).map(b => [b.left, b.right, b.top, b.bottom])"
                )
                assert len(boxes) > 25
                assert not [both for both in combinations(boxes, 2) if overlap(*both)], (wide, values)
                assert max(right for _, right, *_ in boxes) <= wide
            assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
