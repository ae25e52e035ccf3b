"""RetNet: the equations of the paper and of its code, written out again, in parallel and token by token."""

import math
from typing import Any

import pytest
import torch
from alike import in_pieces, worst
from torch import Tensor
from torch.nn.functional import silu

from hybridlab.layers import RetentionMixer, Shared
from hybridlab.measure import account
from hybridlab.measure.recording import recording
from hybridlab.models import RetNet, RetNetConfig, set_backend

VOCABULARY, WIDTH, HEADS, LENGTH = 41, 24, 3, 37
CUTS = ([LENGTH], [1] * LENGTH, [3, 7, 1, 13, 13], [1, 36])


def model(**options: Any) -> RetNet:
    """Random weights far from their start, so that scores' sums are above 1 and every term shows."""
    torch.manual_seed(3)
    made = RetNet(RetNetConfig(VOCABULARY, WIDTH, 2, head_width=8, **options)).double()
    for parameter in made.parameters():
        parameter.data.normal_(std=1.5 * parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 1.0)
    set_backend(made, "naive")
    return made


def ids(length: int = LENGTH) -> Tensor:
    return torch.randint(VOCABULARY, (2, length), generator=torch.Generator().manual_seed(4))


def rms(x: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def turned(x: Tensor) -> Tensor:
    """Neighbours 2i and 2i + 1 of (B, T, H, K) turn by t / 10000^(i / (K / 2 - 1)), as complex numbers."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    angle = 10_000.0 ** -torch.linspace(0, 1, pairs.shape[-1], dtype=torch.float64)
    times = torch.arange(x.shape[1], dtype=torch.float64)[:, None, None]
    return torch.view_as_real(pairs * torch.exp(1j * times * angle)).flatten(-2)


def as_neighbours(weight: Tensor) -> Tensor:
    """Rows of channels i and i + K / 2 of each head, put side by side."""
    return weight.view(HEADS, 2, -1, weight.shape[1]).transpose(1, 2).flatten(0, 2)


def projections(layer: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turned queries and keys (keys by 1 / sqrt(K)) and values, (B, H, T, ...)."""
    q, k = (x @ as_neighbours(linear.weight).mT for linear in (layer.query, layer.key))
    heads = [y.unflatten(-1, (HEADS, -1)) for y in (q, k / math.sqrt(8), x @ layer.value.weight.mT)]
    q, k, v = (y.transpose(1, 2) for y in (turned(heads[0]), turned(heads[1]), heads[2]))
    return q, k, v


def decays() -> Tensor:
    return torch.tensor([1 - 2.0 ** (-5 - h) for h in range(HEADS)], dtype=torch.float64)


def parallel(layer: Any, x: Tensor) -> Tensor:
    """Of the code: a mask whose rows are divided by the roots of their sums, scores by the size of theirs or 1."""
    q, k, v = projections(layer, x)
    apart = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])
    mask = (decays()[:, None, None] ** apart.clamp_min(0)) * (apart >= 0)
    scores = q @ k.mT * (mask / mask.sum(-1, keepdim=True).sqrt())
    return (scores / scores.sum(-1, keepdim=True).abs().clamp_min(1)) @ v


def recurrent(layer: Any, x: Tensor) -> Tensor:
    """Of the code: a state divided by the root of a running scale."""
    q, k, v = projections(layer, x)
    state, scale, outputs = 0.0, torch.zeros(HEADS, dtype=torch.float64), []
    for t in range(x.shape[1]):
        new = scale * decays() + 1
        fade, write = (y.view(-1, 1, 1) for y in (scale.sqrt() * decays() / new.sqrt(), 1 / new.sqrt()))
        state, scale = state * fade + write * (k[:, :, t, :, None] * v[:, :, t, None]), new
        outputs.append((q[:, :, t, :, None] * state).sum(-2))
    return torch.stack(outputs, 2)


def plain(layer: Any, x: Tensor) -> Tensor:
    """The paper's equation 5, without any division."""
    q, k, v = projections(layer, x)
    apart = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])
    return q @ k.mT * ((decays()[:, None, None] ** apart.clamp_min(0)) * (apart >= 0)) @ v


