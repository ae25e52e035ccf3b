"""A model's wiring as an SVG picture, legible on a light and on a dark page, and in words for those who do not see it.

The stream runs down the left side. What reads it branches off to the right, and what is added returns at a circled plus.
What crosses between layers runs down the right side.
"""

from collections.abc import Iterator
from html import escape
from itertools import groupby

from hybridlab.course.model_crossings import EMBEDDING, Crossing, Place, Station
from hybridlab.course.model_wiring import Branch, Memory, Wiring

WIDE, NARROW = 740, 564  # with crossings on the right side, and without
STREAM, JOIN, NORM, BOX, BOX_RIGHT, LANES = 56, 84, 104, 246, 526, 560
NORM_WIDTH, LANE_STEP, LINE = 122, 16, 16
TOP, ROW_GAP, FRAME_HEAD = 14, 32, 26

STYLE = """
svg { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --frame: #c4ccd4; --grows: #fbe3d0; --grown: #b84a00;
  --bounded: #d8e9f6; --bound: #00609a; --none: #f0f1f3; --lane: #00785a; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #12161c; --ink: #e6e9ed; --soft: #a3adb8; --frame: #3d4652; --grows: #4a2a12; --grown: #ff9d5c;
    --bounded: #12344d; --bound: #6fbdf0; --none: #23282f; --lane: #45cfa5; }
}
text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.small { font-size: 11.5px; fill: var(--soft); }
.kind { font-weight: 600; }
.lane { stroke: var(--lane); fill: none; stroke-width: 2; }
.lane.dashed { stroke-dasharray: 6 4; }
.head { fill: var(--lane); }
.named { fill: var(--lane); font-size: 11.5px; }
.wire { stroke: var(--ink); fill: none; stroke-width: 1.5; }
.tip { fill: var(--ink); }
.paper { fill: var(--paper); }
.plus { fill: var(--paper); stroke: var(--ink); stroke-width: 1.5; }
.frame { fill: none; stroke: var(--frame); }
.norm { fill: var(--paper); stroke: var(--frame); }
.grows { fill: var(--grows); stroke: var(--grown); stroke-width: 3; }
.bounded { fill: var(--bounded); stroke: var(--bound); stroke-width: 1.5; }
.nothing { fill: var(--none); stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 4 3; }
"""
CLASSES = {Memory.GROWS: "grows", Memory.BOUNDED: "bounded", Memory.NOTHING: "nothing"}
LEGEND = {
    Memory.GROWS: "its memory grows with every token",
    Memory.BOUNDED: "its memory has a limit",
    Memory.NOTHING: "keeps nothing",
}
NAMES = {
    "embeddings": "the embeddings",
    "first_value": "values of the first layer",
    "lent_keys": "keys and values, lent",
    "rebuilt": "keys of all tokens",
}


def diagram(title: str, wiring: Wiring) -> str:
    """The text of an SVG file.

    Args:
        title: the model's name.
        wiring: what is drawn.
    """
    return "\n".join(Drawing(title, wiring).lines()) + "\n"


def in_words(wiring: Wiring) -> str:
    """The same as a sentence or a few."""
    said = [f"The stream begins with {_listed(wiring.opening)}"]
    if wiring.extra_rows:
        said[0] += f", and {wiring.extra_rows} rows of the model's own before the tokens"
    for number, branches in groupby(wiring.branches, lambda branch: branch.layer):
        said.append(f"Layer {number}: " + ", ".join(_phrase(branch) for branch in branches))
        said += [f"Behind layer {number}: {_kept(s.kind, s.keeps)}" for s in wiring.stations if s.layer == number]
    for crossing in wiring.crossings:
        readers = _listed([_place(reader) for reader in crossing.readers])
        said.append(f"{_named(crossing.what).capitalize()} go from {_place(crossing.source)} to {readers}")
    said.append(f"It ends with {_listed(wiring.closing)}" + (", whose weight is the embedding's" if wiring.tied else ""))
    return ". ".join(said) + "."


def _phrase(branch: Branch) -> str:
    return _kept(", ".join([_title(branch), *branch.details]), branch.keeps)


def _kept(what: str, keeps: tuple[str, ...]) -> str:
    return f"{what} ({_keeps(keeps)})"


def _keeps(keeps: tuple[str, ...]) -> str:
    return "keeps " + (" + ".join(keeps) or "nothing")


