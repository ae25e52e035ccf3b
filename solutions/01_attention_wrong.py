"""Answers to exercise 01: wrong ones, each one difference away from a right one, and right ones written differently.

A replacement that finds nothing leaves a right answer, and the test of this file says so.
"""

SIX = """
a, b, c = 2 * 24 * 16 * 64 * 2, 2 * 24 * 4 * 64 * 2 * 3000 * 8, 2**30 // (2 * 24 * 64 * 2)
d, e, f = 4, 24 * 16 * (64 + 96) * 2, 2 * 12 * 4 * 64 * 2 * (10_000 + 1023)
"""

GROUPED = """
import math, torch
from torch.nn.functional import scaled_dot_product_attention
def grouped(q, k, v, visible):
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=True).transpose(0, 1)
"""

READ = (
    GROUPED
    + """
def read(q, k, v, window, cache=None):
    if cache is not None:
        k, v = torch.cat((cache[0], k)), torch.cat((cache[1], v))
    P, S = len(k) - len(q), len(k)
    asks, keys = torch.arange(P, S)[:, None], torch.arange(S)
    visible = (keys <= asks) & (keys > asks - window)
    first = max(0, S - (window - 1))
    return grouped(q, k, v, visible), (k[first:], v[first:])
"""
)

READ_TRIANGLES = (
    GROUPED
    + """
def read(q, k, v, window, cache=None):
    if cache is not None:
        k, v = torch.cat((cache[0], k)), torch.cat((cache[1], v))
    P = len(k) - len(q)
    visible = torch.ones(len(q), len(k), dtype=torch.bool).tril(P).triu(P - window + 1)
    rows = min(len(k), window - 1)
    return grouped(q, k, v, visible), (k[len(k) - rows :], v[len(v) - rows :])
"""
)

READ_SLICES = """
import math, torch
def read(q, k, v, window, cache=None):
    if cache is not None:
        k, v = torch.cat((cache[0], k)), torch.cat((cache[1], v))
    P, outputs = len(k) - len(q), []
    share = q.shape[1] // k.shape[1]
    for t, q_t in enumerate(q):
        seen = slice(max(0, P + t + 1 - window), P + t + 1)
        k_t, v_t = (x[seen].repeat_interleave(share, 1) for x in (k, v))
        weights = ((k_t * q_t).sum(-1) / math.sqrt(q.shape[2])).softmax(0)
        outputs.append((weights[:, :, None] * v_t).sum(0))
    first = max(0, len(k) - window + 1)
    return torch.stack(outputs), (k[first:], v[first:])
"""

READ_TOKENS = (
    GROUPED
    + """
def read(q, k, v, window, cache=None):
    seen_k, seen_v = (k[:0], v[:0]) if cache is None else cache
    outputs = []
    for t in range(len(q)):
        seen_k, seen_v = torch.cat((seen_k, k[t : t + 1])), torch.cat((seen_v, v[t : t + 1]))
        outputs.append(grouped(q[t : t + 1], seen_k, seen_v, torch.ones(1, len(seen_k), dtype=torch.bool)))
        if len(seen_k) == window:
            seen_k, seen_v = seen_k[1:], seen_v[1:]
    return torch.cat(outputs), (seen_k, seen_v)
"""
)

READ_BY_THE_OPERATOR = """
from hybridlab.ops import attention
from hybridlab.ops.attention import AttentionState
def read(q, k, v, window, cache=None):
    state = None if cache is None else AttentionState(cache[0][None], cache[1][None])
    outputs, kept = attention(q[None], k[None], v[None], window=window, state=state, backend="naive", form="parallel")
    return outputs[0], (kept[0][0], kept[1][0])
"""

BY_HAND = """
import math, torch
def grouped(q, k, v, visible):
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1).transpose(0, 1) for x in (k, v))
    scores = q.transpose(0, 1) @ k.mT / math.sqrt(q.shape[2])
    return (scores.masked_fill(~visible, -math.inf).softmax(-1) @ v).transpose(0, 1)
"""

