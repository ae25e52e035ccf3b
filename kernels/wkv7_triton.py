"""RWKV-7's operator in Triton: the recurrence of `delta_triton` as it stands."""

from torch import Tensor

from hybridlab.kernels import delta_triton
from hybridlab.kernels.delta_triton import Inputs


def forward(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, V) in v's dtype and the state after the last token (B, H, K, V)."""
    return delta_triton.forward(Inputs(r, k, v, log_decay, a, b), state)


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of r, k, v, log_decay, a, b, state; takes those seven, output, final state, and the gradients of both."""
    given, (state, _, _, grad_out, grad_final) = Inputs(*tensors[:6]), tensors[6:]
    grads, grad_state = delta_triton.backward(given, state, grad_out, grad_final)
    return *(grad.to(x.dtype) for grad, x in zip(grads, given, strict=True)), grad_state
