"""Softmax's exponential beside its Taylor polynomial: what each further term repairs, and what it costs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from hybridlab.widgets.arrays import pack
from hybridlab.widgets.base import LivePicture, Shown, script
from hybridlab.widgets.controls import Choice, Control, Slider, View
from hybridlab.widgets.palette import BLUE, NEGATIVE, POSITIVE, RED, SERIES, ZERO
from hybridlab.widgets.taylor_weights import (
    HIGHEST_ORDER,
    NUMBER_BYTES,
    ROOTS,
    ROUNDING,
    Numbers,
    Sizes,
    Weights,
    logits_of,
    polynomial,
    sizes,
    weights_of,
)
from hybridlab.widgets.text import short, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MOST_TOKENS = MOST_NUMBERS = 64
LEAST_SCALE, MOST_SCALE = 0.25, 8.0
MOST_LOGIT = 80.0  # e^(8 x 80) is still a number
STRONGEST = 1.0  # weights beyond it have the colour of 1: an odd order's can be of any size, and would pale the others
LONGEST = 10**5  # tokens that the picture of the sizes reaches at least
TAYLOR, SOFTMAX, OFF = "Taylor's weights", "softmax's weights", "Taylor's minus softmax's"
MATRICES = (TAYLOR, SOFTMAX, OFF)
DASHES = SERIES[1][1]


class TaylorSoftmax(LivePicture):
    """How near does a polynomial come to softmax, and what does each further term cost?

    To find out with it: on the ledger, order 2 answers 3.024 where softmax answers 3.022. Then turn the logits up, 8 times:
    2.717 against 2.869, for a polynomial is like the exponential near 0 only. Then count: each order multiplies the state by
    about K, while the cache grows with the text. With three numbers a key, order 2 pays from 7 tokens on.

    An odd order breaks in another way: below the logit -1 (order 1) or -1.596 (order 3) it is negative, so that a token is
    subtracted, and the sum that all weights are divided by can be zero.

    Args:
        q: queries of one head, (T, K); T and K up to 64.
        k: its keys, (T, K).
        v: its values, (T, V), or (T,) for a single number; V up to 64.
        names: what the tokens are called; none: their numbers.

    The logits are scale q.k / sqrt(K); with a smaller K, only the first numbers of queries and keys are read. Every output
    reads the tokens up to its own.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, logits above 80 at scale 1.

    Chapter 07.
    """

    question = "How near does a polynomial come to softmax, and what does each further term cost?"
    _esm = script("token_matrix.js", "taylor_softmax.js")

    def __init__(self, q: ArrayLike, k: ArrayLike, v: ArrayLike, names: Sequence[str] = ()) -> None:
        self.q, self.k, self.v = _checked(q, k, v)
        tokens, width = self.q.shape
        self.names = tuple(names) or tuple(str(t + 1) for t in range(tokens))
        if len(self.names) != tokens:
            raise ValueError(f"TaylorSoftmax: expected {tokens} names, got {len(self.names)}")
        controls: list[Control] = [
            Slider("order", "order", 0, HIGHEST_ORDER, value=2),
            Slider("scale", "logits \u00d7", LEAST_SCALE, MOST_SCALE, value=1, step=0.25),
            Slider("width", "numbers a key, K", 1, width, value=width),
            Choice("matrix", "matrix", MATRICES, TAYLOR),
            Slider("i", "output i", 1, tokens, value=tokens),
            Slider("j", "token j", 1, tokens, value=1),
        ]
        arrays = {name: pack(array) for name, array in (("q", self.q), ("k", self.k), ("v", self.v))}
        super().__init__(controls, {**arrays, "names": list(self.names)})

    def weights(self, view: View) -> Weights:
        """Both kernels' weights at a view."""
        width = int(view["width"])
        return weights_of(view["scale"] * logits_of(self.q[:, :width], self.k[:, :width]), int(view["order"]))

    def sizes(self, view: View) -> Sizes:
        """What state and cache hold at a view."""
        return sizes(int(view["order"]), int(view["width"]), self.v.shape[1])

    def shown(self, view: View) -> Shown:
        """How far off the weights are, where the polynomial is negative, and which of state and cache is the smaller."""
        weights, held, tokens = self.weights(view), self.sizes(view), len(self.names)
        text = (
            f"Order {view['order']}, logits \u00d7 {short(view['scale'])}: {self._error(weights)}; "
            f"{_signs(weights, int(view['order']))}. {self._entry(view, weights)} "
            f"The state holds {held.state:,} numbers, the cache of {_tokens(tokens)} {held.per_token * tokens:,}; "
            f"from {_tokens(held.longer)} on the cache holds more."
        )
        return Shown(text, {**self._pair(view, weights), **self._whole(view, weights), **_counted(held, tokens)})

    def _error(self, weights: Weights) -> str:
        if weights.lost:
            return f"output {weights.lost[0] + 1} has no weights, for their sum is 0"
        i, j = weights.worst()
        most = abs(weights.off[i, j])
        if not most:
            return "every weight is softmax's"
        return f"the worst weight is {short(most)} off, at output {i + 1}, token {self._name(j)}"

    def _entry(self, view: View, weights: Weights) -> str:
        i, j = int(view["i"]) - 1, int(view["j"]) - 1
        if j > i:
            return f"Token {self._name(j)} comes after output {i + 1} and cannot reach it."
        softmax = short(weights.softmax[i, j])
        if i in weights.lost:
            return f"Token {self._name(j)} has no weight at output {i + 1}; softmax gives {softmax}."
        return (
            f"Token {self._name(j)} reaches output {i + 1} with weight {short(weights.taylor[i, j])}, in softmax {softmax}."
        )

    def _name(self, j: int) -> str:
        return self.names[j] if self.names[j] == str(j + 1) else f"{j + 1} ({self.names[j]})"

    def _pair(self, view: View, weights: Weights) -> dict[str, str]:
        """From the logit at (i, j) to its weights."""
        i, j = int(view["i"]) - 1, int(view["j"]) - 1
        if j > i:
            return {"logit": "none", "weight": "0"}
        logit = weights.logits[i, j]
        taylor = "none" if i in weights.lost else short(weights.taylor[i, j])
        return {
            "logit": short(logit),
            "polynomial": f"{short(weights.kernel[i, j])}, exp {short(np.exp(logit))}",
            "weight": f"{taylor}, softmax {short(weights.softmax[i, j])}",
        }

    def _whole(self, view: View, weights: Weights) -> dict[str, str]:
        """What output i is, of several numbers the first, and the lowest sum that weights are divided by."""
        i, lowest = int(view["i"]) - 1, weights.lowest()
        which = "" if self.v.shape[1] == 1 else ", number 1"
        taylor, softmax = (short(_sum(rows[i] * self.v[:, 0])) for rows in (weights.taylor, weights.softmax))
        least = 0.0 if lowest in weights.lost else weights.sums[lowest]
        return {
            f"output {i + 1}{which}": f"{'none' if i in weights.lost else taylor}, softmax {softmax}",
            "lowest sum of weights": f"{short(least)} at output {lowest + 1}",
        }

    def figure(self, view: View) -> "Figure":
        """Kernels, the matrix, one row of it, and the sizes."""
        from matplotlib.figure import Figure

        weights = self.weights(view)
        figure = Figure(figsize=(8.4, 6.2), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=(1.35, 1))
        _draw_kernels(figure.add_subplot(grid[0, 0]), weights, view)
        self._draw_matrix(figure.add_subplot(grid[0, 1]), weights, view)
        self._draw_row(figure.add_subplot(grid[1, 0]), weights, view)
        self._draw_sizes(figure.add_subplot(grid[1, 1]), view)
        return figure

    def _draw_matrix(self, axes: "Axes", weights: Weights, view: View) -> None:
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.patches import Rectangle

        shown = {TAYLOR: weights.taylor, SOFTMAX: weights.softmax, OFF: weights.off}[view["matrix"]]
        tokens, most = len(shown), max(np.abs(shown).max(), ROUNDING)
        limit = min(most, STRONGEST)
        colours = LinearSegmentedColormap.from_list("mixing", [NEGATIVE, ZERO, POSITIVE])
        axes.imshow(shown, cmap=colours, vmin=-limit, vmax=limit, extent=(0.5, tokens + 0.5, tokens + 0.5, 0.5))
        worst = weights.lost[0] if weights.lost else weights.worst()[0]
        row = Rectangle((0.5, worst + 0.5), worst + 1, 1, fill=False, color=RED, linewidth=1.5, linestyle="dashed")
        row.set_clip_on(False)
        axes.add_patch(row)
        axes.add_patch(Rectangle((view["j"] - 0.5, view["i"] - 0.5), 1, 1, fill=False, linewidth=2))
        axes.set(xlabel="token j", ylabel="output i")
        _count(axes.xaxis)
        _count(axes.yaxis)
        dashed = "a row without weights" if weights.lost else "the worst row"
        axes.set_title(f"{view['matrix']} to {short(limit)}\ndashed: {dashed}", loc="left", fontsize=9)

    def _draw_row(self, axes: "Axes", weights: Weights, view: View) -> None:
        i = int(view["i"]) - 1
        places = np.arange(1, i + 2)
        axes.bar(places - 0.2, weights.softmax[i, : i + 1], width=0.36, color=BLUE, label="softmax")
        bars = axes.bar(places + 0.2, weights.taylor[i, : i + 1], width=0.36, label=f"order {view['order']}")
        for bar in bars:
            bar.set_visible(i not in weights.lost)
            bar.set(edgecolor=RED, facecolor="#F5CDB0", hatch="///")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(xlabel="token j", ylabel="weight", xlim=(0.4, len(self.names) + 0.6))
        _count(axes.xaxis)
        _finish(axes, f"weights of output {i + 1}")

    def _draw_sizes(self, axes: "Axes", view: View) -> None:
        held = self.sizes(view)
        longest = self.longest()
        axes.axhline(held.state, color=RED, linestyle=DASHES, label=f"state, order {view['order']}")
        axes.plot([1, longest], [held.per_token, held.per_token * longest], color=BLUE, label="cache")
        axes.plot(held.longer, held.per_token * held.longer, "o", color="black", fillstyle="none")
        axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel="numbers carried")
        _finish(axes, f"from {_tokens(held.longer)} on (circle) the cache holds more")

    def longest(self) -> int:
        """How many tokens the picture of the sizes reaches: a power of ten that no order's state outlasts."""
        crossing = sizes(HIGHEST_ORDER, self.q.shape[1], self.v.shape[1]).longer
        return max(LONGEST, 10 ** len(str(crossing)))


