"""x86: instructions by what is special in them for the model, as Capstone writes their names."""

from __future__ import annotations

PORTS = frozenset(("in", "out", "insb", "insw", "insd", "outsb", "outsw", "outsd"))
FLUSHES = frozenset(("clflush", "clflushopt", "clwb"))
MSRS = frozenset(("rdmsr", "wrmsr"))
# What a host's CPU, kernel or clock says, or what changes what the model relies on.
REFUSED = frozenset(
    (
        *"cpuid rdtsc rdtscp rdpmc rdrand rdseed xgetbv xsetbv rdpid rdpru".split(),
        *"syscall sysret sysretq sysenter sysexit vmcall vmmcall vmrun vmload vmsave".split(),
        *"mwait monitor mwaitx monitorx clgi stgi skinit invlpga invpcid rsm getsec".split(),
        *"""
            rdfsbase rdgsbase wrfsbase wrgsbase rdpkru wrpkru clac stac xbegin xend xabort xtest
        """.split(),
        *"""
            xsave xsave64 xsavec xsavec64 xsaveopt xsaveopt64 xsaves xsaves64 xrstor xrstor64
        """.split(),
        *("fxsave", "fxsave64", "fxrstor", "fxrstor64", "ldmxcsr", "fldenv", "frstor"),
        # What they approximate differs between processors.
        *"rcpps rcpss rsqrtps rsqrtss fsin fcos fsincos fptan fpatan f2xm1 fyl2x fyl2xp1".split(),
        *("lmsw", "ltr", "lldt", "str", "sldt", "verr", "verw", "lar", "lsl"),
    )
)
# At CPL 3 of PVM these show the host's, and elsewhere what UMIP lets them.
TABLES = frozenset(("sgdt", "sidt", "smsw"))
POPS = frozenset(("popf", "popfd", "popfq"))
FAR = frozenset(("iret", "iretd", "iretq", "retf", "retfq", "lcall", "ljmp"))
SEGMENT_LOADS = frozenset(("lds", "les", "lfs", "lgs", "lss"))
DEBUG = tuple(f" dr{n}" for n in range(8))
# Moves of 16 bytes that need not be aligned.
UNALIGNED = frozenset(
    ("movups", "movupd", "movdqu", "lddqu", "pcmpestri", "pcmpestrm", "pcmpistri", "pcmpistrm")
)
# What shows the flags of floating point, and what sets those.
SHOW_FLAGS = frozenset(("stmxcsr", "fnstsw", "fnstenv", "fnsave"))
SSE_COMPUTES = ("cvt", "sqrt", "min", "max", "cmp", "comis", "ucomis", "rcp", "rsqrt")
WITHOUT_FLAGS = frozenset(
    ("fninit", "fnclex", "fwait", "wait", "fnop", "fldcw", "fnstcw", "fnstsw", "femms")
)
SCANS = frozenset(("bsf", "bsr"))


def needs_alignment(name: str, operands: str) -> bool:
    """Whether an operand of 16 bytes in memory must be aligned."""
    return "xmmword ptr" in operands and name not in UNALIGNED and name[0] != "v"
