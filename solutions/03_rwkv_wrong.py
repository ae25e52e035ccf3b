"""Answers to exercise 03: wrong ones, each one difference away from a right one, and right ones written differently."""


def _changed(source: str, *changes: tuple[str, str]) -> str:
    """The source with one mistake made in it."""
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in:\n{source}"
        source = source.replace(old, new)
    return source


BONUS = """
import torch
def bonus(log_decay):
    return -log_decay
"""

RUNNING_MAXIMUM = """
import torch
def wkv(k, v, log_decay, bonus):
    num, den, top = torch.zeros_like(v[0]), torch.zeros_like(v[0]), torch.full_like(v[0], -1e38)
    outputs = []
    for k_t, v_t in zip(k, v):
        high = torch.maximum(top, bonus + k_t)
        old, new = torch.exp(top - high), torch.exp(bonus + k_t - high)
        outputs.append((old * num + new * v_t) / (old * den + new))
        high = torch.maximum(top + log_decay, k_t)
        before, after = torch.exp(top + log_decay - high), torch.exp(k_t - high)
        num, den, top = before * num + after * v_t, before * den + after, high
    return torch.stack(outputs)
"""

UNSHIFTED = """
import torch
def wkv(k, v, log_decay, bonus):
    num, den = torch.zeros_like(v[0]), torch.zeros_like(v[0])
    outputs = []
    for k_t, v_t in zip(k, v):
        now = torch.exp(bonus + k_t)
        outputs.append((num + now * v_t) / (den + now))
        num = torch.exp(log_decay) * num + torch.exp(k_t) * v_t
        den = torch.exp(log_decay) * den + torch.exp(k_t)
    return torch.stack(outputs)
"""

WHOLE_MAXIMUM = """
import torch
def wkv(k, v, log_decay, bonus):
    shifted = k - k.max(0).values
    num, den = torch.zeros_like(v[0]), torch.zeros_like(v[0])
    outputs = []
    for k_t, v_t in zip(shifted, v):
        now = torch.exp(bonus + k_t)
        outputs.append((num + now * v_t) / (den + now))
        num = torch.exp(log_decay) * num + torch.exp(k_t) * v_t
        den = torch.exp(log_decay) * den + torch.exp(k_t)
    return torch.stack(outputs)
"""

ALL_PAIRS = """
import torch
def wkv(k, v, log_decay, bonus):
    outputs = []
    for t in range(len(k)):
        ages = torch.arange(t - 1, -1, -1, dtype=k.dtype)[:, None]
        logs = torch.cat((k[:t] + ages * log_decay, (bonus + k[t])[None]))
        outputs.append((torch.softmax(logs, 0) * v[: t + 1]).sum(0))
    return torch.stack(outputs)
"""

MEAN_AND_LOG_WEIGHT = """
import torch
def wkv(k, v, log_decay, bonus):
    mean, weight = v[0] * 0, k[0] * 0 - 1e38
    outputs = []
    for t in range(len(k)):
        share = torch.sigmoid(bonus + k[t] - weight)
        outputs.append(mean + share * (v[t] - mean))
        mean = mean + torch.sigmoid(k[t] - weight - log_decay) * (v[t] - mean)
        weight = torch.logaddexp(weight + log_decay, k[t])
    return torch.stack(outputs)
"""

MIXER = """
import torch
def mixer(x, mu, log_decay, bonus, state=None):
    last, S = (x[0] * 0, x.new_zeros(x.shape[1], x.shape[1])) if state is None else state
    decay, outputs = torch.exp(log_decay)[:, None], []
    for x_t in x:
        y = x_t + mu * (last - x_t)
        written = torch.outer(y, y)
        outputs.append(y @ (S + bonus[:, None] * written))
        S = decay * S + written
        last = x_t
    return torch.stack(outputs), (last, S)
"""

MIXER_IN_PAIRS = """
import torch
def mixer(x, mu, log_decay, bonus, state=None):
    last, S = (torch.zeros_like(x[0]), x[:1].T @ x[:1] * 0) if state is None else state
    past = torch.cat((last[None], x[:-1]))
    y = torch.lerp(x, past, mu)
    t = torch.arange(len(x), dtype=x.dtype)
    steps = (t[:, None] - t - 1)[:, :, None]
    faded = torch.where(steps >= 0, torch.exp(steps.clamp(min=0) * log_decay), 0)
    scores = (y[:, None] * y * faded).sum(-1) + torch.diag((y * bonus * y).sum(-1))
    outputs = scores @ y + (y * torch.exp(t[:, None] * log_decay)) @ S
    left = torch.exp((len(x) - 1 - t)[:, None] * log_decay)
    return outputs, (x[-1], torch.exp(len(x) * log_decay)[:, None] * S + (y * left).T @ y)
"""

