"""The modal convolution in Triton: one warp a block of channels, all their modes in registers, token by token.

    X_t = p X_{t-1} + x_t             y_t = Re sum_n R_n X_t

Complex numbers come as two tensors, real and imaginary parts. A tile is (modes, channels), as in the selective scan.

The backward notes the states at chunk starts, walking forward. Then, from the last chunk to the first, it runs the chunk
again, writing the state before each token to a scratch tile, and walks it back with

    g_t = conj(p) g_{t+1} + conj(R) (gradient of y_t)
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridlab.kernels.selective_scan_triton import blocks, load_states, store_states
from hybridlab.kernels.tiles_triton import load_vector, store_vector

# Numbers a tile, for 32 lanes: the backward holds a dozen tiles in registers (`hybridlab.measure.aot`).
TILE = 256
# Tokens a chunk: more need more scratch, fewer more states at chunk starts.
CHUNK = 32
# Tokens ahead of which inputs are fetched.
STAGES = tl.constexpr(4)


def forward(x: Tensor, poles: Tensor, residues: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, D) in float32 and final state (B, D, N)."""
    (batch, T, D), N = x.shape, poles.shape[1]
    BD, BN = blocks(D, N, TILE)
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    final = [out.new_empty(state.shape) for _ in range(2)]
    forward_kernel[(batch, triton.cdiv(D, BD))](
        x.contiguous(), *parts(poles), *parts(residues), *parts(state), out, *final, T, D, N, BD, BN, num_warps=1
    )
    return out, torch.complex(*final)


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, poles, residues, state; takes those four, output, final state, and the gradients of both."""
    x, poles, residues, state, _, _, grad_out, grad_final = tensors
    (batch, T, D), N = x.shape, poles.shape[1]
    x, grad_out, p, R = x.contiguous(), grad_out.contiguous(), parts(poles), parts(residues)
    BD, BN = blocks(D, N, TILE)
    grid, chunks = (batch, triton.cdiv(D, BD)), triton.cdiv(T, CHUNK)
    starts = [p[0].new_empty((batch, chunks, D, N)) for _ in range(2)]
    starts_kernel[grid](x, *p, *parts(state), *starts, T, D, N, BD, BN, CHUNK, num_warps=1)
    scratch, grad_x = p[0].new_empty((*grid, CHUNK, 2, BN, BD)), torch.empty_like(x)
    # Of poles, residues and the state, real and imaginary parts; a summand a batch of the former two.
    grads = [p[0].new_empty(state.shape) for _ in range(6)]
    backward_kernel[grid](
        x, *p, *R, *starts, grad_out, *parts(grad_final), scratch, grad_x, *grads, T, D, N, BD, BN, CHUNK, num_warps=1
    )
    grad_poles, grad_residues, grad_state = (torch.complex(*grads[i : i + 2]) for i in (0, 2, 4))
    return grad_x, grad_poles.sum(0), grad_residues.sum(0), grad_state


def parts(modes: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts, in memory of their own."""
    modes = modes.resolve_conj()
    return modes.real.contiguous(), modes.imag.contiguous()


@triton.jit
def stepped(real, imag, p_real, p_imag, now):
    """One token's states."""
    return p_real * real - p_imag * imag + now[None, :], p_real * imag + p_imag * real


