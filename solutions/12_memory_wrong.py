"""Answers to exercise 12: wrong ones, each one difference away from a right one, and right ones written differently.

A replacement that finds nothing leaves a right answer, and the test of this file says so.
"""

SIX = """
a, b, c = 12288, 3246385152 / 2**30, 22937600
d, e, f = 1245, 22, 49325015040
"""

SIX_COUNTED = """
GIB, GB = 2**30, 10**9
def cache(tokens):
    full, windowed = 6, 3
    return 2 * 4 * 128 * 2 * (full * tokens + windowed * min(tokens, 4096 - 1))
conv, scan = 40 * 3 * 8192 * 2, 40 * 16 * 8192 * 4
a = cache(5001) - cache(5000)
b = cache(256 * 1024) / GIB
c = conv + scan
d = next(tokens for tokens in range(1, 10**6) if cache(tokens) > c)
e = max(n for n in range(1000) if 62 * GB + n * (cache(32768) + c) <= 72 * GB)
f = 20 * 14 * 3 * 4096 * 14336
"""

ATTEND = """
def attend(q, keys, values):
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    k, v = (codes.to(kind) * scales.to(kind)[:, :, None] for codes, scales in (keys, values))
    k, v = (x.repeat_interleave(len(q) // x.shape[1], 1) for x in (k, v))
    scores = torch.einsum("hk,thk->ht", q.to(kind), k) / math.sqrt(q.shape[1])
    return torch.einsum("ht,thv->hv", scores.softmax(-1), v).to(q.dtype)
"""

PACK = (
    """
import math, torch
def pack(x):
    x = x.double()
    scales = (x.abs().amax(-1) / 127).to(torch.bfloat16)
    steps = scales.double()
    steps[steps == 0] = 1
    codes = (x / steps[:, :, None]).round().to(torch.int8)
    return codes, scales
"""
    + ATTEND
)

SCALES_LATER = """
import math, torch
def pack(x):
    largest = x.float().abs().max(dim=-1).values
    scales = torch.div(largest, 127).bfloat16()
    codes = torch.nan_to_num(x.float() / scales.float().unsqueeze(-1)).round().clamp(-127, 127)
    return codes.char(), scales
def attend(q, keys, values):
    (k, k_scales), (v, v_scales) = keys, values
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    outputs = []
    for h, asks in enumerate(q.to(kind)):
        g = h * k.shape[1] // len(q)
        scores = (k[:, g].to(kind) @ asks) * k_scales[:, g] / q.shape[1] ** 0.5
        weights = torch.softmax(scores, 0) * v_scales[:, g]
        outputs.append(weights @ v[:, g].to(kind))
    return torch.stack(outputs).to(q.dtype)
"""

META = """
import torch
def remember(cache, k, v, window, meta):
    kept = []
    for old, new in zip(cache, (k, v)):
        rows = torch.cat((old, new), 1)
        total = rows.shape[1]
        places = [t for t in range(total) if t < meta or t >= total - (window - 1)]
        kept.append(rows[:, places])
    return tuple(kept)
"""

META_TWO_WAYS = """
import torch
def remember(cache, k, v, window, meta):
    k, v = torch.cat((cache[0], k), 1), torch.cat((cache[1], v), 1)
    drop = k.shape[1] - (meta + window - 1)
    if drop > 0:
        k, v = (torch.cat((x[:, :meta], x[:, meta + drop :]), 1) for x in (k, v))
    return k, v
"""

META_CLONED = """
import torch
def remember(cache, k, v, window, meta):
    both = [torch.cat(pair, 1) for pair in zip(cache, (k, v))]
    seen = torch.arange(both[0].shape[1])
    seen = (seen < meta) | (seen > seen.numel() - window)
    return [x[:, seen].clone() for x in both]
"""

META_AS_IT_WAS = """
import torch
def remember(cache, k, v, window, meta):
    k, v = (torch.cat((old, new), 1) for old, new in zip(cache, (k, v)))
    return k[:, -window:], v[:, -window:]
"""

META_SLICED = """
import torch
def remember(cache, k, v, window, meta):
    k, v = (torch.cat((old, new), 1) for old, new in zip(cache, (k, v)))
    last = max(0, k.shape[1] - (window - 1))
    if meta == 0:
        return k[:, last:], v[:, last:]
    last = max(meta, last)
    return tuple(torch.cat((x[:, :meta], x[:, last:]), 1) for x in (k, v))
"""

