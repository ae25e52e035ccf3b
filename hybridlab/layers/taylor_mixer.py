"""Based's global mixer: linear attention with the Taylor features of short keys."""

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Shared, Storage, backends_of
from hybridlab.ops.taylor_attention import BACKENDS, TaylorState, feature_count, taylor_attention
from hybridlab.shapes import Stream


class TaylorMixer(Layer):
    """y = O taylor_attention(Q x, K x, V x), without positions and biases.

    Keys are much shorter than values: there are 1 + K + K^2 features of a key.

    Args:
        width: D.
        heads: H.
        key_width: K, of a head's queries and keys.
        value_width: V, of its values.
        depth: where the layer stands, for its initial values.

    Source: Based, arXiv 2402.18668, section 4.1, and the authors' code. Chapter 07.
    """

    backends = backends_of(BACKENDS)
    op = staticmethod(taylor_attention)

    def __init__(self, width: int, heads: int, key_width: int, value_width: int, depth: Depth = ONLY_LAYER) -> None:
        super().__init__()
        self.heads, self.key_width, self.value_width = heads, key_width, value_width
        self.query = initial.normal(width, heads * key_width)
        self.key = initial.normal(width, heads * key_width)
        self.value = initial.normal(width, heads * value_width)
        self.output = initial.normal(heads * value_width, width, initial.residual_std(depth))

    def forward(
        self, x: Stream, state: TaylorState | None = None, shared: Shared | None = None
    ) -> tuple[Stream, TaylorState]:
        """(B, T, D) to (B, T, D), and the state after the last token."""
        q, k, v = (linear(x).unflatten(-1, (self.heads, -1)) for linear in (self.query, self.key, self.value))
        y, state = self.op(q, k, v, state, backend=self.backend)
        return self.output(y.flatten(2)), state

    def state_after(self, batch: int, length: int, storage: Storage) -> TaylorState:
        """The same size after any number of tokens."""
        shape = (batch, self.heads, feature_count(self.key_width))
        return TaylorState(storage.recurrent(*shape, self.value_width), storage.recurrent(*shape))
