"""arm64: the instructions in front of which the guest stops, and what is done there instead of leaving them to Unicorn."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kvmscen.arch import arm64_tables
from kvmscen.arch.arm64_alignment import ZVA
from kvmscen.arch.arm64_syndrome import decode
from kvmscen.kvm import emulation
from kvmscen.model.arm64 import system
from kvmscen.model.arm64.state import unmodelled_pstate
from kvmscen.model.arm64.undecoded import bus_of, is_exclusive, is_signed_atomic, is_store_exclusive, quietly
from kvmscen.model.building import Blocked, Unpredicted
from kvmscen.model.memory import PAGE

if TYPE_CHECKING:
    from kvmscen.model.arm64.guest import Arm64

_FPEN_TRAPS = (0, 2)  # what CPACR_EL1.FPEN traps at EL1; 1 traps at EL0 only
# The farthest address that cache maintenance is left alone at; the tables of `mmu: identity` end there.
_REACH = arm64_tables.REACH


class Instructions:
    """What is special in the code of one guest."""

    def __init__(self, guest: Arm64) -> None:
        self.guest = guest

    def within(self, address: int, code: bytes) -> Iterable[int]:
        """The addresses of a block, about to run for the first time, in front of which the guest must stop."""
        for n, word in enumerate(struct.unpack(f"<{len(code) // 4}I", code)):
            if self._stops(word):
                yield address + 4 * n

    def _stops(self, word: int) -> bool:
        if is_store_exclusive(word) or (self.guest.emulates and is_exclusive(word)) or is_signed_atomic(word):
            return True
        return system.stops(word) or (uses_simd(word) and self._trapping())

    def harmless(self, address: int) -> bool:
        """Whether it is a store-exclusive that can succeed."""
        word = self.guest.word(address)
        if self.guest.emulates or not is_store_exclusive(word):
            return False
        try:
            return self._pristine(word) is False
        except Unpredicted:
            return False

    def carry_out(self, address: int) -> bool:
        """Do what is special at an address; False: Unicorn may go on there."""
        word = self.guest.word(address)
        exclusive, zeroes = self.guest.emulates and is_exclusive(word), word & ~0x1F == ZVA
        if (exclusive or zeroes) and (wrong := self.guest.alignment.wrong(address)) is not None:
            raise Unpredicted(wrong)
        if zeroes:
            return self._zeroes(word, address)
        if is_store_exclusive(word) and self._fails(word):
            return True
        if uses_simd(word) and self._trapping():
            self.guest.exception("SIMD and floating point are off in cpacr_el1")
            return True
        if system.stops(word):
            self._system(word)
            return True
        if exclusive:
            return self._exclusive(word, address)
        return is_signed_atomic(word) and self._signed_atomic(word, address)

    def _trapping(self) -> bool:
        """Whether CPACR_EL1 traps SIMD and floating point; Unicorn executes them all the same."""
        return self.guest.read_whole("cpacr_el1") >> 20 & 3 in _FPEN_TRAPS

    # --- the system space -------------------------------------------------------------------------------------------

    def _system(self, word: int) -> None:
        guest = self.guest
        if word == system.SELF:
            raise Blocked
        if word == system.WFE:
            guest.jump(guest.pc() + 4)  # KVM goes on behind it, where it traps it; an event comes with the host's next tick
        elif word == system.ERET:
            # Unicorn takes each return to EL1 for an illegal one.
            pstate, pc = guest.read_whole("spsr_el1"), guest.read_whole("elr_el1")
            if (wrong := unmodelled_pstate(pstate)) is not None:
                raise Unpredicted(wrong)
            guest.write_wholes({"pstate": pstate})
            guest.jump(pc)
        elif word & 0xFFF00000 == 0xD5300000 and word >> 5 & 0xFFFF == system.MPIDR:
            guest.put(word & 31, 1 << 31)  # of vCPU 0
            guest.jump(guest.pc() + 4)
        elif word & 0xFFF00000 == 0xD5100000:
            self._write(word, guest.general(word & 31))
        elif word & 0xFFF80000 == 0xD5080000 and self._is_cache(word):
            guest.jump(guest.pc() + 4)
        else:
            raise Unpredicted(f"{system.reason(word)} (at {guest.pc():#x})")

    def _is_cache(self, word: int) -> bool:
        _, op1, crn, crm, op2 = system.fields(word)
        return (op1, crn, crm, op2) in system.CACHES_BY_ADDRESS and self.guest.general(word & 31) < _REACH

    def _write(self, word: int, value: int) -> None:
        """msr of a register."""
        guest, row = self.guest, word >> 5 & 0xFFFF
        if row in system.TIMER_VALUES or (row in system.TIMER_CONTROLS and not value & 1):
            guest.jump(guest.pc() + 4)
        elif row in system.TIMER_CONTROLS:
            raise Unpredicted(f"the guest arms a timer at {guest.pc():#x}: when it fires is for the host's clock to say")
        elif row in system.HELD:
            guest.check({system.HELD[row]: value})
            guest.single()
        else:
            raise Unpredicted(f"{system.reason(word)} (at {guest.pc():#x})")

    # --- what Unicorn does otherwise than a CPU under KVM -------------------------------------------------------------

    def _zeroes(self, word: int, pc: int) -> bool:
        """dc zva: behind its abort Unicorn would go on for a while."""
        guest = self.guest
        address = guest.general(word & 31)
        found = decode(word)
        physical = guest.physical(address)
        if guest.memory.readonly(physical) is False:
            quietly(guest)
        elif found is not None:
            guest.undecoded(found, physical, pc)
        return True

    def _signed_atomic(self, word: int, pc: int) -> bool:
        """In a slot it is carried out here; elsewhere it aborts."""
        guest, base = self.guest, word >> 5 & 31
        address = guest.physical(guest.register("sp" if base == 31 else f"x{base}"))
        if guest.memory.readonly(address) is not False or guest.alignment.wrong(pc) is not None:
            return False
        quietly(guest)
        return True

    def _pristine(self, word: int) -> bool | None:
        """Whether a store-exclusive is to a page of a slot that nobody has written to; None where that is not known."""
        base = word >> 5 & 31
        physical = self.guest.physical(self.guest.register("sp" if base == 31 else f"x{base}"))
        return self.guest.memory.pristine(physical) if self.guest.memory.readonly(physical) is False else False

    def _fails(self, word: int) -> bool:
        """A store-exclusive to a page that KVM has mapped read-only, since it was only read: its fault clears the monitor."""
        guest = self.guest
        pristine = self._pristine(word)
        if pristine is None:
            raise Unpredicted(f"the store-exclusive at {guest.pc():#x} fails or not by whether the host's page was written to")
        if not pristine:
            return False
        base = word >> 5 & 31
        at = guest.physical(guest.register("sp" if base == 31 else f"x{base}"))
        held = guest.memory.read(at, 1) or b"\0"
        if guest.emulates:
            bus_of(guest).monitors.take(guest.plan.id, ())
            guest.put(word >> 16 & 31, 1)
            guest.jump(guest.pc() + 4)
        else:
            # Unicorn's fails, and clears its monitor, where memory is not what was loaded.
            guest.memory.write(at, bytes((held[0] ^ 1,)))
            guest.single()
            guest.memory.write(at, held)
        guest.memory.written.add(at // PAGE)
        return True

    def _exclusive(self, word: int, pc: int) -> bool:
        """ldxr, stxr and their pairs, with one monitor for the slots and what lies outside them."""
        guest = self.guest
        bus = bus_of(guest)
        found = decode(word)
        address = guest.physical(bus.register("sp" if word >> 5 & 31 == 31 else f"x{word >> 5 & 31}"))
        outside = guest.memory.at(address) is None
        if outside and found is not None and word >> 22 & 1:
            guest.undecoded(found, address, pc)
        elif not outside or not emulation.store_exclusive(guest.recorder, bus):
            quietly(guest)
        return True


def uses_simd(word: int) -> bool:
    """Whether CPACR_EL1 may trap a word: SIMD and floating point, loads and stores of such registers, fpcr and fpsr."""
    if word & 0xFFC00000 == 0xD5000000:
        return system.HELD.get(word >> 5 & 0xFFFF) in ("fpcr", "fpsr") and bool(word & 1 << 20)
    return word >> 25 & 7 in (6, 7)
