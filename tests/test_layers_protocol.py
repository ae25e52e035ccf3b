"""What every layer promises: any cut of the time axis, causality, independent rows, states of exactly the stated bytes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hybridlab.layers import (
    AttentionOptions,
    BaseConv,
    DeltaMixer,
    Depth,
    GeGLU,
    GeluMLP,
    GriffinAttention,
    GroupedAttention,
    H3Mixer,
    HeadedMambaMixer,
    HeadedMambaSizes,
    HyenaMixer,
    HyenaSizes,
    HymbaHeads,
    HymbaMixer,
    Layer,
    Mamba2Mixer,
    Mamba2Sizes,
    MambaMixer,
    MambaSizes,
    MixerBlock,
    MixtureOfExperts,
    PlainMLP,
    ResidualBlock,
    RetentionMixer,
    RGLRUBlock,
    Rotary,
    Routing,
    RWKV4TimeMixing,
    RWKV5TimeMixing,
    RWKV6ChannelMixing,
    RWKV6TimeMixing,
    RWKV7ChannelMixing,
    RWKV7Ranks,
    RWKV7TimeMixing,
    RWKVChannelMixing,
    Shared,
    StreamNorm,
    StripedHyenaMixer,
    StripedHyenaSizes,
    SwiGLU,
    TaylorMixer,
    set_backend,
)
from hybridlab.state import state_nbytes, state_tensors

WIDTH, HEADS, HEAD_WIDTH, GROUPS, WINDOW, INNER, STATE = 24, 2, 6, 2, 5, 10, 4
DEPTH = Depth(1, 3)
LENGTHS = (0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 4 * WINDOW)


def attention(window: int | None = None, rotary: Rotary | None = None) -> GroupedAttention:
    return GroupedAttention(WIDTH, 2 * GROUPS, GROUPS, HEAD_WIDTH, window, rotary, DEPTH)


def block() -> ResidualBlock:
    norms = (torch.nn.LayerNorm(WIDTH) for _ in range(2))
    return ResidualBlock(RWKV6TimeMixing(WIDTH, HEADS, HEAD_WIDTH, 3, 4, DEPTH), RWKV6ChannelMixing(WIDTH, 40), *norms)


def mamba_normed() -> MambaMixer:
    return MambaMixer(WIDTH, MambaSizes(INNER, 3, STATE), DEPTH, conv_bias=False, selection_norm=torch.nn.RMSNorm)


def hymba() -> HymbaMixer:
    """Values wider than keys, two sinks beside the window."""
    heads = HymbaHeads(2, 1, key_width=4, value_width=INNER // 2, window=WINDOW, sinks=2)
    return HymbaMixer(WIDTH, heads, MambaSizes(INNER, 3, STATE, 3), torch.nn.RMSNorm, Rotary(), DEPTH, bias=True)


LAYERS: dict[str, Callable[[], Layer]] = {
    "rwkv4 time mixing": lambda: RWKV4TimeMixing(WIDTH, 10, DEPTH),
    "rwkv5 time mixing": lambda: RWKV5TimeMixing(WIDTH, HEADS, HEAD_WIDTH, DEPTH),
    "rwkv6 time mixing": lambda: RWKV6TimeMixing(WIDTH, HEADS, HEAD_WIDTH, 3, 4, DEPTH),
    "rwkv7 time mixing": lambda: RWKV7TimeMixing(WIDTH, HEADS, HEAD_WIDTH, RWKV7Ranks(3, 4, 2, 5), DEPTH),
    "rwkv7 channel mixing": lambda: RWKV7ChannelMixing(WIDTH, 40, DEPTH),
    "rwkv channel mixing": lambda: RWKVChannelMixing(WIDTH, 40, DEPTH),
    "rwkv6 channel mixing": lambda: RWKV6ChannelMixing(WIDTH, 40, DEPTH),
    "mamba": lambda: MambaMixer(WIDTH, MambaSizes(INNER, 3, STATE, 3), DEPTH, bias=True),
    "mamba, selection normed": mamba_normed,
    "mamba, heads": lambda: HeadedMambaMixer(WIDTH, HeadedMambaSizes(2, INNER, 3, STATE, 3), DEPTH, bias=True),
    "mamba2": lambda: Mamba2Mixer(WIDTH, Mamba2Sizes(6, 3, STATE, 2, 3), DEPTH, bias=True),
    "mamba2, no bias": lambda: Mamba2Mixer(WIDTH, Mamba2Sizes(2, 5, STATE), DEPTH, conv_bias=False, step_limits=(0.1, 9)),
    "rg-lru block": lambda: RGLRUBlock(WIDTH, INNER, 2, 3, DEPTH),
    "retention": lambda: RetentionMixer(WIDTH, HEADS, HEAD_WIDTH, 5),
    "attention": attention,
    "attention, rotary": lambda: attention(rotary=Rotary()),
    "window attention": lambda: attention(WINDOW),
    "window attention, rotary": lambda: attention(WINDOW, Rotary()),
    "griffin attention": lambda: GriffinAttention(WIDTH, 4, 1, 8, WINDOW, input_bias=True, depth=DEPTH),
    "attention, capped, biased": lambda: GroupedAttention(
        WIDTH, 2, 1, HEAD_WIDTH, options=AttentionOptions(scale=0.3, softcap=2.0, bias=True)
    ),
    "hyena": lambda: HyenaMixer(WIDTH, HyenaSizes(3, 2 * WINDOW, 5, 6, 1), DEPTH),
    "h3": lambda: H3Mixer(WIDTH, STATE),
    "h3, heads": lambda: H3Mixer(WIDTH, STATE, HEAD_WIDTH),
    "stripedhyena": lambda: StripedHyenaMixer(WIDTH, StripedHyenaSizes(STATE, 3, heads=HEADS)),
    "hymba": hymba,
    "base conv": lambda: BaseConv(WIDTH, INNER, 4, DEPTH),
    "delta": lambda: DeltaMixer(WIDTH, HEADS, HEAD_WIDTH),
    "taylor": lambda: TaylorMixer(WIDTH, HEADS, 3, 5, DEPTH),
    "gelu mlp": lambda: GeluMLP(WIDTH, 40, DEPTH),
    "plain mlp": lambda: PlainMLP(WIDTH, 40, depth=DEPTH),
    "swiglu": lambda: SwiGLU(WIDTH, 40),
    "mixture of experts": lambda: MixtureOfExperts(WIDTH, 10, Routing(3, 2), DEPTH),
    "mixture of experts, not renormalised": lambda: MixtureOfExperts(WIDTH, 10, Routing(3, 2, renormalised=False)),
    "geglu": lambda: GeGLU(WIDTH, 40, DEPTH),
    "block": block,
    "mixer block": lambda: MixerBlock(mamba_normed(), StreamNorm(WIDTH, eps=1e-5)),
}
# The formulas of the state classes' docstrings: numbers in the dtype, numbers in the state dtype, after T tokens.
MATRICES = HEADS * HEAD_WIDTH * HEAD_WIDTH
FORMULAS: dict[str, Callable[[int], tuple[int, int]]] = {
    "rwkv4 time mixing": lambda t: (WIDTH, 3 * 10),
    "rwkv5 time mixing": lambda t: (WIDTH, MATRICES),
    "rwkv6 time mixing": lambda t: (WIDTH, MATRICES),
    "rwkv7 time mixing": lambda t: (WIDTH, MATRICES),
    "rwkv7 channel mixing": lambda t: (WIDTH, 0),
    "rwkv channel mixing": lambda t: (WIDTH, 0),
    "rwkv6 channel mixing": lambda t: (WIDTH, 0),
    "mamba": lambda t: (2 * INNER, INNER * STATE),
    "mamba, selection normed": lambda t: (3 * INNER, INNER * STATE),
    "mamba, heads": lambda t: (2 * INNER, INNER * STATE),
    "mamba2": lambda t: (2 * (6 * 3 + 2 * 2 * STATE), 6 * 3 * STATE),
    "mamba2, no bias": lambda t: (3 * (2 * 5 + 2 * STATE), 2 * 5 * STATE),
    "rg-lru block": lambda t: (2 * INNER, INNER),
    "retention": lambda t: (0, HEADS * HEAD_WIDTH * 5),
    "attention": lambda t: (2 * t * GROUPS * HEAD_WIDTH, 0),
    "attention, rotary": lambda t: (2 * t * GROUPS * HEAD_WIDTH, 0),
    "window attention": lambda t: (2 * min(t, WINDOW - 1) * GROUPS * HEAD_WIDTH, 0),
    "window attention, rotary": lambda t: (2 * min(t, WINDOW - 1) * GROUPS * HEAD_WIDTH, 0),
    "griffin attention": lambda t: (2 * min(t, WINDOW - 1) * 8, 0),
    "attention, capped, biased": lambda t: (2 * t * HEAD_WIDTH, 0),
    "hyena": lambda t: (WIDTH * (4 * 2 + 2 * min(t, 2 * WINDOW)), 0),
    "h3": lambda t: (3 * WIDTH, WIDTH * STATE),
    "h3, heads": lambda t: (3 * WIDTH, WIDTH * HEAD_WIDTH * STATE),
    "stripedhyena": lambda t: (3 * 2 * WIDTH, WIDTH * 2 * STATE),
    "hymba": lambda t: (min(t, 2 + WINDOW - 1) * (4 + 5) + 2 * INNER, INNER * STATE),
    "base conv": lambda t: (3 * INNER, 0),
    "delta": lambda t: (0, MATRICES),
    "taylor": lambda t: (0, HEADS * (1 + 3 + 9) * (5 + 1)),
    "gelu mlp": lambda t: (0, 0),
    "plain mlp": lambda t: (0, 0),
    "swiglu": lambda t: (0, 0),
    "mixture of experts": lambda t: (0, 0),
    "mixture of experts, not renormalised": lambda t: (0, 0),
    "geglu": lambda t: (0, 0),
    "block": lambda t: (2 * WIDTH, MATRICES),
    "mixer block": lambda t: (3 * INNER, INNER * STATE),
}
BATCH, LENGTH = 3, 4 * WINDOW + 1


def made(name: str, dtype: torch.dtype = torch.float64) -> Layer:
    """A layer with random weights everywhere, so that nothing hides behind an initial zero."""
    layer = LAYERS[name]().to(dtype)
    for parameter in layer.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    set_backend(layer, "naive")
    return layer


def run(layer: Layer, x: Tensor, cuts: list[int]) -> tuple[Tensor, object]:
    state, pieces, position = None, [], 0
    for piece in x.split(cuts, 1):
        y, state = layer(piece, state, Shared(torch.tensor(position)))
        pieces.append(y)
        position += piece.shape[1]
    return torch.cat(pieces, 1), state


def stream(dtype: torch.dtype = torch.float64, length: int = LENGTH) -> Tensor:
    return torch.randn(BATCH, length, WIDTH, dtype=dtype)


@torch.no_grad()
@pytest.mark.parametrize("cuts", [[1] * LENGTH, [3, 7, 1, 10], [LENGTH - 1, 1]], ids=["steps", "odd", "last"])
@pytest.mark.parametrize("name", LAYERS)
def test_cuts_change_nothing(name: str, cuts: list[int]) -> None:
    layer, x = made(name), stream()
    whole, end = run(layer, x, [LENGTH])
    cut, cut_end = run(layer, x, cuts)
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-10)
    for one, other in zip(state_tensors(end), state_tensors(cut_end), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS)
def test_causal_and_reads_its_own_token(name: str) -> None:
    """Each token in turn becomes another random one: nothing before it may change, and it itself must."""
    layer, x = made(name), stream()
    before, _ = layer(x)
    for t in range(LENGTH):
        changed = x.clone()
        changed[:, t] = torch.randn(BATCH, WIDTH, dtype=x.dtype)
        after, _ = layer(changed)
        # To the bit, but for an expert: with other rows beside it may round otherwise.
        rounding = 1e-10 if isinstance(layer, MixtureOfExperts) else 0.0
        assert (after[:, :t] - before[:, :t]).abs().sum() <= rounding, f"token {t} reached back"
        assert ((after[:, t] - before[:, t]).abs().amax(-1) > 1e-6).all(), f"token {t} does not see itself"


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS)
def test_rows_are_independent(name: str) -> None:
    layer, x = made(name), stream()
    together, _ = layer(x)
    # Random modal filters amplify: outputs near 1000, of which 1e-12 is less than the last digit is worth.
    relative = 1e-12 if isinstance(layer, StripedHyenaMixer) else 0.0
    for row in range(BATCH):
        alone, _ = layer(x[row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1], rtol=relative, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", LAYERS)
def test_bytes(name: str, length: int, dtype: torch.dtype) -> None:
    """Formula, `init_state` and the state of a real forward agree, to the byte, the shape and the dtype."""
    layer = made(name, dtype)
    narrow, wide = FORMULAS[name](length)
    promised = layer.init_state(BATCH, length, dtype=dtype)
    assert state_nbytes(promised) == BATCH * (narrow * dtype.itemsize + wide * 4)
    if length == 0:
        return
    # Prompt and a step, so that a view of a longer tensor would be seen as the bytes it keeps alive.
    _, state = run(layer, stream(dtype, length), [length - 1, 1] if length > 1 else [1])
    assert state_nbytes(state) == state_nbytes(promised)
    assert type(state) is type(promised)
    for one, other in zip(state_tensors(state), state_tensors(promised), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_state_dtype_is_only_for_recurrent_states(name: str) -> None:
    layer = LAYERS[name]()
    narrow, wide = FORMULAS[name](7)
    state = layer.init_state(2, 7, dtype=torch.float32, state_dtype=torch.bfloat16, device="meta")
    assert state_nbytes(state) == 2 * (4 * narrow + 2 * wide)
    assert all(tensor.is_meta for tensor in state_tensors(state))


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_learns(name: str) -> None:
    """A gradient, finite and not zero, reaches every parameter and the state that was given."""
    layer = made(name)
    state = layer.init_state(BATCH, 2, dtype=torch.float64)
    given = [tensor.requires_grad_() for tensor in state_tensors(state)]
    y, _ = layer(stream(), state, Shared(torch.tensor(2)))
    y.square().sum().backward()
    for label, parameter in layer.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
        assert parameter.grad.abs().max() > 0, label
    assert all(tensor.grad is not None for tensor in given)


@pytest.mark.parametrize("name", LAYERS)
def test_a_given_state_is_not_changed(name: str) -> None:
    layer, x = made(name), stream()
    _, state = layer(x)
    before = [tensor.clone() for tensor in state_tensors(state)]
    layer(x, state, Shared(torch.tensor(LENGTH)))
    for kept, tensor in zip(before, state_tensors(state), strict=True):
        assert torch.equal(kept, tensor)
