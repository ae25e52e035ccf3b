"""Whether Triton interprets, which is decided once: when triton is first imported.

The doctor asks too, on machines where torch does not load, so nothing here imports it.
"""

import sys


def triton_interprets() -> bool | None:
    """Whether this process's triton interprets: functions of its own, such as tl.sum, show what was set at import.

    Returns:
        None if triton is not imported yet.
    """
    language = sys.modules.get("triton.language")
    return None if language is None else type(language.sum).__name__ == "InterpretedFunction"
