"""What one head went through in a real run, and the states that follow from it, token by token.

Two kinds of memory so far. A `MatrixTrace` is any diagonal recurrence with a matrix for a state: RWKV-5 and RWKV-6, and with
other keys and decays retention, SSD and gated linear attention. An `AverageTrace` is RWKV-4: every channel a fading average.
state_scope.js computes the same, from the same float32 numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hybridlab.measure.recording import OpCall

Numbers = NDArray[np.float64]
MOST_ROWS = 64


@dataclass(frozen=True, eq=False)
class MatrixTrace:
    """One head of a diagonal recurrence; row c of the state is a memory with a clock of its own.

    S_t = diag(e^{log_decay_t}) S_{t-1} + write_t v_t^T

    With a bonus the state is read before the token is written: o_t = read_t (S_{t-1} + (bonus * write_t) v_t^T).
    Without one it is read afterwards: o_t = read_t S_t.

    Args:
        write: keys, (T, K).
        log_decay: natural logarithm of what each step leaves, at most 0, (T, K); (1, K) if it is the same at every token.
        read: receptances or queries, (T, K).
        values: v, (T, V).
        bonus: weight of the present token, (K,); None if the mechanism has none.

    Raises:
        ValueError: shapes that do not fit, more than 64 rows or columns, numbers that are not finite, a positive log decay.
    """

    write: Numbers
    log_decay: Numbers
    read: Numbers
    values: Numbers
    bonus: Numbers | None = None

    kind: ClassVar[str] = "matrix"

    def __post_init__(self) -> None:
        _as_arrays(self)
        (tokens, keys), columns = _two_axes(self, "write"), _two_axes(self, "values")[1]
        _check_shape(self, "log_decay", (tokens, keys), (1, keys))
        _check_shape(self, "read", (tokens, keys))
        _check_shape(self, "values", (tokens, columns))
        if self.bonus is not None:
            _check_shape(self, "bonus", (keys,))
        _check_numbers(self)

    def states(self, decay: float = 1.0) -> Numbers:
        """The state after every token, (T, K, V); `decay` multiplies the log decay."""
        keep = np.exp(decay * np.broadcast_to(self.log_decay, self.write.shape))
        found, state = [], np.zeros((self.write.shape[1], self.values.shape[1]))
        for t, value in enumerate(self.values):
            state = keep[t][:, None] * state + self.write[t][:, None] * value
            found.append(state)
        return np.array(found)

    def parts(self, t: int, states: Numbers, decay: float, bonus: float) -> tuple[Numbers, Numbers]:
        """What output t takes from the past and from its own token, (V,) each; `bonus` is added to the trained one."""
        kept = np.ones(self.write.shape[1]) if self.bonus is not None else np.exp(decay * self.log_decay_at(t))
        weight = 1.0 if self.bonus is None else self.bonus + bonus
        past = (self.read[t] * kept) @ states[t - 1] if t else np.zeros(self.values.shape[1])
        return past, (self.read[t] * weight * self.write[t]).sum() * self.values[t]

    def log_decay_at(self, t: int) -> Numbers:
        """The log decay of step t, (K,)."""
        return self.log_decay[t % len(self.log_decay)]


@dataclass(frozen=True, eq=False)
class AverageTrace:
    """Channels of RWKV-4; each holds a fading average of its values and how loud what it heard was.

    Token i weighs e^{key_i}, faded by one decay a step. With m the average and l the logarithm of the summed weights:

        l_t = log(e^{l_{t-1} + log_decay} + e^{key_t})      m_t = m_{t-1} + e^{key_t - l_t} (v_t - m_{t-1})

    Args:
        keys: logarithms of the weights, (T, C).
        log_decay: natural logarithm of the decay a step, at most 0, (1, C).
        values: v, (T, C).
        bonus: what the present token's key gains at its own output, (C,).

    Raises:
        ValueError: shapes that do not fit, more than 64 channels, numbers that are not finite, a positive log decay.
    """

    keys: Numbers
    log_decay: Numbers
    values: Numbers
    bonus: Numbers

    kind: ClassVar[str] = "average"

    def __post_init__(self) -> None:
        _as_arrays(self)
        tokens, channels = _two_axes(self, "keys")
        _check_shape(self, "log_decay", (1, channels))
        _check_shape(self, "values", (tokens, channels))
        _check_shape(self, "bonus", (channels,))
        _check_numbers(self)

    def states(self, decay: float = 1.0) -> Numbers:
        """Average and loudness after every token, (T, C, 2); `decay` multiplies the log decay."""
        loud, average = np.full(self.keys.shape[1], -np.inf), np.zeros(self.keys.shape[1])
        found = []
        for key, value in zip(self.keys, self.values, strict=True):
            loud = np.logaddexp(loud + decay * self.log_decay[0], key)
            average = average + np.exp(key - loud) * (value - average)
            found.append(np.stack((average, loud), -1))
        return np.array(found)

    def parts(self, t: int, states: Numbers, decay: float, bonus: float) -> tuple[Numbers, Numbers]:
        """What output t takes from the past and from its own token, (C,) each; `bonus` is added to the trained one."""
        if t == 0:
            return np.zeros(self.keys.shape[1]), self.values[0]
        average, loud = states[t - 1].T
        louder = loud - (self.bonus + bonus + self.keys[t])
        return np.exp(-np.logaddexp(0, -louder)) * average, np.exp(-np.logaddexp(0, louder)) * self.values[t]

    def log_decay_at(self, t: int) -> Numbers:
        """The log decay of every step, (C,)."""
        return self.log_decay[0]


Trace = MatrixTrace | AverageTrace


def arrays(trace: Trace) -> dict[str, Numbers]:
    """A trace's numbers by name, without what its mechanism lacks."""
    return {name: value for name, value in vars(trace).items() if value is not None}


