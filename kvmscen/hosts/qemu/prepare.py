"""`host prepare`: packages, kernel, first file system. What is done is not done again; what is half
done is not used.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kvmscen.errors import HostError, UsageError
from kvmscen.hosts.qemu import initramfs, store
from kvmscen.hosts.qemu.boards import Board
from kvmscen.hosts.qemu.packages import Apt, Tell, release, room, unpack
from kvmscen.hosts.qemu.store import Entry, Name

# Where a series is looked for first: lists of packages are large, and most suites do not have it.
_FIRST = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie"}
# Bytes that a machine takes while it is prepared, with lists and downloads; half of them stay.
_ROOM = 500 << 20
# Further suites, in the order in which they are looked through.
_SUITES = ("bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid", "bullseye")
_NEWEST = ("trixie-backports", "sid")
# What of the C library's world Python needs for what the agent imports.
_LIBRARIES = r"libc6|libffi\d.*|zlib1g|libexpat1|libgcc-s1"


class Own(NamedTuple):
    """The user's own files: a kernel image, a folder or archive with python3 in it, a folder with
    modules.
    """

    kernel: Path | None = None
    rootfs: Path | None = None
    modules: Path | None = None


class _Kernel(NamedTuple):
    """A kernel package that was found, and where."""

    apt: Apt
    package: str
    version: str

    @property
    def modules(self) -> list[str]:
        """The package of its modules, where they are not with the kernel."""
        return self.apt.names(
            rf"^linux-modules-{re.escape(self.package.partition('-binary-')[2] or 'none')}$"
        )


def prepare(name: Name, own: Own, tell: Tell) -> Entry:
    """Make the machine that `name` means, unless it is there and whole. Raises HostError."""
    if own.kernel is not None:
        if name.kernel:
            raise UsageError(
                f"{name.entry} has a kernel in its name: with --kernel write qemu:{name.board}"
            )
        name = Name(name.board, str(own.kernel), name.cpu)
    kernel = None
    if store.find(name) is None:
        room(store.home(), _ROOM)
    if not name.kernel or name.kernel == store.NEWEST:
        # The lock is that of the machine that this comes to, whatever name led to it.
        kernel = _choose(name, tell)
        name = Name(name.board, _series(kernel.version), name.cpu)
    folder = store.folder_of(name.entry)
    with store.locked(folder.name, lambda what: tell(what, None)):
        entry = store.find(name)
        if (
            entry is not None
            and entry.damage() is None
            and entry.changed() is None
            and not (own.rootfs or own.modules)
        ):
            tell(f"{entry.name} is there", None)
            return entry
        try:
            _make(name, own, kernel, folder, tell)
        except OSError as error:
            what = error.filename or store.home()
            raise HostError(
                f"{name.entry} was not prepared: {what}: {os.strerror(error.errno or 0)}"
            ) from None
        entry = store.find(name)
        assert entry is not None
        return entry


def _make(name: Name, own: Own, kernel: _Kernel | None, folder: Path, tell: Tell) -> None:
    """Build a machine beside its folder, and put it there when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        store.write(unfinished, _build(name, own, kernel, unfinished, tell))
        entry = store.find(name)
        if entry is not None:
            store.remove(entry)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
        # What an interrupted prepare goes on with is of no use any more.
        shutil.rmtree(_downloads(name), ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _downloads(name: Name) -> Path:
    """Where the packages of one machine are: nobody else's, since whoever prepares it has its
    lock.
    """
    return store.home() / "downloads" / store.folder_of(name.entry).name


def _sweep(folder: Path) -> None:
    """Remove what an interrupted prepare left; nobody else is at it, since the lock is ours."""
    for left in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _build(
    name: Name, own: Own, kernel: _Kernel | None, unfinished: Path, tell: Tell
) -> dict[str, Any]:
    """The files of a machine in `made`; returns its manifest."""
    board = name.row
    image = Path(name.kernel) if "/" in name.kernel else None
    packages: list[Path] = []
    downloads = _downloads(name)
    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=unfinished) as place:
        root, tree = Path(place) / "root", Path(place) / "kernel"
        root.mkdir()
        tree.mkdir()
        if image is None:
            kernel = kernel or _choose(name, tell)
            packages += _fetched(
                kernel.apt, [kernel.package, *kernel.modules], tree, downloads, tell
            )
            image = _image(tree, kernel.package)
        store.write_kernel(image, unfinished, board)
        if own.rootfs is None:
            packages += _userland(board, root, downloads, tell)
        tell("building the first file system", None)
        loaded = initramfs.modules(own.modules or tree, board.modules)
        base = initramfs.base(_rootfs(own.rootfs, root), loaded)
        (unfinished / "base").write_bytes(base)
        if board.dtb is not None:
            (unfinished / "dtb").write_bytes(
                _readable(next(tree.rglob(board.dtb), tree / board.dtb))
            )
    given = [Path(name.kernel)] if "/" in name.kernel else []
    return {
        "name": name.entry,
        "board": name.board,
        "series": name.kernel if "/" not in name.kernel else "",
        "kernel": kernel.version if kernel is not None else str(image),
        # The file system is memory too, and is there twice while it is unpacked.
        "memory": max(board.memory, (3 * len(base) >> 20) + 128),
        "packages": [{"file": path.name, "sha256": store.sha256(path)} for path in packages],
        "own": {str(path): store.stamp(path) for path in given},
    }


