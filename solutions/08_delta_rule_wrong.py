"""Answers to exercise 08: wrong ones, each one difference away from a right one, and right ones written differently.

A replacement that finds nothing leaves a right answer, and the test of this file says so.
"""

SIX = """
a, b, c = -0.5296, 2.26, 0.04
d, e, f = -3.04, 6.4, -1.75
"""

SIX_SIMULATED = """
import torch
ANN, BOB, CY = torch.eye(3, dtype=torch.float64)
DEE = 0.6 * ANN + 0.8 * BOB
LEDGER = [(ANN, 2, 1), (BOB, 5, 1), (CY, 7, 1), (DEE, 1, 1), (ANN, 4, 1)]
def memory(tokens):
    S = torch.zeros(3).double()
    for k, v, beta in tokens:
        S = S + beta * k * (v - k @ S)
    return S
a = memory([*LEDGER, (DEE, 1, 1)])[1]
b = memory([(k, v, 0.5) for k, v, _ in LEDGER])[0]
c = min((n / 1000 for n in range(1001)), key=lambda beta: abs(5 * DEE @ memory([*LEDGER[:3], (5 * DEE, 1, beta)]) - 1))
d = memory([*LEDGER[:3], (DEE, 1, 2)])[0]
e = DEE @ memory([LEDGER[i] for i in (3, 0, 1, 2, 4)])
f = memory(LEDGER + 50 * [(DEE, 1, 1), (ANN, 4, 1)])[1]
"""

EARLY = """
def as_early(v, log_decay, beta):
    kept = torch.exp(log_decay)
    return kept[:, None] * v, beta / kept
"""

LATE = (
    """
import torch
def late(q, k, v, log_decay, beta, state=None):
    S = torch.zeros(k.shape[1], v.shape[1], dtype=v.dtype) if state is None else state
    outputs = []
    for t in range(len(k)):
        found = k[t] @ S
        S = torch.exp(log_decay[t]) * S + beta[t] * torch.outer(k[t], v[t] - found)
        outputs.append(q[t] @ S)
    return torch.stack(outputs), S
"""
    + EARLY
)

LATE_SYSTEM = (
    """
import torch
def late(q, k, v, log_decay, beta, state=None):
    T = len(k)
    S = v.new_zeros(k.shape[1], v.shape[1]) if state is None else state
    since = torch.exp(log_decay.cumsum(0))
    steps = log_decay[:, None].expand(T, T).tril(-1)
    fading = torch.exp(steps.cumsum(0)).tril()
    found = torch.cat((torch.zeros(1, T, dtype=v.dtype), fading[:-1])).tril(-1)
    before = torch.cat((torch.ones(1, dtype=v.dtype), since[:-1]))
    wanted = beta[:, None] * (v - before[:, None] * (k @ S))
    u = torch.linalg.solve_triangular(beta[:, None] * (k @ k.T) * found, wanted, upper=False, unitriangular=True)
    outputs = since[:, None] * (q @ S) + (q @ k.T * fading) @ u
    return outputs, since[-1] * S + (fading[-1][:, None] * k).T @ u
"""
    + EARLY
)

LATE_ERASING = """
import torch
def late(q, k, v, log_decay, beta, state=None):
    S, outputs = v.new_zeros(k.shape[1], v.shape[1]) if state is None else 1 * state, []
    alike = torch.eye(k.shape[1], dtype=v.dtype)
    for q_t, k_t, v_t, decay, beta_t in zip(q, k, v, log_decay.exp(), beta):
        S = (decay * alike - beta_t * torch.outer(k_t, k_t)) @ S + beta_t * k_t[:, None] * v_t
        outputs.append(S.T @ q_t)
    return torch.stack(outputs), S
def as_early(v, log_decay, beta):
    return v * log_decay.exp().unsqueeze(1), beta * (-log_decay).exp()
"""

LATE_BY_THE_CHAPTER = LATE.replace(
    "    outputs = []",
    "    v, beta = as_early(v, log_decay, beta)\n    outputs = []",
).replace(
    "        found = k[t] @ S\n        S = torch.exp(log_decay[t]) * S",
    "        S = torch.exp(log_decay[t]) * S\n        found = k[t] @ S\n        S = S",
)

