"""wkv7 on a CPU: what was found along a is written along b, as it is."""

from torch import Tensor

from hybridlab.kernels import delta_numba


def forward(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Output and final state; see `hybridlab.ops.wkv7`."""
    return delta_numba.forward(_as_corrections(r, k, v, log_decay, a, b, state))


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of r, k, v, log_decay, a, b and the first state.

    Args:
        tensors: r, k, v, log_decay, a, b, state, output, final state, gradient of output, gradient of final state.
    """
    *inputs, _, _, grad_output, grad_final = tensors
    grads = delta_numba.backward(_as_corrections(*inputs), grad_output, grad_final)
    grad_r, grad_a, grad_b, grad_k, grad_v, grad_log_decay, _, grad_state = grads
    return grad_r, grad_k, grad_v, grad_log_decay, grad_a, grad_b, grad_state


def _as_corrections(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, ...]:
    return r, a, b, k, v, log_decay, r.new_empty(0, 0, 0), state
