"""Answers to exercise 07: wrong ones, each one difference away from a right one, and right ones written differently.

A replacement that finds nothing leaves a right answer, and the test of this file says so.
"""

SIX = """
a, b, c = 1 + 5 + 25, 1 + 4 + 16 + 64, (1 + 7 + 49) * 7
d, e, f = 2 * 8 * 273 * 65, 10, 4 * 273 * 17
"""

SYMMETRIC = """
import torch
def features(x):
    K = x.shape[-1]
    x = x / K**0.25
    a, b = torch.triu_indices(K, K)
    scale = torch.where(a == b, 0.5, 1.0).to(x.dtype).sqrt()
    return torch.cat((torch.ones_like(x[..., :1]), x, scale * x[..., a] * x[..., b]), -1)
"""

SYMMETRIC_LOOP = """
import torch
def features(x):
    K = x.shape[-1]
    x = x / K**0.25
    parts = [torch.ones_like(x[..., 0])]
    for i in range(K):
        parts.append(x[..., i])
        parts.append(x[..., i] ** 2 / 2**0.5)
        for j in range(i):
            parts.append(-x[..., i] * x[..., j])
    return torch.stack(parts, -1)
"""

SYMMETRIC_ROLLED = """
import torch
def features(x):
    K = x.shape[-1]
    x = x / K**0.25
    rolled = [x * x.roll(shift, -1) for shift in range(1, (K + 1) // 2)]
    if K % 2 == 0:
        rolled.append((x * x.roll(K // 2, -1))[..., : K // 2])
    return torch.cat((torch.ones_like(x[..., :1]), x, x * x / 2**0.5, *rolled), -1)
"""

SYMMETRIC_SQUARE = """
import torch
def features(x):
    K = x.shape[-1]
    y = torch.cat((x / K**0.25, torch.ones_like(x[..., :1])), -1)
    once, both = torch.eye(K + 1, dtype=x.dtype), torch.ones(K + 1, K + 1, dtype=x.dtype).tril(-1)
    pairs = y[..., :, None] * y[..., None, :] * (once / 2**0.5 + both)
    # ((s + 1)^2 + 1) / 2: all pairs of [x, 1], and half a one more, which the last pair takes along.
    keep = torch.ones(K + 1, K + 1, dtype=torch.bool).tril()
    made = pairs[..., keep]
    return torch.cat((made[..., :-1], torch.ones_like(x[..., :1])), -1)
"""

PHI = """
import torch
def phi(x):
    x = x / x.shape[-1] ** 0.25
    products = x[..., :, None] * x[..., None, :] / 2**0.5
    return torch.cat((torch.ones_like(x[..., :1]), x, products.flatten(-2)), -1)
"""

AS_IT_WAS = """
def taylor(q, k, v, state=None):
    queries, keys = phi(q), phi(k)
    weights = (queries @ keys.mT).tril()
    above, below = weights @ v, weights.sum(-1, keepdim=True)
    written = keys.mT @ v
    if state is not None:
        above = above + queries @ state
        written = written + state
    return above / below, written
"""

CARRIED = (
    PHI
    + """
def taylor(q, k, v, state=None):
    queries, keys = phi(q), phi(k)
    weights = (queries @ keys.mT).tril()
    above, below = weights @ v, weights.sum(-1, keepdim=True)
    S, z = keys.mT @ v, keys.sum(-2)
    if state is not None:
        old_S, old_z = state
        above = above + queries @ old_S
        below = below + queries @ old_z[..., None]
        S, z = S + old_S, z + old_z
    return above / below, (S, z)
"""
)

CARRIED_ONES = (
    PHI
    + """
def taylor(q, k, v, state=None):
    ones = torch.ones_like(v[..., :1])
    v, queries, keys = torch.cat((v, ones), -1), phi(q), phi(k)
    memory = 0 if state is None else state
    sums = (queries @ keys.mT).tril() @ v + (0 if state is None else queries @ state)
    return sums[..., :-1] / sums[..., -1:], memory + keys.mT @ v
"""
)

