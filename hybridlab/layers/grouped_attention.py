"""Softmax attention as a layer: heads that share keys in groups, rotary positions, a window or none."""

from typing import NamedTuple

from torch import Tensor

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.layers.rotary import Rotary, rotated
from hybridlab.ops.attention import BACKENDS, AttentionState, attention, cache_rows
from hybridlab.shapes import Stream


class AttentionOptions(NamedTuple):
    """What some models have beyond plain attention.

    Attributes:
        scale: what multiplies the scores; None is 1 / sqrt(K).
        softcap: c, which turns a score s into c * tanh(s / c); None leaves it.
        bias: whether all four maps have biases.
        output_width: of what is given back; None is D.
    """

    scale: float | None = None
    softcap: float | None = None
    bias: bool = False
    output_width: int | None = None


PLAIN = AttentionOptions()


class GroupedAttention(Layer):
    """Grouped-query attention: y = O attention(rotated(Q x), rotated(K x), V x).

    Keys are cached rotated. The state is `AttentionState`: under a window W it keeps min(T, W - 1) rows.

    Args:
        width: D.
        heads: H.
        groups: G, heads of keys and values; G divides H.
        head_width: K = V.
        window: keys a query sees, itself included; None is all.
        rotary: positions; None is none.
        depth: where the layer stands, for its initial values.
        options: scale, soft cap, biases and output width; plain are 1 / sqrt(K), none, none and D.

    Source: arXiv 1706.03762 and 2305.13245. Chapter 01.
    """

    backends = backends_of(BACKENDS)

    def __init__(
        self,
        width: int,
        heads: int,
        groups: int,
        head_width: int,
        window: int | None = None,
        rotary: Rotary | None = None,
        depth: Depth = ONLY_LAYER,
        options: AttentionOptions = PLAIN,
    ) -> None:
        super().__init__()
        self.groups, self.head_width = groups, head_width
        self.window, self.rotary, self.options = window, rotary, options
        self.query = initial.normal(width, heads * head_width, bias=options.bias)
        self.key = initial.normal(width, groups * head_width, bias=options.bias)
        self.value = initial.normal(width, groups * head_width, bias=options.bias)
        output_width = options.output_width or width
        self.output = initial.normal(heads * head_width, output_width, initial.residual_std(depth), bias=options.bias)

    def forward(
        self, x: Stream, state: AttentionState | None = None, shared: Shared | None = None
    ) -> tuple[Stream, AttentionState]:
        """(B, T, D) to (B, T, D), and the cache after the last token."""
        return self.attended((self.query(x), self.key(x), self.value(x)), state, shared)

    def attended(
        self, projected: tuple[Tensor, Tensor, Tensor], state: AttentionState | None, shared: Shared | None
    ) -> tuple[Stream, AttentionState]:
        """What the queries find: from queries, keys and values whose heads lie side by side, (B, T, H K) and (B, T, G K)."""
        q, k, v = (x.unflatten(-1, (-1, self.head_width)) for x in projected)
        if self.rotary is not None:
            position = self.position(projected[0], shared, fresh=state is None or state.k_past.shape[1] == 0)
            q, k = rotated(q, position, self.rotary), rotated(k, position, self.rotary)
        scale, softcap = self.options.scale, self.options.softcap
        y, state = attention(q, k, v, window=self.window, state=state, scale=scale, softcap=softcap, backend=self.backend)
        return self.output(y.flatten(2)), state

    def state_after(self, batch: int, length: int, storage: Storage) -> AttentionState:
        """The cache after `length` tokens."""
        shape = (batch, cache_rows(length, self.window), self.groups, self.head_width)
        return AttentionState(storage.cached(*shape), storage.cached(*shape))
