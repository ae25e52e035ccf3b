"""The ready-made probes: each passes a right mechanism and catches the mistake it is for."""

import pytest
import torch

from hybridlab.course.probe import Probe, causal, gradient, measure, normal, numbers, ramp, rejects, untouched


def right(x):
    return x.cumsum(0)


def sees_the_next(x):
    return x.cumsum(0) + torch.cat([x[1:], 0 * x[:1]])


def sees_the_last(x):
    return x.cumsum(0) + 1e-3 * x[-1]


def changes_its_input(x):
    return x.cumsum_(0)


def detaches(x):
    return x.detach().cumsum(0)


def inputs(rng):
    return [normal(rng, 5, 2)]


def seen(run, answer):
    return measure(Probe("p", run), answer).values


@pytest.mark.parametrize("answer", [sees_the_next, sees_the_last])
def test_causal_catches_a_look_ahead(answer):
    assert max(seen(causal(inputs, 5), answer)) > 1e-4
    assert max(seen(causal(inputs, 5), right)) == 0


def test_causal_replaces_every_step_and_names_it():
    assert measure(Probe("p", causal(inputs, 5)), right).labels == [f"t={t} replaced" for t in range(1, 5)]


def test_causal_catches_a_peek_at_one_step_only():
    def peeks(x):
        return x.cumsum(0) + torch.cat([x[3:4], 0 * x[1:]])

    values = seen(causal(inputs, 5), peeks)
    assert [v > 0 for v in values] == [False, False, True, False]


def test_untouched_catches_a_change_in_place():
    assert seen(untouched(inputs), changes_its_input)[0] > 0.1
    assert seen(untouched(inputs), right) == [0]


def test_gradient_catches_a_detached_output():
    with pytest.raises(ValueError, match="detached"):
        seen(gradient(inputs), detaches)
    assert any(seen(gradient(inputs), right))


def test_rejects_counts_assertions_alone():
    def by_assertion(version):
        assert version(1) == 1

    def broken(version):
        raise IndexError("of its own")

    versions = {"good": lambda x: x, "bad": lambda x: -x}
    assert seen(rejects(versions), by_assertion) == [0, 1]
    assert seen(rejects(versions), lambda version: None) == [0, 0]
    with pytest.raises(IndexError):
        seen(rejects(versions), broken)
    with pytest.raises(TypeError, match="returned a bool"):
        seen(rejects(versions), lambda version: version(1) == 1)


def test_ramp_overflows_without_a_maximum():
    assert ramp(7).exp().isinf().any()
    assert ramp(7)[0] == -900


def test_seed_decides_the_numbers_and_nothing_else_is_drawn_from():
    probe = Probe("p", lambda answer, rng: normal(rng, 3))
    torch.manual_seed(5)
    first = measure(probe, None)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert after == torch.rand(1)
    assert measure(probe, None) == first != measure(probe, None, seed=1)


def test_what_is_not_numbers_is_refused_in_words():
    with pytest.raises(TypeError, match="expected numbers, got str"):
        measure(Probe("p", lambda answer, rng: "four"), None)


def test_numbers_of_python_keep_all_their_digits():
    assert numbers([0.1, 2.0000001]).values == [0.1, 2.0000001]
    assert numbers(1e300).values == [1e300]
