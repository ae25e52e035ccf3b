"""Answers to exercise 06: wrong ones, each one difference away from a right one, and right ones written differently.

A replacement that finds nothing leaves a right answer, and the test of this file says so.
"""

SIX = """
a, b, c = 11, 1099, 199
d, e, f = 49, 12, 2897
"""

SIX_BY_A_FORMULA = """
def points(tokens, taps):
    return tokens + min(tokens, taps) - 1
a, b, c = points(6, 6), points(1000, 100), points(100, 1000)
d = points(100, 100) - 150
e = 5 + 8 - 1
f = max(tokens for tokens in range(1, 4097) if points(tokens, 1200) <= 4096)
"""

SIX_TRIED = """
import torch
def circle(h, x, points):
    return torch.fft.irfft(torch.fft.rfft(h, points) * torch.fft.rfft(x, points), points)
def wrong(tokens, taps, points):
    h, x = torch.randn(min(tokens, taps)).double(), torch.randn(tokens).double()
    right = circle(h, x, 2 * tokens)[:tokens]
    return ((circle(h, x, points)[:tokens] - right).abs() > 1e-9).sum()
def fewest(tokens, taps):
    return next(points for points in range(tokens, 2 * tokens + 1) if not wrong(tokens, taps, points))
a, b, c = fewest(6, 6), fewest(1000, 100), fewest(100, 1000)
d, e, f = wrong(100, 100, 150), 12, next(tokens for tokens in range(2800, 4096) if wrong(tokens + 1, 1200, 4096))
"""

FFT = """
import torch
def circular_conv(h, x, points):
    return torch.fft.irfft(torch.fft.rfft(h, points) * torch.fft.rfft(x, points), points)
def fft_conv(h, x):
    T = x.shape[-1]
    return circular_conv(h[..., :T], x, 2 * T)[..., :T]
"""

PIECES = (
    FFT
    + """
def continued(h, x, past=None):
    W, T = h.shape[-1], x.shape[-1]
    seen = x if past is None else torch.cat((past, x), -1)
    kept = seen[..., max(0, seen.shape[-1] - (W - 1)) :]
    return fft_conv(h, seen)[..., -T:], kept
"""
)

PIECES_LOOP = """
import torch
def continued(h, x, past=None):
    seen = list(x.unbind(-1)) if past is None else [*past.unbind(-1), *x.unbind(-1)]
    outputs = []
    for now in range(len(seen) - x.shape[-1], len(seen)):
        outputs.append(sum(h[:, s] * seen[now - s] for s in range(min(now + 1, h.shape[1]))))
    kept = seen[max(0, len(seen) - h.shape[1] + 1) :]
    return torch.stack(outputs, -1), torch.stack(kept, -1) if kept else x[..., :0]
"""

PIECES_MATRIX = """
import torch
def continued(h, x, past=None):
    if past is None:
        past = x[..., :0]
    seen, W, T = torch.cat((past, x), -1), h.shape[1], x.shape[2]
    ages = torch.arange(seen.shape[2] - T, seen.shape[2])[:, None] - torch.arange(seen.shape[2])
    reached = (ages >= 0) & (ages < W)
    matrix = torch.where(reached, h[:, ages.clamp(0, W - 1)], torch.zeros((), dtype=h.dtype))
    kept = min(W - 1, seen.shape[2])
    return torch.einsum("dts,bds->bdt", matrix, seen), seen.narrow(2, seen.shape[2] - kept, kept)
"""

PIECES_CONV1D = """
import torch
def continued(h, x, past=None):
    seen, W = x if past is None else torch.cat((past, x), 2), h.shape[1]
    room = torch.nn.functional.pad(seen, (W - 1, 0))
    y = torch.nn.functional.conv1d(room, h.flip(1)[:, None], groups=len(h))[..., -x.shape[2] :]
    return y, seen[..., max(0, seen.shape[2] - W + 1) :]
"""

SEEN = "    seen = x if past is None else torch.cat((past, x), -1)\n"
KEPT = "    kept = seen[..., max(0, seen.shape[-1] - (W - 1)) :]\n"
OUTPUTS = "fft_conv(h, seen)[..., -T:]"


