"""Where prepared machines are kept: one folder each in the cache of the user, with a manifest that
is written last.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from kvmscen.disk import homes
from kvmscen.errors import HostError, UsageError
from kvmscen.hosts.qemu.boards import BOARDS, Board

NEWEST = "newest"
FORMAT, VERSION = "kvmscen-qemu", 2
_OPTIONS = ("cpu",)


class Name(NamedTuple):
    """`qemu:BOARD[@KERNEL][,cpu=NAME]` taken apart. `kernel` is a series as 6.1, `newest`, a path,
    or empty: not said.
    """

    board: str
    kernel: str
    cpu: str = ""

    @property
    def entry(self) -> str:
        """The prepared machine that this means, as it is written: without its options."""
        return f"qemu:{self.board}" + (f"@{self.kernel}" if self.kernel else "")

    @property
    def row(self) -> Board:
        return BOARDS[self.board]


def parse(text: str) -> Name:
    """The parts of a host's name; raises UsageError with what would be right."""
    _, _, rest = text.partition(":")
    rest, *options = rest.split(",")
    board, at, kernel = rest.partition("@")
    if board not in BOARDS:
        known = ", ".join(f"qemu:{name}" for name in BOARDS)
        raise UsageError(
            f"there is no host {text!r}; qemu hosts are {known}, each with @KERNEL behind it or "
            f"without"
        )
    if at and not (re.fullmatch(r"[0-9]+\.[0-9]+|newest", kernel) or "/" in kernel):
        raise UsageError(
            f"{text}: a KERNEL is a series as 6.1, newest, or the path of an image, not {kernel!r}"
        )
    given = dict(option.partition("=")[::2] for option in options)
    for name, value in given.items():
        if name not in _OPTIONS or not value:
            raise UsageError(
                f"{text}: options are cpu=NAME, not {name + '=' + value if value else name!r}"
            )
    cpu = given.get("cpu", "")
    if cpu and not re.fullmatch(r"[\w.+,=-]+", cpu, re.ASCII):
        raise UsageError(f"{text}: {cpu!r} is no CPU of QEMU")
    if cpu.partition(",")[0] == "max" and BOARDS[board].arch == "arm64":
        raise UsageError(
            f"{text}: cpu=max: QEMU's max is not usable for arm64 (7.2 runs the code of earlier "
            f"guests): take neoverse-n1"
        )
    return Name(board, os.path.abspath(kernel) if "/" in kernel else kernel, cpu)  # noqa: PTH100 through no links


def home() -> Path:
    """The cache's folder of kvmscen, below XDG_CACHE_HOME. Raises HostError where there is none to
    be found.
    """
    return homes.folder("XDG_CACHE_HOME", ".cache") / "qemu"


class Entry(NamedTuple):
    """A prepared machine: its folder, and its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the host, as it is written after --on."""
        return str(self.manifest["name"])

    @property
    def board(self) -> Board:
        return BOARDS[self.manifest["board"]]

    def file(self, name: str) -> Path:
        return self.folder / name

    @property
    def size(self) -> int:
        """How many bytes it takes on the disk, holes left out."""
        return usage(self.folder)

    def changed(self) -> str | None:
        """What of the user's own files has changed since, None where nothing has."""
        for path, seen in self.manifest.get("own", {}).items():
            if stamp(Path(path)) != seen:
                return str(path)
        return None

    def damage(self) -> str | None:
        """The file that is not as it was made, by its hash."""
        for name, known in self.manifest["files"].items():
            path = self.file(name)
            if (
                not path.is_file()
                or path.stat().st_size != known["size"]
                or sha256(path) != known["sha256"]
            ):
                return str(name)
        return None


def usage(folder: Path) -> int:
    """The bytes that a folder takes on the disk."""
    return sum(status.st_blocks * 512 for path in folder.rglob("*") if (status := path.lstat()))


