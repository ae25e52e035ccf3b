"""Answers to exercise 10: wrong ones, each one difference away from a right one, and right ones written differently.

A replacement that finds nothing leaves a right answer, and the test of this file says so.
"""

SIX = """
a, b, c = 73728, 54525952, 12386304
d, e, f = 976, 245366784, 4841
"""

SIX_COUNTED = """
from itertools import count
maps = [(2048, 2048)] * 3 + [(2048, 1024), (1024, 8192), (4096, 1024)]
thin = [maps[0], maps[1], maps[2], maps[4]]
def pairs(rank):
    return sum(rank * (width + out) for width, out in thin)
block = sum(width * out for width, out in maps)
a = 9 * 16 * (128 + 128) * 2
b, c, e = 2 * block, 9 * pairs(64), 9 * block
d = next(rank for rank in count(1) if pairs(rank) > sum(width * out for width, out in thin))
nine, two = 9 * block * 2, (b + c) * 2
f = next(T for T in count(1) if two + T * a > nine)
"""

LOOK = """
import math
import torch
def look(q, k, v, meta_k, meta_v, window, cache=None):
    if cache is not None:
        k, v = torch.cat((cache[0], k), 1), torch.cat((cache[1], v), 1)
    B, T, K = q.shape
    M, S = len(meta_k), k.shape[1]
    keys = torch.cat((meta_k.expand(B, M, K), k), 1)
    values = torch.cat((meta_v.expand(B, M, v.shape[2]), v), 1)
    row = torch.arange(M + S)
    age = row[M + S - T :, None] - row
    seen = (age >= 0) & ((age < window) | (row < M))
    scores = torch.einsum("btk,bsk->bts", q, keys) / math.sqrt(K)
    weights = torch.softmax(torch.where(seen, scores, -math.inf), -1)
    keep = min(S, window - 1)
    return torch.einsum("bts,bsv->btv", weights, values), (k[:, S - keep :], v[:, S - keep :])
"""

LOOK_ONE_BY_ONE = """
import torch
def look(q, k, v, meta_k, meta_v, window, cache=None):
    keys, values = cache if cache is not None else (k[:, :0], v[:, :0])
    outputs = []
    for t in range(q.shape[1]):
        keys, values = torch.cat((keys, k[:, t : t + 1]), 1), torch.cat((values, v[:, t : t + 1]), 1)
        keys, values = (z[:, max(0, z.shape[1] - window) :] for z in (keys, values))
        asks = q[:, t : t + 1]
        scores = torch.cat((asks @ meta_k.T, asks @ keys.transpose(1, 2)), 2) / q.shape[2] ** 0.5
        weights = scores.softmax(2)
        meta, text = weights.split((len(meta_k), keys.shape[1]), 2)
        outputs.append(meta @ meta_v + text @ values)
    drop = max(0, keys.shape[1] - window + 1)
    return torch.cat(outputs, 1), (keys[:, drop:], values[:, drop:])
"""

LOOK_BY_THE_OPERATOR = """
import torch
from hybridlab.ops import attention
def look(q, k, v, meta_k, meta_v, window, cache=None):
    B, M = len(q), len(meta_k)
    if cache is not None:
        cache = [z[:, max(0, z.shape[1] - window + 1) :] for z in cache]
        k, v = torch.cat((cache[0], k), 1), torch.cat((cache[1], v), 1)
        q = torch.cat((torch.zeros(B, cache[0].shape[1], q.shape[2], dtype=q.dtype), q), 1)
    new = q.shape[1] if cache is None else q.shape[1] - cache[0].shape[1]
    front = [meta_k.expand(B, *meta_k.shape), meta_v.expand(B, *meta_v.shape)]
    keys, values = (torch.cat(pair, 1)[:, :, None] for pair in zip(front, (k, v)))
    asks = torch.cat((0 * front[0], q), 1)[:, :, None]
    outputs, _ = attention(asks, keys, values, window=window, sinks=M, form="parallel")
    drop = max(0, k.shape[1] - window + 1)
    return outputs[:, -new:, 0], (k[:, drop:], v[:, drop:])
"""

