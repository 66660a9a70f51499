"""A process that forks others on demand: what they need is imported once, and each is there within
a millisecond.

It is forked from the main process before that has threads, and has none itself. Main asks it by
datagrams on a socket pair, each with a number that its answer has too:

    Q             end all that was forked, and itself                none
    F, with two descriptors (input and output of the new process)    its process id
    K PROCESS     end it, and what it started                        its status
    H             what `load` says of itself, as JSON                it
    P PROCESS     whether it has ended                               its status, empty: not yet
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from kvmscen.hosts.process.child import Child, ChildError
from kvmscen.hosts.process.patience import Patience
from kvmscen.hosts.process.process import Process, wide

Json = dict[str, Any]
Work = Callable[[], None]
Load = Callable[[], tuple[Work, Json]]
_LONGEST = 1 << 16
_LEAVING, _MOMENT = 5.0, 0.001


class CannotFork(ProcessLookupError):
    """No process can be had; why, in words."""


class Forked:
    """A process that was forked: of subprocess.Popen what a Child asks for."""

    def __init__(self, server: ForkServer, number: int, stdin: BinaryIO, stdout: BinaryIO) -> None:
        self._server = server
        self._number = number
        self._pid: int | None = None
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None

    @property
    def pid(self) -> int:
        """Its process id. Raises CannotFork where there is no process."""
        if self._pid is None:
            said = self._server.answer(self._number)
            if said[:1] == b"!":
                raise CannotFork(said[1:].decode("utf-8", "replace"))
            self._pid = int(said)
        return self._pid

    def kill(self) -> None:
        """End it, and what it started, and wait for its end."""
        if self.returncode is None:
            self._ended(b"K")

    def poll(self) -> int | None:
        """Its status as subprocess.Popen tells it, None where it has not ended."""
        if self.returncode is None:
            self._ended(b"P")
        return self.returncode

    def wait(self) -> int:
        """The status of one that was ended by `kill`."""
        self.kill()
        assert self.returncode is not None
        return self.returncode

    def _ended(self, verb: bytes) -> None:
        try:
            said = self._server.ask(verb + b"%d" % self.pid)
        except CannotFork:
            said = b"1"
        if said:
            self.returncode = int(said)


class ForkServer:
    """The main process's end. `load` imports what the forked ones need, and returns what each of
    them does and what to say of it all; what it raises is told of each that cannot be forked.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._asked = 0
        self._answers: dict[int, bytes] = {}
        self._socket: socket.socket | None = None
        self._pid = 0
        self._hello: Json | None = None

    def start(self) -> None:
        """Fork it. Main may have no other thread yet. Raises OSError."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            try:
                here.close()
                _serve(there, self._load)
            finally:
                os._exit(1)
        there.close()
        self._socket, self._pid = here, pid

    def hello(self) -> Json:
        """What `load` said, once it is there. Raises CannotFork."""
        if self._hello is None:
            said = self.ask(b"H")
            if said[:1] == b"!":
                raise CannotFork(said[1:].decode("utf-8", "replace"))
            self._hello = json.loads(said)
        return self._hello

    def fork(self) -> Forked:
        """A new process. Raises CannotFork, here or when it is first used."""
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        try:
            number = self._send(b"F", [theirs_in, theirs_out])
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        return Forked(self, number, open(ours_in, "wb", 0), open(ours_out, "rb", 0))

    def ask(self, request: bytes) -> bytes:
        """Ask and wait for the answer."""
        return self.answer(self._send(request, []))

    def answer(self, number: int) -> bytes:
        """The answer to a request, once."""
        with self._lock:
            while number not in self._answers:
                try:
                    said = b"" if self._socket is None else self._socket.recv(_LONGEST)
                except OSError:
                    said = b""
                if not said:
                    raise CannotFork("the process that forks others has ended")
                which, _, answer = said.partition(b"=")
                self._answers[int(which)] = answer
            return self._answers.pop(number)

    def _send(self, request: bytes, descriptors: list[int]) -> int:
        with self._lock:
            if self._socket is None:
                raise CannotFork("the process that forks others was not started")
            self._asked += 1
            try:
                socket.send_fds(self._socket, [b"%d=%b" % (self._asked, request)], descriptors)
            except OSError:
                raise CannotFork("the process that forks others has ended") from None
            return self._asked

    def close(self) -> None:
        """End it and all that it forked. Whoever waits for an answer has CannotFork.

        A signal may have taken an answer from whoever waited for it, so nothing is waited for here
        but the end.
        """
        if self._socket is not None:
            try:
                self._socket.send(b"0=Q")
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._wait()
            self._socket.close()
            self._socket = None

    def _wait(self) -> None:
        """Wait for its end, which may be while it still loads."""
        end = time.monotonic() + _LEAVING
        while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > end:
                # Its workers end when main does.
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(_MOMENT)


# --- in the process that forks --------------------------------------------------------------------


def _serve(control: socket.socket, load: Load) -> None:
    """Answer until main's end is closed."""
    _apart(control)
    work: Work | None = None
    hello: Json = {}
    why = ""
    try:
        work, hello = load()
    except Exception as error:
        why = "there is not enough memory" if isinstance(error, MemoryError) else str(error)
    import gc

    # What is there now stays: a forked process need not look at it, and so not copy it.
    gc.freeze()
    told = _refused(why) if work is None else json.dumps(hello).encode()
    forked: set[int] = set()
    while True:
        received, descriptors, _, _ = socket.recv_fds(control, _LONGEST, 2)
        number, _, request = received.partition(b"=")
        if request == b"Q":
            for process in forked:
                _kill(process)
        if request in (b"", b"Q"):
            # Where main has just gone, the workers find that nobody reads them, and take their
            # folders along.
            os._exit(0)
        if request == b"H":
            said = told
        elif request == b"F":
            said = _fork(descriptors, control, work, why)
            if said[:1] != b"!":
                forked.add(int(said))
        else:
            said = _end(request, forked)
        try:
            control.send(number + b"=" + said)
        except OSError:
            os._exit(0)


