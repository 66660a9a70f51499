"""arm64: the accesses that are not aligned as a CPU of silicon asks.

With the MMU off every data access is to Device memory, and with it on what the guest's tables call
so; there each element must be aligned to its size (Arm ARM, B2.7.2 and the pseudocode of
AArch64.S1Translate); with SCTLR_EL1.A so it is everywhere, and exclusives, atomics and ordered
accesses must be aligned in Normal memory too (but for FEAT_LSE2). With SCTLR_EL1.SA a base of SP
must be a multiple of 16. The guest then takes an exception of its own, before stage 2 is looked at.
QEMU up to 7.2 checks none of it, and so carries the access out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Callable

from kvmscen.sent.undecoded.decode import decode
from kvmscen.sent.undecoded.emulate import address_of
from kvmscen.sent.undecoded.forms import Form, Unemulated

ZVA = 0xD50B7420  # dc zva, without its register
M, A, SA = 1 << 0, 1 << 1, 1 << 3  # of SCTLR_EL1
_QUAD = 16


def misaligned(word: int, read: Callable[[str], int], device: Callable[[int], bool]) -> str | None:
    """What is wrong with the access of the instruction `word` at pc, before it is carried out; None
    where nothing is.

    `read` gives registers by name, `sp` the one in use; `device` says whether the guest's tables
    call the memory at a virtual address Device memory, and is asked only where the MMU is on.
    """
    sctlr = read("sctlr_el1")
    by_sp, align = needs(word)
    if by_sp and sctlr & SA and read("sp") % _QUAD:
        return stack(read("sp"))
    form = _form(word)
    if form is None or (align == 1 and word & ~0x1F != ZVA):
        return None
    address = address_of(form, read)
    mmu = "the MMU off" if not sctlr & M else "the MMU on, to what its tables call Device memory"
    if word & ~0x1F == ZVA:
        wrong = not sctlr & M or device(address)
        return f"dc zva with {mmu}: a CPU of silicon takes an alignment fault" if wrong else None
    if not address % align:
        return None
    if sctlr & M and sctlr & A:
        why = "with SCTLR_EL1.A set"
    elif not sctlr & M or device(address):
        why = f"with {mmu}"
    elif form.status or form.monitor or form.kind in ("cas", "atomic") or _ordered(word):
        why = "by an exclusive, atomic or ordered instruction"
    else:
        return None
    return f"an unaligned access to {address:#x} {why}: a CPU of silicon takes an alignment fault"


def stack(sp: int) -> str:
    """What is said of an access by an SP that is no multiple of 16."""
    return f"an access by sp, which is {sp:#x}: a CPU of silicon takes an SP alignment fault"


@lru_cache(maxsize=4096)
def needs(word: int) -> tuple[bool, int]:
    """Whether an access has SP as its base, and the alignment in bytes that it asks for; (False, 1)
    of what makes none.
    """
    form = _form(word)
    if form is None or form.kind == "none":
        return False, 1
    return form.base == "sp", _unit(word, form)


def _unit(word: int, form: Form) -> int:
    if word & 0xBF000000 == 0x0C000000:
        # ld1 to st4 of multiple structures: a Part may be several elements of 1 << size bytes.
        return 1 << (word >> 10 & 3)
    # Exclusives and compare-and-swap of a pair are one access.
    if form.status or form.monitor or form.kind == "cas":
        return sum(part.size for part in form.parts)
    return max((part.size for part in form.parts), default=1)


def _ordered(word: int) -> bool:
    """ldar, stlr, ldlar, stllr, ldapr, ldapur and stlur."""
    return (
        word & 0x3FA00000 == 0x08800000
        or word & 0x3FFFFC00 == 0x38BFC000
        or word & 0x3F200C00 == 0x19000000
    )


def _form(word: int) -> Form | None:
    try:
        return decode(word)
    except Unemulated:
        return None
