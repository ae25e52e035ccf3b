"""RetNet's token mixer: retention at several speeds, one a head, behind a norm of each head and a gate."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from hybridlab.layers import initial
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.rotary import Rotary, rotated
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.ops.retention import BACKENDS, retention
from hybridlab.shapes import MatrixState, PerHead, Stream, Values


class RetentionState(NamedTuple):
    """A matrix a head.

    Bytes: B * H * K * V * bytes of the state dtype.
    """

    retention: MatrixState


# The gain of what reads the stream.
INPUT_GAIN = 2**-2.5


class RetentionMixer(Layer):
    """y = out(norm(read / sqrt(n)) * silu(gate(x))), read = retention(rotated q, rotated k / sqrt(K), v).

    Head h fades by 1 - 2^(-5-h) a token; n = 1 + decay + decay^2 + ... is the weight of all tokens that it has read. The
    norm is an RMS norm of each head for itself, without weights: it cancels whatever number a token's head was divided by,
    but for eps. So the two forms of the authors' code agree: token by token they divide by sqrt(n), in parallel by the size
    of the sum of the scores too, which a recurrence cannot know. This is the former, eps included, at any cut.

    Rotation turns the slowest pair of channels by exactly 1 / 10,000 a token. It pairs channel i with i + K / 2, where the
    authors' code pairs neighbours: the same but for the order of the rows of the query's and key's matrices.

    Args:
        width: D.
        heads: H.
        key_width: K, even and at least 4.
        value_width: V.
        eps: added to the mean squares.

    Raises:
        ValueError: for a key width that is odd or too small to rotate.

    Source: RetNet, arXiv 2307.08621, equations 5 to 8, and its code in torchscale. Chapter 05.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(retention)

    def __init__(self, width: int, heads: int, key_width: int, value_width: int, eps: float = 1e-6) -> None:
        super().__init__()
        if key_width % 2 or key_width < 4:
            raise ValueError(f"RetentionMixer: key_width must be even and at least 4, got {key_width}")
        self.heads, self.key_width, self.value_width, self.eps = heads, key_width, value_width, eps
        # 10000^(-i / (K / 2 - 1)) for pairs i, as a power of -2 i / K.
        self.rotary = Rotary(10_000.0 ** (key_width / (key_width - 2)))
        self.query = initial.glorot(width, heads * key_width, INPUT_GAIN)
        self.key = initial.glorot(width, heads * key_width, INPUT_GAIN)
        self.value = initial.glorot(width, heads * value_width, INPUT_GAIN)
        self.gate = initial.glorot(width, heads * value_width, INPUT_GAIN)
        self.output = initial.glorot(heads * value_width, width)

    def log_decay(self, x: Tensor) -> PerHead:
        """log(1 - 2^(-5-h)), (H,), in float32 at least."""
        heads = torch.arange(self.heads, dtype=least_state_dtype(x.dtype), device=x.device)
        return torch.log1p(-torch.exp2(-5 - heads))

    def normalised(self, read: Values, log_decay: PerHead, position: Tensor) -> Stream:
        """What was read, (B, T, H, V), to (B, T, H * V)."""
        tokens = position + torch.arange(1, read.shape[1] + 1, device=read.device)
        weight = torch.expm1(tokens.unsqueeze(-1) * log_decay) / torch.expm1(log_decay)
        scaled = read.to(weight.dtype) * weight.rsqrt().unsqueeze(-1)
        return rms_norm(scaled, scaled.shape[-1:], eps=self.eps).flatten(2).to(read.dtype)

    def forward(
        self, x: Stream, state: RetentionState | None = None, shared: Shared | None = None
    ) -> tuple[Stream, RetentionState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        position = self.position(x, shared, fresh=state is None)
        state = self.start(x) if state is None else state
        q, k = (linear(x).unflatten(-1, (self.heads, -1)) for linear in (self.query, self.key))
        q, k = (rotated(y, position, self.rotary) for y in (q, k * self.key_width**-0.5))
        v, log_decay = self.value(x).unflatten(-1, (self.heads, -1)), self.log_decay(x)
        read, after = self.op(q, k, v, log_decay, state.retention, backend=self.backend)
        return self.output(self.normalised(read, log_decay, position) * silu(self.gate(x))), RetentionState(after)

    def state_after(self, batch: int, length: int, storage: Storage) -> RetentionState:
        """The same size after any number of tokens."""
        return RetentionState(storage.recurrent(batch, self.heads, self.key_width, self.value_width))