def literal(made: RetNet, tokens: Tensor, form: Any) -> Tensor:
    """The whole model from its weights."""
    eps = made.config.norm_eps
    x = math.sqrt(WIDTH) * made.embedding.weight[tokens]
    for block in made.layers:
        layer, mlp = block.mixer, block.channel_mixer
        y = rms(x, eps) * block.mixer_norm.weight
        normed = rms(form(layer, y), eps).transpose(1, 2).flatten(2)
        x = x + (silu(y @ layer.gate.weight.mT) * normed) @ layer.output.weight.mT
        y = rms(x, eps) * block.channel_norm.weight
        x = x + (silu(y @ mlp.gate.weight.mT) * (y @ mlp.up.weight.mT)) @ mlp.down.weight.mT
    return rms(x, eps) * made.norm.weight @ made.head.weight.mT


@torch.no_grad()
@pytest.mark.parametrize("eps", [1e-6, 0.1], ids=["eps 1e-6", "eps 0.1"])
@pytest.mark.parametrize("cuts", CUTS, ids=["all", "steps", "odd", "one, rest"])
def test_the_recurrent_form_of_the_code_at_any_cut(cuts: list[int], eps: float) -> None:
    made = model(norm_eps=eps)
    expected = literal(made, ids(), recurrent)
    assert worst(in_pieces(made, ids(), cuts), expected) < 1e-10


@torch.no_grad()
@pytest.mark.parametrize("form", [parallel, plain])
def test_the_norm_of_each_head_cancels_what_rows_are_divided_by(form: Any) -> None:
    """Without an eps all forms are one; with a large one they are not, so something was there to cancel."""
    assert worst(model(norm_eps=1e-20)(ids()).logits, literal(model(norm_eps=1e-20), ids(), form)) < 1e-10
    assert worst(model(norm_eps=0.1)(ids()).logits, literal(model(norm_eps=0.1), ids(), form)) > 1e-2


@torch.no_grad()
def test_the_parallel_form_of_the_code_with_its_eps() -> None:
    assert worst(model()(ids()).logits, literal(model(), ids(), parallel)) < 1e-3


@torch.no_grad()
def test_a_tied_head() -> None:
    made = model(tied=True)
    assert made.head.weight is made.embedding.weight
    assert worst(made(ids()).logits, literal(made, ids(), recurrent)) < 1e-10


def test_text_is_that_of_no_state_at_all() -> None:
    made, tokens = model(), ids(6)
    for _ in range(5):
        with torch.no_grad():
            tokens = torch.cat((tokens, made(tokens).logits[:, -1:].argmax(-1)), 1)
    assert torch.equal(made.generate(ids(6), 5), tokens)


@torch.no_grad()
def test_far_from_the_start() -> None:
    """After a million tokens a head's weight of its past is 1 / (1 - decay), the rotation goes on, nothing overflows."""
    layer = RetentionMixer(WIDTH, HEADS, 8, 8).double()
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    state = layer.init_state(2, 10**6, dtype=torch.float64)
    read = torch.ones(2, 1, HEADS, 8, dtype=torch.float64)
    layer.eps = 1.0
    normed = layer.normalised(read, layer.log_decay(x), torch.tensor(10**6)).view(2, HEADS, 8)
    share = 1 - decays()
    expected = (share / (share + 1)).sqrt()[:, None].expand(2, -1, 8)
    torch.testing.assert_close(normed, expected, rtol=1e-9, atol=0)
    whole, _ = layer(x, state, Shared(torch.tensor(10**6)))
    one, state = layer(x[:, :2], state, Shared(torch.tensor(10**6)))
    other, _ = layer(x[:, 2:], state, Shared(torch.tensor(10**6 + 2)))
    torch.testing.assert_close(torch.cat((one, other), 1), whole, rtol=0, atol=1e-12)


