"""What every widget rests on: numbers as text, arrays on their way, controls, the exported page, what a notebook stores."""

import json
import math
import random

import numpy as np
import pytest
from matplotlib.figure import Figure

from hybridlab.widgets.arrays import KINDS, as_text, pack
from hybridlab.widgets.base import FOLDER, LivePicture, Shown
from hybridlab.widgets.controls import Choice, Play, Slider, Toggle, View
from hybridlab.widgets.text import short, size

CONTROLS = (
    Slider("n", "pairs", 1, 9, value=3),
    Slider("keep", "kept", 0.0, 1.0, value=0.5, step=0.25, texts=("none", "a quarter", "half", "most", "all")),
    Choice("kind", "memory", ("list", "sum"), value="sum"),
    Toggle("weights", "with weights", value=False),
    Play("n", milliseconds=120),
)


class Sample(LivePicture):
    """A widget with one control of each kind, whose picture is a line of text."""

    question = "What is <n> & how many?"
    _esm = ""

    def __init__(self, array: tuple[int, ...] = (0, 1, 2), kind: str = "float64") -> None:
        super().__init__(CONTROLS, {"array": pack(array, kind)})

    def shown(self, view: View) -> Shown:
        return Shown(f"{view['n']} pairs in a {view['kind']}", {"n": short(view["n"])})

    def figure(self, view: View) -> Figure:
        figure = Figure(figsize=(1, 1))
        figure.text(0.5, 0.5, str(view["n"]))
        return figure


DRAWING = """
function draw(page) {
  const text = html("p", { id: "drawn" });
  page.stage.append(page.picture(text, { ArrowRight: () => ({ n: page.view.n + 1 }) }));
  return (view) => {
    text.textContent = unpack(page.inputs.array).values.join(" ");
    return { text: `${view.n} pairs in a ${view.kind}`, readout: { n: short(view.n) } };
  };
}
"""


class Drawn(Sample):
    """The same with a picture."""

    _esm = (FOLDER / "base.js").read_text(encoding="utf-8") + DRAWING


