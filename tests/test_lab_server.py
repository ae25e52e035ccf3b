"""Nothing is left behind: no server, kernel or browser, however a browser test or the course's own JupyterLab ends."""

import fcntl
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: it comes with the extra `dev`")

from lab_server import Lab, private, server_options, wait_until_up

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc, which only Linux has"),
]
TESTS = Path(__file__).resolve().parent
SECONDS = 60
# A test with everything running: a server, a kernel, a browser that has the server's page open.
TEST = """
from pathlib import Path
from lab_server import LAB_COMMAND, browser_page, running_lab

def test_it(tmp_path):
    with running_lab(LAB_COMMAND, tmp_path, tmp_path / "private") as lab, browser_page() as page:
        page.goto(lab.page_url())
        lab.call("/api/kernels", "POST")
        Path("running").touch()
        {then}
"""


class Marked:
    """Processes that can be found again wherever they have gone: each inherits the mark, in a variable or an argument."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, folder.name
        self.environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(TESTS)}

    def alive(self) -> list[str]:
        """The command lines of all that live; a zombie has none."""
        return [line for line in map(self._command, Path("/proc").glob("[0-9]*")) if line]

    def _command(self, process: Path) -> str:
        try:
            command, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            return ""  # ended in between, or not ours
        return command.replace(b"\0", b" ").decode() if self.mark.encode() in command + variables else ""


@pytest.fixture
def marked() -> Iterator[Marked]:
    """A mark; whatever still has it after the test is killed."""
    # Not below tmp_path: Chromium's socket there would have too long a name.
    folder = Path(tempfile.mkdtemp(prefix="hybridlab_left_"))
    mark = Marked(folder)
    yield mark
    for process in Path("/proc").glob("[0-9]*"):
        if mark._command(process):
            os.kill(int(process.name), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def wait_for(what: Callable[[], bool], why: str) -> None:
    """Fails if it does not happen."""
    end = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.1)


def wait_until_none(marked: Marked) -> None:
    """Fails if something stays alive, and says what."""
    end = time.monotonic() + SECONDS
    while marked.alive() and time.monotonic() < end:
        time.sleep(0.1)
    assert marked.alive() == []


def start_test(marked: Marked, then: str) -> subprocess.Popen:
    """Starts pytest on the test above."""
    (marked.folder / "test_it.py").write_text(TEST.format(then=then))
    options = ("-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", ".")
    command = [sys.executable, "-m", "pytest", *options, "test_it.py"]
    with (marked.folder / "log").open("w") as log:
        return subprocess.Popen(command, cwd=marked.folder, env=marked.environment, stdout=log, stderr=log)


def kinds(marked: Marked) -> set[str]:
    """Which of server, kernel and browser run."""
    known = {"server": "--ServerApp.port=", "kernel": "ipykernel_launcher", "browser": "--type=renderer"}
    return {kind for kind, part in known.items() if any(part in line for line in marked.alive())}


def test_a_test_that_fails_leaves_nothing(marked: Marked) -> None:
    process = start_test(marked, "assert False")
    assert process.wait(SECONDS) == 1, (marked.folder / "log").read_text()
    assert (marked.folder / "running").exists(), (marked.folder / "log").read_text()
    assert marked.alive() == []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda ending: ending.name)
def test_a_test_that_is_stopped_leaves_nothing(ending: signal.Signals, marked: Marked) -> None:
    process = start_test(marked, "page.wait_for_timeout(600_000)")
    wait_for((marked.folder / "running").exists, "the test did not start")
    wait_for(lambda: kinds(marked) == {"server", "kernel", "browser"}, "not everything runs")
    process.send_signal(ending)
    process.wait(SECONDS)
    wait_until_none(marked)


WAYS = {"Ctrl-C twice": [b"\x03", b"\x03"], "Ctrl-C and yes": [b"\x03", b"y\n"], "SIGTERM": []}


@pytest.mark.parametrize("keys", WAYS.values(), ids=WAYS)
def test_hybridlab_lab_leaves_no_kernel(keys: list[bytes], marked: Marked) -> None:
    lab, (terminal, inside) = Lab(), pty.openpty()
    command = [str(Path(sys.executable).parent / "hybridlab"), "lab", "--no-browser", "--", *server_options(lab)]
    with (marked.folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdin=inside, stdout=log, stderr=log, start_new_session=True, cwd=TESTS.parent,
            env=marked.environment | private(marked.folder), preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
    wait_until_up(lab, process)
    lab.call("/api/kernels", "POST")
    wait_for(lambda: kinds(marked) == {"server", "kernel"}, "not everything runs")
    for typed in keys:
        os.write(terminal, typed)
        time.sleep(1)  # as a person would: it asks after the first
    if not keys:
        process.terminate()
    assert process.wait(SECONDS) == 0
    assert marked.alive() == []
    os.close(terminal)
    os.close(inside)
