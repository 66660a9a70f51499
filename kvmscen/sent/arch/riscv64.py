"""riscv64: registers and the state in which kvmscen starts a vCPU (KVM API 4.68, "RISC-V
registers").
"""

from __future__ import annotations

from collections.abc import Mapping

from kvmscen.sent.arch.registers import Register, Registers

NAME = "riscv64"
MACHINES = ("riscv64",)
MODES = ("s",)
BITS = {"s": 64}
FEATURES: tuple[str, ...] = ()
DEFAULT_FEATURES: tuple[str, ...] = ()
FEATURE_CAPABILITIES: dict[str, str] = {}
PC = "pc"

# struct user_regs_struct, in order: x1 to x31 by the names of the ABI.
NAMES = (
    *("ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1"),
    *(f"a{n}" for n in range(8)),
    *(f"s{n}" for n in range(2, 12)),
    *(f"t{n}" for n in range(3, 7)),
)
CORE = ("pc", *NAMES, "mode")
# struct kvm_riscv_csr, in order.
CSRS = tuple("sstatus sie stvec sscratch sepc scause stval sip satp scounteren senvcfg".split())
# f0 to f31 by the names of the ABI.
FLOATS = (
    *(f"ft{n}" for n in range(8)),
    *("fs0", "fs1"),
    *(f"fa{n}" for n in range(8)),
    *(f"fs{n}" for n in range(2, 12)),
    *(f"ft{n}" for n in range(8, 12)),
)


def _registers() -> Registers:
    table: Registers = {name: Register(64) for name in (*CORE, *CSRS, *FLOATS)}
    table["fcsr"] = Register(32)
    for n, name in enumerate(NAMES, 1):
        table[f"x{n}"] = Register(64, name)
    table["fp"] = Register(64, "s0")
    for n, name in enumerate(FLOATS):
        table[f"f{n}"] = Register(64, name)
    return table


REGISTERS = _registers()
GENERAL = ("pc", *NAMES)
# Names that mean something else than their reader thinks.
REFUSED = dict.fromkeys(("zero", "x0"), "it is always 0, and KVM has no id for it")


def pc_advanced(name: str, fields: Mapping[str, object], flavour: str | None) -> bool | None:
    """Whether pc already points behind the instruction at this exit: KVM advances it at the next
    KVM_RUN.
    """
    return False
