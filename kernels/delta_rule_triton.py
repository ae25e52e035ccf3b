"""The delta rule in Triton: the gated one without a decay."""

import torch
from torch import Tensor

from hybridlab.kernels import gated_delta_rule_triton


def forward(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, V) in v's dtype and the state after the last token (B, H, K, V)."""
    return gated_delta_rule_triton.forward(q, k, v, torch.zeros_like(beta), beta, state)


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, beta, state; takes those five, output, final state, and the gradients of both."""
    q, k, v, beta, *others = tensors
    grad_q, grad_k, grad_v, _, *grads = gated_delta_rule_triton.backward(q, k, v, torch.zeros_like(beta), beta, *others)
    return grad_q, grad_k, grad_v, *grads
