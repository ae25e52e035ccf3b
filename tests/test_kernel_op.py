"""Kernels as PyTorch operators: opcheck, torch.compile, the meta device, and what dispatch says when it cannot."""

import shutil
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from hybridlab.ops import checks, dispatch
from hybridlab.ops.kernel_op import kernel_op
from hybridlab.ops.wkv6 import wkv6

COMPILERS = ["aot_eager", "inductor"]
HAS_CXX = any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def problem(T: int = 9, constant: bool = False) -> list[Tensor]:
    shapes = [(2, T, 3, 4), (2, T, 3, 4), (2, T, 3, 5), (1, 1, 3, 4) if constant else (2, T, 3, 4), (3, 4), (2, 3, 4, 5)]
    inputs = [torch.randn(shape) for shape in shapes]
    inputs[3] = -inputs[3].exp()
    return [x.requires_grad_() for x in inputs]


class Mixer(nn.Module):
    """The smallest layer around wkv6."""

    def __init__(self, backend: str):
        super().__init__()
        self.project = nn.Linear(8, 4 * 8)
        self.bonus = nn.Parameter(torch.randn(2, 4))
        self.backend = backend

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        r, k, v, w = self.project(x).unflatten(-1, (4, 2, 4)).unbind(2)
        return wkv6(r, k, v, -w.exp(), self.bonus, state, backend=self.backend)


@pytest.mark.parametrize("constant", [False, True], ids=["decay", "constant-decay"])
def test_opcheck(constant: bool) -> None:
    wkv6(*problem())  # registered at import, loaded at the first call
    passed = torch.library.opcheck(torch.ops.hybridlab.wkv6_numba.default, tuple(problem(constant=constant)))
    assert len(passed) == 4
    assert set(passed.values()) == {"SUCCESS"}


