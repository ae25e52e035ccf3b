"""Exercise 11: some mistakes have a check of their own; what statements, hints and solutions say is so.

What all exercises promise is in test_exercises.py.
"""

import pytest
import torch
from exercise_answers import answer, answers, complaints, hints, solution, statement

from hybridlab.course.practice import probes
from hybridlab.course.probe import measure
from hybridlab.course.probes_full_models import CLAIRVOYANT, GRIFFIN_7B, HONEST, BlockWeights
from hybridlab.measure import check_invariants
from hybridlab.models import Griffin, GriffinConfig, Hymba, HymbaConfig, JambaConfig, Zamba2, Zamba2Config
from hybridlab.models.jamba import Every
from hybridlab.state import state_nbytes

EXERCISE = "11_full_models"


@pytest.mark.parametrize(
    ("task", "name", "catches"),
    [
        ("11-ratio", "as many lists as recurrences", ["stack: ratio 0"]),
        ("11-ratio", "at least one attends", ["stack: ratio 7, 4 layers"]),
        ("11-ratio", "both mixers run", ["stack: mixers that run"]),
        ("11-ratio", "states are written over", ["stack: what is given changed (1) or not (0)"]),
        ("11-ratio", "kept: the convolution is full later", ["kept: Griffin 7B"]),
        ("11-ratio", "kept: one head", ["kept: other sizes"]),
        ("11-conv", "minus zero", ["one tap"]),
        ("11-conv", "a view", ["bytes too many"]),
        ("11-conv", "detached", ["gradient"]),
        ("11-clairvoyant", "to the last digit", ["honest ones rejected (1) or not (0)"]),
        ("11-clairvoyant", "PyTorch's tolerances", ["clairvoyant ones rejected (1) or not (0)"]),
        ("11-names", "turned only where the shape says so", ["a square, the other way round"]),
        ("11-names", "a percent", ["nothing gives the logits"]),
        ("11-names", "popped from the file", ["what is given changed (1) or not (0)"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that every mistake fails says nothing: these fail no other."""
    assert complaints(EXERCISE, task, answers(EXERCISE).wrong[task][name]) == catches


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("the last token alone", "the first eight see one another"),
        ("the middle alone", "chunks of eight, but for the first"),
        ("every second place", "pairs"),
        ("the first half", "from place 25 on"),
        ("one place behind is left out", "the next token, in the second layer"),
        ("one place before is left out", "the mask is one token too wide"),
        ("one text is changed and looked at", "another text's next token"),
        ("one text is looked at", "text 3 hears text 2's next token"),
        ("one text is looked at", "text 3 hears its own next token"),
        ("one text is changed", "text 3 hears text 2's next token"),
        ("one text is changed", "text 3 hears its own next token"),
        ("each text is changed for itself", "text 3 hears text 2's next token"),
        ("to the last digit", "a convolution by FFT"),
        ("whatever the size", "a convolution by FFT, loud"),
        ("whatever the size", "the next token, faint"),
        ("two digits", "the next token, softly"),
        ("the most likely tokens", "the next token, softly"),
    ],
)
def test_a_model_is_there_for_a_mistake(name, model):
    test = answer(EXERCISE, "11-clairvoyant", answers(EXERCISE).wrong["11-clairvoyant"][name])
    misjudged = []
    for expected, probe in enumerate(probes("11-clairvoyant")):  # 0 for honest models, 1 for the others
        said = measure(probe, test)
        misjudged += [label for label, value in zip(said.labels, said.values, strict=True) if value != expected]
    assert model in misjudged


def moved(model, seed):
    """How far logits before a place move at most, by the largest, if all from there on is drawn again."""
    ids, other = torch.randint(13, (2, 4, 32), generator=torch.Generator().manual_seed(seed))
    whole = model(ids)
    changed = [(t, torch.where(torch.arange(32) < t, ids, other)) for t in range(1, 32)]
    return max((model(x) - whole)[:, :t].abs().max() for t, x in changed) / whole.abs().max()


def test_models_keep_what_the_statement_promises():
    said = statement("11-clairvoyant")
    assert f"{len(HONEST)} honest models and {len(CLAIRVOYANT)} others" in said
    for seed in range(3):
        assert all(moved(model, seed) < 1e-11 for model in HONEST.values())
        assert all(moved(model, seed) > 1e-6 for model in CLAIRVOYANT.values())


def test_words_and_lists_are_those_of_real_models():
    a, b, c, d, e, f = solution(EXERCISE, "11-layers")
    assert a == GriffinConfig(8, 24, 26, heads=3, blocks=2).letters
    jamba = JambaConfig(8, 24, 20, heads=3, groups=1, attention=Every(6, 3))
    assert b == jamba.letters
    assert c == sum(letter == "M" and Every(4, 1).holds(layer) for layer, letter in enumerate(b))
    calls = (3, 8, 12, 19, 20, 27, 33)
    assert str(list(calls)) in statement("11-layers")
    with torch.device("meta"):
        zamba = Zamba2(Zamba2Config(8, width=24, layers=36, calls=calls, blocks=3, heads=3, mixer_heads=6, state_size=4))
        pattern = "AWSWSWSWSAWSSWSWSWSA"
        hymba = Hymba(HymbaConfig(8, width=24, layers=20, heads=3, groups=1, pattern=pattern, meta_tokens=1, window=9))
    first = [calls[number] for number in range(len(calls)) if number % 3 == 0]
    assert d == sum(first)
    for model, lists in ((zamba, e), (hymba, f)):
        one, two = (model.init_state(1, tokens, device="meta").layers for tokens in (1, 2))
        assert sum(state_nbytes(after) > state_nbytes(before) for before, after in zip(one, two, strict=True)) == lists


def test_bytes_are_those_of_hybridlabs_griffin():
    _, kept = solution(EXERCISE, "11-ratio")
    for ratio in (0, 2, 7):
        with torch.device("meta"):
            model = Griffin(GriffinConfig(8, 4096, 32, inner=5632, pattern="G" * ratio + "W"))
        for tokens in (1, 110, 1024, 1025, 5000):
            state = model.init_state(1, tokens, dtype=torch.bfloat16, device="meta")
            assert kept(32, ratio, tokens, GRIFFIN_7B) == state_nbytes(state)
    assert kept(32, 2, 110, GRIFFIN_7B) == kept(32, 7, 110, GRIFFIN_7B) == 1_802_240
    assert kept(32, 2, 5000, GRIFFIN_7B) == 22 * 56_320 + 10 * 524_288 == 6_481_920
    assert [kept(32, ratio, tokens, GRIFFIN_7B) for ratio, tokens in ((7, 1), (2, 1), (7, 5000))] == [
        1_579_008,
        1_244_160,
        3_674_112,
    ]


def test_the_block_to_repair_is_the_one_in_the_statement_and_fails_as_it_says():
    shown = statement("11-conv").split("```python\n")[1].split("```")[0]
    imports = "from torch.nn.functional import gelu, pad\nfrom hybridlab.ops import linear_recurrence\n"
    assert imports + shown == answers(EXERCISE).wrong["11-conv"]["as it was"].lstrip()
    broken, mended = answer(EXERCISE, "11-conv", imports + shown), solution(EXERCISE, "11-conv")
    rng = torch.Generator().manual_seed(0)
    w = BlockWeights(*(torch.randn(*shape, generator=rng) for shape in ((4, 3), (4, 3), (4, 4), (4,), (3, 4))))
    w = w._replace(decay=w.decay.sigmoid())
    x = torch.randn(2, 6, 3, generator=rng)
    torch.testing.assert_close(broken(x, w)[0], mended(x, w)[0])
    state, outputs = None, []
    for x_t in x.split(1, 1):
        y, state = broken(x_t, w, state)
        outputs.append(y)
    apart = (torch.cat(outputs, 1) - mended(x, w)[0]).abs().amax((0, 2))
    assert apart[0] < 1e-6 < 1e-2 < apart[1:].min()


class Forgetful(torch.nn.Module):
    """A short convolution that is handed its rows, and does not read them."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x, state, backend):
        return self.conv(x, torch.zeros_like(state), backend)


@pytest.mark.minutes
def test_the_card_of_a_model_with_such_blocks_has_two_red_rows():
    torch.manual_seed(0)
    model = Griffin(GriffinConfig(41, width=24, layers=3, blocks=2, heads=3, window=5))
    for layer in model.layers[:2]:
        layer.mixer.conv = Forgetful(layer.mixer.conv)
    assert check_invariants(model).failed == ("step == full", "chunk == full")


def test_the_numbers_of_the_convolution():
    def heard(u, rows):
        late = [*rows, *u]
        return [late[i] + 2 * late[i + 1] + 4 * late[i + 2] for i in range(len(u))]

    assert heard([1, 0, 0, 1], [0, 0]) == [4, 2, 1, 4]
    assert heard([0, 1], [0, 0]) == [0, 4]
    assert heard([0, 1], [1, 0]) == [1, 4]
    assert "the convolution gives 4, 2, 1, 4" in hints("11-conv")[1]
    assert "it gives 4, 2 and 0, 4" in hints("11-conv")[1]
