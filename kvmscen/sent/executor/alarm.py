"""SIGALRM: one handler for the life of a process, since setting one takes as long as some ioctls;
and which run it is for.
"""

from __future__ import annotations

import signal

# signal.getsignal makes an enum of what it finds, which takes five times as long.
from _signal import getsignal  # type: ignore[import-not-found]
from typing import Callable

_rings: Callable[[], None] | None = None


def _handle(number: int, frame: object) -> None:
    # One that comes when the run is over is of a timer that nobody waits for any more.
    if _rings is not None:
        _rings()


def begin(rings: Callable[[], None]) -> None:
    """From now on SIGALRM calls this. Only in the thread that gets Python's signals, the first."""
    global _rings
    _rings = rings
    if getsignal(signal.SIGALRM) is not _handle:
        signal.signal(signal.SIGALRM, _handle)


def end() -> None:
    """No timer runs any more, and SIGALRM does nothing."""
    global _rings
    signal.setitimer(signal.ITIMER_REAL, 0)
    _rings = None
