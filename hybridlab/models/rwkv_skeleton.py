"""What the models of RWKV-4 to 7 have in common: layer norms, the norm after the embedding, their initial values."""

import math
from collections.abc import Callable

from torch import nn

from hybridlab.layers import Depth, Layer, ResidualBlock, set_backend
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel


class RWKVModel(LanguageModel):
    """Embedding, layer norm, blocks x += time_mixing(norm x), x += channel_mixing(norm x), layer norm, head.

    Args:
        config: sizes.
        mixers: makes the two mixers of the layer at a depth.
        eps: of all layer norms.
        tied: whether the head is the embedding.
        backend: what the layers pass to their ops.
    """

    def __init__(
        self,
        config: Config,
        mixers: Callable[[Depth], tuple[Layer, Layer]],
        eps: float = 1e-5,
        tied: bool = False,
        backend: str = "auto",
    ) -> None:
        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(config.width, eps=eps)

        depths = (Depth(layer, config.layers) for layer in range(config.layers))
        blocks = [ResidualBlock(*mixers(depth), norm(), norm()) for depth in depths]
        super().__init__(config, blocks, norm(), norm(), tied)
        # The norm after the embedding makes a tiny embedding large, so that each step of training moves it far.
        nn.init.uniform_(self.embedding.weight, -1e-4, 1e-4)
        if not tied:
            nn.init.orthogonal_(self.head.weight, 0.5 * max(1.0, math.sqrt(config.vocabulary / config.width)))
        set_backend(self, backend)
