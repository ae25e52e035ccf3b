"""Zamba and Zamba2 as models: one block that many layers call, a cache for each call, and what a call has of its own."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from shaken import shaken, text

from hybridlab.layers import Rotary, SharedBlock, SharedCall
from hybridlab.measure import account, check_invariants
from hybridlab.measure.recording import record
from hybridlab.measure.tiny import VOCABULARY, WIDTH
from hybridlab.models import PRESETS, LanguageModel, Zamba, Zamba2, Zamba2Config, ZambaConfig, set_backend
from hybridlab.state import state_nbytes, state_tensors

GIB, CONTEXT_256K = 2**30, 262_144
ZAMBA = ZambaConfig(VOCABULARY, WIDTH, 5, calls=(1, 3, 4), heads=3, state_size=4)
ZAMBA2 = Zamba2Config(VOCABULARY, WIDTH, 5, calls=(1, 3, 4), blocks=2, heads=3, state_size=4, mixer_heads=6, adapter_rank=5)
CARDS: dict[str, Callable[[], LanguageModel]] = {
    "Zamba": lambda: Zamba(ZAMBA),
    "Zamba, grouped": lambda: Zamba(ZambaConfig(VOCABULARY, WIDTH, 2, calls=(0,), heads=4, groups=2, bias=True)),
    "Zamba2": lambda: Zamba2(ZAMBA2),
    "Zamba2, everything": lambda: Zamba2(
        Zamba2Config(
            VOCABULARY, WIDTH, 3, (0, 2), 2, 4, 2, bias=True, mixer_heads=4, attention_adapters=True, rotary=Rotary()
        )
    ),
}


def callers(model: LanguageModel) -> list[SharedCall]:
    return [layer for layer in model.layers if isinstance(layer, SharedCall)]


@pytest.mark.parametrize("name", ["Zamba, grouped", "Zamba2, everything"])
def test_card(name: str) -> None:
    model = CARDS[name]()
    set_backend(model, "naive")
    card = check_invariants(model)
    assert card.ok, card.failed


@pytest.mark.parametrize("name", ["Zamba", "Zamba2"])
def test_a_shared_block_is_one_module(name: str) -> None:
    """Stored once; moved, copied and loaded with the model, whichever layers call it."""
    model = shaken(CARDS[name]())
    set_backend(model, "naive")
    blocks = list(model.shared_blocks)  # type: ignore[arg-type]
    assert [blocks.index(layer.block) for layer in callers(model)] == [call % len(blocks) for call in range(3)]
    assert [module for module in model.modules() if isinstance(module, SharedBlock)] == blocks
    assert sum("attention.output.weight" in name for name in model.state_dict()) == len(blocks)
    assert {parameter.dtype for parameter in callers(model)[0].block.parameters()} == {torch.float64}

    twin = copy.deepcopy(model)
    assert all(layer.block in list(twin.shared_blocks) for layer in callers(twin))  # type: ignore[arg-type]
    with torch.no_grad():
        before = model(text(7)).logits
        for parameter in twin.shared_blocks.parameters():
            parameter.mul_(2)
        assert torch.equal(model(text(7)).logits, before)
        assert not torch.allclose(twin(text(7)).logits, before)

        with torch.device("meta"):
            empty = type(model)(model.config)
        empty.load_state_dict(model.state_dict(), assign=True)
        empty.tie_head()
        set_backend(empty, "naive")
        assert torch.equal(empty(text(7)).logits, before)


def test_every_call_has_a_cache_of_its_own() -> None:
    """Two calls of one block: its weights are the same, what it reads is not, and so are keys and values not."""
    state = shaken(CARDS["Zamba"]())(text(6)).state
    caches = [layer.attention for layer in state.layers if hasattr(layer, "attention")]
    assert len(caches) == 3
    assert all(cache.k_past.shape == (1, 6, 3, 16) for cache in caches)
    assert not any(torch.allclose(caches[0].k_past, cache.k_past) for cache in caches[1:])
    assert state_nbytes(caches) == 3 * state_nbytes(caches[0])


def test_what_a_block_finds_steers_the_mixer_and_is_not_added_to_the_stream() -> None:
    model = shaken(CARDS["Zamba"]())
    set_backend(model, "naive")
    with torch.no_grad():
        first, second = model(text(9)).logits, None
        model.shared_blocks[0].mlp.down.weight.mul_(-1)  # type: ignore[index, union-attr]
        second = model(text(9)).logits
        assert not torch.allclose(first, second)
        for layer in model.layers:
            layer.mixer.output.weight.zero_()
        expected = model.head(model.norm(model.embedding(text(9))))
        torch.testing.assert_close(model(text(9)).logits, expected)


def test_a_block_reads_the_token_embeddings_beside_the_stream() -> None:
    """Halves of what the first map reads: the stream, then the embeddings, under one norm."""
    model = shaken(CARDS["Zamba"]())
    seen: list[torch.Tensor] = []
    block = model.shared_blocks[0]  # type: ignore[index]
    block.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    model(text(4))
    embeddings = model.embedding(text(4))
    assert len(seen) == 3
    assert all(torch.equal(both[..., WIDTH:], embeddings) for both in seen)
    assert not any(torch.allclose(both[..., :WIDTH], embeddings) for both in seen)


def test_sharing_is_what_equal_blocks_would_compute() -> None:
    """A model with a block for each call, all alike: the same logits, and gradients that add up to the shared block's."""
    model, apart = shaken(CARDS["Zamba"]()), Zamba(replace(ZAMBA, blocks=3)).double()
    weights = model.state_dict()
    names = [name for name in apart.state_dict() if name.startswith("shared_blocks.")]
    copies = {name: weights[f"shared_blocks.0.{name.split('.', 2)[2]}"] for name in names}
    apart.load_state_dict(weights | copies)
    losses = []
    for each in (model, apart):
        set_backend(each, "naive")
        losses.append(each(text(5)).logits.square().sum())
        losses[-1].backward()
    torch.testing.assert_close(*losses)
    for name, parameter in model.shared_blocks[0].named_parameters():  # type: ignore[index, union-attr]
        parts = [block.get_parameter(name).grad for block in apart.shared_blocks]  # type: ignore[union-attr]
        assert all(part.abs().max() > 0 for part in parts)
        torch.testing.assert_close(parameter.grad, sum(parts))


