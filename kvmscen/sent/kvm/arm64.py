"""arm64 state to and from KVM: KVM_ARM_VCPU_INIT and the ids of registers (KVM API 4.68
"KVM_SET_ONE_REG", 4.82, 4.83).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Mapping
from typing import Callable

from kvmscen.sent.arch import arm64, arm64_tables
from kvmscen.sent.errors import IoctlError
from kvmscen.sent.header import uapi
from kvmscen.sent.header.caps import CAPABILITIES
from kvmscen.sent.kvm import one_reg
from kvmscen.sent.kvm.fds import Kvm, Vcpu, Vm
from kvmscen.sent.machine import Machine
from kvmscen.sent.machine import Vcpu as VcpuPlan

GENERAL = arm64.GENERAL
_ARM64 = 0x6000000000000000
_CORE, _SYSREG, _SVE = 0x0010 << 16, 0x0013 << 16, 0x0015 << 16
# Offsets in struct kvm_regs; a core register's number is its offset in units of 4 bytes.
_PLACES = {"sp_el0": 248, "pc": 256, "pstate": 264, "sp_el1": 272, "elr_el1": 280, "spsr_el1": 288}
_VREGS, _FPSR, _FPCR = 336, 848, 852
# A Z register has the id of its first 2,048 bits, and KVM copies as many of them as there are.
_Z_BYTES = 256
_EINVAL = 22


def _core(offset: int, size: int) -> int:
    return one_reg.sized(_ARM64 | _CORE | offset // 4, size)


def sysreg(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """The id of a system register: ARM64_SYS_REG of <asm/kvm.h>."""
    return one_reg.sized(_ARM64 | _SYSREG | op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2, 8)


def _ids() -> dict[str, int]:
    ids = {f"x{n}": _core(8 * n, 8) for n in range(31)}
    ids.update((name, sysreg(*code)) for name, code in arm64.SYSTEM.items())
    # elr_el1 and spsr_el1 are among these.
    ids.update((name, _core(offset, 8)) for name, offset in _PLACES.items())
    ids.update((f"v{n}", _core(_VREGS + 16 * n, 16)) for n in range(32))
    ids["fpsr"], ids["fpcr"] = _core(_FPSR, 4), _core(_FPCR, 4)
    return ids


IDS = _ids()
_PC = IDS["pc"]
# With the SVE feature KVM has no core registers v0 to v31: they are the low ends of z0 to z31.
SVE_IDS = {**IDS, **{f"v{n}": one_reg.sized(_ARM64 | _SVE | n << 5, _Z_BYTES) for n in range(32)}}


def create_vm(kvm: Kvm, machine: Machine, flavour: str | None) -> Vm:
    """A VM with 40 bits of guest physical address; with as many as there are on a CPU that has
    fewer.
    """
    try:
        return kvm.create_vm()
    except IoctlError as error:
        bits = kvm.check_extension(CAPABILITIES["KVM_CAP_ARM_VM_IPA_SIZE"])
        if error.number != _EINVAL or not bits:
            raise
        return kvm.create_vm(bits)


def boot(kvm: Kvm, vm: Vm, vcpu: Vcpu, plan: VcpuPlan, machine: Machine) -> None:
    """Initialise a new vCPU as the CPU that it runs on, with the plan's features, and set its
    registers.
    """
    init = (ctypes.c_char * uapi.VCPU_INIT_ARM)()
    vm.ioctl("KVM_ARM_PREFERRED_TARGET", init)
    features = struct.unpack_from("=I", init, 4)[0]
    for name in plan.features:
        features |= 1 << arm64.FEATURE_BITS[name]
    struct.pack_into("=I", init, 4, features)
    vcpu.ioctl("KVM_ARM_VCPU_INIT", init)
    if "sve" in plan.features:
        feature = ctypes.create_string_buffer(struct.pack("=I", arm64.FEATURE_BITS["sve"]), 4)
        vcpu.ioctl("KVM_ARM_VCPU_FINALIZE", feature)
    vcpu.features = plan.features
    write(vcpu, plan.regs)


def tables(machine: Machine) -> bytes:
    """The stage-1 tables of `mmu: identity`."""
    assert machine.tables is not None
    return arm64_tables.tables(machine.tables.at, machine.tables.spans)


def pc(vcpu: Vcpu) -> int:
    """pc as KVM returns it."""
    return one_reg.of(vcpu).get(_PC)


def read(vcpu: Vcpu, names: Iterable[str]) -> dict[str, int]:
    """Registers and views of them by name."""
    return one_reg.read(vcpu, arm64.REGISTERS, _ids_of(vcpu), names)


def reader(vcpu: Vcpu) -> Callable[[str], int]:
    """A function that gives one whole register by name: quicker than `read` where they are read one
    at a time.
    """
    registers, ids = one_reg.of(vcpu), _ids_of(vcpu)
    low = (1 << 128) - 1  # v is the low end of z
    return lambda name: (
        registers.get(ids[name]) & low
        if name[0] == "v" and name[1].isdigit()
        else registers.get(ids[name])
    )


def write(vcpu: Vcpu, regs: Mapping[str, int]) -> None:
    """Set registers by name; what is not named keeps its value."""
    one_reg.write(vcpu, arm64.REGISTERS, _ids_of(vcpu), regs)


def _ids_of(vcpu: Vcpu) -> Mapping[str, int]:
    return SVE_IDS if "sve" in vcpu.features else IDS