FACTORED_MIXER = """
import torch
def mixer(x, mu, log_decay, bonus, state=None):
    last, S = (torch.zeros_like(x[0]), x[:1].T @ x[:1] * 0) if state is None else state
    past = torch.cat((last[None], x[:-1]))
    y = torch.lerp(x, past, mu)
    t = torch.arange(len(x), dtype=x.dtype)[:, None]
    scores = ((y * torch.exp(t * log_decay)) @ (y * torch.exp(-(t + 1) * log_decay)).T).tril(-1)
    outputs = (scores + torch.diag((y * bonus * y).sum(-1))) @ y + (y * torch.exp(t * log_decay)) @ S
    left = torch.exp((len(x) - 1 - t) * log_decay)
    return outputs, (x[-1], torch.exp(len(x) * log_decay)[:, None] * S + (y * left).T @ y)
"""

TEST = """
import torch
def test(wkv6):
    torch.manual_seed(1)
    r, k, clocks = torch.randn(3, 5, 4, dtype=torch.float64)
    v, S, u = torch.randn(5, 3).double(), torch.randn(4, 3).double(), torch.randn(4).double()
    log_decay = -torch.exp(clocks)
    outputs, final = wkv6(r, k, v, log_decay, u, S)
    wanted = []
    for t in range(len(k)):
        written = k[t][:, None] * v[t]
        wanted.append(r[t] @ (S + u[:, None] * written))
        S = torch.exp(log_decay[t])[:, None] * S + written
    assert (outputs - torch.stack(wanted)).abs().max() < 1e-9
    assert (final - S).abs().max() < 1e-9
"""

TEST_BY_HAND = """
import math, torch
def test(wkv6):
    one, two = torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0]])
    decay = torch.tensor([[0.5, 0.25]]).log()
    S = torch.tensor([[8.0], [16.0]])
    outputs, final = wkv6(one, one, two, decay, torch.tensor([3.0, 0.0]), S)
    assert math.isclose(float(outputs), 8 + 16 + 3 * 2, rel_tol=1e-5)
    assert torch.allclose(final, torch.tensor([[4.0 + 2], [4.0 + 2]]))
"""

