"""What a learner can move in a widget. Python makes the list, base.js draws it; both keep values inside it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Slider:
    """A number between two others.

    Attributes:
        name: its key in the view.
        label: what stands beside it.
        low: the smallest value.
        high: the largest, reached by whole steps.
        value: where it starts.
        step: between neighbours.
        texts: how each value is written; none: as a number.
        power: for counts of any size: x stands for round(power ** x) of them, and is written so; 0: x is the number itself.
    """

    name: str
    label: str
    low: float
    high: float
    value: float
    step: float = 1
    texts: tuple[str, ...] = ()
    power: int = 0

    def check(self, value: object) -> None:
        """Raises ValueError for what the slider cannot show."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise ValueError(f"{self.name}: expected a number from {self.low:g} to {self.high:g}, got {value!r}")
        counts = not self.power and float(self.step).is_integer()
        if counts and not float(value).is_integer():
            raise ValueError(f"{self.name}: expected a whole number, got {value!r}")


@dataclass(frozen=True)
class Choice:
    """One of several texts.

    Attributes:
        name: its key in the view.
        label: what stands beside it.
        options: the texts.
        value: the one chosen at first.
    """

    name: str
    label: str
    options: tuple[str, ...]
    value: str

    def check(self, value: object) -> None:
        """Raises ValueError for a text that is not offered."""
        if value not in self.options:
            raise ValueError(f"{self.name}: expected one of {', '.join(map(repr, self.options))}, got {value!r}")


@dataclass(frozen=True)
class Toggle:
    """Something that is there or not.

    Attributes:
        name: its key in the view.
        label: what stands beside it.
        value: whether it is on at first.
    """

    name: str
    label: str
    value: bool = True

    def check(self, value: object) -> None:
        """Raises ValueError for anything but true and false."""
        if not isinstance(value, bool):
            raise ValueError(f"{self.name}: expected True or False, got {value!r}")


@dataclass(frozen=True)
class Play:
    """A button that moves a slider step by step to its end.

    Attributes:
        name: of that slider.
        label: what the button is called.
        milliseconds: between two steps.
    """

    name: str
    label: str = "Play"
    milliseconds: int = 400


Control = Slider | Choice | Toggle
View = dict[str, Any]


def first_view(controls: Sequence[Control | Play]) -> View:
    """Where everything stands at the start."""
    return {control.name: control.value for control in controls if not isinstance(control, Play)}


def check_view(controls: Sequence[Control | Play], view: View) -> None:
    """Raises ValueError unless the view has a value for every control, and none for anything else."""
    known = {control.name: control for control in controls if not isinstance(control, Play)}
    if set(view) != set(known):
        raise ValueError(f"view: expected the keys {', '.join(known)}, got {', '.join(map(str, view)) or 'none'}")
    for name, control in known.items():
        control.check(view[name])


def to_plain(control: Control | Play) -> dict[str, Any]:
    """What the browser gets."""
    return {"kind": type(control).__name__.lower(), **asdict(control)}
