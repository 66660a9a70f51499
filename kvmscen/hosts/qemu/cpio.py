"""Archives that a kernel unpacks as its first file system: cpio, "newc"
(early-userspace/buffer-format).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

_PAD = 512


class Archive:
    """Members are added in order; folders above them are added by themselves."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._known: set[str] = set()
        self._number = 0

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """A regular file."""
        self._above(name)
        self._add(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        self._above(name)
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def folder(self, name: str) -> None:
        """A folder, unless the archive has it already."""
        if name not in self._known:
            self._above(name)
            self._add(name, stat.S_IFDIR | 0o755, b"")

    def device(self, name: str, major: int, minor: int) -> None:
        """A character device."""
        self._above(name)
        self._add(name, stat.S_IFCHR | 0o600, b"", (major, minor))

    def tree(self, root: Path, skip: frozenset[str] = frozenset()) -> None:
        """Everything below a folder, but for the members of `skip` and what is below them; devices
        and sockets are left out.
        """
        for name, path in _walk(root, "", skip):
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                self.link(name, os.readlink(path))  # noqa: PTH115 the link's own text
            elif stat.S_ISDIR(status.st_mode):
                self.folder(name)
            elif stat.S_ISREG(status.st_mode):
                self.file(name, path.read_bytes(), stat.S_IMODE(status.st_mode))

    def finish(self) -> bytes:
        """The archive, padded so that another may follow it."""
        whole = b"".join([*self._parts, self._member("TRAILER!!!", 0, b"", (0, 0), 0)])
        return whole + bytes(-len(whole) % _PAD)

    def _above(self, name: str) -> None:
        above = name.rpartition("/")[0]
        if above:
            self.folder(above)

    def _add(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._known.add(name)
        self._number += 1
        self._parts.append(self._member(name, mode, data, device, self._number))

    @staticmethod
    def _member(name: str, mode: int, data: bytes, device: tuple[int, int], number: int) -> bytes:
        encoded = os.fsencode(name) + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        return b"".join((head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)))


def _walk(root: Path, below: str, skip: frozenset[str]) -> Iterator[tuple[str, Path]]:
    for path in sorted(root.iterdir()):
        name = f"{below}{path.name}"
        if name in skip:
            continue
        yield name, path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, f"{name}/", skip)
