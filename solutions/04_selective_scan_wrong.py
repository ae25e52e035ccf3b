"""Answers to exercise 04: wrong ones, each one difference away from a right one, and right ones written differently."""


def _changed(source: str, *changes: tuple[str, str]) -> str:
    """The source with one mistake made in it."""
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in:\n{source}"
        source = source.replace(old, new)
    return source


SIX = """
import math
a = 6.28125
b = 3
c = 0.875
d = math.log(5)
e = 2 / 4 + 2 * math.log(4)
f = 0.4096
"""

WEIGHTS = """
import torch
def weights(dt, A, C):
    time = dt.cumsum(0)
    passed = (time[:, None] - time).tril()
    kept = torch.exp(passed[:, :, None] * A)
    written = torch.expm1(dt[:, None] * A) / A
    return (kept * written * C).sum(-1).real.tril()
"""

WEIGHTS_BY_MASK = """
import torch
def weights(dt, A, C):
    end = torch.cumsum(dt, 0)
    late = torch.ones(len(dt), len(dt)).triu(1).bool()
    between = (end[:, None] - end).masked_fill(late, 0)
    poured = C * torch.expm1(dt[:, None] * A) / A
    shares = torch.einsum("tjn,jn->tj", torch.exp(between[..., None] * A), poured)
    return torch.where(late, 0, shares.real)
"""

WEIGHTS_OF_TWO_ENDS = """
import torch
def weights(dt, A, C):
    time = torch.cat((dt[:1] * 0, dt.cumsum(0)))
    since_end = (time[1:, None] - time[1:]).tril().to(A.dtype)
    whole = torch.expm1(torch.complex(dt, dt * 0)[None, :, None] * A)
    shares = torch.exp(since_end[:, :, None] * A) * whole
    return (shares @ (C / A)).real * torch.tril(torch.ones_like(dt).diag() + 1).clamp(max=1)
"""

WEIGHTS_LOOP = """
import torch
def weights(dt, A, C):
    h, rows = torch.zeros(len(dt), len(A), dtype=A.dtype), []
    for t in range(len(dt)):
        here = (torch.arange(len(dt)) == t)[:, None]
        h = torch.exp(dt[t] * A) * h + here * torch.expm1(dt[t] * A) / A
        rows.append((h @ C).real)
    return torch.stack(rows)
"""

WEIGHTS_QUOTIENT = """
import torch
def weights(dt, A, C):
    P = torch.exp(dt.cumsum(0)[:, None] * A)
    written = torch.expm1(dt[:, None] * A) / A
    return ((P[:, None] / P) * written * C).sum(-1).real.tril()
"""

FILTER = """
import torch
def weights(dt, A, C):
    steps = torch.arange(len(dt), dtype=dt.dtype)
    taps = (C * torch.expm1(dt[0] * A) / A * torch.exp(steps[:, None] * dt[0] * A)).sum(-1).real
    return taps[(steps[:, None] - steps).clamp(min=0).long()].tril()
"""

READ = """
import torch
from torch.nn.functional import softplus
from hybridlab.ops import selective_scan
def read(x, raw, A, B, C, real, state=None):
    dt = softplus(raw) * real[:, :, None]
    return selective_scan(x, dt, A, B, C, None, state, form="recurrent")
"""

READ_AS_GIVEN = """
import torch
from torch.nn.functional import softplus
from hybridlab.ops import selective_scan
def read(x, raw, A, B, C, real, state=None):
    x = torch.where(real[:, :, None], x, 0.0)
    raw = torch.where(real[:, :, None], raw, 0.0)
    return selective_scan(x, softplus(raw), A, B, C, state=state, form="recurrent")
"""

READ_LOOP = """
import torch
from torch.nn.functional import softplus
def read(x, raw, A, B, C, real, state=None):
    h = x.new_zeros(len(x), *A.shape) if state is None else state
    dt, outputs = softplus(raw), []
    for t in range(x.shape[1]):
        new = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * x[:, t])[:, :, None] * B[:, t, None]
        h = torch.where(real[:, t, None, None], new, h)
        outputs.append((h * C[:, t, None]).sum(-1))
    return torch.stack(outputs, 1), h
"""

