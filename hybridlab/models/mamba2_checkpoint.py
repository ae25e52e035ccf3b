"""The layouts of Mamba-2: transformers' folders, the folders of its authors, and Codestral Mamba as Mistral released it."""

import math
from collections.abc import Mapping
from typing import Any

from hybridlab.layers.mamba2_mixer import ANY_STEP, are_limits
from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.mamba2 import Mamba2, Mamba2Config
from hybridlab.models.mamba_checkpoint import MIXER_NAMES, around_the_mixers, mixer_arguments, named

OWN_NAMES: Mapping[str, str] = {"dt_bias": "step_bias", "norm.weight": "norm.weight"}
NAMES, AUTHORS_NAMES = (named(embedding, {**MIXER_NAMES, **OWN_NAMES}) for embedding in ("embeddings", "embedding"))
CODESTRAL_NAMES = {f"model.{theirs}": ours for theirs, ours in AUTHORS_NAMES.items()}
# Variants that these models do not have: field -> the value it stands for.
FIXED: Mapping[str, Any] = {"hidden_act": "silu"}
MIXER_FIXED: Mapping[str, Any] = {
    "layer": "Mamba2",
    "d_ssm": None,
    "D_has_hdim": False,
    "rmsnorm": True,
    "norm_before_gate": False,
}
# Arguments of the authors' mixer that say what it computes, and those that only say how it starts and which kernel runs it.
MIXER = {"d_state", "d_conv", "expand", "headdim", "ngroups", "dt_limit", "bias", "conv_bias", *MIXER_FIXED}
MIXER_TRAINING = {"conv_init", "A_init_range", "dt_min", "dt_max", "dt_init_floor", "chunk_size", "use_mem_eff_path"}


def _config(checkpoint: Checkpoint) -> Mamba2Config:
    """From transformers' config.json. `chunk_size` changes no result; `norm_before_gate` transformers does not look at."""
    checkpoint.expect(FIXED)
    width, heads, head_width = (checkpoint.size(name) for name in ("hidden_size", "num_heads", "head_dim"))
    inner = checkpoint.size("expand", 2) * width
    if heads * head_width != inner:
        found = f"num_heads {heads} and head_dim {head_width}, but expand * hidden_size is {inner}"
        raise ValueError(f"load_checkpoint: config.json has {found}: {checkpoint.where}")
    return Mamba2Config(
        checkpoint.size("vocab_size"),
        width,
        checkpoint.size("num_hidden_layers"),
        state_size=checkpoint.size("state_size"),
        filter_width=checkpoint.size("conv_kernel", 4),
        bias=checkpoint.flag("use_bias", False),
        conv_bias=checkpoint.flag("use_conv_bias", True),
        norm_eps=checkpoint.required("layer_norm_epsilon"),
        tied=checkpoint.flag("tie_word_embeddings", False),
        wide_stream=checkpoint.flag("residual_in_fp32", True),
        heads=heads,
        head_width=head_width,
        groups=checkpoint.size("n_groups"),
        step_limits=_limits(checkpoint, "time_step_limit"),
    )


def _authors_config(checkpoint: Checkpoint) -> Mamba2Config:
    mixer = mixer_arguments(checkpoint, MIXER_FIXED, MIXER | MIXER_TRAINING)
    width = checkpoint.size("d_model")
    return Mamba2Config(
        width=width,
        layers=checkpoint.size("n_layer"),
        inner=mixer.size("expand", 2) * width,
        state_size=mixer.size("d_state", 128),
        filter_width=mixer.size("d_conv", 4),
        bias=mixer.flag("bias", False),
        conv_bias=mixer.flag("conv_bias", True),
        head_width=mixer.size("headdim", 64),
        groups=mixer.size("ngroups", 1),
        step_limits=_limits(mixer, "dt_limit"),
        **around_the_mixers(checkpoint),
    )


def _codestral_config(checkpoint: Checkpoint) -> Mamba2Config:
    """Mistral's words for the authors' model; all that it says of the mixers is in how many groups they share B and C."""
    width, layers, groups = (checkpoint.size(name) for name in ("dim", "n_layers", "n_groups"))
    return Mamba2Config(width=width, layers=layers, groups=groups, **around_the_mixers(checkpoint))


def _limits(checkpoint: Checkpoint, name: str) -> tuple[float, float]:
    """The shortest and the longest step. The hub's files write Infinity, transformers 5 a table with that word."""
    given = checkpoint.optional(name, ANY_STEP)
    limits = tuple(_number(step) for step in given) if isinstance(given, list | tuple) else ()
    if not are_limits(limits):
        expected = "[shortest, longest], 0 <= shortest <= longest"
        raise ValueError(f"load_checkpoint: config.json has {name} {given!r}, expected {expected}: {checkpoint.where}")
    return limits


def _number(written: object) -> Any:
    """What was written; infinity, for which JSON has no word."""
    spelled = written.get("__float__") if isinstance(written, Mapping) else None
    return math.inf if spelled == "Infinity" else written


RELEASED = (
    Layout("Mamba-2 by its authors", Mamba2, Mamba2Config, AUTHORS_NAMES, _authors_config),
    Layout("Codestral Mamba by Mistral", Mamba2, Mamba2Config, CODESTRAL_NAMES, _codestral_config),
)
FOLDERS = {"mamba2": Layout("transformers mamba2", Mamba2, Mamba2Config, NAMES, _config)}
