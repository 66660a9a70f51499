"""How much work something is, in calls of functions: the same on every machine, however busy, which
seconds are not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def calls(act: Callable[[], Any]) -> int:
    """How many functions of Python and of C `act` calls. What takes the square of its input shows
    as millions.

    What a C function does inside, as a search in a text, is one call: it is not seen here.
    """
    seen = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal seen
        if event in ("call", "c_call"):
            seen += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(before)
    return seen
