"""Runs a server and stops it as soon as whoever wanted it is gone: standard input closes then, even after `kill -9`.

python tests/lab_guard.py COMMAND...
"""

import os
import signal
import subprocess
import sys
import threading

STOP_SECONDS = 20


def main(command: list[str]) -> int:
    """Runs the command until it ends or standard input does; its exit status."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
    return server.wait()


def _stop_at_end_of_input(server: subprocess.Popen) -> None:
    sys.stdin.buffer.read()
    server.terminate()  # JupyterLab shuts its kernels down first
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
