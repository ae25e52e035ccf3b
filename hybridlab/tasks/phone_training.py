"""How the three phone-book models of `phone_models.py` are trained, measured and written: `hybridlab train phone-book`.

All three have the same optimizer, the same number of steps and the same books: short ones first, from which a model finds
out what a phone book is, then all sizes mixed. With 500 steps instead of 1500 the outcome hung on the seed: two hybrids of
three had not discovered their attention by then.
"""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import nn

from hybridlab.layers import GroupedAttention
from hybridlab.models.hybrid import HybridConfig, HybridLM
from hybridlab.state import state_nbytes
from hybridlab.tasks.phone_book import VOCABULARY, Lessons, phone_book
from hybridlab.tasks.phone_models import REPORT, WEIGHTS, Result, phone_models, read, scores
from hybridlab.tasks.train import train


class Shape(NamedTuple):
    """What the models differ in.

    Attributes:
        pattern: a letter a layer; see `hybridlab.models.hybrid`.
        heads: H.
        head_width: K = V.
    """

    pattern: str
    heads: int
    head_width: int


# W looks back one token only: which number stands behind which name is a matter of neighbours, and a full layer does not
# always find that out within these steps. Token shift does the same for R.
SHAPES = {
    "attention": Shape("WAA", heads=4, head_width=16),
    "fixed state": Shape("RRR", heads=2, head_width=12),
    "hybrid": Shape("RAR", heads=4, head_width=16),
}
SIZES = (2, 4, 8, 16, 32, 48, 64)  # pairs of the books that are measured
MEASURED_SEED = 1_000_000  # of the books to measure on: far from any seed of training
WINDOW = 2  # of W: the token itself and the one before
SHARP = 0.06  # spread of the first queries' and keys' weights
STORED = torch.bfloat16


@dataclass(frozen=True)
class Recipe:
    """How all three models are made.

    Attributes:
        width: D.
        ffn_width: F.
        steps: updates.
        first: how many of them see short books only.
        short: pairs of the longest among short books.
        longest: pairs of the longest books.
        tokens: about so many in each batch.
        learning_rate: the highest.
        books: to measure each size on.
    """

    width: int = 64
    ffn_width: int = 64
    steps: int = 1500
    first: int = 200
    short: int = 8
    longest: int = 64
    tokens: int = 2048
    learning_rate: float = 4e-3
    books: int = 100


QUICK = Recipe(steps=2, books=2)  # to see that it runs: such models know nothing
FULL = Recipe()


def train_phone_models(
    out: str | Path, seed: int = 0, recipe: Recipe = FULL, on_model: Callable[[str], None] | None = None
) -> tuple[Path, Path]:
    """Trains, measures and writes the three models, as `phone_models(out)` and `phone_results(out)` read them.

    What was in the folder before is replaced when all three are trained and measured, and not touched until then. One seed
    gives the same files again on the same machine with as many threads; elsewhere sums are rounded differently.

    Args:
        out: folder to write to; made if it is not there.
        seed: of the initial weights and of the books.
        recipe: sizes and steps.
        on_model: called with the name of each model before it is trained.

    Returns:
        the file of the weights and the file of the report.

    Raises:
        ValueError: if the folder cannot be written to; raised before anything is trained.
    """
    out = Path(out)
    with _workplace(out) as draft:
        models = {}
        for name, shape in SHAPES.items():
            if on_model is not None:
                on_model(name)
            models[name] = trained(shape, seed, recipe)
        _write(draft, models, {"seed": seed, **asdict(recipe)})
        for file in (WEIGHTS, REPORT):
            os.replace(Path(draft) / file, out / file)
    return out / WEIGHTS, out / REPORT


def trained(shape: Shape, seed: int, recipe: Recipe) -> HybridLM:
    """One model, taught by the recipe."""
    model = new_model(shape, seed, recipe)
    books = Lessons((recipe.short, recipe.longest), recipe.first, recipe.tokens)
    train(model, books, steps=recipe.steps, learning_rate=recipe.learning_rate, seed=seed)
    return model.eval()


def new_model(shape: Shape, seed: int, recipe: Recipe) -> HybridLM:
    """A model before its first lesson."""
    config = HybridConfig(
        vocabulary=len(VOCABULARY),
        width=recipe.width,
        ffn_width=recipe.ffn_width,
        window=WINDOW,
        pattern=shape.pattern,
        heads=shape.heads,
        head_width=shape.head_width,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HybridLM(config)
        for layer in model.modules():
            if isinstance(layer, GroupedAttention):
                _sharpen(layer)
    return model


def _sharpen(layer: GroupedAttention) -> None:
    # GPT-2's spread of 0.02 suits widths in the thousands. In a narrow model all scores would start near 0 and attention
    # would look at everything alike; with three times the spread it finds out earlier that one place matters.
    for linear in (layer.query, layer.key):
        nn.init.normal_(linear.weight, std=SHARP)


def _workplace(out: Path) -> tempfile.TemporaryDirectory:
    """A folder inside `out`, so that what is written there can be moved at once; gone when all is done, or nothing is."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".training-", dir=out)
    except OSError as error:
        raise ValueError(f"out: cannot write into {out} ({error.strerror}); give a folder of your own") from None


def _write(draft: str, models: dict[str, HybridLM], recipe: dict) -> None:
    """The files; what is measured are the models that these files hold, rounding included."""
    folder = Path(draft)
    tensors = {f"{name}.{key}": x.to(STORED) for name, model in models.items() for key, x in model.state_dict().items()}
    (folder / WEIGHTS).write_bytes(save(tensors))
    report = {"configs": {name: asdict(model.config) for name, model in models.items()}, "recipe": recipe, "results": []}
    _save(report, folder)
    report["results"] = [
        measure(name, model, pairs, recipe["books"])._asdict()
        for name, model in phone_models(folder).items()
        for pairs in SIZES
    ]
    _save(report, folder)


def measure(name: str, model: HybridLM, pairs: int, books: int, seed: int = MEASURED_SEED) -> Result:
    """How well a model answers from books of one size, and what it keeps of each."""
    each = scores(model, pairs, books, seed)
    error = (each.std() / books**0.5).item()
    nbytes = state_nbytes(read(model, phone_book(pairs)))
    return Result(name, pairs, round(each.mean().item(), 4), round(error, 4), nbytes, books)


def _save(report: dict, folder: Path) -> None:
    (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
