"""Hyena's filters: a small network of sines says how much an input weighs by how long ago it was; turn its knobs."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridlab.layers.hyena_filter import FADED, FASTEST, SLOWEST, HyenaSizes
from hybridlab.widgets.arrays import pack
from hybridlab.widgets.base import LivePicture, Shown, script
from hybridlab.widgets.controls import Choice, Control, Play, Slider, Toggle, View
from hybridlab.widgets.palette import NEGATIVE, POSITIVE, RED, SERIES, ZERO
from hybridlab.widgets.text import short, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = NDArray[np.float64]
Draws = list[NDArray[np.int64]]

SIZES = HyenaSizes()
CHANNELS, SEEDS = 4, 8
LOW, HIGH = 4, 8  # of log2 of the taps
TOKENS = 128  # of the matrix
POINTS = 512  # of the Fourier transform: more than there are taps
STD, SHARPNESS = 0.02, 32  # of the network's first weights, which are whole numbers over SHARPNESS, times STD
REACH, BAND = 0.99, 0.9  # shares of the energy: in how many taps, below which frequency
FLOAT = 4  # bytes of a float32
STEP = 0.05
ENDS = tuple(round(STEP * n, 2) for n in range(2, 61))  # in filter lengths: what a window can take to fade


class Found(NamedTuple):
    """The filters at a view.

    Attributes:
        network: what the network says, (CHANNELS, L).
        windows: what it is multiplied by, (CHANNELS, L).
        taps: their product, the filters.
        spectra: |H(f)| at f = 0, 1 / POINTS, ... 1/2 waves a token, (CHANNELS, POINTS / 2 + 1).
        reach: of each channel, how many taps, from tap 0 on, hold 99 % of the energy.
        band: of each channel, the frequency below which 90 % of the energy is, in waves a token.
    """

    network: Numbers
    windows: Numbers
    taps: Numbers
    spectra: Numbers
    reach: list[int]
    band: list[float]


def draws(seed: int) -> Draws:
    """A seed's weights before they are scaled, map by map: odd whole numbers, near normal; a narrower network takes the
    first rows and columns."""
    rng = np.random.default_rng(seed)
    shapes = ((SIZES.hidden, SIZES.features), *SIZES.inner * ((SIZES.hidden, SIZES.hidden),), (CHANNELS, SIZES.hidden))
    drawn = (np.floor(SHARPNESS / 2 * rng.normal(size=shape)).astype(np.int64) for shape in shapes)
    return [np.clip(2 * whole + 1, -127, 127) for whole in drawn]


def weights(view: View) -> list[Numbers]:
    """The network's maps at a view, from its features to the channels."""
    *maps, last = draws(int(view["seed"]))
    hidden = int(view["hidden"])
    first = maps[0][:hidden, : features_of(view)]
    parts = (first, *(inner[:hidden, :hidden] for inner in maps[1:]), last[:, :hidden])
    return [np.multiply(STD / SHARPNESS, part, dtype=np.float64) for part in parts]


def taps_of(view: View) -> int:
    """L, the taps of a filter at a view."""
    return round(2 ** view["log2_taps"])


def features_of(view: View) -> int:
    """What the network reads of a time: its share of the way back, a cosine and a sine for each band."""
    return 2 * int(view["bands"]) + 1


