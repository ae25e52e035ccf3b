"""The linear recurrence: every channel is one number that fades and is added to.

    h_t = a_t h_{t-1} + b_t

Two steps in a row are one step of the same kind: first (a, b), then (c, d) is (c a, c b + d). That is associative, so the
steps may be bracketed in any way: one after another, as a tree (an associative scan), or in chunks.

The hazard: dividing by the cumulative product P_t = a_1 ... a_t would turn the recurrence into a plain cumulative sum of
b_t / P_t, and into NaN as soon as P_t underflows or one a_t is 0. No form here divides; a_t may be 0 or negative.
"""

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
    """An associative scan over all tokens at once."""
    return linear_recurrence_chunked(a, b, state, chunk_size=a.shape[1])


def linear_recurrence_chunked(a: Tensor, b: Tensor, state: Tensor, chunk_size: int = CHUNK_SIZE) -> tuple[Tensor, Tensor]:
    """A scan inside every chunk, all chunks at once; the state between chunks."""
    out_dtype, (a, b) = b.dtype, widened(state, a, b)
    length, chunk_size = a.shape[1], min(chunk_size, a.shape[1])
    kept, added = _scanned(_chunks(a, chunk_size, 1.0), _chunks(b, chunk_size, 0.0))
    starts = []
    for kept_n, added_n in zip(kept[:, :, -1].unbind(1), added[:, :, -1].unbind(1), strict=True):
        starts.append(state)
        state = kept_n * state + added_n
    output = kept * torch.stack(starts, 1).unsqueeze(2) + added
    return output.flatten(1, 2)[:, :length].to(out_dtype), state


def _chunks(x: Tensor, chunk_size: int, nothing: float) -> Tensor:
    """(B, T, D) to (B, chunks, chunk_size, D); the end is filled with steps that do nothing."""
    return pad(x, (0, 0, 0, -x.shape[1] % chunk_size), value=nothing).unflatten(1, (-1, chunk_size))


def _scanned(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Each step joined with all steps before it along the last axis but one: its (a, b) is that of the whole stretch.

    In round n a step that stands for the last 2^n steps takes in the 2^n before those.
    """
    reach = 1
    while reach < a.shape[-2]:
        size = a.shape[-2] - reach
        a_now, (a_old, b_old) = a.narrow(-2, reach, size), (x.narrow(-2, 0, size) for x in (a, b))
        b = torch.cat((b.narrow(-2, 0, reach), a_now * b_old + b.narrow(-2, reach, size)), -2)
        a = torch.cat((a.narrow(-2, 0, reach), a_now * a_old), -2)
        reach *= 2
    return a, b


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
