"""arm64: the accesses that are not aligned as a CPU of silicon asks, which Unicorn lets pass.

With the MMU off every data access is to Device memory, and with it on what the guest's tables call so; there each element must
be aligned to its size (Arm ARM, B2.7.2 and the pseudocode of AArch64.S1Translate); with SCTLR_EL1.A so it is everywhere, and
exclusives, atomics and ordered accesses must be aligned in Normal memory too (but for FEAT_LSE2). With SCTLR_EL1.SA a base of
SP must be a multiple of 16. The guest then takes an exception of its own, before stage 2 is looked at. QEMU up to 7.2 checks
none of it, so what happens depends on the host.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from unicorn import arm64_const as const
from unicorn import unicorn_const as uc_const
from unicorn.unicorn_py3 import unicorn as binding

from kvmscen.arch.arm64_decode import decode
from kvmscen.arch.arm64_emulate import address_of
from kvmscen.arch.arm64_forms import Form, Unemulated
from kvmscen.model.arm64.state import SA, A, M
from kvmscen.model.arm64.system import ZVA

_QUAD = 16


class Alignment:
    """Looks at each access to the slots; `report` is called with what is wrong, and the access then counts for nothing."""

    def __init__(
        self,
        engine: Any,
        word: Callable[[int], int],
        read: Callable[[str], int],
        device: Callable[[int], bool],
        report: Callable[[str], None],
    ) -> None:
        # Not the engine itself: its hooks hold this object.
        self._word, self._read, self._device, self._report = word, read, device, report
        # Reading a register through the binding takes longer than all else here.
        self._raw = binding.uclib.uc_reg_read
        self._handle = engine._uch
        self._pc = ctypes.c_uint64()
        self._sp = ctypes.c_uint64()
        self._pc_at, self._sp_at = ctypes.byref(self._pc), ctypes.byref(self._sp)
        engine.hook_add(uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE, self._on_access)

    def _on_access(self, engine: Any, access: int, address: int, size: int, value: int, data: Any) -> None:
        self._raw(self._handle, const.UC_ARM64_REG_PC, self._pc_at)
        by_sp, align = needs(self._word(self._pc.value))
        if by_sp:
            self._raw(self._handle, const.UC_ARM64_REG_SP, self._sp_at)
            if self._sp.value % _QUAD and self._read("sctlr_el1") & SA:
                self._report(self.stack())
                return
        if address % size or (align > size and address % align):
            wrong = self.wrong(self._pc.value)
            if wrong is not None:
                self._report(wrong)

    def stack(self) -> str:
        """What is said of SP."""
        return f"an access by sp, which is {self._read('sp'):#x}: a CPU of silicon takes an SP alignment fault"

    def wrong(self, pc: int) -> str | None:
        """What is wrong with the access of the instruction at `pc`, before it is carried out; None where nothing is."""
        word, sctlr = self._word(pc), self._read("sctlr_el1")
        by_sp, align = needs(word)
        if by_sp and sctlr & SA and self._read("sp") % _QUAD:
            return self.stack()
        form = _form(word)
        if form is None or (align == 1 and word & ~0x1F != ZVA):
            return None
        address = address_of(form, self._read)
        mmu = "the MMU off" if not sctlr & M else "the MMU on, to what its tables call Device memory"
        if word & ~0x1F == ZVA:
            device = not sctlr & M or self._device(address)
            return f"dc zva with {mmu}: a CPU of silicon takes an alignment fault" if device else None
        if not address % align:
            return None
        if sctlr & M and sctlr & A:
            why = "with SCTLR_EL1.A set"
        elif not sctlr & M or self._device(address):
            why = f"with {mmu}"
        elif form.status or form.monitor or form.kind in ("cas", "atomic") or is_ordered(word):
            why = "by an exclusive, atomic or ordered instruction"
        else:
            return None
        return f"an unaligned access to {address:#x} {why}: a CPU of silicon takes an alignment fault"


def is_ordered(word: int) -> bool:
    """ldar, stlr, ldlar, stllr, ldapr, ldapur and stlur."""
    return word & 0x3FA00000 == 0x08800000 or word & 0x3FFFFC00 == 0x38BFC000 or word & 0x3F200C00 == 0x19000000


def _form(word: int) -> Form | None:
    try:
        return decode(word)
    except Unemulated:
        return None


@lru_cache(maxsize=4096)
def needs(word: int) -> tuple[bool, int]:
    """Whether an access has SP as its base, and the alignment in bytes that it asks for; (False, 1) of what makes none."""
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
