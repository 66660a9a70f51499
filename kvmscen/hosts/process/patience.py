"""How long a child may take for an answer: its time counts while it could run, so that a busy
machine makes no errors.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

# Once the time is over by the wall's clock, the child is looked at so often (seconds), and given up
# when it was found asleep so many times in a row: it waits for something that does not come.
_LOOK, _LOOKS = 0.25, 4
# A child that neither sleeps nor gets anywhere is given up after so many times its time, and this
# in seconds.
_TIMES, _MORE = 10, 60.0
_TICK = 1 / os.sysconf("SC_CLK_TCK")


class Patience:
    """`seconds` of CPU time of a process and those that it started, or of the wall's while it
    sleeps.

    By the wall's clock nothing is over while one of them could use a CPU and does not get one, or
    waits for the disk. What is not a process of this machine (an ssh client waits for another one)
    counts by the wall's clock.
    """

    def __init__(self, seconds: float, process: int) -> None:
        now = time.monotonic()
        self._seconds = seconds
        self._process = process
        self._until = now + seconds
        self._most = now + seconds * _TIMES + _MORE
        # What it has started by now, if anything, is short-lived, and looking for it takes longer
        # than a small file.
        self._used = _own(str(process))
        self._asleep = 0

    def left(self) -> float:
        """Seconds until `more` has to say how it goes on; 0 or less: now."""
        return self._until - time.monotonic()

    def more(self) -> bool:
        """Whether to wait on; asked when nothing is left."""
        now = time.monotonic()
        if now >= self._most or used(self._process) - self._used >= self._seconds:
            return False
        self._asleep = 0 if _busy(self._process) else self._asleep + 1
        self._until = now + _LOOK
        return self._asleep < _LOOKS


class Later:
    """A Patience that is begun, by `begin`, when nothing has come for a moment: most answers come
    at once, and looking at a process takes longer than reading them.
    """

    def __init__(self, seconds: float, begin: Callable[[float], Patience]) -> None:
        self._seconds = seconds
        self._begin = begin
        self._until = time.monotonic() + min(seconds, _LOOK)
        self._patience: Patience | None = None

    def left(self) -> float:
        """As of Patience."""
        if self._patience is not None:
            return self._patience.left()
        return self._until - time.monotonic()

    def more(self) -> bool:
        """As of Patience."""
        if self._patience is None:
            self._patience = self._begin(max(self._seconds - _LOOK, 0.0))
            return True
        return self._patience.more()


def used(process: int) -> float:
    """The CPU time in seconds of a process and of those that it started, ended ones included; 0
    where /proc does not tell.
    """
    return sum(map(_own, _family(process)))


def _own(process: str) -> float:
    # utime, stime, cutime and cstime: its own, and that of those which it has waited for.
    return _TICK * sum(map(int, _stat(process)[11:15]))


def _busy(process: int) -> bool:
    """Whether a thread of them could run now, or waits for the disk."""
    for member in _family(process):
        for thread in _listed(f"/proc/{member}/task"):
            stat = _stat(f"{member}/task/{thread}")
            if stat and stat[0] in "RD":
                return True
    return False


def _family(process: int) -> Iterator[str]:
    """A process and all that descend from it, as long as their parents are there."""
    waiting = [str(process)]
    while waiting:
        member = waiting.pop()
        yield member
        for thread in _listed(f"/proc/{member}/task"):
            waiting += _read(f"/proc/{member}/task/{thread}/children").split()


def _stat(which: str) -> list[str]:
    """What stands behind the name in /proc/WHICH/stat (proc(5)): the state first; empty where it
    has gone.
    """
    return _read(f"/proc/{which}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 1 << 16).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)  # noqa: PTH208 of /proc, again and again
    except OSError:
        return []
