"""x86: Unicorn with the engine's real page tables; port I/O, MMIO and the triple fault as KVM shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import capstone
from unicorn import unicorn_const as uc_const
from unicorn import x86_const as const

from kvmscen.arch import x86_64
from kvmscen.arch.registers import base
from kvmscen.machine import Machine, Vcpu
from kvmscen.model.capabilities import X86_64
from kvmscen.model.guest import FETCHES, NOWHERE, Blocked, Guest, Unpredicted
from kvmscen.model.x86.emulator import parse
from kvmscen.model.x86.flags import READERS, UNDEFINED, Flags
from kvmscen.model.x86.mmio import Mmio
from kvmscen.model.x86.ports import ports

ENGINES = {"long": uc_const.UC_MODE_64, "protected": uc_const.UC_MODE_32, "real": uc_const.UC_MODE_16}
EFER = 0xC0000080
# MSRs that hold what the guest put there, and that KVM starts at 0.
KNOWN_MSRS = frozenset(
    (EFER, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102, 0x174, 0x175, 0x176)
)
PORTS = frozenset(("in", "out", "insb", "insw", "insd", "outsb", "outsw", "outsd"))
HOST = frozenset(("cpuid", "rdtsc", "rdtscp", "rdpmc", "rdrand", "rdseed", "xgetbv", "rdpid"))
FLUSHES = frozenset(("clflush", "clflushopt", "clwb"))
OTHER = frozenset(
    ("xsetbv", "syscall", "sysret", "sysenter", "sysexit", "vmcall", "vmmcall", "vmrun", "vmload", "vmsave", "mwait", "monitor")
)
SPECIAL = PORTS | HOST | OTHER | FLUSHES | READERS | {"rdmsr", "wrmsr"}
SELECTORS = {f"{name}.selector": getattr(const, f"UC_X86_REG_{name.upper()}") for name in ("cs", "ds", "es", "fs", "gs", "ss")}
_LONG = {name: getattr(const, f"UC_X86_REG_{name.upper()}") for name in x86_64.KVM_REGS}
_SHORT = {
    name: getattr(const, "UC_X86_REG_E" + name.upper()[1:])
    for name in x86_64.KVM_REGS
    if not name[1].isdigit() and name != "rflags"
} | {"rflags": const.UC_X86_REG_EFLAGS}
_CONTROL = {name: getattr(const, f"UC_X86_REG_{name.upper()}") for name in ("cr0", "cr2", "cr3", "cr4", "cr8")}
_XMM = {f"xmm{n}": getattr(const, f"UC_X86_REG_XMM{n}") for n in range(16)}
_CAPSTONE = {"long": capstone.CS_MODE_64, "protected": capstone.CS_MODE_32, "real": capstone.CS_MODE_16}
_disassemblers: dict[str, Any] = {}


class X86(Guest):
    """One vCPU in long, protected or real mode, with the engine's tables."""

    NAME = x86_64.NAME
    REGISTERS = x86_64.REGISTERS
    GENERAL = x86_64.GENERAL
    CAPABILITIES = X86_64

    def __init__(self, machine: Machine) -> None:
        mode = machine.vcpus[0].mode
        self.mode = mode
        self.ENGINE = (uc_const.UC_ARCH_X86, ENGINES[mode])
        super().__init__(machine)
        self.bits = x86_64.BITS[mode]
        self._ids = _LONG if mode == "long" else _SHORT
        self._held: dict[str, int] = {}  # what Unicorn does not hold
        self.context: Any = None  # registers as they were before the instruction that is under way
        self.mmio = Mmio(self)
        self.flags = Flags(self)
        self._edge = 0  # the instruction that cannot be fetched, when it lies ahead
        if mode not in _disassemblers:
            _disassemblers[mode] = capstone.Cs(capstone.CS_ARCH_X86, _CAPSTONE[mode])
        self._disassembler = _disassemblers[mode]

    # --- registers --------------------------------------------------------------------------------------------------

    def make_tables(self) -> None:
        tables = self.machine.tables
        if tables is not None:
            self.memory.set(tables.slot, tables.at, tables.size, 0)
            self.memory.write(tables.at, x86_64.tables(tables.at, tables.spans))

    def boot(self, plan: Vcpu) -> None:
        tables = self.machine.tables
        regs = x86_64.boot(plan.mode, None if tables is None else tables.at)
        wanted = dict(regs)
        for name, value in plan.regs.items():
            x86_64_put(wanted, name, value)
        for name, value in wanted.items():
            changed = value != regs.get(name, 0)
            if changed and name not in self._ids and name not in _XMM and not self._settable(name):
                raise Unpredicted(f"the model does not start a vCPU with another {name}")
        if plan.mode == "real":
            wanted.setdefault("idt.base", 0)
            wanted.setdefault("idt.limit", 0xFFFF)
        elif tables is None:
            raise Unpredicted("the guest brings its own tables")
        else:
            self.engine.reg_write(const.UC_X86_REG_GDTR, (0, wanted["gdt.base"], wanted["gdt.limit"], 0))
            self.engine.reg_write(const.UC_X86_REG_CR4, wanted["cr4"])
            if plan.mode == "long":
                self.engine.reg_write(const.UC_X86_REG_MSR, (EFER, wanted["efer"]))
                self.engine.reg_write(const.UC_X86_REG_CR3, wanted["cr3"])
            self.engine.reg_write(const.UC_X86_REG_CR0, wanted["cr0"])
        self.engine.reg_write(const.UC_X86_REG_IDTR, (0, wanted["idt.base"], wanted["idt.limit"], 0))
        self._held.update(wanted)
        self.engine.reg_write(const.UC_X86_REG_FPCW, 0x37F)
        rest = {n: v for n, v in wanted.items() if n in SELECTORS or n in self._ids or n in _XMM or n in ("cr2", "cr8")}
        self.write_wholes(rest)

    def _settable(self, name: str) -> bool:
        return name in ("idt.base", "idt.limit", "cr2", "cr8") or (self.mode == "real" and name in SELECTORS)

    def read_whole(self, name: str) -> int:
        source = self.engine if self.context is None else self.context
        found = self._ids.get(name) or SELECTORS.get(name) or _CONTROL.get(name) or _XMM.get(name)
        if found is not None:
            value = int(source.reg_read(found))
            return self.flags.seen(value) if name == "rflags" else value
        if name in x86_64.KVM_REGS:
            return self._held.get(name, 0)  # r8 to r15 outside long mode
        if name == "efer":
            return int(self.engine.reg_read(const.UC_X86_REG_MSR, EFER))
        if name in ("gdt.base", "gdt.limit", "idt.base", "idt.limit"):
            table = self.engine.reg_read(const.UC_X86_REG_GDTR if name[0] == "g" else const.UC_X86_REG_IDTR)
            return int(table[1] if name.endswith("base") else table[2])
        if self.mode == "real" and name.endswith(".base") and name[:2] + ".selector" in SELECTORS:
            return self.read_whole(name[:2] + ".selector") << 4
        if name in self._held:
            return self._held[name]
        raise Unpredicted(f"the model does not know the register {name}")

    def write_wholes(self, values: Mapping[str, int]) -> None:
        for name, value in values.items():
            found = self._ids.get(name) or _XMM.get(name)
            if found is None and (name in ("cr2", "cr8") or (name in SELECTORS and (self.mode == "real" or not self.booted))):
                found = _CONTROL.get(name) or SELECTORS[name]
            if found is not None:
                self.engine.reg_write(found, value)
            elif name in x86_64.KVM_REGS:
                self._held[name] = value
            else:
                raise Unpredicted(f"the model does not set {name}")

    def read(self, names: Iterable[str]) -> dict[str, int]:
        wanted = tuple(names)
        # All general registers are read at the end, whether or not somebody looks at them.
        looked_at = wanted[len(self.GENERAL) :] if wanted[: len(self.GENERAL)] == self.GENERAL else wanted
        if any(base(self.REGISTERS, name) == "rflags" for name in looked_at):
            self.flags.looked_at()
        return super().read(wanted)

    def go(self) -> None:
        self.flags.entered()
        super().go()

    def pc(self) -> int:
        return self.read_whole("rip")

    def jump(self, pc: int) -> None:
        """Go on elsewhere."""
        self.engine.reg_write(self._ids["rip"], pc & (1 << self.bits) - 1)

    def base(self, segment: str) -> int:
        """The base of a segment register: 0 but in real mode."""
        return self.read_whole(f"{segment}.selector") << 4 if self.mode == "real" else 0

    def start(self) -> int:
        return self.pc() + self.base("cs")

    # --- instructions -----------------------------------------------------------------------------------------------

    def raw(self, address: int) -> bytes:
        """Up to 15 bytes of code."""
        slot = self.memory.at(address)
        if slot is None:
            return b""
        return self.memory.read(address, min(15, slot.gpa + slot.size - address)) or b""

    def decode(self, address: int) -> tuple[int, str, str]:
        """Length, mnemonic and operands of the instruction at an address; length 0 if there is none."""
        for _, size, mnemonic, operands in self._disassembler.disasm_lite(self.raw(address), address, 1):
            return size, mnemonic.split()[-1], operands
        return 0, "", ""

    def specials(self, address: int, code: bytes) -> Iterable[int]:
        for at, size, mnemonic, operands in self._disassembler.disasm_lite(code, address):
            offset = at - address
            name = mnemonic.split()[-1]
            self.flags.unsure |= name in UNDEFINED
            if self._is_special(name, operands, code[offset : offset + size]):
                yield at

    @staticmethod
    def _is_special(name: str, operands: str, raw: bytes) -> bool:
        if name in ("outsd", "insd"):
            return True
        return name in SPECIAL or raw == b"\xeb\xfe" or (name == "mov" and operands[:2] in ("cr", "dr"))

    def special(self, address: int) -> bool:
        size, name, operands = self.decode(address)
        if not self._is_special(name, operands, self.raw(address)[:size]):
            return False
        if name == "jmp":
            raise Blocked
        if name in READERS:
            self.flags.looked_at()
            self.step()
            return True
        if name in PORTS:
            ports(self, parse(self.raw(address), self.bits), size)
            return True
        known = (
            (name in ("rdmsr", "wrmsr") and self.read_whole("rcx") & 0xFFFFFFFF in KNOWN_MSRS)
            or (name in FLUSHES and not self._outside(address))
            or (name == "mov" and operands[:3] in ("cr2", "cr8"))
        )
        if known:
            self.single()
        else:
            raise Unpredicted(f"{name} {operands}".strip() + f" at {self.pc():#x}: what it does depends on the host or its mode")
        return True

    def step(self) -> None:
        """Let Unicorn execute one instruction that may access what lies outside the slots."""
        self.passing = True
        try:
            failed = self.emulate(self.start(), 1)
        finally:
            self.passing = False
        if self.fault is not None:
            self.faulted(*self.fault)
        elif self.interrupt is not None:
            self.interrupted(self.interrupt)
        elif failed is not None:
            self.refused(failed)

    def single(self) -> None:
        """Let Unicorn execute one instruction, special or not."""
        self.passing = True
        try:
            failed = self.emulate(self.start(), 1)
        finally:
            self.passing = False
        if self.fault is not None or failed is not None:
            raise Unpredicted(f"an instruction at {self.pc():#x} that the model cannot step over")
        if self.interrupt is not None:
            self.interrupted(self.interrupt)

    def stepping(self, access: int, address: int) -> bool:
        return self.mmio.active and self.mmio.fault(access, address & (1 << 64) - 1)

    def run_from(self, pc: int) -> Any:
        return self.emulate(pc, until=self._edge or NOWHERE)

    # --- stops ------------------------------------------------------------------------------------------------------

    def halted(self) -> None:
        if self.start() == self._edge:
            self._edge = 0
            self.exit("internal_error", {"suberror": 1}, self.pc())
            return
        if self._halting():
            self.exit("hlt", {}, self.pc())
        else:
            self._lost()

    def _halting(self) -> bool:
        """Whether the last instruction of the block that ran last is the hlt in front of pc."""
        at, end, name = self.block, self.start(), ""
        while at < end:
            size, name, _ = self.decode(at)
            if not size:
                return False
            at += size
        return at == end and name == "hlt"

    def _lost(self) -> None:
        """An exception that Unicorn takes for a triple fault: after an unmapped access it counts wrongly."""
        pc = self.start()
        if parse(self.raw(pc), self.bits).map == 0 and self.decode(pc)[0]:
            self._unknown(pc)
        elif self.mode == "real":
            raise Unpredicted(f"the guest takes an exception of its own near {self.pc():#x}")
        else:
            self.interrupted(0)

    def interrupted(self, number: int) -> None:
        if self.read_whole("idt.limit") < (number + 1) * {"long": 16, "protected": 8, "real": 4}[self.mode] - 1:
            self.exit("shutdown", {}, self.pc())
            return
        raise Unpredicted(f"the guest takes an exception of its own (vector {number} near {self.pc():#x})")

    def refused(self, error: Any) -> None:
        pc = self.start()
        size, name, _ = self.decode(pc)
        if error.errno == uc_const.UC_ERR_INSN_INVALID and (size == 0 or name.startswith("ud")):
            self.interrupted(6)
            return
        self._unknown(pc)

    def _unknown(self, pc: int) -> None:
        """An instruction that Unicorn lacks: KVM's emulator lacks those with a VEX prefix too."""
        if parse(self.raw(pc), self.bits).map == 0 and self._outside(pc):
            self.exit("internal_error", {"suberror": 1}, self.pc())
            return
        _, name, operands = self.decode(pc)
        raise Unpredicted(f"Unicorn does not know {name} {operands} at {self.pc():#x}")

    def _outside(self, pc: int) -> bool:
        """Whether the memory operand of an instruction lies outside the slots."""
        self._disassembler.detail = True
        try:
            found = next(iter(self._disassembler.disasm(self.raw(pc), pc, 1)))
            for operand in found.operands:
                if operand.type == capstone.x86.X86_OP_MEM:
                    at = operand.mem.disp + (pc + found.size if found.reg_name(operand.mem.base) == "rip" else 0)
                    for reg, scale in ((operand.mem.base, 1), (operand.mem.index, operand.mem.scale)):
                        name = found.reg_name(reg) if reg else ""
                        at += self.read((name,))[name] * scale if name in self.REGISTERS and name != "rip" else 0
                    return self.memory.at(at & (1 << 64) - 1) is None
        finally:
            self._disassembler.detail = False
        return False

    def faulted(self, access: int, address: int, size: int, value: int, pc: int) -> None:
        self.jump(pc)
        if access in FETCHES:
            # Unicorn translates a block over the end of a page before it executes any of it.
            edge = self._unfetched(address)
            if edge != self.start():
                self._edge = edge
                return
            self._edge = 0
            self.exit("internal_error", {"suberror": 1}, self.pc())
            return
        if self.mode == "long" and self.machine.tables is not None and self.read_whole("cr3") != self.machine.tables.at:
            raise Unpredicted("the guest has page tables of its own")
        self.mmio.carry_out(address, size)

    def _unfetched(self, address: int) -> int:
        """The first instruction from pc on that needs the byte at `address`."""
        at = self.start()
        while at < address and (size := self.decode(at)[0]) and at + size <= address:
            at += size
        return at


def x86_64_put(values: dict[str, int], name: str, value: int) -> None:
    """Write a register or view into boot values."""
    row = x86_64.REGISTERS[name]
    values.setdefault(row.of or name, 0)
    mask = (1 << row.bits) - 1
    if not row.of or row.zeroes:
        values[row.of or name] = value & mask
    else:
        values[row.of] = (values[row.of] & ~(mask << row.shift)) | (value & mask) << row.shift