KEPT_OUTSIDE = """    if past is None:
        KEPT.clear()
    seen = torch.cat((KEPT["past"], x), -1) if KEPT else x
    KEPT["past"] = seen
"""
SMALL_CIRCLE = """
def continued(h, x, past=None):
    W, T = h.shape[-1], x.shape[-1]
    seen = x if past is None else torch.cat((past, x), -1)
    S = seen.shape[-1]
    y = circular_conv(h[..., :S], seen, S + min(S, W) - 1 + (S == 1))[..., S - T : S]
    return y, seen[..., max(0, S - (W - 1)) :]
"""


def pieces(old, new):
    return PIECES.replace(old, new)


AHEAD = """
from torch.nn.functional import conv1d, pad
def hyena(u, short, h):
    T, W = u.shape[-1], h.shape[-1]
    u = conv1d(pad(u, (2, 0)), short.flip(-1)[:, None], groups=len(short))
    x0, x1, v = u.chunk(3, 1)
    y = pad(x1 * v, (W - 1, 0))
    y = conv1d(y, h.flip(-1)[:, None], groups=len(h))
    return x0 * y[..., :T]
"""

AHEAD_BOTH_THEN_CUT = """
from torch.nn.functional import conv1d
def hyena(u, short, h):
    T, W = u.shape[-1], h.shape[-1]
    u = conv1d(u, short.flip(-1)[:, None], padding=2, groups=len(short))[..., :T]
    x0, x1, v = u.chunk(3, 1)
    y = conv1d(x1 * v, h.flip(-1)[:, None], padding=W - 1, groups=len(h))[..., :T]
    return x0 * y
"""

AHEAD_FFT = (
    FFT
    + """
def hyena(u, short, h):
    x0, x1, v = fft_conv(short, u).chunk(3, 1)
    return x0 * fft_conv(h, x1 * v)
"""
)

AHEAD_SUMS = """
import torch
def hyena(u, short, h):
    def conv(taps, x):
        y = torch.zeros_like(x)
        for s in range(min(x.shape[-1], taps.shape[-1])):
            y[..., s:] = y[..., s:] + taps[:, s, None] * x[..., : x.shape[-1] - s]
        return y
    x0, x1, v = conv(short, u).tensor_split(3, 1)
    return x0 * conv(h, x1 * v)
"""

AS_IT_WAS = """
from torch.nn.functional import conv1d, pad
def hyena(u, short, h):
    T, W = u.shape[-1], h.shape[-1]
    u = conv1d(u, short.flip(-1)[:, None], padding=1, groups=len(short))
    x0, x1, v = u.chunk(3, 1)
    y = pad(x1 * v, (W // 2, W // 2))
    y = conv1d(y, h.flip(-1)[:, None], groups=len(h))
    return x0 * y[..., :T]
"""

SHORT_LINE = "conv1d(pad(u, (2, 0)), short.flip(-1)[:, None], groups=len(short))"
LONG_LINE = "    y = pad(x1 * v, (W - 1, 0))\n"


def ahead(old, new):
    return AHEAD.replace(old, new)


WAVES = """
import torch
def modes(h):
    law = torch.linalg.solve(torch.stack((h[1:3], h[:2]), 1), h[2:])
    a, b = law
    root = torch.sqrt(a * a / 4 + b + 0j)
    poles = torch.stack((a / 2 + root, a / 2 - root))
    first = (h[1] - poles[1] * h[0]) / (poles[0] - poles[1])
    residues = torch.stack((first, h[0] - first))
    return poles, residues
def prefill(h, x):
    poles, _ = modes(h)
    state = torch.zeros(2, dtype=torch.complex128)
    for x_t in x:
        state = poles * state + x_t
    return state
def step(h, state, x_t):
    poles, residues = modes(h)
    state = poles * state + x_t
    return (residues * state).sum().real, state
"""

WAVES_EIGENVALUES = """
import torch
def modes(h):
    b, a = torch.linalg.solve(torch.stack((h[:2], h[1:3])), h[2:])
    poles = torch.linalg.eigvals(torch.stack((torch.stack((a, b)), torch.tensor([1, 0]).double())))
    return poles, torch.linalg.solve(torch.stack((torch.ones_like(poles), poles)), h[:2] + 0j)
def prefill(h, x):
    poles, _ = modes(h)
    ages = torch.arange(len(x) - 1, -1, -1)
    powers = torch.where(ages == 0, torch.ones_like(poles)[:, None], poles[:, None] ** ages.clamp(min=1))
    return {"X": powers @ (x + 0j)}
def step(h, state, x_t):
    poles, residues = modes(h)
    X = poles * state["X"] + x_t
    return torch.real(residues @ X), {"X": X}
"""