NEW = """
import torch
def delta(q, k, v, beta, state=None):
    S = torch.zeros(k.shape[1], k.shape[2], v.shape[2], dtype=v.dtype) if state is None else state
    outputs = []
    for t in range(len(k)):
        error = v[t] - torch.einsum("hk,hkv->hv", k[t], S)
        S = S + beta[t][:, None, None] * k[t][:, :, None] * error[:, None, :]
        outputs.append(torch.einsum("hk,hkv->hv", q[t], S))
    return torch.stack(outputs), S
"""

NEW_TWO_STEPS = """
import torch
def delta(q, k, v, beta, state=None):
    S = v.new_zeros(k.shape[1], k.shape[2], v.shape[2]) if state is None else state
    outputs = []
    for q_t, k_t, v_t, step in zip(q, k, v, beta[:, :, None, None] * k[:, :, :, None]):
        old = S
        S = S + step * v_t[:, None, :]
        S = S - step * (k_t[:, None, :] @ old)
        outputs.append((q_t[:, None, :] @ S)[:, 0])
    return torch.stack(outputs), S
"""

NEW_ERASED_FIRST = NEW_TWO_STEPS.replace(
    """        old = S
        S = S + step * v_t[:, None, :]
        S = S - step * (k_t[:, None, :] @ old)
""",
    """        S = S - step * (k_t[:, None, :] @ S)
        S += step * v_t[:, None, :]
""",
)

NEW_BY_THE_OPERATOR = """
from hybridlab.ops import delta_rule
def delta(q, k, v, beta, state=None):
    outputs, S = delta_rule(q[None], k[None], v[None], beta[None], None if state is None else state[None], form="chunked")
    return outputs[0], S[0]
"""

IN_PLACE = """
def delta(q, k, v, beta, state=None):
    S = v.new_zeros(k.shape[1], k.shape[2], v.shape[2]) if state is None else state
    outputs = []
    for q_t, k_t, v_t, step in zip(q, k, v, beta[:, :, None, None] * k[:, :, :, None]):
        old = S
        S += step * v_t[:, None, :]
        S -= step * (k_t[:, None, :] @ old)
        outputs.append((q_t[:, None, :] @ S)[:, 0])
    return torch.stack(outputs), S
"""
AS_IT_WAS = "import torch\n" + IN_PLACE.lstrip()

TUNED = """
def tuned(a):
    N = len(a)
    powers = torch.ones(N + 1, N + 1, dtype=torch.float64)
    for n in range(1, N + 1):
        powers[n, :N] = a * powers[n - 1, :N]
    wanted = torch.tensor([(-1.0) ** (n + 1) for n in range(N + 1)], dtype=torch.float64)
    found = torch.linalg.solve(powers, wanted)
    return found[:-1], found[-1]
"""

PARITY = (
    """
import torch
def mirrors(bits):
    T = len(bits)
    k = torch.tensor([[0.5**0.5, -(0.5**0.5)]], dtype=torch.float64).repeat(T, 1)
    q = torch.tensor([[0.0, 1.0]], dtype=torch.float64).repeat(T, 1)
    v, beta = torch.zeros(T, 1, dtype=torch.float64), 2.0 * bits.to(torch.float64)
    state = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    return q, k, v, beta, state
"""
    + TUNED
)

PARITY_THREE = (
    """
import torch
def mirrors(bits):
    T, one = len(bits), bits.double()[:, None]
    swap, idle = torch.tensor([[0.5, -0.5, 0], [0, 0, 1]], dtype=torch.float64)
    swap = swap / swap.norm()
    k = one * swap + (1 - one) * idle
    state = torch.tensor([[0], [1], [0]], dtype=torch.float64)
    return torch.eye(3).double()[:1].repeat(T, 1), k, 0 * one, 2 + 0 * one[:, 0], state
"""
    + TUNED
)