EXAMPLES = [
    0,
    1,
    -1,
    0.5,
    0.03125,
    0.53125,
    -0.53125,
    1234.5,
    12345.5,
    999950,
    999949.9,
    1e6,
    -2.5e7,
    1e-4,
    9.9996e-5,
    1.5e-7,
]
EXAMPLES += [math.inf, -math.inf, math.nan, 2.5e-300, 1e300, 7, 100000, 123456.5, -0.0]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.03125, "0.03125"),
        (0.53125, "0.5313"),  # halfway: away from zero
        (0.53125 - 1e-14, "0.5313"),
        (-0.53125, "-0.5313"),
        (12345.5, "12350"),
        (7, "7"),
        (1e6, "1e6"),
        (9.9996e-5, "0.0001"),
        (9.9994e-5, "9.999e-5"),
        (-1.2345e-7, "-1.235e-7"),
        (math.nan, "not a number"),
        (-math.inf, "-infinite"),
        (-0.0, "0"),
    ],
)
def test_short(number: float, text: str) -> None:
    assert short(number) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1541, "1.50 KiB"),
        (2**20, "1.00 MiB"),
        (80 * 2**30, "80.00 GiB"),
        (2**40, "1.00 TiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize("kind", KINDS)
def test_pack_is_the_array_row_by_row(kind: str) -> None:
    array = np.arange(6).reshape(2, 3).T  # not contiguous
    packed = pack(array, kind)
    assert packed["shape"] == [3, 2]
    np.testing.assert_array_equal(np.frombuffer(packed["data"], kind).reshape(3, 2), array)


def test_pack_refuses_a_kind_that_browsers_lack() -> None:
    with pytest.raises(ValueError, match="kind: expected one of float64, float32, int32, uint8, int8, got 'float16'"):
        pack([1], "float16")


def test_as_text_reaches_into_lists() -> None:
    assert as_text({"a": [b"\x00\xff", 1], "b": {"c": None}}) == {"a": ["AP8=", 1], "b": {"c": None}}


def test_move_and_what_it_refuses() -> None:
    widget = Sample()
    assert widget.view == {"n": 3, "keep": 0.5, "kind": "sum", "weights": False}
    assert repr(widget.move(n=9, kind="list")) == "9 pairs in a list"
    for wrong, message in [
        ({"n": 10}, "Sample: n: expected a number from 1 to 9, got 10"),
        ({"n": True}, "got True"),
        ({"n": "3"}, "got '3'"),
        ({"n": math.nan}, "got nan"),
        ({"n": 2.5}, "n: expected a whole number, got 2.5"),
        ({"kind": "heap"}, "kind: expected one of 'list', 'sum', got 'heap'"),
        ({"weights": 1}, "weights: expected True or False, got 1"),
        ({"m": 1}, "view: expected the keys n, keep, kind, weights, got n, keep, kind, weights, m"),
    ]:
        with pytest.raises(ValueError, match=message):
            widget.move(**wrong)
    assert widget.view["n"] == 9


def test_notebooks_get_numbers_a_picture_and_the_live_view() -> None:
    data, _ = Sample()._repr_mimebundle_()
    assert data["text/plain"] == "3 pairs in a sum"
    assert data["image/png"].startswith(b"\x89PNG")
    assert "application/vnd.jupyter.widget-view+json" in data


def test_fallback_is_the_same_at_each_run() -> None:
    pictures = {Sample()._repr_mimebundle_()[0]["image/png"] for _ in range(2)}
    assert len(pictures) == 1
    assert not any(b"Software" in picture for picture in pictures)
    assert Sample().move(n=4)._repr_mimebundle_()[0]["image/png"] not in pictures


def test_exported_page_is_whole() -> None:
    page = Drawn().html()
    assert "<title>What is &lt;n&gt; &amp; how many?</title>" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "<!-- " not in page
    data = page.split('id="data">')[1].split("</script>")[0]
    assert "<" not in data
    assert json.loads(data)["_spec"]["question"] == Sample.question


def test_save_into_a_folder_that_is_not_there(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        Sample().save(tmp_path / "no" / "page.html")


# ---------------------------------------------------------------- in the browser


@pytest.mark.browser
def test_browser_writes_numbers_as_python_does(browser, tmp_path) -> None:
    from widget_pages import opened

    rng = random.Random(0)
    numbers = EXAMPLES + [rng.uniform(-1, 1) * 10.0 ** rng.randint(-9, 9) for _ in range(500)]
    numbers += [rng.randint(-(2**20), 2**20) / 2.0 ** rng.randint(0, 30) for _ in range(500)]  # halves abound
    counts = [rng.randint(0, 2 ** rng.randint(1, 50)) for _ in range(500)] + [0, 1023, 1024, 1541, 2**30 - 1]
    # Strings, because JSON has no infinity.
    source = (FOLDER / "base.js").read_text(encoding="utf-8").replace("export default", "const unused =")
    with opened(browser, Drawn(), tmp_path) as page:
        found = page.page.evaluate(
            f"([numbers, counts]) => {{ {source}\n return [numbers.map(Number).map(short), counts.map(size)]; }}",
            [[str(x).replace("inf", "Infinity") for x in numbers], counts],
        )
    for values, write, texts in [(numbers, short, found[0]), (counts, size, found[1])]:
        apart = [(value, write(value), text) for value, text in zip(values, texts, strict=True) if write(value) != text]
        assert not apart


@pytest.mark.browser
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_arrive(kind: str, browser, tmp_path) -> None:
    from widget_pages import opened

    with opened(browser, Drawn((1, 2, 100), kind), tmp_path) as page:
        assert page.page.locator("#drawn").text_content() == "1 2 100"


@pytest.mark.browser
def test_each_control_moves_by_keyboard(browser, tmp_path) -> None:
    from widget_pages import opened

    with opened(browser, Drawn(), tmp_path) as page:
        by_role = page.page.get_by_role
        by_role("slider", name="pairs").press("End")
        assert page.shown() == Shown("9 pairs in a sum", {"n": "9"})
        by_role("slider", name="kept").press("ArrowLeft")
        assert by_role("slider", name="kept").get_attribute("aria-valuetext") == "a quarter"
        by_role("combobox", name="memory").select_option("list")
        assert page.shown().text == "9 pairs in a list"
        by_role("checkbox", name="with weights").press("Space")
        assert by_role("checkbox", name="with weights").is_checked()
        by_role("slider", name="pairs").press("Home")
        page.press("#drawn", "ArrowRight", "ArrowRight")
        assert page.shown().readout == {"n": "3"}


@pytest.mark.browser
def test_play_runs_to_the_end_stops_and_begins_again(browser, tmp_path) -> None:
    from widget_pages import opened

    with opened(browser, Drawn(), tmp_path) as page:
        button, status = page.page.get_by_role("button"), page.page.get_by_role("status")
        button.press("Enter")
        assert status.get_attribute("aria-live") == "off"
        page.page.wait_for_function("document.querySelector('.hl-button').textContent === 'Play'")
        assert page.shown().readout == {"n": "9"}
        assert status.get_attribute("aria-live") == "polite"
        button.press("Enter")
        page.page.wait_for_function("+document.querySelector('.hl-readout dd').textContent < 9")
        button.press("Enter")
        paused = page.shown()
        page.page.wait_for_timeout(300)
        assert page.shown() == paused


@pytest.mark.browser
def test_python_and_browser_tell_each_other_where_the_controls_stand(browser, tmp_path) -> None:
    from widget_pages import opened

    with opened(browser, Drawn(), tmp_path) as page:
        told = page.page.evaluate(
            """async (source) => {
              const { mount, model_of } = await import(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })));
              const heard = [], callbacks = [];
              const values = JSON.parse(document.getElementById('data').textContent);
              const model = { ...model_of(values), on: (_, call) => callbacks.push(call), off: () => callbacks.pop(),
                              save_changes: () => heard.push(values.view.n) };
              const root = document.createElement('div');
              document.body.append(root);
              const end = mount(model, root);
              const slider = root.querySelector('input[type=range]');
              for (const n of [4, 5, 6]) { slider.value = n; slider.dispatchEvent(new Event('input')); }
              const at_once = heard.length;
              await new Promise((done) => setTimeout(done, 300));
              values.view = { ...values.view, n: 8 };
              callbacks.forEach((call) => call());
              const followed = slider.value;
              slider.value = 2; slider.dispatchEvent(new Event('input'));
              end();
              return { at_once, heard, followed, listening: callbacks.length };
            }""",
            Drawn._esm + "\nexport { mount, model_of };",
        )
    # Once for three quick moves; and what was not yet told is told when the view closes.
    assert told == {"at_once": 0, "heard": [6, 2], "followed": "8", "listening": 0}
