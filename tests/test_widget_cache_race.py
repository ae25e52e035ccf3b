"""The race of cache and state: to the byte what the account says, in Python and in the browser."""

import functools
import json
import math
import re
from typing import Any

import numpy as np
import pytest
import torch

from hybridlab.measure import account, memory
from hybridlab.measure.flops import Flops
from hybridlab.measure.preset_footprints import AS_BUILT, SHARINGS
from hybridlab.models import PRESETS, Decoder, DecoderConfig, HybridConfig, HybridLM, LanguageModel, from_preset
from hybridlab.widgets import CacheRace
from hybridlab.widgets.cache_race import CEILING, GIB, HIGH, LOW, NOBODY, SEATS, STEPS, context_of

MHA, GQA, MQA = SHARINGS
WINDOW = 300  # more than the 256 tokens at which the race starts


@functools.cache
def built(preset: str) -> LanguageModel:
    return from_preset(preset, device="meta")


def tiny(pattern: str) -> LanguageModel:
    return HybridLM(HybridConfig(41, 24, pattern=pattern, head_width=8, window=WINDOW))


MODELS = {"llama": built("llama-3.1-8b"), "RW": tiny("RW"), "RRRA": tiny("RRRA")}
NAMES = ("rwkv4-169m", *MODELS)  # who sits in the first seats


def without(*names: str) -> dict[str, str]:
    """Moves some of them out of the race."""
    return {SEATS[NAMES.index(name)]: NOBODY for name in names}


@pytest.fixture(scope="module")
def race() -> CacheRace:
    return CacheRace(["rwkv4-169m", *MODELS.items()])


