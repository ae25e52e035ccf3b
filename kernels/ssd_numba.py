"""ssd on a CPU: heads in groups, states turned."""

from torch import Tensor

from hybridlab.kernels import scalar_decay_numba


def forward(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output and final state; see `hybridlab.ops.ssd`."""
    return scalar_decay_numba.forward(C, B, x, dt, A, D, state, turned=True)


def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, dt, A, B, C, D and the first state.

    Args:
        tensors: x, dt, A, B, C, D, state, output, final state, gradient of output, gradient of final state.
    """
    x, dt, A, B, C, D, state, _, _, grad_output, grad_final = tensors
    grads = scalar_decay_numba.backward((C, B, x, dt, A, D, state), grad_output, grad_final, turned=True)
    grad_C, grad_B, grad_x, grad_dt, grad_A, grad_D, grad_state = grads
    return grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_state
