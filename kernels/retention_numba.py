"""retention on a CPU: a group a head, steps of 1, no skip."""

from torch import Tensor

from hybridlab.kernels import scalar_decay_numba


def forward(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output and final state; see `hybridlab.ops.retention`."""
    return scalar_decay_numba.forward(*_as_steps(q, k, v, log_decay, state), turned=False)


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, log_decay and the first state.

    Args:
        tensors: q, k, v, log_decay, state, output, final state, gradient of output, gradient of final state.
    """
    *inputs, _, _, grad_output, grad_final = tensors
    grads = scalar_decay_numba.backward(_as_steps(*inputs), grad_output, grad_final, turned=False)
    grad_q, grad_k, grad_v, _, grad_log_decay, _, grad_state = grads
    return grad_q, grad_k, grad_v, grad_log_decay, grad_state


def _as_steps(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    """The inputs of a call with steps of 1."""
    return q, k, v, log_decay.new_ones(1, 1, log_decay.shape[0]), log_decay, log_decay.new_zeros(log_decay.shape), state
