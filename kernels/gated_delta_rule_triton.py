"""The gated delta rule in Triton: `delta_triton` as it stands."""

from torch import Tensor

from hybridlab.kernels import delta_triton


def forward(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, V) in v's dtype and the state after the last token (B, H, K, V)."""
    return delta_triton.forward(q, k, v, log_decay, beta, state)


def backward(*tensors: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v, log_decay, beta, state; takes those six, output, final state, and the gradients of both."""
    *given, _, _, grad_out, grad_final = tensors
    return delta_triton.backward(*given, grad_out, grad_final)
