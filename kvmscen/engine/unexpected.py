"""What is said of an exception that nobody expected: one line that can be reported, and the
traceback for who asks for it.
"""

from __future__ import annotations

import os
import sys

from kvmscen import __version__

_REPORT = (
    "please report it where you got kvmscen, with this line and the file; KVMSCEN_DEBUG=1 "
    "shows where it broke"
)


def told(error: BaseException) -> str:
    """One line on an exception. With KVMSCEN_DEBUG set its traceback goes to stderr."""
    if os.environ.get("KVMSCEN_DEBUG"):
        # Here and below, since every run imports this module and hardly one needs it.
        import traceback

        print("".join(traceback.format_exception(error)).rstrip(), file=sys.stderr)
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    if isinstance(error, OSError) and error.strerror:
        # Files that are read or written on request have their own messages.
        return (
            f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
        )
    import platform
    import traceback

    at = "".join(
        f" at {frame.filename.rpartition(os.sep)[2]}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)[-1:]
    )
    machine = (
        f"kvmscen {__version__}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.release()}"
    )
    return (
        f"kvmscen itself broke: {type(error).__name__}: {' '.join(str(error).split())}{at} "
        f"({machine}); {_REPORT}"
    )
