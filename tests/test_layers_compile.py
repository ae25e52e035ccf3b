"""A layer on a kernel backend compiles into one graph, with gradients, for a prompt and for a step."""

from collections.abc import Callable

import pytest
import torch

from hybridlab.layers import (
    BaseConv,
    DeltaMixer,
    FinchC2TimeMixing,
    H3Mixer,
    HyenaMixer,
    HyenaSizes,
    HymbaHeads,
    HymbaMixer,
    Layer,
    Mamba2Mixer,
    Mamba2Sizes,
    MambaMixer,
    MambaSizes,
    RetentionMixer,
    RGLRUBlock,
    Rotary,
    RWKV4TimeMixing,
    RWKV5TimeMixing,
    RWKV6ChannelMixing,
    RWKV6TimeMixing,
    RWKV7TimeMixing,
    Shared,
    StripedHyenaMixer,
    TaylorMixer,
    set_backend,
)
from hybridlab.state import state_tensors

LAYERS: dict[str, Callable[[], Layer]] = {
    "rwkv4 time mixing": lambda: RWKV4TimeMixing(24, 16),
    "rwkv5 time mixing": lambda: RWKV5TimeMixing(24, 3, 8),
    "rwkv6 time mixing": lambda: RWKV6TimeMixing(24, 3, 8, 3, 5),
    "rwkv6 channel mixing": lambda: RWKV6ChannelMixing(24, 32),
    "finch-c2 time mixing": lambda: FinchC2TimeMixing(24, 3, 8, 3, 5),
    "rwkv7 time mixing": lambda: RWKV7TimeMixing(24, 3, 8),
    "mamba2": lambda: Mamba2Mixer(24, Mamba2Sizes(4, 8, 5, 2)),
    "mamba": lambda: MambaMixer(24, MambaSizes(32, 3, 5)),
    "rg-lru block": lambda: RGLRUBlock(24, 32, 4),
    "retention": lambda: RetentionMixer(24, 3, 8, 5),
    "hyena": lambda: HyenaMixer(24, HyenaSizes(taps=12, features=5, hidden=6)),
    "h3": lambda: H3Mixer(24, 6, 2),
    "stripedhyena": lambda: StripedHyenaMixer(24),
    "hymba": lambda: HymbaMixer(24, HymbaHeads(3, 1, 8, 16, 4, 2), MambaSizes(48, 3, 5), torch.nn.RMSNorm, Rotary()),
    "base conv": lambda: BaseConv(24, 32),
    "delta": lambda: DeltaMixer(24, 3, 8),
    "taylor": lambda: TaylorMixer(24, 3, 4, 8),
}


@pytest.mark.minutes
@pytest.mark.parametrize("name", LAYERS)
def test_one_graph(name: str) -> None:
    layer = LAYERS[name]()
    for parameter in layer.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    set_backend(layer, "numba")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 9, 24)
    results = []
    for run in (layer, compiled):
        layer.zero_grad()
        y, state = run(x)
        step, after = run(x[:, :1], state, Shared(torch.tensor(9)))
        (y.square().sum() + step.square().sum()).backward()
        grads = [parameter.grad for parameter in layer.parameters()]
        results.append([y, step, *state_tensors(after), *grads])
    for eager, traced in zip(*results, strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-4, atol=1e-5)
