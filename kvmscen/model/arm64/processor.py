"""arm64: one vCPU as its parts see it: registers, pc, translation, and the exclusives that are
open.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import Any

from unicorn import arm64_const as const
from unicorn import unicorn_const as uc_const
from unicorn.unicorn_py3 import unicorn as binding

from kvmscen.model.arm64.alignment import Alignment
from kvmscen.model.arm64.monitor import Monitor
from kvmscen.model.arm64.state import EE, RESET, TRANSLATION, unmodelled
from kvmscen.model.building import Unpredicted
from kvmscen.model.capabilities import ARM64
from kvmscen.model.guest import Guest
from kvmscen.sent.arch import arm64, arm64_tables
from kvmscen.sent.machine import Machine
from kvmscen.sent.undecoded import walk
from kvmscen.sent.undecoded.alignment import M
from kvmscen.sent.undecoded.emulate import Monitors
from kvmscen.sent.undecoded.syndrome import Access

MASK = (1 << 64) - 1
_SCR_EL3, _RW = (1, 1, 3, 6, 0), 1 << 10  # SCR_EL3.RW: EL1 is AArch64
BTYPE = 0xC00  # set by indirect branches on the CPU that Unicorn models, not on one without BTI


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


class _Batch:
    """Registers of 64 bits that are read together, in the time of one."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        count = len(self.names)
        self._ids = (ctypes.c_int32 * count)(*(IDS[name] for name in self.names))
        self._values = (ctypes.c_uint64 * count)()
        first = ctypes.addressof(self._values)
        self._places = (ctypes.c_void_p * count)(*(first + 8 * n for n in range(count)))

    def read(self, engine: Any) -> dict[str, int]:
        """Their values by name."""
        binding.uclib.uc_reg_read_batch(engine._uch, self._ids, self._places, len(self.names))
        return dict(zip(self.names, self._values, strict=True))


_GENERAL = _Batch((*(f"x{n}" for n in range(31)), "pc"))


