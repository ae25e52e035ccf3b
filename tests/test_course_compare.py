"""same(mine, ours): what it prints, and what it refuses."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from hybridlab.course import same

ONES = torch.ones(2, 3, dtype=torch.float64)


class Pair(NamedTuple):
    num: torch.Tensor
    den: torch.Tensor


def changed(at, by):
    x = ONES.clone()
    x[at] += by
    return x


@pytest.mark.parametrize(
    ("mine", "ours", "said"),
    [
        pytest.param(ONES, ONES, "same: 6 numbers, worst difference below 1e-10\n", id="equal"),
        pytest.param(changed((0, 1), 1e-15), ONES, "same: 6 numbers, worst difference below 1e-10\n", id="rounding"),
        pytest.param(ONES * 900, ONES * 900, "same: 6 numbers, worst difference below 1e-07\n", id="scale of 900"),
        pytest.param(ONES.float(), ONES.float(), "same: 6 numbers, worst difference below 1e-04\n", id="float32"),
        pytest.param(ONES.numpy(), ONES, "same: 6 numbers, worst difference below 1e-10\n", id="array"),
        pytest.param(Pair(ONES, ONES), Pair(ONES, ONES), "same: 12 numbers, worst difference below 1e-10\n", id="named"),
        pytest.param(
            (ONES, ONES), Pair(ONES, ONES), "same: 12 numbers, worst difference below 1e-10\n", id="tuple and named"
        ),
        pytest.param([ONES], [ONES], "same: 6 numbers, worst difference below 1e-10\n", id="list of tensors"),
        pytest.param({"a": ONES}, {"a": ONES}, "same: 6 numbers, worst difference below 1e-10\n", id="dict"),
        pytest.param([1, 2], torch.tensor([1, 2]), "same: 2 numbers, no difference\n", id="whole numbers"),
        pytest.param(2, 2, "same: 1 number, no difference\n", id="one whole number"),
        pytest.param(0.1 + 0.2, 0.3, "same: 1 number, worst difference below 1e-10\n", id="one number"),
        pytest.param(ONES * torch.inf, ONES * torch.inf, "same: 6 numbers, worst difference below 1e-10\n", id="infinite"),
    ],
)
def test_says_how_many_and_a_bound_on_rounding(mine, ours, said, capsys):
    same(mine, ours)
    assert capsys.readouterr().out == said


def test_says_where_an_allowed_difference_is(capsys):
    same(changed((1, 2), 0.01), ONES, tolerance=0.1)
    assert capsys.readouterr().out == "same: 6 numbers, worst difference 0.01 at [1, 2]: mine 1.01, ours 1\n"


def test_a_small_error_in_float64_is_not_hidden_by_a_larger_one_in_bfloat16(capsys):
    coarse = torch.tensor([1.0], dtype=torch.bfloat16)
    with pytest.raises(AssertionError, match=r"at \[1\]\[0, 1\]"):
        same((coarse + 0.01, changed((0, 1), 1e-6)), (coarse, ONES))


@pytest.mark.parametrize(
    ("mine", "ours", "message"),
    [
        pytest.param(
            changed((1, 2), 0.5), ONES, r"worst difference 0.5 at \[1, 2\]: mine 1.5, ours 1, allowed 1e-10", id="value"
        ),
        pytest.param(changed((0, 0), 1e-8), ONES, r"worst difference 1e-08 at \[0, 0\]", id="small"),
        pytest.param(changed((1, 0), torch.nan), ONES, r"nan at \[1, 0\]: mine nan, ours 1", id="nan"),
        pytest.param(ONES * torch.nan, ONES * torch.nan, "nan", id="nan in both"),
        pytest.param(-ONES * torch.inf, ONES * torch.inf, "inf", id="other infinity"),
        pytest.param(ONES.float(), ONES, "mine is float32, ours is float64", id="dtype"),
        pytest.param(ONES[:1], ONES, r"mine has shape \(1, 3\), ours has \(2, 3\)", id="shape, though it would broadcast"),
        pytest.param(ONES[:0], ONES[:0], "nothing to compare", id="empty"),
        pytest.param((ONES,), (ONES, ONES), "mine has 1 parts, ours has 2", id="parts"),
        pytest.param((), (), "mine has 0 parts", id="no parts"),
        pytest.param(ONES, (ONES, ONES), "one side is a Tensor", id="a tensor for a tuple"),
        pytest.param((ONES, ONES), ONES, "one side is a Tensor", id="a tuple for a tensor"),
        pytest.param(Pair(ONES, ONES + 1), Pair(ONES, ONES), r"at .den\[0, 0\]", id="named part"),
        pytest.param({"a": ONES}, {"b": ONES}, "part 'a' where ours has 'b'", id="other names"),
        pytest.param([1, 3], torch.tensor([1, 2]), r"at \[1\]: mine 3, ours 2", id="whole numbers"),
        pytest.param(True, False, "mine 1, ours 0", id="truth"),
    ],
)
def test_refuses_what_differs_and_says_where(mine, ours, message):
    with pytest.raises(AssertionError, match=message):
        same(mine, ours)


def test_rounding_noise_does_not_change_what_is_printed(capsys):
    rng = np.random.default_rng(0)
    for _ in range(20):
        same(ONES + torch.from_numpy(rng.normal(size=(2, 3))) * 1e-13, ONES)
    assert len(set(capsys.readouterr().out.splitlines())) == 1


def test_does_not_need_or_change_gradients():
    x = ONES.clone().requires_grad_()
    same(x * 1, ONES)
    assert x.grad is None


def test_complex_numbers_are_compared_in_both_parts(capsys):
    ours = torch.tensor([1 + 2j, 3 - 1.5j])
    same(ours.clone(), ours)
    assert capsys.readouterr().out == "same: 4 numbers, worst difference below 1e-03\n"
    with pytest.raises(AssertionError, match=r"0\.5 at \[1, 1\]: mine -1, ours -1\.5"):
        same(torch.tensor([1 + 2j, 3 - 1j]), ours)
    with pytest.raises(AssertionError, match="mine is complex64, ours is float32"):
        same(ours, ours.real)