WRONG = {
    "03-limit": [
        ("nothing at the start", "outputs = [0, 2, 4, 5.7143, 3.2, 3.6129]"),
        ("the present alone: u to plus infinity", "outputs = [2, 5, 7, 1, 4, 0]"),
        ("u = 0", "outputs = [2, 3.5, 5.2, 4, 3.4783, 2.383]"),
        ("the previous token alone", "outputs = [2, 2, 5, 7, 1, 4]"),
        ("a mean that does not fade", "outputs = [2, 2, 3.5, 4.6667, 3.75, 3.8]"),
        ("sums that are not divided", "outputs = [2, 2, 6, 10, 6, 7]"),
        ("decayed once more: only the top", "outputs = [2, 1, 2, 2.8571, 1.6, 1.8065]"),
        ("two digits", "outputs = [2, 2, 4, 5.7, 3.2, 3.6]"),
        ("one left out", "outputs = [2, 2, 4, 5.7143, 3.2]"),
    ],
    "03-bonus": [
        ("the other sign", _changed(BONUS, ("-log_decay", "log_decay"))),
        ("no bonus at all", _changed(BONUS, ("-log_decay", "torch.zeros_like(log_decay)"))),
        ("the factor, not its logarithm", _changed(BONUS, ("-log_decay", "torch.exp(-log_decay)"))),
        ("the decay itself", _changed(BONUS, ("-log_decay", "torch.exp(log_decay)"))),
        ("two steps of decay", _changed(BONUS, ("-log_decay", "-2 * log_decay"))),
        ("the clock as RWKV stores it", _changed(BONUS, ("-log_decay", "torch.log(-log_decay)"))),
        ("detached", _changed(BONUS, ("-log_decay", "-log_decay.detach()"))),
        ("one for all channels", _changed(BONUS, ("-log_decay", "-log_decay.mean().expand_as(log_decay)"))),
        ("in place", _changed(BONUS, ("-log_decay", "log_decay.data.neg_()"))),
    ],
    "03-maximum": [
        ("a maximum over the whole sequence", WHOLE_MAXIMUM),
        ("no maximum", UNSHIFTED),
        ("keys clamped", _changed(UNSHIFTED, ("    num, den =", "    k = k.clamp(-80, 80)\n    num, den ="))),
        (
            "keys clamped where exp still holds",
            _changed(UNSHIFTED, ("    num, den =", "    k = k.clamp(-700, 700)\n    num, den =")),
        ),
        (
            "a maximum over the channels",
            _changed(RUNNING_MAXIMUM, ("(top + log_decay, k_t)", "(top + log_decay, k_t).max() + 0 * k_t")),
        ),
        ("an empty maximum of 0", _changed(RUNNING_MAXIMUM, ("-1e38", "0.0"))),
        ("old sums not rescaled", _changed(RUNNING_MAXIMUM, ("before * num", "torch.exp(log_decay) * num"))),
        ("the maximum does not decay", _changed(RUNNING_MAXIMUM, ("exp(top + log_decay - high)", "exp(top - high)"))),
        ("the bonus is remembered", _changed(RUNNING_MAXIMUM, ("torch.exp(k_t - high)", "torch.exp(bonus + k_t - high)"))),
        (
            "no bonus",
            _changed(
                RUNNING_MAXIMUM,
                ("new = torch.exp(top - high), torch.exp(bonus + k_t", "new = torch.exp(top - high), torch.exp(k_t"),
            ),
        ),
        (
            "the newest key fades at once",
            _changed(RUNNING_MAXIMUM, ("torch.exp(k_t - high)", "torch.exp(k_t + log_decay - high)")),
        ),
        (
            "the maximum is kept, not replaced",
            _changed(RUNNING_MAXIMUM, ("+ after, high", "+ after, torch.maximum(top, k_t)")),
        ),
        ("detached", _changed(RUNNING_MAXIMUM, ("torch.stack(outputs)", "torch.stack(outputs).detach()"))),
        ("keys detached", _changed(RUNNING_MAXIMUM, ("    outputs = []", "    k, outputs = k.detach(), []"))),
        (
            "keys changed in place",
            _changed(RUNNING_MAXIMUM, ("    outputs = []", "    k.data.sub_(1)\n    outputs = []")),
        ),
        ("sees the next value", _changed(RUNNING_MAXIMUM, ("zip(k, v)", "zip(k, torch.cat((v[1:], v[-1:])))"))),
    ],
    "03-resume": [
        ("begins anew at a cut", _changed(MIXER, (" if state is None else state", ""))),
        ("forgets the last token", _changed(MIXER, ("    decay, outputs", "    last = x[0] * 0\n    decay, outputs"))),
        ("carries the mixture, not the token", _changed(MIXER, ("last = x_t", "last = y"))),
        ("forgets the matrix", _changed(MIXER, ("    decay, outputs", "    S = 0 * S\n    decay, outputs"))),
        (
            "hands over what the last token read",
            _changed(MIXER, ("        S = decay", "        read = S\n        S = decay"), ("(last, S)\n", "(last, read)\n")),
        ),
        ("fades once more at a cut", _changed(MIXER, ("(last, S)\n", "(last, decay * S)\n"))),
        ("keeps every token", _changed(MIXER, ("(last, S)\n", "(last, S, x)\n"), ("else state", "else state[:2]"))),
        ("writes into the state it was given", _changed(MIXER, ("S = decay * S + written", "S.mul_(decay).add_(written)"))),
        ("mu weighs the present", _changed(MIXER, ("x_t + mu * (last - x_t)", "last + mu * (x_t - last)"))),
        ("no shift", _changed(MIXER, ("x_t + mu * (last - x_t)", "x_t"))),
        ("shifts the other way round", _changed(MIXER_IN_PAIRS, ("(last[None], x[:-1])", "(x[1:], last[None])"))),
        ("the first token sees the last", _changed(MIXER, ("x[0] * 0, x.new", "x[-1], x.new"))),
        ("reads after the decay", _changed(MIXER, ("(S + bonus", "(decay * S + bonus"))),
        ("remembers the bonus", _changed(MIXER, ("* S + written", "* S + bonus[:, None] * written"))),
        ("no bonus", _changed(MIXER, ("S + bonus[:, None] * written)", "S + written)"))),
        ("clocks on the value's side", _changed(MIXER, ("torch.exp(log_decay)[:, None]", "torch.exp(log_decay)"))),
        ("the old state is not faded", _changed(MIXER_IN_PAIRS, ("(y * torch.exp(t[:, None] * log_decay)) @ S", "y @ S"))),
        ("factored exponentials", FACTORED_MIXER),
        ("the state is detached", _changed(MIXER, ("(last, S)\n", "(last.detach(), S.detach())\n"))),
        ("clocks changed in place", _changed(MIXER, ("torch.exp(log_decay)", "log_decay.exp_()"))),
        ("clocks clamped", _changed(MIXER, ("torch.exp(log_decay)", "torch.exp(log_decay.clamp(min=-1))"))),
    ],
    "03-kill": [
        ("the outputs only", _changed(TEST, ("    assert (final - S).abs().max() < 1e-9\n", ""))),
        ("the state only", _changed(TEST, ("    assert (outputs - torch.stack(wanted)).abs().max() < 1e-9\n", ""))),
        ("a bonus of 1, so it cannot show", _changed(TEST, ("torch.randn(4).double()\n", "torch.ones(4).double()\n"))),
        ("no decay, so it cannot show", _changed(TEST, ("-torch.exp(clocks)", "torch.zeros_like(clocks)"))),
        ("all clocks equal", _changed(TEST, ("-torch.exp(clocks)", "-torch.ones_like(clocks)"))),
        ("never begins in the middle", _changed(TEST, ("torch.randn(4, 3).double()", "torch.zeros(4, 3).double()"))),
        (
            "shapes only",
            _changed(
                TEST,
                ("(outputs - torch.stack(wanted)).abs().max() < 1e-9", "outputs.shape == (5, 3)"),
                ("(final - S).abs().max() < 1e-9", "final.shape == (4, 3)"),
            ),
        ),
        (
            "finite only",
            _changed(
                TEST,
                ("(outputs - torch.stack(wanted)).abs().max() < 1e-9", "outputs.isfinite().all()"),
                ("(final - S).abs().max() < 1e-9", "final.isfinite().all()"),
            ),
        ),
        (
            "too loose",
            _changed(
                TEST,
                ("max() < 1e-9\n    assert (final", "max() < 10\n    assert (final"),
                ("S).abs().max() < 1e-9", "S).abs().max() < 10"),
            ),
        ),
        (
            "to the last digit",
            _changed(
                TEST, ("(outputs - torch.stack(wanted)).abs().max() < 1e-9", "torch.equal(outputs, torch.stack(wanted))")
            ),
        ),
        ("rejects everything", "def test(wkv6):\n    assert False\n"),
        ("accepts everything", "def test(wkv6):\n    pass\n"),
        (
            "only asks whether pieces agree with the whole",
            """
import torch
def test(wkv6):
    r, k, v, d = torch.randn(4, 6, 3).double()
    u = torch.randn(3).double()
    whole, _ = wkv6(r, k, v, -d.exp(), u)
    _, S = wkv6(r[:3], k[:3], v[:3], -d[:3].exp(), u)
    rest, _ = wkv6(r[3:], k[3:], v[3:], -d[3:].exp(), u, S)
    assert torch.allclose(whole[3:], rest)
""",
        ),
    ],
}

