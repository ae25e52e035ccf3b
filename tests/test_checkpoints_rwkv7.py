"""Files of RWKV-7 in the authors' layout: against the `rwkv` package, and what is wrong with a file."""

from pathlib import Path

import pytest
import torch
from rwkv_reference import reference_logits

from hybridlab.models import RWKV7, RWKV6Config, RWKV7Config, load_checkpoint, set_backend

TOLERANCE = 2e-5  # of the largest logit
VOCABULARY, WIDTH, LAYERS, HEADS, FFN = 37, 24, 3, 2, 40
RANKS = {"w": 10, "a": 6, "v": 5, "g": 9}
SIZES = RWKV7Config(VOCABULARY, WIDTH, LAYERS, WIDTH // HEADS, HEADS, FFN, *RANKS.values())


def released(layers: int = LAYERS, unread: bool = False) -> dict[str, torch.Tensor]:
    """A random file with the names and shapes of the authors'. Some have tensors in the first layer that nothing reads."""
    shapes: dict[str, tuple[int, ...]] = {"emb.weight": (VOCABULARY, WIDTH), "head.weight": (VOCABULARY, WIDTH)}
    for norm in ("blocks.0.ln0", "ln_out"):
        shapes |= {f"{norm}.{kind}": (WIDTH,) for kind in ("weight", "bias")}
    for layer in range(layers):
        networks = "wavg" if layer or unread else "wag"
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block_shapes(networks).items()}
    generator = torch.Generator().manual_seed(7)
    return {name: draw(name, shape, generator) for name, shape in sorted(shapes.items())}


def block_shapes(networks: str) -> dict[str, tuple[int, ...]]:
    vector, mix = (WIDTH,), (1, 1, WIDTH)
    shapes: dict[str, tuple[int, ...]] = {
        f"{norm}.{kind}": vector for norm in ("ln1", "ln2", "att.ln_x") for kind in ("weight", "bias")
    }
    shapes |= {f"att.{name}.weight": (WIDTH, WIDTH) for name in ("key", "value", "receptance", "output")}
    shapes |= {"ffn.key.weight": (FFN, WIDTH), "ffn.value.weight": (WIDTH, FFN), "ffn.x_k": mix}
    shapes |= {f"att.x_{name}": mix for name in "rwkvag"} | {"att.k_k": mix, "att.k_a": mix}
    shapes |= {f"att.{name}0": mix for name in networks if name != "g"}
    shapes |= {f"att.{name}1": (WIDTH, RANKS[name]) for name in networks}
    shapes |= {f"att.{name}2": (RANKS[name], WIDTH) for name in networks}
    return shapes | {"att.r_k": (HEADS, WIDTH // HEADS)}


def draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    if "ln" in name and name.endswith("weight"):
        return 1 + 0.3 * noise
    if ".x_" in name:
        return torch.rand(shape, generator=generator)
    return noise if shape[-1] == noise.numel() or name.endswith("r_k") else 1.2 * noise / shape[-1] ** 0.5


def saved(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path = folder / "tiny.pth"
    torch.save(tensors, path)
    return path


def prompt() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (2, 33), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_every_row_at_once_and_in_odd_chunks(tmp_path: Path) -> None:
    """Three layers: the third takes the values of the first, not of the second."""
    pytest.importorskip("rwkv")
    path, ids = saved(tmp_path, released()), prompt()
    model = load_checkpoint(path)
    assert type(model) is RWKV7
    assert model.config == SIZES
    set_backend(model, "naive")
    expected = reference_logits(path, ids, version=7)
    state, pieces = None, []
    for chunk in ids.split([17, 1, 11, 4], 1):
        logits, state = model(chunk, state)
        pieces.append(logits)
    for got in (model(ids).logits, torch.cat(pieces, 1)):
        for row, wanted in zip(got, expected, strict=True):
            assert ((row - wanted).abs().max() / wanted.abs().max()).item() < TOLERANCE


def test_what_nothing_reads_may_be_there(tmp_path: Path) -> None:
    model = load_checkpoint(saved(tmp_path, released(unread=True)))
    assert model.config == SIZES
    assert model.layers[0].mixer.first_share is None


def test_one_layer_and_a_configuration(tmp_path: Path) -> None:
    """Nothing says how wide the network is that the only layer lacks."""
    path = saved(tmp_path, released(layers=1))
    assert load_checkpoint(path).config.decay_rank == RANKS["w"]
    model = load_checkpoint(path, RWKV7Config(VOCABULARY, WIDTH, 1, *(WIDTH // HEADS, HEADS, FFN), *RANKS.values()))
    assert model.config.value_rank == RANKS["v"]


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("blocks.1.att.a2", None, r"missing tensor blocks\.1\.att\.a2 for RWKV-7 \.pth"),
        ("blocks.1.att.v1", None, r"missing tensor 'blocks\.1\.att\.v1'"),
        ("blocks.0.att.r_k", torch.ones(WIDTH), r"blocks\.0\.att\.r_k must be \(H, K\), got shape \(24,\)"),
        ("blocks.2.att.v1", torch.ones(WIDTH, 4), r"v1 has shape \(24, 4\), the sizes of this model ask for \(24, 5\)"),
        ("blocks.2.att.w0", torch.full((1, 1, WIDTH), torch.nan), r"blocks\.2\.att\.w0 holds NaN"),
        ("blocks.10.att.v0", torch.ones(WIDTH), "missing tensor"),
        ("blocks.1.att.g0", torch.ones(WIDTH), r"extra tensor blocks\.1\.att\.g0"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, name: str, tensor: torch.Tensor | None, message: str) -> None:
    tensors = {key: value for key, value in released().items() if key != name}
    with pytest.raises(ValueError, match=message):
        load_checkpoint(saved(tmp_path, tensors if tensor is None else {**tensors, name: tensor}))


def test_a_configuration_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of RWKV-6 \.pth"):
        load_checkpoint(saved(tmp_path, released()), RWKV6Config(VOCABULARY, WIDTH, LAYERS, head_width=12))
