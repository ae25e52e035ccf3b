"""Pages of docs/models: one an architecture, as its docstrings, notes, wiring, presets and card are now."""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from markdown_it import MarkdownIt

from hybridlab.course import model_pages
from hybridlab.course.docstrings import literal, paragraphs
from hybridlab.course.model_crossings import EMBEDDING, Crossing, Place, Watch
from hybridlab.course.model_diagram import CLASSES, NAMES, diagram, in_words
from hybridlab.course.model_pages import (
    FOLDER,
    NOTES,
    architectures,
    cards_section,
    page_path,
    pages,
    picture,
    section,
    size_row,
    sizes_section,
    small_models,
    stem,
    stored,
)
from hybridlab.course.model_wiring import Memory, Wiring, wiring
from hybridlab.measure import account
from hybridlab.measure.invariants import PROMISES
from hybridlab.measure.tiny import TINY
from hybridlab.models import Jamba, set_backend
from hybridlab.models.presets import ARCHITECTURES

RUN = "run `python -m hybridlab.course models`"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawn() -> dict[str, Wiring]:
    return {name: wiring(make) for name, make in TINY.items()}


def text_of(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def all_pages() -> list[Path]:
    return [FOLDER / "README.md", *(page_path(architecture) for architecture in architectures())]


def test_pages_are_current_but_for_what_takes_long_to_measure() -> None:
    made = pages(stored("Published sizes"), stored("Card"))
    stale = [path.name for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    left = {path.name for path in FOLDER.glob("*")} - {path.name for path in made}
    assert (stale, left) == ([], set()), RUN


def test_sizes_and_cards_say_what_belongs_to_each_architecture() -> None:
    for architecture in architectures():
        sizes, cards = stored("Published sizes")(architecture), stored("Card")(architecture)
        assert re.findall(r"^\| `([^`]+)`", sizes, re.MULTILINE) == list(architecture.presets), RUN
        titles = [f"{name} in float64" for name in small_models()[architecture]]
        assert [line for line in cards.splitlines() if line.endswith(" in float64")] == titles, RUN
        verdicts = re.findall(r"^(.+?)  .* (\w+)$", cards, re.MULTILINE)
        expected = [(promise.name, "ok") for _ in titles for promise in PROMISES]
        assert [verdict for verdict in verdicts if verdict[0] != "promise"] == expected, architecture.__name__


@pytest.mark.minutes
def test_sizes_and_cards_are_current() -> None:
    for architecture in architectures():
        assert stored("Published sizes")(architecture) == sizes_section(architecture), RUN
        assert stored("Card")(architecture) == cards_section(architecture), RUN


@pytest.mark.minutes
def test_a_row_of_sizes_is_the_account() -> None:
    report = account("jamba-v0.1", 4096)
    row = size_row(Jamba, "jamba-v0.1")
    assert row[:3] == ("`jamba-v0.1`", f"{report.parameters:,}", f"{report.active_parameters:,}")
    assert row[3] == f"{report.total_bytes / 2**20:.2f} MiB"
    assert row[5].startswith("4.0")  # GiB at 256K, as the paper has it
    assert "| `jamba-v0.1` | " + " | ".join(row[1:]) + " |" in stored("Published sizes")(Jamba)


def test_every_architecture_and_every_small_model_has_its_page() -> None:
    assert set(ARCHITECTURES) < set(architectures())
    assert [name for names in small_models().values() for name in names] == list(TINY)
    assert {path.stem for path in NOTES.glob("*.md")} == {stem(architecture) for architecture in architectures()}


def test_every_picture_names_every_part_that_reads_the_stream(drawn: dict[str, Wiring]) -> None:
    for name, wired in drawn.items():
        words = text_of((FOLDER / picture(name)).read_text(encoding="utf-8"))
        for number, layer in enumerate(TINY[name]().layers):
            halves = [layer.mixer, *([layer.channel_mixer] if hasattr(layer, "channel_mixer") else [])]
            said = [branch.kind for branch in wired.branches if branch.layer == number and not branch.block]
            assert said == [type(half).__name__ for half in halves], name
        for branch in wired.branches:
            assert any(word.startswith(branch.kind) for word in words), (name, branch.kind)
            assert any(branch.kind in line for line in in_words(wired).split(". ")), name


def test_pictures_hold_together_and_fit(drawn: dict[str, Wiring]) -> None:
    for name in drawn:
        root = ElementTree.fromstring((FOLDER / picture(name)).read_text(encoding="utf-8"))
        width, height = (int(root.get(side)) for side in ("width", "height"))
        assert root.findtext(f"{SVG}title") == name
        assert root.findtext(f"{SVG}desc") == in_words(drawn[name])
        for box in root.iter(f"{SVG}rect"):
            x, y, wide, high = (int(box.get(side, 0)) for side in ("x", "y", "width", "height"))
            assert min(x, y) >= 0, name
            assert x + wide <= width, name
            assert y + high <= height, name
        for line in root.iter(f"{SVG}text"):
            # Half an em a letter on average, more than that for strong ones.
            letters = 7.7 if line.get("class") == "kind" else 6.2
            room = width - int(line.get("x")) if line.get("text-anchor") is None else 122
            assert letters * len(line.text) <= room, (name, line.text)


def test_pictures_are_legible_on_light_and_dark_pages() -> None:
    style = ElementTree.fromstring((FOLDER / "jamba.svg").read_text(encoding="utf-8")).findtext(f"{SVG}style")
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in style.split("@media")[:2])
    assert light.keys() == dark.keys()
    for colours in (light, dark):
        for ink in ("ink", "soft"):
            for ground in ("paper", "grows", "bounded", "none"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        for line in ("grown", "bound", "lane"):
            assert contrast(colours[line], colours["paper"]) >= 3, line


def contrast(one: str, other: str) -> float:
    """As WCAG defines it."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_what_crosses_layers_is_what_the_models_do(drawn: dict[str, Wiring]) -> None:
    def within(*layers: int) -> tuple[Place, ...]:
        return tuple(Place(layer, False) for layer in layers)

    expected = {
        "RWKV7": {Crossing("first_value", *within(0), within(1))},
        "Hymba": {Crossing("lent_keys", *within(1), within(2))},
        "Zamba": {Crossing("embeddings", EMBEDDING, within(1, 3))},
        "Zamba2": {Crossing("embeddings", EMBEDDING, within(0, 2, 3))},
        "GoldFinch": {
            Crossing("embeddings", EMBEDDING, (Place(1, True),)),
            Crossing("rebuilt", Place(1, True), within(2)),
        },
    }
    assert {name: set(wired.crossings) for name, wired in drawn.items() if wired.crossings} == expected
    assert [(branch.layer, branch.block) for branch in drawn["Zamba2"].branches if branch.block] == [
        (0, "A"),
        (2, "B"),
        (3, "A"),
    ]
    assert drawn["Hymba"].extra_rows == 3
    assert [station.kind for station in drawn["GoldFinch"].stations] == ["CompressedKeys"]


def test_boxes_say_what_grows(drawn: dict[str, Wiring]) -> None:
    def memories(name: str) -> list[Memory]:
        return [branch.memory for branch in drawn[name].branches]

    assert memories("Jamba")[::2] == [Memory.BOUNDED, Memory.BOUNDED, Memory.GROWS, Memory.BOUNDED]
    assert memories("Decoder, window")[::2] == [Memory.BOUNDED] * 2
    assert set(memories("Mamba2Hybrid")) == set(Memory)
    assert drawn["GoldFinch"].carried is Memory.GROWS
    for name, wired in drawn.items():
        boxes = [box.get("class") for box in ElementTree.fromstring(diagram(name, wired)).iter(f"{SVG}rect")]
        legend = len({branch.memory for branch in wired.branches} | ({wired.carried} if wired.stations else set()))
        kept = sum(boxes.count(style) for style in CLASSES.values())
        assert kept == len(wired.branches) + len(wired.stations) + legend, name


def test_every_crossing_has_a_name(drawn: dict[str, Wiring]) -> None:
    assert {crossing.what for wired in drawn.values() for crossing in wired.crossings} == NAMES.keys()


def links(path: Path) -> Iterator[str]:
    for token in MarkdownIt().enable("table").parse(path.read_text(encoding="utf-8")):
        for child in token.children or ():
            if link := child.attrs.get("href") or child.attrs.get("src"):
                yield str(link)


def test_every_link_leads_somewhere() -> None:
    for path in all_pages():
        found = list(links(path))
        assert found, path.name
        for link in found:
            if link.startswith("https:"):
                assert re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{5}", link), (path.name, link)
            else:
                file, _, place = link.partition("#")
                text = (path.parent / file).resolve().read_text(encoding="utf-8")
                assert not place or f"\n## {place.replace('-', ' ')}\n" in text.lower(), (path.name, link)
    assert set(links(FOLDER / "README.md")) == {page_path(architecture).name for architecture in architectures()}


def test_every_page_has_all_sections_and_a_picture_with_words() -> None:
    for architecture in architectures():
        text = page_path(architecture).read_text(encoding="utf-8")
        wanted = ["Wiring", "Parts", "Published sizes", "Card", "Pitfalls", "Tricks", "Sources"]
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == wanted
        assert all(section(text, heading) for heading in wanted), architecture.__name__
        alternatives = re.findall(r"^!\[([^\]]+)\]\((.+)\)$", text, re.MULTILINE)
        assert [file for _, file in alternatives] == [picture(name) for name in small_models()[architecture]]
        assert all(words.startswith("The stream begins with Embedding") for words, _ in alternatives)
        assert re.search(r"arxiv\.org", section(text, "Sources")), architecture.__name__


def test_docstrings_mean_in_markdown_what_they_say() -> None:
    said = paragraphs(
        """Tells. a*b and a * b, x[i](y), 1 <= 2 <b>, `a*b`.

            n = k *removal

        Source: arXiv 2405.16712. Chapter 11.
        """
    )
    assert len(said) == 2
    html = MarkdownIt().render("\n\n".join(said))
    assert "a*b and a * b, x[i](y), 1 &lt;= 2 &lt;b&gt;, <code>a*b</code>." in html
    assert "n = k *removal" in html
    assert literal("gate[x](y)") != "gate[x](y)"
    assert paragraphs("Griffin. Args: `config`, and `backend`.\n\nBeside it.") == ["Beside it."]


def test_an_architecture_without_notes_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(model_pages, "NOTES", tmp_path)
    (tmp_path / "rwkv4.md").write_text("## Pitfalls\n\n- one\n")
    with pytest.raises(ValueError, match=r"rwkv4\.md: expected sections Pitfalls, Tricks .* Tricks is missing"):
        pages(lambda architecture: "", lambda architecture: "")


def test_stale_and_superfluous_pages_are_found_and_mended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.svg").write_text("gone")
    (tmp_path / "a.md").write_text("before")
    made = {tmp_path / "a.md": "after", tmp_path / "b.md": "new"}
    monkeypatch.setattr(model_pages, "FOLDER", tmp_path)
    monkeypatch.setattr(model_pages, "ROOT", tmp_path)
    monkeypatch.setattr(model_pages, "pages", lambda sizes, cards: made)
    assert model_pages.check_pages() == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["a.md", "b.md", "old.svg"]
    assert (tmp_path / "a.md").read_text() == "before"
    assert model_pages.build_pages() == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.md": "after", "b.md": "new"}
    assert model_pages.check_pages() == 0


def test_watching_a_model_changes_nothing_of_what_it_says() -> None:
    ids = torch.arange(6).unsqueeze(0)
    for name in ("Hymba", "Zamba2", "GoldFinch", "RWKV7"):
        torch.manual_seed(0)
        model = TINY[name]().eval()
        set_backend(model, "naive")
        with torch.no_grad():
            before = model(ids)
            Watch(model)
            after = model(ids)
        assert torch.equal(before.logits, after.logits), name
