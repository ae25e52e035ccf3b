"""Finch-C2 and GOLD attention against a second writing from the authors' equations, token by token; their initial values."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from hybridlab.layers import CompressedKeys, Depth, FinchC2TimeMixing, GoldAttention, KeyCache, MixingWeights, Shared
from hybridlab.layers.layer import Rebuilt, Storage
from hybridlab.layers.root_norm import root_normed
from hybridlab.measure.recording import recording

WIDTH, HEADS, HEAD_WIDTH, LENGTH = 12, 2, 8, 7


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    module = module.double()
    for parameter in module.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return module


def stream(batch: int = 2, width: int = WIDTH) -> Tensor:
    return torch.randn(batch, LENGTH, width, dtype=torch.float64)


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def finch_by_hand(layer: FinchC2TimeMixing, x: Tensor) -> Tensor:
    """One sequence (T, D): the equations of the authors' code."""
    S = torch.zeros(HEADS, HEAD_WIDTH, HEAD_WIDTH, dtype=x.dtype)
    before, outputs = torch.zeros(WIDTH, dtype=x.dtype), []
    for now in x:
        dx = before - now
        inner = torch.tanh((now + dx * layer.mixing.mix_x) @ layer.mixing.down).chunk(5)
        mixed = [
            now + dx * (layer.mixing.mus[name] + z @ up) for name, z, up in zip("rkvwo", inner, layer.mixing.up, strict=True)
        ]
        x_r, x_k, x_v, x_w, x_o = mixed
        w = torch.exp(-torch.exp(layer.decay.start + torch.tanh(x_w @ layer.decay.down) @ layer.decay.up))
        r, v = layer.receptance(x_r).view(HEADS, -1), layer.value(x_v).view(HEADS, -1)
        k = (layer.key(x_k) * (1 - w)).view(HEADS, -1)
        own = layer.value(x_o) + torch.tanh(x_o @ layer.own_value.down) @ layer.own_value.up
        seen = S if layer.own_values else S + (layer.bonus * k).unsqueeze(2) * v.unsqueeze(1)
        y = torch.einsum("hk,hkv->hv", r, seen).flatten() + (own if layer.own_values else 0)
        S = w.view(HEADS, -1, 1) * S + k.unsqueeze(2) * v.unsqueeze(1)
        outputs.append(layer.output(layer_norm(y, y.shape, layer.norm.weight, layer.norm.bias)))
        before = now
    return torch.stack(outputs)


@torch.no_grad()
def test_finch_c2_by_hand() -> None:
    """With values of a token's own, and with RWKV-6's bonus; heads that do not fill the width; in two pieces as well."""
    x = stream()
    for own_values in (True, False):
        layer = shaken(FinchC2TimeMixing(WIDTH, HEADS, HEAD_WIDTH, 3, 5, own_values))
        layer.backend = "naive"
        expected = torch.stack([finch_by_hand(layer, row) for row in x])
        whole, state = layer(x)
        close(whole, expected)
        first, half = layer(x[:, :3])
        second, end = layer(x[:, 3:], half)
        close(torch.cat((first, second), 1), expected)
        close(end.wkv, state.wkv)


@torch.no_grad()
def test_what_finch_c2_hands_to_its_op() -> None:
    """Keys times what the channel forgets, and a bonus of zero or not; what is not read changes nothing."""
    x = stream()
    for own_values, unread in ((True, "bonus"), (False, "own_value.up")):
        layer = shaken(FinchC2TimeMixing(WIDTH, HEADS, HEAD_WIDTH, 3, 5, own_values))
        layer.backend = "naive"
        with recording(layer) as calls:
            y, _ = layer(x)
        inputs = calls[0].inputs
        assert bool(inputs["bonus"].any()) is not own_values
        x_k = layer.mixing(x, torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), 1))[1]
        past = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), 1)
        plain = layer.key(torch.lerp(x, past, x_k)).unflatten(-1, (HEADS, HEAD_WIDTH))
        close(inputs["k"], plain * (1 - inputs["log_decay"].exp()))
        layer.get_parameter(unread).normal_()
        close(layer(x)[0], y)