# --- kernels --------------------------------------------------------------------------------------


def _choose(name: Name, tell: Tell) -> _Kernel:
    """The kernel package of a series, of the machine's own release, or the newest."""
    own = release()
    kernels: list[_Kernel] = []
    failed: list[str] = []
    if name.kernel == store.NEWEST:
        suites = [own, *(suite for suite in _NEWEST if suite != own)]
    elif name.kernel:
        suites = list(dict.fromkeys((_FIRST.get(name.kernel, own), own, *_SUITES)))
    else:
        suites = list(dict.fromkeys((own, *_SUITES)))
    for suite in suites:
        try:
            kernels += _kernels(name.row, suite, name.kernel, tell)
        except HostError as error:
            failed.append(str(error))
        if kernels and name.kernel != store.NEWEST:
            break
    if not kernels:
        _same_everywhere(failed, len(suites))
        wanted = f"a kernel {name.kernel}" if name.kernel else "a kernel"
        why = "".join(f"; {reason}" for reason in failed)
        raise HostError(
            f"{name.entry}: none of {', '.join(suites)} has {wanted} for {name.row.debian}{why}"
        )
    return max(kernels, key=lambda kernel: store.natural(kernel.version))


def _kernels(board: Board, suite: str, series: str, tell: Tell) -> list[_Kernel]:
    """The kernels of a series that a suite has; where none is named, the suite's own choice."""
    apt = Apt(store.home() / "apt", board.debian, suite)
    apt.update(tell)
    wanted = re.escape(series) if series and series != store.NEWEST else r"[0-9]+\.[0-9]+"
    names = apt.names(rf"^linux-(image|binary)-{wanted}([.+-].*)?-{board.flavour}$")
    versions: dict[str, str] = {}
    for package in names:
        version = re.sub(rf"^linux-(image|binary)-|-{board.flavour}$", "", package)
        if re.fullmatch(r"[\d.]+([+-][\w.+]*)?", version) and (
            version not in versions or "-binary-" in package
        ):
            # From 7.0 on an image package is empty, and the kernel lies in another.
            versions[version] = package
    if not series and apt.names(f"^linux-image-{board.flavour}$"):
        # Of several series in one suite, as backports in its security archive, its own.
        chosen = apt.depends(f"linux-image-{board.flavour}")
        versions = {
            v: package
            for v, package in versions.items()
            if f"linux-image-{v}-{board.flavour}" in chosen
        }
    # A name without its patch level holds others' place only.
    return [
        _Kernel(apt, package, version)
        for version, package in versions.items()
        if len(re.findall(r"\d+", version)) > 2
    ]


def _series(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _image(tree: Path, package: str) -> Path:
    for pattern in (
        "boot/vmlinuz-*",
        "boot/vmlinux-*",
        "usr/lib/modules/*/vmlinuz*",
        "usr/lib/modules/*/vmlinux*",
    ):
        for path in sorted(tree.glob(pattern)):
            return path
    raise HostError(f"{package} has no kernel image in it")


def _readable(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise HostError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None


# --- the first file system ------------------------------------------------------------------------


def _userland(board: Board, root: Path, downloads: Path, tell: Tell) -> list[Path]:
    """Python with what it needs, unpacked and trimmed; returns the packages."""
    apt = _with_python(board, tell)
    python = next(
        name
        for name in apt.depends("python3-minimal")
        if re.fullmatch(r"python3\.\d+-minimal", name)
    )
    parts = [python, f"lib{python}", f"lib{python.replace('minimal', 'stdlib')}"]
    needed = {
        name for part in parts for name in apt.depends(part) if re.fullmatch(_LIBRARIES, name)
    }
    initramfs.merge(root)
    packages = _fetched(apt, [*parts, *sorted(needed)], root, downloads, tell)
    initramfs.trim(root)
    return packages


def _with_python(board: Board, tell: Tell) -> Apt:
    """The machine's own release, or a later one where that does not have the architecture."""
    failed: list[str] = []
    for suite in dict.fromkeys((release(), "trixie", "sid")):
        apt = Apt(store.home() / "apt", board.debian, suite)
        try:
            apt.update(tell)
            if apt.names("^python3-minimal$"):
                return apt
        except HostError as error:
            failed.append(str(error))
    _same_everywhere(failed, len(failed))
    raise HostError(
        f"no suite has python3 for {board.debian}" + "".join(f"; {reason}" for reason in failed)
    )


def _same_everywhere(failed: Sequence[str], suites: int) -> None:
    """Raises HostError with the one reason for which no suite could be looked at, as a cache that
    cannot be written.
    """
    if len(failed) == suites and len(set(failed)) == 1:
        raise HostError(failed[0])


def _fetched(apt: Apt, names: list[str], into: Path, downloads: Path, tell: Tell) -> list[Path]:
    packages = apt.download(names, downloads, tell)
    tell(
        f"unpacking {len(packages)} packages"
        if len(packages) > 1
        else f"unpacking {packages[0].name}",
        None,
    )
    for package in packages:
        unpack(package, into)
    return packages


def _rootfs(own: Path | None, root: Path) -> Path:
    if own is None:
        return root
    if not (own / "usr/bin/python3").exists():
        raise HostError(
            f"{own} has no usr/bin/python3: --rootfs is the folder of a root file system with "
            f"Python 3.9 or newer"
        )
    return own
