"""riscv64 state to and from KVM: the ids of registers (KVM API 4.68, "RISC-V registers")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvmscen.sent.arch import riscv64
from kvmscen.sent.kvm import one_reg
from kvmscen.sent.kvm.fds import Kvm, Vcpu, Vm
from kvmscen.sent.machine import Machine
from kvmscen.sent.machine import Vcpu as VcpuPlan

GENERAL = riscv64.GENERAL
_RISCV = 0x8000000000000000
_CORE, _CSR, _FP_D = 2 << 24, 3 << 24, 6 << 24


def _ids() -> dict[str, int]:
    ids = {name: one_reg.sized(_RISCV | _CORE | n, 8) for n, name in enumerate(riscv64.CORE)}
    ids.update((name, one_reg.sized(_RISCV | _CSR | n, 8)) for n, name in enumerate(riscv64.CSRS))
    ids.update(
        (name, one_reg.sized(_RISCV | _FP_D | n, 8)) for n, name in enumerate(riscv64.FLOATS)
    )
    ids["fcsr"] = one_reg.sized(_RISCV | _FP_D | len(riscv64.FLOATS), 4)
    return ids


IDS = _ids()
_PC = IDS["pc"]


def create_vm(kvm: Kvm, machine: Machine, flavour: str | None) -> Vm:
    """A VM."""
    return kvm.create_vm()


def boot(kvm: Kvm, vm: Vm, vcpu: Vcpu, plan: VcpuPlan, machine: Machine) -> None:
    """Set the registers of a new vCPU; KVM starts it in S-mode, with satp 0 and interrupts off."""
    write(vcpu, plan.regs)


def pc(vcpu: Vcpu) -> int:
    """pc as KVM returns it."""
    return one_reg.of(vcpu).get(_PC)


def read(vcpu: Vcpu, names: Iterable[str]) -> dict[str, int]:
    """Registers and views of them by name."""
    return one_reg.read(vcpu, riscv64.REGISTERS, IDS, names)


def write(vcpu: Vcpu, regs: Mapping[str, int]) -> None:
    """Set registers by name; what is not named keeps its value."""
    one_reg.write(vcpu, riscv64.REGISTERS, IDS, regs)