def test_mixtures_keep_their_order() -> None:
    """As given, not by the alphabet: the networks' columns belong to them."""
    habits = {name: torch.full((4,), float(i)) for i, name in enumerate("rkvwo")}
    weights = MixingWeights(torch.zeros(4), habits, 2)(torch.randn(1, 3, 4), torch.randn(1, 3, 4))
    assert [mu.mean().item() for mu in weights] == [0, 1, 2, 3, 4]


def gold_by_hand(layer: GoldAttention, x: Tensor, keys: Tensor, embeddings: Tensor) -> Tensor:
    """One sequence (T, D) at the end of S rows of keys and embeddings."""
    zero = torch.zeros(1, WIDTH, dtype=x.dtype)
    dx, dk, de = (torch.cat((zero, z[:-1])) - z for z in (x, keys, embeddings))
    mixing, cache = layer.query_mixing, layer.cache_mixing
    m_q = torch.tanh((x + dx * mixing.mix_x) @ mixing.down) @ mixing.up[0]
    q = layer.query(x + dx * (mixing.mus["q"] + m_q))
    z_k, z_v = torch.tanh((embeddings + de * cache.mix_x) @ cache.down).chunk(2, -1)
    k = keys + dk * (cache.mus["k"] + z_k @ cache.up[0])
    v = embeddings + de * (cache.mus["v"] + z_v @ cache.up[1])
    k = k + torch.tanh(k @ layer.key_change.down) @ layer.key_change.up
    v = v + torch.tanh(v @ layer.value_change.down) @ layer.value_change.up
    q, k, v = (layer.norms[name](z).unflatten(-1, (-1, 4)) for name, z in zip("qkv", (q, k, v), strict=True))
    scores = torch.einsum("thk,shk->hts", q, k) * 4**-0.5
    past = torch.ones(scores.shape[1:], dtype=torch.bool).tril(len(keys) - len(x))
    y = torch.einsum("hts,shv->thv", scores.masked_fill(~past, -math.inf).softmax(-1), v)
    return linear(layer.norm(y.flatten(1)), layer.output.weight)


@torch.no_grad()
def test_gold_by_hand() -> None:
    """All tokens at once; then only the last two as queries, which see the same keys."""
    layer = shaken(GoldAttention(WIDTH, 4, 3, 5))
    layer.backend = "naive"
    x, keys, embeddings = stream(), stream(), stream()
    expected = torch.stack([gold_by_hand(layer, *rows) for rows in zip(x, keys, embeddings, strict=True)])
    y, _ = layer(x, None, Shared(torch.tensor(0), rebuilt=Rebuilt(keys, embeddings)))
    close(y, expected)
    _, state = layer(x[:, :-2], None, Shared(torch.tensor(0), rebuilt=Rebuilt(keys[:, :-2], embeddings[:, :-2])))
    y, end = layer(x[:, -2:], state, Shared(torch.tensor(5), rebuilt=Rebuilt(keys, embeddings)))
    close(y, expected[:, -2:])
    close(end.shift, x[:, -1])


@pytest.mark.parametrize("shared", [None, Shared(torch.tensor(0))], ids=["nothing shared", "no keys"])
def test_the_keys_must_be_there(shared: Shared | None) -> None:
    with pytest.raises(ValueError, match=r"rebuilt must hold the keys of all tokens so far, got (shared=)?None"):
        GoldAttention(WIDTH, 4)(torch.randn(1, 3, WIDTH), None, shared)


@torch.no_grad()
def test_codes_and_the_keys_they_stand_for() -> None:
    """The embedding comes first, then the code; codes of the past are those that were kept."""
    keys = shaken(CompressedKeys(WIDTH, 3, 41))
    x, embeddings, ids = stream(), torch.cat((stream(), stream()), 1), torch.randint(41, (2, LENGTH))
    past = KeyCache(torch.randn(2, LENGTH, 3, dtype=torch.float64), ids.flip(1).to(torch.uint16))
    cache, rebuilt = keys(x, ids, embeddings, past)
    close(cache.codes, torch.cat((past.codes, x @ keys.compress.weight.T), 1))
    assert torch.equal(cache.ids.long(), torch.cat((ids.flip(1), ids), 1))
    wide = torch.cat((embeddings, cache.codes), -1) @ keys.expand.weight.T
    close(rebuilt.keys, wide / (wide.square().mean(-1, keepdim=True).sqrt() + 1e-8))
    close(rebuilt.embeddings, embeddings / (embeddings.square().mean(-1, keepdim=True).sqrt() + 1e-8))


