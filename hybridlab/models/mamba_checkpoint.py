"""The layouts of Mamba and Falcon-Mamba: transformers' folders, and the folders of Mamba's authors."""

from collections.abc import Collection, Mapping
from typing import Any

from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.falcon_mamba import FalconMamba, FalconMambaConfig
from hybridlab.models.mamba import Mamba, MambaConfig

# Tensors of both generations' mixers: names in all files -> names here.
MIXER_NAMES: Mapping[str, str] = {
    "in_proj.weight": "input.weight",
    "in_proj.bias": "input.bias",
    "conv1d.weight": "conv.weight",
    "conv1d.bias": "conv.bias",
    "A_log": "A_log",
    "D": "D",
    "out_proj.weight": "output.weight",
    "out_proj.bias": "output.bias",
}
SELECTION_NAMES: Mapping[str, str] = {
    "x_proj.weight": "selection.weight",
    "dt_proj.weight": "step.weight",
    "dt_proj.bias": "step.bias",
}
# Variants that these models do not have: field -> the value it stands for.
FIXED: Mapping[str, Any] = {"hidden_act": "silu"}
AUTHORS_FIXED: Mapping[str, Any] = {"rms_norm": True, "d_intermediate": 0, "attn_layer_idx": []}
AUTHORS_EPS = 1e-5  # what the authors' code takes; their config.json does not mention it
# Arguments of the authors' mixer: what it computes; and what only says how it starts and on which kernel it runs.
MIXER = {"layer", "d_state", "d_conv", "expand", "dt_rank", "bias", "conv_bias"}
MIXER_TRAINING = {"dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "use_fast_path"}


def named(embedding: str, mixer: Mapping[str, str]) -> dict[str, str]:
    """Names in the file -> names in the model; embeddings and mixers differ. The head stands last, as in the files."""
    return {
        f"backbone.{embedding}.weight": "embedding.weight",
        "backbone.layers.{}.norm.weight": "layers.{}.norm.weight",
        **{"backbone.layers.{}.mixer." + theirs: "layers.{}.mixer." + ours for theirs, ours in mixer.items()},
        "backbone.norm_f.weight": "norm.weight",
        "lm_head.weight": "head.weight",
    }


def mixer_arguments(checkpoint: Checkpoint, fixed: Mapping[str, Any], known: Collection[str]) -> Checkpoint:
    """The authors' `ssm_cfg`, in which nothing is unknown and nothing differs from what is fixed."""
    mixer = checkpoint.within("ssm_cfg")
    mixer.expect(fixed)
    unknown = sorted(set(mixer.fields) - set(known))
    if unknown:
        raise ValueError(f"load_checkpoint: config.json has ssm_cfg.{unknown[0]}, which is unknown: {checkpoint.where}")
    return mixer


def around_the_mixers(checkpoint: Checkpoint) -> dict[str, Any]:
    """What all of the authors' configurations say of the rest; the vocabulary is padded to a multiple."""
    checkpoint.expect(AUTHORS_FIXED)
    multiple = checkpoint.size("pad_vocab_size_multiple", 8)
    return {
        "vocabulary": -(-checkpoint.size("vocab_size") // multiple) * multiple,
        "norm_eps": checkpoint.optional("norm_epsilon", AUTHORS_EPS),
        "tied": checkpoint.flag("tie_embeddings", True),
        "wide_stream": checkpoint.flag("residual_in_fp32", True),
    }


def _fields_of_folder(checkpoint: Checkpoint) -> dict[str, Any]:
    """From transformers' config.json. Where `intermediate_size` and `expand` disagree, transformers takes the former.

    Falcon-Mamba was released so: 16 times the width, it says, beside the size that is true.
    """
    checkpoint.expect(FIXED)
    width = checkpoint.size("hidden_size")
    return {
        "vocabulary": checkpoint.size("vocab_size"),
        "width": width,
        "layers": checkpoint.size("num_hidden_layers"),
        "inner": checkpoint.optional("intermediate_size", _expanded(checkpoint, width)),
        "state_size": checkpoint.size("state_size"),
        "filter_width": checkpoint.size("conv_kernel"),
        "bias": checkpoint.flag("use_bias", False),
        "conv_bias": checkpoint.flag("use_conv_bias", True),
        "norm_eps": checkpoint.required("layer_norm_epsilon"),
        "tied": checkpoint.flag("tie_word_embeddings", True),
        "wide_stream": checkpoint.flag("residual_in_fp32", True),
        "rank": step_rank(checkpoint, "time_step_rank"),
    }


def _config(checkpoint: Checkpoint) -> MambaConfig:
    return MambaConfig(**_fields_of_folder(checkpoint))


def _falcon_config(checkpoint: Checkpoint) -> FalconMambaConfig:
    return FalconMambaConfig(**_fields_of_folder(checkpoint), selection_eps=checkpoint.optional("mixer_rms_eps", 1e-6))


def _authors_config(checkpoint: Checkpoint) -> MambaConfig:
    mixer = mixer_arguments(checkpoint, {"layer": "Mamba1"}, MIXER | MIXER_TRAINING)
    width = checkpoint.size("d_model")
    return MambaConfig(
        width=width,
        layers=checkpoint.size("n_layer"),
        inner=_expanded(mixer, width),
        state_size=mixer.size("d_state", 16),
        filter_width=mixer.size("d_conv", 4),
        bias=mixer.flag("bias", False),
        conv_bias=mixer.flag("conv_bias", True),
        rank=step_rank(mixer, "dt_rank"),
        **around_the_mixers(checkpoint),
    )


def _expanded(checkpoint: Checkpoint, width: int) -> int:
    expand = checkpoint.optional("expand", 2)
    if not isinstance(expand, int | float) or isinstance(expand, bool) or int(expand * width) < 1:
        raise ValueError(
            f"load_checkpoint: config.json has expand {expand!r}, expected a positive number: {checkpoint.where}"
        )
    return int(expand * width)


def step_rank(checkpoint: Checkpoint, name: str) -> int:
    """0 for "auto": the configuration knows what that is."""
    return 0 if checkpoint.optional(name, "auto") == "auto" else checkpoint.size(name)


NAMES, AUTHORS_NAMES = (named(embedding, {**MIXER_NAMES, **SELECTION_NAMES}) for embedding in ("embeddings", "embedding"))
RELEASED = (Layout("Mamba by its authors", Mamba, MambaConfig, AUTHORS_NAMES, _authors_config),)
FOLDERS = {
    "mamba": Layout("transformers mamba", Mamba, MambaConfig, NAMES, _config),
    "falcon_mamba": Layout("transformers falcon_mamba", FalconMamba, FalconMambaConfig, NAMES, _falcon_config),
}
