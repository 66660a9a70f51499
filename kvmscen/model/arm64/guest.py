"""arm64: which accesses KVM can decode, PSCI, and what the guest would take as an exception of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from unicorn import arm64_const as const
from unicorn import unicorn_const as uc_const

from kvmscen.arch import arm64, arm64_tables
from kvmscen.arch.arm64_syndrome import Access, decode, esr_iss
from kvmscen.kvm import emulation
from kvmscen.kvm.script import Verdict
from kvmscen.machine import Action, Vcpu
from kvmscen.model.arm64.alignment import ZVA, Alignment
from kvmscen.model.arm64.psci import answer
from kvmscen.model.arm64.undecoded import bus_of, emulates, is_exclusive, is_signed_atomic, quietly
from kvmscen.model.capabilities import ARM64, IPA_BITS
from kvmscen.model.guest import FETCHES, Blocked, Guest, Unpredicted

MASK = (1 << 64) - 1
RESET_PSTATE = 0x3C5  # EL1h, all exceptions masked
# What KVM_ARM_VCPU_INIT leaves in system registers other than 0: those that the Arm ARM calls unknown get one number of KVM's.
_UNKNOWN = 0x1DE7EC7EDBADC0DE
RESET = {
    "pstate": RESET_PSTATE,
    "sctlr_el1": 0xC50078,
    "cpacr_el1": 0,
    **dict.fromkeys(("ttbr0_el1", "ttbr1_el1", "mair_el1", "esr_el1", "far_el1", "par_el1"), _UNKNOWN),
    **dict.fromkeys(("tpidr_el0", "tpidrro_el0", "tpidr_el1"), _UNKNOWN),
}
BTYPE = 0xC00  # set by indirect branches on the CPU that Unicorn models, not on one without BTI
HVC, WFI, SELF = 0xD4000002, 0xD503207F, 0x14000000
# System registers that hold what the guest or the scenario put there: op0 op1 CRn CRm op2 of MRS, bits 20:5.
KNOWN_SYSTEM = frozenset(
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
    for op0, op1, crn, crm, op2 in (
        *arm64.SYSTEM.values(),
        (3, 0, 4, 1, 0),  # sp_el0
        (3, 0, 4, 2, 0),  # spsel
        (3, 0, 4, 2, 2),  # currentel
        (3, 3, 4, 2, 0),  # nzcv
        (3, 3, 4, 2, 1),  # daif
        (3, 3, 4, 4, 0),  # fpcr
        (3, 3, 4, 4, 1),  # fpsr
    )
)
SMC = 13  # Unicorn's number of its exception
# KVM_ARM_VCPU_ features whose guest the model can run.
FEATURES = frozenset(("psci_0_2", "power_off"))
EXCEPTIONS = {1: "an undefined instruction", 2: "svc", 3: "a prefetch abort", 7: "brk"}


def _ids() -> dict[str, int]:
    ids = {f"x{n}": getattr(const, f"UC_ARM64_REG_X{n}") for n in range(31)}
    ids.update((f"v{n}", getattr(const, f"UC_ARM64_REG_Q{n}")) for n in range(32))
    for name in ("pc", "pstate", "fpcr", "fpsr"):
        ids[name] = getattr(const, f"UC_ARM64_REG_{name.upper()}")
    for name in arm64.SYSTEM:
        if hasattr(const, f"UC_ARM64_REG_{name.upper()}"):
            ids[name] = getattr(const, f"UC_ARM64_REG_{name.upper()}")
    return ids


IDS = _ids()
# Before this kernel the reply to a load that sign-extends was zero-extended.
SIGN_EXTENDED = (7, 2)


class Arm64(Guest):
    """One vCPU at EL1 with the MMU off, as KVM starts it."""

    NAME = arm64.NAME
    REGISTERS = arm64.REGISTERS
    GENERAL = arm64.GENERAL
    ENGINE = (uc_const.UC_ARCH_ARM64, uc_const.UC_MODE_ARM)
    ENABLED = ("KVM_CAP_ARM_NISV_TO_USER",)
    CAPABILITIES = ARM64

    def __init__(self, machine: Any) -> None:
        super().__init__(machine)
        # Unicorn's default, a Cortex-A72, has no LSE atomics.
        self.engine.ctl_set_cpu_model(const.UC_CPU_ARM64_MAX)
        self.off = False
        self.alignment = Alignment(self.engine, self.word, self._register, self._misaligned)
        # A load-exclusive that is carried out takes its store-exclusive with it: then both are.
        self.emulates = machine.undecoded is not None or any(map(emulates, machine.vcpus[0].script or ()))

    # --- registers --------------------------------------------------------------------------------------------------

    def make_tables(self) -> None:
        tables = self.machine.tables
        if tables is not None:
            self.memory.set(tables.slot, tables.at, tables.size, 0)
            self.memory.write(tables.at, arm64_tables.tables(tables.at, tables.spans))

    def boot(self, plan: Vcpu) -> None:
        for feature in plan.features:
            if feature not in FEATURES:
                raise Unpredicted(f"the model does not know the vCPU feature {feature}")
        self.off = "power_off" in plan.features
        self.write_wholes(RESET)
        self.write(plan.regs)

    def pc(self) -> int:
        return int(self.engine.reg_read(const.UC_ARM64_REG_PC))

    def _banked(self, name: str) -> int:
        """SP_EL0 and SP_EL1: that in use is Unicorn's SP."""
        current = "sp_el1" if self.engine.reg_read(const.UC_ARM64_REG_PSTATE) & 1 else "sp_el0"
        if name == current:
            return int(const.UC_ARM64_REG_SP)
        return int(const.UC_ARM64_REG_SP_EL1 if name == "sp_el1" else const.UC_ARM64_REG_SP_EL0)

    def read_whole(self, name: str) -> int:
        if name.startswith("sp_el"):
            return int(self.engine.reg_read(self._banked(name)))
        if name == "pstate":
            return int(self.engine.reg_read(IDS[name])) & ~BTYPE
        if name in IDS:
            return int(self.engine.reg_read(IDS[name]))
        return int(self.engine.reg_read(const.UC_ARM64_REG_CP_REG, (*_cp(name),)))

    def write_wholes(self, values: Mapping[str, int]) -> None:
        # pstate first: it says which stack pointer is in use.
        for name, value in sorted(values.items(), key=lambda item: item[0] != "pstate"):
            if name.startswith("sp_el"):
                self.engine.reg_write(self._banked(name), value)
            elif name in IDS:
                self.engine.reg_write(IDS[name], value)
            else:
                self.engine.reg_write(const.UC_ARM64_REG_CP_REG, (*_cp(name), value))

    def general(self, number: int) -> int:
        """x0 to x30, 31 is xzr."""
        return 0 if number == 31 else int(self.engine.reg_read(IDS[f"x{number}"]))

    def _register(self, name: str) -> int:
        """As an instruction names it: `sp` is that in use."""
        return int(self.engine.reg_read(const.UC_ARM64_REG_SP)) if name == "sp" else self.read_whole(name)

    def put(self, number: int, value: int) -> None:
        """Write x0 to x30."""
        if number != 31:
            self.engine.reg_write(IDS[f"x{number}"], value & MASK)

    def jump(self, pc: int) -> None:
        """Go on elsewhere."""
        self.engine.reg_write(const.UC_ARM64_REG_PC, pc & MASK)

    def word(self, address: int) -> int:
        """The instruction at an address, 0 outside the slots."""
        return int.from_bytes(self.memory.read(address, 4) or b"", "little")

    # --- stops ------------------------------------------------------------------------------------------------------

    def go(self) -> None:
        if self.off:
            raise Blocked
        super().go()

    def specials(self, address: int, code: bytes) -> Iterable[int]:
        for n, word in enumerate(struct.unpack(f"<{len(code) // 4}I", code)):
            if (
                word == SELF
                or (self._simd(word) and self._trapping())
                or (word & 0xFFF00000 == 0xD5300000 and word >> 5 & 0xFFFF not in KNOWN_SYSTEM)
                or word & ~0x1F == ZVA
                or (self.emulates and is_exclusive(word))
                or is_signed_atomic(word)
            ):
                yield address + 4 * n

    def special(self, address: int) -> bool:
        word = self.word(address)
        if word == SELF:
            raise Blocked
        if word & 0xFFF00000 == 0xD5300000 and word >> 5 & 0xFFFF not in KNOWN_SYSTEM:
            return self._system(word)
        exclusive, zeroes = self.emulates and is_exclusive(word), word & ~0x1F == ZVA
        if (exclusive or zeroes) and (wrong := self.alignment.wrong(address)) is not None:
            raise Unpredicted(wrong)
        if zeroes:
            return self._zeroes(word, address)
        if exclusive:
            return self._exclusive(word, address)
        if is_signed_atomic(word):
            return self._signed_atomic(word, address)
        if self._simd(word) and self._trapping():
            self.exception("SIMD and floating point are off in cpacr_el1")
            return True
        return False

    def _system(self, word: int) -> bool:
        if word >> 5 & 0xFFFF == 3 << 14 | 5:
            self.put(word & 31, 1 << 31)  # mpidr_el1 of vCPU 0
            self.jump(self.pc() + 4)
            return True
        raise Unpredicted(f"the guest reads a system register of the host's CPU (mrs, {word:#010x})")

    def halted(self) -> None:
        if self.word(self.pc() - 4) == WFI:
            raise Blocked
        raise Unpredicted(f"Unicorn stopped at {self.pc():#x}")

    def refused(self, error: Any) -> None:
        raise Unpredicted(f"Unicorn cannot go on at {self.pc():#x}: {error}")

    def interrupted(self, number: int) -> None:
        pc = self.pc()
        if number == 1 and self.word(pc) & 0xFFE0001F == HVC:
            self._hypercall(pc)
            return
        if number == SMC:
            raise Unpredicted("what smc does depends on the host: KVM answers it as it does hvc from 6.4 on, with -1 before")
        self.exception(EXCEPTIONS.get(number, f"exception {number} of Unicorn"))

    @staticmethod
    def _simd(word: int) -> bool:
        """Whether a word is a SIMD or floating-point instruction, or a load or store of such a register."""
        return word >> 25 & 7 == 7 or word >> 25 & 7 == 6

    def _trapping(self) -> bool:
        """Whether CPACR_EL1 traps them; Unicorn executes them all the same."""
        return self.read_whole("cpacr_el1") >> 20 & 3 != 3

    def exception(self, what: str) -> None:
        """The guest takes a synchronous exception to EL1. Where its vectors lie in no slot, it takes another there for ever."""
        pstate = self.read_whole("pstate")
        vector = self.read_whole("vbar_el1") + (0x400 if pstate & 0xC == 0 else 0x200 if pstate & 1 else 0)
        if self.memory.at(vector) is not None:
            raise Unpredicted(f"the guest takes an exception of its own ({what}, near pc {self.pc():#x})")
        self.write_wholes({"pstate": RESET_PSTATE})
        # Each further abort is taken from EL1 with SP_EL1.
        self.jump(self.read_whole("vbar_el1") + 0x200)
        raise Blocked

    def _misaligned(self, wrong: str) -> None:
        if self.error is None:
            self.error = Unpredicted(wrong)
        self.engine.emu_stop()

    # --- accesses ---------------------------------------------------------------------------------------------------

    def faulted(self, access: int, address: int, size: int, value: int, pc: int) -> None:
        if access in FETCHES:
            self.exception("a prefetch abort")
            return
        self.jump(pc)
        if address >> IPA_BITS:
            raise Unpredicted(f"the guest accesses {address:#x}, beyond the {IPA_BITS} bits of its physical addresses")
        word = self.word(pc)
        found = decode(word)
        if found is None:
            raise Unpredicted(f"an access by an instruction that the model does not know ({word:#010x} at {pc:#x})")
        wrong = self.alignment.wrong(pc)
        if wrong is not None:
            raise Unpredicted(wrong)
        if found.isv:
            self._mmio(found, address, pc)
        else:
            self._undecoded(found, address, pc)

    def _mmio(self, found: Access, address: int, pc: int) -> None:
        fields: dict[str, Any] = {"phys_addr": address, "is_write": found.write, "len": found.size}
        if found.write:
            fields["data"] = self.general(found.reg) & (1 << 8 * found.size) - 1
        reply = self.exit("mmio", fields, pc)
        if self.cut:
            return
        if not found.write:
            value = reply["data"] & (1 << 8 * found.size) - 1
            if found.signed and value >> 8 * found.size - 1 and found.reg != 31:
                value = self._extended(value, found)
            self.put(found.reg, value)
        self.jump(pc + 4)

    def _extended(self, value: int, found: Access) -> int:
        """What KVM puts into the register for a negative reply to a load that sign-extends."""
        if self.machine.undecoded is not None:
            if self.kernel is not None and self._before(SIGN_EXTENDED):
                self.recorder.corrected += 1
                self.recorder.amend(self.plan.id, "mmio", {"corrected": True})
            return self._signed(value, found)
        if self.kernel is None:
            raise Unpredicted("KVM extends the sign of this load's reply from 7.2 on only: ask model@KERNEL")
        return value if self._before(SIGN_EXTENDED) else self._signed(value, found)

    def _before(self, version: tuple[int, int]) -> bool:
        return self.kernel is not None and tuple(map(int, self.kernel.split("."))) < version

    @staticmethod
    def _signed(value: int, found: Access) -> int:
        return (value - (1 << 8 * found.size)) & ((1 << 64) - 1 if found.wide else 0xFFFFFFFF)

    def _undecoded(self, found: Access, address: int, pc: int) -> None:
        if "KVM_CAP_ARM_NISV_TO_USER" not in self.enabled:
            self.take("error", "ENOSYS", {"ioctl": "KVM_RUN"}, pc)
            return
        readonly = self.memory.at(address) is not None
        if readonly and address >> 12 != pc >> 12:
            raise Unpredicted("whether a write to a read-only slot is a permission fault depends on what was read there before")
        if self.machine.undecoded is None:
            iss = esr_iss(found, readonly, 3 if readonly else self._level(address, pc))
            self.exit("arm_nisv", {"esr_iss": iss, "fault_ipa": address}, pc)
            return
        fields = {"fault_ipa": address}
        try:
            fields = {"esr_iss": esr_iss(found, readonly, 3 if readonly else self._level(address, pc)), **fields}
        except Unpredicted:
            pass  # nobody looks at it where the access is carried out: better left out than the run given up

        def take(fields: Mapping[str, Any]) -> Verdict:
            return self.take("exit", "arm_nisv", fields, pc)

        self.verdicts[-1:] = [emulation.carry_out(self.recorder, bus_of(self), fields, take)]

    def _zeroes(self, word: int, pc: int) -> bool:
        """dc zva: behind its abort Unicorn would go on for a while."""
        address = self.general(word & 31)
        found = decode(word)
        if self.memory.readonly(address) is False:
            quietly(self)
        elif found is not None:
            self._undecoded(found, address, pc)
        return True

    def _signed_atomic(self, word: int, pc: int) -> bool:
        """In a slot it is carried out here; elsewhere it aborts."""
        base = word >> 5 & 31
        if (
            self.memory.readonly(self._register("sp" if base == 31 else f"x{base}")) is not False
            or self.alignment.wrong(pc) is not None
        ):
            return False
        quietly(self)
        return True

    def _exclusive(self, word: int, pc: int) -> bool:
        """ldxr, stxr and their pairs, with one monitor for the slots and what lies outside them."""
        bus = bus_of(self)
        found = decode(word)
        address = bus.register("sp" if word >> 5 & 31 == 31 else f"x{word >> 5 & 31}")
        outside = self.memory.at(address) is None
        if outside and found is not None and word >> 22 & 1:
            self._undecoded(found, address, pc)
        elif not outside or not emulation.store_exclusive(self.recorder, bus):
            quietly(self)
        return True

    def _act(self, action: Action) -> None:
        if action.name == "emulate":
            emulation.act(self.recorder, bus_of(self))
        else:
            super()._act(action)

    def _level(self, address: int, pc: int) -> int:
        """The level at which the stage-2 walk ends. KVM maps pages of 4 KiB when they are touched, as that of pc was."""
        for level, shift in ((3, 21), (2, 30)):
            low = address >> shift << shift
            if pc >> shift << shift == low:
                return level
            if any(slot.gpa < low + (1 << shift) and low < slot.gpa + slot.size for slot in self.memory.slots.values()):
                raise Unpredicted("the level of this fault depends on which pages of the slots around it were touched before")
        return 1

    # --- hvc --------------------------------------------------------------------------------------------------------

    def _hypercall(self, pc: int) -> None:
        function = self.general(0) & 0xFFFFFFFF
        reply = answer(function, (self.general(1), self.general(2)), "psci_0_2" in self.plan.features)
        if reply is None:
            raise Unpredicted(f"the answer to the hypercall {function:#x} depends on the host")
        for number, value in enumerate((reply.value, 0, 0, 0)):
            self.put(number, value)
        self.jump(pc + 4)
        self.off = reply.off
        if reply.event is not None:
            self.exit("system_event", {"type": reply.event, "ndata": 1, "flags": 0, "data": [0]}, pc + 4)
        elif reply.blocks:
            raise Blocked


def _cp(name: str) -> tuple[int, int, int, int, int]:
    op0, op1, crn, crm, op2 = arm64.SYSTEM[name]
    return crn, crm, op0, op1, op2
