"""The model as a child process: Machines in, predicted Observations out."""

from __future__ import annotations

import signal
import sys
from typing import Any

from kvmscen.agent.serve import serve
from kvmscen.machine import Machine
from kvmscen.model.predict import execute


def main() -> None:
    """Serve until the input ends. The first argument is the kernel to predict, empty for none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kernel = sys.argv[1] or None

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        return {"observation": execute(Machine.from_json(request["machine"]), kernel).to_json()}

    serve({}, handle)
