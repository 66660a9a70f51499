"""Snapshots: a machine that was stopped while its agent waits, so that every run begins there
instead of at its boot.

The memory is a file of its own that QEMU maps, and never copies; what is saved besides are the
devices (x-ignore-shared).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from kvmscen.errors import HostError
from kvmscen.hosts.process import pack
from kvmscen.hosts.process.child import Json
from kvmscen.hosts.qemu.boards import Board
from kvmscen.hosts.qemu.store import Entry, stamp
from kvmscen.hosts.qemu.vm import RESUME_SECONDS, Image, QemuMachine, Saved, shell

_SAVE_SECONDS = 300.0
# The kernel is idle by then, with its tick stopped (see kvmscen.sent.agent.init).
_IDLE_SECONDS = 0.3
# How often a machine is saved until one goes on from it.
_TRIES = 3
_FORGOTTEN = 600.0
# Two checkouts that are used in turn shall not boot each time.
_KEPT = 1


def key(entry: Entry, image: Image) -> str:
    """What a snapshot holds for: the agent, QEMU, the machine's line, the kernel and its first file
    system.
    """
    board = image.board
    parts = (
        pack.digest(),
        os.path.realpath(image.qemu),
        stamp(Path(image.qemu)),
        (image.options, board.line, board.wire, board.append, image.memory, image.cpu or board.cpu),
        entry.manifest["files"],
    )
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def find(entry: Entry, image: Image) -> tuple[Saved, Json] | None:
    """The snapshot that holds, and the agent's hello in it."""
    folder = entry.folder / "snapshots" / key(entry, image)
    try:
        hello = json.loads((folder / "hello.json").read_text())
    except (OSError, ValueError):
        return None
    return Saved(folder / "memory", folder / "state"), hello


def wanted(board: Board) -> bool:
    """Whether a board can go on from a snapshot."""
    return board.snapshot


def state(entry: Entry) -> str:
    """`none`, or how many there are, for `host list`."""
    saved = list((entry.folder / "snapshots").glob("*/hello.json"))
    return f"{len(saved)}" if saved else "none"


class Making:
    """A machine that is booted for a snapshot: it boots as soon as this is made, and is saved by
    `finish`.
    """

    def __init__(self, name: str, entry: Entry, image: Image) -> None:
        self.entry = entry
        self.image = image
        place = entry.folder / "snapshots"
        place.mkdir(exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=".making-", dir=place))
        self.vm = QemuMachine(name, image, memory=self.folder / "memory")
        self.vm.spawn()

    def finish(self) -> Json:
        """Wait for the agent, save the machine and end it; returns the hello. Raises ChildError,
        HostError.

        What was saved is kept if a machine goes on from it; that it does not is possible, but rare.
        """
        try:
            for _ in range(_TRIES):
                hello = self.vm.wait_hello()
                if "unusable" in hello:
                    break
                self._save()
                self.vm.close()
                if self._goes_on():
                    (self.folder / "cpu").write_text(self.image.cpu)
                    (self.folder / "hello.json").write_text(json.dumps(hello))
                    self._keep()
                    return hello
                self.vm = QemuMachine(self.vm.name, self.image, memory=self.folder / "memory")
        except HostError:
            self.close()
            raise
        self.close()
        return hello

    def _save(self) -> None:
        time.sleep(_IDLE_SECONDS)
        qmp = self.vm.qmp
        qmp.greet()
        qmp.command("stop")
        capability = {"capability": "x-ignore-shared", "state": True}
        qmp.command("migrate-set-capabilities", capabilities=[capability])
        qmp.command("migrate", uri=f"exec:exec cat > {shell(self.folder / 'state')}")
        until = time.monotonic() + _SAVE_SECONDS
        while (seen := qmp.command("query-migrate").get("status")) != "completed":
            if seen in ("failed", "cancelled") or time.monotonic() > until:
                raise HostError(f"QEMU could not save {self.entry.name}: its migration is {seen}")
            time.sleep(0.02)

    def _goes_on(self) -> bool:
        vm = QemuMachine(
            self.vm.name, self.image, Saved(self.folder / "memory", self.folder / "state")
        )
        try:
            return vm.resumes(RESUME_SECONDS)
        finally:
            vm.close()

    def _keep(self) -> None:
        """Put the snapshot where it is looked for. Another kvmscen may have done so first."""
        place = self.folder.parent / key(self.entry, self.image)
        if place.exists() and not (place / "hello.json").exists():
            shutil.rmtree(place, ignore_errors=True)
        try:
            self.folder.rename(place)
        except OSError:
            shutil.rmtree(self.folder, ignore_errors=True)
        _prune(place, self.image.cpu)

    def close(self) -> None:
        """End the machine and drop what there is of the snapshot."""
        self.vm.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _prune(kept: Path, cpu: str) -> None:
    """Remove older snapshots for the same CPU, of other agents, QEMUs or kernels, and what was left
    unfinished long ago.

    A machine that goes on from one of them has its files open and mapped, and keeps them.
    """
    others: list[tuple[float, Path]] = []
    for folder in kept.parent.iterdir():
        try:
            modified = folder.stat().st_mtime
            if (folder / "hello.json").exists():
                if folder != kept and (folder / "cpu").read_text() == cpu:
                    others.append((modified, folder))
            elif time.time() - modified > _FORGOTTEN:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            # Another kvmscen has removed it.
            pass
    for _, folder in sorted(others, reverse=True)[_KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)
