"""Gemma-2: a decoder whose layers look through a window and over everything by turns, with a norm around every branch."""

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from hybridlab.layers import (
    AttentionOptions,
    Depth,
    EmbeddingScale,
    GeGLU,
    GroupedAttention,
    OffsetRMSNorm,
    ResidualBlock,
    set_backend,
)
from hybridlab.models.decoder import AttentionConfig
from hybridlab.models.language_model import LanguageModel, Preset


@dataclass(frozen=True)
class Gemma2Config(AttentionConfig):
    """Sizes of a Gemma-2; `window` is that of the layers 0, 2, 4, ..., the others see everything.

    Attributes:
        query_scalar: scores are divided by its root; 0 is the head width.
        score_cap: what the scores of attention are softly limited to; None is no limit.
        logit_cap: what logits are softly limited to; None is no limit.
        norm_eps: added to mean squares in the RMS norms.
    """

    query_scalar: float = 0.0
    score_cap: float | None = None
    logit_cap: float | None = None
    norm_eps: float = 1e-6

    def derive(self) -> None:
        """As for all attention; scores divided by the root of the head width."""
        super().derive()
        self.fill("query_scalar", self.head_width)


SOURCE = "Gemma 2, arXiv 2408.00118, table 1; the released configuration for vocabulary, eps and the scale of the scores"


def _released(width: int, layers: int, **sizes: Any) -> Gemma2Config:
    """What all three have in common."""
    return Gemma2Config(256_000, width, layers, window=4096, score_cap=50.0, logit_cap=30.0, **sizes)


PRESETS = {
    "gemma2-2b": Preset(_released(2304, 26, heads=8, groups=4, head_width=256, ffn_width=9216), SOURCE),
    "gemma2-9b": Preset(_released(3584, 42, heads=16, groups=8, head_width=256, ffn_width=14_336), SOURCE),
    "gemma2-27b": Preset(
        _released(4608, 46, heads=32, groups=16, head_width=128, ffn_width=36_864, query_scalar=144.0), SOURCE
    ),
}


class Gemma2(LanguageModel):
    """Gemma-2: x += norm(attention(norm x)), x += norm(mlp(norm x)), and the embedding again as the head.

    Embeddings are multiplied by the root of the width, exactly; RecurrentGemma rounds it to bfloat16.

    Args:
        config: sizes.
        backend: what the layers pass to their ops.

    Source: arXiv 2408.00118, section 2. Chapter 11.
    """

    presets = PRESETS

    def __init__(self, config: Gemma2Config, backend: str = "auto") -> None:
        blocks = [_block(config, Depth(layer, config.layers)) for layer in range(config.layers)]
        super().__init__(config, blocks, _norm(config), EmbeddingScale(math.sqrt(config.width)), tied=True)
        self.limit_logits(config.logit_cap)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        set_backend(self, backend)


def _norm(config: Gemma2Config) -> OffsetRMSNorm:
    return OffsetRMSNorm(config.width, config.norm_eps)


def _block(config: Gemma2Config, depth: Depth) -> ResidualBlock:
    attention = GroupedAttention(
        config.width,
        config.heads,
        config.groups,
        config.head_width,
        config.window if depth.layer % 2 == 0 else None,
        config.rotary,
        depth,
        AttentionOptions(config.query_scalar**-0.5, config.score_cap),
    )
    mlp = GeGLU(config.width, config.ffn_width, depth, bias=False)
    return ResidualBlock(attention, mlp, _norm(config), _norm(config), added_norms=(_norm(config), _norm(config)))
