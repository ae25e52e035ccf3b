"""What one head went through in a real run, and the states that follow from it, token by token.

Five kinds of memory. A `MatrixTrace` is a diagonal recurrence with a matrix for a state: RWKV-5 and 6, SSD, retention. In
a `DeltaTrace` tokens look at such a matrix before they write, and take away what they find: delta rules and RWKV-7. A
`ScanTrace` is Mamba's selective scan, where every cell of the matrix has a clock of its own. A `VectorTrace` is one number
a channel: RG-LRU and any linear recurrence. An `AverageTrace` is RWKV-4: every channel a fading average.
state_scope.js computes the same, from the same float32 numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybridlab.measure.recording import OpCall
from hybridlab.ops.rg_lru import SHARPNESS
from hybridlab.widgets.recurrence import Recurrence, recurrence

Numbers = NDArray[np.float64]
MOST_ROWS = 128
GROUP = 64  # channels that are looked at together, where there are no heads
# Log decay of a step that leaves nothing: float64 keeps no part of e^-2500, the slowest that the scope makes of it.
NOTHING_LEFT = -1e4


@dataclass(frozen=True, eq=False)
class MatrixTrace:
    """One head of a diagonal recurrence; row c of the state is a memory with a clock of its own.

    S_t = diag(e^{log_decay_t}) S_{t-1} + write_t v_t^T

    With a bonus the state is read before the token is written: o_t = read_t (S_{t-1} + (bonus * write_t) v_t^T).
    Without one it is read afterwards: o_t = read_t S_t.

    Args:
        write: keys, (T, K).
        log_decay: natural logarithm of what each step leaves, at most 0, (T, K); 1 for T if it is the same at every token,
            1 for K if all rows share it.
        read: receptances or queries, (T, K).
        values: v, (T, V).
        bonus: weight of the present token, (K,); None if the mechanism has none.
        skip: weight of each value in its own output beside the state, (V,); None if the mechanism has none.

    Raises:
        ValueError: shapes that do not fit, more than 128 rows or columns, numbers that are not finite, a positive log decay.
    """

    write: Numbers
    log_decay: Numbers
    read: Numbers
    values: Numbers
    bonus: Numbers | None = None
    skip: Numbers | None = None

    kind: ClassVar[str] = "matrix"
    lines: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _as_arrays(self)
        (tokens, keys), columns = _two_axes(self, "write"), _two_axes(self, "values")[1]
        _check_shape(self, "log_decay", (tokens, keys), (1, keys), (tokens, 1), (1, 1))
        _check_shape(self, "read", (tokens, keys))
        _check_shape(self, "values", (tokens, columns))
        _check_shape(self, "bonus", (keys,))
        _check_shape(self, "skip", (columns,))
        _check_numbers(self, "log_decay")

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
        own = (self.read[t] * weight * self.write[t]).sum() + (0.0 if self.skip is None else self.skip)
        return past, own * self.values[t]

    def log_decay_at(self, t: int) -> Numbers:
        """The log decay of step t, (K,)."""
        return np.broadcast_to(self.log_decay[t % len(self.log_decay)], self.write.shape[1:])

    def way(self, channel: int = 0) -> Recurrence:
        """What is multiplied between a value and an output; every channel of v has the same, but for its skip."""
        now = None if self.bonus is None else (self.read * self.bonus * self.write).sum(1)
        skip = None if self.skip is None else np.full(len(self.values), self.skip[channel])
        return recurrence(self.write, np.exp(self.log_decay) * np.ones_like(self.write), self.read, now, skip)


@dataclass(frozen=True, eq=False)
class DeltaTrace:
    """One head of a recurrence whose tokens look at the state before they write; row c of the state is a key channel.

    S_t = diag(e^{log_decay_t}) S_{t-1} + replace_t (S_{t-1}^T seek_t)^T + write_t v_t^T;   o_t = read_t S_t

    Args:
        seek: along what a token looks at the old state, (T, K).
        replace: along what it adds what it found, (T, K); minus beta times the key in a delta rule.
        write: along what it adds its value, (T, K).
        log_decay: natural logarithm of what each step leaves, at most 0, (T, K); 1 for T if it is the same at every token,
            1 for K if all rows share it.
        read: receptances or queries, (T, K).
        values: v, (T, V).

    Raises:
        ValueError: shapes that do not fit, more than 128 rows or columns, numbers that are not finite, a positive log decay.
    """

    seek: Numbers
    replace: Numbers
    write: Numbers
    log_decay: Numbers
    read: Numbers
    values: Numbers

    kind: ClassVar[str] = "delta"
    lines: ClassVar[bool] = False
    bonus: ClassVar[None] = None

    def __post_init__(self) -> None:
        _as_arrays(self)
        (tokens, keys), columns = _two_axes(self, "write"), _two_axes(self, "values")[1]
        for name in ("seek", "replace", "read"):
            _check_shape(self, name, (tokens, keys))
        _check_shape(self, "log_decay", (tokens, keys), (1, keys), (tokens, 1), (1, 1))
        _check_shape(self, "values", (tokens, columns))
        _check_numbers(self, "log_decay")

    def states(self, decay: float = 1.0) -> Numbers:
        """The state after every token, (T, K, V); `decay` multiplies the log decay."""
        found, state = [], np.zeros((self.write.shape[1], self.values.shape[1]))
        for t, value in enumerate(self.values):
            state = self.corrected(t, state, decay) + self.write[t][:, None] * value
            found.append(state)
        return np.array(found)

    def corrected(self, t: int, state: Numbers, decay: float) -> Numbers:
        """What token t makes of a state, (K, V), before it writes its value."""
        faded = np.exp(decay * self.log_decay_at(t))[:, None] * state
        return faded + self.replace[t][:, None] * (self.seek[t] @ self.looked_at(state, faded))

    def looked_at(self, old: Numbers, faded: Numbers) -> Numbers:
        """The state that a token looks at: as the tokens before have left it."""
        return old

    def parts(self, t: int, states: Numbers, decay: float, bonus: float) -> tuple[Numbers, Numbers]:
        """What output t takes from the past and from its own token, (V,) each; there is no bonus to add to."""
        past = self.read[t] @ self.corrected(t, states[t - 1], decay) if t else np.zeros(self.values.shape[1])
        return past, (self.read[t] @ self.write[t]) * self.values[t]

    def log_decay_at(self, t: int) -> Numbers:
        """The log decay of step t, (K,)."""
        return np.broadcast_to(self.log_decay[t % len(self.log_decay)], self.write.shape[1:])


class GatedDeltaTrace(DeltaTrace):
    """The same, but a token looks at a state that has already faded, as in the gated delta rule.

    S' = diag(e^{log_decay_t}) S_{t-1};   S_t = S' + replace_t (S'^T seek_t)^T + write_t v_t^T;   o_t = read_t S_t
    """

    kind: ClassVar[str] = "gated"

    def looked_at(self, old: Numbers, faded: Numbers) -> Numbers:
        """The state that a token looks at: as it is after fading."""
        return faded


@dataclass(frozen=True, eq=False)
class ScanTrace:
    """Channels of a selective scan; column c is a channel, and each of its cells fades at a rate of its own.

    S_t[n, c] = e^{steps_t[c] rates[n, c]} S_{t-1}[n, c] + write_t[n] steps_t[c] v_t[c];   o_t = read_t S_t + skip * v_t

    Args:
        write: B, (T, N).
        read: C, (T, N).
        steps: dt, at least 0, (T, V).
        rates: A, at most 0, (N, V).
        values: x, (T, V).
        skip: D, (V,).

    Raises:
        ValueError: shapes that do not fit, more than 128 rows or columns, numbers that are not finite, a negative step, a
            positive rate.
    """

    write: Numbers
    read: Numbers
    steps: Numbers
    rates: Numbers
    values: Numbers
    skip: Numbers

    kind: ClassVar[str] = "scan"
    lines: ClassVar[bool] = False
    bonus: ClassVar[None] = None

    def __post_init__(self) -> None:
        _as_arrays(self)
        (tokens, states), channels = _two_axes(self, "write"), _two_axes(self, "values")[1]
        _check_shape(self, "read", (tokens, states))
        _check_shape(self, "steps", (tokens, channels))
        _check_shape(self, "rates", (states, channels))
        _check_shape(self, "values", (tokens, channels))
        _check_shape(self, "skip", (channels,))
        _check_numbers(self, "rates")
        if (least := self.steps.min()) < 0:
            raise ValueError(f"ScanTrace: steps must be at least 0, the smallest entry is {least:.4g}")

    def states(self, decay: float = 1.0) -> Numbers:
        """The state after every token, (T, N, V); `decay` multiplies the log decay."""
        found, state = [], np.zeros(self.rates.shape)
        for steps, write, value in zip(self.steps, self.write, self.values, strict=True):
            state = np.exp(decay * steps * self.rates) * state + write[:, None] * (steps * value)
            found.append(state)
        return np.array(found)

    def parts(self, t: int, states: Numbers, decay: float, bonus: float) -> tuple[Numbers, Numbers]:
        """What output t takes from the past and from its own token, (V,) each; there is no bonus to add to."""
        kept = np.exp(decay * self.steps[t] * self.rates)
        past = self.read[t] @ (kept * states[t - 1]) if t else np.zeros(self.values.shape[1])
        return past, (self.read[t] @ self.write[t] * self.steps[t] + self.skip) * self.values[t]

    def log_decay_at(self, t: int) -> Numbers:
        """The log decay of step t, in each row the mean of its channels, (N,)."""
        return (self.steps[t] * self.rates).mean(1)

    def way(self, channel: int = 0) -> Recurrence:
        """What is multiplied between the values and the outputs of one channel."""
        steps = self.steps[:, channel, None]
        skip = np.full(len(steps), self.skip[channel])
        return recurrence(steps * self.write, np.exp(steps * self.rates[:, channel]), self.read, skip=skip)


@dataclass(frozen=True, eq=False)
class VectorTrace:
    """Channels of a linear recurrence, one number each, which is also what is read.

    h_t = e^{log_decay_t} h_{t-1} + write_t v_t

    Args:
        write: weight of each value when it enters, (T, C).
        log_decay: natural logarithm of what each step leaves, at most 0, (T, C).
        values: v, (T, C).

    Raises:
        ValueError: shapes that do not fit, more than 128 channels, numbers that are not finite, a positive log decay.
    """

    write: Numbers
    log_decay: Numbers
    values: Numbers

    kind: ClassVar[str] = "vector"
    lines: ClassVar[bool] = True
    bonus: ClassVar[None] = None

    def __post_init__(self) -> None:
        _as_arrays(self)
        shape = _two_axes(self, "write")
        _check_shape(self, "log_decay", shape)
        _check_shape(self, "values", shape)
        _check_numbers(self, "log_decay")

    def states(self, decay: float = 1.0) -> Numbers:
        """The state after every token, (T, C, 1); `decay` multiplies the log decay."""
        found, state = [], np.zeros(self.values.shape[1])
        for log_decay, written in zip(self.log_decay, self.write * self.values, strict=True):
            state = np.exp(decay * log_decay) * state + written
            found.append(state)
        return np.array(found)[..., None]

    def parts(self, t: int, states: Numbers, decay: float, bonus: float) -> tuple[Numbers, Numbers]:
        """What output t takes from the past and from its own token, (C,) each; there is no bonus to add to."""
        past = np.exp(decay * self.log_decay[t]) * states[t - 1, :, 0] if t else np.zeros(self.values.shape[1])
        return past, self.write[t] * self.values[t]

    def log_decay_at(self, t: int) -> Numbers:
        """The log decay of step t, (C,)."""
        return self.log_decay[t]

    def way(self, channel: int = 0) -> Recurrence:
        """What is multiplied between the values and the outputs of one channel."""
        return recurrence(self.write[:, channel], np.exp(self.log_decay[:, channel]), np.ones(len(self.write)))


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
        ValueError: shapes that do not fit, more than 128 channels, numbers that are not finite, a positive log decay.
    """

    keys: Numbers
    log_decay: Numbers
    values: Numbers
    bonus: Numbers

    kind: ClassVar[str] = "average"
    lines: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _as_arrays(self)
        tokens, channels = _two_axes(self, "keys")
        _check_shape(self, "log_decay", (1, channels))
        _check_shape(self, "values", (tokens, channels))
        _check_shape(self, "bonus", (channels,))
        _check_numbers(self, "log_decay")

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


Trace = MatrixTrace | DeltaTrace | ScanTrace | VectorTrace | AverageTrace


def arrays(trace: Trace) -> dict[str, Numbers]:
    """A trace's numbers by name, without what its mechanism lacks."""
    return {name: value for name, value in vars(trace).items() if value is not None}


def rounded(trace: Trace) -> Trace:
    """The trace in numbers that float32 holds, as the browser gets it."""
    return type(trace)(**{name: value.astype(np.float32).astype(np.float64) for name, value in arrays(trace).items()})


def traces(call: OpCall) -> list[Trace]:
    """The heads of a recorded call of one sequence; of what has no heads, groups of 64 channels.

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
    groups = _groups(k.shape[-1])
    return [AverageTrace(k[0, :, group], log_decay[None, group], v[0, :, group], bonus[group]) for group in groups]


def _wkv6(inputs: dict[str, Any]) -> list[Trace]:
    _check_start(inputs.get("state"))
    r, k, v, log_decay, bonus = (_numbers(inputs[name]) for name in ("r", "k", "v", "log_decay", "bonus"))
    heads = range(k.shape[2])
    return [MatrixTrace(k[0, :, h], log_decay[0, :, h], r[0, :, h], v[0, :, h], bonus[h]) for h in heads]


def _wkv7(inputs: dict[str, Any]) -> list[Trace]:
    _check_start(inputs.get("state"))
    a, b, k, log_decay, r, v = (_numbers(inputs[name])[0] for name in ("a", "b", "k", "log_decay", "r", "v"))
    return [DeltaTrace(*(x[:, h] for x in (a, b, k, log_decay, r, v))) for h in range(k.shape[1])]


def _delta_rule(inputs: dict[str, Any]) -> list[Trace]:
    """A delta rule is a gated one where nothing fades."""
    return _gated_delta_rule({**inputs, "log_decay": torch.zeros_like(inputs["beta"])})


def _gated_delta_rule(inputs: dict[str, Any]) -> list[Trace]:
    _check_start(inputs.get("state"))
    q, k, v, log_decay, beta = (_numbers(inputs[name])[0] for name in ("q", "k", "v", "log_decay", "beta"))
    write, log_decay = beta[..., None] * k, log_decay[..., None]
    return [GatedDeltaTrace(*(x[:, h] for x in (k, -write, write, log_decay, q, v))) for h in range(k.shape[1])]


def _retention(inputs: dict[str, Any]) -> list[Trace]:
    _check_start(inputs.get("state"))
    q, k, v, log_decay = (_numbers(inputs[name]) for name in ("q", "k", "v", "log_decay"))
    heads = range(k.shape[2])
    return [MatrixTrace(k[0, :, h], log_decay[None, h : h + 1], q[0, :, h], v[0, :, h]) for h in heads]


def _ssd(inputs: dict[str, Any]) -> list[Trace]:
    """The transposes of the op's states: rows are written by dt B, columns are the channels of x."""
    _check_start(inputs.get("state"))
    x, dt, A, B, C = (_numbers(inputs[name]) for name in ("x", "dt", "A", "B", "C"))
    heads, width = x.shape[2:]
    skip = _skip(inputs, heads)
    sharing = heads // B.shape[2]
    return [
        MatrixTrace(
            dt[0, :, h, None] * B[0, :, h // sharing],
            dt[0, :, h, None] * A[h],
            C[0, :, h // sharing],
            x[0, :, h],
            skip=np.full(width, skip[h]),
        )
        for h in range(heads)
    ]


def _selective_scan(inputs: dict[str, Any]) -> list[Trace]:
    """The transposes of the op's states, 64 channels at a time."""
    _check_start(inputs.get("state"))
    x, dt, A, B, C = (_numbers(inputs[name]) for name in ("x", "dt", "A", "B", "C"))
    skip = _skip(inputs, x.shape[-1])
    groups = _groups(x.shape[-1])
    return [ScanTrace(B[0], C[0], dt[0, :, part], A.T[:, part], x[0, :, part], skip[part]) for part in groups]


def _linear_recurrence(inputs: dict[str, Any]) -> list[Trace]:
    _check_start(inputs.get("state"))
    a, b = (_numbers(inputs[name])[0] for name in ("a", "b"))
    if a.min() < 0 or a.max() > 1:
        raise ValueError(f"traces: a must be a decay, from 0 to 1, got {a.min():.4g} to {a.max():.4g}")
    with np.errstate(divide="ignore"):
        log_decay = np.maximum(np.log(a), NOTHING_LEFT)
    return [VectorTrace(np.ones_like(b[:, part]), log_decay[:, part], b[:, part]) for part in _groups(b.shape[-1])]


def _rg_lru(inputs: dict[str, Any]) -> list[Trace]:
    _check_start(inputs.get("state"))
    x, r, i, log_a = (_numbers(inputs[name]) for name in ("x", "recurrence_gate", "input_gate", "log_a"))
    log_decay = SHARPNESS * r[0] * log_a
    room = np.sqrt(-np.expm1(2 * log_decay))
    if (reset := inputs.get("reset")) is not None:
        starts = reset[0].cpu().numpy()[:, None]
        log_decay, room = np.where(starts, NOTHING_LEFT, log_decay), np.where(starts, 1.0, room)
    write = room * i[0]
    return [VectorTrace(write[:, part], log_decay[:, part], x[0, :, part]) for part in _groups(x.shape[-1])]


# What turns the inputs of an op into the traces of its heads: another mechanism plugs in here.
READERS: dict[str, Callable[[dict[str, Any]], list[Trace]]] = {
    "linear_recurrence": _linear_recurrence,
    "rg_lru": _rg_lru,
    "wkv4": _wkv4,
    "wkv6": _wkv6,
    "wkv7": _wkv7,
    "delta_rule": _delta_rule,
    "gated_delta_rule": _gated_delta_rule,
    "selective_scan": _selective_scan,
    "ssd": _ssd,
    "retention": _retention,
}


def _groups(channels: int) -> list[slice]:
    return [slice(start, start + GROUP) for start in range(0, channels, GROUP)]


def _skip(inputs: dict[str, Any], size: int) -> Numbers:
    D = inputs.get("D")
    return np.zeros(size) if D is None else _numbers(D)


def _numbers(tensor: Tensor) -> Numbers:
    return tensor.detach().cpu().double().numpy()


def _check_start(state: Tensor | None, weight: Callable[[Tensor], Tensor] = torch.as_tensor) -> None:
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
    if getattr(trace, name) is None:
        return
    shape = getattr(trace, name).shape
    if shape not in expected:
        raise ValueError(f"{type(trace).__name__}: {name} must have shape {' or '.join(map(str, expected))}, got {shape}")


def _check_numbers(trace: Any, fading: str) -> None:
    for name, value in arrays(trace).items():
        if not np.isfinite(value).all():
            raise ValueError(f"{type(trace).__name__}: {name} must be finite everywhere")
    if (largest := getattr(trace, fading).max()) > 0:
        raise ValueError(f"{type(trace).__name__}: {fading} must be at most 0, its largest entry is {largest:.4g}")
