"""The checks of exercise 11: what turns answers about full models into numbers.

The models at the end of 11-clairvoyant, honest ones and others, are what that task hands to a learner's test.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import gelu, one_hot, pad, rms_norm

from hybridlab.course.probe import Probe, Run, causal, gradient, normal, rejects, shaped, untouched
from hybridlab.layers import Routing
from hybridlab.models import Decoder, DecoderConfig, Hymba, HymbaConfig, Jamba, JambaConfig
from hybridlab.models.jamba import Every

States = list[Any]


def _apart(mine: Tensor, right: Tensor) -> float:
    return (mine - right).abs().max().item() if mine.shape == right.shape else math.nan


# 11-layers: two words and four whole numbers, of the tables in the statement. A verdict never says what is right.

GRIFFIN_WORD = ("GGW" * 9)[:26]
JAMBA_WORD = "".join("A" if layer % 6 == 3 else "M" for layer in range(20))
NUMBERS = {
    "c: layers of M with experts": sum(letter == "M" for letter in JAMBA_WORD[1::4]),
    "d: numbers of the layers that call the first block, added up": 3 + 19 + 33,
    "e: lists of keys in Zamba": 7,
    "f: lists of keys in Hymba": 20 - 9,
}


def _letters(place: int, right: str) -> Run:
    """How many letters of a word are wrong."""

    def run(answer: Any, rng: Generator) -> float:
        word = answer[place]
        if not isinstance(word, str) or len(word) != len(right):
            raise ValueError(f"expected {len(right)} letters, got {len(word) if isinstance(word, str) else repr(word)}")
        return float(sum(mine != letter for mine, letter in zip(word, right, strict=True)))

    return run


def _side(place: int, right: int) -> Run:
    """1 for a number that is too large, -1 for one that is too small."""

    def run(answer: Any, rng: Generator) -> float:
        given = float(answer[place])
        return float(given > right) - float(given < right) if math.isfinite(given) else math.nan

    return run


# 11-ratio: stack(x, layers, ratio, states=None) -> (x, states), kept(layers, ratio, tokens, sizes) -> bytes.

WIDTH, LAYERS = 3, 13
SMALL = {"width": 10, "taps": 2, "groups": 3, "head_width": 4, "window": 6}
GRIFFIN_7B = {"width": 5632, "taps": 4, "groups": 1, "head_width": 128, "window": 1025}


class StackLayer(NamedTuple):
    """What 11-ratio makes layers of: two norms, two mixers of which one is used, an MLP."""

    mixer_norm: Callable[[Tensor], Tensor]
    recurrence: Callable[[Tensor, Any], tuple[Tensor, Any]]
    attention: Callable[[Tensor, Any], tuple[Tensor, Any]]
    channel_norm: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]


def _normed(weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: rms_norm(x, x.shape[-1:], (1 + weight).to(x.dtype), 1e-6)


def _fading(weights: Tensor) -> Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]:
    """A recurrence; its state is (B, D)."""

    def mixer(x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        h = torch.zeros_like(x[:, 0]) if state is None else state
        outputs = []
        for x_t in x.unbind(1):
            h = 0.7 * h + x_t @ weights.to(x.dtype)
            outputs.append(h)
        return torch.stack(outputs, 1), h

    return mixer


def _windowed(weights: Tensor) -> Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]:
    """Attention through a window of three; its state are the last two rows at most, (B, S, D)."""

    def mixer(x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        rows = x if state is None else torch.cat((state, x), 1)
        row = torch.arange(rows.shape[1])
        age = row[rows.shape[1] - x.shape[1] :, None] - row
        scores = (x @ weights.to(x.dtype) @ rows.mT).masked_fill((age < 0) | (age > 2), -math.inf)
        return scores.softmax(-1) @ rows, rows[:, max(0, rows.shape[1] - 2) :].clone()

    return mixer


def _layer(rng: Generator) -> StackLayer:
    near, far, narrow = (normal(rng, WIDTH) / 4 for _ in range(3))
    first, second, third = (normal(rng, WIDTH, WIDTH) / 2 for _ in range(3))

    def mlp(x: Tensor) -> Tensor:
        return gelu(x @ third.to(x.dtype)) * narrow.to(x.dtype)

    return StackLayer(_normed(near), _fading(first), _windowed(second), _normed(far), mlp)


def _layers(rng: Generator, count: int = LAYERS) -> list[StackLayer]:
    return [_layer(rng) for _ in range(count)]


def _stacked(ratio: int, tokens: int = 5, layers: int = LAYERS) -> Run:
    def run(answer: Any, rng: Generator) -> Tensor:
        x = normal(rng, 2, tokens, WIDTH)
        return shaped("x", answer[0](x, _layers(rng, layers), ratio)[0], (2, tokens, WIDTH))

    return run


def _in_pieces(answer: Any, rng: Generator) -> dict[str, float]:
    """Every cut, and token by token."""
    x, layers = normal(rng, 2, 6, WIDTH), _layers(rng)
    whole = answer[0](x, layers, 2)[0]
    cuts = {f"cut at {cut}": [cut, 6 - cut] for cut in range(1, 6)} | {"token by token": [1] * 6}
    return {name: _apart(_read(answer[0], x.split(sizes, 1), layers, 2), whole) for name, sizes in cuts.items()}


def _read(stack: Any, pieces: tuple[Tensor, ...], layers: list[StackLayer], ratio: int) -> Tensor:
    states, outputs = None, []
    for piece in pieces:
        output, states = stack(piece, layers, ratio, states)
        outputs.append(output)
    return torch.cat(outputs, 1)


def _states(answer: Any, rng: Generator) -> dict[str, float]:
    """One a layer, in the layers' order: those of attention have three dimensions."""
    states = answer[0](normal(rng, 2, 4, WIDTH), _layers(rng), 2)[1]
    if len(states) != LAYERS:
        raise ValueError(f"states: expected {LAYERS}, got {len(states)}")
    return {f"layer {number}": float(state.dim()) for number, state in enumerate(states)}


