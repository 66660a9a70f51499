"""arm64: which accesses KVM can decode, PSCI, and what the guest would take as an exception of its
own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kvmscen.model.arm64 import system
from kvmscen.model.arm64.crossing import torn
from kvmscen.model.arm64.instructions import Instructions
from kvmscen.model.arm64.processor import Processor
from kvmscen.model.arm64.psci import answer
from kvmscen.model.arm64.state import RESET, RESET_PSTATE
from kvmscen.model.arm64.undecoded import bus_of
from kvmscen.model.building import Blocked, Unpredicted
from kvmscen.model.capabilities import IPA_BITS
from kvmscen.model.guest import FETCHES
from kvmscen.sent.arch import arm64_tables
from kvmscen.sent.machine import Machine, Vcpu
from kvmscen.sent.script.interpreter import Verdict
from kvmscen.sent.undecoded import emulation
from kvmscen.sent.undecoded.alignment import M
from kvmscen.sent.undecoded.syndrome import Access, decode, esr_iss

SPAN = 1 << 23  # SCTLR_EL1: an exception leaves PSTATE.PAN as it is
HVC, HLT = 0xD4000002, 0xD4400000
SMC = 13  # Unicorn's number of its exception
# KVM_ARM_VCPU_ features whose guest the model can run.
FEATURES = frozenset(("psci_0_2", "power_off"))
UNDEFINED = 1
EXCEPTIONS = {UNDEFINED: "an undefined instruction", 2: "svc", 3: "a prefetch abort", 7: "brk"}
# Before this kernel the reply to a load that sign-extends was zero-extended.
SIGN_EXTENDED = (7, 2)


class Arm64(Processor):
    """One vCPU at EL1, as KVM starts it, and what each stop of Unicorn means."""

    ENABLED = ("KVM_CAP_ARM_NISV_TO_USER",)

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.off = False
        self.instructions = Instructions(self)

    # --- registers --------------------------------------------------------------------------------

    def put_tables(self) -> None:
        tables = self.machine.tables
        if tables is not None:
            self.memory.set(tables.slot, tables.at, tables.size, 0)
            self.memory.write(tables.at, arm64_tables.tables(tables.at, tables.spans))
            self.guard(tables.at, tables.size)

    def boot(self, plan: Vcpu) -> None:
        for feature in plan.features:
            if feature not in FEATURES:
                raise Unpredicted(f"the model does not know the vCPU feature {feature}")
        self.off = "power_off" in plan.features
        self.write_wholes(RESET)
        self.write(plan.regs)

    def _on_block(self, engine: Any, address: int, size: int, data: Any) -> None:
        try:
            if address & 3:
                raise Unpredicted(
                    f"the guest takes an exception of its own (pc {address:#x} is not aligned)"
                )
            if self.sctlr & M and self.physical(address) != address:
                raise Unpredicted(
                    f"the guest's own tables map its code at {address:#x} to another address"
                )
        except Unpredicted as reason:  # it cannot pass through Unicorn
            self.error = self.error or reason
            engine.emu_stop()
            return
        super()._on_block(engine, address, size, data)

    # --- stops ------------------------------------------------------------------------------------

    def go(self) -> None:
        if self.off:
            raise Blocked
        super().go()

    def take(self, kind: str, name: str, fields: Mapping[str, Any], pc: int) -> Verdict:
        # It is no longer behind a load-exclusive that the host carried out.
        self.recorder.exclusive.discard(self.plan.id)
        return super().take(kind, name, fields, pc)

    def specials(self, address: int, code: bytes) -> Iterable[int]:
        return self.instructions.within(address, code)

    def harmless(self, address: int) -> bool:
        return self.instructions.harmless(address)

    def special(self, address: int) -> bool:
        return self.instructions.carry_out(address)

    def halted(self) -> None:
        if self.word(self.pc() - 4) == system.WFI:
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
            raise Unpredicted(
                "what smc does depends on the host: KVM answers it as it does hvc from 6.4 on, "
                "with -1 before"
            )
        word = self.word(pc)
        if number == UNDEFINED and word >> 16 and word & 0xFFE0001F != HLT:
            raise Unpredicted(
                f"Unicorn does not know the instruction {word:#010x} at {pc:#x}, or it is none"
            )
        self.exception(EXCEPTIONS.get(number, f"exception {number} of Unicorn"))

    def exception(self, what: str) -> None:
        pstate = self.read_whole("pstate")
        vector = self.read_whole("vbar_el1") + (
            0x400 if pstate & 0xC == 0 else 0x200 if pstate & 1 else 0
        )
        if self.memory.at(vector) is not None:
            raise Unpredicted(
                f"the guest takes an exception of its own ({what}, near pc {self.pc():#x})"
            )
        self.write_wholes({"pstate": RESET_PSTATE})
        # Each further abort is taken from EL1 with SP_EL1.
        self.jump(self.read_whole("vbar_el1") + 0x200)
        for name in ("esr_el1", "far_el1", "elr_el1", "spsr_el1"):
            self.unknown[name] = (
                "the guest takes one exception after another, and how KVM reports them differs by "
                "version"
            )
        if not self.sctlr & SPAN:
            self.unknown["pstate"] = "taking an exception sets PAN where the CPU has it"
        raise Blocked

    def _readonly(self, address: int) -> bool | None:
        return self.memory.readonly(self.physical(address))

    # --- accesses ---------------------------------------------------------------------------------

    def faulted(self, access: int, address: int, size: int, value: int, pc: int) -> None:
        self.monitor.clear()
        if access in FETCHES:
            self.exception("a prefetch abort")
            return
        self.jump(pc)
        if address >> IPA_BITS:
            raise Unpredicted(
                f"the guest accesses {address:#x}, beyond the {IPA_BITS} bits of its physical "
                f"addresses"
            )
        word = self.word(pc)
        decoded = decode(word)
        if decoded is None:
            raise Unpredicted(
                f"an access by an instruction that the model does not know ({word:#010x} at "
                f"{pc:#x})"
            )
        wrong = self.alignment.wrong(pc) or torn(
            word, self.register, self._readonly, self.machine.undecoded is not None
        )
        if wrong is not None:
            raise Unpredicted(wrong)
        if decoded.isv:
            self._mmio(decoded, address, pc)
        else:
            self.undecoded(decoded, address, pc)

    def _mmio(self, access: Access, address: int, pc: int) -> None:
        fields: dict[str, Any] = {
            "phys_addr": address,
            "is_write": access.write,
            "len": access.size,
        }
        if access.write:
            fields["data"] = self._swapped(self.general(access.reg), access.size)
        reply = self.exit("mmio", fields, pc)
        if self.cut:
            return
        if not access.write:
            value = self._swapped(reply["data"], access.size)
            if access.signed and value >> 8 * access.size - 1 and access.reg != 31:
                value = self._extended(value, access)
            self.put(access.reg, value)
        self.jump(pc + 4)

    def _swapped(self, value: int, size: int) -> int:
        """What KVM makes of a value of the guest's byte order, and back
        (vcpu_data_guest_to_host).
        """
        raw = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        return int.from_bytes(raw, "big" if self.big_endian else "little")

    def _extended(self, value: int, access: Access) -> int:
        """What KVM puts into the register for a negative reply to a load that sign-extends."""
        if self.machine.undecoded is not None and not self.big_endian:
            if self.kernel is not None and self._before(SIGN_EXTENDED):
                self.recorder.corrected += 1
                self.recorder.amend(self.plan.id, "mmio", {"corrected": True})
            return self._signed(value, access)
        if self.kernel is None:
            raise Unpredicted(
                "KVM extends the sign of this load's reply from 7.2 on only: ask model@KERNEL"
            )
        return value if self._before(SIGN_EXTENDED) else self._signed(value, access)

    def _before(self, version: tuple[int, int]) -> bool:
        return self.kernel is not None and tuple(map(int, self.kernel.split("."))) < version

    @staticmethod
    def _signed(value: int, access: Access) -> int:
        return (value - (1 << 8 * access.size)) & ((1 << 64) - 1 if access.wide else 0xFFFFFFFF)

    def undecoded(self, access: Access, address: int, pc: int) -> None:
        self.monitor.clear()
        if "KVM_CAP_ARM_NISV_TO_USER" not in self.enabled:
            self.take("error", "ENOSYS", {"ioctl": "KVM_RUN"}, pc)
            return
        readonly = self.memory.at(address) is not None
        if readonly and address >> 12 != pc >> 12:
            raise Unpredicted(
                "whether a write to a read-only slot is a permission fault depends on what was "
                "read there before"
            )
        if self.machine.undecoded is None:
            iss = esr_iss(access, readonly, 3 if readonly else self._level(address, pc))
            self.exit("arm_nisv", {"esr_iss": iss, "fault_ipa": address}, pc)
            return
        fields = {"fault_ipa": address}
        try:
            fields = {
                "esr_iss": esr_iss(access, readonly, 3 if readonly else self._level(address, pc)),
                **fields,
            }
        except Unpredicted:
            # nobody looks at it where the access is carried out: better left out than the run given
            # up
            pass

        def take(fields: Mapping[str, Any]) -> Verdict:
            return self.take("exit", "arm_nisv", fields, pc)

        self.verdicts[-1:] = [
            emulation.carry_out(self.recorder, bus_of(self, self.monitors), fields, take)
        ]

    def carry_out(self, vcpu: int) -> None:
        """Carry out the access of the last arm_nisv."""
        emulation.act(self.recorder, bus_of(self, self.monitors))

    def _level(self, address: int, pc: int) -> int:
        """The level at which the stage-2 walk ends. KVM maps pages of 4 KiB when they are touched,
        as that of pc was.
        """
        for level, shift in ((3, 21), (2, 30)):
            low = address >> shift << shift
            if pc >> shift << shift == low:
                return level
            if any(
                slot.gpa < low + (1 << shift) and low < slot.gpa + slot.size
                for slot in self.memory.slots.values()
            ):
                raise Unpredicted(
                    "the level of this fault depends on which pages of the slots around it were "
                    "touched before"
                )
        return 1

    # --- hvc --------------------------------------------------------------------------------------

    def _hypercall(self, pc: int) -> None:
        self.monitor.clear()
        function = self.general(0) & 0xFFFFFFFF
        reply = answer(
            function, (self.general(1), self.general(2)), "psci_0_2" in self.plan.features
        )
        if reply is None:
            raise Unpredicted(f"the answer to the hypercall {function:#x} depends on the host")
        for number, value in enumerate((reply.value, 0, 0, 0)):
            self.put(number, value)
        self.jump(pc + 4)
        self.off = reply.off
        if reply.event is not None:
            self.exit(
                "system_event", {"type": reply.event, "ndata": 1, "flags": 0, "data": [0]}, pc + 4
            )
        elif reply.blocks:
            raise Blocked
