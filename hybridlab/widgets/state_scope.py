"""One head's state, token by token, through a real run."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hybridlab.measure.recording import OpCall, record
from hybridlab.models.language_model import LanguageModel
from hybridlab.widgets.arrays import pack
from hybridlab.widgets.base import LivePicture, Shown, script
from hybridlab.widgets.controls import Choice, Control, Play, Slider, View
from hybridlab.widgets.palette import NEGATIVE, POSITIVE, RED, ZERO
from hybridlab.widgets.state_traces import (
    GROUP,
    READERS,
    AverageTrace,
    DeltaTrace,
    MatrixTrace,
    Numbers,
    Trace,
    arrays,
    rounded,
    traces,
)
from hybridlab.widgets.text import short, size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TOKENS = 256
MOST_BYTES = 3 * 2**19
MILLISECONDS = 250
SAID = {"\n": "newline", " ": "space", "\t": "indent", "    ": "indent"}
RECENT = 30  # characters of text in a title
CLOCKS = (0.1, 1e5)  # half-lives between which a bar's length tells them apart
AXES = {
    "matrix": ("key channels", "value channels"),
    "delta": ("key channels", "value channels"),
    "gated": ("key channels", "value channels"),
    "scan": ("state numbers", "channels"),
    "vector": ("channels", "tokens"),
    "average": ("channels", "tokens"),
}
CHANGED = RED


class Measured(NamedTuple):
    """What is read off a state after one token.

    Attributes:
        norm: square root of the sum of the squares of all cells.
        changes: for each row, the length of the difference from the state one token before, (rows,).
        cell: row and column of the cell that changed most, in the row that changed most.
        half_lives: ln 2 / -log decay of each row at this token, in tokens, (rows,); in a selective scan, whose cells have
            clocks of their own, from the mean of the row's log decays.
        rank: effective rank, exp of the entropy of the singular values divided by their sum; 0 for a state of zeros; None
            where no two channels share a matrix.
        output: length of what this token reads.
        share: of the present token in it: its part's length over the sum of both parts' lengths.
        loudest: the channel with the largest summed weight and that weight's logarithm in RWKV-4, the one with the largest
            number in other vectors; None in a matrix.
    """

    norm: float
    changes: Numbers
    cell: tuple[int, int]
    half_lives: Numbers
    rank: float | None
    output: float
    share: float
    loudest: tuple[int, float] | None


class StateScope(LivePicture):
    """What does a state still hold, and which token put it there?

    To find out with it: play the run as trained, then with decay 0, where nothing is forgotten: the norm climbs as long as
    the text goes on. With decay 4 every half-life is a quarter, the norm levels off, the effective rank falls, and a row
    with a short bar holds the last few tokens and nothing else: a text that begins there leaves it the same. The averages
    of RWKV-4 have nothing to climb; with decay 0 they weigh all tokens alike and hardly move any more. Mamba-2 has one clock
    a head: all bars are as long, and each token sets them anew. In RetNet they stay as they are for good. In a delta rule
    nothing fades, and yet the norm need not climb: a token takes away what its key had before it writes.

    Args:
        heads: what each head went through, from `traces` or by hand; all over the same tokens, T up to 256.
        tokens: the text of each token, T of them; none: their numbers.
        names: what the heads are called; none: head 1, head 2 ...

    Raises:
        ValueError: no head, heads over different numbers of tokens, tokens or names that do not
            fit, more than 1.5 MiB in all.
    """

    question = "What does the state still hold, and which token put it there?"
    _esm = script("state_scope.js")

    def __init__(self, heads: Sequence[Trace], tokens: Sequence[str] = (), names: Sequence[str] = ()) -> None:
        self.heads = tuple(rounded(head) for head in heads)
        _check_heads(self.heads)
        count = len(self.heads[0].values)
        self.tokens = tuple(tokens) or tuple(str(t + 1) for t in range(count))
        self.names = tuple(names) or tuple(f"head {h + 1}" for h in range(len(self.heads)))
        for name, given, expected in (("tokens", self.tokens, count), ("names", self.names, len(self.heads))):
            if len(given) != expected:
                raise ValueError(f"StateScope: expected {expected} {name}, got {len(given)}")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"StateScope: names must differ, got {', '.join(self.names)}")
        inputs = {
            "heads": [{"kind": h.kind, **{name: pack(x, "float32") for name, x in arrays(h).items()}} for h in self.heads],
            "names": list(self.names),
            "tokens": list(self.tokens),
            "between": _between(self.tokens),
            "said": [SAID.get(token, token) for token in self.tokens],
        }
        super().__init__(self._made_controls(count), inputs)

    def _made_controls(self, count: int) -> list[Control | Play]:
        controls: list[Control | Play] = [
            Slider("t", "token", 1, count, value=count),
            Play("t", milliseconds=MILLISECONDS),
            Slider("decay", "decay times", 0, 4, value=1, step=0.25),
        ]
        if any(head.bonus is not None for head in self.heads):
            controls.append(Slider("bonus", "bonus plus", -3, 3, value=0, step=0.25))
        if len(self.heads) > 1:
            controls.append(Choice("head", "head", self.names, self.names[0]))
        return controls

    def head(self, view: View) -> Trace:
        """The head of a view."""
        return self.heads[self.names.index(view.get("head", self.names[0]))]

    def shown(self, view: View) -> Shown:
        """The state's numbers at a view."""
        t, head = int(view["t"]), self.head(view)
        found = measure(head, t - 1, view["decay"], view.get("bonus", 0))
        said = SAID.get(self.tokens[t - 1], self.tokens[t - 1])
        where = f"token {t}" if said == str(t) else f"token {t} ({said})"
        row, column = found.cell
        change = short(found.changes[row])
        most = f"channel {row + 1} by {change}" if head.lines else f"row {row + 1} by {change}, most in column {column + 1}"
        text = f"After {where}, {view.get('head', self.names[0])}: norm {short(found.norm)}; changed most: {most}."
        readout = {
            "norm": short(found.norm),
            **_structure(found, head, min(cells_of(head, view["decay"]).shape[1:])),
            "changed most": most,
            "half-lives": f"{short(found.half_lives.min())} to {short(found.half_lives.max())} tokens",
            "output": short(found.output),
            "present token's share": short(found.share),
        }
        return Shown(text, readout)

    def figure(self, view: View) -> "Figure":
        """The state, the clocks of its rows, and the norm so far."""
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        head, t = self.head(view), int(view["t"]) - 1
        cells, found = cells_of(head, view["decay"]), measure(head, t, view["decay"])
        shown = _picture(head, cells, t)
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        (state, clocks), (norm, empty) = figure.subplots(2, 2, height_ratios=(4, 1), width_ratios=(4, 1))
        empty.set_axis_off()
        limit = colour_limit(cells) or 1.0
        colours = LinearSegmentedColormap.from_list("state", [NEGATIVE, ZERO, POSITIVE])
        state.imshow(
            shown,
            cmap=colours,
            vmin=-limit,
            vmax=limit,
            aspect="auto",
            extent=(0.5, shown.shape[1] + 0.5, len(shown) + 0.5, 0.5),
        )
        row, column = (found.cell[0], t) if head.lines else found.cell
        state.add_patch(Rectangle((0.5, row + 0.5), shown.shape[1], 1, fill=False, linewidth=1.2))
        state.add_patch(Rectangle((column + 0.5, row + 0.5), 1, 1, fill=False, linewidth=2, color=CHANGED))
        rows, columns = AXES[head.kind]
        state.set(title=f"after token {t + 1}: … {self._recent(t)}", ylabel=rows, xlabel=columns)
        clocks.barh(range(1, len(found.half_lives) + 1), np.clip(found.half_lives, *CLOCKS), color="#888888")
        clocks.set(xscale="log", xlim=CLOCKS, ylim=state.get_ylim(), title="half-life")
        norm.plot(range(1, len(cells) + 1), norms(cells), color=POSITIVE)
        norm.plot(t + 1, found.norm, "o", color=CHANGED)
        norm.set(xlabel="token", ylabel="norm", ylim=(0, None))
        return figure

    def _recent(self, t: int) -> str:
        """The last few tokens, for a title; dollar signs would begin a formula."""
        shown = _between(self.tokens).join(self.tokens[: t + 1])[-RECENT:]
        return shown.replace("\n", "↵").replace("\t", "  ").replace("$", r"\$")


