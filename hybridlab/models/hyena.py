"""Hyena: attention replaced by long convolutions, whose filters a small network makes, and gates."""

from dataclasses import dataclass

from hybridlab.layers import Depth, HyenaMixer, HyenaSizes
from hybridlab.models.language_model import Preset
from hybridlab.models.safari_skeleton import GPT2_VOCABULARY, SafariConfig, SafariSkeleton

SOURCE = (
    "Hyena, arXiv 2302.10866, table A.4; features, filter length and vocabulary of the authors' configuration for the Pile "
    "(HazyResearch/safari, configs/experiment/pile/hyena.yaml)"
)


@dataclass(frozen=True)
class HyenaConfig(SafariConfig):
    """Sizes of a Hyena.

    Attributes:
        order: N; there are N gates and N - 1 long convolutions.
        taps: of each long filter; the context that it was trained on.
        features: of a time, which the network behind the filters reads; odd.
        hidden: width of that network.
        inner_maps: its maps from hidden to hidden.
        frequency: what its sines begin with.
        fading: whether filters are multiplied by a window that fades with time.
        floor: what the window fades to; None is 0.
        filter_width: taps of the short convolution.
    """

    order: int = 2
    taps: int = 2048
    features: int = 33
    hidden: int = 64
    inner_maps: int = 2
    frequency: float = 14.0
    fading: bool = True
    floor: float | None = None
    filter_width: int = 3

    def check(self) -> None:
        """A filter, and features that come in pairs beside the time itself."""
        self.require(self.order >= 2, "order", "at least 2 (order N has N - 1 filters)")
        self.require(self.features % 2 == 1 and self.features >= 3, "features", "an odd number, at least 3")

    @property
    def mixer_sizes(self) -> HyenaSizes:
        """The sizes of each layer's mixer."""
        network = (self.features, self.hidden, self.inner_maps, self.frequency)
        return HyenaSizes(self.order, self.taps, *network, self.fading, self.floor, self.filter_width)


PRESETS = {
    "hyena-125m": Preset(HyenaConfig(GPT2_VOCABULARY, 768, 12), SOURCE),
    "hyena-355m": Preset(HyenaConfig(GPT2_VOCABULARY, 1024, 36, ffn_width=2048), SOURCE),
}


class Hyena(SafariSkeleton):
    """Hyena. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS

    def __init__(self, config: HyenaConfig, backend: str = "auto") -> None:
        def mixer(depth: Depth) -> HyenaMixer:
            return HyenaMixer(config.width, config.mixer_sizes, depth)

        super().__init__(config, mixer, backend)
