"""Answers to exercise 02: wrong ones, each one difference away from a right one, and right ones written differently.

A replacement that finds nothing leaves a right answer, and the test of this file says so.
"""

SIX = """
import math
A, B, C, D = math.log(0.5) / math.log(0.8), 0.5**0.05, 1 / 8, 20 * math.log2(1000)
E, F = 4, 1 / 8
"""

SCAN = """
import torch
def scan(a, b):
    reach = 1
    while reach < len(a):
        added = a[reach:] * b[:-reach] + b[reach:]
        kept = a[reach:] * a[:-reach]
        a, b = torch.cat((a[:reach], kept)), torch.cat((b[:reach], added))
        reach *= 2
    return a, b
"""

REVERSE = (
    SCAN
    + """
def reverse_scan(a, b, state=None):
    kept, added = scan(a.flip(0), b.flip(0))
    state = torch.zeros_like(b[0]) if state is None else state
    return (kept * state + added).flip(0)
"""
)

DOUBLING_TO_THE_LEFT = """
import torch
def reverse_scan(a, b, state=None):
    if state is not None:
        b = torch.cat((b[:-1], b[-1:] + a[-1:] * state))
    reach = 1
    while reach < len(a):
        b = torch.cat((b[:-reach] + a[:-reach] * b[reach:], b[-reach:]))
        a = torch.cat((a[:-reach] * a[reach:], a[-reach:]))
        reach *= 2
    return b
"""

REVERSE_BY_HALVES = """
import torch
def reverse_scan(a, b, state=None):
    def joined(a, b):
        if len(a) == 1:
            return a, b
        odd = len(a) % 2
        kept, added = joined(a[odd::2] * a[1 + odd :: 2], b[odd::2] + a[odd::2] * b[1 + odd :: 2])
        inner = slice(1 + odd, -1, 2)
        at, to = a.clone(), b.clone()
        at[odd::2], to[odd::2] = kept, added
        at[inner], to[inner] = a[inner] * kept[1:], b[inner] + a[inner] * added[1:]
        if odd:
            at[0], to[0] = a[0] * kept[0], b[0] + a[0] * added[0]
        return at, to
    kept, added = joined(a, b)
    return added if state is None else added + kept * state
"""

REVERSE_BY_THE_OPERATOR = """
from hybridlab.ops import linear_recurrence
def reverse_scan(a, b, state=None):
    state = None if state is None else state[None]
    return linear_recurrence(a.flip(0)[None], b.flip(0)[None], state, form="parallel")[0][0].flip(0)
"""

REVERSE_LOOP = """
import torch
def reverse_scan(a, b, state=None):
    h, states = torch.zeros_like(b[0]) if state is None else state, []
    for t in reversed(range(len(a))):
        h = a[t] * h + b[t]
        states.append(h)
    return torch.stack(states[::-1])
"""

REVERSE_IN_PYTHON_NUMBERS = """
import torch
def reverse_scan(a, b, state=None):
    h, states = [0.0] * a.shape[1] if state is None else state.tolist(), []
    for a_t, b_t in zip(a.tolist()[::-1], b.tolist()[::-1]):
        h = [x * y + z for x, y, z in zip(a_t, h, b_t)]
        states.append(h)
    return torch.tensor(states[::-1], dtype=b.dtype)
"""

REVERSE_SHORTCUT = """
import torch
def reverse_scan(a, b, state=None):
    P = a.flip(0).cumprod(0)
    h = P * (b.flip(0) / P).cumsum(0)
    return (h if state is None else h + P * state).flip(0)
"""

REVERSE_BY_LOGARITHMS = """
import torch
def reverse_scan(a, b, state=None):
    logs, T = torch.log(a).cumsum(0), len(a)
    before = torch.cat((torch.zeros_like(logs[:1]), logs[:-1]))
    kept = torch.exp(before[None] - before[:, None]) * torch.ones(T, T).triu()[:, :, None]
    h = (kept * b).sum(1)
    return h if state is None else h + torch.exp(logs[-1:] - before) * state
"""

ROOM = """
import torch
def room(log_a):
    below = log_a.clamp(max=-1e-30)
    return torch.sqrt(-torch.expm1(2 * below))
"""

ROOM_TWICE_WHERE = """
import torch
def room(log_a):
    shut = log_a == 0
    open_ = torch.where(shut, -1.0, log_a)
    return torch.where(shut, 0.0, torch.sqrt(-torch.expm1(2 * open_)))
"""