def measure(trace: Trace, t: int, decay: float = 1.0, bonus: float = 0.0) -> Measured:
    """What is read off a trace's state after token t, counted from 0.

    Args:
        trace: one head.
        t: the token.
        decay: factor on the log decay: 1 as trained, 0 never forgets, 4 forgets four times as fast.
        bonus: added to the trained bonus.
    """
    states = states_of(trace, decay)
    cells = cells_of(trace, decay)
    change = cells[t] - cells[t - 1] if t else cells[t]
    changes = np.sqrt((change**2).sum(1))
    row = int(changes.argmax())
    past, now = trace.parts(t, states, decay, bonus)
    lengths = _length(past), _length(now)
    with np.errstate(divide="ignore"):
        half_lives = math.log(2) / np.abs(decay * trace.log_decay_at(t))
    return Measured(
        norm=_length(cells[t]),
        changes=changes,
        cell=(row, int(np.abs(change[row]).argmax())),
        half_lives=half_lives,
        rank=None if trace.lines else effective_rank(cells[t]),
        output=_length(past + now),
        share=lengths[1] / sum(lengths) if any(lengths) else 0.0,
        loudest=_loudest(states[t]) if trace.lines else None,
    )


@lru_cache(maxsize=4)
def states_of(trace: Trace, decay: float) -> Numbers:
    """The trace's states, kept while a learner scrubs."""
    return trace.states(decay)


def cells_of(trace: Trace, decay: float) -> Numbers:
    """What of the states is drawn as cells: (T, K, V), or a vector's channels, of RWKV-4 its averages, (T, C, 1)."""
    states = states_of(trace, decay)
    return states[..., :1] if isinstance(trace, AverageTrace) else states


