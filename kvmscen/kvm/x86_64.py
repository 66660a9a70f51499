"""x86 state to and from KVM: struct kvm_regs, kvm_sregs and kvm_xsave by register name (KVM API 4.11 to 4.14, 4.42, 4.43)."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Mapping

from kvmscen.arch import x86_64
from kvmscen.arch.registers import base, get, put
from kvmscen.kvm import uapi
from kvmscen.kvm.fds import Kvm, Vcpu, Vm
from kvmscen.machine import Machine
from kvmscen.machine import Vcpu as VcpuPlan

GENERAL = x86_64.GENERAL
_REGS_FORMAT = "=18Q"
_INDEX = {name: n for n, name in enumerate(x86_64.KVM_REGS)}
_XMM0 = 160
_XSTATE_BV = 512


def _sregs_layout() -> dict[str, tuple[int, str]]:
    out: dict[str, tuple[int, str]] = {}
    for n, segment in enumerate(x86_64.SEGMENTS):
        offset = 24 * n
        for member, fmt in zip(x86_64.Segment._fields, "QIHBBBBBBBB"):
            out[f"{segment}.{member}"] = (offset, fmt)
            offset += struct.calcsize("=" + fmt)
    for n, table in enumerate(("gdt", "idt")):
        out[f"{table}.base"] = (192 + 16 * n, "Q")
        out[f"{table}.limit"] = (200 + 16 * n, "H")
    for n, name in enumerate(x86_64.CONTROL):
        out[name] = (224 + 8 * n, "Q")
    return out


_SREGS = _sregs_layout()


def create_vm(kvm: Kvm, machine: Machine, flavour: str | None) -> Vm:
    """A VM; on Intel with the three pages that it needs for real mode, below the engine's own slot."""
    vm = kvm.create_vm()
    if flavour == "vmx":
        at = machine.tables.at if machine.tables is not None else x86_64.TABLES_AT
        vm.ioctl("KVM_SET_TSS_ADDR", at - x86_64.TSS_BELOW)
    return vm


def tables(machine: Machine) -> bytes:
    """The bytes of the engine's own slot."""
    assert machine.tables is not None
    return x86_64.tables(machine.tables.at, machine.tables.spans)


_cpuid: ctypes.Array[ctypes.c_char] | None = None


def _supported_cpuid(kvm: Kvm) -> ctypes.Array[ctypes.c_char]:
    global _cpuid
    if _cpuid is None:
        entries = 256
        buffer = ctypes.create_string_buffer(8 + entries * uapi.CPUID_ENTRY)
        struct.pack_into("=II", buffer, 0, entries, 0)
        kvm.ioctl("KVM_GET_SUPPORTED_CPUID", buffer)
        _cpuid = buffer
    return _cpuid


def boot(kvm: Kvm, vcpu: Vcpu, plan: VcpuPlan, machine: Machine) -> None:
    """Put a new vCPU into its mode with its registers set."""
    if plan.mode != "real":
        vcpu.ioctl("KVM_SET_CPUID2", _supported_cpuid(kvm))
    regs = x86_64.boot(plan.mode, machine.tables.at if machine.tables is not None else None)
    for name, value in plan.regs.items():
        put(x86_64.REGISTERS, regs, name, value)
        if plan.mode == "real" and name in x86_64.SEGMENTS:
            regs[f"{name}.base"] = value << 4
    write(vcpu, regs)


def pc(vcpu: Vcpu) -> int:
    """rip as KVM returns it."""
    buffer = ctypes.create_string_buffer(uapi.REGS_X86)
    vcpu.ioctl("KVM_GET_REGS", buffer)
    return int(struct.unpack_from("=Q", buffer, 8 * _INDEX["rip"])[0])


def read(vcpu: Vcpu, names: Iterable[str]) -> dict[str, int]:
    """Registers and views of them by name."""
    wanted = list(names)
    wholes = {base(x86_64.REGISTERS, name) for name in wanted}
    values: dict[str, int] = {}
    buffer = ctypes.create_string_buffer(uapi.REGS_X86)
    vcpu.ioctl("KVM_GET_REGS", buffer)
    values.update(zip(x86_64.KVM_REGS, struct.unpack(_REGS_FORMAT, buffer)))
    if any(name in _SREGS for name in wholes):
        sregs = ctypes.create_string_buffer(uapi.SREGS_X86)
        vcpu.ioctl("KVM_GET_SREGS", sregs)
        for name in wholes & _SREGS.keys():
            offset, fmt = _SREGS[name]
            values[name] = struct.unpack_from("=" + fmt, sregs, offset)[0]
    if any(name.startswith("xmm") for name in wholes):
        xsave = ctypes.create_string_buffer(uapi.XSAVE)
        vcpu.ioctl("KVM_GET_XSAVE", xsave)
        for name in wholes:
            if name.startswith("xmm"):
                values[name] = int.from_bytes(struct.unpack_from("=16s", xsave, _XMM0 + 16 * int(name[3:]))[0], "little")
    return {name: get(x86_64.REGISTERS, values, name) for name in wanted}


def write(vcpu: Vcpu, regs: Mapping[str, int]) -> None:
    """Set registers by name; what is not named keeps its value."""
    wholes = {base(x86_64.REGISTERS, name) for name in regs}
    general = wholes & _INDEX.keys()
    if general:
        buffer = ctypes.create_string_buffer(uapi.REGS_X86)
        if len(general) < len(_INDEX):
            vcpu.ioctl("KVM_GET_REGS", buffer)
        values = dict(zip(x86_64.KVM_REGS, struct.unpack(_REGS_FORMAT, buffer)))
        for name, value in regs.items():
            if base(x86_64.REGISTERS, name) in _INDEX:
                put(x86_64.REGISTERS, values, name, value)
        struct.pack_into(_REGS_FORMAT, buffer, 0, *(values[name] for name in x86_64.KVM_REGS))
    if wholes & _SREGS.keys():
        _write_sregs(vcpu, {name: value for name, value in regs.items() if base(x86_64.REGISTERS, name) in _SREGS})
    if general:
        vcpu.ioctl("KVM_SET_REGS", buffer)
    xmm = {name: value for name, value in regs.items() if name.startswith("xmm")}
    if xmm:
        _write_xmm(vcpu, xmm)


def _write_sregs(vcpu: Vcpu, regs: Mapping[str, int]) -> None:
    sregs = ctypes.create_string_buffer(uapi.SREGS_X86)
    vcpu.ioctl("KVM_GET_SREGS", sregs)
    for name, value in regs.items():
        offset, fmt = _SREGS[base(x86_64.REGISTERS, name)]
        struct.pack_into("=" + fmt, sregs, offset, value)
    vcpu.ioctl("KVM_SET_SREGS", sregs)


def _write_xmm(vcpu: Vcpu, regs: Mapping[str, int]) -> None:
    xsave = ctypes.create_string_buffer(uapi.XSAVE)
    vcpu.ioctl("KVM_GET_XSAVE", xsave)
    for name, value in regs.items():
        struct.pack_into("=16s", xsave, _XMM0 + 16 * int(name[3:]), value.to_bytes(16, "little"))
    # Without its bit in XSTATE_BV the SSE state is taken as initial.
    features = struct.unpack_from("=Q", xsave, _XSTATE_BV)[0]
    struct.pack_into("=Q", xsave, _XSTATE_BV, features | 2)
    vcpu.ioctl("KVM_SET_XSAVE", xsave)
