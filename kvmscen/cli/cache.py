"""`kvmscen cache`: what `run` keeps of the files that it prepared. Prints, and returns the exit
status.
"""

from __future__ import annotations

import argparse
import os

from kvmscen.disk import homes, packs
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


def cache(arguments: argparse.Namespace) -> int:
    """`kvmscen cache show|clear`."""
    where = folder()
    if arguments.what == "show":
        held = packs.size(where)
        print(f"{where}: {_told(held)}")
        return 0
    try:
        held = packs.clear(where)
    except OSError as error:
        raise HostError(f"{where}: {os.strerror(error.errno or 0)}") from None
    print(f"{where}: removed {_told(held)}")
    return 0


def _told(held: packs.Size) -> str:
    files = "1 file" if held.entries == 1 else f"{held.entries:,} files"
    return f"{files}, {held.bytes / (1 << 20):.1f} of {packs.MOST >> 20} MiB"
