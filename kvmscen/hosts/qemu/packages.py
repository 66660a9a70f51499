"""Debian's packages for another architecture or release, by the machine's own apt, without
installing anything.

Each architecture and suite has a configuration of its own: lists, cache and an empty status. Where
the packages come from is what the machine is configured for: its mirror and its proxy. Signatures
and hashes are checked by apt.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import IO

from kvmscen.errors import HostError
from kvmscen.hosts.qemu import store

# What is being done, and how far it is in percent where that is known.
Tell = Callable[[str, float | None], None]

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT = 600.0
_HOUR = 3600.0
# apt that says nothing for so many seconds is looked after; with less room than this it can do
# nothing.
_SILENCE, _FULL = 5.0, 4 << 20
# Debian's suites that name no release.
_ROLLING = ("sid", "unstable", "testing", "stable", "oldstable")


@cache
def release() -> str:
    """The codename of the Debian that this machine runs, as `bookworm`; raises HostError on
    anything else.
    """
    fields = {}
    try:
        for line in Path("/etc/os-release").read_text().splitlines():
            key, _, value = line.partition("=")
            fields[key] = value.strip("\"'")
    except OSError:
        pass
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise HostError(
            "kernels are taken from Debian's packages with apt, which this machine lacks: give "
            "--kernel and --rootfs"
        )
    codename = fields.get("VERSION_CODENAME", "sid" if fields.get("ID") == "debian" else "")
    if fields.get("ID") != "debian" or not codename:
        system = fields.get("PRETTY_NAME", "no Debian")
        raise HostError(
            f"kernels are taken from the package sources of a Debian; this is {system}: give "
            f"--kernel and --rootfs"
        )
    return codename


@cache
def native() -> str:
    """Debian's name of this machine's architecture."""
    return _output(["dpkg", "--print-architecture"], None).strip()


@cache
def _entries() -> tuple[tuple[str, str], ...]:
    """The machine's own package sources: (URI, suite)."""
    wanted = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
    ]
    lines = _output(wanted, None).splitlines()
    return tuple(
        dict.fromkeys((parts[0], parts[1]) for line in lines if len(parts := line.split()) == 2)
    )


def archive() -> str:
    """The URI of the Debian archive that this machine takes its release from."""
    named = (release(), *_ROLLING)
    for uri, suite in _entries():
        if suite in named:
            return uri
    raise HostError(
        f"this machine's package sources do not have {release()}: add it to /etc/apt/sources.list"
    )


