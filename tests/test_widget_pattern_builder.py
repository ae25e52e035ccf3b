"""The layers of a hybrid: their sums are the account of the whole model, in Python and in the browser."""

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from hybridlab.layers import (
    GroupedAttention,
    HyenaMixer,
    Layer,
    Mamba2Mixer,
    MambaMixer,
    RGLRUBlock,
    SharedCall,
)
from hybridlab.layers.griffin_attention import GriffinAttention
from hybridlab.layers.headed_mamba_mixer import HeadedMambaMixer
from hybridlab.layers.stripedhyena_mixer import StripedHyenaMixer
from hybridlab.measure import account
from hybridlab.measure.layer_costs import VOCABULARY
from hybridlab.models import LETTERS, HybridConfig, HybridLM, from_preset
from hybridlab.widgets import PatternBuilder
from hybridlab.widgets.palette import ORANGE
from hybridlab.widgets.pattern_builder import DTYPES, MOST_LAYERS, SPELLINGS, context_of, letters_of, starts

FIRST = PatternBuilder().view
ALL = "".join(LETTERS)


def at(pattern: str, width: int = 256, tokens: int = 4096, **values: Any) -> dict[str, Any]:
    sizes = {"layers": len(pattern), "log2_width": width.bit_length() - 1, "log2_context": float(np.log2(tokens))}
    return FIRST | {"pattern": pattern} | sizes | values


def check_account(view: dict[str, Any]) -> None:
    """The sums, to the byte, and what stands beside the picture."""
    builder = PatternBuilder()
    with torch.device("meta"):
        model = HybridLM(HybridConfig(VOCABULARY, 2 ** view["log2_width"], pattern=letters_of(view)))
    report = account(model, context_of(view), view["batch"], view["dtype"])
    expected = (report.parameters, report.kv_bytes, report.state_bytes, report.flops_per_token)
    assert builder.sums(view) == expected, view
    names = ("parameters", "cache bytes", "state bytes", "FLOPs a token")
    readout = builder.shown(view).readout
    assert tuple(readout[name] for name in names) == tuple(f"{amount:,}" for amount in expected)


def test_sums_are_the_account() -> None:
    for view in (
        at(ALL, 256, 300, batch=3),
        at("VAVV", 1024, 127, dtype="float32"),
        at("HW", 512, 2049, batch=64, dtype="float16"),
        at("RRA", 256, 1, layers=7),  # the pattern ends within a repetition
    ):
        check_account(view)


@pytest.mark.minutes
def test_sums_are_the_account_for_many_patterns() -> None:
    rng = np.random.default_rng(0)
    for width in (256, 512, 1024, 2048, 4096, 8192):
        for tokens in (1, 127, 128, 129, 2047, 2048, 2049, 2**20):
            pattern = "".join(rng.choice(list(ALL), rng.integers(1, 6)))
            check_account(at(pattern, width, tokens, batch=int(rng.integers(1, 65)), dtype=str(rng.choice(DTYPES))))
    for pattern in starts().values():
        check_account(at(pattern, 512, 10_000))


LETTER_OF = {
    MambaMixer: "M",
    HeadedMambaMixer: "M",
    Mamba2Mixer: "S",
    RGLRUBlock: "G",
    HyenaMixer: "H",
    StripedHyenaMixer: "H",
    GriffinAttention: "W",
}


def letter_of(module: Layer) -> str:
    """Empty for what mixes no tokens or only holds what does."""
    if isinstance(module, GroupedAttention):
        return "A" if module.window is None else "W"
    return next((letter for kind, letter in LETTER_OF.items() if isinstance(module, kind)), "")


def letters_in(layer: Layer) -> str:
    """Those of a block that it calls first."""
    called = letters_in(layer.block) if isinstance(layer, SharedCall) else ""
    return called + "".join(letter_of(module) for module in layer.modules())


@pytest.mark.parametrize(
    "name", [name if name == "griffin-3b" else pytest.param(name, marks=pytest.mark.minutes) for name in SPELLINGS]
)
def test_starts_are_the_layers_of_the_presets(name: str) -> None:
    found = "".join(letters_in(layer) for layer in from_preset(name, device="meta").layers)
    assert starts()[name] == found
    assert PatternBuilder(name).view["layers"] == len(found) <= MOST_LAYERS


def test_what_the_docstring_says_can_be_found() -> None:
    builder = PatternBuilder()
    jamba = builder.view
    found, attention = builder.sums(jamba), builder.all_attention(jamba)
    assert Counter(letters_of(jamba)) == {"M": 28, "A": 4}
    assert 8 * found.cache == attention.cache
    assert 1.1 * attention.parameters < found.parameters < 1.2 * attention.parameters
    moved = [jamba | {"pattern": pattern} for pattern in ("AAAA" + 28 * "M", 28 * "M" + "AAAA", "AMMMMMMM")]
    assert {builder.sums(view) for view in moved} == {found}
    longer = {"log2_context": 20}
    assert builder.sums(jamba | longer).kept > 200 * found.kept
    without = jamba | {"pattern": "M"}
    assert builder.sums(without | longer).kept == builder.sums(without).kept

    def layer(letter: str, tokens: int) -> Any:
        return builder.layers(at(letter, 4096, tokens))[0]

    assert layer("M", 9).kept == layer("A", 35).kept
    assert layer("A", 259).kept < layer("S", 9).kept < layer("A", 260).kept
    assert layer("A", 25_268).flops > 2 * layer("A", 1).flops > layer("A", 24_000).flops
    assert "layer 1, attention" in builder.shown(at("A", 4096, 25_268)).readout


