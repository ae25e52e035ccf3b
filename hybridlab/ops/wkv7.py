"""RWKV-7: a matrix of memories in which a token replaces, along one direction, what it finds along another.

A head keeps a matrix S (K x V). A token looks along a_t at the state as earlier tokens left it, undecayed, and writes what
it finds along b_t; every row fades by its own decay, and k_t v_t^T is added. The result is read:

    S_t = diag(e^{log_decay_t}) S_{t-1} + b_t (S_{t-1}^T a_t)^T + k_t v_t^T
    o_t = S_t^T r_t

The model's a is minus a key of length 1, its b that key times a rate from 0 to 1: what the key has so far is taken away, in
part or whole. Then it is the delta rule, with a decay for every channel and with separate keys to remove and to add. The
paper writes the transposed matrix: S_t = S_{t-1} (diag(w_t) + a_t b_t^T) + v_t k_t^T, o_t = S_t r_t. No scale is applied.

A chunk of tokens is one triangular system for what they find, u_t = S_{t-1}^T a_t: earlier tokens s of the chunk have left
b_s u_s^T and k_s v_s^T, faded by the steps between, and the chunk's first state is there as well.

The hazard: factored decays, e^{sum to t} e^{-sum to s}, overflow. Here a chunk is halved, and each half again: what a token
of the second half takes from one of the first fades up to the middle and from the middle on, two exponents of at most 0.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from hybridlab.ops.checks import check_chunk_size, check_log_decay, check_state, check_tensors
from hybridlab.ops.chunks import in_chunks
from hybridlab.ops.dispatch import choose
from hybridlab.ops.kernel_op import blank, kernel_op
from hybridlab.ops.precision import state_dtype, widened
from hybridlab.shapes import EachKeyDecay, Keys, MatrixState, Receptances, Values

LAYOUT = {"r": "BTHK", "k": "BTHK", "v": "BTHV", "log_decay": "BTHK", "a": "BTHK", "b": "BTHK"}
INPUTS = (*LAYOUT, "state")
CHUNK_SIZE = 16


def wkv7(
    r: Receptances,
    k: Keys,
    v: Values,
    log_decay: EachKeyDecay,
    a: Keys,
    b: Keys,
    state: MatrixState | None = None,
    *,
    backend: str = "auto",
    form: str | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Values, MatrixState]:
    """The WKV operator of RWKV-7.

    S_t = diag(e^{log_decay_t}) S_{t-1} + b_t (S_{t-1}^T a_t)^T + k_t v_t^T;  o_t = S_t^T r_t

    Args:
        r: receptances, (B, T, H, K); no scale is applied.
        k: keys, (B, T, H, K).
        v: values, (B, T, H, V).
        log_decay: natural logarithm of the decay a step, at most 0, (B, T, H, K).
        a: along what a token looks at the old state, (B, T, H, K); minus a unit vector in the model.
        b: along what it writes what it found, (B, T, H, K).
        state: S before the first token, (B, H, K, V), float32 at least; None is the empty state (zeros). It is the transpose
            of the paper's.
        backend: "auto", "naive", "numba" or "triton".
        form: "recurrent", "parallel" (one triangular system) or "chunked": one of the plain PyTorch forms.
        chunk_size: tokens a chunk in the chunked form; the next power of two is taken.

    Returns:
        output (B, T, H, V) in v's dtype, and the state after the last token (B, H, K, V).

    Raises:
        ValueError: wrong shape, dtype, device, backend or form; T = 0; a positive or NaN log decay.

    Source: RWKV-7 Goose, arXiv 2503.14456, the WKV recurrence of the time mixing. Chapter 08.
    """
    sizes = check_tensors("wkv7", LAYOUT, (r, k, v, log_decay, a, b))
    check_log_decay("wkv7", log_decay)
    shape = (sizes["B"], sizes["H"], sizes["K"], sizes["V"])
    if state is None:
        state = r.new_zeros(shape, dtype=state_dtype(r.dtype))
    check_state("wkv7", state, shape, r)
    check_chunk_size("wkv7", chunk_size)
    run = choose("wkv7", FORMS, BACKENDS, backend, form, r)
    if run is wkv7_chunked:
        return wkv7_chunked(r, k, v, log_decay, a, b, state, chunk_size)
    return run(r, k, v, log_decay, a, b, state)


def wkv7_recurrent(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The literal equation, token by token."""
    out_dtype, tokens = v.dtype, widened(state, r, k, v, log_decay, a, b)
    outputs = []
    for r_t, k_t, v_t, log_decay_t, a_t, b_t in zip(*(x.unbind(1) for x in tokens), strict=True):
        found = (a_t.unsqueeze(-1) * state).sum(-2)
        replaced = b_t.unsqueeze(-1) * found.unsqueeze(-2)
        state = log_decay_t.exp().unsqueeze(-1) * state + replaced + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
        outputs.append((r_t.unsqueeze(-1) * state).sum(-2))
    return torch.stack(outputs, 1).to(out_dtype), state


