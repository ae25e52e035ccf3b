"""delta_rule on a CPU: the gated one where nothing fades."""

from torch import Tensor

from hybridlab.kernels import gated_delta_rule_numba


def forward(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output and final state; see `hybridlab.ops.delta_rule`."""
    return gated_delta_rule_numba.forward(q, k, v, beta.new_zeros(beta.shape), beta, state)


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, beta and the first state.

    Args:
        tensors: q, k, v, beta, state, output, final state, gradient of output, gradient of final state.
    """
    q, k, v, beta, *rest = tensors
    grad_q, grad_k, grad_v, _, *grads = gated_delta_rule_numba.backward(q, k, v, beta.new_zeros(beta.shape), beta, *rest)
    return grad_q, grad_k, grad_v, *grads