@torch.no_grad()
def test_adapters_start_as_nothing_and_belong_to_one_call() -> None:
    """The third call is of the first call's block: what the third changes in it, the first does not see."""
    model = Zamba2(ZAMBA2, backend="naive")
    for parameter in model.shared_blocks.parameters():
        parameter.mul_(5)
    logits, state = model(text(8))
    adapters = callers(model)[2].adapters
    assert adapters is not None
    adapters.mlp.up.normal_()
    assert torch.equal(model(text(8)).logits, logits)
    adapters.mlp.down.normal_()
    changed, after = model(text(8))
    assert not torch.allclose(changed, logits)
    assert all(
        torch.equal(*pair) for pair in zip(state_tensors(state.layers[:4]), state_tensors(after.layers[:4]), strict=True)
    )
    assert not torch.allclose(after.layers[4].mixer.ssm, state.layers[4].mixer.ssm)


def test_the_ops_can_be_listened_to() -> None:
    """A head at a time in Zamba, so two calls a layer; all heads at once in Zamba2."""
    calls = record(Zamba(ZAMBA, backend="naive"), text(9, batch=3))
    assert [(call.layer, call.op) for call in calls] == [(f"layers.{i // 2}.mixer", "selective_scan") for i in range(10)]
    assert calls[0].inputs["x"].shape == (3, 9, WIDTH)
    assert {call.inputs["backend"] for call in calls} == {"naive"}
    calls = record(Zamba2(ZAMBA2, backend="naive"), text(9))
    assert [(call.layer, call.op) for call in calls] == [(f"layers.{i}.mixer", "ssd") for i in range(5)]


@pytest.fixture(scope="module")
def zamba_7b() -> LanguageModel:
    return Zamba.from_preset("zamba-7b", device="meta")