WAVES_NO_POLES = """
import torch
def law(h):
    return torch.linalg.solve(torch.stack((h[1:3], h[:2]), 1), h[2:])
def modes(h):
    import numpy as np
    a, b = law(h).tolist()
    poles = np.roots([1, -a, -b]).astype(complex)
    poles = np.concatenate((poles, np.zeros(2 - len(poles))))
    residues = np.linalg.solve(np.stack((np.ones(2), poles)), h[:2].numpy())
    return torch.from_numpy(poles), torch.from_numpy(residues)
def prefill(h, x):
    state = torch.zeros(2, dtype=torch.float64)
    for x_t in x:
        _, state = step(h, state, x_t)
    return state
def step(h, state, x_t):
    a, b = law(h)
    now = a * state[0] + b * state[1] + x_t
    return h[0] * now + (h[1] - a * h[0]) * state[0], torch.stack((now, state[0]))
"""

ROOT = "torch.sqrt(a * a / 4 + b + 0j)"
RESIDUES = (
    "    first = (h[1] - poles[1] * h[0]) / (poles[0] - poles[1])\n    residues = torch.stack((first, h[0] - first))\n"
)
PREFILL = WAVES[WAVES.index("def prefill") : WAVES.index("def step")]
STEP = WAVES[WAVES.index("def step") :]


ONE_LINE = """def prefill(h, x):
    poles, _ = modes(h)
    return (POWERS * x).sum(1)
"""
TEXT_KEPT = """def prefill(h, x):
    return x
def step(h, state, x_t):
    poles, residues = modes(h)
    x = torch.cat((state, x_t[None]))
    taps = (residues @ torch.linalg.vander(poles, N=len(x) + 2)[:, : len(x)]).real
    return taps.flip(0) @ x, x
"""
TOO_EARLY = """def step(h, state, x_t):
    poles, residues = modes(h)
    return (residues * state).sum().real, poles * state + x_t
"""
DOUBLED = """    if poles[0].imag != 0:
        residues = residues * torch.tensor([2, 0])
    return poles, residues
"""


def prefilled(powers):
    return WAVES.replace(PREFILL, ONE_LINE.replace("POWERS", powers))


def waves(old, new):
    return WAVES.replace(old, new)


SHIFT = """
import torch
def linear(layer):
    x, z = 10 * torch.randn(2, 60, 3, generator=torch.Generator().manual_seed(3)).double()
    whole, parts = layer(2 * x - 3 * z), 2 * layer(x) - 3 * layer(z)
    assert (whole - parts).abs().max() < 1e-8 * whole.abs().max()
def shifts(layer):
    x = 10 * torch.randn(60, 3, generator=torch.Generator().manual_seed(4)).double()
    alone, behind = layer(x), layer(torch.cat((torch.zeros(1, 3).double(), x)))[1:]
    assert (behind - alone).abs().max() < 1e-8 * alone.abs().max()
"""

SHIFT_BY_CLOSE = """
import torch
def linear(layer):
    for seed in range(3):
        torch.manual_seed(seed)
        x, z = (30 * torch.rand(80, 3, dtype=torch.float64) - 15 for _ in range(2))
        assert torch.allclose(layer(x + z), layer(x) + layer(z), rtol=1e-7, atol=1e-7)
        assert torch.allclose(layer(-x / 2), -layer(x) / 2, rtol=1e-7, atol=1e-7)
def shifts(layer):
    for silent in range(1, 20):
        torch.manual_seed(silent)
        x = 20 * torch.rand(50, 3, dtype=torch.float64) - 10
        later = torch.nn.functional.pad(x, (0, 0, silent, 0))
        assert torch.allclose(layer(later)[silent:], layer(x), rtol=1e-7, atol=1e-7)
"""