def _checked(q: ArrayLike, k: ArrayLike, v: ArrayLike) -> tuple[Numbers, Numbers, Numbers]:
    queries, keys, values = (np.array(given, dtype=np.float64) for given in (q, k, v))
    values = values[:, None] if values.ndim == 1 else values
    if queries.ndim != 2 or not 1 <= len(queries) <= MOST_TOKENS or not 1 <= queries.shape[1] <= MOST_NUMBERS:
        raise ValueError(f"TaylorSoftmax: q must be (T, K) with T and K from 1 to {MOST_TOKENS}, got {queries.shape}")
    if keys.shape != queries.shape:
        raise ValueError(f"TaylorSoftmax: k must be {queries.shape}, got {keys.shape}")
    if values.ndim != 2 or len(values) != len(queries) or not 1 <= values.shape[1] <= MOST_NUMBERS:
        expected = f"({len(queries)}, V) with V from 1 to {MOST_NUMBERS}"
        raise ValueError(f"TaylorSoftmax: v must be {expected}, got {values.shape}")
    for name, given in (("q", queries), ("k", keys), ("v", values)):
        if not np.isfinite(given).all():
            raise ValueError(f"TaylorSoftmax: {name} must be finite")
    widths = range(1, queries.shape[1] + 1)
    largest = max(np.abs(logits_of(queries[:, :width], keys[:, :width])).max() for width in widths)
    if largest > MOST_LOGIT:
        raise ValueError(f"TaylorSoftmax: q.k / sqrt(K) must be at most {MOST_LOGIT:g}, its largest is {largest:.4g}")
    return queries, keys, values


