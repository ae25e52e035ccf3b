"""What a benchmark gives its contenders: an op's tensors, and what any solution must move and compute."""

from typing import Any, NamedTuple

from torch import Tensor

from hybridlab.measure.roofline import Work, least_bytes
from hybridlab.measure.setting import Draw, Tensors
from hybridlab.measure.settings_lookups import LOOKUPS
from hybridlab.measure.settings_recurrences import RECURRENCES
from hybridlab.state import state_nbytes, state_tensors

MODES = ("forward", "forward+backward", "decode")
SETTINGS = RECURRENCES | LOOKUPS


class Problem(NamedTuple):
    """The tensors of one measurement, and what any solution must move and compute.

    Attributes:
        state: what a decoding step starts from, a tensor or some; None in the other modes.
        state_bytes: size of the op's state, given or not.
        gradient: of the output.
    """

    op: str
    mode: str
    tokens: int
    inputs: Tensors
    state: Any
    state_bytes: int
    gradient: Tensor
    work: Work


def problem(op: str, mode: str, tokens: int, device: str = "cpu") -> Problem:
    """Seeded inputs of the op's setting in SETTINGS, float32."""
    draw, setting = Draw(device), SETTINGS[op]
    inputs, state = setting.tensors(draw, tokens)
    gradient = draw.normal(*inputs[setting.like].shape)
    decode, backward = mode == "decode", mode == "forward+backward"
    kept = list(state_tensors(state))
    read = [*inputs.values(), *(kept if decode else [])]
    operations = setting.operations(tokens) * (3 if backward else 1)
    work = Work(least_bytes(read, [gradient, *kept], backward), operations)
    return Problem(op, mode, tokens, inputs, state if decode else None, state_nbytes(state), gradient, work)
