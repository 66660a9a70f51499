"""Why KVM_SET_SREGS refuses what was written: kvm_is_valid_sregs and kvm_set_apic_base of
arch/x86/kvm as rules. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kvmscen.sent.arch import x86_64
from kvmscen.sent.arch.registers import base, put
from kvmscen.sent.machine import Machine

_PE, _NW, _CD, _PG = 1, 1 << 29, 1 << 30, 1 << 31
_PAE = 1 << 5
# KVM's reset state, which real mode begins with: CD, NW and ET.
_CR0_RESET = 0x60000010
_LME, _LMA = 1 << 8, 1 << 10
# Bits of CR4 that KVM takes only where the vCPU's CPUID has the feature.
_CR4 = {
    11: "UMIP",
    12: "LA57",
    13: "VMXE",
    14: "SMXE",
    16: "FSGSBASE",
    17: "PCIDE",
    18: "OSXSAVE",
    20: "SMEP",
    21: "SMAP",
    22: "PKE",
    23: "CET",
    24: "PKS",
    27: "LASS",
    28: "LAM_SUP",
    32: "FRED",
}
_CR4_ALWAYS = 0x7FF
_APIC_RESERVED, _APIC_ENABLE, _X2APIC = 0x2FF, 1 << 11, 1 << 10


def complaints(regs: Mapping[str, int]) -> Iterator[str]:
    """Each rule that these special registers break, with the bits and the values."""
    cr0, cr3, cr4, efer = (regs.get(name, 0) for name in ("cr0", "cr3", "cr4", "efer"))
    if efer & _LME and cr0 & _PG:
        if not cr4 & _PAE:
            yield f"EFER.LME and CR0.PG are set, so CR4.PAE (bit 5) must be: cr4 {cr4:#x} lacks it"
        if not efer & _LMA:
            yield (
                f"EFER.LME and CR0.PG are set, so EFER.LMA (bit 10) must be: efer {efer:#x} "
                f"lacks it"
            )
        if cr3 >> 52:
            yield f"cr3 {cr3:#x} has bits above the physical addresses of any CPU (52 bits)"
    else:
        lacks = " and ".join(
            ["EFER.LME (bit 8)"] * (not efer & _LME) + ["CR0.PG (bit 31)"] * (not cr0 & _PG)
        )
        if efer & _LMA:
            yield f"EFER.LMA (bit 10) is set, so {lacks} must be: cr0 is {cr0:#x}, efer {efer:#x}"
        if regs.get("cs.l"):
            yield (
                f"cs.l is set, so the vCPU must be in long mode, and {lacks} is not set: cr0 is "
                f"{cr0:#x}, efer {efer:#x}"
            )
    if cr0 & _PG and not cr0 & _PE:
        yield f"CR0.PG (bit 31) is set without CR0.PE (bit 0): cr0 is {cr0:#x}"
    if cr0 & _NW and not cr0 & _CD:
        yield f"CR0.NW (bit 29) is set without CR0.CD (bit 30): cr0 is {cr0:#x}"
    if cr0 >> 32:
        yield f"cr0 {cr0:#x} has bits above 31 set"
    yield from _apic(regs.get("apic_base"))


def _apic(value: int | None) -> Iterator[str]:
    if value is None:
        return
    if value & _APIC_RESERVED:
        yield f"apic_base {value:#x} has reserved bits ({value & _APIC_RESERVED:#x}) set"
    if value & _X2APIC and not value & _APIC_ENABLE:
        yield f"apic_base {value:#x} has the x2APIC enabled (bit 10) and the APIC not (bit 11)"


def doubts(regs: Mapping[str, int]) -> list[str]:
    """Bits of CR4 that KVM may refuse, since the CPU or the vCPU's CPUID may lack them."""
    cr4 = regs.get("cr4", 0) & ~_CR4_ALWAYS
    return [f"CR4.{_CR4[n]}" if n in _CR4 else f"bit {n} of CR4" for n in range(64) if cr4 >> n & 1]


def refused(machine: Machine, op: str | None, written: Mapping[str, int]) -> str | None:
    """The hint for a KVM_SET_SREGS that failed with EINVAL: of the vCPU's start, or of set_regs
    with these registers.
    """
    plan = machine.vcpus[0]
    state = x86_64.boot(plan.mode, machine.tables.at if machine.tables is not None else None)
    if plan.mode == "real":
        state["cr0"] = _CR0_RESET
    start = (op or "").startswith("vcpus/")
    for name, value in plan.regs.items():
        put(x86_64.REGISTERS, state, name, value)
    if not start:
        for name, value in written.items():
            put(x86_64.REGISTERS, state, name, value)
    named = {base(x86_64.REGISTERS, name) for name in (plan.regs if start else written)}
    wrong = list(
        complaints(
            state
            if start or "apic_base" in named
            else {k: v for k, v in state.items() if k != "apic_base"}
        )
    )
    if not start and not (op or "").startswith("setup/"):
        wrong = [f"{say}, if the guest has not changed the others since its start" for say in wrong]
    if wrong:
        return "KVM refuses these registers together: " + "; ".join(wrong)
    maybe = doubts(state)
    if maybe:
        real = " (in real mode it has none)" if plan.mode == "real" else ""
        are = ", ".join(maybe)
        return (
            f"KVM takes {are} only where the CPU and the vCPU's CPUID have the feature{real}: "
            f"leave out what this host lacks"
        )
    return "a bit of the registers written is reserved on this CPU"
