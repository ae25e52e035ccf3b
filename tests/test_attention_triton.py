"""The Triton kernels of attention against the literal softmax in float64, in the interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor

from hybridlab.ops.attention import AttentionState, attention

pytest.importorskip("triton", reason="triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The contract is 2e-4. The interpreter multiplies in float32, where a right kernel is within 1e-6.
TOLERANCE = 2e-4 if DEVICE == "cuda" else 1e-5
NAMES = ("output", "gradient of q", "gradient of k", "gradient of v", "gradient of k_past", "gradient of v_past")
# Tiles of which a window sees nothing, a part or all; sinks that end within one, and beyond the text.
SIGHTS = {
    "all": {},
    "window 1": {"window": 1},
    "window 1, sinks 3": {"window": 1, "sinks": 3},
    "window 4, sinks 2, capped": {"window": 4, "sinks": 2, "softcap": 1.5},
    "window 64": {"window": 64},
    "window 65, sinks 70": {"window": 65, "sinks": 70},
    "window 40, capped": {"window": 40, "softcap": 5.0},
    "window beyond, scaled": {"window": 1000, "scale": 0.7},
    "sinks beyond": {"window": 3, "sinks": 300},
}
EVERY_SIGHT = pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS.keys())


def inputs(length: int, past: int = 0, *, B: int = 1, H: int = 2, G: int = 1, K: int = 8, V: int = 8) -> list[Tensor]:
    """q, k, v and the rows of a cache."""
    shapes = [(length, H, K), (length, G, K), (length, G, V), (past, G, K), (past, G, V)]
    return [torch.randn(B, *shape, device=DEVICE).double() for shape in shapes]


def results(tensors: list[Tensor], dtype: torch.dtype, backend: str, sight: dict) -> list[Tensor]:
    """Output and all gradients, of a fixed random weighting of the output."""
    given = [x.detach().to(dtype).requires_grad_() for x in tensors]
    output, _ = attention(*given[:3], state=AttentionState(*given[3:]), backend=backend, **sight)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [output, *torch.autograd.grad(output, given, weights.to(output))]


def assert_agrees(tensors: list[Tensor], **sight: object) -> None:
    expected = results(tensors, torch.float64, "naive", sight)
    got = results(tensors, torch.float32, "triton", sight)
    for name, right, ours in zip(NAMES, expected, got, strict=True):
        assert ours.shape == right.shape, name
        if right.numel():
            error = ((ours - right).abs().max() / right.abs().max().clamp(min=1e-3)).item()
            assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize(("length", "past"), [(1, 0), (1, 9), (3, 0), (5, 70), (65, 0)], ids=str)
def test_lengths(length: int, past: int) -> None:
    assert_agrees(inputs(length, past), window=40, sinks=2)
    assert_agrees(inputs(length, past))


@pytest.mark.minutes
@EVERY_SIGHT
def test_what_queries_see(sight: dict) -> None:
    assert_agrees(inputs(70, 75), **sight)
    assert_agrees(inputs(1, 150), **sight)


@pytest.mark.minutes
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (4, 2, 33, 17), (3, 3, 64, 64), (6, 1, 5, 72), (1, 1, 130, 200)], ids=str)
def test_heads_and_widths(size: tuple[int, ...]) -> None:
    H, G, K, V = size
    assert_agrees(inputs(18, 20, B=2, H=H, G=G, K=K, V=V), window=30)
    assert_agrees(inputs(1, 20, B=2, H=H, G=G, K=K, V=V))


@pytest.mark.parametrize("sight", [{}, {"window": 110, "sinks": 30}, {"softcap": 2.0}], ids=str)
def test_one_token_over_several_parts_of_a_cache(sight: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridlab.kernels import attention_triton

    monkeypatch.setattr(attention_triton, "SPLIT", 64)
    q, k, v, *past = inputs(1, 200)
    past[0][:, 5] += 2 * q[:, 0, :1]  # much weight lies in one part, which a window does not see
    assert_agrees([q, k, v, *past], **sight)


def test_one_token_takes_the_step_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridlab.kernels import attention_triton

    monkeypatch.setattr(attention_triton, "forward_kernel", None)
    results(inputs(1), torch.float32, "triton", {})
    with pytest.raises(TypeError):
        results(inputs(2), torch.float32, "triton", {})


def test_inputs_need_not_be_contiguous() -> None:
    q, k, v, *past = inputs(9, B=2, G=2)
    strided = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in (q, k, v)]
    assert not strided[0].is_contiguous()
    assert_agrees([*strided, *past])


def test_large_scores_do_not_overflow() -> None:
    """Scores near 1000, whose digits float32 cannot all hold."""
    q, k, v, *past = inputs(20, 5)
    for length in (1, 20):
        tensors = [300 * q[:, :length], k[:, :length], v[:, :length], *past]
        right = results(tensors, torch.float64, "naive", {"window": 9})
        ours = results(tensors, torch.float32, "triton", {"window": 9})
        for x, y in zip(ours, right, strict=True):
            assert (x - y).abs().max() < 1e-3 * y.abs().max().clamp_min(1)


def test_a_key_seen_alone_has_exactly_no_gradient() -> None:
    for length, sight in ((1, {}), (20, {"window": 1})):
        found = results(inputs(length), torch.float32, "triton", sight)
        assert not found[1].any()
        assert not found[2].any()


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter computes bfloat16 wrongly")
def test_bfloat16() -> None:
    for length in (1, 150):
        tensors = [x.bfloat16() for x in inputs(length, 200, B=2, H=4, G=2, K=64, V=64)]
        ours = results(tensors, torch.bfloat16, "triton", {"window": 100, "sinks": 3, "softcap": 20.0})
        right = results(tensors, torch.float64, "naive", {"window": 100, "sinks": 3, "softcap": 20.0})
        assert {x.dtype for x in ours} == {torch.bfloat16}
        for name, x, y in zip(NAMES, ours, right, strict=True):
            assert (x - y).abs().max() < 3e-2 * y.abs().max(), name


@pytest.mark.skipif(DEVICE == "cpu", reason="`auto` is Triton on a GPU only")
def test_auto_is_triton_where_something_special_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridlab.ops.attention import BACKENDS

    asked = []
    kernel = BACKENDS["triton"]
    monkeypatch.setitem(BACKENDS, "triton", lambda *given: asked.append(given[3].window) or kernel(*given))
    for length, past, sight in ((9, 0, {}), (1, 9, {}), (9, 0, {"window": 4}), (9, 3, {}), (9, 0, {"softcap": 1.0})):
        results(inputs(length, past), torch.float32, "auto", sight)
    assert asked == [4, None, None]
