"""Zamba2: Mamba-2 mixers, and two shared blocks that are called in turn, a little different at each call."""

from dataclasses import dataclass

from hybridlab.layers import CallAdapters, Depth, Mamba2Mixer, Mamba2Sizes, Rotary, SharedBlockOptions
from hybridlab.layers.mamba2_mixer import ANY_STEP, are_limits
from hybridlab.models.language_model import Preset
from hybridlab.models.zamba_skeleton import ZambaSkeleton, ZambaSkeletonConfig


@dataclass(frozen=True)
class Zamba2Config(ZambaSkeletonConfig):
    """Sizes of a Zamba2.

    Attributes:
        state_size: N, length of the mixers' vectors B and C.
        bias: whether the mixers' maps from and to the stream and the maps of the shared MLPs have biases.
        mixer_heads: heads of each mixer; 0 is inner / 64.
        mixer_groups: its heads in a row that share B and C form so many groups.
        adapter_rank: of what each call changes in its block.
        attention_adapters: whether calls change queries, keys and values, and not the MLP alone.
        rotary: positions in the shared attention; None is none.
        step_limits: shortest and longest step that a token may take in a mixer. The authors' code takes any; transformers
            lets none be shorter than `time_step_min` where it reads many tokens at once.
    """

    state_size: int = 64
    mixer_heads: int = 0
    mixer_groups: int = 1
    adapter_rank: int = 128
    attention_adapters: bool = False
    rotary: Rotary | None = None
    step_limits: tuple[float, float] = ANY_STEP

    def derive(self) -> None:
        """As for both Zambas; mixer heads of 64 channels."""
        super().derive()
        self.fill("mixer_heads", max(1, self.inner // 64))

    def check(self) -> None:
        """As for both Zambas; mixer heads that fill the inner width and share B and C evenly; steps; pairs to rotate."""
        super().check()
        self.require(self.inner % self.mixer_heads == 0, "mixer_heads", f"a divisor of inner = {self.inner}")
        self.require(self.mixer_heads % self.mixer_groups == 0, "mixer_groups", f"a divisor of {self.mixer_heads} heads")
        self.require(are_limits(self.step_limits), "step_limits", "(shortest, longest), 0 <= shortest <= longest")
        even = self.rotary is None or self.head_width % 2 == 0
        self.require(even, "head_width", "an even number (rotation turns pairs)")

    @property
    def mixer_sizes(self) -> Mamba2Sizes:
        """The sizes of each layer's mixer."""
        head_width = self.inner // self.mixer_heads
        return Mamba2Sizes(self.mixer_heads, head_width, self.state_size, self.mixer_groups, self.filter_width)

    @property
    def block_options(self) -> SharedBlockOptions:
        """What each shared block is like."""
        return super().block_options._replace(bias=self.bias, rotary=self.rotary)


AUTHORS = "Zamba2, arXiv 2411.15242, and the configuration released with the model"
PRESETS = {
    "zamba2-1.2b": Preset(
        Zamba2Config(
            32_000,
            2048,
            38,
            calls=tuple(range(5, 36, 6)),
            heads=32,
            state_size=128,
            attention_adapters=True,
            rotary=Rotary(),
        ),
        AUTHORS,
    ),
    "zamba2-2.7b": Preset(Zamba2Config(32_000, 2560, 54, calls=(*range(6, 43, 6), 47, 51), blocks=2, heads=32), AUTHORS),
    "zamba2-7b": Preset(
        Zamba2Config(32_000, 3584, 81, calls=(6, *range(11, 78, 6)), blocks=2, heads=32, mixer_groups=2, rotary=Rotary()),
        AUTHORS,
    ),
}


class Zamba2(ZambaSkeleton):
    """Zamba2. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: Zamba2Config, backend: str = "auto") -> None:
        def mixer(depth: Depth) -> Mamba2Mixer:
            return Mamba2Mixer(config.width, config.mixer_sizes, depth, bias=config.bias, step_limits=config.step_limits)

        def adapters() -> CallAdapters:
            return CallAdapters(config.width, config.block_options, config.adapter_rank, config.attention_adapters)

        super().__init__(config, mixer, adapters, backend)
