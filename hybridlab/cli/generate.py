"""`hybridlab generate`: a prompt goes on, token by token, in the words of any checkpoint; and what each token cost."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from hybridlab.layers import set_backend
from hybridlab.measure.memory import DTYPES
from hybridlab.measure.storages import cached_storages, storage_key
from hybridlab.models import PRESETS, LanguageModel, load_checkpoint
from hybridlab.models.sampling import Sampling, Step, check_request, steps
from hybridlab.models.tokenizer import Tokenizer, end_ids, load_tokenizer
from hybridlab.state import ModelState, state_nbytes, state_tensors


@dataclass(frozen=True)
class Source:
    """Which model, and how it runs.

    Attributes:
        path: a checkpoint's folder or file.
        vocab: a tokenizer.json or RWKV's vocabulary, where the folder has none.
        dtype: of the weights, a key of `hybridlab.measure.memory.DTYPES`.
        backend: of the ops.
        device: cpu or cuda; None is the GPU where there is one.
    """

    path: Path
    vocab: Path | None = None
    dtype: str = "float32"
    backend: str = "auto"
    device: str | None = None

    def check(self) -> None:
        """Raises ValueError for what can be seen before anything is loaded."""
        if not self.path.exists() and str(self.path) in PRESETS:
            raise ValueError(f"generate: {self.path} is a preset, and a preset has no weights: give a checkpoint's path")
        if not self.path.exists():
            raise ValueError(f"generate: no such file or folder: {self.path}")
        if self.dtype not in DTYPES:
            raise ValueError(f"generate: dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.device not in (None, "cpu", "cuda"):
            raise ValueError(f"generate: device must be cpu or cuda, got {self.device!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("generate: device is cuda, but PyTorch finds no GPU here")

    def load(self) -> LanguageModel:
        """The model, ready to run."""
        model = load_checkpoint(self.path, dtype=DTYPES[self.dtype])
        set_backend(model, self.backend)
        return model.to(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class Request:
    """What is asked of the model.

    Attributes:
        prompt: the text that goes on.
        max_new_tokens: at most so many tokens are added.
        sampling: how they are drawn.
        seed: of the draws; None draws others each time.
        stops: texts that end the answer and are not shown, or names of special tokens.
    """

    prompt: str
    max_new_tokens: int
    sampling: Sampling
    seed: int | None = None
    stops: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises ValueError for what needs no model to be seen."""
        if not self.prompt:
            raise ValueError("generate: the prompt is empty; give at least a word")
        if any("\ud800" <= character <= "\udfff" for character in self.prompt):
            raise ValueError("generate: the prompt has bytes that are not UTF-8")
        if "" in self.stops:
            raise ValueError("generate: a stop is an empty text, which is everywhere")
        check_request(self.max_new_tokens, (), 0)


class Cost(NamedTuple):
    """One step: its seconds, the tokens read by then, the bytes kept of them."""

    seconds: float
    tokens: int
    cache_bytes: int
    state_bytes: int


@dataclass
class Record:
    """What a continuation cost.

    Attributes:
        prompt: tokens of the prompt.
        costs: one a step; the first reads the whole prompt.
        interrupted: whether Ctrl-C ended it.
    """

    prompt: int
    costs: list[Cost] = field(default_factory=list)
    interrupted: bool = False

    def __str__(self) -> str:
        if not self.costs:
            return f"prompt: {self.prompt:,} tokens; interrupted before the first new one"
        first, *others = self.costs
        speeds = f"prompt: {self.prompt:,} tokens, {self.prompt / first.seconds:,.1f} tokens/s; "
        new = f"new: {len(self.costs):,} tokens"
        if others:
            new += f", {len(others) / sum(cost.seconds for cost in others):,.1f} tokens/s"
        last = self.costs[-1]
        kept = f"kept after {last.tokens:,} tokens: cache {last.cache_bytes:,} B, state {last.state_bytes:,} B"
        return f"{speeds}{new}\n{kept}"


class UntilStop:
    """Text as it comes, up to the first of some texts. What may be the beginning of one of them is held back.

    Attributes:
        ended: whether one of them has come.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops, self.held, self.ended = stops, "", False

    def push(self, piece: str) -> str:
        """What is certain to belong to the text."""
        text = self.held + piece
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        self.ended = bool(places)
        certain = min(places) if places else len(text) - max((_overlap(text, stop) for stop in self.stops), default=0)
        self.held = "" if self.ended else text[certain:]
        return text[:certain]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of the text that the stop begins with."""
    return next((length for length in range(len(stop) - 1, 0, -1) if text.endswith(stop[:length])), 0)


def go_on(source: Source, request: Request, show: Callable[[str], None]) -> Record:
    """Loads a checkpoint and shows how its model continues a prompt, as the text comes.

    Args:
        source: the model.
        request: the prompt, and how it is continued.
        show: called with each new piece of text.

    Returns:
        what it cost; what was done so far, if Ctrl-C ended it.

    Raises:
        ValueError: a missing or foreign file, a vocabulary that does not fit the model, an argument that makes no sense.
    """
    source.check()
    request.check()
    tokenizer = load_tokenizer(source.path, source.vocab)
    prompt = tokenizer.encode(request.prompt)
    if not prompt:
        raise ValueError(f"generate: the tokenizer finds no token in the prompt {request.prompt!r}")
    model = source.load()
    ends = _ends(tokenizer, source.path, request, model.config.vocabulary)
    ids = torch.tensor([prompt], device=model.embedding.weight.device)
    _warm_up(model, ids)
    choose = request.sampling.chooser(request.seed, ids.device)
    record, stream, text = Record(len(prompt)), tokenizer.stream(prompt), UntilStop(request.stops)
    try:
        for token, cost in islice(_timed(steps(model, ids, choose)), request.max_new_tokens):
            record.costs.append(cost)
            if token in ends:
                break
            show(text.push(stream.push(token)))
            if text.ended:
                return record
    except KeyboardInterrupt:
        record.interrupted = True
    show(text.push(stream.finish()) + text.held)
    return record


def _ends(tokenizer: Tokenizer, path: Path, request: Request, vocabulary: int) -> set[int]:
    """The ids that end the text: those that the checkpoint names, and the special tokens that are asked for."""
    if tokenizer.size > vocabulary:
        raise ValueError(
            f"generate: the tokenizer has ids up to {tokenizer.size - 1}, the model only up to {vocabulary - 1}: "
            "this is the vocabulary of another model"
        )
    ends = {*end_ids(path), *tokenizer.ends, *tokenizer.specials(request.stops)}
    check_request(request.max_new_tokens, tuple(ends), vocabulary)
    return ends


@torch.no_grad()
def _warm_up(model: LanguageModel, ids: Tensor) -> None:
    """Kernels are compiled at their first call, which is no speed of theirs."""
    _, state = model.hidden(ids[:, :2])
    model.hidden(ids[:, :1], state)


def _timed(endless: Iterator[Step]) -> Iterator[tuple[int, Cost]]:
    """The id that each step chose, and the step's cost."""
    while True:
        start = perf_counter()
        step = next(endless)
        token = int(step.ids)  # waits for a GPU
        seconds = perf_counter() - start
        yield token, Cost(seconds, int(step.state.position), *_kept(step.state))


def _kept(state: ModelState) -> tuple[int, int]:
    """Bytes of attention's caches, and of all else."""
    cached = cached_storages(state)
    cache = state_nbytes([tensor for tensor in state_tensors(state) if storage_key(tensor) in cached])
    return cache, state_nbytes(state) - cache
