"""The layouts of RWKV checkpoints: the authors' files of RWKV-4, 5.2, 6 and 7, and transformers' folders of RWKV-4."""

from collections.abc import Mapping

from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.rwkv4 import RWKV4, RWKV4Config
from hybridlab.models.rwkv5 import RWKV5, RWKV5Config
from hybridlab.models.rwkv6 import RWKV6, RWKV6Config
from hybridlab.models.rwkv7 import RWKV7, RWKV7Config

# What all versions share. The head stands last, as in the files.
COMMON: Mapping[str, str] = {
    "emb.weight": "embedding.weight",
    "blocks.0.ln0.weight": "embedding_norm.weight",
    "blocks.0.ln0.bias": "embedding_norm.bias",
    "blocks.{}.ln1.weight": "layers.{}.mixer_norm.weight",
    "blocks.{}.ln1.bias": "layers.{}.mixer_norm.bias",
    "blocks.{}.ln2.weight": "layers.{}.channel_norm.weight",
    "blocks.{}.ln2.bias": "layers.{}.channel_norm.bias",
    "blocks.{}.att.key.weight": "layers.{}.mixer.key.weight",
    "blocks.{}.att.value.weight": "layers.{}.mixer.value.weight",
    "blocks.{}.att.receptance.weight": "layers.{}.mixer.receptance.weight",
    "blocks.{}.att.output.weight": "layers.{}.mixer.output.weight",
    "blocks.{}.ffn.key.weight": "layers.{}.channel_mixer.key.weight",
    "blocks.{}.ffn.value.weight": "layers.{}.channel_mixer.value.weight",
    "ln_out.weight": "norm.weight",
    "ln_out.bias": "norm.bias",
    "head.weight": "head.weight",
}
UP_TO_6: Mapping[str, str] = {
    **COMMON,
    "blocks.{}.att.time_decay": "layers.{}.mixer.time_decay",
    "blocks.{}.ffn.receptance.weight": "layers.{}.channel_mixer.receptance.weight",
}
MIXING_UP_TO_5: Mapping[str, str] = {
    "blocks.{}.att.time_mix_k": "layers.{}.mixer.mix_k",
    "blocks.{}.att.time_mix_v": "layers.{}.mixer.mix_v",
    "blocks.{}.att.time_mix_r": "layers.{}.mixer.mix_r",
    "blocks.{}.ffn.time_mix_k": "layers.{}.channel_mixer.mix_k",
    "blocks.{}.ffn.time_mix_r": "layers.{}.channel_mixer.mix_r",
}
HEAD_NORM: Mapping[str, str] = {
    "blocks.{}.att.ln_x.weight": "layers.{}.mixer.head_norm.weight",
    "blocks.{}.att.ln_x.bias": "layers.{}.mixer.head_norm.bias",
}
MATRIX_STATES: Mapping[str, str] = {
    **HEAD_NORM,
    "blocks.{}.att.gate.weight": "layers.{}.mixer.gate.weight",
    "blocks.{}.att.time_faaaa": "layers.{}.mixer.bonus",
}
NAMES_4 = {**UP_TO_6, **MIXING_UP_TO_5, "blocks.{}.att.time_first": "layers.{}.mixer.bonus"}
NAMES_5 = {**UP_TO_6, **MIXING_UP_TO_5, **MATRIX_STATES, "blocks.{}.att.time_mix_g": "layers.{}.mixer.mix_g"}
NAMES_6 = {
    **UP_TO_6,
    **MATRIX_STATES,
    "blocks.{}.att.time_maa_x": "layers.{}.mixer.mix_x",
    "blocks.{}.att.time_maa_w": "layers.{}.mixer.mix_w",
    "blocks.{}.att.time_maa_k": "layers.{}.mixer.mix_k",
    "blocks.{}.att.time_maa_v": "layers.{}.mixer.mix_v",
    "blocks.{}.att.time_maa_r": "layers.{}.mixer.mix_r",
    "blocks.{}.att.time_maa_g": "layers.{}.mixer.mix_g",
    "blocks.{}.att.time_maa_w1": "layers.{}.mixer.mix_down",
    "blocks.{}.att.time_maa_w2": "layers.{}.mixer.mix_up",
    "blocks.{}.att.time_decay_w1": "layers.{}.mixer.decay_down",
    "blocks.{}.att.time_decay_w2": "layers.{}.mixer.decay_up",
    "blocks.{}.ffn.time_maa_k": "layers.{}.channel_mixer.mix_k",
    "blocks.{}.ffn.time_maa_r": "layers.{}.channel_mixer.mix_r",
}
# The small networks of RWKV-7; the gate's has no start.
NETWORKS = {"w": "decay", "a": "rate", "v": "first_share", "g": "gate"}
PARTS = ("start", "down", "up")
NAMES_7 = {
    **COMMON,
    **HEAD_NORM,
    **{f"blocks.{{}}.att.x_{name}": f"layers.{{}}.mixer.mix_{name}" for name in "rwkvag"},
    **{
        f"blocks.{{}}.att.{letter}{number}": f"layers.{{}}.mixer.{network}.{part}"
        for letter, network in NETWORKS.items()
        for number, part in enumerate(PARTS)
        if (letter, part) != ("g", "start")
    },
    "blocks.{}.att.k_k": "layers.{}.mixer.removal",
    "blocks.{}.att.k_a": "layers.{}.mixer.slowing",
    "blocks.{}.att.r_k": "layers.{}.mixer.bonus",
    "blocks.{}.ffn.x_k": "layers.{}.channel_mixer.mix_k",
}
# What some files have in the first layer, whose own values are the first: nothing reads it.
UNREAD_7 = tuple(f"blocks.0.att.v{number}" for number in range(len(PARTS)))
# How transformers spells the parts of the authors' names for RWKV-4.
SPELLINGS = (
    ("blocks.0.ln0.", "blocks.0.pre_ln."),
    (".att.", ".attention."),
    (".ffn.", ".feed_forward."),
    ("time_mix_k", "time_mix_key"),
    ("time_mix_v", "time_mix_value"),
    ("time_mix_r", "time_mix_receptance"),
    ("emb.weight", "embeddings.weight"),
)


