"""A Linux in QEMU whose first process is the agent: a child like any other, whose pipes are QEMU's.

Its console goes to a memfd, so that its end can still be read when QEMU is gone.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kvmscen.hosts.process import crash
from kvmscen.hosts.process.child import Child, ChildError, Json
from kvmscen.hosts.process.process import Process
from kvmscen.hosts.qemu.boards import Board
from kvmscen.hosts.qemu.qmp import Qmp
from kvmscen.sent.agent import frames

_CONSOLE_TAIL = 8192
# Booting takes seconds; on a machine that is busy with other things it may take many.
_BOOT_SECONDS = 120.0
# Going on takes a third of one.
RESUME_SECONDS = 20.0
# QEMU goes on when nobody reads it, so a shell beside it ends it when we have ended without doing
# so. It is there before QEMU is, since our end may come at any moment.
_WATCHED = '{ read -r _ || kill -9 $$; } < "/proc/self/fd/$1" > /dev/null 2>&1 & shift; exec "$@"'
_AGAIN = frames.pack('{"id":0,"again":true}')


class Image(NamedTuple):
    """What is booted: QEMU, its environment, and the files; `initrd` has the agent in it. `memory`
    is in MiB.
    """

    board: Board
    qemu: str
    cpu: str
    kernel: Path
    initrd: Sequence[bytes]
    environment: Mapping[str, str]
    options: tuple[str, ...] = ()
    dtb: Path | None = None
    memory: int = 256


class Saved(NamedTuple):
    """A machine that was stopped with its agent waiting: its memory, and the state of its
    devices.
    """

    memory: Path
    state: Path

    def drop(self) -> None:
        """Take the snapshot away, so that no other run resumes from it."""
        (self.memory.parent / "hello.json").unlink(missing_ok=True)


class QemuMachine(Child):
    """One machine. It is booted, or goes on from `saved`; `memory` is a file for its memory, which
    can then be saved.
    """

    def __init__(
        self, name: str, image: Image, saved: Saved | None = None, memory: Path | None = None
    ) -> None:
        super().__init__(name, [image.qemu], _AGAIN if saved else b"")
        self.image = image
        self.saved = saved
        self.memory = memory
        self.environment = dict(image.environment)
        self._console = -1
        self._monitor: socket.socket | None = None
        self._held = -1  # the end of a pipe that closes when we end, whatever ends us

    @property
    def qmp(self) -> Qmp:
        """The monitor of a machine that was booted; greet it first."""
        assert self._monitor is not None
        return Qmp(self._monitor)

    @property
    def console(self) -> str:
        """The end of what the kernel printed."""
        if self._console < 0:
            return ""
        size = os.fstat(self._console).st_size
        return (
            os.pread(self._console, _CONSOLE_TAIL, max(0, size - _CONSOLE_TAIL))
            .decode("utf-8", "replace")
            .strip()
        )

    @property
    def tail(self) -> str:
        """What QEMU printed, and the end of the console."""
        return "\n".join(text for text in (super().tail, self.console) if text)

    def wait_hello(self, seconds: float = 30.0) -> Json:
        """The agent's hello, after a boot or from a snapshot; where that is of no use any more the
        machine is booted.
        """
        if self.saved is None:
            return super().wait_hello(max(seconds, _BOOT_SECONDS))
        if self.resumes(min(seconds, RESUME_SECONDS)):
            return self.hello
        with self._use:
            if self._closed:
                raise ChildError(f"{self.name} was stopped", "")
            self.saved.drop()
            self.saved = None
            self.greeting = b""
            return super().wait_hello(_BOOT_SECONDS)

    def resumes(self, seconds: float) -> bool:
        """Whether the agent of a machine that goes on says hello in time."""
        try:
            super().wait_hello(seconds)
        except ChildError:
            return False
        return True

    def _start(self) -> Process:
        self._drop()
        self._console = os.memfd_create("console", os.MFD_CLOEXEC)
        self._monitor, theirs = socket.socketpair()
        initrd = input_end = -1
        try:
            input_end, self._held = os.pipe()
            self.pass_fds = [self._console, theirs.fileno(), input_end]
            if self.saved is None:
                initrd = os.memfd_create("initrd", os.MFD_CLOEXEC)
                for part in self.image.initrd:
                    _write(initrd, part)
                self.pass_fds.append(initrd)
            self.argv = [
                "/bin/sh",
                "-c",
                _WATCHED,
                "sh",
                str(input_end),
                *self._line(self._console, theirs.fileno(), initrd),
            ]
            if self.saved is not None:
                # All at once: QEMU takes them one after another, and the agent's answer says that
                # they went well.
                self._monitor.sendall(
                    b"".join(
                        json.dumps(command).encode() + b"\n" for command in _resume(self.saved)
                    )
                )
            return super()._start()
        finally:
            theirs.close()
            if input_end >= 0:
                os.close(input_end)
            if initrd >= 0:
                os.close(initrd)

    def _line(self, console: int, monitor: int, initrd: int) -> list[str]:
        board, image = self.image.board, self.image
        line = [
            image.qemu,
            *image.options,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]
        cpu = image.cpu or board.cpu
        line += [*board.line, *(("-cpu", cpu) if cpu else ()), "-m", str(image.memory)]
        line += ["-accel", "tcg,thread=multi,tb-size=256"]
        line += [
            "-chardev",
            f"file,id=console,path=/proc/self/fd/{console}",
        ]
        line += [
            "-chardev",
            f"socket,id=monitor,fd={monitor}",
            "-mon",
            "chardev=monitor,mode=control",
            *board.wire,
        ]
        file = self.saved.memory if self.saved else self.memory
        if file is not None:
            share = "off" if self.saved else "on"
            memory = (
                f"memory-backend-file,id=ram,size={image.memory}M,"
                f"mem-path={_escaped(file)},share={share}"
            )
            # Else a machine that was stopped to be saved would still be stopped when it goes on.
            running = "migration.store-global-state=off"
            line += ["-object", memory, "-machine", "memory-backend=ram", "-global", running]
        if self.saved is not None:
            return [*line, "-incoming", "defer"]
        line += ["-kernel", str(image.kernel), "-initrd", f"/proc/self/fd/{initrd}"]
        line += ["-dtb", str(image.dtb)] if image.dtb else []
        return [*line, "-append", f"{board.append} kvmscen={board.channel}"]

    def kill(self) -> None:
        """End QEMU; the console can still be read until the next start."""
        super().kill()
        self._dismiss()
        if self._monitor is not None:
            self._monitor.close()

    def close(self) -> None:
        """End QEMU for good."""
        super().close()
        self._drop()

    def _dismiss(self) -> None:
        """Let the shell go that waits for our end, once QEMU is gone."""
        alive, self._held = self._held, -1
        if alive >= 0:
            try:
                os.write(alive, b"\n")
            except OSError:
                pass
            os.close(alive)

    def _drop(self) -> None:
        self._dismiss()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._console >= 0:
            os.close(self._console)
            self._console = -1


def _escaped(path: Path) -> str:
    """A value as QEMU's key=value lists take it: commas doubled."""
    return str(path).replace(",", ",,")


