"""arm64: what the model relies on in the guest's state, and why it gives up where that is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kvmscen.sent.undecoded.alignment import M

WXN, EE = 1 << 19, 1 << 25
_KEYS = 1 << 31 | 1 << 30 | 1 << 27 | 1 << 13  # EnIA, EnIB, EnDA, EnDB: pointer authentication
TRANSLATION = ("ttbr0_el1", "ttbr1_el1", "tcr_el1", "mair_el1")
# TCR_EL1: the granules, both of 4 KiB, and what comes above IPS and AS (tags, hardware's own access
# flags, ...).
_GRANULES, _OF_4_KIB, _ABOVE_AS = 3 << 14 | 3 << 30, 2 << 30, 37
_FPCR = 0x7C00000  # AHP, DN, FZ, RMode
_DAIF, _NZCV = 0xF << 6, 0xF << 28
# The bits that every CPU keeps of what the guest writes to a register, where those are not all.
KEPT = {
    "esr_el1": (1 << 32) - 1,
    "spsr_el1": _NZCV | _DAIF | 3 << 20 | 0x1F,
    "cpacr_el1": 3 << 20,
    "tcr_el1": (1 << 37) - 1 & ~(1 << 6 | 1 << 35),
    "ttbr0_el1": ~1,
    "ttbr1_el1": ~1,
    "contextidr_el1": (1 << 32) - 1,
    "fpsr": _NZCV | 1 << 27 | 0x9F,
}
_MODES = (4, 5)  # EL1t, EL1h

RESET_PSTATE = 0x3C5  # EL1h, all exceptions masked
# What KVM_ARM_VCPU_INIT leaves in system registers other than 0: those that the Arm ARM calls
# unknown get one number of KVM's.
_UNKNOWN = 0x1DE7EC7EDBADC0DE
RESET = {
    "pstate": RESET_PSTATE,
    "sctlr_el1": 0xC50078,
    "cpacr_el1": 0,
    **dict.fromkeys(
        ("ttbr0_el1", "ttbr1_el1", "mair_el1", "esr_el1", "far_el1", "par_el1"), _UNKNOWN
    ),
    **dict.fromkeys(("tpidr_el0", "tpidrro_el0", "tpidr_el1"), _UNKNOWN),
}


def unmodelled(values: Mapping[str, int], read: Callable[[str], int]) -> str | None:
    """Why the model cannot follow a guest in whose registers `values` are written over what `read`
    gives, or None.
    """
    sctlr = values.get("sctlr_el1", read("sctlr_el1"))
    if sctlr >> 32 or sctlr & (_KEYS | WXN):
        return (
            f"sctlr_el1 is {sctlr:#x}: the model knows no pointer authentication and no WXN, "
            f"nor what lies above bit 31"
        )
    if sctlr & M and (wrong := _untranslated(values, read, sctlr)):
        return wrong
    if "pstate" in values and (wrong := unmodelled_pstate(values["pstate"])):
        return wrong
    if values.get("fpcr", 0) & ~_FPCR:
        return (
            f"fpcr is {values['fpcr']:#x}: whether a CPU has those bits depends on its extensions"
        )
    if values.get("vbar_el1", 0) & 0x7FF:
        return f"vbar_el1 is {values['vbar_el1']:#x}: what a CPU keeps of its low bits differs"
    return None


def _untranslated(values: Mapping[str, int], read: Callable[[str], int], sctlr: int) -> str | None:
    if sctlr & EE:
        return "a big-endian guest with the MMU on, whose tables are big-endian too"
    changed = [name for name in TRANSLATION if values.get(name, read(name)) != read(name)]
    if changed and read("sctlr_el1") & M:
        return (
            f"{changed[0]} changes while the MMU is on: what the CPU still holds of the old "
            f"tables is for it to say"
        )
    tcr = values.get("tcr_el1", read("tcr_el1"))
    if tcr & _GRANULES != _OF_4_KIB or tcr >> _ABOVE_AS:
        return (
            f"tcr_el1 is {tcr:#x}: the model knows granules of 4 KiB (TG0 0, TG1 2), and "
            f"nothing above bit 36"
        )
    return None


def unmodelled_pstate(pstate: int) -> str | None:
    """Why the model cannot go on with this PSTATE or SPSR, or None."""
    if pstate & 0xF not in _MODES or pstate & 0x10:
        return f"the guest leaves EL1 (pstate {pstate:#x})"
    if pstate & ~(_DAIF | _NZCV | 0xF):
        return (
            f"pstate is {pstate:#x}: its bits beside mode, DAIF and NZCV are of single steps "
            f"or of extensions"
        )
    return None
