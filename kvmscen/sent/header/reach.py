"""Capabilities that can be enabled, and which of them reach beyond the VM. KVM API 6 and 7.

Beyond it is what takes a protection from the host, touches another VM or the memory of the process
that asks, or lets a guest keep a CPU from others. CPU time of its own thread and memory of its own
slots are not.
"""

from __future__ import annotations

from kvmscen.sent.header.caps import CAPABILITIES

_WITHIN = """
    PPC_OSI PPC_PAPR PPC_EPR PPC_BOOKE_WATCHDOG IRQ_MPIC IRQ_XICS PPC_IRQ_XIVE S390_CSS_SUPPORT
    S390_IRQCHIP MIPS_FPU MIPS_MSA
    HYPERV_SYNIC HYPERV_SYNIC2 HYPERV_DIRECT_TLBFLUSH HYPERV_ENFORCE_CPUID ENFORCE_PV_FEATURE_CPUID
    PPC_ENABLE_HCALL PPC_SMT PPC_FWNMI PPC_NESTED_HV PPC_SECURE_GUEST PPC_DAWR1
    S390_USER_SIGP S390_VECTOR_REGISTERS S390_USER_STSI S390_RI S390_USER_INSTR0 S390_GS S390_AIS
    S390_HPAGE_1M S390_CPU_TOPOLOGY
    S390_USER_OPEREXEC
    SPLIT_IRQCHIP X2APIC_API MSR_PLATFORM_INFO EXCEPTION_PAYLOAD HALT_POLL X86_USER_SPACE_MSR
    X86_BUS_LOCK_EXIT EXIT_HYPERCALL
    EXIT_ON_EMULATION_FAILURE PMU_CAPABILITY DISABLE_QUIRKS DISABLE_QUIRKS2 X86_TRIPLE_FAULT_EVENT
    X86_NOTIFY_VMEXIT MAX_VCPU_ID
    X86_APIC_BUS_CYCLES_NS
    MANUAL_DIRTY_LOG_PROTECT2 DIRTY_LOG_RING DIRTY_LOG_RING_ACQ_REL DIRTY_LOG_RING_WITH_BITMAP
    ARM_NISV_TO_USER ARM_MTE ARM_SYSTEM_SUSPEND ARM_EAGER_SPLIT_CHUNK_SIZE ARM_WRITABLE_IMP_ID_REGS
    ARM_SEA_TO_USER
    RISCV_MP_STATE_RESET
"""
# What they do to whom, as "KVM_CAP_X ..." goes on.
BEYOND: dict[str, str] = {
    "KVM_CAP_VM_DISABLE_NX_HUGE_PAGES": "takes a protection from the host: on some CPUs the guest "
    "can then halt it",
    "KVM_CAP_X86_DISABLE_EXITS": "lets the guest keep a CPU of the host while it waits, in a state "
    "that it chooses",
    "KVM_CAP_SGX_ATTRIBUTE": "gives the guest a key of the host (SGX provisioning)",
    "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM": "lets the VM into the encrypted memory of another",
    "KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM": "takes the encrypted memory from another VM",
    "KVM_CAP_HYPERV_ENLIGHTENED_VMCS": "has KVM write to an address of the process that asks, "
    "which args name",
    "KVM_CAP_SW_TLB": "has KVM use memory of the process that asks, which args name",
}
# Name to what it does beyond the VM, empty where nothing. Others only tell what KVM can do: it
# refuses to enable them.
REACH: dict[str, str] = {**{f"KVM_CAP_{name}": "" for name in _WITHIN.split()}, **BEYOND}
_BEYOND = {CAPABILITIES[name]: name for name in BEYOND}


def beyond(number: int) -> str:
    """What a capability does beyond the VM, with its name, by its number; empty where nothing."""
    if number > max(CAPABILITIES.values()):
        return (
            f"capability {number} is newer than this kvmscen, so that nobody has looked what "
            f"it does to the host"
        )
    name = _BEYOND.get(number)
    return f"{name} {BEYOND[name]}" if name else ""
