"""Small models whose every parameter says something: many start at zero, and a state of zeros would hide a mistake."""

import torch

from hybridlab.measure.tiny import TINY, VOCABULARY
from hybridlab.models import LanguageModel

# Models whose every layer has one recurrence, and the op it is.
RECURRENT = {
    "RWKV4": "wkv4",
    "RWKV5": "wkv6",
    "RWKV6": "wkv6",
    "Hawk": "rg_lru",
    "Mamba": "selective_scan",
    "FalconMamba": "selective_scan",
    "Mamba2": "ssd",
    "RetNet": "retention",
}


def shaken(model: LanguageModel | str) -> LanguageModel:
    """A model, or the tiny one of an architecture, in float64 and away from its initial values."""
    model = (TINY[model]() if isinstance(model, str) else model).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def text(length: int, batch: int = 1) -> torch.Tensor:
    """Token ids that are the same in every test, (B, T)."""
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))
