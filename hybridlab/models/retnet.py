"""RetNet: linear attention whose past fades, each head at a speed of its own that never changes.

There are no presets. The paper (arXiv 2307.08621, tables 2 and 7) gives width and depth of the 1.3B, 2.7B and 6.7B models,
and the authors' code (torchscale: retnet_xl, retnet_3b, retnet_7b) the widths of values and MLP, but neither gives a
vocabulary or says whether the head is tied. Searched as well: torchscale's README, examples and issues, and presets of
others, which differ. `RetNetConfig(vocabulary, 2048, 24)`, `(vocabulary, 2560, 32, value_width=428)` and
`(vocabulary, 4096, 32)` are the three but for that; their state does not depend on it.
"""

import math
from dataclasses import dataclass

from torch import nn

from hybridlab.layers import Depth, EmbeddingScale, ResidualBlock, RetentionMixer, SwiGLU, set_backend
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel


@dataclass(frozen=True)
class RetNetConfig(Config):
    """Sizes of a RetNet.

    Attributes:
        head_width: K, width of a head's queries and keys.
        heads: H; 0 is width / head_width.
        value_width: V, width of a head's values; 0 is 27/16 K, rounded down.
        ffn_width: F, of the gated MLP; 0 is H V.
        norm_eps: added to mean squares in the RMS norms, those of the heads included.
        tied: whether the head is the embedding.
    """

    head_width: int = 256
    heads: int = 0
    value_width: int = 0
    ffn_width: int = 0
    norm_eps: float = 1e-6
    tied: bool = False

    def derive(self) -> None:
        """Heads that fill the width; values and MLP so wide that a block has about 12 D^2 numbers."""
        self.derive_heads(self.head_width)
        self.fill("value_width", 27 * self.head_width // 16)
        self.fill("ffn_width", self.heads * self.value_width)

    def check(self) -> None:
        """Keys that can be rotated."""
        self.require(self.head_width % 2 == 0 and self.head_width > 2, "head_width", "an even number of at least 4")


class RetNet(LanguageModel):
    """Embedding times sqrt(D), blocks x += retention(norm x), x += mlp(norm x), norm, head.

    The MLP is the gated one of the authors' code, where the paper has two matrices and gelu; the norms are RMS norms.

    Args:
        config: sizes.
        backend: what the layers pass to their ops.
    """

    def __init__(self, config: RetNetConfig, backend: str = "auto") -> None:
        blocks = [_block(config, Depth(layer, config.layers)) for layer in range(config.layers)]
        super().__init__(config, blocks, _norm(config), EmbeddingScale(math.sqrt(config.width)), config.tied)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        nn.init.normal_(self.head.weight, std=config.width**-0.5)
        set_backend(self, backend)


def _norm(config: RetNetConfig) -> nn.RMSNorm:
    return nn.RMSNorm(config.width, eps=config.norm_eps)


def _block(config: RetNetConfig, depth: Depth) -> ResidualBlock:
    retention = RetentionMixer(config.width, config.heads, config.head_width, config.value_width, config.norm_eps)
    mlp = SwiGLU(config.width, config.ffn_width, depth)
    for linear in (mlp.gate, mlp.up, mlp.down):
        linear.reset_parameters()  # the authors leave them as PyTorch makes them
    return ResidualBlock(retention, mlp, _norm(config), _norm(config))
