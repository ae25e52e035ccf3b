"""The trainer: AdamW, warmup and cosine, clipped gradients, under a budget of steps and of seconds.

Progress is the larger of the two fractions spent, steps and seconds, and the learning rate is a function of progress. So a
slow machine takes fewer steps but still comes to the end of the schedule: it never stops in the middle at a high rate.
Without a budget of seconds a run depends on its seed alone.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hybridlab.shapes import Logits, TokenIds

Batch = tuple[TokenIds, TokenIds]
WARMUP = 0.05  # fraction of the run
FLOOR = 0.05  # last learning rate, as a fraction of the highest
BETAS = (0.9, 0.98)  # a short memory of squared gradients: short runs change fast
MAX_GRADIENT_NORM = 1.0
IGNORED = -100  # a target that is not scored


class Step(NamedTuple):
    """One line of the log. `progress` runs to 1; loss in nats a token; `gradient_norm` before clipping."""

    step: int
    progress: float
    seconds: float
    loss: float
    learning_rate: float
    gradient_norm: float


def train(
    model: nn.Module,
    batches: Callable[[torch.Generator], Batch],
    *,
    steps: int,
    seconds: float = math.inf,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.1,
    seed: int = 0,
    on_step: Callable[[Step], None] | None = None,
    bar: bool = True,
) -> list[Step]:
    """Trains a model to predict each next token.

    Args:
        model: called as model(input_ids).logits.
        batches: draws (input_ids, targets), both (B, T), from a generator; a target of -100 is not scored.
        steps: at most so many updates.
        seconds: at most so long. Kernels are compiled and warm before the clock starts.
        learning_rate: the highest, after the warmup.
        weight_decay: of the weights of linear layers; nothing else decays.
        seed: of the batches.
        on_step: called with every line of the log. Its time counts.
        bar: shows progress. Who trains many models shows one bar for all of them.

    Returns:
        the log, one `Step` an update.

    Raises:
        ValueError: steps or seconds not positive.
        FloatingPointError: the loss or a gradient stops being finite.

    Source: AdamW, arXiv 1711.05101; cosine schedule, arXiv 1608.03983. Chapter 03.
    """
    if steps < 1 or seconds <= 0:
        raise ValueError(f"steps and seconds must be positive, got steps={steps}, seconds={seconds}")
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(decay_groups(model, weight_decay), lr=learning_rate, betas=BETAS, fused=True)
    was_training = model.training
    model.train()
    _warm_up(model, batches)
    log: list[Step] = []
    start = time.monotonic()
    bar_format = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(total=100, unit="%", bar_format=bar_format, disable=not bar) as shown:
        while not log or log[-1].progress < 1:
            progress = max((len(log) + 1) / steps, (time.monotonic() - start) / seconds)
            rate = learning_rate * schedule(progress)
            loss, norm = _update(model, optimizer, batches(generator), rate)
            log.append(Step(len(log) + 1, min(progress, 1.0), time.monotonic() - start, loss, rate, norm))
            _check_finite(log[-1])
            shown.update(round(100 * log[-1].progress) - shown.n)
            shown.set_postfix(step=len(log), loss=f"{loss:.3f}", refresh=False)
            if on_step is not None:
                on_step(log[-1])
    model.train(was_training)
    return log


def next_token_loss(logits: Logits, targets: TokenIds) -> Tensor:
    """Mean cross-entropy over the scored targets, in nats a token."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


@torch.no_grad()
def evaluate(model: nn.Module, batches: Callable[[torch.Generator], Batch], *, count: int = 8, seed: int = 1) -> float:
    """Mean loss over `count` batches, in nats a token, the model in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    losses = []
    for _ in range(count):
        inputs, targets = batches(generator)
        losses.append(next_token_loss(model(inputs).logits, targets))
    model.train(was_training)
    return torch.stack(losses).mean().item()


def schedule(progress: float) -> float:
    """Learning rate at a fraction of the run, as a fraction of the highest: a straight rise, then half a cosine."""
    if progress < WARMUP:
        return progress / WARMUP
    falling = min((progress - WARMUP) / (1 - WARMUP), 1.0)
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * falling)) / 2


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups of AdamW: the weights of linear layers decay; embeddings, norms, biases, clocks and mixes do not.

    A head that shares its weight with an embedding counts as an embedding.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)} - embeddings
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) in linear], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in linear], "weight_decay": 0.0},
    ]


def _warm_up(model: nn.Module, batches: Callable[[torch.Generator], Batch]) -> None:
    # Numba compiles at the first call, backward included: outside the clock, and without touching the run's generator.
    inputs, targets = batches(torch.Generator().manual_seed(0))
    next_token_loss(model(inputs).logits, targets).backward()
    model.zero_grad(set_to_none=True)


def _update(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, rate: float) -> tuple[float, float]:
    inputs, targets = batch
    loss = next_token_loss(model(inputs).logits, targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    for group in optimizer.param_groups:
        group["lr"] = rate
    if torch.isfinite(norm):
        optimizer.step()
    return loss.item(), norm.item()


def _check_finite(step: Step) -> None:
    if not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm)):
        raise FloatingPointError(
            f"training diverged at step {step.step}: loss {step.loss}, gradient norm {step.gradient_norm}, "
            f"learning rate {step.learning_rate:.2g}; the weights are those of the step before; try a lower learning rate"
        )