ROOM_IN_FACTORS = """
import torch
def room(log_a):
    x = log_a.clamp(max=-1e-35)
    return torch.sqrt(-torch.expm1(x)) * torch.sqrt(1 + torch.exp(x))
"""

ROOM_WITH_A_SLOPE_OF_ITS_OWN = """
import torch
class Room(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_a):
        room = torch.sqrt(-torch.expm1(2 * log_a))
        ctx.save_for_backward(log_a, room)
        return room
    @staticmethod
    def backward(ctx, grad):
        log_a, room = ctx.saved_tensors
        return -grad * torch.exp(2 * log_a) * (1 / room.abs()).clamp(max=2000)
def room(log_a):
    return Room.apply(log_a)
"""

TEST = """
import torch
def test(step, join, read):
    torch.manual_seed(5)
    a, b = torch.randn(2, 5, 3, dtype=torch.float64)
    a[2, 0] = 0
    h = torch.zeros(3, dtype=torch.float64)
    for a_t, b_t in zip(a, b):
        h = a_t * h + b_t
    def difference(joined):
        return (read(joined) - h).abs().max()
    steps = [step(a_t.clone(), b_t.clone()) for a_t, b_t in zip(a, b)]
    left = steps[0]
    for new in steps[1:]:
        left = join(left, new)
    assert difference(left) < 1e-9
    right = steps[-1]
    for old in steps[-2::-1]:
        right = join(old, right)
    assert difference(right) < 1e-9
"""

TEST_EVERY_BRACKETING = """
import torch
def test(step, join, read):
    a = torch.tensor([3.0, -0.5, 0.0, 0.25], dtype=torch.float64)
    b = torch.tensor([2.0, 5.0, 7.0, 1.0], dtype=torch.float64)
    made = [step(x, y) for x, y in zip(a.clone(), b.clone())]
    def all_of(low, high):
        if high - low == 1:
            return [made[low]]
        cuts = range(low + 1, high)
        return [join(old, new) for cut in cuts for old in all_of(low, cut) for new in all_of(cut, high)]
    for low in range(4):
        for high in range(low + 1, 5):
            h = 0.0
            for t in range(low, high):
                h = float(a[t]) * h + float(b[t])
            for joined in all_of(low, high):
                assert abs(float(read(joined)) - h) < 1e-6
"""

BACKWARD = (
    SCAN
    + """
def backward(a, h, state, grad):
    coming = torch.cat((a[1:], torch.zeros_like(a[:1])))
    asked = scan(coming.flip(0), grad.flip(0))[1].flip(0)
    before = torch.cat((state[None], h[:-1]))
    return asked * before, asked, a[0] * asked[0]
"""
)

BACKWARD_LOOP = """
import torch
def backward(a, h, state, grad):
    g, asked = torch.zeros_like(state), []
    for t in reversed(range(len(a))):
        g = g + grad[t]
        asked.insert(0, g)
        g = a[t] * g
    asked = torch.stack(asked)
    return asked * torch.cat((state[None], h[:-1])), asked, g
"""

BACKWARD_TO_THE_LEFT = """
import torch
def backward(a, h, state, grad):
    asked, kept, reach = grad, a[1:], 1
    while reach < len(a):
        asked = torch.cat((asked[:-reach] + kept * asked[reach:], asked[-reach:]))
        kept = kept[:-reach] * kept[reach:]
        reach *= 2
    by_a = torch.cat((asked[:1] * state, asked[1:] * h[:-1]))
    return by_a, asked, a[0] * asked[0]
"""

BACKWARD_SHORTCUT = """
import torch
def backward(a, h, state, grad):
    P = a.cumprod(0)
    asked = (grad * P).flip(0).cumsum(0).flip(0) / P
    return asked * torch.cat((state[None], h[:-1])), asked, a[0] * asked[0]
"""

BACKWARD_BY_AUTOGRAD = """
import torch
def backward(a, h, state, grad):
    b = h - a * torch.cat((state[None], h[:-1]))
    a, b, first = (x.clone().requires_grad_() for x in (a, b, state))
    now, states = first, []
    for a_t, b_t in zip(a, b):
        now = a_t * now + b_t
        states.append(now)
    return torch.autograd.grad(torch.stack(states), (a, b, first), grad)
"""

