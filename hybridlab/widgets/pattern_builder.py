"""The layers of a hybrid, one letter each: what they keep and compute, beside a stack that attends in every layer."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hybridlab.measure.footprint import unit_bytes
from hybridlab.measure.layer_costs import FIRST, OUTSIDE, WIDTHS, LayerCost, LayerCosts, layer_costs
from hybridlab.measure.memory import DTYPES as TORCH_DTYPES
from hybridlab.models import LETTERS, PRESETS
from hybridlab.widgets.base import LivePicture, Shown, script
from hybridlab.widgets.controls import Choice, Control, Play, Slider, View
from hybridlab.widgets.palette import BLUE, ORANGE
from hybridlab.widgets.text import short, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LAYERS = 96
LOW, HIGH = 0, 20  # of log2 of the context
DTYPES = ("bfloat16", "float16", "float32")
ROW = 16  # layers in a row of the picture
ATTENTION = "A"
NAMES = {letter: kind.name.partition(",")[0] for letter, kind in LETTERS.items()}
# Presets to start from, and how their layers are spelled here. Zamba's hybrid layers call a shared attention before their
# own mixer; Mamba-2-Hybrid's MLPs stand alone, here each layer has one.
SPELLINGS: dict[str, dict[str, str]] = {
    "jamba-v0.1": {},
    "mamba2-hybrid-8b": {"M": "S", "*": "A", "-": ""},
    "zamba-7b": {"H": "AM"},
    "zamba2-2.7b": {"M": "S", "H": "AS"},
    "griffin-3b": {},
    "recurrentgemma-2b": {},
    "stripedhyena-7b": {},
}


def starts() -> dict[str, str]:
    """The letters of published models, as their configurations say them."""
    return {
        name: "".join(spelling.get(letter, letter) for letter in PRESETS[name].config.letters)
        for name, spelling in SPELLINGS.items()
    }


@dataclass(frozen=True)
class Pattern(Choice):
    """Letters, one a layer; the options are names of patterns to start from.

    Attributes:
        patterns: what each option stands for.
    """

    patterns: tuple[str, ...] = ()

    def check(self, value: object) -> None:
        """Raises ValueError for what is no word of letters."""
        if not isinstance(value, str) or not 1 <= len(value) <= MOST_LAYERS or not set(value) <= set(LETTERS):
            raise ValueError(f"{self.name}: expected 1 to {MOST_LAYERS} of the letters {''.join(LETTERS)}, got {value!r}")


class Place(Slider):
    """The number of a layer: in the browser it ends where the layers end."""


class Sums(NamedTuple):
    """What layers have, keep and compute together, with the cache apart from everything else that is kept."""

    parameters: int
    cache: int
    state: int
    flops: int

    @property
    def kept(self) -> int:
        """Bytes of all that is carried from token to token."""
        return self.cache + self.state


class PatternBuilder(LivePicture):
    """What does each layer of a hybrid cost, and does it matter where it stands?

    To find out with it: Jamba attends in four of 32 layers, and its cache is an eighth of what it would be if all attended,
    to the byte. It is no smaller model for that: Mamba has more parameters. Move the attention elsewhere, and nothing
    changes: the place is free for what the model learns best with. Take the last attention away, and what is kept no longer
    grows. Short texts are another matter: at width 4096 a Mamba layer keeps as much as an attention layer does of 35 tokens,
    a Mamba-2 layer as much as of 259. In long ones it is work that grows: at 25,268 tokens attention computes more for
    looking back than for all weights of its layer, MLP included.

    Every layer has an MLP, heads are 64 wide, and each head of queries has keys of its own: the letters are those of
    `HybridLM`, and so are all sizes. A published model has its own sizes; only its pattern is taken from it.

    Args:
        pattern: one letter a layer, or the name of a preset to start from.
        width: D, one of `WIDTHS`.

    Raises:
        ValueError: neither letters nor a preset whose layers have letters; a width that was not measured.

    Chapter 12.
    """

    question = "What does each layer of a hybrid cost, and does it matter where it stands?"
    _esm = script("pattern_builder.js")

    def __init__(self, pattern: str = "jamba-v0.1", width: int = 4096) -> None:
        known = starts()
        letters = known.get(pattern, pattern)
        if width not in WIDTHS:
            raise ValueError(f"PatternBuilder: width: expected one of {', '.join(map(str, WIDTHS))}, got {width!r}")
        control = Pattern("pattern", "start from", tuple(known), letters, tuple(known.values()))
        try:
            control.check(letters)
        except ValueError as error:
            raise ValueError(f"PatternBuilder: {error}; or one of {', '.join(known)}") from None
        widths = [each.bit_length() - 1 for each in WIDTHS]
        controls: list[Control | Play] = [
            control,
            Slider("layers", "layers", 1, MOST_LAYERS, value=len(letters)),
            Place("layer", "chosen layer", 1, MOST_LAYERS, value=1),
            Slider("log2_width", "width", widths[0], widths[-1], value=width.bit_length() - 1, power=2),
            Slider("log2_context", "tokens", LOW, HIGH, value=12, step=1 / 8, power=2),
            Slider("batch", "batch", 1, 64, value=1),
            Choice("dtype", "cache in", DTYPES, DTYPES[0]),
        ]
        super().__init__(controls, self._inputs())

    def _inputs(self) -> dict:
        """Costs at every width; what each letter is called."""
        return {
            "costs": {str(width): _plain(costs) for width, costs in layer_costs().items()},
            "names": NAMES,
            "sizes": {dtype: unit_bytes(TORCH_DTYPES[dtype]) for dtype in DTYPES},
            "outside": OUTSIDE,
            "first": FIRST,
            "attention": ATTENTION,
            "row": ROW,
        }

    def sums(self, view: View) -> Sums:
        """The whole model at a view: layers, embedding, norm and head."""
        return added([*self.layers(view), _sums(_costs(view)[OUTSIDE], view)])

    def layers(self, view: View) -> list[Sums]:
        """Each layer by itself."""
        return [_sums(cost, view) for cost in _chosen(letters_of(view), _costs(view))]

    def all_attention(self, view: View) -> Sums:
        """The same model with attention in every layer."""
        return self.sums(view | {"pattern": ATTENTION})

    def shown(self, view: View) -> Shown:
        """The model in one sentence, exact numbers, what the chosen layer costs, and shares of a stack of attention."""
        letters, found, rival = letters_of(view), self.sums(view), self.all_attention(view)
        at = chosen_layer(view)
        name, layer = NAMES[letters[at - 1]], self.layers(view)[at - 1]
        many = "" if view["batch"] == 1 else f" in each of {view['batch']} sequences"
        text = (
            f"{spelled(letters)}: {_many(len(letters), 'layer')}, {counted(letters)}, of width {width_of(view):,}. "
            f"After {_many(context_of(view), 'token')}{many}: cache {size(found.cache)}, state {size(found.state)}, "
            f"{_share(found.kept, rival.kept)} of what attention everywhere would keep."
        )
        readout = {
            "parameters": f"{found.parameters:,}",
            "cache bytes": f"{found.cache:,}",
            "state bytes": f"{found.state:,}",
            "FLOPs a token": f"{found.flops:,}",
            "of attention everywhere": f"parameters {_share(found.parameters, rival.parameters)}, "
            f"memory {_share(found.kept, rival.kept)}, FLOPs {_share(found.flops, rival.flops)}",
            f"layer {at}, {name}": f"{layer.parameters:,} parameters, {layer.kept:,} bytes, {layer.flops:,} FLOPs a token",
        }
        return Shown(text, readout)

    def figure(self, view: View) -> "Figure":
        """The stack above, the sums beside those of attention everywhere below."""
        from matplotlib.figure import Figure

        rows = -(-len(letters_of(view)) // ROW)
        figure = Figure(figsize=(8, 1.9 + 0.5 * rows), layout="constrained")
        stack, sums = figure.subplots(2, 1, height_ratios=(0.5 * rows, 1.5))
        self._draw_stack(stack, view)
        self._draw_sums(sums, view)
        return figure

    def _draw_stack(self, axes: "Axes", view: View) -> None:
        from matplotlib.patches import Rectangle

        letters, layers = letters_of(view), self.layers(view)
        most = max(1, *(layer.kept for layer in layers))
        for at, (letter, layer) in enumerate(zip(letters, layers, strict=True)):
            row, column = divmod(at, ROW)
            colour = _ink(layer)
            axes.add_patch(Rectangle((column + 0.05, row + 0.05), 0.9, 0.9, color=colour, alpha=0.2, linewidth=0))
            bar = 0.3 * layer.kept / most
            axes.add_patch(Rectangle((column + 0.05, row + 0.95 - bar), 0.9, bar, color=colour, linewidth=0))
            axes.text(column + 0.5, row + 0.35, letter, ha="center", va="center", fontsize=10)
        row, column = divmod(chosen_layer(view) - 1, ROW)
        axes.add_patch(Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, fill=False, linewidth=1.6))
        axes.set(xlim=(0, ROW), ylim=(-(-len(letters) // ROW), 0), xticks=[], yticks=[])
        axes.set_title("bars: what each layer keeps", loc="left", fontsize=10)
        axes.spines[:].set_visible(False)

    def _draw_sums(self, axes: "Axes", view: View) -> None:
        found, rival = self.sums(view), self.all_attention(view)
        for at, (name, parts, theirs) in enumerate(compared(found, rival)):
            most = max(sum(count for count, _ in parts), theirs)
            left = 0.0
            for amount, colour in parts:
                axes.barh(at, amount / most, left=left, height=0.5, color=colour)
                left += amount / most
            axes.plot([theirs / most] * 2, [at - 0.4, at + 0.4], color="black", linewidth=1.5)
            axes.text(1.02, at, name, va="center", fontsize=9)
        axes.set(xlim=(0, 1.6), ylim=(2.6, -0.6), xticks=[], yticks=[])
        axes.set_title("marks: with attention in every layer", loc="left", fontsize=10)
        axes.spines[:].set_visible(False)


def compared(found: Sums, rival: Sums) -> list[tuple[str, list[tuple[int, str]], int]]:
    """The three bars: what is written at each, its parts with their colours, and where attention everywhere stands."""
    return [
        (f"parameters {_powers(found.parameters)}", [(found.parameters, BLUE)], rival.parameters),
        (f"cache {size(found.cache)} + state {size(found.state)}", [(found.cache, ORANGE), (found.state, BLUE)], rival.kept),
        (f"FLOPs a token {_powers(found.flops)}", [(found.flops, BLUE)], rival.flops),
    ]


def added(sums: list[Sums]) -> Sums:
    """The sum of each amount."""
    return Sums(*(sum(amounts) for amounts in zip(*sums, strict=True)))


def letters_of(view: View) -> str:
    """One letter for each layer of a view: the pattern again and again."""
    layers = int(view["layers"])
    return (view["pattern"] * layers)[:layers]


def width_of(view: View) -> int:
    """D at a view: the measured width that is nearest."""
    return 2 ** int(view["log2_width"])


def context_of(view: View) -> int:
    """Tokens that each sequence of a view has read."""
    return round(2 ** view["log2_context"])


def chosen_layer(view: View) -> int:
    """The layer that is outlined, counted from 1: never behind the last."""
    return min(int(view["layer"]), int(view["layers"]))


def spelled(letters: str) -> str:
    """A word that repeats as how often and what, 4 x MMMMAMMM; one that does not in pieces as long as the picture's rows."""
    length = len(letters)
    period = next(n for n in range(1, length + 1) if length % n == 0 and letters[:n] * (length // n) == letters)
    pieces = " ".join(letters[at : min(at + ROW, period)] for at in range(0, period, ROW))
    return pieces if period == length else f"{length // period} x {pieces}"


def counted(letters: str) -> str:
    """How often each letter is there, the most frequent first: 28 Mamba, 4 attention."""
    often = Counter(letters)
    ranked = sorted(often, key=lambda letter: (-often[letter], list(LETTERS).index(letter)))
    return ", ".join(f"{often[letter]} {NAMES[letter]}" for letter in ranked)


def _costs(view: View) -> LayerCosts:
    return layer_costs()[width_of(view)]


def _chosen(letters: str, costs: LayerCosts) -> list[LayerCost]:
    """The cost of each layer: the first of a letter can have one of its own."""
    return [
        costs.get(FIRST + letter, costs[letter]) if letters.index(letter) == at else costs[letter]
        for at, letter in enumerate(letters)
    ]


def _sums(cost: LayerCost, view: View) -> Sums:
    context, batch = context_of(view), int(view["batch"])
    sizes = unit_bytes(TORCH_DTYPES[view["dtype"]])
    cache = batch * cost.cache.after(context) * sizes["dtype"]
    kept = cost.recurrent.after(context) * sizes["state_dtype"] + cost.conv.after(context) * sizes["dtype"]
    return Sums(cost.parameters, cache, batch * kept, cost.flops.after(context))


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _share(amount: int, whole: int) -> str:
    return f"{short(100 * amount / whole)} %"


def _powers(amount: int) -> str:
    """With the words that people use: 6.82 billion."""
    for one, word in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if amount >= one:
            return f"{short(amount / one)} {word}"
    return f"{amount:,}"


def _ink(layer: Sums) -> str:
    """Orange is what has a cache, here as in the sums."""
    return ORANGE if layer.cache else BLUE


def _plain(costs: LayerCosts) -> dict[str, dict]:
    """What the browser gets."""
    return {
        name: {"parameters": cost.parameters} | {part: each._asdict() for part, each in list(cost._asdict().items())[1:]}
        for name, cost in costs.items()
    }