CARRIED_LOOP = (
    PHI
    + """
def taylor(q, k, v, state=None):
    if state is None:
        F = phi(k).shape[-1]
        state = {"S": v.new_zeros(*v.shape[:-2], F, v.shape[-1]), "z": v.new_zeros(*v.shape[:-2], F)}
    S, z, outputs = state["S"], state["z"], []
    for t in range(q.shape[-2]):
        key, query = phi(k[..., t, :]), phi(q[..., t, :])
        S = S + key[..., :, None] * v[..., t, None, :]
        z = z + key
        below = (query * z).sum(-1, keepdim=True)
        outputs.append((query[..., None, :] @ S)[..., 0, :] / below)
    return torch.stack(outputs, -2), {"S": S, "z": z}
"""
)

CROSSOVER = """
def crossover(K, V, order=2, state_bytes=4, cache_bytes=4):
    F = sum(K**n for n in range(order + 1))
    return state_bytes * F * (V + 1) // (cache_bytes * (K + V)) + 1
def widest(T, V, state_bytes=4, cache_bytes=4):
    K = 0
    while crossover(K + 1, V, 2, state_bytes, cache_bytes) <= T:
        K += 1
    return K
"""

CROSSOVER_SEARCHED = """
def crossover(K, V, order=2, state_bytes=4, cache_bytes=4):
    F = 1
    for _ in range(order):
        F = 1 + K * F
    state = state_bytes * (F * V + F)
    low, high = 0, state
    while high - low > 1:
        T = (low + high) // 2
        low, high = (low, T) if T * (K + V) * cache_bytes > state else (T, high)
    return high
def widest(T, V, state_bytes=4, cache_bytes=4):
    K = 1
    while (1 + K + K * K) * (V + 1) * state_bytes < T * (K + V) * cache_bytes:
        K = K + 1
    return K - 1
"""

CROSSOVER_ROOT = """
from fractions import Fraction
from math import ceil, floor, isqrt
def crossover(K, V, order=2, state_bytes=4, cache_bytes=4):
    F = Fraction(K ** (order + 1) - 1, K - 1) if K > 1 else order + 1
    return floor(Fraction(state_bytes, cache_bytes) * F * (V + 1) / (K + V)) + 1
def widest(T, V, state_bytes=4, cache_bytes=4):
    a, b = state_bytes * (V + 1), state_bytes * (V + 1) - cache_bytes * T
    c = a - cache_bytes * T * V
    root = b * b - 4 * a * c
    K = max(0, (isqrt(max(root, 0)) - b) // (2 * a) + 1)
    while K > 0 and a * K * K + b * K + c >= 0:
        K -= 1
    return K
"""

TEST = """
import torch
def test(weigh):
    torch.manual_seed(1)
    for K in (1, 2, 6):
        for length in (1, 3):
            q, k = length * torch.randn(K).double(), length * torch.randn(300, K).double()
            w = weigh(q, k)[torch.argsort(k @ q)]
            assert (w.diff() >= -1e-9 * (1 + w[1:].abs())).all()
"""

TEST_GRID = """
import torch
def test(weigh):
    grid = torch.arange(-20, 20, 0.005).double()
    for k in (grid[:, None], torch.stack((grid, grid.flip(0) * grid), 1)):
        for sign in (1, -1):
            q = torch.zeros(k.shape[1]).double()
            q[0] = sign
            w = weigh(q, k)
            w = w if sign == 1 else w.flip(0)
            assert (w[:-1] <= w[1:] + 1e-9 * w[1:].abs() + 1e-9).all()
"""

TEST_PAIRS = """
import torch
def test(weigh):
    rng = torch.Generator().manual_seed(5)
    for _ in range(20):
        q = 2 * torch.randn(3, generator=rng).double()
        k = 2 * torch.randn(60, 3, generator=rng).double()
        s, w = k @ q, weigh(q, k)
        above = s[:, None] > s[None, :] + 1e-9
        wrong = w[:, None] < w[None, :] - 1e-9 * w[None, :].abs()
        assert not (above & wrong).any()
"""

