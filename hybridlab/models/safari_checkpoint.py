"""The layouts of H3 and Hyena by their authors: weights of their PyTorch code, and the few things that those do not say."""

from collections.abc import Mapping
from typing import Any

from hybridlab.layers import Rotary
from hybridlab.models.checkpoint_layout import Checkpoint, Layout
from hybridlab.models.h3 import H3, H3Config
from hybridlab.models.hyena import Hyena, HyenaConfig
from hybridlab.models.packed_attention import PackedLayout, packed_names

MIXER, OURS = "backbone.layers.{}.mixer.", "layers.{}.mixer."
MOST_MAPS = 6  # in the network of a filter; each has a name of its own


def _linear(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in ("weight", "bias")}


COMMON: Mapping[str, str] = {
    "backbone.embeddings.word_embeddings.weight": "embedding.weight",
    **_linear("backbone.layers.{}.norm1", "layers.{}.mixer_norm"),
    **_linear("backbone.layers.{}.norm2", "layers.{}.channel_norm"),
    **_linear("backbone.layers.{}.mlp.fc1", "layers.{}.channel_mixer.up"),
    **_linear("backbone.layers.{}.mlp.fc2", "layers.{}.channel_mixer.down"),
    **_linear("backbone.ln_f", "norm"),
    "lm_head.weight": "head.weight",
}
FILTER, NETWORK = f"{MIXER}filter_fn.", f"{MIXER}filter_fn.implicit_filter."
HYENA_NAMES: Mapping[str, str] = {
    **COMMON,
    **_linear(f"{MIXER}in_proj", f"{OURS}input"),
    **_linear(f"{MIXER}short_filter", f"{OURS}conv"),
    f"{FILTER}bias": f"{OURS}skip",
    f"{FILTER}pos_emb.z": f"{OURS}filter.features",
    f"{FILTER}modulation.deltas": f"{OURS}filter.decay",
    f"{NETWORK}1.freq": f"{OURS}filter.frequency",
    **{
        theirs: ours
        for i in range(MOST_MAPS)
        for theirs, ours in _linear(f"{NETWORK}{2 * i}", f"{OURS}filter.maps.{i}").items()
    },
    **_linear(f"{MIXER}out_proj", f"{OURS}output"),
}
# The times are t / (W - 1) in any case, and all sines share the one frequency, which the file repeats.
HYENA_IGNORED = ("pos_emb.t", *(f"implicit_filter.{2 * i + 1}.freq" for i in range(1, MOST_MAPS)))
SHIFT, WAVES = f"{MIXER}ssm_k_kernel.kernel.", f"{MIXER}kernel.kernel."
REMEMBERING: Mapping[str, str] = {
    **_linear(f"{MIXER}q_proj", f"{OURS}query"),
    **_linear(f"{MIXER}k_proj", f"{OURS}key"),
    **_linear(f"{MIXER}v_proj", f"{OURS}value"),
    f"{SHIFT}B": f"{OURS}shift_in",
    f"{SHIFT}C": f"{OURS}shift_out",
    f"{MIXER}ssm_k_D": f"{OURS}shift_skip",
    f"{WAVES}log_dt": f"{OURS}log_step",
    f"{WAVES}inv_A_real": f"{OURS}log_rate",
    f"{WAVES}A_imag": f"{OURS}frequency",
    f"{WAVES}B": f"{OURS}wave_in",
    f"{WAVES}C": f"{OURS}wave_out",
    f"{MIXER}D": f"{OURS}skip",
    **_linear(f"{MIXER}output_linear", f"{OURS}output"),
}
ATTENDING = packed_names(MIXER, OURS)
H3_NAMES = {**COMMON, **REMEMBERING, **ATTENDING}
H3_KINDS = {"H": REMEMBERING, "A": ATTENDING}
# Variants that the model does not have: field -> the value it stands for.
HYENA_FIXED: Mapping[str, Any] = {
    "num_heads": 1,
    "inner_factor": 1,
    "num_blocks": 1,
    "outer_mixing": False,
    "post_order_ffn": False,
    "activation": "id",
    "bias": True,
    "normalized": False,
}
H3_FIXED: Mapping[str, Any] = {"disc": "bilinear", "real_type": "exp", "bandlimit": None, "force_real": False}


