"""Names that people know from elsewhere: what each is called here, or that it is not there, so that
no near name is offered.
"""

from __future__ import annotations

import re

_ARCHES = {
    "x86_64": tuple(
        "amd64 x64 x86-64 x86 x8664 i386 i486 i586 i686 ia32 x86_32 intel em64t".split()
    ),
    "arm64": ("aarch64", "arm", "armv8", "armv8-a", "aarch32", "arm32", "armv7", "a64", "armv9"),
    "riscv64": ("riscv", "risc-v", "rv64", "rv64gc", "riscv32", "rv32", "rv64i"),
}
_NARROW = {
    **dict.fromkeys(
        ("i386", "i486", "i586", "i686", "ia32", "x86_32"), "with `mode: protected` for 32-bit code"
    ),
    **dict.fromkeys(
        ("aarch32", "arm32", "armv7", "riscv32", "rv32"), "32-bit guests are not offered"
    ),
}


def arch(word: str) -> str | None:
    """What to say of another name of an architecture; None where it is none."""
    folded = word.lower().replace(" ", "")
    for name, others in _ARCHES.items():
        if folded in others or (folded == name and word != name):
            return f"`{word}` is called `{name}` here: write `arch: {name}`" + (
                f", {_NARROW[folded]}" if folded in _NARROW else ""
            )
    return None


# --- how a guest ends -----------------------------------------------------------------------------

ENDS = {
    "arm64": "an arm64 guest ends by PSCI SYSTEM_OFF (`ldr w0, =0x84000008`, `hvc #0`): write "
    "`system_event: {type: shutdown}`",
    "riscv64": (
        "a riscv64 guest ends by SBI's system reset (`li a7, 0x53525354`, `li a6, 0`, `li a0, 0`, "
        "`li a1, 0`, `ecall`): "
        "write `system_event: {type: shutdown}`"
    ),
    "x86_64": "an x86_64 guest ends by `hlt`: write `hlt`",
}
# Exits by which guests of other architectures end.
ENDING = ("hlt", "shutdown")


# --- registers ------------------------------------------------------------------------------------

_SYSREG = re.compile(
    r"(?:actlr|afsr[01]|amair2?|mair2|apia\w+|apib\w+|apd\w+|apga\w+|ccsidr2?|clidr|csselr|ctr|dczid|midr|mpidr|revidr|mdscr|mdccsr|mdrar"
    r"|dbg\w+|osl[as]r|osdlr|osdtr\w+|oseccr|cnt\w+|pm\w+|icc_\w+|ich_\w+|id_\w+|mvfr\d|tcr2|sctlr2|pire?0?|por|gcr|rgsr|tfsre?0?"
    r"|isr|rvbar|rmr|hcr|hcrx|hstr|vttbr|vtcr|vmpidr|vpidr|scxtnum|smpri|smidr|lor\w*|err\w+|erx\w+|disr|trf\w+|brb\w+|cptr|spsr_\w+"
    r")_el[0-3]|[a-z][a-z0-9_]*_el(?:2|3|12)|spsr_(?:abt|und|irq|fiq)|rndr(?:rs)?|currentel"
)
_SVE = re.compile(r"(?:z(?:[12]?\d|3[01])|p(?:\d|1[0-5])|ffr|vg|zcr_el1|smcr_el1|svcr)")
_PART_OF_PSTATE = tuple("nzcv daif currentel cpsr spsel pan uao dit ssbs apsr".split())
_DEBUG_REGISTER = re.compile(r"(?:dr[0-7]|db[0-7])")
_MSR = re.compile(
    r"(?:msr_?\w+|l?star|cstar|sfmask|fmask|tsc(?:_aux)?|kernel_gs_?base|sysenter_\w+|pat|mtrr\w*|spec_ctrl|xss|misc_enable)"
)
_WIDE = re.compile(
    r"(?:[yz]mm(?:[12]?\d|3[01])|xmm(?:1[6-9]|2\d|3[01])|k[0-7]|tmm[0-7]|bnd[0-3]|r(?:1[6-9]|2\d|3[01]))"
)
_X87 = re.compile(r"(?:st\(?\d\)?|mm[0-7]|mxcsr|fcw|fsw|ftw|fop|fip|fdp)")
_CSR = re.compile(
    r"m(?:status|isa|edeleg|ideleg|ie|tvec|scratch|epc|cause|tval|ip|hartid|vendorid|archid|impid|envcfg|counteren)"
    r"|h(?:status|edeleg|ideleg|vip|ip|ie|gatp|timedelta|envcfg)|vs(?:status|ie|tvec|scratch|epc|cause|tval|ip|atp)"
    r"|stimecmp|sstateen\d|scountovf|siselect|sireg|stopei|stopi|time|cycle|instret|hpmcounter\d+"
    r"|vl|vtype|vlenb|vstart|v(?:[12]?\d|3[01])|fflags|frm"
)
_SAME = {
    "arm64": {
        "xzr": "it is always 0: leave it out",
        "wzr": "it is always 0: leave it out",
        **dict.fromkeys(("x31", "w31"), "registers are x0 to x30, 31 is xzr or the stack pointer"),
    },
    "riscv64": {"zero": "it is always 0: leave it out", "x0": "it is always 0: leave it out"},
    "x86_64": {
        "gdtr": "write `gdt: {base: ..., limit: ...}`",
        "idtr": "write `idt: {base: ..., limit: ...}`",
        "ldtr": "write `ldt`",
        "task": "write `tr`",
        "apicbase": "write `apic_base`",
        "msr_efer": "write `efer`",
        **{f"r{n}l": f"write `r{n}b`" for n in range(8, 16)},
        "fsbase": "write `fs: {base: ...}`",
        "gsbase": "write `gs: {base: ...}`",
        **{
            f"{name}_base": f"write `{name}: {{base: ...}}`"
            for name in ("cs", "ds", "es", "fs", "gs", "ss")
        },
    },
}


