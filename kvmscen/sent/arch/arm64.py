"""arm64: registers, features and the state in which kvmscen starts a vCPU (Arm ARM, D1; KVM API
4.82 KVM_ARM_VCPU_INIT).
"""

from __future__ import annotations

from collections.abc import Mapping

from kvmscen.sent.arch.registers import Register, Registers

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
# What KVM_CHECK_EXTENSION must know for KVM_ARM_VCPU_INIT to take a feature (KVM API 4.82).
FEATURE_CAPABILITIES: dict[str, str] = {
    "el1_32bit": "KVM_CAP_ARM_EL1_32BIT",
    "psci_0_2": "KVM_CAP_ARM_PSCI_0_2",
    "pmu_v3": "KVM_CAP_ARM_PMU_V3",
    "sve": "KVM_CAP_ARM_SVE",
    "ptrauth_address": "KVM_CAP_ARM_PTRAUTH_ADDRESS",
    "ptrauth_generic": "KVM_CAP_ARM_PTRAUTH_GENERIC",
    "has_el2": "KVM_CAP_ARM_EL2",
    "has_el2_e2h0": "KVM_CAP_ARM_EL2_E2H0",
}
DEFAULT_FEATURES: tuple[str, ...] = ("psci_0_2",)
PC = "pc"

# System registers, and op0, op1, CRn, CRm, op2 of their MRS and MSR.
SYSTEM: dict[str, tuple[int, int, int, int, int]] = {
    "sctlr_el1": (3, 0, 1, 0, 0),
    "cpacr_el1": (3, 0, 1, 0, 2),
    "ttbr0_el1": (3, 0, 2, 0, 0),
    "ttbr1_el1": (3, 0, 2, 0, 1),
    "tcr_el1": (3, 0, 2, 0, 2),
    "mair_el1": (3, 0, 10, 2, 0),
    "vbar_el1": (3, 0, 12, 0, 0),
    "esr_el1": (3, 0, 5, 2, 0),
    "far_el1": (3, 0, 6, 0, 0),
    "par_el1": (3, 0, 7, 4, 0),
    "tpidr_el0": (3, 3, 13, 0, 2),
    "tpidrro_el0": (3, 3, 13, 0, 3),
    "tpidr_el1": (3, 0, 13, 0, 4),
    "contextidr_el1": (3, 0, 13, 0, 1),
    "elr_el1": (3, 0, 4, 0, 1),
    "spsr_el1": (3, 0, 4, 0, 0),
}


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
REFUSED = {
    "sp": "KVM's regs.sp is SP_EL0, the guest's stack at EL1 is sp_el1: write sp_el1 or sp_el0"
}


def pc_advanced(name: str, fields: Mapping[str, object], flavour: str | None) -> bool | None:
    """Whether pc already points behind the instruction at this exit: KVM advances it at the next
    KVM_RUN.
    """
    return name in ("hypercall", "system_event")