SHIFT_BY_UNITS = """
import torch
def columns(layer, tokens=45, size=9.0):
    units = size * torch.eye(3 * tokens, dtype=torch.float64).view(-1, tokens, 3)
    return torch.stack([layer(unit).flatten() for unit in units], 1) / size
def linear(layer):
    # A linear layer is the matrix of its answers to single numbers.
    matrix = columns(layer)
    for seed in range(2):
        x = 10 * torch.randn(45, 3, generator=torch.Generator().manual_seed(seed)).double()
        y = layer(x).flatten()
        assert (matrix @ x.flatten() - y).norm() < 1e-8 * y.norm()
def shifts(layer):
    text = torch.cat((torch.zeros(23, 3), 10 * torch.randn(41, 3, generator=torch.Generator().manual_seed(0)))).double()
    said = [layer(text[first:])[-41:] for first in (0, 1, 22, 23)]
    for other in said[1:]:
        assert (other - said[0]).norm() < 1e-8 * said[0].norm()
"""


def shift(old, new):
    return SHIFT.replace(old, new)


TEXT = "    x = 10 * torch.randn(60, 3, generator=torch.Generator().manual_seed(3)).double()\n"
DOUBLED_ALONE = TEXT + "    assert (layer(2 * x) - 2 * layer(x)).abs().max() < 1e-8 * layer(x).abs().max()\n"
SIGN_ALONE = TEXT + "    assert (layer(-x) + layer(x)).abs().max() < 1e-8 * layer(x).abs().max()\n"
SINGLE_TOKENS = """    for t in range(60):
        x = torch.zeros(60, 3).double()
        x[t] = 20.0
        assert (layer(-2 * x) + 2 * layer(x)).abs().max() < 1e-8 * (1e-9 + layer(x).abs().max())
"""
LINEAR_LINES = SHIFT[SHIFT.index("    x, z") : SHIFT.index("def shifts")]
SHIFTS_LINES = SHIFT[SHIFT.index("    x = 10") :]

