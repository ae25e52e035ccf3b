"""Released-layout files against the `rwkv` package, row by row (it has no batch), at sizes the golden files do not have."""

import pytest
import torch
from rwkv_reference import reference_logits

from hybridlab.models import LanguageModel, load_checkpoint, set_backend

pytest.importorskip("rwkv")

TOLERANCE = 2e-4  # of the largest logit
VOCABULARY, WIDTH, LAYERS, HEADS, FFN = 37, 24, 3, 2, 40
BATCH, LENGTH = 2, 33


def released(version: str) -> dict[str, torch.Tensor]:
    """A random file of a version, with the names and shapes of the authors' files."""
    shapes = {"emb.weight": (VOCABULARY, WIDTH), "blocks.0.ln0.weight": (WIDTH,), "blocks.0.ln0.bias": (WIDTH,)}
    for layer in range(LAYERS):
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block_shapes(version).items()}
    shapes |= {"ln_out.weight": (WIDTH,), "ln_out.bias": (WIDTH,), "head.weight": (VOCABULARY, WIDTH)}
    generator = torch.Generator().manual_seed(int(version))
    return {name: draw(name, shape, generator) for name, shape in shapes.items()}


def draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    if "ln" in name and name.endswith("weight"):
        return 1 + 0.3 * noise
    if "time_mix" in name or ("time_maa" in name and "_w1" not in name and "_w2" not in name):
        return torch.rand(shape, generator=generator)
    if name.endswith(("time_decay", "time_first", "time_faaaa")) or len(shape) == 1:
        return noise
    return 1.2 * noise / shape[-1] ** 0.5


def block_shapes(version: str) -> dict[str, tuple[int, ...]]:
    square, vector, mix = (WIDTH, WIDTH), (WIDTH,), (1, 1, WIDTH)
    shapes: dict[str, tuple[int, ...]] = {f"ln{i}.{kind}": vector for i in (1, 2) for kind in ("weight", "bias")}
    shapes |= {f"att.{name}.weight": square for name in ("key", "value", "receptance", "output")}
    shapes |= {"ffn.key.weight": (FFN, WIDTH), "ffn.receptance.weight": square, "ffn.value.weight": (WIDTH, FFN)}
    mixing = "time_maa" if version == "6" else "time_mix"
    shapes |= {f"ffn.{mixing}_{name}": mix for name in "kr"}
    letters = {"4": "kvr", "5": "kvrg", "6": "xwkvrg"}[version]
    shapes |= {f"att.{mixing}_{name}": mix for name in letters}
    if version == "4":
        return shapes | {"att.time_decay": vector, "att.time_first": vector}
    heads = (HEADS, WIDTH // HEADS)
    shapes |= {"att.gate.weight": square, "att.ln_x.weight": vector, "att.ln_x.bias": vector, "att.time_faaaa": heads}
    if version == "5":
        return shapes | {"att.time_decay": heads}
    lora = {"att.time_maa_w1": (WIDTH, 5 * 6), "att.time_maa_w2": (5, 6, WIDTH)}
    lora |= {"att.time_decay_w1": (WIDTH, 10), "att.time_decay_w2": (10, WIDTH)}
    return shapes | lora | {"att.time_decay": mix}


@pytest.fixture(scope="module", params=["4", "5", "6"], ids=["rwkv4", "rwkv5", "rwkv6"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LanguageModel, torch.Tensor, torch.Tensor]:
    path = tmp_path_factory.mktemp(f"rwkv{request.param}") / "tiny.pth"
    torch.save(released(request.param), path)
    ids = torch.randint(0, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(3))
    model = load_checkpoint(path)
    assert type(model).__name__ == f"RWKV{request.param}"
    set_backend(model, "naive")
    return model, ids, reference_logits(path, ids)


@pytest.mark.minutes
@torch.no_grad()
def test_every_row(pair: tuple[LanguageModel, torch.Tensor, torch.Tensor]) -> None:
    model, ids, expected = pair
    got = model(ids).logits
    for row in range(BATCH):
        assert ((got[row] - expected[row]).abs().max() / expected[row].abs().max()).item() < TOLERANCE


@torch.no_grad()
def test_prefix_continued_in_odd_chunks(pair: tuple[LanguageModel, torch.Tensor, torch.Tensor]) -> None:
    model, ids, expected = pair
    state, pieces = None, []
    for chunk in ids.split([17, 1, 11, 4], 1):
        logits, state = model(chunk, state)
        pieces.append(logits)
    assert ((torch.cat(pieces, 1) - expected).abs().max() / expected.abs().max()).item() < TOLERANCE
