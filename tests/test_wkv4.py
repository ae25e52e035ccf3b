"""wkv4: every form and kernel is the literal weighted average, gradients too, at sizes and keys that break wrong ones."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

from hybridlab.ops.wkv4 import empty_state, wkv4
from hybridlab.state import state_nbytes

WAYS = {
    "recurrent": {"form": "recurrent"},
    "parallel": {"form": "parallel"},
    "chunked": {"form": "chunked", "chunk_size": 5},
    "numba": {"backend": "numba"},
}
EVERY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
# (B, T, C): one token, one channel, chunks and segments left over, two unequal blocks of channels on threads.
SIZES = pytest.mark.parametrize("size", [(1, 1, 1), (2, 13, 5), (3, 1, 70), (1, 37, 67), (1, 21, 1001)], ids=str)
ONE_THREAD_SIZES = pytest.mark.parametrize("size", [(1, 1, 1), (2, 13, 5), (1, 37, 67)], ids=str)
FLOAT64, FLOAT32 = torch.float64, torch.float32
Inputs = list[Tensor]


def example(batch: int, length: int, channels: int) -> Inputs:
    """k, v, log_decay, bonus and a state, float64; decays of 0 and -20 among the usual ones."""
    log_decay = -torch.rand(channels, dtype=FLOAT64)
    log_decay[::3], log_decay[1::7] = 0.0, -20.0
    num, den = torch.randn(batch, channels, dtype=FLOAT64), 0.5 + torch.rand(batch, channels, dtype=FLOAT64)
    state = torch.stack((num, den, torch.randn(batch, channels, dtype=FLOAT64)), -1)
    k, v = 3 * torch.randn(batch, length, channels, dtype=FLOAT64), torch.randn(batch, length, channels, dtype=FLOAT64)
    return [k, v, log_decay, torch.randn(channels, dtype=FLOAT64), state]


def literal(inputs: Inputs, newest_age: int = 0) -> tuple[Tensor, Tensor]:
    """Pair by pair from the definition: the output, and the state as its meaning. `newest_age` 1 would be a wrong decay."""
    k, v, log_decay, bonus, state = (x.tolist() for x in inputs)
    batch, length, channels = inputs[0].shape
    output, final = torch.empty_like(inputs[0]), torch.empty(batch, channels, 2, dtype=FLOAT64)
    for b in range(batch):
        for c in range(channels):
            num, den, top = state[b][c]
            for t in range(length + 1):
                terms = [(top + t * log_decay[c], num, den)]
                terms += [(k[b][i][c] + (t - 1 - i + newest_age) * log_decay[c], v[b][i][c], 1.0) for i in range(t)]
                if t == length:
                    final[b, c] = torch.tensor(averaged(terms), dtype=FLOAT64)
                else:
                    output[b, t, c] = averaged([*terms, (bonus[c] + k[b][t][c], v[b][t][c], 1.0)])[0]
    return output, final


def averaged(terms: list[tuple[float, float, float]]) -> tuple[float, float]:
    """The weighted average of (log weight, numerator, denominator), and the logarithm of its denominator."""
    shift = max(exponent for exponent, _, _ in terms)
    num = math.fsum(math.exp(exponent - shift) * above for exponent, above, _ in terms)
    den = math.fsum(math.exp(exponent - shift) * below for exponent, _, below in terms)
    return num / den, shift + math.log(den)


def meaning(state: Tensor) -> Tensor:
    """What a state stands for: num / den and max + log(den)."""
    num, den, top = state.unbind(-1)
    return torch.stack((num / den, top + den.log()), -1)


def worst(got: Tensor, truth: Tensor) -> float:
    """The largest error beside the largest entry; NaN where anything is NaN.

    Beside 1e-6 where all entries are smaller: a gradient of 1e-19 is what rounding leaves of a zero in the truth as well.
    """
    assert got.shape == truth.shape
    return ((got.double() - truth).abs().max() / truth.abs().max().clamp_min(1e-6)).item()


def results(inputs: Inputs, upstream: Inputs, dtype: torch.dtype, way: dict) -> dict[str, Tensor]:
    """Output, final state and every gradient, for given gradients of the output and of the final num and den."""
    leaves = [x.to(dtype).detach().requires_grad_() for x in inputs]
    output, final = wkv4(*leaves, **way)
    gradients = torch.autograd.grad((output, final), leaves, [x.to(dtype) for x in upstream])
    names = ("k", "v", "log_decay", "bonus", "state")
    return {"output": output, "final": meaning(final), **dict(zip(names, gradients, strict=True))}


def upstream_of(inputs: Inputs) -> Inputs:
    k, *_, state = inputs
    return [torch.randn_like(k), torch.randn_like(state)]


@EVERY_WAY
@SIZES
def test_is_the_literal_average(size: tuple[int, int, int], way: dict) -> None:
    inputs = example(*size)
    output, final = wkv4(*inputs, **way)
    expected_output, expected_final = literal(inputs)
    assert worst(output, expected_output) < 1e-12
    assert worst(meaning(final), expected_final) < 1e-12


@pytest.mark.parametrize("wrong", ["no bonus", "newest key already faded", "state forgotten", "values shifted"])
def test_wrong_versions_are_far_from_the_literal_average(wrong: str) -> None:
    k, v, log_decay, bonus, state = inputs = example(2, 13, 5)
    truth, _ = literal(inputs)
    outputs = {
        "no bonus": lambda: wkv4(k, v, log_decay, 0 * bonus, state)[0],
        "newest key already faded": lambda: literal(inputs, newest_age=1)[0],
        "state forgotten": lambda: wkv4(k, v, log_decay, bonus)[0],
        "values shifted": lambda: wkv4(k, v.roll(1, 1), log_decay, bonus, state)[0],
    }
    assert worst(outputs[wrong](), truth) > 1e-2


@EVERY_WAY
@SIZES
def test_every_gradient_is_that_of_the_recurrence(size: tuple[int, int, int], way: dict) -> None:
    inputs = example(*size)
    upstream = upstream_of(inputs)
    truth = results(inputs, upstream, FLOAT64, WAYS["recurrent"])
    for name, got in results(inputs, upstream, FLOAT64, way).items():
        assert worst(got, truth[name]) < 1e-9, name


@EVERY_WAY
def test_gradients_are_those_of_finite_differences(way: dict) -> None:
    """Of everything that a state means; with the max of the given state, whose gradient is a true derivative too."""

    def understood(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        output, final = wkv4(*inputs, **way)
        return output, meaning(final)

    inputs = example(2, 4, 3)
    inputs[2] = inputs[2].clamp(-2, -0.1)  # a step to either side must stay a decay
    assert torch.autograd.gradcheck(understood, [x.requires_grad_() for x in inputs], atol=1e-7)


@EVERY_WAY
@ONE_THREAD_SIZES
def test_float32_is_within_2e_4(size: tuple[int, int, int], way: dict) -> None:
    inputs = [x.float().double() for x in example(*size)]
    upstream = [x.float().double() for x in upstream_of(inputs)]
    truth = results(inputs, upstream, FLOAT64, WAYS["recurrent"])
    for name, got in results(inputs, upstream, FLOAT32, way).items():
        assert worst(got, truth[name]) < 2e-4, name


HARD_KEYS = {
    "rising": torch.linspace(-900, 900, 41),
    "falling": torch.linspace(900, -900, 41),
    "alternating": torch.tensor([900.0, -900.0] * 20 + [900.0]),
    "all low": torch.full((41,), -900.0),
    "all high": torch.full((41,), 900.0),
}


@EVERY_WAY
@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32], ids=["float64", "float32"])
@pytest.mark.parametrize("keys", HARD_KEYS.values(), ids=HARD_KEYS.keys())
def test_keys_near_900_and_decays_of_0_and_20(keys: Tensor, dtype: torch.dtype, way: dict) -> None:
    decays = torch.tensor([0.0, -20.0, -45.0, -0.25, -200.0], dtype=FLOAT64)
    k = keys.double().reshape(1, -1, 1).expand(1, -1, 5).contiguous()
    bonus = torch.tensor([0.5, -3.0, 100.0, 0.0, 2.0], dtype=FLOAT64)
    inputs = [k, torch.randn_like(k), decays, bonus, empty_state(1, 5, dtype=FLOAT64)]
    inputs = [x.float().double() for x in inputs]
    upstream = [torch.randn_like(k).float().double(), torch.randn(1, 5, 3).double()]
    got = results(inputs, upstream, dtype, way)
    truth = results(inputs, upstream, FLOAT64, WAYS["recurrent"])
    limit = 1e-9 if dtype == FLOAT64 else 2e-4
    assert worst(got["output"], literal(inputs)[0]) < limit
    for name, expected in truth.items():
        assert worst(got[name], expected) < limit, name


@EVERY_WAY
def test_one_token_without_a_past_is_its_value(way: dict) -> None:
    v = torch.randn(2, 1, 6)
    for key in (-900.0, 0.0, 900.0):
        output, _ = wkv4(torch.full_like(v, key), v, torch.full((6,), -20.0), torch.randn(6), **way)
        assert torch.equal(output, v)


def test_a_max_that_starts_at_zero_would_lose_low_keys() -> None:
    """Why the empty state holds -1e38: with three zeros the weights of low keys vanish beside e^0."""
    k = torch.full((1, 3, 2), -200.0)
    inputs = (k, torch.randn_like(k), torch.zeros(2), torch.zeros(2))
    assert not wkv4(*inputs, torch.zeros(1, 2, 3))[0].isfinite().any()
    assert torch.equal(wkv4(*inputs, empty_state(1, 2))[0], wkv4(*inputs)[0])
    assert wkv4(*inputs)[0].isfinite().all()


@EVERY_WAY
@pytest.mark.parametrize("cuts", [(0, 1, 29), (0, 3, 4, 20, 29), (0, 28, 29)], ids=str)
def test_pieces_give_the_whole(cuts: tuple[int, ...], way: dict) -> None:
    k, v, log_decay, bonus, state = example(2, 29, 7)
    whole, final = wkv4(k, v, log_decay, bonus, state, **way)
    outputs = []
    for start, stop in pairwise(cuts):
        output, state = wkv4(k[:, start:stop], v[:, start:stop], log_decay, bonus, state, **way)
        outputs.append(output)
    assert worst(torch.cat(outputs, 1), whole) < 1e-12
    assert worst(meaning(state), meaning(final)) < 1e-12


def test_gradients_flow_through_the_state_between_pieces() -> None:
    """The final max is a constant to autograd; num and den carry the whole gradient, so pieces lose nothing."""
    inputs = [x.requires_grad_() for x in example(2, 12, 5)]
    k, v, log_decay, bonus, state = inputs
    whole, _ = wkv4(*inputs, backend="numba")
    first, middle = wkv4(k[:, :5], v[:, :5], log_decay, bonus, state, backend="numba")
    second, _ = wkv4(k[:, 5:], v[:, 5:], log_decay, bonus, middle, backend="numba")
    weight = torch.randn_like(whole)
    expected = torch.autograd.grad((whole * weight).sum(), inputs)
    for got, truth in zip(
        torch.autograd.grad((torch.cat((first, second), 1) * weight).sum(), inputs), expected, strict=True
    ):
        assert worst(got, truth) < 1e-12


def test_numba_keeps_its_digits_over_a_long_text() -> None:
    """A max decayed token by token rounds each time: the literal recurrence drifts in float32, the kernel does not."""
    length, channels = 4096, 16
    k = (50 + torch.randn(1, length, channels)).index_fill(1, torch.tensor([0]), 60.0)
    v = torch.randn_like(k) + torch.linspace(2, -2, length).reshape(1, -1, 1)
    log_decay, bonus = -torch.rand(channels) * 8 / length, torch.randn(channels)
    inputs = (k, v, log_decay, bonus)
    truth, _ = wkv4(*(x.double() for x in inputs), form="chunked", chunk_size=64)
    assert worst(wkv4(*inputs, backend="numba")[0], truth) < 1e-5
    assert worst(wkv4(*inputs, backend="naive")[0], truth) > 1e-4


@EVERY_WAY
def test_agrees_with_transformers(way: dict) -> None:
    k, v, _, bonus, state = (x.float() for x in example(2, 23, 9))
    time_decay = torch.linspace(-5, 3, 9)
    past = [x.contiguous() for x in state.unbind(-1)]
    expected, theirs = rwkv_linear_attention_cpu(time_decay, bonus, k, v, state=past, return_state=True)
    output, final = wkv4(k, v, -time_decay.exp(), bonus, state, **way)
    assert worst(output, expected) < 1e-5
    assert worst(meaning(final), meaning(torch.stack(theirs, -1))) < 1e-5


def test_many_steps_carry_the_same_bytes() -> None:
    state, allocated = empty_state(3, 7), set()
    for _ in range(50):
        output, state = wkv4(torch.randn(3, 1, 7), torch.randn(3, 1, 7), -torch.rand(7), torch.randn(7), state)
        allocated.add((state_nbytes(state), output.untyped_storage().nbytes()))
    assert allocated == {(3 * 7 * 3 * 4, 3 * 7 * 4)}


@EVERY_WAY
def test_inputs_may_be_views(way: dict) -> None:
    k, v, log_decay, bonus, state = example(2, 13, 5)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (k, v, state)]
    expected, _ = wkv4(k, v, log_decay, bonus, state, **way)
    output, _ = wkv4(turned[0], turned[1], log_decay, bonus, turned[2], **way)
    assert torch.equal(output, expected)


def test_bfloat16_takes_the_chunked_form_and_a_float32_state() -> None:
    inputs = example(2, 13, 5)
    output, final = wkv4(*(x.bfloat16() for x in inputs[:4]))
    assert (output.dtype, final.dtype) == (torch.bfloat16, FLOAT32)
    rounded = [x.bfloat16().double() for x in inputs[:4]]
    assert worst(output, wkv4(*rounded)[0]) < 5e-3


def test_nan_keys_stay_visible() -> None:
    k, v, log_decay, bonus, state = (x.float() for x in example(1, 6, 4))
    k[0, 2, 1] = math.nan
    for way in WAYS.values():
        output, _ = wkv4(k, v, log_decay, bonus, state, **way)
        assert output[0, 2:, 1].isnan().all()
        assert output[0, :, [0, 2, 3]].isfinite().all()


def test_numba_operator_passes_opcheck() -> None:
    inputs = [x.requires_grad_() for x in example(2, 5, 3)]
    wkv4(*inputs, backend="numba")
    torch.library.opcheck(torch.ops.hybridlab.wkv4_numba.default, inputs)


def test_compiles_in_one_graph_and_runs_on_meta() -> None:
    inputs = example(2, 5, 3)
    compiled = torch.compile(lambda *x: wkv4(*x, backend="numba"), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*inputs[:4])[0], wkv4(*inputs[:4], backend="numba")[0])
    output, final = wkv4(*(x.to("meta") for x in inputs))
    assert (output.shape, final.shape, final.device.type) == ((2, 5, 3), (2, 3, 3), "meta")


def _called(change: Callable[[dict], dict], **keywords: object) -> None:
    k, v, log_decay, bonus, state = example(2, 5, 3)
    inputs = {"k": k, "v": v, "log_decay": log_decay, "bonus": bonus, "state": state}
    wkv4(**{**inputs, **change(inputs)}, **keywords)


BAD_INPUTS = {
    "k of two axes": (lambda x: {"k": x["k"][0]}, r"k must have 3 axes \(B, T, C\)"),
    "no tokens": (lambda x: {"k": x["k"][:, :0]}, "T = 0"),
    "v of another length": (lambda x: {"v": x["v"][:, 1:]}, r"v must be \(B, T, C\) with T = 5"),
    "decay per token": (lambda x: {"log_decay": x["k"]}, r"log_decay must have 1 axes"),
    "bonus of another width": (lambda x: {"bonus": x["bonus"][1:]}, r"bonus must be \(C\) with C = 3"),
    "positive decay": (lambda x: {"log_decay": x["log_decay"] + 30}, "log_decay must be at most 0"),
    "infinite decay": (lambda x: {"log_decay": x["log_decay"] * 0 - math.inf}, "log_decay must be finite everywhere"),
    "NaN decay": (lambda x: {"log_decay": x["log_decay"] * math.nan}, "its largest entry is NaN"),
    "mixed dtypes": (lambda x: {"v": x["v"].float()}, "v is torch.float32 but k is torch.float64"),
    "whole numbers": (lambda x: {"k": x["k"].long()}, "k must be floating"),
    "another device": (lambda x: {"v": x["v"].to("meta")}, "v is on meta"),
    "no tensor": (lambda x: {"bonus": 1.0}, "bonus must be a tensor, got float"),
    "state of two numbers": (lambda x: {"state": x["state"][..., :2]}, r"state must have shape \(2, 3, 3\)"),
    "state of another dtype": (lambda x: {"state": x["state"].float()}, "state must be torch.float64"),
}


@pytest.mark.parametrize(("change", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
def test_bad_inputs_are_named(change: Callable[[dict], dict], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _called(change)


BAD_CHOICES = {
    "backend": ({"backend": "cuda"}, "unknown backend 'cuda'; choose auto, naive, numba, triton"),
    "form": ({"form": "fast"}, "unknown form 'fast'; choose recurrent, parallel, chunked"),
    "form of a kernel": ({"form": "chunked", "backend": "numba"}, "cannot go with backend='numba'"),
    "chunk size": ({"form": "chunked", "chunk_size": 0}, "chunk_size must be a positive int"),
}


@pytest.mark.parametrize(("keywords", "message"), BAD_CHOICES.values(), ids=BAD_CHOICES.keys())
def test_bad_choices_are_named(keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _called(lambda inputs: {}, **keywords)