def _title(branch: Branch) -> str:
    return f"{branch.kind} {branch.block}".strip()


def _place(place: Place) -> str:
    if place == EMBEDDING:
        return "the embedding"
    return f"{'behind ' if place.behind else ''}layer {place.layer}"


def _named(what: str) -> str:
    return NAMES.get(what, what.replace("_", " "))


def _listed(parts: tuple[str, ...] | list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


class Drawing:
    """One picture while it is drawn, from the top down.

    Args:
        title: the model's name.
        wiring: what is drawn.
    """

    def __init__(self, title: str, wiring: Wiring) -> None:
        self.title, self.wiring = title, wiring
        self.width = WIDE if wiring.crossings else NARROW
        self.y = TOP
        self.front: list[str] = []
        self.made: dict[Place, int] = {}  # height at which a place writes
        self.read: dict[Place, int] = {}  # and at which it reads
        self._draw()

    def lines(self) -> Iterator[str]:
        """The lines of the file."""
        size = f'viewBox="0 0 {self.width} {self.y}" width="{self.width}" height="{self.y}"'
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title words">'
        yield f'<title id="title">{escape(self.title)}</title>'
        yield f'<desc id="words">{escape(in_words(self.wiring))}</desc>'
        yield f"<style>{STYLE}</style>"
        yield f'<rect class="paper" width="{self.width}" height="{self.y}" rx="8"/>'
        yield from self.front
        yield "</svg>"

    def _draw(self) -> None:
        first = self._opening()
        letters = self.wiring.letters
        for number, branches in groupby(self.wiring.branches, lambda branch: branch.layer):
            self._layer(f"layer {number}" + (f": {letters[number]}" if letters else ""), list(branches))
            for station in self.wiring.stations:
                if station.layer == number:
                    self._station(station)
        # The stream lies under all that was drawn on it.
        self.front.insert(0, f'<path class="wire" d="M{STREAM} {first}V{self.y + 6}"/>')
        self._tip(STREAM, self.y + 10, "down", "tip")
        logits = "the logits, by the embedding's weight" if self.wiring.tied else "the logits"
        self._box(STREAM - 28, self.y + 10, [" and ".join(self.wiring.closing), logits], "norm")
        self.y += 10 + _height(2)
        for lane, crossing in enumerate(self.wiring.crossings):
            self._lane(lane, crossing)
        self._legend()

    def _opening(self) -> int:
        extra = self.wiring.extra_rows
        rows = f"a row a token, behind {extra} rows of the model's own" if extra else "a row a token"
        height = self._box(STREAM - 28, self.y, [" and ".join(self.wiring.opening), rows], "norm")
        self.made[EMBEDDING] = self.y + height // 2
        self.y += height + 10
        return self.y - 10

    def _layer(self, name: str, branches: list[Branch]) -> None:
        top = self.y
        self.front.append(f'<text class="small" x="{JOIN + 4}" y="{top + 18}">{escape(name)}</text>')
        self.y += FRAME_HEAD
        steered = False
        for branch in branches:
            self._branch(branch, steered)
            steered = bool(branch.block)
        shape = f'x="24" y="{top}" width="{BOX_RIGHT - 24 + 14}" height="{self.y - top - 2}" rx="8"'
        self.front.append(f'<rect class="frame" {shape}/>')
        self.y += 8

    def _branch(self, branch: Branch, steered: bool) -> None:
        lines = [", ".join([_title(branch), *branch.details]), " beside ".join(branch.beside), _keeps(branch.keeps)]
        height = self._box(BOX, self.y, [line for line in lines if line], CLASSES[branch.memory], BOX_RIGHT - BOX)
        middle = self.y + height // 2
        self._wire(f"M{STREAM} {middle}H{BOX - 7}")
        self._tip(BOX - 3, middle, "right", "tip")
        if steered:
            self._plus(JOIN, middle)
        if branch.norm:
            self._pill(branch.norm, middle)
        self._note(Place(branch.layer, False), middle, bool(branch.block))
        foot = self.y + height + 17
        if branch.block:
            # Its output joins what the next branch reads, which is as far below as this row is high.
            self._wire(f"M{BOX + 24} {self.y + height}V{foot}H{JOIN}V{foot + ROW_GAP // 2 + 6}")
            self._tip(JOIN, foot + ROW_GAP // 2 + 8, "down", "tip")
            self.front.append(f'<text class="small" x="{NORM + 8}" y="{foot - 6}">by way of a linear map</text>')
        else:
            self._wire(f"M{BOX + 24} {self.y + height}V{foot}H{STREAM + 12}")
            self._tip(STREAM + 9, foot, "left", "tip")
            self._plus(STREAM, foot)
            if branch.added_norm:
                self._pill(branch.added_norm, foot)
        self.y = foot + ROW_GAP // 2

    def _note(self, place: Place, middle: int, reads: bool) -> None:
        """A layer writes and reads at its mixer; what its shared block reads, it reads there."""
        self.made.setdefault(place, middle)
        self.read.setdefault(place, middle - 6 if reads else middle)

    def _station(self, station: Station) -> None:
        style = CLASSES[self.wiring.carried]
        height = self._box(BOX, self.y, [station.kind, _keeps(station.keeps)], style, BOX_RIGHT - BOX)
        middle = self.y + height // 2
        self._wire(f"M{STREAM} {middle}H{BOX - 7}")
        self._tip(BOX - 3, middle, "right", "tip")
        place = Place(station.layer, True)
        self.read[place], self.made[place] = middle - 10, middle + 10
        self.y += height + 12

    def _lane(self, lane: int, crossing: Crossing) -> None:
        x, start = LANES + lane * LANE_STEP, self.made[crossing.source]
        ends = [self.read[reader] for reader in crossing.readers]
        left = BOX_RIGHT if crossing.source != EMBEDDING else BOX + 140
        style = "lane dashed" if lane % 2 else "lane"
        self.front.append(f'<path class="{style}" d="M{left} {start}H{x}V{max(ends)}"/>')
        for end in ends:
            self.front.append(f'<path class="{style}" d="M{x} {end}H{BOX_RIGHT + 8}"/>')
            self._tip(BOX_RIGHT + 3, end, "left", "head")
        words = escape(_named(crossing.what))
        self.front.append(f'<text class="named" x="{x + 8}" y="{(start + min(ends)) // 2 + 4}">{words}</text>')

    def _legend(self) -> None:
        used = {branch.memory for branch in self.wiring.branches}
        if self.wiring.stations:
            used.add(self.wiring.carried)
        self.y += 16
        x = STREAM - 28
        for memory in (memory for memory in LEGEND if memory in used):
            self.front.append(f'<rect class="{CLASSES[memory]}" x="{x}" y="{self.y}" width="22" height="14" rx="3"/>')
            self.front.append(f'<text class="small" x="{x + 30}" y="{self.y + 11}">{LEGEND[memory]}</text>')
            x += 46 + 6 * len(LEGEND[memory])
        self.y += 28

    def _box(self, x: int, y: int, lines: list[str], style: str, width: int = 0) -> int:
        """A box with lines of text, the first one strong; its height."""
        height, width = _height(len(lines)), width or 358
        self.front.append(f'<rect class="{style}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>')
        for place, line in enumerate(lines):
            kind = "small" if place else "kind"
            self.front.append(f'<text class="{kind}" x="{x + 12}" y="{y + 19 + place * LINE}">{escape(line)}</text>')
        return height

    def _pill(self, name: str, middle: int) -> None:
        shape = f'x="{NORM}" y="{middle - 11}" width="{NORM_WIDTH}" height="22" rx="11"'
        self.front.append(f'<rect class="norm" {shape}/>')
        centre = NORM + NORM_WIDTH // 2
        self.front.append(f'<text class="small" x="{centre}" y="{middle + 4}" text-anchor="middle">{escape(name)}</text>')

    def _plus(self, x: int, y: int) -> None:
        self.front.append(f'<circle class="plus" cx="{x}" cy="{y}" r="8"/>')
        self._wire(f"M{x - 4} {y}h8M{x} {y - 4}v8")

    def _wire(self, path: str) -> None:
        self.front.append(f'<path class="wire" d="{path}"/>')

    def _tip(self, x: int, y: int, way: str, style: str) -> None:
        """An arrow head that ends at (x, y)."""
        wings = {"right": "l-7 -4v8", "left": "l7 -4v8", "down": "l-4 -7h8"}[way]
        self.front.append(f'<path class="{style}" d="M{x} {y}{wings}z"/>')


def _height(lines: int) -> int:
    return 12 + LINE * lines
