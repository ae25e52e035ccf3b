"""Footprints of all presets, as built and with other numbers of heads of keys, measured once and kept in a file.

To build all presets takes ten seconds, to read the file none; a test holds the two equal. After a change of a model:

    python -m hybridlab.measure.preset_footprints
"""

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hybridlab.measure.footprint import Footprint, Piece, footprint
from hybridlab.models import PRESETS, LanguageModel, from_preset

FILE = Path(__file__).with_name("data") / "preset_footprints.json"
# What each head of keys and values serves, and how many there are of them for H heads of queries.
AS_BUILT = "as built"
SHARINGS = {
    "MHA: one query head": lambda heads: heads,
    "GQA: four query heads": lambda heads: heads // math.gcd(heads, 4),
    "MQA: all query heads": lambda heads: 1,
}
Footprints = dict[str, Footprint]


def footprints(model: LanguageModel) -> Footprints:
    """As built, and for each of `SHARINGS`: each measured on a model that is built so; all alike without keys to share."""
    as_built = footprint(model)
    architecture: Any = type(model)
    config: Any = model.config
    if not any(piece.cache for piece in as_built.pieces) or not hasattr(config, "groups"):
        return dict.fromkeys((AS_BUILT, *SHARINGS), as_built)
    others = {sharing: replace(config, groups=groups_of(config.heads)) for sharing, groups_of in SHARINGS.items()}
    with torch.device("meta"):
        return {AS_BUILT: as_built} | {
            sharing: as_built if other == config else footprint(architecture(other)) for sharing, other in others.items()
        }


@cache
def preset_footprints() -> dict[str, Footprints]:
    """Of each preset, in the order of `PRESETS`, as the file has them.

    Chapter 12.
    """
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        name: {sharing: _read(kept[name].get(sharing) or kept[name][AS_BUILT]) for sharing in (AS_BUILT, *SHARINGS)}
        for name in PRESETS
    }


def _read(found: dict[str, Any]) -> Footprint:
    return Footprint(found["parameters"], tuple(Piece(*piece) for piece in found["pieces"]))


def written(name: str) -> dict[str, dict[str, Any]]:
    """What the file says of one preset, measured now; a sharing that is as built is left out."""
    found = footprints(from_preset(name, device="meta"))
    plain = {sharing: {"parameters": each.parameters, "pieces": each.pieces} for sharing, each in found.items()}
    return {sharing: each for sharing, each in plain.items() if sharing == AS_BUILT or each != plain[AS_BUILT]}


if __name__ == "__main__":
    rows = [f"{json.dumps(name)}: {json.dumps(written(name))}" for name in PRESETS]
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