def wkv7_parallel(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """What all tokens find, at once: one triangular system of T equations a head."""
    return wkv7_chunked(r, k, v, log_decay, a, b, state, chunk_size=k.shape[1])


def wkv7_chunked(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Tensor, Tensor]:
    """A triangular system inside a chunk, the state between chunks; all chunks at once but for the state's recurrence."""
    out_dtype, tokens = v.dtype, widened(state, r, k, v, log_decay, a, b)
    length, width = v.shape[1], v.shape[3]
    chunk_size = 1 << (min(chunk_size, length) - 1).bit_length()
    r, k, v, log_decay, a, b = (in_chunks(x, chunk_size).movedim(3, 1) for x in tokens)
    read_added, read_replaced, found_added, found_replaced = _pairs(r, a, k, b, log_decay)
    before, through, after = _fading(log_decay)
    # Unit triangular: the ones on the diagonal need not be written.
    wanted = torch.cat([found_added @ v, before * a], -1)
    solved = torch.linalg.solve_triangular(-found_replaced, wanted, upper=False, unitriangular=True)
    inside, outside = solved.split([width, k.shape[-1]], -1)
    added, replacing, whole = (after * k).mT @ v, (after * b).mT, through[..., -1, :].unsqueeze(-1)
    starts, found = [], []
    for inside_n, outside_n, added_n, replacing_n, whole_n in zip(
        *(x.unbind(2) for x in (inside, outside, added, replacing, whole)), strict=True
    ):
        starts.append(state)
        found.append(inside_n + outside_n @ state)
        state = whole_n * state + added_n + replacing_n @ found[-1]
    output = (through * r) @ torch.stack(starts, 2) + read_added @ v + read_replaced @ torch.stack(found, 2)
    return output.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :length].to(out_dtype), state


def _pairs(r: Tensor, a: Tensor, k: Tensor, b: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What token t of a chunk takes from token s, (..., t, s): r from k and from b, a from k and from b.

    r reads after the step of its token, itself included, and a before it. Pairs of one token come first; then blocks of them
    are joined two by two.
    """
    readers, writers = torch.stack([r, a], -2), torch.stack([k, b], -2)
    itself = torch.stack([(r.unsqueeze(-2) * writers).sum(-1), torch.zeros_like(writers[..., 0])], -2)
    pairs = itself.unsqueeze(-2).unsqueeze(-1)  # (..., blocks, reader, t, writer, s)
    while pairs.shape[-5] > 1:
        half = pairs.shape[-1]
        first, second = (log_decay.unflatten(-2, (-1, 2, half))[..., i, :, :] for i in (0, 1))
        reaching = torch.stack(_fading(second)[1::-1], -2)
        leaving = _fading(first)[2].unsqueeze(-2)
        reads = (readers.unflatten(-3, (-1, 2, half))[..., 1, :, :, :] * reaching).transpose(-2, -3)
        writes = (writers.unflatten(-3, (-1, 2, half))[..., 0, :, :, :] * leaving).transpose(-2, -3)
        across = (reads.flatten(-3, -2) @ writes.flatten(-3, -2).mT).unflatten(-1, (2, half)).unflatten(-3, (2, half))
        above, below = pairs[..., 0::2, :, :, :, :], pairs[..., 1::2, :, :, :, :]
        above, below = torch.cat([above, torch.zeros_like(above)], -1), torch.cat([across, below], -1)
        pairs = torch.cat([above, below], -3)
    (read_added, read_replaced), (found_added, found_replaced) = (x.unbind(-2) for x in pairs.squeeze(-5).unbind(-4))
    return read_added, read_replaced, found_added, found_replaced


def _fading(log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decays from the start to before each token's step, to after it, and from after it to the end.

    Exclusive sums, shifted rather than subtracted: a difference of long sums has lost its small digits.
    """
    sums = log_decay.cumsum(-2)
    before = pad(sums[..., :-1, :], (0, 0, 1, 0))
    after = pad(log_decay[..., 1:, :].flip(-2).cumsum(-2).flip(-2), (0, 0, 0, 1))
    return before.exp(), sums.exp(), after.exp()


def _shapes(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return blank(v), blank(state)


FORMS = {"recurrent": wkv7_recurrent, "parallel": wkv7_parallel, "chunked": wkv7_chunked}
BACKENDS = {
    "naive": wkv7_recurrent,
    "numba": kernel_op("wkv7_numba", INPUTS, _shapes),
    "triton": kernel_op("wkv7_triton", INPUTS, _shapes),
}
