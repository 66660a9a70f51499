"""as and ld, started so that they can open their own files alone, and end when whoever started them
does.

Whatever a program's macros put together, the kernel refuses the open. What a thread has given up,
the processes that it starts do not have either: so a thread that is confined starts them. Between
fork and exec it would take 2 ms more of each run, in which the kernel copies Python's memory.
docs/security.md has the table of what they may.
"""

from __future__ import annotations

import fcntl
import os
import queue
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kvmscen.asm.gnu.targets import FOLDERS, loader
from kvmscen.errors import HostError
from kvmscen.sent import sandbox
from kvmscen.sent.sandbox import landlock, policies, seccomp

Popen = subprocess.Popen[bytes]
# This process's CPUCLOCK_PROF, as clock_getcpuclockid(3) makes the numbers of such clocks.
_TICKS = ~0 << 3


def _libraries(program: str) -> tuple[str, ...]:
    """The shared libraries of a program, as its loader finds them; the folders of libraries where
    it does not tell.
    """
    asked = {"LD_TRACE_LOADED_OBJECTS": "1", "LC_ALL": "C"}
    quiet = subprocess.DEVNULL
    done = subprocess.run(
        [program, "--version"],
        env=asked,
        stdin=quiet,
        stdout=subprocess.PIPE,
        stderr=quiet,
        check=False,
    )
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return (
        tuple(line.split(" => ")[1].rpartition(" (")[0] for line in lines if " => " in line)
        or FOLDERS
    )


class Starter:
    """Starts `programs`, which may use the folders `own` and nothing else; `limits` are theirs, by
    resource and most.

    Raises HostError where the kernel lacks what --sandbox require asks for, or a program cannot be
    confined.
    """

    def __init__(
        self, programs: Sequence[str], own: Sequence[str], limits: Mapping[str, int]
    ) -> None:
        self._limits = {getattr(resource, name): most for name, most in limits.items()}
        self._environment = {"LC_ALL": "C"}
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._asked: queue.SimpleQueue[Callable[[], Popen]] = queue.SimpleQueue()
        self._started: queue.SimpleQueue[Popen | BaseException | None] = queue.SimpleQueue()
        in_force, ruleset = sandbox.InForce(0, False), -1
        if sandbox.mode() != "off":
            in_force = policies.means()
            if sandbox.mode() == "require":
                sandbox.require(in_force)
        self.landlock = in_force.landlock
        """The version of Landlock that holds them, 0 where nothing keeps them from files of the
        host.
        """
        if in_force.landlock:
            ruleset = self._ruleset(programs, own)
        policies.load_for_threads()
        code = (
            seccomp.program(os.uname().machine, policies.TOOL.calls, policies.TOOL.checks)
            if in_force.seccomp
            else b""
        )
        threading.Thread(target=self._serve, args=(ruleset, code), daemon=True).start()
        if isinstance(failed := self._started.get(), BaseException):
            raise HostError(f"GNU as cannot be confined: {failed}")

    def _ruleset(self, programs: Sequence[str], own: Sequence[str]) -> int:
        libraries: dict[str, None] = {}
        allowed = [(folder, landlock.OWN) for folder in own]
        for program in programs:
            interpreter = loader(program)
            allowed.append((program, landlock.RUN))
            if interpreter:
                allowed.append((interpreter, landlock.RUN))
                libraries.update(dict.fromkeys(_libraries(program)))
        folders = dict.fromkeys(
            path if path in FOLDERS else str(Path(path).parent) for path in libraries
        )
        if folders:
            # The loader's own list of them lies in /etc, where they may not look.
            self._environment["LD_LIBRARY_PATH"] = ":".join(folders)
        return landlock.ruleset(
            self.landlock, [*allowed, *((path, landlock.READ_FILE) for path in libraries)]
        )

    def _serve(self, ruleset: int, code: bytes) -> None:
        """Confine this thread, then start what `_asked` holds until the process ends."""
        try:
            if ruleset >= 0 or code:
                seccomp.no_new_privileges()
            if ruleset >= 0:
                landlock.restrict(ruleset)
                os.close(ruleset)
            if code:
                seccomp.install(code)
        except OSError as error:
            self._started.put(error)
            return
        self._started.put(None)
        while True:
            start = self._asked.get()
            try:
                self._started.put(start())
            except BaseException as error:  # noqa: BLE001 it is raised in the thread that asked
                self._started.put(error)

    def _taken(self, program: str) -> Popen:
        started = self._started.get()
        if (
            isinstance(started, OSError)
            and self.landlock
            and Path(program).read_bytes()[:2] == b"#!"
        ):
            say = (
                "which cannot be kept from files of the host: put the real one on PATH, or run "
                "with --sandbox off"
            )
            raise HostError(f"{program} is no program but a script, {say}")
        if not isinstance(started, subprocess.Popen):
            raise HostError(f"{program} cannot be started: {started}")
        return started

    def start(self, argv: Sequence[str], where: Path) -> Popen:
        """Start a program in a folder, with `stderr` for its messages. The kernel kills it when
        this process ends, for whatever reason.
        """
        environment = {**self._environment, "TMPDIR": str(where)}
        # No pipes: one can be opened again by its name in /proc, and read without end.
        line, end = socket.socketpair()
        said, complaints = socket.socketpair()

        def start() -> Popen:
            return subprocess.Popen(
                argv,
                cwd=where,
                env=environment,
                stdin=line.fileno(),
                stdout=self._null,
                stderr=complaints.fileno(),
                # All that Python opens is closed by exec; to look for more takes longer than as
                # does.
                close_fds=False,
            )

        try:
            with _limited(self._limits):
                self._asked.put(start)
                child = self._taken(argv[0])
            _tie(line.fileno(), child.pid)
        except BaseException:
            end.close()
            said.close()
            raise
        finally:
            line.close()
            complaints.close()
        child.stderr = os.fdopen(said.detach(), "rb", 0)
        _ENDS[child.pid] = end
        return child

    @staticmethod
    def ended(child: Popen) -> None:
        """Close our end of the child's socket; call it once the child has been waited for."""
        if (end := _ENDS.pop(child.pid, None)) is not None:
            end.close()


# What each of them is tied to, by its process.
_ENDS: dict[int, socket.socket] = {}


def _tie(line: int, process: int) -> None:
    """Have the kernel kill a process when the other end of its standard input is closed, if only by
    the death of who holds it.

    PR_SET_PDEATHSIG would have to be asked for by the process itself.
    """
    fcntl.fcntl(line, fcntl.F_SETOWN, process)
    fcntl.fcntl(line, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(line, fcntl.F_SETFL, fcntl.fcntl(line, fcntl.F_GETFL) | os.O_ASYNC)


def _counted() -> int:
    """The CPU seconds of this process, rounded up, as RLIMIT_CPU counts them: by ticks.

    Of a process that often sleeps that may be half as much again as it has had.
    """
    return 1 + int(max(time.process_time(), time.clock_gettime(_TICKS)))


@contextmanager
def _limited(limits: Mapping[int, int]) -> Iterator[None]:
    """Limits of this process for as long as another is started, which inherits them: it is never
    without.
    """
    before = {what: resource.getrlimit(what) for what in limits}
    try:
        for what, most in limits.items():
            # What this process has used itself must not end it.
            most += _counted() * (what == resource.RLIMIT_CPU)
            hard = before[what][1]
            resource.setrlimit(
                what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
            )
        yield
    finally:
        for what, soft in before.items():
            resource.setrlimit(what, soft)
