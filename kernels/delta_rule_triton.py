"""The delta rule in Triton: `delta_triton` where nothing fades."""

from torch import Tensor

from hybridlab.kernels import delta_triton


def forward(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, V) in v's dtype and the state after the last token (B, H, K, V)."""
    return delta_triton.forward(q, k, v, None, beta, state)


def backward(*tensors: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v, beta, state; takes those five, output, final state, and the gradients of both."""
    q, k, v, beta, state, _, _, grad_out, grad_final = tensors
    grad_q, grad_k, grad_v, _, *grads = delta_triton.backward(q, k, v, None, beta, state, grad_out, grad_final)
    return grad_q, grad_k, grad_v, *grads
