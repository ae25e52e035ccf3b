"""Runs a notebook in a fresh kernel of this environment."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode, from_dict
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager

CELL_SECONDS = 180
# Two threads, as the course promises to run on; a fixed hash seed, so that the same sources give the same bytes.
ENVIRONMENT = {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONHASHSEED": "0"}
UNSET = ("MPLBACKEND", "FORCE_COLOR", "NO_COLOR", "COLUMNS")  # what would change how outputs look


class CellError(Exception):
    """A cell that failed: which notebook, which cell, its source and what it raised."""


class Execution(NamedTuple):
    """A notebook with new outputs, the seconds it took and the most memory that its kernel held."""

    notebook: NotebookNode
    seconds: float
    peak_bytes: int


class _Kernels(AsyncKernelManager):
    """Kernels of the environment that runs this, whatever kernels the machine has installed under the same name."""

    def __init__(self, **kwargs):
        super().__init__(kernel_spec_manager=NbvalKernelspecManager(), **kwargs)


class _Watch:
    """Follows a run: the cell that is running, and the most memory so far."""

    def __init__(self, cells: int, on_cell: Callable[[int, int], None]):
        self.cells, self.on_cell = cells, on_cell
        self.cell, self.peak = NotebookNode(), 0
        self.client: NotebookClient

    def before(self, cell: NotebookNode, cell_index: int) -> None:
        self.cell = cell
        self.on_cell(cell_index + 1, self.cells)

    def after(self, cell: NotebookNode, cell_index: int, execute_reply: dict) -> None:
        self.peak = max(self.peak, peak_bytes(kernel_pid(self.client.km)))

    def describe(self, what: str) -> str:
        return f"cell {self.cell.get('id', 'none yet')}: {what}\n\n{_indented(self.cell.get('source', ''))}"


def execute(
    notebook: NotebookNode,
    folder: Path,
    variables: dict[str, str] | None = None,
    on_cell: Callable[[int, int], None] = lambda cell, cells: None,
) -> Execution:
    """Runs every cell of a copy of the notebook, in order.

    Args:
        notebook: what to run.
        folder: where the kernel starts.
        variables: more environment variables for the kernel.
        on_cell: called before each cell with its number, from 1, and how many there are.

    Returns:
        the copy with its outputs, seconds and bytes.

    Raises:
        CellError: a cell raised, ran too long, ended its kernel, or wrote to stderr.
    """
    copy = without_outputs(notebook)
    watch = _Watch(len(copy.cells), on_cell)
    watch.client = NotebookClient(
        copy,
        timeout=CELL_SECONDS,
        kernel_name=CURRENT_ENV_KERNEL_NAME,
        kernel_manager_class=_Kernels,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=watch.before,
        on_cell_executed=watch.after,
    )
    start = time.monotonic()
    with _environment(variables or {}) as environment:
        _run(watch, environment)
    _refuse_stderr(copy)
    return Execution(copy, time.monotonic() - start, watch.peak)


def without_outputs(notebook: NotebookNode) -> NotebookNode:
    """A copy of a notebook as it is before it runs."""
    copy = from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return copy


def kernel_pid(manager: Any) -> int:
    """The process of a kernel that this machine started."""
    return manager.provisioner.pid


def peak_bytes(pid: int) -> int:
    """The most memory that a process has held so far; where the system does not keep count, what it holds now."""
    try:
        if sys.platform == "linux":
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            return 1024 * int(status.split("VmHWM:")[1].split()[0])
        memory = psutil.Process(pid).memory_info()
        return getattr(memory, "peak_wset", memory.rss)
    except (OSError, IndexError, psutil.Error):
        return 0  # it has ended


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[dict[str, str]]:
    kept = {key: value for key, value in os.environ.items() if key not in UNSET}
    with tempfile.TemporaryDirectory() as profile:
        yield {**kept, **ENVIRONMENT, "IPYTHONDIR": profile, **variables}


def _run(watch: _Watch, environment: dict[str, str]) -> None:
    try:
        _interruptible(watch.client, environment)
    except CellExecutionError as error:
        raise CellError(watch.describe(f"{error.ename}: {error.evalue}") + f"\n\n{error.traceback}") from None
    except CellTimeoutError:
        raise CellError(watch.describe(f"still running after {CELL_SECONDS} s")) from None
    except DeadKernelError:
        raise CellError(watch.describe("the kernel ended: exit(), a crash, or out of memory")) from None


def _interruptible(client: NotebookClient, environment: dict[str, str]) -> None:
    """Runs in a thread of its own: in the main one nbclient takes Ctrl-C for itself, and stumbles over its own clean-up."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.execute, env=environment)
        try:
            running.result()
        except KeyboardInterrupt:
            if client.km is not None and client.km.has_kernel:
                psutil.Process(kernel_pid(client.km)).kill()  # the thread sees it end, cleans up, and is done
            raise


def _refuse_stderr(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                said = f"cell {cell.id} writes to stderr:\n\n{_indented(output.text)}"
                raise CellError(f"{said}\n\nits source:\n\n{_indented(cell.source)}")


def _indented(text: str) -> str:
    return "\n".join("    " + line for line in text.rstrip("\n").split("\n"))
