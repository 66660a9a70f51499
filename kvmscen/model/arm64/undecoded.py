"""arm64: what the model's guest gives kvmscen.sent.undecoded.emulation, and what Unicorn cannot be
left to do beside it.
"""

from __future__ import annotations

from kvmscen.errors import IoctlError
from kvmscen.model.building import Unpredicted
from kvmscen.model.guest import Guest
from kvmscen.sent.undecoded import emulation
from kvmscen.sent.undecoded.emulate import Monitors


def bus_of(guest: Guest, monitors: Monitors) -> emulation.Bus:
    """Registers and memory of a modelled guest."""
    memory, recorder = guest.memory, guest.recorder

    def store(gpa: int, data: bytes) -> None:
        memory.write(gpa, data)
        memory.forget_code()

    return emulation.Bus(
        guest.plan.id,
        guest.read_whole,
        guest.write_wholes,
        memory.read,
        store,
        memory.readonly,
        recorder.devices,
        monitors,
    )


def quietly(bus: emulation.Bus) -> None:
    """Carry out an instruction that does not leave the guest."""
    try:
        emulation.commit(bus, emulation.prepare(bus, None))
    except IoctlError as error:
        raise Unpredicted(error.reason) from None


def is_exclusive(word: int) -> bool:
    """ldxr, stxr and their pairs; casp has the same group of encodings."""
    return word & 0x3F800000 == 0x08000000 and word & 0x80200000 != 0x00200000


def is_signed_atomic(word: int) -> bool:
    """ldsmax and ldsmin of less than 8 bytes: Unicorn compares what is in memory without its
    sign.
    """
    return word & 0x3F20EC00 == 0x38204000 and word >> 30 != 3