WRONG = {
    "02-halflives": [
        ("A: 1/(1 - a)", SIX.replace("math.log(0.5) / math.log(0.8)", "1 / (1 - 0.8)")),
        ("A: down to 1/e", SIX.replace("math.log(0.5) / math.log(0.8)", "-1 / math.log(0.8)")),
        ("A: upside down", SIX.replace("math.log(0.5) / math.log(0.8)", "math.log(0.8) / math.log(0.5)")),
        ("A: a fifth each step, of the beginning", SIX.replace("math.log(0.5) / math.log(0.8)", "0.5 / 0.2")),
        ("A: whole steps", SIX.replace("math.log(0.5) / math.log(0.8)", "4")),
        ("A: two digits", SIX.replace("math.log(0.5) / math.log(0.8)", "3.1")),
        ("B: 1 - 1/20", SIX.replace("0.5**0.05", "1 - 1 / 20")),
        ("B: half of it shared out over 20 steps", SIX.replace("0.5**0.05", "1 - 0.5 / 20")),
        ("B: down to 1/e", SIX.replace("0.5**0.05", "math.exp(-1 / 20)")),
        ("B: two digits", SIX.replace("0.5**0.05", "0.97")),
        ("B: the other root", SIX.replace("0.5**0.05", "-(0.5**0.05)")),
        ("B: a logarithm", SIX.replace("0.5**0.05", "math.log(0.5) / 20")),
        ("C: a sixth", SIX.replace("1 / 8", "1 / 6", 1)),
        ("C: what is gone", SIX.replace("1 / 8", "7 / 8", 1)),
        ("C: nothing, after two half-lives", SIX.replace("1 / 8", "0", 1)),
        ("D: ten half-lives", SIX.replace("20 * math.log2(1000)", "200")),
        ("D: five hundred half-lives", SIX.replace("20 * math.log2(1000)", "20 * 500")),
        ("D: natural logarithm", SIX.replace("20 * math.log2(1000)", "20 * math.log(1000)")),
        ("D: a thousandth is gone", SIX.replace("math.log2(1000)", "math.log2(1000 / 999)")),
        ("E: the mean of the half-lives", SIX.replace("E, F = 4", "E, F = 4.5")),
        ("E: the root of their product", SIX.replace("E, F = 4", "E, F = 18**0.5")),
        ("E: counted in pairs", SIX.replace("E, F = 4", "E, F = 2")),
        ("E: both at every token", SIX.replace("E, F = 4", "E, F = 1 / (1 / 3 + 1 / 6)")),
        ("F: the other way round", SIX.replace("F = 4, 1 / 8", "F = 4, 8")),
        ("F: the 8 counted twice", SIX.replace("F = 4, 1 / 8", "F = 4, 1 / 64")),
        ("F: as if it were a decay", SIX.replace("F = 4, 1 / 8", "F = 4, 0.5 ** (5 / 40)")),
        ("F: no number", SIX.replace("F = 4, 1 / 8", "F = 4, 'an eighth'")),
    ],
    "02-reverse": [
        ("a loop", REVERSE_LOOP),
        ("a loop over Python's numbers", REVERSE_IN_PYTHON_NUMBERS),
        ("divides by the product", REVERSE_SHORTCUT),
        ("logarithms of decays", REVERSE_BY_LOGARITHMS),
        ("from the beginning", REVERSE.replace("(a.flip(0), b.flip(0))", "(a, b)").replace("added).flip(0)", "added)")),
        ("the outputs turned, not the inputs", REVERSE.replace("(a.flip(0), b.flip(0))", "(a, b)")),
        ("the inputs turned, not the outputs", REVERSE.replace("added).flip(0)", "added)")),
        ("only b turned", REVERSE.replace("(a.flip(0), b.flip(0))", "(a, b.flip(0))")),
        ("channels turned too", REVERSE.replace("a.flip(0), b.flip(0)", "a.flip(0, 1), b.flip(0, 1)")),
        ("only the channels turned", REVERSE.replace(".flip(0)", ".flip(1)")),
        ("the decay of the token after", REVERSE.replace("scan(a.flip(0)", "scan(a.roll(-1, 0).flip(0)")),
        ("the decay of the token before", REVERSE.replace("scan(a.flip(0)", "scan(a.roll(1, 0).flip(0)")),
        ("no state", REVERSE.replace("kept * state + added", "added")),
        ("a state that does not fade", REVERSE.replace("kept * state + added", "state + added")),
        ("the state at the beginning", REVERSE.replace("(kept * state + added).flip(0)", "kept * state + added.flip(0)")),
        ("the state added to the last token", REVERSE.replace("kept * state + added", "added + kept[:1] * state")),
        ("the state in the first round's decay", REVERSE.replace("kept * state", "a.flip(0) * state")),
        ("without its own b", REVERSE.replace("kept * state + added)", "kept * state + added - b.flip(0))")),
        ("one round too few", REVERSE.replace("while reach < len(a)", "while reach < len(a) // 2")),
        ("the reach does not double", REVERSE.replace("reach *= 2", "reach += 2")),
        ("both readings added", REVERSE.replace("added).flip(0)", "added).flip(0) + scan(a, b)[1] - b")),
        ("the last token sees the first", REVERSE.replace("if state is None", "+ b[0] if state is None")),
        ("detached", REVERSE.replace("added).flip(0)", "added).flip(0).detach()")),
        ("decays detached", REVERSE.replace("scan(a.flip(0)", "scan(a.detach().flip(0)")),
        ("always float64", REVERSE.replace("scan(a.flip(0), b.flip(0))", "scan(a.double().flip(0), b.double().flip(0))")),
        (
            "in place",
            REVERSE.replace(
                "    kept, added = scan(a", "    b.data[-1] += 0 if state is None else 1\n    kept, added = scan(a"
            ),
        ),
        ("decays clamped", REVERSE.replace("scan(a.flip(0)", "scan(a.flip(0).clamp(0, 1)")),
    ],
    "02-root": [
        ("as it was", "import torch\ndef room(log_a):\n    return torch.sqrt(1 - torch.exp(log_a) ** 2)\n"),
        ("one exponential instead of a square", ROOM.replace("-torch.expm1(2 * below)", "1 - torch.exp(2 * below)")),
        ("two factors", ROOM.replace("-torch.expm1(2 * below)", "(1 - below.exp()) * (1 + below.exp())")),
        ("log1p", ROOM.replace("torch.sqrt(-torch.expm1(2 * below))", "torch.exp(torch.log1p(-torch.exp(2 * below)) / 2)")),
        (
            "in float64 and back",
            ROOM.replace("-torch.expm1(2 * below))", "1 - torch.exp(2 * below.double())).to(log_a.dtype)"),
        ),
        ("1 - a, not 1 - a^2", ROOM.replace("2 * below", "below")),
        ("without the root", ROOM.replace("torch.sqrt(-torch.expm1(2 * below))", "-torch.expm1(2 * below)")),
        ("the wrong sign", ROOM.replace("-torch.expm1", "torch.expm1")),
        ("expm1 of the decay", ROOM.replace("-torch.expm1(2 * below)", "-torch.expm1(2 * below.exp())")),
        ("the straight line alone", ROOM.replace("-torch.expm1(2 * below)", "-2 * below")),
        ("two terms of the series", ROOM.replace("-torch.expm1(2 * below)", "-2 * below - 2 * below**2")),
        ("sinh, which overflows", ROOM.replace("-torch.expm1(2 * below)", "-2 * below.exp() * below.sinh()")),
        ("a number under the root", ROOM.replace("2 * below)", "2 * log_a) + 1e-12")),
        (
            "clamped behind the difference",
            ROOM.replace("max=-1e-30", "max=0").replace("2 * below)", "2 * below).clamp(max=-1e-12)"),
        ),
        ("clamped too far from 0", ROOM.replace("1e-30", "1e-7")),
        ("an infinite slope", ROOM.replace("max=-1e-30", "max=0")),
        (
            "where behind the root",
            ROOM.replace("max=-1e-30", "max=0").replace("return ", "return torch.where(log_a == 0, 0.0, ") + ")",
        ),
        ("detached", ROOM.replace("2 * below))", "2 * below)).detach()")),
        (
            "the slope of the old formula",
            """
import torch
def room(log_a):
    old = torch.sqrt((1 - torch.exp(log_a) ** 2).clamp(min=1e-12))
    return old + (torch.sqrt(-torch.expm1(2 * log_a)) - old).detach()
""",
        ),
        (
            "steep slopes cut off at 100",
            ROOM.replace(
                "    return", "    below.requires_grad and below.register_hook(lambda g: g.clamp(min=-100))\n    return"
            ),
        ),
        (
            "one shut gate stops all gradients",
            ROOM.replace(
                "    return", "    below = below * 0 + below.detach() if (log_a == 0).any() else below\n    return"
            ),
        ),
        ("1 where the gate is shut", ROOM_TWICE_WHERE.replace("(shut, 0.0,", "(shut, 1.0,")),
        ("in place", ROOM.replace("log_a.clamp(max=-1e-30)", "log_a.data.mul_(2) / 2")),
        ("always float64", ROOM.replace("log_a.clamp", "log_a.double().clamp")),
    ],
    "02-join": [
        ("a loop alone", TEST.replace("    assert difference(right) < 1e-9\n", "")),
        (
            "from the right alone",
            TEST.replace("    assert difference(left) < 1e-9\n", "").replace(
                "    for new in steps[1:]:\n        left = join(left, new)\n", ""
            ),
        ),
        ("two tokens", TEST.replace("(2, 5, 3,", "(2, 2, 3,").replace("a[2, 0] = 0", "a[1, 0] = 0")),
        (
            "brackets compared with each other alone",
            TEST.replace("difference(left) < 1e-9", "True").replace(
                "difference(right)", "(read(left) - read(right)).abs().max()"
            ),
        ),
        ("no reset", TEST.replace("    a[2, 0] = 0\n", "")),
        ("a reset of all channels, behind which nothing shows", TEST.replace("a[2, 0] = 0", "a[2] = 0")),
        (
            "the only decay below 0 is the first",
            TEST_EVERY_BRACKETING.replace("[3.0, -0.5, 0.0, 0.25]", "[-0.5, 0.0, 3.0, 0.25]"),
        ),
        ("decays between 0 and 1", TEST.replace("    a[2, 0] = 0\n", "    a = a.sigmoid()\n    a[2, 0] = 0\n")),
        ("all decays 1/2", TEST.replace("    a[2, 0] = 0\n", "    a = torch.full_like(b, 0.5)\n")),
        (
            "new steps for every bracketing",
            TEST.replace(
                "    right = steps",
                "    steps = [step(a_t.clone(), b_t.clone()) for a_t, b_t in zip(a, b)]\n    right = steps",
            ),
        ),
        (
            "nan slips through",
            TEST.replace("assert difference(left) < 1e-9", "assert not difference(left) > 1e-9").replace(
                "assert difference(right) < 1e-9", "assert not difference(right) > 1e-9"
            ),
        ),
        (
            "to the last digit",
            TEST.replace("difference(left) < 1e-9", "torch.equal(read(left), h)").replace(
                "difference(right) < 1e-9", "torch.equal(read(right), h)"
            ),
        ),
        (
            "to the last digit, with numbers that need no rounding",
            TEST_EVERY_BRACKETING.replace("abs(float(read(joined)) - h) < 1e-6", "float(read(joined)) == h"),
        ),
        ("too loose", TEST.replace("< 1e-9", "< 100")),
        (
            "wants the order not to matter",
            TEST.replace(
                "    left = steps[0]\n",
                "    left = steps[0]\n    assert torch.equal(read(join(left, steps[1])), read(join(steps[1], left)))\n",
            ),
        ),
        (
            "looks into the steps",
            TEST.replace(
                "    left = steps[0]\n",
                "    assert torch.allclose(join(steps[0], steps[1])[0], a[0] * a[1])\n    left = steps[0]\n",
            ),
        ),
        ("the wrong h", TEST.replace("h = a_t * h + b_t", "h = a_t * (h + b_t)")),
        (
            "finite is enough",
            TEST.replace("difference(left) < 1e-9", "read(left).isfinite().all()").replace(
                "difference(right) < 1e-9", "read(right).isfinite().all()"
            ),
        ),
        (
            "shapes are enough",
            TEST.replace("difference(left) < 1e-9", "read(left).shape == (3,)").replace(
                "difference(right) < 1e-9", "read(right).shape == (3,)"
            ),
        ),
        ("rejects everything", "def test(step, join, read):\n    assert False\n"),
        ("accepts everything", "def test(step, join, read):\n    pass\n"),
        ("plain numbers for tensors", TEST_EVERY_BRACKETING.replace("step(x, y) for", "step(float(x), float(y)) for")),
    ],
    "02-backward": [
        ("a loop", BACKWARD_LOOP),
        ("divides by the product", BACKWARD_SHORTCUT),
        ("autograd", BACKWARD_BY_AUTOGRAD),
        ("a not moved by one", BACKWARD.replace("torch.cat((a[1:], torch.zeros_like(a[:1])))", "a")),
        (
            "a moved the other way",
            BACKWARD.replace("torch.cat((a[1:], torch.zeros_like(a[:1])))", "torch.cat((torch.zeros_like(a[:1]), a[:-1]))"),
        ),
        ("from the beginning", BACKWARD.replace("scan(coming.flip(0), grad.flip(0))[1].flip(0)", "scan(coming, grad)[1]")),
        ("forward, with a", BACKWARD.replace("scan(coming.flip(0), grad.flip(0))[1].flip(0)", "scan(a, grad)[1]")),
        ("not turned back", BACKWARD.replace("[1].flip(0)", "[1]")),
        ("what is kept, not what is added", BACKWARD.replace("[1].flip(0)", "[0].flip(0)")),
        (
            "nothing comes back from later states",
            BACKWARD.replace("asked = scan(coming.flip(0), grad.flip(0))[1].flip(0)", "asked = grad"),
        ),
        (
            "from the next state alone",
            BACKWARD.replace(
                "scan(coming.flip(0), grad.flip(0))[1].flip(0)", "grad + coming * torch.cat((grad[1:], 0 * grad[:1]))"
            ),
        ),
        ("times h_t, not h_(t-1)", BACKWARD.replace("torch.cat((state[None], h[:-1]))", "h")),
        ("a_1 left out", BACKWARD.replace("torch.cat((state[None]", "torch.cat((0 * state[None]")),
        ("h rolled: the last one comes first", BACKWARD.replace("torch.cat((state[None], h[:-1]))", "h.roll(1, 0)")),
        ("grad, not what is asked, for a", BACKWARD.replace("return asked * before", "return grad * before")),
        ("no gradient of the state", BACKWARD.replace("a[0] * asked[0]", "torch.zeros_like(state)")),
        ("the state without its decay", BACKWARD.replace("a[0] * asked[0]", "asked[0]")),
        ("the state's own gradient, times the state", BACKWARD.replace("a[0] * asked[0]", "a[0] * asked[0] * state")),
        ("the state's gradient from the last step", BACKWARD.replace("a[0] * asked[0]", "a[-1] * asked[-1]")),
        ("the state's gradient through grad alone", BACKWARD.replace("a[0] * asked[0]", "a[0] * grad[0]")),
        ("the state's gradient through the first output alone", BACKWARD.replace("a[0] * asked[0]", "a.prod(0) * grad[-1]")),
        ("the gradients of a and b exchanged", BACKWARD.replace("asked * before, asked,", "asked, asked * before,")),
        (
            "the gradient of the state first",
            BACKWARD.replace(
                "return asked * before, asked, a[0] * asked[0]", "return a[0] * asked[0], asked * before, asked"
            ),
        ),
        ("two gradients", BACKWARD.replace(", a[0] * asked[0]", "")),
        ("channels added up for the state", BACKWARD.replace("a[0] * asked[0]", "(a[0] * asked[0]).sum() + 0 * state")),
        ("writes into grad", BACKWARD.replace("    before =", "    grad.copy_(asked)\n    before =")),
        (
            "always float64",
            BACKWARD.replace(
                "    coming =", "    a, h, state, grad = a.double(), h.double(), state.double(), grad.double()\n    coming ="
            ),
        ),
        ("one round too few", BACKWARD.replace("while reach < len(a)", "while reach < len(a) // 2")),
    ],
}

