"""Mamba-2: every layer one SSD mixer, a matrix a head that each token fades by a single number."""

from dataclasses import dataclass

from hybridlab.layers import Depth, Mamba2Mixer, Mamba2Sizes
from hybridlab.layers.mamba2_mixer import ANY_STEP, are_limits
from hybridlab.models.language_model import Preset
from hybridlab.models.mamba_skeleton import MambaSkeleton, MambaSkeletonConfig


@dataclass(frozen=True)
class Mamba2Config(MambaSkeletonConfig):
    """Sizes of a Mamba-2 model.

    Attributes:
        inner: E = H P; 0 is heads * head_width where heads are given, else 2 D.
        state_size: N, length of the vectors B and C.
        heads: H; 0 is inner / head_width.
        head_width: P, of a head's inputs.
        groups: G, heads in a row that share B and C form so many groups; the gated norm has as many.
        step_limits: shortest and longest step that a token may take.
    """

    state_size: int = 128
    heads: int = 0
    head_width: int = 64
    groups: int = 1
    step_limits: tuple[float, float] = ANY_STEP

    def derive(self) -> None:
        """An inner width that the heads fill."""
        self.fill("inner", self.heads * self.head_width)
        super().derive()
        if not self.heads:
            self.require(
                self.inner % self.head_width == 0, "head_width", f"a divisor of inner = {self.inner}, or heads given"
            )
            self.fill("heads", self.inner // self.head_width)

    def check(self) -> None:
        """Heads that fill the inner width and share B and C evenly; steps between 0 and infinity."""
        super().check()
        self.require(self.inner == self.heads * self.head_width, "inner", f"{self.heads} heads of {self.head_width}")
        self.require(self.heads % self.groups == 0, "groups", f"a divisor of heads = {self.heads}")
        self.require(are_limits(self.step_limits), "step_limits", "(shortest, longest), 0 <= shortest <= longest")

    @property
    def mixer_sizes(self) -> Mamba2Sizes:
        """The sizes of each layer's mixer."""
        return Mamba2Sizes(self.heads, self.head_width, self.state_size, self.groups, self.filter_width)


AUTHORS = "Mamba-2, arXiv 2405.21060, and the configurations of its released models"
CODESTRAL = "Codestral Mamba 7B, the configuration released with it"


def _preset(width: int, layers: int) -> Preset:
    return Preset(Mamba2Config(50_288, width, layers), AUTHORS)


PRESETS = {
    "mamba2-130m": _preset(768, 24),
    "mamba2-370m": _preset(1024, 48),
    "mamba2-780m": _preset(1536, 48),
    "mamba2-1.3b": _preset(2048, 48),
    "mamba2-2.7b": _preset(2560, 64),
    "codestral-mamba-7b": Preset(Mamba2Config(32_768, 4096, 64, groups=8, tied=False), CODESTRAL),
}


class Mamba2(MambaSkeleton):
    """Mamba-2, and Codestral Mamba. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: Mamba2Config, backend: str = "auto") -> None:
        def mixer(depth: Depth) -> Mamba2Mixer:
            return Mamba2Mixer(
                config.width,
                config.mixer_sizes,
                depth,
                bias=config.bias,
                conv_bias=config.conv_bias,
                step_limits=config.step_limits,
                norm_eps=config.norm_eps,
            )

        super().__init__(config, mixer, backend)