MIXTURE = """
import torch
from torch.nn.functional import silu
def mixture(x, router, gate, up, down, active):
    shares = torch.softmax(x @ router.T, -1)
    kept, chosen = shares.topk(active, -1)
    outputs = []
    for t in range(len(x)):
        y = torch.zeros_like(x[t])
        for place in range(active):
            e = chosen[t, place]
            y = y + kept[t, place] * (down[e] @ (silu(gate[e] @ x[t]) * (up[e] @ x[t])))
        outputs.append(y)
    return torch.stack(outputs)
"""

MIXTURE_DENSE = """
import torch
from torch.nn.functional import silu
def mixture(x, router, gate, up, down, active):
    shares = (x @ router.T).softmax(-1)
    chosen = torch.zeros_like(shares).scatter(-1, shares.topk(active, -1).indices, 1)
    gates, ups = torch.einsum("efd,td->tef", gate, x), torch.einsum("efd,td->tef", up, x)
    heard = torch.einsum("edf,tef->ted", down, silu(gates) * ups)
    return torch.einsum("te,ted->td", shares * chosen, heard)
"""

AS_IT_WAS = """
import torch
from torch.nn.functional import silu
def mixture(x, router, gate, up, down, active):
    logits, chosen = (x @ router.T).topk(active, -1)
    shares = logits.softmax(-1)
    y = torch.zeros_like(x)
    for e in range(len(router)):
        token, place = (chosen == e).nonzero(as_tuple=True)
        z = x[token]
        heard = (silu(z @ gate[e].T) * (z @ up[e].T)) @ down[e].T
        y[token] += shares[token, place, None] * heard
    return y
"""

MIXTURE_ALL_SHARES = AS_IT_WAS.replace("shares = logits.softmax(-1)", "shares = (x @ router.T).softmax(-1)").replace(
    "shares[token, place, None]", "shares[token, e, None]"
)

PLAN = """
from functools import lru_cache
def plan(layers, limit, kept):
    @lru_cache(None)
    def least(word_left, last, lists):
        if word_left == 0:
            return (0, "") if lists == 0 else None
        best = None
        for letter in kept:
            if letter == last or last == "" and letter in ("A", "W"):
                continue
            rest = least(word_left - 1, letter, lists - (letter == "A")) if lists >= (letter == "A") else None
            if rest is not None and (best is None or rest[0] + kept[letter] < best[0]):
                best = rest[0] + kept[letter], letter + rest[1]
        return best
    for lists in range(layers // 2, -1, -1):
        found = least(layers, "", lists)
        if found is not None and found[0] <= limit:
            return found[1]
    raise ValueError("nothing fits")
"""

PLAN_BY_LENGTH = """
def plan(layers, limit, kept):
    words = [letter for letter in kept if letter not in ("A", "W")]
    def size(word):
        return sum(kept[letter] for letter in word)
    for _ in range(layers - 1):
        best = {}
        for word in (word + letter for word in words for letter in kept if letter != word[-1]):
            key = word[-1], word.count("A")
            if key not in best or size(word) < size(best[key]):
                best[key] = word
        words = list(best.values())
    words = [word for word in words if size(word) <= limit]
    if not words:
        raise ValueError(f"{limit} bytes are too few")
    return max(words, key=lambda word: word.count("A"))
"""

FROM_THE_LEFT = """
def plan(layers, limit, kept):
    word, left = "", limit
    for _ in range(layers):
        letters = sorted(set(kept) - {word[-1:]} - (set() if word else {"A", "W"}), key=kept.get)
        rest = min(kept.values()) * (layers - len(word) - 1)
        letter = "A" if "A" in letters and kept["A"] + rest <= left else letters[0]
        word, left = word + letter, left - kept[letter]
    if left < 0:
        raise ValueError("nothing fits")
    return word
"""

SPREAD = """
def plan(layers, limit, kept):
    others = sorted(set(kept) - {"A"}, key=kept.get)
    for lists in range(layers // 2, -1, -1):
        places = {(i + 1) * (layers + 1) // (lists + 1) - 1 for i in range(lists)}
        word = ""
        for i in range(layers):
            allowed = [x for x in others if x != word[-1:] and (word or x != "W")]
            if i not in places and not allowed:
                break
            word += "A" if i in places else allowed[0]
        if len(word) == layers and word[0] not in "AW" and "AA" not in word and sum(kept[x] for x in word) <= limit:
            return word
    raise ValueError("nothing fits")
"""

