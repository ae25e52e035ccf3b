"""`profile_model`: what texts of several lengths cost a model, reading them and going on from there, in time and memory."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from hybridlab.measure.machine import Machine, this_machine
from hybridlab.measure.peak import with_peak
from hybridlab.measure.stopwatch import brief, timed
from hybridlab.measure.tables import Measured, Report, Table
from hybridlab.measure.units import BINARY, SIZES, readable
from hybridlab.models import LanguageModel, ModelOutput
from hybridlab.state import ModelState, state_nbytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A pass is timed again until this many seconds or rounds are over.
ENOUGH, MOST_ROUNDS = 1.0, 30
BYTE_STEPS = (1, 4, 32, 256)  # of each binary unit, on the axis of bytes
STYLE = "tableau-colorblind10"  # matplotlib's colours for readers who cannot tell red from green


@dataclass(frozen=True)
class Cost:
    """What one length costs.

    Attributes:
        tokens: that each sequence has read.
        prefill_seconds: to read them all at once and choose the next; the median of several rounds.
        prefill_peak_bytes: allocated at one time while they are read, beside the weights.
        decode_seconds: to read one more, after all of them.
        decode_peak_bytes: allocated at one time during that step, beside weights and the state it starts from.
        state_bytes: kept after them.
    """

    tokens: int
    prefill_seconds: float
    prefill_peak_bytes: int
    decode_seconds: float
    decode_peak_bytes: int
    state_bytes: int


@dataclass(frozen=True, repr=False)
class Profile(Report):
    """What texts cost a model.

    Attributes:
        model: its name.
        batch: sequences.
        weight_bytes: of its parameters, in the dtype that they have.
        machine: what it ran on.
        costs: one a length, in the order in which they were asked for.
    """

    model: str
    batch: int
    weight_bytes: int
    machine: Machine
    costs: tuple[Cost, ...]

    def prefill_rate(self, cost: Cost) -> float:
        """Tokens a second, all sequences together, while a text is read."""
        return self.batch * cost.tokens / cost.prefill_seconds

    def decode_rate(self, cost: Cost) -> float:
        """Tokens a second, all sequences together, one token at a time."""
        return self.batch / cost.decode_seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        rates = [
            {"prefill_tokens_per_second": self.prefill_rate(cost), "decode_tokens_per_second": self.decode_rate(cost)}
            for cost in self.costs
        ]
        return asdict(self) | {"costs": [asdict(cost) | rate for cost, rate in zip(self.costs, rates, strict=True)]}

    def table(self) -> Table:
        """A row a length."""
        kinds = ("prefill", "prefill tokens/s", "prefill peak", "decode", "decode tokens/s", "decode peak")
        columns = ("tokens", *kinds, "state bytes")
        rows = tuple(
            (
                f"{cost.tokens:,}",
                _varying(f"{brief(cost.prefill_seconds)} s"),
                _varying(f"{self.prefill_rate(cost):,.0f}"),
                _varying(readable(cost.prefill_peak_bytes)),
                _varying(f"{brief(1e3 * cost.decode_seconds)} ms"),
                _varying(f"{self.decode_rate(cost):,.0f}"),
                _varying(readable(cost.decode_peak_bytes)),
                f"{cost.state_bytes:,}",
            )
            for cost in self.costs
        )
        title = f"{self.model}, batch {self.batch}, weights of {readable(self.weight_bytes)}"
        notes = ("peak: allocated at one time, beside the weights and the state that a step of decoding starts from",)
        return Table(title, columns, rows, frozenset(columns), frozenset(), notes)

    def plot(self) -> "Figure":
        """Tokens a second and bytes over the length, both scales logarithmic."""
        # Imported here: measuring needs no matplotlib.
        import matplotlib.style

        from hybridlab.measure.picture import Picture

        with matplotlib.style.context(STYLE):
            figure = Picture(figsize=(10, 3.8), dpi=144, layout="constrained")
            speed, memory = figure.subplots(1, 2)
            self._draw_speed(speed)
            self._draw_memory(memory)
        figure.suptitle(f"{self.model}, batch {self.batch}, on {self.machine}", fontsize=9)
        return figure

    def _draw_speed(self, axes: "Axes") -> None:
        self._draw(axes, "prefill", self.prefill_rate, "o")
        self._draw(axes, "decode", self.decode_rate, "s")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,g}")
        _finish(axes, "tokens a second", [cost.tokens for cost in self.costs])

    def _draw_memory(self, axes: "Axes") -> None:
        self._draw(axes, "prefill peak", lambda cost: cost.prefill_peak_bytes, "o")
        self._draw(axes, "decode peak", lambda cost: cost.decode_peak_bytes, "s")
        self._draw(axes, "state", lambda cost: cost.state_bytes, "^")
        axes.axhline(self.weight_bytes, color="0.5", linestyle=(0, (4, 3)), linewidth=1, label="weights")
        axes.set_yscale("log", base=2)
        low, high = axes.get_ylim()
        axes.set_yticks([SIZES[unit] * step for unit in BINARY for step in BYTE_STEPS], _byte_labels(), minor=False)
        axes.minorticks_off()
        axes.set_ylim(low, high)
        _finish(axes, "bytes", [cost.tokens for cost in self.costs])

    def _draw(self, axes: "Axes", label: str, number: Callable[[Cost], float], marker: str) -> None:
        costs = sorted(self.costs, key=lambda cost: cost.tokens)
        axes.plot([cost.tokens for cost in costs], [number(cost) for cost in costs], marker=marker, label=label)


def profile_model(model: LanguageModel, seq_lens: Sequence[int] = (1024, 4096, 16384), batch: int = 1) -> Profile:
    """Measures time, peak memory and state of a model on random texts, reading them and going on from there.

    Each pass runs once to measure memory, which slows it and warms it up, and then again to be timed. As in generation,
    only the last token's logits are computed.

    Args:
        model: with real weights, on a CPU or a GPU; it is left as it is.
        seq_lens: lengths of texts, each at least 1.
        batch: texts that are read at the same time.

    Returns:
        a report that shows as a table; `.plot()` draws it, `.as_dict()` has its numbers.

    Raises:
        ValueError: no model, a model on the meta device, no lengths, a length or batch below 1.

    Chapter 12.
    """
    lengths = _checked(model, seq_lens, batch)
    # Imported here: measuring needs no progress bar.
    from tqdm.auto import tqdm

    weight = model.embedding.weight
    costs = []
    with torch.no_grad(), tqdm(lengths, unit="length", leave=False) as bar:
        for length in bar:
            bar.set_description(f"{length:,} tokens")
            costs.append(_cost(model, length, batch))
    weight_bytes = sum(parameter.nbytes for parameter in model.parameters())
    return Profile(type(model).__name__, batch, weight_bytes, this_machine(weight.device.type), tuple(costs))


def _checked(model: LanguageModel, seq_lens: Sequence[int], batch: int) -> list[int]:
    """The lengths, once all arguments are known to be right."""
    if not isinstance(model, LanguageModel):
        raise ValueError(f"profile_model: model must be a LanguageModel, got {type(model).__name__}")
    if model.embedding.weight.is_meta:
        raise ValueError("profile_model: model is on the meta device, where nothing runs; build it with real weights")
    lengths = list(seq_lens)
    if not lengths:
        raise ValueError("profile_model: seq_lens must name at least one length, got none")
    for name, number in (*(("seq_lens", length) for length in lengths), ("batch", batch)):
        if type(number) is not int or number < 1:
            expected = "ints of at least 1" if name == "seq_lens" else "an int of at least 1"
            raise ValueError(f"profile_model: {name} must be {expected}, got {number!r}")
    return lengths


def _cost(model: LanguageModel, length: int, batch: int) -> Cost:
    device = model.embedding.weight.device
    ids = torch.randint(model.config.vocabulary, (batch, length), generator=torch.Generator().manual_seed(0)).to(device)

    def prefill() -> ModelOutput:
        return _step(model, ids)

    output, prefill_peak = with_peak(prefill, device)
    state = output.state
    del output

    def decode() -> ModelOutput:
        return _step(model, ids[:, :1], state)

    _, decode_peak = with_peak(decode, device)
    return Cost(length, _seconds(prefill), prefill_peak, _seconds(decode), decode_peak, state_nbytes(state))


def _step(model: LanguageModel, ids: torch.Tensor, state: ModelState | None = None) -> ModelOutput:
    """A step of generation: only the last token's logits, and the state."""
    x, state = model.hidden(ids, state)
    return ModelOutput(model.head(x[:, -1:]), state)


def _seconds(run: Callable[[], object]) -> float:
    spent = [timed(run)[0]]
    while sum(spent) < ENOUGH and len(spent) < MOST_ROUNDS:
        spent.append(timed(run)[0])
    return statistics.median(spent)


def _varying(digits: str) -> Measured:
    return Measured(digits, "varies")


def _byte_labels() -> list[str]:
    return [f"{step} {unit}" for unit in BINARY for step in BYTE_STEPS]


def _finish(axes: "Axes", label: str, lengths: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(set(lengths)), [f"{length:,}" for length in sorted(set(lengths))])
    axes.set(xlabel="tokens", ylabel=label)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
