"""State tracking: labels against things that are really moved, the mixer, the sweep's file, and what it says."""

import json
from pathlib import Path

import pytest
import torch

from hybridlab.layers import set_backend
from hybridlab.layers.delta_mixer import DeltaMixer
from hybridlab.ops import delta_rule
from hybridlab.state import state_nbytes
from hybridlab.tasks import state_tracking
from hybridlab.tasks.state_tracking import (
    DATA,
    FULL,
    MIXERS,
    SEEDS,
    TASKS,
    Recipe,
    choices,
    main,
    new_model,
    right_at,
    run,
    sequences,
    tracking_results,
)

SMALL = Recipe(width=8, heads=2, head_width=4, steps=2, batch=3, length=5, tested=7, sequences=4)


def drawn(task: str, length: int = 40, batch: int = 30, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return sequences(TASKS[task], length, batch)(torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the task


@pytest.mark.parametrize("task", TASKS)
def test_labels_are_those_of_things_that_are_moved(task: str) -> None:
    moves = TASKS[task]
    ids, targets = drawn(task)
    for row, answers in zip(ids.tolist(), targets.tolist(), strict=True):
        things = list(range(len(moves.each[0])))
        for move, answer in zip(row, answers, strict=True):
            things = [things[place] for place in moves.each[move]]
            assert moves.orders[answer] == tuple(things)


def test_parity_counts_and_swaps_swap() -> None:
    ids, targets = drawn("parity")
    assert torch.equal(targets, ids.cumsum(1) % 2)
    stay, *swaps = TASKS["swaps of 3"].each
    assert stay == (0, 1, 2)
    assert all(sum(place != thing for place, thing in enumerate(swap)) == 2 for swap in swaps)
    assert len(set(swaps)) == 3
    assert set(TASKS["orders of 3"].each) == set(TASKS["orders of 3"].orders)
    assert len(TASKS["orders of 3"].each) == 6


@pytest.mark.parametrize("task", TASKS)
def test_batches_are_a_seeds_and_fresh_and_even(task: str) -> None:
    ids, targets = drawn(task, 64, 500)
    assert torch.equal(ids, drawn(task, 64, 500)[0])
    assert not torch.equal(ids, drawn(task, 64, 500, seed=1)[0])
    generator = torch.Generator().manual_seed(0)
    draw = sequences(TASKS[task], 8, 4)
    assert not torch.equal(draw(generator)[0], draw(generator)[0])
    for found, count in ((ids, len(TASKS[task].each)), (targets[:, 16:], len(TASKS[task].orders))):
        shares = found.flatten().bincount(minlength=count) / found.numel()
        torch.testing.assert_close(shares, torch.full((count,), 1 / count), rtol=0, atol=0.02)


# ---------------------------------------------------------------- the mixer


def test_delta_mixer_is_its_equation_at_any_cut() -> None:
    torch.manual_seed(0)
    mixer = DeltaMixer(6, 2, 4, strongest=2.0).double()
    set_backend(mixer, "naive")
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    y, after = mixer(x)
    parts, state = [], None
    for piece in x.split((1, 5, 3), 1):
        part, state = mixer(piece, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), y, rtol=0, atol=1e-12)
    torch.testing.assert_close(state.delta, after.delta, rtol=0, atol=1e-12)
    assert state_nbytes(after) == 2 * 2 * 4 * 4 * 8 == state_nbytes(mixer.init_state(2, 9, dtype=torch.float64))
    q, k, v = (linear(x).unflatten(-1, (2, 4)) for linear in (mixer.query, mixer.key, mixer.value))
    q, k = (y * torch.sigmoid(y) for y in (q, k))
    q, k = (y / y.norm(dim=-1, keepdim=True) for y in (q, k))
    read, _ = delta_rule(q, k, v, 2 / (1 + torch.exp(-mixer.strength(x))), form="recurrent")
    read = read / (read.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(y, mixer.output(read.flatten(2)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("strongest", [0, 2.1, -1.0])
def test_a_limit_that_lets_the_state_grow_is_refused(strongest: float) -> None:
    with pytest.raises(ValueError, match=f"strongest must be above 0 and at most 2, got {strongest}"):
        DeltaMixer(6, 2, 4, strongest)


# ---------------------------------------------------------------- models and runs


def test_models_differ_in_their_mixer_only() -> None:
    for layers in (1, 2):
        models = [new_model("swaps of 3", mixer, layers, 0, SMALL) for mixer in MIXERS]
        rest = [{n: p.shape for n, p in m.named_parameters() if ".mixer." not in n} for m in models]
        assert all(names == rest[0] for names in rest)
        assert [len(model.layers) for model in models] == [layers] * len(MIXERS)
    limits = [model.layers[0].mixer.strongest for model in models if hasattr(model.layers[0].mixer, "strongest")]
    assert limits == [2.0, 1.0]
    for name, wrong in (("task", ("S5", "Mamba")), ("mixer", ("parity", "LSTM"))):
        with pytest.raises(ValueError, match=f"{name}: expected one of '.*got '{wrong[name == 'mixer']}'"):
            new_model(*wrong, 1, 0)


def test_right_answers_are_counted_at_each_place() -> None:
    class Answers(torch.nn.Module):
        """Knows parity up to the fifth token and says "even" from there."""

        def forward(self, ids: torch.Tensor):
            answers = ids.cumsum(1) % 2
            answers[:, 5:] = 0
            return type("Output", (), {"logits": torch.nn.functional.one_hot(answers, 2).double()})

    right = right_at(Answers(), "parity", FULL)
    assert right.shape == (64,)
    assert right[:5].tolist() == [1] * 5
    assert 0.4 < right[5:].min() <= right[5:].max() < 0.6


@pytest.mark.minutes
def test_a_run_of_the_sweep_again() -> None:
    again = run("parity", "delta rule, beta to 2")
    assert again.inside >= 0.99
    assert again.beyond >= 0.99


@pytest.mark.minutes
def test_the_command_writes_what_is_read(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(state_tracking, "TASKS", {"parity": TASKS["parity"]})
    main(["--out", str(tmp_path / "runs.json"), "--seeds", "1", "--steps", "1"])
    results = tracking_results(tmp_path / "runs.json")
    assert results.recipe == Recipe(steps=1)
    assert [each[:4] for each in results.runs] == [("parity", m, layers, 0) for layers in (1, 2) for m in MIXERS]
    shown = capsys.readouterr()
    assert repr(results) in shown.out
    assert "parity, delta rule, beta to 2, 1 layer, seed 0" in shown.err
    assert "parity, RWKV-7, 2 layers, seed 0" in shown.err
    assert "loss=" not in shown.err  # no bar of each run inside the bar of all runs
    with pytest.raises(ValueError, match=r"other\.json is not there"):
        tracking_results(tmp_path / "other.json")


# ---------------------------------------------------------------- the committed sweep


def test_the_sweep_is_of_the_recipe_that_is_written_here() -> None:
    results = tracking_results()
    assert results.recipe == FULL
    assert [(each.task, each.layers, each.mixer, each.seed) for each in results.runs] == choices()
    assert SEEDS >= 3
    assert json.loads(DATA.read_text())["runs"][0].keys() == results.runs[0]._asdict().keys()
    for each in results.runs:
        assert 0 <= min(each.inside, each.beyond) <= max(each.inside, each.beyond) <= 1


def groups(task: str, mixer: str) -> list:
    found = [each for each in tracking_results().runs if (each.task, each.mixer) == (task, mixer)]
    assert len(found) >= SEEDS
    return found


def test_a_delta_rule_with_beta_to_2_tracks_two_and_three_things_at_twice_the_length() -> None:
    for task in ("parity", "swaps of 3"):
        for each in groups(task, "delta rule, beta to 2"):
            assert each.inside >= 0.999
            assert each.beyond >= 0.99


def test_no_other_model_goes_beyond_the_length_it_was_trained_at() -> None:
    for mixer in set(MIXERS) - {"delta rule, beta to 2"}:
        assert max(each.beyond for each in groups("swaps of 3", mixer)) < 1 / 6 + 0.02
    for mixer in ("delta rule, beta to 1", "Mamba"):
        assert max(each.beyond for each in groups("parity", mixer)) < 0.52
        assert max(each.inside for each in groups("parity", mixer)) < 0.9


def test_rwkv_7_learns_parity_at_its_length_in_two_layers_from_some_seeds_and_not_beyond() -> None:
    one, two = ([each for each in groups("parity", "RWKV-7") if each.layers == layers] for layers in (1, 2))
    assert max(each.inside for each in one) < 0.62
    assert max(each.inside for each in two) > 0.99 > 0.75 > min(each.inside for each in two)
    assert max(each.beyond for each in one + two) < 0.75


def test_one_delta_layer_does_not_learn_turns_of_three_things() -> None:
    for each in groups("orders of 3", "delta rule, beta to 2"):
        # Who knows whether the order is even has one chance in three.
        assert 0.25 < each.beyond < 0.36
    for mixer in set(MIXERS) - {"delta rule, beta to 2"}:
        assert max(each.beyond for each in groups("orders of 3", mixer)) < 1 / 6 + 0.02


def test_the_table_says_what_the_runs_say() -> None:
    results = tracking_results()
    runs = results.of("parity", "Mamba", 2)
    assert [each.seed for each in runs] == list(range(SEEDS))
    shares = sorted(100 * each.inside for each in runs)
    line = next(line for line in repr(results).splitlines() if "Mamba" in line and "parity" in line and " 2 " in line)
    assert f"{sum(shares) / SEEDS:.1f} ({shares[0]:.1f} to {shares[-1]:.1f})" in line
    assert "50.0" in line
