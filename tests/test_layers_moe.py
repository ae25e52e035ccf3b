"""A mixture of experts: the sum that the paper writes, with only the chosen experts computed."""

import pytest
import torch
from torch import Tensor

from hybridlab.layers import MixtureOfExperts, Routing
from hybridlab.measure import account
from hybridlab.models import Decoder, DecoderConfig

WIDTH, HIDDEN, EXPERTS = 6, 10, 5
ROUTINGS = {
    "one expert": Routing(EXPERTS, 1),
    "two, renormalised (Mixtral)": Routing(EXPERTS, 2),
    "two, as they are (Jamba)": Routing(EXPERTS, 2, renormalised=False),
    "all": Routing(EXPERTS, EXPERTS, renormalised=False),
}


def made(routing: Routing, dtype: torch.dtype = torch.float64) -> MixtureOfExperts:
    layer = MixtureOfExperts(WIDTH, HIDDEN, routing).to(dtype)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def literal(layer: MixtureOfExperts, x: Tensor) -> Tensor:
    """Token by token, expert by expert."""
    y = torch.zeros_like(x)
    for row, column in torch.cartesian_prod(torch.arange(x.shape[0]), torch.arange(x.shape[1])).tolist():
        token = x[row, column]
        probabilities = (layer.router.weight @ token).softmax(0)
        chosen = probabilities.argsort(descending=True)[: layer.routing.active].tolist()
        total = sum(probabilities[e] for e in chosen) if layer.routing.renormalised else 1.0
        y[row, column] = sum(probabilities[e] / total * layer.experts[e](token[None, None])[0][0, 0] for e in chosen)
    return y


@torch.no_grad()
@pytest.mark.parametrize("name", ROUTINGS)
def test_it_is_the_literal_sum(name: str) -> None:
    layer, x = made(ROUTINGS[name]), torch.randn(3, 7, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0], literal(layer, x), rtol=0, atol=1e-12)


def test_renormalised_is_the_softmax_over_the_chosen_logits() -> None:
    logits = torch.randn(4, 3, EXPERTS, dtype=torch.float64)
    weights, chosen = Routing(EXPERTS, 2).weigh(logits)
    best, numbers = logits.topk(2, -1)
    assert torch.equal(chosen, numbers)
    torch.testing.assert_close(weights, best.softmax(-1), rtol=0, atol=1e-15)
    quieter, same = Routing(EXPERTS, 2, renormalised=False).weigh(logits)
    assert torch.equal(same, numbers)
    assert (quieter.sum(-1) < 1).all()
    torch.testing.assert_close(quieter, logits.softmax(-1).gather(-1, numbers), rtol=0, atol=1e-15)


def test_weights_are_computed_in_float32() -> None:
    logits = torch.randn(50, EXPERTS).bfloat16()
    weights, _ = Routing(EXPERTS, 2).weigh(logits)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(50), rtol=0, atol=1e-6)
    assert made(Routing(EXPERTS, 2), torch.bfloat16)(torch.randn(2, 3, WIDTH).bfloat16())[0].dtype == torch.bfloat16


@torch.no_grad()
def test_only_the_chosen_are_computed() -> None:
    """Each token is seen by two experts, no more; an expert that nobody chose does not run."""
    layer = made(Routing(EXPERTS, 2))
    layer.router.weight.zero_()
    layer.router.weight[:, 0] = torch.tensor([3.0, -9.0, 2.0, -8.0, -7.0])
    x = torch.randn(3, 7, WIDTH, dtype=torch.float64)
    x[..., 0] = 1
    seen = {}
    for number, expert in enumerate(layer.experts):
        expert.register_forward_hook(lambda _, inputs, __, number=number: seen.update({number: inputs[0].shape}))
    layer(x)
    assert seen == {0: (1, 21, WIDTH), 2: (1, 21, WIDTH)}


def test_gradients_reach_the_router_and_the_chosen() -> None:
    layer = made(Routing(EXPERTS, 2))
    x = torch.randn(1, 1, WIDTH, dtype=torch.float64, requires_grad=True)
    layer(x)[0].square().sum().backward()
    (chosen,) = layer.routing.weigh(layer.router(x))[1].flatten(0, 1).tolist()
    for number, expert in enumerate(layer.experts):
        assert (expert.up.weight.grad is not None) == (number in chosen)
    assert layer.router.weight.grad.abs().max() > 0
    torch.autograd.gradcheck(lambda x: layer(x)[0], x)


@pytest.mark.parametrize("active", [0, EXPERTS + 1])
def test_impossible_routings(active: int) -> None:
    with pytest.raises(ValueError, match=rf"MixtureOfExperts: routing\.active must be in 1\.\.5, got {active}"):
        MixtureOfExperts(WIDTH, HIDDEN, Routing(EXPERTS, active))
    with pytest.raises(ValueError, match=r"DecoderConfig: routing is Routing\(experts=5, .* at least 1 active expert"):
        DecoderConfig(41, 24, 2, routing=Routing(EXPERTS, active))


def test_active_parameters_and_operations() -> None:
    """A token pays for two experts of five and for the router, whatever it chooses."""
    config = DecoderConfig(41, 24, 3, heads=3, ffn_width=40, routing=Routing(EXPERTS, 2))
    report, dense = account(Decoder(config), 1), account(Decoder(DecoderConfig(41, 24, 3, heads=3, ffn_width=40)), 1)
    expert, router = 3 * 24 * 40, 24 * EXPERTS
    assert report.parameters == dense.parameters + 3 * (router + 4 * expert)
    assert report.active_parameters == dense.parameters + 3 * (router + expert)
    assert report.flops_per_token == dense.flops_per_token + 2 * 3 * (router + expert)
