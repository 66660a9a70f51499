"""The exit table: what KVM_RUN can return with, one row an exit reason.

Names are the lower-case suffixes of KVM_EXIT_ in <linux/kvm.h>, fields the members of the matching
struct in the union of `struct kvm_run` (KVM API, section 5 "The kvm_run structure"). To add an exit
reason, add a row; `python schema/generate.py` carries it into the JSON Schema.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# Offset of the union in struct kvm_run, and its size.
UNION = 32
UNION_SIZE = 256

Value = Any  # int, or a list of int for an array member


class Field(NamedTuple):
    """One member. `offset` is in bytes from the start of the union, `fmt` a struct character,
    `length` > 1 an array.
    """

    name: str
    offset: int
    fmt: str
    length: int = 1
    names: dict[str, int] = {}
    text: str = ""


class Exit(NamedTuple):
    """One exit reason.

    `where` are the fields that tell one such exit from another (the rest is what the exit holds),
    `reply` those that user space writes back, `ends` whether a vCPU ends at it when the step has no
    `then`, `completes` whether the instruction is completed only by the next KVM_RUN, `archs` where
    it exists (empty: everywhere).
    """

    number: int
    name: str
    fields: tuple[Field, ...] = ()
    where: tuple[str, ...] = ()
    reply: tuple[str, ...] = ()
    ends: bool = False
    completes: bool = False
    archs: tuple[str, ...] = ()
    text: str = ""

    @property
    def constant(self) -> str:
        """The name in <linux/kvm.h>."""
        return "KVM_EXIT_" + self.name.upper()


F = Field
X86, ARM, RISCV = ("x86_64",), ("arm64",), ("riscv64",)
S390, PPC, LOONG = ("s390",), ("powerpc",), ("loongarch",)

_MSR = (
    F("error", 0, "B", text="written by user space: 1 injects #GP"),
    F(
        "reason",
        8,
        "I",
        names={"inval": 1, "unknown": 2, "filter": 4},
        text="why the access left the kernel: a KVM_MSR_EXIT_REASON_",
    ),
    F("index", 12, "I", text="the MSR"),
    F("data", 16, "Q", text="the value"),
)

EXITS: tuple[Exit, ...] = (
    Exit(
        0,
        "unknown",
        (F("hardware_exit_reason", 0, "Q"),),
        ends=True,
        text="an exit that KVM does not know",
    ),
    Exit(1, "exception", (F("exception", 0, "I"), F("error_code", 4, "I")), archs=PPC),
    Exit(
        2,
        "io",
        (
            F("direction", 0, "B", names={"in": 0, "out": 1}),
            F("size", 1, "B", text="bytes of one element: 1, 2 or 4"),
            F("port", 2, "H"),
            F("count", 4, "I", text="elements"),
            F("data_offset", 8, "Q"),
        ),
        where=("port", "direction"),
        reply=("data",),
        completes=True,
        archs=X86,
        text="a port was read or written; `data` is the value, a list when `count` > 1",
    ),
    Exit(
        3,
        "hypercall",
        (
            F("nr", 0, "Q"),
            F("args", 8, "Q", 6),
            F("ret", 56, "Q"),
            F("longmode", 64, "I"),
            F(
                "flags",
                64,
                "Q",
                text="the same place as longmode, by the header of Linux 6.1 and later",
            ),
        ),
        where=("nr",),
        reply=("ret",),
        completes=True,
    ),
    Exit(
        4,
        "debug",
        (),
        completes=False,
        text="a breakpoint or a single step; members of debug.arch stand here directly",
    ),
    Exit(
        5,
        "hlt",
        ends=True,
        archs=(*X86, *S390),
        text="HLT was executed and no irqchip is in the kernel",
    ),
    Exit(
        6,
        "mmio",
        (F("phys_addr", 0, "Q"), F("data", 8, "8s"), F("len", 16, "I"), F("is_write", 20, "B")),
        where=("phys_addr", "is_write"),
        reply=("data",),
        completes=True,
        text="an access outside every memslot, or a write to a read-only one; `data` is the value "
        "of its first `len` bytes",
    ),
    Exit(7, "irq_window_open", archs=X86),
    Exit(8, "shutdown", ends=True, archs=X86, text="a triple fault"),
    Exit(
        9, "fail_entry", (F("hardware_entry_failure_reason", 0, "Q"), F("cpu", 8, "I")), ends=True
    ),
    Exit(10, "intr"),
    Exit(11, "set_tpr", archs=X86),
    Exit(
        12, "tpr_access", (F("rip", 0, "Q"), F("is_write", 8, "I")), where=("is_write",), archs=X86
    ),
    Exit(13, "s390_sieic", (F("icptcode", 0, "B"), F("ipa", 2, "H"), F("ipb", 4, "I")), archs=S390),
    Exit(14, "s390_reset", (F("s390_reset_flags", 0, "Q"),), archs=S390),
    Exit(15, "dcr", (F("dcrn", 0, "I"), F("data", 4, "I"), F("is_write", 8, "B")), archs=PPC),
    Exit(16, "nmi"),
    Exit(
        17,
        "internal_error",
        (
            F(
                "suberror",
                0,
                "I",
                names={
                    "emulation": 1,
                    "simul_ex": 2,
                    "delivery_ev": 3,
                    "unexpected_exit_reason": 4,
                },
                text="a KVM_INTERNAL_ERROR_",
            ),
            F("ndata", 4, "I"),
            F("data", 8, "Q", 16),
        ),
        ends=True,
        text="KVM could not go on, as for an instruction that it cannot emulate",
    ),
    Exit(18, "osi", (F("gprs", 0, "Q", 32),), archs=PPC),
    Exit(
        19,
        "papr_hcall",
        (F("nr", 0, "Q"), F("ret", 8, "Q"), F("args", 16, "Q", 9)),
        ("nr",),
        ("ret",),
        archs=PPC,
    ),
    Exit(20, "s390_ucontrol", (F("trans_exc_code", 0, "Q"), F("pgm_code", 8, "I")), archs=S390),
    Exit(21, "watchdog"),
    Exit(
        22,
        "s390_tsch",
        (
            F("subchannel_id", 0, "H"),
            F("subchannel_nr", 2, "H"),
            F("io_int_parm", 4, "I"),
            F("io_int_word", 8, "I"),
            F("ipb", 12, "I"),
            F("dequeued", 16, "B"),
        ),
        archs=S390,
    ),
    Exit(23, "epr", (F("epr", 0, "I"),), reply=("epr",), archs=PPC),
    Exit(
        24,
        "system_event",
        (
            F(
                "type",
                0,
                "I",
                names={
                    "shutdown": 1,
                    "reset": 2,
                    "crash": 3,
                    "wakeup": 4,
                    "suspend": 5,
                    "sev_term": 6,
                    "tdx_fatal": 7,
                },
                text="a KVM_SYSTEM_EVENT_",
            ),
            F("ndata", 4, "I"),
            F("flags", 8, "Q"),
            F("data", 8, "Q", 16),
        ),
        where=("type",),
        ends=True,
        text="the guest asked to be powered off, reset or suspended, by PSCI or SBI",
    ),
    Exit(
        25,
        "s390_stsi",
        (
            F("addr", 0, "Q"),
            F("ar", 8, "B"),
            F("reserved", 9, "B"),
            F("fc", 10, "B"),
            F("sel1", 11, "B"),
            F("sel2", 12, "H"),
        ),
        archs=S390,
    ),
    Exit(26, "ioapic_eoi", (F("vector", 0, "B"),), where=("vector",), archs=X86),
    Exit(
        27,
        "hyperv",
        (F("type", 0, "I", names={"synic": 1, "hcall": 2, "syndbg": 3}),),
        where=("type",),
        archs=X86,
    ),
    Exit(
        28,
        "arm_nisv",
        (
            F("esr_iss", 0, "Q", text="the ISS bits of ESR_EL2, without ISV"),
            F("fault_ipa", 8, "Q", text="the faulting guest physical address"),
        ),
        where=("fault_ipa",),
        archs=ARM,
        text="an access outside the memslots without a valid syndrome, with "
        "KVM_CAP_ARM_NISV_TO_USER enabled",
    ),
    Exit(
        29, "x86_rdmsr", _MSR, where=("index",), reply=("data", "error"), completes=True, archs=X86
    ),
    Exit(30, "x86_wrmsr", _MSR, where=("index",), reply=("error",), completes=True, archs=X86),
    Exit(31, "dirty_ring_full"),
    Exit(32, "ap_reset_hold", archs=X86),
    Exit(33, "x86_bus_lock", archs=X86),
    Exit(34, "xen", (F("type", 0, "I", names={"hcall": 1}),), where=("type",), archs=X86),
    Exit(
        35,
        "riscv_sbi",
        (
            F("extension_id", 0, "Q"),
            F("function_id", 8, "Q"),
            F("args", 16, "Q", 6),
            F("ret", 64, "Q", 2),
        ),
        where=("extension_id", "function_id"),
        reply=("ret",),
        completes=True,
        archs=RISCV,
    ),
    Exit(
        36,
        "riscv_csr",
        (
            F("csr_num", 0, "Q"),
            F("new_value", 8, "Q"),
            F("write_mask", 16, "Q"),
            F("ret_value", 24, "Q"),
        ),
        where=("csr_num",),
        reply=("ret_value",),
        completes=True,
        archs=RISCV,
    ),
    Exit(
        37,
        "notify",
        (F("flags", 0, "I", names={"context_invalid": 1}, text="a KVM_NOTIFY_"),),
        archs=X86,
    ),
    Exit(
        38,
        "loongarch_iocsr",
        (F("phys_addr", 0, "Q"), F("data", 8, "8s"), F("len", 16, "I"), F("is_write", 20, "B")),
        where=("phys_addr", "is_write"),
        reply=("data",),
        completes=True,
        archs=LOONG,
    ),
    Exit(
        39,
        "memory_fault",
        (
            F("flags", 0, "Q", names={"private": 8}, text="a KVM_MEMORY_EXIT_FLAG_"),
            F("gpa", 8, "Q"),
            F("size", 16, "Q"),
        ),
        where=("gpa",),
        text="KVM_RUN fails with EFAULT or EHWPOISON beside it: write it in an `error` step",
    ),
    Exit(40, "tdx", (F("flags", 0, "Q"), F("nr", 8, "Q")), where=("nr",), archs=X86),
    Exit(
        41,
        "arm_sea",
        (F("flags", 0, "Q"), F("esr", 8, "Q"), F("gva", 16, "Q"), F("gpa", 24, "Q")),
        where=("gpa",),
        archs=ARM,
    ),
    Exit(
        42,
        "arm_ldst64b",
        (F("esr_iss", 0, "Q"), F("fault_ipa", 8, "Q")),
        where=("fault_ipa",),
        archs=ARM,
    ),
    Exit(43, "snp_req_certs", archs=X86),
)

# struct kvm_debug_exit_arch, by architecture.
DR7 = 24
DEBUG_FIELDS: dict[str, tuple[Field, ...]] = {
    "x86_64": (F("exception", 0, "I"), F("pc", 8, "Q"), F("dr6", 16, "Q"), F("dr7", DR7, "Q")),
    "arm64": (F("hsr", 0, "I"), F("hsr_high", 4, "I"), F("far", 8, "Q")),
    "riscv64": (),
}

BY_NAME: dict[str, Exit] = {e.name: e for e in EXITS}
BY_NUMBER: dict[int, Exit] = {e.number: e for e in EXITS}

# What is in no struct member of its own: the data of an io, and what was carried out for the guest
# at an arm_nisv.
_ADDED = {
    "io": (Field("data", 0, "Q"),),
    "arm_nisv": (
        Field(
            "emulated",
            0,
            "B",
            text="the access was carried out for the guest (`undecoded: emulate`)",
        ),
        Field(
            "accesses",
            0,
            "Q",
            64,
            text="its parts, in order: `phys_addr`, `len`, `is_write`, `data`",
        ),
    ),
}
_SKIPPED = ("data_offset",)


def fields_of(name: str, arch: str) -> tuple[Field, ...]:
    """The members of one exit on one architecture, in the header's order; then what is added to
    them.
    """
    if name == "debug":
        return DEBUG_FIELDS.get(arch, ())
    fields = tuple(f for f in BY_NAME[name].fields if f.name not in _SKIPPED)
    return (*fields, *_ADDED.get(name, ()))
