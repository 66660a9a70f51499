"""^C, SIGTERM and SIGHUP: the first ends the work, what ran is still reported, and no child is left
behind.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Children are ended and reports written within this; a signal that comes later is from somebody who
# waits.
_PATIENCE = 1.0
# After so long a ^C that Python swallowed is raised again.
_AGAIN = 0.02


class _State:
    got = 0
    since = 0.0
    over = False


def install() -> None:
    """Make the first signal raise KeyboardInterrupt, and later ones nothing. Signals that were
    ignored stay ignored, as under nohup.
    """
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    sys.unraisablehook = _swallowed


def status() -> int:
    """The exit status of the signal that came, 0 where none did."""
    return 128 + _State.got if _State.got else 0


def over() -> None:
    """Ignore signals from now on: the exit status is known, and little is left to do."""
    _State.over = True


def _handle(number: int, _: FrameType | None) -> None:
    if _State.over:
        return
    if not _State.got:
        _State.got, _State.since = number, time.monotonic()
        raise KeyboardInterrupt
    if time.monotonic() - _State.since > _PATIENCE:
        # Our children end with us: they read the end of their input.
        os._exit(128 + number)


def _swallowed(what: Any) -> None:
    """An exception that Python cannot raise, as in a finalizer. A ^C among them is raised again,
    out of it.
    """
    if not issubclass(what.exc_type, KeyboardInterrupt):
        if not _State.got:
            # After a signal it is what the signal broke.
            sys.__unraisablehook__(what)
        return

    def again(number: int, frame: FrameType | None) -> None:
        if not _State.over:
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)
