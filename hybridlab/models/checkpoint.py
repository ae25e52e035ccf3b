"""One loader for all checkpoints: recognise the layout, find the sizes, check every tensor, assemble the model."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hybridlab.models import (
    decoder_checkpoint,
    gemma2_checkpoint,
    goldfinch_checkpoint,
    griffin_checkpoint,
    hymba_checkpoint,
    jamba_checkpoint,
    mamba2_checkpoint,
    mamba2_hybrid_checkpoint,
    mamba_checkpoint,
    recurrent_gemma_checkpoint,
    rwkv_checkpoint,
    safari_checkpoint,
    stripedhyena_checkpoint,
    zamba2_checkpoint,
    zamba_checkpoint,
)
from hybridlab.models.checkpoint_files import read_checkpoint
from hybridlab.models.checkpoint_layout import Checkpoint, Layout, expert_count
from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel

# By "model_type" of config.json.
FOLDERS: Mapping[str, Layout] = {
    **rwkv_checkpoint.FOLDERS,
    **decoder_checkpoint.FOLDERS,
    **gemma2_checkpoint.FOLDERS,
    **mamba_checkpoint.FOLDERS,
    **mamba2_checkpoint.FOLDERS,
    **recurrent_gemma_checkpoint.FOLDERS,
    **stripedhyena_checkpoint.FOLDERS,
    **zamba_checkpoint.FOLDERS,
    **zamba2_checkpoint.FOLDERS,
    **hymba_checkpoint.FOLDERS,
    **jamba_checkpoint.FOLDERS,
    **mamba2_hybrid_checkpoint.FOLDERS,
}
# The authors' own files.
RELEASED: tuple[Layout, ...] = (
    *rwkv_checkpoint.RELEASED,
    *mamba_checkpoint.RELEASED,
    *mamba2_checkpoint.RELEASED,
    *griffin_checkpoint.RELEASED,
    *safari_checkpoint.RELEASED,
    *stripedhyena_checkpoint.RELEASED,
    *goldfinch_checkpoint.RELEASED,
)
# A file that shares less than this with every layout is something else.
LEAST_LIKENESS = 0.5


def load_checkpoint(
    path: str | Path, config: Config | None = None, *, dtype: torch.dtype | None = torch.float32
) -> LanguageModel:
    """A published checkpoint as a model in eval mode.

    Reads folders of `config.json` and weights (safetensors, else pytorch_model.bin; sharded or not): those that
    transformers writes, of model_type rwkv, llama, mistral, mixtral, gemma2, mamba, falcon_mamba, mamba2, recurrent_gemma,
    jamba, zamba, zamba2 and nemotron_h (without experts), and those of Mamba's, Mamba-2's and Hymba's authors. Reads
    Codestral Mamba as Mistral released it (params.json and consolidated.safetensors), and the authors' files (.pth, .pt or
    .safetensors) of RWKV-4, 5.2, 6 and 7, whose version and sizes are read off their tensors; of Hawk, Griffin and
    RecurrentGemma, for which config.json or `config` must say whether embeddings are scaled, what limits logits, and how far
    attention sees; of Hyena and H3, for which they must say whether filters fade and how many heads attend; of
    StripedHyena, whose folders it reads too, with the fields of its authors' configurations; and of GoldFinch and Finch-C2,
    for which they must say whether tokens have values of their own.

    Args:
        path: a folder or a file.
        config: sizes, where neither the weights nor config.json say them; it wins over config.json.
        dtype: of the weights; None keeps the file's.

    Returns:
        the model.

    Raises:
        ValueError: a missing, truncated or foreign file; a field that config.json lacks or that makes no sense; a missing,
            extra, misshapen or non-finite tensor; a dtype that is not floating. It names the file, the field or the tensor.

    Source: the layouts of the RWKV authors' releases and of the transformers library. Chapter 11.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"load_checkpoint: dtype must be None or a floating torch.dtype, got {dtype!r}")
    checkpoint = read_checkpoint(Path(path))
    layout = _recognised(checkpoint, config)
    config = layout.configure(checkpoint) if config is None else config
    with torch.device("meta"):
        model = layout.model(config)
    weights = _checked(checkpoint, layout, model, dtype)
    model.load_state_dict(weights, assign=True)
    model.tie_head()
    return model.eval()