def test_eps_is_added_to_the_root() -> None:
    """Under it, 1e-8 would turn a row of 1e-8 into 1e-4; beside it, into a half."""
    close(root_normed(torch.full((1, 1, 4), 1e-8, dtype=torch.float64), 1e-8), torch.full((1, 1, 4), 0.5).double())
    assert not root_normed(torch.zeros(1, 1, 4), 1e-8).any()


@pytest.mark.parametrize(("vocabulary", "size"), [(65_536, 2), (65_537, 4)])
def test_an_id_takes_two_bytes_where_the_vocabulary_fits(vocabulary: int, size: int) -> None:
    """The largest id comes back as it went in."""
    keys = CompressedKeys(4, 1, vocabulary)
    empty = keys.cache_after(1, 0, Storage(torch.float32, torch.float32, None))
    ids = torch.tensor([[0, vocabulary - 1]])
    cache, _ = keys(torch.randn(1, 2, 4), ids, torch.randn(1, 2, 4), empty)
    again, _ = keys(torch.randn(1, 2, 4), ids, torch.randn(1, 4, 4), cache)
    assert again.ids.element_size() == size
    assert torch.equal(again.ids.long(), torch.cat((ids, ids), 1))


@torch.no_grad()
@pytest.mark.parametrize("depth", [Depth(0, 4), Depth(2, 4), Depth(3, 4)])
def test_initial_values_are_those_of_the_training_code(depth: Depth) -> None:
    """Channel by channel, as its loops have them."""
    width, last = 128, 127
    finch, gold = FinchC2TimeMixing(width, 2, depth=depth), GoldAttention(width, depth=depth)
    rising, falling = depth.layer / 3, 1 - depth.layer / 4
    for n in (0, 1, 50, last):
        ramp, steep = (n / width) ** falling, (n / width) ** (0.5 * falling)
        value = 1 - (ramp + 0.3 * rising)
        expected = {"mixing.mix_x": 1 - ramp, "decay.start": -6 + 5 * (n / last) ** (0.7 + 1.3 * rising)}
        mus = {"r": 1 - steep, "k": 1 - ramp, "v": value, "w": 1 - ramp, "o": value}
        expected |= {f"mixing.mus.{name}": mu for name, mu in mus.items()}
        assert {name: finch.get_parameter(name)[n].item() for name in expected} == pytest.approx(expected, abs=2e-6)
        bonus = rising * (1 - n / last) + ((n + 1) % 3 - 1) * 0.1
        assert finch.bonus.flatten()[n].item() == pytest.approx(bonus, abs=1e-6)
        expected = {"query_mixing.mix_x": 1 - ramp, "query_mixing.mus.q": 1 - steep, "cache_mixing.mix_x": 1 - ramp}
        expected |= {"cache_mixing.mus.k": 1 - ramp, "cache_mixing.mus.v": value}
        assert {name: gold.get_parameter(name)[n].item() for name in expected} == pytest.approx(expected, abs=2e-6)
    for layer in (finch, gold):
        torch.testing.assert_close(layer.norm.weight, torch.full((width,), ((depth.layer + 1) / 4) ** 0.7))
        assert not layer.output.weight.any()
        for name, parameter in layer.named_parameters():
            if name.endswith(".down"):
                assert not parameter.any(), name
            if name.endswith(".up"):
                assert 0.0095 < parameter.abs().max().item() <= 0.01, name
    for matrix, gain in ((finch.receptance, 1), (finch.key, 0.1), (finch.value, 1), (gold.query, 1)):
        torch.testing.assert_close(matrix.weight @ matrix.weight.T, gain**2 * torch.eye(width), rtol=0, atol=1e-5)
