"""The trainer: the schedule, what decays, the two budgets, and what it refuses. On a model of two tables."""

import itertools
import math
import types

import pytest
import torch
from torch import nn

from hybridlab.tasks import train as trainer
from hybridlab.tasks.train import decay_groups, evaluate, next_token_loss, schedule, train

VOCABULARY = 8


class Bigram(nn.Module):
    """Guesses the next token from the present one."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.norm = nn.LayerNorm(16)
        self.clock = nn.Parameter(torch.zeros(2, 3))  # a matrix that is no linear layer
        self.head = nn.Linear(16, VOCABULARY)

    def forward(self, ids):
        return types.SimpleNamespace(logits=self.head(self.norm(self.embed(ids))) + self.clock.sum())


def successors(generator):
    """Each token is followed by the next number: a bigram learns this to the end."""
    inputs = torch.randint(VOCABULARY, (4, 10), generator=generator)
    return inputs, (inputs + 1) % VOCABULARY


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Bigram()


def test_it_learns_and_logs_every_step(model):
    before = evaluate(model, successors)
    log = train(model, successors, steps=200, learning_rate=0.02)
    assert before > 1.5
    assert evaluate(model, successors) < 0.05
    assert [line.step for line in log] == list(range(1, 201))
    assert log[0].loss > 1.5 > 0.05 > log[-1].loss
    assert log[-1].progress == 1
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(log))


def test_the_same_seed_gives_the_same_run(model):
    def run(seed):
        torch.manual_seed(0)
        copy = Bigram()
        losses = [line.loss for line in train(copy, successors, steps=5, seed=seed)]
        return losses, copy.head.weight

    first, again, other = run(0), run(0), run(1)
    assert first[0] == again[0] != other[0]
    assert torch.equal(first[1], again[1])


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0.0, 0.0), (0.025, 0.5), (0.05, 1.0), (0.525, 0.525), (1.0, 0.05), (1.7, 0.05)],
    ids=["start", "half warm", "top", "middle", "end", "late"],
)
def test_schedule(progress, factor):
    assert schedule(progress) == pytest.approx(factor)


def test_the_schedule_is_what_the_optimizer_uses(model):
    log = train(model, successors, steps=40, learning_rate=0.1)
    assert [line.learning_rate for line in log] == pytest.approx([0.1 * schedule(n / 40) for n in range(1, 41)])


def test_a_budget_of_seconds_ends_the_run_and_the_schedule(model, monkeypatch):
    clock = iter(x / 4 for x in range(1000))  # a quarter second at each look
    monkeypatch.setattr(trainer, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    log = train(model, successors, steps=10_000, seconds=5, learning_rate=0.1)
    assert len(log) == 11  # two looks a step: progress 0.05, 0.15, ... 1.05
    assert log[-1].learning_rate == pytest.approx(0.1 * schedule(1))
    assert log[4].progress == pytest.approx(0.45)


def test_only_weights_of_linear_layers_decay(model):
    decayed, kept = decay_groups(model, 0.3)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0)
    assert [id(p) for p in decayed["params"]] == [id(model.head.weight)]
    assert {id(p) for p in kept["params"]} == {id(p) for p in model.parameters()} - {id(model.head.weight)}


def test_a_tied_head_does_not_decay(model):
    model.head.weight = model.embed.weight
    decayed, kept = decay_groups(model, 0.3)
    assert decayed["params"] == []
    assert sum(p is model.embed.weight for p in kept["params"]) == 1


def test_gradients_are_clipped_and_their_norm_is_logged(model, monkeypatch):
    seen = []
    clip = nn.utils.clip_grad_norm_
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda ps, top: seen.append((clip(ps, 1e-3), top)) or seen[-1][0])
    log = train(model, successors, steps=3)
    assert [top for _, top in seen] == [trainer.MAX_GRADIENT_NORM] * 3
    assert [line.gradient_norm for line in log] == [norm.item() for norm, _ in seen]


def test_a_bar_shows_unless_there_is_another(model, capsys):
    train(model, successors, steps=2)
    assert "loss=" in capsys.readouterr().err
    train(model, successors, steps=2, bar=False)
    assert capsys.readouterr() == ("", "")


def test_on_step_sees_every_line(model):
    seen = []
    assert train(model, successors, steps=3, on_step=seen.append) == seen


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_left_as_it_was(model, training):
    model.train(training)
    modes = []
    train(model, successors, steps=2, on_step=lambda _: modes.append(model.training))
    assert modes == [True, True]
    evaluate(model, successors)
    assert model.training is training


def test_ignored_targets_are_not_scored():
    logits = torch.randn(1, 3, VOCABULARY)
    targets = torch.tensor([[2, -100, -100]])
    assert torch.allclose(next_token_loss(logits, targets), -logits[0, 0].log_softmax(-1)[2])


def test_uniform_logits_cost_the_log_of_the_vocabulary():
    loss = next_token_loss(torch.zeros(2, 3, VOCABULARY), torch.zeros(2, 3, dtype=torch.int64))
    assert loss.item() == pytest.approx(math.log(VOCABULARY))


@pytest.mark.parametrize("budget", [{"steps": 0}, {"steps": 5, "seconds": 0}])
def test_an_empty_budget_is_refused(model, budget):
    with pytest.raises(ValueError, match="steps and seconds must be positive, got"):
        train(model, successors, **budget)


def test_divergence_is_named_and_leaves_the_last_good_weights(model):
    def poison(step):
        if step.step == 3:
            with torch.no_grad():
                model.norm.weight[0] = math.nan

    before = {}

    def watch(step):
        before.update({name: p.detach().clone() for name, p in model.named_parameters()})
        poison(step)

    with pytest.raises(FloatingPointError, match="diverged at step 4: loss nan"):
        train(model, successors, steps=10, on_step=watch)
    assert torch.equal(model.head.weight, before["head.weight"])
