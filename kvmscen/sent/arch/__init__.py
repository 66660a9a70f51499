"""The architectures: one file each, one line here."""

from __future__ import annotations

from typing import Any

from kvmscen.sent.arch import arm64, riscv64, x86_64

ARCHES: dict[str, Any] = {module.NAME: module for module in (arm64, riscv64, x86_64)}


def of_machine(machine: str) -> str:
    """The architecture's name for what `uname -m` prints; that text itself where kvmscen does not
    know it.
    """
    return next((name for name, module in ARCHES.items() if machine in module.MACHINES), machine)
