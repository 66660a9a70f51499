"""The first file system of such a machine: Python, the kernel's modules that are needed, and the
agent.
"""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from kvmscen.errors import HostError
from kvmscen.hosts.process import pack
from kvmscen.hosts.qemu.cpio import Archive

AGENT = "kvmscen.zip"
_INIT = (
    "#!/usr/bin/python3 -IS\nimport sys\nsys.path.insert(0, '/{agent}')\nfrom "
    "kvmscen.sent.agent.init import main\nmain()\n"
)

# What the agent never imports, or what libraries that are not there would be needed for.
# fmt: off
_UNUSED = (
    "__phello__", "asyncio", "concurrent", "curses", "dbm", "distutils", "email", "ensurepip",
    "html", "http",
    "idlelib", "lib2to3", "logging", "multiprocessing", "pydoc_data", "sqlite3", "test", "tkinter",
    "turtledemo",
    "unittest", "venv", "wsgiref", "xml", "xmlrpc", "pydoc.py", "doctest.py", "_pyrepl",
    "pathlib/tests",
    "lib-dynload/_test*", "lib-dynload/_dbm*", "lib-dynload/_curses*", "lib-dynload/_sqlite3*",
    "lib-dynload/_ssl*",
    "lib-dynload/_codecs_*", "lib-dynload/_lzma*", "lib-dynload/_bz2*", "lib-dynload/readline*",
    "lib-dynload/nis*",
    "lib-dynload/_crypt*", "lib-dynload/_decimal*", "lib-dynload/_zstd*",
)
# fmt: on
_UNUSED_FILES = (
    "usr/share",
    "usr/lib/*/gconv",
    "usr/lib/*/audit",
    "etc",
    "usr/lib/valgrind",
    "usr/lib/debug",
    "usr/sbin",
)
# Where a Debian has folders since these moved below /usr.
MERGED = ("bin", "sbin", "lib", "lib64")


def base(root: Path, modules: Iterable[tuple[str, bytes]]) -> bytes:
    """The archive of everything but the agent; `root` has `usr/bin/python3`."""
    archive = Archive()
    archive.tree(root)
    archive.device("dev/console", 5, 1)
    # Before the kernel has gathered what it calls random, Python begins with what this gives.
    archive.device("dev/urandom", 1, 9)
    for number, (name, data) in enumerate(modules):
        archive.file(f"modules/{number:02d}-{name}.ko", data)
    return archive.finish()


def agent() -> bytes:
    """The archive that follows: the agent as this kvmscen has it, and the first process."""
    archive = Archive()
    archive.file(AGENT, pack.pack(compiled=True))
    archive.file("init", _INIT.format(agent=AGENT).encode(), 0o755)
    return archive.finish()


def merge(root: Path) -> None:
    """Make /lib and the like links into /usr, before packages are unpacked there."""
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")


def trim(root: Path) -> None:
    """Leave of the packages what the agent needs, with Python's library compiled where this machine
    has the same Python.
    """
    for pattern in _UNUSED_FILES:
        for path in root.glob(pattern):
            shutil.rmtree(path)
    libraries = [path for path in root.glob("usr/lib/python3.*") if path.is_dir()]
    interpreters = sorted(root.glob("usr/bin/python3.*"))
    if len(libraries) != 1 or not interpreters:
        raise HostError("the packages have no python3 in them")
    for pattern in _UNUSED:
        for path in libraries[0].glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    python = root / "usr/bin/python3"
    python.unlink(missing_ok=True)
    python.symlink_to(interpreters[0].name)
    _compile(libraries[0])


def _compile(library: Path) -> None:
    """Bytecode in the place of the sources; left alone where no interpreter of the same version is
    here.
    """
    name = library.name
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = sys.executable if own == name else shutil.which(name)
    if python is None:
        return
    argv = [
        python,
        "-I",
        "-S",
        "-m",
        "compileall",
        "-q",
        "-b",
        "-s",
        str(library.parent.parent.parent),
    ]
    done = subprocess.run(
        [*argv, "--invalidation-mode", "unchecked-hash", str(library)], capture_output=True
    )
    if done.returncode == 0:
        for source in library.rglob("*.py"):
            source.unlink()


# --- modules --------------------------------------------------------------------------------------


def modules(folder: Path, wanted: Iterable[str]) -> list[tuple[str, bytes]]:
    """Kernel modules with those that they need before them: (name, bytes). What the kernel has
    built in is left out.
    """
    files = {_plain(path.name.partition(".ko")[0]): path for path in folder.rglob("*.ko*")}
    loaded: dict[str, bytes] = {}

    def load(name: str) -> None:
        if name in loaded or name not in files:
            return
        data = _read(files[name])
        for needed in _depends(data):
            load(needed)
        loaded[name] = data

    for name in wanted:
        load(_plain(name))
    return list(loaded.items())


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _depends(data: bytes) -> Iterator[str]:
    """The modules that a module says it needs, in its .modinfo."""
    line = re.search(rb"\0depends=([^\0]*)\0", data)
    for name in line.group(1).decode().split(",") if line else ():
        if name:
            yield _plain(name)


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        done = subprocess.run(["zstd", "-dcq", str(path)], capture_output=True)
        if done.returncode:
            raise HostError(
                f"{path.name} cannot be unpacked: {done.stderr.decode(errors='replace').strip()}"
            )
        return done.stdout
    return data