def _hyena_config(checkpoint: Checkpoint) -> HyenaConfig:
    """From the weights; whether filters fade, and to what, the table `layer` of config.json has to say."""
    common, first = _common(checkpoint, HYENA_NAMES), MIXER.format(0)
    rows, width = checkpoint.shape(f"{first}in_proj.weight", "projections", "D")
    if rows != 3 * width:
        found = f"{first}in_proj.weight has {rows} rows, not 3 * {width}; only order 2 is known"
        raise ValueError(f"load_checkpoint: {found}: {checkpoint.where}")
    _, taps, features = checkpoint.shape(f"{first}filter_fn.pos_emb.z", "1", "W", "features")
    _, hidden = checkpoint.shape(f"{first}filter_fn.implicit_filter.1.freq", "1", "hidden")
    maps = sum(
        name.startswith(f"{first}filter_fn.implicit_filter.") and name.endswith(".weight") for name in checkpoint.tensors
    )
    layer = checkpoint.within("layer")
    layer.expect({**HYENA_FIXED, "l_max": taps, "emb_dim": features, "filter_order": hidden, "order": 2})
    return HyenaConfig(
        **common,
        taps=taps,
        features=features,
        hidden=hidden,
        inner_maps=maps - 2,
        fading=layer.flag("modulate"),
        floor=layer.optional("shift", 0) or None,
        filter_width=checkpoint.shape(f"{first}short_filter.weight", "channels", "1", "W")[2],
    )


def _h3_config(checkpoint: Checkpoint) -> H3Config:
    """From the weights; attention's heads and how far they turn, the table `attn_cfg` of config.json has to say."""
    common = _common(checkpoint, H3_NAMES)
    attending = tuple(
        layer for layer in range(common["layers"]) if f"{MIXER.format(layer)}Wqkv.weight" in checkpoint.tensors
    )
    others = [layer for layer in range(common["layers"]) if layer not in attending]
    checkpoint.within("ssm_cfg").expect(H3_FIXED)
    if not others:
        raise ValueError(
            f"load_checkpoint: every layer attends, so nothing says how large H3's memories are: {checkpoint.where}"
        )
    first = MIXER.format(others[0])
    _, _, state_size = checkpoint.shape(f"{first}ssm_k_kernel.kernel.C", "1", "D", "N")
    (heads,) = checkpoint.shape(f"{first}kernel.kernel.log_dt", "heads")
    return H3Config(
        **common,
        state_size=state_size,
        head_width=common["width"] // heads,
        attention_layers=attending,
        **(_attention(checkpoint, common["width"]) if attending else {}),
    )


def _attention(checkpoint: Checkpoint, width: int) -> dict[str, Any]:
    fields = checkpoint.within("attn_cfg")
    heads = fields.size("num_heads")
    turned = fields.size("rotary_emb_dim") if fields.optional("rotary_emb_dim", 0) else 0
    return {"heads": heads, "rotary": Rotary(fraction=turned * heads / width) if turned else None}


def _common(checkpoint: Checkpoint, names: Mapping[str, str]) -> dict[str, Any]:
    """The sizes of the frame, which config.json may say too."""
    vocabulary, width = checkpoint.shape("backbone.embeddings.word_embeddings.weight", "vocabulary", "D")
    ffn_width, _ = checkpoint.shape("backbone.layers.0.mlp.fc1.weight", "F", "D")
    layers = checkpoint.count_layers(names)
    checkpoint.expect({"d_model": width, "n_layer": layers, "d_inner": ffn_width, "max_position_embeddings": 0})
    eps = checkpoint.optional("layer_norm_epsilon", 1e-5)
    return {"vocabulary": vocabulary, "width": width, "layers": layers, "ffn_width": ffn_width, "norm_eps": eps}


RELEASED = (
    Layout("Hyena by its authors", Hyena, HyenaConfig, HYENA_NAMES, _hyena_config, ignored=HYENA_IGNORED),
    PackedLayout("H3 by its authors", H3, H3Config, H3_NAMES, _h3_config, ignored=("rotary_emb.inv_freq",), kinds=H3_KINDS),
)
