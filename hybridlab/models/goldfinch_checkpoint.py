"""The layout of GoldFinch's authors: their .pth files of GoldFinch and of Finch-C2, and what config.json has to say."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hybridlab.models.checkpoint_layout import Checkpoint, Layout, generic, layer_number
from hybridlab.models.config import Config
from hybridlab.models.goldfinch import GoldFinch, GoldFinchConfig

ATT, FFN, OURS = "blocks.{}.att.", "blocks.{}.ffn.", "layers.{}.mixer."


def _both(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in ("weight", "bias")}


COMMON: Mapping[str, str] = {
    "emb.weight": "embedding.weight",
    **_both("blocks.0.ln0", "embedding_norm"),
    **_both("blocks.{}.ln1", "layers.{}.mixer_norm"),
    **_both("blocks.{}.ln2", "layers.{}.channel_norm"),
    **{f"{FFN}time_maa_{name}": f"layers.{{}}.channel_mixer.mix_{name}" for name in "kr"},
    **{
        f"blocks.{{}}.ffn.{part}.weight": f"layers.{{}}.channel_mixer.{part}.weight"
        for part in ("key", "receptance", "value")
    },
    f"{ATT}output.weight": f"{OURS}output.weight",
    **_both(f"{ATT}ln_x", f"{OURS}norm"),
    **_both("ln_out", "norm"),
    "head.weight": "head.weight",
}
FINCH: Mapping[str, str] = {
    **COMMON,
    f"{ATT}time_maa_x": f"{OURS}mixing.mix_x",
    **{f"{ATT}time_maa_{name}": f"{OURS}mixing.mus.{name}" for name in "rkvw"},
    f"{ATT}time_maa_v2": f"{OURS}mixing.mus.o",
    f"{ATT}time_maa_w1": f"{OURS}mixing.down",
    f"{ATT}time_maa_w2": f"{OURS}mixing.up",
    f"{ATT}time_decay": f"{OURS}decay.start",
    f"{ATT}time_decay_w1": f"{OURS}decay.down",
    f"{ATT}time_decay_w2": f"{OURS}decay.up",
    f"{ATT}time_value2_w1": f"{OURS}own_value.down",
    f"{ATT}time_value2_w2": f"{OURS}own_value.up",
    f"{ATT}time_faaaa": f"{OURS}bonus",
    **{f"{ATT}{part}.weight": f"{OURS}{part}.weight" for part in ("receptance", "key", "value")},
}
GOLD: Mapping[str, str] = {
    **COMMON,
    "w_kv_cache_a.weight": "keys.compress.weight",
    "w_kv_cache_b.weight": "keys.expand.weight",
    f"{ATT}time_maa_x": f"{OURS}query_mixing.mix_x",
    f"{ATT}time_maa_q": f"{OURS}query_mixing.mus.q",
    f"{ATT}time_maa_q_w1": f"{OURS}query_mixing.down",
    f"{ATT}time_maa_q_w2": f"{OURS}query_mixing.up",
    f"{ATT}time_maa_v_cache": f"{OURS}cache_mixing.mix_x",
    **{f"{ATT}time_maa_{name}": f"{OURS}cache_mixing.mus.{name}" for name in "kv"},
    f"{ATT}time_maa_kv_w1": f"{OURS}cache_mixing.down",
    f"{ATT}time_maa_kv_w2": f"{OURS}cache_mixing.up",
    f"{ATT}time_key_w1": f"{OURS}key_change.down",
    f"{ATT}time_key_w2": f"{OURS}key_change.up",
    f"{ATT}time_value_w1": f"{OURS}value_change.down",
    f"{ATT}time_value_w2": f"{OURS}value_change.up",
    f"{ATT}query.weight": f"{OURS}query.weight",
    **{name: ours for part in ("q", "k", "v") for name, ours in _both(f"{ATT}ln_{part}", f"{OURS}norms.{part}").items()},
}
BY_LETTER = {"C": FINCH, "O": GOLD}
# Variants that this model does not have: field -> the value it stands for, which is the default of the authors' code or what
# all their GoldFinch models are.
FIXED: Mapping[str, Any] = {
    "tmix": "x060c2",
    "cmix": "x060",
    "cmix2": "x060",
    "parallel": 0,
    "use_one_minus_w": 1,
    "rope": None,
    "brope": None,
    "alibi": None,
}


class GoldFinchLayout(Layout):
    """A layout in which one name means different things in Finch-C2 and in GOLD layers."""

    def named(self, config: Config, experts: int = 0) -> dict[str, tuple[str, ...]]:
        """Of each layer the names of its kind."""
        found = {}
        for letter, names in BY_LETTER.items():
            for theirs, ours in replace(self, names=names).expanded(config.layers).items():
                number = layer_number(theirs)
                if number is None or config.letters[number] == letter:
                    found[theirs] = ours
        return found


def _config(checkpoint: Checkpoint) -> GoldFinchConfig:
    """Sizes from the tensors; whether tokens have values of their own, `use_v2` of config.json has to say."""
    vocabulary, width = checkpoint.shape("emb.weight", "vocabulary", "D")
    ffn_width, _ = checkpoint.shape("blocks.0.ffn.key.weight", "F", "D")
    layers = checkpoint.count_layers({**FINCH, **GOLD})
    heads, head_width = checkpoint.shape("blocks.0.att.time_faaaa", "H", "K")
    _, mix_rank, _ = checkpoint.shape("blocks.0.att.time_maa_w2", "5", "rank", "D")
    decay_rank, _ = checkpoint.shape("blocks.0.att.time_decay_w2", "rank", "H * K")
    finch_layers = _finch_layers(checkpoint, layers)
    attends = finch_layers < layers
    checkpoint.expect({**FIXED, "tmix2": "gold" if attends else "", "n_layer": layers, "head_size": head_width})
    checkpoint.expect({"vocab_size": vocabulary, "n_embd": width})
    return GoldFinchConfig(
        vocabulary,
        width,
        layers,
        head_width=head_width,
        heads=heads,
        ffn_width=ffn_width,
        finch_layers=finch_layers,
        mix_rank=mix_rank,
        decay_rank=decay_rank,
        own_values=_own_values(checkpoint),
        **(_attention(checkpoint, width, layers, finch_layers) if attends else {}),
    )


def _finch_layers(checkpoint: Checkpoint, layers: int) -> int:
    """How many layers come before the first one with anything that only GOLD layers have."""
    own = GOLD.keys() - FINCH.keys()
    attending = (layer_number(name) for name in checkpoint.tensors if generic(name) in own)
    return min((layer for layer in attending if layer is not None), default=layers)


def _attention(checkpoint: Checkpoint, width: int, layers: int, finch_layers: int) -> dict[str, int]:
    code_width, _ = checkpoint.shape("w_kv_cache_a.weight", "code", "D")
    _, rank = checkpoint.shape(f"blocks.{finch_layers}.att.time_key_w1", "D", "rank")
    _expect_ratio(checkpoint, "inv_other_layer_ratio", finch_layers, lambda ratio: layers * (ratio - 1) / ratio)
    _expect_ratio(checkpoint, "kv_cache_compression_ratio", code_width, lambda ratio: width / ratio)
    return {"code_width": code_width, "gold_rank": rank}


def _expect_ratio(checkpoint: Checkpoint, name: str, size: int, told: Callable[[float], float]) -> None:
    """Refuses a ratio, where there is one, that would give another size than the tensors have."""
    ratio = checkpoint.optional(name, None)
    if ratio is None:
        return
    if not isinstance(ratio, int | float) or not ratio >= 1:
        raise ValueError(f"load_checkpoint: config.json has {name} {ratio!r}, expected at least 1: {checkpoint.where}")
    if int(told(ratio)) != size:
        found = f"{name} {ratio!r}, which makes {int(told(ratio))} of what the tensors have {size}"
        raise ValueError(f"load_checkpoint: config.json has {found}: {checkpoint.where}")


def _own_values(checkpoint: Checkpoint) -> bool:
    flag = checkpoint.required("use_v2")
    if flag not in (0, 1):
        raise ValueError(f"load_checkpoint: config.json has use_v2 {flag!r}, expected 0 or 1: {checkpoint.where}")
    return bool(flag)


RELEASED = (
    GoldFinchLayout("GoldFinch by its authors", GoldFinch, GoldFinchConfig, {**FINCH, **GOLD}, _config),
    Layout("Finch-C2 by its authors", GoldFinch, GoldFinchConfig, FINCH, _config),
)