READ_BY_HAND = READ.replace(GROUPED, BY_HAND)

BOTH_WAYS = """
def windowed(q, k, v, window):
    T, H, K = q.shape
    places = torch.arange(T)[:, None] + torch.arange(window) - window // 2
    inside = (places >= 0) & (places < T)
    k, v = (x.repeat_interleave(H // x.shape[1], 1)[places.clamp(0, T - 1)] for x in (k, v))
    scores = torch.einsum("thk,twhk->thw", q, k) / math.sqrt(K)
    weights = scores.masked_fill(~inside[:, None], -math.inf).softmax(-1)
    return torch.einsum("thw,twhv->thv", weights, v)
"""

CENTRED = "import math, torch\n" + BOTH_WAYS
BACK = CENTRED.replace("- window // 2", "+ 1 - window")

BACK_PADDED = """
import math, torch
def windowed(q, k, v, window):
    T, H, K = q.shape
    share = H // k.shape[1]
    padded = [torch.cat((x.new_zeros(window - 1, *x.shape[1:]), x)).repeat_interleave(share, 1) for x in (k, v)]
    k, v = (x.unfold(0, window, 1) for x in padded)
    there = torch.arange(window) >= window - 1 - torch.arange(T)[:, None]
    scores = (q[..., None] * k).sum(2) / math.sqrt(K)
    weights = scores.masked_fill(~there[:, None, :], -math.inf).softmax(-1)
    return (weights[:, :, None, :] * v).sum(-1)
"""

BACK_LOOP = """
import math, torch
def windowed(q, k, v, window):
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    outputs = []
    for t in range(len(q)):
        seen = slice(max(0, t - window + 1), t + 1)
        weights = (torch.einsum("hk,shk->sh", q[t], k[seen]) / math.sqrt(q.shape[2])).softmax(0)
        outputs.append(torch.einsum("sh,shv->hv", weights, v[seen]))
    return torch.stack(outputs)
"""

BACK_MASK = (
    GROUPED
    + """
def windowed(q, k, v, window):
    ages = torch.arange(len(q))[:, None] - torch.arange(len(k))
    return grouped(q, k, v, (ages >= 0) & (ages < window))
"""
)

SHIFTED = """
import torch
def test(layer):
    x = torch.randn(6, 8, dtype=torch.float64)
    before = layer(x)
    x[-1] += 1
    torch.testing.assert_close(layer(x)[:-1], before[:-1])
"""

TEST = """
import torch
def test(layer):
    x = torch.randn(16, 8, dtype=torch.float64)
    whole = layer(x)
    for t in range(1, 16):
        torch.testing.assert_close(layer(x[:t]), whole[:t])
"""

TEST_GROWING = """
import torch
def test(layer):
    x = torch.randn(1, 8, dtype=torch.float64)
    told = layer(x)
    for _ in range(12):
        x = torch.cat((x, torch.randn(1, 8, dtype=torch.float64)))
        now = layer(x)
        assert ((now[:-1] - told).abs() <= 1e-8 * (1 + told.abs())).all()
        told = now
"""

TEST_REPLACED = """
import torch
def test(layer):
    x = torch.randn(12, 8, dtype=torch.float64)
    before = layer(x)
    for t in range(12):
        y = x.clone()
        y[t] = torch.randn(8, dtype=torch.float64)
        torch.testing.assert_close(layer(y)[:t], before[:t])
    torch.testing.assert_close(layer(torch.cat((x, x)))[:12], before)
"""

TEST_ENDINGS = """
import torch
def test(layer):
    x = torch.randn(12, 8, dtype=torch.float64)
    whole = layer(x)
    for t in range(1, 12):
        other = torch.cat((x[:t], torch.randn(t + 3, 8, dtype=torch.float64)))
        if not torch.allclose(layer(other)[:t], whole[:t], rtol=1e-8):
            raise AssertionError
"""

TEST_LONGER = "    torch.testing.assert_close(layer(torch.cat((x, x)))[:12], before)\n"