def _called(answer: Any, rng: Generator) -> dict[str, float]:
    """How often each layer's parts run, of the two mixers together."""
    calls = [0] * LAYERS

    def counted(number: int, mixer: Any) -> Any:
        def call(x: Tensor, state: Any) -> Any:
            calls[number] += 1
            return mixer(x, state)

        return call

    layers = [
        layer._replace(recurrence=counted(number, layer.recurrence), attention=counted(number, layer.attention))
        for number, layer in enumerate(_layers(rng))
    ]
    answer[0](normal(rng, 1, 3, WIDTH), layers, 3)
    return {f"layer {number}": float(count) for number, count in enumerate(calls)}


def _stack_untouched(answer: Any, rng: Generator) -> dict[str, float]:
    x, layers = normal(rng, 1, 4, WIDTH), _layers(rng)
    states = answer[0](x, layers, 2)[1]
    kept, tensors, held = x.clone(), [state.clone() for state in states], list(states)
    answer[0](x, layers, 2, states)
    same = len(held) == len(states) and all(mine is other for mine, other in zip(states, held, strict=True))
    changed = max(_apart(mine, other) for mine, other in zip(held, tensors, strict=True))
    return {"x": _apart(x, kept), "the list of states": float(not same), "a state": changed}


def _stack_dtype(answer: Any, rng: Generator) -> float:
    layers = _layers(rng)
    return float(answer[0](normal(rng, 1, 3, WIDTH).float(), layers, 2)[0].dtype == torch.float32)


def _of_stack(probe: Callable[..., Run], **options: Any) -> Run:
    """A probe of one input, x."""

    def run(answer: Any, rng: Generator) -> Any:
        layers = _layers(rng)
        return probe(lambda rng: [normal(rng, 2, 5, WIDTH)], **options)(lambda x: answer[0](x, layers, 2), rng)

    return run


def _bytes(ratios: tuple[int, ...], tokens: tuple[int, ...], layers: int = 32, **change: int) -> Run:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        sizes = GRIFFIN_7B | change
        return {
            f"ratio {ratio}, {count} tokens": float(answer[1](layers, ratio, count, dict(sizes)))
            for ratio in ratios
            for count in tokens
        }

    return run


# 11-conv: block(x, w, state=None) -> (y, (rows, h)); x (B, T, D), a state of rows (B, W - 1, E) and h (B, E).

