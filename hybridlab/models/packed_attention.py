"""Checkpoints that keep the maps to queries, keys and values one after the other in one matrix, as flash-attn does."""

from collections.abc import Mapping

from torch import Tensor

from hybridlab.models.checkpoint_layout import Layout

PACKED = "Wqkv."
PARTS = {"queries": "query", "keys": "key", "values": "value"}


class PackedLayout(Layout):
    """A layout whose queries are as wide as the stream: rows [q D | k | v], and keys and values halve what q leaves."""

    def wanted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors by the names of their parts, without those that hold nothing to load."""
        found: dict[str, Tensor] = {}
        for name, tensor in super().wanted(tensors).items():
            holder, packed, kind = name.rpartition(PACKED)
            weight = tensors.get(f"{holder}{PACKED}weight")
            if not packed or weight is None or weight.ndim != 2 or tensor.ndim == 0:
                found[name] = tensor
                continue
            width = weight.shape[1]
            parts = tensor.tensor_split((width, width + (len(tensor) - width) // 2))
            found |= {packed_name(holder, kind, part): rows for part, rows in zip(PARTS, parts, strict=True)}
        return found


def packed_name(holder: str, kind: str, part: str) -> str:
    """What messages call a part: "...Wqkv.weight (queries)"."""
    return f"{holder}{PACKED}{kind} ({part})"


def packed_names(theirs: str, ours: str) -> dict[str, str]:
    """Names of all that attention has, its packed maps in parts; both arguments end in a dot."""
    names = {f"{theirs}out_proj.{kind}": f"{ours}output.{kind}" for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        names |= {packed_name(theirs, kind, part): f"{ours}{own}.{kind}" for part, own in PARTS.items()}
    return names
