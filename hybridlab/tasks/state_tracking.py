"""State tracking: things lie in a row, every token moves them, and after every token the order is asked for.

    three cups in a row, and the moves: nothing, swap 1 and 2, swap 1 and 3, swap 2 and 3. Where is each cup now?

No move can be forgotten and none can be skipped: the answer depends on all of them, in their order. "parity" is the same
with two things: is the number of swaps odd? In "orders of 3" a move is any of the six orders of three things, turns of all
three included: one step of a delta rule mirrors the state, and it takes two mirrors to turn it.

Every batch is drawn afresh, so nothing can be learnt by heart. `tracking_results()` are the runs of the sweep that
`OMP_NUM_THREADS=1 python -m hybridlab.tasks.state_tracking` makes, and `run` is one of them, live. What they show is about
these sizes, this many steps and one learning rate: that a model does not learn here does not prove that it cannot.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hybridlab.layers import Depth, Layer, MambaMixer, MambaSizes, ResidualBlock, RWKV7Ranks, RWKV7TimeMixing, SwiGLU
from hybridlab.layers.delta_mixer import DeltaMixer
from hybridlab.measure.tables import Report, Table
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel
from hybridlab.shapes import TokenIds
from hybridlab.tasks.train import Batch, train

DATA = Path(__file__).with_name("data") / "state_tracking.json"
COMMAND = "python -m hybridlab.tasks.state_tracking"
MEASURED_SEED = 1_000_000  # of the sequences to measure on: far from any seed of training
DIGITS = 4

Order = tuple[int, ...]


@dataclass(frozen=True)
class Moves:
    """What can happen to a row of things.

    Attributes:
        each: the moves; after move m the thing at place i is the one that lay at place m[i].
    """

    each: tuple[Order, ...]

    @property
    def orders(self) -> tuple[Order, ...]:
        """All orders of the things. The first is the one at the start; an answer is a number of this list."""
        return tuple(permutations(range(len(self.each[0]))))

    @property
    def after(self) -> Tensor:
        """The number of the order that each move leads to from each order, int64, (orders, moves)."""
        number = {order: index for index, order in enumerate(self.orders)}
        return torch.tensor([[number[tuple(order[i] for i in move)] for move in self.each] for order in self.orders])

    def labels(self, moves: TokenIds) -> TokenIds:
        """The order after every move, (B, T), of moves (B, T)."""
        after, order, found = self.after, torch.zeros(len(moves), dtype=torch.int64), []
        for move in moves.unbind(1):
            order = after[order, move]
            found.append(order)
        return torch.stack(found, 1)


TASKS = {
    "parity": Moves(((0, 1), (1, 0))),
    "swaps of 3": Moves(((0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1))),
    "orders of 3": Moves(tuple(permutations(range(3)))),
}


def sequences(moves: Moves, length: int, batch: int) -> Callable[[torch.Generator], Batch]:
    """Draws moves evenly, and the order after each of them: input_ids and targets, both (B, T), from a generator."""

    def drawn(generator: torch.Generator) -> Batch:
        ids = torch.randint(len(moves.each), (batch, length), generator=generator)
        return ids, moves.labels(ids)

    return drawn


@dataclass(frozen=True)
class Recipe:
    """How every model of the sweep is made; chosen once, and not tuned for any of them.

    Attributes:
        width: D.
        heads: H, of mixers with heads.
        head_width: K = V.
        steps: updates.
        batch: sequences in each.
        length: of the sequences to learn from.
        tested: length of those to measure on.
        sequences: so many of them.
        learning_rate: the highest.
        weight_decay: of linear layers.
    """

    width: int = 32
    heads: int = 2
    head_width: int = 16
    steps: int = 300
    batch: int = 64
    length: int = 32
    tested: int = 64
    sequences: int = 512
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2


FULL = Recipe()
SEEDS = 3
LAYERS = {"parity": (1, 2), "swaps of 3": (1, 2), "orders of 3": (1,)}  # how deep the models of the sweep are


def _delta(strongest: float) -> Callable[[Recipe, Depth], Layer]:
    return lambda recipe, depth: DeltaMixer(recipe.width, recipe.heads, recipe.head_width, strongest)


def _mamba(recipe: Recipe, depth: Depth) -> Layer:
    return MambaMixer(recipe.width, MambaSizes(2 * recipe.width, 4), depth)


def _rwkv7(recipe: Recipe, depth: Depth) -> Layer:
    sizes = (recipe.width, recipe.heads, recipe.head_width, RWKV7Ranks(8, 8, 8, 8))
    return RWKV7TimeMixing(*sizes, depth, first=depth.layer == 0)


MIXERS = {
    "delta rule, beta to 2": _delta(2.0),
    "delta rule, beta to 1": _delta(1.0),
    "Mamba": _mamba,
    "RWKV-7": _rwkv7,
}


class Run(NamedTuple):
    """One model, trained from one seed.

    Attributes:
        task: one of TASKS.
        mixer: one of MIXERS.
        layers: so many of them.
        seed: of its initial weights and of its batches.
        loss: of the last batch, in nats a token.
        inside: share of right answers at the places that it was trained on.
        beyond: share at the places after those.
    """

    task: str
    mixer: str
    layers: int
    seed: int
    loss: float
    inside: float
    beyond: float


@dataclass(frozen=True, repr=False)
class TrackingResults(Report):
    """Runs, and what they were made with; shows itself as a table, a row for all seeds of one model.

    Attributes:
        runs: in the order in which they were made.
        recipe: of all of them.
    """

    runs: tuple[Run, ...]
    recipe: Recipe

    def of(self, task: str, mixer: str, layers: int) -> list[Run]:
        """The runs that differ in nothing but their seed."""
        return [run for run in self.runs if run[:3] == (task, mixer, layers)]

    def table(self) -> Table:
        """Mean, lowest and highest share of right answers of each model's seeds."""
        inside, beyond = f"to {self.recipe.length}", f"{self.recipe.length + 1} to {self.recipe.tested}"
        columns = ("task", "guess", "mixer", "layers", inside, beyond)
        rows = []
        for task, mixer, layers in dict.fromkeys(run[:3] for run in self.runs):
            runs = self.of(task, mixer, layers)
            shares = (_spread([getattr(run, name) for run in runs]) for name in ("inside", "beyond"))
            rows.append((task, f"{100 / len(TASKS[task].orders):.1f}", mixer, str(layers), *shares))
        seeds = len({run.seed for run in self.runs})
        title = f"Right answers in %, at trained and at later places: mean (lowest to highest) of seeds, {seeds} a model"
        return Table(title, columns, tuple(rows), frozenset(columns) - {"task", "mixer"})


