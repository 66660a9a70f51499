"""What the main process hears of how its children are confined, and what it says of it: once,
whatever many of them say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvmscen.errors import HostError
from kvmscen.sent import sandbox
from kvmscen.sent.sandbox import InForce

Json = dict[str, Any]
_told: set[str] = set()
tell: list[Callable[[str], None]] = []
"""Called with what a user should know; the command line adds what prints it."""


def heard(hello: Json, where: str = "") -> None:
    """Take in a child's hello; `where` names another machine than this one. Raises HostError where
    `require` is not met, or nothing is said of it: what is not said cannot be counted on. A child
    that cannot run guests reads nothing of a stranger's.
    """
    mode = sandbox.mode()
    if mode == "off" or "unusable" in hello:
        return
    held = in_force(hello)
    if held is None:
        if mode == "require":
            who = f"{where}: the process there" if where else "a process of this machine"
            raise HostError(f"--sandbox require: {who} does not say that it is confined")
        return
    if not held.lacking:
        return
    machine = f"{where}: the kernel there" if where else "this kernel"
    if mode == "require":
        raise HostError(f"--sandbox require: {machine} has no {held.lacking}")
    say = (
        f"{machine} has no {held.lacking}: scenarios run less confined there "
        f"(docs/security.md); --sandbox require refuses it"
    )
    if say not in _told:
        _told.add(say)
        for told in tell:
            told(say)


def in_force(hello: Json) -> InForce | None:
    """What a child's hello says of it, None where it says nothing, or what no child of ours
    says.
    """
    said = hello.get("sandbox")
    if not isinstance(said, dict) or said.get("off"):
        return None
    landlock, seccomp = said.get("landlock"), said.get("seccomp")
    if type(landlock) is not int or type(seccomp) is not bool or landlock < 0:
        return None
    return InForce(landlock, seccomp)


def check() -> None:
    """Raise HostError where `require` asks for more than this machine's kernel has: before anything
    is started.
    """
    if sandbox.mode() == "require":
        from kvmscen.sent.sandbox import policies  # here, since most runs do not ask

        sandbox.require(policies.means())


def asked(timing: bool) -> str:
    """What an agent is told: how to confine itself, whether it times exits, whether it may change
    the host beyond a VM.
    """
    return (
        sandbox.mode()
        + (",timing" if timing else "")
        + (",effects" if sandbox.effects_allowed() else "")
    )


def here() -> str:
    """What holds the processes of this machine that read scenario files, in a sentence for
    people.
    """
    if sandbox.mode() == "off":
        return "sandbox: off, what reads scenario files may do what you may"
    from kvmscen.sent.sandbox import policies  # here, since most runs do not ask

    found = policies.means()
    parts = [f"Landlock (ABI {found.landlock})"] if found.landlock else []
    parts += ["seccomp"] if found.seccomp else []
    lacking = f"; this kernel has no {found.lacking}" if found.lacking else ""
    return (
        f"sandbox: what reads scenario files is confined by "
        f"{' and '.join(parts) or 'limits alone'}{lacking}"
    )
