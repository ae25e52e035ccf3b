"""RWKV-4's operator on the CPU: channels side by side in vector registers, blocks of channels on threads.

Every channel is a recurrence of its own, so the inner loops run over neighbouring channels of one token and the compiler
turns them into vector code. Two exponentials shifted by the larger exponent cost one: the other is 1.

The shift is not carried as one number, `max += log_decay`, which would round at every token: with keys near 900 float32 is
then 1 % off after 4096 tokens. It is kept as the key it came from and that key's age, max = key + age * log_decay.
"""

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hybridlab.kernels.channels_numba import place, split
from hybridlab.kernels.numerics_numba import FAST, arrays, exp

# Channels a task at most: long rows to read, and the sums of a row stay in the nearest cache.
ROW = 768
# Channels a task at least: shorter rows cost more to start than to do.
SHORT_ROW = 64
# Tokens whose sums the backward keeps at a time; those of a row then fit in the second cache.
SEGMENT = 32
# Fewer numbers than this are done before a second thread has woken up.
SMALL = 16384
# The narrower type, so that float32 stays float32.
ZERO, ONE = np.float32(0), np.float32(1)

# Without error_model="numpy" every division would test for zero, and a loop with a test is no vector code.
JIT = {"cache": True, "fastmath": FAST, "error_model": "numpy"}


@njit(**JIT)
def _shifted(old, new):
    """e^old and e^new, both divided by the larger."""
    smaller = exp(-abs(old - new))
    return (ONE if old >= new else smaller), (smaller if old >= new else ONE)


@njit(**JIT)
def _step(sums, k, v, log_decay):
    """Decays the sums of one channel and adds a token; sums are num, den, and the shift as key and age."""
    num, den, key, age = sums
    decayed = key + (age + ONE) * log_decay
    old, new = _shifted(decayed, k)
    shift = (key, age + ONE) if decayed >= k else (k, age * ZERO)
    return old * num + new * v, old * den + new, shift[0], shift[1]


@njit(**JIT)
def _forward_row(sums, weights, k, v, out):
    """One token: the output, then the sums in place."""
    num, den, key, age = sums[0], sums[1], sums[2], sums[3]
    log_decay, bonus = weights
    for c in range(k.size):
        old, new = _shifted(key[c] + age[c] * log_decay[c], bonus[c] + k[c])
        out[c] = (old * num[c] + new * v[c]) / (old * den[c] + new)
        now = _step((num[c], den[c], key[c], age[c]), k[c], v[c], log_decay[c])
        num[c], den[c], key[c], age[c] = now


@njit(**JIT)
def _replay_row(sums, log_decay, k, v, before):
    """One token: the sums before it, then the sums in place."""
    num, den, key, age = sums[0], sums[1], sums[2], sums[3]
    old_num, old_den, old_top = before[0], before[1], before[2]
    for c in range(k.size):
        old_num[c], old_den[c], old_top[c] = num[c], den[c], key[c] + age[c] * log_decay[c]
        now = _step((num[c], den[c], key[c], age[c]), k[c], v[c], log_decay[c])
        num[c], den[c], key[c], age[c] = now


@njit(**JIT)
def _backward_row(before, weights, token, gradients, carried):
    """One token: its gradients, then those of num and den in place. Every shift is a constant, so every factor is <= 1."""
    num, den, top = before[0], before[1], before[2]
    log_decay, bonus = weights
    k, v, out, g_out = token
    g_k, g_v = gradients
    g_log_decay, g_bonus, g_num, g_den = carried
    for c in range(k.size):
        old, new = _shifted(top[c], bonus[c] + k[c])
        below = old * den[c] + new
        g_above = g_out[c] / below
        g_below = -g_above * out[c]
        kept, added = _shifted(top[c] + log_decay[c], k[c])
        # v - out, written so that nothing cancels where the present token is all there is.
        g_present = new * g_above * old * (den[c] * v[c] - num[c]) / below
        g_k[c] = g_present + added * (g_num[c] * v[c] + g_den[c])
        g_v[c] = new * g_above + added * g_num[c]
        g_bonus[c] += g_present
        g_log_decay[c] += kept * (g_num[c] * num[c] + g_den[c] * den[c])
        g_num[c] = kept * g_num[c] + old * g_above
        g_den[c] = kept * g_den[c] + old * g_below


@njit(**JIT)
def _opened(state):
    """The sums of a block as rows: num, den, and the shift as a key of age 0."""
    sums = np.zeros((4, state.shape[0]), state.dtype)
    for c in range(state.shape[0]):
        sums[0, c], sums[1, c], sums[2, c] = state[c]
    return sums


