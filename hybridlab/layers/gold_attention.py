"""GoldFinch's attention: every layer looks at the one cache of the model, and keeps no keys and no values."""

from typing import NamedTuple

from torch import Tensor, nn

from hybridlab.layers import initial
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.layer import Layer, Rebuilt, Shared, Storage, backends_of
from hybridlab.layers.low_rank import LowRank
from hybridlab.layers.mixing_weights import MixingWeights
from hybridlab.layers.token_shift import last_token, previous, weigh_past
from hybridlab.ops.attention import BACKENDS, AttentionState, attention
from hybridlab.shapes import ShiftState, Stream


class GoldState(NamedTuple):
    """The last token, for the next one's query. Bytes: B * D * bytes of the dtype."""

    shift: ShiftState


class GoldAttention(Layer):
    """GOLD attention: y = O norm(attention(norm(Q x_q), norm(k), norm(v))), no matrix for keys or values, no positions.

    x_q mixes x with the token before it. k and v are made for all tokens so far, in every call, of the model's keys and of
    the tokens' embeddings: each is mixed with the one before it, by weights that the embeddings decide, and corrected by a
    small network, z + tanh(z down) up. So one token costs O(S D) work in each layer, S tokens into a text, and no memory.

    Args:
        width: D; the heads fill it.
        head_width: K = V.
        mix_rank: inner width of the network behind each mixture.
        rank: inner width of the networks that correct keys and values.
        depth: where the layer stands, for its initial values.

    Source: GoldFinch, arXiv 2407.12077, GOLD attention, and the authors' code. Chapter 11.
    """

    backends = backends_of(BACKENDS)

    def __init__(
        self, width: int, head_width: int = 64, mix_rank: int = 32, rank: int = 64, depth: Depth = ONLY_LAYER
    ) -> None:
        super().__init__()
        self.width, self.head_width = width, head_width
        ramp, steep = (initial.mix_ramp(width, power * depth.falling) for power in (1.0, 0.5))
        self.query_mixing = MixingWeights(1 - ramp, {"q": 1 - steep}, mix_rank)
        self.cache_mixing = MixingWeights(1 - ramp, {"k": 1 - ramp, "v": 1 - ramp - 0.3 * depth.rising}, mix_rank)
        self.key_change, self.value_change = (LowRank(width, rank, width, nn.Tanh()) for _ in range(2))
        for network in (self.key_change, self.value_change):
            nn.init.uniform_(network.up, -0.01, 0.01)
        self.query = initial.orthogonal(width, width)
        self.output = initial.zeros(width, width)
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in "qkv"})
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, ((depth.layer + 1) / depth.layers) ** 0.7)

    def forward(self, x: Stream, state: GoldState | None = None, shared: Shared | None = None) -> tuple[Stream, GoldState]:
        """(B, T, D) to (B, T, D), and the last token; `shared.rebuilt` holds the keys of all tokens up to the last."""
        state = self.start(x) if state is None else state
        if shared is None or shared.rebuilt is None:
            found = "shared=None" if shared is None else "None"
            raise ValueError(f"GoldAttention: shared.rebuilt must hold the keys of all tokens so far, got {found}")
        past = previous(x, state.shift)
        (mu_q,) = self.query_mixing(x, past)
        q = self._headed(self.norms["q"](self.query(weigh_past(x, past, mu_q))))
        k, v = (self._headed(z) for z in self.keys_and_values(shared.rebuilt))
        before = k.shape[1] - x.shape[1]
        cache = AttentionState(k[:, :before], v[:, :before])
        y, _ = attention(q, k[:, before:], v[:, before:], state=cache, backend=self.backend)
        return self.output(self.norm(y.flatten(2))), GoldState(last_token(x))

    def keys_and_values(self, rebuilt: Rebuilt) -> tuple[Stream, Stream]:
        """This layer's own, of all tokens so far, (B, S, D) each."""
        keys, embeddings = rebuilt
        nothing = keys.new_zeros(keys.shape[0], self.width)
        key_past, embedding_past = previous(keys, nothing), previous(embeddings, nothing)
        mu_k, mu_v = self.cache_mixing(embeddings, embedding_past)
        k, v = weigh_past(keys, key_past, mu_k), weigh_past(embeddings, embedding_past, mu_v)
        return self.norms["k"](k + self.key_change(k)), self.norms["v"](v + self.value_change(v))

    def state_after(self, batch: int, length: int, storage: Storage) -> GoldState:
        """The same size after any number of tokens."""
        return GoldState(storage.cached(batch, self.width))

    def _headed(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_width))
