"""The six-token ledger, its mixing matrix and its picture."""

import pytest
import torch

from hybridlab.course import ledger
from hybridlab.widgets import recurrence


def fading(values):
    h, out = torch.zeros((), dtype=values.dtype), []
    for v in values:
        h = h / 2 + v
        out.append(h)
    return torch.stack(out)


def test_numbers_are_those_of_every_chapter():
    torch.testing.assert_close(ledger.keys.T @ ledger.values, torch.tensor([6.6, 5.8, 7.0], dtype=torch.float64))
    assert [name.split("=")[1] for name in ledger.names[:5]] == [f"{v:g}" for v in ledger.values[:5].tolist()]
    assert ledger.keys[3].norm().item() == pytest.approx(1)


def test_mixing_of_a_linear_mechanism_gives_its_outputs_back():
    weights = ledger.mixing(fading, "fading").weights
    torch.testing.assert_close(torch.from_numpy(weights) @ ledger.values, fading(ledger.values))
    assert weights[5].tolist() == [0.5**5, 0.5**4, 0.5**3, 0.25, 0.5, 1.0]
    assert not weights[range(5), range(1, 6)].any()


def test_mixing_of_one_that_looks_ahead_shows_it():
    weights = ledger.mixing(lambda v: v.flip(0), "flipped").weights
    assert weights[0, 5] == 1


def test_mixing_refuses_a_way_that_is_another_mechanism():
    right = recurrence([1.0] * 6, [0.5] * 6, [1.0] * 6)
    assert ledger.mixing(fading, "fading", right).recurrence is right
    with pytest.raises(ValueError, match=r"the recurrence gives 0\.5625 at output 3, token 1, the weights say 0\.25"):
        ledger.mixing(fading, "fading", recurrence([1.0] * 6, [0.75] * 6, [1.0] * 6))


@pytest.mark.parametrize("push", [-1e-14, 0.0, 1e-14])
def test_a_number_between_two_roundings_prints_one_way(push):
    assert ledger._digits(1.03125 + push) == "1.0313"


def test_row_has_thousands_in_order(capsys):
    ledger.row("a list", torch.tensor(3.02158), 96, 16_000_000)
    heads, line = capsys.readouterr().out.splitlines()
    assert heads.split()[:2] == ["mechanism", "answer"]
    assert line.split() == ["a", "list", "3.0216", "96", "16,000,000"]


def test_rows_have_one_head(capsys):
    ledger.row("a sum", 6.6, 12, 12)
    one = capsys.readouterr().out
    ledger.rows(("a sum", 6.6, 12, 12), ("a list", 3.02158, 96, 16_000_000))
    several = capsys.readouterr().out
    assert several.startswith(one)
    assert several[len(one) :].split() == ["a", "list", "3.0216", "96", "16,000,000"]


def test_show_prints_each_token_once(capsys):
    ledger.show()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == list(ledger.names)
    assert lines[-1].split() == ["v", "2", "5", "7", "1", "4", "0"]
