"""Exercise 10: some mistakes have a check of their own; what the statements and the solutions say is so.

What all exercises promise is in test_exercises.py.
"""

import itertools

import pytest
import torch
from exercise_answers import answer, answers, complaints, hints, solution, statement

from hybridlab.course.practice import probes, verdicts
from hybridlab.course.probe import measure
from hybridlab.course.probes_hybrid_blocks import IN_A_ROW, SIDE_BY_SIDE, _real
from hybridlab.layers import CallAdapters, GroupedAttention, MixtureOfExperts, RetentionMixer, Routing
from hybridlab.layers.hymba_mixer import HymbaState
from hybridlab.layers.layer import Shared
from hybridlab.layers.mamba_mixer import MambaState
from hybridlab.layers.retention_mixer import RetentionState
from hybridlab.measure import account
from hybridlab.models import HybridConfig, HybridLM, Hymba, HymbaConfig, Zamba2, Zamba2Config
from hybridlab.ops import attention
from hybridlab.ops.attention import AttentionState

EXERCISE = "10_hybrid_blocks"
ADAPTED = ("attention.query", "attention.key", "attention.value", "mlp.gate", "mlp.up")


@pytest.mark.parametrize(
    ("task", "name", "catches"),
    [
        ("10-calls", "d: the last rank that is cheaper", ["d: the smallest such rank"]),
        ("10-calls", "f: a token too early", ["f: the first such token"]),
        ("10-meta", "exponentials by hand", ["scores from -900 to 900"]),
        ("10-meta", "the cache is detached", ["gradient, outputs and cache"]),
        ("10-meta", "always float64", ["float32 stays float32 (1)"]),
        ("10-router", "exponentials by hand", ["logits from -900 to 900"]),
        ("10-plan", "no word is no error", ["ValueError where nothing fits (1)"]),
        ("10-wiring", "the outputs are compared", ["right ones rejected (1) or not (0)"]),
        ("10-wiring", "twenty tokens", ["wrong ones rejected (1) or not (0)"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that every mistake fails says nothing: these fail no other."""
    assert complaints(EXERCISE, task, answers(EXERCISE).wrong[task][name]) == catches


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("the list is not asked", "recurrence, then attention"),
        ("the recurrence is not asked", "attention, then recurrence"),
        ("a single token", "attention, a token late, then recurrence"),
        ("one and two tokens", "recurrence, at every fourth token, then attention"),
        ("four tokens", "attention through a window of 2, then a token shift"),
        ("twenty tokens", "attention through a window, then recurrence"),
        ("from empty memories", "attention, then recurrence"),
        ("zeros are read", "tokens times what attention says, then recurrence"),
        ("three digits", "attention, then recurrence, faint"),
        ("to the last digit", "memories of millions, noise in the last digits"),
        ("whatever the size", "memories of millions, noise in the last digits"),
        ("the halves add up", "one times the other"),
    ],
)
def test_a_layer_is_there_for_a_mistake(name, layer):
    test = answer(EXERCISE, "10-wiring", answers(EXERCISE).wrong["10-wiring"][name])
    misjudged = []
    for expected, probe in enumerate(probes("10-wiring")):  # 0 for layers side by side, 1 for those in a row
        said = measure(probe, test)
        misjudged += [label for label, value in zip(said.labels, said.values, strict=True) if value != expected]
    assert layer in misjudged


def test_the_six_numbers_are_those_of_a_real_zamba2():
    a, b, c, d, e, f = solution(EXERCISE, "10-calls")
    calls = tuple(range(2, 29, 3))
    config = Zamba2Config(
        32_000, 1024, 30, calls=calls, blocks=2, heads=16, adapter_rank=64, attention_adapters=True, ffn_width=4096
    )
    with torch.device("meta"):
        model = Zamba2(config)
        thick = [CallAdapters(1024, config.block_options, rank, attention=True) for rank in (d - 1, d)]
    block = {name: x.numel() for name, x in model.shared_blocks[0].named_parameters() if "norm" not in name}
    adapted = sum(block[f"{name}.weight"] for name in ADAPTED)
    changes = [sum(x.numel() for x in model.layers[n].adapters.parameters()) for n in calls]
    assert len(calls) == 9
    assert a == account(model, 1).kv_bytes
    assert (b, c, e) == (2 * sum(block.values()), sum(changes), 9 * sum(block.values()))
    below, above = (sum(x.numel() for x in adapters.parameters()) for adapters in thick)
    assert below <= adapted < above
    saved = 2 * (9 * sum(block.values()) - b - c)
    assert a * (f - 1) <= saved < a * f


def test_meta_tokens_that_are_kept_once_say_what_sinks_say():
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 9, size, generator=rng).double() for size in (3, 3, 2))
    meta_k, meta_v = (torch.randn(4, size, generator=rng).double() for size in (3, 2))
    mine, kept = solution(EXERCISE, "10-meta")(q, k, v, meta_k, meta_v, 3)
    front = [z.expand(2, *z.shape) for z in (meta_k[:, :1].expand(4, 3), meta_k, meta_v)]
    heads = (torch.cat(pair, 1)[:, :, None] for pair in zip(front, (q, k, v), strict=True))
    sunk, cache = attention(*heads, window=3, sinks=4, form="parallel")
    torch.testing.assert_close(mine, sunk[:, 4:, 0])
    torch.testing.assert_close(kept, tuple(z[:, 4:, 0] for z in cache))


def layer_of_experts(renormalised, active):
    torch.manual_seed(0)
    layer = MixtureOfExperts(6, 8, Routing(5, active, renormalised)).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def parts(layer):
    maps = (torch.stack([getattr(expert, name).weight for expert in layer.experts]) for name in ("gate", "up", "down"))
    return layer.router.weight, *maps


@pytest.mark.parametrize("active", [1, 2, 5])
def test_the_repaired_mixture_is_jambas_and_the_other_mixtrals(active):
    shown = statement("10-router").split("```python\n")[1].split("```")[0]
    broken = answers(EXERCISE).wrong["10-router"]["as it was"]
    assert broken.endswith(shown)
    x = torch.randn(1, 7, 6, generator=torch.Generator().manual_seed(1)).double()
    for renormalised, mixture in ((False, solution(EXERCISE, "10-router")), (True, answer(EXERCISE, "10-router", broken))):
        layer = layer_of_experts(renormalised, active)
        torch.testing.assert_close(mixture(x[0], *parts(layer), active), layer(x)[0][0])


def test_the_broken_router_is_first_told_how_loud_it_is():
    broken = answer(EXERCISE, "10-router", answers(EXERCISE).wrong["10-router"]["as it was"])
    assert str(verdicts("10-router", broken)[0]).startswith("how loud, if the router does not know: no - at 1 of 5 experts")


def test_with_one_expert_the_broken_router_learns_nothing():
    broken = answer(EXERCISE, "10-router", answers(EXERCISE).wrong["10-router"]["as it was"])
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(1)).double()
    for mixture, learns in ((broken, False), (solution(EXERCISE, "10-router"), True)):
        router, *maps = (z.detach() for z in parts(layer_of_experts(True, 1)))
        router.requires_grad_()
        mixture(x, router, *maps, 1).square().sum().backward()
        assert (router.grad.abs().max() > 1e-6).item() == learns


def keeps_the_rules(word, kept):
    return word[0] not in "AW" and all(one != two for one, two in itertools.pairwise(word))


def test_no_word_at_all_has_more_lists():
    plan = solution(EXERCISE, "10-plan")
    rng = torch.Generator().manual_seed(0)
    for layers in (1, 2, 5, 6):
        words = ["".join(letters) for letters in itertools.product("AWSG", repeat=layers)]
        for _ in range(6):
            kept = dict(zip("AWSG", (int(n) for n in torch.randint(1, 30, (4,), generator=rng)), strict=True))
            sizes = {word: sum(map(kept.get, word)) for word in words if keeps_the_rules(word, kept)}
            limit = sorted(sizes.values())[len(sizes) // 3]
            most = max(word.count("A") for word, size in sizes.items() if size <= limit)
            found = plan(layers, limit, kept)
            assert (sizes[found] <= limit, found.count("A")) == (True, most)


def test_what_a_word_keeps_is_the_sum_of_its_letters():
    assert _real("SAWGMA", 4_000) == sum(_real(letter, 4_000) for letter in "SAWGMA")
    shown = statement("10-plan").split("```python\n")[1].split("```")[0]
    assert 'pattern=x, groups=2, window=1024)) for x in "AWSGM"}' in shown
    with torch.device("meta"):
        model = HybridLM(HybridConfig(256, 512, pattern="S", groups=2, window=1024))
    assert account(model, 4_000).total_bytes == _real("S", 4_000)
    assert _real("A", 100) < _real("S", 100) < _real("A", 4_000)  # "after 100 tokens a list keeps less than most"
    assert sum(_real("A", 100) < _real(letter, 100) for letter in "SGM") == 2


def test_an_error_where_there_is_a_word_names_the_case():
    def plan(layers, limit, kept):
        raise ValueError("full")

    said = {verdict.name: verdict.complaint for verdict in verdicts("10-plan", plan)}
    assert said["to the last byte"] == "at 10 layers, exactly: got a ValueError (full), but there is a word"
    assert said["ValueError where nothing fits (1)"] == ""


def test_the_words_in_the_hint():
    kept = {"A": 100, "S": 1, "M": 60}
    sizes = {word: sum(map(kept.get, word)) for word in ("SASASASAS", "SASASASMS", "SAMASASMS")}
    assert sizes == {"SASASASAS": 405, "SASASASMS": 365, "SAMASASMS": 424}
    assert all(word in hints("10-plan")[1] for word in (*sizes, "405", "365", "424", "370"))
    assert solution(EXERCISE, "10-plan")(9, 370, kept).count("A") == 3


def heard(layer, tokens, seed):
    """The larger share of a memory that changes when the other memory is exchanged."""
    one, two, x = torch.randn(3, 20, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    (_, cache1, state1), (_, cache2, state2) = layer(one, None, None), layer(two, None, None)
    _, cache, state = layer(x[:tokens], cache1, state1)
    pairs = (cache, layer(x[:tokens], cache1, state2)[1]), (state, layer(x[:tokens], cache2, state1)[2])
    return max(((mine - other).abs().max() / mine.abs().max()).item() for mine, other in pairs)


def test_layers_in_a_row_are_heard_as_far_as_the_statement_says():
    assert (len(SIDE_BY_SIDE), len(IN_A_ROW)) == (12, 17)
    assert "29 layers, 12 of the first kind and 17 of the second" in statement("10-wiring")
    for seed in (0, 1):
        assert max(heard(layer, tokens, seed) for layer in SIDE_BY_SIDE.values() for tokens in (1, 4, 20)) < 1e-11
        assert min(max(heard(layer, tokens, seed) for tokens in (1, 4)) for layer in IN_A_ROW.values()) > 1e-6
        for tokens in range(1, 21):  # no length shows every layer
            assert min(heard(layer, tokens, seed) for layer in IN_A_ROW.values()) < 1e-11


def one_layer_of_hymba():
    torch.manual_seed(0)
    config = HymbaConfig(50, 3, 1, heads=1, groups=1, head_width=4, ffn_width=4, meta_tokens=1, pattern="A")
    mixer = Hymba(config, backend="naive").layers[0].mixer.double()

    def layer(x, rows, flat):
        state = None
        if rows is not None:
            inputs, numbers = flat.split((3 * 6, 6 * 16))
            cache = AttentionState(*rows[None, :, None].split((4, 6), -1))
            state = HymbaState(cache, MambaState(inputs.view(1, 3, 6), numbers.view(1, 6, 16)))
        y, state = mixer(x[None], state, Shared(torch.tensor(0 if rows is None else len(rows))))
        return y[0], torch.cat(state.attention, -1)[0, :, 0], torch.cat([z.flatten() for z in state.mamba])

    return layer


def two_layers(attention_first):
    torch.manual_seed(0)
    attends, remembers = GroupedAttention(3, 1, 1, 3).double(), RetentionMixer(3, 1, 4, 3).double()

    def layer(x, rows, state):
        x, state = x[None], None if state is None else RetentionState(state)
        cache = None if rows is None else AttentionState(*rows[None, :, None].split(3, -1))
        for is_attention in (attention_first, not attention_first):
            if is_attention:
                y, cache = attends(x, cache)
            else:
                y, state = remembers(x, state, Shared(torch.tensor(0 if rows is None else len(rows))))
            x = x + y
        return x[0], torch.cat(cache, -1)[0, :, 0], state.retention

    return layer


def test_the_test_tells_hymba_from_layers_in_a_row():
    test = solution(EXERCISE, "10-wiring")
    assert test(one_layer_of_hymba()) is None
    for attention_first in (True, False):
        with pytest.raises(AssertionError):
            test(two_layers(attention_first))