def norms(cells: Numbers) -> Numbers:
    """The norm after every token, (T,)."""
    return np.sqrt((cells**2).sum((1, 2)))


def colour_limit(cells: Numbers) -> float:
    """What is drawn in full colour: three root mean squares of the run's fullest state, at most its largest cell."""
    return min(float(np.abs(cells).max()), 3 * float(norms(cells).max()) / math.sqrt(cells[0].size))


def effective_rank(state: Numbers) -> float:
    """exp(-sum p ln p), p the singular values divided by their sum: 1 for one outer product, n for n equal directions.

    Source: Roy and Vetterli, The effective rank, EUSIPCO 2007. Chapter 03.
    """
    values = np.linalg.svd(state, compute_uv=False)
    if not values.any():
        return 0.0
    p = values[values > 0] / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def scope(
    model: LanguageModel, input_ids: Tensor, layer: int = 0, tokens: Sequence[str] = (), heads: Sequence[int] = ()
) -> StateScope:
    """Runs a model over a text and puts one layer's heads under the scope.

    Args:
        model: any with a layer whose state can be shown: RWKV-4 to 6, Hawk, Mamba, Mamba-2, RetNet, hybrids of them.
        input_ids: one text, (T,) or (1, T), T up to 256.
        layer: which, counted from 0.
        tokens: the text of each token; none: their ids.
        heads: which heads, counted from 0, or groups of 64 channels in what has no heads (RWKV-4, RG-LRU, Mamba); none: all.

    Raises:
        ValueError: a layer or a head that is not there or has no such state; what `StateScope` refuses.

    Example: scope(model, ids, layer=1, tokens=[ALPHABET[i] for i in ids]), ids from tasks.text.encode
    """
    ids = torch.atleast_2d(input_ids)
    calls = {call.layer.split(".")[1]: call for call in record(model, ids) if _can_be_shown(call)}
    if str(layer) not in calls:
        raise ValueError(f"layer: expected one with a state to look at ({', '.join(calls) or 'there is none'}), got {layer}")
    found = traces(calls[str(layer)])
    chosen = tuple(heads) or tuple(range(len(found)))
    if not set(chosen) <= set(range(len(found))):
        raise ValueError(f"heads: expected numbers from 0 to {len(found) - 1}, got {', '.join(map(str, chosen))}")
    names = [_name(found[h], h) for h in chosen]
    return StateScope([found[h] for h in chosen], tokens or [str(i) for i in ids[0].tolist()], names)


def _can_be_shown(call: OpCall) -> bool:
    return call.op in READERS and call.layer.startswith("layers.")


def _name(trace: Trace, h: int) -> str:
    if isinstance(trace, MatrixTrace | DeltaTrace):
        return f"head {h + 1}"
    return f"channels {GROUP * h + 1} to {GROUP * h + trace.values.shape[1]}"


def _between(tokens: Sequence[str]) -> str:
    """What stands between two tokens: a space, unless they are single characters or bring spaces of their own."""
    words = any(len(token) > 1 for token in tokens)
    return " " if words and not any(character.isspace() for token in tokens for character in token) else ""


def _length(numbers: Numbers) -> float:
    return float(np.sqrt((numbers**2).sum()))


def _loudest(state: Numbers) -> tuple[int, float]:
    """The channel of the largest weight, or of the largest number where channels have no weights beside them."""
    channel = int((state[:, 1] if state.shape[1] > 1 else np.abs(state[:, 0])).argmax())
    return channel, float(state[channel, -1])


def _structure(found: Measured, head: Trace, largest_rank: int) -> dict[str, str]:
    if found.rank is not None:
        return {"effective rank": f"{short(found.rank)} of {largest_rank}"}
    channel, loudness = found.loudest or (0, -math.inf)
    if isinstance(head, AverageTrace):
        return {"loudest": f"channel {channel + 1}, e^{short(loudness)}"}
    return {"largest": f"channel {channel + 1}, {short(loudness)}"}


def _picture(trace: Trace, cells: Numbers, t: int) -> Numbers:
    """The cells after token t; of a vector what it was, a column a token, nothing yet after t."""
    if not trace.lines:
        return cells[t]
    return np.where(np.arange(len(cells)) <= t, cells[..., 0].T, 0.0)


def _check_heads(heads: tuple[Trace, ...]) -> None:
    if not heads:
        raise ValueError("StateScope: heads must hold at least one trace")
    counts = {len(head.values) for head in heads}
    if len(counts) > 1 or max(counts) > MOST_TOKENS:
        found = ", ".join(map(str, sorted(counts)))
        raise ValueError(f"StateScope: heads must all run over the same tokens, at most {MOST_TOKENS}, got {found}")
    count = 4 * sum(x.size for head in heads for x in arrays(head).values())
    if count > MOST_BYTES:
        raise ValueError(
            f"StateScope: {len(heads)} heads are {size(count)}, more than the {size(MOST_BYTES)} that a page should carry: "
            "give fewer heads or fewer tokens"
        )
