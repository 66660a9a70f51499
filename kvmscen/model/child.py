"""The model as a child process: Machines in, predicted Observations out."""

from __future__ import annotations

import importlib
import pkgutil
import signal
import sys
from typing import Any

from unicorn import Uc  # type: ignore[attr-defined]
from unicorn import unicorn_const as uc

from kvmscen import model
from kvmscen.model.predict import execute
from kvmscen.sent.agent.serve import serve
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.machine import Machine
from kvmscen.sent.sandbox import policies


def main() -> None:
    """Serve until the input ends. The first argument is the kernel to predict, empty for none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kernel = sys.argv[1] or None
    import tokenize  # noqa: F401

    for module in pkgutil.walk_packages(model.__path__, "kvmscen.model."):
        # Afterwards it can open no file. Unicorn imports what it has of an architecture when an
        # engine of it is made.
        importlib.import_module(module.name)
    for engine in ((uc.UC_ARCH_ARM64, uc.UC_MODE_ARM), (uc.UC_ARCH_X86, uc.UC_MODE_64)):
        Uc(*engine)
    held = policies.confine(policies.MODEL)

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        return {"observation": encode(execute(decode(Machine, request["machine"]), kernel))}

    serve({"sandbox": encode(held)}, handle)
