"""Choosing the next token, and the loop that appends it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybridlab.state import ModelState

Chooser = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits.

    Attributes:
        temperature: what the logits are divided by; 0 always takes the likeliest token.
        top_k: draws from the k likeliest only; None is all.
        top_p: draws from the likeliest that together have this probability; None is all.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.temperature, Real) and 0 <= self.temperature < float("inf")):
            raise ValueError(f"generate: temperature must be a finite number of at least 0, got {self.temperature!r}")
        if self.top_k is not None and not (isinstance(self.top_k, int) and self.top_k >= 1):
            raise ValueError(f"generate: top_k must be None or an int of at least 1, got {self.top_k!r}")
        if self.top_p is not None and not (isinstance(self.top_p, Real) and 0 < self.top_p <= 1):
            raise ValueError(f"generate: top_p must be None or lie in (0, 1], got {self.top_p!r}")
        if self.temperature == 0 and not (self.top_k is None and self.top_p is None):
            raise ValueError("generate: top_k and top_p need a temperature above 0, got temperature 0 (greedy)")

    def chooser(self, seed: int | None, device: torch.device) -> Chooser:
        """A function from logits (B, vocabulary) to ids (B,)."""
        if seed is not None and not isinstance(seed, int):
            raise ValueError(f"generate: seed must be None or an int, got {seed!r}")
        if self.temperature == 0:
            return lambda logits: logits.argmax(-1)
        source = None if seed is None else torch.Generator(device).manual_seed(seed)
        return lambda logits: torch.multinomial(self.probabilities(logits), 1, generator=source).squeeze(-1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """What tokens are drawn with, (B, vocabulary), in float32 at least."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[..., -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        chances = logits.softmax(-1)
        return chances if self.top_p is None else _nucleus(chances, self.top_p)


def _nucleus(chances: Tensor, top_p: float) -> Tensor:
    """Keeps the likeliest tokens up to the one with which they reach top_p."""
    ordered, ids = chances.sort(-1, descending=True)
    reached_before = ordered.cumsum(-1) - ordered
    kept = ordered.masked_fill(reached_before >= top_p, 0)
    return torch.zeros_like(chances).scatter(-1, ids, kept)


def stop_ids(stop: int | Iterable[int] | None) -> tuple[int, ...]:
    """The ids that end a sequence, as a tuple.

    Raises:
        ValueError: for what is neither an id nor a collection of them.
    """
    if stop is None or isinstance(stop, int):
        return () if stop is None else (stop,)
    try:
        return tuple(stop)
    except TypeError:
        raise ValueError(f"generate: stop must be None, an id or ids, got {stop!r}") from None


def check_request(max_new_tokens: int, stops: Sequence[int], vocabulary: int) -> None:
    """At least one token is asked for, and every stop is an id.

    Raises:
        ValueError: names the argument, what came and what was expected.
    """
    if not isinstance(max_new_tokens, int) or isinstance(max_new_tokens, bool) or max_new_tokens < 1:
        raise ValueError(f"generate: max_new_tokens must be an int of at least 1, got {max_new_tokens!r}")
    for stop in stops:
        if not isinstance(stop, int) or not 0 <= stop < vocabulary:
            raise ValueError(f"generate: stop must hold ids in 0..{vocabulary - 1}, got {stop!r}")


class Step(NamedTuple):
    """What one step chose, ids (B,), and the state it chose from: that of all tokens before."""

    ids: Tensor
    state: ModelState


@torch.no_grad()
def steps(model: Any, input_ids: Tensor, choose: Chooser) -> Iterator[Step]:
    """Endless steps: the first reads all prompts at once, each further one reads what the last one chose.

    Args:
        model: a LanguageModel.
        input_ids: prompts of one length, (B, T).
        choose: from logits (B, vocabulary) to ids (B,), as `Sampling.chooser` makes it.
    """
    x, state = model.hidden(input_ids)
    while True:
        step = Step(choose(model.head(x[:, -1])), state)
        yield step
        x, state = model.hidden(step.ids.unsqueeze(1), state)


def generated(
    model: Any,
    input_ids: Tensor,
    max_new_tokens: int,
    choose: Chooser,
    stops: Sequence[int],
    on_token: Callable[[Tensor], None] | None,
) -> Tensor:
    """The prompts with what the model appends, (B, T + n)."""
    ends = torch.tensor(stops, dtype=torch.int64, device=input_ids.device)
    pieces = [input_ids]
    ended = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
    for step in islice(steps(model, input_ids, choose), max_new_tokens):
        # A sequence that has ended is still computed, for the sake of the others, but no longer shown.
        token = torch.where(ended, pieces[-1][:, -1], step.ids)
        pieces.append(token.unsqueeze(1))
        if on_token is not None:
            on_token(token)
        ended = torch.isin(token, ends)
        if ended.all():
            break
    return torch.cat(pieces, 1)