@pytest.fixture(autouse=True)
def _no_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes do not depend on what is slow in the account."""
    monkeypatch.setattr(memory, "count_flops", lambda model, context: Flops(0, {}))


@pytest.fixture(autouse=True)
def _back_to_the_start(race: CacheRace) -> None:
    race.view = {control.name: control.value for control in race.controls if hasattr(control, "value")}


def at(context: int, **values: Any) -> dict[str, Any]:
    return {"log2_context": math.log2(context), **values}


def accounted(name: str, view: dict[str, Any]) -> int:
    report = account(MODELS.get(name) or built(name), context_of(view), view["batch"], view["dtype"])
    return report.total_bytes + (report.weight_bytes if view["weights"] else 0)


VIEWS = [
    at(257),
    at(WINDOW - 1, batch=3),
    at(WINDOW, batch=64, dtype="float32"),
    at(20_480, batch=32),  # llama fills 80 GiB to the last byte
    at(12_345, batch=7, dtype="float16", weights=True),
    at(2**22 - 1, batch=63, dtype="float32", weights=True, device="8 GiB"),
]


@pytest.mark.parametrize("values", VIEWS, ids=range(len(VIEWS)))
def test_bytes_are_the_accounts(race: CacheRace, values: dict[str, Any]) -> None:
    view = race.move(**values).view
    readout = race.shown(view).readout
    for name in NAMES:
        assert race.bytes_of(name, view) == accounted(name, view)
        assert readout[name].startswith(f"{accounted(name, view):,} bytes, ")


def test_what_the_docstring_says_can_be_found() -> None:
    race = CacheRace()

    def kept(name: str, **values: Any) -> int:
        view = race.move(**values).view
        if name in PRESETS:
            assert race.bytes_of(name, view) == accounted(name, view)
        return race.bytes_of(name, view)

    llama, eagle, windowed, hybrid = "llama-3.1-8b", "eagle-7b", "mistral-7b windowed", "hybrid-7b RRRA"
    assert kept(llama, **at(260)) == kept(eagle, **at(260)) == 34_078_720
    assert kept(llama, **at(261)) > kept(eagle, **at(261))
    assert race.shown(race.view).text.startswith("After 261 tokens: llama-3.1-8b 32.63 MiB, mistral-7b windowed 32.63 MiB, ")
    long = at(131_072, batch=32)
    assert kept(llama, **long) == 512 * GIB
    assert 1.0 * GIB < kept(eagle, **long) == kept(eagle, **at(256)) < 1.1 * GIB
    assert race.first_too_long(llama, race.view) == 20_481
    assert kept(llama, **at(20_480)) <= 80 * GIB < kept(llama, **at(20_481))
    assert race.shown(race.view).text.endswith("Too much for 80 GiB: llama-3.1-8b.")
    assert kept(windowed, **at(2**13)) == kept(windowed, **at(2**22))
    assert race.first_too_long(windowed, race.view) is None
    assert kept(windowed, **long) < kept(hybrid, **long) < kept(llama, **long) / 3


def test_weights_take_room(race: CacheRace) -> None:
    view = race.move(weights=True, device="16 GiB").view
    spare = 16 * GIB - account("llama-3.1-8b", 1).weight_bytes
    assert race.first_too_long("llama", view) == spare // account("llama-3.1-8b", 1).total_bytes + 1
    view = race.move(device="8 GiB").view
    assert race.first_too_long("llama", view) == 1
    assert race.shown(view).readout["llama"].endswith("bytes, does not fit at all")
    assert race.shown(view).readout["RW"].endswith("bytes, fits at any length")


@pytest.mark.parametrize(("sharing", "groups"), [(AS_BUILT, 8), (MHA, 32), (GQA, 8), (MQA, 1)])
def test_heads_of_keys(race: CacheRace, sharing: str, groups: int) -> None:
    config = PRESETS["llama-3.1-8b"].config
    with torch.device("meta"):
        model = Decoder(DecoderConfig(128_256, 4096, 1, heads=32, groups=groups, ffn_width=config.ffn_width))
    one_layer = account(model, 999)
    view = race.move(kv_heads=sharing, **at(999)).view
    assert race.bytes_of("llama", view) == config.layers * one_layer.kv_bytes
    change = race.bytes_of("llama", view | {"weights": True}) - race.bytes_of("llama", view)
    outside = 2 * 128_256 * 4096 + 4096
    assert change == 2 * (config.layers * (one_layer.parameters - outside) + outside)
    assert race.bytes_of("rwkv4-169m", view) == accounted("rwkv4-169m", view)


STATES = ("mamba-130m", "falcon-mamba-7b", "mamba2-130m", "codestral-mamba-7b", "hawk-1b")


def test_states_take_part() -> None:
    """They grow by no token, and what they call groups, of B and C, are no heads of keys to be shared otherwise."""
    race = CacheRace(STATES)
    for name in STATES:
        views = [race.view | at(context, kv_heads=sharing) for context in (256, 2**20) for sharing in (AS_BUILT, *SHARINGS)]
        assert {race.bytes_of(name, view) for view in views} == {accounted(name, race.view)}
        with_weights = race.view | {"weights": True, "batch": 3, "kv_heads": MQA}
        assert race.bytes_of(name, with_weights) == accounted(name, with_weights)
        assert race.first_too_long(name, race.view) is None


def test_heads_that_four_do_not_divide(race: CacheRace) -> None:
    """The hybrids have 3 heads: groups of four queries cannot be made of them, so each keeps its own keys."""
    kept = {sharing: race.bytes_of("RRRA", race.move(kv_heads=sharing, **at(999)).view) for sharing in SHARINGS}
    assert kept[GQA] == kept[MHA] == accounted("RRRA", race.view)
    assert kept[MHA] - kept[MQA] == 999 * 2 * (24 - 8) * 2


def test_only_who_takes_part_is_named(race: CacheRace) -> None:
    shown = race.shown(race.move(**without("RW", "RRRA")).view)
    assert list(shown.readout) == ["rwkv4-169m", "llama", "largest to smallest"]
    assert "RW" not in shown.text
    assert "largest to smallest" not in race.shown(race.move(**without("llama")).view).readout
    assert race.shown(race.move(**without("rwkv4-169m")).view) == ("No model takes part.", {})
    race.figure(race.view)


def test_repr_ranks_them(race: CacheRace) -> None:
    assert repr(race) == (
        "After 256 tokens: llama 32.00 MiB, rwkv4-169m 144.00 KiB, RRRA 26.39 KiB, RW 24.80 KiB. Each fits into 80 GiB."
    )


def test_a_second_race_costs_little() -> None:
    for name in ("mistral-7b windowed", "llama-3.1-8b"):
        assert CacheRace().models[name] is CacheRace().models[name]


def test_every_preset_can_take_part(race: CacheRace) -> None:
    """Also one that is chosen twice, which is shown once, and one that keeps less than all others."""
    for name in ("jamba-v0.1", "zamba-7b", "hymba-1.5b", "goldfinch-1.45b"):
        view = race.move(model_2=name, model_6=name, **at(12_345, batch=3)).view
        assert race.chosen(view) == {"rwkv4-169m": 0, name: 1, "RW": 2, "RRRA": 3}
        assert race.bytes_of(name, view) == accounted(name, view)
        assert list(race.shown(view).readout) == [*race.chosen(view), "largest to smallest"]
    for control in race.controls[-6:]:
        assert set(control.options) == {NOBODY, *PRESETS, *MODELS}
    assert race.floor(view) == 2**12  # RW with one head of keys for all: 8.8 KiB after 256 tokens
    assert race.floor(race.move(**without("RW", "RRRA", "rwkv4-169m"), model_6=NOBODY).view) == 2**22


def test_the_page_stays_small() -> None:
    """63 presets, each with three other ways to share keys."""
    race = CacheRace()
    assert len(json.dumps(race._spec)) < 80_000
    assert len(race.html()) < 120_000


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["llama-9b"], "unknown preset 'llama-9b'; choose .*llama-3.1-8b"),
        ([tiny("RW")], r"each is the name of a preset or a pair \(name, model\), got HybridLM"),
        ([("RW", "llama-3.1-8b")], r"each is the name of a preset or a pair \(name, model\), got \('RW', 'llama"),
        (["rwkv4-169m", *(str(n) for n in range(6))], "at most 6 can be told apart, got 7"),
        (["rwkv4-169m"] * 2, "each needs a name of its own, got rwkv4-169m twice"),
        ([("rwkv4-169m", tiny("RW"))], "each needs a name of its own, got rwkv4-169m twice"),
        ([(NOBODY, tiny("RW"))], "each needs a name of its own, got no model twice"),
    ],
    ids=["preset", "model", "pair", "many", "twice", "name of a preset", "name of nobody"],
)
def test_wrong_models_are_refused(models: list, message: str) -> None:
    with pytest.raises(ValueError, match="CacheRace: models: " + message):
        CacheRace(models)


def test_fallback_draws_the_view(race: CacheRace) -> None:
    view = race.move(**without("RW"), batch=5, **at(1000)).view
    bars, lines = race.figure(view).axes
    names = ["rwkv4-169m", "llama", "RRRA"]
    assert [bar.get_width() + bar.get_x() for bar in bars.patches] == [race.bytes_of(name, view) for name in names]
    for line, name in zip(lines.lines[:3], names, strict=True):
        assert line.get_label() == name
        last = race.bytes_of(name, view | {"log2_context": HIGH})
        assert line.get_ydata()[-1] == last


# ---------------------------------------------------------------- in the browser


def height(floor: int, nbytes: float) -> float:
    """Where bytes stand in the lines' picture."""
    low = math.log2(floor)
    return 290 - (math.log2(nbytes) - low) / (math.log2(CEILING) - low) * 280


