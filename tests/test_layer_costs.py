"""The file of layers' costs says what layers say."""

import json

import pytest

from hybridlab.measure import account
from hybridlab.measure.layer_costs import FILE, FIRST, OUTSIDE, VOCABULARY, WIDTHS, Growth, layer_costs, measured
from hybridlab.models import LETTERS, HybridConfig, HybridLM

STALE = "run `python -m hybridlab.measure.layer_costs`"


def check(width: int) -> None:
    assert json.loads(json.dumps(measured(width))) == json.loads(FILE.read_text(encoding="utf-8"))[str(width)], STALE


def test_every_letter_is_in_the_file() -> None:
    assert tuple(layer_costs()) == WIDTHS, STALE
    for costs in layer_costs().values():
        assert set(costs) == {OUTSIDE, *LETTERS, f"{FIRST}V"}, STALE


def test_file_is_what_is_measured() -> None:
    check(WIDTHS[0])


@pytest.mark.minutes
@pytest.mark.parametrize("width", WIDTHS[1:])
def test_all_of_the_file_is_what_is_measured(width: int) -> None:
    check(width)


def test_growth_ends_where_it_says() -> None:
    assert [Growth(5, 3, 4).after(context) for context in (1, 3, 4, 5, 10**9)] == [8, 14, 17, 17, 17]
    assert Growth(5, 3, None).after(10**9) == 5 + 3 * 10**9


def test_cost_of_attention_by_hand() -> None:
    """Width 256: four maps, an MLP of 3 x 704 rows, two norms; K and V of 256 numbers a token, twice 256 products each."""
    attention, outside = layer_costs()[256]["A"], layer_costs()[256][OUTSIDE]
    assert attention.parameters == 4 * 256**2 + 3 * 256 * 704 + 2 * 256
    assert attention.cache == Growth(0, 2 * 256, None)
    assert attention.flops == Growth(2 * (4 * 256**2 + 3 * 256 * 704), 2 * 2 * 256, None)
    assert layer_costs()[256]["W"].cache == Growth(0, 2 * 256, 127)
    assert outside.parameters == 2 * 256 * VOCABULARY + 256
    assert outside.flops.after(77) == 2 * 256 * VOCABULARY


def test_costs_add_up_to_the_account() -> None:
    """In a model with two layers of the letter whose first is another."""
    costs = layer_costs()[256]
    report = account(HybridLM(HybridConfig(VOCABULARY, 256, pattern="AVV")), 300)
    used = [costs[name] for name in (OUTSIDE, "A", f"{FIRST}V", "V")]
    assert report.parameters == sum(cost.parameters for cost in used)
    assert report.flops_per_token == sum(cost.flops.after(300) for cost in used)
