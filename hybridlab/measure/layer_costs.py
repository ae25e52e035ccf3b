"""What a layer of each letter costs at each width: the account of real layers of `HybridLM`, kept in a file.

To measure takes some seconds, to read the file none; a test holds the two equal. After a change of a layer:

    python -m hybridlab.measure.layer_costs
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from hybridlab.measure.footprint import ENDLESS, growth
from hybridlab.measure.memory import DTYPES, Part, account
from hybridlab.models import LETTERS, HybridConfig, HybridLM

FILE = Path(__file__).with_name("data") / "layer_costs.json"
WIDTHS = tuple(2**power for power in range(8, 14))
VOCABULARY = 32_000
OUTSIDE = "outside"  # of the layers: embedding, last norm, head
FIRST = "first "  # before a letter: what the first of its layers costs, if that differs from those that follow
DTYPE, STATE_DTYPE = "bfloat16", "float32"


class Growth(NamedTuple):
    """An amount after T tokens, T from 1 on: fixed + per_token * min(T, most); most = None is no end."""

    fixed: int
    per_token: int
    most: int | None

    def after(self, context: int) -> int:
        """The amount after so many tokens."""
        return self.fixed + self.per_token * (context if self.most is None else min(context, self.most))


class LayerCost(NamedTuple):
    """What one layer has, keeps for each sequence, and computes.

    Attributes:
        parameters: numbers that it owns.
        cache: numbers of its cache, in the model's dtype.
        recurrent: numbers that it adds up token by token, in the dtype of recurrent states.
        conv: numbers of past inputs that it keeps, in the model's dtype.
        flops: operations of one decode step, 2 a multiply-add.
    """

    parameters: int
    cache: Growth
    recurrent: Growth
    conv: Growth
    flops: Growth


LayerCosts = dict[str, LayerCost]


@cache
def layer_costs() -> dict[int, LayerCosts]:
    """For each of `WIDTHS` and each letter of `LETTERS`, as the file has them; and what stands outside of the layers.

    All sizes that `HybridConfig` gives a model by itself, and a vocabulary of `VOCABULARY`.

    Chapter 12.
    """
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    return {int(width): {name: _read(*cost) for name, cost in costs.items()} for width, costs in kept.items()}


def _read(parameters: int, *growths: tuple[int, int, int | None]) -> LayerCost:
    return LayerCost(parameters, *(Growth(*each) for each in growths))


def measured(width: int) -> LayerCosts:
    """The same, measured now: a model with two layers of each letter is accounted for at three lengths."""
    letters = [*LETTERS, *LETTERS]
    with torch.device("meta"):
        model = HybridLM(HybridConfig(VOCABULARY, width, pattern="".join(letters)))
    accounts = [account(model, context, dtype=DTYPE, state_dtype=STATE_DTYPE).parts for context in (1, 2, ENDLESS)]
    parts = {alike[0].name: _cost(*alike) for alike in zip(*accounts, strict=True)}
    outside = [_amounts(part) for part in accounts[0] if not part.name.startswith("layers.")]
    costs = {OUTSIDE: _unchanging(*map(sum, zip(*outside, strict=True)))}
    for at, letter in enumerate(letters):
        cost = parts[f"layers.{at}"]
        if costs.setdefault(letter, cost) != cost:
            costs[FIRST + letter], costs[letter] = costs[letter], cost
    return costs


def _amounts(part: Part) -> tuple[int, ...]:
    """Parameters, numbers that are kept, operations."""
    cached, recurrent = DTYPES[DTYPE].itemsize, DTYPES[STATE_DTYPE].itemsize
    kept = (part.kv_bytes // cached, part.recurrent_bytes // recurrent, part.conv_bytes // cached)
    return part.parameters, *kept, part.flops_per_token


def _cost(one: Part, two: Part, endless: Part) -> LayerCost:
    parameters, *growths = (growth(*each) for each in zip(_amounts(one), _amounts(two), _amounts(endless), strict=True))
    return _read(parameters[0], *growths)


def _unchanging(parameters: int, *amounts: int) -> LayerCost:
    return _read(parameters, *((amount, 0, None) for amount in amounts))


if __name__ == "__main__":
    rows = [f'"{width}": {json.dumps(measured(width))}' for width in WIDTHS]
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