@pytest.mark.browser
def test_browser_counts_to_the_byte(race: CacheRace, browser, tmp_path) -> None:
    from widget_pages import opened

    rng = np.random.default_rng(0)
    choices = {"dtype": ("bfloat16", "float16", "float32"), "kv_heads": (AS_BUILT, *SHARINGS)}
    choices["device"] = tuple(f"{limit} GiB" for limit in (8, 16, 24, 40, 80, 141))
    with opened(browser, race, tmp_path) as page:
        for step in range((HIGH - LOW) * STEPS + 1):
            values = {name: str(rng.choice(options)) for name, options in choices.items()}
            values |= {seat: str(rng.choice([NOBODY, *NAMES, *PRESETS])) for seat in rng.choice(SEATS, 2, replace=False)}
            values |= {
                "weights": bool(rng.random() < 0.7),
                "batch": int(rng.integers(1, 65)),
                "log2_context": LOW + step / STEPS,
            }
            page.move(**values)
            view = race.move(**values).view
            assert page.shown() == race.shown(view)


@pytest.mark.browser
@pytest.mark.parametrize("values", VIEWS, ids=range(len(VIEWS)))
def test_browser_is_the_account_at_odd_contexts(race: CacheRace, values: dict[str, Any], browser, tmp_path) -> None:
    from widget_pages import opened

    view = race.move(**values).view
    with opened(browser, race, tmp_path) as page:
        assert page.shown() == race.shown(view)
        readout = page.shown().readout
        found = {name: int(re.match("[0-9,]+", readout[name])[0].replace(",", "")) for name in NAMES}
        assert page.page.get_by_role("slider", name="tokens").get_attribute("aria-valuetext") == f"{context_of(view):,}"
    assert found == {name: accounted(name, view) for name in NAMES}