@triton.jit
def forward_kernel(
    x, p_real, p_imag, R_real, R_imag, s_real, s_imag, out, f_real, f_imag,
    T, D, N: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Outputs and final state. Programs: (batch, block of channels)."""
    b, d0 = tl.program_id(0).to(tl.int64), tl.program_id(1) * BD
    left, modes, states = D - d0, d0 * N, (b * D + d0) * N
    x, out = x + b * T * D + d0, out + b * T * D + d0
    p, q = load_states(p_real + modes, left, N, BD, BN), load_states(p_imag + modes, left, N, BD, BN)
    R, S = load_states(R_real + modes, left, N, BD, BN), load_states(R_imag + modes, left, N, BD, BN)
    real, imag = load_states(s_real + states, left, N, BD, BN), load_states(s_imag + states, left, N, BD, BN)
    for i in tl.range(0, T, num_stages=STAGES):
        t = tl.cast(i, tl.int64)
        real, imag = stepped(real, imag, p, q, load_vector(x + t * D, left, BD))
        store_vector(out + t * D, tl.sum(R * real - S * imag, 0), left, BD)
    store_states(f_real + states, real, left, N, BD, BN)
    store_states(f_imag + states, imag, left, N, BD, BN)


@triton.jit
def starts_kernel(
    x, p_real, p_imag, s_real, s_imag, starts_real, starts_imag,
    T, D, N: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The states at chunk starts. Programs: (batch, block of channels)."""
    b, d0 = tl.program_id(0).to(tl.int64), tl.program_id(1) * BD
    left, modes, states = D - d0, d0 * N, (b * D + d0) * N
    x += b * T * D + d0
    p, q = load_states(p_real + modes, left, N, BD, BN), load_states(p_imag + modes, left, N, BD, BN)
    real, imag = load_states(s_real + states, left, N, BD, BN), load_states(s_imag + states, left, N, BD, BN)
    for chunk in range(tl.cdiv(T, CHUNK)):
        first = tl.cast(chunk, tl.int64) * CHUNK
        place = ((b * tl.cdiv(T, CHUNK) + chunk) * D + d0) * N
        store_states(starts_real + place, real, left, N, BD, BN)
        store_states(starts_imag + place, imag, left, N, BD, BN)
        for i in tl.range(0, tl.minimum(T - first, CHUNK), num_stages=STAGES):
            real, imag = stepped(real, imag, p, q, load_vector(x + (first + i) * D, left, BD))


@triton.jit
def backward_kernel(
    x, p_real, p_imag, R_real, R_imag, starts_real, starts_imag, grad_out, f_real, f_imag, scratch,
    grad_x, dp_real, dp_imag, dR_real, dR_imag, ds_real, ds_imag,
    T, D, N: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Gradients of x and the state; of poles and residues a summand a batch.

    Walks the chunks back, carrying what all later tokens ask of the state. Programs: (batch, block of channels).
    """
    b, d0 = tl.program_id(0).to(tl.int64), tl.program_id(1) * BD
    left, modes, states, chunks = D - d0, d0 * N, (b * D + d0) * N, tl.cdiv(T, CHUNK)
    x, grad_out, grad_x = x + b * T * D + d0, grad_out + b * T * D + d0, grad_x + b * T * D + d0
    cells = tl.arange(0, BN)[:, None] * BD + tl.arange(0, BD)[None, :]
    scratch += (b * tl.num_programs(1) + tl.program_id(1)) * CHUNK * 2 * BN * BD
    p, q = load_states(p_real + modes, left, N, BD, BN), load_states(p_imag + modes, left, N, BD, BN)
    R, S = load_states(R_real + modes, left, N, BD, BN), load_states(R_imag + modes, left, N, BD, BN)
    g, h = load_states(f_real + states, left, N, BD, BN), load_states(f_imag + states, left, N, BD, BN)
    dp, dq = tl.zeros((BN, BD), tl.float32), tl.zeros((BN, BD), tl.float32)
    dR, dS = tl.zeros((BN, BD), tl.float32), tl.zeros((BN, BD), tl.float32)
    for back in range(chunks):
        chunk = tl.cast(chunks - 1 - back, tl.int64)
        first, size = chunk * CHUNK, tl.minimum(T - chunk * CHUNK, CHUNK)
        place = ((b * chunks + chunk) * D + d0) * N
        real, imag = (load_states(starts_real + place, left, N, BD, BN), load_states(starts_imag + place, left, N, BD, BN))
        for i in tl.range(0, size, num_stages=STAGES):
            tl.store(scratch + 2 * i * BN * BD + cells, real)
            tl.store(scratch + (2 * i + 1) * BN * BD + cells, imag)
            real, imag = stepped(real, imag, p, q, load_vector(x + (first + i) * D, left, BD))
        tl.debug_barrier()  # what one lane wrote another may read
        for i in tl.range(0, size, num_stages=STAGES):
            t = size - 1 - i
            asked = load_vector(grad_out + (first + t) * D, left, BD)[None, :]
            real, imag = tl.load(scratch + 2 * t * BN * BD + cells), tl.load(scratch + (2 * t + 1) * BN * BD + cells)
            after_real, after_imag = stepped(real, imag, p, q, load_vector(x + (first + t) * D, left, BD))
            g += R * asked
            h -= S * asked
            store_vector(grad_x + (first + t) * D, tl.sum(g, 0), left, BD)
            dR += asked * after_real
            dS -= asked * after_imag
            dp += real * g + imag * h
            dq += real * h - imag * g
            g, h = p * g + q * h, p * h - q * g
        tl.debug_barrier()
    store_states(ds_real + states, g, left, N, BD, BN)
    store_states(ds_imag + states, h, left, N, BD, BN)
    store_states(dp_real + states, dp, left, N, BD, BN)
    store_states(dp_imag + states, dq, left, N, BD, BN)
    store_states(dR_real + states, dR, left, N, BD, BN)
    store_states(dR_imag + states, dS, left, N, BD, BN)
