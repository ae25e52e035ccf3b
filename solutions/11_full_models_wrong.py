"""Answers to exercise 11: wrong ones, each one difference away from a right one, and right ones written differently.

A replacement that finds nothing leaves a right answer, and the test of this file says so.
"""

SIX = """
a = "GGWGGWGGWGGWGGWGGWGGWGGWGG"
b = "MMMAMMMMMAMMMMMAMMMM"
c, d, e, f = 4, 55, 7, 11
"""

SIX_COUNTED = """
a = "".join("GGW"[layer % 3] for layer in range(26))
b = list(20 * "M")
for layer in range(3, 20, 6):
    b[layer] = "A"
b = "".join(b)
experts = set(range(1, 20, 4))
c = len(experts - {3, 9, 15})
calls = [3, 8, 12, 19, 20, 27, 33]
d = float(sum(layer for call, layer in enumerate(calls) if call % 3 == 0))
e = len(calls)
groups = [[1, 2], [3, 4], [5, 6], [7, 8], [10, 11, 12], [13, 14], [15, 16], [17, 18]]
f = len({next((group[0] for group in groups if layer in group), layer) for layer in range(20)})
"""

STACK = """
def stack(x, layers, ratio, states=None):
    states = list(states) if states is not None else [None] * len(layers)
    for number, layer in enumerate(layers):
        attends = (number + 1) % (ratio + 1) == 0
        mixer = layer.attention if attends else layer.recurrence
        found, states[number] = mixer(layer.mixer_norm(x), states[number])
        x = x + found
        x = x + layer.mlp(layer.channel_norm(x))
    return x, states
"""

KEPT = """
def kept(layers, ratio, tokens, sizes):
    word = (("G" * ratio + "W") * layers)[:layers]
    rows = min(tokens, sizes["window"] - 1)
    kinds = {
        "G": 4 * sizes["width"] + 2 * sizes["width"] * (sizes["taps"] - 1),
        "W": 2 * 2 * rows * sizes["groups"] * sizes["head_width"],
    }
    return sum(kinds[letter] for letter in word)
"""

BOTH = STACK + KEPT

BY_GROUPS = """
def stack(x, layers, ratio, states=None):
    waiting = iter([None] * len(layers) if states is None else states)
    after = []
    for first in range(0, len(layers), ratio + 1):
        group = layers[first : first + ratio + 1]
        for place, layer in enumerate(group):
            read = layer.mixer_norm(x)
            found, state = (layer.recurrence if place < ratio else layer.attention)(read, next(waiting))
            y = x + found
            x = y + layer.mlp(layer.channel_norm(y))
            after.append(state)
    return x, tuple(after)
def kept(layers, ratio, tokens, sizes):
    total = 0
    for number in range(layers):
        if number % (ratio + 1) < ratio:
            total += sizes["width"] * (2 * sizes["taps"] + 2)
        else:
            total += 4 * sizes["groups"] * sizes["head_width"] * min(tokens, sizes["window"] - 1)
    return total
"""

BLOCK = """
import torch
from torch.nn.functional import gelu
from hybridlab.ops import linear_recurrence
def block(x, w, state=None):
    u = x @ w.main.T
    B, T, E = u.shape
    W = len(w.taps)
    rows, h = state if state is not None else (u.new_zeros(B, W - 1, E), None)
    late = torch.cat((rows, u), 1)
    rows = late[:, T:].clone()
    v = sum(tap * late[:, i : i + T] for i, tap in enumerate(w.taps))
    h, last = linear_recurrence(w.decay.expand_as(v), v, h)
    return (gelu(x @ w.gate.T) * h) @ w.out.T, (rows, last)
"""

BLOCK_STEP_BY_STEP = """
import torch
from torch.nn.functional import gelu
def block(x, w, state=None):
    B, E = len(x), len(w.main)
    rows, h = (x.new_zeros(B, len(w.taps) - 1, E), x.new_zeros(B, E)) if state is None else state
    outputs = []
    for x_t in x.unbind(1):
        late = torch.cat((rows, (x_t @ w.main.T)[:, None]), 1)
        h = w.decay * h + torch.einsum("we,bwe->be", w.taps, late)
        outputs.append((gelu(x_t @ w.gate.T) * h) @ w.out.T)
        rows = late[:, 1:]
    return torch.stack(outputs, 1), (rows.clone(), h)
"""

