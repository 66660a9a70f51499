"""An x86 instruction that touches memory outside the slots, carried out over shadow pages, one exit
for each fragment.

KVM's emulator reads first, with the registers still as they were; at a write the instruction is
over but for the store, and pc stands behind it. A fragment ends at a page's end and holds at most 8
bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unicorn import unicorn_const as uc_const

from kvmscen.model import hooks
from kvmscen.model.building import Blocked, Unpredicted
from kvmscen.model.x86 import exchange
from kvmscen.model.x86.emulator import Instruction, emulated, parse, reads_flags, system, uncertain
from kvmscen.model.x86.flags import Flags
from kvmscen.model.x86.known import stays
from kvmscen.model.x86.processor import Processor

PAGE = 0x1000
ZF = 1 << 6


class _Cut(Exception):
    """The limit of exits is reached in the middle of an instruction."""


class Mmio:
    """The shadow pages and pending writes of one instruction."""

    def __init__(self, guest: Processor, flags: Flags) -> None:
        self.guest = guest
        self.flags = flags
        self.shadows: set[int] = set()
        self.opened: dict[int, bytes] = {}  # pages of read-only slots, with what they hold
        self.writes: list[tuple[int, int, int]] = []
        self.pc = 0
        self.wide = False
        self.done = False
        self.first: tuple[int, int] | None = (
            None  # the operand that KVM reads before the one that Unicorn reads first
        )
        self.ready: dict[int, int] = {}

    def carry_out(self, address: int, size: int) -> None:
        """Execute the instruction at pc, whose first access outside the slots is known, and record
        its exits.
        """
        guest = self.guest
        self.pc = guest.pc()
        raw = guest.raw(guest.start())
        insn = parse(raw, guest.bits)
        known = system(insn)
        if known == "spins":
            raise Blocked
        if known is not None:
            raise Unpredicted(f"{known}, at {self.pc:#x}")
        if insn.map == 2 and insn.opcode == 0xC7 and insn.modrm >> 3 & 7 == 1 and insn.rex & 8:
            self._exchange_16(address)
            return
        if not emulated(insn):
            guest.unemulated(self.pc)
            return
        if insn.aligned and address & 15:
            guest.interrupted(13)
            return
        self._refuse(insn, address, size)
        self.writes, self.wide, self.done = [], insn.wide_move, False
        self.ready.clear()
        self.first = None
        if insn.map == 1 and insn.opcode in (0xA6, 0xA7):
            self.first = self._compared(insn)
        if insn.map == 1 and insn.opcode in (0xA6, 0xA7, 0xAE, 0xAF) and insn.rep:
            self.flags.compares(self.pc)
        try:
            self._step(address, insn)
        finally:
            self._tidy()
        if self.done or guest.cut:
            return
        if insn.string:
            self._string(insn)
            if insn.rep and guest.pc() == self.pc:
                self.flags.written(self.pc)
        self._write_out()

    def _refuse(self, insn: Instruction, address: int, size: int) -> None:
        """Raise Unpredicted for an access that depends on the CPU, or that Unicorn gets wrong."""
        guest = self.guest
        if insn.map == 3:
            raise Unpredicted("movbe is there or not by the host's CPU")
        if reads_flags(insn):
            raise Unpredicted(
                f"setcc, rcl or rcr outside the slots, at {self.pc:#x}: Unicorn loses the flags "
                f"that it reads"
            )
        if uncertain(insn):
            raise Unpredicted(
                f"a segment load, far transfer or multiple push at {self.pc:#x} that reaches "
                f"outside the slots"
            )
        if guest.bits < 64 and not guest.in_limit(address, size):
            raise Unpredicted(
                f"an access of {size} bytes at {address:#x}, beyond the end of its segment"
            )

    def _exchange_16(self, address: int) -> None:
        """cmpxchg16b: KVM's emulator reads its operand before it finds that it lacks the
        instruction.
        """
        if address & 15:
            raise Unpredicted(
                f"cmpxchg16b that is not aligned, or partly in a slot, at {self.pc:#x}"
            )
        try:
            for at in (address, address + 8):
                self._ask(at, 8)
        except _Cut:
            return
        self.guest.unemulated(self.pc)

    def _compared(self, insn: Instruction) -> tuple[int, int]:
        """The first operand of cmps: [rsi], and its size."""
        bits = {64: (64, 32), 32: (32, 16), 16: (16, 32)}[self.guest.bits][insn.sizes >> 1]
        index = {64: "rsi", 32: "esi", 16: "si"}[bits]
        wide = insn.rex & 8 and 8
        size = (
            1
            if insn.opcode == 0xA6
            else wide or (2 if bool(insn.sizes & 1) != (self.guest.bits == 16) else 4)
        )
        if insn.segment:
            raise Unpredicted("cmps with a segment override")
        return self.guest.read((index,))[index] + self.guest.base("ds"), size

    def _step(self, address: int, insn: Instruction) -> None:
        guest = self.guest
        engine = guest.engine
        sp = guest.read_whole("rsp")
        rax = exchange.kept(guest, insn)
        guest.context = engine.context_save()
        guest.accessing = guest.passing = True
        hook = engine.hook_add(
            uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE, self._on_access
        )
        try:
            self._open(address)
            guest.memory.forget_code()
            failed = guest.emulate(guest.start(), 1)
            if guest.cut:
                engine.context_restore(guest.context)
                return
            if guest.interrupt is not None:
                guest.context = None
                guest.interrupted(guest.interrupt)
                self.done = True
            elif failed is not None:
                raise Unpredicted(
                    f"an instruction at {self.pc:#x} that the model cannot carry out: {failed}"
                )
            elif not insn.string and self._stayed(insn, sp):
                # A division that failed after its read: the exception is lost where only one
                # instruction runs.
                guest.interrupted(0)
                self.done = True
            else:
                guest.context = None
                exchange.mend(guest, rax)
        finally:
            hooks.remove(engine, hook)
            guest.context = None
            guest.accessing = guest.passing = False

    def _stayed(self, insn: Instruction, sp: int) -> bool:
        """Whether the instruction was not carried out. Until here others see the registers from
        before it.
        """
        self.guest.context = None
        jump = insn.opcode == 0xFF and insn.modrm >> 3 & 7 == 4
        if stays(insn) and (jump or self.guest.read_whole("rsp") != sp):
            return False
        return self.guest.pc() == self.pc

    def _tidy(self) -> None:
        guest = self.guest
        for page in self.shadows:
            guest.engine.mem_unmap(page, PAGE)
        for page, held in self.opened.items():
            guest.memory.write(page, held)
            guest.engine.mem_protect(page, PAGE, uc_const.UC_PROT_READ | uc_const.UC_PROT_EXEC)
        self.shadows.clear()
        self.opened.clear()
        guest.memory.forget_code()

    def _open(self, address: int) -> None:
        """Make the page of an address one that the instruction can read and write."""
        page = address & ~(PAGE - 1)
        if page in self.shadows or page in self.opened:
            return
        slot = self.guest.memory.at(page)
        if slot is None:
            self.guest.engine.mem_map(page, PAGE)
            self.shadows.add(page)
        elif slot.readonly:
            self.opened[page] = self.guest.memory.read(page, PAGE) or b""
            self.guest.engine.mem_protect(page, PAGE, uc_const.UC_PROT_ALL)

    def fault(self, access: int, address: int) -> bool:
        """A further access outside the slots while the instruction is under way."""
        if access not in (
            uc_const.UC_MEM_READ_UNMAPPED,
            uc_const.UC_MEM_WRITE_UNMAPPED,
            uc_const.UC_MEM_WRITE_PROT,
        ):
            return False
        self._open(address)
        return True

    # --- accesses ---------------------------------------------------------------------------------

    def _fragments(self, address: int, size: int, write: bool) -> Iterator[tuple[int, int]]:
        end = address + size
        while address < end:
            stop = min(end, (address | (PAGE - 1)) + 1, address + 8)
            slot = self.guest.memory.at(address)
            if slot is None or (write and slot.readonly):
                yield address, stop - address
            address = stop

    def _on_access(
        self, engine: Any, access: int, address: int, size: int, value: int, data: Any
    ) -> None:
        guest = self.guest
        address &= (1 << 64) - 1
        write = access == uc_const.UC_MEM_WRITE
        fragments = list(self._fragments(address, size, write))
        if not fragments or guest.error is not None or guest.cut:
            return
        try:
            if self.wide and address % PAGE > PAGE - 16 and address % 8:
                raise Unpredicted(f"a 16-byte access over the end of a page at {address:#x}")
            if write:
                if self.writes and not self.wide:
                    raise Unpredicted(
                        f"an instruction at {self.pc:#x} that writes outside the slots twice"
                    )
                self.writes += [
                    (at, n, value >> 8 * (at - address) & (1 << 8 * n) - 1) for at, n in fragments
                ]
                return
            early, self.first = self.first, None
            if early is not None and early[0] != address:
                for at, length in self._fragments(*early, False):
                    self.ready[at] = self._ask(at, length)
            for at, length in fragments:
                value = self.ready.pop(at) if at in self.ready else self._ask(at, length)
                self._open(at)
                engine.mem_write(at, value.to_bytes(length, "little"))
        except _Cut:
            engine.emu_stop()
        except Exception as error:  # noqa: BLE001 an exception cannot pass through Unicorn
            guest.error = error
            engine.emu_stop()

    def _ask(self, at: int, length: int) -> int:
        reply = self.guest.exit(
            "mmio", {"phys_addr": at, "is_write": False, "len": length}, self.pc
        )
        if self.guest.cut:
            raise _Cut
        return int(reply["data"]) & (1 << 8 * length) - 1

    def _write_out(self) -> None:
        guest = self.guest
        pc = guest.pc()
        for at, length, value in self.writes:
            guest.exit(
                "mmio", {"phys_addr": at, "is_write": True, "len": length, "data": value}, pc
            )
            if guest.cut:
                return

    def _string(self, insn: Instruction) -> None:
        """With a rep prefix, pc moves on only when the instruction is begun with a count of 0, or
        ended by a comparison.
        """
        guest = self.guest
        if not insn.rep or guest.pc() == self.pc:
            return
        if insn.opcode in (0xA6, 0xA7, 0xAE, 0xAF) and bool(guest.read_whole("rflags") & ZF) != (
            insn.rep == 0xF3
        ):
            return
        guest.jump(self.pc)