SUMS = """
import math, torch
def summary(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    top = scores.amax(1) if len(k) else torch.full((len(q),), -math.inf, dtype=scores.dtype)
    weights = torch.exp(scores - top[:, None])
    return top, weights.sum(1), weights @ v
def merge(one, other):
    top = torch.maximum(one[0], other[0])
    a, b = torch.exp(one[0] - top), torch.exp(other[0] - top)
    return top, a * one[1] + b * other[1], a[:, None] * one[2] + b[:, None] * other[2]
def outputs(total):
    return total[2] / total[1][:, None]
"""

LOGS = """
import math, torch
def summary(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    return scores.logsumexp(1, keepdim=True), scores.softmax(1) @ v
def merge(one, other):
    total = torch.logaddexp(one[0], other[0])
    return total, torch.exp(one[0] - total) * one[1] + torch.exp(other[0] - total) * other[1]
def outputs(total):
    return total[1]
"""

SIGMOID = LOGS.replace(
    "torch.exp(one[0] - total) * one[1] + torch.exp(other[0] - total) * other[1]",
    "one[1] + torch.sigmoid(other[0] - one[0]) * (other[1] - one[1])",
)

ONE_TENSOR = """
import math, torch
def summary(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    none = torch.full((len(q), 1), -math.inf, dtype=scores.dtype)
    top = torch.cat((none, scores), 1).max(1, keepdim=True).values.detach()
    weights = torch.exp(scores - top)
    return (torch.cat((top, weights @ torch.cat((v, torch.ones_like(v[:, :1])), 1)), 1),)
def merge(one, other):
    (a,), (b,) = one, other
    top = torch.maximum(a[:, :1], b[:, :1])
    return (torch.cat((top, torch.exp(a[:, :1] - top) * a[:, 1:] + torch.exp(b[:, :1] - top) * b[:, 1:]), 1),)
def outputs(total):
    return total[0][:, 1:-1] / total[0][:, -1:]
"""

ALL_KEYS = """
import math, torch
def summary(q, k, v):
    return q @ k.T / math.sqrt(q.shape[1]), v
def merge(one, other):
    return torch.cat((one[0], other[0]), 1), torch.cat((one[1], other[1]))
def outputs(total):
    return total[0].softmax(1) @ total[1]
"""

