"""What is asked of the process of a child, however it was started."""

from __future__ import annotations

import fcntl
import os
from typing import IO, Protocol

_PIPE = 1 << 20


class Process(Protocol):
    """What is asked of the process of a child; a subprocess.Popen is one."""

    @property
    def stdin(self) -> IO[bytes] | None:
        """Its input, unbuffered."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """Its output, unbuffered."""

    @property
    def pid(self) -> int:
        """Its id, which is that of its session too."""

    @property
    def returncode(self) -> int | None:
        """Its status as subprocess has it, None while nobody has waited for its end."""

    def kill(self) -> None:
        """End it."""

    def poll(self) -> int | None:
        """The same, after a look."""

    def wait(self) -> int:
        """Wait for its end."""


def wide(process: Process) -> None:
    """Make a process's input one that takes as much as it can at once, and never waits."""
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    try:
        # So much that a greeting goes in at once, and the child can start while others are started.
        fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, _PIPE)
    except OSError:
        pass