READ_ROW_BY_ROW = """
import torch
from torch.nn.functional import softplus
from hybridlab.ops import selective_scan
def read(x, raw, A, B, C, real, state=None):
    state = x.new_zeros(len(x), *A.shape) if state is None else state
    outputs, states = [], []
    for b, at in enumerate(real):
        output, h = torch.zeros_like(x[b]), state[b]
        if at.any():
            found, last = selective_scan(
                x[b, at][None], softplus(raw[b, at])[None], A, B[b, at][None], C[b, at][None],
                state=h[None], form="recurrent",
            )
            output, h = output.index_put((at,), found[0]), last[0]
        outputs.append(output)
        states.append(h)
    return torch.stack(outputs), torch.stack(states)
"""

READ_LAST_REAL = """
import torch
from torch.nn.functional import softplus
def read(x, raw, A, B, C, real, state=None):
    h = x.new_zeros(len(x), *A.shape) if state is None else state
    x, dt = torch.where(real[:, :, None], x, 0.0), softplus(torch.where(real[:, :, None], raw, 0.0))
    outputs, states = [], [h]
    for t in range(x.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * x[:, t])[:, :, None] * B[:, t, None]
        outputs.append((h * C[:, t, None]).sum(-1))
        states.append(h)
    return torch.stack(outputs, 1), torch.stack(states, 1)[torch.arange(len(x)), real.sum(1)]
"""

READ_PACKED = """
import torch
from torch.nn.functional import softplus
from hybridlab.ops import selective_scan
def read(x, raw, A, B, C, real, state=None):
    order = torch.argsort(~real, dim=1, stable=True)[:, :, None]
    x, raw, B, C = (z.gather(1, order.expand_as(z)) for z in (x, raw, B, C))
    dt = softplus(raw) * real.gather(1, order[:, :, 0])[:, :, None]
    packed, state = selective_scan(x, dt, A, B, C, state=state, form="recurrent")
    return torch.zeros_like(packed).scatter(1, order.expand_as(packed), packed), state
"""

TEST = """
import torch
def test(hold):
    torch.manual_seed(4)
    x, dt, A = torch.randn(4).double(), torch.rand(4).double() + 0.2, -2 * torch.rand(3).double() - 0.1
    h, wanted = torch.zeros_like(A), []
    for x_t, dt_t in zip(x, dt):
        h = torch.exp(dt_t * A) * h + torch.expm1(dt_t * A) / A * x_t
        wanted.append(h)
    assert (hold(x, dt, A) - torch.stack(wanted)).abs().max() < 1e-9
"""

TEST_BY_HAND = """
import math, torch
def test(hold):
    x, dt = torch.tensor([2.0, 4.0]).double(), torch.tensor([2.0, 4.0]).double().log()
    levels = hold(x, dt, torch.tensor([-1.0, -2.0]).double())
    expected = [[1, 0.75], [1 / 4 + 3, 0.75 / 16 + 15 / 16 * 2]]
    assert torch.allclose(levels, torch.tensor(expected).double())
"""

TEST_BY_LAWS = """
import torch
def test(hold):
    A = torch.tensor([-0.5, -3.0]).double()
    def last(x, dt):
        return hold(torch.tensor(x).double(), torch.tensor(dt).double(), A)[-1]
    close = torch.testing.assert_close
    close(last([3.0], [200.0]), -3.0 / A)  # held for long it settles
    close(last([3.0, 3.0], [0.25, 0.5]), last([3.0], [0.75]))  # two stretches are one
    close(last([1.0, 0.0], [0.5, 0.75]), last([1.0], [0.5]) * torch.exp(0.75 * A))  # shut
"""

DESIGN = """
import math
import torch
def design(A):
    busy = math.log(2)
    later = torch.arange(len(A) - 1, -1, -1)
    shares = busy * torch.exp(busy * A[:, None] * later)
    return 0.0, busy, torch.linalg.inv(shares)
"""

