"""A cache of byte strings by key: files with many entries each, which are written whole and never
changed.

A run reads the packs that are there, and writes one of its own at its end. So runs that go on at
the same time share what was there before them, and neither waits for the other. What is damaged,
or somebody else's, counts as not there.

A pack is `MAGIC`, the entries one behind the other, the index (marshal: {key: (offset, size)}),
and the index's offset and size as two 64-bit numbers with a digest of both of them and the index.
Each entry begins with a digest of its key and its bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import marshal
import os
import stat
import struct
import time
from typing import NamedTuple

MAGIC = b"kvmscen pack 1\n"
# Bytes of all packs together; the oldest go first. More packs than this are made one.
MOST = 64 << 20
_PACKS = 16
_ENDING = ".pack"
_DIGEST = 16
# A pack that has been written for so long (seconds) never will be.
_LEFT = 86400.0
_TAIL = struct.Struct(f"<QQ{_DIGEST}s")


class Size(NamedTuple):
    """What there is: entries, bytes."""

    entries: int
    bytes: int


class Packs:
    """The packs of a folder as they are now; their files stay open, so that a process which can
    open none any more still reads them.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._at: dict[bytes, tuple[int, int, int]] = {}
        self._open: list[int] = []
        for name in _names(folder):
            self._add(os.path.join(folder, name))

    def _add(self, path: str) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        index = _index(descriptor)
        if index is None:
            os.close(descriptor)
            return
        self._open.append(descriptor)
        for key, (offset, size) in index.items():
            self._at[key] = (descriptor, offset, size)

    def get(self, key: bytes) -> bytes | None:
        """The bytes of a key, None where there are none."""
        found = self._at.get(key)
        if found is None:
            return None
        descriptor, offset, size = found
        try:
            data = os.pread(descriptor, size, offset)
        except OSError:
            return None
        body = data[_DIGEST:]
        return body if len(data) == size and data[:_DIGEST] == _digest(key, body) else None

    def items(self) -> list[tuple[bytes, bytes]]:
        """All that is whole, the oldest first."""
        return [(key, body) for key in self._at if (body := self.get(key)) is not None]

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()
        self._at.clear()


class Writer:
    """A new pack in a folder, which is made where it is not there. What cannot be written is not
    kept: a cache is no reason to fail.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._index: dict[bytes, tuple[int, int]] = {}
        self._descriptor: int | None = None
        self._path = ""
        self._end = len(MAGIC)
        self._broken = False

    def put(self, key: bytes, body: bytes) -> None:
        """Add an entry."""
        if self._broken or key in self._index or self._end + len(body) > MOST // 4:
            return
        try:
            if self._descriptor is None:
                self._begin()
            data = _digest(key, body) + body
            _write(self._descriptor, data)
        except OSError:
            self._give_up()
            return
        self._index[key] = (self._end, len(data))
        self._end += len(data)

    def _begin(self) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        if not _ours(self.folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self.folder)
        self._path = os.path.join(self.folder, f".{os.urandom(12).hex()}.part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o600)
        _write(self._descriptor, MAGIC)

    def _give_up(self) -> None:
        self._broken = True
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def close(self) -> None:
        """Put the pack beside the others, and remove what is too much."""
        if self._descriptor is None:
            return
        index = marshal.dumps(self._index, 4)
        where = struct.pack("<QQ", self._end, len(index))
        try:
            _write(self._descriptor, index + where + _digest(where, index))
            os.close(self._descriptor)
            self._descriptor = None
            # The name says how old it is, so that a listing is in that order.
            status = os.stat(self._path)
            name = f"{status.st_mtime_ns:020d}-{os.urandom(4).hex()}{_ENDING}"
            os.rename(self._path, os.path.join(self.folder, name))
        except OSError:
            self._give_up()
            return
        _tidy(self.folder)


def _tidy(folder: str) -> None:
    """Keep the packs few and small: the oldest go, and what is left is made one pack. What a run
    that was killed has left goes too.
    """
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            if name.endswith(".part") and time.time() - os.stat(path).st_mtime > _LEFT:
                os.unlink(path)
    names = _names(folder)
    sizes = {name: _size(os.path.join(folder, name)) for name in names}
    while names and sum(sizes[name] for name in names) > MOST:
        _unlink(os.path.join(folder, names.pop(0)))
    if len(names) <= _PACKS:
        return
    packs = Packs(folder)
    one = Writer(folder)
    for key, body in packs.items():
        one.put(key, body)
    packs.close()
    # First the old ones, or the new one would be tidied too: a run in between has a miss.
    for name in names:
        _unlink(os.path.join(folder, name))
    one.close()


def size(folder: str) -> Size:
    """What a folder's packs hold."""
    packs = Packs(folder)
    try:
        total = sum(_size(os.path.join(folder, name)) for name in _names(folder))
        return Size(len(packs.items()), total)
    finally:
        packs.close()


def clear(folder: str) -> Size:
    """Remove all packs; what there was. Raises OSError."""
    found = size(folder)
    try:
        names = os.listdir(folder) if _ours(folder) else []
    except FileNotFoundError:
        names = []
    for name in names:
        if name.endswith((_ENDING, ".part")):
            os.unlink(os.path.join(folder, name))
    return found


def _names(folder: str) -> list[str]:
    """The packs of a folder, the oldest first; none of a folder that others may write to."""
    try:
        if not _ours(folder):
            return []
        return sorted(name for name in os.listdir(folder) if name.endswith(_ENDING))
    except OSError:
        return []


def _ours(folder: str) -> bool:
    status = os.stat(folder, follow_symlinks=False)
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & 0o077
    )


def _index(descriptor: int) -> dict[bytes, tuple[int, int]] | None:
    """The index of a pack, None where it is none, is damaged or belongs to another user."""
    status = os.fstat(descriptor)
    whole = len(MAGIC) + _TAIL.size
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size < whole:
        return None
    try:
        if os.pread(descriptor, len(MAGIC), 0) != MAGIC:
            return None
        tail = os.pread(descriptor, _TAIL.size, status.st_size - _TAIL.size)
        offset, length, digest = _TAIL.unpack(tail)
        if offset + length + _TAIL.size != status.st_size:
            return None
        index = os.pread(descriptor, length, offset)
        if _digest(tail[:16], index) != digest:
            return None
        found: dict[bytes, tuple[int, int]] = marshal.loads(index)
    except (OSError, ValueError, EOFError, TypeError, struct.error):
        return None
    return found


def _digest(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST, key=key[:64]).digest()


def _write(descriptor: int | None, data: bytes) -> None:
    assert descriptor is not None
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