def _recognised(checkpoint: Checkpoint, config: Config | None) -> Layout:
    layouts = [
        layout
        for layout in (*FOLDERS.values(), *RELEASED)
        if (layout.claims(checkpoint.fields) if config is None else type(config) is layout.config)
    ]
    if not layouts:
        raise ValueError(f"load_checkpoint: no known checkpoint has a {type(config).__name__}")
    kind = checkpoint.model_type
    if kind is not None and kind not in tuple(FOLDERS):  # what JSON holds need not be hashable
        raise ValueError(f"load_checkpoint: config.json has model_type {kind!r}; known are {', '.join(FOLDERS)}")
    if kind is not None:
        layout = FOLDERS[kind]
        if layout not in layouts:
            raise ValueError(f"load_checkpoint: config is a {type(config).__name__}, but config.json says {kind!r}")
        return layout
    best = max(layouts, key=lambda layout: layout.likeness(checkpoint.tensors))
    if best.likeness(checkpoint.tensors) < LEAST_LIKENESS:
        known = ", ".join(layout.name for layout in layouts)
        some = ", ".join(list(checkpoint.tensors)[:3]) or "nothing"
        raise ValueError(f"load_checkpoint: {checkpoint.where} holds {some}, ...: none of {known}")
    return best


def _checked(checkpoint: Checkpoint, layout: Layout, model: LanguageModel, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The model's own names -> tensors of the right shape and dtype."""
    wanted, tensors = model.state_dict(), dict(layout.without_copies(layout.wanted(checkpoint.tensors), model.config))
    # A layout names every bias there may be; a model may be without.
    named = layout.named(model.config, expert_count(wanted))
    names = {theirs: ours for theirs, ours in named.items() if wanted.keys() >= set(ours)}
    if model.tied:
        tensors = _without_tied_head(names, tensors, checkpoint.where)
    _check_names(names, tensors, layout, checkpoint.where)
    weights = {
        our: _fitted(theirs if part is tensors[theirs] else f"{theirs}, as the model holds it,", part, wanted[our], dtype)
        for theirs, ours in names.items()
        for our, part in zip(ours, layout.parts(theirs, tensors[theirs], len(ours)), strict=True)
    }
    if model.tied:
        weights["head.weight"] = weights["embedding.weight"]
    return weights


def _without_tied_head(names: dict[str, tuple[str, ...]], tensors: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Takes the head out of both, where the file may have one: it must be the embedding."""
    theirs = {ours: name for name, ours in names.items()}
    head, embedding = theirs.get(("head.weight",)), theirs[("embedding.weight",)]
    if head is None:
        return tensors
    del names[head]
    if head in tensors and embedding in tensors and not torch.equal(tensors[head], tensors[embedding]):
        raise ValueError(f"load_checkpoint: the head is tied, but {head} differs from {embedding}: {where}")
    return {name: tensor for name, tensor in tensors.items() if name != head}


def _check_names(names: Collection[str], tensors: Collection[str], layout: Layout, where: str) -> None:
    for problem, found in (
        ("missing", [name for name in names if name not in tensors]),
        ("extra", [name for name in tensors if name not in names]),
    ):
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise ValueError(f"load_checkpoint: {problem} tensor {', '.join(found[:3])}{more} for {layout.name}: {where}")


def _fitted(name: str, tensor: Tensor, like: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor in the model's shape; the files write vectors as (C,) or (1, 1, C)."""
    if tensor.squeeze().shape != like.squeeze().shape:
        raise ValueError(
            f"load_checkpoint: {name} has shape {tuple(tensor.shape)}, the sizes of this model ask for {tuple(like.shape)}"
        )
    if not tensor.is_floating_point():
        raise ValueError(f"load_checkpoint: {name} must be floating, got {tensor.dtype}")
    if not tensor.isfinite().all():
        raise ValueError(f"load_checkpoint: {name} holds NaN or infinity")
    return tensor.to(dtype or tensor.dtype).reshape(like.shape).contiguous()
