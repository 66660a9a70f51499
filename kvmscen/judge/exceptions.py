"""The exception of a guest that hangs, out of the registers in which its CPU keeps it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kvmscen.sent.observation import Observation

_VECTORS, _VECTOR = 0x800, 0x80
# ESR_EL1.EC (Arm ARM, "ESR_EL1, Exception Syndrome Register").
_CLASSES = {
    0x00: "an undefined instruction",
    0x01: "a trapped wfi or wfe",
    0x07: "a SIMD&FP instruction, which CPACR_EL1.FPEN traps: it is 0 at the start (`regs: "
    "{cpacr_el1: 0x300000}`)",
    0x0D: "a branch target that is no bti",
    0x0E: "an illegal execution state",
    0x15: "svc",
    0x18: "a system register or instruction that is trapped or undefined",
    0x19: "an SVE instruction, which CPACR_EL1.ZEN traps (`regs: {cpacr_el1: 0x330000}`)",
    0x20: "an instruction abort of EL0",
    0x21: "an instruction abort",
    0x22: "a pc that is no multiple of 4",
    0x24: "a data abort of EL0",
    0x25: "a data abort",
    0x26: "a stack pointer that is no multiple of 16",
    0x2C: "a floating-point exception",
    0x2F: "an SError",
    0x3C: "brk",
}
_SVC = 0x15
_FETCH, _ABORTS = (0x20, 0x21), (0x20, 0x21, 0x24, 0x25)
_STATUS = {
    0x00: "address size fault",
    0x04: "translation fault",
    0x08: "access flag fault",
    0x0C: "permission fault",
}
_ALIGNMENT = 0x21
# scause (RISC-V privileged ISA, "Supervisor Cause Register").
_CAUSES = {
    0: "a misaligned instruction address",
    1: "an instruction access fault",
    2: "an illegal instruction",
    3: "ebreak",
    4: "a misaligned load",
    5: "a load access fault",
    6: "a misaligned store",
    7: "a store access fault",
    8: "ecall of U-mode",
    9: "ecall of S-mode",
    12: "an instruction page fault",
    13: "a load page fault",
    15: "a store page fault",
}
_FETCHES, _ILLEGAL = (1, 12), 2
# Opcodes of loads and stores of floating-point registers, and of their arithmetic.
_FLOATING = (0x07, 0x27, 0x43, 0x47, 0x4B, 0x4F, 0x53)


class TakenException(NamedTuple):
    """`what` it was, `at` which pc (None: that is lost), the `registers` that say so, and `then`
    where the guest is now.

    `address` is that of the access, where there was one.
    """

    what: str
    at: int | None
    registers: str
    then: str
    fetch: bool = False
    again: bool = False
    address: int | None = None

    def text(self, where: str) -> str:
        """One sentence; `where` is ` at line ...`, or empty."""
        second = (
            "; a second run, with `b .` in that vector, told so, since the first one overwrites it"
            if self.again
            else ""
        )
        return (
            f"the guest took an exception{where}: {self.what} ({self.registers}){second}. "
            f"{self.then}"
        )


def last_exception(arch: str, seen: Observation) -> TakenException | None:
    """The exception of a guest that did not come to its end, None where it took none, or is
    elsewhere by now.
    """
    regs = seen.exception
    if regs is None:
        return None
    if arch == "riscv64":
        # Where KVM_RUN failed, the exception counts only if its handler is what could not be
        # fetched.
        return (
            _riscv64(regs)
            if seen.stopped == "timeout" or regs["pc"] == regs["stvec"] & ~3
            else None
        )
    return _arm64(regs) if arch == "arm64" else None


def _arm64(regs: Mapping[str, int]) -> TakenException | None:
    pc, base, esr, elr, far = (
        regs[name] for name in ("pc", "vbar_el1", "esr_el1", "elr_el1", "far_el1")
    )
    if not base <= pc < base + _VECTORS:
        return None
    entry = base + ((pc - base) & ~(_VECTOR - 1))
    vector = f"its vector at {entry:#x} (VBAR_EL1 + {entry - base:#x})"
    ec = esr >> 26 & 0x3F
    what = _CLASSES.get(ec, f"of class {ec:#x}")
    text = f"ESR_EL1 {esr:#x}, ELR_EL1 {elr:#x}" + (f", FAR_EL1 {far:#x}" if ec in _ABORTS else "")
    if entry <= elr < entry + _VECTOR:
        then = f"It came from {vector}, so there is no handler, and what led there first is lost"
        return TakenException(what, None, text, then)
    if ec in _ABORTS:
        what += f" at {far:#x}" + _status(esr & 0x3F)
    then = f"It is in {vector}, where no handler ends it: give it one, or avoid the exception"
    if ec == _SVC:
        # Where it returns to is behind it.
        elr -= 4
    return TakenException(
        what, elr, text, then, ec in _FETCH, bool(regs.get("again")), far if ec in _ABORTS else None
    )


def _status(code: int) -> str:
    if code == _ALIGNMENT:
        return ", an alignment fault: with the MMU off all data is Device memory (`mmu: identity`)"
    if code == 0x10:
        return ", an external abort, as where there is no memslot for what is fetched"
    name = _STATUS.get(code & ~3)
    return f": {name}" if name and code < 0x10 else f", status {code:#x}"


def _riscv64(regs: Mapping[str, int]) -> TakenException | None:
    cause = regs["scause"]
    if cause >> 63:
        return None
    what = _CAUSES.get(cause, f"of cause {cause}")
    if cause == _ILLEGAL and regs["stval"] & 0x7F in _FLOATING:
        what += ": floating point is off at the start (`sstatus: 0x2000` sets FS)"
    text = f"scause {cause}, sepc {regs['sepc']:#x}, stval {regs['stval']:#x}"
    then = (
        f"It went on at stvec ({regs['stvec'] & ~3:#x}): give it a handler there, or avoid the "
        f"exception"
    )
    return TakenException(what, regs["sepc"], text, then, cause in _FETCHES)