RIGHT = {
    "02-halflives": [
        ("by hand and expression", SIX),
        ("four digits", "A, B, C, D, E, F = 3.106, 0.9659, 0.125, 199.3, 4, 0.125\n"),
    ],
    "02-reverse": [
        ("the same, a state always", REVERSE),
        ("doubling to the left, the state in the last b", DOUBLING_TO_THE_LEFT),
        ("pairs of pairs", REVERSE_BY_HALVES),
        ("hybridlab's operator", REVERSE_BY_THE_OPERATOR),
    ],
    "02-root": [
        ("clamped", ROOM),
        ("where before and behind the root", ROOM_TWICE_WHERE),
        ("in two factors", ROOM_IN_FACTORS),
        ("a slope of its own, limited as hybridlab's", ROOM_WITH_A_SLOPE_OF_ITS_OWN),
    ],
    "02-join": [
        ("from both ends", TEST),
        ("every bracketing of four", TEST_EVERY_BRACKETING),
    ],
    "02-backward": [
        ("by the scan", BACKWARD),
        (
            "a rolled: what wraps round meets nothing",
            BACKWARD.replace("torch.cat((a[1:], torch.zeros_like(a[:1])))", "a.roll(-1, 0)"),
        ),
        ("doubling to the left", BACKWARD_TO_THE_LEFT),
    ],
}
