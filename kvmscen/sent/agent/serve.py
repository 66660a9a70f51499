"""The loop of a child process: a hello, then one reply for each request, as frames on its first
input and output.

The same loop serves the agent on any host, the model and the workers. A request is a JSON
object with an `id`; so is its reply. After a damaged line either side asks `{"id": n, "again":
true}` and the other sends its last line once more.
"""

from __future__ import annotations

import _thread
import faulthandler
import json
import os
import select
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Union

from kvmscen.sent.agent import frames
from kvmscen.sent.errors import HostError

Json = dict[str, Any]
Answer = Union[Json, Iterator[Json]]


def _send(fd: int, frame: bytes) -> None:
    """Write a frame; whoever should read it may have gone, which is the end."""
    view = memoryview(frame)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        sys.exit(1)


def _leave() -> None:
    os._exit(1)


def serve(
    hello: Json,
    handle: Callable[[Json], Answer],
    awake: Callable[[], None] = lambda: None,
    leave: Callable[[], None] = _leave,
) -> None:
    """Say `hello`, then answer requests until the input ends. An exception of `handle` is a reply
    with `broke`. Where it returns an iterator each part is a frame of its own, all but the last of
    them with `more`.

    `awake` is called when there is something to read, before it is looked at; `leave` in a thread
    of its own when nobody is there any more who could read a reply: it ends the process.
    """
    # Where a fault was goes to stderr, and so into what the other side says of our end.
    faulthandler.enable(2, all_threads=False)
    # Whatever prints by mistake must not stand between frames.
    out = os.dup(1)
    os.dup2(2, 1)
    _end_without_reader(out, leave)
    reader = frames.Reader()
    last = frames.pack(json.dumps({"id": 0, "protocol": frames.VERSION, **hello}))
    _send(out, last)
    while (text := _next(reader, out, awake)) is not None:
        request = _request(text)
        if request is None:
            # It came whole, so asking for it again would go round for ever.
            _send(out, frames.pack('{"id": 0, "broke": "a request is a JSON object with an id"}'))
            continue
        if request.get("again"):
            _send(out, last)
            continue
        for part in _answer(handle, request):
            last = frames.pack(json.dumps({"id": request["id"], **part}, separators=(",", ":")))
            _send(out, last)


def _next(reader: frames.Reader, out: int, awake: Callable[[], None]) -> str | None:
    """The next frame on descriptor 0; None when that has ended. A damaged one is asked for
    again.
    """
    while True:
        try:
            text = reader.next()
        except frames.TooLarge:
            _send(out, frames.pack('{"id": 0, "broke": "the request is too large"}'))
            continue
        if reader.damaged:
            reader.damaged = False
            _send(out, frames.pack('{"id": 0, "again": true}'))
        if text is not None:
            return text
        # Without Python's own buffering: what came before may have been read by others.
        chunk = os.read(0, 1 << 20)
        awake()
        if not chunk:
            return None
        reader.feed(chunk)


def _end_without_reader(out: int, leave: Callable[[], None]) -> None:
    """End this process when nobody can read its replies any more: a guest may run for minutes after
    its asker was cut off.

    The end of the input tells only who reads it. A serial port says that nobody is there also
    between two who are.
    """
    if not stat.S_ISFIFO(os.fstat(out).st_mode) and not stat.S_ISSOCK(os.fstat(out).st_mode):
        return

    def watch() -> None:
        poll = select.poll()
        # POLLERR (a pipe) and POLLHUP (a socket) are told without being asked for.
        poll.register(out, 0)
        poll.poll()
        leave()

    # Signals are for the thread that runs the guest.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _thread.start_new_thread(watch, ())
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _request(text: str) -> Json | None:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return request if isinstance(request, dict) and "id" in request else None


def _answer(handle: Callable[[Json], Answer], request: Json) -> Iterator[Json]:
    try:
        answer = handle(request)
        if isinstance(answer, dict):
            yield answer
        else:
            yield from answer
    except Exception as error:  # noqa: BLE001
        # This is the border of a process: whatever broke goes to the other side as data, with where
        # it broke on stderr.
        traceback.print_exc(file=sys.stderr)
        if isinstance(error, HostError):
            yield {"broke": str(error)}
        else:
            yield {"broke": f"{type(error).__name__}: {error}"}