def _resume(saved: Saved) -> list[Json]:
    # exec: and not file:, which QEMU has from 8.2 on.
    uri = f"exec:exec cat {shell(saved.state)}"
    capability = {"capability": "x-ignore-shared", "state": True}
    return [
        {"execute": "qmp_capabilities"},
        {"execute": "migrate-set-capabilities", "arguments": {"capabilities": [capability]}},
        {"execute": "migrate-incoming", "arguments": {"uri": uri}},
    ]


def shell(path: Path) -> str:
    """A path quoted for the shell."""
    import shlex

    return shlex.quote(str(path))


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


# What a kernel prints when it is at its end, or not well.
_PANIC = re.compile(r"Kernel panic - not syncing: .*")
_OOPS = re.compile(
    r"(Internal error: |Unable to handle kernel |BUG: |kernel BUG at |Oops|WARNING: |INFO: rcu).*"
)
_SHOWN = 20


def why(error: ChildError, name: str) -> str:
    """What a machine that broke died of, with the end of its console behind the first line."""
    lines = error.tail.splitlines()
    panic, oops = (
        next(filter(None, map(wanted.search, lines)), None) for wanted in (_PANIC, _OOPS)
    )
    if place := crash.where(error.tail):
        # It is the first process there, so the kernel panics too.
        first = f"the agent of {name} died{place}"
    elif panic is not None:
        first = (
            f"a probable finding: the kernel of {name} panicked: {panic.group().partition(': ')[2]}"
        )
    elif oops is not None:
        first = f"a probable finding: the kernel of {name} is not well, and {error}: {oops.group()}"
    elif "did not answer in time" in str(error):
        first = f"a probable finding: the kernel of {name} hangs: it did not answer in time"
    else:
        first = str(error)
    shown = lines[-_SHOWN:] if panic is None else _from_panic(lines)
    return "\n".join([first, *(["the end of what it printed:", *shown] if shown else [])])


def _from_panic(lines: list[str]) -> list[str]:
    """What stands round the panic: a call trace may be longer than what is shown."""
    at = next(number for number, line in enumerate(lines) if _PANIC.search(line))
    return lines[max(0, at - _SHOWN // 2) : at + _SHOWN]
