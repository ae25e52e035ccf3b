"""Others' code in a benchmark: what `transformers` runs on a CPU, and PyTorch's own convolution.

Each function below imports what it needs and returns (prepare, run) of a `Contender`.
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv1d

from hybridlab.measure.setting import Tensors

Prepare = Callable[[Tensors, Tensor | None], tuple[Tensors, Any]]
Run = Callable[[Tensors, Any], tuple[Tensor, Any]]
TRANSFORMERS = "transformers"


class Rival(NamedTuple):
    """One op's rival.

    Attributes:
        name: "transformers" or "conv1d".
        make: () to (prepare, run).
        most_tokens: of forward+backward; None is any number. A backward through x[:, t] takes time in the square of the
            length, and far longer where x holds all states.
    """

    name: str
    make: Callable[[], tuple[Prepare, Run]]
    most_tokens: int | None = None

    def runs_on(self, device: str) -> bool:
        """PyTorch's own runs anywhere; on a GPU `transformers` hands over to kernels of other packages."""
        return self.name != TRANSFORMERS or (device == "cpu" and importlib.util.find_spec(TRANSFORMERS) is not None)


def _wkv4() -> tuple[Prepare, Run]:
    """Its inputs are time_decay = log(-log_decay) and a state of three tensors."""
    from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

    def prepare(inputs: Tensors, state: Tensor | None) -> tuple[Tensors, list[Tensor] | None]:
        own = {"time_decay": (-inputs["log_decay"]).log(), **inputs}
        del own["log_decay"]
        return own, None if state is None else list(state.unbind(-1))

    def run(inputs: Tensors, state: list[Tensor] | None) -> tuple[Tensor, Any]:
        decay, bonus, k, v = (inputs[name] for name in ("time_decay", "bonus", "k", "v"))
        return rwkv_linear_attention_cpu(decay, bonus, k, v, state=state, return_state=True)

    return prepare, run


def _linear_recurrence() -> tuple[Prepare, Run]:
    """The scan inside RecurrentGemma's layer."""
    scan = _gemma_scan()

    def run(inputs: Tensors, state: Tensor | None) -> tuple[Tensor, Tensor]:
        a, b = inputs["a"], inputs["b"]
        return scan(b, a, _no_reset(a), state)

    return _as_they_are, run


def _rg_lru() -> tuple[Prepare, Run]:
    """The lines of RecurrentGemma's layer behind its two gates, and its scan."""
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import SqrtBoundDerivative

    scan = _gemma_scan()

    def run(inputs: Tensors, state: Tensor | None) -> tuple[Tensor, Tensor]:
        x, reset = inputs["x"], _no_reset(inputs["x"])
        log_a = 8.0 * inputs["recurrence_gate"] * inputs["log_a"]
        room = SqrtBoundDerivative.apply(1 - (2 * log_a).exp())
        written = x * inputs["input_gate"] * (reset + ~reset * room)
        return scan(written, log_a.exp(), reset, state)

    return _as_they_are, run


def _short_conv() -> tuple[Prepare, Run]:
    """`torch.nn.Conv1d` with a group a channel, as layers without a kernel of their own call it."""

    def run(inputs: Tensors, state: Tensor | None) -> tuple[Tensor, Tensor]:
        x, weight, bias = inputs["x"], inputs["weight"].unsqueeze(1), inputs["bias"]
        (width, _, taps), length = weight.shape, x.shape[1]
        seen, padding = (x, taps - 1) if state is None else (torch.cat((state, x), 1), 0)
        output = conv1d(seen.mT, weight, bias, padding=padding, groups=width)
        return output[..., :length].mT, seen[:, 1 - taps :]

    return _as_they_are, run


