"""The user's own folders that a program may keep things in (XDG Base Directory Specification)."""

from __future__ import annotations

import os
from pathlib import Path

from kvmscen.errors import HostError


def folder(variable: str, default: str) -> Path:
    """`kvmscen` below the folder that `variable` names, else below `default` in the user's home. It
    need not be there.

    Raises HostError where there is no home. By the specification a path that is not absolute counts
    as none.
    """
    given = os.environ.get(variable, "")
    if os.path.isabs(given):
        return Path(given) / "kvmscen"
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise HostError(f"there is no home folder: set HOME, or {variable} to a folder")
    return Path(home) / default / "kvmscen"
