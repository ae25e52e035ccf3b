"""The layout of transformers' folders of Jamba, which are those that its authors released."""

from collections.abc import Mapping
from typing import Any

from hybridlab.layers import Routing
from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.decoder_checkpoint import ATTENTION_NAMES
from hybridlab.models.jamba import EVERY_SECOND, ONE_IN_EIGHT, Every, Jamba, JambaConfig
from hybridlab.models.mamba_checkpoint import MIXER_NAMES, SELECTION_NAMES, step_rank

SELECTION_NORMS: Mapping[str, str] = {
    "dt_layernorm.weight": "step_norm.weight",
    "b_layernorm.weight": "B_norm.weight",
    "c_layernorm.weight": "C_norm.weight",
}
MAMBA: Mapping[str, str] = {
    f"model.layers.{{}}.mamba.{theirs}": f"layers.{{}}.mixer.{ours}"
    for theirs, ours in {**MIXER_NAMES, **SELECTION_NAMES, **SELECTION_NORMS}.items()
}
ATTENTION: Mapping[str, str] = {theirs: ours for theirs, ours in ATTENTION_NAMES.items() if ".self_attn." in theirs}
MLP: Mapping[str, str] = {
    f"model.layers.{{}}.feed_forward.{expert}{kind}_proj.weight": f"layers.{{}}.channel_mixer.{expert}{kind}.weight"
    for expert in ("", "experts.{expert}.")
    for kind in ("gate", "up", "down")
}
NAMES: Mapping[str, str] = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.layers.{}.input_layernorm.weight": "layers.{}.mixer_norm.weight",
    **MAMBA,
    **ATTENTION,
    "model.layers.{}.pre_ff_layernorm.weight": "layers.{}.channel_norm.weight",
    "model.layers.{}.feed_forward.router.weight": "layers.{}.channel_mixer.router.weight",
    **MLP,
    "model.final_layernorm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
}
# Variants that this model does not have: field -> the value it stands for. The first files of the hub spell some out.
FIXED: Mapping[str, Any] = {"hidden_act": "silu", "mamba_inner_layernorms": True, "sliding_window": None}
LETTERS: Mapping[str, str] = {"linear_attention": "M", "mamba": "M", "full_attention": "A", "attention": "A"}


def _config(checkpoint: Checkpoint) -> JambaConfig:
    checkpoint.expect(FIXED)
    width, heads = checkpoint.size("hidden_size"), checkpoint.size("num_attention_heads")
    config = JambaConfig(
        checkpoint.size("vocab_size"),
        width,
        checkpoint.size("num_hidden_layers"),
        heads=heads,
        groups=checkpoint.size("num_key_value_heads", heads),
        ffn_width=checkpoint.size("intermediate_size"),
        attention=_every(checkpoint, "attn", ONE_IN_EIGHT),
        mixtures=_every(checkpoint, "expert", EVERY_SECOND),
        routing=_routing(checkpoint),
        inner=checkpoint.size("mamba_expand", 2) * width,
        state_size=checkpoint.size("mamba_d_state", 16),
        filter_width=checkpoint.size("mamba_d_conv", 4),
        rank=step_rank(checkpoint, "mamba_dt_rank"),
        bias=checkpoint.flag("mamba_proj_bias", False),
        conv_bias=checkpoint.flag("mamba_conv_bias", True),
        norm_eps=checkpoint.required("rms_norm_eps"),
        tied=checkpoint.flag("tie_word_embeddings", False),
    )
    _check_listed(checkpoint, config.letters)
    return config


def _every(checkpoint: Checkpoint, kind: str, usual: Every) -> Every:
    """The period and offset of the layers of a kind."""
    fields = (f"{kind}_layer_period", f"{kind}_layer_offset")
    every = Every(*(checkpoint.optional(field, number) for field, number in zip(fields, usual, strict=True)))
    if not every.possible:
        found = f"{fields[0]} {every.period!r} and {fields[1]} {every.offset!r}, expected 0 <= offset < period"
        raise ValueError(f"load_checkpoint: config.json has {found}: {checkpoint.where}")
    return every


def _routing(checkpoint: Checkpoint) -> Routing | None:
    """One expert is none: an MLP in every layer. The weights of the chosen are not divided by their sum."""
    experts = checkpoint.size("num_experts", 16)
    return None if experts == 1 else Routing(experts, checkpoint.size("num_experts_per_tok", 2), renormalised=False)


def _check_listed(checkpoint: Checkpoint, letters: str) -> None:
    """Periods and offsets say which layers attend; a list of them, in either style, must say the same."""
    for name in ("layer_types", "layers_block_type"):
        listed = checkpoint.optional(name, None)
        kinds = [LETTERS.get(str(kind)) for kind in listed] if isinstance(listed, list) else None
        if listed is not None and kinds != list(letters):
            found = f"{name} {listed!r}, but its period and offset of attention say {letters} (A attention, M Mamba)"
            raise ValueError(f"load_checkpoint: config.json has {found}: {checkpoint.where}")


FOLDERS = {
    "jamba": Layout("transformers jamba", Jamba, JambaConfig, NAMES, _config, kinds={"M": MAMBA, "A": ATTENTION}),
}
