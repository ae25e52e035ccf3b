"""`hybridlab lab`: JupyterLab on the start chapter. The server is this very process, so it ends when the command does."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Defaults of this server alone: no question about news at a learner's first start, no offer of an untested JupyterLab.
# What a learner has chosen in JupyterLab's settings wins over them.
SETTINGS = Path(__file__).with_name("lab_settings")


def lab_command(
    root: Path, chapter: Path, extra: list[str], *, browser: bool, port: int | None, superuser: bool
) -> list[str]:
    """The command line of JupyterLab.

    Args:
        root: folder that the server shows.
        chapter: notebook that it opens on, relative to the root.
        extra: further arguments, passed on.
        browser: whether it opens a browser.
        port: where to listen; None is Jupyter's choice.
        superuser: whether this runs as root, which Jupyter refuses unless told.
    """
    return [
        *(sys.executable, "-m", "jupyterlab"),
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{chapter.as_posix()}",
        f"--LabApp.app_settings_dir={SETTINGS}",
        *([] if browser else ["--no-browser"]),
        *([] if port is None else [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]),
        *(["--allow-root"] if superuser else []),
        *extra,
    ]


def check_installed() -> None:
    """Raises ValueError if JupyterLab is not in this environment."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise ValueError(
            "jupyterlab is not installed in this environment: pip install -c constraints.txt -e '.[course]' in the "
            "repository, or `make lab`, which does it"
        )


def check_writable() -> None:
    """Raises ValueError if there is no place for what JupyterLab writes while it runs."""
    from jupyter_core.paths import jupyter_runtime_dir

    folder = Path(jupyter_runtime_dir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"JupyterLab cannot write to {folder} ({error.strerror}): "
            "set JUPYTER_RUNTIME_DIR, or HOME, to a folder of your own"
        ) from None


def is_superuser() -> bool:
    """Whether this process runs as root (never on Windows)."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def let_idle_threads_sleep() -> None:
    """For all notebooks, unless the environment says otherwise: OpenMP threads that spin while they wait take the cores
    that the browser and other kernels need. On two busy cores that made a chapter sixteen times slower."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def become(command: list[str]) -> int:
    """Turns this process into the command; on Windows, which cannot, runs it and returns its status."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execv(command[0], command)
    return subprocess.run(command, check=False).returncode
