"""The gated delta rule in Triton: the recurrence of `delta_triton` with b and k both beta k, and a = -e^{log_decay} k."""

from torch import Tensor

from hybridlab.kernels import delta_triton
from hybridlab.kernels.delta_triton import Inputs


def forward(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, V) in v's dtype and the state after the last token (B, H, K, V)."""
    return delta_triton.forward(_given(q, k, v, log_decay, beta), state)


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, log_decay, beta, state; takes those six, output, final state, and the gradients of both."""
    q, k, v, log_decay, beta, state, _, _, grad_out, grad_final = tensors
    given = _given(q, k, v, log_decay, beta)
    grads, grad_state = delta_triton.backward(given, state, grad_out, grad_final)
    decay, written = log_decay.float().exp(), grads.k + grads.b
    grad_k = beta.unsqueeze(-1) * written - decay.unsqueeze(-1) * grads.a
    grad_beta = (k * written).sum(-1)
    grad_decay = (grads.log_decay + given.a * grads.a).sum(-1)
    return grads.r, grad_k.to(k.dtype), grads.v, grad_decay.to(log_decay.dtype), grad_beta.to(beta.dtype), grad_state


def _given(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Inputs:
    """In float32 what is made of k: rounded, the two would not be parallel, nor the state be corrected by what it lacks."""
    log_decay, wide = log_decay.float().unsqueeze(-1), k.float()
    written = beta.unsqueeze(-1) * wide
    return Inputs(q, written, v, log_decay, -log_decay.exp() * wide, written)
