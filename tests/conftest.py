"""What every test needs: Triton's interpreter where there is no GPU, few threads, seeded numbers."""

import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are shared out already, a process each
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads on a shared machine turn 0.1 ms into 6 ms

import torch

if not torch.cuda.is_available():
    # Read when triton is first imported; hybridlab imports it when a Triton kernel is first called.
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

# In the background of a shell Ctrl-C is ignored, and whatever a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for a module's widgets; a second one beside it would need a second event loop."""
    from lab_server import chromium

    with chromium() as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser"):
        return
    skip = pytest.mark.skip(reason="no Chromium on this machine: install Debian's `chromium` to run the browser tests")
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(skip)
