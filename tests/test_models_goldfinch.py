"""GoldFinch as a model: its cards, its one cache, bytes and FLOPs of the published size, what it learns."""

from collections.abc import Callable

import pytest
import torch

from hybridlab.layers import KeyCache
from hybridlab.measure import account, check_invariants
from hybridlab.measure.memory import Account
from hybridlab.measure.recording import record
from hybridlab.models import PRESETS, GoldFinch, GoldFinchConfig, set_backend
from hybridlab.state import Empty, state_nbytes

VOCABULARY, WIDTH = 41, 24
RELEASE = "goldfinch-1.45b"


def tiny(layers: int = 3, **sizes: int) -> GoldFinch:
    ranks = {"mix_rank": 3, "decay_rank": 5, "gold_rank": 4, "code_width": 3}
    return GoldFinch(GoldFinchConfig(VOCABULARY, WIDTH, layers, head_width=8, **{**ranks, **sizes}), backend="naive")


CARDS: dict[str, Callable[[], GoldFinch]] = {
    "mostly attention": lambda: tiny(4, finch_layers=1),
    "no attention, narrow heads": lambda: tiny(2, finch_layers=2, heads=2),
    "a bonus": lambda: tiny(2, finch_layers=1, own_values=False),
}


@pytest.mark.parametrize("name", CARDS)
def test_card(name: str) -> None:
    card = check_invariants(CARDS[name](), window=4)
    assert card.ok, card.failed


def test_two_thirds_come_first() -> None:
    """int(L * 2 / 3), as the authors round."""
    letters = [GoldFinchConfig(VOCABULARY, 64, layers).letters for layers in (2, 3, 4, 12, 24)]
    assert letters == ["CO", "CCO", "CCOO", "C" * 8 + "O" * 4, "C" * 16 + "O" * 8]
    assert PRESETS[RELEASE].config.letters == letters[-1]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"finch_layers": 4}, "finch_layers is 4; expected at most layers = 3"),
        ({"heads": 2}, "heads is 2; expected width / head_width = 24 / 8, where layers attend"),
        ({"code_width": -1}, "code_width is -1; expected a positive int"),
        ({"layers": 1}, "finch_layers is 0; expected a positive int"),
    ],
)
def test_sizes_that_do_not_fit(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**sizes)


@torch.no_grad()
def test_one_cache_of_codes_and_ids() -> None:
    """The code is of the stream behind the last Finch-C2 layer, whatever later layers do; the ids are the tokens."""
    model = tiny()
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    ids = torch.randint(VOCABULARY, (2, 9))
    cache = model(ids[:, 5:], model(ids[:, :5]).state).state.shared
    assert type(cache) is KeyCache
    assert torch.equal(cache.ids.long(), ids)
    x, shared = model.embedded(ids), None
    for block in model.layers[:2]:
        x, _ = block(x, None, shared)
    torch.testing.assert_close(cache.codes, model.keys.compress(x), rtol=0, atol=1e-5)
    for parameter in model.layers[2].parameters():
        parameter.zero_()
    torch.testing.assert_close(model(ids).state.shared.codes, cache.codes, rtol=0, atol=1e-5)
    assert type(tiny(2, finch_layers=2)(ids).state.shared) is Empty


@torch.no_grad()
def test_ids_of_the_past_are_read() -> None:
    """Nothing but an id says which token stood there: another one changes what attention makes of the past."""
    model = tiny()
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    ids = torch.randint(VOCABULARY, (1, 6))
    state = model(ids).state
    other = state.shared._replace(ids=(state.shared.ids.long() + 1).remainder(VOCABULARY).to(torch.uint16))
    before, after = (model(ids[:, :1], state._replace(shared=shared)).logits for shared in (state.shared, other))
    assert (after - before).abs().max() > 1e-3


@pytest.fixture(scope="module")
def accounts() -> dict[int, Account]:
    """Of the published size: two bytes an entry, at the first token and at 256K."""
    model = GoldFinch.from_preset(RELEASE, device="meta")
    return {context: account(model, context, state_dtype="bfloat16") for context in (1, 262_144)}


def test_published_bytes(accounts: dict[int, Account]) -> None:
    """The paper's 756 x counts an id as two entries; an id in two bytes makes it 762 x."""
    release = PRESETS[RELEASE].config
    for context, report in accounts.items():
        finch, gold = report.parts[2:18], report.parts[18:26]
        assert sum(part.state_bytes for part in finch) == 4_325_376
        assert sum(part.state_bytes for part in gold) == 65_536
        assert sum(part.kv_bytes for part in (*finch, *gold)) == 0
        assert report.kv_bytes == 258 * context
        assert report.parameters == 1_445_257_216
        attention = 2 * release.width * release.layers
        assert 2 * attention * context / report.kv_bytes == pytest.approx(762, abs=0.1)
        assert attention / (release.width / 16 + 2) == pytest.approx(756, abs=0.5)


def test_what_a_token_costs(accounts: dict[int, Account]) -> None:
    """2 a weight, 5 a number of state, 3 a key and 2 a value for the bonus; and for every token so far, keys from codes
    once, and in each attention layer two networks, two mixtures and the attention itself."""
    c = PRESETS[RELEASE].config
    D, finch, gold = c.width, 16, 8
    channel = 2 * (2 * D * c.ffn_width + D * D)
    wkv = 5 * D * 64 + 3 * D + 2 * D
    finch_maps = 5 * D * D + 2 * 5 * D * 32 + 2 * (2 * 64 * D)
    query = 2 * D * D + 2 * 32 * D
    token = finch * (2 * finch_maps + wkv + channel) + gold * (2 * query + channel) + 2 * D * (c.code_width + c.vocabulary)
    past = 2 * D * (D + c.code_width) + gold * 2 * (2 * (2 * 32 * D) + 2 * (2 * c.gold_rank * D) + 2 * D)
    for context, report in accounts.items():
        assert report.flops_per_token == token + context * past
    rebuilt = [part.flops_per_token for part in accounts[262_144].parts if part.name == "keys" or "Gold" in part.kind]
    assert len(rebuilt) == 9
    assert sum(rebuilt) / accounts[262_144].flops_per_token > 0.999


def test_the_op_can_be_listened_to() -> None:
    calls = record(tiny(), torch.arange(9).unsqueeze(0))
    assert [(call.layer, call.op) for call in calls] == [(f"layers.{i}.mixer", "wkv6") for i in range(2)]


@torch.no_grad()
def test_bfloat16_keeps_sums_in_float32() -> None:
    model = tiny().to(torch.bfloat16)
    set_backend(model, "auto")
    output = model(torch.arange(9).unsqueeze(0))
    assert output.logits.dtype == output.state.shared.codes.dtype == torch.bfloat16
    assert output.state.layers[1].mixer.wkv.dtype == torch.float32
    assert state_nbytes(output.state) == state_nbytes(model.init_state(1, 9))


def test_every_parameter_is_trained_but_those_of_the_other_kind() -> None:
    """The bonus, which the authors' files hold as well, beside values of a token's own; or these beside the bonus."""
    for own_values, unread in ((True, {"bonus"}), (False, {"own_value.down", "own_value.up", "mixing.mus.o"})):
        model = tiny(2, finch_layers=1, own_values=own_values)
        for parameter in model.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
        model(torch.randint(VOCABULARY, (1, 6))).logits.square().sum().backward()
        still = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
        assert still == {f"layers.0.mixer.{name}" for name in unread}
