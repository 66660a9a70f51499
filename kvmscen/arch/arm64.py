"""arm64: registers, features and the state in which kvmscen starts a vCPU (Arm ARM, D1; KVM API 4.82 KVM_ARM_VCPU_INIT)."""

from __future__ import annotations

from collections.abc import Mapping

from kvmscen.arch.registers import Register, Registers

NAME = "arm64"
MACHINES = ("aarch64", "arm64")
MODES = ("el1",)
BITS = {"el1": 64}
# KVM_ARM_VCPU_ names in lower case, and their bit in struct kvm_vcpu_init.
FEATURE_BITS: dict[str, int] = {
    "power_off": 0,
    "el1_32bit": 1,
    "psci_0_2": 2,
    "pmu_v3": 3,
    "sve": 4,
    "ptrauth_address": 5,
    "ptrauth_generic": 6,
    "has_el2": 7,
    "has_el2_e2h0": 8,
}
FEATURES = tuple(FEATURE_BITS)
DEFAULT_FEATURES: tuple[str, ...] = ("psci_0_2",)
PC = "pc"

SYSTEM = (
    "sctlr_el1",
    "cpacr_el1",
    "ttbr0_el1",
    "ttbr1_el1",
    "tcr_el1",
    "mair_el1",
    "vbar_el1",
    "esr_el1",
    "far_el1",
    "par_el1",
    "tpidr_el0",
    "tpidrro_el0",
    "tpidr_el1",
    "contextidr_el1",
    "elr_el1",
    "spsr_el1",
)


def _registers() -> Registers:
    table: Registers = {}
    for n in range(31):
        table[f"x{n}"] = Register(64)
        table[f"w{n}"] = Register(32, f"x{n}", zeroes=True)
    table["lr"] = Register(64, "x30")
    table["fp"] = Register(64, "x29")
    for name in ("pc", "pstate", "sp_el0", "sp_el1", *SYSTEM):
        table[name] = Register(64)
    for n in range(32):
        table[f"v{n}"] = Register(128)
        for letter, bits in (("q", 128), ("d", 64), ("s", 32), ("h", 16), ("b", 8)):
            table[f"{letter}{n}"] = Register(bits, f"v{n}", zeroes=True)
    for name in ("fpsr", "fpcr"):
        table[name] = Register(32)
    return table


REGISTERS = _registers()
GENERAL = (*(f"x{n}" for n in range(31)), "sp_el0", "sp_el1", "pc", "pstate")
# Names that mean something else than their reader thinks.
REFUSED = {"sp": "KVM's regs.sp is SP_EL0, the guest's stack at EL1 is sp_el1: write sp_el1 or sp_el0"}


def pc_advanced(name: str, fields: Mapping[str, object], flavour: str | None) -> bool | None:
    """Whether pc already points behind the instruction at this exit: KVM advances it at the next KVM_RUN."""
    return name in ("hypercall", "system_event")