WRONG = {
    "01-bytes": [
        ("a: keys alone", SIX.replace("= 2 * 24 * 16", "= 24 * 16")),
        ("a: queries as well", SIX.replace("= 2 * 24 * 16", "= 3 * 24 * 16")),
        ("a: one layer", SIX.replace("= 2 * 24 * 16", "= 2 * 16")),
        ("a: numbers, not bytes", SIX.replace("16 * 64 * 2,", "16 * 64,")),
        ("b: heads of queries", SIX.replace("2 * 24 * 4 * 64", "2 * 24 * 16 * 64")),
        ("b: four queries a head", SIX.replace("2 * 24 * 4 * 64", "2 * 24 * 4 * 4 * 64")),
        ("b: one conversation", SIX.replace("3000 * 8", "3000")),
        ("b: scores", SIX.replace("3000 * 8", "3000 * 3000 * 8")),
        ("c: a billion bytes", SIX.replace("2**30 //", "10**9 //")),
        ("c: not a whole token", SIX.replace("2**30 //", "2**30 /")),
        ("c: one more than fits", SIX.replace("2**30 //", "1 + 2**30 //")),
        ("c: still sixteen heads", SIX.replace("2**30 // (2 * 24", "2**30 // (2 * 16 * 24")),
        ("d: five do not share evenly", SIX.replace("= 4, 24", "= 5, 24")),
        ("d: not rounded", SIX.replace("= 4, 24", "= 2**32 / (6144 * 131_072), 24")),
        ("d: two fit as well", SIX.replace("= 4, 24", "= 2, 24")),
        ("e: keys as wide as values", SIX.replace("(64 + 96)", "(96 + 96)")),
        ("e: twice the sum", SIX.replace("24 * 16 * (64", "2 * 24 * 16 * (64")),
        ("f: W rows", SIX.replace("1023", "1024")),
        ("f: W + 1 rows", SIX.replace("1023", "1025")),
        ("f: all layers see everything", SIX.replace("(10_000 + 1023)", "(10_000 + 10_000)")),
        ("f: windows alone", SIX.replace("(10_000 + 1023)", "(1023 + 1023)")),
        ("f: 24 layers of each kind", SIX.replace("2 * 12 * 4 * 64", "2 * 24 * 4 * 64")),
        ("a word", SIX.replace("d, e, f = 4", 'd, e, f = "four"')),
    ],
    "01-window": [
        ("itself not counted", READ.replace("keys > asks - window", "keys >= asks - window")),
        ("itself counted twice", READ.replace("keys > asks - window", "keys > asks - window + 1")),
        ("itself not seen", READ.replace("keys <= asks", "keys < asks")),
        ("the mask in the corner of a text without a past", READ.replace("torch.arange(P, S)[", "torch.arange(S - P)[")),
        ("a triangle in the wrong corner", READ_TRIANGLES.replace(".tril(P)", ".tril()")),
        ("the window in the wrong corner", READ_TRIANGLES.replace(".triu(P - window + 1)", ".triu(1 - window)")),
        (
            "the cache is always full",
            READ.replace("torch.arange(P, S)[", "torch.arange(S - P)[").replace(
                "[:, None], torch", "[:, None] + (window - 1 if P else 0), torch"
            ),
        ),
        ("both ways", READ.replace("keys <= asks", "keys < asks + window")),
        ("centred", READ.replace("(keys <= asks) & (keys > asks - window)", "(keys - asks).abs() <= window // 2")),
        ("the future is open", READ.replace("(keys <= asks) & ", "")),
        ("no window", READ.replace(" & (keys > asks - window)", "")),
        ("blocks, not a window", READ.replace("(keys > asks - window)", "(keys // window == asks // window)")),
        ("W rows kept", READ.replace("S - (window - 1)", "S - window")),
        ("W - 2 rows kept", READ.replace("S - (window - 1)", "S - max(0, window - 2)")),
        ("everything kept", READ.replace("max(0, S - (window - 1))", "0")),
        ("minus zero is all", READ.replace("(k[first:], v[first:])", "(k[1 - window :], v[1 - window :])")),
        ("the oldest kept", READ.replace("(k[first:], v[first:])", "(k[: S - first], v[: S - first])")),
        ("the newest first", READ.replace("(k[first:], v[first:])", "(k[first:].flip(0), v[first:].flip(0))")),
        (
            "the new rows alone kept",
            READ.replace("first = max(0, S - (window - 1))", "first = max(P, S - (window - 1))"),
        ),
        (
            "the old values forgotten",
            READ.replace("torch.cat((cache[1], v))", "torch.cat((torch.zeros_like(cache[1]), v))"),
        ),
        (
            "moved up within the cache",
            READ.replace(
                "    P, S =",
                "        cache[0].data.copy_(k[-len(cache[0]) :] if len(cache[0]) else k[:0])\n    P, S =",
            ),
        ),
        ("the cache is detached", READ.replace("cache[0], k", "cache[0].detach(), k")),
        ("a score of 0", READ_BY_HAND.replace("masked_fill(~visible, -math.inf)", "masked_fill(~visible, 0)")),
        ("a score of -10", READ_BY_HAND.replace("-math.inf", "-10")),
        (
            "masked behind the softmax",
            READ_BY_HAND.replace("masked_fill(~visible, -math.inf).softmax(-1)", "softmax(-1).masked_fill(~visible, 0)"),
        ),
        (
            "exponentials by hand",
            READ_BY_HAND.replace(
                "    return (scores.masked_fill(~visible, -math.inf).softmax(-1) @ v)",
                "    weights = scores.exp() * visible\n    return (weights / weights.sum(-1, keepdim=True) @ v)",
            ),
        ),
        (
            "groups tiled",
            READ_BY_HAND.replace("repeat_interleave(q.shape[1] // k.shape[1], 1)", "repeat(1, q.shape[1] // k.shape[1], 1)"),
        ),
        ("no square root", READ_BY_HAND.replace("/ math.sqrt(q.shape[2])", "/ q.shape[2]")),
        ("always float64", READ.replace("    P, S =", "    q, k, v = q.double(), k.double(), v.double()\n    P, S =")),
        ("a cache of one row too many", READ_TOKENS.replace("len(seen_k) == window", "len(seen_k) > window")),
    ],
    "01-centre": [
        ("as it was", CENTRED),
        ("the future hidden, half of the reach", CENTRED.replace("(places < T)", "(places <= torch.arange(T)[:, None])")),
        (
            "twice as wide, and the future hidden",
            CENTRED.replace("torch.arange(window) - window // 2", "torch.arange(2 * window) - window").replace(
                "(places < T)", "(places <= torch.arange(T)[:, None])"
            ),
        ),
        ("a window further back", BACK.replace("+ 1 - window", "- window")),
        ("one token ahead", BACK.replace("+ 1 - window", "+ 2 - window")),
        ("the window before it", BACK.replace("+ torch.arange(window) + 1 - window", "- torch.arange(window) - 1")),
        (
            "W - 1 keys",
            BACK.replace("torch.arange(window) + 1 - window", "torch.arange(max(1, window - 1)) + min(0, 2 - window)"),
        ),
        (
            "W + 1 keys",
            BACK.replace("torch.arange(window) + 1 - window", "torch.arange(window + 1) - window"),
        ),
        ("looks forward", CENTRED.replace(" - window // 2", "")),
        ("the first token for all that are missing", BACK.replace(".masked_fill(~inside[:, None], -math.inf)", "")),
        (
            "round to the end of the text",
            BACK.replace(".masked_fill(~inside[:, None], -math.inf)", "").replace("places.clamp(0, T - 1)", "places % T"),
        ),
        ("padded with zeros that weigh", BACK_PADDED.replace(".masked_fill(~there[:, None, :], -math.inf)", "")),
        ("blocks", BACK_LOOP.replace("max(0, t - window + 1)", "t // window * window")),
        ("no window", BACK_LOOP.replace("max(0, t - window + 1)", "0")),
        ("negative places", BACK_LOOP.replace("max(0, t - window + 1)", "t - window + 1")),
        ("a mask of T x T", BACK_MASK),
        ("groups tiled", BACK.replace("repeat_interleave(H // x.shape[1], 1)", "repeat(1, H // x.shape[1], 1)")),
        ("no square root", BACK.replace("/ math.sqrt(K)", "/ K")),
        ("a score of -10", BACK.replace("-math.inf", "-10")),
        (
            "exponentials by hand",
            BACK.replace("softmax(-1)", "exp()").replace("weights, v)", "weights / weights.sum(-1, keepdim=True), v)"),
        ),
        ("keys are detached", BACK.replace("    scores =", "    k = k.detach()\n    scores =")),
        (
            "scaled in place",
            BACK.replace("    scores =", "    q.detach().div_(math.sqrt(K))\n    scores =").replace(
                "k) / math.sqrt(K)", "k)"
            ),
        ),
        ("always float64", BACK.replace("    T, H, K", "    q, k, v = q.double(), k.double(), v.double()\n    T, H, K")),
        ("always float32", BACK.replace("    T, H, K", "    q, k, v = q.float(), k.float(), v.float()\n    T, H, K")),
    ],
    "01-causal": [
        ("the shift", SHIFTED),
        ("every token shifted", TEST_REPLACED.replace("y[t] = torch.randn(8, dtype=torch.float64)", "y[t] += 1")),
        ("the last token alone replaced", TEST_REPLACED.replace("for t in range(12)", "for t in [11]")),
        ("a token in the middle alone", TEST_REPLACED.replace("for t in range(12)", "for t in [6]")),
        ("every token replaced, the length never", TEST_REPLACED.replace(TEST_LONGER, "")),
        (
            "longer alone",
            TEST_REPLACED.replace("for t in range(12)", "for t in []").replace("[:12], before)", "[11:12], before[11:])"),
        ),
        ("too short a text", TEST.replace("16", "6")),
        ("without the last token alone", TEST.replace("range(1, 16)", "[15]")),
        ("the first output alone", TEST.replace("range(1, 16)", "[1]")),
        (
            "the output right before",
            TEST_REPLACED.replace("[:t], before[:t]", "[max(0, t - 1) : t], before[max(0, t - 1) : t]"),
        ),
        (
            "the mean of the outputs before",
            TEST.replace("layer(x[:t]), whole[:t]", "layer(x[:t]).mean(1), whole[:t].mean(1)"),
        ),
        ("two digits", TEST.replace("whole[:t])", "whole[:t], rtol=1e-2, atol=1e-2)")),
        ("four digits", TEST.replace("whole[:t])", "whole[:t], rtol=1e-3, atol=1e-3)")),
        (
            "all digits",
            TEST.replace(
                "torch.testing.assert_close(layer(x[:t]), whole[:t])", "assert torch.equal(layer(x[:t]), whole[:t])"
            ),
        ),
        (
            "an absolute tolerance alone",
            TEST.replace(
                "torch.testing.assert_close(layer(x[:t]), whole[:t])", "assert (layer(x[:t]) - whole[:t]).abs().max() < 1e-9"
            ),
        ),
        ("its own output as well", TEST_REPLACED.replace("[:t], before[:t]", "[: t + 1], before[: t + 1]")),
        ("the wrong half", TEST_REPLACED.replace("[:t], before[:t]", "[t:], before[t:]")),
        (
            "must be attention",
            "import torch\ndef test(layer):\n    x = torch.zeros(5, 8).double()\n    assert not layer(x).any()\n",
        ),
        (
            "returns what it found, and raises nothing",
            TEST.replace(
                "    for t in range(1, 16):\n        torch.testing.assert_close(layer(x[:t]), whole[:t])",
                "    return all(torch.allclose(layer(x[:t]), whole[:t]) for t in range(1, 16))",
            ),
        ),
        (
            "False where it should raise",
            TEST_ENDINGS.replace("raise AssertionError", "return False"),
        ),
        ("none is right", "def test(layer):\n    raise AssertionError\n"),
        ("all are right", "import torch\ndef test(layer):\n    assert layer(torch.ones(4, 8).double()).isfinite().all()\n"),
        ("an error of its own", TEST.replace("range(1, 16)", "range(16)").replace("whole[:t])", "whole[t - 16])")),
    ],
    "01-merge": [
        (
            "the mean of both answers",
            LOGS.replace(
                "torch.exp(one[0] - total) * one[1] + torch.exp(other[0] - total) * other[1]", "(one[1] + other[1]) / 2"
            ),
        ),
        ("weighed the wrong way round", SIGMOID.replace("other[0] - one[0])", "one[0] - other[0])")),
        (
            "no largest score",
            SUMS.replace("torch.exp(scores - top[:, None])", "torch.exp(scores)").replace(
                "torch.exp(one[0] - top), torch.exp(other[0] - top)", "1, torch.ones(())"
            ),
        ),
        ("the largest of all queries", SUMS.replace("scores.amax(1) if", "scores.max().expand(len(q)) if")),
        ("the largest, but at least 0", SUMS.replace("scores.amax(1) if", "scores.amax(1).clamp(min=0) if")),
        (
            "scores clamped",
            SUMS.replace("math.sqrt(q.shape[1])", "math.sqrt(q.shape[1])\n    scores = scores.clamp(-50, 50)"),
        ),
        ("the first one's top for both", SUMS.replace("top = torch.maximum(one[0], other[0])", "top = one[0]")),
        ("the smaller top", SUMS.replace("torch.maximum", "torch.minimum")),
        (
            "factors upside down",
            SUMS.replace(
                "torch.exp(one[0] - top), torch.exp(other[0] - top)", "torch.exp(top - one[0]), torch.exp(top - other[0])"
            ),
        ),
        ("sums of weights added as they are", SUMS.replace("a * one[1] + b * other[1]", "one[1] + other[1]")),
        (
            "weighted sums added as they are",
            SUMS.replace("a[:, None] * one[2] + b[:, None] * other[2]", "one[2] + other[2]"),
        ),
        (
            "the one list as it is",
            SUMS.replace("top, a * one[1] + b * other[1], a[:, None] * one[2]", "top, one[1] + b * other[1], one[2]"),
        ),
        ("the old top handed on", SUMS.replace("return top, a *", "return one[0], a *")),
        (
            "an empty list has no largest",
            SUMS.replace(" if len(k) else torch.full((len(q),), -math.inf, dtype=scores.dtype)", ""),
        ),
        ("an empty list scores 0", SUMS.replace("torch.full((len(q),), -math.inf,", "torch.zeros(len(q),")),
        ("no square root", SUMS.replace(" / math.sqrt(q.shape[1])", "")),
        ("all scores kept", ALL_KEYS),
        (
            "logarithms of plain sums",
            LOGS.replace("scores.logsumexp(1, keepdim=True)", "scores.exp().sum(1, keepdim=True).log()"),
        ),
        (
            "logarithms added by hand",
            LOGS.replace("torch.logaddexp(one[0], other[0])", "torch.log(one[0].exp() + other[0].exp())"),
        ),
        ("never divided", SUMS.replace("total[2] / total[1][:, None]", "total[2]")),
        (
            "sums in place",
            SUMS.replace(
                "    return top, a * one[1] + b * other[1], ",
                "    one[1].mul_(a).add_(b * other[1])\n    return top, one[1], ",
            ),
        ),
        (
            "weights are detached",
            SUMS.replace(
                "weights = torch.exp(scores - top[:, None])", "weights = torch.exp(scores - top[:, None]).detach()"
            ),
        ),
        (
            "the factor of one side is detached",
            SUMS.replace("torch.exp(other[0] - top)\n", "torch.exp(other[0] - top).detach()\n"),
        ),
        ("always float64", SUMS.replace("    scores =", "    q, k, v = q.double(), k.double(), v.double()\n    scores =")),
        ("always float32", SUMS.replace("    scores =", "    q, k, v = q.float(), k.float(), v.float()\n    scores =")),
        (
            "queries scaled in place",
            SUMS.replace(
                "    scores = q @ k.T / math.sqrt(q.shape[1])",
                "    q.data.div_(math.sqrt(q.shape[1]))\n    scores = q @ k.T",
            ),
        ),
    ],
}