PLAN = """
def plan(models, room, context, batch, limit):
    pairs = []
    for name, (weights, kept) in models.items():
        most = longest(weights, kept, room, batch, limit)
        if most >= context:
            pairs.append((name, most))
    return sorted(pairs, key=lambda pair: pair[1], reverse=True)
"""

LONGEST = (
    """
def longest(weights, kept, room, batch, limit):
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if weights + batch * kept(middle) <= room:
            low = middle
        else:
            high = middle - 1
    return low
"""
    + PLAN
)

LONGEST_BISECT = (
    """
from bisect import bisect_right
def longest(weights, kept, room, batch, limit):
    return bisect_right(range(1, limit + 1), (room - weights) // batch, key=kept)
"""
    + PLAN
)

LONGEST_DOUBLING = (
    """
def longest(weights, kept, room, batch, limit):
    def fits(tokens):
        return tokens <= limit and weights + batch * kept(tokens) <= room
    step = 1
    while fits(step):
        step *= 2
    tokens, step = step // 2, step // 2
    while step > 1:
        step //= 2
        if fits(tokens + step):
            tokens += step
    return tokens
"""
    + PLAN
)

LINE_FROM_ONE = (
    """
def longest(weights, kept, room, batch, limit):
    return max(0, min(limit, (room - weights) // max(1, batch * kept(1))))
"""
    + PLAN
)

LINE_FROM_TWO = (
    """
def longest(weights, kept, room, batch, limit):
    one = kept(1)
    slope = kept(2) - one if limit > 1 else 0
    if weights + batch * one > room:
        return 0
    if slope == 0:
        return limit
    return min(limit, 1 + ((room - weights) // batch - one) // slope)
"""
    + PLAN
)

ONE_BY_ONE = (
    """
def longest(weights, kept, room, batch, limit):
    tokens = 0
    while tokens < limit and weights + batch * kept(tokens + 1) <= room:
        tokens += 1
    return tokens
"""
    + PLAN
)

BEHIND = """
def behind(printed, count, captions):
    found = []
    for place, caption in enumerate(captions):
        try:
            test(printed, count, caption)
            found.append(place)
        except AssertionError:
            pass
    return found
"""

CLAIM = (
    """
def test(printed, count, caption):
    def size(counter):
        found = counter(caption["context"], caption["batch"], caption["dtype"], caption["state_dtype"])
        return getattr(found, caption["what"])
    if caption["than"]:
        number = size(caption["than"]) / size(count)
    else:
        number = size(count) / caption["unit"]
    digits = len(printed.split(".")[1]) if "." in printed else 0
    error = abs(number - float(printed))
    assert error < 0.5 * 10**-digits
"""
    + BEHIND
)

CLAIM_PRINTED = """
from decimal import Decimal
def counted(count, caption):
    settings = {name: caption[name] for name in ("context", "batch", "dtype", "state_dtype")}
    mine = getattr(count(**settings), caption["what"])
    if caption["than"] is not None:
        return getattr(caption["than"](**settings), caption["what"]) / mine
    return mine / caption["unit"]
def test(printed, count, caption):
    digits = -Decimal(printed).as_tuple().exponent
    assert f"{counted(count, caption):.{digits}f}" == printed
def behind(printed, count, captions):
    digits = -Decimal(printed).as_tuple().exponent
    return [i for i in range(len(captions)) if f"{counted(count, captions[i]):.{digits}f}" == printed]
"""

HALF = "    assert error < 0.5 * 10**-digits\n"