BLOCK_OF_OPS = """
from torch.nn.functional import gelu
from hybridlab.ops import linear_recurrence, short_conv
def block(x, w, state=None):
    rows, h = (None, None) if state is None else state
    u, rows = short_conv(x @ w.main.T, w.taps.T, state=rows)
    heard, h = linear_recurrence(w.decay.expand_as(u), u, h)
    return (gelu(x @ w.gate.T) * heard) @ w.out.T, (rows, h)
"""

AS_IT_WAS = """
from torch.nn.functional import gelu, pad
from hybridlab.ops import linear_recurrence
def block(x, w, state=None):
    u = x @ w.main.T
    late = pad(u, (0, 0, len(w.taps) - 1, 0))
    u = sum(tap * late[:, i : i + u.shape[1]] for i, tap in enumerate(w.taps))
    h, state = linear_recurrence(w.decay.expand_as(u), u, state)
    return (gelu(x @ w.gate.T) * h) @ w.out.T, state
"""

ROWS_RETURNED_ALONE = """
import torch
from torch.nn.functional import gelu, pad
from hybridlab.ops import linear_recurrence
def block(x, w, state=None):
    u = x @ w.main.T
    late = pad(u, (0, 0, len(w.taps) - 1, 0))
    v = sum(tap * late[:, i : i + u.shape[1]] for i, tap in enumerate(w.taps))
    h, last = linear_recurrence(w.decay.expand_as(v), v, None if state is None else state[1])
    return (gelu(x @ w.gate.T) * h) @ w.out.T, (late[:, late.shape[1] - len(w.taps) + 1 :].clone(), last)
"""

TEST = """
import torch
def test(model):
    ids, other = torch.randint(13, (2, 4, 32), generator=torch.Generator().manual_seed(0))
    whole = model(ids)
    for t in range(1, 32):
        changed = torch.cat((ids[:, :t], other[:, t:]), 1)
        moved = (model(changed) - whole)[:, :t].abs().max()
        assert moved < 1e-9 * whole.abs().max()
"""

TEST_FROM_BEHIND = """
import torch
def test(model):
    for seed in (5, 6):
        rng = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, 13, (4, 32), generator=rng)
        before = model(ids)
        size = before.abs().max()
        for t in reversed(range(1, 32)):
            ids = ids.clone()
            ids[:, t] = torch.randint(0, 13, (4,), generator=rng)
            torch.testing.assert_close(model(ids)[:, :t] / size, before[:, :t] / size, rtol=0, atol=1e-8)
"""

TEST_BY_SHIFT = """
import torch
def test(model):
    ids = torch.randint(13, (4, 32), generator=torch.Generator().manual_seed(1))
    right = model(ids)
    seen = []
    for t in range(31):
        later = torch.arange(32) > t
        for step in (1, 6):
            wrong = model(torch.where(later, (ids + step) % 13, ids))
            seen.append((wrong - right)[:, : t + 1].abs().max() / right.abs().max())
    if max(seen) > 1e-8:
        raise AssertionError("it sees the future")
"""

TEST_ONE_TOKEN = """
import torch
def test(model):
    ids = torch.randint(13, (4, 32), generator=torch.Generator().manual_seed(2))
    right = model(ids)
    for t in range(1, 32):
        changed = ids.clone()
        changed[:, t] = (ids[:, t] + 1) % 13
        assert (model(changed) - right)[:, :t].abs().max() < 1e-9 * right.abs().max()
"""

TEST_OF_NOISE = """
import torch
def test(model):
    ids = torch.randint(13, (4, 32), generator=torch.Generator().manual_seed(0))
    loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert loss > 2.4
"""

LOAD = """
def load(model, tensors, ids, logits):
    before = {name: x.clone() for name, x in model.state_dict().items()}
    missing = next(name for name in before if name not in tensors)
    shape = before[missing].shape
    known = {name: tensors[name] for name in before if name != missing}
    for foreign in [name for name in tensors if name not in before]:
        own = tensors[foreign]
        ways = [own, own.mT] if own.dim() == 2 else [own]
        for x in ways:
            if x.shape != shape:
                continue
            model.load_state_dict(known | {missing: x})
            if (model(ids).logits - logits).abs().max() < 1e-8 * logits.abs().max():
                return missing, foreign
    model.load_state_dict(before)
    raise ValueError("no tensor gives the logits")
"""

