"""A child process that answers frames: spawned, asked with a deadline, killed, started anew.

It runs in a session of its own, so that a ^C on the terminal does not reach it; it ends when its
input does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import kvmscen
from kvmscen.errors import HostError
from kvmscen.hosts.process import bounded, crash
from kvmscen.hosts.process.patience import Later, Patience
from kvmscen.hosts.process.process import Process, wide
from kvmscen.sent.agent import frames

Json = dict[str, Any]
# A console may print for ever without a frame in it.
_FLOOD = 64 << 20
# A damaged line is asked for again when nothing more comes, so that noise is not answered with a
# request for more; and a child that gets our lines damaged this often will not get one whole.
_QUIET = 0.2
_TRIES = 16
# Who closes its output ends soon (seconds).
_LEAVING, _MOMENT = 1.0, 0.002


class ChildError(HostError):
    """The child ended, was too late, or does not speak our protocol.

    `tail` is the end of what it printed, `status` what it exited with by itself (None: it did not).
    """

    def __init__(self, message: str, tail: str, status: int | None = None) -> None:
        super().__init__(message)
        self.tail = tail
        self.status = status


class Child:
    """One child. Not for two threads at once, but `kill` and `close` may come from any."""

    def __init__(self, name: str, argv: Sequence[str], greeting: bytes = b"") -> None:
        self.name = name
        self.argv = list(argv)
        self.greeting = greeting
        # What the process gets besides its pipes.
        self.pass_fds: list[int] = []
        self.environment: dict[str, str] | None = None
        self.hello: Json = {}
        # Whether its replies may be of anybody's making: those of a machine that is not ours.
        self.doubted = True
        # Called with each hello; what it raises, `wait_hello` raises.
        self.heard: Callable[[Json], None] = lambda hello: None
        self._process: Process | None = None
        self._reader = frames.Reader()
        self._unsent = bytearray()
        self._id = 0
        self._last = b""
        # `_lock` is for the few lines that change `_process`; `_use` is held by whoever has his
        # hands on the pipes.
        self._lock = threading.Lock()
        self._use = threading.RLock()
        self._closed = False

    # --- life -------------------------------------------------------------------------------------

    def spawn(self) -> None:
        """Start the process; its hello is read by the first `wait_hello` or `ask`."""
        with self._use:
            with self._lock:
                if self._closed:
                    raise ChildError(f"{self.name} was stopped", "")
                self._reader = frames.Reader()
                self._unsent[:] = self.greeting
                self.hello = {}
                self._process = process = self._start()
            self._push(process)

    def _start(self) -> Process:
        import subprocess  # here, since most runs fork what they start

        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                self.argv,
                stdin=pipe,
                stdout=pipe,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
                pass_fds=self.pass_fds,
                env=self.environment,
            )
        except OSError as error:
            raise ChildError(f"{self.name} cannot be started: {error.strerror}", "") from None
        wide(process)
        return process

    def wait_hello(self, seconds: float = 30.0) -> Json:
        """The child's first frame; raises ChildError when it does not come, or is of another
        protocol.
        """
        with self._use:
            if self._process is None:
                self.spawn()
            if not self.hello:
                try:
                    patience = self._patience(seconds)
                    while (hello := self._reply(patience)).get("again"):
                        # It asks for a request again that it never had: noise on its input.
                        pass
                    if hello.get("protocol") != frames.VERSION:
                        theirs = hello.get("protocol")
                        raise ChildError(
                            f"{self.name} speaks protocol {theirs}, this kvmscen {frames.VERSION}",
                            self.tail,
                        )
                except ChildError:
                    self.kill()
                    raise
                self.hello = hello
                self.heard(hello)
            return self.hello

    def kill(self) -> None:
        """End the process, and those that it started, at once; the next `ask` starts a new one."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        process.kill()
        process.wait()
        # An `ask` under way in another thread reads until the end that has now come.
        with self._use:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def close(self) -> None:
        """End the process for good; an `ask` under way in another thread fails."""
        with self._lock:
            self._closed = True
        self.kill()

    @property
    def process_id(self) -> int | None:
        """The process that answers now; another one after a restart."""
        process = self._process
        return None if process is None else process.pid

    @property
    def tail(self) -> str:
        """The end of what the child printed outside frames."""
        return self._reader.tail.decode("utf-8", "replace").strip()

    # --- asking -----------------------------------------------------------------------------------

    def ask(self, body: str, seconds: float) -> Json:
        """Send the members `body` (JSON text without braces) and return the reply's; raises
        ChildError.

        The time counts as in kvmscen.hosts.process.patience; a start, where one is needed, has time
        of its own. After a ChildError the child is gone; the next call starts a new one.
        """
        with self._use:
            self.wait_hello(max(seconds, 30.0))
            patience = self._patience(seconds)
            self._id += 1
            self._last = frames.pack(f'{{"id":{self._id},{body}}}')
            tries = 1
            try:
                self._write(self._last)
                while (reply := self._reply(patience)).get("id") != self._id:
                    if reply.get("again"):
                        tries += 1
                        if tries > _TRIES:
                            raise ChildError(f"{self.name} gets every line damaged", self.tail)
                        self._write(self._last)
                    elif reply.get("id") == 0 and "broke" in reply:
                        raise ChildError(
                            f"{self.name} cannot take the request: {reply['broke']}", self.tail
                        )
                    # Any other is the reply to an earlier request that nobody took, or of nobody.
                return reply
            except ChildError:
                self.kill()
                raise

    def ask_ahead(self, bodies: Sequence[str], seconds: float) -> Iterator[Json]:
        """Send `bodies` without waiting and yield their replies in order, each at most `seconds`
        after the one before.

        At a ChildError the first one without a reply did it, those behind it were not answered, and
        the child is gone.
        """
        self.wait_hello(max(seconds, 30.0))
        for _, reply in self.ask_parts(bodies, lambda *_: seconds):
            yield reply

    def ask_parts(
        self, bodies: Sequence[str], seconds: Callable[[int, Json | None], float]
    ) -> Iterator[tuple[int, Json]]:
        """Send `bodies` without waiting and yield (number of the body, part of its reply) until
        each has its last part, the one without `more`.

        `seconds(number, part)` says how long the part behind that one may take, of None the first.
        At a ChildError the child is gone.
        """
        self.wait_hello()
        first = self._id + 1
        self._id += len(bodies)
        try:
            with self._use:
                self._write(
                    b"".join(
                        frames.pack(f'{{"id":{first + n},{body}}}') for n, body in enumerate(bodies)
                    )
                )
            for n in range(len(bodies)):
                part: Json | None = None
                while part is None or part.get("more"):
                    with self._use:
                        part = self._reply(Later(seconds(n, part), self._patience))
                    if part.get("id") != first + n:
                        raise ChildError(f"{self.name} sent a damaged line", self.tail)
                    yield n, part
        except ChildError:
            self.kill()
            raise

    def _write(self, data: bytes) -> None:
        """Write as much as the child takes now; `_receive` writes the rest."""
        self._unsent += data
        self._push(self._alive())

    def _alive(self) -> Process:
        process = self._process
        if process is None:
            raise ChildError(f"{self.name} was stopped", self.tail)
        return process

    def _push(self, process: Process) -> None:
        assert process.stdin is not None
        try:
            while self._unsent:
                del self._unsent[: os.write(process.stdin.fileno(), self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            # It reads no more; why, its output's end tells.
            self._unsent.clear()

    def _patience(self, seconds: float) -> Patience:
        return Patience(seconds, self._alive().pid)

    def _reply(self, patience: Patience | Later) -> Json:
        """The next frame as JSON."""
        text = self._receive(patience)
        try:
            reply = bounded.parse(text) if self.doubted else json.loads(text)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            raise ChildError(f"{self.name} does not speak our protocol", self.tail)
        return reply

    def _receive(self, patience: Patience | Later) -> str:
        """The next frame's text; what is not a frame goes to the tail."""
        process, reader = self._alive(), self._reader
        while True:
            try:
                text = reader.next()
            except frames.TooLarge:
                raise ChildError(f"{self.name} sent a reply that is too large", self.tail) from None
            if text is not None:
                return text
            if reader.noise > _FLOOD:
                raise ChildError(f"{self.name} prints without end", self.tail)
            left = patience.left()
            wait = min(_QUIET, left) if reader.damaged else left
            chunk = self._exchange(process, wait)
            if chunk is not None:
                reader.feed(chunk)
            elif wait < left:
                reader.damaged = False
                self._write(frames.pack('{"id":0,"again":true}'))
            elif not patience.more():
                raise ChildError(f"{self.name} did not answer in time", self.tail)

    def _exchange(self, process: Process, seconds: float) -> bytes | None:
        """Wait until the child takes or gives bytes: the bytes given, None when it did neither.

        Only writing would block when the child does so too.
        """
        assert process.stdin is not None
        assert process.stdout is not None
        into, out = process.stdin.fileno(), process.stdout.fileno()
        poll = select.poll()
        poll.register(out, select.POLLIN)
        if self._unsent:
            poll.register(into, select.POLLOUT)
        ready = dict(poll.poll(seconds * 1000)) if seconds > 0 else {}
        if not ready:
            return None
        if into in ready:
            self._push(process)
        if out not in ready:
            return b""
        chunk = os.read(out, 1 << 20)
        if not chunk:
            raise self._ended(process)
        return chunk

    def _ended(self, process: Process) -> ChildError:
        if self._process is not process:
            return ChildError(f"{self.name} was stopped", self.tail)
        self._reader.end()
        status = self._status(process)
        if status is None:
            return ChildError(f"{self.name} closed its output", self.tail)
        how = (
            f"was ended by {signal.Signals(-status).name}"
            if status < 0
            else f"exited with status {status}"
        )
        return ChildError(f"{self.name} {how}{crash.where(self.tail)}", self.tail, status)

    def _status(self, process: Process) -> int | None:
        """The status of a process that has closed its output, None where it goes on."""
        end = time.monotonic() + _LEAVING
        while (status := process.poll()) is None and time.monotonic() < end:
            time.sleep(_MOMENT)
        return status


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a child that runs `main()` of a module of this package, from wherever
    this package lies.
    """
    root = str(Path(kvmscen.__file__).resolve().parent.parent)
    # -P keeps the working folder, and so a stranger's json.py, off sys.path.
    code = (
        f"import os, sys; sys.path.insert(0, {root!r}); from {module} import main; main(); "
        f"os._exit(0)"
    )
    return [sys.executable, "-P", "-c", code, *arguments]