def test_weights_are_shared_and_caches_are_not(zamba_7b: LanguageModel) -> None:
    """Zamba-7B after 256K tokens, 16 bits: 4.95 % of its parameters are the block's; 13 caches have 94.25 GiB."""
    report = account(zamba_7b, CONTEXT_256K)
    rows = {part.name: part for part in report.parts}
    caches = [part.kv_bytes for part in report.parts if part.kv_bytes]
    assert report.parameters == 7_232_490_496
    assert rows["shared_blocks"].parameters == 26 * 3712**2 + 3 * 3712
    assert round(100 * rows["shared_blocks"].parameters / report.parameters, 2) == 4.95
    assert report.kv_bytes == sum(caches) == 94.25 * GIB
    assert caches == [2 * 2 * CONTEXT_256K * 2 * 3712] * 13
    assert rows["layers.7"].kind == "SharedBlock + HeadedMambaMixer"


def test_a_call_costs_the_whole_block(zamba_7b: LanguageModel) -> None:
    """2 a weight of the block's matrices and of the map after it, and 4 a channel of attention and token in sight."""
    parts = {part.name: part for part in account(zamba_7b, 1000).parts}
    matrices = 27 * 3712**2
    assert parts["layers.2"].flops_per_token - parts["layers.1"].flops_per_token == 2 * matrices + 4 * 2 * 3712 * 1000
    assert parts["shared_blocks"].flops_per_token == 0


def test_blocks_take_turns_and_adapters_cost_little() -> None:
    report = account("zamba2-2.7b", 1000)
    parts = {part.name: part for part in report.parts}
    adapter = 128 * 9 * 2560
    call = 2 * (27 * 2560**2 + adapter) + 4 * 2 * 2560 * 1000
    assert parts["layers.6"].flops_per_token - parts["layers.5"].flops_per_token == call
    assert parts["layers.6"].parameters - parts["layers.5"].parameters == 2560**2 + adapter
    assert parts["shared_blocks"].parameters == 2 * (26 * 2560**2 + 3 * 2560)


@pytest.mark.parametrize("name", ["zamba2-1.2b", "zamba2-2.7b", "zamba2-7b"])
def test_where_blocks_are_called(name: str) -> None:
    """Every sixth layer, but for the first steps of the two larger ones and the last of the 2.7B."""
    calls = PRESETS[name].config.calls  # type: ignore[attr-defined]
    expected = {"zamba2-1.2b": (5, 6, 35), "zamba2-2.7b": (6, 9, 51), "zamba2-7b": (6, 13, 77)}
    assert (calls[0], len(calls), calls[-1]) == expected[name]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"calls": (3, 1)}, r"calls is \(3, 1\); expected layers in ascending order, each of 0 \.\. 4"),
        ({"calls": (1, 1)}, r"calls is \(1, 1\)"),
        ({"calls": (1, 5)}, r"calls is \(1, 5\)"),
        ({"calls": [1]}, r"calls is \[1\]"),
        ({"calls": ()}, "blocks is 1; expected at most one for each of 0 calls"),
        ({"calls": (1,), "blocks": 2}, "blocks is 2; expected at most one for each of 1 calls"),
        ({"calls": (1,), "heads": 4, "groups": 3}, "groups is 3; expected a divisor of heads = 4"),
        ({"calls": (1,), "mixer_heads": 7}, "mixer_heads is 7; expected a divisor of inner = 48"),
        ({"calls": (1,), "mixer_heads": 6, "mixer_groups": 4}, "mixer_groups is 4; expected a divisor of 6 heads"),
        ({"calls": (1,), "heads": 16, "rotary": Rotary()}, "head_width is 3; expected an even number"),
        ({"calls": (1,), "step_limits": (2.0, 1.0)}, r"step_limits is \(2\.0, 1\.0\)"),
    ],
    ids=str,
)
def test_nonsense_in_a_configuration(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Zamba2Config(VOCABULARY, WIDTH, 5, **fields)
    if not {"mixer_groups", "rotary", "step_limits"} & set(fields):
        with pytest.raises(ValueError, match=message):
            ZambaConfig(VOCABULARY, WIDTH, 5, **fields)


def test_derived_sizes() -> None:
    config = ZambaConfig(50, 256, 3, calls=(2,))
    assert (config.heads, config.groups, config.head_width, config.ffn_width) == (4, 4, 128, 1024)
    assert (config.inner, config.rank, config.mixer_heads, config.letters) == (512, 16, 2, "MMH")
    assert Zamba2Config(50, 256, 3, calls=(0, 2), blocks=2).mixer_sizes[:3] == (8, 64, 64)
