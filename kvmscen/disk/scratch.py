"""Private folders for programs that write files (GNU as and ld): in memory where there is room, and
gone afterwards.

A folder is locked (flock) by the process that uses it, for as long as that lives. So whoever can
lock one knows that its owner is dead, in whichever container that ran, and removes it: `sweep`.
kvmscen does so when it starts such a process, and when it has ended one.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SHARED = "/dev/shm"
PREFIX = "kvmscen-gnu-"
# Of what there is in memory others want some too; a small /dev/shm (a container's has 64 MiB) will
# do for most programs.
_ROOM = 16 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TRIES, _PAUSE = 100, 0.02
_TRIES_ENDED = 25
# Those that this process uses now, and those of them that others are made in.
_own: set[Path] = set()
_rooms: list[str] = []


class Full(Exception):
    """There is no more room where a scratch folder lies."""


def places() -> list[str]:
    """Where scratch folders may lie, the best first: in memory, and in the temporary folder."""
    shared = [_SHARED] if _has_room() and os.access(_SHARED, os.W_OK | os.X_OK) else []
    try:
        return list(dict.fromkeys([*shared, tempfile.gettempdir()]))
    except FileNotFoundError:
        return shared


def _has_room() -> bool:
    try:
        room = os.statvfs(_SHARED)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize >= _ROOM


def settle() -> list[str]:
    """Folders of this process alone, to make scratch folders in: one in each place, the best first.

    A process that may write nowhere else has them made beforehand. They are gone when it ends.
    """
    if not _rooms:
        for place in places():
            try:
                path, _ = _made(place)
            except OSError:
                continue
            _own.add(path)
            _rooms.append(str(path))
        atexit.register(remove_own)
    return _rooms


def rooms() -> list[str]:
    """The folders of `settle` that have room now."""
    settle()
    shared = _has_room()
    return [room for room in _rooms if shared or os.path.dirname(room) != _SHARED] or _rooms


@contextmanager
def folder(place: str) -> Iterator[Path]:
    """A new private folder, removed at the end. Raises Full where there is no room, at its making
    or in what is done in it.
    """
    try:
        path, lock = _made(place)
        _own.add(path)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            _own.discard(path)
            os.close(lock)
    except OSError as error:
        if error.errno in _FULL:
            raise Full(place) from None
        raise


def _made(place: str) -> tuple[Path, int]:
    while True:
        path = Path(place) / f"{PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
        path.mkdir(mode=0o700)
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Somebody who swept may have had it before us.
                if os.stat(path).st_ino == os.fstat(lock).st_ino:
                    return path, lock
            except OSError:
                pass
            os.close(lock)
        except FileNotFoundError:
            pass


def remove_own() -> None:
    """Remove the folders of this process, or of the one that it was forked from; whatever wrote
    into them is about to end.
    """
    for path in list(_own):
        for _ in range(_TRIES):
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                break
            time.sleep(_PAUSE)


def sweep(ended: int | None = None) -> None:
    """Remove the scratch folders of this user whose process is dead.

    `ended` is a process that has just been ended: a program that it was about to start holds its
    folder a moment longer, and that is waited for.
    """
    for _ in range(_TRIES_ENDED):
        left = _swept()
        if ended is None or not any(_is_of(path, ended) for path in left):
            return
        time.sleep(_PAUSE)


def _is_of(path: str, process: int) -> bool:
    return os.path.basename(path).startswith(f"{PREFIX}{process}-") and os.path.exists(path)


def _swept() -> list[str]:
    """The folders that there were, once those of the dead are removed."""
    found: list[str] = []
    for place in dict.fromkeys((_SHARED, *places())):
        try:
            with os.scandir(place) as entries:
                left = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
        except OSError:
            continue
        for path in left:
            _remove_dead(path)
        found += left
    return found


def _remove_dead(path: str) -> None:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        status = os.fstat(lock)
        if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
            return
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass
    finally:
        os.close(lock)