def rounded(trace: Trace) -> Trace:
    """The trace in numbers that float32 holds, as the browser gets it."""
    return type(trace)(**{name: value.astype(np.float32).astype(np.float64) for name, value in arrays(trace).items()})


def traces(call: OpCall) -> list[Trace]:
    """The heads of a recorded call of one sequence; of RWKV-4, which has none, groups of 64 channels.

    Raises:
        ValueError: an op whose state the scope cannot show yet, several sequences, a state that is not empty at the start.
    """
    if call.op not in READERS:
        raise ValueError(f"traces: {call.op} has no reader yet; there are readers for {', '.join(READERS)}")
    if len(call.output) != 1:
        raise ValueError(f"traces: expected a run of one sequence, got a batch of {len(call.output)}")
    return READERS[call.op](call.inputs)


def _wkv4(inputs: dict[str, Any]) -> list[Trace]:
    _check_start(inputs.get("state"), lambda state: state[..., 1])  # the denominator: what has been heard so far
    k, v, log_decay, bonus = (_numbers(inputs[name]) for name in ("k", "v", "log_decay", "bonus"))
    groups = [slice(start, start + MOST_ROWS) for start in range(0, k.shape[-1], MOST_ROWS)]
    return [AverageTrace(k[0, :, group], log_decay[None, group], v[0, :, group], bonus[group]) for group in groups]


def _wkv6(inputs: dict[str, Any]) -> list[Trace]:
    _check_start(inputs.get("state"), lambda state: state)
    r, k, v, log_decay, bonus = (_numbers(inputs[name]) for name in ("r", "k", "v", "log_decay", "bonus"))
    heads = range(k.shape[2])
    return [MatrixTrace(k[0, :, h], log_decay[0, :, h], r[0, :, h], v[0, :, h], bonus[h]) for h in heads]


# What turns the inputs of an op into the traces of its heads: another mechanism plugs in here.
READERS: dict[str, Callable[[dict[str, Any]], list[Trace]]] = {"wkv4": _wkv4, "wkv6": _wkv6}


def _numbers(tensor: Tensor) -> Numbers:
    return tensor.detach().cpu().double().numpy()


def _check_start(state: Tensor | None, weight: Callable[[Tensor], Tensor]) -> None:
    if state is not None and weight(state).any():
        raise ValueError("traces: the run must start from the empty state, or its past would be missing")


def _as_arrays(trace: Any) -> None:
    for field in fields(trace):
        value = getattr(trace, field.name)
        if value is not None:
            object.__setattr__(trace, field.name, np.asarray(value, dtype=np.float64))


def _two_axes(trace: Any, name: str) -> tuple[int, int]:
    shape = getattr(trace, name).shape
    if len(shape) != 2 or 0 in shape or shape[1] > MOST_ROWS:
        raise ValueError(f"{type(trace).__name__}: {name} must be tokens by 1 to {MOST_ROWS} channels, got shape {shape}")
    return shape


def _check_shape(trace: Any, name: str, *expected: tuple[int, ...]) -> None:
    shape = getattr(trace, name).shape
    if shape not in expected:
        raise ValueError(f"{type(trace).__name__}: {name} must have shape {' or '.join(map(str, expected))}, got {shape}")


def _check_numbers(trace: Any) -> None:
    for name, value in arrays(trace).items():
        if not np.isfinite(value).all():
            raise ValueError(f"{type(trace).__name__}: {name} must be finite everywhere")
    if (largest := trace.log_decay.max()) > 0:
        raise ValueError(f"{type(trace).__name__}: log_decay must be at most 0, its largest entry is {largest:.4g}")
