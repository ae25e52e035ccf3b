"""The annotations of hybridlab are true: everything below runs with jaxtyping's and beartype's checks switched on.

In a process of its own, because the checks come before the package's own errors and get in torch.compile's way.
"""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKED = """
import torch
from jaxtyping import TypeCheckError, install_import_hook
with install_import_hook("hybridlab", "annotation_checker.check"):
    import hybridlab.ops as ops, hybridlab.models as models
    from hybridlab.layers import Routing

def normal(*shape): return torch.randn(*shape, requires_grad=True)
"""

OPS = """
for B, T in [(1, 1), (2, 19)]:
    H, K, V, C = 3, 4, 5, 6
    r, k, v, u = normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, V), normal(H, K)
    for decay in (normal(B, T, H, K), normal(1, 1, H, K)):
        for choice in ({"form": "parallel"}, {"form": "chunked"}, {"backend": "naive"}, {"backend": "numba"}):
            out, state = ops.wkv6(r, k, v, -decay.abs(), u, **choice)
            ops.wkv6(r, k, v, -decay.abs(), u, state, **choice)[0].sum().backward()
    k, v = normal(B, T, C), normal(B, T, C)
    for choice in ({"form": "parallel"}, {"form": "chunked"}, {"backend": "naive"}, {"backend": "numba"}):
        out, state = ops.wkv4(k, v, -normal(C).abs(), normal(C), **choice)
        ops.wkv4(k, v, -normal(C).abs(), normal(C), state, **choice)[0].sum().backward()
    for choice in ({"form": "parallel"}, {"form": "chunked"}, {"backend": "naive"}, {"backend": "numba"}):
        out, state = ops.linear_recurrence(normal(B, T, C), normal(B, T, C), **choice)
        ops.linear_recurrence(normal(B, T, C), normal(B, T, C), state, **choice)[0].sum().backward()
    x, gates, log_a, reset = normal(B, T, C), torch.rand(2, B, T, C), -normal(C).abs(), torch.rand(B, T) < 0.3
    for choice in ({"form": "parallel"}, {"form": "chunked"}, {"backend": "naive"}, {"backend": "numba"}):
        out, state = ops.rg_lru(x, *gates, log_a, **choice)
        ops.rg_lru(x, *gates, log_a, state, reset, **choice)[0].sum().backward(retain_graph=True)
    x, dt, A, reads, D = normal(B, T, C), torch.rand(B, T, C), -normal(C, K).abs(), normal(B, T, K), normal(C)
    for choice in ({"form": "parallel"}, {"form": "chunked"}, {"backend": "naive"}, {"backend": "numba"}):
        out, state = ops.selective_scan(x, dt, A, reads, reads, **choice)
        ops.selective_scan(x, dt, A, reads, reads, D, state, **choice)[0].sum().backward(retain_graph=True)
    x, dt, A, B_t, C_t, D = normal(B, T, 4, V), torch.rand(B, T, 4), -normal(4).abs(), *normal(2, B, T, 2, K), normal(4)
    q, k, v = normal(B, T, 4, K), normal(B, T, 4, K), normal(B, T, 4, V)
    for choice in ({"form": "parallel"}, {"form": "chunked"}, {"backend": "naive"}, {"backend": "numba"}):
        out, state = ops.ssd(x, dt, A, B_t, C_t, **choice)
        ops.ssd(x, dt, A, B_t, C_t, D, state, **choice)[0].sum().backward(retain_graph=True)
        out, state = ops.retention(q, k, v, A, **choice)
        ops.retention(q, k, v, A, state, **choice)[0].sum().backward(retain_graph=True)
        out, state = ops.taylor_attention(q, k, v, **choice)
        ops.taylor_attention(q, k, v, state, **choice)[0].sum().backward(retain_graph=True)
    for choice in ({"form": "parallel"}, {"backend": "naive"}, {"backend": "numba"}):
        out, state = ops.short_conv(normal(B, T, C), normal(C, 4), **choice)
        ops.short_conv(normal(B, T, C), normal(C, 4), normal(C), state, **choice)[0].sum().backward()
    modes = torch.randn(2, C, K, dtype=torch.complex64) / 4
    for choice in ({"form": "parallel"}, {"backend": "naive"}, {"backend": "numba"}):
        out, state = ops.long_conv(normal(B, T, C), normal(C, 4), **choice)
        ops.long_conv(normal(B, T, C), normal(C, 4), normal(C), state, **choice)[0].sum().backward()
        out, state = ops.modal_conv(normal(B, T, C), *modes, **choice)
        ops.modal_conv(normal(B, T, C), *modes, normal(C), state, **choice)[0].sum().backward()
    ops.long_conv(normal(B, T, C), normal(C, 4), form="fft")
    q, k, v, fading = normal(B, T, 4, K), normal(B, T, 4, K) / K, normal(B, T, 4, V), -normal(B, T, 4).abs()
    beta, fading_keys = torch.rand(B, T, 4), -normal(B, T, 4, K).abs()
    for choice in ({"form": "parallel"}, {"form": "chunked"}, {"backend": "naive"}, {"backend": "numba"}):
        out, state = ops.delta_rule(q, k, v, beta, **choice)
        ops.delta_rule(q, k, v, beta, state, **choice)[0].sum().backward(retain_graph=True)
        out, state = ops.gated_delta_rule(q, k, v, fading, beta, **choice)
        ops.gated_delta_rule(q, k, v, fading, beta, state, **choice)[0].sum().backward(retain_graph=True)
        out, state = ops.wkv7(q, k, v, fading_keys, -k, k, **choice)
        ops.wkv7(q, k, v, fading_keys, -k, k, state, **choice)[0].sum().backward(retain_graph=True)
    q, k, v = normal(B, T, 4, 8), normal(B, T, 2, 8), normal(B, T, 2, 6)
    for window, sinks in ((None, 0), (3, 0), (3, 2)):
        out, state = ops.attention(q, k, v, window=window, sinks=sinks)
        ops.attention(q, k, v, window=window, sinks=sinks, state=state)
"""

