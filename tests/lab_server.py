"""A private JupyterLab and a headless Chromium, for the browser tests; nothing is left behind."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from lab_guard import STOP_SECONDS
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
GUARD = Path(__file__).with_name("lab_guard.py")
START_SECONDS = 90
VIEWPORT = {"width": 1400, "height": 1000}
QUIET = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}


def chromium_path() -> str | None:
    """Where Chromium is, if it is here."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Lab:
    """A JupyterLab that listens, or will, on a free port: its address and how to call its API."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = "for-the-test-only"

    def call(self, path: str, method: str = "GET") -> object:
        """The answer of one API call, parsed."""
        request = urllib.request.Request(
            f"{self.url}{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def page_url(self, path: str = "") -> str:
        """Where a browser opens a notebook (a path below the server's folder)."""
        return f"{self.url}/lab{'/tree/' + path if path else ''}?token={self.token}&reset"


@contextlib.contextmanager
def running_lab(command: list[str], folder: Path, scratch: Path) -> Iterator[Lab]:
    """Starts a Lab by `command` in `folder`, with private settings in `scratch`; stops it whatever happens."""
    lab = Lab()
    guarded = [sys.executable, str(GUARD), *command, *server_options(lab)]
    environment = os.environ | private(scratch)
    process = subprocess.Popen(guarded, cwd=folder, env=environment, stdin=subprocess.PIPE, start_new_session=True)
    try:
        wait_until_up(lab, process)
        yield lab
    finally:
        _stop(process)


def server_options(lab: Lab) -> list[str]:
    """What any JupyterLab is told so that it can be reached there."""
    return [
        f"--ServerApp.port={lab.port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={lab.token}",
        "--LabApp.expose_app_in_browser=True",
        *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    ]


def private(scratch: Path) -> dict[str, str]:
    """Environment variables that keep all settings and caches in a folder."""
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
    folders = {name: str(scratch / name.lower()) for name in names}
    settings = scratch / "jupyter_config_dir" / "labconfig"
    settings.mkdir(parents=True)
    (settings / "page_config.json").write_text(json.dumps(QUIET))
    return {**folders, "JUPYTERLAB_SETTINGS_DIR": str(scratch / "lab_settings"), "PYTHONUNBUFFERED": "1"}


def wait_until_up(lab: Lab, process: subprocess.Popen) -> None:
    """Returns once it answers; raises if it ends or takes too long."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"JupyterLab ended with status {process.returncode} before it answered")
        with contextlib.suppress(urllib.error.URLError, OSError):
            lab.call("/api/status")
            return
        time.sleep(0.2)
    raise TimeoutError(f"JupyterLab did not answer within {START_SECONDS} s")


def _stop(process: subprocess.Popen) -> None:
    process.stdin.close()  # what the guard waits for
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS + 5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium, closed whatever happens."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def browser_page(**options: object) -> Iterator[Page]:
    """A page of a fresh headless Chromium (`options`: playwright's, such as color_scheme="dark")."""
    with chromium() as browser:
        yield browser.new_page(viewport=VIEWPORT, **options)


LAB_COMMAND = [sys.executable, "-m", "jupyter", "lab", "--no-browser"]