ONE_DIMENSION = """
import torch
def test(weigh):
    k = torch.linspace(LOW, HIGH, 801).double()[:, None]
    w = weigh(torch.ones(1).double(), k)
    assert (w.diff() >= -1e-9 * (1 + w[1:].abs())).all()
"""

BOTH_ADDED = "S, z = S + old_S, z + old_z"
FULL = "    return K\n"

WRONG = {
    "07-count": [
        ("a: the 1 forgotten", SIX.replace("1 + 5 + 25", "5 + 25")),
        ("a: the key itself forgotten", SIX.replace("1 + 5 + 25", "1 + 25")),
        ("a: every pair once", SIX.replace("1 + 5 + 25", "1 + 5 + 15")),
        ("b: up to the square", SIX.replace("1 + 4 + 16 + 64", "1 + 4 + 16")),
        ("b: the cube alone", SIX.replace("1 + 4 + 16 + 64", "64")),
        ("b: three times, not cubed", SIX.replace("16 + 64", "16 + 12")),
        ("c: no normaliser", SIX.replace("(1 + 7 + 49) * 7", "(1 + 7 + 49) * 6")),
        ("c: one number for the normaliser", SIX.replace("(1 + 7 + 49) * 7", "(1 + 7 + 49) * 6 + 1")),
        ("c: keys and values", SIX.replace("(1 + 7 + 49) * 7", "(1 + 7 + 49) * 13")),
        ("d: one head", SIX.replace("2 * 8 * 273", "2 * 273")),
        ("d: four bytes", SIX.replace("2 * 8 * 273", "4 * 8 * 273")),
        ("d: numbers, not bytes", SIX.replace("2 * 8 * 273", "8 * 273")),
        ("d: the normaliser shared by the heads", SIX.replace("2 * 8 * 273 * 65", "2 * 273 * (8 * 64 + 1)")),
        ("e: the root", SIX.replace("65, 10,", "65, 111**0.5,")),
        ("e: every pair once", SIX.replace("65, 10,", "65, 13.35,")),
        ("f: one head of 64", SIX.replace("4 * 273 * 17", "4161 * 65")),
        ("f: four heads of 64", SIX.replace("4 * 273 * 17", "4 * 4161 * 65")),
        ("f: values are not shared out", SIX.replace("4 * 273 * 17", "4 * 273 * 65")),
        ("a word", SIX.replace("65, 10,", '65, "ten",')),
    ],
    "07-symmetric": [
        ("every pair twice", PHI.replace("phi", "features")),
        ("the squares count double", SYMMETRIC.replace("torch.where(a == b, 0.5, 1.0).to(x.dtype).sqrt()", "1.0")),
        ("every pair counts half", SYMMETRIC.replace("torch.where(a == b, 0.5, 1.0).to(x.dtype).sqrt()", "0.5**0.5")),
        ("the pairs doubled, not their roots", SYMMETRIC.replace("0.5, 1.0)", "0.5, 2.0)")),
        ("the halves halved, not their roots", SYMMETRIC.replace("0.5, 1.0)", "0.25, 1.0)")),
        ("the squares left out", SYMMETRIC.replace("triu_indices(K, K)", "triu_indices(K, K, 1)")),
        ("the squares alone", SYMMETRIC.replace("torch.triu_indices(K, K)", "torch.arange(K).expand(2, K)")),
        ("the 1 left out", SYMMETRIC.replace("(torch.ones_like(x[..., :1]), x,", "(x,")),
        ("the key left out", SYMMETRIC.replace("x[..., :1]), x,", "x[..., :1]),")),
        ("a zero in place of every second pair", SYMMETRIC_SQUARE.replace("pairs[..., keep]", "pairs.flatten(-2)")),
        ("no scale", SYMMETRIC.replace("x = x / K**0.25", "x = x / 1")),
        ("the whole root", SYMMETRIC.replace("K**0.25", "K**0.5")),
        ("the scale of the pairs forgotten", SYMMETRIC.replace("scale * x[..., a]", "K**0.5 * scale * x[..., a]")),
        ("the scale from the tokens", SYMMETRIC.replace("K**0.25", "len(x) ** 0.25")),
        ("the keys made of length 1", SYMMETRIC.replace("x = x / K**0.25", "x = x / x.norm(dim=-1, keepdim=True)")),
        ("no longer than ten", SYMMETRIC.replace("x = x / K**0.25", "x = (x / K**0.25).clamp(-10, 10)")),
        ("rolled all the way", SYMMETRIC_ROLLED.replace("[..., : K // 2]", "")),
        ("rolled, odd K alone", SYMMETRIC_ROLLED.replace("if K % 2 == 0", "if False")),
        ("texts and heads flattened", SYMMETRIC.replace("    K = x", "    x = x.reshape(-1, x.shape[-1])\n    K = x")),
        ("a matrix of keys alone", SYMMETRIC.replace("[..., ", "[:, ")),
        ("scaled in place", SYMMETRIC.replace("x = x / K", "x /= K")),
        ("always float64", SYMMETRIC.replace("x = x / K**0.25", "x = x.double() / K**0.25")),
        ("the pairs detached", SYMMETRIC.replace("x[..., b])", "x[..., b].detach())")),
        ("centred over the tokens", SYMMETRIC.replace("x = x / K**0.25", "x = (x - x.mean(-2, keepdim=True)) / K**0.25")),
        ("the tokens before added", SYMMETRIC.replace("x[..., a] * x[..., b])", "x[..., a] * x.flip(-2)[..., b])")),
    ],
    "07-carried": [
        ("as it was", PHI + AS_IT_WAS),
        ("the piece alone", PHI + AS_IT_WAS.replace("if state is not None:", "if False:")),
        (
            "the normaliser of the last piece",
            CARRIED.replace(BOTH_ADDED, "S = S + old_S"),
        ),
        ("the values of the last piece", CARRIED.replace(BOTH_ADDED, "z = z + old_z")),
        ("the normaliser carried, not used", CARRIED.replace("below = below + queries @ old_z[..., None]", "pass")),
        (
            "as many tokens as there were",
            CARRIED.replace("keys.sum(-2)", "torch.full_like(v[..., 0, 0], v.shape[-2])").replace(
                "queries @ old_z[..., None]", "old_z[..., None, None]"
            ),
        ),
        (
            "means are carried",
            CARRIED.replace("return above / below, (S, z)", "return above / below, (S / len(k), z / len(k))"),
        ),
        (
            "the sum of the last query",
            CARRIED.replace("z = keys.mT @ v, keys.sum(-2)", "z = keys.mT @ v, below[..., -1, 0]").replace(
                "queries @ old_z[..., None]", "old_z[..., None, None]"
            ),
        ),
        ("two means added", CARRIED.replace("above = above + queries @ old_S", "above = above + queries @ old_S * 2")),
        (
            "the keys, not their features",
            CARRIED.replace("keys.sum(-2)", "k.sum(-2)").replace("queries @ old_z[..., None]", "1 + q @ old_z[..., None]"),
        ),
        ("the features of the sum", CARRIED.replace("keys.sum(-2)", "phi(k.sum(-2))")),
        ("the last key's features", CARRIED.replace("keys.sum(-2)", "keys[..., -1, :]")),
        ("summed over the texts", CARRIED.replace("keys.sum(-2)", "keys.sum(0)")),
        (
            "one text alone",
            CARRIED.replace("old_z[..., None]", "old_z")
            .replace("below + queries", "below + (queries")
            .replace("@ old_z\n", "@ old_z)[:, None]\n"),
        ),
        ("everything is visible", CARRIED.replace(".tril()", "")),
        ("a token does not see itself", CARRIED.replace(".tril()", ".tril(-1)")),
        ("the state detached", CARRIED.replace("(S, z)\n", "(S.detach(), z.detach())\n")),
        ("the normaliser detached", CARRIED.replace("(S, z)\n", "(S, z.detach())\n")),
        (
            "the state changed in place",
            CARRIED.replace(BOTH_ADDED, "S, z = old_S.add_(S), old_z.add_(z)"),
        ),
        (
            "the normaliser changed in place",
            CARRIED.replace(BOTH_ADDED, "S, z = S + old_S, old_z.add_(z)"),
        ),
        (
            "the text itself is carried",
            PHI
            + AS_IT_WAS.replace("taylor(", "whole(")
            + """
def taylor(q, k, v, state=None):
    if state is not None:
        k, v = torch.cat((state[0], k), -2), torch.cat((state[1], v), -2)
    before = k.shape[-2] - q.shape[-2]
    q = torch.cat((torch.zeros_like(k[..., :before, :]), q), -2)
    return whole(q, k, v)[0][..., before:, :], (k, v)
""",
        ),
        (
            "kept outside",
            CARRIED.replace("def taylor", "kept = {}\ndef taylor")
            .replace("old_S, old_z = state", "old_S, old_z = state, kept['z']")
            .replace("    return above / below, (S, z)", "    kept['z'] = z\n    return above / below, S"),
        ),
        ("always float64", CARRIED.replace("phi(q), phi(k)", "phi(q.double()), phi(k.double())\n    v = v.double()")),
        ("a floor below", CARRIED.replace("above / below", "above / below.clamp(min=6)")),
        ("logits not too large", CARRIED.replace("phi(q), phi(k)", "phi(q.clamp(-3, 3)), phi(k.clamp(-3, 3))")),
        ("the queries changed in place", CARRIED.replace("    queries, keys", "    q *= 1 + 1e-3\n    queries, keys")),
    ],
    "07-crossover": [
        ("no normaliser", CROSSOVER.replace("(V + 1)", "V")),
        ("one number for the normaliser", CROSSOVER.replace("F * (V + 1)", "(F * V + 1)")),
        ("keys alone are cached", CROSSOVER.replace("(K + V)", "K")),
        ("two keys are cached", CROSSOVER.replace("(K + V)", "(2 * K)")),
        ("the 1 forgotten", CROSSOVER.replace("for n in range(order + 1)", "for n in range(1, order + 1)")),
        ("the highest power alone", CROSSOVER.replace("sum(K**n for n in range(order + 1))", "K**order")),
        ("always order 2", CROSSOVER.replace("range(order + 1)", "range(3)")),
        ("one order too few", CROSSOVER_SEARCHED.replace("range(order)", "range(order - 1)")),
        ("every pair once", CROSSOVER.replace("sum(K**n for n in range(order + 1))", "(K + 1) * (K + 2) // 2")),
        ("rounded up", CROSSOVER.replace("return state_bytes", "return -(-state_bytes").replace(" + V)) + 1", " + V)))")),
        ("rounded down", CROSSOVER.replace(" + V)) + 1", " + V))")),
        ("not rounded", CROSSOVER.replace("//", "/").replace(" + V)) + 1", " + V))")),
        (
            "bytes the other way round",
            CROSSOVER.replace("state_bytes * F", "cache_bytes * F").replace("(cache_bytes * (K", "(state_bytes * (K"),
        ),
        ("bytes ignored", CROSSOVER.replace("state_bytes * F", "F").replace("(cache_bytes * (K", "((K")),
        ("the cache's bytes ignored", CROSSOVER.replace("(cache_bytes * (K", "(4 * (K")),
        ("the state's bytes ignored", CROSSOVER.replace("state_bytes * F", "4 * F")),
        ("widest: as large will do", CROSSOVER.replace("<= T:", "<= T + 1:")),
        ("widest: one further", CROSSOVER.replace(FULL, "    return K + 1\n")),
        ("widest: one at least", CROSSOVER.replace(FULL, "    return max(1, K)\n")),
        (
            "widest: bytes ignored",
            CROSSOVER.replace("crossover(K + 1, V, 2, state_bytes, cache_bytes)", "crossover(K + 1, V)"),
        ),
        (
            "widest: a power of two",
            CROSSOVER.replace(FULL, "    return 2 ** (K.bit_length() - 1) if K else 0\n"),
        ),
        ("widest: the root", CROSSOVER.replace(FULL, "    return round(T**0.5)\n")),
        (
            "widest: K squared alone",
            CROSSOVER.replace(FULL, "    return T * cache_bytes // (state_bytes * (V + 1))\n"),
        ),
    ],
    "07-ranks": [
        ("none is right", "def test(weigh):\n    raise AssertionError\n"),
        ("all are right", "def test(weigh):\n    return None\n"),
        ("from -1 to 1", ONE_DIMENSION.replace("LOW", "-1").replace("HIGH", "1")),
        ("positive logits alone", ONE_DIMENSION.replace("LOW", "0").replace("HIGH", "20")),
        ("one direction, a query of 1", ONE_DIMENSION.replace("LOW", "-20").replace("HIGH", "20")),
        ("not far enough below", TEST_GRID.replace("arange(-20, 20", "arange(-3, 3")),
        ("too coarse", TEST_GRID.replace("0.005", "1.0")),
        ("far too short", TEST.replace("(1, 3)", "[0.1]")),
        (
            "keys of length 1",
            TEST.replace("            w = ", "            k = k / k.norm(dim=1, keepdim=True)\n            w = "),
        ),
        (
            "oldest first, in the order of their logits",
            TEST.replace("            w = ", "            k = k[torch.argsort(k @ q)]\n            w = "),
        ),
        ("one key more at a time", TEST_PAIRS.replace("60, 3", "2, 3").replace("range(20)", "range(5)")),
        (
            "two keys",
            "import torch\ndef test(weigh):\n    w = weigh(torch.ones(1).double(), torch.tensor([[0.0], [-3.0]]).double())\n"
            "    assert w[0] > w[1]\n",
        ),
        ("the first alone", TEST.replace("(w.diff() >= -1e-9 * (1 + w[1:].abs())).all()", "w.argmax() == len(w) - 1")),
        ("the sign of the query forgotten", TEST.replace("argsort(k @ q)", "argsort(k.sum(1))")),
        ("the wrong way round", TEST.replace("w.diff() >= -", "w.diff() <= ")),
        ("never equal", TEST.replace("w.diff() >= -1e-9 * (1 + w[1:].abs())", "w.diff() > 0")),
        (
            "to the last digit",
            TEST_GRID.replace("w[1:] + 1e-9 * w[1:].abs() + 1e-9", "w[1:]").replace(
                "arange(-20, 20, 0.005).double()", "arange(-20, 20, 0.005).double().repeat_interleave(2)"
            ),
        ),
        ("no negative weight", TEST.replace("            assert", "            assert (w >= 0).all()\n            assert")),
        (
            "softmax's weights",
            TEST.replace(
                "            assert (w.diff() >= -1e-9 * (1 + w[1:].abs())).all()",
                "            s = (k @ q).sort().values / K**0.5\n"
                "            assert (w / w.sum() - s.softmax(0)).abs().max() < 1e-9",
            ),
        ),
        (
            "none below half of the key next to it",
            TEST.replace("w.diff() >= -1e-9 * (1 + w[1:].abs())", "w[1:] >= 0.5 * w[:-1] - 1e-9"),
        ),
        ("an error of its own", TEST.replace("(w.diff() >=", "(w.diffs() >=")),
    ],
}

RIGHT = {
    "07-count": [
        ("by hand", SIX),
        ("digits", "a, b, c, d, e, f = 31, 85.0, 399, 283_920, 10, 18564\n"),
    ],
    "07-symmetric": [
        ("indices", SYMMETRIC),
        ("a loop, other signs, another order", SYMMETRIC_LOOP),
        ("rolled", SYMMETRIC_ROLLED),
        ("the square of s + 1", SYMMETRIC_SQUARE),
    ],
    "07-carried": [
        ("a pair", CARRIED),
        ("one more value", CARRIED_ONES),
        ("a loop, a dict", CARRIED_LOOP),
    ],
    "07-crossover": [
        ("whole numbers", CROSSOVER),
        ("searched", CROSSOVER_SEARCHED),
        ("a root", CROSSOVER_ROOT),
    ],
    "07-ranks": [
        ("sorted", TEST),
        ("a grid in two directions", TEST_GRID),
        ("all pairs", TEST_PAIRS),
    ],
}