def test_decays_are_float32_at_least() -> None:
    """bfloat16 has no number between 1 - 2^-8 and 1."""
    layer = RetentionMixer(WIDTH, 16, 8, 8).to(torch.bfloat16)
    with recording(layer) as calls:
        y, state = layer(torch.randn(2, 5, WIDTH, dtype=torch.bfloat16))
    exact = torch.tensor([math.log1p(-(2.0 ** (-5 - h))) for h in range(16)], dtype=torch.float64)
    torch.testing.assert_close(calls[0].inputs["log_decay"].double(), exact, rtol=1e-6, atol=0)
    assert (y.dtype, state.retention.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("backend", ["naive", "numba"])
def test_the_op_runs_on_the_chosen_backend(backend: str) -> None:
    layer = RetentionMixer(WIDTH, HEADS, 8, 8)
    set_backend(layer, backend)
    with recording(layer) as calls:
        layer(torch.randn(1, 3, WIDTH))
    assert [(call.op, call.inputs["backend"]) for call in calls] == [("retention", backend)]


def test_fresh_weights() -> None:
    """Glorot's uniform start: sqrt(6 / (inputs + outputs)), a fifth to a sixth of it where the stream is read."""
    layer = RetentionMixer(64, 4, 16, 32)
    for linear, inputs, outputs, gain in (
        (layer.query, 64, 64, 2**-2.5),
        (layer.key, 64, 64, 2**-2.5),
        (layer.value, 64, 128, 2**-2.5),
        (layer.gate, 64, 128, 2**-2.5),
        (layer.output, 128, 64, 1.0),
    ):
        assert linear.weight.abs().max().item() == pytest.approx(gain * math.sqrt(6 / (inputs + outputs)), rel=0.01)
    mlp = RetNet(RetNetConfig(VOCABULARY, 64, 1, head_width=16)).layers[0].channel_mixer
    assert mlp.gate.weight.abs().max().item() == pytest.approx(64**-0.5, rel=0.01)
    assert mlp.down.weight.abs().max().item() == pytest.approx(mlp.down.in_features**-0.5, rel=0.01)


def test_continuing_needs_the_position() -> None:
    layer = RetentionMixer(WIDTH, HEADS, 8, 8)
    _, state = layer(torch.randn(1, 3, WIDTH))
    with pytest.raises(ValueError, match=r"RetentionMixer: a state is continued, so shared\.position must say where"):
        layer(torch.randn(1, 1, WIDTH), state)


@pytest.mark.parametrize("key_width", [2, 5])
def test_keys_that_cannot_be_turned(key_width: int) -> None:
    with pytest.raises(ValueError, match=f"key_width must be even and at least 4, got {key_width}"):
        RetentionMixer(WIDTH, HEADS, key_width, 8)
    with pytest.raises(ValueError, match=f"RetNetConfig: head_width is {key_width}; expected an even number of at least 4"):
        RetNetConfig(VOCABULARY, 30, 2, head_width=key_width, heads=3)


def test_sizes_that_are_left_open() -> None:
    """Values 27/16 as wide as keys, an MLP as wide as all values: about 12 D^2 numbers a block, as in the paper."""
    config = RetNetConfig(VOCABULARY, 2048, 24)
    assert (config.heads, config.value_width, config.ffn_width) == (8, 432, 3456)
    with pytest.raises(ValueError, match="head_width is 256; expected a divisor of width = 300"):
        RetNetConfig(VOCABULARY, 300, 2)


@pytest.mark.parametrize(
    ("config", "heads", "inner"),
    [
        (RetNetConfig(VOCABULARY, 2048, 24), 8, 3456),
        (RetNetConfig(VOCABULARY, 2560, 32, value_width=428), 10, 4280),
        (RetNetConfig(VOCABULARY, 4096, 32), 16, 6912),
    ],
)
def test_published_sizes(config: RetNetConfig, heads: int, inner: int) -> None:
    """As in tables 2 and 7 of the paper, and in the presets of its code, with a vocabulary of our own."""
    with torch.device("meta"):
        found = account(RetNet(config), 1_000_000)
    assert (config.heads, config.head_width) == (heads, 256)
    assert (config.heads * config.value_width, config.ffn_width) == (inner, inner)
    width, layers = config.width, config.layers
    block = 2 * width**2 + 3 * width * inner + 3 * width * inner
    assert block == pytest.approx(12 * width**2, rel=0.011)
    assert found.parameters == layers * (block + 2 * width) + width + 2 * VOCABULARY * width
    assert found.flops_per_token == layers * (2 * block + 5 * 256 * inner) + 2 * VOCABULARY * width
    assert found.state_bytes == found.total_bytes == layers * 4 * 256 * inner
