"""Which code runs: `backend` and `form` to a function, with a reason where one cannot run here.

A backend is a kind of code (naive PyTorch, Numba, Triton), a form is a way to bracket the sum in plain PyTorch
(recurrent, parallel, chunked). Naming a form means the naive backend. Nothing falls back silently.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hybridlab.interpreter import triton_interprets

Forms = Mapping[str, Callable[..., tuple[Tensor, ...]]]

NUMBA_DTYPES = (torch.float32, torch.float64)
TRITON_DTYPES = (torch.float32, torch.bfloat16)
# Looked up once: finding a module is slow, and torch.compile cannot trace it.
TRITON_INSTALLED = importlib.util.find_spec("triton") is not None


def choose(op: str, forms: Forms, backends: Forms, backend: str, form: str | None, like: Tensor) -> Callable[..., tuple]:
    """The function that `backend` and `form` name for inputs like `like`.

    Raises:
        ValueError: for a name that does not exist, a form with a kernel backend, or a backend that cannot run here.
    """
    if backend != "auto" and backend not in backends:
        raise ValueError(f"{op}: unknown backend {backend!r}; choose auto, {', '.join(backends)}")
    if form is not None:
        return _form(op, forms, backend, form)
    if backend == "auto":
        backend = automatic(like.device.type, like.dtype)
        if backend == "chunked":
            return forms.get("chunked", forms["parallel"])
    problem = obstacle(backend, like.device.type, like.dtype)
    if problem:
        raise ValueError(f"{op}: backend={backend!r} cannot run here: {problem}")
    return backends[backend]


def _form(op: str, forms: Forms, backend: str, form: str) -> Callable[..., tuple[Tensor, ...]]:
    if form not in forms:
        raise ValueError(f"{op}: unknown form {form!r}; choose {', '.join(forms)}")
    if backend not in ("auto", "naive"):
        raise ValueError(f"{op}: form={form!r} is plain PyTorch (backend 'naive'); it cannot go with backend={backend!r}")
    return forms[form]


def automatic(device: str, dtype: torch.dtype) -> str:
    """What `auto` means: Numba on a CPU, Triton on a GPU, the chunked PyTorch form for what those lack.

    An op without chunks has its parallel form there.
    """
    if device in ("cpu", "meta") and dtype in NUMBA_DTYPES:
        return "numba"
    if device == "cuda" and dtype in TRITON_DTYPES and TRITON_INSTALLED:
        return "triton"
    return "chunked"


def obstacle(backend: str, device: str, dtype: torch.dtype) -> str:
    """Why a backend cannot take these inputs here; empty if it can."""
    if backend == "numba":
        if device not in ("cpu", "meta"):
            return f"Numba kernels take CPU tensors, these are on {device}; use backend='triton'"
        if dtype not in NUMBA_DTYPES:
            return f"Numba kernels take float32 and float64, these are {dtype}; use backend='auto'"
    if backend == "triton":
        return _triton_obstacle(device, dtype)
    return ""


def _triton_obstacle(device: str, dtype: torch.dtype) -> str:
    if not TRITON_INSTALLED:
        return "triton is not installed (it exists for Linux only); use backend='numba'"
    if dtype not in TRITON_DTYPES:
        return f"Triton kernels take float32 and bfloat16, these are {dtype}; use backend='naive'"
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "CPU tensors need Triton's interpreter: set TRITON_INTERPRET=1 before anything imports triton"
    # torch.compile cannot trace the look at sys.modules.
    if device == "cpu" and not torch.compiler.is_compiling() and triton_interprets() is False:
        return "TRITON_INTERPRET was set after something had imported triton: restart Python and set it first"
    if device == "cpu" and dtype == torch.bfloat16:
        return "Triton's interpreter computes bfloat16 wrongly; use float32"
    return ""