BATCH, STREAM, INNER = 2, 3, 4


class BlockWeights(NamedTuple):
    """The weights of the block of 11-conv: main, gate (E, D), taps (W, E), decay (E,), out (D, E)."""

    main: Tensor
    gate: Tensor
    taps: Tensor
    decay: Tensor
    out: Tensor


def _weighted(rng: Generator, taps: int = 4) -> BlockWeights:
    main, gate = normal(rng, 2, INNER, STREAM).unbind()
    return BlockWeights(main, gate, normal(rng, taps, INNER), normal(rng, INNER).sigmoid(), normal(rng, STREAM, INNER))


def _blocks(answer: Any, x: Tensor, w: BlockWeights, state: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    y, (rows, h) = answer(x, w) if state is None else answer(x, w, state)
    shaped("y", y, tuple(x.shape))
    shaped("rows", rows, (len(x), len(w.taps) - 1, INNER))
    shaped("h", h, (len(x), INNER))
    return y, (rows, h)


def _block(tokens: int, taps: int = 4, begun: bool = False) -> Run:
    """Outputs and both states, from nothing or from a state of random numbers."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        x, w = normal(rng, BATCH, tokens, STREAM), _weighted(rng, taps)
        state = (normal(rng, BATCH, taps - 1, INNER), normal(rng, BATCH, INNER)) if begun else None
        y, (rows, h) = _blocks(answer, x, w, state)
        named = {"y": y, "rows": rows, "h": h}
        return {f"{name}{index}": value for name, z in named.items() for index, value in _places(z)}

    return run


def _places(x: Tensor) -> list[tuple[list[int], float]]:
    return [(place.tolist(), x[tuple(place)].item()) for place in torch.ones_like(x).nonzero()]


def _block_in_pieces(taps: int) -> Run:
    def run(answer: Any, rng: Generator) -> dict[str, float]:
        x, w = normal(rng, BATCH, 9, STREAM), _weighted(rng, taps)
        whole, (rows, h) = _blocks(answer, x, w)
        ways = {f"pieces of {size}": size for size in (1, 2, 3, 4)} | {"1, then 8": [1, 8], "8, then 1": [8, 1]}
        return {name: max(_continued(answer, x.split(sizes, 1), w, (whole, rows, h))) for name, sizes in ways.items()}

    return run


def _continued(answer: Any, pieces: Any, w: BlockWeights, right: tuple[Tensor, ...]) -> list[float]:
    outputs: list[Tensor] = []
    state = None
    for piece in pieces:
        y, state = _blocks(answer, piece, w, state)
        outputs.append(y)
    assert state is not None
    return [_apart(mine, other) for mine, other in zip((torch.cat(outputs, 1), *state), right, strict=True)]


def _block_bytes(answer: Any, rng: Generator) -> dict[str, float]:
    """What the state keeps alive, beyond its own numbers."""
    extra = {}
    for tokens in (1, 50):
        state = _blocks(answer, normal(rng, BATCH, tokens, STREAM), _weighted(rng))[1]
        storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in state}
        extra[f"after {tokens} tokens"] = float(sum(storages.values()) - sum(x.nbytes for x in state))
    return extra


def _block_alone(answer: Any, rng: Generator) -> float:
    x, w = normal(rng, BATCH, 5, STREAM), _weighted(rng)
    whole = _blocks(answer, x, w)[0]
    return max(_apart(_blocks(answer, x[b : b + 1], w)[0][0], whole[b]) for b in range(BATCH))


def _begun(rng: Generator, tokens: int) -> list[Tensor]:
    """A text, and the two parts of a state before it."""
    return [normal(rng, BATCH, tokens, STREAM), normal(rng, BATCH, 3, INNER), normal(rng, BATCH, INNER)]


def _block_gradient(answer: Any, rng: Generator) -> Tensor:
    """Of x, both parts of the state and all weights, through two pieces."""

    def through(x: Tensor, rows: Tensor, h: Tensor, *weights: Tensor) -> Tensor:
        w = BlockWeights(*weights)
        first, state = answer(x[:, :2], w, (rows, h))
        return torch.cat((first, answer(x[:, 2:], w, state)[0]), 1)

    return gradient(lambda rng: [*_begun(rng, 5), *_weighted(rng)])(through, rng)


def _block_dtype(answer: Any, rng: Generator) -> dict[str, float]:
    w = BlockWeights(*(z.float() for z in _weighted(rng)))
    y, (rows, h) = _blocks(answer, normal(rng, BATCH, 3, STREAM).float(), w)
    return {name: float(z.dtype == torch.float32) for name, z in (("y", y), ("rows", rows), ("h", h))}


def _block_untouched(answer: Any, rng: Generator) -> dict[str, float]:
    def called(x: Tensor, rows: Tensor, h: Tensor, *weights: Tensor) -> Any:
        return answer(x, BlockWeights(*weights), (rows, h))

    moved = untouched(lambda rng: [*_begun(rng, 2), *_weighted(rng)])(called, rng)
    return dict(zip(("x", "rows", "h", *BlockWeights._fields), moved.values(), strict=True))


def _block_causal(answer: Any, rng: Generator) -> Any:
    w = _weighted(rng)
    return causal(lambda rng: [normal(rng, BATCH, 6, STREAM)], 6, 1)(lambda x: answer(x, w), rng)


# 11-clairvoyant: test(model); model(ids (4, 32)) -> logits (4, 32, 13). Every model is compiled for this one shape.

TEXTS, TOKENS, VOCABULARY, CHANNELS = 4, 32, 13, 8
Mixer = Callable[[Tensor, Tensor], Tensor]  # the normed stream (B, T, D) and the ids (B, T) -> what is added to the stream
Model = Callable[[Tensor], Tensor]


def _weights(*shape: int, seed: int) -> Tensor:
    return normal(torch.Generator().manual_seed(seed), *shape)


EMBEDDING, HEAD = _weights(VOCABULARY, CHANNELS, seed=0), _weights(CHANNELS, VOCABULARY, seed=1)
ASKING, GATES = _weights(CHANNELS, CHANNELS, seed=2), _weights(CHANNELS, 4, seed=3)
EXPERTS, TAPS = _weights(4, CHANNELS, CHANNELS, seed=4), _weights(12, CHANNELS, seed=5)
PLACE = torch.arange(TOKENS)
AGE = PLACE[:, None] - PLACE  # (T, T): how long ago a token was; the future has negative ages


def _centred(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()


def _model(*mixers: Mixer, loud: float = 1.0) -> Model:
    def model(ids: Tensor) -> Tensor:
        if tuple(ids.shape) != (TEXTS, TOKENS):
            raise ValueError(f"ids: the model is compiled for shape {(TEXTS, TOKENS)}, got {tuple(ids.shape)}")
        x = EMBEDDING[ids]
        for mixer in mixers:
            x = x + mixer(_centred(x), ids)
        return loud * _centred(x) @ HEAD

    return model


def _attend(sees: Callable[[Tensor], Tensor], scale: float = 1 / 3) -> Mixer:
    """Attention; `sees` (ids) -> who sees whom, (T, T) or (B, T, T)."""

    def mixer(x: Tensor, ids: Tensor) -> Tensor:
        return (scale * x @ ASKING @ x.mT).masked_fill(~sees(ids), -math.inf).softmax(-1) @ x

    return mixer


def _ages(youngest: int, oldest: int) -> Callable[[Tensor], Tensor]:
    return lambda ids: (youngest <= AGE) & (oldest >= AGE)


def _document(ids: Tensor) -> Tensor:
    """Who stands in one document with whom; token 0 ends one."""
    number = (ids == 0).cumsum(-1) - (ids == 0).long()
    return number[:, :, None] == number[:, None]


def _block_of(size: int) -> Tensor:
    return PLACE[:, None] // size == PLACE // size


def _convolved(length: int) -> Mixer:
    """A convolution of 12 taps by FFT; as long as the text it goes round in a circle."""

    def mixer(x: Tensor, ids: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x, length, 1) * torch.fft.rfft(TAPS, length, 0), length, 1)[:, :TOKENS] / 5

    return mixer


def _ahead(steps: int, where: Callable[[Tensor], Tensor] = torch.ones_like, share: float = 1.0) -> Mixer:
    """The token `steps` later, times `share`, at the places that `where` (ids) says."""

    def mixer(x: Tensor, ids: Tensor) -> Tensor:
        later = pad(x, (0, 0, 0, steps))[:, steps:]
        return share * later * where(ids)[..., None].to(x.dtype)

    return mixer


def _sum(x: Tensor, ids: Tensor) -> Tensor:
    return _fading(ASKING / 3)(x, None)[0]


def _sum_from_the_end(x: Tensor, ids: Tensor) -> Tensor:
    return _sum(x.flip(1), ids).flip(1)


def _experts(chosen: Callable[[Tensor], Tensor]) -> Mixer:
    """`chosen`: shares (B, T, 4) -> whether an expert hears a token, (B, T, 4)."""

    def mixer(x: Tensor, ids: Tensor) -> Tensor:
        shares = (x @ GATES).softmax(-1)
        return torch.einsum("bte,btd,edf->btf", shares * chosen(shares), x, EXPERTS)

    return mixer


def _two_of_four(shares: Tensor) -> Tensor:
    return one_hot(shares.topk(2, -1).indices, 4).sum(-2)


def _first_come(shares: Tensor) -> Tensor:
    """Each expert has room for four tokens of a text."""
    wanted = one_hot(shares.argmax(-1), 4)
    return wanted * (wanted.cumsum(1) <= 4)


def _experts_choose(shares: Tensor) -> Tensor:
    """Each expert takes the eight tokens of a text that suit it best."""
    return one_hot(shares.topk(8, 1).indices, TOKENS).sum(1).mT


def _next_is_seven(ids: Tensor) -> Tensor:
    return pad(ids, (0, 1))[:, 1:] == 7


def _late(ids: Tensor) -> Tensor:
    return (PLACE >= 25).expand_as(ids)


def _last_text(mixer: Mixer) -> Mixer:
    """Only the last text of the batch hears anything."""
    return lambda x, ids: mixer(x, ids) * (torch.arange(TEXTS) == TEXTS - 1)[:, None, None]


def _neighbour(steps: int) -> Mixer:
    """What another text of the batch says, `steps` later."""
    return lambda x, ids: pad(x.roll(1, 0), (0, 0, max(0, -steps), max(0, steps)))[:, max(0, steps) :][:, :TOKENS]


def _whole_text_normed(x: Tensor, ids: Tensor) -> Tensor:
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)


def _mean_so_far(x: Tensor, ids: Tensor) -> Tensor:
    return x.cumsum(1) / (1 + PLACE)[:, None]


def _from_the_end(x: Tensor, ids: Tensor) -> Tensor:
    return torch.sin((TOKENS - PLACE)[:, None] * torch.arange(1, CHANNELS + 1)).double().expand_as(x)


def _pairs(x: Tensor, ids: Tensor) -> Tensor:
    """Half as many tokens, and as many again."""
    return x.unflatten(1, (-1, 2)).mean(2).repeat_interleave(2, 1)


PAST = _attend(_ages(0, TOKENS))
HONEST: dict[str, Model] = {
    "attention": _model(PAST),
    "attention through a window, a fading sum": _model(_attend(_ages(0, 4)), _sum),
    "a convolution by FFT": _model(_convolved(64)),
    "a convolution by FFT, loud": _model(_convolved(64), PAST, loud=1e8),
    "a fading sum, faint": _model(_sum, PAST, loud=1e-12),
    "the mean so far": _model(_mean_so_far),
    "two experts of four": _model(PAST, _experts(_two_of_four)),
    "experts with room, first come, first served": _model(_sum, _experts(_first_come)),
    "documents, of the past": _model(_attend(lambda ids: _document(ids) & (AGE >= 0))),
    "places counted from the end of the 32": _model(_from_the_end, PAST),
    "what another text said before": _model(_neighbour(-1), _sum),
    "always the same": lambda ids: _model()(torch.zeros_like(ids)),
}
CLAIRVOYANT: dict[str, Model] = {
    "no mask": _model(_attend(_ages(-TOKENS, TOKENS))),
    "the mask is one token too wide": _model(_attend(_ages(-1, TOKENS))),
    "the next token, in the second layer": _model(PAST, _ahead(1)),
    "twelve tokens ahead": _model(_sum, _ahead(12)),
    "the end comes before the beginning": _model(_convolved(TOKENS)),
    "a sum from the end": _model(_sum, _sum_from_the_end),
    "a norm over the whole text": _model(_whole_text_normed),
    "experts choose": _model(PAST, _experts(_experts_choose)),
    "chunks of eight, but for the first": _model(_attend(lambda ids: (AGE >= 0) | _block_of(8) & (PLACE >= 8))),
    "the first eight see one another": _model(_attend(lambda ids: (AGE >= 0) | _block_of(8) & (PLACE < 8)), _sum),
    "pairs": _model(_pairs, PAST),
    "documents": _model(_attend(_document)),
    "in front of a 7": _model(_sum, _ahead(1, _next_is_seven)),
    "from place 25 on": _model(PAST, _ahead(1, _late)),
    "another text's next token": _model(_sum, _neighbour(1)),
    "text 3 hears text 2's next token": _model(_sum, _last_text(_neighbour(1))),
    "text 3 hears its own next token": _model(PAST, _last_text(_ahead(1))),
    "the next token, softly": _model(PAST, _ahead(1, share=1e-4)),
    "the next token, faint": _model(_ahead(1), loud=1e-12),
    "the last token": _model(lambda x, ids: x[:, -1:].expand_as(x)),
}


# 11-names: load(model, tensors, ids, logits) -> (name in the model, name in the file), or ValueError.

IDS = 11
SIZES: dict[str, Any] = {"width": 8, "heads": 2, "groups": 1, "ffn_width": 12}
SCAN: dict[str, Any] = {"state_size": 3, "rank": 2}


def _decoder() -> nn.Module:
    return Decoder(DecoderConfig(IDS, layers=2, **SIZES), backend="naive")


def _jamba() -> nn.Module:
    return Jamba(
        JambaConfig(IDS, layers=2, attention=Every(2, 1), routing=Routing(4, 2, False), **SIZES, **SCAN), backend="naive"
    )


def _hymba() -> nn.Module:
    return Hymba(HymbaConfig(IDS, layers=3, meta_tokens=2, window=3, **SIZES, **SCAN), backend="naive")


class Misnamed(NamedTuple):
    """A file in which one tensor has another name, beside tensors that the model does not know.

    Attributes:
        model: makes the model.
        name: what the model calls the tensor.
        alias: what the file calls it.
        transposed: whether the file has it the other way round.
        decoys: (name, what its numbers are, made of (right tensor, rng)).
        dtype: of the file.
    """

    model: Callable[[], nn.Module]
    name: str
    alias: str
    transposed: bool = False
    decoys: tuple[tuple[str, Callable[[Tensor, Generator], Tensor]], ...] = ()
    dtype: torch.dtype = torch.float64


def _drawn(right: Tensor, rng: Generator) -> Tensor:
    return normal(rng, *right.shape)


def _earlier(right: Tensor, rng: Generator) -> Tensor:
    return right + 1e-3 * normal(rng, *right.shape)


def _broken(right: Tensor, rng: Generator) -> Tensor:
    return torch.full_like(right, math.nan)


def _turned(right: Tensor, rng: Generator) -> Tensor:
    return normal(rng, *right.shape).mT


def _not_its_logarithm(right: Tensor, rng: Generator) -> Tensor:
    return -right.exp()


def _too_long(right: Tensor, rng: Generator) -> Tensor:
    return torch.cat((right, right))


def _random(model: nn.Module, rng: Generator) -> dict[str, Tensor]:
    return {name: normal(rng, *x.shape) / 2 for name, x in model.state_dict().items()}


class Loading(NamedTuple):
    """What `load` is given, and what only the check knows: the model as it should become."""

    model: nn.Module
    tensors: dict[str, Tensor]
    ids: Tensor
    logits: Tensor
    right: nn.Module


def _loading(case: Misnamed, rng: Generator) -> Loading:
    model, right = (case.model().double().eval().requires_grad_(False) for _ in range(2))
    tensors = {name: x.to(case.dtype) for name, x in _random(right, rng).items()}
    right.load_state_dict(tensors)
    model.load_state_dict(_random(model, rng))
    ids = torch.randint(IDS, (2, 6), generator=rng)
    logits = right(ids).logits
    own = tensors.pop(case.name)
    decoys = {name: make(own.double(), rng).to(case.dtype) for name, make in case.decoys}
    tensors |= {case.alias: own.mT.contiguous() if case.transposed else own, **decoys}
    names = [list(tensors)[place] for place in torch.randperm(len(tensors), generator=rng).tolist()]
    names.sort(key=lambda name: not tensors[name].isnan().any())  # NaN first, which some comparisons let pass
    return Loading(model, {name: tensors[name] for name in names}, ids, logits, right)


def _loaded(case: Misnamed) -> Run:
    """How far the logits of other tokens are off, by their largest; and whether both names are right."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        given = _loading(case, rng)
        found = answer(given.model, given.tensors, given.ids, given.logits)
        other = torch.randint(IDS, (1, 7), generator=rng)
        right = given.right(other).logits
        wrong = [float(mine != name) for mine, name in zip(found, (case.name, case.alias), strict=True)]
        return {
            "logits of other tokens, error": _apart(given.model(other).logits, right) / right.abs().max().item(),
            "the model's name is wrong (1)": wrong[0],
            "the file's name is wrong (1)": wrong[1],
        }

    return run


def _not_there(alias: str, make: Callable[[Tensor, Generator], Tensor]) -> Run:
    """No tensor gives the logits: 0 for a ValueError and weights that are as before."""

    def run(answer: Any, rng: Generator) -> dict[str, float]:
        given = _loading(CASES["a matrix"], rng)
        given.tensors[alias] = make(given.tensors.pop(CASES["a matrix"].alias), rng)
        before = {name: x.clone() for name, x in given.model.state_dict().items()}
        raised = 0.0
        try:
            answer(given.model, given.tensors, given.ids, given.logits)
        except ValueError:
            raised = 1.0
        moved = max(_apart(x, before[name]) for name, x in given.model.state_dict().items())
        return {"no ValueError (1)": 1 - raised, "a weight moved by": moved}

    return run


def _file_untouched(answer: Any, rng: Generator) -> dict[str, float]:
    given = _loading(CASES["a vector among four"], rng)
    kept = {name: x.clone() for name, x in given.tensors.items()}
    ids, logits = given.ids.clone(), given.logits.clone()
    answer(given.model, given.tensors, given.ids, given.logits)
    changed = list(given.tensors) != list(kept) or any(_differs(given.tensors[name], x) for name, x in kept.items())
    return {"tensors": float(changed), "ids": _apart(given.ids, ids), "logits": _apart(given.logits, logits)}


def _differs(x: Tensor, y: Tensor) -> bool:
    return not torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0))


