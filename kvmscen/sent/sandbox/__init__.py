"""What each process that reads a stranger's bytes gives up before it reads them. docs/security.md
says it in words.

Sent to other machines: standard library only. A process confines itself (`policies`), once it has
opened and imported what it needs; what it starts (as and ld) has less still. The kernel then holds
it, whatever the process is made to do.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from kvmscen.sent.errors import HostError

MODES = ("auto", "require", "off")


def mode() -> str:
    """auto, require or off: what --sandbox or KVMSCEN_SANDBOX says."""
    return os.environ.get("KVMSCEN_SANDBOX") or "auto"


def effects_allowed() -> bool:
    """Whether a scenario may change the host beyond its VM: what --allow-host-effects or
    KVMSCEN_ALLOW_HOST_EFFECTS says.
    """
    return os.environ.get("KVMSCEN_ALLOW_HOST_EFFECTS", "").lower() not in ("", "0", "no", "false")


class InForce(NamedTuple):
    """What holds a process: the version of Landlock's ABI (0: none), and whether seccomp does."""

    landlock: int
    seccomp: bool
    off: bool = False

    @property
    def lacking(self) -> str:
        """What the kernel has not, in words; empty where it has all."""
        parts = (
            []
            if self.landlock
            else ["Landlock (Linux 5.13 has it, where it is not switched off at boot)"]
        )
        return " and ".join(parts + ([] if self.seccomp else ["seccomp filters"]))


def require(in_force: InForce) -> None:
    """Raise HostError where something is lacking."""
    if in_force.lacking:
        raise HostError(
            f"--sandbox require: this kernel has no {in_force.lacking}: run on another, or leave "
            f"--sandbox require out"
        )