RIGHT = {
    "03-limit": [
        ("rounded", "outputs = [2, 2, 4, 5.7143, 3.2, 3.6129]"),
        (
            "computed with a very small weight",
            "A, D, outputs = 0.0, 0.0, []\nfor v in (2, 5, 7, 1, 4, 0):\n"
            "    outputs.append((A + 1e-30 * v) / (D + 1e-30))\n    A, D = A / 2 + v, D / 2 + 1\n",
        ),
    ],
    "03-bonus": [
        ("times minus one", _changed(BONUS, ("-log_decay", "log_decay * -1.0"))),
        ("logarithm of the inverse decay", _changed(BONUS, ("-log_decay", "torch.log(1 / torch.exp(log_decay))"))),
    ],
    "03-maximum": [
        ("a running maximum", RUNNING_MAXIMUM),
        ("an empty maximum of -inf", _changed(RUNNING_MAXIMUM, ("-1e38", "-float('inf')"))),
        ("a softmax over the past", ALL_PAIRS),
        ("a running mean and its log weight", MEAN_AND_LOG_WEIGHT),
    ],
    "03-resume": [
        ("a loop", MIXER),
        ("all pairs and the state", MIXER_IN_PAIRS),
    ],
    "03-kill": [
        ("beside a loop", TEST),
        ("by hand, one token", TEST_BY_HAND),
    ],
}
