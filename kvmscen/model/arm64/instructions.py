"""arm64: the instructions in front of which the guest stops, and what is done there instead of
leaving them to Unicorn.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from unicorn import unicorn_const as uc_const

from kvmscen.model.arm64 import system
from kvmscen.model.arm64.processor import Processor
from kvmscen.model.arm64.state import KEPT, unmodelled_pstate
from kvmscen.model.arm64.undecoded import bus_of, is_exclusive, is_signed_atomic, quietly
from kvmscen.model.building import Blocked, Unpredicted
from kvmscen.sent.arch import arm64_tables
from kvmscen.sent.undecoded import emulation
from kvmscen.sent.undecoded.alignment import ZVA
from kvmscen.sent.undecoded.syndrome import decode

_FPEN_TRAPS = (0, 2)  # what CPACR_EL1.FPEN traps at EL1; 1 traps at EL0 only
# The farthest address that cache maintenance is left alone at; the tables of `mmu: identity` end
# there.
_REACH = arm64_tables.REACH


class Instructions:
    """The instructions of one guest before which Unicorn must stop, since KVM differs there."""

    def __init__(self, guest: Processor) -> None:
        self.guest = guest

    def within(self, address: int, code: bytes) -> Iterable[int]:
        """The addresses of a block, about to run for the first time, in front of which the guest
        must stop.
        """
        for n, word in enumerate(struct.unpack(f"<{len(code) // 4}I", code)):
            if self._stops(word):
                yield address + 4 * n

    def _stops(self, word: int) -> bool:
        return (
            is_exclusive(word)
            or system.stops(word)
            or is_signed_atomic(word)
            or (uses_simd(word) and self._trapping())
        )

    def harmless(self, address: int) -> bool:
        """Whether it is an exclusive that Unicorn may execute: a load of a slot, or a store that is
        done.
        """
        word, monitor = self.guest.word(address), self.guest.monitor
        if not is_exclusive(word):
            return False
        try:
            at, size = self._marks(word)
        except Unpredicted:  # it cannot pass through Unicorn
            return False
        readonly = self.guest.memory.readonly(at)
        if at % size or readonly is None or self._emulated():
            return False
        if is_load(word):
            monitor.load(at, size, address)
        elif monitor.fate(at, size, address) != (True, None):
            return False
        else:
            monitor.clear()
        return True

    def carry_out(self, address: int) -> bool:
        """Carry out an instruction that Unicorn must not; False: Unicorn may execute it."""
        word = self.guest.word(address)
        exclusive, zeroes = is_exclusive(word), word & ~0x1F == ZVA
        if (exclusive or zeroes) and (wrong := self.guest.alignment.wrong(address)) is not None:
            raise Unpredicted(wrong)
        if zeroes:
            return self._zeroes(word, address)
        if uses_simd(word) and self._trapping():
            self.guest.exception("SIMD and floating point are off in cpacr_el1")
            return True
        if system.stops(word):
            self._system(word)
            return True
        if exclusive:
            self._exclusive(word, address)
            return True
        return is_signed_atomic(word) and self._signed_atomic(word, address)

    def _trapping(self) -> bool:
        """Whether CPACR_EL1 traps SIMD and floating point; Unicorn executes them all the same."""
        return self.guest.read_whole("cpacr_el1") >> 20 & 3 in _FPEN_TRAPS

    # --- the system space -------------------------------------------------------------------------

    def _system(self, word: int) -> None:
        guest = self.guest
        if word == system.SELF:
            raise Blocked
        guest.monitor.doubt(
            "it depends on the host whether KVM comes in at a system instruction behind the "
            "load-exclusive"
        )
        if word == system.WFE:
            guest.jump(
                guest.pc() + 4
            )  # KVM goes on behind it, where it traps it; an event comes with the host's next tick
        elif word == system.ERET:
            # Unicorn takes each return to EL1 for an illegal one.
            pstate, pc = guest.read_whole("spsr_el1"), guest.read_whole("elr_el1")
            if (wrong := unmodelled_pstate(pstate)) is not None:
                raise Unpredicted(wrong)
            guest.write_wholes({"pstate": pstate})
            guest.monitor.clear()
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
        row = op1, crn, crm, op2
        return row in system.CACHES_BY_SET or (
            row in system.CACHES_BY_ADDRESS and self.guest.general(word & 31) < _REACH
        )

    def _write(self, word: int, value: int) -> None:
        """An `msr` that writes a system register."""
        guest, row = self.guest, word >> 5 & 0xFFFF
        if row in system.TIMER_VALUES or (row in system.TIMER_CONTROLS and not value & 1):
            guest.jump(guest.pc() + 4)
        elif row in system.TIMER_CONTROLS:
            raise Unpredicted(
                f"the guest arms a timer at {guest.pc():#x}: when it fires is for the host's clock "
                f"to say"
            )
        elif row in system.HELD:
            name = system.HELD[row]
            guest.check({name: value})
            if value & ~KEPT.get(name, value):
                raise Unpredicted(
                    f"{name} is written {value:#x} at {guest.pc():#x}: what is kept of its "
                    f"reserved bits differs"
                )
            guest.single()
        else:
            raise Unpredicted(f"{system.reason(word)} (at {guest.pc():#x})")

    # --- what Unicorn does otherwise than a CPU under KVM -----------------------------------------

    def _zeroes(self, word: int, pc: int) -> bool:
        """dc zva: behind its abort Unicorn would go on for a while."""
        guest = self.guest
        address = guest.general(word & 31)
        found = decode(word)
        physical = guest.physical(address)
        if guest.memory.readonly(physical) is False:
            guest.monitor.accessed(physical, True)
            quietly(bus_of(guest, guest.monitors))
        elif found is not None:
            guest.undecoded(found, physical, pc)
        return True

    def _signed_atomic(self, word: int, pc: int) -> bool:
        """ldsmin and ldsmax of 1 or 2 bytes: carried out here in a slot; elsewhere they abort."""
        guest, base = self.guest, word >> 5 & 31
        address = guest.physical(guest.register("sp" if base == 31 else f"x{base}"))
        if guest.memory.readonly(address) is not False or guest.alignment.wrong(pc) is not None:
            return False
        guest.monitor.accessed(address, True)
        quietly(bus_of(guest, guest.monitors))
        return True

    # --- exclusives -------------------------------------------------------------------------------

    def _marks(self, word: int) -> tuple[int, int]:
        """The physical address and the bytes of an exclusive."""
        base = word >> 5 & 31
        virtual = self.guest.register("sp" if base == 31 else f"x{base}")
        return self.guest.physical(virtual), (1 << (word >> 30)) << (word >> 21 & 1)

    def _emulated(self) -> bool:
        """Whether the guest is behind a load-exclusive that its host has carried out: the host does
        the store too.
        """
        return self.guest.plan.id in self.guest.recorder.exclusive

    def _exclusive(self, word: int, pc: int) -> None:
        """ldxr, stxr and their pairs, where Unicorn cannot be left to do them."""
        guest = self.guest
        at, size = self._marks(word)
        if is_load(word):
            self._load(word, at, size, pc)
        elif self._emulated() and emulation.store_exclusive(
            guest.recorder, bus_of(guest, guest.monitors)
        ):
            guest.recorder.exclusive.discard(guest.plan.id)
            guest.monitor.clear()
        else:
            self._store(word, at, size, pc)

    def _load(self, word: int, at: int, size: int, pc: int) -> None:
        guest, found = self.guest, decode(word)
        if guest.memory.at(at) is None and found is not None:
            guest.faulted(uc_const.UC_MEM_READ_UNMAPPED, at, size, 0, pc)
            return
        guest.single()
        guest.monitor.load(at, size, pc)

    def _store(self, word: int, at: int, size: int, pc: int) -> None:
        guest = self.guest
        done, doubt = guest.monitor.fate(at, size, pc)
        if doubt is not None:
            raise Unpredicted(
                f"whether the store-exclusive at {pc:#x} is done depends on the CPU or the host: "
                f"{doubt}"
            )
        if done and guest.memory.readonly(at):
            guest.faulted(uc_const.UC_MEM_WRITE_PROT, at, size, 0, pc)
            return
        if done:
            guest.monitor.clear()
            guest.single()
            return
        guest.monitor.failed(at)
        guest.put(word >> 16 & 31, 1)
        guest.jump(pc + 4)


def is_load(word: int) -> bool:
    """Whether an exclusive is a load."""
    return bool(word >> 22 & 1)


def uses_simd(word: int) -> bool:
    """Whether CPACR_EL1 may trap a word: SIMD and floating point, loads and stores of such
    registers, fpcr and fpsr.
    """
    if word & 0xFFC00000 == 0xD5000000:
        return system.HELD.get(word >> 5 & 0xFFFF) in ("fpcr", "fpsr") and bool(word & 1 << 20)
    return word >> 25 & 7 in (6, 7)
