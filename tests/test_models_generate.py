"""Generation: one prompt pass, then steps; greedy, sampled, stopped; and what it says to arguments that make no sense."""

from typing import Any

import pytest
import torch

from hybridlab.models import RWKV6, HybridConfig, HybridLM, LanguageModel, RWKV6Config, set_backend
from hybridlab.models.sampling import Sampling

VOCABULARY = 19


@pytest.fixture(params=["rwkv6", "hybrid"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    made: LanguageModel
    if request.param == "rwkv6":
        made = RWKV6(RWKV6Config(VOCABULARY, 16, 2, head_width=8, mix_rank=2, decay_rank=2))
    else:
        made = HybridLM(HybridConfig(VOCABULARY, 16, pattern="RWA", head_width=8, window=4))
    for parameter in made.parameters():
        parameter.data.add_(0.4 * torch.randn_like(parameter))
    set_backend(made, "naive")
    return made


def prompt() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (3, 6))


@torch.no_grad()
def test_greedy_is_the_likeliest_token_of_full_forwards(model: LanguageModel) -> None:
    ids = prompt()
    expected = ids
    for _ in range(9):
        expected = torch.cat((expected, model(expected).logits[:, -1].argmax(-1, keepdim=True)), 1)
    assert torch.equal(model.generate(ids, 9), expected)


def test_one_prompt_pass_then_steps(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    hidden = model.hidden

    def spy(ids: torch.Tensor, state: Any = None) -> Any:
        lengths.append(ids.shape[1])
        return hidden(ids, state)

    monkeypatch.setattr(model, "hidden", spy)
    model.generate(prompt(), 4)
    assert lengths == [6, 1, 1, 1]


def test_seed(model: LanguageModel) -> None:
    ids = prompt()
    first, again, other = (model.generate(ids, 20, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.requires_grad is False


def test_a_seed_leaves_the_global_generator_alone(model: LanguageModel) -> None:
    before = torch.get_rng_state()
    model.generate(prompt()[:, :1] * 0, 3, temperature=1.0, seed=5)
    torch.set_rng_state(before)
    expected = torch.rand(3)
    torch.set_rng_state(before)
    model.generate(torch.zeros(1, 1, dtype=torch.int64), 3, temperature=1.0, seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_on_token_sees_every_step(model: LanguageModel) -> None:
    seen: list[torch.Tensor] = []
    ids = prompt()
    out = model.generate(ids, 5, on_token=seen.append)
    assert torch.equal(torch.stack(seen, 1), out[:, 6:])


def test_top_k_1_is_greedy(model: LanguageModel) -> None:
    ids = prompt()
    assert torch.equal(model.generate(ids, 7, temperature=3.0, top_k=1, seed=0), model.generate(ids, 7))


def test_stop_of_one_row_lets_the_others_go_on(model: LanguageModel) -> None:
    ids = prompt()
    free = model.generate(ids, 12)[:, 6:]
    stop = free[0, 2].item()
    out = model.generate(ids, 12, stop=stop)[:, 6:]
    for row in range(3):
        ends = (free[row] == stop).nonzero().flatten()
        end = int(ends[0]) if len(ends) else 12
        assert torch.equal(out[row, : end + 1], free[row, : out.shape[1]][: end + 1])
        assert (out[row, end:] == stop).all()


def test_stop_of_all_rows_ends(model: LanguageModel) -> None:
    ids = prompt()[:1]
    free = model.generate(ids, 12)[0, 6:].tolist()
    stops = [free[4], free[7]]
    end = min(free.index(stop) for stop in stops)
    assert model.generate(ids, 12, stop=stops)[0, 6:].tolist() == free[: end + 1]


LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, -50.0]])


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1.0), LOGITS.softmax(-1)),
        (Sampling(0.5), (LOGITS * 2).softmax(-1)),
        (Sampling(1.0, top_k=2), torch.tensor([[0.7311, 0.2689, 0, 0, 0]])),
        (Sampling(1.0, top_k=99), LOGITS.softmax(-1)),
        (Sampling(1.0, top_p=1.0), LOGITS.softmax(-1)),
        # 0.6439, 0.2369, 0.0871, 0.0321: 0.5 is reached with the first, 0.65 with the second.
        (Sampling(1.0, top_p=0.5), torch.tensor([[0.6439, 0, 0, 0, 0]])),
        (Sampling(1.0, top_p=0.65), torch.tensor([[0.6439, 0.2369, 0, 0, 0]])),
        (Sampling(1.0, top_p=1e-9), torch.tensor([[0.6439, 0, 0, 0, 0]])),
        (Sampling(1.0, top_k=2, top_p=0.8), torch.tensor([[0.7311, 0.2689, 0, 0, 0]])),
    ],
    ids=["plain", "cold", "k=2", "k above", "p=1", "p=.5", "p=.65", "p tiny", "k then p"],
)
def test_probabilities(sampling: Sampling, expected: torch.Tensor) -> None:
    torch.testing.assert_close(sampling.probabilities(LOGITS), expected, rtol=0, atol=1e-4)


def test_draws_follow_the_probabilities() -> None:
    choose = Sampling(1.0, top_k=3).chooser(0, torch.device("cpu"))
    drawn = torch.bincount(choose(LOGITS.expand(20_000, -1)), minlength=5) / 20_000
    torch.testing.assert_close(drawn, Sampling(1.0, top_k=3).probabilities(LOGITS)[0], rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be an int of at least 1, got 0"),
        ({"max_new_tokens": 2.5}, r"max_new_tokens .* got 2\.5"),
        ({"temperature": -1.0}, r"temperature must be .* got -1\.0"),
        ({"temperature": float("nan")}, "temperature must be .* got nan"),
        ({"temperature": 1.0, "top_k": 0}, "top_k must be .* got 0"),
        ({"temperature": 1.0, "top_p": 0.0}, r"top_p must be .* got 0\.0"),
        ({"temperature": 1.0, "top_p": 1.5}, r"top_p must be .* got 1\.5"),
        ({"top_p": 0.9}, "need a temperature above 0"),
        ({"stop": VOCABULARY}, rf"stop must hold ids in 0\.\.{VOCABULARY - 1}, got {VOCABULARY}"),
        ({"stop": [1, "x"]}, "got 'x'"),
        ({"stop": 1.5}, r"stop must be None, an id or ids, got 1\.5"),
        ({"stop": torch.tensor([1, 2])}, r"stop must hold ids .* got tensor\(1\)"),
        ({"temperature": "warm"}, "temperature must be .* got 'warm'"),
        ({"temperature": 1.0, "top_p": "x"}, r"top_p must be .* got 'x'"),
        ({"temperature": 1.0, "seed": 1.5}, r"seed must be None or an int, got 1\.5"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_arguments(model: LanguageModel, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.generate(prompt(), **{"max_new_tokens": 3, **arguments})
