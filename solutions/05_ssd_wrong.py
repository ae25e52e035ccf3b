"""Answers to exercise 05: wrong ones, each one difference away from a right one, and right ones written differently.

A replacement that finds nothing leaves a right answer, and the test of this file says so.
"""

SIX = """
a, b, c = 0.125, 0.3 + 0.8, 0.5 * (0.3 + 0.8) / 8
d, e, f = 0.5 * 0.9**4, 3, 2**-2.5
"""

FADING = """
import torch
def fading(q, k, v, log_decay=None, state=None):
    T, H, V = v.shape
    share = H // q.shape[1]
    q, k = q.repeat_interleave(share, 1), k.repeat_interleave(share, 1)
    l = torch.zeros(T, H, dtype=v.dtype) if log_decay is None else log_decay.expand(T, H)
    S = torch.zeros(H, V, k.shape[2], dtype=v.dtype) if state is None else state
    outputs = []
    for t in range(T):
        S = torch.exp(l[t])[:, None, None] * S + v[t][:, :, None] * k[t][:, None, :]
        outputs.append(torch.einsum("hvk,hk->hv", S, q[t]))
    return torch.stack(outputs), S
"""

FADING_MATRIX = """
import torch
def fading(q, k, v, log_decay=None, state=None):
    (T, H, V), G = v.shape, q.shape[1]
    q, k = (z[:, torch.arange(H) // (H // G)].transpose(0, 1) for z in (q, k))
    l = (v.new_zeros(T, H) if log_decay is None else log_decay.expand(T, H)).T
    steps = l[:, :, None].expand(H, T, T).masked_fill(~torch.ones(T, T).bool().tril(-1), 0)
    sums = steps.cumsum(1).masked_fill(~torch.ones(T, T).bool().tril(), float("-inf"))
    v = v.transpose(0, 1)
    outputs = (q @ k.mT * torch.exp(sums)) @ v
    S = (torch.exp(sums[:, -1])[:, :, None] * v).mT @ k
    if state is not None:
        since = torch.exp(l.cumsum(1))[:, :, None]
        outputs, S = outputs + since * (q @ state.mT), S + since[:, -1:] * state
    return outputs.transpose(0, 1), S
"""

FADING_CHUNKS = """
import torch
def fading(q, k, v, log_decay=None, state=None):
    T, H, V = v.shape
    q, k = (z.repeat_interleave(H // z.shape[1], 1).transpose(0, 1) for z in (q, k))
    log_decay = (v.new_zeros(T, H) if log_decay is None else log_decay.expand(T, H)).T
    v, outputs = v.transpose(0, 1), []
    S = v.new_zeros(H, V, k.shape[2]) if state is None else state
    for q_n, k_n, v_n, l_n in zip(q.split(64, 1), k.split(64, 1), v.split(64, 1), log_decay.split(64, 1)):
        pairs = torch.ones(l_n.shape[1], l_n.shape[1]).bool()
        sums = l_n[:, :, None].expand(-1, -1, len(pairs)).masked_fill(~pairs.tril(-1), 0).cumsum(1)
        decays = torch.exp(sums.masked_fill(~pairs.tril(), float("-inf")))
        outputs.append((q_n @ k_n.mT * decays) @ v_n + torch.exp(l_n.cumsum(1))[:, :, None] * (q_n @ S.mT))
        left = (decays[:, -1][:, :, None] * v_n).mT @ k_n
        S = torch.exp(l_n.sum(1))[:, None, None] * S + left
    return torch.cat(outputs, 1).transpose(0, 1), S
"""

FADING_BY_THE_OPERATOR = """
from hybridlab.ops.ssd import fading_attention
def fading(q, k, v, log_decay=None, state=None):
    l = v.new_zeros(v.shape[:2]) if log_decay is None else log_decay.expand(v.shape[:2])
    S = v.new_zeros(v.shape[1], k.shape[2], v.shape[2]) if state is None else state.mT
    outputs, S = fading_attention(q[None], k[None], v[None], l[None], S[None])
    return outputs[0], S[0].mT
"""

