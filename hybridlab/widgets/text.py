"""Numbers as the widgets write them: base.js has the same two functions, and a test holds them equal."""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Context, Decimal

DIGITS = 4
# A number computed in two orders can fall on both sides of a half: the push decides the same way on every processor.
PUSH = 1 + 2.0**-40
UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_CONTEXT = Context(prec=DIGITS, rounding=ROUND_HALF_UP)


def short(number: float) -> str:
    """A number in four significant digits, halves and what is next to them away from zero: 0.03125, -12.35, 1.5e-7."""
    rounded = _CONTEXT.create_decimal_from_float(float(number) * PUSH)
    if not rounded.is_finite():
        return "not a number" if rounded.is_nan() else ("infinite" if rounded > 0 else "-infinite")
    if rounded == 0:
        return "0"
    if Decimal("1e-4") <= abs(rounded) < Decimal("1e6"):
        return f"{rounded.normalize():f}"
    digits, _, power = f"{rounded:.{DIGITS - 1}e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def size(count: int) -> str:
    """Bytes in the largest unit that leaves a whole part: 96 B, 1.50 KiB, 32.00 GiB."""
    for unit, one in UNITS:
        if count >= one:
            return f"{(Decimal(count) / one).quantize(Decimal('0.01'), ROUND_HALF_UP)} {unit}"
    return f"{count} B"


def row(head: str, cells: Sequence[str]) -> str:
    """A line of a table in plain text."""
    return f"{head:6}" + "".join(f"{cell:>9}" for cell in cells)
