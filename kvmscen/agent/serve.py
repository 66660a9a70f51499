"""The loop of a child process: a hello, then one reply for each request, as frames on its first input and output.

The same loop serves the agent on any host, the model and the prepare children. A request is a JSON object with an `id`; so is
its reply. After a damaged line either side asks `{"id": n, "again": true}` and the other sends its last line once more.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from kvmscen.agent import frames

Json = dict[str, Any]


class _Lines:
    """Lines of a descriptor, read without Python's own buffering: what came before them may have been read by others."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.held = bytearray()

    def next(self) -> bytes | None:
        while b"\n" not in self.held:
            chunk = os.read(self.fd, 1 << 20)
            if not chunk:
                return None
            self.held += chunk
        line, _, rest = self.held.partition(b"\n")
        self.held = rest
        return bytes(line)


def _send(fd: int, frame: bytes) -> None:
    view = memoryview(frame)
    while view:
        view = view[os.write(fd, view) :]


def serve(hello: Json, handle: Callable[[Json], Json]) -> None:
    """Say `hello`, then answer requests until the input ends. An exception of `handle` is a reply with `broke`."""
    # Whatever prints by mistake must not stand between frames.
    out = os.dup(1)
    os.dup2(2, 1)
    lines = _Lines(0)
    last = frames.pack(json.dumps({"id": 0, "protocol": frames.VERSION, **hello}))
    _send(out, last)
    while (line := lines.next()) is not None:
        at = line.find(frames.START)
        if at < 0:
            continue
        text = frames.unpack(line[at:])
        if text is None:
            _send(out, frames.pack('{"id": 0, "again": true}'))
            continue
        request = _request(text)
        if request is None:
            # It came whole, so asking for it again would go round for ever.
            _send(out, frames.pack('{"id": 0, "broke": "a request is a JSON object with an id"}'))
            continue
        if not request.get("again"):
            last = frames.pack(json.dumps({"id": request["id"], **_answer(handle, request)}, separators=(",", ":")))
        _send(out, last)


def _request(text: str) -> Json | None:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return request if isinstance(request, dict) and "id" in request else None


def _answer(handle: Callable[[Json], Json], request: Json) -> Json:
    try:
        return handle(request)
    except Exception as error:
        # This is the border of a process: whatever broke goes to the other side as data, with where it broke on stderr.
        traceback.print_exc(file=sys.stderr)
        return {"broke": f"{type(error).__name__}: {error}"}
