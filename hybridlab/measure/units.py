"""Bytes as people read and write them: 94.25 GiB."""

import math
import re

SIZES = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}
BINARY = ("TiB", "GiB", "MiB", "KiB")


def readable(count: int) -> str:
    """Bytes in the largest binary unit that leaves a whole part, to two digits; bytes below 1 KiB."""
    for unit in BINARY:
        if count >= SIZES[unit]:
            return f"{count / SIZES[unit]:.2f} {unit}"
    return f"{count} B"


def parse_size(text: str) -> int:
    """Bytes from a number and a unit, such as "24 GiB" or "80 GB"; GiB is 2^30 bytes, GB is 10^9.

    Raises:
        ValueError: no number above 0, no unit or an unknown one.
    """
    found = re.fullmatch(r"\s*([\d.]+)\s*([a-z]+)\s*", text, re.IGNORECASE)
    units = {unit.lower(): size for unit, size in SIZES.items()}
    try:
        count = float(found[1]) * units[found[2].lower()] if found else 0.0
    except (KeyError, ValueError):
        count = 0.0
    if not 1 <= count < math.inf:
        raise ValueError(f'a size is a number and a unit ({", ".join(SIZES)}), such as "24 GiB"; got {text!r}')
    return round(count)