class Apt:
    """The packages of one suite for one architecture. `folder` is where its lists and what it
    downloads lie.
    """

    def __init__(self, folder: Path, arch: str, suite: str) -> None:
        self.folder = folder / f"{arch}-{suite}"
        self.arch = arch
        self.suite = suite

    def update(self, tell: Tell, fresh: bool = False) -> None:
        """Get the lists of packages, unless they are of this hour and need not be `fresh`; of those
        only what has changed.
        """
        asked = time.time() if fresh else time.time() - _HOUR
        if self._updated() >= asked:
            return
        with self._held(tell, shared=False):
            # Another kvmscen may have done it meanwhile.
            if self._updated() < asked:
                for part in ("lists/partial", "archives/partial"):
                    (self.folder / part).mkdir(parents=True, exist_ok=True)
                (self.folder / "status").touch()
                (self.folder / "debian.sources").write_text(self._sources())
                (self.folder / "apt.conf").write_text(self._configuration())
                self._fetch(
                    ["apt-get", "update"], f"lists of packages ({self.suite}, {self.arch})", tell
                )
                (self.folder / "updated").touch()

    def _updated(self) -> float:
        """When the lists were fetched."""
        try:
            return (self.folder / "updated").stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _held(self, tell: Tell, shared: bool = True) -> AbstractContextManager[None]:
        """The lists as they are: many may read them, one may fetch them."""
        return store.locked(f"apt-{self.folder.name}", lambda what: tell(what, None), shared=shared)

    def names(self, pattern: str) -> list[str]:
        """The names of packages that match a regular expression."""
        lines = _output(
            ["apt-cache", "search", "--names-only", pattern], self._environment()
        ).splitlines()
        return [line.split()[0] for line in lines if line]

    def depends(self, name: str) -> list[str]:
        """What a package depends on, by name."""
        text = _output(["apt-cache", "depends", "--important", name], self._environment())
        return re.findall(r"^ *\|?(?:Pre)?Depends: ([^ <>\n]+)", text, re.M)

    def download(self, names: Sequence[str], into: Path, tell: Tell) -> list[Path]:
        """The packages' files, in a folder of the caller's. What is there already, whole and right,
        is not downloaded again.
        """
        what = names[0] if len(names) == 1 else f"{len(names)} packages ({names[0]} ...)"
        argv = ["apt-get", "download", *names]
        into.mkdir(parents=True, exist_ok=True)
        try:
            with self._held(tell):
                self._fetch(argv, what, tell, into)
        except HostError:
            # The archive may have gone on since the lists were fetched.
            self.update(tell, fresh=True)
            with self._held(tell):
                self._fetch(argv, what, tell, into)
        debs = []
        for name in names:
            files = sorted(into.glob(f"{name}_*.deb"), key=lambda file: file.stat().st_mtime)
            if not files:
                raise HostError(f"apt-get download {name} left no file")
            debs.append(files[-1])
        return debs

    def closure(self, name: str, into: Path, tell: Tell) -> list[Path]:
        """The files of a package for this machine, and of those that it needs and that are not
        installed here.
        """
        (into / "partial").mkdir(parents=True, exist_ok=True)
        # Without the lock on what is installed, since nothing is: no root is needed.
        options = {
            "Dir::State::status": "/var/lib/dpkg/status",
            "Dir::Cache::archives": str(into),
            "Debug::NoLocking": "true",
        }
        argv = [
            "apt-get",
            *(part for key, value in options.items() for part in ("-o", f"{key}={value}")),
        ]
        argv += ["install", "--download-only", "--no-install-recommends", "--yes", name]
        with self._held(tell):
            self._fetch(argv, f"{name} and what it needs", tell)
        return sorted(into.glob("*.deb"))

    def _sources(self) -> str:
        own = [
            entry
            for entry in _entries()
            if entry[1] == self.suite or entry[1].startswith(f"{self.suite}-")
        ]
        # The machine's own release with its updates; of any other its archive alone.
        entries = own if self.suite == release() and own else [(archive(), self.suite)]
        signed = f"Signed-By: {_KEYRING}\n" if _KEYRING.exists() else ""
        kind = f"Components: main\nArchitectures: {self.arch}\n{signed}"
        return "\n".join(
            f"Types: deb\nURIs: {uri}\nSuites: {suite}\n{kind}" for uri, suite in entries
        )

    def _configuration(self) -> str:
        where = self.folder
        # The machine's proxies and the like, but none of its hooks.
        dump = _output(["apt-config", "dump"], None).splitlines()
        kept = [
            line for line in dump if line.startswith("Acquire::") and "::IndexTargets" not in line
        ]
        own = {
            "APT::Architecture": self.arch,
            "APT::Architectures::": self.arch,
            "Acquire::Languages": "none",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": f"{where}/none",
            "Dir::Etc::sourcelist": f"{where}/debian.sources",
            "Dir::Etc::sourceparts": f"{where}/none",
            "Dir::Etc::preferences": f"{where}/none",
            "Dir::Etc::preferencesparts": "/dev/null/",
            "Dir::State": str(where),
            "Dir::State::lists": f"{where}/lists",
            "Dir::State::status": f"{where}/status",
            "Dir::Cache": str(where),
            "Dir::Cache::archives": f"{where}/archives",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Acquire::GzipIndexes": "true",
        }
        if os.geteuid() == 0:
            # apt's own user may not write into the caller's folders.
            own["APT::Sandbox::User"] = "root"
        return "".join(
            [
                *(f"{line}\n" for line in kept),
                *(f'{key} "{value}";\n' for key, value in own.items()),
            ]
        )

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "APT_CONFIG": str(self.folder / "apt.conf"), "LC_ALL": "C"}

    def _fetch(self, argv: list[str], what: str, tell: Tell, folder: Path | None = None) -> None:
        """Run apt, telling how far it is."""
        tell(what, None)
        # A file, not a pipe: nobody reads what apt complains of while it says how far it is.
        with tempfile.TemporaryFile("w+", errors="replace") as complaints:
            process = subprocess.Popen(
                [argv[0], "-q", "-o", "APT::Status-Fd=1", *argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                cwd=folder,
                env=self._environment(),
            )
            assert process.stdout is not None
            try:
                for line in self._said(process.stdout):
                    if line.startswith("dlstatus:"):
                        tell(what, float(line.split(":")[2]))
                status = process.wait(_TIMEOUT)
            except BaseException:
                process.terminate()
                process.wait()
                raise
            complaints.seek(0)
            errors = complaints.read()
        if status:
            raise HostError(
                f"{' '.join(argv[:2])} ({self.suite}, {self.arch}) failed: {_complaint(errors)}"
            )

    def _said(self, out: IO[bytes]) -> Iterator[str]:
        """What apt says, line by line. On a full disk it may say nothing new for ever."""
        begun, last, since = b"", b"", time.monotonic()
        with selectors.DefaultSelector() as ready:
            ready.register(out, selectors.EVENT_READ)
            while True:
                if time.monotonic() - since > _SILENCE:
                    room(self.folder, _FULL)
                    since = time.monotonic()
                if not ready.select(_SILENCE):
                    continue
                chunk = os.read(out.fileno(), 1 << 16)
                if not chunk:
                    return
                *lines, begun = (begun + chunk).split(b"\n")
                for line in lines:
                    if line != last:
                        last, since = line, time.monotonic()
                    yield line.decode(errors="replace")


def room(folder: Path, least: int) -> None:
    """Raises HostError where so many bytes do not fit into a folder, or the place where it will
    be.
    """
    place = next((place for place in (folder, *folder.parents) if place.is_dir()), folder)
    there = os.statvfs(place)
    free = there.f_bavail * there.f_frsize
    if free < least:
        raise HostError(
            f"{place}: No space left on device: {free / 1e6:.0f} MB are free, {least / 1e6:.0f} MB "
            f"are needed"
        )


def unpack(deb: Path, into: Path) -> None:
    """The files of a package, without its scripts."""
    done = subprocess.run(
        ["dpkg-deb", "-x", str(deb), str(into)], capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        # One that cannot be written is followed by all the others.
        lines = done.stderr.strip().splitlines() or ["dpkg-deb does not say why"]
        full = next((line for line in lines if "No space left" in line), lines[0])
        raise HostError(f"{deb.name} cannot be unpacked into {into}: {full.removeprefix('tar: ')}")


def _output(argv: list[str], environment: dict[str, str] | None) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, env=environment, timeout=_TIMEOUT, errors="replace"
    )
    if done.returncode:
        raise HostError(f"{' '.join(argv[:2])} failed: {_complaint(done.stderr)}")
    return done.stdout


def _complaint(errors: str) -> str:
    lines = [
        line[3:] for line in errors.splitlines() if line.startswith("E: ")
    ] or errors.splitlines()[-1:]
    # The first is the cause, what follows only that there was one.
    return lines[0] if lines else "it does not say why"
