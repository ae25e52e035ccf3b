"""The selective scan in Triton: one warp a block of channels, all their state numbers in registers, token by token.

    h_t = e^{dt_t A} h_{t-1} + dt_t x_t B_t             y_t = h_t C_t + D x_t

An exponential a token, channel and state number is the work, and it waits for nothing but the state: what a token brings is
fetched some tokens ahead. A tile is (state numbers, channels), so that a lane holds all numbers of its channels, and reading
the state, a sum over them, is no business between lanes.

The backward notes the states at chunk starts, walking forward. Then, from the last chunk to the first, it runs the chunk
again, writing what the decays left of the states to a scratch tile a token, and walks it back with

    g_t = (gradient of y_t) C_t + e^{dt_{t+1} A} g_{t+1}

What B and C, which all channels share, receive is a summand a block: added up in order, sums stay reproducible.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridlab.kernels.tiles_triton import load_vector, store_vector

# Numbers a tile, for 32 lanes: the backward holds several tiles in registers (`hybridlab.measure.aot`).
TILE = 512
# Tokens a chunk: more need more scratch, fewer more states at chunk starts.
CHUNK = 32
# Tokens ahead of which inputs are fetched.
STAGES = tl.constexpr(4)


def forward(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, E) in x's dtype and final state (B, E, N) of x, dt, A, B, C, D, state."""
    x, dt, A, B, C, D, state = (z.contiguous() for z in inputs)
    batch, T, E = x.shape
    BE, BN = walking_blocks(x, A)
    out, final = torch.empty_like(x), torch.empty_like(state)
    forward_kernel[(batch, triton.cdiv(E, BE))](x, dt, A, B, C, D, state, out, final, T, E, A.shape[1], BE, BN, num_warps=1)
    return out, final


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, dt, A, B, C, D, state; takes those seven, output, final state, and the gradients of both."""
    x, dt, A, B, C, D, state, _, _, grad_out, grad_final = (z.contiguous() for z in tensors)
    (batch, T, E), N = x.shape, A.shape[1]
    BE, BN = walking_blocks(x, A)
    starts = state.new_empty((batch, triton.cdiv(T, CHUNK), E, N))
    starts_kernel[(batch, triton.cdiv(E, BE))](x, dt, A, B, state, starts, T, E, N, BE, BN, CHUNK, num_warps=1)
    BE, BN = blocks(E, N, TILE)
    grid = (batch, triton.cdiv(E, BE))
    grad_x, grad_dt, grad_state = torch.empty_like(x), torch.empty_like(dt), torch.empty_like(state)
    A_parts, D_parts = torch.empty_like(state), state.new_empty((batch, E))
    B_parts, C_parts = (state.new_empty((grid[1], *z.shape)) for z in (B, C))
    scratch = state.new_empty((*grid, CHUNK, BN, BE))
    backward_kernel[grid](
        x, dt, A, B, C, D, starts, grad_out, grad_final, scratch,
        grad_x, grad_dt, A_parts, B_parts, C_parts, D_parts, grad_state, T, E, N, BE, BN, CHUNK, num_warps=1,
    )  # fmt: skip
    shared = (parts.sum(0).to(z.dtype) for parts, z in zip((A_parts, B_parts, C_parts, D_parts), (A, B, C, D), strict=True))
    return grad_x, grad_dt, *shared, grad_state


def walking_blocks(x: Tensor, A: Tensor) -> tuple[int, int]:
    """Blocks of the kernels that walk forward: twice as wide for 2-byte inputs, as a lane fetches 4 bytes ahead or none."""
    return blocks(A.shape[0], A.shape[1], TILE * 4 // x.element_size())


def blocks(E: int, N: int, tile: int) -> tuple[int, int]:
    """Channels and state numbers a tile: powers of two."""
    BN = triton.next_power_of_2(N)
    return min(max(tile // BN, 1), triton.next_power_of_2(E)), BN


@triton.jit
def states(h, E, N: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr):
    """Addresses of (N, E) numbers that lie as (E, N), and which of them there are."""
    n, e = tl.arange(0, BN)[:, None], tl.arange(0, BE)[None, :]
    return h + e * N + n, (n < N) & (e < E)


@triton.jit
def load_states(h, E, N: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr):
    """The states of a block, or what has their shape, as float32 (state numbers, channels); zero outside."""
    where, inside = states(h, E, N, BE, BN)
    return tl.load(where, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_states(h, tile, E, N: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr):
    """The counterpart of `load_states`."""
    where, inside = states(h, E, N, BE, BN)
    tl.store(where, tile, mask=inside)


@triton.jit
def forward_kernel(
    x, dt, A, B, C, D, state, out, final, T, E, N: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """Outputs and final state. Programs: (batch, block of channels)."""
    b, e0 = tl.program_id(0).to(tl.int64), tl.program_id(1) * BE
    left = E - e0
    x, dt, out = x + b * T * E + e0, dt + b * T * E + e0, out + b * T * E + e0
    B, C = B + b * T * N, C + b * T * N
    rates, skip = load_states(A + e0 * N, left, N, BE, BN), load_vector(D + e0, left, BE)
    h = load_states(state + (b * E + e0) * N, left, N, BE, BN)
    for i in tl.range(0, T, num_stages=STAGES):
        t = tl.cast(i, tl.int64)
        now, step = load_vector(x + t * E, left, BE), load_vector(dt + t * E, left, BE)
        writes, reads = load_vector(B + t * N, N, BN), load_vector(C + t * N, N, BN)
        h = tl.exp(step[None, :] * rates) * h + (step * now)[None, :] * writes[:, None]
        store_vector(out + t * E, tl.sum(h * reads[:, None], 0) + skip * now, left, BE)
    store_states(final + (b * E + e0) * N, h, left, N, BE, BN)


@triton.jit
def starts_kernel(
    x, dt, A, B, state, starts, T, E, N: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr, CHUNK: tl.constexpr
):  # fmt: skip
    """The states at chunk starts. Programs: (batch, block of channels)."""
    b, e0 = tl.program_id(0).to(tl.int64), tl.program_id(1) * BE
    left, chunks = E - e0, tl.cdiv(T, CHUNK)
    x, dt, B = x + b * T * E + e0, dt + b * T * E + e0, B + b * T * N
    starts += (b * chunks * E + e0) * N
    rates, h = load_states(A + e0 * N, left, N, BE, BN), load_states(state + (b * E + e0) * N, left, N, BE, BN)
    for chunk in range(chunks):
        first = tl.cast(chunk, tl.int64) * CHUNK
        store_states(starts + chunk * tl.cast(E, tl.int64) * N, h, left, N, BE, BN)
        for i in tl.range(0, tl.minimum(T - first, CHUNK), num_stages=STAGES):
            t = first + i
            now, step = load_vector(x + t * E, left, BE), load_vector(dt + t * E, left, BE)
            writes = load_vector(B + t * N, N, BN)
            h = tl.exp(step[None, :] * rates) * h + (step * now)[None, :] * writes[:, None]


@triton.jit
def backward_kernel(
    x, dt, A, B, C, D, starts, grad_out, grad_final, scratch,
    grad_x, grad_dt, A_parts, B_parts, C_parts, D_parts, grad_state,
    T, E, N: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Gradients of x, dt and the state; of A and D a summand a batch, of B and C a summand a block.

    Walks the chunks back, carrying g: what all later tokens ask of the state. Programs: (batch, block of channels).
    """
    b, e0 = tl.program_id(0).to(tl.int64), tl.program_id(1) * BE
    left, chunks = E - e0, tl.cdiv(T, CHUNK)
    x, dt, grad_out = x + b * T * E + e0, dt + b * T * E + e0, grad_out + b * T * E + e0
    grad_x, grad_dt, B, C = grad_x + b * T * E + e0, grad_dt + b * T * E + e0, B + b * T * N, C + b * T * N
    part = tl.program_id(1) * tl.num_programs(0) + b
    B_parts, C_parts = B_parts + part * T * N, C_parts + part * T * N
    starts += (b * chunks * E + e0) * N
    cells = tl.arange(0, BN)[:, None] * BE + tl.arange(0, BE)[None, :]
    scratch += (b * tl.num_programs(1) + tl.program_id(1)) * CHUNK * BN * BE
    rates, skip = load_states(A + e0 * N, left, N, BE, BN), load_vector(D + e0, left, BE)
    g = load_states(grad_final + (b * E + e0) * N, left, N, BE, BN)
    d_rates, d_skip = tl.zeros((BN, BE), tl.float32), tl.zeros((BE,), tl.float32)
    for back in range(chunks):
        chunk = tl.cast(chunks - 1 - back, tl.int64)
        first, size = chunk * CHUNK, tl.minimum(T - chunk * CHUNK, CHUNK)
        h = load_states(starts + chunk * E * N, left, N, BE, BN)
        for i in tl.range(0, size, num_stages=STAGES):
            t = first + i
            now, step = load_vector(x + t * E, left, BE), load_vector(dt + t * E, left, BE)
            kept = tl.exp(step[None, :] * rates) * h
            tl.store(scratch + i * BN * BE + cells, kept)
            h = kept + (step * now)[None, :] * load_vector(B + t * N, N, BN)[:, None]
        tl.debug_barrier()  # what one lane wrote another may read
        for i in tl.range(0, size, num_stages=STAGES):
            t = first + size - 1 - i
            now, step = load_vector(x + t * E, left, BE), load_vector(dt + t * E, left, BE)
            writes, reads = load_vector(B + t * N, N, BN)[:, None], load_vector(C + t * N, N, BN)[:, None]
            asked = load_vector(grad_out + t * E, left, BE)
            kept = tl.load(scratch + (size - 1 - i) * BN * BE + cells)
            written = (step * now)[None, :]
            g += asked[None, :] * reads
            store_vector(C_parts + t * N, tl.sum(asked[None, :] * (kept + written * writes), 1), N, BN)
            store_vector(B_parts + t * N, tl.sum(g * written, 1), N, BN)
            d_written, d_exponent = tl.sum(g * writes, 0), g * kept
            store_vector(grad_x + t * E, step * d_written + skip * asked, left, BE)
            store_vector(grad_dt + t * E, now * d_written + tl.sum(d_exponent * rates, 0), left, BE)
            d_rates += d_exponent * step[None, :]
            d_skip += asked * now
            g *= tl.exp(step[None, :] * rates)
        tl.debug_barrier()
    store_states(grad_state + (b * E + e0) * N, g, left, N, BE, BN)
    store_states(A_parts + (b * E + e0) * N, d_rates, left, N, BE, BN)
    store_vector(D_parts + b * E + e0, d_skip, left, BE)