def test_text_of_a_repeated_word_and_of_one_that_is_not() -> None:
    builder = PatternBuilder("RRRA", 1024)
    assert repr(builder) == (
        "RRRA: 4 layers, 3 RWKV-6 time mixing, 1 attention, of width 1,024. After 4,096 tokens: cache 16.00 MiB, "
        "state 774.00 KiB, 26.18 % of what attention everywhere would keep."
    )
    builder.move(layers=8, layer=96, batch=2)
    assert repr(builder).startswith("2 x RRRA: 8 layers, 6 RWKV-6 time mixing, 2 attention, ")
    assert "After 4,096 tokens in each of 2 sequences: " in repr(builder)
    assert "layer 8, attention" in builder.shown(builder.view).readout
    assert repr(builder.move(pattern="A" * 16 + "W", layers=17, log2_context=0)).startswith(
        "AAAAAAAAAAAAAAAA W: 17 layers, "
    )
    assert repr(builder.move(layers=1)).startswith("A: 1 layer, 1 attention, of width 1,024. After 1 token in each")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RRX",), f"pattern: expected 1 to 96 of the letters {ALL}, got 'RRX'; or one of jamba-v0.1, "),
        (("",), "pattern: expected 1 to 96 "),
        (("A" * 97,), "pattern: expected 1 to 96 "),
        (("hymba-1.5b",), "pattern: .* got 'hymba-1.5b'"),
        (("A", 1000), "width: expected one of 256, .*, 8192, got 1000"),
    ],
)
def test_what_was_not_measured_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match="PatternBuilder: " + message):
        PatternBuilder(*arguments)


def test_a_view_without_letters_is_refused() -> None:
    with pytest.raises(ValueError, match=r"PatternBuilder: pattern: expected 1 to 96 of the letters .*, got 'X'"):
        PatternBuilder().move(pattern="X")


def test_fallback_draws_the_view() -> None:
    view = at("AMW", 1024, 1000, layer=2)
    builder = PatternBuilder()
    stack, sums = builder.figure(view).axes
    assert [text.get_text() for text in stack.texts] == ["A", "M", "W"]
    heights = [patch.get_height() for patch in stack.patches[1:6:2]]
    kept = np.array([layer.kept for layer in builder.layers(view)])
    np.testing.assert_allclose(heights, 0.3 * kept / kept.max())
    found, rival = builder.sums(view), builder.all_attention(view)
    widths = [patch.get_width() for patch in sums.patches]
    most = max(found.parameters, rival.parameters), rival.kept, max(found.flops, rival.flops)
    expected = [found.parameters / most[0], found.cache / most[1], found.state / most[1], found.flops / most[2]]
    np.testing.assert_allclose(widths, expected)
    marks = [line.get_xdata()[0] for line in sums.lines]
    np.testing.assert_allclose(marks, [rival.parameters / most[0], 1, rival.flops / most[2]])


# ---------------------------------------------------------------- in the browser


@pytest.mark.browser
def test_browser_adds_up_to_the_byte(browser, tmp_path) -> None:
    """Random stacks, set letter by letter as a learner would, at random sizes."""
    from widget_pages import opened

    rng = np.random.default_rng(1)
    builder = PatternBuilder()
    names = starts()
    with opened(browser, builder, tmp_path) as page:
        stack = page.page.locator("svg.hl-picture").first
        for _ in range(12):
            name = str(rng.choice(list(names)))
            page.move(pattern=names[name])
            letters, layer = names[name], int(rng.integers(1, 20))
            page.move(layer=layer)
            for letter in rng.choice(list(ALL), 3):
                stack.press(str(letter))
                letters = letters[: layer - 1] + letter + letters[layer:]
                layer += 1
            values = {"layers": int(rng.integers(1, 97)), "log2_width": int(rng.integers(8, 14))}
            values |= {"log2_context": int(rng.integers(0, 161)) / 8, "batch": int(rng.integers(1, 65))}
            values |= {"dtype": str(rng.choice(DTYPES))}
            page.move(**values)
            assert page.shown() == builder.shown({"pattern": letters, "layer": layer, **values})