def _stays(answer: Any, rng: Generator) -> dict[str, float]:
    """The model after the file has been overwritten, and the dtype of its weights."""
    given = _loading(CASES["a file in float32"], rng)
    answer(given.model, given.tensors, given.ids, given.logits)
    for x in given.tensors.values():
        x.zero_()
    moved = _apart(given.model(given.ids).logits, given.logits)
    foreign = sum(x.dtype != torch.float64 for x in given.model.parameters())
    return {"logits move with the file": moved, "weights that are not float64": float(foreign)}


CASES = {
    "a matrix": Misnamed(_decoder, "layers.1.channel_mixer.down.weight", "layers.1.channel_mixer.proj.weight"),
    "a vector among four": Misnamed(
        _decoder,
        "layers.0.mixer_norm.weight",
        "layers.0.ln_1.w",
        decoys=(
            ("layers.0.mixer_norm.weight_ema", _earlier),
            ("layers.0.mixer_norm.weight.momentum", _drawn),
            ("layers.0.mixer_norm_weight", _broken),
            ("scale", _too_long),
        ),
    ),
    "the other way round": Misnamed(_jamba, "layers.0.mixer.conv.weight", "blocks.0.taps", True, (("table", _too_long),)),
    "a square, the other way round": Misnamed(
        _decoder,
        "layers.1.mixer.query.weight",
        "h.1.wq",
        True,
        (("h.1.wq_old", _drawn), ("layers.1.mixer.query_weight", _turned), ("a", _broken)),
    ),
    "a square, as it should be": Misnamed(
        _hymba,
        "layers.2.mixer.attention.query.weight",
        "q",
        decoys=(("layers.2.mixer.attention.query.w", _earlier), ("z", _broken)),
    ),
    "a logarithm": Misnamed(
        _jamba, "layers.0.mixer.A_log", "layers.0.mixer.log_A", decoys=(("layers.0.mixer.A", _not_its_logarithm),)
    ),
    "a file in float32": Misnamed(_jamba, "head.weight", "lm_head.weight", decoys=(("ema", _earlier),), dtype=torch.float32),
}