def test_opcheck_of_the_backward() -> None:
    inputs = [x.detach() for x in problem()]
    results = torch.ops.hybridlab.wkv6_numba(*inputs)
    grads = [torch.randn_like(y) for y in results]
    tests = ("test_schema", "test_faketensor")
    passed = torch.library.opcheck(
        torch.ops.hybridlab.wkv6_numba_backward.default, ([*inputs, *results, *grads],), test_utils=tests
    )
    assert set(passed.values()) == {"SUCCESS"}


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("with_state", [True, False], ids=["state", "no-state"])
def test_a_layer_compiles_in_one_graph(compiler: str, with_state: bool) -> None:
    if compiler == "inductor" and not HAS_CXX:
        pytest.skip("inductor needs a C++ compiler: install g++ or clang")
    torch._dynamo.reset()
    layer, x = Mixer("numba"), torch.randn(2, 7, 8)
    state = torch.randn(2, 2, 4, 4) if with_state else None
    wants = layer(x, state)
    want_grads = torch.autograd.grad(wants[0].sum() + wants[1].square().sum(), list(layer.parameters()))
    gots = torch.compile(layer, fullgraph=True, backend=compiler)(x, state)
    got_grads = torch.autograd.grad(gots[0].sum() + gots[1].square().sum(), list(layer.parameters()))
    for got, want in zip((*gots, *got_grads), (*wants, *want_grads), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("backend", ["auto", "naive", "numba"])
def test_meta_tensors_have_the_shapes_of_real_ones(backend: str) -> None:
    real = wkv6(*problem(5), backend=backend)
    shapes = wkv6(*(x.to("meta") for x in problem(5)), backend=backend)
    for meta, one in zip(shapes, real, strict=True):
        assert meta.is_meta
        assert (meta.shape, meta.dtype, meta.stride()) == (one.shape, one.dtype, one.stride())


def test_importing_hybridlab_imports_no_kernel() -> None:
    """TRITON_INTERPRET can be set until the first call, and a machine without Numba can read the naive forms."""
    code = "import sys, hybridlab.ops; print([m for m in ('numba', 'triton') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_kernel_file_is_named() -> None:
    def shapes(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.empty_like(x), torch.empty_like(x)

    op = kernel_op("no_such_kernel", ["x"], shapes)
    assert op(torch.zeros(3, device="meta"))[0].shape == (3,)
    with pytest.raises(ModuleNotFoundError, match=r"hybridlab\.kernels\.no_such_kernel"):
        op(torch.zeros(3))


@pytest.mark.parametrize(
    ("device", "dtype", "choice"),
    [
        ("cpu", torch.float32, "numba"),
        ("cpu", torch.float64, "numba"),
        ("cpu", torch.bfloat16, "chunked"),
        ("cpu", torch.float16, "chunked"),
        ("meta", torch.float32, "numba"),
        ("cuda", torch.float64, "chunked"),
        ("mps", torch.float32, "chunked"),
    ],
)
def test_what_auto_means(device: str, dtype: torch.dtype, choice: str) -> None:
    assert dispatch.automatic(device, dtype) == choice


@pytest.mark.parametrize("installed", [True, False], ids=["triton", "no-triton"])
def test_auto_on_a_gpu_needs_triton(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(dispatch, "TRITON_INSTALLED", installed)
    assert dispatch.automatic("cuda", torch.bfloat16) == ("triton" if installed else "chunked")


OBSTACLES = {
    "numba-gpu": (("numba", "cuda", torch.float32), "these are on cuda; use backend='triton'"),
    "numba-half": (("numba", "cpu", torch.float16), "Numba kernels take float32 and float64, these are torch.float16"),
    "triton-double": (
        ("triton", "cuda", torch.float64),
        "Triton kernels take float32 and bfloat16, these are torch.float64",
    ),
    "triton-cpu": (("triton", "cpu", torch.float32), "set TRITON_INTERPRET=1 before anything imports triton"),
}


@pytest.mark.parametrize(("wanted", "reason"), OBSTACLES.values(), ids=OBSTACLES)
def test_a_backend_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch, wanted: tuple, reason: str) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(dispatch, "TRITON_INSTALLED", True)
    assert reason in dispatch.obstacle(*wanted)


def test_triton_obstacles_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "TRITON_INSTALLED", True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    # On a GPU's machine triton may have been imported without its interpreter.
    monkeypatch.setattr(dispatch, "triton_interprets", lambda: True)
    assert dispatch.obstacle("triton", "cpu", torch.float32) == ""
    assert "computes bfloat16 wrongly" in dispatch.obstacle("triton", "cpu", torch.bfloat16)
    monkeypatch.setattr(dispatch, "TRITON_INSTALLED", False)
    assert "exists for Linux only" in dispatch.obstacle("triton", "cuda", torch.float32)


@pytest.mark.parametrize(
    ("backend", "device", "dtype"), [("numba", "cpu", torch.float64), ("triton", "cuda", torch.bfloat16)]
)
def test_no_obstacle(monkeypatch: pytest.MonkeyPatch, backend: str, device: str, dtype: torch.dtype) -> None:
    monkeypatch.setattr(dispatch, "TRITON_INSTALLED", True)
    assert dispatch.obstacle(backend, device, dtype) == ""


def test_sizes_are_read_off_the_layout() -> None:
    tensors = (torch.zeros(2, 7, 3), torch.zeros(1, 3), torch.zeros(2, 3, 4))
    assert checks.check_tensors("op", {"x": "BTD", "y": "bD", "z": "BD4"}, tensors) == {"B": 2, "T": 7, "D": 3}


@pytest.mark.parametrize(
    ("layout", "shape", "message"),
    [
        ("BD4", (2, 3, 5), r"op: z must be \(B, D, 4\), got shape \(2, 3, 5\)"),
        ("bD", (3, 3), r"op: z must be \(B or 1, D\) with B = 2, got shape \(3, 3\)"),
        ("BD", (1, 3), r"op: z must be \(B, D\) with B = 2, got shape \(1, 3\)"),
        ("BE", (2, 0), r"op: z has shape \(2, 0\), E = 0; every axis needs at least one entry"),
    ],
)
def test_layouts_name_what_came_and_what_was_expected(layout: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checks.check_tensors("op", {"x": "BD", "z": layout}, (torch.zeros(2, 3), torch.zeros(shape)))


def test_value_checks_wait_for_values() -> None:
    """A positive decay is an error on real tensors and invisible on the meta device."""
    checks.check_log_decay("op", torch.ones(3, device="meta"))
    with pytest.raises(ValueError, match="op: log_decay must be at most 0 everywhere, its largest entry is 1"):
        checks.check_log_decay("op", torch.ones(3))
