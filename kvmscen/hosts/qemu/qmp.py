"""QMP, as much of it as a snapshot needs: commands one at a time, events passed over."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from kvmscen.errors import HostError

Json = dict[str, Any]


# It answers in milliseconds, and on a machine that is busy with other things in seconds.
_HUNG = 180.0


class Qmp:
    """One connection to a QEMU's monitor."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self._held = bytearray()

    def greet(self, seconds: float = _HUNG) -> None:
        """Wait for QEMU's greeting and enter the command mode."""
        until = time.monotonic() + seconds
        while "QMP" not in self._message(until):
            pass
        self.command("qmp_capabilities")

    def command(self, name: str, seconds: float = _HUNG, **arguments: Any) -> Any:
        """Run one command; raises HostError when QEMU refuses it, is gone or takes longer than
        `seconds`.
        """
        until = time.monotonic() + seconds
        request = {"execute": name, **({"arguments": arguments} if arguments else {})}
        try:
            self.line.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise HostError("QEMU has gone") from None
        while True:
            message = self._message(until)
            if "error" in message:
                raise HostError(f"QEMU refused {name}: {message['error'].get('desc')}")
            if "return" in message:
                return message["return"]

    def _message(self, until: float) -> Json:
        while b"\n" not in self._held:
            left = until - time.monotonic()
            if left <= 0:
                raise HostError("QEMU did not answer in time")
            self.line.settimeout(left)
            try:
                chunk = self.line.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                chunk = b""
            if not chunk:
                raise HostError("QEMU has gone")
            self._held += chunk
        line, _, rest = self._held.partition(b"\n")
        self._held = rest
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise HostError("QEMU's monitor does not speak QMP")
        return message
