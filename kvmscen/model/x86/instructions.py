"""x86: the instructions in front of which the guest stops, and what is done there instead of
leaving them to Unicorn.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from unicorn import x86_const as const

from kvmscen.model.building import Blocked, Unpredicted
from kvmscen.model.x86.emulator import parse
from kvmscen.model.x86.exchange import exchanges, loses
from kvmscen.model.x86.flags import READERS, UNDEFINED, Flags
from kvmscen.model.x86.known import lacking, named, wrong
from kvmscen.model.x86.mnemonics import (
    DEBUG,
    FAR,
    FLUSHES,
    MSRS,
    POPS,
    PORTS,
    REFUSED,
    SCANS,
    SEGMENT_LOADS,
    SHOW_FLAGS,
    SSE_COMPUTES,
    TABLES,
    WITHOUT_FLAGS,
    needs_alignment,
)
from kvmscen.model.x86.nans import ARITHMETIC, two_nans
from kvmscen.model.x86.ports import ports
from kvmscen.model.x86.processor import AC, CR8_MOST, EFER, SEGMENTS, Processor

# MSRs that hold what the guest put there, and that KVM starts at 0; those of addresses fault on
# Intel's CPUs where one is not canonical.
ADDRESSES = frozenset((0xC0000082, 0xC0000083, 0xC0000100, 0xC0000101, 0xC0000102))
KNOWN_MSRS = ADDRESSES | {EFER, 0xC0000081, 0xC0000084}
# sysenter's: whether they keep 64 bits differs.
SHORT_MSRS = frozenset((0x174, 0x175, 0x176))
_EFER_FREE = 1 << 0 | 1 << 11  # SCE, NXE
TF = 1 << 8


class Instructions:
    """The instructions of one guest before which Unicorn must stop, since KVM differs there."""

    def __init__(self, guest: Processor, flags: Flags) -> None:
        self.guest = guest
        self.flags = flags
        self._computed = dict.fromkeys(SHOW_FLAGS, False)
        self.lacked: dict[int, str] = {}  # at CPL 0, what PVM's emulator lacks

    def within(self, address: int, code: bytes) -> Iterable[int]:
        """The addresses of a block, about to run for the first time, in front of which the guest
        must stop.
        """
        end = address
        for at, size, mnemonic, operands in self.guest.disassemble(code, address):
            offset, end = at - address, at + size
            name = named(mnemonic, operands)
            self.flags.unsure |= name in UNDEFINED
            self._computed["stmxcsr"] |= name in ARITHMETIC or (
                "xmm" in operands and name.startswith(SSE_COMPUTES)
            )
            if name[0] == "f" and name not in WITHOUT_FLAGS:
                self._computed.update(dict.fromkeys(("fnstsw", "fnstenv", "fnsave"), True))
            raw = code[offset : offset + size]
            if not self.guest.cpl and lacking(parse(raw, self.guest.bits), raw, self.guest.bits):
                self.lacked.setdefault(at, f"{mnemonic} {operands}".strip())
            if self._stops(name, operands, raw):
                yield at
        if end < address + len(code) and not self.guest.decode(end)[0]:
            yield end  # Capstone knows no instruction there

    def _stops(self, name: str, operands: str, raw: bytes) -> bool:
        if (
            name in PORTS
            or name in MSRS
            or name in REFUSED
            or name in READERS
            or name in FLUSHES
            or name in POPS
        ):
            return True
        if (
            name in FAR
            or name in SEGMENT_LOADS
            or name in TABLES
            or name == "lgdt"
            or raw == b"\xeb\xfe"
        ):
            return True
        insn = parse(raw, self.guest.bits)
        if insn.map == 0 or wrong(insn, raw, self.guest.bits) is not None:
            return True
        if name in SCANS or (name == "push" and operands in SEGMENTS):
            return True
        if name in SHOW_FLAGS or name in ARITHMETIC or needs_alignment(name, operands):
            return True
        if exchanges(insn, self.guest.bits):
            return True
        moves = operands[:2] in ("cr", "dr") and operands[2:3].isdigit()
        moves = (
            moves
            or operands.partition(",")[0] in SEGMENTS
            or operands.rpartition(" ")[2] in SEGMENTS
            or operands.endswith((" cr2", " cr8", *DEBUG))
        )
        return moves and name in ("mov", "pop")

    def harmless(self, address: int) -> bool:
        """Whether the instruction asks for no more than its operands can tell, and they do."""
        guest = self.guest
        size, name, operands = guest.decode(address)
        if name in SCANS:
            return self._source(address, operands) != 0
        if (name == "push" and operands in SEGMENTS) or (
            name == "mov" and operands.rpartition(" ")[2] in SEGMENTS
        ):
            return not guest.own_gdt or operands.rpartition(" ")[2] in ("cs", "ss")
        needs = needs_alignment(name, operands)
        raw = guest.raw(address)[:size]
        insn = parse(raw, guest.bits)
        exchange = exchanges(insn, guest.bits)
        if not needs and name not in ARITHMETIC and not exchange:
            return False
        if wrong(insn, raw, guest.bits) is not None:
            return False
        if exchange and loses(guest, insn):
            return False
        at = guest.operand(address)
        if needs and (at is None or at & 15):
            return False
        # Where it aborts, Unicorn loses the flags that its hook has made.
        if at is not None and guest.memory.at(at) is None:
            return False
        return name not in ARITHMETIC or not two_nans(
            name, operands, guest.read, partial(self._operand, at)
        )

    def _source(self, address: int, operands: str) -> int | None:
        """The second operand of bsf or bsr; None where it lies outside the slots."""
        guest = self.guest
        second = operands.partition(", ")[2]
        at = guest.operand(address)
        if at is None:
            return guest.read((second,))[second]
        sizes = {"word": 2, "dword": 4, "qword": 8}
        held = guest.memory.read(at, sizes.get(second.partition(" ")[0], 8))
        return None if held is None else int.from_bytes(held, "little")

    def _operand(self, at: int | None, size: int) -> int:
        """What lies in memory there."""
        return int.from_bytes(
            (self.guest.memory.read(at, size) if at is not None else None) or b"", "little"
        )

    def carry_out(self, address: int) -> bool:
        """Carry out an instruction that Unicorn must not; False: Unicorn may execute it."""
        guest = self.guest
        size, name, operands = guest.decode(address)
        raw = guest.raw(address)
        if not size and raw:
            guest.nameless(address)
            return True
        if not self._stops(name, operands, raw[:size]):
            return False
        if name == "jmp":
            raise Blocked
        if name in PORTS:
            if guest.cpl:
                self._give_up(
                    name,
                    operands,
                    "what ports user mode may use is in a TSS, which the model does not know",
                )
            ports(guest, self.flags, parse(raw, guest.bits), size)
        elif name in MSRS:
            self._msr(name)
        elif name == "mov" and ("cr2" in operands or "cr8" in operands):
            self._control(operands, size)
        elif (insn := parse(raw, guest.bits)).map == 0:
            self._give_up(
                name, operands, "without CR4.OSXSAVE it is undefined, and PVM's emulator lacks it"
            )
        elif (why := wrong(insn, raw[:size], guest.bits)) is not None and not guest.outside(
            address
        ):
            self._give_up(name, operands, why)
        elif name in READERS:
            self.flags.looked_at()
            guest.step()
        else:
            self._step(address, name, operands)
        return True

    def _step(self, address: int, name: str, operands: str) -> None:  # noqa: C901 one branch a kind of instruction
        guest = self.guest
        if exchanges(parse(guest.raw(address), guest.bits), guest.bits):
            guest.step()
        elif name in ARITHMETIC or needs_alignment(name, operands):
            at = guest.operand(address)
            if at is not None and at & 15 and needs_alignment(name, operands):
                guest.interrupted(13)
                return
            if name in ARITHMETIC and two_nans(
                name, operands, guest.read, partial(self._operand, at)
            ):
                self._give_up(
                    name, operands, "of two NaNs Unicorn takes another than processors do"
                )
            guest.step()
        elif name in SCANS:
            if not self._source(address, operands):
                self._give_up(name, operands, "of 0 it leaves its destination undefined")
            guest.step()
        elif name == "push" or (name == "mov" and operands.rpartition(" ")[2] in SEGMENTS):
            if not self.harmless(address):
                self._give_up(
                    name,
                    operands,
                    "what a selector is that nobody has loaded differs between PVM and SVM",
                )
            guest.step()
        elif name in SHOW_FLAGS and self._computed[name]:
            self._give_up(
                name, operands, "Unicorn does not keep the flags of what was computed before"
            )
        elif (
            name in SHOW_FLAGS
            or wrong(parse(raw := guest.raw(address), guest.bits), raw, guest.bits) is not None
        ):
            guest.step()
        elif name in FLUSHES and guest.outside(address):
            self._give_up(name, operands, "it lies outside the slots")
        elif name in FLUSHES or name in POPS or (name in TABLES and not guest.cpl):
            guest.step()
            self._popped(name)
        elif name in FAR or name in SEGMENT_LOADS or name in ("mov", "pop", "lgdt"):
            self._segments(name, operands)
        else:
            self._give_up(name, operands)

    def _popped(self, name: str) -> None:
        """Give up where the flags that were loaded are of single steps, or of checks that Unicorn
        lacks.
        """
        flags = self.guest.read_whole("rflags")
        if flags & TF or (flags & AC and self.guest.cpl):
            what = "TF" if flags & TF else "AC in user mode"
            raise Unpredicted(f"the guest sets {what}, by {name} in front of {self.guest.pc():#x}")

    def _segments(self, name: str, operands: str) -> None:
        """What loads a segment register, by the engine's own GDT, and stays in its code segment."""
        guest = self.guest
        if name in ("mov", "pop") and operands.partition(",")[0] not in SEGMENTS:
            self._give_up(name, operands)
        if guest.mode == "real":
            guest.step()
            return
        if guest.own_gdt or name == "lgdt":
            self._give_up(name, operands, "the model follows segments by the engine's own GDT only")
        before = {segment: guest.read_whole(f"{segment}.selector") for segment in SEGMENTS}
        guest.step()
        after = {segment: guest.read_whole(f"{segment}.selector") for segment in SEGMENTS}
        if (
            after["cs"] != before["cs"]
            or after["ss"] & 3
            or (guest.mode == "protected" and 0 in after.values())
        ):
            raise Unpredicted(
                f"the guest goes to another code segment, or to one that is none, by {name} near "
                f"{guest.pc():#x}"
            )
        self._popped(name)
        guest.reloaded |= {
            segment for segment in SEGMENTS if name in FAR or after[segment] != before[segment]
        }

    def _msr(self, name: str) -> None:
        guest = self.guest
        number = guest.read_whole("rcx") & 0xFFFFFFFF
        high, low = (guest.read_whole(half) & 0xFFFFFFFF for half in ("rdx", "rax"))
        value = high << 32 | low
        if number not in KNOWN_MSRS | SHORT_MSRS:
            self._give_up(name, f"of {number:#x}")
        if name == "wrmsr":
            if number in ADDRESSES and value + (1 << 47) & (1 << 64) - 1 >= 1 << 48:
                self._give_up(
                    name,
                    f"of {number:#x}",
                    "an address that is not canonical faults on Intel's CPUs only",
                )
            if number in SHORT_MSRS and high:
                self._give_up(name, f"of {number:#x}", "whether it keeps 64 bits differs")
            if (
                number == EFER
                and (value ^ int(guest.engine.reg_read(const.UC_X86_REG_MSR, EFER))) & ~_EFER_FREE
            ):
                self._give_up(name, f"of {number:#x}", "the guest changes its mode")
        guest.step()

    def _control(self, operands: str, size: int) -> None:
        """cr2 and cr8. Without an irqchip KVM holds CR8 itself (kvm_set_cr8)."""
        guest = self.guest
        first, second = operands.replace(" ", "").split(",")
        if guest.cpl:
            guest.interrupted(13)
            return
        if second in ("cr2", "cr8"):
            guest.write({first: guest.read_whole(second)})
        elif first == "cr2":
            guest.held["cr2"] = guest.read((second,))[second]
        else:
            value = guest.read((second,))[second]
            if value > CR8_MOST:
                guest.interrupted(13)
                return
            if value < guest.cr8:
                self._give_up(
                    "mov",
                    operands,
                    "lowering cr8 is a set_tpr exit of VMX and SVM, and none of PVM",
                )
            guest.cr8 = value
        guest.jump(guest.pc() + size)

    def _give_up(
        self, name: str, operands: str, why: str = "what it does depends on the host or its mode"
    ) -> None:
        raise Unpredicted(f"{name} {operands}".strip() + f" at {self.guest.pc():#x}: {why}")