@pytest.mark.browser
def test_keys_go_token_by_token(browser, tmp_path) -> None:
    """The discovery of the docstring, by keyboard."""
    from widget_pages import opened

    race = CacheRace(["llama-3.1-8b", "eagle-7b"])
    with opened(browser, race, tmp_path) as page:
        for picture in (0, 1):
            node = page.page.get_by_role("img").nth(picture)
            for _ in range(2 + 2 * picture):
                node.press("ArrowRight")
        node.press("ArrowLeft")
        for context, first in ((261, "llama-3.1-8b"), (260, "llama-3.1-8b"), (259, "eagle-7b")):
            assert page.shown() == race.shown(race.move(**at(context)).view)
            assert page.shown().text.startswith(f"After {context} tokens: {first} ")
            node.press("ArrowLeft")
        node.press("ArrowUp")
        assert page.shown() == race.shown(race.move(**at(516)).view)
        for _ in range(2):
            node.press("ArrowDown")
        assert page.shown() == race.shown(race.move(**at(256)).view)  # and not 130
        node.press("ArrowLeft")
        assert page.shown().text.startswith("After 256 tokens")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_bars_and_crosses_stand_where_the_bytes_are(race: CacheRace, scheme: str, browser, tmp_path) -> None:
    from widget_pages import opened

    view = race.move(batch=40, **at(5000)).view
    names = ["rwkv4-169m", "llama", "RRRA"]
    with opened(browser, race, tmp_path, color_scheme=scheme) as page:
        page.move(**without("RW"))
        floor = race.floor(race.move(**without("RW")).view)
        lines = page.page.locator(".hl-line")
        assert lines.evaluate_all("nodes => nodes.map(node => node.dataset.name)") == names
        paths = [
            np.array(re.findall("[0-9.]+", path), float)
            for path in lines.evaluate_all("n => n.map(x => x.getAttribute('d'))")
        ]
        bars = [float(bar.get_attribute("width")) for bar in page.page.locator(".hl-bar:visible").all()]
        dots = [float(dot.get_attribute("cy")) for dot in page.page.locator("circle").all()]
        crosses = page.page.locator(".hl-cross").evaluate_all("nodes => nodes.map(node => node.getAttribute('d'))")
        bars_say = page.page.locator(".hl-panel").first.inner_text()
    kept = [race.bytes_of(name, view) for name in names]
    np.testing.assert_allclose(dots, [height(floor, nbytes) for nbytes in kept], rtol=1e-9)
    shares = [(math.log2(nbytes) - math.log2(floor)) / (40 - math.log2(floor)) for nbytes in kept]
    np.testing.assert_allclose(bars, [440 * share for share in shares], rtol=1e-9)
    for name, path in zip(names, paths, strict=True):
        tokens = [context_of({"log2_context": LOW + step / STEPS}) for step in range((HIGH - LOW) * STEPS + 1)]
        heights = [height(floor, race.bytes_of(name, view | at(context))) for context in tokens]
        inside = [place for place in heights if place >= 10]
        np.testing.assert_allclose(path[1::2][: len(inside)], inside, atol=0.006)
        np.testing.assert_allclose(
            path[::2][: len(inside)], 52 + (np.log2(tokens) - 8)[: len(inside)] / 14 * 338, atol=0.006
        )
        assert len(path) == 2 * min(len(tokens), len(inside) + 1)
        assert path[-1] == 10 or len(inside) == len(tokens)
    assert len(crosses) == 1  # of llama only
    first = race.first_too_long("llama", view)
    centre = np.array(re.findall("[0-9.]+", crosses[0]), float).reshape(4, 2).mean(axis=0)
    np.testing.assert_allclose(centre, [52 + (math.log2(first) - 8) / 14 * 338, height(floor, 80 * GIB)], rtol=1e-9)
    assert "cache 24.41 GiB" in bars_say
    assert "RW" not in bars_say.split()


