"""RecurrentGemma: a Griffin that was released, with Gemma's vocabulary, wide heads, a scaled embedding, limited logits."""

from dataclasses import dataclass

from hybridlab.models.griffin import Griffin, GriffinConfig
from hybridlab.models.language_model import Preset

SOURCE = (
    "RecurrentGemma, arXiv 2404.07839, table 1, and the presets of its code, in which a query sees 2048 keys beside its own"
)


@dataclass(frozen=True)
class RecurrentGemmaConfig(GriffinConfig):
    """Sizes of a RecurrentGemma: a `GriffinConfig` with other defaults.

    Attributes:
        blocks: of the maps behind the gates; 0 is as many as heads.
        head_width: K = V; 0 is width / heads, or 256.
        window: keys a query sees, itself included.
        scaled: whether embeddings are multiplied by sqrt(D), rounded to bfloat16.
        logit_cap: what logits are softly limited to.
    """

    blocks: int = 0
    window: int = 2049
    scaled: bool = True
    logit_cap: float | None = 30.0

    def derive(self) -> None:
        """Heads of 256, and as many blocks."""
        self.derive_heads(self.head_width or 256)
        self.fill("blocks", self.heads)
        super().derive()


PRESETS = {
    "recurrentgemma-2b": Preset(RecurrentGemmaConfig(256_000, 2560, 26), SOURCE),
    "recurrentgemma-9b": Preset(RecurrentGemmaConfig(256_000, 4096, 38), SOURCE),
}


class RecurrentGemma(Griffin):
    """RecurrentGemma. Args: `config`, and `backend`, what the layers pass to their ops."""

    presets = PRESETS