def numbers(view: View) -> Found:
    """The filters at a view, by the equation of `hybridlab.layers.HyenaFilter`."""
    since = np.arange(taps_of(view))
    tau = since / (len(since) - 1)
    bands = int(view["bands"])
    angles = np.outer(since * (2 * np.pi / len(since)), np.linspace(1e-4, bands - 1, bands))
    read = np.concatenate((tau[:, None], np.cos(angles), -np.sin(angles)), axis=1)
    first, *rest = weights(view)
    said = read @ first.T
    for step in rest:
        said = np.sin(view["frequency"] * said) @ step.T
    decay = np.linspace(1 / view["slowest"], 1 / view["fastest"], CHANNELS) * -np.log(FADED)
    windows = np.exp(np.outer(-decay, tau)) if view["fading"] else np.ones((CHANNELS, len(since)))
    taps = said.T * windows
    spectra = np.abs(np.fft.rfft(taps, POINTS))
    twice = np.where(np.arange(POINTS // 2 + 1) % (POINTS // 2) == 0, 1, 2)  # each but the ends stands for -f too
    reach = [_first_with(REACH, row) + 1 for row in taps**2]
    band = [_first_with(BAND, row) / POINTS for row in twice * spectra**2]
    return Found(said.T, windows, taps, spectra, reach, band)


def _first_with(share: float, energies: Numbers) -> int:
    """The first place at which so much of the whole has come together."""
    together = np.cumsum(energies)
    return int(np.argmax(together >= share * together[-1]))


def fixed_numbers(channels: int, hidden: int, features: int) -> int:
    """Parameters of the network: its maps, their biases, a frequency for each hidden channel."""
    return hidden * (features + 1) + SIZES.inner * hidden * (hidden + 1) + channels * hidden + hidden


class FilterExplorer(LivePicture):
    """What filters can a small network of sines draw, and what do they cost?

    To find out with it: let the sine frequency play. Up to 5 or so the sines are almost straight lines, and the filter has
    no waves but those of its features; at 40 the same weights draw noise. Its band widens, its length does not. Fewer
    features and a narrower network calm it too. What sets the length is the window: without it a filter weighs all its taps
    alike; with it channels differ, so that a layer has long and short memories. Halve the time in which the fastest fades,
    and about half as many taps hold its energy.

    Last, move the taps. The curves stay, for they are drawn over shares of the way back, and only the times are more. In a
    layer of 256 channels the network is smaller than its taps from L = 121 on. But decoding keeps an input for each tap: as
    many numbers as the filter that was not stored.

    Args:
        channels: of the layer whose bytes are counted. The pictures show four of them, evenly spread from the slowest window
            to the fastest.

    Weights are what a layer starts with, STD 0.02; times are learned too, `features` numbers for each tap.

    Raises:
        ValueError: channels that are not a whole number from 1 on.

    Source: Hyena, arXiv 2302.10866, section 3.3. Chapter 06.
    """

    question = "What filters can a small network of sines draw, and what do they cost?"
    _esm = script("filter_explorer.js")

    def __init__(self, channels: int = 256) -> None:
        if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            raise ValueError(f"FilterExplorer: channels must be a whole number from 1 on, got {channels!r}")
        self.channels = channels
        bands = (SIZES.features - 1) // 2
        lengths = tuple(f"{short(end)} L" for end in ENDS)
        controls: list[Control | Play] = [
            Slider("frequency", "sine frequency", 1, 40, value=SIZES.frequency),
            Play("frequency", milliseconds=150),
            Slider("hidden", "network width", 4, SIZES.hidden, value=SIZES.hidden, step=4),
            Slider("bands", "features of a time", 1, bands, value=bands, texts=tuple(str(2 * n + 3) for n in range(bands))),
            Slider("seed", "seed", 1, SEEDS, value=1),
            Slider("log2_taps", "taps L", LOW, HIGH, value=7, step=0.25, power=2),
            Toggle("fading", "window"),
            Slider("slowest", "slowest fades in", ENDS[0], ENDS[-1], value=SLOWEST, step=STEP, texts=lengths),
            Slider("fastest", "fastest fades in", ENDS[0], ENDS[-1], value=FASTEST, step=STEP, texts=lengths),
            Choice("channel", "channel", tuple(str(n + 1) for n in range(CHANNELS)), "2"),
            Slider("ago", "age: steps ago", 0, 2**HIGH - 1, value=12),
        ]
        maps = zip(*(draws(seed) for seed in range(1, SEEDS + 1)), strict=True)
        inputs = {
            "maps": [pack(np.stack(each), "int8") for each in maps],
            "unit": STD / SHARPNESS,
            "faded": FADED,
            "channels": channels,
            "most": 2**HIGH,
            "tokens": TOKENS,
        }
        super().__init__(controls, inputs)

    def parameters(self, view: View) -> tuple[int, int]:
        """Numbers of the layer's filters: from the network with its times, and tap by tap."""
        length, features = taps_of(view), features_of(view)
        fixed = fixed_numbers(self.channels, int(view["hidden"]), features)
        return fixed + features * length, self.channels * length

    def smaller_from(self, view: View) -> int | None:
        """The first number of taps at which the network has fewer parameters than the taps; None: it never has."""
        saved = self.channels - features_of(view)
        return fixed_numbers(self.channels, int(view["hidden"]), features_of(view)) // saved + 1 if saved > 0 else None

    def shown(self, view: View) -> Shown:
        """The filter of the chosen channel, how far and how fast it is, and what all of the layer's cost."""
        found, at, length, ago = numbers(view), int(view["channel"]) - 1, taps_of(view), int(view["ago"])
        made = f"features, width {int(view['hidden'])}, sine frequency {short(view['frequency'])}"
        energy = f"99 % of its energy in {found.reach[at]} taps, 90 % below {short(found.band[at])} waves a token"
        weight = _weighs(found.taps[at], ago)
        text = f"{length} taps from {features_of(view)} {made}. Channel {at + 1}: {energy}; {weight}."
        network, explicit = (size(FLOAT * count) for count in self.parameters(view))
        first = self.smaller_from(view)
        readout = {
            f"tap {ago}": _beside_largest(found.taps[at], ago),
            "99 % of the energy": f"in {', '.join(map(str, found.reach))} of {length} taps",
            "90 % of the energy": f"below {', '.join(map(short, found.band))} waves a token",
            f"filters of {self.channels} channels": f"{network} as a network, {explicit} tap by tap",
            "the network is smaller": "at no length" if first is None else f"from {first:,} taps on",
            "kept at decode": f"{length} inputs a channel, {explicit}",
        }
        return Shown(text, readout)

    def figure(self, view: View) -> "Figure":
        """Taps and spectrum of each channel, and what reaches where in the chosen one."""
        from matplotlib.figure import Figure

        found, at, ago = numbers(view), int(view["channel"]) - 1, int(view["ago"])
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        grid = figure.add_gridspec(CHANNELS, 3, width_ratios=(1.5, 1, 2))
        for row, (colour, _) in enumerate(SERIES[:CHANNELS]):
            left, right = (figure.add_subplot(grid[row, column]) for column in (0, 1))
            left.plot(found.taps[row], color=colour, linewidth=1.2)
            left.axvline(found.reach[row] - 1, color="0.6", linewidth=0.8)
            if ago < taps_of(view):
                left.plot(ago, found.taps[row, ago], "o", color="black", markersize=4)
            left.set_title(f"channel {row + 1}: 99 % in {found.reach[row]} taps", fontsize=8, loc="left")
            right.fill_between(np.arange(POINTS // 2 + 1) / POINTS, found.spectra[row], color=colour, alpha=0.4)
            right.set_title(f"90 % below {short(found.band[row])}", fontsize=8, loc="left")
            for axes in (left, right):
                axes.set_yticks([])
                axes.tick_params(labelsize=7, labelbottom=row == CHANNELS - 1)
                axes.spines[["top", "right", "left"]].set_visible(False)
        left.set_xlabel("age (steps ago)", fontsize=8)
        right.set_xlabel("waves a token", fontsize=8)
        _draw_matrix(figure.add_subplot(grid[:, 2]), found.taps[at], ago)
        return figure


def toeplitz(taps: Numbers) -> Numbers:
    """How much token j reaches output i, (TOKENS, TOKENS): the tap i - j, and 0 where there is none."""
    since = np.arange(TOKENS)[:, None] - np.arange(TOKENS)
    padded = np.zeros(TOKENS)
    padded[: len(taps)] = taps[:TOKENS]
    return np.where(since >= 0, padded[since.clip(0)], 0.0)


def _draw_matrix(axes: "Axes", taps: Numbers, ago: int) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    limit = np.abs(taps).max()
    colours = LinearSegmentedColormap.from_list("mixing", [NEGATIVE, ZERO, POSITIVE])
    extent = (0.5, TOKENS + 0.5, TOKENS + 0.5, 0.5)
    axes.imshow(toeplitz(taps), cmap=colours, vmin=-limit, vmax=limit, extent=extent)
    if ago < TOKENS:
        axes.plot((1, TOKENS - ago), (1 + ago, TOKENS), color=RED, linewidth=1)
    axes.set(xlabel="token j", ylabel="output i")
    axes.set_title("how much token j reaches output i", fontsize=9)


def _weighs(taps: Numbers, ago: int) -> str:
    """What an input of so long ago counts."""
    which = "the present input" if ago == 0 else f"an input {ago} step{'' if ago == 1 else 's'} ago"
    return f"{which} weighs {short(taps[ago])}" if ago < len(taps) else f"{which} is out of reach"


def _beside_largest(taps: Numbers, ago: int) -> str:
    if ago >= len(taps):
        return "0, after the last one"
    return f"{short(taps[ago])}, {short(100 * abs(taps[ago]) / np.abs(taps).max())} % of the largest"