ALL_WORDS = """
from itertools import pairwise, product
def plan(layers, limit, kept):
    if layers > 8:
        raise MemoryError("too many words")
    words = ("".join(word) for word in product(kept, repeat=layers))
    good = [w for w in words if w[0] not in "AW" and all(x != y for x, y in pairwise(w)) and sum(map(kept.get, w)) <= limit]
    if not good:
        raise ValueError("none")
    return max(good, key=lambda w: w.count("A"))
"""

TEST = """
import torch
def test(layer):
    torch.manual_seed(3)
    one, two, three = (torch.randn(20, 3).double() for _ in range(3))
    _, cache1, state1 = layer(one, None, None)
    _, cache2, state2 = layer(two, None, None)
    def alike(z, w):
        return bool((z - w).abs().max() <= 1e-8 * z.abs().max())
    for tokens in (1, 4):
        x = three[:tokens]
        _, cache, state = layer(x, cache1, state1)
        _, same_cache, _ = layer(x, cache1, state2)
        _, _, same_state = layer(x, cache2, state1)
        assert alike(cache, same_cache), "the list hears the recurrence"
        assert alike(state, same_state), "the recurrence hears the list"
"""

TEST_EVERY_LENGTH = """
import torch
def test(layer):
    torch.manual_seed(1)
    text = torch.randn(60, 3, dtype=torch.float64)
    memories = [layer(text[:20], None, None)[1:], layer(text[20:40], None, None)[1:], (None, None)]
    for n in range(1, 21):
        made = [[layer(text[40 : 40 + n], c, s)[1:] for _, s in memories] for c, _ in memories]
        for i in range(2):
            for j in range(2):
                cache, state = made[i][j]
                torch.testing.assert_close(cache, made[i][0][0], rtol=0, atol=1e-9 * cache.abs().max().item())
                torch.testing.assert_close(state, made[0][j][1], rtol=0, atol=1e-9 * state.abs().max().item())
"""

TEST_TOKENS = """
import torch
def test(layer):
    rng = torch.Generator().manual_seed(9)
    one, two, x = (torch.randn(20, 3, generator=rng, dtype=torch.float64) for _ in range(3))
    (_, c1, s1), (_, c2, s2) = layer(one, None, None), layer(two, None, None)
    for n in (1, 4, 6):
        new = min(n, len(layer(x[:n], c1, s1)[1]))
        rows = [layer(x[:n], c, s1)[2] for c in (c1, c2)], [layer(x[:n], c1, s)[1][-new:] for s in (s1, s2)]
        for mine, other in rows:
            assert torch.allclose(mine / mine.abs().max(), other / mine.abs().max(), rtol=0, atol=1e-8)
"""

