"""The block of models that have no channel mixer of their own: each layer is one mixer, added to the stream."""

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from hybridlab.layers.layer import Layer, Shared, Storage
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.shapes import Stream


class StreamNorm(nn.RMSNorm):
    """RMSNorm between a stream and what reads it: computed in the stream's dtype, given in the dtype of its weight.

    Args: those of PyTorch's RMSNorm.

    Source: the code of Mamba, arXiv 2312.00752. Chapter 04.
    """

    def forward(self, x: Stream) -> Stream:
        """(B, T, D) to (B, T, D)."""
        return rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps).to(self.weight.dtype)


class MixerBlock(Layer):
    """x += mixer(norm(x)). The block's state is the mixer's.

    Args:
        mixer: mixes over tokens, and does all that there is over channels.
        norm: applied to what the mixer reads; hands it the mixer's dtype.
        wide_stream: whether the sum x is kept in float32 at least, whatever the mixer's dtype: a bfloat16 sum of many
            layers would lose most of what each adds.

    Source: the blocks of Mamba, arXiv 2312.00752, figure 3, and of its code (residual_in_fp32). Chapter 04.
    """

    def __init__(self, mixer: Layer, norm: nn.Module, wide_stream: bool = False) -> None:
        super().__init__()
        self.norm, self.mixer, self.wide_stream = norm, mixer, wide_stream

    def forward(
        self, x: Stream, state: tuple[Tensor, ...] | None = None, shared: Shared | None = None
    ) -> tuple[Stream, tuple]:
        """(B, T, D) to (B, T, D), and the mixer's state after the last token."""
        y, mixer_state = self.mixer(self.norm(x), state, shared)
        return x.to(self._stream_dtype(x.dtype)) + y, mixer_state

    def state_after(self, batch: int, length: int, storage: Storage) -> tuple:
        """The mixer's state after `length` tokens."""
        return self.mixer.state_after(batch, length, storage)

    def _stream_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return least_state_dtype(dtype) if self.wide_stream else dtype