def _respelled(name: str) -> str:
    for authors, theirs in SPELLINGS:
        name = name.replace(authors, theirs)
    return name if name.startswith("head.") else f"rwkv.{name}"


def _sizes(checkpoint: Checkpoint, names: Mapping[str, str]) -> tuple[int, int, int, int]:
    """What every version's tensors say: vocabulary, width, layers, ffn_width."""
    vocabulary, width = checkpoint.shape("emb.weight", "vocabulary", "D")
    ffn_width, _ = checkpoint.shape("blocks.0.ffn.key.weight", "F", "D")
    return vocabulary, width, checkpoint.count_layers(names), ffn_width


def _config_4(checkpoint: Checkpoint) -> RWKV4Config:
    vocabulary, width, layers, ffn_width = _sizes(checkpoint, NAMES_4)
    channels, _ = checkpoint.shape("blocks.0.att.key.weight", "C", "D")
    return RWKV4Config(vocabulary, width, layers, attention_width=channels, ffn_width=ffn_width)


def _config_5(checkpoint: Checkpoint) -> RWKV5Config:
    vocabulary, width, layers, ffn_width = _sizes(checkpoint, NAMES_5)
    heads, head_width = checkpoint.shape("blocks.0.att.time_faaaa", "H", "K")
    return RWKV5Config(vocabulary, width, layers, head_width, heads, ffn_width)


def _config_6(checkpoint: Checkpoint) -> RWKV6Config:
    vocabulary, width, layers, ffn_width = _sizes(checkpoint, NAMES_6)
    heads, head_width = checkpoint.shape("blocks.0.att.time_faaaa", "H", "K")
    _, mix_rank, _ = checkpoint.shape("blocks.0.att.time_maa_w2", "5", "rank", "D")
    decay_rank, _ = checkpoint.shape("blocks.0.att.time_decay_w2", "rank", "H * K")
    return RWKV6Config(vocabulary, width, layers, head_width, heads, ffn_width, mix_rank, decay_rank)


def _config_7(checkpoint: Checkpoint) -> RWKV7Config:
    vocabulary, width, layers, ffn_width = _sizes(checkpoint, NAMES_7)
    heads, head_width = checkpoint.shape("blocks.0.att.r_k", "H", "K")
    decay, rate, gate = (checkpoint.shape(f"blocks.0.att.{name}", "D", "rank")[1] for name in ("w1", "a1", "g1"))
    value = checkpoint.shape("blocks.1.att.v1", "D", "rank")[1] if layers > 1 else 0
    return RWKV7Config(vocabulary, width, layers, head_width, heads, ffn_width, decay, rate, value, gate)


def _config_of_folder(checkpoint: Checkpoint) -> RWKV4Config:
    """From config.json. `rescale_every` is a trick of float16 inference: the file holds the weights as they are."""
    width = checkpoint.size("hidden_size")
    return RWKV4Config(
        checkpoint.required("vocab_size"),
        width,
        checkpoint.required("num_hidden_layers"),
        attention_width=checkpoint.optional("attention_hidden_size", width),
        ffn_width=checkpoint.optional("intermediate_size", 4 * width),
        norm_eps=checkpoint.required("layer_norm_epsilon"),
        tied=checkpoint.optional("tie_word_embeddings", False),
    )


RELEASED = (
    Layout("RWKV-4 .pth", RWKV4, RWKV4Config, NAMES_4, _config_4),
    Layout("RWKV-5.2 .pth", RWKV5, RWKV5Config, NAMES_5, _config_5),
    Layout("RWKV-6 .pth", RWKV6, RWKV6Config, NAMES_6, _config_6),
    Layout("RWKV-7 .pth", RWKV7, RWKV7Config, NAMES_7, _config_7, ignored=UNREAD_7),
)
FOLDERS = {
    "rwkv": Layout(
        "transformers rwkv",
        RWKV4,
        RWKV4Config,
        {_respelled(name): ours for name, ours in NAMES_4.items()},
        _config_of_folder,
    )
}