FADING_ATTENTION = """
import torch
def fading(q, k, v, log_decay=None, state=None):
    T, H, V = v.shape
    q, k = (z.repeat_interleave(H // z.shape[1], 1).transpose(0, 1) for z in (q, k))
    l = (v.new_zeros(T, H) if log_decay is None else log_decay.expand(T, H)).T
    since, v = l.cumsum(1), v.transpose(0, 1)
    ahead = ~torch.ones(T, T).bool().tril()
    decays = torch.exp((since[:, :, None] - since[:, None, :]).masked_fill(ahead, float("-inf")))
    outputs = (q @ k.mT * decays) @ v
    S = (decays[:, -1][:, :, None] * v).mT @ k
    if state is not None:
        outputs = outputs + torch.exp(since)[:, :, None] * (q @ state.mT)
        S = S + torch.exp(since[:, -1])[:, None, None] * state
    return outputs.transpose(0, 1), S
"""

FADING_FACTORS = FADING_ATTENTION.replace(
    'torch.exp((since[:, :, None] - since[:, None, :]).masked_fill(ahead, float("-inf")))',
    "(torch.exp(since)[:, :, None] * torch.exp(-since)[:, None, :]).masked_fill(ahead, 0)",
)

BLOCKS = """
import torch
def blocks(u, log_decay, B, C):
    since = log_decay.cumsum(-1)
    earlier = torch.ones(log_decay.shape[-1], log_decay.shape[-1], dtype=torch.bool).tril()
    differences = since[..., :, None] - since[..., None, :]
    decays = torch.exp(torch.where(earlier, differences, float("-inf")))
    return (C @ B.mT * decays) @ u
"""

BLOCKS_SEGMENTS = """
import torch
def blocks(u, log_decay, B, C):
    pairs = torch.ones(log_decay.shape[-1], log_decay.shape[-1], dtype=torch.bool)
    steps = log_decay[..., None].expand(*log_decay.shape, log_decay.shape[-1]).masked_fill(~pairs.tril(-1), 0)
    sums = steps.cumsum(-2).masked_fill(~pairs.tril(), float("-inf"))
    return (C @ B.mT * torch.exp(sums)) @ u
"""

BLOCKS_CLAMPED = """
import torch
def blocks(u, log_decay, B, C):
    since = log_decay.cumsum(-1)
    differences = since[..., :, None] - since[..., None, :]
    return (C @ B.mT * torch.exp(differences.clamp(max=0))).tril() @ u
"""

BLOCKS_TWICE_MASKED = """
import torch
def blocks(u, log_decay, B, C):
    since = log_decay.cumsum(-1)
    differences = since[..., :, None] - since[..., None, :]
    return (C @ B.mT * torch.exp(differences.tril()).tril()) @ u
"""

BLOCKS_LOOP = """
import torch
def blocks(u, log_decay, B, C):
    outputs = []
    S = torch.zeros(*u.shape[:-2], u.shape[-1], B.shape[-1], dtype=u.dtype)
    for t in range(u.shape[-2]):
        S = torch.exp(log_decay[..., t, None, None]) * S + u[..., t, :, None] * B[..., t, None, :]
        outputs.append((S @ C[..., t, :, None])[..., 0])
    return torch.stack(outputs, -2)
"""

TOO_LATE = """
import torch
def blocks(u, log_decay, B, C):
    since = log_decay.cumsum(-1)
    decays = torch.exp(since[..., :, None] - since[..., None, :])
    earlier = torch.ones(decays.shape[-2:], dtype=torch.bool).tril()
    return (C @ B.mT * torch.where(earlier, decays, 0.0)) @ u
"""

CHEAPEST = """
import math
def cost(T, N, P, chunk, matrix=1):
    chunks = -(-T // chunk)
    blocks = chunk**2 * N + chunk**2 * P
    states, readings = P * chunk * N, chunk * N * P
    inside = blocks + states + readings
    alone = chunk**2 + chunk * P + P * N + chunk * P
    return chunks * (matrix * inside + alone)
def optimum(N, P, matrix=1):
    return math.sqrt(N * P / (matrix * (N + P) + 1))
"""

CHEAPEST_SEARCHED = """
def cost(T, N, P, chunk, matrix=1):
    full, rest = divmod(T, chunk)
    one = matrix * (chunk * N * chunk + chunk * chunk * P) + chunk * chunk
    one += P * chunk + matrix * P * chunk * N
    one += P * N
    one += matrix * chunk * N * P + chunk * P
    return (full + (rest > 0)) * one
def optimum(N, P, matrix=1):
    low, high = 1e-3, 1e6
    def each(chunk):
        return chunk * (matrix * (N + P) + 1) + N * P / chunk
    for _ in range(300):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if each(a) < each(b) else (a, high)
    return (low + high) / 2
"""