DESIGN_TRIED_OUT = """
import torch
def design(A):
    N, busy = len(A), 0.8
    shares = torch.zeros(N, N, dtype=A.dtype)
    for letter in range(N):
        h = torch.zeros_like(A)
        for place in range(N):
            h = torch.exp(busy * A) * h + busy * (place == letter)
        shares[:, letter] = h
    return torch.tensor(0.0), torch.tensor(busy), torch.linalg.solve(shares, torch.eye(N, dtype=A.dtype))
"""

DESIGN_BY_POLYNOMIALS = """
import torch
def design(A):
    # The polynomial that is 1 at one node and 0 at the others: its coefficients read one basin.
    busy, N = 1.0, len(A)
    nodes = torch.exp(busy * A)
    C = torch.zeros(N, N, dtype=A.dtype)
    for n in range(N):
        others = torch.cat((nodes[:n], nodes[n + 1 :]))
        coefficients = torch.ones(1, dtype=A.dtype)
        for z in others:
            none = coefficients[:1] * 0
            coefficients = torch.cat((coefficients, none)) - z * torch.cat((none, coefficients))
        C[:, n] = coefficients / (nodes[n] - others).prod() / busy
    return 0.0, busy, C
"""

WRONG = {
    "04-clock": [
        ("a: ln 4 as if it were ln 2", _changed(SIX, ("6.28125", "5"))),
        ("a: keeps three quarters", _changed(SIX, ("6.28125", "3.8125"))),
        ("a: Euler's input", _changed(SIX, ("6.28125", "math.log(4) * (2 / 16 + 5 / 4 + 7)"))),
        ("a: two digits", _changed(SIX, ("6.28125", "6.3"))),
        ("a: begins with the first value", _changed(SIX, ("6.28125", "(2 / 4 + 15 / 4) / 4 + 21 / 4"))),
        ("b: Cy is skipped, the question is not", _changed(SIX, ("b = 3", "b = 1.5"))),
        ("b: no time wipes the level", _changed(SIX, ("b = 3", "b = 0"))),
        ("b: no time writes the whole token", _changed(SIX, ("b = 3", "b = 4"))),
        ("b: Dee skipped instead of Cy", _changed(SIX, ("b = 3", "b = 4.5"))),
        ("b: nobody skipped", _changed(SIX, ("b = 3", "b = 1.75"))),
        ("c: the decay is the same, so all is", _changed(SIX, ("0.875", "1.75"))),
        ("c: twice the rate, twice the level", _changed(SIX, ("0.875", "3.5"))),
        ("c: the wrong decay", _changed(SIX, ("0.875", "0.6125"))),
        ("d: the share, not the time", _changed(SIX, ("math.log(5)", "0.8"))),
        ("d: what is kept", _changed(SIX, ("math.log(5)", "0.2"))),
        ("d: the other share", _changed(SIX, ("math.log(5)", "-math.log(0.8)"))),
        ("d: the sign", _changed(SIX, ("math.log(5)", "math.log(0.2)"))),
        ("e: the hold", _changed(SIX, ("2 / 4 + 2 * math.log(4)", "2"))),
        ("e: Euler's leak too", _changed(SIX, ("2 / 4 + 2 * math.log(4)", "2 - 2 * math.log(4) + 2 * math.log(4)"))),
        ("e: the level does not leak", _changed(SIX, ("2 / 4", "2"))),
        ("e: one digit", _changed(SIX, ("2 / 4 + 2 * math.log(4)", "3.3"))),
        ("f: a quarter of it", _changed(SIX, ("0.4096", "0.2"))),
        ("f: four times as much is lost", _changed(SIX, ("0.4096", "1 - 4 * 0.2"))),
        ("f: twice the rate", _changed(SIX, ("0.4096", "0.64"))),
        ("f: the other way round", _changed(SIX, ("0.4096", "0.8**0.25"))),
        ("f: no number", _changed(SIX, ("0.4096", "'less'"))),
    ],
    "04-weights": [
        ("a loop", WEIGHTS_LOOP),
        ("a quotient of products", WEIGHTS_QUOTIENT),
        ("one filter, from the first dt", FILTER),
        ("one filter, from the mean dt", _changed(FILTER, ("    taps", "    dt = dt.mean()[None]\n    taps"))),
        (
            "as many tokens as lie between, each as long as j",
            _changed(
                WEIGHTS,
                ("time = dt.cumsum(0)", "time = torch.arange(len(dt), dtype=dt.dtype)"),
                ("(time[:, None] - time).tril()", "(time[:, None] - time).tril() * dt"),
            ),
        ),
        ("its own time counts as well", _changed(WEIGHTS, ("time).tril()", "time + dt).tril()"))),
        (
            "the last token's time does not count",
            _changed(
                WEIGHTS,
                ("(time[:, None]", "((time - dt)[:, None]"),
                (").tril()\n    kept", ").tril().clamp(min=0)\n    kept"),
            ),
        ),
        ("Euler's input", _changed(WEIGHTS, ("torch.expm1(dt[:, None] * A) / A", "dt[:, None]"))),
        ("as if A were -1", _changed(WEIGHTS, ("* A) / A", "* A) / -1"))),
        ("the reader's dt writes", _changed(WEIGHTS, ("dt[:, None] * A) / A", "dt[:, None, None] * A) / A"))),
        ("the step without / A", _changed(WEIGHTS, ("* A) / A", "* A)"))),
        (
            "exp - 1 instead of expm1",
            _changed(WEIGHTS, ("torch.expm1(dt[:, None] * A)", "(torch.exp(dt[:, None] * A) - 1)")),
        ),
        ("exp before the mask", _changed(WEIGHTS, ("time).tril()", "time)"))),
        ("exp before a mask by where", _changed(WEIGHTS_BY_MASK, (".masked_fill(late, 0)", ""))),
        ("exponents clamped at 700", _changed(WEIGHTS, ("time).tril()", "time).clamp(min=-700)"))),
        ("not masked behind", _changed(WEIGHTS, (".real.tril()", ".real"))),
        ("the present token left out", _changed(WEIGHTS, (".real.tril()", ".real.tril(-1)"))),
        ("the other triangle", _changed(WEIGHTS, (".real.tril()", ".real.tril().T"))),
        ("doubled, as in the published code", _changed(WEIGHTS, (".real.tril()", ".real.tril() * 2"))),
        ("the absolute value", _changed(WEIGHTS, (".real.tril()", ".abs().tril()"))),
        ("complex numbers", _changed(WEIGHTS, (".real.tril()", ".tril()"))),
        (
            "the real parts, multiplied",
            _changed(WEIGHTS, ("(kept * written * C).sum(-1).real", "((kept * written).real @ C.real)")),
        ),
        ("the leak without the turning", _changed(WEIGHTS, ("[:, :, None] * A)", "[:, :, None] * A.real)"))),
        ("C conjugated", _changed(WEIGHTS, ("written * C)", "written * C.conj())"))),
        ("no C", _changed(WEIGHTS, (" * C)", ")"))),
        ("detached", _changed(WEIGHTS, (".real.tril()", ".real.tril().detach()"))),
        ("the clock detached", _changed(WEIGHTS, ("dt.cumsum(0)", "dt.detach().cumsum(0)"))),
        ("always float64", _changed(WEIGHTS, (".real.tril()", ".real.tril().double()"))),
        ("dt changed in place", _changed(WEIGHTS, ("dt.cumsum(0)", "dt.data.clamp_(min=1e-4).cumsum(0)"))),
        ("times reversed", _changed(WEIGHTS, ("dt.cumsum(0)", "dt.flip(0).cumsum(0)"))),
    ],
    "04-padding": [
        ("as it was", READ_AS_GIVEN),
        ("x alone", _changed(READ_AS_GIVEN, ("    raw = torch.where(real[:, :, None], raw, 0.0)\n", ""))),
        ("raw dt of -5", _changed(READ_AS_GIVEN, ("raw, 0.0)", "raw, -5.0)"))),
        ("raw dt times real", _changed(READ, ("softplus(raw) * real[:, :, None]", "softplus(raw * real[:, :, None])"))),
        (
            "B of padding is 0",
            _changed(
                READ, ("softplus(raw) * real[:, :, None]", "softplus(raw)"), ("A, B, C, N", "A, B * real[:, :, None], C, N")
            ),
        ),
        (
            "C of padding is 0",
            _changed(
                READ, ("softplus(raw) * real[:, :, None]", "softplus(raw)"), ("B, C, None", "B, C * real[:, :, None], None")
            ),
        ),
        ("the wrong way round", _changed(READ, ("* real", "* ~real"))),
        (
            "at least a little time",
            _changed(READ, ("real[:, :, None]\n", "real[:, :, None]\n    dt = dt.clamp(min=1e-3)\n")),
        ),
        ("without softplus", _changed(READ, ("softplus(raw)", "raw.abs()"))),
        ("softplus twice", _changed(READ, ("x, dt, A", "x, softplus(dt), A"))),
        ("the first row's padding for all", _changed(READ, ("* real[:, :, None]", "* real[:1, :, None]"))),
        ("padding wherever any row has it", _changed(READ, ("* real[:, :, None]", "* real.all(0)[None, :, None]"))),
        (
            "only padding at the end",
            _changed(READ, ("* real[:, :, None]", "* real.flip(1).cummax(1).values.flip(1)[:, :, None]")),
        ),
        ("the first tokens, as many as are real", READ_LAST_REAL),
        ("padding closes the row", _changed(READ, ("* real[:, :, None]", "* real.long().cummin(1).values[:, :, None]"))),
        ("begins with zeros", _changed(READ, ("None, state, form", "None, None, form"))),
        ("padding empties the memory", _changed(READ_LOOP, ("new, h)", "new, 0 * h)"))),
        (
            "a row without tokens has no state",
            _changed(READ_ROW_BY_ROW, ("torch.zeros_like(x[b]), state[b]", "torch.zeros_like(x[b]), state[b] * at.any()")),
        ),
        (
            "zeros where padding was, at the end",
            _changed(
                READ,
                ("    return selective", "    y, h = selective"),
                ('"recurrent")\n', '"recurrent")\n    return y, h * real[:, -1, None, None]\n'),
            ),
        ),
        ("writes into raw", _changed(READ, ("    dt =", "    raw.data[~real] = -1000\n    dt ="))),
        ("detached", _changed(READ, ("softplus(raw)", "softplus(raw).detach()"))),
        (
            "the state detached",
            _changed(READ, ("None, state, form", "None, None if state is None else state.detach(), form")),
        ),
        (
            "always float64",
            _changed(
                READ,
                (
                    "(x, dt, A, B, C, None, state,",
                    "(*(z.double() for z in (x, dt, A, B, C)), None, None if state is None else state.double(),",
                ),
            ),
        ),
        ("the hold's input", _changed(READ_LOOP, ("(dt[:, t] * x[:, t])", "((1 - torch.exp(-dt[:, t])) * x[:, t])"))),
        (
            "reads before it writes",
            _changed(
                READ_LOOP,
                ("        h = torch.where(real[:, t, None, None], new, h)\n", ""),
                ("sum(-1))\n", "sum(-1))\n        h = torch.where(real[:, t, None, None], new, h)\n"),
            ),
        ),
        (
            "sorted to the end, and left there",
            _changed(READ_PACKED, ("torch.zeros_like(packed).scatter(1, order.expand_as(packed), packed)", "packed")),
        ),
        (
            "one state for the batch",
            _changed(READ, ("None, state, form", "None, None if state is None else state[:1].expand_as(state), form")),
        ),
    ],
    "04-impostors": [
        ("A = -1 alone", _changed(TEST, ("-2 * torch.rand(3).double() - 0.1", "-torch.ones(3).double()"))),
        ("all times alike", _changed(TEST, ("torch.rand(4).double() + 0.2", "torch.full((4,), 0.5).double()"))),
        ("tiny times", _changed(TEST, ("torch.rand(4).double() + 0.2", "torch.rand(4).double() * 1e-6"))),
        ("no time at all", _changed(TEST, ("torch.rand(4).double() + 0.2", "torch.zeros(4).double()"))),
        ("a single token", _changed(TEST, ("torch.randn(4)", "torch.randn(1)"), ("torch.rand(4)", "torch.rand(1)"))),
        (
            "the first level alone",
            _changed(TEST, ("(hold(x, dt, A) - torch.stack(wanted))", "(hold(x, dt, A) - torch.stack(wanted))[0]")),
        ),
        ("too loose", _changed(TEST, ("< 1e-9", "< 0.5"))),
        (
            "to the last digit",
            _changed(
                TEST,
                (
                    "(hold(x, dt, A) - torch.stack(wanted)).abs().max() < 1e-9",
                    "torch.equal(hold(x, dt, A), torch.stack(wanted))",
                ),
            ),
        ),
        ("Euler's rule for the hold", _changed(TEST, ("torch.expm1(dt_t * A) / A * x_t", "dt_t * x_t"))),
        ("x is 0", _changed(TEST, ("torch.randn(4).double(), torch.rand(4)", "torch.zeros(4).double(), torch.rand(4)"))),
        (
            "shapes only",
            _changed(TEST, ("(hold(x, dt, A) - torch.stack(wanted)).abs().max() < 1e-9", "hold(x, dt, A).shape == (4, 3)")),
        ),
        (
            "finite only",
            _changed(TEST, ("(hold(x, dt, A) - torch.stack(wanted)).abs().max() < 1e-9", "hold(x, dt, A).isfinite().all()")),
        ),
        (
            "signs only",
            _changed(
                TEST,
                (
                    "(hold(x, dt, A) - torch.stack(wanted)).abs().max() < 1e-9",
                    "(hold(x, dt, A) * torch.stack(wanted) > 0).all()",
                ),
            ),
        ),
        (
            "two stretches are one, and no more",
            _changed(TEST_BY_LAWS, ("    close(last([3.0], [200.0]), -3.0 / A)  # held for long it settles\n", "")),
        ),
        (
            "where it settles, and no more",
            _changed(
                TEST_BY_LAWS,
                ("    close(last([3.0, 3.0], [0.25, 0.5]), last([3.0], [0.75]))  # two stretches are one\n", ""),
                (
                    "    close(last([1.0, 0.0], [0.5, 0.75]), last([1.0], [0.5]) * torch.exp(0.75 * A))  # shut\n",
                    "",
                ),
            ),
        ),
        (
            "Euler's leak is told, Euler's input is not",
            """
import torch
def test(hold):
    x, dt = torch.tensor([1.0, 0, 0]).double(), torch.tensor([0.5, 1.0, 2.0]).double()
    A = torch.tensor([-0.5]).double()
    h = hold(x, dt, A)[:, 0]
    assert torch.allclose(h[1:] / h[:-1], torch.exp(dt[1:] * A))
""",
        ),
        ("rejects everything", "def test(hold):\n    assert False\n"),
        ("accepts everything", "def test(hold):\n    pass\n"),
        ("a list of times", _changed(TEST, ("hold(x, dt, A)", "hold(x, dt.tolist(), A)"))),
    ],
    "04-copy": [
        ("a dot takes a little time", _changed(DESIGN, ("return 0.0", "return 1e-5"))),
        ("a dot takes much time", _changed(DESIGN, ("return 0.0", "return 1.0"))),
        ("idle and busy exchanged", _changed(DESIGN, ("return 0.0, busy", "return busy, 0.0"))),
        ("no time at all", _changed(DESIGN, ("return 0.0, busy", "return 0.0, 0.0"))),
        (
            "the hold's input",
            _changed(DESIGN, ("busy * torch.exp(busy", "torch.expm1(busy * A)[:, None] / A[:, None] * torch.exp(busy")),
        ),
        ("without Euler's factor", _changed(DESIGN, ("busy * torch.exp(busy", "torch.exp(busy"))),
        ("letters in the reverse order", _changed(DESIGN, ("torch.arange(len(A) - 1, -1, -1)", "torch.arange(len(A))"))),
        (
            "one step of decay too many",
            _changed(DESIGN, ("torch.arange(len(A) - 1, -1, -1)", "torch.arange(len(A), 0, -1)")),
        ),
        ("transposed", _changed(DESIGN, ("inv(shares)", "inv(shares).T"))),
        ("not inverted", _changed(DESIGN, ("torch.linalg.inv(shares)", "shares.T"))),
        ("each basin reads a letter", _changed(DESIGN, ("torch.linalg.inv(shares)", "torch.eye(len(A), dtype=A.dtype)"))),
        ("each share undone by itself", _changed(DESIGN, ("torch.linalg.inv(shares)", "1 / shares.T / len(A)"))),
        (
            "question marks fade",
            _changed(DESIGN, ("inv(shares)", "inv(shares) * torch.exp(-busy * A * torch.arange(len(A))[:, None])")),
        ),
        ("too long a time for float32", _changed(DESIGN, ("math.log(2)", "6.0"))),
        ("too short a time for float32", _changed(DESIGN, ("math.log(2)", "0.003"))),
        ("C in float32", _changed(DESIGN, ("inv(shares)", "inv(shares).float()"))),
        ("C in three digits", _changed(DESIGN, ("inv(shares)", "inv(shares).round(decimals=3)"))),
        (
            "for -1, -2, -3, -4 only",
            _changed(DESIGN, ("busy * A[:, None]", "busy * -torch.arange(1, len(A) + 1, dtype=A.dtype)[:, None]")),
        ),
        ("for sorted rates only", _changed(DESIGN, ("busy * A[:, None]", "busy * A.sort(descending=True).values[:, None]"))),
        ("four letters only", _changed(DESIGN, ("torch.arange(len(A) - 1, -1, -1)", "torch.arange(3, -1, -1)"))),
        ("the first letter alone", _changed(DESIGN, ("inv(shares)", "inv(shares)[:1]"))),
        ("a negative time", _changed(DESIGN, ("math.log(2)", "-math.log(2)"))),
        ("changes the rates", _changed(DESIGN, ("    busy =", "    A.sort()[0]\n    A.copy_(A.sort().values)\n    busy ="))),
    ],
}