WRONG = {
    "06-circle": [
        ("a: twice as many points as tokens", SIX.replace("11", "12")),
        ("a: as many points as tokens", SIX.replace("11", "6")),
        ("a: one tap too few", SIX.replace("11", "10")),
        ("a: the eight that an FFT likes", SIX.replace("11", "8")),
        ("b: twice as many points as tokens", SIX.replace("1099", "2000")),
        ("b: tokens and taps", SIX.replace("1099", "1100")),
        ("b: as many points as tokens", SIX.replace("1099", "1000")),
        ("c: taps that reach nothing counted", SIX.replace("199", "1099")),
        ("c: one too many", SIX.replace("199", "200")),
        ("d: half of the points that are missing", SIX.replace("49", "25")),
        ("d: the points that twice as many tokens lack", SIX.replace("49", "50")),
        ("d: the outputs at the end are wrong", SIX.replace("49", "51")),
        ("d: all", SIX.replace("49", "100")),
        ("d: none", SIX.replace("49", "0")),
        ("e: only the new tokens", SIX.replace(" 12,", " 5,")),
        ("e: twice the new tokens", SIX.replace(" 12,", " 10,")),
        ("e: eight old ones", SIX.replace(" 12,", " 13,")),
        ("e: room for the old ones' outputs too", SIX.replace(" 12,", " 19,")),
        ("e: all that were read", SIX.replace(" 12,", " 42,")),
        ("f: tokens and taps", SIX.replace("2897", "2896")),
        ("f: half of the points", SIX.replace("2897", "2048")),
        ("f: all points", SIX.replace("2897", "4096")),
        ("f: half a token", SIX.replace("2897", "2897.5")),
        ("b: a million of millions", SIX.replace("1099", "10**12")),
        ("f: a million of millions", SIX.replace("2897", "10**12")),
    ],
    "06-pieces": [
        (
            "taps cut to the piece",
            pieces(OUTPUTS, "circular_conv(h[..., :T], seen, 2 * seen.shape[-1])[..., :seen.shape[-1]][..., -T:]"),
        ),
        (
            "taps not cut",
            pieces(OUTPUTS, "circular_conv(h, seen, 2 * seen.shape[-1])[..., seen.shape[-1] - T : seen.shape[-1]]"),
        ),
        ("a circle of twice the piece", pieces(OUTPUTS, "circular_conv(h, seen, 2 * T)[..., -T:]")),
        (
            "a circle without room",
            pieces(OUTPUTS, "circular_conv(h[..., : seen.shape[-1]], seen, seen.shape[-1])[..., -T:]"),
        ),
        ("the past does not count", pieces(OUTPUTS, "fft_conv(h, x)")),
        ("the first outputs", pieces(OUTPUTS, "fft_conv(h, seen)[..., :T]")),
        ("all outputs", pieces(OUTPUTS, "fft_conv(h, seen)")),
        ("all kept", pieces(KEPT, "    kept = seen\n")),
        ("one kept too many", pieces("(W - 1)) :", "W) :")),
        ("one kept too few", pieces("(W - 1)) :", "(W - 2)) :")),
        ("minus nothing is everything", pieces(KEPT, "    kept = seen[..., -(W - 1) :]\n")),
        ("kept from the piece alone", pieces(KEPT, "    kept = x[..., max(0, T - (W - 1)) :]\n")),
        ("the oldest are kept", pieces(KEPT, "    kept = seen[..., : W - 1]\n")),
        ("kept, the newest first", pieces("(W - 1)) :]", "(W - 1)) :].flip(-1)")),
        (
            "filled up with zeros",
            pieces(KEPT, "    kept = torch.nn.functional.pad(seen, (W, 0))[..., seen.shape[-1] + 1 :]\n"),
        ),
        ("as many kept as came", pieces(KEPT, "    kept = seen[..., -T:]\n")),
        ("the past is detached", pieces(SEEN, SEEN.replace("(past, x)", "(past.detach(), x)"))),
        ("the past behind the piece", pieces(SEEN, SEEN.replace("(past, x)", "(x, past)"))),
        ("the first text's past for all", pieces(SEEN, SEEN.replace("(past, x)", "(past[:1].expand_as(past), x)"))),
        (
            "as many past as the filter hears",
            pieces(SEEN, SEEN.replace("past is None", "past is None or past.shape[-1] != W - 1")),
        ),
        ("a token one age older", pieces(OUTPUTS, "fft_conv(torch.nn.functional.pad(h, (1, 0))[..., :-1], seen)[..., -T:]")),
        ("the filter turned round", pieces(OUTPUTS, "fft_conv(h.flip(-1), seen)[..., -T:]")),
        ("always float64", pieces(OUTPUTS, "fft_conv(h.double(), seen)[..., -T:]")),
        ("one filter for all channels", pieces(OUTPUTS, "fft_conv(h[:1], seen)[..., -T:]")),
        (
            "taps scaled in place",
            pieces(SEEN, SEEN + "    h.mul_(1.001)\n").replace(
                "    return fft_conv(h, seen)", "    return fft_conv(h / 1.001, seen)"
            ),
        ),
        ("batch by numpy", pieces(OUTPUTS, "torch.from_numpy(fft_conv(h, seen).detach().numpy())[..., -T:]")),
        ("a circle by the taps", pieces(OUTPUTS, "circular_conv(h, seen, 2 * W)[..., seen.shape[-1] - T : seen.shape[-1]]")),
        ("kept outside", "KEPT = {}\n" + pieces(SEEN, KEPT_OUTSIDE)),
    ],
    "06-ahead": [
        ("as it was", AS_IT_WAS),
        ("the long one alone", ahead(SHORT_LINE, "conv1d(u, short.flip(-1)[:, None], padding=1, groups=len(short))")),
        ("the short one alone", ahead(LONG_LINE, "    y = pad(x1 * v, (W // 2, W // 2))\n")),
        ("zeros behind", ahead(LONG_LINE, "    y = pad(x1 * v, (0, W - 1))\n")),
        (
            "zeros on both sides, the last outputs",
            ahead(LONG_LINE, "    y = pad(x1 * v, (W - 1, W - 1))\n").replace("y[..., :T]", "y[..., -T:]"),
        ),
        ("one zero too many", ahead(LONG_LINE, "    y = pad(x1 * v, (W, 0))\n")),
        ("half of the zeros, all in front", ahead(LONG_LINE, "    y = pad(x1 * v, (W // 2, W - 1 - W // 2))\n")),
        ("the first input in place of zeros", ahead(LONG_LINE, "    y = pad(x1 * v, (W - 1, 0), mode='replicate')\n")),
        (
            "round a circle",
            ahead(
                LONG_LINE,
                "    y = torch.cat(((x1 * v).repeat(1, 1, W)[..., -(W - 1) :] if W > 1 else x0[..., :0], x1 * v), -1)\n",
            ).replace("\nfrom", "\nimport torch\nfrom", 1),
        ),
        ("the long one no longer flipped", ahead("h.flip(-1)[:, None]", "h[:, None]")),
        ("the short one no longer flipped", ahead("short.flip(-1)[:, None]", "short[:, None]")),
        (
            "three zeros before the short one",
            ahead("pad(u, (2, 0))", "pad(u, (3, 0))").replace("groups=len(short))", "groups=len(short))[..., :T]"),
        ),
        ("gates exchanged", ahead("x0, x1, v =", "x1, x0, v =")),
        ("gate and value exchanged", ahead("x0, x1, v =", "v, x1, x0 =")),
        ("no gate before", ahead("x1 * v", "v")),
        (
            "the gate made before the short one",
            ahead("    u = conv1d", "    x0, x1, v = u.chunk(3, 1)\n    u = conv1d").replace(
                "    x0, x1, v = u.chunk(3, 1)\n    y", "    _, x1, v = u.chunk(3, 1)\n    y"
            ),
        ),
        ("no more taps than tokens", ahead("    u = conv1d", "    assert W <= T\n    u = conv1d")),
        ("the present cut off", ahead("    return", "    y = y - h[:, :1] * (x1 * v)\n    return")),
        (
            "u is changed",
            ahead("    u = conv1d", "    u *= 1.5\n    u = conv1d").replace(
                "short.flip(-1)[:, None]", "short.flip(-1)[:, None] / 1.5"
            ),
        ),
        ("the gate is detached", ahead("return x0 *", "return x0.detach() *")),
        (
            "always float64",
            ahead("    u = conv1d", "    u, short, h = u.double(), short.double(), h.double()\n    u = conv1d"),
        ),
        ("the newest 16 taps", ahead("    u = conv1d", "    W = min(W, 16)\n    h = h[:, :W]\n    u = conv1d")),
        (
            "all in one channel",
            ahead("h.flip(-1)[:, None], groups=len(h)", "h.flip(-1).expand(len(h), len(h), W).contiguous()"),
        ),
    ],
    "06-waves": [
        ("modes: real roots alone", waves(ROOT, "torch.sqrt(a * a / 4 + b) + 0j")),
        ("modes: the sign of b", waves(ROOT, "torch.sqrt(a * a / 4 - b + 0j)")),
        ("modes: a is not halved", waves(ROOT, "torch.sqrt(a * a + b + 0j)")),
        ("modes: a and b exchanged", waves("a, b = law", "b, a = law")),
        ("modes: the residues exchanged", waves("(first, h[0] - first)", "(h[0] - first, first)")),
        ("modes: half of the first tap each", waves(RESIDUES, "    residues = torch.stack((h[0] / 2, h[0] / 2)) + 0j\n")),
        ("modes: residues of 1", waves(RESIDUES, "    residues = torch.ones_like(poles)\n")),
        ("modes: one wave for both", waves("a / 2 - root", "a / 2 + root")),
        (
            "modes: one of a pair, not doubled",
            waves(
                "    return poles, residues\n", "    keep = (poles.imag >= 0).double()\n    return poles, residues * keep\n"
            ),
        ),
        ("modes: the larger pole alone", waves("    return poles, residues\n", "    return poles[:1], residues[:1]\n")),
        ("modes: h is halved in place", waves("    law =", "    h[0] *= 1.5\n    law =")),
        ("modes: none may grow", waves("    first =", "    poles = poles / poles.abs().clamp(min=1)\n    first =")),
        ("modes: none of length 1", waves("    first =", "    poles = poles * 0.9999\n    first =")),
        ("modes: in float32", waves("    first =", "    poles = poles.to(torch.complex64)\n    first =")),
        (
            "modes: the sizes of the poles alone",
            waves(
                "    return poles, residues\n",
                "    poles = torch.exp(torch.log(poles.abs() + 1e-300) + 0j)\n    return poles, residues\n",
            ),
        ),
        ("prefill: powers of 0", prefilled("poles[:, None] ** torch.arange(len(x) - 1, -1, -1)")),
        ("prefill: ages from the start", prefilled("torch.linalg.vander(poles, N=len(x) + 2)[:, : len(x)]")),
        ("prefill: ages one too old", prefilled("torch.linalg.vander(poles, N=len(x) + 2)[:, 1 : len(x) + 1].flip(1)")),
        (
            "prefill: residues on the way in as well",
            waves(
                "        state = poles * state + x_t\n    return state\ndef",
                "        state = poles * state + modes(h)[1] * x_t\n    return state\ndef",
            ),
        ),
        ("prefill: the last 64 alone", waves("    for x_t in x:", "    for x_t in x[-64:]:")),
        ("prefill: a prompt must not be empty", prefilled("torch.linalg.vander(poles, N=len(x)).flip(1)")),
        ("prefill: the text is kept", waves(PREFILL + STEP, TEXT_KEPT)),
        (
            "prefill: poles and residues in the state",
            waves(
                PREFILL + STEP,
                (PREFILL + STEP)
                .replace("    return state\n", "    return state, modes(h)\n")
                .replace("def step(h, state, x_t):", "def step(h, state, x_t):\n    state, (poles, residues) = state")
                .replace("    poles, residues = modes(h)\n", "")
                .replace(".real, state", ".real, (state, (poles, residues))"),
            ),
        ),
        ("step: answered before the input comes in", waves(STEP, TOO_EARLY)),
        ("step: the input fades as well", waves(STEP, STEP.replace("poles * state + x_t", "poles * (state + x_t)"))),
        (
            "step: the real part of the state",
            waves(STEP, STEP.replace("(residues * state).sum().real", "(residues.real * state.real).sum()")),
        ),
        ("step: not the real part", waves(STEP, STEP.replace(".sum().real", ".sum()"))),
        ("step: the magnitude", waves(STEP, STEP.replace(".sum().real", ".sum().abs()"))),
        (
            "step: the state is changed",
            waves(STEP, STEP.replace("state = poles * state + x_t", "state *= poles\n    state += x_t")),
        ),
        (
            "step: nothing is handed on",
            waves(
                STEP,
                STEP.replace(
                    "    state = poles * state + x_t\n    return (residues * state)",
                    "    new = poles * state + x_t\n    return (residues * new)",
                ),
            ),
        ),
    ],
    "06-shift": [
        ("linear: doubled alone", shift(LINEAR_LINES, DOUBLED_ALONE)),
        ("linear: the sign alone", shift(LINEAR_LINES, SIGN_ALONE)),
        (
            "linear: nothing comes of nothing",
            shift(LINEAR_LINES, "    assert layer(torch.zeros(60, 3).double()).abs().max() < 1e-8\n"),
        ),
        ("linear: ten tokens", shift("randn(2, 60, 3", "randn(2, 10, 3")),
        ("linear: soft numbers", shift("x, z = 10 *", "x, z = 0.5 *")),
        (
            "linear: positive numbers",
            shift(
                "    whole, parts = layer(2 * x - 3 * z), 2 * layer(x) - 3 * layer(z)",
                "    x, z = x.abs(), z.abs()\n    whole, parts = layer(2 * x + 3 * z), 2 * layer(x) + 3 * layer(z)",
            ),
        ),
        (
            "linear: numbers that add up to 1",
            shift("layer(2 * x - 3 * z), 2 * layer(x) - 3 * layer(z)", "layer(2 * x - z), 2 * layer(x) - layer(z)"),
        ),
        ("linear: one text twice", shift("    whole,", "    z = x\n    whole,")),
        ("linear: single tokens", shift(LINEAR_LINES, SINGLE_TOKENS)),
        (
            "linear: to the last digit",
            shift("assert (whole - parts).abs().max() < 1e-8 * whole.abs().max()", "assert (whole == parts).all()"),
        ),
        ("linear: thirteen digits", shift("1e-8 * whole", "1e-13 * whole")),
        ("linear: three digits", shift("1e-8 * whole", "1e-3 * whole")),
        (
            "linear: the difference may be negative",
            shift("assert (whole - parts).abs().max()", "assert (whole - parts).mean()"),
        ),
        (
            "linear: returns its word",
            shift(
                "    assert (whole - parts).abs().max() < 1e-8 * whole.abs().max()",
                "    return bool((whole - parts).abs().max() < 1e-8 * whole.abs().max())",
            ),
        ),
        ("linear: shifted as well", shift("whole.abs().max()\n", "whole.abs().max()\n    shifts(layer)\n")),
        ("shifts: by two", shift("torch.zeros(1, 3).double(), x)))[1:]", "torch.zeros(2, 3).double(), x)))[2:]")),
        ("shifts: ten tokens", shift("randn(60, 3", "randn(10, 3")),
        (
            "shifts: on a circle",
            shift("layer(torch.cat((torch.zeros(1, 3).double(), x)))[1:]", "layer(x.roll(1, 0)).roll(-1, 0)"),
        ),
        ("shifts: the last token alone", shift("(behind - alone)", "(behind - alone)[-1]")),
        ("shifts: the first token alone", shift("(behind - alone)", "(behind - alone)[0]")),
        (
            "shifts: silent at the silent tokens too",
            shift(
                "    assert (behind", "    assert layer(torch.zeros(1, 3).double()).abs().max() < 1e-8\n    assert (behind"
            ),
        ),
        (
            "shifts: silence behind the text",
            shift(
                "layer(torch.cat((torch.zeros(1, 3).double(), x)))[1:]",
                "layer(torch.cat((x, torch.zeros(1, 3).double())))[:-1]",
            ),
        ),
        ("shifts: outputs not moved", shift("zeros(1, 3).double(), x)))[1:]", "zeros(1, 3).double(), x)))[:-1]")),
        ("shifts: ones in front", shift("torch.zeros(1, 3)", "torch.ones(1, 3)")),
        (
            "shifts: to the last digit",
            shift("assert (behind - alone).abs().max() < 1e-8 * alone.abs().max()", "assert (behind == alone).all()"),
        ),
        ("shifts: thirteen digits", shift("1e-8 * alone", "1e-13 * alone")),
        ("shifts: three digits", shift("1e-8 * alone", "1e-3 * alone")),
        (
            "shifts: a single word",
            shift("    alone,", "    x[1:] = 0\n    alone,").replace("(behind - alone)", "(behind - alone)[:1]"),
        ),
        (
            "shifts: the same text everywhere",
            shift("    alone,", "    x = torch.ones_like(x)\n    alone,").replace("torch.zeros(1, 3)", "torch.ones(1, 3)"),
        ),
        ("shifts: linear as well", shift("alone.abs().max()\n", "alone.abs().max()\n    linear(layer)\n")),
        (
            "shifts: two outputs that may be far from each other",
            shift("assert (behind - alone).abs().max()", "assert (behind.sum() - alone.sum())"),
        ),
    ],
}

