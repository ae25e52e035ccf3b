"""Retention in Triton: the recurrence with one decay a token and head, whose steps are all 1."""

from torch import Tensor

from hybridlab.kernels import scalar_decay_triton


def forward(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, V) in v's dtype and the state after the last token (B, H, K, V)."""
    return scalar_decay_triton.forward(q, k, v, None, log_decay, None, state.contiguous())


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, log_decay, state; takes those five, output, final state, and the gradients of both."""
    q, k, v, log_decay, state, _, _, grad_out, grad_final = tensors
    grad_q, grad_k, grad_v, _, grad_decay, _, grad_state = scalar_decay_triton.backward(
        q, k, v, None, log_decay, None, state.contiguous(), grad_out, grad_final.contiguous()
    )
    return grad_q, grad_k, grad_v, grad_decay, grad_state