def _selective_scan() -> tuple[Prepare, Run]:
    """Mamba's two functions: all tokens from the empty state, or one token that changes its state in place."""
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan, mamba_selective_state_update

    _without_news()

    def prepare(inputs: Tensors, state: Tensor | None) -> tuple[Tensors, Tensor | None]:
        return inputs, None if state is None else state.clone()

    def run(inputs: Tensors, state: Tensor | None) -> tuple[Tensor, Tensor]:
        x, dt, A, B, C, D = (inputs[name] for name in ("x", "dt", "A", "B", "C", "D"))
        if state is not None:
            output = mamba_selective_state_update(state, x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], D)
            return output.unsqueeze(1), state
        output, state = mamba_selective_scan(x.mT, dt.mT, A, B.mT, C.mT, D=D, return_last_state=True)
        return output.mT, state

    return prepare, run


def _ssd() -> tuple[Prepare, Run]:
    """Mamba-2's two functions: chunks of 64 from the empty state, or one token that changes its state in place."""
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan, mamba2_selective_state_update

    _without_news()

    def prepare(inputs: Tensors, state: Tensor | None) -> tuple[Tensors, Tensor | None]:
        if state is None:
            return inputs, None
        # A step asks for a copy of every head's numbers for each of its channels.
        wide = inputs["dt"].unsqueeze(-1).expand_as(inputs["x"])
        rates, skip = inputs["A"].view(-1, 1, 1).expand(state.shape[1:]), inputs["D"].unsqueeze(-1)
        return {**inputs, "dt": wide, "A": rates, "D": skip}, state.clone()

    def run(inputs: Tensors, state: Tensor | None) -> tuple[Tensor, Tensor]:
        x, dt, A, B, C, D = (inputs[name] for name in ("x", "dt", "A", "B", "C", "D"))
        if state is not None:
            output = mamba2_selective_state_update(state, x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], D)
            return output.unsqueeze(1), state
        return mamba2_chunk_scan(x, dt, A, B, C, 64, D=D, return_final_states=True)

    return prepare, run


def _gated_delta_rule() -> tuple[Prepare, Run]:
    """Qwen3-Next's two functions: chunks of 64, or token by token; both scale queries by 1 / sqrt(K)."""
    from transformers.models.qwen3_next import modeling_qwen3_next as model

    _without_news()

    def prepare(inputs: Tensors, state: Tensor | None) -> tuple[Tensors, Tensor | None]:
        return inputs, None if state is None else state.clone()

    def run(inputs: Tensors, state: Tensor | None) -> tuple[Tensor, Tensor]:
        q, k, v, beta, g = (inputs[name] for name in ("q", "k", "v", "beta", "log_decay"))
        whole = model.torch_chunk_gated_delta_rule if state is None else model.torch_recurrent_gated_delta_rule
        return whole(q * q.shape[-1] ** 0.5, k, v, g=g, beta=beta, initial_state=state, output_final_state=True)

    return prepare, run


def _gemma_scan() -> Callable[..., tuple[Tensor, Tensor]]:
    """A method that reads nothing of its layer, so that it needs none."""
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

    method: Callable[..., tuple[Tensor, Tensor]] = RecurrentGemmaRglru._rnn_scan
    return partial(method, None)


def _without_news() -> None:
    """That there are no CUDA kernels on a CPU is none."""
    from transformers.utils.logging import set_verbosity_error

    set_verbosity_error()


def _as_they_are(inputs: Tensors, state: Tensor | None) -> tuple[Tensors, Tensor | None]:
    return inputs, state


def _no_reset(x: Tensor) -> Tensor:
    return torch.zeros((*x.shape[:2], 1), dtype=torch.bool, device=x.device)


RIVALS = {
    "wkv4": Rival(TRANSFORMERS, _wkv4, 1024),
    "linear_recurrence": Rival(TRANSFORMERS, _linear_recurrence, 1024),
    "rg_lru": Rival(TRANSFORMERS, _rg_lru, 1024),
    "short_conv": Rival("conv1d", _short_conv),
    "selective_scan": Rival(TRANSFORMERS, _selective_scan, 0),
    "ssd": Rival(TRANSFORMERS, _ssd),
    "gated_delta_rule": Rival(TRANSFORMERS, _gated_delta_rule),
}