PARITY_ONE_AND_A_CONSTANT = """
import torch
def mirrors(bits):
    ones = torch.ones(len(bits), 1, dtype=torch.float64)
    k = ones * torch.tensor([1.0, 0.0], dtype=torch.float64)
    q = ones * torch.tensor([-0.5, 0.5], dtype=torch.float64)
    return q, k, 0 * ones, 2 * bits.double(), torch.ones(2, 1, dtype=torch.float64)
def tuned(a):
    N = len(a)
    counts = torch.arange(N + 1, dtype=torch.float64)
    powers = torch.cat((a, torch.ones(1, dtype=torch.float64)))[None, :] ** counts[:, None]
    found = torch.linalg.inv(powers) @ (-1) ** (counts + 1)
    return found[:N], found[N].item()
"""

TEST = """
import torch
def test(k, beta):
    written = beta[:, None] * k
    pairs = (written @ written.T).abs()
    assert (pairs - torch.diag(pairs.diagonal())).max() < 1e-9
"""

TEST_BOTH = """
import torch
def test(k, beta):
    rng = torch.Generator().manual_seed(5)
    q, v = torch.randn(*k.shape, generator=rng).double(), torch.randn(len(k), 4, generator=rng).double()
    one, other = torch.zeros(k.shape[1], 4).double(), torch.zeros(k.shape[1], 4).double()
    for t in range(len(k)):
        one = one + beta[t] * torch.outer(k[t], v[t] - k[t] @ one)
        other = other + beta[t] * torch.outer(k[t], v[t])
        assert (q[t] @ (one - other)).abs().max() < 1e-7
"""

TEST_LOOP = """
def test(k, beta):
    for t in range(len(k)):
        for s in range(t):
            assert abs(float(beta[t] * beta[s] * (k[t] @ k[s]))) < 1e-7
"""

TEST_SYSTEM = """
import torch
def test(k, beta):
    L = (beta[:, None] * (k @ k.T)).tril(-1)
    finds = torch.linalg.solve_triangular(torch.eye(len(k)).double() + L, torch.diag(beta), upper=False)
    assert torch.allclose(finds, torch.diag(beta), atol=1e-6)
"""

