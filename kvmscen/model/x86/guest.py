"""x86: Unicorn with the engine's real page tables; port I/O, MMIO and the triple fault as KVM shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import capstone
from unicorn import unicorn_const as uc_const
from unicorn import x86_const as const

from kvmscen.model.building import Unpredicted
from kvmscen.model.capabilities import X86_64
from kvmscen.model.guest import FETCHES, NOWHERE, Guest
from kvmscen.model.x86 import boot
from kvmscen.model.x86.emulator import parse
from kvmscen.model.x86.flags import Flags
from kvmscen.model.x86.instructions import AC, CR8_MOST, FAR, SEGMENTS, Instructions
from kvmscen.model.x86.known import named, undefined, wrong
from kvmscen.model.x86.mmio import Mmio
from kvmscen.sent.arch import x86_64
from kvmscen.sent.arch.registers import base
from kvmscen.sent.machine import Machine, Vcpu

ENGINES = {"long": uc_const.UC_MODE_64, "protected": uc_const.UC_MODE_32, "real": uc_const.UC_MODE_16}
_LONG = {name: getattr(const, f"UC_X86_REG_{name.upper()}") for name in x86_64.KVM_REGS}
_SHORT = {
    name: getattr(const, "UC_X86_REG_E" + name.upper()[1:])
    for name in x86_64.KVM_REGS
    if not name[1].isdigit() and name != "rflags"
} | {"rflags": const.UC_X86_REG_EFLAGS}
_CONTROL = {name: getattr(const, f"UC_X86_REG_{name.upper()}") for name in ("cr0", "cr3", "cr4")}
# What the host may set of rflags: CF PF AF ZF SF, IF, DF, OF, IOPL, RF, AC, ID.
_FLAGS = 0x253ED7
_XMM = {f"xmm{n}": getattr(const, f"UC_X86_REG_XMM{n}") for n in range(16)}
_CAPSTONE = {"long": capstone.CS_MODE_64, "protected": capstone.CS_MODE_32, "real": capstone.CS_MODE_16}
_disassemblers: dict[str, Any] = {}


class X86(Guest):
    """One vCPU in long, protected or real mode, with the engine's tables."""

    NAME = x86_64.NAME
    REGISTERS = x86_64.REGISTERS
    GENERAL = x86_64.GENERAL
    CAPABILITIES = X86_64
    SELECTORS: Mapping[str, int] = {f"{name}.selector": getattr(const, f"UC_X86_REG_{name.upper()}") for name in SEGMENTS}

    def __init__(self, machine: Machine) -> None:
        mode = machine.vcpus[0].mode
        self.mode = mode
        self.ENGINE = (uc_const.UC_ARCH_X86, ENGINES[mode])
        super().__init__(machine)
        self.bits = x86_64.BITS[mode]
        self._ids = _LONG if mode == "long" else _SHORT
        self.held: dict[str, int] = {"cr2": 0}  # what Unicorn does not hold, or changes when it starts
        self.cpl = 0
        self.cr8 = 0  # Unicorn has none without an APIC
        self.own_gdt = False
        self.reloaded: set[str] = set()  # segment registers whose hidden parts the guest has loaded
        self.instructions = Instructions(self)
        self.context: Any = None  # registers as they were before the instruction that is under way
        self.mmio = Mmio(self)
        self.flags = Flags(self)
        self._user: int | None = None  # where KVM's emulator gave up in user mode
        self._edge = 0  # the instruction that cannot be fetched, when it lies ahead
        if mode not in _disassemblers:
            _disassemblers[mode] = capstone.Cs(capstone.CS_ARCH_X86, _CAPSTONE[mode])
        self._disassembler = _disassemblers[mode]

    # --- registers --------------------------------------------------------------------------------------------------

    def put_tables(self) -> None:
        tables = self.machine.tables
        if tables is not None:
            self.memory.set(tables.slot, tables.at, tables.size, 0)
            self.memory.write(tables.at, x86_64.tables(tables.at, tables.spans))
            self.guard(tables.at, tables.size)

    def boot(self, plan: Vcpu) -> None:
        boot.start(self, plan)
        if self.mode == "real":
            self.engine.hook_add(uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE, self._on_real)

    def _on_real(self, engine: Any, access: int, address: int, size: int, value: int, data: Any) -> None:
        # Unicorn does not look at limits.
        if not self.in_limit(address, size) and self.error is None:
            self.error = Unpredicted(f"an access of {size} bytes at {address:#x}, beyond the end of its segment")
            engine.emu_stop()

    def in_limit(self, address: int, size: int) -> bool:
        """Whether an access lies in one of the segments, outside long mode."""
        if self.mode == "protected":
            return address + size <= 1 << 32
        return any(0 <= address - self.base(name) <= 0x10000 - size for name in SEGMENTS)

    def is_general(self, name: str) -> bool:
        """Whether it is one of struct kvm_regs, or an xmm register."""
        return name in x86_64.KVM_REGS or name in _XMM

    def writable(self, name: str) -> bool:
        """Whether the host may set it: what else there is has hidden parts, or changes the guest's mode."""
        return self.is_general(name) or name in ("cr2", "cr8") or (self.mode == "real" and name in self.SELECTORS)

    def read_whole(self, name: str) -> int:
        if name == "cr8":
            return self.cr8
        if self.own_gdt and name in self.SELECTORS:
            return self.held[name]  # none is ever loaded
        source = self.engine if self.context is None else self.context
        found = self._ids.get(name) or self.SELECTORS.get(name) or _CONTROL.get(name) or _XMM.get(name)
        if found is not None:
            value = int(source.reg_read(found))
            return self.flags.seen(value) if name == "rflags" else value
        if name in x86_64.KVM_REGS:
            return self.held.get(name, 0)  # r8 to r15 outside long mode
        if name == "efer":
            return int(self.engine.reg_read(const.UC_X86_REG_MSR, boot.EFER))
        if name in ("gdt.base", "gdt.limit", "idt.base", "idt.limit"):
            table = self.engine.reg_read(const.UC_X86_REG_GDTR if name[0] == "g" else const.UC_X86_REG_IDTR)
            return int(table[1] if name.endswith("base") else table[2])
        if self.mode == "long" and name in ("fs.base", "gs.base"):
            return int(self.engine.reg_read(const.UC_X86_REG_FS_BASE if name[0] == "f" else const.UC_X86_REG_GS_BASE))
        if self.mode == "real" and name.endswith(".base") and name[:2] + ".selector" in self.SELECTORS:
            return self.read_whole(name[:2] + ".selector") << 4
        if name in self.held and name[:2] not in self.reloaded:
            return self.held[name]
        raise Unpredicted(f"the model does not know the register {name}")

    def write_wholes(self, values: Mapping[str, int]) -> None:
        for name, value in values.items():
            if not self.writable(name):
                raise Unpredicted(f"the model does not set {name}")
            if name == "rflags" and (value & ~_FLAGS or (value & AC and self.cpl)):
                raise Unpredicted(
                    f"rflags is {value:#x}: the model knows no single steps, nested tasks, virtual 8086 mode or AC of user mode"
                )
            if name == "cr8":
                if value > CR8_MOST:
                    raise Unpredicted(f"cr8 is {value:#x}, which has 4 bits")
                self.cr8 = value
                continue
            found = self._ids.get(name) or _XMM.get(name) or self.SELECTORS.get(name) or _CONTROL.get(name)
            if found is not None:
                self.engine.reg_write(found, value | 2 if name == "rflags" else value)
            else:
                self.held[name] = value

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
        """The base of a segment register: 0 but in real mode, and of fs and gs in long mode."""
        if self.mode == "real" or (self.mode == "long" and segment in ("fs", "gs")):
            return self.read_whole(f"{segment}.base")
        return 0

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
            return size, named(mnemonic, operands), operands
        return 0, "", ""

    def harmless(self, address: int) -> bool:
        return self.instructions.harmless(address)

    def disassemble(self, code: bytes, address: int) -> Iterable[tuple[int, int, str, str]]:
        """Address, length, mnemonic and operands of each instruction."""
        found: Iterable[tuple[int, int, str, str]] = self._disassembler.disasm_lite(code, address)
        return found

    def specials(self, address: int, code: bytes) -> Iterable[int]:
        return self.instructions.within(address, code)

    def notes(self) -> tuple[str, ...]:
        if self._user is not None:
            told = f"at pc {self._user:#x} KVM's emulator gives up in user mode: #UD for the guest on VMX and SVM, predicted so"
            return (f"{told}, an internal_error on PVM",)
        if not self.instructions.lacked:
            return ()
        at, text = min(self.instructions.lacked.items())
        told = f"the code has `{text}` at {at:#x}, which PVM's emulator lacks at CPL 0: an internal_error there"
        return (f"{told}, predicted as on VMX and SVM ({len(self.instructions.lacked):,} of the kind)",)

    def special(self, address: int) -> bool:
        return self.instructions.carry_out(address)

    def step(self) -> None:
        """Let Unicorn execute the one instruction at pc, which goes to another, and may access what lies outside the slots."""
        before = self.pc()
        # Unicorn counts instructions only in what it translates anew.
        self.memory.forget_code()
        self.passing = True
        try:
            failed = self.emulate(self.start(), 1)
        finally:
            self.passing = False
        if self.fault is not None:
            self.faulted(*self.fault)
        elif self.interrupt is not None:
            if self.decode(self.start())[1] == "ljmp" and not self.cpl:
                raise Unpredicted(f"a far jump that faults, at {before:#x}: a shutdown on VMX and SVM, an internal_error on PVM")
            self.interrupted(self.interrupt)
        elif failed is not None:
            self.refused(failed)
        elif self.pc() == before and self.decode(self.start())[1] in FAR:
            raise Unpredicted(f"a far transfer to itself, or an exception that Unicorn loses, at {before:#x}")
        elif self.pc() == before:
            # An exception is lost where only one instruction runs.
            self.interrupted(0)

    def stepping(self, access: int, address: int) -> bool:
        return self.mmio.active and self.mmio.fault(access, address & (1 << 64) - 1)

    def run_from(self, pc: int) -> Any:
        return self.emulate(pc, until=self._edge or NOWHERE)

    # --- stops ------------------------------------------------------------------------------------------------------

    def halted(self) -> None:
        if self.start() == self._edge:
            self._edge = 0
            self.unemulated(self.pc())
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
        if self.read_whole("idt.limit") >= (number + 1) * {"long": 16, "protected": 8, "real": 4}[self.mode] - 1:
            raise Unpredicted(f"the guest takes an exception of its own (vector {number} near {self.pc():#x})")
        pc = self.pc()
        self.stale = "the registers behind a shutdown: kvm-amd has reset the vCPU then, VMX has not"
        self.ended = "another KVM_RUN behind a shutdown: kvm-amd has reset the vCPU then, VMX has not"
        self.exit("shutdown", {}, pc)

    def unemulated(self, pc: int) -> None:
        """KVM's emulator gave up (handle_emulation_failure in arch/x86/kvm/x86.c)."""
        if self.cpl:
            self._user = pc
            self.interrupted(6)
            return
        self.ended = "another KVM_RUN behind internal_error: VMX and SVM have queued #UD for the guest, PVM has not"
        self.exit("internal_error", {"suberror": 1}, pc)

    def refused(self, error: Any) -> None:
        pc = self.start()
        size, name, _ = self.decode(pc)
        if error.errno == uc_const.UC_ERR_INSN_INVALID:
            if name.startswith("ud"):
                self.interrupted(6)
                return
            if not size and self.raw(pc):
                self.nameless(pc)
                return
        self._unknown(pc)

    def nameless(self, pc: int) -> None:
        """An instruction that Capstone does not know: none, or a new one."""
        raw = self.raw(pc)
        found = parse(raw, self.bits)
        if undefined(found, self.bits):
            self.interrupted(6)
            return
        why = wrong(found, raw, self.bits) or "neither a processor of old nor Capstone knows it"
        raise Unpredicted(f"the bytes {raw[:4].hex(' ')} at {self.pc():#x}: {why}")

    def _unknown(self, pc: int) -> None:
        """An instruction that Unicorn lacks: KVM's emulator lacks those with a VEX prefix too."""
        if parse(self.raw(pc), self.bits).map == 0 and self.outside(pc):
            self.unemulated(self.pc())
            return
        _, name, operands = self.decode(pc)
        raise Unpredicted(f"Unicorn does not know {name} {operands} at {self.pc():#x}")

    def operand(self, pc: int) -> int | None:
        """Where the memory operand of an instruction lies, None where it has none."""
        self._disassembler.detail = True
        try:
            found = next(iter(self._disassembler.disasm(self.raw(pc), pc, 1)))
            for operand in found.operands:
                if operand.type == capstone.x86.X86_OP_MEM:
                    segment = found.reg_name(operand.mem.segment) if operand.mem.segment else "ds"
                    at = operand.mem.disp + (pc + found.size if found.reg_name(operand.mem.base) == "rip" else 0)
                    for reg, scale in ((operand.mem.base, 1), (operand.mem.index, operand.mem.scale)):
                        name = found.reg_name(reg) if reg else ""
                        at += self.read((name,))[name] * scale if name in self.REGISTERS and name != "rip" else 0
                    at &= (1 << 8 * found.addr_size) - 1
                    return int(at + self.base(str(segment))) & (1 << 64) - 1
        finally:
            self._disassembler.detail = False
        return None

    def outside(self, pc: int) -> bool:
        """Whether the memory operand of an instruction lies outside the slots."""
        at = self.operand(pc)
        return at is not None and self.memory.at(at) is None

    def faulted(self, access: int, address: int, size: int, value: int, pc: int) -> None:
        self.jump(pc)
        if access in FETCHES:
            # Unicorn translates a block over the end of a page before it executes any of it.
            edge = self._unfetched(address)
            if edge != self.start():
                self._edge = edge
                return
            self._edge = 0
            self.unemulated(self.pc())
            return
        self.mmio.carry_out(address, size)

    def _unfetched(self, address: int) -> int:
        """The first instruction from pc on that needs the byte at `address`."""
        at = self.start()
        while at < address and (size := self.decode(at)[0]) and at + size <= address:
            at += size
        return at
