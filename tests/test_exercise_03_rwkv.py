"""Exercise 03: some mistakes have a check of their own. What all exercises promise is in test_exercises.py."""

import pytest
from exercise_answers import answers, complaints

EXERCISE = "03_rwkv"


@pytest.mark.parametrize(
    ("task", "name", "catches"),
    [
        ("03-maximum", "a maximum over the whole sequence", ["ramp of keys"]),
        ("03-maximum", "keys clamped where exp still holds", ["neighbours near 900"]),
        ("03-maximum", "keys changed in place", ["inputs untouched"]),
        ("03-resume", "factored exponentials", ["strong decay"]),
        ("03-resume", "keeps every token", ["numbers in the state"]),
        ("03-resume", "the state is detached", ["gradient through a cut"]),
        ("03-kill", "the outputs only", ["rejects wrong ones (1)"]),
        ("03-kill", "to the last digit", ["lets right ones pass (0)"]),
    ],
)
def test_some_mistakes_have_a_check_of_their_own(task, name, catches):
    """A check that every mistake fails says nothing: these fail exactly one, so that check is needed."""
    assert complaints(EXERCISE, task, answers(EXERCISE).wrong[task][name]) == catches
