"""The skeleton of every model: embedding, blocks, final norm, head. Architectures differ in the blocks they stack."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from hybridlab.layers import CappedHead, Layer, Shared, set_backend
from hybridlab.layers.layer import Storage
from hybridlab.models.config import Config
from hybridlab.models.sampling import Sampling, check_request, generated, stop_ids
from hybridlab.ops.precision import state_dtype as least_state_dtype
from hybridlab.shapes import Logits, Position, Stream, TokenIds
from hybridlab.state import Empty, ModelState

# Not `Self`: the annotation checks of the tests look at methods one by one, and cannot know whose they are.
ModelT = TypeVar("ModelT", bound="LanguageModel")


class ModelOutput(NamedTuple):
    """What a call returns: logits (B, T, vocabulary) and the state after the last token."""

    logits: Logits
    state: ModelState


class Preset(NamedTuple):
    """A published model: its numbers, and where they come from."""

    config: Any
    source: str


class LanguageModel(nn.Module):
    """Embedding, blocks called `(x, state, shared) -> (y, state)`, final norm, head.

    A subclass makes its blocks in `__init__` and hands them over.

    Args:
        config: sizes.
        layers: the blocks.
        norm: applied after the last block.
        embedding_norm: applied to the embeddings; None is none.
        tied: whether the head is the embedding.
    """

    presets: ClassVar[Mapping[str, Preset]] = {}

    def __init__(
        self,
        config: Config,
        layers: Iterable[Layer],
        norm: nn.Module,
        embedding_norm: nn.Module | None = None,
        tied: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.embedding_norm = nn.Identity() if embedding_norm is None else embedding_norm
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.tied = tied
        self.tie_head()

    def tie_head(self) -> None:
        """Makes the head the embedding again, in a tied model whose weights were replaced."""
        if self.tied:
            self.head.weight = self.embedding.weight

    def limit_logits(self, cap: float | None) -> None:
        """Softly limits the logits of a tied model to -cap ... cap; None leaves them."""
        if cap is None:
            return
        with torch.device("meta"):  # its weight is the embedding
            self.head = CappedHead(self.config.width, self.config.vocabulary, cap)
        self.tie_head()

    @classmethod
    def from_preset(
        cls: type[ModelT],
        name: str,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        backend: str = "auto",
    ) -> ModelT:
        """A published architecture at its published size, with random weights.

        Args:
            name: such as "rwkv4-169m"; `hybridlab.models.PRESETS` lists all.
            device: "meta" makes a model without memory, for counting.
            dtype: of the weights; None is float32.
            backend: what the layers pass to their ops.

        Raises:
            ValueError: for a name that is not one of this architecture's.
        """
        if name not in cls.presets:
            raise ValueError(f"{cls.__name__}: unknown preset {name!r}; choose {', '.join(cls.presets) or 'nothing'}")
        with torch.device(device or torch.get_default_device()):
            model = cls(cls.presets[name].config)  # type: ignore[call-arg]
        set_backend(model, backend)
        return model.to(dtype or torch.get_default_dtype())

    def forward(self, input_ids: TokenIds, state: ModelState | None = None) -> ModelOutput:
        """Logits for the token after each token.

        Args:
            input_ids: (B, T), int64.
            state: what an earlier call returned; None starts new sequences.

        Returns:
            logits (B, T, vocabulary) and the state after the last token.

        Raises:
            ValueError: ids of a wrong shape, dtype or range; a state that does not fit.
        """
        x, state = self.hidden(input_ids, state)
        return ModelOutput(self.head(x), state)

    def hidden(self, input_ids: TokenIds, state: ModelState | None = None) -> tuple[Stream, ModelState]:
        """What the head reads, (B, T, D), and the state after the last token."""
        check_ids(input_ids, self.config.vocabulary)
        state = self.init_state(len(input_ids)) if state is None else state
        self._check_state(state, len(input_ids))
        tokens = self.embedded(input_ids)
        x, position = self.opened(tokens, state)
        shared = Shared(position, tokens, input_ids, carried=state.shared)
        states = []
        for number, (layer, layer_state) in enumerate(zip(self.layers, state.layers, strict=True)):
            x, layer_state = layer(x, layer_state, shared)
            states.append(layer_state)
            self.after_layer(number, x, shared)
        length = input_ids.shape[1]
        return self.norm(x[:, -length:]), ModelState(tuple(states), shared.carried, state.position + length)

    def embedded(self, input_ids: TokenIds) -> Stream:
        """The tokens themselves, (B, T, D), as the first layer reads them."""
        embedded: Stream = self.embedding_norm(self.embedding(input_ids))
        return embedded

    def after_layer(self, number: int, x: Stream, shared: Shared) -> None:
        """Called with what each layer returns: a model may leave something in `shared` for the layers behind it."""

    def opened(self, x: Stream, state: ModelState) -> tuple[Tensor, Position]:
        """What the first layer reads, and how many rows it has read before: here the tokens, and one row a token.

        A model may put rows of its own before the tokens. All layers read them; the head reads those of the tokens.
        """
        return x, state.position

    def rows_after(self, length: int) -> int:
        """How many rows each layer has read after `length` tokens."""
        return length

    def init_state(
        self,
        batch: int,
        length: int = 0,
        *,
        dtype: torch.dtype | None = None,
        state_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> ModelState:
        """The state as it stands after `length` tokens, in size and dtype.

        Args:
            batch: sequences.
            length: tokens each has read.
            dtype: of caches and shifts; None is the model's.
            state_dtype: of recurrent states; None is float32, or float64 in a float64 model.
            device: None is the model's.

        Raises:
            ValueError: a batch below 1 or a length below 0.
        """
        if batch < 1 or length < 0:
            raise ValueError(f"init_state: batch must be at least 1 and length at least 0, got {batch} and {length}")
        weight = self.embedding.weight
        dtype = dtype or weight.dtype
        storage = Storage(dtype, state_dtype or least_state_dtype(dtype), device or weight.device)
        rows = self.rows_after(length)
        states = tuple(cast(Layer, block).state_after(batch, rows, storage) for block in self.layers)
        carried = self.carried_after(batch, length, storage)
        return ModelState(states, carried, torch.tensor(length, dtype=torch.int64, device=storage.device))

    def carried_after(self, batch: int, length: int, storage: Storage) -> Any:
        """What the model itself keeps after `length` tokens, beside the states of its layers: here nothing."""
        return Empty()

    def generate(
        self,
        input_ids: TokenIds,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: int | Iterable[int] | None = None,
        on_token: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Continues each prompt: all prompt tokens at once, then one token at a time.

        Args:
            input_ids: prompts of one length, (B, T).
            max_new_tokens: at most so many tokens are appended.
            temperature: what the logits are divided by; 0 always takes the likeliest token.
            top_k: draws from the k likeliest tokens only.
            top_p: draws from the likeliest tokens that together have this probability.
            seed: of the draws; None uses PyTorch's global generator.
            stop: id or ids that end a sequence; the id itself is kept, and repeated while other sequences go on.
            on_token: called with the new ids (B,) after each step.

        Returns:
            the prompts with what was appended, (B, T + n), n <= max_new_tokens.

        Raises:
            ValueError: names the argument, what came and what was expected.
        """
        check_ids(input_ids, self.config.vocabulary)
        stops = stop_ids(stop)
        check_request(max_new_tokens, stops, self.config.vocabulary)
        sampling = Sampling(temperature, top_k, top_p)
        return generated(self, input_ids, max_new_tokens, sampling.chooser(seed, input_ids.device), stops, on_token)

    def _check_state(self, state: ModelState, batch: int) -> None:
        if not isinstance(state, ModelState):
            raise ValueError(f"{type(self).__name__}: state must be a ModelState or None, got {type(state).__name__}")
        if len(state.layers) != len(self.layers):
            raise ValueError(
                f"{type(self).__name__}: state has {len(state.layers)} layers, the model has {len(self.layers)}"
            )


def check_ids(input_ids: Tensor, vocabulary: int) -> None:
    """Token ids are (B, T) int64 with at least one token, each below the vocabulary's size."""
    if not isinstance(input_ids, Tensor) or input_ids.dtype != torch.int64:
        found = input_ids.dtype if isinstance(input_ids, Tensor) else type(input_ids).__name__
        raise ValueError(f"input_ids must be an int64 tensor, got {found}")
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        raise ValueError(f"input_ids must be (B, T) with at least one token, got shape {tuple(input_ids.shape)}")
    if torch.compiler.is_compiling() or input_ids.is_meta:
        return
    low, high = (extreme.item() for extreme in input_ids.aminmax())
    if low < 0 or high >= vocabulary:
        raise ValueError(f"input_ids must lie in 0..{vocabulary - 1}, got ids from {low} to {high}")
