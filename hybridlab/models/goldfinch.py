"""GoldFinch: Finch-C2 in the first two thirds of the layers, then attention to one compressed cache of keys for them all."""

from dataclasses import dataclass
from typing import Any, cast

import torch

from hybridlab.layers import (
    CompressedKeys,
    Depth,
    FinchC2TimeMixing,
    GoldAttention,
    Layer,
    RWKV6ChannelMixing,
    Shared,
)
from hybridlab.layers.layer import Storage
from hybridlab.models.config import Config
from hybridlab.models.language_model import Preset
from hybridlab.models.rwkv_skeleton import RWKVModel
from hybridlab.shapes import Stream
from hybridlab.state import Empty

SOURCE = "GoldFinch, arXiv 2407.12077, and its authors' configurations (recursal/GoldFinch-paper)"


@dataclass(frozen=True)
class GoldFinchConfig(Config):
    """Sizes of a GoldFinch model, or of a Finch-C2, which has no attention.

    Attributes:
        head_width: K = V, width of a head's keys and values.
        heads: H; 0 is width / head_width. In a model with attention they fill the width.
        ffn_width: F, of the channel mixing; 0 is 3.5 D, rounded down to a multiple of 32.
        finch_layers: the first so many layers are Finch-C2, the others attend; 0 is two thirds of them, rounded down.
        code_width: numbers kept of a token, beside its id; 0 is width / 16.
        mix_rank: inner width of the networks that mix tokens.
        decay_rank: inner width of the networks behind the decay and the values of a token's own.
        gold_rank: inner width of the networks that make each layer's keys and values; 0 is width / 16, and at least 64.
        own_values: whether a token has values of its own in Finch-C2, rather than RWKV-6's bonus.
        norm_eps: added to variances in the layer norms of the stream.
    """

    head_width: int = 64
    heads: int = 0
    ffn_width: int = 0
    finch_layers: int = 0
    code_width: int = 0
    mix_rank: int = 32
    decay_rank: int = 64
    gold_rank: int = 0
    own_values: bool = True
    norm_eps: float = 1e-5

    @property
    def letters(self) -> str:
        """C for Finch-C2, O for GOLD attention."""
        return "C" * self.finch_layers + "O" * (self.layers - self.finch_layers)

    def derive(self) -> None:
        """Heads that fill the width; an FFN 3.5 times as wide; what the authors chose of the rest."""
        self.derive_heads(self.head_width)
        self.fill("ffn_width", int(3.5 * self.width) // 32 * 32)
        self.fill("finch_layers", 2 * self.layers // 3)
        self.fill("code_width", self.width // 16)
        self.fill("gold_rank", max(self.width // 16, 64))

    def check(self) -> None:
        """Something is there to be compressed; attention's heads fill the width."""
        self.require(self.finch_layers <= self.layers, "finch_layers", f"at most layers = {self.layers}")
        fills = self.finch_layers == self.layers or self.heads * self.head_width == self.width
        self.require(fills, "heads", f"width / head_width = {self.width} / {self.head_width}, where layers attend")


PRESETS = {"goldfinch-1.45b": Preset(GoldFinchConfig(65536, 2048, 24), SOURCE)}


class GoldFinch(RWKVModel):
    """GoldFinch. Args: `config`, and `backend`, what the layers pass to their ops.

    Beside its layers' states it keeps a `KeyCache`: the stream after the last Finch-C2 layer, compressed, and the token ids.
    All attention layers read it, and it is all that grows with the text.
    """

    presets = PRESETS

    def __init__(self, config: GoldFinchConfig, backend: str = "auto") -> None:
        def mixers(depth: Depth) -> tuple[Layer, Layer]:
            return _time_mixing(config, depth), RWKV6ChannelMixing(config.width, config.ffn_width, depth)

        super().__init__(config, mixers, config.norm_eps, backend=backend)
        self.finch_layers, attends = config.finch_layers, config.finch_layers < config.layers
        self.keys = CompressedKeys(config.width, config.code_width, config.vocabulary) if attends else None

    def after_layer(self, number: int, x: Stream, shared: Shared) -> None:
        """Once the last Finch-C2 layer has spoken, the tokens of this call enter the cache, and all keys are made anew."""
        if self.keys is None or number != self.finch_layers - 1:
            return
        past = shared.carried
        embeddings = torch.cat((self.embedded(past.ids.to(torch.int64)), cast(Stream, shared.embeddings)), 1)
        shared.carried, shared.rebuilt = self.keys(x, shared.input_ids, embeddings, past)

    def carried_after(self, batch: int, length: int, storage: Storage) -> Any:
        """The cache of keys, where layers attend."""
        return Empty() if self.keys is None else self.keys.cache_after(batch, length, storage)


def _time_mixing(config: GoldFinchConfig, depth: Depth) -> Layer:
    if depth.layer >= config.finch_layers:
        return GoldAttention(config.width, config.head_width, config.mix_rank, config.gold_rank, depth)
    return FinchC2TimeMixing(
        config.width, config.heads, config.head_width, config.mix_rank, config.decay_rank, config.own_values, depth
    )
