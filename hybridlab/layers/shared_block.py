"""Zamba's shared block: attention and an MLP whose weights many layers use, each with a cache of its own."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import gelu

from hybridlab.layers import initial
from hybridlab.layers.grouped_attention import AttentionOptions, GroupedAttention
from hybridlab.layers.layer import Layer, Shared, Storage
from hybridlab.layers.low_rank import LowRank
from hybridlab.layers.rotary import Rotary
from hybridlab.ops.attention import AttentionState
from hybridlab.shapes import Channels, Stream


class SharedBlockOptions(NamedTuple):
    """What a shared block is like; none of it depends on the stream's width.

    Attributes:
        heads: H, heads of queries.
        groups: G, heads of keys and values; G divides H.
        head_width: K = V.
        ffn_width: F, width of the MLP's product.
        bias: whether the MLP's maps have biases.
        rotary: positions; None is none.
        norm_eps: added to mean squares in both norms.
    """

    heads: int
    groups: int
    head_width: int
    ffn_width: int
    bias: bool = False
    rotary: Rotary | None = None
    norm_eps: float = 1e-5


class CallAdapters(nn.Module):
    """What makes one call of a shared block differ from the others: maps of low rank that are added to the block's own.

    Args:
        width: D.
        options: of the block.
        rank: of every map.
        attention: whether queries, keys and values are changed as well, and not the MLP alone.

    Source: Zamba2, arXiv 2411.15242, section II. Chapter 11.
    """

    def __init__(self, width: int, options: SharedBlockOptions, rank: int, attention: bool = False) -> None:
        super().__init__()
        heads = {"query": options.heads, "key": options.groups, "value": options.groups} if attention else {}
        maps = {name: LowRank(2 * width, rank, count * options.head_width) for name, count in heads.items()}
        self.attention = nn.ModuleDict(maps)
        self.mlp = LowRank(width, rank, 2 * options.ffn_width)


class AdaptedAttention(GroupedAttention):
    """Grouped attention whose queries, keys and values a call may change. Args: those of GroupedAttention."""

    def forward(
        self,
        x: Channels,
        state: AttentionState | None = None,
        shared: Shared | None = None,
        adapters: nn.ModuleDict | None = None,
    ) -> tuple[Stream, AttentionState]:
        """(B, T, 2 D) to (B, T, D), and the cache after the last token."""
        q, k, v = self.query(x), self.key(x), self.value(x)
        if adapters:
            q, k, v = q + adapters["query"](x), k + adapters["key"](x), v + adapters["value"](x)
        return self.attended((q, k, v), state, shared)


class AdaptedGeGLU(nn.Module):
    """y = W_down (gelu(W_gate x) * W_up x), gelu as it is defined; a call may change W_gate and W_up.

    Args:
        width: D.
        hidden: F, width of the product.
        bias: whether the maps have biases.
    """

    def __init__(self, width: int, hidden: int, bias: bool = False) -> None:
        super().__init__()
        self.gate = initial.normal(width, hidden, bias=bias)
        self.up = initial.normal(width, hidden, bias=bias)
        self.down = initial.normal(hidden, width, bias=bias)

    def forward(self, x: Stream, adapter: LowRank | None = None) -> Stream:
        """(B, T, D) to (B, T, D)."""
        gate, up = self.gate(x), self.up(x)
        if adapter is not None:
            more_gate, more_up = adapter(x).chunk(2, -1)
            gate, up = gate + more_gate, up + more_up
        return self.down(gelu(gate) * up)


class SharedBlock(Layer):
    """y = mlp(norm(attention(norm([x | e])))), e the token embeddings; nothing is added to x in between.

    Scores are divided by sqrt(K / 2): half of what a head reads is the stream, and that is its share of K. The weights are
    shared, the memory is not: what the block saw of layer 7 is of no use to layer 13, so each caller keeps a cache,
    `AttentionState`, of its own.

    Args:
        width: D.
        options: heads, MLP, positions and norms.

    Source: Zamba, arXiv 2405.16712, figure 2, and its authors' code. Chapter 11.
    """

    def __init__(self, width: int, options: SharedBlockOptions) -> None:
        super().__init__()
        heads, groups, head_width, ffn_width, bias, rotary, eps = options
        scaled = AttentionOptions(scale=(head_width / 2) ** -0.5, output_width=width)
        self.norm = nn.RMSNorm(2 * width, eps=eps)
        self.attention = AdaptedAttention(2 * width, heads, groups, head_width, rotary=rotary, options=scaled)
        self.mlp_norm = nn.RMSNorm(width, eps=eps)
        self.mlp = AdaptedGeGLU(width, ffn_width, bias)

    def forward(
        self,
        x: Stream,
        state: AttentionState | None = None,
        shared: Shared | None = None,
        adapters: CallAdapters | None = None,
    ) -> tuple[Stream, AttentionState]:
        """(B, T, D) to (B, T, D), and the caller's cache after the last token.

        Args:
            x: the stream.
            state: the caller's cache.
            shared: holds the token embeddings.
            adapters: the caller's own; None is none.
        """
        if shared is None or shared.embeddings is None:
            raise ValueError("SharedBlock: shared.embeddings must be the token embeddings (B, T, D), got None")
        read = self.norm(torch.cat((x, shared.embeddings), -1))
        y, state = self.attention(read, state, shared, None if adapters is None else adapters.attention)
        return self.mlp(self.mlp_norm(y), None if adapters is None else adapters.mlp), state

    def state_after(self, batch: int, length: int, storage: Storage) -> AttentionState:
        """One caller's cache after `length` tokens."""
        return self.attention.state_after(batch, length, storage)
