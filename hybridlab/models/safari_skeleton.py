"""What H3 and Hyena have in common: the frame of GPT-2 without its positions, as in the code of their authors (safari)."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from hybridlab.layers import Depth, GeluMLP, Layer, ResidualBlock, set_backend
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel

# GPT-2's 50,257 tokens, filled up to a multiple of 8.
GPT2_VOCABULARY = 50_264


@dataclass(frozen=True)
class SafariConfig(Config):
    """Sizes that both have.

    Attributes:
        ffn_width: F, of the MLP; 0 is 4 D.
        norm_eps: of the layer norms.
    """

    ffn_width: int = 0
    norm_eps: float = 1e-5

    def derive(self) -> None:
        """An MLP four times as wide as the stream."""
        self.fill("ffn_width", 4 * self.width)


class SafariSkeleton(LanguageModel):
    """Embedding, blocks x += mixer(norm x), x += mlp(norm x), layer norm, and the embedding again as the head.

    Args:
        config: sizes.
        mixer: makes the mixer of the layer at a depth.
        backend: what the layers pass to their ops.
    """

    def __init__(self, config: SafariConfig, mixer: Callable[[Depth], Layer], backend: str = "auto") -> None:
        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(config.width, eps=config.norm_eps)

        depths = [Depth(layer, config.layers) for layer in range(config.layers)]
        mlps = [GeluMLP(config.width, config.ffn_width, depth) for depth in depths]
        blocks = [ResidualBlock(mixer(depth), mlp, norm(), norm()) for depth, mlp in zip(depths, mlps, strict=True)]
        super().__init__(config, blocks, norm(), tied=True)
        nn.init.normal_(self.embedding.weight, std=0.02)
        set_backend(self, backend)
