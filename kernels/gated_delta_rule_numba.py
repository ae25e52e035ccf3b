"""gated_delta_rule on a CPU: a token looks and corrects along its key; every row of the state fades by the same."""

from torch import Tensor

from hybridlab.kernels import delta_numba


def forward(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output and final state; see `hybridlab.ops.gated_delta_rule`."""
    return delta_numba.forward(_as_corrections(q, k, v, log_decay, beta, state))


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, log_decay, beta and the first state.

    Args:
        tensors: q, k, v, log_decay, beta, state, output, final state, gradient of output, gradient of final state.
    """
    *inputs, _, _, grad_output, grad_final = tensors
    grads = delta_numba.backward(_as_corrections(*inputs), grad_output, grad_final)
    grad_q, grad_look, grad_k, _, grad_v, grad_log_decay, grad_beta, grad_state = grads
    return grad_q, grad_k.add_(grad_look), grad_v, grad_log_decay.squeeze(-1), grad_beta, grad_state


def _as_corrections(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return q, k, k, k.new_empty(0, 0, 0, 0), v, log_decay.unsqueeze(-1), beta, state