LOAD_A_COPY = """
import copy
import torch
def load(model, tensors, ids, logits):
    names = set(model.state_dict())
    (missing,) = names - set(tensors)
    trial = copy.deepcopy(model)
    for foreign in sorted(set(tensors) - names):
        for turned in (False, True):
            own = tensors[foreign]
            if turned and own.dim() != 2:
                continue
            state = {name: x for name, x in tensors.items() if name in names}
            state[missing] = own.T if turned else own
            try:
                trial.load_state_dict(state)
            except RuntimeError:
                continue
            said = trial(ids).logits
            if torch.allclose(said, logits, rtol=0, atol=1e-8 * logits.abs().max().item()):
                model.load_state_dict(state)
                return missing, foreign
    raise ValueError(missing)
"""

BEST_OF_ALL = """
import math
def load(model, tensors, ids, logits):
    before = {name: x.clone() for name, x in model.state_dict().items()}
    (missing,) = before.keys() - tensors.keys()
    known = {name: x for name, x in tensors.items() if name in before}
    found = {}
    for foreign in tensors.keys() - before.keys():
        own = tensors[foreign]
        for x in (own, own.mT) if own.dim() == 2 else (own,):
            if x.shape == before[missing].shape:
                model.load_state_dict({**known, missing: x})
                error = (model(ids).logits - logits).abs().max().item()
                found[error if math.isfinite(error) else math.inf] = (foreign, x)
    if not found:
        model.load_state_dict(before)
        raise ValueError("nothing fits")
    foreign, x = found[min(found)]
    model.load_state_dict({**known, missing: x})
    return missing, foreign
"""

RIGHT = {
    "11-layers": [("counted by hand", SIX), ("counted by a program", SIX_COUNTED)],
    "11-ratio": [("a word", BOTH), ("by groups", BY_GROUPS)],
    "11-conv": [("all tokens at once", BLOCK), ("token by token", BLOCK_STEP_BY_STEP), ("of hybridlab's ops", BLOCK_OF_OPS)],
    "11-clairvoyant": [
        ("cut and paste", TEST),
        ("from behind", TEST_FROM_BEHIND),
        ("other ids", TEST_BY_SHIFT),
        ("one token", TEST_ONE_TOKEN),
    ],
    "11-names": [("in the model", LOAD), ("in a copy", LOAD_A_COPY)],
}

