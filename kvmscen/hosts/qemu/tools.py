"""QEMU itself: the machine's own, or the one that was unpacked into the cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from kvmscen.errors import HostError
from kvmscen.hosts.qemu import store
from kvmscen.hosts.qemu.boards import Board
from kvmscen.hosts.qemu.packages import Apt, Tell, native, release, unpack


class Qemu(NamedTuple):
    """A QEMU: its program, options that it needs to find its own files, and its environment."""

    program: str
    options: tuple[str, ...]
    environment: Mapping[str, str]


def unpacked(board: Board) -> Path:
    """The folder into which QEMU is unpacked if this machine has none installed."""
    return store.home() / "tools" / board.package


def find(board: Board) -> Qemu | None:
    """The QEMU for a board, None where there is none."""
    own = shutil.which(board.binary)
    if own is not None:
        return Qemu(own, (), os.environ)
    root = unpacked(board)
    program = root / "usr/bin" / board.binary
    if not program.exists():
        return None
    libraries = [
        str(path) for path in (*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*"))
    ]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
    return Qemu(
        str(program),
        ("-L", str(root / "usr/share/qemu"), "-L", str(root / "usr/share/seabios")),
        environment,
    )


def need(board: Board) -> Qemu:
    """The QEMU for a board; raises HostError with what to do where there is none."""
    qemu = find(board)
    if qemu is None:
        raise HostError(
            f"{board.binary} is not installed: install Debian's package {board.package}, or "
            f"prepare the host again"
        )
    return qemu


def get(board: Board, tell: Tell) -> None:
    """See to it that there is a QEMU for a board: the machine's own, or its package unpacked into
    the cache, not installed.
    """
    if find(board) is not None:
        return
    tell(f"{board.binary} is not installed here: getting {board.package}", None)
    place = unpacked(board)
    with store.locked(board.package, lambda what: tell(what, None)):
        if find(board) is not None:
            return
        downloads = store.home() / "downloads" / board.package
        apt = Apt(store.home() / "apt", native(), release())
        apt.update(tell)
        packages = [
            package
            for name in (board.package, *board.firmware)
            for package in apt.closure(name, downloads, tell)
        ]
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        try:
            for package in dict.fromkeys(packages):
                unpack(package, unfinished)
            shutil.rmtree(place, ignore_errors=True)
            unfinished.rename(place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(downloads, ignore_errors=True)
    need(board)
