"""The linear recurrence: every channel is one number that fades and is added to.

    h_t = a_t h_{t-1} + b_t

Two steps in a row are one step of the same kind: first (a, b), then (c, d) is (c a, c b + d). That is associative, so the
steps may be bracketed in any way: one after another, as a tree (an associative scan), or in chunks.

The hazard: dividing by the cumulative product P_t = a_1 ... a_t would turn the recurrence into a plain cumulative sum of
b_t / P_t, and into NaN as soon as P_t underflows or one a_t is 0. No form here divides; a_t may be 0 or negative.
"""

from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import pad

from hybridlab.ops.checks import check_chunk_size, check_state, check_tensors
from hybridlab.ops.dispatch import choose
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.precision import state_dtype, widened
from hybridlab.shapes import ChannelState, Stream

LAYOUT = {"a": "BTD", "b": "BTD"}
INPUTS = (*LAYOUT, "state")
CHUNK_SIZE = 32

# (a, b), for any number of tokens.
Step = tuple[Tensor, ...]


def linear_recurrence(
    a: Stream,
    b: Stream,
    state: ChannelState | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Stream, ChannelState]:
    """The first-order linear recurrence, channel by channel.

    h_t = a_t h_{t-1} + b_t

    Args:
        a: what is kept of the state at each step, (B, T, D); any number, 0 and negative ones too.
        b: what is added, (B, T, D).
        state: h before the first token, (B, D), float32 at least; None is the empty state (zeros).
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent", "parallel" (an associative scan) or "chunked": one of the plain PyTorch forms.
        chunk_size: tokens a chunk in the chunked form.

    Returns:
        h (B, T, D) in b's dtype, and the state after the last token (B, D).

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0.

    Source: the recurrence of RG-LRU, arXiv 2402.19427, with its gates left to the caller; as a scan, Blelloch, "Prefix sums
    and their applications". Chapter 02.
    """
    sizes = check_tensors("linear_recurrence", LAYOUT, (a, b))
    shape = (sizes["B"], sizes["D"])
    if state is None:
        state = b.new_zeros(shape, dtype=state_dtype(a.dtype))
    check_state("linear_recurrence", state, shape, a)
    check_chunk_size("linear_recurrence", chunk_size)
    run = choose("linear_recurrence", FORMS, BACKENDS, backend, form, a)
    if run is linear_recurrence_chunked:
        return linear_recurrence_chunked(a, b, state, chunk_size)
    return run(a, b, state)


def linear_recurrence_recurrent(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The literal equation, token by token."""
    out_dtype, (a, b) = b.dtype, widened(state, a, b)
    outputs = []
    for a_t, b_t in zip(a.unbind(1), b.unbind(1), strict=True):
        state = a_t * state + b_t
        outputs.append(state)
    return torch.stack(outputs, 1).to(out_dtype), state


def linear_recurrence_parallel(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """An associative scan over all tokens: a tree of joined steps, log2(T) levels up and down again."""
    out_dtype, (a, b) = b.dtype, widened(state, a, b)
    kept, added = _scanned((a, b))
    output = kept * state.unsqueeze(1) + added
    return output.to(out_dtype), output[:, -1].clone(memory_format=torch.contiguous_format)


def linear_recurrence_chunked(a: Tensor, b: Tensor, state: Tensor, chunk_size: int = CHUNK_SIZE) -> tuple[Tensor, Tensor]:
    """Step by step inside a chunk, all chunks side by side; then the state from chunk to chunk."""
    out_dtype, (a, b) = b.dtype, widened(state, a, b)
    length, chunk_size = a.shape[1], min(chunk_size, a.shape[1])
    steps = zip(_chunks(a, chunk_size, 1.0).unbind(2), _chunks(b, chunk_size, 0.0).unbind(2), strict=True)
    kept, added = (torch.stack(x, 2) for x in zip(*accumulate(steps, _joined), strict=True))
    starts = []
    for kept_n, added_n in zip(kept[:, :, -1].unbind(1), added[:, :, -1].unbind(1), strict=True):
        starts.append(state)
        state = kept_n * state + added_n
    output = kept * torch.stack(starts, 1).unsqueeze(2) + added
    return output.flatten(1, 2)[:, :length].to(out_dtype), state


def _chunks(x: Tensor, chunk_size: int, nothing: float) -> Tensor:
    """(B, T, D) to (B, chunks, chunk_size, D); the end is filled with steps that do nothing."""
    return pad(x, (0, 0, 0, -x.shape[1] % chunk_size), value=nothing).unflatten(1, (-1, chunk_size))


def _joined(old: Step, new: Step) -> Step:
    """Two steps, or two rows of them, as one."""
    return new[0] * old[0], new[0] * old[1] + new[1]


def _scanned(steps: Step) -> Step:
    """Each step along axis 1 joined with all before it.

    Neighbours are joined to pairs, the pairs are scanned, and that is every second answer; each of the others is one step
    more than the answer before it.
    """
    length = steps[0].shape[1]
    if length == 1:
        return steps
    first, second = (tuple(x[:, start : length - length % 2 : 2] for x in steps) for start in (0, 1))
    odd = _scanned(_joined(first, second))
    rest = tuple(x[:, 2::2] for x in steps)
    even = _joined(tuple(x[:, : rest[0].shape[1]] for x in odd), rest)
    even = tuple(torch.cat((x[:, :1], later), 1) for x, later in zip(steps, even, strict=True))
    return tuple(_woven(*x) for x in zip(even, odd, strict=True))


def _woven(even: Tensor, odd: Tensor) -> Tensor:
    """One of each in turn; where the length is odd an even one is left for the end."""
    pairs = odd.shape[1]
    return torch.cat((torch.stack((even[:, :pairs], odd), 2).flatten(1, 2), even[:, pairs:]), 1)


def _shapes(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return blank(b), blank(state)


FORMS = {
    "recurrent": linear_recurrence_recurrent,
    "parallel": linear_recurrence_parallel,
    "chunked": linear_recurrence_chunked,
}
BACKENDS = {
    "naive": linear_recurrence_recurrent,
    "numba": kernel_op("linear_recurrence_numba", INPUTS, _shapes),
    "triton": kernel_op("linear_recurrence_triton", INPUTS, _shapes),
}