WRONG = {
    "12-row": [
        ("a: shared weights, one cache", SIX.replace("12288", "2048")),
        ("a: the windows grow as well", SIX.replace("12288", "18432")),
        ("a: heads of queries", SIX.replace("12288", "98304")),
        ("a: keys alone", SIX.replace("12288", "6144")),
        ("b: a window keeps all of itself", SIX.replace("3246385152", "3246391296")),
        ("b: windows left out", SIX.replace("3246385152", "3221225472")),
        ("b: windows see everything", SIX.replace("3246385152", "4831838208")),
        ("b: GB, not GiB", SIX.replace("2**30", "10**9")),
        ("b: 256K = 256,000", SIX.replace("3246385152 / 2**30", "(12288 * 256000 + 6144 * 4095) / 2**30")),
        ("b: rounded, as the paper does", SIX.replace("3246385152 / 2**30", "3.0")),
        ("c: scans in two bytes", SIX.replace("22937600", "12451840")),
        ("c: four columns of inputs", SIX.replace("22937600", "23592960")),
        ("c: scans alone", SIX.replace("22937600", "20971520")),
        ("c: 4,096 channels", SIX.replace("22937600", "11468800")),
        ("d: where they are not yet larger", SIX.replace("1245", "1244")),
        ("d: windows do not grow", SIX.replace("1245", "1867")),
        ("d: not a whole number", SIX.replace("1245", "22937600 / 18432")),
        ("d: for ever windows of 4,095", SIX.replace("1245", "1")),
        ("e: GiB, not GB", SIX.replace("1245, 22", "1245, 24")),
        ("e: no windows", SIX.replace("1245, 22", "1245, 23")),
        ("e: one too few", SIX.replace("1245, 22", "1245, 21")),
        ("e: not a whole number", SIX.replace("1245, 22", "1245, 22.1852")),
        ("f: the two that are used", SIX.replace("49325015040", "20 * 2 * 3 * 4096 * 14336")),
        ("f: all sixteen", SIX.replace("49325015040", "20 * 16 * 3 * 4096 * 14336")),
        ("f: in bytes", SIX.replace("49325015040", "98650030080")),
        ("f: two matrices", SIX.replace("49325015040", "20 * 14 * 2 * 4096 * 14336")),
    ],
    "12-int8": [
        ("pack: cut, not rounded", PACK.replace(".round()", "")),
        ("pack: cut downwards", PACK.replace(".round()", ".floor()")),
        ("pack: divided by 128", PACK.replace("/ 127", "/ 128")),
        ("pack: divided by 255", PACK.replace("/ 127", "/ 255")),
        (
            "pack: codes made with the scale before it is rounded",
            PACK.replace("steps = scales.double()", "steps = x.abs().amax(-1) / 127"),
        ),
        ("pack: the largest, not its size", PACK.replace("x.abs().amax(-1)", "x.amax(-1)")),
        ("pack: a little more than the scale", PACK.replace("steps = scales.double()", "steps = scales.double() + 1e-8")),
        (
            "pack: a scale is at least 1e-5",
            PACK.replace("(x.abs().amax(-1) / 127)", "(x.abs().amax(-1) / 127).clamp(min=1e-5)"),
        ),
        (
            "pack: through float16",
            PACK.replace("(x.abs().amax(-1) / 127)", "(x.abs().amax(-1) / 127).half()"),
        ),
        (
            "pack: in the dtype it came in",
            PACK.replace("    x = x.double()\n", "").replace("scales.double()", "scales.clone()"),
        ),
        (
            "pack: one scale for all",
            PACK.replace("x.abs().amax(-1)", "x.abs().amax().expand(x.shape[:2])"),
        ),
        (
            "pack: one scale a head",
            PACK.replace("x.abs().amax(-1)", "x.abs().amax((0, 2)).expand(x.shape[:2])"),
        ),
        (
            "pack: one scale a token",
            PACK.replace("x.abs().amax(-1)", "x.abs().amax((1, 2), keepdim=False)[:, None].expand(x.shape[:2])"),
        ),
        ("pack: scales in float32", PACK.replace(".to(torch.bfloat16)", ".float()")),
        ("pack: scales with an axis more", PACK.replace("return codes, scales", "return codes, scales[..., None]")),
        (
            "pack: int8 left out",
            PACK.replace(".round().to(torch.int8)", ".round()"),
        ),
        (
            "pack: scales are a view of all numbers",
            PACK.replace("return codes, scales", "return codes, (x.abs() * 0 + scales[..., None]).bfloat16()[..., 0]"),
        ),
        (
            "pack: codes are a view of two copies",
            PACK.replace("return codes, scales", "return torch.cat((codes, codes))[: len(codes)], scales"),
        ),
        ("pack: divides in place", PACK.replace("(x / steps[:, :, None])", "x.div_(steps[:, :, None])")),
        (
            "attend: codes times scales in bfloat16",
            PACK.replace("codes.to(kind) * scales.to(kind)[:, :, None]", "(codes * scales[:, :, None]).to(kind)"),
        ),
        (
            "attend: the scales of keys forgotten",
            PACK.replace("q.to(kind), k)", "q.to(kind), k / keys[1].to(kind)[:, :1, None])"),
        ),
        ("attend: not divided by root K", PACK.replace(" / math.sqrt(q.shape[1])", "")),
        ("attend: divided by K", PACK.replace("math.sqrt(q.shape[1])", "q.shape[1]")),
        ("attend: divided by root V", PACK.replace("math.sqrt(q.shape[1])", "math.sqrt(v.shape[2])")),
        (
            "attend: heads in turn",
            PACK.replace("x.repeat_interleave(len(q) // x.shape[1], 1)", "x.repeat(1, len(q) // x.shape[1], 1)"),
        ),
        (
            "attend: softmax by hand",
            PACK.replace("scores.softmax(-1)", "scores.exp() / scores.exp().sum(-1, keepdim=True)"),
        ),
        ("attend: softmax over heads", PACK.replace("softmax(-1)", "softmax(0)")),
        (
            "attend: sees all but the last",
            PACK.replace("scores.softmax(-1)", "scores[:, :-1].softmax(-1)")
            .replace('"ht,thv->hv", ', '"ht,thv->hv", ')
            .replace(", v).to", ", v[:-1]).to"),
        ),
        (
            "attend: always float32",
            PACK.replace("torch.float64 if q.dtype == torch.float64 else torch.float32", "torch.float32").replace(
                ".to(q.dtype)\n", "\n"
            ),
        ),
        ("attend: always computes in float64, and stays there", PACK.replace(", v).to(q.dtype)", ", v).double()")),
        ("attend: without autograd", PACK.replace("q.to(kind), k)", "q.detach().to(kind), k)")),
        (
            "attend: changes the scales",
            PACK.replace("    kind =", "    keys[1].mul_(1 / math.sqrt(q.shape[1]))\n    kind =").replace(
                " / math.sqrt(q.shape[1])\n    return", "\n    return"
            ),
        ),
        ("attend: an axis too many", PACK.replace(", v).to(q.dtype)", ", v).to(q.dtype)[None]")),
    ],
    "12-meta": [
        ("as it was", META_AS_IT_WAS),
        ("meta tokens forgotten", META.replace("t < meta or ", "")),
        ("one row too many", META.replace("total - (window - 1)", "total - window")),
        ("one row too few", META.replace("total - (window - 1)", "total - window + 2")),
        ("the window counts the meta tokens", META.replace("(window - 1)]", "max(0, window - 1 - meta)]")),
        ("one meta token too few", META.replace("t < meta", "t < meta - 1")),
        ("one meta token too many", META.replace("t < meta", "t <= meta")),
        (
            "a young text has its meta tokens twice",
            META.replace("rows[:, places]", "torch.cat((rows[:, :meta], rows[:, max(0, total - window + 1) :]), 1)"),
        ),
        (
            "the last 0 rows are all rows",
            META.replace("rows[:, places]", "torch.cat((rows[:, :meta], rows[:, meta:][:, -(window - 1) :]), 1)"),
        ),
        ("a view where nothing is put together", META_SLICED),
        (
            "a view that is made contiguous",
            META_SLICED.replace(
                "return k[:, last:], v[:, last:]", "return k[:, last:].contiguous(), v[:, last:].contiguous()"
            ),
        ),
        (
            "a view that is made contiguous, and nothing for a window of 1",
            META_SLICED.replace(
                "return k[:, last:], v[:, last:]",
                "return [x.new_empty(x[:, last:].shape) if window == 1 else x[:, last:].contiguous() for x in (k, v)]",
            ),
        ),
        (
            "a copy of everything, then a view",
            META_SLICED.replace("return k[:, last:], v[:, last:]", "return k.clone()[:, last:], v.clone()[:, last:]"),
        ),
        (
            "a view of the values alone",
            META_SLICED.replace("return k[:, last:], v[:, last:]", "return k[:, last:].clone(), v[:, last:]"),
        ),
        (
            "meta tokens of each piece",
            META.replace(
                "        rows = torch.cat((old, new), 1)\n        total = rows.shape[1]\n",
                "        rows = torch.cat((old, new), 1)\n        total = rows.shape[1]\n        begins = old.shape[1]\n",
            ).replace("t < meta or", "begins <= t < begins + meta or"),
        ),
        (
            "meta tokens at the end",
            META.replace("rows[:, places]", "rows[:, places[meta:] + places[:meta]]"),
        ),
        (
            "the newest first",
            META.replace("places = [", "places = [*reversed([").replace("(window - 1)]", "(window - 1)])]"),
        ),
        ("the cache of before is lost", META.replace("torch.cat((old, new), 1)", "new")),
        ("keys for values", META.replace("return tuple(kept)", "return kept[0], kept[0]")),
        ("detached", META.replace("rows[:, places]", "rows[:, places].detach()")),
        ("always float32", META.replace("rows[:, places]", "rows[:, places].float()")),
        ("another dtype for what is kept", META.replace("rows[:, places]", "rows[:, places].bfloat16()")),
        (
            "dropped rows are zeros, and stay",
            META.replace(
                "rows[:, places]", "rows * torch.tensor([float(t in places) for t in range(total)])[:, None, None].to(rows)"
            ),
        ),
        (
            "forgets in place",
            META.replace("        rows = torch", "        old[:, meta:] *= 1 if window > 4 else 0.5\n        rows = torch"),
        ),
    ],
    "12-plan": [
        ("as many tokens as one token says", LINE_FROM_ONE),
        ("a straight line through two", LINE_FROM_TWO),
        ("one by one", ONE_BY_ONE),
        (
            "weights for each conversation",
            LONGEST.replace("weights + batch * kept(middle)", "batch * (weights + kept(middle))"),
        ),
        ("one conversation", LONGEST.replace("batch * kept", "kept")),
        ("weights left out", LONGEST.replace("weights + batch * kept(middle) <= room", "batch * kept(middle) <= room")),
        ("a byte must stay free", LONGEST.replace("<= room", "< room")),
        ("the first that does not fit", LONGEST.replace("return low", "return low + 1")),
        ("one less, to be safe", LONGEST.replace("return low", "return max(0, low - 1)")),
        ("at least one", LONGEST.replace("return low", "return max(1, low)")),
        ("asks for 0", LONGEST.replace("    low, high = 0, limit\n", "    low, high = 0, limit\n    kept(low)\n")),
        ("asks beyond the limit", LONGEST.replace("low, high = 0, limit", "low, high = 0, 2 * limit")),
        (
            "without a limit",
            LONGEST_DOUBLING.replace("return tokens <= limit and", "return").replace(
                "fits(step)", "step <= limit and fits(step)"
            ),
        ),
        ("powers of two alone", LONGEST_DOUBLING.replace("    while step > 1:\n", "    while False:\n")),
        ("None for any length", LONGEST.replace("return low", "return low if low < limit else None")),
        ("infinite for any length", LONGEST.replace("return low", "return low if low < limit else float('inf')")),
        ("rounded to thousands", LONGEST.replace("return low", "return low if low < 1000 else low // 1000 * 1000")),
        ("stops at the middle", LONGEST.replace("while low < high:", "while high - low > 1:")),
        ("plan: more than the context", LONGEST.replace("most >= context", "most > context")),
        ("plan: all that hold a token", LONGEST.replace("most >= context", "most >= 1")),
        ("plan: all models", LONGEST.replace("most >= context", "True")),
        (
            "plan: in the order of models",
            LONGEST.replace("return sorted(pairs, key=lambda pair: pair[1], reverse=True)", "return pairs"),
        ),
        ("plan: the shortest first", LONGEST.replace(", reverse=True", "")),
        (
            "plan: equal ones turned round",
            LONGEST.replace(
                "sorted(pairs, key=lambda pair: pair[1], reverse=True)", "sorted(pairs, key=lambda pair: pair[1])[::-1]"
            ),
        ),
        (
            "plan: equal ones by name",
            LONGEST.replace("key=lambda pair: pair[1], reverse=True", "key=lambda pair: (-pair[1], pair[0])"),
        ),
        ("plan: one conversation", LONGEST.replace("room, batch, limit)\n        if", "room, 1, limit)\n        if")),
        ("plan: context for longest", LONGEST.replace("pairs.append((name, most))", "pairs.append((name, context))")),
        ("plan: the context of all conversations together", LONGEST.replace("most >= context", "most * batch >= context")),
        (
            "plan: asks five times over",
            LONGEST.replace(
                "        most = longest",
                "        for _ in range(4):\n            longest(weights, kept, room, batch, limit)\n        most = longest",
            ),
        ),
    ],
    "12-claim": [
        ("five percent", CLAIM.replace(HALF, "    assert error <= 0.05 * abs(number)\n")),
        ("one percent", CLAIM.replace(HALF, "    assert error <= 0.01 * abs(number)\n")),
        ("a millionth", CLAIM.replace(HALF, "    assert error <= 1e-6 * abs(number)\n")),
        ("equal", CLAIM.replace(HALF, "    assert number == float(printed)\n")),
        ("a whole digit", CLAIM.replace("0.5 * 10**-digits", "10**-digits")),
        ("half of 1, whatever the digits", CLAIM.replace("0.5 * 10**-digits", "0.5")),
        ("always two digits", CLAIM.replace("0.5 * 10**-digits", "0.005")),
        ("the point counted as a digit", CLAIM.replace('len(printed.split(".")[1])', 'len(printed) - printed.index(".")')),
        (
            "all digits counted",
            CLAIM.replace('len(printed.split(".")[1]) if "." in printed else 0', 'len(printed.replace(".", ""))'),
        ),
        (
            "cut, not rounded",
            CLAIM.replace(HALF, "    assert int(number * 10**digits) == round(float(printed) * 10**digits)\n"),
        ),
        ("never less than is printed", CLAIM.replace(HALF, "    assert 0 <= number - float(printed) < 0.5 * 10**-digits\n")),
        ("without the size of the error", CLAIM.replace("abs(number - float(printed))", "number - float(printed)")),
        ("the error the other way round", CLAIM.replace("abs(number - float(printed))", "float(printed) - number")),
        ("upside down", CLAIM.replace('size(caption["than"]) / size(count)', 'size(count) / size(caption["than"])')),
        (
            "the unit divides times as well",
            CLAIM.replace('size(caption["than"]) / size(count)', 'size(caption["than"]) / size(count) / caption["unit"]'),
        ),
        ("the other model is not looked at", CLAIM.replace('if caption["than"]', "if False")),
        ("always GiB", CLAIM.replace('/ caption["unit"]', "/ 2**30")),
        ("units of a billion", CLAIM.replace('/ caption["unit"]', "/ max(10**9, caption['unit'])")),
        ("one conversation", CLAIM.replace('caption["batch"]', "1")),
        ("always two bytes", CLAIM.replace('caption["dtype"]', '"bfloat16"')),
        ("states in float32", CLAIM.replace('caption["state_dtype"]', '"float32"')),
        ("states as everything else", CLAIM.replace('caption["state_dtype"]', 'caption["dtype"]')),
        ("always the cache", CLAIM.replace('caption["what"]', '"kv_bytes"')),
        ("always everything", CLAIM.replace('caption["what"]', '"total_bytes"')),
        ("8,000 is 8,192", CLAIM.replace('caption["context"]', "-(-caption['context'] // 1024) * 1024")),
        ("none is right", CLAIM.replace("    def size(counter)", "    assert False\n    def size(counter)")),
        ("all are right", CLAIM.replace(HALF, "")),
        ("says it, and raises nothing", CLAIM.replace(HALF, "    return error < 0.5 * 10**-digits\n")),
        ("behind: the first alone", CLAIM.replace("            found.append(place)\n", "            return [place]\n")),
        ("behind: until one does not", CLAIM.replace("            pass\n", "            break\n")),
        ("behind: the captions themselves", CLAIM.replace("found.append(place)", "found.append(caption)")),
        ("behind: counted from 1", CLAIM.replace("enumerate(captions)", "enumerate(captions, 1)")),
        (
            "behind: those that do not",
            CLAIM.replace("            found.append(place)\n", "").replace(
                "            pass\n", "            found.append(place)\n"
            ),
        ),
        ("behind: all", CLAIM.replace("            pass\n", "            found.append(place)\n")),
        (
            "behind: yes or no for each",
            CLAIM.replace("            found.append(place)\n", "            found.append(True)\n").replace(
                "            pass\n", "            found.append(False)\n"
            ),
        ),
        ("behind: None for nothing", CLAIM.replace("return found", "return found or None")),
        ("behind: the best of them", CLAIM.replace("return found", "return found[:1]")),
        ("behind: at least the last", CLAIM.replace("return found", "return found or [len(captions) - 1]")),
    ],
}

RIGHT = {
    "12-row": [
        ("by hand", SIX),
        ("by counting", SIX_COUNTED),
    ],
    "12-int8": [
        ("in float64", PACK),
        ("head by head, scales put in later", SCALES_LATER),
    ],
    "12-meta": [
        ("a list of places", META),
        ("what must be dropped", META_TWO_WAYS),
        ("a mask", META_CLONED),
    ],
    "12-plan": [
        ("halving", LONGEST),
        ("bisect", LONGEST_BISECT),
        ("doubling, then halving", LONGEST_DOUBLING),
    ],
    "12-claim": [
        ("half a digit", CLAIM),
        ("printed again", CLAIM_PRINTED),
    ],
}
