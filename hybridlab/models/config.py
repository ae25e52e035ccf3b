"""What all configurations have in common: a table of plain numbers, checked when it is made."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Config:
    """Sizes that every model has.

    Attributes:
        vocabulary: number of token ids.
        width: D, of the residual stream.
        layers: L, number of blocks.
    """

    vocabulary: int
    width: int
    layers: int

    @property
    def letters(self) -> str:
        """One letter a layer, where layers differ; empty where all are alike."""
        return ""

    def __post_init__(self) -> None:
        """Fills in derived sizes and checks, what was given as well as what came of it."""
        check_numbers(self, derived=False)
        self.derive()
        check_numbers(self, derived=True)
        self.check()

    def derive(self) -> None:
        """Computes the sizes that were left at 0."""

    def check(self) -> None:
        """Raises ValueError for numbers that do not go together."""

    def fill(self, name: str, value: Any) -> None:
        """Sets a field that was left at 0; nothing else ever changes a configuration."""
        if not getattr(self, name):
            object.__setattr__(self, name, value)

    def derive_heads(self, head_width: int) -> None:
        """Sets `heads`, where it was left at 0, to as many as fill the width."""
        if not getattr(self, "heads", 0):
            self.require(self.width % head_width == 0, "head_width", f"a divisor of width = {self.width}, or heads given")
            self.fill("heads", self.width // head_width)

    def require_letters(self, name: str, kinds: Mapping[str, str]) -> None:
        """Raises ValueError unless a field is a text of at least one of these letters, which stand before what they mean."""
        text = getattr(self, name)
        known = ", ".join(f"{letter} ({meaning})" for letter, meaning in kinds.items())
        valid = isinstance(text, str) and bool(text) and set(text) <= set(kinds)
        self.require(valid, name, f"one letter a layer: {known}")

    def require(self, holds: bool, name: str, expected: str) -> None:
        """Raises ValueError that names the field, its value and what was expected."""
        if not holds:
            raise ValueError(f"{type(self).__name__}: {name} is {getattr(self, name)!r}; expected {expected}")


def check_numbers(config: Config, derived: bool) -> None:
    """Every number that was given is positive and of its kind; once sizes are derived, none may be 0."""
    for field in fields(config):
        value = getattr(config, field.name)
        if value == field.default and not (derived and value == 0):
            continue
        if field.type in (float, float | None):
            config.require(isinstance(value, float | int) and 0 < value < float("inf"), field.name, "a positive number")
        elif field.type in (int, int | None):
            whole = isinstance(value, int) and not isinstance(value, bool)
            config.require(whole and value > 0, field.name, "a positive int")
