"""What Mamba, Falcon-Mamba and Mamba-2 have in common: blocks of one mixer each, RMS norms, a stream in float32."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from hybridlab.layers import Depth, Layer, MixerBlock, StreamNorm, set_backend
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel


@dataclass(frozen=True)
class MambaSkeletonConfig(Config):
    """Sizes that all Mambas have.

    Attributes:
        inner: E, inner width of the mixer; 0 is 2 D.
        state_size: N, numbers that each inner channel remembers.
        filter_width: W, taps of the short convolution.
        bias: whether the mixer's maps from and to the stream have biases.
        conv_bias: whether the short convolution has one.
        norm_eps: added to mean squares in the RMS norms.
        tied: whether the head is the embedding.
        wide_stream: whether the residual stream is float32 at least (the releases call it residual_in_fp32).
    """

    inner: int = 0
    state_size: int = 16
    filter_width: int = 4
    bias: bool = False
    conv_bias: bool = True
    norm_eps: float = 1e-5
    tied: bool = True
    wide_stream: bool = True

    def derive(self) -> None:
        """An inner width of twice the stream's."""
        self.fill("inner", 2 * self.width)


class MambaSkeleton(LanguageModel):
    """Embedding, blocks x += mixer(norm x), norm, head.

    Args:
        config: sizes.
        mixer: makes the mixer of the layer at a depth.
        backend: what the layers pass to their ops.
    """

    def __init__(self, config: MambaSkeletonConfig, mixer: Callable[[Depth], Layer], backend: str = "auto") -> None:
        def norm() -> StreamNorm:
            return StreamNorm(config.width, eps=config.norm_eps)

        depths = (Depth(layer, config.layers) for layer in range(config.layers))
        blocks = [MixerBlock(mixer(depth), norm(), config.wide_stream) for depth in depths]
        super().__init__(config, blocks, norm(), tied=config.tied)
        nn.init.normal_(self.embedding.weight, std=0.02)
        set_backend(self, backend)