def stamp(path: Path) -> list[int] | None:
    """What changes when a file does: size and time; None where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_of(entry: str) -> Path:
    """The folder of a prepared machine, whether it is there or not."""
    return home() / "machines" / entry.partition(":")[2].replace("%", "%25").replace("/", "%2F")


def entries() -> list[Entry]:
    """The prepared machines, sorted by name. Raises HostError where the cache cannot be read."""
    place = home() / "machines"
    try:
        folders = [entry for entry in place.iterdir() if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"{place} cannot be read: {os.strerror(error.errno or 0)}") from None
    entries = [entry for folder in folders if (entry := _read(folder)) is not None]
    return sorted(entries, key=lambda entry: natural(entry.name))


def find(name: Name) -> Entry | None:
    """The prepared machine that a name means: of several kernels where none is named, the
    newest.
    """
    if name.kernel and name.kernel != NEWEST:
        return _read(folder_of(name.entry))
    fitting = [
        entry
        for entry in entries()
        if entry.manifest["board"] == name.board and entry.manifest["series"]
    ]
    return max(fitting, key=lambda entry: natural(entry.manifest["series"]), default=None)


def _read(folder: Path) -> Entry | None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if (
            manifest["format"] == FORMAT
            and manifest["version"] == VERSION
            and manifest["board"] in BOARDS
        ):
            return Entry(folder, manifest)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def natural(text: str) -> list[Any]:
    return [
        (int(part), "") if re.fullmatch("[0-9]+", part) else (-1, part)
        for part in re.split(r"([0-9]+)", text)
    ]


def write(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a folder whose files are all there."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".json")
    whole = {
        "format": FORMAT,
        "version": VERSION,
        **manifest,
        "files": {
            path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in files
        },
        "made": time.strftime("%Y-%m-%d %H:%M", time.localtime()),
    }
    part = folder / "manifest.json.part"
    part.write_text(json.dumps(whole, indent=1) + "\n")
    part.rename(folder / "manifest.json")


def remove(entry: Entry) -> None:
    """Remove a prepared machine; the manifest goes first, so that half of one is none."""
    try:
        (entry.folder / "manifest.json").unlink(missing_ok=True)
    except OSError as error:
        raise HostError(
            f"{entry.folder} cannot be removed: {os.strerror(error.errno or 0)}"
        ) from None
    shutil.rmtree(entry.folder, ignore_errors=True)


def renewed(entry: Entry) -> Entry:
    """The same machine with the user's own kernel as it is now; raises HostError where a file of
    his has gone.
    """
    changed = entry.changed()
    if changed is None:
        return entry
    own = entry.manifest["own"]
    if changed != entry.manifest["kernel"] or not Path(changed).is_file():
        raise HostError(
            f"{changed} is not as it was when {entry.name} was prepared: prepare it again"
        )
    with locked(entry.folder.name):
        write_kernel(Path(changed), entry.folder, entry.board)
        rest = {
            key: value
            for key, value in entry.manifest.items()
            if key not in ("format", "version", "files", "made")
        }
        write(entry.folder, {**rest, "own": {**own, changed: stamp(Path(changed))}})
    return _read(entry.folder) or entry


def write_kernel(image: Path, folder: Path, board: Board) -> None:
    """Put a kernel image into a machine's folder as QEMU takes it. Raises HostError where it cannot
    be read or is no kernel.
    """
    part = folder / ".kernel"
    try:
        raw = image.read_bytes()
    except OSError as error:
        raise HostError(f"{image} cannot be read: {os.strerror(error.errno or 0)}") from None
    plain = _plain(raw)
    at, magic = board.magic
    if plain[at : at + len(magic)] != magic and plain[:4] != b"\x7fELF":
        raise HostError(f"{image} is no kernel image for {board.arch}")
    part.write_bytes(plain)
    part.rename(folder / "kernel")


def _plain(image: bytes) -> bytes:
    """An image out of the EFI program that unpacks itself
    (drivers/firmware/efi/libstub/zboot-header.S).
    """
    if image[4:8] != b"zimg":
        return image
    at, size = (int.from_bytes(image[where : where + 4], "little") for where in (8, 12))
    kind, payload = image[24:32].rstrip(b"\0").decode("ascii", "replace"), image[at : at + size]
    if kind == "gzip":
        return gzip.decompress(payload)
    if shutil.which(kind) is None:
        raise HostError(f"the kernel is packed with {kind}, which is not installed")
    done = subprocess.run([kind, "-dcq"], input=payload, capture_output=True)
    if done.returncode and not done.stdout:
        raise HostError(
            f"the kernel cannot be unpacked: {done.stderr.decode(errors='replace').strip()}"
        )
    return done.stdout


def clear() -> None:
    """Remove everything that was prepared and downloaded. Raises HostError where another kvmscen is
    at it.
    """
    place = home() / "locks"
    names = [entry.name for entry in place.iterdir()] if place.is_dir() else []
    with ExitStack() as held:
        for name in names:
            held.enter_context(locked(name, wait=False))
        for entry in entries():
            remove(entry)
        if home().is_dir():
            for path in home().iterdir():
                # Whoever waits for a lock has its file open.
                if path != place:
                    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(
    name: str, waiting: Callable[[str], None] | None = None, wait: bool = True, shared: bool = False
) -> Iterator[None]:
    """Only one kvmscen at a time does what has this name, or several with `shared`; the kernel ends
    the lock of a dead one.

    `waiting` is told what for, if it comes to that. Raises HostError where the cache cannot be
    written, and, without `wait`, where another has the lock.
    """
    place = home() / "locks"
    try:
        place.mkdir(parents=True, exist_ok=True)
        file = os.open(
            place / name.replace("/", "%2F"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise HostError(
            f"{error.filename or place} cannot be written: {os.strerror(error.errno or 0)}"
        ) from None
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise HostError(
                    f"another kvmscen is at work on {name}: try again when it is done"
                ) from None
            if waiting is not None:
                waiting(f"another kvmscen is at work on {name}: waiting for it")
            fcntl.flock(file, kind)
        yield
    finally:
        os.close(file)
