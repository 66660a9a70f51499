"""x86 state to and from KVM: struct kvm_regs, kvm_sregs and kvm_xsave by register name (KVM API
4.11 to 4.14, 4.42, 4.43).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from kvmscen.sent.arch import x86_64
from kvmscen.sent.arch.registers import base, get, put
from kvmscen.sent.header import uapi
from kvmscen.sent.kvm.fds import SYNC_REGS, Kvm, Vcpu, Vm
from kvmscen.sent.machine import Machine
from kvmscen.sent.machine import Vcpu as VcpuPlan

GENERAL = x86_64.GENERAL
_REGS = struct.Struct("=18Q")
_RIP = struct.Struct("=Q")
_INDEX = {name: n for n, name in enumerate(x86_64.KVM_REGS)}
_RIP_AT = 8 * _INDEX["rip"]
_RegsBuffer = ctypes.c_char * uapi.REGS_X86
_SregsBuffer = ctypes.c_char * uapi.SREGS_X86
_XMM0 = 160
_XSTATE_BV = 512
_RUN_CR8 = 16
_SYNC_X86_REGS = 1  # KVM_SYNC_X86_REGS: struct kvm_regs comes first of what is synced


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
    """A VM; on Intel with the three pages that it needs for real mode, below the engine's own
    slot.
    """
    vm = kvm.create_vm()
    if flavour == "vmx":
        vm.ioctl("KVM_SET_TSS_ADDR", tss_at(machine))
    return vm


def tss_at(machine: Machine) -> int:
    """Where the pages for Intel lie: below the engine's own slot; without one at the same place, or
    lower if that is taken.
    """
    if machine.tables is not None:
        return machine.tables.at - x86_64.TSS_BELOW
    ranges = [(slot.gpa, slot.size) for slot in machine.memslots if slot.errno is None]
    ranges += [(part.gpa, part.size) for part in machine.devices]
    ranges += [(args["gpa"], args["size"]) for args in _later_slots(machine)]
    at = x86_64.TABLES_AT - x86_64.TSS_BELOW
    while clash := next(
        (t for t in ranges if t[0] < at + x86_64.TSS_SIZE and at < t[0] + t[1]), None
    ):
        at = (clash[0] - x86_64.TSS_SIZE) & ~0xFFFF
    return max(at, 0)


def _later_slots(machine: Machine) -> Iterator[Mapping[str, Any]]:
    actions = list(machine.setup)
    steps = [step for vcpu in machine.vcpus for step in vcpu.script or ()]
    while steps:
        step = steps.pop()
        steps += step.steps
        actions += step.then or ()
    return (
        action.args for action in actions if action.name == "set_memslot" and action.errno is None
    )


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


@lru_cache(maxsize=16)
def _boot_state(mode: str, at: int | None) -> tuple[dict[str, int], tuple[tuple[int, bytes], ...]]:
    """The general registers of a mode, and what it puts where into struct kvm_sregs: every VM of a
    run boots alike.
    """
    regs = x86_64.boot(mode, at)
    pieces: list[tuple[int, bytes]] = []
    for offset, fmt, value in sorted(
        (*_SREGS[name], value) for name, value in regs.items() if name in _SREGS
    ):
        data = struct.pack("=" + fmt, value)
        if pieces and pieces[-1][0] + len(pieces[-1][1]) == offset:
            offset, data = pieces[-1][0], pieces.pop()[1] + data
        pieces.append((offset, data))
    return {name: regs[name] for name in x86_64.KVM_REGS}, tuple(pieces)


_fresh: dict[tuple[int, bool], bytes] = {}


def _fresh_sregs(vcpu: Vcpu, plan: VcpuPlan, machine: Machine) -> bytes:
    """struct kvm_sregs of a vCPU that was just made: the same in each VM of one kernel, for the
    same number and CPUID.
    """
    # A capability may give it a local APIC, and with that another apic_base.
    key = None if machine.enable else (plan.id, plan.mode == "real")
    if key is not None and key in _fresh:
        return _fresh[key]
    sregs = _SregsBuffer()
    vcpu.ioctl("KVM_GET_SREGS", sregs)
    if key is not None:
        _fresh[key] = bytes(sregs)
    return bytes(sregs)


@lru_cache(maxsize=64)
def _boot_sregs(fresh: bytes, mode: str, at: int | None) -> bytes:
    """struct kvm_sregs of a vCPU that was just made, put into its mode."""
    sregs = bytearray(fresh)
    for offset, data in _boot_state(mode, at)[1]:
        sregs[offset : offset + len(data)] = data
    return bytes(sregs)


def boot(kvm: Kvm, vm: Vm, vcpu: Vcpu, plan: VcpuPlan, machine: Machine) -> None:
    """Put a new vCPU into its mode with its registers set."""
    if machine.measure is None and kvm.sync_regs & _SYNC_X86_REGS:
        # What is timed is KVM_RUN alone.
        vcpu.sync(_SYNC_X86_REGS)
    if plan.mode != "real":
        vcpu.ioctl("KVM_SET_CPUID2", _supported_cpuid(kvm))
    at = machine.tables.at if machine.tables is not None else None
    regs, others = dict(_boot_state(plan.mode, at)[0]), {}
    for name, value in plan.regs.items():
        if base(x86_64.REGISTERS, name) in _INDEX:
            put(x86_64.REGISTERS, regs, name, value)
            continue
        others[name] = value
    fresh = _fresh_sregs(vcpu, plan, machine)
    sregs = _SregsBuffer.from_buffer_copy(_boot_sregs(fresh, plan.mode, at))
    if others:
        _put_sregs(sregs, others)
    vcpu.ioctl("KVM_SET_SREGS", sregs)
    if others:
        _write_cr8(vcpu, others)
    _set_regs(vcpu, regs)
    if others:
        _write_xmm(vcpu, others)


def _set_regs(vcpu: Vcpu, regs: Mapping[str, int]) -> None:
    """KVM_SET_REGS: all of struct kvm_regs, in its order."""
    vcpu.ioctl("KVM_SET_REGS", _RegsBuffer.from_buffer_copy(_REGS.pack(*regs.values())))


def pc(vcpu: Vcpu) -> int:
    """rip as KVM returns it."""
    if vcpu.synced:
        return ctypes.c_uint64.from_address(vcpu.kvm_run + SYNC_REGS + _RIP_AT).value
    return int(_RIP.unpack_from(_regs(vcpu), _RIP_AT)[0])


def _regs(vcpu: Vcpu) -> Any:
    """struct kvm_regs: out of struct kvm_run where it is there, else by KVM_GET_REGS."""
    if vcpu.synced:
        return vcpu.bytes_at(SYNC_REGS, uapi.REGS_X86)
    buffer = _RegsBuffer()
    vcpu.ioctl("KVM_GET_REGS", buffer)
    return buffer


def read(vcpu: Vcpu, names: Iterable[str]) -> dict[str, int]:
    """Registers and views of them by name."""
    wanted = list(names)
    values = dict(zip(x86_64.KVM_REGS, _REGS.unpack(_regs(vcpu))))
    others = {base(x86_64.REGISTERS, name) for name in wanted if name not in _INDEX} - _INDEX.keys()
    if others & _SREGS.keys():
        sregs = _SregsBuffer()
        vcpu.ioctl("KVM_GET_SREGS", sregs)
        for name in others & _SREGS.keys():
            offset, fmt = _SREGS[name]
            values[name] = struct.unpack_from("=" + fmt, sregs, offset)[0]
    if any(name.startswith("xmm") for name in others):
        xsave = ctypes.create_string_buffer(uapi.XSAVE)
        vcpu.ioctl("KVM_GET_XSAVE", xsave)
        for name in others:
            if name.startswith("xmm"):
                values[name] = int.from_bytes(
                    struct.unpack_from("=16s", xsave, _XMM0 + 16 * int(name[3:]))[0], "little"
                )
    return {
        name: values[name] if name in values else get(x86_64.REGISTERS, values, name)
        for name in wanted
    }


def write(vcpu: Vcpu, regs: Mapping[str, int]) -> None:
    """Set registers by name; what is not named keeps its value."""
    wholes = {base(x86_64.REGISTERS, name) for name in regs}
    general = wholes & _INDEX.keys()
    if general:
        values = dict(zip(x86_64.KVM_REGS, _REGS.unpack(_regs(vcpu))))
        for name, value in regs.items():
            if base(x86_64.REGISTERS, name) in _INDEX:
                put(x86_64.REGISTERS, values, name, value)
    if wholes & _SREGS.keys():
        sregs = _SregsBuffer()
        vcpu.ioctl("KVM_GET_SREGS", sregs)
        _put_sregs(sregs, regs)
        vcpu.ioctl("KVM_SET_SREGS", sregs)
        _write_cr8(vcpu, regs)
    if general:
        _set_regs(vcpu, values)
    _write_xmm(vcpu, regs)


def _put_sregs(sregs: ctypes.Array[ctypes.c_char], regs: Mapping[str, int]) -> None:
    for name, value in regs.items():
        whole = base(x86_64.REGISTERS, name)
        if whole in _SREGS:
            offset, fmt = _SREGS[whole]
            struct.pack_into("=" + fmt, sregs, offset, value)
        if name in x86_64.SEGMENTS and f"{name}.base" not in regs and not _cr0(sregs) & 1:
            # In real mode the base follows from the selector, as when the guest loads it.
            struct.pack_into("=Q", sregs, _SREGS[f"{name}.base"][0], value << 4)


def _cr0(sregs: ctypes.Array[ctypes.c_char]) -> int:
    """CR0, whose bit 0 (PE) is clear in real mode."""
    return int(struct.unpack_from("=Q", sregs, _SREGS["cr0"][0])[0])


def _write_cr8(vcpu: Vcpu, regs: Mapping[str, int]) -> None:
    # Without an irqchip KVM_RUN takes cr8 from struct kvm_run, whatever KVM_SET_SREGS said (KVM API
    # 5, "cr8").
    if "cr8" in regs:
        vcpu.put(_RUN_CR8, struct.pack("=Q", regs["cr8"]))


def _write_xmm(vcpu: Vcpu, regs: Mapping[str, int]) -> None:
    """Set those of `regs` that are xmm registers."""
    wide = {name: value for name, value in regs.items() if name.startswith("xmm")}
    if not wide:
        return
    xsave = ctypes.create_string_buffer(uapi.XSAVE)
    vcpu.ioctl("KVM_GET_XSAVE", xsave)
    for name, value in wide.items():
        struct.pack_into("=16s", xsave, _XMM0 + 16 * int(name[3:]), value.to_bytes(16, "little"))
    # Without its bit in XSTATE_BV the SSE state is taken as initial.
    features = struct.unpack_from("=Q", xsave, _XSTATE_BV)[0]
    struct.pack_into("=Q", xsave, _XSTATE_BV, features | 2)
    vcpu.ioctl("KVM_SET_XSAVE", xsave)