RIGHT = {
    "04-clock": [
        ("by hand and expression", SIX),
        ("four decimals", "a, b, c, d, e, f = 6.2812, 3, 0.875, 1.6094, 3.2726, 0.4096\n"),
    ],
    "04-weights": [
        ("as the chapter's equations", WEIGHTS),
        ("a mask before", WEIGHTS_BY_MASK),
        ("C over A", WEIGHTS_OF_TWO_ENDS),
    ],
    "04-padding": [
        ("times real", READ),
        (
            "raw of minus infinity",
            _changed(
                READ, ("softplus(raw) * real[:, :, None]", "softplus(raw.masked_fill(~real[:, :, None], float('-inf')))")
            ),
        ),
        ("the old h in a loop", READ_LOOP),
        ("row by row, without padding", READ_ROW_BY_ROW),
        ("padding sorted to the end", READ_PACKED),
    ],
    "04-impostors": [
        ("beside a loop", TEST),
        ("by hand", TEST_BY_HAND),
        ("by laws", TEST_BY_LAWS),
    ],
    "04-copy": [
        ("by the inverse", DESIGN),
        ("tried out, letter by letter", DESIGN_TRIED_OUT),
        ("by polynomials", DESIGN_BY_POLYNOMIALS),
        ("a time that depends on the rates", _changed(DESIGN, ("math.log(2)", "1.5 / float(A.abs().mean())"))),
    ],
}
