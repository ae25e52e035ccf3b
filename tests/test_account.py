"""The account: what is accounted is what a real model holds, and the published numbers come out."""

import json
import subprocess
import sys

import pytest
import torch

from hybridlab.measure import account, memory
from hybridlab.measure.flops import Flops
from hybridlab.measure.storages import cached_storages, storage_key
from hybridlab.measure.tiny import TINY, WINDOW
from hybridlab.models import PRESETS, Decoder, DecoderConfig, HybridConfig, HybridLM, LanguageModel
from hybridlab.state import state_nbytes, state_tensors

CONTEXT_256K = 262_144
GIB = 2**30
# Cache in GiB at 256K tokens, 16 bits: Jamba-1.5, arXiv 2408.12570, table 1 for Mistral. Llama 3.1 8B has the same 32 layers
# of 8 heads of keys, 128 wide.
PUBLISHED_CACHE = {"mistral-7b": 32, "llama-3.1-8b": 32}
# Numbers of state a layer and channel: RWKV, arXiv 2305.13048 (5 D L); Eagle and Finch, arXiv 2404.05892 (66 D L).
PER_CHANNEL = {"rwkv4": 5, "eagle": 66, "finch": 66}
CONTEXTS = (1, WINDOW - 1, WINDOW, WINDOW + 1, 4 * WINDOW)
WITH_EXPERTS = ("Decoder, experts", "Jamba")
SMALLEST = ("rwkv4-169m", "rwkv4-430m", "eagle-0.4b", "finch-1.6b")


