"""SSD in Triton: the recurrence with one decay a token and head, whose states lie as (P, N)."""

from torch import Tensor

from hybridlab.kernels import scalar_decay_triton


def forward(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, P) in x's dtype and the state after the last token (B, H, P, N)."""
    out, final = scalar_decay_triton.forward(C, B, x, dt, A, D, state.contiguous().mT)
    return out, final.mT


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, dt, A, B, C, D, state; takes those seven, output, final state, and the gradients of both."""
    x, dt, A, B, C, D, state, _, _, grad_out, grad_final = tensors
    grad_C, grad_B, grad_x, grad_dt, grad_A, grad_D, grad_state = scalar_decay_triton.backward(
        C, B, x, dt, A, D, state.contiguous().mT, grad_out, grad_final.contiguous().mT
    )
    return grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_state.mT
