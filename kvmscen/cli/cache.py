"""`kvmscen cache`: what `run` keeps of the files that it prepared. Prints, and returns the exit
status.
"""

from __future__ import annotations

import argparse
import os

from kvmscen.cli.cached import folder
from kvmscen.disk import packs
from kvmscen.errors import HostError


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
