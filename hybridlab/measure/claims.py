"""`check_claims`: published numbers, each computed from the account of the real model, and whether it comes out.

How a number is computed stands in WAYS, with the presets that it takes. A claim on a model that is not here is "to come".
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple, cast

import torch

from hybridlab.layers import MixtureOfExperts
from hybridlab.measure.memory import Account, Part, account
from hybridlab.measure.published import Published, published_numbers
from hybridlab.measure.tables import Report, Table
from hybridlab.models import PRESETS, Decoder, DecoderConfig, HymbaConfig, RetNet, RetNetConfig, from_preset
from hybridlab.models.language_model import LanguageModel
from hybridlab.ops.taylor_attention import TaylorState

CONTEXT = 262_144  # what papers call 256K
GIB, GB, MB = 2**30, 10**9, 10**6
REPRODUCED, REFUTED, TO_COME = "reproduced", "not reproduced", "to come"


class Way(NamedTuple):
    """How a number is computed, and the presets that it takes."""

    presets: tuple[str, ...]
    compute: Callable[[], float]

    @property
    def possible(self) -> bool:
        """Whether the package has all the models."""
        return all(name in PRESETS for name in self.presets)


class Claim(NamedTuple):
    """A published number beside the computed one; None where the package lacks the model."""

    published: Published
    computed: float | None

    @property
    def verdict(self) -> str:
        """Whether the computed number is the published one, up to what papers round."""
        if self.computed is None:
            return TO_COME
        value, tolerance = self.published.value, self.published.tolerance
        return REPRODUCED if abs(self.computed - value) <= tolerance * abs(value) else REFUTED


@dataclass(frozen=True, repr=False)
class Claims(Report):
    """What came of published numbers."""

    claims: tuple[Claim, ...]

    def table(self) -> Table:
        """A row a number."""
        columns = ("claim", "claimed", "computed", "unit", "verdict", "on what it depends")
        rows = tuple(
            (x.published.claim, digits(x.published.value), digits(x.computed), x.published.unit, x.verdict, x.published.note)
            for x in self.claims
        )
        failed = frozenset(row for row, claim in enumerate(self.claims) if claim.verdict == REFUTED)
        verdicts = [claim.verdict for claim in self.claims]
        counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in (REPRODUCED, REFUTED, TO_COME))
        return Table("published numbers, counted again", columns, rows, frozenset(columns[1:3]), failed, (counts,))


def check_claims(ids: Iterable[str] | None = None) -> Claims:
    """Computes published numbers from the accounts of real models.

    Args:
        ids: which of `published_numbers()`; None is all.

    Returns:
        a report that shows as a table; `.claims` has a `Claim` each.

    Raises:
        ValueError: an id that is not among them.

    Chapter 12.
    """
    known = {number.id: number for number in published_numbers()}
    wanted = tuple(known if ids is None else ids)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"check_claims: unknown id {unknown[0]!r}; choose {', '.join(known)}")
    return Claims(tuple(Claim(known[name], _computed(name)) for name in wanted))


def digits(number: float | None) -> str:
    """A count in full, any other number with four digits."""
    if number is None:
        return ""
    return f"{int(number):,}" if number == int(number) else f"{number:,.4g}"


def _computed(name: str) -> float | None:
    way = WAYS.get(name)
    return way.compute() if way is not None and way.possible else None


@cache
def _account(preset: str, context: int = CONTEXT, state_dtype: str | None = None) -> Account:
    return account(preset, context, state_dtype=state_dtype)


def _built(model: Callable[[], LanguageModel], context: int) -> Account:
    """The account of a model that has no preset."""
    with torch.device("meta"):
        return account(model(), context)


def _layers(found: Account) -> list[Part]:
    return [part for part in found.parts if part.name.startswith("layers.")]


def _caches(preset: str) -> int:
    """How many layers keep a cache."""
    return sum(part.kv_bytes > 0 for part in _layers(_account(preset)))


def _everywhere(found: Account) -> int:
    """Bytes of the cache, did every layer keep the one that those keep that have one."""
    layers = _layers(found)
    return len(layers) * max(part.kv_bytes for part in layers)


def _parameters(preset: str) -> Way:
    return Way((preset,), lambda: _account(preset).parameters)


def _active(preset: str) -> Way:
    return Way((preset,), lambda: _account(preset).active_parameters)


def _without_embedding(preset: str) -> Way:
    return Way((preset,), lambda: sum(part.parameters for part in _account(preset).parts if part.name != "embedding"))


def _cache_in_gib(preset: str) -> Way:
    return Way((preset,), lambda: _account(preset).kv_bytes / GIB)


def _state_numbers(preset: str) -> Way:
    """How many numbers the state has: all of them in 16 bits, as papers count."""
    return Way((preset,), lambda: _account(preset, state_dtype="bfloat16").state_bytes / 2)


def _caching_layers(preset: str) -> Way:
    return Way((preset,), lambda: _caches(preset))


def _times_fewer_caches(preset: str) -> Way:
    return Way((preset,), lambda: _everywhere(_account(preset)) / _account(preset).kv_bytes)


def _share_of_experts(preset: str) -> float:
    mixtures = [part for part in from_preset(preset, device="meta").modules() if isinstance(part, MixtureOfExperts)]
    return sum(x.numel() for part in mixtures for x in part.experts.parameters()) / _account(preset).parameters


def _saved_by_waves() -> float:
    """What StripedHyena saves against attention in each of its layers, at the longest text that it was made for."""
    found = _account("stripedhyena-7b", 32_768)
    return 1 - found.total_bytes / _everywhere(found)


def _goldfinch_times() -> float:
    """Numbers that attention in every layer keeps of a token, over code and index; the index counts as two numbers."""
    plain = _built(lambda: Decoder(DecoderConfig(65_536, 2048, 24, heads=16)), 1)
    return plain.kv_bytes / 2 / (_code_width("goldfinch-1.45b") + 2)


def _code_width(preset: str) -> int:
    return from_preset(preset, device="meta").init_state(1, 1).shared.codes.shape[-1]


def _goldfinch_table() -> float:
    """One byte a number, of the index too, in a model of 4,096 channels."""
    published = PRESETS["goldfinch-1.45b"]
    config: Any = published.config
    wide = replace(config, width=4096, heads=0, ffn_width=0, code_width=0, gold_rank=0)
    with torch.device("meta"):
        state = published.architecture(wide).init_state(1, CONTEXT)  # type: ignore[call-arg]
    return CONTEXT * (state.shared.codes.shape[-1] + 2) / GB


def _first_gold_layer() -> int:
    layers = _layers(_account("goldfinch-1.45b"))
    return next(number for number, part in enumerate(layers) if part.kind.startswith("GoldAttention"))


def _taylor_features() -> int:
    state = from_preset("based-1.3b", device="meta").init_state(1)
    found = (half for block in state.layers for half in block if isinstance(half, TaylorState))
    return next(found).kv.shape[-2]


def _ssm_times() -> float:
    return _account("mamba2-2.7b").recurrent_bytes / _account("mamba-2.8b").recurrent_bytes


def _recall_cache() -> float:
    """Numbers that one layer of attention keeps in the recall task of width 64 and 1,024 tokens."""
    return _built(lambda: Decoder(DecoderConfig(8192, 64, 1, heads=1)), 1024).kv_bytes / 2


def _llama_405b() -> float:
    config = DecoderConfig(128_256, 16_384, 126, heads=128, groups=8, ffn_width=53_248)
    return _built(lambda: Decoder(config), CONTEXT).kv_bytes / GIB


def _jamba_on_one_gpu() -> float:
    """Weights of one byte each, and what is kept after 140K tokens."""
    found = _account("jamba-v0.1", 140 * 1024)
    return (found.parameters + found.total_bytes) / GB


def _deepseek_row() -> float:
    """A code of 512 numbers and a key of 64 in each of 32 layers, two bytes each."""
    return (512 + 64) * 32 * CONTEXT * 2 / GIB


def _cache_in_mb(preset: str, context: int) -> float:
    return _account(preset, context).kv_bytes / MB


def _hymba_cache() -> float:
    """MB of caches and convolutions; a filter of W taps keeps W inputs, as released code does, where W - 1 are enough."""
    found, config = _account("hymba-1.5b", 8000), cast(HymbaConfig, PRESETS["hymba-1.5b"].config)
    return (found.kv_bytes + found.conv_bytes * config.filter_width / (config.filter_width - 1)) / MB


def _hymba_times() -> float:
    return _cache_in_mb("llama-3.2-3b", 8000) / _hymba_cache()


def _retnet_saves(batch: int = 1) -> float:
    """Of weights and states together, both models with Llama 2's vocabulary."""
    found = account("llama-2-7b", 8192, batch)
    with torch.device("meta"):
        mine = account(RetNet(RetNetConfig(32_000, 4096, 32)), 8192, batch, state_dtype="bfloat16")
    return 1 - (mine.weight_bytes + mine.total_bytes) / (found.weight_bytes + found.total_bytes)


