"""What the main process holds of a run at once: jobs that wait for a host, and what was seen."""

from __future__ import annotations

import threading

from kvmscen.sent.observation import Observation, weight

# Bytes of Machines that wait, beyond which no more files are prepared.
_WAITING = 256 << 20
# Bytes of memory, about, for what all cases of a run saw. An event is a few objects of Python.
SEEN_MOST = 1 << 30
TOO_MUCH = (
    f"what the cases of this run saw takes more than {SEEN_MOST >> 30} GiB: run fewer at once, or "
    f"look at less"
)
_EVENT = 1500
_TURN = 0.5


class Room:
    """For several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting = 0
        self._seen = 0

    def wait(self, size: int, stopped: threading.Event) -> None:
        """So much more waits: return once there is room for more, or the run is over."""
        with self._changed:
            self._waiting += size
            while self._waiting > _WAITING and not stopped.is_set():
                self._changed.wait(_TURN)

    def taken(self, size: int) -> None:
        """So much of it does not wait any more."""
        with self._changed:
            self._waiting -= size
            self._changed.notify_all()

    def keep(self, seen: Observation) -> bool:
        """Whether there is room to keep what was seen; if so it is counted."""
        size = (
            _EVENT * len(seen.events)
            + 2 * sum(map(weight, seen.events))
            + sum(map(len, seen.memory.values()))
        )
        with self._changed:
            if self._seen + size > SEEN_MOST:
                return False
            self._seen += size
            return True