WRONG = {
    "11-layers": [
        ("a: whole groups", SIX.replace('WGG"\nb', 'WGW"\nb')),
        ("a: attention first", SIX.replace('"GGWGGWGGWGGWGGWGGWGGWGGWGG"', '("WGG" * 9)[:26]')),
        ("a: as many as groups allow", SIX.replace('WGG"\nb', 'W"\nb')),
        ("b: counted from 1", SIX.replace("MMMAMMMMMAMMMMMAMMMM", "MMAMMMMMAMMMMMAMMMMM")),
        ("b: the offset is left out", SIX_COUNTED.replace("range(3, 20, 6)", "range(0, 20, 6)")),
        ("b: period and offset exchanged", SIX_COUNTED.replace("range(3, 20, 6)", "range(0, 20, 3)")),
        ("b: a list", SIX.replace('"MMMAMMMMMAMMMMMAMMMM"', '["M"] * 20')),
        ("c: layers that attend, too", SIX.replace("= 4, 55", "= 5, 55")),
        ("c: only those that attend", SIX.replace("= 4, 55", "= 1, 55")),
        ("d: whatever three divides", SIX.replace("55", "3 + 12 + 27 + 33")),
        ("d: the first third", SIX.replace("55", "3 + 8")),
        ("d: counted from 1", SIX.replace("55", "4 + 20 + 34")),
        ("e: a list a block", SIX.replace("7, 11", "3, 11")),
        ("e: a list a layer", SIX.replace("7, 11", "36, 11")),
        ("f: the layers in groups borrow", SIX.replace("7, 11", "7, 3")),
        ("f: groups are pairs", SIX.replace("7, 11", "7, 12")),
        ("f: all keep one", SIX.replace("7, 11", "7, 20")),
        ("f: a list a group", SIX.replace("7, 11", "7, 8")),
    ],
    "11-ratio": [
        ("attention first", BOTH.replace("(number + 1) % (ratio + 1)", "number % (ratio + 1)")),
        ("one in ratio", BOTH.replace("(number + 1) % (ratio + 1) == 0", "number % max(1, ratio) == ratio - 1")),
        ("attention at the end, too", BOTH.replace("% (ratio + 1) == 0", "% (ratio + 1) == 0 or number == len(layers) - 1")),
        (
            "as many lists as recurrences",
            BOTH.replace("(number + 1) % (ratio + 1) == 0", "ratio and (number + 1) % (ratio + 1) == 0"),
        ),
        ("at least one attends", BOTH.replace("% (ratio + 1) == 0", "% min(ratio + 1, len(layers)) == 0")),
        ("no norm in front of the mixer", BOTH.replace("layer.mixer_norm(x)", "x")),
        (
            "the norms exchanged",
            BOTH.replace("channel_norm", "other").replace("mixer_norm", "channel_norm").replace("other", "mixer_norm"),
        ),
        ("the mixer replaces the stream", BOTH.replace("x = x + found", "x = found")),
        ("side by side", BOTH.replace("x = x + found\n        x = x +", "x = x + found +")),
        ("the MLP replaces the stream", BOTH.replace("x = x + layer.mlp", "x = layer.mlp")),
        ("states are forgotten", BOTH.replace("(layer.mixer_norm(x), states[number])", "(layer.mixer_norm(x), None)")),
        ("states are written over", BOTH.replace("list(states) if", "states if")),
        ("states from above", BOTH.replace("return x, states", "return x, states[::-1]")),
        (
            "states by kind",
            BOTH.replace("return x, states", "return x, sorted(states, key=lambda state: state.dim())"),
        ),
        (
            "both mixers run",
            BOTH.replace("        x = x + found", "        layer.attention(x, None)\n        x = x + found"),
        ),
        ("without autograd", "import torch\n" + BOTH.replace("def stack", "@torch.no_grad()\ndef stack")),
        ("always float64", BOTH.replace("    for number", "    x = x.double()\n    for number")),
        ("adds in place", BOTH.replace("x = x + found", "x += found")),
        (
            "the text's mean is taken away",
            BOTH.replace("    return x, states", "    return x - x.mean(1, keepdim=True), states"),
        ),
        ("every cut begins anew", BOTH.replace("else [None]", "and x.shape[1] > 1 else [None]")),
        ("kept: the window counts the past alone", BOTH.replace('sizes["window"] - 1', 'sizes["window"]')),
        ("kept: everything is seen", BOTH.replace('min(tokens, sizes["window"] - 1)', "tokens")),
        ("kept: the convolution is full later", BOTH.replace('(sizes["taps"] - 1)', 'min(tokens, sizes["taps"] - 1)')),
        ("kept: a row for each tap", BOTH.replace('(sizes["taps"] - 1)', 'sizes["taps"]')),
        ("kept: two bytes everywhere", BOTH.replace('4 * sizes["width"]', '2 * sizes["width"]')),
        ("kept: four bytes everywhere", BOTH.replace('2 * sizes["width"] * (', '4 * sizes["width"] * (')),
        ("kept: keys and no values", BOTH.replace("2 * 2 * rows", "2 * rows")),
        ("kept: one head", BOTH.replace('sizes["groups"] * ', "")),
        ("kept: whole groups", BOTH.replace("* layers)[:layers]", "* -(-layers // (ratio + 1)))")),
        (
            "kept: attention is a share",
            BOTH.replace(
                "return sum(kinds[letter] for letter in word)",
                'share = layers / (ratio + 1)\n    return (layers - share) * kinds["G"] + share * kinds["W"]',
            ),
        ),
    ],
    "11-conv": [
        ("as it was", AS_IT_WAS),
        ("rows are returned and not read", ROWS_RETURNED_ALONE),
        (
            "rows after the convolution",
            BLOCK.replace("    h, last", "    rows = torch.cat((rows, v), 1)[:, -(W - 1) :].clone()\n    h, last"),
        ),
        (
            "rows of x",
            BLOCK.replace("late[:, T:].clone()", "torch.cat((x.new_zeros(B, W - 1, x.shape[2]), x), 1)[:, T:].clone()"),
        ),
        ("minus zero", BLOCK.replace("late[:, T:]", "late[:, -(W - 1) :]")),
        ("rows of the piece alone", BLOCK.replace("late[:, T:]", "torch.cat((torch.zeros_like(rows), u), 1)[:, T:]")),
        ("a row too many", BLOCK.replace("late[:, T:]", "late[:, T - 1 :]")),
        ("the first rows", BLOCK.replace("late[:, T:]", "late[:, : W - 1]")),
        ("the newest first", BLOCK.replace("late[:, T:]", "late[:, T:].flip(1)")),
        ("a view", BLOCK.replace("late[:, T:].clone()", "late[:, T:]")),
        ("rows behind the piece", BLOCK.replace("torch.cat((rows, u), 1)", "torch.cat((u, rows), 1)")),
        ("taps the other way round", BLOCK.replace("enumerate(w.taps)", "enumerate(w.taps.flip(0))")),
        ("h is forgotten", BLOCK.replace("expand_as(v), v, h)", "expand_as(v), v)")),
        ("h of the first piece", BLOCK.replace("(rows, last)", "(rows, last if state is None else state[1])")),
        ("detached", BLOCK.replace("late[:, T:].clone()", "late[:, T:].detach().clone()")),
        ("rows in float64", BLOCK.replace("late[:, T:].clone()", "late[:, T:].double()")),
        ("the gate is missing", BLOCK.replace("gelu(x @ w.gate.T) * h", "h")),
        ("GELU's tanh formula", BLOCK.replace("gelu(x @ w.gate.T)", 'gelu(x @ w.gate.T, approximate="tanh")')),
        ("written into the given state", BLOCK.replace("    rows = late", "    rows.copy_(late[:, T:])\n    rows = late")),
        (
            "the convolution hears both sides",
            BLOCK.replace(
                "torch.cat((rows, u), 1)\n",
                "torch.cat((rows[:, 1:], u, u[:, :1] * 0), 1) if state is None else torch.cat((rows, u), 1)\n",
            ),
        ),
        ("the batch's mean", BLOCK.replace("u = x @ w.main.T", "u = (x - x.mean(0)) @ w.main.T")),
    ],
    "11-clairvoyant": [
        ("the last token alone", TEST.replace("range(1, 32)", "[31]")),
        ("the middle alone", TEST.replace("range(1, 32)", "[16]")),
        ("every second place", TEST.replace("range(1, 32)", "range(2, 32, 2)")),
        ("the first half", TEST.replace("range(1, 32)", "range(1, 16)")),
        ("one place behind is left out", TEST.replace("other[:, t:]", "ids[:, t : t + 1], other[:, t + 1 :]")),
        (
            "one place before is left out",
            TEST.replace("[:, :t].abs", "[:, : t - 1].abs").replace("range(1, 32)", "range(2, 32)"),
        ),
        ("the present must not count either", TEST.replace("[:, :t].abs", "[:, : t + 1].abs")),
        (
            "one text is changed and looked at",
            TEST.replace("changed = ", "changed = ids.clone()\n        changed[0] = ")
            .replace("(ids[:, :t], other[:, t:]), 1)", "(ids[0, :t], other[0, t:]))")
            .replace("whole)[:, :t]", "whole)[0, :t]"),
        ),
        ("one text is looked at", TEST.replace("[:, :t].abs", "[0, :t].abs")),
        (
            "one text is changed",
            TEST.replace("changed = ", "changed = ids.clone()\n        changed[0] = ").replace(
                "(ids[:, :t], other[:, t:]), 1)", "(ids[0, :t], other[0, t:]))"
            ),
        ),
        (
            "each text is changed for itself",
            TEST.replace("for t in range(1, 32):", "for b, t in [(b, t) for b in range(4) for t in range(1, 32)]:")
            .replace("changed = ", "changed = ids.clone()\n        changed[b] = ")
            .replace("(ids[:, :t], other[:, t:]), 1)", "(ids[b, :t], other[b, t:]))")
            .replace("whole)[:, :t]", "whole)[b, :t]"),
        ),
        ("zeros are replaced by zeros", TEST.replace("ids, other = ", "ids, other = 0 * ")),
        (
            "one token is replaced by the next id, at one place",
            TEST.replace(
                "changed = torch.cat((ids[:, :t], other[:, t:]), 1)",
                "changed = ids.clone()\n        changed[:, 20] = (ids[:, 20] + 1) % 13\n        t = min(t, 20)",
            ),
        ),
        ("to the last digit", TEST.replace("moved < 1e-9 * whole.abs().max()", "moved == 0")),
        ("whatever the size", TEST.replace("1e-9 * whole.abs().max()", "1e-9")),
        (
            "PyTorch's tolerances",
            TEST.replace(
                "assert moved < 1e-9 * whole.abs().max()", "assert torch.allclose(model(changed)[:, :t], whole[:, :t])"
            ),
        ),
        ("two digits", TEST.replace("1e-9 * whole", "1e-2 * whole")),
        (
            "the most likely tokens",
            TEST.replace(
                "(model(changed) - whole)[:, :t].abs().max()",
                "(model(changed).argmax(-1) != whole.argmax(-1))[:, :t].double().max()",
            ).replace("moved < 1e-9 * whole.abs().max()", "moved == 0"),
        ),
        ("what is before must move", TEST.replace("moved <", "moved >")),
        ("the loss on noise", TEST_OF_NOISE),
        (
            "is not told by raising",
            TEST.replace(
                "assert moved < 1e-9 * whole.abs().max()", "if moved > 1e-9 * whole.abs().max():\n            return False"
            ),
        ),
        ("texts of any length", TEST.replace("model(changed)", "model(ids[:, :t])")),
        (
            "every text says one token, then another",
            TEST.replace("ids, other = ", "ids, other = 0 * ").replace("other[:, t:]", "other[:, t:] + 3"),
        ),
    ],
    "11-names": [
        (
            "the first that fits",
            LOAD.replace("if (model(ids).logits - logits).abs().max() < 1e-8 * logits.abs().max():", "if True:"),
        ),
        ("never turned", LOAD.replace("[own, own.mT] if own.dim() == 2 else [own]", "[own]")),
        (
            "turned only where the shape says so",
            LOAD.replace(
                "[own, own.mT] if own.dim() == 2 else [own]",
                "[own if own.shape == shape else own.T if own.dim() == 2 else own]",
            ),
        ),
        (
            "always turned",
            LOAD.replace("[own, own.mT] if own.dim() == 2 else [own]", "[own.mT] if own.dim() == 2 else [own]"),
        ),
        ("a percent", LOAD.replace("1e-8 * logits", "1e-2 * logits")),
        (
            "whatever is not far off, NaN too",
            LOAD.replace(
                "if (model(ids).logits - logits).abs().max() < 1e-8 * logits.abs().max():",
                "if not (model(ids).logits - logits).abs().max() > 1e-8 * logits.abs().max():",
            ),
        ),
        ("the names exchanged", LOAD.replace("return missing, foreign", "return foreign, missing")),
        ("the model keeps the last attempt", LOAD.replace("    model.load_state_dict(before)\n", "")),
        ("what was before is no copy", LOAD.replace("x.clone() for", "x for")),
        ("None where nothing fits", LOAD.replace('raise ValueError("no tensor gives the logits")', "return None")),
        ("the nearest, however far", BEST_OF_ALL),
        (
            "the most similar name",
            "import difflib\n"
            + LOAD.replace(
                "[name for name in tensors if name not in before]",
                "difflib.get_close_matches(missing, [name for name in tensors if name not in before], 1, 0)",
            ),
        ),
        (
            "the rest is not loaded",
            LOAD.replace("model.load_state_dict(known | {missing: x})", "model.load_state_dict({missing: x}, strict=False)"),
        ),
        ("popped from the file", LOAD.replace("own = tensors[foreign]", "own = tensors.pop(foreign)")),
        (
            "renamed in the file",
            LOAD.replace(
                "                return missing, foreign",
                "                tensors[missing] = tensors.pop(foreign)\n                return missing, foreign",
            ),
        ),
        ("the model takes the file's tensors", LOAD.replace("known | {missing: x})", "known | {missing: x}, assign=True)")),
        (
            "the model becomes float32",
            LOAD.replace(
                "                return missing, foreign",
                "                model.float()\n                return missing, foreign",
            ),
        ),
        ("turned back to front", LOAD.replace("own.mT]", "own.flip(0)]")),
        ("only the shape, and the logits are not looked at", LOAD.replace("model(ids).logits - logits", "logits - logits")),
        (
            "ids are changed",
            LOAD.replace("    raise", "    ids.zero_()\n    raise").replace(
                "                return missing", "                ids.zero_()\n                return missing"
            ),
        ),
    ],
}
