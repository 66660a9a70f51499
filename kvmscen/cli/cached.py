"""Where the cache of prepared files is."""

from __future__ import annotations

from kvmscen.disk import homes
from kvmscen.errors import HostError


def folder() -> str:
    """The folder of the cache. Raises HostError where there is no home."""
    return str(homes.folder("XDG_CACHE_HOME", ".cache") / "prepared")


def used(unwanted: bool) -> str | None:
    """The folder, None where it is not to be used, or there is no place for it."""
    if unwanted:
        return None
    try:
        return folder()
    except HostError:
        return None
