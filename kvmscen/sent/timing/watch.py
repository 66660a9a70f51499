"""Looks after a thread that times exits, from beside it: that is signalled only when it is to stop.

A timer that goes off now and then would break off each KVM_RUN that it meets: of a span as long as
its interval there would never be a sample, and of shorter ones the shortest would be left.
"""

from __future__ import annotations

import _thread
import signal
from typing import Callable

from kvmscen.sent.errors import HostError
from kvmscen.sent.kvm.limits import Limits

# Between two looks, in seconds: a look takes some microseconds of another CPU.
_LEAST, _MOST = 0.05, 5.0
# A signal that comes between the last bytecode and the system call is lost, so it is sent again and
# again.
_AGAIN = 0.02


class Watch:
    """Signals this thread with SIGALRM once `count()` has not changed for `seconds`, or the limit
    of the whole run is over.

    It is called in a thread of its own. Time counts as in kvmscen.sent.kvm.limits. `over` is
    whether it is so far.
    """

    def __init__(self, count: Callable[[], int], limits: Limits, seconds: float) -> None:
        self.over = False
        self._count, self._limits, self._seconds = count, limits, seconds
        self._thread = _thread.get_ident()
        self._stop, self._gone = _thread.allocate_lock(), _thread.allocate_lock()
        self._last, self._since = count(), limits.clock.now()

    def __enter__(self) -> Watch:
        self._stop.acquire()
        self._gone.acquire()
        # Signals are for the thread that runs the guest.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            _thread.start_new_thread(self._watch, ())
        except RuntimeError as error:
            raise HostError(f"no thread can be started to look after the guest: {error}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.release()
        self._gone.acquire()

    def _watch(self) -> None:
        pause = min(max(self._seconds / 4, _LEAST), _MOST)
        try:
            while not self._stop.acquire(timeout=pause):
                if self.over or self._late():
                    self.over, pause = True, _AGAIN
                    signal.pthread_kill(self._thread, signal.SIGALRM)
        finally:
            self._gone.release()

    def _late(self) -> bool:
        now, count = self._limits.clock.now(), self._count()
        if count != self._last:
            self._last, self._since = count, now
        return self._limits.late() or now - self._since > self._seconds