def _signs(weights: Weights, order: int) -> str:
    tokens = len(weights.sums)
    pairs = tokens * (tokens + 1) // 2
    if order not in ROOTS:
        return "an even order is never negative" if order else "order 0 weighs all tokens alike"
    found = weights.negative()
    below = f"below logit {short(ROOTS[order])}"
    return f"the polynomial is negative {below}, as {found} of {pairs} logits are" if found else f"no logit lies {below}"


def _counted(held: Sizes, tokens: int) -> dict[str, str]:
    cache = held.per_token * tokens
    return {
        "state": f"{held.features:,} \u00d7 {held.state // held.features} = {held.state:,} numbers, "
        f"{size(NUMBER_BYTES * held.state)}",
        f"cache of {_tokens(tokens)}": f"{cache:,} numbers, {size(NUMBER_BYTES * cache)}",
        "cache holds more from": _tokens(held.longer),
    }


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count:,} tokens"


def _sum(terms: Numbers) -> float:
    """0 for what rounding left of it."""
    total = float(terms.sum())
    return 0.0 if abs(total) <= ROUNDING * np.abs(terms).sum() else total


def _draw_kernels(axes: "Axes", weights: Weights, view: View) -> None:
    order, found = int(view["order"]), weights.logits[np.tri(len(weights.sums), dtype=bool)]
    s = np.linspace(*_span(float(found.min()), float(found.max())), 300)
    exponential, terms = np.exp(s), polynomial(order, s)
    axes.plot(s, exponential, color=BLUE, label="$e^s$")
    axes.plot(s, terms, color=RED, linestyle=DASHES, label=f"order {order}")
    root = ROOTS.get(order, -np.inf)
    if root > s[0]:
        axes.axvspan(s[0], min(root, s[-1]), color=NEGATIVE, alpha=0.25, linewidth=0, label="negative")
    at_foot = axes.get_xaxis_transform()
    axes.plot(found, np.full_like(found, 0.02), "|", color="grey", markersize=8, label="logits", transform=at_foot)
    if view["j"] <= view["i"]:
        axes.axvline(weights.logits[view["i"] - 1, view["j"] - 1], color="grey", linewidth=0.8)
    axes.set_yscale("asinh", linear_width=1)
    floor, ceiling = min(0.0, terms.min()), max(exponential.max(), terms.max())
    ticks = [tick for tick in _around_zero(floor, ceiling) if floor <= tick <= ceiling]
    axes.set_yticks(ticks, [short(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="logit s", ylabel="weight before it is divided", xlim=(s[0], s[-1]), ylim=(floor, ceiling))
    _finish(axes, "$e^s$ and its polynomial, by powers of ten beyond 1")


def _span(lowest: float, highest: float) -> tuple[float, float]:
    """What is drawn of the logits: 0, where both kernels are 1, and a little more than the lowest and the highest."""
    least, most = min(0.0, lowest), max(0.0, highest)
    edge = max(0.04 * (most - least), 0.02)
    return least - edge if least < 0 else 0.0, most + edge if most > 0 or least == 0 else 0.0


def _around_zero(floor: float, ceiling: float) -> list[float]:
    """0, 1 and -1 and some powers of ten."""
    decades = int(np.ceil(np.log10(max(10.0, -floor, ceiling))))
    powers = [10.0**power for power in range(0, decades + 1, -(-decades // 5))]
    return sorted({0.0, *powers, *(-power for power in powers)})


def _count(axis: "Axis") -> None:
    """Whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", integer=True))


def _finish(axes: "Axes", title: str) -> None:
    axes.set_title(title, loc="left", fontsize=9)
    axes.legend(fontsize=7, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