def new_model(task: str, mixer: str, layers: int, seed: int, recipe: Recipe = FULL) -> LanguageModel:
    """A model before its first batch: mixers and gated MLPs behind RMS norms, the same but for the mixer.

    Raises:
        ValueError: for a task or a mixer that does not exist.
    """
    for name, chosen, known in (("task", task, TASKS), ("mixer", mixer, MIXERS)):
        if chosen not in known:
            raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}, got {chosen!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = [_block(mixer, recipe, Depth(layer, layers)) for layer in range(layers)]
        config = Config(len(TASKS[task].orders), recipe.width, layers)
        return LanguageModel(config, blocks, nn.RMSNorm(recipe.width))


def run(task: str, mixer: str, layers: int = 1, seed: int = 0, recipe: Recipe = FULL, bar: bool = True) -> Run:
    """Trains one model and measures it: some seconds; `bar` shows its progress.

    Raises:
        ValueError: for a task or a mixer that does not exist.
    """
    model = new_model(task, mixer, layers, seed, recipe)
    drawn = sequences(TASKS[task], recipe.length, recipe.batch)
    rate, decay = recipe.learning_rate, recipe.weight_decay
    log = train(model, drawn, steps=recipe.steps, seed=seed, learning_rate=rate, weight_decay=decay, bar=bar)
    right = right_at(model, task, recipe)
    shares = (round(part.mean().item(), DIGITS) for part in (right[: recipe.length], right[recipe.length :]))
    return Run(task, mixer, layers, seed, round(log[-1].loss, DIGITS), *shares)


@torch.no_grad()
def right_at(model: LanguageModel, task: str, recipe: Recipe = FULL) -> Tensor:
    """Share of right answers at each place of fresh sequences, (tested,)."""
    ids, targets = sequences(TASKS[task], recipe.tested, recipe.sequences)(torch.Generator().manual_seed(MEASURED_SEED))
    return (model.eval()(ids).logits.argmax(-1) == targets).double().mean(0)


def choices(seeds: int = SEEDS) -> list[tuple[str, int, str, int]]:
    """What the sweep goes through: task, layers, mixer and seed of each run."""
    return [(task, *rest) for task in TASKS for rest in product(LAYERS[task], MIXERS, range(seeds))]


def sweep(seeds: int = SEEDS, recipe: Recipe = FULL) -> TrackingResults:
    """Every task with every mixer, from several seeds: some minutes of one core. One bar, which says what runs."""
    runs = []
    with tqdm(choices(seeds), unit="run") as bar:
        for task, layers, mixer, seed in bar:
            bar.set_postfix_str(f"{task}, {mixer}, {layers} layer{'s' * (layers > 1)}, seed {seed}")
            runs.append(run(task, mixer, layers, seed, recipe, bar=False))
    return TrackingResults(tuple(runs), recipe)


def tracking_results(path: str | Path = DATA) -> TrackingResults:
    """The committed sweep, or one that was written elsewhere.

    Raises:
        ValueError: if it is not there.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path: {path} is not there; `{COMMAND} --out FILE` writes it")
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return TrackingResults(tuple(Run(**each) for each in report["runs"]), Recipe(**report["recipe"]))


def write(results: TrackingResults, path: str | Path) -> None:
    """Writes a sweep as `tracking_results` reads it: a line a run."""
    runs = ",\n".join(f"  {json.dumps(each._asdict())}" for each in results.runs)
    text = f'{{\n "recipe": {json.dumps(asdict(results.recipe))},\n "runs": [\n{runs}\n ]\n}}\n'
    Path(path).write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Makes the sweep and writes it."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=DATA, help="file to write; by default the committed one")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each model")
    parser.add_argument("--steps", type=int, default=FULL.steps, help="of training each")
    options = parser.parse_args(arguments)
    results = sweep(options.seeds, Recipe(steps=options.steps))
    write(results, options.out)
    print(results)


def _block(mixer: str, recipe: Recipe, depth: Depth) -> ResidualBlock:
    norms = (nn.RMSNorm(recipe.width) for _ in range(2))
    return ResidualBlock(MIXERS[mixer](recipe, depth), SwiGLU(recipe.width, 2 * recipe.width, depth), *norms)


def _spread(shares: list[float]) -> str:
    low, high, mean = (100 * x for x in (min(shares), max(shares), sum(shares) / len(shares)))
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