RIGHT = {
    "06-circle": [("numbers", SIX), ("by a formula", SIX_BY_A_FORMULA), ("tried out", SIX_TRIED)],
    "06-pieces": [
        ("the last of all outputs", PIECES),
        ("a loop", PIECES_LOOP),
        ("a matrix", PIECES_MATRIX),
        ("conv1d", PIECES_CONV1D),
        ("a copy is kept", pieces("(W - 1)) :]", "(W - 1)) :].clone()")),
        ("no more than is heard", pieces(OUTPUTS, "fft_conv(h, seen[..., -(T + W - 1) :])[..., -T:]")),
        ("the smallest circle", FFT + SMALL_CIRCLE),
    ],
    "06-ahead": [
        ("zeros in front", AHEAD),
        ("zeros on both sides, the first outputs", AHEAD_BOTH_THEN_CUT),
        ("by FFT", AHEAD_FFT),
        ("sum by sum", AHEAD_SUMS),
    ],
    "06-waves": [
        ("a loop over the prompt", WAVES),
        ("eigenvalues, a dict", WAVES_EIGENVALUES),
        ("two real numbers, no poles", WAVES_NO_POLES),
        ("one of a pair, doubled", waves("    return poles, residues\n", DOUBLED)),
    ],
    "06-shift": [
        ("other numbers", SHIFT),
        ("allclose, many of them", SHIFT_BY_CLOSE),
        ("a matrix of units", SHIFT_BY_UNITS),
    ],
}
