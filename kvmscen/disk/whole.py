"""Files that are written whole or not at all, and files that are read whole where they are not too
large.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat

# A link chain longer than this goes round.
_LINKS = 40
_PIECE = 1 << 16
_OPEN = re.compile(r"/dev/std(?:in|out|err)|/dev/fd/\d+|/proc/(?:self|\d+)/fd/\d+")
_NUMBER = {"/dev/stdout": 1, "/dev/stderr": 2}


class TooLarge(OSError):
    """A file that is larger than whoever reads it takes."""


def write(path: str | os.PathLike[str], text: str, lasting: bool = False) -> None:
    """Write `text` to a file in one go: until all of it is written the old file stays. `lasting`:
    also if the machine crashes.

    What is no regular file (a pipe, a terminal, /dev/stdout) is written to as it is. Raises
    OSError, and then a file that was there is as it was, and one that was not is not there.
    """
    data = text.encode("utf-8", "backslashreplace")
    place = _followed(os.fspath(path))
    if _OPEN.fullmatch(place):
        # Opening it again would begin a file that is there anew.
        _all(os.dup(_NUMBER.get(place) or int(place.rpartition("/")[2])), data)
        return
    try:
        there: os.stat_result | None = os.stat(place)
    except FileNotFoundError:
        there = None
    if there is not None and not stat.S_ISREG(there.st_mode):
        _all(os.open(place, os.O_WRONLY | os.O_CLOEXEC), data)
        return
    _replace(place, data, there, lasting)


def _replace(place: str, data: bytes, there: os.stat_result | None, lasting: bool) -> None:
    folder = os.path.dirname(place) or "."
    beside = os.path.join(folder, f".kvmscen-{os.urandom(8).hex()}.part")
    if there is not None and not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except PermissionError:
        if there is None:
            raise
        # The file may be written to, its folder may not: there is no other way.
        _all(os.open(place, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC), data)
        return
    try:
        if there is not None:
            with contextlib.suppress(PermissionError):
                os.fchmod(descriptor, stat.S_IMODE(there.st_mode))
        _all(descriptor, data, lasting)
        os.replace(beside, place)
        if lasting:
            _settle(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _followed(path: str) -> str:
    """Where a path leads to, so that a link stays one; a descriptor's own name in /dev or /proc is
    not followed further.
    """
    for _ in range(_LINKS):
        if _OPEN.fullmatch(path) or not os.path.islink(path):
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    return path


def _all(descriptor: int, data: bytes, lasting: bool = False) -> None:
    """Write all of `data` and close the descriptor."""
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if lasting:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle(folder: str) -> None:
    """fsync a folder, so that the entry of a new file outlives a crash too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: str | os.PathLike[str], most: int) -> bytes:
    """All of a regular file of `most` bytes at most. Raises OSError; TooLarge where it is larger,
    before it is read.
    """
    # Not a pipe that never ends.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        raw = b""
        # A file of /proc has no size before it is read.
        wanted = min(most, max(status.st_size, _PIECE)) + 1
        while (
            status.st_size <= most and len(raw) <= most and (piece := os.read(descriptor, wanted))
        ):
            raw = raw + piece if raw else piece
        if max(status.st_size, len(raw)) > most:
            raise TooLarge(errno.EFBIG, f"it has more than {most:,} bytes")
    finally:
        os.close(descriptor)
    return raw
