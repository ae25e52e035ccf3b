"""Zamba: Mambas with two heads, and one block of attention and MLP that every sixth of them calls."""

from dataclasses import dataclass

from hybridlab.layers import Depth, HeadedMambaMixer, HeadedMambaSizes
from hybridlab.models.language_model import Preset
from hybridlab.models.zamba_skeleton import ZambaSkeleton, ZambaSkeletonConfig


@dataclass(frozen=True)
class ZambaConfig(ZambaSkeletonConfig):
    """Sizes of a Zamba.

    Attributes:
        mixer_heads: heads of each mixer, which choose what they keep each for itself.
        rank: inner width of the map that finds a token's steps; 0 is D / 16, rounded up.
        conv_bias: whether the short convolution has a bias.
    """

    mixer_heads: int = 2
    rank: int = 0
    conv_bias: bool = True

    def derive(self) -> None:
        """As for both Zambas; a rank of a sixteenth of the width."""
        super().derive()
        self.fill("rank", -(-self.width // 16))

    def check(self) -> None:
        """As for both Zambas; mixers whose heads are equally wide."""
        super().check()
        self.require(self.inner % self.mixer_heads == 0, "mixer_heads", f"a divisor of inner = {self.inner}")

    @property
    def mixer_sizes(self) -> HeadedMambaSizes:
        """The sizes of each layer's mixer."""
        return HeadedMambaSizes(self.mixer_heads, self.inner, self.rank, self.state_size, self.filter_width)


PRESETS = {
    "zamba-7b": Preset(
        ZambaConfig(32_000, 3712, 76, calls=(2, *range(7, 76, 6)), heads=16),
        "Zamba, arXiv 2405.16712, and the configuration released with Zamba-7B-v1",
    ),
}


class Zamba(ZambaSkeleton):
    """Zamba. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: ZambaConfig, backend: str = "auto") -> None:
        def mixer(depth: Depth) -> HeadedMambaMixer:
            return HeadedMambaMixer(config.width, config.mixer_sizes, depth, bias=config.bias, conv_bias=config.conv_bias)

        super().__init__(config, mixer, backend=backend)