WRONG = {
    "08-rewrite": [
        ("a: as after the first time", SIX.replace("-0.5296", "1.64")),
        ("a: her whole error goes to Bob", SIX.replace("-0.5296", "1.64 + 1 - 3.712")),
        ("a: her error is that of the first time", SIX.replace("-0.5296", "1.64 - 3.36")),
        ("a: what Dee answers", SIX.replace("-0.5296", "1")),
        ("b: Ann's second number halved alone", SIX.replace("2.26", "(-0.52 + 4) / 2")),
        ("b: values halved, errors not", SIX.replace("2.26", "2")),
        ("b: nobody was in between", SIX.replace("2.26", "2.5")),
        ("b: the first 2 is whole", SIX.replace("2.26", "(2 + 0.3 * (1 - 3.7) + 4) / 2")),
        ("c: divided by the length", SIX.replace("0.04", "1 / 5")),
        ("c: one, as ever", SIX.replace("0.04", "1")),
        ("c: what she finds", SIX.replace("0.04", "1 / 26")),
        ("d: twice the value", SIX.replace("-3.04", "2 + 0.6 * (2 - 5.2)")),
        ("d: beta one", SIX.replace("-3.04", "-0.52")),
        ("d: her answer is 1 again", SIX.replace("-3.04", "-5")),
        ("e: the last one to write is right, and so is Dee", SIX.replace("6.4", "1")),
        ("e: as in the ledger", SIX.replace("6.4", "3.712")),
        ("e: Ann is still 2", SIX.replace("6.4", "5.2")),
        ("f: Bob is 5 again", SIX.replace("-1.75", "5")),
        ("f: it does not end", SIX.replace("-1.75", "float('-inf')")),
        ("f: after one more round", SIX.replace("-1.75", "-0.5296")),
        ("f: the sum forgot the 0.8", SIX.replace("-1.75", "1 - 2.4")),
        ("a word", SIX.replace("6.4", '"six"')),
    ],
    "08-gate": [
        (
            "late: as in the chapter",
            LATE.replace("        found = k[t] @ S\n", "").replace(
                "v[t] - found", "v[t] - torch.exp(log_decay[t]) * k[t] @ S"
            ),
        ),
        (
            "late: what is written fades too",
            LATE.replace(
                "S = torch.exp(log_decay[t]) * S + beta[t] * torch.outer(k[t], v[t] - found)",
                "S = torch.exp(log_decay[t]) * (S + beta[t] * torch.outer(k[t], v[t] - found))",
            ),
        ),
        ("late: decays taken for log decays", LATE.replace("torch.exp(log_decay[t])", "log_decay[t]")),
        ("late: the fading is forgotten", LATE.replace("torch.exp(log_decay[t]) * S", "S")),
        ("late: beta multiplies the value alone", LATE.replace("v[t] - found)", "v[t] - found / beta[t])")),
        (
            "late: the gate of the token before",
            LATE.replace("torch.exp(log_decay[t])", "torch.exp(log_decay[t - 1] * (t > 0))"),
        ),
        (
            "late: outputs before writing",
            LATE.replace("        S = torch.exp", "        before = S\n        S = torch.exp").replace(
                "q[t] @ S", "q[t] @ before"
            ),
        ),
        ("late: reads with the key", LATE.replace("append(q[t] @ S)", "append(k[t] @ S)")),
        ("late: finds with the query", LATE.replace("found = k[t] @ S", "found = q[t] @ S")),
        ("late: adds", LATE.replace("v[t] - found", "v[t]")),
        ("late: the state is forgotten", LATE.replace(" if state is None else state", "")),
        (
            "late: the state does not fade with the first token",
            LATE.replace("exp(log_decay[t])", "exp(log_decay[t] * (t > 0))"),
        ),
        (
            "late: keys made short",
            LATE.replace("    outputs = []", "    k = torch.nn.functional.normalize(k, dim=-1)\n    outputs = []"),
        ),
        ("late: betas above 1 cut", LATE.replace("    outputs = []", "    beta = beta.clamp(max=1)\n    outputs = []")),
        (
            "late: always float64",
            LATE.replace(
                "    outputs = []", "    q, k, v, S = q.double(), k.double(), v.double(), S.double()\n    outputs = []"
            ),
        ),
        (
            "late: the state is changed in place",
            LATE.replace(
                "        S = torch.exp(log_decay[t]) * S + ", "        S *= torch.exp(log_decay[t])\n        S += "
            ),
        ),
        ("late: the error is detached", LATE.replace("found = k[t] @ S", "found = (k[t] @ S).detach()")),
        ("late: by way of the chapter's rule", LATE_BY_THE_CHAPTER),
        (
            "late: the chapter's mask over the overlaps",
            LATE_SYSTEM.replace("(k @ k.T) * found", "(k @ k.T) * fading.tril(-1)"),
        ),
        (
            "late: a system whose state fades a step too early",
            LATE_SYSTEM.replace("before[:, None] * (k", "since[:, None] * (k"),
        ),
        (
            "late: a system that sees the future",
            LATE_SYSTEM.replace("(q @ k.T * fading) @ u", "(q @ k.T * (fading + fading.T)) @ u"),
        ),
        (
            "late: differences of running sums",
            LATE_SYSTEM.replace(
                "torch.exp(steps.cumsum(0)).tril()",
                "torch.exp((log_decay.cumsum(0)[:, None] - log_decay.cumsum(0)).tril()).tril()",
            ),
        ),
        ("as_early: the value as it was", LATE.replace("return kept[:, None] * v,", "return v,")),
        ("as_early: beta as it was", LATE.replace("beta / kept", "beta")),
        ("as_early: both fade", LATE.replace("beta / kept", "beta * kept")),
        ("as_early: the value grows as well", LATE.replace("kept[:, None] * v", "v / kept[:, None]")),
        ("as_early: betas above 2 cut", LATE.replace("beta / kept", "(beta / kept).clamp(max=2)")),
        (
            "as_early: all that has faded so far",
            LATE.replace("kept = torch.exp(log_decay)", "kept = torch.exp(log_decay.cumsum(0))"),
        ),
        (
            "as_early: changes v",
            LATE.replace(
                "    kept = torch.exp(log_decay)\n    return kept[:, None] * v",
                "    kept = torch.exp(log_decay)\n    v *= kept[:, None]\n    return v",
            ),
        ),
        ("as_early: an axis is missing", LATE.replace("return kept[:, None] * v", "return kept * v")),
    ],
    "08-new": [
        ("as it was", AS_IT_WAS),
        ("a copy of the old state", AS_IT_WAS.replace("old = S\n", "old = S.clone()\n")),
        ("a copy of the first state alone", AS_IT_WAS.replace("else state\n", "else state.clone()\n")),
        (
            "both copied, still in place",
            AS_IT_WAS.replace("old = S\n", "old = S.clone()\n").replace("else state\n", "else state.clone()\n"),
        ),
        ("a detached copy", NEW_TWO_STEPS.replace("old = S\n", "old = S.detach().clone()\n")),
        ("out of place, and still the new state", NEW_TWO_STEPS.replace("@ old)", "@ S)")),
        (
            "erased, then written with beta squared",
            NEW_TWO_STEPS.replace("(k_t[:, None, :] @ old)", "beta.mean() * (k_t[:, None, :] @ old)"),
        ),
        (
            "the first state is never corrected",
            NEW.replace("k[t], S)\n        S", "k[t], S - (0 if state is None else state))\n        S"),
        ),
        ("the error is found with the query", NEW.replace('"hk,hkv->hv", k[t], S)', '"hk,hkv->hv", q[t], S)')),
        (
            "the error is that of the token before",
            NEW.replace("    outputs = []", "    outputs, before = [], S").replace(
                "k[t], S)\n        S = S", "k[t], before)\n        before = S\n        S = S"
            ),
        ),
        (
            "outputs before writing",
            NEW.replace(
                "        error", "        outputs.append(torch.einsum('hk,hkv->hv', q[t], S))\n        error"
            ).replace('        outputs.append(torch.einsum("hk,hkv->hv", q[t], S))\n', ""),
        ),
        (
            "the error divided, as if it had been read too late on purpose",
            NEW.replace("beta[t][:, None, None] *", "(beta[t] / (1 + beta[t]))[:, None, None] *"),
        ),
        (
            "keys made short",
            NEW.replace("    outputs = []", "    k = torch.nn.functional.normalize(k, dim=-1)\n    outputs = []"),
        ),
        ("one beta for all heads", NEW.replace("beta[t][:, None, None]", "beta[t].mean()")),
        ("one memory for all heads", NEW.replace('"hk,hkv->hv", k[t], S)', '"hk,gkv->hv", k[t], S)')),
        ("the state is forgotten", NEW.replace(" if state is None else state", "")),
        (
            "always float64",
            NEW.replace(
                "dtype=v.dtype) if state is None else state", "dtype=torch.float64) if state is None else state.double()"
            ).replace("    outputs = []", "    q, k, v = q.double(), k.double(), v.double()\n    outputs = []"),
        ),
        ("betas above 1 cut", NEW.replace("beta[t][:, None, None]", "beta[t].clamp(max=1)[:, None, None]")),
        (
            "the future leaks in",
            NEW.replace("torch.stack(outputs), S", "torch.stack(outputs) + 0 * v + v.mean(0) * 1e-3, S"),
        ),
        (
            "without autograd",
            NEW.replace(
                "    outputs = []", "    q, k, v, beta = q.detach(), k.detach(), v.detach(), beta.detach()\n    outputs = []"
            ),
        ),
    ],
    "08-parity": [
        ("mirrors: beta 1", PARITY.replace("2.0 * bits", "1.0 * bits")),
        (
            "mirrors: a mirror at every token",
            PARITY.replace("2.0 * bits.to(torch.float64)", "2.0 + 0 * bits.to(torch.float64)"),
        ),
        ("mirrors: zeros swap", PARITY.replace("2.0 * bits.to", "2.0 * (1 - bits).to")),
        (
            "mirrors: keys of length root 2",
            PARITY.replace("[[0.5**0.5, -(0.5**0.5)]]", "[[1.0, -1.0]]").replace("2.0 * bits", "1.0 * bits"),
        ),
        ("mirrors: keys of length root 2, beta 2", PARITY.replace("[[0.5**0.5, -(0.5**0.5)]]", "[[1.0, -1.0]]")),
        (
            "mirrors: short keys and a large beta",
            PARITY.replace("[[0.5**0.5, -(0.5**0.5)]]", "[[0.5, -0.5]]").replace("2.0 * bits", "4.0 * bits"),
        ),
        (
            "mirrors: not beta but the key is 0",
            PARITY.replace("2.0 * bits.to(torch.float64)", "2.0 + 0 * bits.to(torch.float64)").replace(
                "    state", "    k = k * bits[:, None]\n    state"
            ),
        ),
        ("mirrors: cups the other way round", PARITY.replace("[[1.0], [0.0]]", "[[0.0], [1.0]]")),
        ("mirrors: the sum of the two cups", PARITY.replace("[[0.0, 1.0]]", "[[1.0, 1.0]]")),
        ("mirrors: the key of the sum", PARITY.replace("-(0.5**0.5)", "0.5**0.5")),
        ("mirrors: a sign for an answer", PARITY_ONE_AND_A_CONSTANT.replace("[-0.5, 0.5]", "[-1.0, 0.0]")),
        ("mirrors: 2 under a cup", PARITY.replace("[[1.0], [0.0]]", "[[2.0], [0.0]]")),
        (
            "mirrors: counted in the query",
            PARITY.replace("    v, beta", "    q = torch.stack((0 * bits, bits.cumsum(0) % 2), 1).double()\n    v, beta")
            .replace("2.0 * bits", "0.0 * bits")
            .replace("[[1.0], [0.0]]", "[[0.0], [1.0]]"),
        ),
        (
            "mirrors: counted in the value",
            PARITY.replace(
                "    v, beta = torch.zeros(T, 1, dtype=torch.float64), 2.0 * bits.to(torch.float64)",
                "    k = q\n    v, beta = (bits.cumsum(0) % 2)[:, None].double(), torch.ones(T, dtype=torch.float64)",
            ),
        ),
        (
            "mirrors: the first token is told where the thing is",
            PARITY.replace("    return", "    state = state if bits[0] == 0 else state.flip(0)\n    return"),
        ),
        (
            "mirrors: the bit is written",
            PARITY.replace("torch.zeros(T, 1, dtype=torch.float64)", "bits[:, None].double()").replace(
                "2.0 * bits.to(torch.float64)", "0 * bits + 1.0"
            ),
        ),
        ("mirrors: not quite a mirror", PARITY.replace("2.0 * bits", "1.99 * bits")),
        (
            "mirrors: made in float32",
            PARITY.replace("-(0.5**0.5)]], dtype=torch.float64)", "-(0.5**0.5)]], dtype=torch.float32).double()"),
        ),
        ("tuned: no number d", PARITY.replace("return found[:-1], found[-1]", "return found[:-1], 0.0")),
        ("tuned: one token less", PARITY.replace("for n in range(N + 1)]", "for n in range(N)] + [(-1.0) ** N]")),
        ("tuned: even for odd", PARITY.replace("(-1.0) ** (n + 1)", "(-1.0) ** n")),
        ("tuned: begins at one", PARITY.replace("    found =", "    powers[:, :N] = a * powers[:, :N]\n    found =")),
        ("tuned: all ones alike", PARITY.replace("return found[:-1], found[-1]", "return torch.ones_like(a), 0.0")),
        (
            "tuned: each decay with the other sign",
            PARITY.replace("return found[:-1], found[-1]", "return torch.ones_like(a) * (-1.0) ** torch.arange(N), 0.0"),
        ),
        ("tuned: decays changed", PARITY.replace("    found =", "    a *= 1\n    a += 1e-3\n    found =")),
        ("tuned: h and d in one", PARITY.replace("return found[:-1], found[-1]", "return found, found[-1]")),
    ],
    "08-angles": [
        (
            "keys must have length 1",
            TEST.replace(
                "(pairs - torch.diag(pairs.diagonal())).max()", "(k @ k.T - torch.eye(len(k)).double()).abs().max()"
            ),
        ),
        ("betas are not looked at", TEST.replace("beta[:, None] * k", "k")),
        ("the beta of the later token alone", TEST_LOOP.replace("beta[t] * beta[s]", "beta[t]")),
        ("the beta of the earlier token alone", TEST_LOOP.replace("beta[t] * beta[s]", "beta[s]")),
        ("neighbours alone", TEST_LOOP.replace("range(t)", "range(max(0, t - 1), t)")),
        ("all but neighbours", TEST_LOOP.replace("range(t)", "range(t - 1)")),
        ("the last token alone", TEST_LOOP.replace("for t in range(len(k))", "for t in [len(k) - 1]")),
        ("the first token alone", TEST_LOOP.replace("range(t)", "range(min(t, 1))")),
        (
            "without the size",
            TEST_LOOP.replace("abs(float(beta[t] * beta[s] * (k[t] @ k[s])))", "float(beta[t] * beta[s] * (k[t] @ k[s]))"),
        ),
        (
            "the sum over all earlier tokens",
            TEST.replace(
                "(pairs - torch.diag(pairs.diagonal())).max()", "(written @ written.T).tril(-1).sum(1).abs().max()"
            ),
        ),
        (
            "the sum of all",
            TEST.replace("(pairs - torch.diag(pairs.diagonal())).max()", "(written @ written.T).tril(-1).sum().abs()"),
        ),
        (
            "the mean",
            TEST.replace(
                "(pairs - torch.diag(pairs.diagonal())).max() < 1e-9", "(pairs - torch.diag(pairs.diagonal())).mean() < 1e-2"
            ),
        ),
        ("one digit", TEST.replace("1e-9", "0.1")),
        ("two digits", TEST.replace("1e-9", "0.02")),
        ("three digits", TEST.replace("1e-9", "2e-3")),
        ("to the last digit", TEST.replace("< 1e-9", "== 0")),
        ("with the diagonal", TEST.replace("(pairs - torch.diag(pairs.diagonal())).max()", "pairs.max()")),
        ("the wrong product", TEST.replace("(written @ written.T)", "(written.T @ written)")),
        ("angles alone", TEST.replace("written = beta[:, None] * k", "written = torch.nn.functional.normalize(k, dim=-1)")),
        (
            "angles, the key 0 not thought of",
            TEST.replace("written = beta[:, None] * k", "written = beta[:, None] * k / k.norm(dim=-1, keepdim=True)"),
        ),
        ("no more tokens than numbers", TEST.replace("    written", "    assert len(k) <= k.shape[1]\n    written", 1)),
        ("no key twice", "import torch\ndef test(k, beta):\n    assert len(torch.unique(k, dim=0)) == len(k)\n"),
        (
            "every value is 1",
            TEST_BOTH.replace("torch.randn(len(k), 4, generator=rng).double()", "torch.ones(len(k), 4).double()"),
        ),
        (
            "every value is 0",
            TEST_BOTH.replace("torch.randn(len(k), 4, generator=rng).double()", "torch.zeros(len(k), 4).double()"),
        ),
        ("outputs compared to one digit", TEST_BOTH.replace("< 1e-7", "< 0.1")),
        (
            "every query is Ann's",
            TEST_BOTH.replace("    q, v =", "    _, v =").replace(
                "    one, other", "    q = torch.eye(k.shape[1]).double()[:1].expand_as(k)\n    one, other", 1
            ),
        ),
        (
            "the values are the betas",
            TEST_BOTH.replace("torch.randn(len(k), 4, generator=rng).double()", "(0 * beta[:, None]).expand(-1, 4)"),
        ),
        ("none is right", "def test(k, beta):\n    raise AssertionError\n"),
        ("all are right", "def test(k, beta):\n    assert len(k) == len(beta)\n"),
    ],
}

RIGHT = {
    "08-rewrite": [
        ("by hand", SIX),
        ("by a loop", SIX_SIMULATED),
    ],
    "08-gate": [
        ("a loop over the tokens", LATE),
        ("a triangular system", LATE_SYSTEM),
        ("the erasing form", LATE_ERASING),
    ],
    "08-new": [
        ("the error by itself", NEW),
        ("two steps, out of place", NEW_TWO_STEPS),
        ("erased out of place, then written in place", NEW_ERASED_FIRST),
        ("hybridlab's chunks", NEW_BY_THE_OPERATOR),
    ],
    "08-parity": [
        ("two cups", PARITY),
        ("a third direction for zeros", PARITY_THREE),
        ("one number that turns, and one that stays", PARITY_ONE_AND_A_CONSTANT),
    ],
    "08-angles": [
        ("all pairs at once", TEST),
        ("both rules, random values", TEST_BOTH),
        ("pair by pair", TEST_LOOP),
        ("what is written, solved for", TEST_SYSTEM),
    ],
}
