"""x86: Unicorn with the engine's real page tables; port I/O, MMIO and the triple fault as KVM shows
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unicorn import unicorn_const as uc_const

from kvmscen.model.building import Unpredicted
from kvmscen.model.guest import FETCHES, NOWHERE
from kvmscen.model.x86 import boot, exchange
from kvmscen.model.x86.emulator import parse
from kvmscen.model.x86.flags import Flags
from kvmscen.model.x86.instructions import Instructions
from kvmscen.model.x86.known import undefined, wrong
from kvmscen.model.x86.mmio import Mmio
from kvmscen.model.x86.mnemonics import FAR
from kvmscen.model.x86.processor import Processor
from kvmscen.sent.arch import x86_64
from kvmscen.sent.arch.registers import base
from kvmscen.sent.machine import Machine, Vcpu


class X86(Processor):
    """One vCPU with the engine's tables, and what each stop of Unicorn means."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.flags = Flags(self)
        self.mmio = Mmio(self, self.flags)
        self.instructions = Instructions(self, self.flags)
        self._user: int | None = None  # where KVM's emulator gave up in user mode
        self._edge = 0  # the instruction that cannot be fetched, when it lies ahead

    # --- registers --------------------------------------------------------------------------------

    def put_tables(self) -> None:
        tables = self.machine.tables
        if tables is not None:
            self.memory.set(tables.slot, tables.at, tables.size, 0)
            self.memory.write(tables.at, x86_64.tables(tables.at, tables.spans))
            self.guard(tables.at, tables.size)

    def boot(self, plan: Vcpu) -> None:
        boot.start(self, plan)
        if self.mode == "real":
            self.engine.hook_add(
                uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE, self._on_real
            )

    def _on_real(
        self, engine: Any, access: int, address: int, size: int, value: int, data: Any
    ) -> None:
        # Unicorn does not look at limits.
        if not self.in_limit(address, size) and self.error is None:
            self.error = Unpredicted(
                f"an access of {size} bytes at {address:#x}, beyond the end of its segment"
            )
            engine.emu_stop()

    def rflags(self, value: int) -> int:
        return self.flags.seen(value)

    def read(self, names: Iterable[str]) -> dict[str, int]:
        wanted = tuple(names)
        # All general registers are read at the end, whether or not somebody looks at them.
        looked_at = (
            wanted[len(self.GENERAL) :] if wanted[: len(self.GENERAL)] == self.GENERAL else wanted
        )
        if any(base(self.REGISTERS, name) == "rflags" for name in looked_at):
            self.flags.looked_at()
        return super().read(wanted)

    def go(self) -> None:
        self.flags.entered()
        super().go()

    # --- instructions -----------------------------------------------------------------------------

    def harmless(self, address: int) -> bool:
        return self.instructions.harmless(address)

    def specials(self, address: int, code: bytes) -> Iterable[int]:
        return self.instructions.within(address, code)

    def notes(self) -> tuple[str, ...]:
        if self._user is not None:
            reason = (
                f"at pc {self._user:#x} KVM's emulator gives up in user mode: #UD for the "
                f"guest on VMX and SVM, predicted so"
            )
            return (f"{reason}, an internal_error on PVM",)
        if not self.instructions.lacked:
            return ()
        at, text = min(self.instructions.lacked.items())
        reason = (
            f"the code has `{text}` at {at:#x}, which PVM's emulator lacks at CPL 0: an "
            f"internal_error there"
        )
        return (
            f"{reason}, predicted as on VMX and SVM "
            f"({len(self.instructions.lacked):,} of the kind)",
        )

    def special(self, address: int) -> bool:
        return self.instructions.carry_out(address)

    def step(self) -> None:
        before = self.pc()
        # Unicorn counts instructions only in what it translates anew.
        self.memory.forget_code()
        rax = exchange.kept(self, parse(self.raw(self.start()), self.bits))
        self.passing = True
        try:
            failed = self.emulate(self.start(), 1)
        finally:
            self.passing = False
        if self.fault is not None:
            self.faulted(*self.fault)
        elif self.interrupt is not None:
            if self.decode(self.start())[1] == "ljmp" and not self.cpl:
                raise Unpredicted(
                    f"a far jump that faults, at {before:#x}: a shutdown on VMX and SVM, an "
                    f"internal_error on PVM"
                )
            self.interrupted(self.interrupt)
        elif failed is not None:
            self.refused(failed)
        elif self.pc() == before and self.decode(self.start())[1] in FAR:
            raise Unpredicted(
                f"a far transfer to itself, or an exception that Unicorn loses, at {before:#x}"
            )
        elif self.pc() == before:
            # An exception is lost where only one instruction runs.
            self.interrupted(0)
        else:
            exchange.mend(self, rax)

    def stepping(self, access: int, address: int) -> bool:
        return self.accessing and self.mmio.fault(access, address & (1 << 64) - 1)

    def run_from(self, pc: int) -> Any:
        return self.emulate(pc, until=self._edge or NOWHERE)

    # --- stops ------------------------------------------------------------------------------------

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
        """An exception that Unicorn takes for a triple fault: after an unmapped access it counts
        wrongly.
        """
        pc = self.start()
        if parse(self.raw(pc), self.bits).map == 0 and self.decode(pc)[0]:
            self._unknown(pc)
        elif self.mode == "real":
            raise Unpredicted(f"the guest takes an exception of its own near {self.pc():#x}")
        else:
            self.interrupted(0)

    def interrupted(self, number: int) -> None:
        if (
            self.read_whole("idt.limit")
            >= (number + 1) * {"long": 16, "protected": 8, "real": 4}[self.mode] - 1
        ):
            raise Unpredicted(
                f"the guest takes an exception of its own (vector {number} near {self.pc():#x})"
            )
        pc = self.pc()
        self.stale = "the registers behind a shutdown: kvm-amd has reset the vCPU then, VMX has not"
        self.ended = (
            "another KVM_RUN behind a shutdown: kvm-amd has reset the vCPU then, VMX has not"
        )
        self.exit("shutdown", {}, pc)

    def unemulated(self, pc: int) -> None:
        if self.cpl:
            self._user = pc
            self.interrupted(6)
            return
        self.ended = (
            "another KVM_RUN behind internal_error: VMX and SVM have queued #UD for the "
            "guest, PVM has not"
        )
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
        raw = self.raw(pc)
        insn = parse(raw, self.bits)
        if undefined(insn, self.bits):
            self.interrupted(6)
            return
        why = wrong(insn, raw, self.bits) or "neither a processor of old nor Capstone knows it"
        raise Unpredicted(f"the bytes {raw[:4].hex(' ')} at {self.pc():#x}: {why}")

    def _unknown(self, pc: int) -> None:
        """An instruction that Unicorn lacks: KVM's emulator lacks those with a VEX prefix too."""
        if parse(self.raw(pc), self.bits).map == 0 and self.outside(pc):
            self.unemulated(self.pc())
            return
        _, name, operands = self.decode(pc)
        raise Unpredicted(f"Unicorn does not know {name} {operands} at {self.pc():#x}")

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