MODELS = """
for model in (
    models.RWKV4(models.RWKV4Config(vocabulary=11, width=16, layers=2)),
    models.RWKV5(models.RWKV5Config(vocabulary=11, width=16, layers=2, head_width=8)),
    models.RWKV6(models.RWKV6Config(vocabulary=11, width=16, layers=2, head_width=8)),
    models.Decoder(models.DecoderConfig(vocabulary=11, width=16, layers=2, heads=4, groups=2)),
    models.Decoder(models.DecoderConfig(vocabulary=11, width=16, layers=2, heads=4, routing=Routing(3, 2))),
    models.Gemma2(models.Gemma2Config(vocabulary=11, width=16, layers=2, heads=4, window=3, score_cap=5.0, logit_cap=5.0)),
    models.Mamba(models.MambaConfig(vocabulary=11, width=16, layers=2)),
    models.FalconMamba(models.FalconMambaConfig(vocabulary=11, width=16, layers=2)),
    models.Mamba2(models.Mamba2Config(vocabulary=11, width=16, layers=2, head_width=8, groups=2)),
    models.Hawk(models.HawkConfig(vocabulary=11, width=16, layers=2, blocks=4, scaled=True, logit_cap=5.0)),
    models.RecurrentGemma(models.RecurrentGemmaConfig(vocabulary=11, width=16, layers=3, heads=2, window=4)),
    models.RetNet(models.RetNetConfig(vocabulary=11, width=16, layers=2, head_width=8)),
    models.Hyena(models.HyenaConfig(vocabulary=11, width=16, layers=2, order=3, taps=7)),
    models.H3(models.H3Config(vocabulary=11, width=16, layers=3, head_width=2, attention_layers=(1,), heads=2)),
    models.StripedHyena(models.StripedHyenaConfig(vocabulary=11, width=16, layers=2, heads=2)),
    models.Hymba(models.HymbaConfig(vocabulary=11, width=16, layers=4, heads=2, window=3, pattern="AWSA", meta_tokens=2)),
    models.Zamba(models.ZambaConfig(vocabulary=11, width=16, layers=3, calls=(0, 2), heads=2)),
    models.Zamba2(models.Zamba2Config(11, 16, 3, calls=(0, 2), blocks=2, heads=2, groups=1, attention_adapters=True)),
    models.Jamba(models.JambaConfig(vocabulary=11, width=16, layers=5, heads=2, routing=Routing(2, 1))),
    models.Mamba2Hybrid(models.Mamba2HybridConfig(11, 16, pattern="M-*", head_width=8, ssm_head_width=8)),
    models.GoldFinch(models.GoldFinchConfig(vocabulary=11, width=16, layers=3, head_width=8)),
    models.HybridLM(models.HybridConfig(vocabulary=11, width=16, head_width=8, pattern="PERMSGTHAWBVD", window=3)),
):
    ids = torch.randint(11, (2, 9))
    output = model(ids[:, :5])
    model(ids[:, 5:], output.state).logits.sum().backward()
    model.generate(ids, 3, temperature=1.0, top_k=5, seed=0)
"""

CAUGHT = """
try:
    ops.wkv6(normal(1, 5, 2, 4), normal(1, 4, 2, 4), normal(1, 5, 2, 4), -normal(1, 5, 2, 4).abs(), normal(2, 4))
except TypeCheckError:
    print("caught")
"""


def checked(body: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHECKED + body]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)


@pytest.mark.minutes
def test_ops_do_what_their_annotations_say() -> None:
    result = checked(OPS)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.minutes
def test_models_do_what_their_annotations_say() -> None:
    result = checked(MODELS)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.minutes
def test_the_checks_are_really_on() -> None:
    assert checked(CAUGHT).stdout == "caught\n"