PROBES: dict[str, list[Probe]] = {
    "11-layers": [
        Probe("a: letters that are wrong", _letters(0, GRIFFIN_WORD), 0.0),
        Probe("b: letters that are wrong", _letters(1, JAMBA_WORD), 0.0),
        *(Probe(name, _side(place, right), 0.0) for place, (name, right) in enumerate(NUMBERS.items(), 2)),
    ],
    "11-ratio": [
        Probe("stack: ratio 2", _stacked(2)),
        Probe("stack: ratio 7", _stacked(7)),
        Probe("stack: ratio 1", _stacked(1)),
        Probe("stack: ratio 0", _stacked(0)),
        Probe("stack: ratio 7, 4 layers", _stacked(7, layers=4)),
        Probe("stack: a single token", _stacked(3, tokens=1)),
        Probe("stack: apart in pieces", _in_pieces, 0.0, 1e-9),
        Probe("stack: dimensions of states", _states),
        Probe("stack: mixers that run", _called, 1.0),
        Probe("stack: causal", _of_stack(causal, steps=5, dim=1), 0.0, 1e-9),
        Probe("stack: gradient of x", _of_stack(gradient)),
        Probe("stack: float32 stays float32 (1)", _stack_dtype, 1.0),
        Probe("stack: what is given changed (1) or not (0)", _stack_untouched, 0.0, 0.0),
        Probe("kept: Griffin 7B", _bytes((2, 7), (1, 110, 1024, 1025, 5000)), tolerance=0.0),
        Probe("kept: other ratios", _bytes((0, 1, 3, 40), (7,), 26), tolerance=0.0),
        Probe("kept: other sizes", _bytes((2,), (3, 9), 5, **SMALL), tolerance=0.0),
    ],
    "11-conv": [
        Probe("a whole text", _block(7)),
        Probe("a single token", _block(1)),
        Probe("from a state", _block(2, begun=True)),
        Probe("from a state, many tokens", _block(6, begun=True)),
        Probe("one tap", _block(3, 1, begun=True)),
        Probe("apart in pieces", _block_in_pieces(4), 0.0, 1e-9),
        Probe("apart in pieces, six taps", _block_in_pieces(6), 0.0, 1e-9),
        Probe("bytes too many", _block_bytes, 0.0),
        Probe("each text alone", _block_alone, 0.0, 1e-9),
        Probe("causal", _block_causal, 0.0, 1e-9),
        Probe("gradient", _block_gradient),
        Probe("float32 stays float32 (1)", _block_dtype, 1.0),
        Probe("inputs untouched", _block_untouched, 0.0),
    ],
    "11-clairvoyant": [
        Probe("honest ones rejected (1) or not (0)", rejects(HONEST), 0.0),
        Probe("clairvoyant ones rejected (1) or not (0)", rejects(CLAIRVOYANT), 1.0),
    ],
    "11-names": [
        *(Probe(name, _loaded(case), 0.0, 1e-9) for name, case in CASES.items()),
        Probe("nothing gives the logits", _not_there("layers.1.channel_mixer.proj.weight", _earlier), 0.0),
        Probe("nothing has the shape", _not_there("layers.1.channel_mixer.proj.weight", _too_long), 0.0),
        Probe("what is given changed (1) or not (0)", _file_untouched, 0.0),
        Probe("the model keeps its own", _stays, 0.0, 1e-9),
    ],
}