@pytest.mark.browser
def test_keys_buttons_and_mouse_change_layers(browser, tmp_path) -> None:
    from widget_pages import opened

    builder = PatternBuilder("MMA", 256)
    with opened(browser, builder, tmp_path) as page:
        stack = page.page.locator("svg.hl-picture").first
        start = page.page.get_by_role("combobox", name="start from")
        started = start.locator("option:checked")

        def stands(pattern: str, layer: int) -> None:
            assert page.shown() == builder.shown(builder.view | {"pattern": pattern, "layer": layer})
            cells = page.page.locator("[data-layer] text").all_text_contents()
            assert "".join(cells) == pattern
            assert page.page.locator("[data-layer]:has(.hl-chosen)").get_attribute("data-layer") == str(layer)
            pressed = page.page.locator("[aria-pressed=true]").all_text_contents()
            assert [text[0] for text in pressed] == [pattern[layer - 1]]

        stands("MMA", 1)
        for key, pattern, layer in (
            ("ArrowLeft", "MMA", 1),
            ("ArrowRight", "MMA", 2),
            ("ArrowUp", "MSA", 2),  # the letter after M
            ("ArrowDown", "MMA", 2),
            ("ArrowRight", "MMA", 3),
            ("ArrowDown", "MMD", 3),  # before the first comes the last
            ("ArrowUp", "MMA", 3),
            ("ArrowRight", "MMA", 3),
            ("g", "MMG", 3),
            ("x", "MMG", 3),
        ):
            stack.press(key)
            stands(pattern, layer)
        page.page.locator("[data-layer='1']").click()
        stands("SMG", 1)
        page.page.get_by_role("button", name="W window attention").click()
        stands("WMG", 2)
        assert page.page.get_by_role("button", name="M Mamba \N{MULTIPLICATION SIGN} 1").count() == 1
        assert started.text_content() == "your own"
        start.select_option("zamba-7b")
        zamba = starts()["zamba-7b"]
        assert page.shown() == builder.shown(builder.view | {"pattern": zamba, "layers": len(zamba)})
        page.move(layers=2, layer=2)
        assert page.page.get_by_role("slider", name="chosen layer").get_attribute("max") == "2"
        assert started.text_content() == "your own"
        page.move(layers=len(zamba))  # what was cut off is still there
        assert started.text_content() == "zamba-7b"


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_are_as_long_as_the_numbers_say(scheme: str, browser, tmp_path) -> None:
    from widget_pages import opened

    builder = PatternBuilder("AMWHS", 1024).move(log2_context=7.5)
    found, rival, layers = builder.sums(builder.view), builder.all_attention(builder.view), builder.layers(builder.view)
    with opened(browser, builder, tmp_path, color_scheme=scheme) as page:

        def numbers(part: str, name: str) -> list[str]:
            return page.page.locator(part).evaluate_all(f"all => all.map(node => node.getAttribute('{name}'))")

        heights, fills = [float(x) for x in numbers(".hl-kept", "height")], numbers(".hl-kept", "fill")
        widths, lefts = ([float(x) for x in numbers(".hl-sum-bar", name)] for name in ("width", "x"))
        marks = [float(re.match("M([0-9.]+)", path)[1]) for path in numbers(".hl-mark", "d")]
    kept = np.array([layer.kept for layer in layers])
    np.testing.assert_allclose(heights, 15 * kept / kept.max())
    assert [fill == ORANGE for fill in fills] == [True, False, True, False, False]
    most = max(found.parameters, rival.parameters), max(found.kept, rival.kept), max(found.flops, rival.flops)
    shares = [found.parameters / most[0], found.cache / most[1], found.state / most[1], found.flops / most[2]]
    np.testing.assert_allclose(widths, 438 * np.array(shares))
    np.testing.assert_allclose(lefts, [1, 1, 1 + widths[1], 1])
    theirs = np.array([rival.parameters / most[0], rival.kept / most[1], rival.flops / most[2]])
    np.testing.assert_allclose(marks, 1 + 438 * theirs)


@pytest.mark.browser
def test_screen_readers_hear_the_model(browser, tmp_path) -> None:
    from widget_pages import opened

    builder = PatternBuilder("jamba-v0.1", 1024)
    with opened(browser, builder, tmp_path) as page:
        page.page.get_by_role("slider", name="width").press("ArrowLeft")
        expected = builder.shown(builder.view | {"log2_width": 9}).text
        assert "of width 512" in expected
        assert page.page.get_by_role("slider", name="width").get_attribute("aria-valuetext") == "512"
        assert page.page.get_by_role("combobox", name="start from").input_value() == starts()["jamba-v0.1"]
        assert page.page.get_by_role("status").text_content() == expected
        assert [picture.get_attribute("aria-label") for picture in page.page.get_by_role("img").all()] == [expected] * 2
        assert page.page.get_by_role("group", name="letter of the chosen layer").get_by_role("button").count() == len(ALL)


@pytest.mark.browser
def test_nothing_leaves_the_page(browser, tmp_path) -> None:
    from widget_pages import opened

    builder = PatternBuilder("".join(np.random.default_rng(2).choice(list(ALL), 96)), 8192).move(log2_context=20, batch=64)
    with opened(browser, builder, tmp_path) as page:
        for wide in (1000, 640, 420):
            page.page.set_viewport_size({"width": wide, "height": 900})
            assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            texts = page.page.locator(".hl-panel svg text").evaluate_all(
                "all => all.map(t => t.getBoundingClientRect().right)"
            )
            assert len(texts) == 96 + 3
            assert max(texts) <= wide
