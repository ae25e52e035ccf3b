"""Exercise 12: some mistakes have a check of their own; what the statements, hints and solutions say is so.

What all exercises promise is in test_exercises.py.
"""

import pytest
import torch
from exercise_answers import answer, answers, complaints, hints, solution, statement

from hybridlab.course import ledger
from hybridlab.course.practice import probes, task_data, verdicts
from hybridlab.course.probe import measure
from hybridlab.course.probes_memory import JAMBA_CAPTIONS, RIGHT_CLAIMS, WRONG_CLAIMS, count_preset
from hybridlab.layers import MixtureOfExperts, Routing
from hybridlab.measure import account
from hybridlab.measure.planner import plan as planned
from hybridlab.models import PRESETS, Decoder, DecoderConfig, Jamba, JambaConfig
from hybridlab.ops import attention
from hybridlab.state import state_nbytes

EXERCISE = "12_memory"
GIB = 2**30


@pytest.mark.parametrize(
    ("task", "name", "catches"),
    [
        ("12-row", "b: a window keeps all of itself", ["b: window"]),
        ("12-int8", "pack: in the dtype it came in", ["pack: steps beyond a half, bfloat16"]),
        ("12-int8", "pack: a little more than the scale", ["pack: steps beyond a half, faint and loud"]),
        ("12-int8", "pack: a scale is at least 1e-5", ["pack: steps to a row's largest number"]),
        ("12-int8", "pack: scales are a view of all numbers", ["pack: bytes too many"]),
        ("12-int8", "pack: divides in place", ["pack: inputs untouched"]),
        ("12-int8", "attend: softmax by hand", ["attend: a ramp of scores"]),
        ("12-int8", "attend: without autograd", ["attend: gradient of q"]),
        ("12-int8", "attend: changes the scales", ["attend: inputs untouched"]),
        ("12-meta", "a view where nothing is put together", ["bytes too many", "bytes too many, batch 1"]),
        ("12-meta", "a view that is made contiguous, and nothing for a window of 1", ["bytes too many, batch 1"]),
        ("12-meta", "detached", ["gradient"]),
        ("12-plan", "plan: one conversation", ["plan: 24 GiB, 8 conversations"]),
        ("12-plan", "plan: more than the context", ["plan: 16 GiB, as many tokens as one of them has room for"]),
        ("12-claim", "the other model is not looked at", ["test: right ones rejected (1) or not (0)"]),
        ("12-claim", "behind: the first alone", ["behind: Jamba's 4", "behind: Jamba's 4.0"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that every mistake fails says nothing: these fail no other."""
    assert complaints(EXERCISE, task, answers(EXERCISE).wrong[task][name]) == catches


@pytest.mark.parametrize(
    ("task", "name", "says"),
    [
        ("12-row", "c: scans in two bytes", "c: a channel: no - at bytes of a number of its state got 2, expected 4"),
        ("12-row", "c: four columns of inputs", "c: a channel: no - at inputs that it reads again got 4, expected 3"),
        (
            "12-meta",
            "one row too many",
            "what is kept, in pieces: no - window 4, 3 meta tokens: expected 6 rows, got 7, 7",
        ),
    ],
)
def test_what_a_check_says_points_at_the_mistake(task, name, says):
    assert says in map(str, verdicts(task, answer(EXERCISE, task, answers(EXERCISE).wrong[task][name])))


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("five percent", "GoldFinch, one decimal"),
        ("one percent", "a byte"),
        ("five percent", "a little less"),
        ("five percent", "cut, not rounded"),
        ("a whole digit", "a little more"),
        ("half of 1, whatever the digits", "one digit too many"),
        ("without the size of the error", "no window"),
        ("the error the other way round", "weights in one byte"),
        ("always the cache", "the state left out"),
        ("one conversation", "one conversation for two"),
        ("states in float32", "32 bits for 16"),
        ("always two bytes", "16 bits for 32, cache"),
        ("upside down", "upside down"),
        ("8,000 is 8,192", "Llama 3.2, 8K = 8,000"),
    ],
)
def test_a_claim_is_there_for_a_mistake(name, claim):
    pair = answer(EXERCISE, "12-claim", answers(EXERCISE).wrong["12-claim"][name])
    misjudged = []
    for expected, probe in enumerate(probes("12-claim")[:2]):  # 0 for the right claims, 1 for the wrong ones
        said = measure(probe, pair)
        misjudged += [label for label, value in zip(said.labels, said.values, strict=True) if value != expected]
    assert claim in misjudged


def kept(model, tokens):
    return state_nbytes(model.init_state(1, tokens, dtype=torch.bfloat16, device="meta"))


def test_the_row_of_the_table_is_that_of_real_layers():
    a, b, c, d, e, f = solution(EXERCISE, "12-row")
    heads = {"heads": 32, "groups": 4, "head_width": 128}
    with torch.device("meta"):
        called = Decoder(DecoderConfig(8, 4096, 6, **heads))
        windowed = Decoder(DecoderConfig(8, 4096, 3, window=4096, **heads))
        # A twentieth: two layers that do not attend, of which one has experts.
        mamba = Jamba(JambaConfig(8, 4096, 2, ffn_width=14_336, routing=Routing(16, 2, False), inner=8192))

    def caches(tokens):
        return kept(called, tokens) + kept(windowed, tokens)

    idle = 20 * sum(part.idle_parameters() for part in mamba.modules() if isinstance(part, MixtureOfExperts))
    assert (a, b) == (caches(5001) - caches(5000), caches(262_144) / GIB)
    assert [20 * kept(mamba, tokens) for tokens in (1, 5000)] == [c, c]
    assert caches(d - 1) <= c < caches(d)
    conversation = caches(32_768) + c
    assert e * conversation <= 10 * 10**9 < (e + 1) * conversation
    assert f == idle


def test_the_numbers_of_published_models_in_texts_and_hints():
    one, two = (count_preset("jamba-v0.1", tokens) for tokens in (1, 2))
    token, state = two.kv_bytes - one.kv_bytes, one.state_bytes
    assert f"= {token:,} bytes a token" in hints("12-row")[1]
    assert f"{state:,} bytes. {state // token} tokens make the two equal" in hints("12-row")[1]
    assert state % token == 0
    assert f"Hymba puts {PRESETS['hymba-1.5b'].config.meta_tokens} learned rows" in statement("12-meta")


def test_the_numbers_of_the_8_bit_cache():
    pack, _ = solution(EXERCISE, "12-int8")
    codes, scales = pack(ledger.keys[3][None, None])
    assert codes.tolist() == [[[95, 127, 0]]]
    scale = scales.item()
    assert (f"{0.8 / 127:.7f}", f"{scale:.8f}", f"{0.6 / scale:.2f}", f"{0.8 / scale:.2f}") == (
        "0.0062992",
        "0.00628662",
        "95.44",
        "127.25",
    )
    assert "0.0062992, in bfloat16 0.00628662. Divided by that, 0.6 is 95.44 and 0.8 is 127.25" in hints("12-int8")[1]
    times = [2 * width / state_nbytes(pack(torch.ones(1, 1, width))) for width in (128, 16)]
    assert "128 wide it is {:.2f} times smaller, 16 wide {:.2f} times".format(*times) in task_data("12-int8")["solution"]


def test_the_repaired_cache_is_that_of_hybridlabs_attention():
    """Rows and bytes, of a text that comes in two pieces, with sinks for meta tokens."""
    rng = torch.Generator().manual_seed(0)
    k, v = torch.randn(1, 12, 2, 3, generator=rng), torch.randn(1, 12, 2, 4, generator=rng)
    for window, meta in ((4, 3), (1, 2), (3, 0), (20, 3)):
        cache, state = (k[:, :0], v[:, :0]), None
        for piece in (slice(0, 7), slice(7, 12)):
            cache = solution(EXERCISE, "12-meta")(cache, k[:, piece], v[:, piece], window, meta)
            _, state = attention(k[:, piece], k[:, piece], v[:, piece], window=window, sinks=meta, state=state)
        torch.testing.assert_close(tuple(cache), tuple(state), rtol=0, atol=0)
        assert state_nbytes(cache) == state_nbytes(state)


def test_the_function_to_repair_is_the_one_in_the_statement_and_fails_as_the_hint_says():
    shown = statement("12-meta").split("```python\n")[1].split("```")[0]
    assert "import torch\n" + shown == answers(EXERCISE).wrong["12-meta"]["as it was"].lstrip()
    rows = ledger.keys[None, :, None], ledger.values[None, :, None, None]
    nothing = tuple(x[:, :0] for x in rows)
    keys, values = answer(EXERCISE, "12-meta", "import torch\n" + shown)(nothing, *rows, 3, 1)
    assert values.flatten().tolist() == [1, 4, 0]
    assert keys.untyped_storage().nbytes() == ledger.keys.nbytes
    assert solution(EXERCISE, "12-meta")(nothing, *rows, 3, 1)[1].flatten().tolist() == [2, 4, 0]


def test_the_planner_agrees_with_hybridlabs():
    longest, _ = solution(EXERCISE, "12-plan")
    names = ("mistral-7b", "gemma2-2b", "hymba-1.5b", "mamba-370m", "jamba-v0.1")
    for batch in (1, 50):
        for found in planned(16 * GIB, 1, batch, models=names).candidates:
            model = found.weight_bytes, lambda tokens, name=found.model: count_preset(name, tokens).total_bytes
            expected = 2**24 if found.longest is None else min(2**24, found.longest)
            assert longest(*model, 16 * GIB, batch, 2**24) == expected, (found.model, batch)


def test_the_numbers_of_the_planner():
    longest, _ = solution(EXERCISE, "12-plan")
    assert [longest(3, lambda tokens: 7 * tokens, 100, batch, 50) for batch in (1, 2)] == [13, 6]
    one, two = (count_preset("mistral-7b", tokens) for tokens in (1, 2))
    token, left = two.total_bytes - one.total_bytes, 16 * GIB - one.weight_bytes
    for number in (one.weight_bytes, token, left, left // token):
        assert f"{number:,}" in hints("12-plan")[1]


def test_what_is_handed_to_a_test_counts_as_account_does():
    for preset, context, batch, dtype, state_dtype in (
        ("rwkv4-169m", 5, 1, "float32", "float32"),
        ("zamba2-1.2b", 700, 2, "float32", "bfloat16"),
    ):
        found, mine = (count(preset, context, batch, dtype, state_dtype) for count in (account, count_preset))
        for name in ("kv_bytes", "state_bytes", "total_bytes", "weight_bytes"):
            assert getattr(mine, name) == getattr(found, name), (preset, name)


def errors(claims):
    """How far the counted number of each claim is from the printed one, in halves of its last digit."""
    for name, (printed, count, caption) in claims.items():
        settings = [caption[key] for key in ("context", "batch", "dtype", "state_dtype")]
        mine = getattr(count(*settings), caption["what"])
        number = getattr(caption["than"](*settings), caption["what"]) / mine if caption["than"] else mine / caption["unit"]
        yield name, abs(number - float(printed)) * 2 * 10 ** len(printed.partition(".")[2])


def test_no_claim_lies_on_a_border():
    assert (len(RIGHT_CLAIMS), len(WRONG_CLAIMS)) == (19, 21)
    assert "forty claims about models you know. Nineteen come out" in statement("12-claim")
    for name, error in errors(RIGHT_CLAIMS):
        assert error < 0.995, name
    for name, error in errors(WRONG_CLAIMS):
        assert error > 1.2, name


def test_a_number_of_fewer_digits_is_explained_by_more():
    _, behind = solution(EXERCISE, "12-claim")
    count = RIGHT_CLAIMS["Jamba, one digit"][1]
    assert [len(behind(printed, count, JAMBA_CAPTIONS)) for printed in ("4", "4.0", "4.00")] == [8, 2, 1]
    cache = count(262_144).kv_bytes
    assert f"{cache:,} bytes, {cache // GIB} GiB and {cache / 1e9:.3f} GB" in hints("12-claim")[1]