WRONG = {
    "10-calls": [
        ("a: a cache a block", SIX.replace("73728", "2 * 2 * 2048 * 2")),
        ("a: one cache for all", SIX.replace("73728", "2 * 2048 * 2")),
        ("a: keys and no values", SIX.replace("73728", "9 * 2048 * 2")),
        ("a: keys as wide as the stream", SIX.replace("73728", "9 * 2 * 1024 * 2")),
        ("a: a cache in every layer", SIX.replace("73728", "30 * 2 * 2048 * 2")),
        ("a: numbers, not bytes", SIX.replace("73728", "9 * 2 * 2048")),
        ("b: a block a call", SIX.replace("54525952", "9 * 27262976")),
        ("b: one block", SIX.replace("54525952", "27262976")),
        ("b: the MLP has two matrices", SIX.replace("54525952", "2 * (27262976 - 4096 * 1024)")),
        ("b: the block reads the stream alone", SIX.replace("54525952", "2 * (27262976 - 3 * 1024 * 2048)")),
        ("c: a change a block", SIX.replace("12386304", "2 * 1376256")),
        ("c: the ends of a pair multiplied", SIX.replace("12386304", "9 * (3 * 2048 * 2048 + 1024 * 8192)")),
        ("c: keys and values unchanged", SIX.replace("12386304", "9 * (1376256 - 2 * 64 * 4096)")),
        ("c: two pairs for gate and up", SIX.replace("12386304", "9 * (1376256 + 64 * 1024)")),
        ("d: the last rank that is cheaper", SIX.replace("976", "975")),
        ("d: the width", SIX.replace("976", "1024")),
        ("d: of the MLP's pair alone", SIX.replace("976", "911")),
        ("e: every parameter once", SIX.replace("245366784", "2 * 27262976")),
        ("e: in every layer", SIX.replace("245366784", "30 * 27262976")),
        ("e: with the changes", SIX.replace("245366784", "9 * 27262976 + 12386304")),
        ("f: the changes are forgotten", SIX.replace("4841", "2 * 7 * 27262976 // 73728 + 1")),
        ("f: a token too early", SIX.replace("4841", "4840")),
        ("f: parameters against bytes", SIX.replace("4841", "(7 * 27262976 - 12386304) // 73728 + 1")),
        ("f: never, for nothing grows", SIX.replace("4841", "float('inf')")),
        ("a word", SIX.replace("976", '"many"')),
    ],
    "10-meta": [
        ("the window counts the past alone", LOOK.replace("age < window", "age <= window")),
        ("a window from the first token on", LOOK.replace("(age < window)", "(row < M + window)")),
        ("no window at all", LOOK.replace("((age < window) | (row < M))", "(row >= 0)")),
        ("meta tokens go out of sight", LOOK.replace(" | (row < M)", "")),
        ("the future is seen", LOOK.replace("(age >= 0) & ", "")),
        ("meta tokens take places in the window", LOOK.replace("age < window)", "age < window - M)")),
        (
            "two softmaxes, added",
            LOOK_ONE_BY_ONE.replace(
                "weights = scores.softmax(2)",
                "weights = torch.cat([z.softmax(2) for z in scores.split((len(meta_k), keys.shape[1]), 2)], 2)",
            ),
        ),
        ("scores not scaled", LOOK.replace(" / math.sqrt(K)", "")),
        (
            "the meta tokens' scores not scaled",
            LOOK_ONE_BY_ONE.replace(
                "torch.cat((asks @ meta_k.T, asks @ keys.transpose(1, 2)), 2) / q.shape[2] ** 0.5",
                "torch.cat((asks @ meta_k.T, asks @ keys.transpose(1, 2) / q.shape[2] ** 0.5), 2)",
            ),
        ),
        ("meta tokens in the cache", LOOK.replace("(k[:, S - keep :], v[:, S - keep :])", "(keys, values)")),
        ("everything is kept", LOOK.replace("min(S, window - 1)", "S")),
        ("a row too many", LOOK.replace("min(S, window - 1)", "min(S, window)")),
        ("the first rows are kept", LOOK.replace("k[:, S - keep :], v[:, S - keep :]", "k[:, :keep], v[:, :keep]")),
        ("minus zero", LOOK.replace("k[:, S - keep :], v[:, S - keep :]", "k[:, -keep:], v[:, -keep:]")),
        ("the cache is forgotten", LOOK.replace("if cache is not None:", "if False:")),
        (
            "the cache behind the new tokens",
            LOOK.replace(
                "torch.cat((cache[0], k), 1), torch.cat((cache[1], v), 1)",
                "torch.cat((k, cache[0]), 1), torch.cat((v, cache[1]), 1)",
            ),
        ),
        ("new tokens begin at row 0", LOOK.replace("row[M + S - T :, None]", "row[M : M + T, None]")),
        (
            "the cache is full",
            LOOK.replace("row[M + S - T :, None]", "row[M + (0 if cache is None else window - 1) :][:T, None]"),
        ),
        (
            "meta tokens for the first piece alone",
            LOOK.replace(
                "    B, T, K", "    if cache is not None:\n        meta_k, meta_v = meta_k[:0], meta_v[:0]\n    B, T, K"
            ),
        ),
        ("meta tokens for the first token alone", LOOK.replace("(row < M)", "(row < M) & (age <= M)")),
        (
            "exponentials by hand",
            LOOK.replace(
                "torch.softmax(torch.where(seen, scores, -math.inf), -1)",
                "scores.exp() * seen / (scores.exp() * seen).sum(-1, keepdim=True)",
            ),
        ),
        ("hidden scores are 0", LOOK.replace("scores, -math.inf)", "scores, 0.0)")),
        ("the softmax over queries", LOOK.replace("-math.inf), -1)", "-math.inf), -2).nan_to_num()")),
        (
            "the first text's keys for all",
            LOOK.replace('"btk,bsk->bts", q, keys)', '"btk,sk->bts", q, keys[0])'),
        ),
        ("values of meta tokens are nothing", LOOK.replace("meta_v.expand", "(0 * meta_v).expand")),
        ("the cache is detached", LOOK.replace("(k[:, S - keep :], v", "(k[:, S - keep :].detach(), v")),
        ("meta tokens are detached", LOOK.replace("meta_k.expand", "meta_k.detach().expand")),
        (
            "always float64",
            LOOK.replace(
                "    B, T, K", "    q, k, v, meta_k, meta_v = (z.double() for z in (q, k, v, meta_k, meta_v))\n    B, T, K"
            ),
        ),
        (
            "the query is scaled in place",
            LOOK.replace("    B, T, K = q.shape", "    B, T, K = q.shape\n    q /= math.sqrt(K)").replace(
                "keys) / math.sqrt(K)", "keys)"
            ),
        ),
        ("only the cache", LOOK.replace('    return torch.einsum("bts,bsv->btv", weights, values), (', "    return (")),
    ],
    "10-router": [
        ("as it was", AS_IT_WAS),
        (
            "the shares of the first experts",
            MIXTURE_ALL_SHARES.replace("shares[token, e, None]", "shares[token, place, None]"),
        ),
        (
            "divided by their sum",
            MIXTURE.replace("    outputs = []", "    kept = kept / kept.sum(-1, keepdim=True)\n    outputs = []"),
        ),
        (
            "as many as there are experts, always",
            AS_IT_WAS.replace("shares = logits.softmax(-1)", "shares = logits.softmax(-1) * active / len(router)"),
        ),
        ("equal shares", MIXTURE.replace("kept[t, place] *", "1 / len(router) *")),
        ("logits for shares", AS_IT_WAS.replace("shares = logits.softmax(-1)", "shares = logits")),
        ("sigmoids", AS_IT_WAS.replace("logits.softmax(-1)", "logits.sigmoid()")),
        ("softmax twice", AS_IT_WAS.replace("(x @ router.T).topk", "(x @ router.T).softmax(-1).topk")),
        ("shares among the tokens", MIXTURE.replace("x @ router.T, -1)", "x @ router.T, 0)")),
        ("all experts", MIXTURE_DENSE.replace("shares * chosen", "shares")),
        ("the smallest", MIXTURE.replace("shares.topk(active, -1)", "shares.topk(active, -1, largest=False)")),
        ("the first choice alone", MIXTURE.replace("range(active)", "range(1)")),
        ("the first token's choice", MIXTURE.replace("chosen[t, place]", "chosen[0, place]")),
        (
            "written, not added",
            AS_IT_WAS.replace("y[token] +=", "y[token] =")
            .replace("logits, chosen = (x @ router.T).topk", "shares, chosen = (x @ router.T).softmax(-1).topk")
            .replace("    shares = logits.softmax(-1)\n", ""),
        ),
        (
            "gate and up exchanged",
            MIXTURE.replace("silu(gate[e] @ x[t]) * (up[e] @ x[t])", "silu(up[e] @ x[t]) * (gate[e] @ x[t])"),
        ),
        (
            "always float64",
            MIXTURE.replace(
                "    shares = ",
                "    x, router, gate, up, down = (z.double() for z in (x, router, gate, up, down))\n    shares = ",
            ),
        ),
        ("shares are detached", MIXTURE.replace("    kept, chosen = shares", "    kept, chosen = shares.detach()")),
        (
            "exponentials by hand",
            MIXTURE.replace(
                "torch.softmax(x @ router.T, -1)", "(x @ router.T).exp() / (x @ router.T).exp().sum(-1, keepdim=True)"
            ),
        ),
        (
            "the shares multiply what experts read",
            MIXTURE.replace(
                "kept[t, place] * (down[e] @ (silu(gate[e] @ x[t]) * (up[e] @ x[t])))",
                "(down[e] @ (silu(gate[e] @ (kept[t, place] * x[t])) * (up[e] @ (kept[t, place] * x[t]))))",
            ),
        ),
        ("the router is centred in place", MIXTURE.replace("    shares = ", "    router -= router.mean(0)\n    shares = ")),
        (
            "the last token is left out",
            MIXTURE.replace("return torch.stack(outputs)", "return torch.stack(outputs[:-1] + [x[-1]])"),
        ),
        (
            "a choice for the whole text",
            MIXTURE.replace("e = chosen[t, place]", "e = shares.sum(0).topk(active).indices[place]").replace(
                "kept[t, place]", "shares[t, e]"
            ),
        ),
    ],
    "10-plan": [
        ("from the left, lists as long as they last", FROM_THE_LEFT),
        ("lists at equal distances", SPREAD),
        ("neighbours may be alike", PLAN.replace("letter == last or last", "last")),
        ("W may come first", PLAN.replace('letter in ("A", "W")', 'letter == "A"')),
        (
            "A may come first",
            PLAN.replace('letter in ("A", "W")', 'letter == "W"').replace("range(layers // 2,", "range((layers + 1) // 2,"),
        ),
        ("lists alone may not be neighbours", PLAN.replace("letter == last or last", 'letter == last == "A" or last')),
        ("less than the limit", PLAN.replace("found[0] <= limit", "found[0] < limit")),
        ("W is a list too", PLAN.replace('(letter == "A")', '(letter in "AW")')),
        ("windows are left out", PLAN.replace("for letter in kept:", 'for letter in kept.keys() - {"W"}:')),
        (
            "only the cheapest recurrence",
            PLAN.replace(
                "    @lru",
                '    cheap = min((x for x in kept if x not in "AW"), key=kept.get, default="")\n'
                '    kept = {x: kept[x] for x in kept if x in ("A", "W", cheap)}\n    @lru',
            ),
        ),
        ("one list in eight at most", PLAN.replace("range(layers // 2,", "range(-(-layers // 8),")),
        ("the fewest bytes", PLAN.replace("range(layers // 2, -1, -1)", "range(layers // 2 + 1)")),
        (
            "the fewest bytes, whatever the lists",
            PLAN_BY_LENGTH.replace('key=lambda word: word.count("A"))', "key=lambda word: -size(word))"),
        ),
        (
            "the cheapest beginning of each letter",
            PLAN_BY_LENGTH.replace('key = word[-1], word.count("A")', "key = word[-1]"),
        ),
        (
            "the cheapest beginning for each number of lists",
            PLAN_BY_LENGTH.replace('key = word[-1], word.count("A")', 'key = word.count("A")'),
        ),
        (
            "all words",
            ALL_WORDS,
        ),
        ("no word is no error", PLAN.replace('raise ValueError("nothing fits")', 'return ""')),
        (
            "a word that is too long, if nothing fits",
            PLAN_BY_LENGTH.replace(
                "    words = [word for word in words if size(word) <= limit]\n",
                "    words = [word for word in words if size(word) <= limit] or words\n",
            ),
        ),
        ("a list of letters", PLAN.replace("return found[1]", "return list(found[1])")),
        (
            "a layer too many",
            PLAN.replace("return found[1]", "return found[1] + min(set(kept) - {found[1][-1]}, key=kept.get)"),
        ),
        (
            "a pattern that is to be repeated",
            PLAN.replace(
                "return found[1]",
                "return next(x for x in (found[1][: n + 1] for n in range(layers)) if (x * layers)[:layers] == found[1])",
            ),
        ),
        (
            "two kinds of recurrences are needed",
            PLAN.replace(
                "    @lru", '    if len(set(kept) - {"A", "W"}) < 2:\n        return "SA" * (layers // 2)\n    @lru'
            ),
        ),
        (
            "letters are taken out of kept",
            PLAN.replace("    raise", "    kept.clear()\n    raise").replace(
                "            return found[1]",
                "            word = found[1]\n            kept.clear()\n            return word",
            ),
        ),
        (
            "halves of the bytes for lists",
            PLAN.replace("found[0] <= limit", "lists * kept.get('A', 0) <= limit / 2 and found[0] <= limit"),
        ),
    ],
    "10-wiring": [
        ("the list is not asked", TEST.replace("    assert alike(cache, same_cache)", "    assert True")),
        ("the recurrence is not asked", TEST.replace("    assert alike(state, same_state)", "    assert True")),
        ("a single token", TEST.replace("(1, 4)", "(1,)")),
        ("one and two tokens", TEST.replace("(1, 4)", "(1, 2)")),
        ("four tokens", TEST.replace("(1, 4)", "(4,)")),
        ("twenty tokens", TEST.replace("(1, 4)", "(20,)")),
        ("to the last digit", TEST.replace("<= 1e-8 * z.abs().max()", "== 0")),
        ("whatever the size", TEST.replace("1e-8 * z.abs().max()", "1e-8")),
        ("three digits", TEST.replace("1e-8", "1e-3")),
        ("both memories exchanged", TEST.replace("layer(x, cache1, state2)", "layer(x, cache2, state2)")),
        (
            "one after another",
            TEST.replace("layer(x, cache2, state1)", "layer(x, same_cache, state1)").replace(
                "layer(x, cache1, state2)", "layer(x, cache, state1)"
            ),
        ),
        (
            "from empty memories",
            TEST.replace("layer(one, None, None)", "(None, None, None)").replace(
                "layer(two, None, None)", "(None, None, None)"
            ),
        ),
        ("the same text twice", TEST.replace("layer(two,", "layer(one,")),
        ("zeros are read", TEST.replace("x = three", "x = 0 * three")),
        (
            "the outputs are compared",
            TEST.replace("_, cache, state = layer(x, cache1, state1)", "y, cache, state = layer(x, cache1, state1)")
            .replace("_, same_cache, _ =", "other, same_cache, _ =")
            .replace("assert alike(cache, same_cache)", "assert alike(y, other)"),
        ),
        (
            "the halves add up",
            """
import torch
def test(layer):
    torch.manual_seed(3)
    one, two, three = (torch.randn(20, 3).double() for _ in range(3))
    (_, c1, s1), (_, c2, s2) = layer(one, None, None), layer(two, None, None)
    y = [[layer(three[:4], c, s)[0] for s in (s1, s2)] for c in (c1, c2)]
    assert (y[0][0] - y[0][1] - y[1][0] + y[1][1]).abs().max() < 1e-8
""",
        ),
        (
            "old rows are compared as well",
            TEST.replace("_, same_cache, _ = layer(x, cache1, state2)", "_, same_cache, _ = layer(x, cache2, state1)"),
        ),
        ("the first row of the cache", TEST.replace("alike(cache, same_cache)", "alike(cache[0], same_cache[0])")),
        (
            "it returns its verdict",
            TEST.replace(
                "    assert alike(cache, same_cache)", "    return alike(cache, same_cache) and alike(state, same_state)"
            ),
        ),
        ("the other way round", TEST.replace("assert alike(cache, same_cache)", "assert not alike(cache, same_cache)")),
        (
            "the first number alone",
            TEST.replace("alike(state, same_state)", "alike(state.flatten()[:1], same_state.flatten()[:1])").replace(
                "alike(cache, same_cache)", "alike(cache[:1], same_cache[:1])"
            ),
        ),
    ],
}

RIGHT = {
    "10-calls": [("plain numbers", SIX), ("counted", SIX_COUNTED)],
    "10-meta": [
        ("meta tokens in front", LOOK),
        ("token by token", LOOK_ONE_BY_ONE),
        ("by the operator", LOOK_BY_THE_OPERATOR),
    ],
    "10-router": [
        ("token by token", MIXTURE),
        ("all experts, most with share 0", MIXTURE_DENSE),
        ("all shares kept", MIXTURE_ALL_SHARES),
    ],
    "10-plan": [("from the end, remembered", PLAN), ("words in the place of numbers", PLAN_BY_LENGTH)],
    "10-wiring": [
        ("one token, and four", TEST),
        ("every length, every pair of memories", TEST_EVERY_LENGTH),
        ("new rows alone", TEST_TOKENS),
    ],
}
