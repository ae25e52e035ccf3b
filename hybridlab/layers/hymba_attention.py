"""Attention without a map back to the stream, whose keys and values the layers after it may look at as well."""

from typing import Any, NamedTuple

from hybridlab.layers import initial
from hybridlab.layers.layer import Layer, LentKeys, Shared, Storage, backends_of
from hybridlab.layers.rotary import Rotary, rotated
from hybridlab.ops.attention import BACKENDS, AttentionState, attention, cache_rows
from hybridlab.shapes import Inner, Position, Stream
from hybridlab.state import Empty


class HymbaHeads(NamedTuple):
    """Sizes and sight of Hymba's attention.

    Attributes:
        heads: H, heads of queries.
        groups: G, heads of keys and values; G divides H.
        key_width: K.
        value_width: V; Hymba's values are wider than its keys.
        window: keys a query sees, itself included; None is all.
        sinks: the first so many rows stay visible whatever the window: Hymba's meta tokens.
        borrows: whether the layer has no keys and values, and looks at those of the last layer before it that has.
    """

    heads: int
    groups: int
    key_width: int
    value_width: int
    window: int | None = None
    sinks: int = 0
    borrows: bool = False


class HymbaAttention(Layer):
    """y = attention(rotated(Q x), rotated(K x), V x), (B, T, H V): the heads side by side.

    A layer that has keys lends them, rotated, to the layers after it, and keeps them in an `AttentionState`. One that
    borrows has queries only and keeps nothing: what it looks at is kept once, where it was made.

    Args:
        width: D.
        heads: sizes, and what the heads see.
        rotary: positions; they count sinks too.
        bias: whether the maps have biases.

    Source: Hymba, arXiv 2411.13676, sections 2.2 and 2.3. Chapter 11.
    """

    backends = backends_of(BACKENDS)

    def __init__(self, width: int, heads: HymbaHeads, rotary: Rotary, bias: bool = False) -> None:
        super().__init__()
        self.heads, self.window, self.rotary = heads, heads.window, rotary
        self.query = initial.normal(width, heads.heads * heads.key_width, bias=bias)
        if not heads.borrows:
            self.key = initial.normal(width, heads.groups * heads.key_width, bias=bias)
            self.value = initial.normal(width, heads.groups * heads.value_width, bias=bias)

    def forward(
        self, x: Stream, state: AttentionState | Empty | None = None, shared: Shared | None = None
    ) -> tuple[Inner, AttentionState | Empty]:
        """(B, T, D) to (B, T, H V), and the cache after the last token, empty where keys are borrowed."""
        lent = self._borrowed(shared) if self.heads.borrows else self._made(x, state, shared)
        q = rotated(self.query(x).unflatten(-1, (-1, self.heads.key_width)), self._place(x, lent.past, shared), self.rotary)
        y, kept = attention(
            q, lent.k, lent.v, window=self.window, state=lent.past, sinks=self.heads.sinks, backend=self.backend
        )
        return y.flatten(2), Empty() if self.heads.borrows else kept

    def state_after(self, batch: int, length: int, storage: Storage) -> AttentionState | Empty:
        """The cache after `length` rows, sinks included; nothing where keys are borrowed."""
        if self.heads.borrows:
            return Empty()
        rows = cache_rows(length, self.window, self.heads.sinks)
        widths = (self.heads.key_width, self.heads.value_width)
        return AttentionState(*(storage.cached(batch, rows, self.heads.groups, width) for width in widths))

    def _made(self, x: Stream, state: Any, shared: Shared | None) -> LentKeys:
        """Keys and values of x, which are lent."""
        past = self.start(x) if state is None else state
        k, v = (linear(x).unflatten(-1, (self.heads.groups, -1)) for linear in (self.key, self.value))
        made = LentKeys(past, rotated(k, self._place(x, past, shared), self.rotary), v)
        if shared is not None:
            shared.lent_keys = made
        return made

    def _borrowed(self, shared: Shared | None) -> LentKeys:
        if shared is None or shared.lent_keys is None:
            raise ValueError("HymbaAttention: no layer before this one put its keys into shared.lent_keys; expected one")
        return shared.lent_keys

    def _place(self, x: Stream, past: AttentionState, shared: Shared | None) -> Position:
        return self.position(x, shared, fresh=past.k_past.shape[1] == 0)