class Processor(Guest):
    """One vCPU at EL1. What the guest does at a stop is a subclass's."""

    NAME = arm64.NAME
    REGISTERS = arm64.REGISTERS
    GENERAL = arm64.GENERAL
    ENGINE = (uc_const.UC_ARCH_ARM64, uc_const.UC_MODE_ARM)
    CAPABILITIES = ARM64

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        # Unicorn's default, a Cortex-A72, has no LSE atomics.
        self.engine.ctl_set_cpu_model(const.UC_CPU_ARM64_MAX)
        # Without it Unicorn walks the tables of EL1 as those of AArch32, and drops the upper half
        # of each address.
        self.engine.reg_write(const.UC_ARM64_REG_CP_REG, (*_SCR_EL3, _RW))
        self.monitor = Monitor(self.memory)
        self.monitors = Monitors()  # those of emulated exclusives
        self.alignment = Alignment(
            self.engine,
            self.word,
            self.register,
            self._device,
            self._misaligned,
            self.monitor.accessed,
        )
        self.sctlr = RESET["sctlr_el1"]
        self.identity = False  # the tables, were the MMU on, would be those of `mmu: identity`
        self.unknown: dict[
            str, str
        ] = {}  # registers that hold what the model does not know, and why

    # --- what a subclass gives --------------------------------------------------------------------

    def exception(self, what: str) -> None:
        """The guest takes a synchronous exception to EL1. Where its vectors lie in no slot, it
        takes another there for ever.
        """
        raise NotImplementedError

    def undecoded(self, access: Access, address: int, pc: int) -> None:
        """An abort without a valid syndrome."""
        raise NotImplementedError

    # --- registers --------------------------------------------------------------------------------

    def pc(self) -> int:
        return int(self.engine.reg_read(const.UC_ARM64_REG_PC))

    def _banked(self, name: str) -> int:
        """SP_EL0 and SP_EL1: that in use is Unicorn's SP."""
        current = "sp_el1" if self.engine.reg_read(const.UC_ARM64_REG_PSTATE) & 1 else "sp_el0"
        if name == current:
            return int(const.UC_ARM64_REG_SP)
        return int(const.UC_ARM64_REG_SP_EL1 if name == "sp_el1" else const.UC_ARM64_REG_SP_EL0)

    def read_whole(self, name: str) -> int:
        if name in self.unknown:
            raise Unpredicted(f"{name}: {self.unknown[name]}")
        if name.startswith("sp_el"):
            return int(self.engine.reg_read(self._banked(name)))
        if name == "pstate":
            return int(self.engine.reg_read(IDS[name])) & ~BTYPE
        if name in IDS:
            return int(self.engine.reg_read(IDS[name]))
        return int(self.engine.reg_read(const.UC_ARM64_REG_CP_REG, (*_cp(name),)))

    def read_wholes(self, names: Iterable[str]) -> dict[str, int]:
        wanted = list(names)
        held = _GENERAL.read(self.engine) if len(wanted) > 2 else {}
        return {
            name: held[name] if name in held and name not in self.unknown else self.read_whole(name)
            for name in wanted
        }

    def write_wholes(self, values: Mapping[str, int]) -> None:
        if any(name[0] not in "xv" for name in values):
            self.check(values)
        # pstate first: it says which stack pointer is in use.
        for name, value in sorted(values.items(), key=lambda item: item[0] != "pstate"):
            if name.startswith("sp_el"):
                self.engine.reg_write(self._banked(name), value)
            elif name in IDS:
                self.engine.reg_write(IDS[name], value)
            else:
                self.engine.reg_write(const.UC_ARM64_REG_CP_REG, (*_cp(name), value))
            self.unknown.pop(name, None)

    def general(self, number: int) -> int:
        """x0 to x30, 31 is xzr."""
        return 0 if number == 31 else int(self.engine.reg_read(IDS[f"x{number}"]))

    def register(self, name: str) -> int:
        """As an instruction names it: `sp` is that in use."""
        return (
            int(self.engine.reg_read(const.UC_ARM64_REG_SP))
            if name == "sp"
            else self.read_whole(name)
        )

    def put(self, number: int, value: int) -> None:
        """Write x0 to x30."""
        if number != 31:
            self.engine.reg_write(IDS[f"x{number}"], value & MASK)

    def jump(self, pc: int) -> None:
        """Continue at another pc."""
        self.engine.reg_write(const.UC_ARM64_REG_PC, pc & MASK)

    # --- translation ------------------------------------------------------------------------------

    def check(self, values: Mapping[str, int]) -> None:
        """Give up where registers are written that leave what the model knows."""
        wrong = unmodelled(values, self.read_whole)
        if wrong is not None:
            raise Unpredicted(wrong)
        self.sctlr = values.get("sctlr_el1", self.sctlr)
        if "cpacr_el1" in values:
            self._seen.clear()  # what is special in a block depends on it
        tables = self.machine.tables
        wanted = {} if tables is None else arm64_tables.boot(tables.at)
        self.identity = bool(wanted) and all(
            values.get(name, self.read_whole(name)) == wanted[name] for name in TRANSLATION
        )

    @property
    def big_endian(self) -> bool:
        """Whether data are big-endian: SCTLR_EL1.EE."""
        return bool(self.sctlr & EE)

    def physical(self, address: int) -> int:
        """The guest physical address of a virtual one."""
        if not self.sctlr & M or (self.identity and address < arm64_tables.REACH):
            return address
        try:
            return walk.translate(address, False, self.read_whole, self.memory.read)
        except walk.NoTranslation as reason:
            raise Unpredicted(str(reason)) from None

    def _device(self, address: int) -> bool:
        """Whether the guest's own translation calls an address Device memory."""
        if not self.sctlr & M:
            return True
        try:
            return walk.device(address, self.read_whole, self.memory.read)
        except walk.NoTranslation as reason:
            raise Unpredicted(str(reason)) from None

    def _misaligned(self, wrong: str) -> None:
        if self.error is None:
            self.error = Unpredicted(wrong)
        self.engine.emu_stop()

    # --- instructions -----------------------------------------------------------------------------

    def word(self, address: int) -> int:
        """The instruction at an address, 0 outside the slots."""
        return int.from_bytes(self.memory.read(address, 4) or b"", "little")

    def single(self) -> None:
        """Let Unicorn execute the one instruction at pc, special or not."""
        pc = self.pc()
        # Unicorn counts instructions only in what it translates anew.
        self.memory.forget_code()
        self.passing = True
        try:
            failed = self.emulate(pc, 1)
        finally:
            self.passing = False
        if self.fault is not None or self.interrupt is not None or failed is not None:
            raise Unpredicted(
                f"what the instruction at {pc:#x} does ({self.word(pc):#010x}) depends on the "
                f"guest's state"
            )


def _cp(name: str) -> tuple[int, int, int, int, int]:
    op0, op1, crn, crm, op2 = arm64.SYSTEM[name]
    return crn, crm, op0, op1, op2