TEST = """
import torch
def test(mixing):
    for T, N in ((12, 2), (20, 3)):
        M = mixing(T, N)
        assert (M.triu(1) == 0).all()
        for t in range(1, T):
            sizes = torch.linalg.svdvals(M[t:, :t])
            assert (sizes[N:] <= 1e-8 * sizes[0]).all()
"""

TEST_LARGE = """
import torch
def test(mixing):
    M = mixing(40, 5)
    assert torch.equal(M, M.tril())
    ranks = [int(torch.linalg.matrix_rank(M[t:, :t], atol=1e-7)) for t in range(1, 40)]
    assert max(ranks) <= 5
"""

TEST_MINORS_OF_TWO = """
import torch
def test(mixing):
    for T in (6, 7, 9):
        M = mixing(T, 1)
        assert M.triu(1).abs().max() < 1e-9
        for t in range(1, T):
            block = M[t:, :t]
            twos = block[:, None, :, None] * block[None, :, None, :]
            assert (twos - twos.transpose(2, 3)).abs().max() < 1e-8
"""

TEST_MINORS_OF_THREE = """
import torch
def test(mixing):
    M = mixing(10, 2)
    assert M.triu(1).abs().max() < 1e-9
    for t in range(3, 8):
        three = torch.combinations(torch.arange(t), 3)
        rows = torch.combinations(torch.arange(t, 10), 3)
        minors = torch.linalg.det(M[rows[:, None, :, None], three[None, :, None, :]])
        assert minors.abs().max() < 1e-9
"""