def register(key: str, arch: str) -> str | None:
    """What to say of a register that the architecture has, and kvmscen has not, or calls otherwise;
    None for any other.
    """
    name = key.lower()
    if name in _SAME[arch]:
        return _SAME[arch][name]
    if arch == "arm64":
        if numbered := re.fullmatch(r"r([12]?\d|30)", name):
            return f"write `x{numbered[1]}`"
        if name in _PART_OF_PSTATE:
            return "it is a part of `pstate`: write that"
        if _SVE.fullmatch(name):
            return "not yet: registers of SVE and SME"
        return "not yet: this system register" if _SYSREG.fullmatch(name) else None
    if arch == "x86_64":
        if _DEBUG_REGISTER.fullmatch(name):
            return (
                "of the guest not yet; for breakpoints of the host write `set_guest_debug` "
                "with `debugreg`"
            )
        if _MSR.fullmatch(name):
            return "not yet: MSRs, but for `efer` and `apic_base`; the guest can write it by wrmsr"
        if name == "xcr0" or _WIDE.fullmatch(name):
            return "not yet: extended state (XCR0, AVX, AMX, APX)"
        return "not yet: x87 and MMX state" if _X87.fullmatch(name) else None
    return "not yet: this CSR or register" if _CSR.fullmatch(name) else None


# --- actions --------------------------------------------------------------------------------------

# Ioctls of KVM that are no action, and what is written for them.
_INSTEAD = {
    "get_regs": "write `regs` beside an exit or in `final`: registers are compared there",
    "get_sregs": "write `regs` beside an exit or in `final`: registers are compared there",
    "get_fpu": "write `regs` beside an exit or in `final`: registers are compared there",
    "get_one_reg": "write `regs` beside an exit or in `final`: registers are compared there",
    "set_sregs": "write `set_regs`: it sets segments and control registers too",
    "set_user_memory_region": "write `set_memslot`",
    "enable_cap": "write `enable: NAME`",
    "check_extension": "write `requires: {capabilities: NAME}`",
    "create_vm": "kvmscen makes the VM itself: leave it out",
    "create_vcpu": "write `vcpus`: kvmscen makes them itself",
    "run": "kvmscen enters the guest after each action: leave it out",
    "arm_vcpu_init": "write `features: [...]`: kvmscen calls it with them",
    "arm_preferred_target": "kvmscen asks for it itself: leave it out",
    "arm_vcpu_finalize": "write `features: [sve]`: kvmscen calls it for them",
    "set_cpuid2": "the vCPU gets what KVM_GET_SUPPORTED_CPUID says",
    "set_signal_mask": "a timeout is written as a step: `timeout: 0.05`",
    "set_tss_addr": "kvmscen calls it itself where it is needed: leave it out",
}
_KVM = """
get_regs get_sregs get_sregs2 set_sregs2 get_fpu get_xsave get_xsave2 get_xcrs get_msrs
get_msr_index_list
get_msr_feature_index_list get_one_reg get_reg_list get_vcpu_events get_debugregs get_lapic
get_mp_state get_cpuid2
get_supported_cpuid get_emulated_cpuid get_supported_hv_cpuid get_tsc_khz get_clock get_irqchip
set_irqchip get_pit get_pit2
set_pit set_pit2 get_device_attr has_device_attr get_nested_state set_nested_state get_stats_fd
get_api_version
set_user_memory_region set_user_memory_region2 set_tss_addr set_identity_map_addr set_boot_cpu_id
set_cpuid set_signal_mask
enable_cap check_extension create_vm create_vcpu run arm_preferred_target arm_vcpu_finalize
arm_set_device_addr
arm_set_counter_offset arm_mte_copy_tags memory_encrypt_op memory_encrypt_reg_region
memory_encrypt_unreg_region
xen_hvm_config xen_hvm_get_attr xen_hvm_set_attr xen_vcpu_get_attr xen_vcpu_set_attr hyperv_eventfd
set_vapic_addr
tpr_access_reporting x86_setup_mce x86_set_mce x86_get_mce_cap_supported set_pmu_event_filter
assign_set_msix_nr
get_stats
"""
_IOCTLS = frozenset(_KVM.split())


def action(word: str, later: tuple[str, ...], here: tuple[str, ...]) -> str | None:
    """What to say of an ioctl of KVM that is no action: not yet, or what is written for it; None
    where it is no ioctl.
    """
    name = word.lower().removeprefix("kvm_")
    if name in here:
        return f"write `{name}`: an action is named as its ioctl without KVM_, in lower case"
    if name in _INSTEAD:
        says = "not yet: the action" if name in later else "no action is called"
        return f"{says} `{name}`; {_INSTEAD[name]}"
    if name in later or name in _IOCTLS:
        return f"not yet: the action `{name}`"
    return None
