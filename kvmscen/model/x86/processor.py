"""x86: one vCPU as its parts see it: registers, pc, segments, and the code that it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import capstone
from unicorn import unicorn_const as uc_const
from unicorn import x86_const as const

from kvmscen.model.building import Unpredicted
from kvmscen.model.capabilities import X86_64
from kvmscen.model.guest import Guest
from kvmscen.model.x86.known import named
from kvmscen.sent.arch import x86_64
from kvmscen.sent.machine import Machine

EFER = 0xC0000080
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss")
AC = 1 << 18
CR8_MOST = 0xF
ENGINES = {
    "long": uc_const.UC_MODE_64,
    "protected": uc_const.UC_MODE_32,
    "real": uc_const.UC_MODE_16,
}
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
_CAPSTONE = {
    "long": capstone.CS_MODE_64,
    "protected": capstone.CS_MODE_32,
    "real": capstone.CS_MODE_16,
}
_disassemblers: dict[str, Any] = {}


class Processor(Guest):
    """One vCPU in long, protected or real mode. What the guest does at a stop is a subclass's."""

    NAME = x86_64.NAME
    REGISTERS = x86_64.REGISTERS
    GENERAL = x86_64.GENERAL
    CAPABILITIES = X86_64
    SELECTORS: Mapping[str, int] = {
        f"{name}.selector": getattr(const, f"UC_X86_REG_{name.upper()}") for name in SEGMENTS
    }

    def __init__(self, machine: Machine) -> None:
        mode = machine.vcpus[0].mode
        self.mode = mode
        self.ENGINE = (uc_const.UC_ARCH_X86, ENGINES[mode])
        super().__init__(machine)
        self.bits = x86_64.BITS[mode]
        self._ids = _LONG if mode == "long" else _SHORT
        self.held: dict[str, int] = {
            "cr2": 0
        }  # what Unicorn does not hold, or changes when it starts
        self.cpl = 0
        self.cr8 = 0  # Unicorn has none without an APIC
        self.own_gdt = False
        self.reloaded: set[str] = set()  # segment registers whose hidden parts the guest has loaded
        self.context: Any = None  # registers as they were before the instruction that is under way
        self.accessing = False  # an instruction that touches memory outside the slots is under way
        if mode not in _disassemblers:
            _disassemblers[mode] = capstone.Cs(capstone.CS_ARCH_X86, _CAPSTONE[mode])
        self._disassembler = _disassemblers[mode]

    # --- what a subclass gives --------------------------------------------------------------------

    def rflags(self, value: int) -> int:
        """What KVM_GET_REGS gives for rflags where Unicorn has `value`."""
        raise NotImplementedError

    def step(self) -> None:
        """Let Unicorn execute the one instruction at pc, which goes to another, and may access what
        lies outside the slots.
        """
        raise NotImplementedError

    def unemulated(self, pc: int) -> None:
        """KVM's emulator gave up (handle_emulation_failure in arch/x86/kvm/x86.c)."""
        raise NotImplementedError

    def nameless(self, pc: int) -> None:
        """An instruction that Capstone does not know: none, or a new one."""
        raise NotImplementedError

    # --- registers --------------------------------------------------------------------------------

    def is_general(self, name: str) -> bool:
        """Whether it is one of struct kvm_regs, or an xmm register."""
        return name in x86_64.KVM_REGS or name in _XMM

    def writable(self, name: str) -> bool:
        """Whether the host may set it: what else there is has hidden parts, or changes the guest's
        mode.
        """
        return (
            self.is_general(name)
            or name in ("cr2", "cr8")
            or (self.mode == "real" and name in self.SELECTORS)
        )

    def read_whole(self, name: str) -> int:
        if name == "cr8":
            return self.cr8
        if self.own_gdt and name in self.SELECTORS:
            return self.held[name]  # none is ever loaded
        source = self.engine if self.context is None else self.context
        register = (
            self._ids.get(name) or self.SELECTORS.get(name) or _CONTROL.get(name) or _XMM.get(name)
        )
        if register is not None:
            value = int(source.reg_read(register))
            return self.rflags(value) if name == "rflags" else value
        if name in x86_64.KVM_REGS:
            return self.held.get(name, 0)  # r8 to r15 outside long mode
        if name == "efer":
            return int(self.engine.reg_read(const.UC_X86_REG_MSR, EFER))
        if name in ("gdt.base", "gdt.limit", "idt.base", "idt.limit"):
            table = self.engine.reg_read(
                const.UC_X86_REG_GDTR if name[0] == "g" else const.UC_X86_REG_IDTR
            )
            return int(table[1] if name.endswith("base") else table[2])
        if self.mode == "long" and name in ("fs.base", "gs.base"):
            return int(
                self.engine.reg_read(
                    const.UC_X86_REG_FS_BASE if name[0] == "f" else const.UC_X86_REG_GS_BASE
                )
            )
        if (
            self.mode == "real"
            and name.endswith(".base")
            and name[:2] + ".selector" in self.SELECTORS
        ):
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
                    f"rflags is {value:#x}: the model knows no single steps, nested tasks, virtual "
                    f"8086 mode or AC of user mode"
                )
            if name == "cr8":
                if value > CR8_MOST:
                    raise Unpredicted(f"cr8 is {value:#x}, which has 4 bits")
                self.cr8 = value
                continue
            register = (
                self._ids.get(name)
                or _XMM.get(name)
                or self.SELECTORS.get(name)
                or _CONTROL.get(name)
            )
            if register is not None:
                self.engine.reg_write(register, value | 2 if name == "rflags" else value)
            else:
                self.held[name] = value

    def pc(self) -> int:
        return self.read_whole("rip")

    def jump(self, pc: int) -> None:
        """Continue at another pc."""
        self.engine.reg_write(self._ids["rip"], pc & (1 << self.bits) - 1)

    def base(self, segment: str) -> int:
        """The base of a segment register: 0 but in real mode, and of fs and gs in long mode."""
        if self.mode == "real" or (self.mode == "long" and segment in ("fs", "gs")):
            return self.read_whole(f"{segment}.base")
        return 0

    def start(self) -> int:
        return self.pc() + self.base("cs")

    def in_limit(self, address: int, size: int) -> bool:
        """Whether an access lies in one of the segments, outside long mode."""
        if self.mode == "protected":
            return address + size <= 1 << 32
        return any(0 <= address - self.base(name) <= 0x10000 - size for name in SEGMENTS)

    # --- instructions -----------------------------------------------------------------------------

    def raw(self, address: int) -> bytes:
        """Up to 15 bytes of code."""
        slot = self.memory.at(address)
        if slot is None:
            return b""
        return self.memory.read(address, min(15, slot.gpa + slot.size - address)) or b""

    def decode(self, address: int) -> tuple[int, str, str]:
        """Length, mnemonic and operands of the instruction at an address; length 0 if there is
        none.
        """
        for _, size, mnemonic, operands in self._disassembler.disasm_lite(
            self.raw(address), address, 1
        ):
            return size, named(mnemonic, operands), operands
        return 0, "", ""

    def disassemble(self, code: bytes, address: int) -> Iterable[tuple[int, int, str, str]]:
        """Address, length, mnemonic and operands of each instruction."""
        decoded: Iterable[tuple[int, int, str, str]] = self._disassembler.disasm_lite(code, address)
        return decoded

    def operand(self, pc: int) -> int | None:
        """Where the memory operand of an instruction lies, None where it has none."""
        self._disassembler.detail = True
        try:
            insn = next(iter(self._disassembler.disasm(self.raw(pc), pc, 1)))
            for operand in insn.operands:
                if operand.type == capstone.x86.X86_OP_MEM:
                    segment = insn.reg_name(operand.mem.segment) if operand.mem.segment else "ds"
                    at = operand.mem.disp + (
                        pc + insn.size if insn.reg_name(operand.mem.base) == "rip" else 0
                    )
                    for reg, scale in (
                        (operand.mem.base, 1),
                        (operand.mem.index, operand.mem.scale),
                    ):
                        name = insn.reg_name(reg) if reg else ""
                        at += (
                            self.read((name,))[name] * scale
                            if name in self.REGISTERS and name != "rip"
                            else 0
                        )
                    at &= (1 << 8 * insn.addr_size) - 1
                    return int(at + self.base(str(segment))) & (1 << 64) - 1
        finally:
            self._disassembler.detail = False
        return None

    def outside(self, pc: int) -> bool:
        """Whether the memory operand of an instruction lies outside the slots."""
        at = self.operand(pc)
        return at is not None and self.memory.at(at) is None