WRONG = {
    "05-entry": [
        ("a: its own step fades it too", SIX.replace("a, b, c = 0.125", "a, b, c = 0.0625")),
        ("a: Ann in Bob's place", SIX.replace("a, b, c = 0.125", "a, b, c = 0.5 * 0.5**4")),
        ("b: faded once", SIX.replace("0.125, 0.3 + 0.8", "0.125, (0.3 + 0.8) / 2")),
        ("b: Bob alone", SIX.replace("0.125, 0.3 + 0.8", "0.125, 0.8")),
        ("c: written without its dt", SIX.replace("0.5 * (0.3 + 0.8) / 8", "(0.3 + 0.8) / 8")),
        ("c: one step between neighbours, however long", SIX.replace("0.5 * (0.3 + 0.8) / 8", "0.5 * (0.3 + 0.8) / 2")),
        ("c: Dee's own step counted", SIX.replace("0.5 * (0.3 + 0.8) / 8", "0.5 * (0.3 + 0.8) * 2**-3.5")),
        ("d: faded five times", SIX.replace("0.9**4", "0.9**5")),
        ("d: as loud for Ann as for Bob", SIX.replace("0.5 * 0.9**4", "0.9**4")),
        ("e: the step of Bob counted", SIX.replace("0.9**4, 3", "0.9**4, 2")),
        ("e: all of the other steps counted", SIX.replace("0.9**4, 3", "0.9**4, 1")),
        ("f: passed twice", SIX.replace("2**-2.5", "2**-6.5")),
        ("f: the way from 1 to 6", SIX.replace("2**-2.5", "2**-7.5")),
        ("f: a token counts as a step", SIX.replace("2**-2.5", "2**-2")),
        ("a word", SIX.replace("0.5 * 0.9**4, 3", '0.5 * 0.9**4, "three"')),
        ("nothing is left", SIX.replace("2**-2.5", "0")),
    ],
    "05-fading": [
        ("groups tiled", FADING.replace("repeat_interleave(share, 1)", "repeat(1, share, 1)")),
        ("queries alone tiled", FADING.replace("q.repeat_interleave(share, 1)", "q.repeat(1, share, 1)")),
        (
            "the step fades what it writes",
            FADING.replace("* S + v[t][:, :, None] * k[t]", "* (S + v[t][:, :, None] * k[t]").replace(
                "None, :]\n", "None, :])\n", 1
            ),
        ),
        (
            "reads before it writes",
            FADING.replace("outputs.append", "pass\n        outputs.append").replace(
                "S, q[t]", "S - v[t][:, :, None] * k[t][:, None, :], q[t]"
            ),
        ),
        (
            "no decay taken for complete decay",
            FADING.replace("torch.zeros(T, H, dtype=v.dtype) if", "torch.full((T, H), -1e9, dtype=v.dtype) if"),
        ),
        (
            "a decay of 1 taken for a log decay of 1",
            FADING.replace("torch.zeros(T, H, dtype=v.dtype) if", "torch.ones(T, H, dtype=v.dtype) if"),
        ),
        ("decays taken for log decays", FADING.replace("torch.exp(l[t])[", "(l[t])[")),
        (
            "(H,) taken for (T,) where it can be",
            FADING.replace(
                "log_decay.expand(T, H)", "(log_decay[:, None] if log_decay.shape == (T,) else log_decay).expand(T, H)"
            ),
        ),
        (
            "one clock for all heads",
            FADING.replace("log_decay.expand(T, H)", "log_decay.expand(T, H).mean(1, keepdim=True).expand(T, H)"),
        ),
        (
            "the first head's clock for all tokens",
            FADING.replace("log_decay.expand(T, H)", "log_decay.expand(T, H)[:1].expand(T, H)"),
        ),
        (
            "the state forgotten",
            FADING.replace(
                "S = torch.zeros(H, V, k.shape[2], dtype=v.dtype) if state is None else state",
                "S = torch.zeros(H, V, k.shape[2], dtype=v.dtype)",
            ),
        ),
        (
            "a state that only log decays let in",
            FADING.replace("if state is None else state", "if state is None or log_decay is None else state"),
        ),
        ("the state is not faded by the first token", FADING.replace("(l[t])", "(l[t] * (t > 0))")),
        ("the state on its side", FADING.replace("torch.stack(outputs), S", "torch.stack(outputs), S.mT")),
        (
            "the state before the last token",
            FADING.replace("outputs = []\n", "outputs, before = [], S\n")
            .replace("        S = torch.exp", "        before = S\n        S = torch.exp")
            .replace("torch.stack(outputs), S", "torch.stack(outputs), before"),
        ),
        (
            "the state changed in place",
            FADING.replace(
                "S = torch.exp(l[t])[:, None, None] * S + v[t]", "S *= torch.exp(l[t])[:, None, None]\n        S += v[t]"
            ),
        ),
        (
            "the state is detached",
            FADING.replace("        outputs.append", "        S = S.detach() if t == 2 else S\n        outputs.append"),
        ),
        ("chunks that hand on what they left alone", FADING_CHUNKS.replace("* S + left", "* 0 * S + left")),
        ("chunks whose state does not fade", FADING_CHUNKS.replace("torch.exp(l_n.sum(1))[:, None, None] * S", "S")),
        ("chunks that begin empty", FADING_CHUNKS.replace("(q_n @ S.mT)", "(q_n @ S.mT) * (len(outputs) == 0)")),
        ("scaled as in attention", FADING.replace("S, q[t]", "S, q[t] / q.shape[2] ** 0.5")),
        ("an average, not a sum", FADING.replace("S, q[t]))", "S, q[t]) / (t + 1))")),
        (
            "always float64",
            FADING.replace(
                "    T, H, V = v.shape", "    q, k, v = q.double(), k.double(), v.double()\n    T, H, V = v.shape"
            ),
        ),
        ("decays as factors", FADING_FACTORS),
        ("differences of running sums", FADING_ATTENTION),
        ("the mask is missing", FADING_ATTENTION.replace('.masked_fill(ahead, float("-inf"))', ".clamp(max=0)")),
        (
            "a token does not see itself",
            FADING_MATRIX.replace("torch.ones(T, T).bool().tril(), float", "torch.ones(T, T).bool().tril(-1), float"),
        ),
        (
            "every segment begins a step early",
            FADING_MATRIX.replace("torch.ones(T, T).bool().tril(-1), 0", "torch.ones(T, T).bool().tril(), 0"),
        ),
        (
            "the empty state alone",
            FADING_MATRIX.replace(
                "outputs, S = outputs + since * (q @ state.mT), S + since[:, -1:] * state",
                "outputs = outputs + since * (q @ state.mT)",
            ),
        ),
    ],
    "05-late": [
        ("as it was", TOO_LATE),
        (
            "nan removed from the result",
            TOO_LATE.replace("torch.where(earlier, decays, 0.0)", "torch.where(earlier, decays, 0.0).nan_to_num()"),
        ),
        (
            "infinities made large",
            TOO_LATE.replace("torch.where(earlier, decays, 0.0)", "torch.where(earlier, decays.nan_to_num(), 0.0)"),
        ),
        ("tril in place of where", TOO_LATE.replace("torch.where(earlier, decays, 0.0)", "decays.tril()")),
        (
            "in float64",
            TOO_LATE.replace("log_decay.cumsum(-1)", "log_decay.double().cumsum(-1)").replace(
                "0.0)) @ u", "0.0).to(u.dtype)) @ u"
            ),
        ),
        ("the clock is detached", TOO_LATE.replace("log_decay.cumsum(-1)", "log_decay.detach().cumsum(-1)")),
        (
            "gradients that are nan taken out",
            TOO_LATE.replace(
                "    decays",
                "    if log_decay.requires_grad:\n        log_decay.register_hook(torch.nan_to_num)\n    decays",
                1,
            ),
        ),
        ("minus ten is not minus infinity", BLOCKS.replace('float("-inf")', "-10.0")),
        ("0 before the exponential, and no mask behind it", BLOCKS.replace('float("-inf")', "0.0")),
        ("a token does not see itself", BLOCKS.replace(".tril()", ".tril(-1)")),
        ("the mask upside down", BLOCKS.replace(".tril()", ".triu()")),
        ("the size of the difference", BLOCKS_CLAMPED.replace("differences.clamp(max=0)", "-differences.abs()")),
        (
            "the smaller of the two",
            BLOCKS_CLAMPED.replace("differences.clamp(max=0)", "torch.minimum(differences, torch.zeros_like(differences))"),
        ),
        ("relu", BLOCKS_CLAMPED.replace("differences.clamp(max=0)", "-torch.relu(-differences)")),
        ("the sum over the wrong dimension", BLOCKS.replace("log_decay.cumsum(-1)", "log_decay.cumsum(0)")),
        ("a single chunk", BLOCKS.replace("B.mT", "B.transpose(0, 1)")),
        ("a sum that begins a step late", BLOCKS.replace("log_decay.cumsum(-1)", "log_decay.cumsum(-1) - log_decay")),
        (
            "decays as factors",
            BLOCKS.replace(
                'torch.exp(torch.where(earlier, differences, float("-inf")))',
                "torch.where(earlier, torch.exp(since)[..., :, None] * torch.exp(-since)[..., None, :], 0.0)",
            ),
        ),
        ("steps that are not too steep", BLOCKS.replace("log_decay.cumsum(-1)", "log_decay.clamp(min=-5).cumsum(-1)")),
        ("the first step removed in place", BLOCKS.replace("    since", "    log_decay.detach()[..., 0] = 0\n    since", 1)),
        (
            "always float32",
            BLOCKS.replace(
                "    since", "    u, log_decay, B, C = u.float(), log_decay.float(), B.float(), C.float()\n    since", 1
            ),
        ),
        (
            "always float64",
            BLOCKS.replace(
                "    since", "    u, log_decay, B, C = u.double(), log_decay.double(), B.double(), C.double()\n    since", 1
            ),
        ),
    ],
    "05-cheapest": [
        (
            "pairs below the diagonal alone",
            CHEAPEST.replace("chunk**2 * N + chunk**2 * P", "chunk * (chunk + 1) // 2 * (N + P)"),
        ),
        ("no multiplication by the mask", CHEAPEST.replace("chunk**2 + chunk * P", "chunk * P")),
        (
            "the mask counted as a matrix product",
            CHEAPEST.replace("matrix * inside + alone", "matrix * (inside + chunk**2) + alone - chunk**2"),
        ),
        ("no fading before writing", CHEAPEST.replace("P * N + chunk * P", "P * N")),
        ("no passing", CHEAPEST.replace("+ P * N +", "+")),
        ("a passing for each token", CHEAPEST.replace("+ P * N +", "+ chunk * P * N +")),
        ("the last chunk left out", CHEAPEST.replace("-(-T // chunk)", "T // chunk")),
        ("the last chunk not filled up", CHEAPEST.replace("-(-T // chunk)", "T / chunk")),
        ("the first chunk reads nothing", CHEAPEST.replace("return chunks * (", "return -matrix * readings + chunks * (")),
        ("scores of P numbers and values of N squared", CHEAPEST.replace("chunk**2 * N + chunk**2 * P", "chunk**2 * N * P")),
        ("one chunk", CHEAPEST.replace("return chunks *", "return 1 *")),
        ("all weighted", CHEAPEST.replace("(matrix * inside + alone)", "matrix * (inside + alone)")),
        ("no weight", CHEAPEST.replace("(matrix * inside + alone)", "(inside + alone)")),
        ("optimum without the mask", CHEAPEST.replace("(matrix * (N + P) + 1))", "(matrix * (N + P) + 1e-12))")),
        ("optimum without the weight", CHEAPEST.replace("(matrix * (N + P) + 1))", "(N + P + 1))")),
        ("optimum: the mask weighted too", CHEAPEST.replace("(matrix * (N + P) + 1))", "(matrix * (N + P + 1) + 1e-12))")),
        ("optimum: no root", CHEAPEST.replace("math.sqrt(", "(")),
        ("optimum: the state's side", CHEAPEST.replace("N * P / (matrix * (N + P) + 1)", "N * P")),
        (
            "optimum: rounded",
            CHEAPEST.replace(
                "return math.sqrt(N * P / (matrix * (N + P) + 1))", "return round(math.sqrt(N * P / (matrix * (N + P) + 1)))"
            ),
        ),
        ("optimum: all four fadings grow", CHEAPEST.replace("+ 1))", "+ 1 + 2 * P))")),
        ("what the chapter takes", CHEAPEST.replace("return math.sqrt(N * P / (matrix * (N + P) + 1))", "return 64")),
    ],
    "05-memory": [
        ("the middle alone", TEST.replace("range(1, T)", "[T // 2]")),
        ("with the diagonal", TEST.replace("M[t:, :t]", "M[t:, : t + 1]")),
        ("the future may be seen", TEST.replace("        assert (M.triu(1) == 0).all()\n", "")),
        ("the diagonal counts as the future", TEST.replace("M.triu(1)", "M.triu()")),
        ("exactly N", TEST_LARGE.replace("max(ranks) <= 5", "max(ranks) == 5")),
        ("always N", TEST_LARGE.replace("max(ranks) <= 5", "all(rank == 5 for rank in ranks[5:-5])")),
        ("one too many", TEST_LARGE.replace("max(ranks) <= 5", "max(ranks) <= 6")),
        ("to the last digit", TEST_LARGE.replace(", atol=1e-7", "")),
        ("one digit", TEST.replace("1e-8 * sizes[0]", "0.1 * sizes[0]")),
        ("three digits", TEST.replace("1e-8 * sizes[0]", "1e-3 * sizes[0]")),
        ("a memory of one number alone", TEST.replace("((12, 2), (20, 3))", "[(16, 1)]")),
        ("all minors of two rows and columns, one number alone", TEST_MINORS_OF_TWO),
        ("too short a text", TEST.replace("(12, 2), (20, 3)", "(4, 2), (6, 3)")),
        ("the whole matrix", TEST.replace("M[t:, :t]", "M")),
        ("one number for all", TEST.replace("sizes[N:]", "sizes[1:]")),
        ("the last row alone", TEST.replace("M[t:, :t]", "M[-1:, :t]")),
        ("above the diagonal", TEST.replace("M[t:, :t]", "M[:t, t:]")),
        ("none is right", "def test(mixing):\n    raise AssertionError\n"),
        ("all are right", "def test(mixing):\n    mixing(8, 2)\n"),
        (
            "finite and lower",
            "def test(mixing):\n    M = mixing(12, 2)\n    assert M.isfinite().all() and not M.triu(1).any()\n",
        ),
        ("an error of its own", TEST.replace("sizes[N:]", "sizes[N]")),
    ],
}

RIGHT = {
    "05-entry": [
        ("by hand", SIX),
        ("four digits", "a, b, c, d, e, f = 0.125, 1.1, 0.06875, 0.32805, 3, 0.1768\n"),
    ],
    "05-fading": [
        ("a loop over the tokens", FADING),
        ("a matrix of segment sums", FADING_MATRIX),
        ("chunks of 64", FADING_CHUNKS),
        ("hybridlab's masked attention", FADING_BY_THE_OPERATOR),
    ],
    "05-late": [
        ("where before the exponential", BLOCKS),
        ("segment sums", BLOCKS_SEGMENTS),
        ("clamped before, masked behind", BLOCKS_CLAMPED),
        ("masked before and behind", BLOCKS_TWICE_MASKED),
        ("a loop", BLOCKS_LOOP),
    ],
    "05-cheapest": [
        ("step by step", CHEAPEST),
        ("the optimum searched", CHEAPEST_SEARCHED),
    ],
    "05-memory": [
        ("singular values", TEST),
        ("one large matrix", TEST_LARGE),
        ("all minors of three rows and columns", TEST_MINORS_OF_THREE),
    ],
}
