"""Accounts as a picture: what a text adds, by kind, and what a device must hold in all."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hybridlab.measure.memory import Account
from hybridlab.measure.units import BINARY, SIZES, readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = "tableau-colorblind10"  # matplotlib's colours for readers who cannot tell red from green
KINDS = {"cache": "kv_bytes", "recurrent state": "recurrent_bytes", "conv and shift state": "conv_bytes"}
HEIGHT = 0.27  # of a bar, where models are 1 apart
PALE, INK = "0.8", "0.25"
ROOM = 1.35  # to the right of the longest bar, for its label


def plot_accounts(accounts: Sequence[Account], limits: Mapping[str, int] | None = None) -> "Figure":
    """Draws bars for what is kept, by kind on a logarithmic scale, and for all that a device holds on a linear one.

    Args:
        accounts: at least one, all of one context, batch and dtype.
        limits: memory of devices in bytes, by name: a line each.

    Raises:
        ValueError: no account, or accounts of different contexts, batches or dtypes.

    Chapter 12.
    """
    settings = {(found.context, found.batch, found.dtype, found.state_dtype) for found in accounts}
    if len(settings) != 1:
        raise ValueError(f"plot_accounts: accounts must be of one context, batch and dtype, got {len(settings)} of them")
    # Imported here: measuring needs no matplotlib.
    import matplotlib.style

    from hybridlab.measure.picture import Picture

    with matplotlib.style.context(STYLE):
        figure = Picture(figsize=(12, 1.9 + 0.85 * len(accounts)), dpi=144, layout="constrained")
        kept, held = figure.subplots(1, 2, sharey=True)
        _draw_kinds(kept, accounts)
        _draw_device(held, accounts, limits or {})
    kept.set_yticks(range(len(accounts)), [found.model for found in accounts])
    kept.invert_yaxis()
    first = accounts[0]
    sequences = "1 sequence" if first.batch == 1 else f"{first.batch:,} sequences"
    dtypes = f"weights and caches {first.dtype}, recurrent states {first.state_dtype}"
    figure.suptitle(f"{sequences} of {first.context:,} tokens: {dtypes}", fontsize=11)
    return figure


def _draw_kinds(axes: "Axes", accounts: Sequence[Account]) -> None:
    places = range(len(accounts))
    for offset, (label, name) in enumerate(KINDS.items(), -1):
        counts = [getattr(found, name) for found in accounts]
        rows = [place + offset * HEIGHT for place in places]
        bars = axes.barh(rows, counts, 0.9 * HEIGHT, label=label)
        texts = [f" {readable(count)}" if count else "" for count in counts]
        axes.bar_label(bars, texts, fontsize=8, color=INK)
    axes.set_xscale("log", base=2)
    axes.set_xticks([SIZES[unit] for unit in reversed(BINARY)], [f"1 {unit}" for unit in reversed(BINARY)])
    axes.minorticks_off()
    most = max(found.total_bytes for found in accounts)
    least = min(count for found in accounts for name in KINDS.values() if (count := getattr(found, name)))
    axes.set_xlim(least / 4, most * (most / least) ** 0.3 * 2)
    _finish(axes, "kept for the text, by kind (logarithmic scale)")


def _draw_device(axes: "Axes", accounts: Sequence[Account], limits: Mapping[str, int]) -> None:
    places, unit = range(len(accounts)), SIZES["GiB"]
    weights = [found.weight_bytes / unit for found in accounts]
    kept = [found.total_bytes / unit for found in accounts]
    axes.barh(places, weights, 2 * HEIGHT, color=PALE, label="weights")
    bars = axes.barh(places, kept, 2 * HEIGHT, left=weights, color="C4", label="all that is kept")
    texts = [f" {readable(found.weight_bytes + found.total_bytes)}" for found in accounts]
    axes.bar_label(bars, texts, fontsize=8, color=INK)
    for name, limit in limits.items():
        axes.axvline(limit / unit, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(name, (limit / unit, 0), (3, 3), ("data", "axes fraction"), "offset points", fontsize=8, color=INK)
    longest = max(both + alone for both, alone in zip(weights, kept, strict=True))
    axes.set_xlim(0, ROOM * max([longest, *(limit / unit for limit in limits.values())]))
    _finish(axes, "a device holds, in GiB (linear scale)")


def _finish(axes: "Axes", label: str) -> None:
    axes.set_xlabel(label)
    axes.tick_params(length=0, axis="y")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