@njit(**JIT)
def _forward_task(task, width, inputs, out, final):
    k, v, log_decay, bonus, state = inputs
    b, c = place(task, k.shape[2], width)
    sums, weights = _opened(state[b, c]), (log_decay[c], bonus[c])
    for t in range(k.shape[1]):
        _forward_row(sums, weights, k[b, t, c], v[b, t, c], out[b, t, c])
    final[b, c, 0], final[b, c, 1], final[b, c, 2] = sums[0], sums[1], sums[2] + sums[3] * log_decay[c]


@njit(**JIT)
def _replay(inputs, here, segment, sums, before):
    """The sums before every token of a segment; `sums` goes from its start to its end."""
    k, v, log_decay, _, _ = inputs
    b, c = here
    first = segment * SEGMENT
    for t in range(first, min(first + SEGMENT, k.shape[1])):
        _replay_row(sums, log_decay[c], k[b, t, c], v[b, t, c], before[t - first])


@njit(**JIT)
def _walk_back(inputs, results, here, segment, before, gradients, carried):
    """The gradients of a segment, last token first."""
    k, v, log_decay, bonus, _ = inputs
    out, g_out, _ = results
    b, c = here
    first = segment * SEGMENT
    for t in range(min(first + SEGMENT, k.shape[1]) - 1, first - 1, -1):
        token, g_token = (
            (k[b, t, c], v[b, t, c], out[b, t, c], g_out[b, t, c]),
            (gradients[0][b, t, c], gradients[1][b, t, c]),
        )
        _backward_row(before[t - first], (log_decay[c], bonus[c]), token, g_token, carried)


@njit(**JIT)
def _backward_task(task, width, inputs, results, gradients):
    """Forwards it notes the sums at the start of each segment; backwards it replays a segment, then walks it back."""
    k, state, g_final = inputs[0], inputs[4], results[2]
    _, _, g_log_decay, g_bonus, g_state = gradients
    b, c = here = place(task, k.shape[2], width)
    sums, g_sums = _opened(state[b, c]), _opened(g_final[b, c])
    segments = (k.shape[1] + SEGMENT - 1) // SEGMENT
    starts = np.empty((segments, *sums.shape), k.dtype)
    before = np.empty((SEGMENT, 3, sums.shape[1]), k.dtype)
    for segment in range(segments):
        starts[segment] = sums
        _replay(inputs, here, segment, sums, before)
    carried = g_log_decay[b, c], g_bonus[b, c], g_sums[0], g_sums[1]
    for segment in range(segments - 1, -1, -1):
        _replay(inputs, here, segment, starts[segment], before)
        _walk_back(inputs, results, here, segment, before, gradients, carried)
    g_state[b, c, 0], g_state[b, c, 1] = g_sums[0], g_sums[1]
    # e^max multiplies num and den alike.
    g_state[b, c, 2] = g_sums[0] * state[b, c, 0] + g_sums[1] * state[b, c, 1]


@njit(**JIT)
def _forward_alone(tasks, width, inputs, out, final):
    for task in range(tasks):
        _forward_task(task, width, inputs, out, final)


@njit(parallel=True, **JIT)
def _forward_threads(tasks, width, inputs, out, final):
    for task in prange(tasks):
        _forward_task(task, width, inputs, out, final)


@njit(**JIT)
def _backward_alone(tasks, width, inputs, results, gradients):
    for task in range(tasks):
        _backward_task(task, width, inputs, results, gradients)


@njit(parallel=True, **JIT)
def _backward_threads(tasks, width, inputs, results, gradients):
    for task in prange(tasks):
        _backward_task(task, width, inputs, results, gradients)


def forward(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, C) and final state (B, C, 3) of k, v, log_decay, bonus, state as `hybridlab.ops.wkv4` has them."""
    k, v, _, _, state = inputs
    output, final = (torch.empty(x.shape, dtype=x.dtype) for x in (v, state))
    run = _forward_alone if k.numel() < SMALL else _forward_threads
    run(*split(k.shape[0], k.shape[2], ROW, SHORT_ROW), arrays(inputs), output.numpy(), final.numpy())
    return output, final


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of k, v, log_decay, bonus and state; the max of the final state is a constant."""
    k, v, log_decay, bonus, state, output, _, g_output, g_final = tensors
    g_k, g_v, g_state = (torch.empty(x.shape, dtype=k.dtype) for x in (k, v, state))
    # A row for each sequence, so that threads do not meet.
    g_log_decay, g_bonus = (torch.zeros(state.shape[:2], dtype=k.dtype) for _ in range(2))
    run = _backward_alone if k.numel() < SMALL else _backward_threads
    inputs, results = arrays((k, v, log_decay, bonus, state)), arrays((output, g_output, g_final))
    gradients = arrays((g_k, g_v, g_log_decay, g_bonus, g_state))
    run(*split(k.shape[0], k.shape[2], ROW, SHORT_ROW), inputs, results, gradients)
    return g_k, g_v, g_log_decay.sum(0), g_bonus.sum(0), g_state
