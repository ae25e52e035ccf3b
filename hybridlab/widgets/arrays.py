"""Arrays on their way to the browser: a shape and the bytes, which base.js reads as a typed array."""

import base64
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# The kinds that a typed array of JavaScript can hold; what is wider loses nothing that a picture shows.
KINDS = {"float64": np.float64, "float32": np.float32, "int32": np.int32, "uint8": np.uint8, "int8": np.int8}


def pack(array: ArrayLike, kind: str = "float64") -> dict[str, Any]:
    """An array as the browser gets it, row by row, little-endian.

    Raises:
        ValueError: a kind that JavaScript has no typed array for.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    plain = np.ascontiguousarray(array, dtype=np.dtype(KINDS[kind]).newbyteorder("<"))
    return {"kind": kind, "shape": list(plain.shape), "data": plain.tobytes()}


def as_text(value: Any) -> Any:
    """Inputs in which bytes have become base64, for a page that stands alone."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: as_text(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_text(inner) for inner in value]
    return value
