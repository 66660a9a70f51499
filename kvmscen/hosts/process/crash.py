"""Where the Python of a child was when a fault ended it, out of what its faulthandler printed."""

from __future__ import annotations

import re

_FATAL = re.compile(r"^Fatal Python error: .*$", re.MULTILINE)
_FRAME = re.compile(r'^\s*File "(.*?)", line (\d+|\?\?\?) in (.*?)\s*$', re.MULTILINE)
_SHOWN = 4


def where(tail: str) -> str:
    """` in NAME (FILE:LINE), called by ...`, the innermost first; empty where the end of what it
    printed tells nothing.
    """
    told = list(_FATAL.finditer(tail))
    frames = _FRAME.findall(tail[told[-1].end() :]) if told else []
    return "" if not frames else " in " + ", called by ".join(map(_place, frames[:_SHOWN]))


def _place(frame: tuple[str, str, str]) -> str:
    file, line, name = frame
    package = file.rfind("kvmscen/")
    return f"{name} ({file[package:] if package >= 0 else file.rpartition('/')[2]}:{line})"
