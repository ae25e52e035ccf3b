"""What the doctor looks at, gathered: the only part of it that touches the machine.

A broken package is a fact, not an error.
"""

import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path

from hybridlab.cli.places import repository
from hybridlab.interpreter import triton_interprets

EXTENSIONS = {"anywidget": "anywidget", "jupyterlab_widgets": "@jupyter-widgets/jupyterlab-manager"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
VARIABLES = (
    *("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR", "TRITON_INTERPRET"),
    *("CONDA_PREFIX", "REMOTE_CONTAINERS", "DEVCONTAINER", "COLAB_RELEASE_TAG"),
)


@dataclass(frozen=True)
class Facts:
    """One machine and environment.

    Attributes:
        python: version.
        system: "Linux", "Darwin" or "Windows".
        machine: architecture.
        kernel: release of the operating system's kernel, which names WSL.
        environment: those variables that matter, where they are set.
        root: folder of the course; empty if it is not here.
        root_writable: whether notebooks in it can be saved.
        memory_bytes: of the machine; None if unknown.
        free_bytes: on the disk of the course, or of the current folder.
        pinned: versions in constraints.txt by package; None without that file.
        installed: versions of all installed packages.
        import_error: what torch or numba raised when imported; empty if they load.
        cores: that this process may use.
        torch_threads, numba_threads: what they would use.
        numba_layer: name of the threading layer; empty if none starts.
        numba_cache: folder of compiled kernels; empty if Numba finds none that it can write to.
        gpu: name of the first GPU that PyTorch sees; empty if none.
        triton_interprets: whether the imported triton interprets; None if it is not imported.
        chromium, compiler: path, or empty.
        extensions: whether JupyterLab finds each, by the package that brings it.
    """

    python: tuple[int, int, int] = (3, 11, 0)
    system: str = "Linux"
    machine: str = "x86_64"
    kernel: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    root: str = ""
    root_writable: bool = False
    memory_bytes: int | None = None
    free_bytes: int = 0
    pinned: Mapping[str, str] | None = None
    installed: Mapping[str, str] = field(default_factory=dict)
    import_error: str = ""
    cores: int = 1
    torch_threads: int = 1
    numba_threads: int = 1
    numba_layer: str = ""
    numba_cache: str = ""
    gpu: str = ""
    triton_interprets: bool | None = None
    chromium: str = ""
    compiler: str = ""
    extensions: Mapping[str, bool] = field(default_factory=dict)


def gather() -> Facts:
    """The facts of this machine and this process."""
    root = _root()
    triton = triton_interprets()
    error = _import_error()
    torch_threads, numba_threads, gpu = _computing() if not error else (0, 0, "")
    return Facts(
        python=sys.version_info[:3],
        system=platform.system(),
        machine=platform.machine(),
        kernel=platform.release(),
        environment={name: os.environ[name] for name in VARIABLES if name in os.environ},
        root=str(root or ""),
        root_writable=root is not None and _writable(root / "chapters"),
        memory_bytes=_memory_bytes(),
        free_bytes=shutil.disk_usage(root or Path.cwd()).free,
        pinned=_pinned(root),
        installed={_plain(d.metadata["Name"]): d.version for d in distributions()},
        import_error=error,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        torch_threads=torch_threads,
        numba_threads=numba_threads,
        numba_layer=_numba_layer() if not error else "",
        numba_cache=_numba_cache() if not error else "",
        gpu=gpu,
        triton_interprets=triton,
        chromium=_first(BROWSERS),
        compiler=_first(("g++", "clang++", "c++")),
        extensions={name: _has_extension(path) for name, path in EXTENSIONS.items()},
    )


def _root() -> Path | None:
    try:
        return repository()
    except ValueError:
        return None


def _pinned(root: Path | None) -> dict[str, str] | None:
    file = root / "constraints.txt" if root else None
    return read_constraints(file.read_text(encoding="utf-8")) if file and file.is_file() else None


def read_constraints(text: str) -> dict[str, str]:
    """Versions by package, from lines `name==version`; anything else is left out."""
    matches = (re.match(r"([A-Za-z0-9_.-]+)==([^\s;]+)", line) for line in text.splitlines())
    return {_plain(match[1]): match[2] for match in matches if match}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _import_error() -> str:
    for name in ("torch", "numba"):
        try:
            importlib.import_module(name)
        # A broken wheel raises anything: OSError for a library, SystemError for an ABI.
        except Exception as error:
            return f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


def _computing() -> tuple[int, int, str]:
    import numba
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return torch.get_num_threads(), numba.get_num_threads(), gpu


def _numba_layer() -> str:
    """Starts one parallel loop, because Numba chooses its layer then."""
    import numba

    @numba.njit(parallel=True)
    def count(n: int) -> int:
        total = 0
        for _ in numba.prange(n):
            total += 1
        return total

    try:
        count(8)
        return numba.threading_layer()
    except (ValueError, RuntimeError, ImportError):
        return ""


def _numba_cache() -> str:
    """Asked of a kernel, because Numba looks for a place that can be written to: its own variable's, beside the sources, the
    user's."""
    from numba.core.dispatcher import Dispatcher

    try:
        from hybridlab.kernels import wkv4_numba
    except RuntimeError:  # no such place: Numba refuses the kernels
        return ""
    kernels = (kernel for kernel in vars(wkv4_numba).values() if isinstance(kernel, Dispatcher))
    # What other kernels inline is compiled with them and has no place of its own.
    return next((kernel.stats.cache_path for kernel in kernels if kernel.stats.cache_path), "")


def _writable(folder: Path) -> bool:
    """Whether files can be made there; of a folder that does not exist yet, whether it can be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def _memory_bytes() -> int | None:
    try:
        import psutil
    except ImportError:
        return None  # it comes with ipykernel, whose absence is a finding of its own
    return psutil.virtual_memory().total


def _first(programs: tuple[str, ...]) -> str:
    return next((path for path in map(shutil.which, programs) if path), "")


def _has_extension(name: str) -> bool:
    """Whether JupyterLab's folders hold an extension: this environment's, the user's, the system's."""
    homes = [Path(sys.prefix) / "share" / "jupyter", *_user_homes()]
    return any((home / "labextensions" / name / "package.json").is_file() for home in homes)


def _user_homes() -> list[Path]:
    try:
        from jupyter_core.paths import jupyter_path
    except ImportError:
        return []
    return [Path(path) for path in jupyter_path()]
