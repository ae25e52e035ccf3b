"""KV cache against state: what each architecture keeps while tokens come in, and where a device ends."""

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch

from hybridlab.measure.footprint import Footprint, unit_bytes
from hybridlab.measure.memory import DTYPES as TORCH_DTYPES
from hybridlab.measure.preset_footprints import AS_BUILT, SHARINGS, Footprints, footprints, preset_footprints
from hybridlab.models import PRESETS, Decoder, DecoderConfig, HybridConfig, HybridLM, LanguageModel
from hybridlab.widgets.base import LivePicture, Shown, script
from hybridlab.widgets.controls import Choice, Play, Slider, Toggle, View
from hybridlab.widgets.palette import SERIES
from hybridlab.widgets.text import short, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOW, HIGH, STEPS = 8, 22, 8  # of log2 of the context; steps an octave
DTYPES = ("bfloat16", "float16", "float32")
LIMITS = (8, 16, 24, 40, 80, 141)  # GiB, of devices that are sold
GIB = 2**30
CEILING = 2**40  # bytes at which the picture ends: more than any of the devices holds
SEATS = tuple(f"model_{at}" for at in range(1, len(SERIES) + 1))
NOBODY = "no model"


class CacheRace(LivePicture):
    """What does a model carry from token to token: a cache that grows, or a state that stays?

    To find out with it: a cache starts below a state and soon passes it. Press Right on a picture, one token at a time:
    after 260 tokens the cache of llama-3.1-8b is as large as the whole state of eagle-7b, to the byte, and from then on
    larger. Set the batch to 32 and let it play: at 131,072 tokens the cache has 512 GiB and has not fitted into 80 GiB since
    token 20,481; the state has stayed at 1 GiB. A window stops a cache, a hybrid slows it down. Any preset can take part.

    Args:
        models: who starts: names of presets, or (name, model) pairs, at most six; none: a decoder, one with a window, a
            hybrid, and two recurrent models, all of about 7 billion parameters.

    Raises:
        ValueError: no or too many models, an unknown preset, a name that is used twice.

    Chapter 12.
    """

    question = "What does a model carry from token to token: a cache that grows, or a state that stays?"
    _esm = script("cache_race.js")

    def __init__(self, models: Sequence[str | tuple[str, LanguageModel]] = ()) -> None:
        given = _given(models or default_models())
        self.models = (_built(models) if models else _default_footprints()) | preset_footprints()
        names = (NOBODY, *self.models)
        first = (*given, *(len(SEATS) - len(given)) * [NOBODY])
        super().__init__(
            [
                Slider("log2_context", "tokens", LOW, HIGH, value=LOW, step=1 / STEPS, power=2),
                Play("log2_context", milliseconds=80),
                Slider("batch", "batch", 1, 64, value=1),
                Choice("dtype", "cache and weights in", DTYPES, DTYPES[0]),
                Choice("kv_heads", "a head of keys serves", (AS_BUILT, *SHARINGS), AS_BUILT),
                Choice("device", "device", tuple(f"{limit} GiB" for limit in LIMITS), "80 GiB"),
                Toggle("weights", "count the weights too", value=False),
                *(Choice(seat, seat.replace("_", " "), names, name) for seat, name in zip(SEATS, first, strict=True)),
            ],
            self._inputs(),
        )

    def _inputs(self) -> dict:
        """Numbers that describe every context, batch and dtype at once."""
        return {
            "models": {name: _plain(found) for name, found in self.models.items()},
            "as_built": AS_BUILT,
            "seats": SEATS,
            "sizes": {dtype: unit_bytes(TORCH_DTYPES[dtype]) for dtype in DTYPES},
            "steps": [LOW, HIGH, STEPS],
            "ceiling": CEILING,
        }

    def chosen(self, view: View) -> dict[str, int]:
        """Who takes part at a view, and in which seat, counted from 0; who is chosen twice has the first of the two."""
        found: dict[str, int] = {}
        for at, seat in enumerate(SEATS):
            if view[seat] != NOBODY:
                found.setdefault(view[seat], at)
        return found

    def floor(self, view: View) -> int:
        """Bytes at which the pictures start: a power of two, a little below the least that those who take part have."""
        least = min((_least(self.models[name]) for name in self.chosen(view)), default=GIB)
        return 2 ** math.floor(math.log2(max(least, 2)) - 0.5)

    def bytes_of(self, name: str, view: View) -> int:
        """What one model keeps at a view, in bytes."""
        found = self._footprint(name, view)
        return self._weights(found, view) + found.kept_bytes(context_of(view), view["batch"], view["dtype"])

    def first_too_long(self, name: str, view: View) -> int | None:
        """The first number of tokens that does not fit the device of a view; None: all do."""
        found = self._footprint(name, view)
        return found.first_too_long(_limit(view) - self._weights(found, view), view["batch"], view["dtype"])

    def _footprint(self, name: str, view: View) -> Footprint:
        return self.models[name][view["kv_heads"]]

    def _weights(self, found: Footprint, view: View) -> int:
        return found.weight_bytes(view["dtype"]) if view["weights"] else 0

    def shown(self, view: View) -> Shown:
        """Everyone who takes part, the largest first, and from which token on it does not fit."""
        names = list(self.chosen(view))
        if not names:
            return Shown("No model takes part.", {})
        kept = {name: self.bytes_of(name, view) for name in names}
        ranked = sorted(names, key=lambda name: -kept[name])
        context, batch = context_of(view), view["batch"]
        who = f"{context:,} tokens" if batch == 1 else f"{context:,} tokens in each of {batch} sequences"
        sizes = ", ".join(f"{name} {size(kept[name])}" for name in ranked)
        large = [name for name in ranked if kept[name] > _limit(view)]
        fits = f"Too much for {view['device']}: {', '.join(large)}." if large else f"Each fits into {view['device']}."
        readout = {name: f"{kept[name]:,} bytes, {self._verdict(name, view)}" for name in names}
        if len(names) > 1:
            readout["largest to smallest"] = f"{short(kept[ranked[0]] / kept[ranked[-1]])} : 1"
        return Shown(f"After {who}: {sizes}. {fits}", readout)

    def _verdict(self, name: str, view: View) -> str:
        first = self.first_too_long(name, view)
        if first is None:
            return "fits at any length"
        return "does not fit at all" if first == 1 else f"does not fit from {first:,} tokens on"

    def figure(self, view: View) -> "Figure":
        """Bars now, and lines over the context."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.4), layout="constrained")
        bars, lines = figure.subplots(1, 2, width_ratios=(1, 1.2))
        self._draw_bars(bars, view)
        self._draw_lines(lines, view)
        return figure

    def _draw_bars(self, axes: "Axes", view: View) -> None:
        shown, floor = self.chosen(view), self.floor(view)
        for row, (name, at) in enumerate(shown.items()):
            kept = self.bytes_of(name, view)
            axes.barh(row, kept - floor, left=floor, height=0.34, color=SERIES[at][0])
            axes.text(floor, row - 0.25, f"{name}: {size(kept)}", fontsize=9, va="bottom")
        axes.axvline(_limit(view), color="black", linewidth=1)
        axes.set(xscale="log", xlim=(floor, CEILING), ylim=(max(len(shown), 1) - 0.5, -0.7), yticks=[])
        axes.set_xticks(*_ticks(floor), minor=False)
        axes.set_xticks([], minor=True)
        axes.set_title(f"after {context_of(view):,} tokens", loc="left", fontsize=10)
        axes.spines[["top", "right", "left"]].set_visible(False)

    def _draw_lines(self, axes: "Axes", view: View) -> None:
        shown, floor = self.chosen(view), self.floor(view)
        exponents = [LOW + step / STEPS for step in range((HIGH - LOW) * STEPS + 1)]
        for name, at in shown.items():
            colour, dash = SERIES[at]
            kept = [self.bytes_of(name, view | {"log2_context": x}) for x in exponents]
            axes.plot([2**x for x in exponents], kept, color=colour, linestyle=dash, linewidth=2, label=name)
        axes.axhline(_limit(view), color="black", linewidth=1)
        axes.text(2**LOW, _limit(view), f" {view['device']}", va="bottom", fontsize=9)
        axes.axvline(context_of(view), color="black", linewidth=0.6)
        axes.set(xscale="log", yscale="log", xlim=(2**LOW, 2**HIGH), ylim=(floor, CEILING))
        axes.set_yticks(*_ticks(floor), minor=False)
        axes.set_xticks([2**x for x in range(LOW, HIGH + 1, 2)], ["256", "1K", "4K", "16K", "64K", "256K", "1M", "4M"])
        axes.set_xticks([], minor=True)
        axes.set_yticks([], minor=True)
        axes.set_title("over the tokens read", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        if shown:
            axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def context_of(view: View) -> int:
    """Tokens that each sequence of a view has read."""
    return round(2 ** view["log2_context"])


@cache
def default_models() -> tuple[str | tuple[str, LanguageModel], ...]:
    """A cache, a cache with a window, a hybrid and two states, of about 7 billion parameters each."""
    # Mistral 7B as first released, arXiv 2310.06825, table 1: the preset has no window, as all later releases.
    windowed = DecoderConfig(32_000, 4096, 32, heads=32, groups=8, ffn_width=14_336, window=4096)
    hybrid = HybridConfig(65_536, 4096, 32, pattern="RRRA", groups=16)
    with torch.device("meta"):
        between = (("mistral-7b windowed", Decoder(windowed)), ("hybrid-7b RRRA", HybridLM(hybrid)))
    return "llama-3.1-8b", *between, "eagle-7b", "rwkv4-7b"


def _limit(view: View) -> int:
    return int(view["device"].split()[0]) * GIB


def _ticks(floor: int) -> tuple[list[int], list[str]]:
    """Every fifth doubling, in units that need no fraction."""
    exponents = range(5 * math.ceil(math.log2(floor) / 5), int(math.log2(CEILING)) + 1, 5)
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    return [2**x for x in exponents], [f"{2 ** (x % 10)} {units[x // 10]}" for x in exponents]


def _given(models: Sequence[str | tuple[str, LanguageModel]]) -> tuple[str, ...]:
    """Their names, if they are models or presets and can be told apart."""
    if len(models) > len(SEATS):
        raise ValueError(f"CacheRace: models: at most {len(SEATS)} can be told apart, got {len(models)}")
    names = tuple(_name(model) for model in models)
    taken = [*names, *(name for name in (NOBODY, *PRESETS) if name not in models)]
    twice = {name for name in names if taken.count(name) > 1}
    if twice:
        raise ValueError(f"CacheRace: models: each needs a name of its own, got {', '.join(sorted(twice))} twice")
    return names


def _name(model: str | tuple[str, LanguageModel]) -> str:
    if isinstance(model, str):
        if model not in PRESETS:
            raise ValueError(f"CacheRace: models: unknown preset {model!r}; choose {', '.join(PRESETS)}")
        return model
    if not isinstance(model, tuple) or len(model) != 2 or not isinstance(model[1], LanguageModel):
        raise ValueError(f"CacheRace: models: each is the name of a preset or a pair (name, model), got {model!r}")
    return str(model[0])


def _built(models: Sequence[str | tuple[str, LanguageModel]]) -> dict[str, Footprints]:
    """Footprints of those that are no presets."""
    return {str(model[0]): footprints(model[1]) for model in models if not isinstance(model, str)}


@cache
def _default_footprints() -> dict[str, Footprints]:
    return _built(default_models())


def _least(found: Footprints) -> int:
    """Bytes that a model keeps at the lowest view."""
    return min(each.kept_bytes(2**LOW) for each in found.values())


def _plain(found: Footprints) -> dict:
    """What the browser gets: a sharing that changes nothing is left out."""
    kept = {sharing: each for sharing, each in found.items() if sharing == AS_BUILT or each != found[AS_BUILT]}
    footprints = {
        sharing: {"parameters": each.parameters, "pieces": [piece._asdict() for piece in each.pieces]}
        for sharing, each in kept.items()
    }
    return {"least": _least(found), "footprints": footprints}