WAYS: dict[str, Way] = {
    "kv256k_jamba_v0.1": _cache_in_gib("jamba-v0.1"),
    "kv256k_mistral_7b": _cache_in_gib("mistral-7b"),
    "kv256k_mixtral_8x7b": _cache_in_gib("mixtral-8x7b"),
    "kv256k_llama31_70b": _cache_in_gib("llama-3.1-70b"),
    "kv256k_llama2_7b": _cache_in_gib("llama-2-7b"),
    "kv_ratio_jamba_vs_dense": _times_fewer_caches("jamba-v0.1"),
    "params_jamba_v0.1": _parameters("jamba-v0.1"),
    "active_jamba_1.5_large": _active("jamba-1.5-large"),
    "jamba15L_moe_fraction": Way(("jamba-1.5-large",), partial(_share_of_experts, "jamba-1.5-large")),
    "active_mixtral": _active("mixtral-8x7b"),
    "goldfinch_ratio_min": Way(("goldfinch-1.45b",), _goldfinch_times),
    "goldfinch_table_goldfinch": Way(("goldfinch-1.45b",), _goldfinch_table),
    "params_goldfinch_1.45b": _parameters("goldfinch-1.45b"),
    "layout_goldfinch": Way(("goldfinch-1.45b",), _first_gold_layer),
    "hymba_table_llama32_3b": Way(("llama-3.2-3b",), partial(_cache_in_mb, "llama-3.2-3b", 8000)),
    "zamba_invocations": _caching_layers("zamba-7b"),
    "zamba_kv_6x": _times_fewer_caches("zamba-7b"),
    "zamba2_27b_layout": _caching_layers("zamba2-2.7b"),
    "zamba2_params_27b": _parameters("zamba2-2.7b"),
    "params_recurrentgemma_2b": _parameters("recurrentgemma-2b"),
    "layout_recurrentgemma_2b": _caching_layers("recurrentgemma-2b"),
    "params_rwkv4_169m": _parameters("rwkv4-169m"),
    "params_rwkv4_1.5b": _parameters("rwkv4-1.5b"),
    "params_rwkv4_7b": _parameters("rwkv4-7b"),
    "flop_rwkv4_169m": Way(("rwkv4-169m",), lambda: _account("rwkv4-169m").flops_per_token),
    "params_eagle_0.4b": _parameters("eagle-0.4b"),
    "params_eagle_3b": _parameters("eagle-3b"),
    "params_finch_1.6b": _parameters("finch-1.6b"),
    "params_rwkv7_0.1b": _parameters("rwkv7-0.1b"),
    "params_rwkv7_2.9b": _parameters("rwkv7-2.9b"),
    "state_rwkv7_l24_d1024": _state_numbers("rwkv7-0.4b"),
    "state_rwkv4_7b": _state_numbers("rwkv4-7b"),
    "params_mamba_130m": _parameters("mamba-130m"),
    "params_mamba_790m": _parameters("mamba-790m"),
    "params_mamba_2.8b": _parameters("mamba-2.8b"),
    "params_mamba2_370m": _parameters("mamba2-370m"),
    "params_mamba2_1.3b": _parameters("mamba2-1.3b"),
    "params_codestral_mamba": _parameters("codestral-mamba-7b"),
    "mamba2_state_8x": Way(("mamba-2.8b", "mamba2-2.7b"), _ssm_times),
    "params_mamba2_hybrid_8b": _parameters("mamba2-hybrid-8b"),
    "params_gemma2_2b": _without_embedding("gemma2-2b"),
    "params_gemma2_27b": _without_embedding("gemma2-27b"),
    "stripedhyena_cache_half": Way(("stripedhyena-7b",), _saved_by_waves),
    "layout_h3_2.7b": _caching_layers("h3-2.7b"),
    "based_feature_dim": Way(("based-1.3b",), _taylor_features),
    "mqar_attention_state": Way((), _recall_cache),
    "kv256k_llama31_405b": Way((), _llama_405b),
    "jamba_140k_80gb": Way(("jamba-v0.1",), _jamba_on_one_gpu),
    "goldfinch_table_jamba": _cache_in_gib("jamba-v0.1"),
    "goldfinch_table_deepseek_v2": Way((), _deepseek_row),
    "hymba_table_hymba": Way(("hymba-1.5b",), _hymba_cache),
    "hymba_ratio": Way(("llama-3.2-3b", "hymba-1.5b"), _hymba_times),
    "retnet_70_percent": Way((), _retnet_saves),
}