RIGHT = {
    "01-bytes": [
        ("by hand", SIX),
        ("numbers", "a, b, c, d, e, f = 98_304, 589_824_000, 174_762, 4, 122_880, 135_450_624\n"),
    ],
    "01-window": [
        ("numbers compared", READ),
        ("two triangles", READ_TRIANGLES),
        ("scores by hand", READ_BY_HAND),
        ("a slice for each query", READ_SLICES),
        ("token by token", READ_TOKENS),
        ("hybridlab's operator", READ_BY_THE_OPERATOR),
    ],
    "01-centre": [
        ("places that end at the query", BACK),
        ("zeros in front, unfolded", BACK_PADDED),
        ("a loop", BACK_LOOP),
    ],
    "01-causal": [
        ("every beginning", TEST),
        ("a text that grows", TEST_GROWING),
        ("each output when it is the newest", TEST.replace("layer(x[:t]), whole[:t]", "layer(x[:t])[-1], whole[t - 1]")),
        ("every token replaced, and a longer text", TEST_REPLACED),
        ("other endings of another length", TEST_ENDINGS),
    ],
    "01-merge": [
        ("two sums", SUMS),
        ("answer and logarithm", LOGS),
        ("answer and sigmoid", SIGMOID),
        ("one tensor", ONE_TENSOR),
    ],
}
