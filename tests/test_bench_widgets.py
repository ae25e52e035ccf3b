"""The clock of `make bench` for widgets: it times what is seen, from the key, and nothing else."""

import json
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: it comes with the extra `dev`")

from bench_widgets import (
    RECORDER,
    Burst,
    Contender,
    Latency,
    Press,
    WidgetBenchmark,
    burst,
    first_press,
    p95,
    to_and_fro,
)
from playwright.sync_api import Browser

from hybridlab.measure.machine import Machine

MACHINE = Machine("a CPU", "cpu", 2, 2, "Linux x86_64", {})
DELAY = 120
# A slider whose picture follows after a while, and a picture that its own keys change at once.
PAGE = f"""
<div id="root">
  <input type="range" min="0" max="4" step="1" value="3"><div class="hl-stage">start</div>
</div>
<script>
  const [input, stage] = [document.querySelector('input'), document.querySelector('.hl-stage')];
  input.addEventListener('input', () => setTimeout((value) => {{ stage.textContent = value; }}, {DELAY}, input.value));
</script>
"""


def report(*latencies: Latency) -> WidgetBenchmark:
    return WidgetBenchmark(MACHINE, {"chromium": "1"}, (0.5, 1.5), latencies)


def presses(*milliseconds: float) -> tuple[Press, ...]:
    return tuple(Press(ms, ms + 16, None) for ms in milliseconds)


def test_press_counts_from_the_key_to_the_first_frame() -> None:
    seen = {"keys": [100.0], "frames": [{"painted": 107.5, "next": 117}, {"painted": 140, "next": 150}], "reported": [16]}
    assert first_press(seen) == Press(7.5, 17, 16)
    assert first_press(seen | {"reported": []}).reported is None


def test_picture_that_changed_before_the_key_is_no_answer() -> None:
    with pytest.raises(RuntimeError, match="before the key"):
        first_press({"keys": [100.0], "frames": [{"painted": 99, "next": 110}], "reported": []})


def test_burst_lags_from_its_last_key() -> None:
    frames = [{"painted": at, "next": at + 16} for at in (110, 160, 480)]
    assert burst({"keys": [100.0, 125.0, 150.0], "frames": frames, "reported": []}) == Burst(3, 25, 330, 3)


@pytest.mark.parametrize(("down", "up"), [(63, 0), (0, 14), (2, 2), (0, 1)])
def test_every_press_of_a_burst_moves_the_slider(down: int, up: int) -> None:
    at = down
    for key in to_and_fro(down, up, 30):
        at += 1 if key == "ArrowRight" else -1
        assert 0 <= at <= down + up


def test_ratio_is_taken_round_by_round() -> None:
    # The medians, 30 and 300, would give 10.
    widget, rival = Latency("w", presses(10, 30, 50), None), Latency("r", presses(400, 300, 250), None)
    spread = widget.faster_than(rival)
    assert (spread.low, spread.median, spread.high) == (7.5, 10, 25)
    assert p95([float(x) for x in range(1, 22)]) == 20


def test_table_and_files_say_the_same(tmp_path: Path) -> None:
    found = report(
        Latency("w", (Press(10, 26, 24), Press(20, 36, None)), Burst(30, 25.2, 9, 29)),
        Latency("r", presses(200, 100), Burst(30, 24.8, 700, 3)),
    )
    first, last = found.table().rows
    assert first == ("w", "15.0", "19.5", "31.0", "24 (1)", "12 (8.8 to 16)", "9", "29 of 30")
    assert last == ("r", "150.0", "195.0", "166.0", "", "", "700", "3 of 30")
    data, page = found.write(tmp_path / "new")
    assert (data.name, page.name) == ("a-cpu_2t.json", "a-cpu_2t.md")
    stored = json.loads(data.read_text())
    assert stored["latencies"][0]["presses"][0] == {"painted": 10, "next": 26, "reported": 24}
    assert stored["load"] == [0.5, 1.5]
    assert "| w | 15.0 | 19.5 |" in page.read_text()
    assert "load average 0.5 before and 1.5 after, on 2 cores" in page.read_text()


@pytest.mark.browser
def test_clock_waits_for_the_picture_and_not_for_the_slider(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content(PAGE)
    page.evaluate(RECORDER)
    contender = Contender("delayed", page.locator("#root"), page.locator("input"), slider=True)
    times = [contender.press() for _ in range(3)]  # 4, then back from the end
    assert page.locator("input").input_value() == "2"
    assert all(DELAY <= press.painted < press.next for press in times)
    assert contender.press_many().lag >= DELAY
    page.close()


@pytest.mark.browser
def test_keys_that_change_nothing_are_an_error(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<div id=root><button>press</button><div class=hl-stage>still</div></div>")
    page.evaluate(RECORDER)
    with pytest.raises(RuntimeError, match="still: a key press changes nothing"):
        Contender("still", page.locator("#root"), page.locator("button"), slider=False).press()
    page.close()
