"""The command `hybridlab`: open the course, practise, check, measure.

Nothing heavy is imported before a command needs it: `hybridlab --help` answers without torch.
"""

import sys


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits with its status.

    0 is success, 1 a check that failed, 2 a wrong argument or a missing file (one line on stderr, no traceback), 130 Ctrl-C.
    """
    try:
        from hybridlab.cli.app import app

        app(arguments, prog_name="hybridlab")
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        print(f"hybridlab: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())