@pytest.mark.browser
def test_mouse_play_and_refusal(race: CacheRace, browser, tmp_path) -> None:
    from widget_pages import opened

    with opened(browser, race, tmp_path) as page:
        box = page.page.get_by_role("img").nth(1).bounding_box()
        scale = box["width"] / 540
        refusals = page.page.locator("text=does not fit >> visible=true")
        assert not page.page.locator(".hl-panel").first.get_by_text("does not fit").locator("visible=true").count()
        page.page.mouse.move(box["x"] + (52 + 169) * scale, box["y"] + 100 * scale)
        assert page.shown().text.startswith("After 256 tokens")  # a pointer that only passes by changes nothing
        page.page.mouse.down()
        assert abs(math.log2(int(re.search("After ([0-9,]+)", page.shown().text)[1].replace(",", ""))) - 15) < 0.05
        page.page.mouse.move(box["x"] + (52 + 338) * scale + 30, box["y"] + 100 * scale)
        page.page.mouse.up()
        assert page.shown() == race.shown(race.move(log2_context=HIGH).view)
        assert refusals.count()
        assert page.page.locator(".hl-panel").first.get_by_text("does not fit").locator("visible=true").count() == 1
        page.move(log2_context=HIGH - 3 / STEPS)
        play = page.page.get_by_role("button")
        play.click()
        page.page.wait_for_function("document.querySelector('.hl-button').textContent === 'Play'")
        assert page.shown() == race.shown(race.view)
        play.click()  # from the end it starts anew
        page.page.wait_for_function("Number(document.querySelector('input[type=range]').value) > 8")
        play.click()
        assert play.text_content() == "Play"
        assert 256 < int(re.search("After ([0-9,]+) tokens", page.shown().text)[1].replace(",", "")) < 100_000


def _inside(box: list[float], picture: dict[str, float]) -> bool:
    """Whether a text stands in a picture, up to two pixels of the room above and below its letters."""
    left, top, right, bottom = box
    across = picture["x"] - 1 <= left and right <= picture["x"] + picture["width"] + 1
    return across and picture["y"] - 2 <= top and bottom <= picture["y"] + picture["height"] + 2


@pytest.mark.browser
@pytest.mark.parametrize("width", [1000, 640])
def test_nothing_overlaps(width: int, browser, tmp_path) -> None:
    """No two texts of a picture touch, and none leaves it."""
    from widget_pages import opened

    race = CacheRace()
    with opened(browser, race, tmp_path) as page:
        page.page.set_viewport_size({"width": width, "height": 900})
        for values in ({}, {"weights": True, "kv_heads": MHA, "batch": 64}, at(2**22, dtype="float32", device="141 GiB")):
            page.move(**values)
            boxes = page.page.locator(".hl-panel svg text:visible").evaluate_all(
                "nodes => nodes.map(node => node.getBoundingClientRect()).filter(box => box.width)"
                ".map(box => [box.left, box.top, box.right, box.bottom])"
            )
            pictures = [picture.bounding_box() for picture in page.page.get_by_role("img").all()]
            assert len(boxes) > 30
            for box in boxes:
                assert any(_inside(box, picture) for picture in pictures), box
            for n, (left, top, right, bottom) in enumerate(boxes):
                touching = [o for o in boxes[:n] if o[0] < right and left < o[2] and o[1] + 3 < bottom and top + 3 < o[3]]
                assert not touching, (boxes[n], touching)
