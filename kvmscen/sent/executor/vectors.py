"""Which exception a guest took that hangs in an empty vector: nothing left it, so its own registers
have to tell.

arm64: a vector without a handler raises an exception of its own at each instruction, and what came
first is overwritten. It is looked for by a second run, with a branch to itself in that vector; what
is told of it is marked `again`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable

from kvmscen.sent.errors import HostError, IoctlError
from kvmscen.sent.executor.session import Session
from kvmscen.sent.machine import Bytes, Machine, Memslot
from kvmscen.sent.observation import Observation

_NAMES = {
    "arm64": ("pc", "vbar_el1", "esr_el1", "elr_el1", "far_el1"),
    "riscv64": ("pc", "stvec", "scause", "sepc", "stval"),
}
# What KVM's reset_unknown puts into a system register; no exception gives this syndrome.
UNKNOWN = 0x1DE7EC7EDBADC0DE
_VECTORS, _VECTOR = 0x800, 0x80
_STAY = b"\x00\x00\x00\x14"  # b .
_PAGE = 0x1000
_LONGEST = 1.0


def look(session: Session, stopped: str | None) -> dict[str, int] | None:
    """The registers that tell of the last exception of a session's first vCPU, None where it took
    none or did not hang.
    """
    machine, first = session.machine, session.machine.vcpus[0]
    names = _NAMES.get(machine.arch)
    if (
        names is None
        or stopped not in ("timeout", "error")
        or first.id not in session.booted
        or machine.measure is not None
    ):
        return None
    regs: dict[str, int] = session.state.read(session.vcpus[first.id], names)
    # A scenario that sets them itself is not told what it has written.
    if any(name in first.regs for name in names[2:]):
        return None
    if machine.arch == "riscv64":
        return regs if regs["scause"] else None
    return regs if regs["esr_el1"] != UNKNOWN else None


def _vector(regs: Mapping[str, int]) -> int | None:
    """The vector of an arm64 guest whose pc is in its vectors."""
    inside = regs["vbar_el1"] <= regs["pc"] < regs["vbar_el1"] + _VECTORS
    return regs["pc"] & ~(_VECTOR - 1) if inside else None


def _lost(regs: Mapping[str, int]) -> bool:
    """Whether the last exception came from the vector itself, so that the first one is
    overwritten.
    """
    at = _vector(regs)
    return at is not None and at <= regs["elr_el1"] < at + _VECTOR


def _again(machine: Machine, regs: Mapping[str, int]) -> Machine | None:
    """The same Machine with a branch to itself in the vector; None where something else is
    there.
    """
    if machine.arch != "arm64" or not _lost(regs):
        return None
    at = regs["vbar_el1"] + (regs["pc"] - regs["vbar_el1"] & ~(_VECTOR - 1))
    slots = [slot for slot in machine.memslots if slot.errno is None]
    if not any(slot.gpa <= at < slot.gpa + slot.size for slot in slots):
        page = at & ~(_PAGE - 1)
        taken = [(slot.gpa, slot.size) for slot in slots] + [
            (part.gpa, part.size) for part in machine.devices
        ]
        if any(start < page + _PAGE and page < start + size for start, size in taken):
            return None
        number = next(
            n
            for n in range(len(machine.memslots) + 2)
            if n not in {slot.slot for slot in machine.memslots}
        )
        machine = machine._replace(memslots=(*machine.memslots, Memslot(number, page, _PAGE)))
    elif any(_holds(part, at) for part in machine.image):
        return None
    return machine._replace(
        image=(*machine.image, Bytes.at(at, _STAY)), timeout=min(machine.timeout, _LONGEST)
    )


def _holds(part: Bytes, at: int) -> bool:
    """Whether the program has an instruction at an address; zeros are none."""
    return part.gpa <= at and any(part.data[at - part.gpa : at - part.gpa + 4])


def first(
    machine: Machine, seen: Observation, run: Callable[[Machine], Observation]
) -> Observation:
    """What was seen with the exception that came first, where a second run tells it; as it was
    where none can.
    """
    regs = seen.exception or {}
    twice = _again(machine, regs)
    if twice is None:
        return seen
    try:
        found = run(twice).exception
    except (HostError, IoctlError, OSError):
        return seen
    if found is None or found["pc"] != _vector(regs) or _lost(found):
        return seen
    return seen._replace(exception={**found, "again": 1})
