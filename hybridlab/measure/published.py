"""Numbers that papers, model pages and overviews give for memory and size of models, each with its source."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("data") / "published_numbers.json"


class Published(NamedTuple):
    """One number as it was published.

    Attributes:
        id: its name here.
        claim: what is said.
        source: where.
        seen: whether it was read again in the source; if not, it is as reported by others.
        value: the number that is claimed.
        exact: what exact counting gives, by a formula that does not use this package.
        unit: of all three.
        tolerance: how far, relative to `value`, a number may be off and still be called the same: papers round.
        reproduced: whether `exact` is that near.
        note: on what it depends, or which assumption fails.
    """

    id: str
    claim: str
    source: str
    seen: bool
    value: float
    exact: float
    unit: str
    tolerance: float
    reproduced: bool
    note: str


@cache
def published_numbers() -> tuple[Published, ...]:
    """All of them, in the order of the file.

    Chapter 12.
    """
    return tuple(Published(**number) for number in json.loads(FILE.read_text(encoding="utf-8"))["numbers"])