@pytest.fixture
def _no_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes do not depend on what is slow in the account."""
    monkeypatch.setattr(memory, "count_flops", lambda model, context: Flops(0, {}))


def held(model: LanguageModel, context: int, batch: int) -> dict[str, int]:
    """Bytes of each kind in the state of a real forward; dtypes tell kinds apart in a model of 16 bits."""
    state = model(torch.randint(0, 41, (batch, context))).state
    caches = cached_storages(state)
    found = dict.fromkeys(("kv", "float32", "bfloat16"), 0)
    for tensor in state_tensors(state):
        # A complex number is two of the state's dtype.
        dtype = torch.float32 if tensor.is_complex() else tensor.dtype
        found["kv" if storage_key(tensor) in caches else str(dtype).removeprefix("torch.")] += tensor.nbytes
    assert sum(found.values()) == state_nbytes(state), "every storage belongs to one tensor"
    return found


@torch.no_grad()
@pytest.mark.usefixtures("_no_flops")
@pytest.mark.parametrize("name", TINY)
def test_measured_is_accounted(name: str) -> None:
    """In 32 bits, where caches are told from the rest."""
    model = TINY[name]()
    for context in CONTEXTS:
        measured, report = held(model, context, 2), account(model, context, 2, "float32")
        assert (measured["kv"], measured["float32"]) == (report.kv_bytes, report.state_bytes), context


@pytest.mark.minutes
@torch.no_grad()
@pytest.mark.usefixtures("_no_flops")
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", TINY)
def test_measured_is_accounted_by_kind(name: str, batch: int) -> None:
    """In 16 bits, where recurrent states stay in 32 and what convolutions and shifts keep does not."""
    model = TINY[name]().to(torch.bfloat16)
    for context in CONTEXTS:
        measured, report = held(model, context, batch), account(model, context, batch)
        expected = (report.kv_bytes, report.recurrent_bytes, report.conv_bytes)
        assert tuple(measured.values()) == expected, context


@pytest.mark.minutes
@torch.no_grad()
@pytest.mark.usefixtures("_no_flops")
@pytest.mark.parametrize("name", TINY)
def test_measured_is_accounted_in_double(name: str) -> None:
    measured = state_nbytes(TINY[name]().to(torch.float64)(torch.zeros(3, 9, dtype=torch.int64)).state)
    assert account(TINY[name](), 9, batch=3, dtype="float64").total_bytes == measured


@pytest.mark.usefixtures("_no_flops")
@pytest.mark.parametrize("name", TINY)
def test_the_dtype_of_states_is_that_of_what_is_added_up(name: str) -> None:
    """Papers count 16 bits: half of the recurrent bytes, and nothing else changes."""
    usual, half = (account(TINY[name](), 9, state_dtype=dtype) for dtype in (None, "bfloat16"))
    assert usual.recurrent_bytes == 2 * half.recurrent_bytes
    assert (usual.kv_bytes, usual.conv_bytes) == (half.kv_bytes, half.conv_bytes)
    assert usual.state_bytes == usual.recurrent_bytes + usual.conv_bytes


def test_kinds_of_published_states() -> None:
    """Mamba-2 keeps a matrix a head and three columns of its filter; RWKV-7 a matrix a head and two tokens; Hyena inputs."""
    config = PRESETS["mamba2-130m"].config
    inner = 2 * config.width
    mamba = account("mamba2-130m", 1000)
    assert mamba.recurrent_bytes == config.layers * inner * 128 * 4
    assert mamba.conv_bytes == config.layers * 3 * (inner + 2 * 128) * 2
    rwkv = account("rwkv7-0.1b", 1000)
    assert (rwkv.recurrent_bytes, rwkv.conv_bytes) == (12 * 768 * 64 * 4, 12 * 768 * 2 * 2)
    goldfinch = account("goldfinch-1.45b", 1000)
    assert goldfinch.kv_bytes == 1000 * (2048 // 16 * 2 + 2), "one cache: a code and an id a token"
    hyena = account("hyena-125m", 1000)
    assert (hyena.recurrent_bytes, hyena.conv_bytes) == (0, hyena.total_bytes)


@pytest.mark.parametrize("name", TINY)
def test_parts_add_up(name: str) -> None:
    report = account(TINY[name](), 7)
    assert sum(part.parameters for part in report.parts) == report.parameters
    assert (report.active_parameters < report.parameters) == (name in WITH_EXPERTS)
    assert sum(part.flops_per_token for part in report.parts) == report.flops_per_token
    assert report.kv_bytes + report.state_bytes == report.total_bytes


@pytest.mark.parametrize("name", PUBLISHED_CACHE)
def test_published_caches(name: str) -> None:
    report = account(name, CONTEXT_256K)
    assert report.kv_bytes == PUBLISHED_CACHE[name] * GIB
    assert report.state_bytes == 0


@pytest.mark.parametrize("name", [*SMALLEST, pytest.param("rwkv4-14b", marks=pytest.mark.minutes)])
def test_published_states(name: str) -> None:
    """In 16 bits, as the papers count."""
    config = PRESETS[name].config
    report = account(name, CONTEXT_256K, state_dtype="bfloat16")
    assert report.state_bytes == 2 * PER_CHANNEL[name.split("-")[0]] * config.width * config.layers
    assert report.kv_bytes == 0


def test_recurrent_states_are_float32_unless_told() -> None:
    config = PRESETS["rwkv4-169m"].config
    assert account("rwkv4-169m", 1).state_bytes == config.width * config.layers * (2 * 2 + 3 * 4)
    assert account("rwkv4-169m", 1, dtype="float64").state_bytes == config.width * config.layers * 5 * 8


def test_a_state_stays_and_a_cache_grows() -> None:
    rwkv, mistral = ([account(name, n).total_bytes for n in (1000, 2000)] for name in ("rwkv4-169m", "mistral-7b"))
    assert rwkv[0] == rwkv[1]
    assert 2 * mistral[0] == mistral[1]


def test_a_hybrid_has_both_kinds() -> None:
    report = account(HybridLM(HybridConfig(41, 24, pattern="RA", head_width=8)), 10)
    recurrent, attention = (part for part in report.parts if part.name.startswith("layers"))
    assert (recurrent.kv_bytes, attention.state_bytes) == (0, 0)
    assert attention.kv_bytes == 10 * 2 * 24 * 2
    assert recurrent.state_bytes == 24 * 2 + 3 * 8 * 8 * 4


def test_a_tied_head_counts_once() -> None:
    tied, untied = (account(Decoder(DecoderConfig(41, 24, 1, heads=3, tied=tied)), 3) for tied in (True, False))
    assert untied.parameters - tied.parameters == 41 * 24
    assert tied.flops_per_token == untied.flops_per_token
    assert sum(part.parameters for part in tied.parts) == tied.parameters


@pytest.mark.parametrize("context", [1, 1000])
def test_flops_of_a_decoder(context: int) -> None:
    """2 a weight of every matrix but the embedding, and 4 H K a token in sight."""
    config = PRESETS["llama-3.1-8b"].config
    report = account("llama-3.1-8b", context)
    norms = (2 * config.layers + 1) * config.width
    matrices = report.parameters - norms - config.vocabulary * config.width
    assert report.flops_per_token == 2 * matrices + 4 * config.layers * config.heads * config.head_width * context


def test_flops_of_a_window_stop_growing() -> None:
    flops = [account(TINY["Decoder, window"](), n).flops_per_token for n in (1, WINDOW - 1, WINDOW, 4 * WINDOW)]
    assert flops[0] < flops[1] < flops[2] == flops[3]


def test_flops_of_rwkv6() -> None:
    """2 a weight of every matrix but the embedding and the bonus; 5 K V + 3 K + 2 V a head for the mixing."""
    model, heads, width = TINY["RWKV6"](), 3, 8
    products = [
        x for name, x in model.named_parameters() if x.ndim >= 2 and not name.endswith(("embedding.weight", "bonus"))
    ]
    mixing = len(model.layers) * heads * (5 * width * width + 3 * width + 2 * width)
    assert account(model, 5).flops_per_token == 2 * sum(x.numel() for x in products) + mixing


def test_flops_of_rwkv4() -> None:
    """2 a weight of every matrix but the embedding, 11 a channel."""
    config = PRESETS["rwkv4-169m"].config
    matrices = config.layers * 13 * config.width**2 + config.width * config.vocabulary
    assert account("rwkv4-169m", 9).flops_per_token == 2 * matrices + 11 * config.layers * config.width


def test_nothing_is_touched_or_allocated() -> None:
    model = TINY["RWKV6"]()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    account(model, 5)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert account("rwkv4-14b", CONTEXT_256K, batch=1000).parameters > 1e10


def test_importing_measure_leaves_triton_alone() -> None:
    """TRITON_INTERPRET is read when triton is imported; a chapter may set it after importing hybridlab."""
    code = "import sys, hybridlab.measure; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_gpu_build_without_triton_writes_nothing_to_stderr() -> None:
    code = (
        "import sys, torch; torch.version.cuda = '13.0'; sys.modules['triton'] = None\n"
        "from hybridlab.measure import account; account('rwkv4-169m', 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_report_shows_itself() -> None:
    report = account("llama-3.1-8b", CONTEXT_256K)
    text = repr(report)
    assert "layers.0 .. 31, each" in text
    assert text.splitlines()[0] == "llama-3.1-8b after 262,144 tokens, batch 1, bfloat16"
    assert "34,359,738,368" in text
    assert "34,359,738,368" in report._repr_html_()
    numbers = json.loads(json.dumps(report.as_dict()))
    assert numbers["kv_bytes"] == report.kv_bytes
    assert len(numbers["parts"]) == len(report.parts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "llama-9b", "context": 1}, "unknown preset 'llama-9b'; choose .*llama-3.1-8b"),
        ({"model": "llama-3.1-8b", "context": 0}, "context must be an int of at least 1, got 0"),
        ({"model": "llama-3.1-8b", "context": 1, "batch": True}, "batch must be an int of at least 1, got True"),
        ({"model": "llama-3.1-8b", "context": 1, "dtype": "int8"}, "dtype must be one of .*bfloat16.*, got 'int8'"),
        ({"model": "llama-3.1-8b", "context": 1, "state_dtype": "half"}, "state_dtype must be one of"),
        ({"model": None, "context": 1}, "model must be a model or the name of a preset, got None"),
    ],
    ids=["preset", "context", "batch", "dtype", "state dtype", "no model"],
)
def test_bad_input(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        account(**arguments)
