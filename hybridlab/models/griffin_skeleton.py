"""What Hawk, Griffin and RecurrentGemma have in common: their norms, their MLP, how tokens come in and go out."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from hybridlab.layers import (
    Depth,
    EmbeddingScale,
    GeGLU,
    Layer,
    OffsetRMSNorm,
    ResidualBlock,
    set_backend,
)
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel


@dataclass(frozen=True)
class GriffinSkeletonConfig(Config):
    """Sizes that all of the family have.

    Attributes:
        inner: E, channels of the recurrent block; 0 is D.
        blocks: of the maps behind the gates of the RG-LRU; a divisor of inner.
        filter_width: W, taps of the short convolution.
        ffn_width: F, of the gated MLP; 0 is 3 D.
        scaled: whether embeddings are multiplied by sqrt(D), rounded to bfloat16.
        logit_cap: what logits are softly limited to; None is no limit.
        norm_eps: added to mean squares in the RMS norms.
    """

    inner: int = 0
    blocks: int = 16
    filter_width: int = 4
    ffn_width: int = 0
    scaled: bool = False
    logit_cap: float | None = None
    norm_eps: float = 1e-6

    def derive(self) -> None:
        """A recurrent block as wide as the stream, an MLP three times as wide."""
        self.fill("inner", self.width)
        self.fill("ffn_width", 3 * self.width)

    def check(self) -> None:
        """Blocks that fill the recurrent width."""
        self.require(self.inner % self.blocks == 0, "blocks", f"a divisor of inner = {self.inner}")


class GriffinSkeleton(LanguageModel):
    """Embedding, blocks x += mixer(norm x), x += mlp(norm x), norm, and the embedding again as the head.

    Args:
        config: sizes.
        mixer: makes the mixer of the layer at a depth.
        backend: what the layers pass to their ops.
    """

    def __init__(self, config: GriffinSkeletonConfig, mixer: Callable[[Depth], Layer], backend: str = "auto") -> None:
        def norm() -> OffsetRMSNorm:
            return OffsetRMSNorm(config.width, config.norm_eps)

        def block(depth: Depth) -> ResidualBlock:
            return ResidualBlock(mixer(depth), GeGLU(config.width, config.ffn_width, depth), norm(), norm())

        scale = EmbeddingScale(rounded_root(config.width)) if config.scaled else None
        blocks = [block(Depth(layer, config.layers)) for layer in range(config.layers)]
        super().__init__(config, blocks, norm(), scale, tied=True)
        self.limit_logits(config.logit_cap)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        set_backend(self, backend)


def rounded_root(width: int) -> float:
    """sqrt(width) in bfloat16, whatever the dtype of the model: 4.90625 for 24, not 4.898979."""
    return torch.tensor(width, dtype=torch.float32, device="cpu").sqrt().bfloat16().item()