def _apart(control: socket.socket) -> None:
    """A session of its own, that a ^C does not reach, and nothing of main's but its socket."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    _keep((0, 1, 2, control.fileno()))
    _name("kvmscen-forks")


def _end(request: bytes, forked: set[int]) -> bytes:
    """End a process, or see whether it has ended: its status, or empty."""
    process = int(request[1:])
    said = _kill(process) if request[:1] == b"K" else _poll(process)
    if said:
        forked.discard(process)
    return said


def _fork(descriptors: list[int], control: socket.socket, work: Work | None, why: str) -> bytes:
    if work is None:
        said = _refused(why)
    else:
        try:
            process = os.fork()
        except OSError as error:
            process, said = -1, _refused(os.strerror(error.errno or 0))
        if process == 0:
            _become(descriptors, control, work)
        if process > 0:
            said = b"%d" % process
    for descriptor in descriptors:
        os.close(descriptor)
    return said


def _refused(why: str) -> bytes:
    return b"!" + why.encode("utf-8", "replace")[: _LONGEST - 8]


def _become(descriptors: list[int], control: socket.socket, work: Work) -> None:
    """The new process: a session of its own, its input and output, then its work."""
    status = 1
    try:
        os.setsid()
        _name("kvmscen-worker")
        os.dup2(descriptors[0], 0)
        os.dup2(descriptors[1], 1)
        os.dup2(descriptors[1], 2)
        for descriptor in (*descriptors, control.fileno()):
            os.close(descriptor)
        # Not what main prints by.
        sys.stdout = sys.stderr = os.fdopen(2, "w", 1, "utf-8", "backslashreplace", None, False)
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
    finally:
        os._exit(status)


def _name(name: str) -> None:
    """What ps shows of this process; 15 characters at most."""
    try:
        with open("/proc/self/comm", "w") as comm:
            comm.write(name)
    except OSError:
        pass


def _keep(kept: tuple[int, ...]) -> None:
    """Close all other descriptors."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # that of the listing itself


def _kill(process: int) -> bytes:
    for end in (os.killpg, os.kill):
        try:
            end(process, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    try:
        _, status = os.waitpid(process, 0)
    except ChildProcessError:
        return b"0"
    return b"%d" % os.waitstatus_to_exitcode(status)


def _poll(process: int) -> bytes:
    try:
        ended, status = os.waitpid(process, os.WNOHANG)
    except ChildProcessError:
        return b"0"
    return b"%d" % os.waitstatus_to_exitcode(status) if ended else b""


class ForkedChild(Child):
    """A child that a ForkServer forks in place of starting a program."""

    def __init__(self, name: str, server: ForkServer) -> None:
        super().__init__(name, ())
        self.server = server

    def _start(self) -> Process:
        try:
            process = self.server.fork()
        except (CannotFork, OSError) as error:
            raise ChildError(f"{self.name} cannot be started: {_why(error)}", "") from None
        wide(process)
        return process

    def _patience(self, seconds: float) -> Patience:
        try:
            return super()._patience(seconds)
        except CannotFork as error:
            raise ChildError(f"{self.name} cannot be started: {_why(error)}", self.tail) from None

    @property
    def process_id(self) -> int | None:
        """As of every child; None of one that could not be forked."""
        try:
            return super().process_id
        except CannotFork:
            return None


def _why(error: OSError) -> str:
    return error.strerror or str(error)
