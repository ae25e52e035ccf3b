"""The layer protocol: how every mixer, channel mixer and block is called, and what it carries.

    y, state = layer(x, state, shared)

`state` is a NamedTuple of tensors that own their storage (None is the state before any token). `shared` is what crosses
layers within one call. `layer.init_state(batch, length)` is the state as it stands after `length` tokens, in size and dtype:
that is how memory is accounted for without running anything.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from hybridlab.ops.attention import AttentionState
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.shapes import GroupedKeys, GroupedValues, Position, Stream, TokenIds, Values
from hybridlab.state import Empty


class LentKeys(NamedTuple):
    """What a layer's queries look at, for layers after it that have no keys of their own.

    Attributes:
        past: what the layer had kept before this call.
        k: keys of this call, (B, T, G, K), rotated where the layer rotates.
        v: values of this call, (B, T, G, V).
    """

    past: AttentionState
    k: GroupedKeys
    v: GroupedValues


class Rebuilt(NamedTuple):
    """What GoldFinch's attention looks at, of all S tokens up to the last of this call: made anew in every call.

    Attributes:
        keys: (B, S, D), the same for all layers; each makes keys of its own of them.
        embeddings: of the tokens, (B, S, D); each layer makes its values of them.
    """

    keys: Stream
    embeddings: Stream


@dataclass
class Shared:
    """What crosses layers within one call of a model.

    Attributes:
        position: tokens read before this call, 0-d int64.
        embeddings: the stream before the first layer, (B, T, D): a layer may read the tokens themselves again.
        input_ids: the tokens of this call, (B, T).
        first_value: values of the model's first RWKV-7 layer, (B, T, H, V), which puts them here for the others. They are
            those of the tokens of this call, so no state has to hold them.
        lent_keys: of the last layer that lent its own, which puts them here. It alone keeps them from call to call.
        rebuilt: of all tokens so far, what attention without a cache of its own looks at; the model puts it here.
        carried: what the model keeps beside the states of its layers. A layer that adds to it puts the new one here.
    """

    position: Position
    embeddings: Stream | None = None
    input_ids: TokenIds | None = None
    first_value: Values | None = None
    lent_keys: LentKeys | None = None
    rebuilt: Rebuilt | None = None
    carried: Any = field(default_factory=Empty)


class Storage(NamedTuple):
    """Where a state is kept: the dtype of caches and shifts, the dtype of recurrent states, the device."""

    dtype: torch.dtype
    state_dtype: torch.dtype
    device: torch.device | str | None

    def cached(self, *shape: int) -> Tensor:
        """Zeros for what the model computed and keeps as it is: keys, values, the last token."""
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def recurrent(self, *shape: int) -> Tensor:
        """Zeros for what is added up token by token."""
        return torch.zeros(shape, dtype=self.state_dtype, device=self.device)


class Layer(nn.Module):
    """A module that follows the layer protocol.

    Attributes:
        backend: what the layer passes to its op; `set_backend` changes it.
        backends: the names that its op takes; a layer without an op takes none.
        op: the op of a mixer with a recurrence, called as `self.op(...)`: measure.recording listens there.
    """

    backends: ClassVar[tuple[str, ...]] = ()
    op: Callable[..., Any]

    def __init__(self) -> None:
        super().__init__()
        self.backend = "auto"

    def init_state(
        self,
        batch: int,
        length: int = 0,
        *,
        dtype: torch.dtype,
        state_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Any:
        """The state after `length` tokens, in size and dtype.

        Args:
            batch: sequences.
            length: tokens each has read.
            dtype: the model's; caches and shifts take it.
            state_dtype: of recurrent states; None is float32, or float64 in a float64 model.
            device: where the tensors live.
        """
        return self.state_after(batch, length, Storage(dtype, state_dtype or least_state_dtype(dtype), device))

    def state_after(self, batch: int, length: int, storage: Storage) -> Any:
        """What `init_state` returns; each layer says which tensors it keeps."""
        raise NotImplementedError

    def start(self, x: Tensor) -> Any:
        """The state before the first token of x, (B, T, D)."""
        return self.init_state(x.shape[0], dtype=x.dtype, device=x.device)

    def position(self, x: Stream, shared: Shared | None, fresh: bool) -> Position:
        """Tokens read before x, for a layer that needs to know; one that starts afresh need not be told."""
        if shared is not None:
            return shared.position
        if not fresh:
            name = type(self).__name__
            raise ValueError(f"{name}: a state is continued, so shared.position must say where; got shared=None")
        return torch.zeros((), dtype=torch.int64, device=x.device)


def backends_of(backends: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that an op with this table of backends takes."""
    return ("auto", *backends)


def set_backend(model: nn.Module, name: str) -> None:
    """Makes every layer of a model run its op on this backend.

    Args:
        model: a model, a block or a layer.
        name: "auto", "naive", "numba" or "triton".

    Raises:
        ValueError: if a layer's op lacks this backend; the model is then as it was.
    """
    layers = [module for module in model.modules() if isinstance(module, Layer) and module.backends]
    for layer in layers:
        if name not in layer.backends:
            choices = ", ".join(layer.backends)
            raise ValueError(f"set_backend: unknown backend {name!r} for {type(layer).__name__}; choose {choices}")
    for layer in layers:
        layer.backend = name
